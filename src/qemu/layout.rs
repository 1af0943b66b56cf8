//! The guest-physical memory map as QEMU's `pc_memory_init` lays it out.
//!
//! Sources: `hw/i386/pc_q35.c` (`pc_q35_init`), `hw/i386/pc_piix.c` (`pc_init1`) and `hw/i386/pc.c` (`pc_memory_init`,
//! `pc_max_used_gpa`, `pc_pci_hole64_start`, `pc_get_device_memory_range`, `pc_above_4g_end`) of QEMU 7.2 to 11.1.

use serde::Serialize;

use crate::address::{ABOVE_4G_START, AMD_HT_START, GIB, GpaRange, last_address, round_up};
use crate::machine::{Family, MachineType};
use crate::version::Version;

/// Where RAM above 4 GiB starts when it moves (`AMD_ABOVE_1TB_START` in QEMU `hw/i386/pc.c`): the address after the
/// HyperTransport range.
pub const AMD_ABOVE_1TB_START: u64 = 0x100_0000_0000;

/// Default pci-hole64-size of q35 (`Q35_PCI_HOST_HOLE64_SIZE_DEFAULT` in QEMU `hw/pci-host/q35.c`).
pub const Q35_PCI_HOLE64_SIZE: u64 = 32 * GIB;

/// Default pci-hole64-size of i440fx (`DEFAULT_PCI_HOLE64_SIZE` in QEMU `include/hw/pci-host/i440fx.h`).
pub const I440FX_PCI_HOLE64_SIZE: u64 = 2 * GIB;

/// The first QEMU that moves RAM and checks phys-bits (commits 8504f129450b and 1caab5cf86bd).
pub const FIRST_RELOCATING_QEMU: Version = Version::new(7, 1);

/// What QEMU is asked to build.
#[derive(Debug, Clone)]
pub struct LayoutInput<'a> {
    /// The machine type.
    pub machine: &'a MachineType,
    /// Version of the QEMU binary.
    pub qemu: Version,
    /// Whether the vCPU's vendor is AuthenticAMD.
    pub amd: bool,
    /// Whether the vCPU has long mode.
    pub long_mode: bool,
    /// Physical address bits of the vCPU.
    pub phys_bits: u32,
    /// `-m size`, bytes.
    pub ram: u64,
    /// `-m maxmem`, bytes; the same as `ram` if it is not given.
    pub maxmem: u64,
    /// `-m slots`.
    pub slots: u64,
    /// `pci-hole64-size`, bytes, if it is given.
    pub pci_hole64_size: Option<u64>,
    /// `max-ram-below-4g`, bytes, if it is given.
    pub max_ram_below_4g: Option<u64>,
}

/// The map. Ranges are inclusive at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Layout {
    /// Whether RAM above 4 GiB moves to 1 TiB.
    pub relocated: bool,
    /// RAM from address 0.
    pub ram_below_4g: GpaRange,
    /// The rest of RAM, from `above_4g_mem_start`.
    pub ram_above_4g: Option<GpaRange>,
    /// The region that memory devices are plugged into.
    pub device_memory: Option<GpaRange>,
    /// The 64-bit PCI hole; `None` if its size is 0.
    pub pci_hole64: Option<GpaRange>,
    /// Where that hole starts.
    #[serde(skip)]
    pub pci_hole64_start: u64,
    /// Its size in bytes.
    #[serde(skip)]
    pub pci_hole64_size: u64,
    /// The highest address QEMU counts as used (`pc_max_used_gpa`).
    pub max_gpa: u64,
    /// The fewest phys-bits that reach `max_gpa`.
    pub phys_bits_needed: u32,
}

/// Why there is no map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Some address does not fit 64 bits.
    #[error("the memory map does not fit 64-bit addresses")]
    Overflow,
    /// There is no RAM.
    #[error("no memory")]
    NoMemory,
}

impl Layout {
    /// The map QEMU builds, or would build if it did not refuse the phys-bits.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub(crate) fn plan(input: &LayoutInput<'_>) -> Result<Self, LayoutError> {
        let lowmem = lowmem(input);
        let below = GpaRange::with_size(0, input.ram.min(lowmem)).ok_or(LayoutError::NoMemory)?;
        let mut builder = Builder { input, above_size: input.ram.saturating_sub(lowmem), above_start: ABOVE_4G_START };
        let mut relocated = false;
        if input.amd && input.machine.enforces_amd_1tb_hole && input.qemu >= FIRST_RELOCATING_QEMU {
            relocated = builder.max_used_gpa()? >= AMD_HT_START;
        }
        if relocated {
            builder.above_start = AMD_ABOVE_1TB_START;
        }
        let max_gpa = builder.max_used_gpa()?;
        Ok(Self {
            relocated,
            ram_below_4g: below,
            ram_above_4g: GpaRange::with_size(builder.above_start, builder.above_size),
            device_memory: builder.device_memory()?.and_then(|(start, size)| GpaRange::with_size(start, size)),
            pci_hole64: GpaRange::with_size(builder.pci_hole64_start()?, builder.pci_hole64_size()),
            pci_hole64_start: builder.pci_hole64_start()?,
            pci_hole64_size: builder.pci_hole64_size(),
            max_gpa,
            phys_bits_needed: max_gpa.checked_ilog2().map_or(0, |highest| highest.saturating_add(1)),
        })
    }

    /// The largest `-m maxmem` in bytes with which RAM would stay below 1 TiB, with `slots` slots and `ram` bytes of
    /// RAM; `None` if RAM has not moved, or where it moves without any room for memory devices.
    pub fn maxmem_that_stays(&self, ram: u64, slots: u64) -> Option<u64> {
        let above = self.ram_above_4g.filter(|_| self.relocated)?.size()?;
        let end = round_up(ABOVE_4G_START.checked_add(above)?, GIB)?;
        let hole = self.pci_hole64.map_or(Some(0), GpaRange::size)?;
        let room = AMD_HT_START.checked_sub(end.checked_add(hole)?)?;
        // The types that move RAM have a GiB more for every slot.
        let room = room.saturating_sub(slots.checked_mul(GIB)?);
        ram.checked_add(room)
    }

    /// The ranges that hold RAM.
    pub fn ram(&self) -> impl Iterator<Item = GpaRange> {
        std::iter::once(self.ram_below_4g).chain(self.ram_above_4g)
    }
}

/// Where RAM below 4 GiB ends.
fn lowmem(input: &LayoutInput<'_>) -> u64 {
    const Q35_SMALL: u64 = 0xb000_0000;
    const Q35_LARGE: u64 = 2 * GIB;
    const I440FX_SMALL: u64 = 0xe000_0000;
    const I440FX_LARGE: u64 = 3 * GIB;
    // 0 is the same as none.
    let limit = input.max_ram_below_4g.filter(|&limit| limit > 0);
    match input.machine.family {
        Family::Q35 => {
            let lowmem = if input.ram >= Q35_SMALL { Q35_LARGE } else { Q35_SMALL };
            limit.map_or(lowmem, |limit| limit.min(lowmem))
        }
        Family::I440fx => {
            let lowmem = limit.unwrap_or(I440FX_SMALL);
            let aligned = input.ram >= lowmem && input.machine.gigabyte_align();
            if aligned { lowmem.min(I440FX_LARGE) } else { lowmem }
        }
    }
}

struct Builder<'a> {
    input: &'a LayoutInput<'a>,
    above_start: u64,
    above_size: u64,
}

impl Builder<'_> {
    fn above_4g_end(&self) -> Result<u64, LayoutError> {
        self.above_start.checked_add(self.above_size).ok_or(LayoutError::Overflow)
    }

    /// `pc_get_device_memory_range`: start and size in bytes.
    fn device_memory(&self) -> Result<Option<(u64, u64)>, LayoutError> {
        let machine = self.input.machine;
        let Some(mut size) = self.input.maxmem.checked_sub(self.input.ram).filter(|&size| size > 0) else {
            return Ok(None);
        };
        if !machine.has_reserved_memory() {
            return Ok(None);
        }
        let start = round_up(self.above_4g_end()?, GIB).ok_or(LayoutError::Overflow)?;
        if machine.enforce_aligned_dimm() {
            // A GiB for every slot, so that each device can be aligned to one.
            let padding = self.input.slots.checked_mul(GIB).ok_or(LayoutError::Overflow)?;
            size = size.checked_add(padding).ok_or(LayoutError::Overflow)?;
        }
        Ok(Some((start, size)))
    }

    fn pci_hole64_start(&self) -> Result<u64, LayoutError> {
        let start = match self.device_memory()? {
            Some((start, _)) if self.input.machine.broken_reserved_end() => start,
            Some((start, size)) => start.checked_add(size).ok_or(LayoutError::Overflow)?,
            None => self.above_4g_end()?,
        };
        round_up(start, GIB).ok_or(LayoutError::Overflow)
    }

    fn pci_hole64_size(&self) -> u64 {
        self.input.pci_hole64_size.unwrap_or(match self.input.machine.family {
            Family::Q35 => Q35_PCI_HOLE64_SIZE,
            Family::I440fx => I440FX_PCI_HOLE64_SIZE,
        })
    }

    fn max_used_gpa(&self) -> Result<u64, LayoutError> {
        let (input, qemu_8_2) = (self.input, Version::new(8, 2));
        let cpu_limit = last_address(input.phys_bits);
        if input.qemu < qemu_8_2 {
            // A 32-bit CPU has no 64-bit hole; one with PAE was overlooked until 8.2.
            if input.phys_bits <= 32 && input.qemu >= FIRST_RELOCATING_QEMU {
                return Ok(cpu_limit);
            }
        } else if !input.long_mode {
            if input.machine.broken_32bit_mem_addr_check() {
                return Ok(cpu_limit);
            }
            return match self.device_memory()? {
                Some((start, size)) => {
                    GpaRange::with_size(start, size).ok_or(LayoutError::Overflow).map(|range| range.end)
                }
                None => self.above_4g_end()?.checked_sub(1).ok_or(LayoutError::NoMemory),
            };
        }
        // QEMU does not notice that an absurd hole passes 64 bits.
        Ok(self.pci_hole64_start()?.wrapping_add(self.pci_hole64_size()).wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Resolved, resolve};

    fn plan(machine: &str, ram: u64, maxmem: u64, slots: u64, hole: Option<u64>) -> Layout {
        let Resolved::Known(machine) = resolve(machine) else { panic!("{machine} is known") };
        let input = LayoutInput {
            machine: &machine,
            qemu: Version::new(7, 2),
            amd: true,
            long_mode: true,
            phys_bits: 48,
            ram,
            maxmem,
            slots,
            pci_hole64_size: hole,
            max_ram_below_4g: None,
        };
        Layout::plan(&input).expect("fits")
    }

    /// Expected values: where QEMU 7.2, 10.0 and 11.1 put RAM.
    #[test]
    fn relocation_starts_where_qemu_starts_it() {
        for (machine, ram, maxmem, slots, hole, relocated) in [
            ("pc-q35-7.2", 978, 978, 0, None, false),
            ("pc-q35-7.2", 979, 979, 0, None, true),
            ("pc-i440fx-7.2", 1009, 1009, 0, None, false),
            ("pc-i440fx-7.2", 1010, 1010, 0, None, true),
            ("pc-q35-7.2", 4, 960, 18, None, false),
            ("pc-q35-7.2", 4, 960, 19, None, true),
            ("pc-q35-7.2", 900, 900, 0, Some(128 * GIB), true),
            ("pc-i440fx-7.2", 900, 900, 0, Some(128 * GIB), true),
            ("pc-q35-7.0", 979, 979, 0, None, false),
        ] {
            let layout = plan(machine, ram * GIB, maxmem * GIB, slots, hole);
            assert_eq!(layout.relocated, relocated, "{machine} {ram} {maxmem} {slots}");
        }
    }

    /// Expected values: `Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)` of QEMU 7.2, and
    /// `info mtree` of the same guest with enough phys-bits.
    #[test]
    fn a_relocated_guest_needs_the_bits_qemu_asks_for() {
        let layout = plan("pc-q35-7.2", 1200 * GIB, 1200 * GIB, 0, None);
        assert_eq!(layout.max_gpa, 0x233_7fff_ffff);
        assert_eq!(layout.phys_bits_needed, 42);
        assert_eq!(layout.ram_above_4g, Some(GpaRange::inclusive(0x100_0000_0000, 0x22b_7fff_ffff)));
    }

    #[test]
    fn low_memory_ends_where_the_chipset_ends_it() {
        let end = |machine: &str, ram: u64| plan(machine, ram, ram, 0, None).ram_below_4g.end + 1;
        assert_eq!(end("pc-q35-7.2", 0xb000_0000 - (1 << 20)), 0xb000_0000 - (1 << 20));
        assert_eq!(end("pc-q35-7.2", 0xb000_0000), 2 * GIB);
        assert_eq!(end("pc-i440fx-7.2", 0xe000_0000 - (1 << 20)), 0xe000_0000 - (1 << 20));
        assert_eq!(end("pc-i440fx-7.2", 0xe000_0000), 3 * GIB);
        assert_eq!(end("pc-i440fx-1.7", 0xf000_0000), 0xe000_0000);
    }
}
