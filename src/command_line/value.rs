//! Numbers, sizes and switches as QEMU reads them.

/// A switch (`qapi_bool_parse` in QEMU `qapi/qapi-util.c`).
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// A number: decimal, hexadecimal after `0x` or octal after `0` (`qemu_strtou64` with base 0 in QEMU `util/cutils.c`).
pub(crate) fn number(text: &str) -> Option<u64> {
    let text = unsigned(text)?;
    if let Some(digits) = hexadecimal(text) {
        return u64::from_str_radix(digits, 16).ok();
    }
    let radix = if text.starts_with('0') { 8 } else { 10 };
    digits_only(text, radix)
}

/// A size in bytes: a number with a unit of 1024, or of `default_unit` bytes if it has none; decimal fractions are
/// allowed, hexadecimal ones are not (`do_strtosz` in QEMU `util/cutils.c`; before 8.1 it took no `.5G`).
pub(crate) fn size(text: &str, default_unit: u64) -> Option<u64> {
    let text = text.trim_start_matches(BLANKS);
    let text = if text.starts_with('.') { text } else { unsigned(text)? };
    let (number, fraction, rest) = if let Some(digits) = hexadecimal(text) {
        // An exponent of 16 digits would be taken for a unit: `0x1E` is a number, `0x1G` has one.
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        (u64::from_str_radix(digits.get(..end)?, 16).ok()?, "", digits.get(end..)?)
    } else {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number = if end == 0 { 0 } else { digits_only(text.get(..end)?, 10)? };
        let rest = text.get(end..)?;
        match rest.strip_prefix('.') {
            Some(rest) => {
                let fraction = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                if end == 0 && fraction == 0 {
                    return None;
                }
                (number, rest.get(..fraction)?, rest.get(fraction..)?)
            }
            None => (number, "", rest),
        }
    };
    let unit = match rest {
        "" => default_unit,
        "B" | "b" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        "T" | "t" => 1 << 40,
        "P" | "p" => 1 << 50,
        "E" | "e" => 1 << 60,
        _ => return None,
    };
    number.checked_mul(unit)?.checked_add(fraction_of(fraction, unit)?)
}

/// The part of `unit` that the digits after a decimal point say, rounded to the nearest byte.
fn fraction_of(digits: &str, unit: u64) -> Option<u64> {
    /// More decimal places than this do not change a size below 2^64.
    const PLACES: usize = 18;
    let digits = digits.get(..digits.len().min(PLACES))?.trim_end_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if unit == 1 {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let product = digits.parse::<u128>().ok()?.checked_mul(u128::from(unit))?;
    let rounded = product.checked_add(scale.checked_div(2)?)?.checked_div(scale)?;
    u64::try_from(rounded).ok()
}

/// What `isspace` takes for blank.
const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// Without what `strtoull` passes over. A minus sign is accepted there and leads to a huge number that nothing takes.
fn unsigned(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(BLANKS);
    let text = text.strip_prefix('+').unwrap_or(text);
    text.starts_with(|c: char| c.is_ascii_digit()).then_some(text)
}

/// Whether a size is written in hexadecimal digits.
pub(crate) fn is_hexadecimal(text: &str) -> bool {
    unsigned(text).and_then(hexadecimal).is_some()
}

fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

fn digits_only(text: &str, radix: u32) -> Option<u64> {
    text.chars().all(|c| c.is_digit(radix)).then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `-m`, `maxmem=` and `phys-bits=` of QEMU 7.2.22 and 11.1.3, and `util/cutils.c`.
    #[test]
    fn numbers_are_read_as_qemu_reads_them() {
        const MIB: u64 = 1 << 20;
        for (text, bytes) in [
            ("4096", Some(4096 * MIB)),
            ("4G", Some(4096 * MIB)),
            ("1.5G", Some(1536 * MIB)),
            ("0.3K", Some(307)),
            ("1.k", Some(1024)),
            ("0x10", Some(16 * MIB)),
            ("0x10k", Some(16384)),
            ("224256k", Some(224_256 * 1024)),
            ("16777216T", None),
            ("0.5", Some(MIB / 2)),
            ("0.5B", None),
            (".5G", Some(512 * MIB)),
            (".G", None),
            ("010M", Some(10 * MIB)),
            ("1e3", None),
            ("1e3M", None),
            ("0x1.8G", None),
            ("4GiB", None),
            ("-1G", None),
            ("G", None),
            ("", None),
        ] {
            assert_eq!(size(text, MIB), bytes, "{text}");
        }
        for (text, value) in [("42", Some(42)), ("0x2a", Some(42)), ("052", Some(42)), ("08", None), ("42 ", None)] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
