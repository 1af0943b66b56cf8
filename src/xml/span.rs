//! Byte spans in a source text, and their line and column.

/// A half-open range of byte offsets, `start..end`, in the text a [`Document`](super::Document) was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// A span from `start` (inclusive) to `end` (exclusive).
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end);
        Self { start, end }
    }
}

/// A place in a text as people and editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, the first is 1.
    pub line: usize,
    /// Column in characters, the first is 1.
    pub column: usize,
}

impl Location {
    /// The place of byte `offset` in `text`.
    ///
    /// An offset after the end gives the end; one inside a character gives that character. Bytes that are not UTF-8
    /// count one column each, so that the place of an encoding error can be named too.
    pub fn of(text: &[u8], offset: usize) -> Self {
        let before = &text[..offset.min(text.len())];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let characters = String::from_utf8_lossy(&before[line_start..]).chars().count();
        let mark = line_start == 0 && before.starts_with("\u{feff}".as_bytes());
        Self { line, column: characters + 1 - usize::from(mark) }
    }
}

/// The places of many offsets in one text, found without counting from its start each time.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    /// Places that are known, in order, with their offsets.
    known: Vec<(usize, Location)>,
}

impl<'t> Places<'t> {
    /// Reads `text` once.
    pub fn of(text: &'t str) -> Self {
        /// Bytes between two places that are known.
        const STRIDE: usize = 1024;
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut places = Self { text, known: vec![(start, Location { line: 1, column: 1 })] };
        let mut next = STRIDE;
        while next < text.len() {
            let offset = boundary(text, next);
            places.known.push((offset, places.at(offset)));
            next += STRIDE;
        }
        places
    }

    /// The place of a byte offset, as [`Location::of`] has it.
    pub fn at(&self, offset: usize) -> Location {
        let behind = self.known.partition_point(|&(known, _)| known <= offset);
        let Some(&(from, mut location)) = behind.checked_sub(1).and_then(|last| self.known.get(last)) else {
            return Location { line: 1, column: 1 };
        };
        let end = boundary(self.text, offset);
        for c in self.text[from..end].chars() {
            if c == '\n' {
                location = Location { line: location.line + 1, column: 1 };
            } else {
                location.column += 1;
            }
        }
        location
    }
}

/// The start of the character that `offset` is in, or the end of the text.
fn boundary(text: &str, offset: usize) -> usize {
    let inside = offset.min(text.len());
    (0..=inside).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "ab\nä<c".as_bytes();
        assert_eq!(Location::of(text, 0), Location { line: 1, column: 1 });
        assert_eq!(Location::of(text, 3), Location { line: 2, column: 1 });
        assert_eq!(Location::of(text, 5), Location { line: 2, column: 2 });
        assert_eq!(Location::of(text, 999), Location { line: 2, column: 4 });
    }

    #[test]
    fn places_are_those_found_one_by_one() {
        let line = "<a b='größe \u{feff}𝔊'/>\r\n".repeat(7) + "\n";
        for text in [line.repeat(12), format!("\u{feff}{}", line.repeat(12)), "ä".repeat(1200), String::new()] {
            let places = Places::of(&text);
            for (offset, _) in text.char_indices().chain([(text.len(), ' ')]) {
                assert_eq!(places.at(offset), Location::of(text.as_bytes(), offset), "{offset}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        assert_eq!(Location::of("\u{feff}<a".as_bytes(), 3), Location { line: 1, column: 1 });
        // Anywhere else it is a character like others.
        assert_eq!(Location::of("a\u{feff}b".as_bytes(), 4), Location { line: 1, column: 3 });
        assert_eq!(Location::of("a\n\u{feff}b".as_bytes(), 5), Location { line: 2, column: 2 });
    }
}
