//! `phys-bits-not-configurable`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::cpu::CpuRefusal;

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-not-configurable",
    summary: "QEMU refuses to start: phys-bits is given for a CPU without long mode",
    by: Refuser::Qemu,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(Err(CpuRefusal::NotConfigurable)) = guest.cpu else { return };
    let width = guest.maxphysaddr().map(|width| width.span);
    let span = guest.raw_width_span().or(width).unwrap_or(guest.whole());
    let message = "QEMU refuses to start: phys-bits is not user-configurable in 32 bit; the CPU has no long mode";
    let mut finding = Finding::new(RULE.id, Severity::Error, message, span, "the width of a 32-bit CPU is fixed");
    if let Some(model) = guest.cpu_element().and_then(|cpu| cpu.model.as_ref()) {
        finding = finding.with_label(model.span, "no long mode");
    }
    findings.push(finding);
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: the domain sets physical address bits for a CPU without long mode, \
             whose width is fixed.",
    )],
    cause: &[Text(
        "A 32-bit CPU has 32 bits, or 36 with PAE or PSE36. Either the CPU model has no long mode (`qemu32`, \
             `kvm32`, `pentium3`, `coreduo` and older ones), or `<feature policy='disable' name='lm'/>` takes it \
             away.",
    )],
    history: &[Text(
        "QEMU 7.2 to 11.1, all versions that were measured, refuse it. libvirt can set phys-bits since 8.7, \
             and does so for any model.",
    )],
    errors: &[ErrorText::qemu("at start", "phys-bits is not user-configurable in 32 bit")],
    fix: &[
        Text("Remove `<maxphysaddr>` with `virsh edit NAME`, or choose a 64-bit CPU model:"),
        Shell("virsh domcapabilities --virttype kvm --arch x86_64 | grep \"usable='yes'\""),
        Text(
            "A guest with more memory than 36 bits can address needs a 64-bit CPU. `iova-preflight fix` does not \
             choose one.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -cpu pentium3,phys-bits=40"),
    ],
    background: &[Topic::PhysBits, Topic::Looking],
};
