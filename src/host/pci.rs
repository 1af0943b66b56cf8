//! The PCI functions of a host, as far as a guest's firmware has to find room for them.

use crate::text::quoted;

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
        None
    }
}

/// A PCI address as sysfs spells it: `0000:41:00.0`.
///
/// # Errors
/// It is not one.
pub(super) fn address(text: &str) -> Result<String, String> {
    let parts = || {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (slot, function) = rest.split_once('.')?;
        let hex = |text: &str, longest: usize| {
            let is_hex = text.len() <= longest && text.chars().all(|c| c.is_ascii_hexdigit());
            u32::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        // Domains of VMD and Hyper-V have more than four digits.
        let (domain, bus, slot, function) = (hex(domain, 8)?, hex(bus, 2)?, hex(slot, 2)?, hex(function, 1)?);
        (slot < 32 && function < 8).then(|| format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
    };
    parts().ok_or_else(|| format!("`{}` is not a PCI address such as 0000:41:00.0", quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spelled_as_in_sysfs() {
        for (text, expected) in [
            ("0000:41:00.0", Some("0000:41:00.0")),
            ("0000:C1:1f.7", Some("0000:c1:1f.7")),
            ("10000:01:00.0", Some("10000:01:00.0")),
            ("41:00.0", None),
            ("0000:41:20.0", None),
            ("0000:41:00.8", None),
            ("0000:+1:00.0", None),
            ("0000:41:00.", None),
            ("", None),
        ] {
            assert_eq!(address(text).ok().as_deref(), expected, "{text}");
        }
    }
}
