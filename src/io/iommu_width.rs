//! How many bits an IOVA may have, as far as the kernel shows it.
//!
//! Source: Linux `drivers/iommu/intel/iommu.c` (`cap_show`, `__iommu_calculate_agaw`, `prepare_domain_attach_device`
//! and since 6.12 `paging_domain_alloc`, whose `gaw` becomes the end of the aperture), Intel VT-d specification 4.1,
//! section 11.4.2 (capability register). A domain of first-stage tables has one bit less; the kernel does not show
//! which it will be.

#[cfg(feature = "cli")]
use std::collections::BTreeMap;
use std::path::Path;

use super::file::read_word;
use crate::host::limits;

/// The width of the page tables that the bits of SAGAW mean, the lowest first: 2 to 5 levels.
const TABLE_WIDTHS: [u32; 4] = [30, 39, 48, 57];

/// The width of the widest of these units of VT-d (`dmar0`); `None` unless all tell.
pub(super) fn widest(class: &Path, units: &[String]) -> Option<u32> {
    units.iter().map(|unit| of_unit(&class.join(unit))).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The PCI functions behind those that are known not to be the widest, and their widths.
#[cfg(feature = "cli")]
pub(super) fn narrower(class: &Path, units: &[String]) -> BTreeMap<String, u32> {
    let widest = widest(class, units);
    let mut by_device = BTreeMap::new();
    for unit in units.iter().map(|unit| class.join(unit)) {
        let Some(bits) = of_unit(&unit).filter(|&bits| Some(bits) != widest) else { continue };
        // `iommu_device_link` in Linux `drivers/iommu/iommu-sysfs.c`.
        for device in std::fs::read_dir(unit.join("devices")).into_iter().flatten().flatten() {
            by_device.insert(device.file_name().to_string_lossy().into_owned(), bits);
        }
    }
    by_device
}

/// The width of the unit of VT-d that the PCI function in this folder of sysfs is behind.
pub(super) fn of_function(function: &Path) -> Option<u32> {
    of_unit(&function.join("iommu"))
}

fn of_unit(unit: &Path) -> Option<u32> {
    let register = read_word(&unit.join("intel-iommu/cap"))?;
    width(u64::from_str_radix(register.trim_start_matches("0x"), 16).ok()?)
}

/// The lesser of the widest address (MGAW, bits 21:16, less one) and the deepest page table (SAGAW, bits 12:8).
fn width(capability: u64) -> Option<u32> {
    let widest = u32::try_from(capability >> 16 & 0x3f).ok()? + 1;
    let mut tables = TABLE_WIDTHS.iter().enumerate().filter(|&(bit, _)| capability >> (8 + bit) & 1 == 1);
    Some(*tables.next_back()?.1.min(&widest)).filter(|bits| limits::IOMMU_BITS.contains(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers as `dmesg` shows them: `DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap
    /// 19e2ff0505e`; the last one translates by first-stage tables only.
    #[test]
    fn the_register_tells_the_width() {
        for (capability, bits) in [
            (0x1c0_000c_4066_0462, Some(39)),
            (0xd2_008c_4066_0462, Some(39)),
            (0x8d2_078c_106f_0466, Some(48)),
            (0x19ed_008c_4078_0c66, Some(57)),
            (0x8d2_0780_106f_0066, None),
            // An address of one bit.
            (0x8d2_078c_1040_0466, None),
        ] {
            assert_eq!(width(capability), bits, "{capability:#x}");
        }
    }

    /// What is behind which unit, the kernel shows in `/sys/class/iommu/dmar*/devices`.
    #[cfg(feature = "cli")]
    #[test]
    fn units_of_several_widths_bind_the_functions_behind_them() {
        let class = std::env::temp_dir().join(format!("iova-preflight-dmar-{}", std::process::id()));
        let unit = |name: &str, cap: &str, device: &str| {
            std::fs::create_dir_all(class.join(name).join("intel-iommu")).expect("a folder");
            std::fs::create_dir_all(class.join(name).join("devices").join(device)).expect("a folder");
            std::fs::write(class.join(name).join("intel-iommu/cap"), cap).expect("a file");
            name.to_owned()
        };
        let (narrow, wide) =
            (unit("dmar0", "1c0000c40660462\n", "0000:00:02.0"), unit("dmar1", "8d2078c106f0466\n", "0000:41:00.0"));
        let by_device: BTreeMap<String, u32> = [("0000:00:02.0".to_owned(), 39)].into();
        let both = [narrow.clone(), wide.clone()];
        assert_eq!((widest(&class, &both), narrower(&class, &both)), (Some(48), by_device.clone()));
        assert_eq!((widest(&class, &both[1..]), narrower(&class, &both[1..]).len()), (Some(48), 0));
        // A unit that does not tell may be a wider one.
        let one_is_mute = [narrow, unit("dmar2", "", "0000:81:00.0")];
        assert_eq!((widest(&class, &one_is_mute), narrower(&class, &one_is_mute)), (None, by_device));
        assert_eq!(widest(&class, &[]), None);
        std::fs::remove_dir_all(class).expect("removed");
    }
}
