//! `memory-backend-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "memory-backend-refused",
    summary: "QEMU or KVM refuses a piece of the guest's memory: its pages, its size or its slots",
    by: Refuser::Qemu,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some((error, origin)) = guest.backend_refusal else { return };
    let message = format!("QEMU refuses to start: {error}");
    findings.push(Finding::new(RULE.id, Severity::Error, message, origin.span(), "refused"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: it cannot make a piece of its memory, or KVM does not take the piece.",
    )],
    cause: &[
        Text(
            "Memory on huge pages has to consist of whole pages. QEMU 10 and later refuse RAM, a NUMA cell, a DIMM or a \
             virtio-mem device that does not; with `<source type='memfd'/>` every version does. No version takes less \
             memory than one page, or a virtio-mem block that is smaller than one.",
        ),
        Text(
            "KVM gives each piece of memory a slot, and a slot has at most 2^31 - 1 pages: RAM above 4 GiB, a NUMA cell \
             or a memory device of 8 TiB or more does not fit. QEMU does not split it.",
        ),
        Text(
            "`dynamicMemslots='yes'` of virtio-mem needs a machine type of 8.1 or newer; with memory in files or on huge \
             pages 7.0 will do.",
        ),
    ],
    history: &[Text("libvirt passes all of these on; QEMU looks at them when the guest starts.")],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "not whole pages, QEMU 10 and later",
            text: "backend 'memory-backend-file' memory size must be multiple of 2 MiB",
        },
        ErrorText {
            by: Program::Qemu,
            when: "not whole pages, in a memfd",
            text: "failed to resize memfd to 68157440: Invalid argument",
        },
        ErrorText {
            by: Program::Qemu,
            when: "less than a page",
            text: "memory size 0x20000000 must be equal to or larger than page size 0x40000000",
        },
        ErrorText {
            by: Program::Qemu,
            when: "a virtio-mem block less than a page",
            text: "'block-size' property has to be at least the page size (0x40000000)",
        },
        ErrorText {
            by: Program::Qemu,
            when: "8 TiB or more in one piece",
            text: "kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION failed, slot=1, start=0x100000000, \
                   size=0x80000000000: Invalid argument",
        },
        ErrorText {
            by: Program::Qemu,
            when: "dynamicMemslots on an old machine type",
            text: "'dynamic-memslots' property set to 'on' requires 'unplugged-inaccessible' to be 'on'",
        },
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`: make each size a multiple of the huge page, or choose a smaller page; share 8 TiB \
             or more out over several NUMA cells, each of less than 8 TiB.",
        ),
        Xml("<cpu>\n  <numa>\n    <cell id='0' cpus='0-63' memory='6' unit='TiB'/>\n    \
             <cell id='1' cpus='64-127' memory='6' unit='TiB'/>\n  </numa>\n</cpu>"),
        Text(
            "`iova-preflight fix` does not choose: how large a guest is, is not for a program to say. For \
             `dynamicMemslots` it finds a machine type that is new enough, if the host's QEMU has one and the policy \
             allows it.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The pages that the host has:"),
        Shell("ls /sys/kernel/mm/hugepages"),
    ],
};
