//! `phys-bits-ignored`.

use super::Block::{Text, Xml};
use super::{ErrorText, Page, Program, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "phys-bits-ignored",
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain asks for a number of physical address bits with `<maxphysaddr>`, and the guest gets another one. \
         It starts; the setting is not what whoever wrote it believes.",
    )],
    cause: &[
        Text(
            "`mode='emulate' bits='…'` becomes QEMU's `phys-bits`. With `host-phys-bits=on` QEMU overrides that by \
             the host's number, and it is on for CPU mode `host-passthrough` and `maximum` under KVM and for every \
             CPU with the machine types of RHEL and CentOS and with Ubuntu's types that end in `-hpb`.",
        ),
        Text(
            "`mode='passthrough'` needs KVM: without it there are no bits of the host to pass on. A CPU without long \
             mode has a fixed width. A libvirt older than 8.7 drops the element, and one older than 9.3 drops \
             `limit`.",
        ),
    ],
    history: &[Text(
        "`<maxphysaddr>` came with libvirt 8.7, its attribute `limit` with 9.3. libvirt passes `phys-bits` on \
         whatever the CPU mode, and QEMU, which has two properties that contradict each other then, takes the host's \
         and warns.",
    )],
    errors: &[ErrorText {
        by: Program::Qemu,
        when: "a warning in the guest's log",
        text: "Host physical bits (48) does not match phys-bits property (40)",
    }],
    fix: &[
        Text("For fewer bits than the host's with `host-passthrough`, say `limit` (libvirt 9.3):"),
        Xml("<cpu mode='host-passthrough'>\n\
             \x20 <maxphysaddr mode='passthrough' limit='42'/>\n\
             </cpu>"),
        Text(
            "or take CPU mode `host-model`, where `emulate` counts. Or leave the element out: what the guest has is \
             what the finding says.",
        ),
    ],
    verify: &[shared::COMMAND_LINE[0], shared::COMMAND_LINE[1], shared::BITS[0], shared::BITS[1]],
};
