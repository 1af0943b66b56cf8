//! `ram-in-reserved-range`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::Finding;
use crate::guest::Guest;
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "ram-in-reserved-range",
    summary: "guest RAM lies in a range reserved by the host's IOMMU",
    by: Refuser::Vfio,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(layout), Some(span)) = (guest.layout(), guest.ram_span()) else { return };
    for ram in layout.ram() {
        for hit in guest.in_reserved(ram) {
            let cells = guest.domain.map_or(guest.line.nodes.len(), |domain| domain.numa_cells.len());
            let all = if cells > 1 { format!("the RAM of {cells} cells") } else { "RAM".to_owned() };
            let label = format!("{all} takes up {}", text::range(ram));
            findings.push(collision::finding(guest, RULE.id, "guest RAM", hit, span, label));
        }
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[
        Text(
            "A part of the guest's RAM lies in a range reserved by the host's IOMMU. With a VFIO or vDPA device \
             the guest does not start: such a device may write to all of RAM, so all of RAM has to be mapped for \
             it, and the kernel refuses.",
        ),
        Text(
            "Without such a device this is a warning: the guest starts now, and fails once it gets one. Mediated \
             devices (vGPU) map single pages and are accepted.",
        ),
    ],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU puts RAM in one piece from 4 GiB up. From about 1010 GiB of RAM on, it reaches the range, unless \
             QEMU moves it above 1 TiB. QEMU does that since 7.1, only with a machine type of 7.1 or newer, and \
             only if the vCPU's vendor is AuthenticAMD. `iova-preflight check` says which of these is missing.",
        ),
        Text(
            "Under KVM the vCPU's vendor is the host's, whatever the CPU model, unless `<model vendor_id='…'>` \
             sets another. Without KVM it is the model's.",
        ),
    ],
    history: &[],
    errors: &[
        shared::VFIO_MAP,
        ErrorText::qemu(
            "at start",
            "vfio 0000:00:10.0: failed to setup container for group 3: memory listener \
             initialization failed: Region pc.ram: vfio_dma_map(0x55d33bf0d4e0, 0x100000000, \
             0x11280000000, 0x7e8991600000) = -22 (Invalid argument)",
        ),
        ErrorText::qemu(
            "the same for a NUMA cell, started by libvirt",
            "vfio 0000:00:10.0: failed to setup container for group 3: memory listener \
             initialization failed: Region ram-node0: vfio_dma_map(0x55ea7f51cc50, \
             0x100000000, 0x11280000000, 0x7e3935600000) = -22 (Invalid argument)",
        ),
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "Use a machine type of 7.1 or newer, and enough physical address bits for the map that then reaches \
             beyond 1 TiB:",
        ),
        shared::FIX_IT,
        shared::NEW_MACHINE,
        Xml("<type arch='x86_64' machine='pc-q35-7.1'>hvm</type>\n\
             \n\
             <cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='emulate' bits='42'/>\n\
             </cpu>"),
        Text(
            "A guest that must keep its machine type has to stay below the range: up to 1010 GiB of memory on q35 \
             and 1011 GiB on i440fx, memory devices included.",
        ),
    ],
    verify: &[
        shared::REFUSED_ADDRESS,
        shared::RESERVED[0],
        shared::RESERVED[1],
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
    ],
    background: &[Topic::HyperTransport, Topic::Layout, Topic::RefusedMapping, Topic::Looking],
};
