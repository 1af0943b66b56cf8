//! Sizes as libvirt reads them from XML.

use crate::text::quoted;

/// The largest size libvirt accepts, in bytes (`virMemoryMaxValue` in `src/util/virutil.c`: `LLONG_MAX` on 64-bit).
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Why a number with a unit is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a decimal number that fits 64 bits. libvirt allows white space before it and none after.
    #[error("`{0}` is not a whole number")]
    NotANumber(String),
    /// Not a unit libvirt knows.
    #[error("unknown unit `{0}`")]
    UnknownUnit(String),
    /// More than [`MAX_SIZE`].
    #[error("{0} {1} is more than libvirt accepts")]
    TooLarge(u64, String),
}

/// Reads an unsigned number the way libvirt's `virStrToLong_ullp` does: leading white space and a plus sign are
/// allowed, a minus sign and anything after the digits are not.
///
/// # Errors
/// [`SizeError::NotANumber`].
pub fn parse_number(text: &str) -> Result<u64, SizeError> {
    let trimmed = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.ok_or_else(|| SizeError::NotANumber(quoted(text)))
}

/// The bytes in one `unit`, as libvirt's `virScaleInteger` (`src/util/virutil.c`) has it: the letters k, M, G, T, P, E
/// in any case, alone or with `iB` for powers of 1024, with `B` for powers of 1000; `b`, `byte`, `bytes` for bytes.
///
/// # Errors
/// [`SizeError::UnknownUnit`].
pub fn bytes_per_unit(unit: &str) -> Result<u64, SizeError> {
    let is = |text: &[u8], name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    if ["b", "byte", "bytes"].iter().any(|name| is(unit.as_bytes(), name)) {
        return Ok(1);
    }
    let unknown = || SizeError::UnknownUnit(quoted(unit));
    let (prefix, rest) = unit.as_bytes().split_first().ok_or_else(unknown)?;
    let base: u64 = match rest {
        _ if rest.is_empty() || is(rest, "ib") => 1024,
        _ if is(rest, "b") => 1000,
        _ => return Err(unknown()),
    };
    let power = b"kmgtpe".iter().position(|letter| letter.eq_ignore_ascii_case(prefix)).ok_or_else(unknown)?;
    // At most 1024^6, which fits 64 bits.
    (0..=power).try_fold(1u64, |scale, _| scale.checked_mul(base)).ok_or_else(unknown)
}

/// The bytes that `number` and `unit` say; without a unit, `default_unit` bytes each.
///
/// # Errors
/// [`SizeError`].
pub fn parse_bytes(number: &str, unit: Option<&str>, default_unit: u64) -> Result<u64, SizeError> {
    let value = parse_number(number)?;
    let (scale, unit) = match unit {
        None | Some("") => (default_unit, ""),
        Some(unit) => (bytes_per_unit(unit)?, unit),
    };
    value.checked_mul(scale).filter(|&bytes| bytes <= MAX_SIZE).ok_or_else(|| SizeError::TooLarge(value, quoted(unit)))
}

/// The same in KiB, rounded up, as `virParseMemory` in libvirt's `src/util/virxml.c` stores memory sizes. The default
/// unit is KiB.
///
/// # Errors
/// [`SizeError`].
pub fn parse_kib(number: &str, unit: Option<&str>) -> Result<u64, SizeError> {
    Ok(parse_bytes(number, unit, 1024)?.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: what `virsh domxml-to-native` of libvirt 9.0 makes of `<memory unit='…'>…</memory>`.
    #[test]
    fn units_are_those_of_libvirt() {
        for (number, unit, kib) in [
            ("1048576", None, 1_048_576),
            ("1048576", Some(""), 1_048_576),
            (" 1048576", Some("KiB"), 1_048_576),
            ("+1048576", Some("KiB"), 1_048_576),
            ("4", Some("gib"), 4 << 20),
            ("4194304000", Some("Byte"), 4_096_000),
            ("4194304", Some("kb"), 4_096_000),
            ("1", Some("EiB"), 1 << 50),
            ("1000", Some("B"), 1),
        ] {
            assert_eq!(parse_kib(number, unit), Ok(kib), "{number} {unit:?}");
        }
    }

    #[test]
    fn what_libvirt_refuses_is_refused() {
        for (number, unit) in [
            (" 1048576 ", Some("KiB")),
            ("-1048576", Some("KiB")),
            ("1.5", Some("GiB")),
            ("0x100000", Some("KiB")),
            ("4194304", Some("Ki")),
            ("4194304", Some(" KiB")),
            ("8", Some("EiB")),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert!(parse_kib(number, unit).is_err(), "{number} {unit:?}");
        }
    }
}
