//! `phys-bits-out-of-range`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::cpu::{CpuRefusal, MAX_PHYS_BITS, MIN_PHYS_BITS};

pub(super) const RULE: Rule =
    Rule { id: "phys-bits-out-of-range", summary: "QEMU refuses to start: phys-bits is outside 32 to 52", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(Err(CpuRefusal::OutOfRange(bits))) = guest.cpu else { return };
    let domain = guest.domain;
    let width = domain.cpu.as_ref().and_then(|cpu| cpu.maxphysaddr.as_ref());
    let span = width.map_or(domain.span, |width| width.bits.map_or(width.span, |bits| bits.span));
    let message = format!(
        "QEMU refuses to start: phys-bits should be between {MIN_PHYS_BITS} and {MAX_PHYS_BITS}  (but is {bits})"
    );
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "not a width a CPU can have"));
}
