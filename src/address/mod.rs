//! Ranges of guest-physical addresses.

mod range;

pub use range::GpaRange;

/// 1 GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Rounds up to a multiple of `unit`, a power of two; `None` if that passes 64 bits.
pub(crate) fn round_up(value: u64, unit: u64) -> Option<u64> {
    let below = unit.checked_sub(1)?;
    Some(value.checked_add(below)? & !below)
}

/// Rounds down to a multiple of `unit`, a power of two.
pub(crate) fn round_down(value: u64, unit: u64) -> u64 {
    value & !unit.saturating_sub(1)
}

/// The sum; one that passes 64 bits is the largest number, which is above every limit.
pub(crate) fn total(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// The last address that this many bits reach.
pub fn last_address(bits: u32) -> u64 {
    match 1u64.checked_shl(bits) {
        Some(first_beyond) => first_beyond.saturating_sub(1),
        None => u64::MAX,
    }
}

/// First address of the HyperTransport range (`AMD_HT_START` in QEMU `hw/i386/pc.c`; AMD I/O Virtualization
/// Technology Specification, 48882, section 2.1.2, table 3).
pub const AMD_HT_START: u64 = 0xfd_0000_0000;

/// Where RAM above 4 GiB starts unless it moves (`above_4g_mem_start` in QEMU `hw/i386/pc.c`).
pub const ABOVE_4G_START: u64 = 4 * GIB;
