//! How many bits an IOVA may have, as far as the kernel shows it.
//!
//! Source: Linux `drivers/iommu/intel/iommu.c` (`cap_show`, `__iommu_calculate_agaw`), Intel VT-d specification 4.1, section
//! 11.4.2 (capability register).

use std::path::Path;

use super::file::read_word;

/// The width of the page tables that the bits of SAGAW stand for, the lowest first: 2 to 5 levels.
const TABLE_WIDTHS: [u32; 4] = [30, 39, 48, 57];

/// The width of the narrowest of these units of VT-d (`dmar0`); `None` unless all tell.
pub(super) fn intel(class: &Path, units: &[String]) -> Option<u32> {
    let unit = |unit: &String| {
        let register = read_word(&class.join(unit).join("intel-iommu/cap"))?;
        width(u64::from_str_radix(register.trim_start_matches("0x"), 16).ok()?)
    };
    units.iter().map(unit).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// The lesser of the widest address (MGAW, bits 21:16, less one) and the deepest page table (SAGAW, bits 12:8).
fn width(capability: u64) -> Option<u32> {
    let widest = u32::try_from(capability >> 16 & 0x3f).ok()? + 1;
    let mut tables = TABLE_WIDTHS.iter().enumerate().filter(|&(bit, _)| capability >> (8 + bit) & 1 == 1);
    Some(*tables.next_back()?.1.min(&widest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers as `dmesg` shows them: `DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e`;
    /// the last one translates by first-stage tables only.
    #[test]
    fn the_register_tells_the_width() {
        for (capability, bits) in [
            (0x1c0_000c_4066_0462, Some(39)),
            (0xd2_008c_4066_0462, Some(39)),
            (0x8d2_078c_106f_0466, Some(48)),
            (0x19ed_008c_4078_0c66, Some(57)),
            (0x8d2_0780_106f_0066, None),
        ] {
            assert_eq!(width(capability), bits, "{capability:#x}");
        }
    }
}
