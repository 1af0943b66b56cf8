//! From a text to a [`Document`]: one pass over its bytes, as strict as libxml2.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::Span;
use super::document::{AttributeData, Document, ElementData, TextData};
use super::wellformed::{self, Attributes, MAX_DEPTH, XmlError, name_end, skip_space};
use crate::text::quoted;

/// A document that is being read. Offsets are counted from the first byte of the source, byte order mark included; what
/// reads a piece of markup takes the offset of its first byte and gives the one behind its last.
pub(super) struct TreeBuilder<'a> {
    document: Document<'a>,
    mark_len: usize,
    max_nodes: usize,
    open: Vec<usize>,
    scopes: Scopes<'a>,
}

/// Which prefix means which namespace, at the place reached.
#[derive(Default)]
struct Scopes<'a> {
    bindings: HashMap<&'a str, Vec<usize>>,
    /// The declarations in force, with the depth of the element that made them, innermost last.
    declared: Vec<(usize, &'a str)>,
}

impl<'a> Scopes<'a> {
    /// The namespace of an element; an undeclared prefix has none, as in libxml2, which only warns.
    fn of(&self, name: &str) -> Option<usize> {
        if self.declared.is_empty() {
            return None;
        }
        let prefix = name.split_once(':').map_or("", |(prefix, _)| prefix);
        let namespace = self.bindings.get(prefix).and_then(|stack| stack.last()).copied();
        namespace.filter(|&namespace| namespace != 0)
    }

    fn bind(&mut self, prefix: &'a str, depth: usize, namespace: usize) {
        self.bindings.entry(prefix).or_default().push(namespace);
        self.declared.push((depth, prefix));
    }

    fn leave(&mut self, depth: usize) {
        while let Some((_, prefix)) = self.declared.pop_if(|(at, _)| *at >= depth) {
            if let Some(stack) = self.bindings.get_mut(prefix) {
                stack.pop();
            }
        }
    }
}

impl<'a> TreeBuilder<'a> {
    pub(super) fn new(source: &'a str, mark_len: usize, max_nodes: usize) -> Self {
        // About what a domain has, so that hardly any has to be copied while it grows; a limit, as input may be anything.
        let room = (source.len() / 32).min(1024);
        let document = Document {
            source,
            elements: Vec::with_capacity(room),
            attributes: Vec::with_capacity(room),
            texts: Vec::with_capacity(room),
            // The first namespace is the empty one: `xmlns=""` takes an element out of all namespaces.
            namespaces: vec![Cow::Borrowed("")],
        };
        Self { document, mark_len, max_nodes, open: Vec::new(), scopes: Scopes::default() }
    }

    fn error(&self, offset: usize, message: impl Into<Cow<'static, str>>) -> XmlError {
        XmlError::new(self.document.source.as_bytes(), offset, message)
    }

    pub(super) fn run(mut self) -> Result<Document<'a>, XmlError> {
        let bytes = self.document.source.as_bytes();
        let mut at = self.mark_len;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let before = at;
            at = match rest {
                [b'<', b'/', ..] => self.end_tag(at)?,
                [b'<', b'!', ..] => self.declaration_or_comment(at)?,
                [b'<', b'?', ..] => self.instruction(at)?,
                [b'<', ..] => self.start_tag(at)?,
                [b'&', ..] => self.reference(at)?,
                _ => self.characters(at)?,
            };
            self.check_nodes(before)?;
        }
        self.finish()
    }

    fn check_nodes(&self, at: usize) -> Result<(), XmlError> {
        let document = &self.document;
        if document.elements.len() + document.attributes.len() + document.texts.len() <= self.max_nodes {
            return Ok(());
        }
        Err(self.error(at, format!("more than {} elements, attributes and texts", self.max_nodes)))
    }

    fn start_tag(&mut self, start: usize) -> Result<usize, XmlError> {
        if self.open.is_empty() && !self.document.elements.is_empty() {
            return Err(self.error(start, "more than one outermost element"));
        }
        let depth = self.open.len();
        if depth >= MAX_DEPTH {
            return Err(self.error(start, format!("nested deeper than {MAX_DEPTH} elements")));
        }
        let source = self.document.source;
        let name_start = start + "<".len();
        let Some(name_end) = name_end(source, name_start) else {
            return Err(self.error(start, "not a valid element name"));
        };
        let first_attribute = self.document.attributes.len();
        let at = self.attributes(start, name_end, depth)?;
        let (end, is_empty) = match &source.as_bytes()[at..] {
            [b'>', ..] => (at + ">".len(), false),
            [b'/', b'>', ..] => (at + "/>".len(), true),
            [] | [b'/'] => return Err(self.error(start, "tag not closed: `>` not found before end of input")),
            _ => return Err(self.error(at, "`/` in a tag without `>` behind it")),
        };
        let span = Span::new(start, end);
        let index = self.document.elements.len();
        let name = &source[name_start..name_end];
        self.document.elements.push(ElementData {
            name,
            namespace: self.scopes.of(name),
            start_tag: span,
            whole: span,
            attributes: first_attribute..self.document.attributes.len(),
            subtree_end: index + 1,
        });
        if is_empty {
            self.scopes.leave(depth);
        } else {
            self.open.push(index);
        }
        Ok(end)
    }

    /// Reads the attributes of a tag whose name ends at `from`.
    fn attributes(&mut self, start: usize, from: usize, depth: usize) -> Result<usize, XmlError> {
        /// As many names are compared quicker than hashed; more would take for ever to be compared.
        const FEW: usize = 16;
        let source = self.document.source;
        let first = self.document.attributes.len();
        let mut names = HashSet::new();
        let mut attributes = Attributes { text: source, at: from };
        // Of a text that ends in a tag, the tag is of interest.
        let wrong = |at: usize| if at == source.len() { start } else { at };
        while let Some(raw) = attributes.read_next().map_err(|(at, message)| self.error(wrong(at), message))? {
            let name = &source[raw.name.clone()];
            let others = &self.document.attributes[first..];
            let is_new = if others.len() < FEW {
                others.iter().all(|other| other.name != name)
            } else {
                if names.is_empty() {
                    names.extend(others.iter().map(|other| other.name));
                }
                names.insert(name)
            };
            if !is_new {
                return Err(self.error(raw.name.start, format!("attribute `{}` is given twice", quoted(name))));
            }
            let span = Span::new(raw.value.start, raw.value.end);
            let value = match &source[raw.value] {
                value if raw.is_plain => Cow::Borrowed(value),
                value => {
                    wellformed::attribute_value(value).map_err(|(at, message)| self.error(span.start + at, message))?
                }
            };
            if let Some(prefix) = name.strip_prefix("xmlns") {
                self.declare(prefix, value.clone(), depth);
            }
            self.document.attributes.push(AttributeData { name, value, span });
            self.check_nodes(span.start)?;
        }
        Ok(attributes.at)
    }

    /// Takes an attribute that begins with `xmlns` and goes on like this for what it is.
    fn declare(&mut self, rest: &'a str, value: Cow<'a, str>, depth: usize) {
        let prefix = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
        let Some(prefix) = prefix else { return };
        let namespace = if value.is_empty() { 0 } else { self.document.namespaces.len() };
        if namespace != 0 {
            self.document.namespaces.push(value);
        }
        self.scopes.bind(prefix, depth, namespace);
    }

    fn end_tag(&mut self, start: usize) -> Result<usize, XmlError> {
        let rest = &self.document.source[start + "</".len()..];
        let Some(index) = self.open.pop() else {
            return Err(self.error(start, format!("`</{}>` closes no element", quoted(tag_name(rest)))));
        };
        let name = self.document.elements[index].name;
        let closed = rest.strip_prefix(name).map(|rest| skip_space(rest.as_bytes(), 0));
        let end = closed.map_or(0, |blanks| start + "</".len() + name.len() + blanks);
        if self.document.source.as_bytes().get(end) != Some(&b'>') || closed.is_none() {
            let message = format!("expected `</{}>`, but `</{}>` was found", quoted(name), quoted(tag_name(rest)));
            return Err(self.error(start, message));
        }
        let behind = self.document.elements.len();
        let element = &mut self.document.elements[index];
        element.whole.end = end + ">".len();
        element.subtree_end = behind;
        self.scopes.leave(self.open.len());
        Ok(end + ">".len())
    }

    fn characters(&mut self, start: usize) -> Result<usize, XmlError> {
        let rest = &self.document.source.as_bytes()[start..];
        let mut end = start;
        loop {
            let is_special = |byte: &u8| matches!(byte, b'<' | b'&' | b']');
            end += rest[end - start..].iter().position(is_special).unwrap_or(rest.len() - (end - start));
            match &rest[end - start..] {
                [b']', b']', b'>', ..] => return Err(self.error(end, "`]]>` is not allowed in text")),
                [b']', ..] => end += 1,
                _ => break,
            }
        }
        if self.open.is_empty() {
            let text = &rest[..end - start];
            return match text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
                Some(at) if self.document.elements.is_empty() => {
                    Err(self.error(start + at, "text before the outermost element; not XML"))
                }
                Some(at) => Err(self.error(start + at, "text behind the outermost element")),
                None => Ok(end),
            };
        }
        self.text(Span::new(start, end), false);
        Ok(end)
    }

    /// Adds text, to what is there already if it touches it: a text of nothing but references is one text.
    fn text(&mut self, span: Span, has_references: bool) {
        match self.document.texts.last_mut() {
            Some(last) if last.span.end == span.start => {
                last.span.end = span.end;
                last.has_references |= has_references;
            }
            _ => self.document.texts.push(TextData { span, has_references }),
        }
    }

    fn reference(&mut self, start: usize) -> Result<usize, XmlError> {
        if self.open.is_empty() {
            return Err(self.error(start, "text outside the outermost element"));
        }
        let rest = &self.document.source[start + "&".len()..];
        let name = match rest.split_once([';', '&', '<']) {
            Some((name, _)) if rest.as_bytes()[name.len()] == b';' => name,
            _ => return Err(self.error(start, "`&` starts no entity reference")),
        };
        wellformed::entity(name).map_err(|message| self.error(start, message))?;
        let end = start + "&;".len() + name.len();
        self.text(Span::new(start, end), true);
        Ok(end)
    }

    /// What begins with `<!`.
    fn declaration_or_comment(&mut self, start: usize) -> Result<usize, XmlError> {
        let rest = &self.document.source[start..];
        let end_of = |opening: &str, closing: &str| Some(opening.len() + rest.strip_prefix(opening)?.find(closing)?);
        if rest.starts_with("<!--") {
            return match end_of("<!--", "--").map(|end| (end, &rest[end..])) {
                Some((end, rest)) if rest.starts_with("-->") => Ok(start + end + "-->".len()),
                Some((end, rest)) if rest != "--" => Err(self.error(start + end, "`--` is not allowed in a comment")),
                _ => Err(self.error(start, "comment not closed: `-->` not found before end of input")),
            };
        }
        if rest.starts_with("<![CDATA[") {
            if self.open.is_empty() {
                return Err(self.error(start, "text outside the outermost element"));
            }
            let Some(end) = end_of("<![CDATA[", "]]>").map(|end| start + end) else {
                return Err(self.error(start, "CDATA not closed: `]]>` not found before end of input"));
            };
            let span = Span::new(start + "<![CDATA[".len(), end);
            self.document.texts.push(TextData { span, has_references: false });
            return Ok(end + "]]>".len());
        }
        if rest.starts_with("<!DOCTYPE") {
            let message = "document type declarations and entities are not accepted in domain XML";
            return Err(self.error(start, message));
        }
        Err(self.error(start, "`<!` starts neither a comment nor CDATA"))
    }

    /// What begins with `<?`: a processing instruction, or the XML declaration.
    fn instruction(&mut self, start: usize) -> Result<usize, XmlError> {
        let rest = &self.document.source[start + "<?".len()..];
        let Some((inside, _)) = rest.split_once("?>") else {
            return Err(self.error(start, "processing instruction not closed: `?>` not found before end of input"));
        };
        let target = inside.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        if target == "xml" {
            self.declaration(start, &inside[target.len()..])?;
        } else if !wellformed::is_name(target) || target.eq_ignore_ascii_case("xml") {
            return Err(self.error(start, "not a valid processing instruction"));
        }
        Ok(start + "<??>".len() + inside.len())
    }

    /// The XML declaration at `start`, with this behind `<?xml`.
    fn declaration(&self, start: usize, inside: &str) -> Result<(), XmlError> {
        if start != self.mark_len {
            return Err(self.error(start, "an XML declaration is allowed at the very start only"));
        }
        // The one place where libxml2 asks for no white space.
        let joined = inside.find("standalone").filter(|&at| inside[..at].ends_with(['\'', '"']));
        let inside = &*joined.map_or(Cow::Borrowed(inside), |at| format!("{} {}", &inside[..at], &inside[at..]).into());
        let wrong = |(at, message): (usize, &'static str)| self.error(start + "<?xml".len() + at, message);
        let attributes = wellformed::attributes(inside, 0).map_err(wrong)?;
        let mut order = ["version", "encoding", "standalone"].iter();
        for attribute in &attributes {
            let (name, value) = (&inside[attribute.name.clone()], &inside[attribute.value.clone()]);
            let valid = order.any(|expected| expected == &name)
                && match name {
                    "version" => {
                        value.strip_prefix("1.").is_some_and(|minor| minor.bytes().all(|b| b.is_ascii_digit()))
                    }
                    "standalone" => matches!(value, "yes" | "no"),
                    _ => true,
                };
            if !valid {
                return Err(wrong((attribute.name.start, "not a valid XML declaration")));
            }
            let known = match value.to_ascii_lowercase().as_str() {
                "utf-8" | "utf8" => true,
                "us-ascii" | "ascii" => self.document.source[self.mark_len..].is_ascii(),
                _ => false,
            };
            if name == "encoding" && !known {
                let message = format!("encoding `{}`; domain XML is read as UTF-8 only", quoted(value));
                return Err(self.error(start + "<?xml".len() + attribute.value.start, message));
            }
        }
        match attributes.first() {
            Some(first) if &inside[first.name.clone()] == "version" => Ok(()),
            _ => Err(self.error(start, "an XML declaration without a version")),
        }
    }

    fn finish(self) -> Result<Document<'a>, XmlError> {
        if let Some(&index) = self.open.last() {
            let element = &self.document.elements[index];
            let message = format!("`<{}>` is not closed", quoted(element.name));
            return Err(self.error(element.start_tag.start, message));
        }
        if self.document.elements.is_empty() {
            return Err(self.error(self.document.source.len(), "empty document; no XML element in it"));
        }
        Ok(self.document)
    }
}

/// What a tag is called, for people.
fn tag_name(inside: &str) -> &str {
    inside.split(['>', '<']).next().unwrap_or_default().trim_end()
}
