//! Ranges of guest-physical addresses.

mod range;

pub use range::GpaRange;

/// 1 GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Rounds up to a multiple of `unit`, a power of two; `None` where that passes 64 bits.
pub(crate) fn round_up(value: u64, unit: u64) -> Option<u64> {
    Some(value.checked_add(unit - 1)? & !(unit - 1))
}
