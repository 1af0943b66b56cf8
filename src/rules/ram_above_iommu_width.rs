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
            "A part of the guest's memory (RAM or a memory device) has addresses that the host's IOMMU cannot \
             translate. With a VFIO or vDPA device the guest does not start: all of its memory has to be mapped \
             for the device, and the kernel refuses.",
        ),
        Text(
            "Without such a device this is a warning: the guest starts now, and fails once it gets one. It is also \
             a warning if only the window for memory hot-plug reaches there: memory plugged into it later aborts \
             the running guest.",
        ),
    ],
    cause: &[
        Text(
            "An IOMMU translates addresses up to a certain width. Many Intel client CPUs have an IOMMU of 39 bits \
             (512 GiB), although the CPU has 46. So has the `intel-iommu` that QEMU emulates for a virtual host, \
             unless told otherwise (48 bits with machine types of 9.2 and newer). VFIO refuses addresses above the \
             width, and the kernel does not list them among the reserved ranges.",
        ),
        Text(
            "QEMU puts RAM in one piece from 4 GiB up, followed by the window for memory hot-plug, which includes \
             1 GiB per slot. For an AMD vCPU it moves all of that above 1 TiB if the map would reach 1012 GiB; \
             that is above 39 bits as well.",
        ),
        Text(
            "A host can have several Intel IOMMUs of different widths. The one that the device is behind counts; \
             for an unknown device, only addresses above the widest are reported. AMD's IOMMUs have at least 48 \
             bits, and their width is not read.",
        ),
    ],
    history: &[Text(
        "Since Linux 5.11 (commit c062db039f40), VFIO knows the width of an Intel IOMMU and refuses with -22. \
             Before, the IOMMU's driver refused with -14 (Bad address), and the kernel's log has `iommu width (39) \
             is not sufficient for the mapped address`. Either way the guest does not start.",
    )],
    errors: &[
        shared::VFIO_MAP,
        ErrorText::qemu(
            "at start",
            "vfio 0000:00:10.0: failed to setup container for group 1: memory listener \
             initialization failed: Region pc.ram: vfio_dma_map(0x564ee0bdcbc0, 0x100000000, \
             0x9580000000, 0x7e9182400000) = -22 (Invalid argument)",
        ),
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "Give the guest less memory: with 39 bits, up to 510 GiB on q35 and 511 GiB on i440fx, room for hot-plug \
             included. Or use a host with a wider IOMMU. If the host is a virtual machine itself, give it a wider \
             `intel-iommu`, in its definition on the outer host:",
        ),
        Xml("<iommu model='intel'>\n\
             \x20 <driver caching_mode='on' aw_bits='48'/>\n\
             </iommu>"),
        Text(
            "There is no automatic fix: `iova-preflight fix` does not take RAM away. If RAM is above the width only \
             because QEMU moved it above 1 TiB, a smaller `<maxMemory>`, fewer slots or a smaller `<pcihole64>` \
             brings it back.",
        ),
    ],
    verify: &[
        Text(
            "The width of an Intel IOMMU is the smaller of two numbers in this register: bits 21 to 16 plus one, \
             and the deepest page table (bits 12 to 8: 39, 48, 57 bits). `iommu` leads to the one that the device \
             is behind:",
        ),
        Shell(
            "cat /sys/bus/pci/devices/0000:41:00.0/iommu/intel-iommu/cap\n\
             iova-preflight host | grep address_bits",
        ),
        shared::MAP[0],
        shared::MAP[1],
    ],
    background: &[Topic::Layout, Topic::RefusedMapping, Topic::Looking],
};
