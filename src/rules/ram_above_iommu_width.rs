//! `ram-above-iommu-width`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::Finding;
#[cfg(feature = "cli")]
use crate::finding::Severity;
use crate::guest::Guest;
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "ram-above-iommu-width",
    summary: "guest memory lies above what the host's IOMMU can address",
    by: Refuser::Vfio,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(layout) = guest.layout() else { return };
    if let Some(span) = guest.ram_span() {
        for ram in layout.ram() {
            if let Some(hit) = guest.above_width(ram) {
                let label = format!("RAM takes up {}", text::range(ram));
                findings.push(collision::finding(guest, RULE.id, "guest RAM", hit, span, label));
            }
        }
    }
    for device in guest.plugged.iter().flatten() {
        if let Some(hit) = guest.above_width(device.range) {
            let what = format!("the {} at {:#x}", device.kind.name(), device.range.start);
            let label = format!("takes up {}", text::range(device.range));
            findings.push(collision::finding(guest, RULE.id, &what, hit, device.origin.span(), label));
        }
    }
    if let Some(window) = layout.device_memory {
        let hit = guest.above_width(window);
        findings.extend(hit.and_then(|hit| collision::in_window(guest, RULE.id, window, hit)));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[
        Text(
            "A part of the guest's memory, RAM or a DIMM or the like, has addresses with more bits than the host's IOMMU \
             translates. With a VFIO or vDPA device the guest does not start: all of its memory has to be mapped for the \
             device, and the kernel refuses.",
        ),
        Text(
            "Without such a device it is a warning: the guest starts, and fails on the day that it gets one. It is also a \
             warning if only the window for memory hot-plug reaches there: memory that is plugged into it later aborts the \
             running guest.",
        ),
    ],
    cause: &[
        Text(
            "An IOMMU translates addresses up to a width. That of many Intel client processors is 39 bits, 512 GiB, \
             although the CPU has 46; an `intel-iommu` that QEMU emulates for a virtual host has 39 unless it is told \
             otherwise (48 since QEMU 9.2's machine types). VFIO maps nothing above, and the kernel does not list it among \
             the reserved ranges.",
        ),
        Text(
            "QEMU puts RAM in one piece from 4 GiB upwards, and the window for memory hot-plug after it, with a GiB for \
             each slot. For an AMD vCPU it moves all of it above 1 TiB if the map would reach 1012 GiB, which is above 39 \
             bits as well.",
        ),
        Text(
            "A host can have several Intel units of different widths. What counts is the unit that the device is behind; of \
             a device that is not known, only what is above the widest. AMD's have at least 48 bits, and the tool does not \
             read which.",
        ),
    ],
    history: &[Text(
        "Since Linux 5.11 (commit c062db039f40) VFIO knows the width of an Intel IOMMU and refuses with -22. Before, the \
         IOMMU's driver refused with -14 (Bad address) and the line `iommu width (39) is not sufficient for the mapped \
         address` in the kernel's log. Either way the guest does not start.",
    )],
    errors: &[
        shared::VFIO_MAP,
        ErrorText {
            by: Program::Qemu,
            when: "at start",
            text: "vfio 0000:00:10.0: failed to setup container for group 1: memory listener initialization failed: \
                   Region pc.ram: vfio_dma_map(0x564ee0bdcbc0, 0x100000000, 0x9580000000, 0x7e9182400000) = -22 \
                   (Invalid argument)",
        },
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "Less memory: an IOMMU of 39 bits reaches 510 GiB of RAM on q35 and 511 GiB on i440fx, room for hot-plug \
             included. Or a host with a wider IOMMU. On a virtual host, its `intel-iommu` can have more:",
        ),
        Xml("<iommu model='intel'>\n\
             \x20 <driver caching_mode='on' aw_bits='48'/>\n\
             </iommu>"),
        Text(
            "No rewrite of a guest makes its RAM smaller, so that `iova-preflight fix` has none. RAM that lies there only \
             because QEMU has moved it above 1 TiB comes back with a smaller `<maxMemory>`, fewer slots or a smaller \
             `<pcihole64>`.",
        ),
    ],
    verify: &[
        Text(
            "What an Intel IOMMU addresses: the smaller of bits 21 to 16 of this register plus one, and its deepest page \
             table (bits 12 to 8: 39, 48, 57 bits). The device is behind the unit that `iommu` leads to:",
        ),
        Shell(
            "cat /sys/bus/pci/devices/0000:41:00.0/iommu/intel-iommu/cap\n\
             iova-preflight host | grep address_bits",
        ),
        shared::MAP[0],
        shared::MAP[1],
    ],
};
