//! What a host does not accept as the target of a DMA mapping: the ranges that its IOMMU reserves, and what lies above
//! the addresses that it translates. Both are the same for VFIO: it maps what lies inside the IOMMU's aperture and
//! outside every reserved region (`vfio_iommu_type1_attach_group` and `vfio_iommu_iova_dma_valid` in Linux
//! `drivers/vfio/vfio_iommu_type1.c`), and iommufd does the same (`iopt_table_add_domain` and
//! `iopt_table_enforce_dev_resv_regions` in `drivers/iommu/iommufd/io_pagetable.c`).

use super::{Host, Reserved, ReservedKind};
use crate::address::GpaRange;
use crate::version::Version;

/// The first kernel whose VFIO refuses to map what is reserved (commit 9b77e5c79840,
/// `drivers/vfio/vfio_iommu_type1.c`). Before, it maps it, and DMA to it gets lost.
pub(crate) const FIRST_KERNEL_TO_REFUSE_RESERVED: Version = Version::new(5, 4);

/// The first kernel whose VFIO knows the width of an Intel IOMMU (commit c062db039f40, `domain_update_iommu_cap` in
/// `drivers/iommu/intel/iommu.c`), and answers -EINVAL. Before, the IOMMU's driver refuses the mapping itself with
/// -EFAULT ("iommu width (39) is not sufficient for the mapped address", `intel_iommu_map`).
pub(crate) const FIRST_KERNEL_TO_KNOW_WIDTHS: Version = Version::new(5, 11);

/// A range of IOVAs that the host does not map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmappable {
    /// The range.
    pub range: GpaRange,
    /// The reason.
    pub why: Why,
}

/// Why a host does not map a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The IOMMU reserves it.
    Reserved(ReservedKind),
    /// It lies above this many bits, which are all that the IOMMU translates.
    Width(u32),
}

impl Unmappable {
    /// Everything above `bits` address bits; `None` for 64 or more, above which there is nothing.
    pub fn above(bits: u32) -> Option<Self> {
        let start = 1_u64.checked_shl(bits)?;
        Some(Self { range: GpaRange { start, end: u64::MAX }, why: Why::Width(bits) })
    }

    /// The reserved range, if it is one.
    pub fn reserved(self) -> Option<Reserved> {
        match self.why {
            Why::Reserved(kind) => Some(Reserved { range: self.range, kind }),
            Why::Width(_) => None,
        }
    }

    /// The address bits of the IOMMU, if the range lies above them.
    pub fn width(self) -> Option<u32> {
        match self.why {
            Why::Width(bits) => Some(bits),
            Why::Reserved(_) => None,
        }
    }
}

impl From<Reserved> for Unmappable {
    fn from(reserved: Reserved) -> Self {
        Self { range: reserved.range, why: Why::Reserved(reserved.kind) }
    }
}

impl Host {
    /// Whether the IOMMU's reserved regions are known. An active one reserves at least the MSI window
    /// (`drivers/iommu/amd/iommu.c`, `drivers/iommu/intel/iommu.c`); kernels before 4.11 do not show it.
    pub fn knows_reserved(&self) -> bool {
        !self.reserved.is_empty() || self.iommu == Some(super::Iommu::None)
    }

    /// What VFIO does not map for all of `devices`, PCI addresses, in one container; for a device that is not known if
    /// there are none. Sorted, without doubles; of several widths the smallest.
    pub fn unmappable<'d>(&self, devices: impl IntoIterator<Item = &'d str>) -> Vec<Unmappable> {
        let mut devices = devices.into_iter().peekable();
        let (mut reserved, mut bits) = (Vec::new(), None);
        if devices.peek().is_none() {
            (reserved, bits) = (self.reserved_for_any(), self.iommu_bits);
        }
        for device in devices {
            reserved.extend(self.reserved_for(device));
            bits = bits.into_iter().chain(self.iommu_bits_for(device)).min();
        }
        reserved.sort_unstable();
        reserved.dedup();
        reserved.into_iter().map(Unmappable::from).chain(bits.and_then(Unmappable::above)).collect()
    }

    /// How many bits the IOMMU that `device` is behind translates; of a device that is not known, the widest.
    pub(crate) fn iommu_bits_for(&self, device: &str) -> Option<u32> {
        self.iommu_bits_by_device.get(device).copied().or(self.iommu_bits)
    }

    /// The ranges that VFIO does not map for `device`, a PCI address.
    ///
    /// Those of the device's own group where the host knows it; otherwise those of every group but the `direct` ones,
    /// which belong to one device each. `direct-relaxable` ranges are mapped (`vfio_iommu_resv_exclude` in
    /// `drivers/vfio/vfio_iommu_type1.c`).
    pub(crate) fn reserved_for(&self, device: &str) -> Vec<Reserved> {
        match self.reserved_by_device.get(device) {
            Some(own) => own.iter().filter(|r| r.kind != ReservedKind::DirectRelaxable).copied().collect(),
            None => self.reserved_for_any(),
        }
    }

    /// The ranges that VFIO does not map for an unknown device.
    pub(crate) fn reserved_for_any(&self) -> Vec<Reserved> {
        self.reserved.iter().filter(|r| matches!(r.kind, ReservedKind::Reserved | ReservedKind::Msi)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_group_binds_a_known_device() {
        let region = |start, kind| Reserved { range: GpaRange { start, end: start + 1 }, kind };
        let host = Host {
            reserved: vec![region(0, ReservedKind::Direct), region(8, ReservedKind::Reserved)],
            reserved_by_device: [(
                "0000:00:10.0".to_owned(),
                vec![region(16, ReservedKind::Direct), region(32, ReservedKind::DirectRelaxable)],
            )]
            .into(),
            ..Host::default()
        };
        let direct: Unmappable = region(16, ReservedKind::Direct).into();
        let reserved: Unmappable = region(8, ReservedKind::Reserved).into();
        assert_eq!(host.unmappable(["0000:00:10.0"]), [direct]);
        assert_eq!(host.unmappable(["0000:00:11.0"]), [reserved]);
        assert_eq!(host.unmappable([]), [reserved]);
        assert_eq!(host.unmappable(["0000:00:10.0", "0000:00:11.0"]), [reserved, direct]);
    }

    /// All devices of a guest are in one container, which the narrowest unit binds.
    #[test]
    fn the_unit_of_a_known_device_and_the_narrowest_of_several_count() {
        let host = Host {
            iommu_bits: Some(48),
            iommu_bits_by_device: [("0000:00:02.0".to_owned(), 39)].into(),
            ..Host::default()
        };
        let bits = |host: &Host, devices: &[&str]| {
            let all = host.unmappable(devices.iter().copied());
            all.into_iter().find_map(Unmappable::width)
        };
        assert_eq!(bits(&host, &["0000:00:02.0"]), Some(39));
        assert_eq!(bits(&host, &["0000:41:00.0"]), Some(48));
        assert_eq!(bits(&host, &["0000:41:00.0", "0000:00:02.0"]), Some(39));
        assert_eq!(bits(&host, &[]), Some(48));
        let unknown = Host { iommu_bits: None, ..host };
        assert_eq!(bits(&unknown, &["0000:41:00.0", "0000:00:02.0"]), Some(39));
        assert_eq!(bits(&unknown, &[]), None);
    }

    #[test]
    fn above_64_bits_there_is_nothing() {
        assert_eq!(Unmappable::above(64), None);
        assert_eq!(Unmappable::above(63).map(|above| above.range.start), Some(1 << 63));
    }
}
