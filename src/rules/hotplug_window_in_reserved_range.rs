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
    summary: "memory hot-plugged later can land in a range reserved by the host's IOMMU",
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
        "The guest starts, but memory hot-plugged later can land in a range reserved by the host's IOMMU. QEMU \
             then does not refuse the new memory: it aborts, and the running guest is lost. libvirt shows it as \
             crashed.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU reserves a window for memory devices after RAM: `<maxMemory>` minus the initial memory, plus 1 \
             GiB per slot. An unused part of this window lies in the range. VFIO cannot map memory plugged there \
             for the guest's devices, and QEMU has no way to undo the hot-plug.",
        ),
    ],
    history: &[],
    errors: &[
        ErrorText::qemu(
            "in the guest's log, before it aborts",
            "vfio_dma_map(0x5633698a3a90, 0xfd00000000, 0x8000000, 0x7f7515600000) = -22 \
             (Invalid argument)",
        ),
        ErrorText::qemu(
            "the last line before the registers",
            "qemu: hardware error: vfio: DMA mapping failed, unable to continue",
        ),
        ErrorText::libvirt("from virsh attach-device", "error: Unable to read from monitor: Connection reset by peer"),
    ],
    fix: &[
        Text("Until it is fixed, do not hot-plug memory into the guest while it has a passthrough device."),
        Text(
            "Use a smaller `<maxMemory>` or fewer slots, so that the window ends below 1012 GiB, or a machine type \
             of 7.1 or newer, which moves the window above 1 TiB. `iova-preflight fix` does neither for this \
             warning alone, because the guest starts as it is.",
        ),
        shared::NEW_MACHINE,
    ],
    verify: &[
        shared::RESERVED[0],
        shared::RESERVED[1],
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("Where the memory devices of a running guest are:"),
        Shell("virsh qemu-monitor-command NAME --hmp 'info memory-devices'"),
    ],
    background: &[Topic::HyperTransport, Topic::Layout, Topic::Looking],
};
