//! Byte spans in a source text, and their line and column.

/// A half-open range of byte offsets, `start..end`, in the text a [`Document`](super::Document) was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
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
    /// An offset behind the end gives the end; one inside a character gives that character. Bytes that are not UTF-8
    /// count one column each, so that the place of an encoding error can be named too.
    pub fn of(text: &[u8], offset: usize) -> Self {
        let before = &text[..offset.min(text.len())];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().filter(|&c| c != '\u{feff}').count() + 1;
        Self { line, column }
    }
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
    fn a_byte_order_mark_takes_no_column() {
        assert_eq!(Location::of("\u{feff}<a".as_bytes(), 3), Location { line: 1, column: 1 });
    }
}
