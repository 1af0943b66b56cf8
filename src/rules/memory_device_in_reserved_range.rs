//! `memory-device-in-reserved-range`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::Finding;
use crate::guest::Guest;
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "memory-device-in-reserved-range",
    summary: "a plugged memory device lies in a range reserved by the host's IOMMU",
    by: Refuser::Vfio,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Ok(plugged) = &guest.plugged else { return };
    for device in plugged {
        for hit in guest.in_reserved(device.range) {
            let what = format!("the {} at {:#x}", device.kind.name(), device.range.start);
            let span = device.origin.span();
            findings.push(collision::finding(
                guest,
                RULE.id,
                &what,
                hit,
                span,
                format!("takes up {}", text::range(device.range)),
            ));
        }
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "A DIMM, NVDIMM, virtio-mem or virtio-pmem device of the guest lies where the host's IOMMU does not \
             accept DMA mappings. With a VFIO or vDPA device the guest does not start; without one this is a \
             warning.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "Memory devices come after RAM, in a region as large as `<maxMemory>` allows, plus 1 GiB per slot. So \
             even a guest with little RAM reaches the range if it has much room for more. Either QEMU placed the \
             device there, or the domain asks for that address (`<address type='dimm' base='…'/>`), which libvirt \
             stores once a device has been placed.",
        ),
    ],
    history: &[],
    errors: &[
        shared::VFIO_MAP,
        ErrorText::qemu(
            "at start",
            "vfio 0000:00:10.0: failed to setup container for group 3: memory listener \
             initialization failed: Region memdimm0: vfio_dma_map(0x55700ca779a0, \
             0xfd00000000, 0x8000000, 0x7fdc61400000) = -22 (Invalid argument)",
        ),
    ],
    fix: &[
        Text(
            "Use a machine type of 7.1 or newer, which moves the region above 1 TiB, and move or remove the \
             device's fixed address. `fix` does both:",
        ),
        shared::FIX_IT,
        shared::NEW_MACHINE,
        Xml("<memory model='dimm'>\n\
             \x20 <target>\n\
             \x20   <size unit='GiB'>8</size>\n\
             \x20   <node>0</node>\n\
             \x20 </target>\n\
             \x20 <!-- no base: QEMU chooses the address -->\n\
             \x20 <address type='dimm' slot='0'/>\n\
             </memory>"),
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
