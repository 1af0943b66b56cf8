//! `memory-backend-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "memory-backend-refused",
    summary: "QEMU or KVM refuses a memory backend: its page size, its size or its slots",
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
    meaning: &[Text("The guest does not start: QEMU cannot create a piece of its memory, or KVM does not accept it.")],
    cause: &[
        Text(
            "Memory on huge pages must consist of whole pages. QEMU 10 and newer refuse RAM, NUMA cells, DIMMs and \
             virtio-mem devices of other sizes; with `<source type='memfd'/>` every version does. No version \
             accepts memory, or a virtio-mem block, that is smaller than one page.",
        ),
        Text(
            "KVM needs a slot for each piece of memory, and a slot has at most 2^31 - 1 pages. So RAM above 4 GiB, \
             a NUMA cell or a memory device must be smaller than 8 TiB; QEMU does not split it.",
        ),
        Text(
            "`dynamicMemslots='yes'` of virtio-mem needs a machine type of 8.1 or newer, or of 7.0 or newer with \
             memory in files or on huge pages.",
        ),
    ],
    history: &[Text("libvirt accepts all of these; QEMU checks them when the guest starts.")],
    errors: &[
        ErrorText::qemu(
            "not whole pages, QEMU 10 and newer",
            "backend 'memory-backend-file' memory size must be multiple of 2 MiB",
        ),
        ErrorText::qemu("not whole pages, in a memfd", "failed to resize memfd to 68157440: Invalid argument"),
        ErrorText::qemu(
            "less than a page",
            "memory size 0x20000000 must be equal to or larger than page size 0x40000000",
        ),
        ErrorText::qemu(
            "a virtio-mem block of less than a page",
            "'block-size' property has to be at least the page size (0x40000000)",
        ),
        ErrorText::qemu(
            "8 TiB or more in one piece",
            "kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION failed, slot=1, \
             start=0x100000000, size=0x80000000000: Invalid argument",
        ),
        ErrorText::qemu(
            "dynamicMemslots on an old machine type",
            "'dynamic-memslots' property set to 'on' requires 'unplugged-inaccessible' to be \
             'on'",
        ),
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`, make each size a multiple of the huge page size, or choose a smaller page. \
             Split 8 TiB or more into several NUMA cells of less than 8 TiB each:",
        ),
        Xml("<cpu>\n\
             \x20 <numa>\n\
             \x20   <cell id='0' cpus='0-63' memory='6' unit='TiB'/>\n\
             \x20   <cell id='1' cpus='64-127' memory='6' unit='TiB'/>\n\
             \x20 </numa>\n\
             </cpu>"),
        Text(
            "`iova-preflight fix` does not change sizes. For `dynamicMemslots` it sets a machine type that is new \
             enough, if the host's QEMU has one and the policy allows it.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The huge page sizes of the host:"),
        Shell("ls /sys/kernel/mm/hugepages"),
    ],
    background: &[Topic::Layout, Topic::Looking],
};
