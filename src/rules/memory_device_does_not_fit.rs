//! `memory-device-does-not-fit`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::memory_device::MemoryDeviceKind;

pub(crate) const RULE: Rule = Rule {
    id: "memory-device-does-not-fit",
    summary: "QEMU refuses to start: a memory device does not fit into the device memory region",
    by: Refuser::Qemu,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Err((index, error)) = &guest.plugged else { return };
    let kind =
        guest.line.devices.get(*index).and_then(MemoryDeviceKind::of).map_or("memory device", MemoryDeviceKind::name);
    let message = format!("QEMU refuses to start: the {kind} does not fit: {error}");
    let span = guest.device_span(*index);
    let mut finding = Finding::new(RULE.id, Severity::Error, message, span, "does not fit");
    if let Some(maximum) = guest.maxmem_span() {
        finding = finding.with_label(maximum, "this is all the room");
    }
    findings.push(finding);
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: one of its memory devices (DIMM, NVDIMM, virtio-mem, virtio-pmem) \
             does not fit into the region for memory devices, or not at the address that the domain sets.",
    )],
    cause: &[
        Text(
            "The region is as large as `<maxMemory>` allows beyond the initial memory. QEMU refuses a device that \
             is larger than what is left, or whose address (`base`) is outside the region, already in use or not a \
             multiple of the device's alignment. The size must be a multiple of the alignment, too: the huge page \
             size or, for anonymous memory, 2 MiB.",
        ),
        Text(
            "An address that used to fit may stop fitting when the machine type changes: with 7.1 or newer and an \
             AMD vCPU, the region is above 1 TiB as soon as the memory map would reach 1012 GiB. libvirt stores \
             the address of each device in the domain, where it survives the change.",
        ),
    ],
    history: &[],
    errors: &[
        ErrorText::qemu(
            "no room is left",
            "not enough space, currently 0x0 in use of total space for memory devices 0xc0000000",
        ),
        ErrorText::qemu(
            "the address is outside the region",
            "can't add memory device [0x8080000000:0x200000000], usable range for memory \
             devices [0x17f80000000:0x8400000000]",
        ),
        ErrorText::qemu("the address is already in use", "address range conflicts with memory device id='dimm0'"),
        ErrorText::qemu("the address is not a multiple of the alignment", "address must be aligned to 0x200000 bytes"),
        ErrorText::qemu(
            "the size is not a multiple of the alignment",
            "backend memory size must be multiple of 0x200000",
        ),
        ErrorText::qemu(
            "the gaps between devices are too small",
            "could not find position in guest address space for memory device - memory \
             fragmented due to alignments",
        ),
    ],
    fix: &[
        Text("Let QEMU choose the address: `fix` removes it, or moves it as far as the region moves."),
        shared::FIX_IT,
        Xml("<address type='dimm' slot='0'/>"),
        Text("If there is not enough room, set a larger `<maxMemory>` (`virsh edit NAME`)."),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("Where memory devices are in a guest that starts without the refused one:"),
        Shell(
            "virsh qemu-monitor-command NAME --hmp 'info memory-devices'\n\
             virsh qemu-monitor-command NAME --hmp 'info mtree' | grep device-memory",
        ),
    ],
    background: &[Topic::Layout, Topic::Looking],
};
