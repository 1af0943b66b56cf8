//! `phys-bits-above-host`.

use super::Block::{Text, Xml};
use super::{ErrorText, Page, Program, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "phys-bits-above-host",
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[
        Text(
            "An error where the domain asks for more physical address bits than the host has, with `<maxphysaddr \
             mode='emulate' bits='…'/>`: libvirt refuses to start it.",
        ),
        Text(
            "A warning where the guest has more bits than the host by default and its memory map makes use of them: \
             it starts, and accesses to the memory that the host cannot address fail in the running guest.",
        ),
    ],
    cause: &[Text(
        "A domain that was made for another host, or bits that were guessed too high. A CPU with memory encryption \
         switched on (AMD SME, Intel TME) can have fewer bits left than its data sheet says. The warning is about \
         hosts of 36 or 39 bits, as of some desktop and laptop processors: QEMU gives the guest 40 all the same.",
    )],
    history: &[Text(
        "libvirt reads `<maxphysaddr>` since 8.7 and compares it with the host, whose bits it knows once somebody has \
         asked it for its capabilities; a guest that is started before that is not refused. QEMU alone does not \
         refuse: it warns that the bits of host and guest differ.",
    )],
    errors: &[
        ErrorText {
            by: Program::Libvirt,
            when: "at start",
            text: "The number of virtual CPU address bits cannot exceed the number supported by the host CPU",
        },
        ErrorText {
            by: Program::Qemu,
            when: "a warning in the guest's log",
            text: "Host physical bits (48) does not match phys-bits property (52)",
        },
    ],
    fix: &[
        Text("The bits the memory map needs, if the host has them, or those of the host:"),
        shared::FIX_IT,
        Xml("<maxphysaddr mode='passthrough'/>"),
        Text("If the map needs more than the host has, only less memory helps."),
    ],
    verify: &[shared::BITS[0], shared::BITS[1]],
};
