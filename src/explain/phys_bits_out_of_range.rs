//! `phys-bits-out-of-range`.

use super::Block::{Shell, Text, Xml};
use super::{ErrorText, Page, Program, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "phys-bits-out-of-range",
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
    errors: &[ErrorText {
        by: Program::Qemu,
        when: "at start",
        text: "phys-bits should be between 32 and 52  (but is 31)",
    }],
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
