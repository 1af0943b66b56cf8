//! Addresses of PCI functions.

use crate::text::quoted;

/// A PCI address as sysfs spells it: `0000:41:00.0`.
///
/// # Errors
/// It is not one.
pub(super) fn pci_address(text: &str) -> Result<String, String> {
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
            assert_eq!(pci_address(text).ok().as_deref(), expected, "{text}");
        }
    }
}
