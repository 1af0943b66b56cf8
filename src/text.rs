//! Sizes and addresses for people.

use crate::address::{GpaRange, last_address};

/// A size in the largest unit that says it exactly with at most two decimals: `1200 GiB`, `2.75 GiB`, `4095 KiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = bytes >> shift;
        let below = last_address(shift);
        let rest = bytes & below;
        let hundredths = u128::from(rest) * 100;
        if whole > 0 && hundredths & u128::from(below) == 0 {
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

/// A range in GiB with the end that people expect, the first address after it: `4–1202 GiB`, `4–≈1202.0005 GiB` where
/// that is rounded; in hexadecimal if an end is not a multiple of 128 KiB.
pub fn range(range: GpaRange) -> String {
    let (Some(start), Some(end)) = (gib(Some(range.start)), gib(range.end.checked_add(1))) else {
        return range.to_string();
    };
    format!("{start}–{end} GiB")
}

/// An address in GiB, or in hexadecimal if it is not a multiple of 128 KiB.
pub fn address(address: u64) -> String {
    gib(Some(address)).map_or_else(|| format!("{address:#x}"), |gib| format!("{gib} GiB"))
}

/// An address in GiB: exact with at most five decimals, which those of 32 MiB need, or rounded to four; `None` if those
/// would not be exact enough to tell addresses apart.
fn gib(address: Option<u64>) -> Option<String> {
    let address = address?;
    // Four decimals tell addresses apart that are this far from one another: 128 KiB are 0.00012 GiB.
    if address & 0x1_ffff != 0 {
        return None;
    }
    let (mark, places) = if address & 0x1ff_ffff == 0 { ("", 5) } else { ("≈", 4) };
    let decimals = format!("{:.places$}", (address & ((1 << 30) - 1)) as f64 / f64::from(1 << 30));
    let decimals = decimals.trim_start_matches('0').trim_end_matches('0').trim_end_matches('.');
    Some(format!("{mark}{}{decimals}", address >> 30))
}

/// What is wrong with a TOML text, in one line, and with the key of the value it is about.
pub fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) => format!("{}: {message}", quoted(key.trim())),
        None => message,
    }
}

/// Whether a terminal would act on `c` or not show it.
pub fn is_hidden(c: char) -> bool {
    !matches!(c, ' '..='~') && (c.is_ascii() || c.escape_debug().len() > 1)
}

/// `text` with everything escaped that a terminal would act on or not show: control characters, text direction marks.
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown.into()
}

/// `text` in ASCII, on one line: for readers that show anything else as its bytes.
#[cfg(feature = "cli")]
pub fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '→' => shown.push_str("->"),
            '–' => shown.push('-'),
            '≈' => shown.push('~'),
            '…' => shown.push_str("..."),
            c if c.is_ascii() => shown.push(c),
            c => shown.extend(c.escape_unicode()),
        }
    }
    shown
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

/// `text` in lines of at most `columns` columns of a terminal, but for words that are longer. What is in backticks is
/// a word, and so are a number and its unit.
#[cfg(feature = "cli")]
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quoting = false;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match words.last_mut().filter(|_| quoting || word.starts_with("GiB")) {
            Some(begun) => {
                begun.push(' ');
                begun.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
        quoting ^= word.matches('`').count() % 2 == 1;
    }
    filled(words, columns)
}

/// `words`, which may hold blanks, in lines of at most `columns` columns of a terminal, but for words that are longer.
#[cfg(feature = "cli")]
pub fn filled(words: impl IntoIterator<Item = impl AsRef<str>>, columns: usize) -> Vec<String> {
    /// Replaces a blank at which no line is broken: a character for private use, as wide as a blank.
    const JOINT: &str = "\u{e000}";
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().replace(' ', JOINT)).collect();
    if words.is_empty() {
        return Vec::new();
    }
    let options = textwrap::Options::new(columns)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    textwrap::wrap(&words.join(" "), options).into_iter().map(|line| line.replace(JOINT, " ")).collect()
}

/// A guest's name, or a URI, as a word for the shell.
pub fn shell_word(name: &str) -> String {
    let name = printable(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | ':' | '@' | '/');
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.into_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_acts_on_it() {
        assert_eq!(printable("db-1 \"é\" 'x'"), "db-1 \"é\" 'x'");
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}"), "a\\u{1b}[31mb\\nc\\u{202e}");
    }

    #[cfg(feature = "cli")]
    #[test]
    fn everything_has_a_form_in_ascii() {
        assert_eq!(ascii("größe: 4–≈5 GiB, a → b…\n"), "gr\\u{f6}\\u{df}e: 4-~5 GiB, a -> b...\\n");
    }

    #[test]
    fn a_quote_is_short() {
        assert_eq!(quoted("pc-q35-7.2"), "pc-q35-7.2");
        assert_eq!(quoted(&"ä".repeat(100)), format!("{}…", "ä".repeat(60)));
    }

    #[cfg(feature = "cli")]
    #[test]
    fn commands_are_not_broken() {
        assert_eq!(wrapped("run  `a b c`, or not", 10), ["run", "`a b c`,", "or not"]);
        assert_eq!(wrapped("an end ` of no command", 10), ["an end", "` of no command"]);
        assert_eq!(wrapped("no less than 1010 GiB, or", 16), ["no less than", "1010 GiB, or"]);
        assert_eq!(filled(["äöü", "äöü", "a-long-word"], 7), ["äöü äöü", "a-long-word"]);
        assert_eq!(wrapped("", 10), [""; 0]);
        assert_eq!(filled(["仮想", "マシン"], 9), ["仮想", "マシン"]);
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 bytes"),
            (4095 << 10, "4095 KiB"),
            (2816 << 20, "2.75 GiB"),
            (1200 << 30, "1200 GiB"),
            (1 << 40, "1024 GiB"),
            (3 << 39, "1536 GiB"),
            ((1200 << 30) + 1, "1288490188801 bytes"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ranges_are_counted_in_gib() {
        let shown = |start: u64, end: u64| range(GpaRange { start, end: end - 1 });
        assert_eq!(shown(0, 2 << 30), "0–2 GiB");
        assert_eq!(shown(1 << 40, 2222 << 30), "1024–2222 GiB");
        assert_eq!(shown(0, 0xb000_0000), "0–2.75 GiB");
        assert_eq!(shown(4 << 30, 70_048 << 20), "4–68.40625 GiB");
        assert_eq!(shown(4 << 30, 70_050 << 20), "4–≈68.4082 GiB");
        assert_eq!(address((1 << 40) + (2 << 20)), "≈1024.002 GiB");
        assert_eq!(shown(4 << 30, (4 << 30) + 1000), "0x100000000-0x1000003e7");
        let neighbours: std::collections::BTreeSet<String> =
            (0..100).map(|n| address((4 << 30) + n * 0x1_0000)).collect();
        assert_eq!(neighbours.len(), 100, "{neighbours:?}");
    }
}
