//! Sizes and addresses for people.

use crate::map::GpaRange;

/// A size in the largest unit that says it exactly with at most two decimals: `1200 GiB`, `1.25 TiB`, `4095 KiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = bytes >> shift;
        let rest = bytes & ((1 << shift) - 1);
        // Terabyte guests are spoken of in GiB until the TiB come out even.
        let hundredths = u128::from(rest) * 100;
        if whole > 0 && (rest == 0 || (shift < 40 && hundredths & ((1 << shift) - 1) == 0)) {
            let hundredths = hundredths >> shift;
            return match hundredths {
                0 => format!("{whole} {unit}"),
                tenths if tenths % 10 == 0 => format!("{whole}.{} {unit}", tenths / 10),
                _ => format!("{whole}.{hundredths:02} {unit}"),
            };
        }
    }
    format!("{bytes} bytes")
}

/// An address as people count it: its distance from 0 as a size.
pub fn address(address: u64) -> String {
    if address == 0 { "0".to_owned() } else { size(address) }
}

/// A range with the end that people expect, the first address behind it: `4 GiB – 1202 GiB`.
pub fn range(range: GpaRange) -> String {
    let end = range.end.checked_add(1).map_or_else(|| "16 EiB".to_owned(), address);
    format!("{}–{}", address(range.start), end)
}

/// `text` with everything escaped that a terminal would act on or not show: control characters, text direction marks.
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    let hidden = |c: char| c != '\'' && c != '"' && c != '\\' && c.escape_debug().len() > 1;
    if !text.contains(hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown.into()
}

/// `text` as a message quotes it: printable, and cut where it is too long to be read.
pub fn quoted(text: &str) -> String {
    /// Characters; the longest machine type or vendor is less than half of it.
    const LONGEST: usize = 60;
    let cut = text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]);
    let mut shown = printable(cut).into_owned();
    if cut.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_acts_on_it() {
        assert_eq!(printable("db-1 \"é\" 'x'"), "db-1 \"é\" 'x'");
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}"), "a\\u{1b}[31mb\\nc\\u{202e}");
    }

    #[test]
    fn a_quote_is_short() {
        assert_eq!(quoted("pc-q35-7.2"), "pc-q35-7.2");
        assert_eq!(quoted(&"ä".repeat(100)), format!("{}…", "ä".repeat(60)));
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 bytes"),
            (4095 << 10, "4095 KiB"),
            (2816 << 20, "2.75 GiB"),
            (1200 << 30, "1200 GiB"),
            (1 << 40, "1 TiB"),
            (3 << 39, "1536 GiB"),
            ((1200 << 30) + 1, "1288490188801 bytes"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(range(GpaRange { start: 0, end: u64::MAX }), "0–16 EiB");
    }
}
