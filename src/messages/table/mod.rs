//! The messages that are known: what is searched for, where it comes from, and how it is read.

use super::cause::Cause;
use super::clue::{Clue, HYPERTRANSPORT, INTERRUPTS, MappedMemory, NARROWEST_IOMMU, Spot, call};
use crate::address::GpaRange;

/// Who prints a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// QEMU.
    Qemu,
    /// libvirt.
    Libvirt,
    /// The kernel of the host.
    HostKernel,
    /// The kernel of the guest, or NVIDIA's driver in it.
    GuestKernel,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

impl Speaker {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Libvirt => "libvirt",
            Self::HostKernel => "the host's kernel",
            Self::GuestKernel => "the guest's kernel",
            Self::CloudHypervisor => "Cloud Hypervisor",
        }
    }
}

/// A message that is known.
#[derive(Debug)]
pub struct Wording {
    /// The words that are searched for.
    pub words: &'static str,
    /// Words of which one has to be on the same line; empty if none has to.
    pub with: &'static [&'static str],
    /// Who prints it.
    pub by: Speaker,
    /// As it is printed, in the forms it has had, with the numbers of an example.
    pub forms: &'static [&'static str],
    /// Where it comes from: function, file and versions.
    pub source: &'static str,
    /// What it says; `None` if it only looks like the message.
    pub(super) read: fn(&Spot<'_>) -> Option<Meaning>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A cause.
    Cause(Cause, Clue),
    /// A DMA mapping that failed, with its addresses.
    Mapping(Clue),
    /// The error of a DMA mapping, which a line with the addresses follows, and whether iommufd gave it.
    MappingError { error: Option<i32>, iommufd: bool },
    /// The mapping before was that of a BAR.
    WasBar,
    /// QEMU ends because of the mapping before: it was not that of a BAR.
    WasFatal,
    /// Another message says the same.
    Echo(Cause),
}

/// What a message means whatever its numbers are.
macro_rules! says {
    ($cause:ident) => {
        |spot| Some(Meaning::Cause(Cause::$cause, Clue { device: spot.device(), ..Clue::default() }))
    };
}

/// What a message means, by its error.
macro_rules! says_with_error {
    ($cause:ident) => {
        |spot| {
            let clue = Clue { device: spot.device(), error: spot.error(), ..Clue::default() };
            Some(Meaning::Cause(Cause::$cause, clue))
        }
    };
}

/// The cause of a failed mapping of `range`.
pub(super) fn cause_of_mapping(clue: &Clue) -> Cause {
    let bar = clue.memory == Some(MappedMemory::Bar);
    match (clue.error, clue.range) {
        (Some(-12), _) => Cause::LockedMemory,
        (Some(-14), _) if bar => Cause::BarNotMappable,
        (Some(-14), _) => Cause::MemoryNotPinned,
        (Some(-17), _) => Cause::AddressMapped,
        (Some(-28), _) => Cause::MappingsExhausted,
        (Some(-98), _) => Cause::AddressInUse,
        (Some(-22), Some(range)) => refused_address(range, clue.memory),
        _ => Cause::MappingRefused,
    }
}

/// Why the kernel does not accept the addresses: vfio_iommu_iova_dma_valid in drivers/vfio/vfio_iommu_type1.c and
/// iopt_check_iova in drivers/iommu/iommufd/io_pagetable.c refuse what is not wholly inside the IOMMU's aperture or
/// touches a reserved region.
fn refused_address(range: GpaRange, memory: Option<MappedMemory>) -> Cause {
    if range.overlaps(HYPERTRANSPORT) {
        match memory {
            Some(MappedMemory::Ram) => Cause::RamInReservedRange,
            Some(MappedMemory::Device) => Cause::MemoryDeviceInReservedRange,
            Some(MappedMemory::Bar) | None => Cause::BarInReservedRange,
        }
    } else if range.overlaps(INTERRUPTS) || range.end < NARROWEST_IOMMU {
        Cause::MappingRefused
    } else if memory == Some(MappedMemory::Bar) || range.start > HYPERTRANSPORT.end && memory != Some(MappedMemory::Ram)
    {
        Cause::BarAboveIommuWidth
    } else {
        Cause::RamAboveIommuWidth
    }
}

mod cloud_hypervisor;
mod fragment;
mod kernel;
mod libvirt;
mod qemu;

/// Every message that is known.
pub fn wordings() -> impl Iterator<Item = &'static Wording> {
    [qemu::WORDINGS, libvirt::WORDINGS, kernel::WORDINGS, cloud_hypervisor::WORDINGS].into_iter().flatten()
}

/// Words of messages that people type if they do not paste the whole line.
pub(super) fn fragments() -> impl Iterator<Item = &'static Wording> {
    fragment::FRAGMENTS.iter()
}
