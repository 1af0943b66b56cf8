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
        finding = finding.with_label(maximum, "the room there is");
    }
    findings.push(finding);
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: one of its memory devices (DIMM, NVDIMM, virtio-mem, virtio-pmem) has no \
         place in the region for memory devices, or not the one it asks for.",
    )],
    cause: &[
        Text(
            "The region holds what `<maxMemory>` leaves room for beyond the initial memory. A device that is larger \
             than what is left, or an address (`base`) outside the region, taken by another device or not a multiple \
             of the device's alignment, is refused. So is a size that is not a multiple of it: the huge page or, of \
             anonymous memory, 2 MiB.",
        ),
        Text(
            "An address that used to fit stops fitting when the region moves: with a machine type of 7.1 or newer and \
             a vCPU of vendor AuthenticAMD it starts above 1 TiB once the map reaches 1012 GiB. libvirt writes the \
             address of a device into the domain, where it survives the change of the machine type.",
        ),
    ],
    history: &[shared::QEMU],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "no room is left",
            text: "not enough space, currently 0x0 in use of total space for memory devices 0xc0000000",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the address is outside the region",
            text: "can't add memory device [0x8080000000:0x200000000], usable range for memory devices \
                   [0x17f80000000:0x8400000000]",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the address is taken",
            text: "address range conflicts with memory device id='dimm0'",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the address is not a multiple of the alignment",
            text: "address must be aligned to 0x200000 bytes",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the size is not a multiple of the alignment",
            text: "backend memory size must be multiple of 0x200000",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the gaps between devices are too small",
            text: "could not find position in guest address space for memory device - memory fragmented due to \
                   alignments",
        },
    ],
    fix: &[
        Text(
            "Without a fixed address QEMU finds a place; `fix` leaves it out, or moves it by as much as the region \
             moves:",
        ),
        shared::FIX_IT,
        Xml("<address type='dimm' slot='0'/>"),
        Text("Where the room is too small, a larger `<maxMemory>` (`virsh edit NAME`)."),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("Where devices lie in a guest that starts without the one in question:"),
        Shell(
            "virsh qemu-monitor-command NAME --hmp 'info memory-devices'\n\
             virsh qemu-monitor-command NAME --hmp 'info mtree' | grep device-memory",
        ),
    ],
};
