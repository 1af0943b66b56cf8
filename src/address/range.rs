//! [`GpaRange`].

use serde::{Deserialize, Serialize};

/// A non-empty range of guest-physical addresses (or IOVAs), both ends inclusive, so that the last byte of the address
/// space can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct GpaRange {
    /// First address.
    pub start: u64,
    /// Last address.
    pub end: u64,
}

impl GpaRange {
    /// The range from `start` to `end`, both inclusive.
    ///
    /// # Panics
    /// If `end` is below `start`; for constants, where that is a compile-time error.
    pub const fn inclusive(start: u64, end: u64) -> Self {
        assert!(start <= end);
        Self { start, end }
    }

    /// The `size` bytes from `start` on; `None` if that is nothing or passes the end of the address space.
    pub fn with_size(start: u64, size: u64) -> Option<Self> {
        let end = start.checked_add(size.checked_sub(1)?)?;
        Some(Self { start, end })
    }

    /// What both ranges have in common.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self { start, end })
    }

    /// Whether the ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Whether `other` lies inside.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Bytes in the range; `None` for all of the 64-bit space, whose size does not fit.
    pub fn size(self) -> Option<u64> {
        self.end.checked_sub(self.start)?.checked_add(1)
    }
}

impl std::fmt::Display for GpaRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HT: GpaRange = GpaRange::inclusive(0xfd_0000_0000, 0xff_ffff_ffff);

    #[test]
    fn touching_is_not_overlapping() {
        let below = GpaRange::with_size(0, 0xfd_0000_0000).expect("not empty");
        assert!(!below.overlaps(HT));
        let above = GpaRange::with_size(0x100_0000_0000, 1).expect("not empty");
        assert!(!HT.overlaps(above));
        let one_byte_in = GpaRange::with_size(0, 0xfd_0000_0001).expect("not empty");
        assert_eq!(one_byte_in.intersection(HT), Some(GpaRange::inclusive(0xfd_0000_0000, 0xfd_0000_0000)));
    }

    #[test]
    fn sizes_at_the_ends_of_the_address_space() {
        assert_eq!(GpaRange::with_size(5, 0), None);
        assert_eq!(GpaRange::with_size(u64::MAX, 2), None);
        assert_eq!(GpaRange::with_size(u64::MAX, 1).and_then(GpaRange::size), Some(1));
        assert_eq!(GpaRange::inclusive(0, u64::MAX).size(), None);
        assert_eq!(HT.size(), Some(12 << 30));
    }
}
