//! `phys-bits-out-of-range`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::cpu::{CpuRefusal, MAX_PHYS_BITS, MIN_PHYS_BITS};

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-out-of-range",
    summary: "QEMU refuses to start: phys-bits is outside 32 to 52",
    by: Refuser::Qemu,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(Err(CpuRefusal::OutOfRange(bits))) = guest.cpu else { return };
    let width = guest.maxphysaddr();
    let width = width.map(|width| width.bits.map_or(width.span, |bits| bits.span));
    let span = guest.raw_width_span().or(width).unwrap_or(guest.whole());
    let message = format!(
        "QEMU refuses to start: phys-bits should be between {MIN_PHYS_BITS} and {MAX_PHYS_BITS}  (but is {bits})"
    );
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "not a width a CPU can have"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: a CPU has 32 to 52 physical address bits, and the domain asks for fewer or \
         more.",
    )],
    cause: &[Text(
        "`<maxphysaddr mode='emulate' bits='…'/>` with a number that no x86 CPU has; often the size of the memory, or \
         the number of virtual address bits, 48 or 57, was meant. libvirt catches what is above the host's bits and \
         passes on what is too small.",
    )],
    history: &[Text(
        "52 bits are what the page tables of x86-64 can hold. Of the versions of QEMU that were measured, 7.2 and \
         10.0 check both ends. 11.1 checks the lower one only, in other words (`phys-bits should be at least 32 (but \
         is …)`), and aborts under KVM with more than 52.",
    )],
    errors: &[
        ErrorText { by: Program::Qemu, when: "at start", text: "phys-bits should be between 32 and 52  (but is 31)" },
        ErrorText {
            by: Program::Qemu,
            when: "the same in QEMU 11.1",
            text: "phys-bits should be at least 32 (but is 31)",
        },
    ],
    fix: &[
        Text("The bits the memory map needs, or those of the host:"),
        shared::FIX_IT,
        Xml("<maxphysaddr mode='passthrough'/>"),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -cpu EPYC,phys-bits=31"),
    ],
};
