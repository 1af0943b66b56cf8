//! The tables that QEMU makes of the memory map for firmware, and when it cannot make them.
//!
//! Sources: QEMU 7.2 to 11.1, `hw/smbios/smbios.c`, `include/hw/firmware/smbios.h`, `acpi_get_pci_holes`
//! (`hw/i386/acpi-build.c`), `q35_host_get_pci_hole64_end` (`hw/pci-host/q35.c`) and its like in
//! `hw/pci-host/i440fx.c`.

use super::layout::Layout;
use crate::address::{GIB, round_up, total};
use crate::command_line::CommandLine;
use crate::machine::{Family, MachineType};
use crate::version::Version;

/// The first machine type whose 64-bit PCI hole is in ACPI as large as it is asked for (`x-pci-hole64-fix`, off up to
/// 2.10).
const HOLE_IN_ACPI: Version = Version::new(2, 11);

/// The first machine type with a 64-bit SMBIOS entry point by default (`default_smbios_ep_type`), where the QEMU is that
/// new, too.
const SMBIOS_64: Version = Version::new(8, 1);

/// The first machine type with SMBIOS tables made by QEMU (`smbios_legacy_mode` up to 2.0).
const SMBIOS: Version = Version::new(2, 1);

/// The first machine type whose memory is described in larger pieces than 16 GiB (`smbios_memory_device_size`).
const SMBIOS_LARGE_PIECES: Version = Version::new(9, 1);

/// The most bytes of tables behind a 32-bit entry point (`SMBIOS_21_MAX_TABLES_LEN`).
const MAX_TABLES: u64 = 0xffff;

/// A piece of memory in SMBIOS.
const PIECE: u64 = 16 * GIB;

/// Handles between those of the pieces and those of the ranges, and between those of the ranges and the next ones
/// (`T17_BASE`, `T19_BASE`, `T32_BASE`).
const HANDLES_OF_PIECES: u64 = 0x200;
const HANDLES_OF_RANGES: u64 = 0xd00;

/// Why QEMU cannot describe a map to the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// `range_invariant: Assertion …`
    #[error("the 64-bit PCI hole ends beyond 64-bit addresses")]
    HoleWraps,
    /// `SMBIOS 2.1 table length … exceeds 65535`
    #[error("RAM takes {bytes} bytes of SMBIOS tables, but this machine type has room for {MAX_TABLES}")]
    SmbiosTooLong {
        /// Their length.
        bytes: u64,
    },
    /// `Assertion (mem_array_size + offset) < (T32_BASE - T19_BASE) failed`
    #[error("RAM takes more SMBIOS tables than there are numbers for")]
    SmbiosHandles,
}

/// The table that QEMU cannot make, if any.
pub fn refused(
    line: &CommandLine,
    machine: &MachineType,
    layout: &Layout,
    ram: u64,
    qemu: Version,
) -> Option<TableError> {
    let acpi = line.machine.acpi != Some(false) && machine.version >= HOLE_IN_ACPI;
    if acpi && hole_wraps(layout) {
        return Some(TableError::HoleWraps);
    }
    if machine.version < SMBIOS {
        return None;
    }
    let pieces = ram.div_ceil(PIECE);
    let ranges = if layout.ram_above_4g.is_some() { 2 } else { 1 };
    if machine.version < SMBIOS_LARGE_PIECES
        && total([pieces.saturating_sub(HANDLES_OF_PIECES), ranges]) >= HANDLES_OF_RANGES
    {
        return Some(TableError::SmbiosHandles);
    }
    let bytes = smbios(machine, pieces, ranges, line.sockets.max(1));
    let narrow = machine.version < SMBIOS_64 || qemu < SMBIOS_64;
    (narrow && bytes > MAX_TABLES).then_some(TableError::SmbiosTooLong { bytes })
}

/// `range_set_bounds1` wants a range that does not end before it starts.
fn hole_wraps(layout: &Layout) -> bool {
    let Layout { pci_hole64_start: start, pci_hole64_size: size, .. } = *layout;
    // To the next GiB, and past the end to 0: then it ends with the last address.
    let end = round_up(start.wrapping_add(size), GIB).unwrap_or(0);
    end != 0 && end < start
}

/// The length of all tables: of each kind, the fixed part, the strings with their ends, and the end of the strings.
fn smbios(machine: &MachineType, pieces: u64, ranges: u64, sockets: u64) -> u64 {
    /// `QEMU` with its end.
    const MANUFACTURER: u64 = 5;
    let product = match machine.family {
        Family::Q35 => "Standard PC (Q35 + ICH9, 2009)",
        Family::I440fx => "Standard PC (i440FX + PIIX, 1996)",
    };
    let length = |text: &str| total([text.len() as u64, 1]);
    let version = length(&machine.name);
    let system = total([27 + MANUFACTURER, length(product), version, 1]);
    let chassis = total([22 + MANUFACTURER, version, 1]);
    let numbered = |count: u64, with_one_digit: u64| {
        let digits = |from: u64| count.saturating_sub(from);
        total([count.saturating_mul(with_one_digit), digits(10), digits(100), digits(1000)])
    };
    // `CPU 0` and `DIMM 0` with their ends.
    let processors = numbered(sockets, total([42 + 6 + MANUFACTURER, version, 1]));
    let devices = numbered(pieces, 40 + 7 + MANUFACTURER + 1);
    let (array, addresses, boot, end) = (23 + 2, ranges.saturating_mul(31 + 2), 11 + 2, 4 + 2);
    total([system, chassis, processors, devices, array, addresses, boot, end])
}
