//! Messages of Cloud Hypervisor.

use super::*;

fn error_number(spot: &Spot<'_>) -> Option<Meaning> {
    let error = i32::try_from(spot.number("(Error(")?).ok()?.checked_neg();
    Some(Meaning::MappingError { error, iommufd: false })
}

/// Every one that is known.
pub(super) static WORDINGS: &[Wording] = &[
    Wording {
        words: "IommuDmaMap(Error(",
        with: &[],
        by: Speaker::CloudHypervisor,
        forms: &["Error booting VM: VmBoot(DeviceManager(VfioDmaMap(IommuDmaMap(Error(22)))))"],
        source: "VfioContainer::vfio_dma_map, crates/vfio-ioctls of rust-vmm",
        read: error_number,
    },
    Wording {
        words: "failed to map an IOVA range to the IOAS",
        with: &[],
        by: Speaker::CloudHypervisor,
        forms: &["Failed to DMA map: failed to map an IOVA range to the IOAS: Bad address (os error 14)"],
        source: "crates/iommufd-ioctls of rust-vmm",
        read: |spot| Some(Meaning::MappingError { error: spot.error(), iommufd: true }),
    },
];
