//! `phys-bits-not-configurable`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::cpu::CpuRefusal;

pub(super) const RULE: Rule = Rule {
    id: "phys-bits-not-configurable",
    summary: "QEMU refuses to start: phys-bits is given for a CPU without long mode",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(Err(CpuRefusal::NotConfigurable)) = guest.cpu else { return };
    let domain = guest.domain;
    let cpu = domain.cpu.as_ref();
    let span = cpu.and_then(|cpu| cpu.maxphysaddr.as_ref()).map_or(domain.span, |width| width.span);
    let message = "QEMU refuses to start: phys-bits is not user-configurable in 32 bit; the CPU has no long mode";
    let mut finding = Finding::new(RULE.id, Severity::Error, message, span, "the width of a 32-bit CPU is fixed");
    if let Some(model) = cpu.and_then(|cpu| cpu.model.as_ref()) {
        finding = finding.with_label(model.span, "no long mode");
    }
    findings.push(finding);
}
