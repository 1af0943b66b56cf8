//! Ranges of guest-physical addresses.

mod range;

pub use range::GpaRange;

/// 1 GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Rounds up to a multiple of `unit`, a power of two; `None` where that passes 64 bits.
pub(crate) fn round_up(value: u64, unit: u64) -> Option<u64> {
    Some(value.checked_add(unit - 1)? & !(unit - 1))
}

/// First address of the HyperTransport range (`AMD_HT_START` in QEMU `hw/i386/pc.c`; AMD I/O Virtualization
/// Technology Specification, 48882, section 2.1.2, table 3).
pub const AMD_HT_START: u64 = 0xfd_0000_0000;

/// Where RAM above 4 GiB starts unless it moves (`above_4g_mem_start` in QEMU `hw/i386/pc.c`).
pub const ABOVE_4G_START: u64 = 4 * GIB;
