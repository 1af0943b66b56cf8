//! `phys-bits-too-low`.

use super::Block::{Shell, Text, Xml};
use super::{ErrorText, Page, Program, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "phys-bits-too-low",
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "QEMU refuses to start the guest: its memory map reaches further than its CPU can address. This needs no \
         passthrough device.",
    )],
    cause: &[
        shared::DEFAULT_BITS,
        Text(
            "What counts: RAM, the room of `<maxMemory>` with a GiB for each slot, and the 64-bit PCI hole behind it, \
             32 GiB on q35. If that reaches 1012 GiB and the vCPU's vendor is AuthenticAMD, all of it moves above 1 \
             TiB first. So slots and room that are never used can be what stops a small guest.",
        ),
        Text(
            "The first number of QEMU's message is the last address the vCPU reaches, the second the last one the map \
             needs.",
        ),
    ],
    history: &[shared::PHYS_BITS_CHECK, shared::QEMU],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "at start",
            text: "Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)",
        },
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "More bits, as few as the map needs, so that the guest can still migrate to hosts that have fewer; or all \
             of the host's:",
        ),
        shared::FIX_IT,
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='emulate' bits='42'/>\n\
             </cpu>"),
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='passthrough'/>\n\
             </cpu>"),
        Text(
            "`mode='emulate'` has no effect on `host-passthrough`, `maximum` and the machine types of RHEL, which \
             take the host's bits anyway. If the host itself has too few, less memory, fewer slots, a smaller \
             `<maxMemory>` or a smaller `<pcihole64>` helps.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("What the host has, and what a guest that runs was given:"),
        shared::BITS[1],
        Text("The refusal itself, without libvirt and without a TiB of memory:"),
        Shell(
            "qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine pc-q35-7.2 -cpu EPYC -m \
             size=1G,slots=1,maxmem=1200G",
        ),
    ],
};
