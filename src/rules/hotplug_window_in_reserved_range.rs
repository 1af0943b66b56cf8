//! `hotplug-window-in-reserved-range`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::Finding;
#[cfg(feature = "cli")]
use crate::finding::Severity;
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "hotplug-window-in-reserved-range",
    summary: "memory that is hot-plugged later can land in a range reserved by the host's IOMMU",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(window) = guest.layout().and_then(|layout| layout.device_memory) else { return };
    findings.extend(guest.in_reserved(window).filter_map(|hit| collision::in_window(guest, RULE.id, window, hit)));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The guest starts. Memory that is plugged into it later can land in a range reserved by the host's IOMMU, and \
         then QEMU does not refuse the new memory, it aborts: the running guest is gone, and libvirt shows it as \
         crashed.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU keeps a window for memory devices behind RAM: what `<maxMemory>` adds to the initial memory, and a \
             GiB for each slot. A part of it that no device takes up yet lies in the range. When memory is plugged \
             there, VFIO cannot map it for the devices the guest has, and QEMU knows no way back.",
        ),
    ],
    history: &[shared::KERNEL, shared::QEMU],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "in the guest's log, before it aborts",
            text: "vfio_dma_map(0x5633698a3a90, 0xfd00000000, 0x8000000, 0x7f7515600000) = -22 (Invalid argument)",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the last line before the registers",
            text: "qemu: hardware error: vfio: DMA mapping failed, unable to continue",
        },
        ErrorText {
            by: Program::Libvirt,
            when: "from virsh attach-device",
            text: "error: Unable to read from monitor: Connection reset by peer",
        },
    ],
    fix: &[
        Text(
            "A smaller `<maxMemory>`, or fewer slots, so that the window ends below 1012 GiB; or a machine type of \
             7.1 or newer, which moves the window above 1 TiB. `iova-preflight fix` does neither for a warning alone: \
             the guest starts as it is.",
        ),
        shared::NEW_MACHINE,
        Text("Until then, do not hot-plug memory into the guest while it has a passthrough device."),
    ],
    verify: &[
        shared::RESERVED[0],
        shared::RESERVED[1],
        shared::RESERVED[2],
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("and where memory devices lie in a guest that runs:"),
        Shell("virsh qemu-monitor-command NAME --hmp 'info memory-devices'"),
    ],
};
