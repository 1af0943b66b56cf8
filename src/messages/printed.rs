//! Messages that the pages of rules quote: for texts without a message of the table.

use crate::rules::page::ErrorText;
use crate::rules::{RULES, Rule};

/// The fewest bytes of a message that do not change and have to be in a text.
const LEAST: usize = 14;

/// A message that the page of a rule quotes.
#[derive(Debug, Clone, Copy)]
pub struct Printed {
    /// The rule.
    pub rule: &'static Rule,
    /// The message.
    pub error: &'static ErrorText,
}

/// The line of a text to show: the one with most of a message, cut and made printable.
pub fn quoted_line(text: &str) -> String {
    /// Characters.
    const LONGEST: usize = 400;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let best = lines.reduce(|best, line| if rank(line) > rank(best) { line } else { best }).unwrap_or_default();
    crate::text::printable(&best.chars().take(LONGEST).collect::<String>()).into_owned()
}

/// How much of a line is a message on some page.
fn rank(line: &str) -> usize {
    let line = words(line).collect::<Vec<_>>().join(" ").to_lowercase();
    let errors = RULES.iter().flat_map(|rule| rule.page.errors);
    errors.filter_map(|error| constant_part_in(error.text, &line)).max().unwrap_or(0)
}

/// The rule on whose page a message is that `text` has, whatever its numbers and names; of several, that with most of it.
pub fn from_pages(text: &str) -> Option<Printed> {
    let text = words(text).collect::<Vec<_>>().join(" ").to_lowercase();
    let errors = RULES.iter().flat_map(|rule| rule.page.errors.iter().map(move |error| Printed { rule, error }));
    let found = errors.filter_map(|printed| Some((constant_part_in(printed.error.text, &text)?, printed)));
    // Of two that are the same, the first.
    let longest = found.reduce(|best, one| if one.0 > best.0 { one } else { best });
    longest.map(|(_, printed)| printed)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// How many bytes of `message` do not change, if all of them are in `text`, in order; `None` if not, or if there are few.
fn constant_part_in(message: &str, text: &str) -> Option<usize> {
    let (mut length, mut rest) = (0_usize, text);
    for piece in pieces(message) {
        let (_, after) = rest.split_once(piece.as_str())?;
        length = length.saturating_add(piece.len());
        rest = after;
    }
    (length >= LEAST).then_some(length)
}

/// The parts of a message between what changes: numbers and what is quoted.
fn pieces(message: &str) -> Vec<String> {
    let changes = |word: &str| word.starts_with(['\'', '"']) || word.bytes().any(|byte| byte.is_ascii_digit());
    let words: Vec<&str> = words(message).collect();
    let parts = words.split(|word| changes(word)).filter(|part| !part.is_empty());
    // libvirt puts this before every error of QEMU, so it identifies nothing.
    let parts = parts.map(|part| part.join(" ").to_lowercase());
    parts.filter(|part| !part.contains("connecting to monitor") && !part.contains("closed the monitor")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pages_quote_is_found_whatever_is_around_it() {
        let mut count = 0;
        for rule in RULES {
            for error in rule.page.errors {
                let text = format!("error: unsupported configuration:\n  {} (see the log)", error.text);
                let Some(found) = from_pages(&text) else {
                    assert!(pieces(error.text).concat().len() < LEAST, "{}", error.text);
                    continue;
                };
                // Some are on several pages, and some are a part of others.
                let same = pieces(found.error.text).concat().contains(&pieces(error.text).concat());
                assert!(found.rule.id == rule.id || same, "{}: {} {}", error.text, found.rule.id, found.error.text);
                count += 1;
            }
        }
        assert!(count > 80, "{count}");
    }

    #[test]
    fn numbers_and_names_do_not_matter() {
        let rule = |text| from_pages(text).map(|found| found.rule.id);
        let missing = "error: Emulator '/usr/libexec/qemu-kvm' does not support machine type 'pc-q35-rhel9.2.0'";
        assert_eq!(rule(missing), Some("machine-type-not-available"));
        assert_eq!(rule("qemu-system-x86_64: unsupported machine type"), Some("machine-type-not-available"));
        let bits = "the number of virtual CPU address bits cannot exceed the number supported by the host CPU";
        assert_eq!(rule(bits), Some("phys-bits-above-host"));
        let ended =
            "error: Failed to start domain 'x'\nerror: internal error: process exited while connecting to monitor";
        for text in ["", "it does not work", ended, "error: Failed to start domain 'x'", "12 0x3 'a' \"b\""] {
            assert_eq!(rule(text), None, "{text}");
        }
    }
}
