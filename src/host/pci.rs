//! The PCI functions of a host, as far as a guest's firmware has to find room for them.

/// A memory BAR of a PCI function of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciBar {
    /// Which of the function's BARs, 0 to 5.
    pub index: u8,
    /// Bytes, a power of two.
    pub size: u64,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
    /// Whether its address has 64 bits.
    pub bits64: bool,
}

/// The smallest memory BAR, in bytes: the low four bits of the register are not part of the address (PCI Local Bus
/// Specification 3.0, section 6.2.5.1).
const SMALLEST: u64 = 16;

/// The largest memory BAR of 32 bits, in bytes: at least the highest bit of the register is part of the address (same
/// section).
const LARGEST_OF_32_BITS: u64 = 1 << 31;

/// The number of BARs of a function (PCI Local Bus Specification 3.0, figure 6-1).
const BARS: u8 = 6;

impl PciBar {
    /// Why there is no such BAR, if there is none.
    pub(crate) fn mistake(self) -> Option<String> {
        // One of 64 bits takes up the register after it, too.
        let last = if self.bits64 { BARS.saturating_sub(2) } else { BARS.saturating_sub(1) };
        if self.index > last {
            let width = if self.bits64 { 64 } else { 32 };
            return Some(format!("`index` of a BAR with {width} bits is 0 to {last}"));
        }
        if !self.size.is_power_of_two() || self.size < SMALLEST {
            return Some("`size` of a BAR is a power of two in bytes".to_owned());
        }
        if !self.bits64 && self.size > LARGEST_OF_32_BITS {
            return Some("`size` of a BAR with 32 bits is at most 2 GiB".to_owned());
        }
        None
    }

    /// Whether both need the same register: a BAR of 64 bits takes two.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let last = |bar: Self| bar.index.saturating_add(u8::from(bar.bits64));
        self.index <= last(other) && other.index <= last(self)
    }
}
