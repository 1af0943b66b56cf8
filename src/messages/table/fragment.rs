//! Words of messages that people type if they do not paste the whole line.

use super::super::clue::error_in;
use super::*;

/// What a word means, whatever is next to it.
macro_rules! word {
    ($words:literal, $speaker:ident, $cause:ident) => {
        Wording { words: $words, with: &[], by: Speaker::$speaker, forms: &[$words], source: "", read: says!($cause) }
    };
}

/// The meaning of a function or request that maps memory depends on the error printed with it.
macro_rules! maps {
    ($words:literal, $iommufd:literal) => {
        Wording {
            words: $words,
            with: &[],
            by: Speaker::Qemu,
            forms: &[$words],
            source: "",
            read: |spot| Some(Meaning::MappingError { error: error_in(spot.line), iommufd: $iommufd }),
        }
    };
}

/// Searched for only where no message is found, as some of them are part of others.
pub(super) static FRAGMENTS: &[Wording] = &[
    maps!("vfio_dma_map", false),
    maps!("vfio_container_dma_map", false),
    maps!("vfio_legacy_dma_map", false),
    maps!("VFIO_MAP_DMA", false),
    maps!("VFIO_IOMMU_MAP_DMA", false),
    maps!("vhost_vdpa_dma_map", false),
    maps!("IOMMU_IOAS_MAP", true),
    maps!("iommufd_backend_map", true),
    word!("RLIMIT_MEMLOCK", HostKernel, LockedMemory),
    word!("phys-bits too low", Qemu, PhysBitsTooLow),
    word!("KVM_SET_USER_MEMORY_REGION", Qemu, SlotRefused),
    word!("kvm_set_user_memory_region", Qemu, SlotRefused),
    word!(" is 0M @", GuestKernel, BarNotPlaced),
    word!("BAR0 is 0M", GuestKernel, BarNotPlaced),
    word!("BAR1 is 0M", GuestKernel, BarNotPlaced),
    word!("BAR2 is 0M", GuestKernel, BarNotPlaced),
    word!("BAR3 is 0M", GuestKernel, BarNotPlaced),
    word!(": can't assign; no space", GuestKernel, BarNotPlaced),
    word!("(Code 12)", GuestKernel, BarNotPlaced),
    word!("iommu width", HostKernel, AddressAboveIommuWidth),
    word!("host aw-bits", Qemu, ViommuAboveIommuWidth),
    word!("peer-to-peer", Qemu, BarNotMapped),
    word!("IO_PAGE_FAULT", HostKernel, DmaFault),
    word!("RMRR", HostKernel, FirmwareNeedsMapping),
    word!("not viable", Qemu, GroupNotViable),
    word!("allow_unsafe_interrupts", HostKernel, NoInterruptRemapping),
];
