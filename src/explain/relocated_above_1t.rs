//! `relocated-above-1t`.

use super::Block::{Shell, Text};
use super::{Page, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "relocated-above-1t",
    severities: &[Severity::Note],
    meaning: &[Text(
        "Good to know: QEMU moves all of the guest's RAM above 4 GiB to 1 TiB, so that nothing lies in the range that \
         AMD hosts reserve. This is what is meant to happen, and the guest is well.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU moves RAM if the end of its memory map, the 64-bit PCI hole included, would be 1012 GiB or more: a \
             q35 guest from 979 GiB of RAM on, an i440fx guest from 1010 GiB on. Room for hot-plug counts like RAM, \
             and each slot takes a GiB, so that `<maxMemory>` alone can move the memory of a small guest. Whether the \
             guest has a passthrough device, and whether the host reserves the range at all, makes no difference.",
        ),
    ],
    history: &[
        shared::QEMU,
        Text(
            "Two things have been seen to come of it. Addresses above 1 TiB need at least 41 physical address bits \
             (see phys-bits-too-low). And NVIDIA drivers in Windows guests have been reported to give up with Code 43 \
             when RAM lies up there.",
        ),
    ],
    errors: &[],
    fix: &[Text(
        "Nothing. If a driver in the guest does not bear it, keep the map below 1012 GiB: a smaller `<maxMemory>`, \
         fewer slots, or a smaller `<pcihole64>`. With `virsh edit NAME`; the guest picks it up at its next cold \
         start.",
    )],
    verify: &[
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        Text("In a Linux guest:"),
        Shell("sudo grep 'System RAM' /proc/iomem"),
    ],
};
