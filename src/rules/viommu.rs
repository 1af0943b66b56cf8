//! What the rules about virtual IOMMUs have in common.

use super::page::Block::{self, Shell, Text, Xml};
use crate::command_line::{Passthrough, PassthroughKind};
use crate::guest::Guest;
use crate::qemu::viommu::{Viommu, ViommuKind};

/// The virtual IOMMU of this kind, and the first device that VFIO passes through behind it; `None` if a device may
/// bypass it.
pub(super) fn of<'g>(guest: &'g Guest<'_>, kind: ViommuKind) -> Option<(&'g Viommu, &'g Passthrough)> {
    beside(guest, kind).filter(|(viommu, _)| !viommu.may_be_bypassed)
}

/// The virtual IOMMU of this kind, and the first device that VFIO passes through, behind it or not.
pub(super) fn beside<'g>(guest: &'g Guest<'_>, kind: ViommuKind) -> Option<(&'g Viommu, &'g Passthrough)> {
    let viommu = guest.viommu.as_ref().filter(|viommu| viommu.kind == kind)?;
    let device = guest.passthrough.iter().find(|device| device.kind == PassthroughKind::VfioPci)?;
    Some((viommu, device))
}

/// How a virtual IOMMU and VFIO work together.
pub(super) const MAPPED_AT_START: Block = Text(
    "As long as the guest does not use its virtual IOMMU, VFIO maps all of its memory, as without one. So RAM in a reserved \
     range, or above the width of the host's IOMMU, still stops the guest. Once the guest uses it, VFIO maps what the guest \
     maps, at addresses that the guest chooses.",
);

/// The virtual IOMMU with which a device works anywhere.
pub(super) const AS_IT_WORKS: Block = Xml("<iommu model='intel'>\n\
     \x20 <driver caching_mode='on' aw_bits='39'/>\n\
     </iommu>");

/// How to look up both widths.
pub(super) const SHOWN: [Block; 2] = [
    Text("What libvirt passes to QEMU, and the width of the host's IOMMU:"),
    Shell(
        "virsh domxml-to-native qemu-argv --domain NAME | tr ' ' '\\n\
         ' | grep -A1 -E '^-(machine|device)$'\n\
         iova-preflight host | grep address_bits",
    ),
];
