//! An argument, and the `key=value` pairs in it.

use super::Origin;
#[cfg(feature = "cli")]
use crate::argv::Word;
use crate::xml::Span;

/// An argument of QEMU's.
#[derive(Debug, Clone, Copy)]
pub struct Argument<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it comes from as a whole.
    pub origin: Origin,
    /// The word of a text that it is, if it is one.
    #[cfg(feature = "cli")]
    word: Option<&'a Word>,
}

impl<'a> Argument<'a> {
    /// The argument with this number, 0 being the first after the program.
    pub fn numbered(number: usize, text: &'a str) -> Self {
        Self::new(text, Origin::Argument { number, span: Span::new(0, text.len()) })
    }

    /// The argument that is in the XML of a domain.
    pub fn in_xml(text: &'a str, span: Span) -> Self {
        Self::new(text, Origin::Xml(span))
    }

    /// The argument with this number that is in a text.
    #[cfg(feature = "cli")]
    pub fn in_text(number: usize, word: &'a Word) -> Self {
        let origin = Origin::Argument { number, span: word.place(0..word.text.len()) };
        Self { word: Some(word), ..Self::new(&word.text, origin) }
    }

    fn new(text: &'a str, origin: Origin) -> Self {
        Self {
            text,
            origin,
            #[cfg(feature = "cli")]
            word: None,
        }
    }

    /// Where `part`, a piece of the text, comes from. XML may have escaped it, so that there the whole is as near as
    /// one can get.
    pub(super) fn origin_of(&self, part: &str) -> Origin {
        match self.origin {
            Origin::Xml(_) => self.origin,
            Origin::Argument { number, .. } => {
                let start = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
                let end = start.and_then(|start| start.checked_add(part.len()));
                match (start, end.filter(|&end| end <= self.text.len())) {
                    (Some(start), Some(end)) => Origin::Argument { number, span: self.place(start, end) },
                    _ => self.origin,
                }
            }
        }
    }

    /// Whether a shell puts something that is not known in the place of a part of it.
    #[cfg(feature = "cli")]
    pub(super) fn is_replaced(&self) -> bool {
        self.word.is_some_and(|word| word.expands)
    }

    /// Where bytes of the text come from.
    fn place(&self, start: usize, end: usize) -> Span {
        #[cfg(feature = "cli")]
        if let Some(word) = self.word {
            return word.place(start..end);
        }
        Span::new(start, end)
    }
}

/// A `key=value` pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// The key; empty for what is alone at the beginning.
    pub key: String,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// The pairs in an argument. What has no `=` at the beginning is the value of `implied`; elsewhere it is switched on,
/// or off if it begins with `no` (`opts_do_parse` in QEMU `util/qemu-option.c`, `keyval_do_parse` in `util/keyval.c`).
/// A comma in a value is doubled.
pub(super) fn pairs(argument: &Argument<'_>, implied: &str) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut rest = argument.text;
    while !rest.is_empty() {
        let end = end_of_pair(rest);
        let (text, after) = rest.split_at(end);
        rest = after.strip_prefix(',').unwrap_or(after);
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.replace(",,", ",")),
            None if pairs.is_empty() && !implied.is_empty() => (implied.to_owned(), text.replace(",,", ",")),
            None => match text.strip_prefix("no") {
                Some(key) if !key.is_empty() => (key.to_owned(), "off".to_owned()),
                _ => (text.to_owned(), "on".to_owned()),
            },
        };
        pairs.push(Pair { key, value, origin: argument.origin_of(text) });
    }
    pairs
}

/// The offset of the comma that ends the first pair in `text`.
fn end_of_pair(text: &str) -> usize {
    let mut from = 0;
    while let Some(rest) = text.get(from..) {
        let Some(comma) = rest.find(',') else { break };
        let at = from.saturating_add(comma);
        match text.get(at..) {
            Some(after) if after.starts_with(",,") => from = at.saturating_add(2),
            _ => return at,
        }
    }
    text.len()
}

/// The value of the last pair with that key.
pub(super) fn last<'p>(pairs: &'p [Pair], key: &str) -> Option<&'p Pair> {
    pairs.iter().rev().find(|pair| pair.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, implied: &str) -> Vec<(String, String, Span)> {
        let pairs = pairs(&Argument::numbered(0, text), implied);
        pairs.into_iter().map(|pair| (pair.key, pair.value, pair.origin.span())).collect()
    }

    #[test]
    fn pairs_are_split_at_single_commas() {
        let pair = |key: &str, value: &str, start, end| (key.to_owned(), value.to_owned(), Span::new(start, end));
        assert_eq!(
            read("pc-dimm,memdev=a,,b,nofoo,bar", "driver"),
            [
                pair("driver", "pc-dimm", 0, 7),
                pair("memdev", "a,b", 8, 19),
                pair("foo", "off", 20, 25),
                pair("bar", "on", 26, 29)
            ]
        );
        assert_eq!(read("id=x,driver=pc-dimm", "driver")[1], pair("driver", "pc-dimm", 5, 19));
        assert!(read("", "driver").is_empty());
        assert_eq!(read("a=1,", "x").len(), 1);
    }
}
