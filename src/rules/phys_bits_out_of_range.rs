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
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "outside 32 to 52"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: a CPU can have 32 to 52 physical address bits, and the domain asks \
             for fewer or more.",
    )],
    cause: &[Text(
        "`<maxphysaddr mode='emulate' bits='…'/>` has a number that no x86 CPU has. Often the size of the \
             memory, or the number of virtual address bits (48 or 57), was meant. libvirt refuses a number above \
             the host's, but passes on one that is too small.",
    )],
    history: &[Text(
        "The page tables of x86-64 can hold 52 bits. QEMU 7.2 and 10.0 check both ends. 11.1 checks only the \
             lower one, with another message, and aborts under KVM with more than 52 bits.",
    )],
    errors: &[
        ErrorText::qemu("at start", "phys-bits should be between 32 and 52  (but is 31)"),
        ErrorText::qemu("the same in QEMU 11.1", "phys-bits should be at least 32 (but is 31)"),
    ],
    fix: &[
        Text("Set the bits that the memory map needs, or the host's:"),
        shared::FIX_IT,
        Xml("<maxphysaddr mode='passthrough'/>"),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -cpu EPYC,phys-bits=31"),
    ],
    background: &[Topic::PhysBits, Topic::Looking],
};
