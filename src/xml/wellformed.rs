//! What quick-xml accepts and libxml2, libvirt's parser, does not.

use std::borrow::Cow;
use std::ops::Range;

use super::Location;
use crate::text::quoted;

/// The longest document read: 4 MiB, the longest string libvirt's remote protocol carries
/// (`REMOTE_STRING_MAX` in libvirt's `src/remote/remote_protocol.x`), so no longer domain can be defined.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The deepest nesting read, in elements, the outermost one included. libxml2 (`xmlParserMaxDepth`, 256 below the
/// outermost element) stops there unless told otherwise, and libvirt does not tell it otherwise.
pub const MAX_DEPTH: usize = 257;

/// The most elements, attributes and pieces of text that are read of a file, together. A domain with a thousand devices
/// has a third of it; without a limit, 4 MiB of the shortest elements would take a hundred MiB of memory.
pub const MAX_NODES: usize = 64 * 1024;

/// Why a text is not a well-formed XML document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct XmlError {
    /// Where the trouble is.
    pub location: Location,
    /// What the trouble is, in one line.
    pub message: Cow<'static, str>,
}

impl XmlError {
    pub(super) fn new(text: &[u8], offset: usize, message: impl Into<Cow<'static, str>>) -> Self {
        Self { location: Location::of(text, offset), message: message.into() }
    }
}

/// Checks size, encoding and characters, and gives the text and the length of the byte order mark that it begins with.
pub(super) fn decode(bytes: &[u8], max_bytes: usize) -> Result<(&str, usize), XmlError> {
    if bytes.len() > max_bytes {
        let message = format!("longer than {} MiB, more than libvirt accepts as a domain", max_bytes >> 20);
        return Err(XmlError::new(&bytes[..=max_bytes], max_bytes, message));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || looks_like_utf16(bytes) {
        return Err(XmlError::new(bytes, 0, "UTF-16 text; domain XML is read as UTF-8 only"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| XmlError::new(bytes, e.valid_up_to(), "not UTF-8"))?;
    if let Some((offset, c)) = first_odd_character(text) {
        let message = format!("character U+{:04X} is not allowed in XML", u32::from(c));
        return Err(XmlError::new(bytes, offset, message));
    }
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    if body.starts_with('\u{feff}') {
        return Err(XmlError::new(bytes, 0, "two byte order marks"));
    }
    Ok((text, text.len() - body.len()))
}

/// The first character that XML does not allow, and its offset.
fn first_odd_character(text: &str) -> Option<(usize, char)> {
    // Of UTF-8, only control characters and what may begin U+FFFE or U+FFFF need a look at whole characters. Sums over
    // blocks, without a way out in the middle, are what compilers turn into vector instructions.
    let may_be_odd = |byte: u8| (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0xef;
    let odd_block = |block: &[u8]| block.iter().fold(false, |odd, &byte| odd | may_be_odd(byte));
    if !text.as_bytes().chunks(64).any(odd_block) {
        return None;
    }
    text.char_indices().find(|&(_, c)| !is_xml_char(c))
}

fn looks_like_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [b'<', 0, ..] | [0, b'<', ..])
}

/// `Char` of the XML 1.0 specification.
pub(super) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// `NameStartChar` of the XML 1.0 specification, fifth edition.
fn is_name_start(c: char) -> bool {
    matches!(c,
        ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

/// `NameChar` of the XML 1.0 specification, fifth edition.
fn is_name_char(c: char) -> bool {
    is_name_start(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// What a byte may be in a start tag, so that one look at each byte answers all questions.
mod class {
    /// It begins a name of ASCII.
    pub const NAME_START: u8 = 1;
    /// It is in a name of ASCII.
    pub const NAME: u8 = 2;
    /// It may end the value of an attribute, or means something else than itself there.
    pub const SPECIAL: u8 = 4;
    /// It is white space.
    pub const SPACE: u8 = 8;

    /// The classes of each byte.
    pub static OF: [u8; 256] = {
        let mut classes = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            classes[byte] = match byte as u8 {
                b'A'..=b'Z' | b'a'..=b'z' | b'_' | b':' => NAME_START | NAME,
                b'0'..=b'9' | b'-' | b'.' => NAME,
                b'"' | b'\'' | b'<' | b'&' => SPECIAL,
                b'\t' | b'\n' | b'\r' => SPACE | SPECIAL,
                b' ' => SPACE,
                _ => 0,
            };
            byte += 1;
        }
        classes
    };
}

/// Whether the byte is in one of the classes.
fn is(byte: u8, classes: u8) -> bool {
    class::OF[usize::from(byte)] & classes != 0
}

/// Whether `name` can name an element or attribute. Colons may be anywhere: libxml2 only warns of odd ones.
pub(super) fn is_name(name: &str) -> bool {
    /// libxml2's `XML_MAX_NAME_LENGTH`, in bytes.
    const LONGEST_NAME: usize = 50_000;
    let bytes = name.as_bytes();
    if bytes.len() > LONGEST_NAME {
        return false;
    }
    if bytes.iter().all(|&byte| is(byte, class::NAME)) {
        return bytes.first().is_some_and(|&byte| is(byte, class::NAME_START));
    }
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

/// One attribute of a start tag, as ranges of the tag's inside.
pub(crate) struct RawAttribute {
    /// Where the name is.
    pub name: Range<usize>,
    /// Where the value is, without its quotes.
    pub value: Range<usize>,
    /// Whether the value means what is written, and needs no [`attribute_value`].
    pub is_plain: bool,
}

/// The attributes in the inside of a start tag, from `at`, after the element's name, on; or the offset in `inside` where
/// something is wrong, and what.
///
/// quick-xml's own iterator accepts attributes that are not separated by white space and compares every pair of names;
/// this one does neither, so a tag with a hundred thousand attributes takes linear time.
pub(crate) fn attributes(inside: &str, at: usize) -> Attributes<'_> {
    Attributes { inside, at }
}

/// See [`attributes`].
pub(crate) struct Attributes<'a> {
    inside: &'a str,
    at: usize,
}

impl Iterator for Attributes<'_> {
    type Item = Result<RawAttribute, (usize, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        // Most tags have no white space after the last attribute.
        if self.at == self.inside.len() {
            return None;
        }
        let next = self.attribute().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.at = self.inside.len();
        }
        next
    }
}

impl Attributes<'_> {
    fn attribute(&mut self) -> Result<Option<RawAttribute>, (usize, &'static str)> {
        let bytes = self.inside.as_bytes();
        let skip = |at: usize, classes: u8| {
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest.iter().position(|&byte| !is(byte, classes)).unwrap_or(rest.len())
        };
        let start = skip(self.at, class::SPACE);
        if start == bytes.len() {
            return Ok(None);
        }
        if start == self.at {
            return Err((start, "white space is missing before an attribute"));
        }
        // Names and values are short: a loop over bytes is faster than a search that has to be set up.
        let name_len = bytes[start..].iter().position(|&byte| byte == b'=' || is(byte, class::SPACE));
        let name = start..start + name_len.ok_or((start, "an attribute has no value"))?;
        if !is_name(&self.inside[name.clone()]) {
            return Err((start, "not a valid attribute name"));
        }
        let equals = skip(name.end, class::SPACE);
        if bytes.get(equals) != Some(&b'=') {
            return Err((start, "an attribute has no value"));
        }
        let open = skip(equals + 1, class::SPACE);
        let quote = match bytes.get(open) {
            Some(&quote @ (b'"' | b'\'')) => quote,
            _ => return Err((open.min(bytes.len()), "an attribute value is not quoted")),
        };
        let rest = &bytes[open + 1..];
        let plain = rest.iter().position(|&byte| is(byte, class::SPECIAL)).unwrap_or(rest.len());
        let is_plain = rest.get(plain) == Some(&quote);
        let more = rest[plain..].iter().position(|&byte| byte == quote);
        let value_len = plain + more.ok_or((open, "an attribute value is not closed"))?;
        let value = open + 1..open + 1 + value_len;
        if let Some(lt) = rest[plain..value_len].iter().position(|&byte| byte == b'<') {
            return Err((open + 1 + plain + lt, "`<` is not allowed in an attribute value"));
        }
        self.at = value.end + 1;
        Ok(Some(RawAttribute { name, value, is_plain }))
    }
}

/// The character that `&name;` means.
///
/// # Errors
/// What is wrong with it. There is no DTD, so only the five predefined entities and character references exist.
pub(super) fn entity(name: &str) -> Result<char, Cow<'static, str>> {
    let number = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "apos" => return Ok('\''),
        "quot" => return Ok('"'),
        _ => match name.strip_prefix('#') {
            Some(number) => number,
            None => return Err(format!("entity `&{};` is not defined", quoted(name)).into()),
        },
    };
    let code = match number.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
        _ => None,
    };
    code.and_then(char::from_u32).filter(|&c| is_xml_char(c)).ok_or_else(|| "not a valid character reference".into())
}

/// The text that a well-formed text with references means.
pub(super) fn text_value(raw: &str) -> Cow<'_, str> {
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, behind) = after.split_once(';').unwrap_or((after, ""));
        value.push_str(before);
        value.extend(entity(name));
        rest = behind;
    }
    value.push_str(rest);
    Cow::Owned(value)
}

/// The value an attribute has after entities are resolved and white space is normalised.
///
/// # Errors
/// The offset in `raw` and what is wrong there.
pub(crate) fn attribute_value(raw: &str) -> Result<Cow<'_, str>, (usize, Cow<'static, str>)> {
    if !raw.bytes().any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(c) = raw[at..].chars().next() {
        match c {
            '&' => {
                let len = raw[at..].find(';').ok_or((at, Cow::Borrowed("`&` does not begin an entity reference")))?;
                value.push(entity(&raw[at + 1..at + len]).map_err(|message| (at, message))?);
                at += len + 1;
                continue;
            }
            '\r' if raw[at + 1..].starts_with('\n') => {}
            '\t' | '\n' | '\r' => value.push(' '),
            other => value.push(other),
        }
        at += c.len_utf8();
    }
    Ok(Cow::Owned(value))
}
