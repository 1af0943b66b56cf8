//! A domain as libvirt prints it, of any length, without what is in its `<metadata>`.
//!
//! A guest's owner may write anything there, and libvirt prints it with every `>` as four bytes and every element on a
//! line of its own, indented by up to 60 blanks (`xmlNodeDump` of libxml2, from `virDomainDefFormatInternalSetRootName`
//! in libvirt's `src/conf/domain_conf.c`): the 4 MiB of a definition become more than anybody should keep or parse, and
//! nothing but an override of this tool's counts in it.
#![allow(clippy::arithmetic_side_effects, reason = "places in a text that is in memory")]

use super::{METADATA_NAMESPACE, Overrides, Sourced};
use crate::xml::{Location, Span, attribute_value, attributes};

/// The longest domain that is read, in bytes, what is in its `<metadata>` not counted: 32 MiB. A definition has at most
/// 4 MiB (`REMOTE_STRING_MAX` in libvirt's `src/remote/remote_protocol.x`), and no character of it is printed as more
/// than the six bytes of `&quot;`.
pub const MAX_PRINTED_BYTES: usize = 32 * 1024 * 1024;

/// The longest start tag of which namespaces and overrides are read, in bytes.
const MAX_TAG: usize = 64 * 1024;

/// How many places of dropped text are remembered; libvirt prints one `<metadata>`.
const MAX_CUTS: usize = 16;

/// More than [`MAX_PRINTED_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than 32 MiB, <metadata> not counted")]
pub struct TooLong;

/// Takes a document in pieces and keeps what is outside of `<metadata>`.
///
/// Nothing is checked but where tags, comments and the like end: what is kept is for [`crate::xml::Document`], and what
/// is dropped was printed by libxml2.
#[derive(Debug, Default)]
pub struct PrintedDomain {
    kept: Vec<u8>,
    state: State,
    /// Elements that are open.
    depth: usize,
    /// What comes after `<`, as far as [`MAX_TAG`].
    tag: Vec<u8>,
    /// The byte before the one at hand.
    last: u8,
    /// Whether what comes is in `<metadata>`.
    dropping: bool,
    /// Prefixes and their namespaces: those of the outermost element, then those of `<metadata>`.
    namespaces: Vec<(String, String)>,
    /// How many of them are those of the outermost element.
    outermost: usize,
    /// Where the override of this tool is looked for.
    search: Search,
    overrides: Overrides,
    cuts: Vec<Cut>,
}

/// How far the search for the override is; libvirt keeps one `<metadata>`, and in it one element of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Search {
    #[default]
    Before,
    Inside,
    Done,
}

/// Something that was dropped.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Where it was in what is kept, in bytes.
    at: usize,
    /// The ends of lines in it.
    lines: usize,
    /// The characters in its last line.
    columns: usize,
}

/// What the next byte belongs to. A number is how many bytes of the end are there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Tag,
    /// The value of an attribute that ends with this quote.
    Value(u8),
    /// `<!-- -->`
    Comment(u8),
    /// `<![CDATA[ ]]>`
    Section(u8),
    /// `<? ?>`
    Instruction(u8),
}

impl PrintedDomain {
    /// Takes the next piece.
    ///
    /// # Errors
    /// What is kept is longer than [`MAX_PRINTED_BYTES`].
    pub fn push(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        let mut rest = piece;
        while let Some(&next) = rest.first() {
            // What cannot end the state is taken in one go.
            let run = match self.state {
                State::Text => position(rest, b'<'),
                State::Value(quote) => position(rest, quote),
                State::Comment(0) => position(rest, b'-'),
                State::Section(0) => position(rest, b']'),
                State::Instruction(0) => position(rest, b'?'),
                _ => 0,
            };
            if run > 0 {
                self.take(&rest[..run]);
                rest = &rest[run..];
            } else {
                self.step(next);
                rest = &rest[1..];
            }
            if self.kept.len() > MAX_PRINTED_BYTES {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// The document without what is in `<metadata>`.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// What was asked for in `<metadata>`.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The place in the whole document of a place in what is kept.
    pub fn place(&self, kept: Location) -> Location {
        let mut place = kept;
        for cut in &self.cuts {
            let at = Location::of(&self.kept, cut.at);
            if kept >= at {
                place.line += cut.lines;
                if kept.line == at.line {
                    let before = if cut.lines == 0 { place.column } else { kept.column + 1 - at.column };
                    place.column = before + cut.columns;
                }
            }
        }
        place
    }

    /// Keeps or drops bytes.
    fn take(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Tag | State::Value(_)) {
            let room = MAX_TAG.saturating_sub(self.tag.len()).min(bytes.len());
            self.tag.extend_from_slice(&bytes[..room]);
        }
        if self.dropping {
            self.drop_bytes(bytes);
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn drop_bytes(&mut self, bytes: &[u8]) {
        let Some(cut) = self.cuts.last_mut() else { return };
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let last_line = bytes.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let characters = last_line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        cut.columns = if lines == 0 { cut.columns + characters } else { characters };
        cut.lines += lines;
    }

    /// Takes one byte that may change the state.
    fn step(&mut self, byte: u8) {
        let counted = |seen: u8, is_part: bool| if is_part { (seen + 1).min(2) } else { 0 };
        let state = match self.state {
            State::Text => {
                self.tag.clear();
                self.last = byte;
                State::Tag
            }
            State::Tag => return self.step_in_tag(byte),
            State::Value(_) => State::Tag,
            State::Comment(2) | State::Section(2) | State::Instruction(1 | 2) if byte == b'>' => State::Text,
            State::Comment(seen) => State::Comment(counted(seen, byte == b'-')),
            State::Section(seen) => State::Section(counted(seen, byte == b']')),
            State::Instruction(_) => State::Instruction(u8::from(byte == b'?')),
        };
        // With the state before: `<` is not a part of the tag, the quote that ends a value is.
        self.take(&[byte]);
        self.state = state;
    }

    fn step_in_tag(&mut self, byte: u8) {
        let before = self.last;
        self.last = byte;
        self.take(&[byte]);
        match (self.tag.as_slice(), byte) {
            (b"!--", _) => self.state = State::Comment(0),
            (b"![CDATA[", _) => self.state = State::Section(0),
            (b"?", _) => self.state = State::Instruction(0),
            ([b'm', b'e', b't', b'a', b'd', b'a', b't', b'a', _], b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r')
                if self.depth == 1 && !self.dropping =>
            {
                let start = self.kept.len() - (self.tag.len() + 1);
                if self.cuts.len() < MAX_CUTS {
                    self.cuts.push(Cut { at: start, lines: 0, columns: 0 });
                }
                let dropped = self.kept.split_off(start);
                self.dropping = true;
                self.drop_bytes(&dropped);
            }
            _ => {}
        }
        match byte {
            b'"' | b'\'' if self.state == State::Tag => self.state = State::Value(byte),
            b'>' if self.state == State::Tag => {
                self.state = State::Text;
                self.tag_ended(before == b'/');
            }
            _ => {}
        }
    }

    fn tag_ended(&mut self, empty: bool) {
        match self.tag.first() {
            Some(b'!') => return,
            Some(b'/') => self.depth = self.depth.saturating_sub(1),
            _ => {
                match (self.depth, self.dropping) {
                    (0, _) => {
                        self.namespaces = self.declared();
                        self.outermost = self.namespaces.len();
                    }
                    (1, true) => {
                        self.namespaces.truncate(self.outermost);
                        let declared = self.declared();
                        self.namespaces.extend(declared);
                        if self.search == Search::Before && self.namespace("", &[]).is_none() {
                            self.search = Search::Inside;
                        }
                    }
                    (2, true) if self.search == Search::Inside => self.look_for_override(),
                    _ => {}
                }
                self.depth += usize::from(!empty);
            }
        }
        if self.dropping && self.depth == 1 {
            self.dropping = false;
            if self.search == Search::Inside {
                self.search = Search::Done;
            }
        }
    }
}

impl PrintedDomain {
    /// The namespaces that the tag at hand declares: prefix and URI.
    fn declared(&self) -> Vec<(String, String)> {
        let declaration = |(name, value): (&str, &str)| {
            let prefix = if name == "xmlns" { "" } else { name.strip_prefix("xmlns:")? };
            Some((prefix.to_owned(), attribute_value(value).ok()?.into_owned()))
        };
        self.attributes().into_iter().filter_map(declaration).collect()
    }

    /// Names and raw values of the attributes of the tag at hand; none if it is not well-formed or too long.
    fn attributes(&self) -> Vec<(&str, &str)> {
        let Ok(tag) = std::str::from_utf8(&self.tag) else { return Vec::new() };
        let inside = tag.strip_suffix("/>").or_else(|| tag.strip_suffix('>')).unwrap_or_default();
        let name = inside.find(|c: char| c.is_ascii_whitespace()).unwrap_or(inside.len());
        let found: Vec<_> = attributes(inside, name).collect::<Result<_, _>>().unwrap_or_default();
        found.into_iter().map(|attribute| (&inside[attribute.name], &inside[attribute.value])).collect()
    }

    /// The namespace that a prefix means in a tag with these declarations of its own; `None` for none.
    fn namespace<'n>(&'n self, prefix: &str, own: &'n [(String, String)]) -> Option<&'n str> {
        let mut scopes = own.iter().rev().chain(self.namespaces.iter().rev());
        let found = scopes.find(|(declared, _)| declared == prefix)?;
        Some(found.1.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// Reads the override, if the tag at hand, a child of `<metadata>`, is one.
    fn look_for_override(&mut self) {
        let name_end = self.tag.iter().position(|byte| matches!(byte, b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r'));
        let Ok(name) = std::str::from_utf8(&self.tag[..name_end.unwrap_or_default()]) else { return };
        let (prefix, local) = name.rsplit_once(':').unwrap_or(("", name));
        if local != "policy" || self.namespace(prefix, &self.declared()) != Some(METADATA_NAMESPACE) {
            return;
        }
        self.search = Search::Done;
        let passthrough = self.attributes().into_iter().find(|(name, _)| *name == "passthrough");
        let Some((_, raw)) = passthrough else { return };
        let span = Span::new(0, 0);
        self.overrides = match attribute_value(raw) {
            Ok(value) => Overrides::from_passthrough(&value, span),
            // libvirt prints references to entities as they were written, and not what they mean.
            Err((_, problem)) => Overrides {
                assume_passthrough: None,
                broken: Some(Sourced { value: format!("passthrough: {problem}"), span }),
            },
        };
    }
}

/// The first place of `wanted`, or the end.
fn position(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().position(|&byte| byte == wanted).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::xml::Document;

    const POLICY: &str = "urn:iova-preflight:policy:1";

    /// The document in pieces of this size.
    fn printed(text: &str, size: usize) -> PrintedDomain {
        let mut printed = PrintedDomain::default();
        for piece in text.as_bytes().chunks(size) {
            printed.push(piece).expect("not too long");
        }
        printed
    }

    fn kept(text: &str) -> String {
        let all: Vec<String> = [1, 2, 3, 7, text.len()]
            .map(|size| String::from_utf8(printed(text, size).kept().to_vec()).expect("UTF-8"))
            .into();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        all[0].clone()
    }

    #[test]
    fn all_that_is_in_metadata_is_dropped() {
        for inside in [
            "",
            "x > y",
            "<a/>",
            "<a><metadata/></a>",
            "<metadata><metadata></metadata></metadata>",
            "<!-- </metadata> -- > <a> -->",
            "<!----><!--></metadata>-->",
            "<![CDATA[</metadata>]]]]>",
            "<?a </metadata> ? ?>",
            "<a b='</metadata>' c=\"'>\"/>",
            "<a b='/'></a>",
            "&undefined;",
            "<a b='&undefined;'/>",
        ] {
            for tag in ["metadata", "metadata a='/>' xmlns:b='c'", "metadata\n"] {
                let text =
                    format!("<domain>1<{tag}>{inside}</metadata>2<metadata2/><a><metadata>3</metadata></a></domain>");
                assert_eq!(kept(&text), "<domain>12<metadata2/><a><metadata>3</metadata></a></domain>", "{text}");
            }
        }
        assert_eq!(kept("<?xml version='1.0'?><!-- <domain> --><domain><metadata/>1<metadata />2</domain>"), {
            "<?xml version='1.0'?><!-- <domain> --><domain>12</domain>"
        });
        assert_eq!(
            kept("<domain><title>&lt;metadata></title></domain>"),
            "<domain><title>&lt;metadata></title></domain>"
        );
        // Without its end it is not a document.
        assert_eq!(kept("<domain><metadata><a></metadata></domain>"), "<domain>");
    }

    /// The parser of whole documents finds the same override.
    #[test]
    fn an_override_is_found_wherever_it_is_declared() {
        let inside = |domain: &str, metadata: &str, inside: &str| {
            format!("<domain {domain}><metadata {metadata}>{inside}</metadata></domain>")
        };
        let here = format!("xmlns:p='{POLICY}'");
        let assume = "<p:policy passthrough='assume'/>";
        let spelled = format!("<policy xmlns='{}' passthrough='&#97;ssume'>x</policy>", POLICY.replace('u', "&#x75;"));
        let cases = [
            (inside(&here, "", assume), Some(true)),
            (inside("", &here, assume), Some(true)),
            (inside("xmlns:p='a'", &here, assume), Some(true)),
            (inside(&here, "xmlns:p='a'", assume), None),
            (inside("", "", &spelled), Some(true)),
            (inside("", "", &format!("<a/><a>{spelled}</a>")), None),
            (
                inside("", "", &format!("<a xmlns='{POLICY}'/>{spelled}{}", spelled.replace("&#97;ssume", "x"))),
                Some(true),
            ),
            (
                inside("", "", &format!("<policy passthrough='assume'/><p:policy {here} passthrough='present'/>")),
                Some(false),
            ),
            (inside("", "", &format!("<p:policy {here}/>{spelled}")), None),
            (inside("", &format!("xmlns='{POLICY}'"), "<policy passthrough='assume'/>"), None),
            (inside("", "", "").replace("</domain>", &format!("<metadata>{spelled}</metadata></domain>")), None),
            (
                inside("", "xmlns='a'", "").replace("</domain>", &format!("<metadata>{spelled}</metadata></domain>")),
                Some(true),
            ),
            (format!("<domain>{spelled}</domain>"), None),
        ];
        for (text, expected) in cases {
            let overrides = printed(&text, 5).overrides().clone();
            assert_eq!((overrides.assume_passthrough, overrides.broken), (expected, None), "{text}");
            let document = Document::parse(text.as_bytes()).expect("well-formed");
            let domain = domain::read(&document).expect("a domain");
            assert_eq!(domain.overrides.assume_passthrough, expected, "{text}");
        }
        for broken in ["x", "", "&undefined;", "&amp"] {
            let text = inside(&here, "", &format!("<p:policy passthrough='{broken}'/>"));
            let overrides = printed(&text, 5).overrides().clone();
            assert!(overrides.assume_passthrough.is_none() && overrides.broken.is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_in_metadata_has_no_limit() {
        let mut printed = PrintedDomain::default();
        printed.push(b"<domain><metadata ").expect("short");
        for number in 0..10_000 {
            printed.push(format!("a{number}='{number}' ").as_bytes()).expect("not counted");
        }
        printed.push(b">").expect("not counted");
        let piece = "<a b='c'>text".repeat(1000);
        for _ in 0..40 {
            printed.push(piece.as_bytes()).expect("not counted");
        }
        printed.push("</a>".repeat(40_000).as_bytes()).expect("not counted");
        printed.push(b"</metadata></domain>").expect("short");
        assert_eq!(printed.kept(), b"<domain></domain>");
        assert!(printed.tag.capacity() <= 2 * MAX_TAG);
    }

    #[test]
    fn what_is_elsewhere_has_one() {
        let mut printed = PrintedDomain::default();
        assert_eq!(printed.push(&vec![b'x'; MAX_PRINTED_BYTES]), Ok(()));
        assert_eq!(printed.push(b"x"), Err(TooLong));
    }

    #[test]
    fn places_are_those_in_the_whole() {
        for metadata in ["<metadata/>", "<metadata>\n ä\n</metadata>", "<metadata>ä</metadata>"] {
            for text in
                [format!("<domain>\n  {metadata}\n <a/>\n</domain>"), format!("<domain>{metadata} <a/></domain>")]
            {
                let printed = printed(&text, 3);
                let at = |text: &[u8], what: &str| {
                    let whole = std::str::from_utf8(text).expect("UTF-8");
                    Location::of(text, whole.find(what).expect("it is there"))
                };
                for what in ["<a/>", "</domain>", "domain"] {
                    assert_eq!(printed.place(at(printed.kept(), what)), at(text.as_bytes(), what), "{text} {what}");
                }
            }
        }
    }
}
