//! A parsed document: elements, attributes and text with their places, in flat arrays.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::wellformed::{self, MAX_BYTES, MAX_DEPTH, MAX_NODES, XmlError};
use super::{Location, Span};
use crate::text::{printable, quoted};

/// How much of a document is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Elements, attributes and pieces of text, together.
    pub nodes: usize,
}

impl Limits {
    /// What is read of a file, which may be anything.
    pub const FILE: Self = Self { bytes: MAX_BYTES, nodes: MAX_NODES };
}

/// A well-formed XML document. Nothing of the source is copied but values that contain references.
#[derive(Debug)]
pub struct Document<'a> {
    source: &'a str,
    elements: Vec<ElementData<'a>>,
    attributes: Vec<AttributeData<'a>>,
    texts: Vec<TextData>,
    namespaces: Vec<Cow<'a, str>>,
}

#[derive(Debug)]
struct ElementData<'a> {
    name: &'a str,
    namespace: Option<usize>,
    start_tag: Span,
    whole: Span,
    attributes: std::ops::Range<usize>,
    /// Index after the last descendant, so that children are found by jumping from sibling to sibling.
    subtree_end: usize,
}

#[derive(Debug)]
struct AttributeData<'a> {
    name: &'a str,
    value: Cow<'a, str>,
    span: Span,
}

#[derive(Debug)]
struct TextData {
    span: Span,
    /// Whether there are references in it.
    has_references: bool,
}

/// An element of a [`Document`].
#[derive(Debug, Clone, Copy)]
pub struct Element<'d> {
    document: &'d Document<'d>,
    index: usize,
}

/// An attribute of an [`Element`].
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'d> {
    /// The value, references resolved.
    pub value: &'d str,
    /// Where the value is, without its quotes.
    pub span: Span,
}

impl<'a> Document<'a> {
    /// Parses a whole document.
    ///
    /// # Errors
    /// The document is not well-formed or nested deeper than [`MAX_DEPTH`], which libvirt's parser refuses; or it has
    /// what no domain needs: a document type declaration, another encoding than UTF-8, more than [`Limits::FILE`] has.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, XmlError> {
        Self::parse_within(bytes, Limits::FILE)
    }

    /// Parses a whole document that may have as much as `limits` say.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_within(bytes: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
        // Offsets are counted from the first byte of the source, byte order mark included.
        let (source, mark_len) = wellformed::decode(bytes, limits.bytes)?;
        TreeBuilder::new(source, mark_len, limits.nodes).run()
    }

    /// The source text, byte order mark included.
    pub fn source(&self) -> &str {
        self.source
    }

    /// The place of a byte offset.
    pub fn location(&self, offset: usize) -> Location {
        Location::of(self.source.as_bytes(), offset)
    }

    /// The outermost element.
    pub fn root(&self) -> Element<'_> {
        Element { document: self, index: 0 }
    }
}

impl<'d> Element<'d> {
    fn data(&self) -> &'d ElementData<'d> {
        &self.document.elements[self.index]
    }

    /// The name as written, prefix included.
    pub fn name(&self) -> &'d str {
        self.data().name
    }

    /// The name without its prefix.
    pub fn local_name(&self) -> &'d str {
        let name = self.name();
        name.rsplit_once(':').map_or(name, |(_, local)| local)
    }

    /// The namespace URI, `None` for elements in no namespace.
    pub fn namespace(&self) -> Option<&'d str> {
        self.data().namespace.map(|index| &*self.document.namespaces[index])
    }

    /// Where the start tag is, `<` and `>` included.
    pub fn start_tag(&self) -> Span {
        self.data().start_tag
    }

    /// Where the whole element is.
    pub fn span(&self) -> Span {
        self.data().whole
    }

    /// The child elements in document order.
    pub fn children(&self) -> impl Iterator<Item = Element<'d>> + use<'d> {
        let (document, end) = (self.document, self.data().subtree_end);
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let element = Element { document, index: next };
            (next < end).then(|| {
                next = element.data().subtree_end;
                element
            })
        })
    }

    /// The children called `name` that are in no namespace, as the XPath `./name` finds them.
    pub fn children_named(&self, name: &'d str) -> impl Iterator<Item = Element<'d>> + use<'d> {
        self.children().filter(move |child| child.name() == name && child.namespace().is_none())
    }

    /// The first child called `name` that is in no namespace, as the XPath `./name[1]` finds it.
    pub fn child(&self, name: &'d str) -> Option<Element<'d>> {
        self.children_named(name).next()
    }

    /// The first element at the end of `path`, one child a step.
    pub fn descend(&self, path: &[&'d str]) -> Option<Element<'d>> {
        path.iter().try_fold(*self, |element, name| element.child(name))
    }

    /// The attribute called `name` (prefix included, if it has one).
    pub fn attribute(&self, name: &str) -> Option<Attribute<'d>> {
        let attributes = &self.document.attributes[self.data().attributes.clone()];
        attributes.iter().find(|a| a.name == name).map(|a| Attribute { value: &a.value, span: a.span })
    }

    /// The value of the attribute called `name`.
    pub fn value(&self, name: &str) -> Option<&'d str> {
        self.attribute(name).map(|attribute| attribute.value)
    }

    /// All text inside, that of descendants included, as the XPath function `string()` gives it.
    pub fn text(&self) -> Cow<'d, str> {
        self.text_with_span().0
    }

    /// Where the text is; of an element without text, its start tag.
    pub fn text_span(&self) -> Span {
        self.text_with_span().1
    }

    /// [`Self::text`] and [`Self::text_span`].
    pub fn text_with_span(&self) -> (Cow<'d, str>, Span) {
        let mut parts = self.text_parts();
        let Some(first) = parts.next() else { return (Cow::Borrowed(""), self.start_tag()) };
        let value = |part: &TextData| match self.slice(part.span) {
            raw if part.has_references => wellformed::text_value(raw),
            raw => Cow::Borrowed(raw),
        };
        let (mut text, mut span) = (value(first), first.span);
        for part in parts {
            text.to_mut().push_str(&value(part));
            span.end = part.span.end;
        }
        (text, span)
    }

    fn text_parts(&self) -> impl Iterator<Item = &'d TextData> + use<'d> {
        let (whole, texts) = (self.data().whole, &self.document.texts);
        let first = texts.partition_point(|text| text.span.start < whole.start);
        texts[first..].iter().take_while(move |text| text.span.end <= whole.end)
    }

    fn slice(&self, span: Span) -> &'d str {
        &self.document.source[span.start..span.end]
    }
}

/// What quick-xml objects to; it quotes names of any length.
fn shortened(error: &quick_xml::Error) -> String {
    /// Characters; no message without a quote is longer.
    const LONGEST: usize = 160;
    let message = printable(&error.to_string()).into_owned();
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

struct TreeBuilder<'a> {
    document: Document<'a>,
    body: &'a str,
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
    /// The namespace of an element of this name; that of an undeclared prefix is none, as in libxml2, which only warns.
    fn lookup(&self, name: &str) -> Option<usize> {
        if self.declared.is_empty() {
            return None;
        }
        let prefix = name.split_once(':').map_or("", |(prefix, _)| prefix);
        self.bindings.get(prefix).and_then(|stack| stack.last()).copied()
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
    fn new(source: &'a str, mark_len: usize, max_nodes: usize) -> Self {
        let body = &source[mark_len..];
        // About the size of a domain, so that vectors rarely grow; limited, as the input may be anything.
        let room = (body.len() / 32).min(1024);
        let document = Document {
            source,
            elements: Vec::with_capacity(room),
            attributes: Vec::with_capacity(room),
            texts: Vec::with_capacity(room),
            // The first namespace is the empty one: `xmlns=""` takes an element out of all namespaces.
            namespaces: vec![Cow::Borrowed("")],
        };
        Self { document, body, mark_len, max_nodes, open: Vec::new(), scopes: Scopes::default() }
    }

    fn error(&self, offset: usize, message: impl Into<Cow<'static, str>>) -> XmlError {
        XmlError::new(self.document.source.as_bytes(), offset, message)
    }

    fn run(mut self) -> Result<Document<'a>, XmlError> {
        let mut reader = Reader::from_str(self.body);
        reader.config_mut().check_comments = true;
        loop {
            let start = self.offset(reader.buffer_position());
            let event = reader
                .read_event()
                .map_err(|error| self.error(self.offset(reader.error_position()), shortened(&error)))?;
            let span = Span::new(start, self.offset(reader.buffer_position()));
            let document = &self.document;
            if document.elements.len() + document.attributes.len() + document.texts.len() > self.max_nodes {
                let message = format!("more than {} elements, attributes and texts", self.max_nodes);
                return Err(self.error(start, message));
            }
            match event {
                Event::Start(tag) => self.start(&tag, span, false)?,
                Event::Empty(tag) => self.start(&tag, span, true)?,
                Event::End(_) => self.end(span),
                Event::Text(_) => self.characters(span)?,
                Event::CData(_) => self.cdata(span)?,
                Event::GeneralRef(name) => self.reference(&name.into_inner(), span)?,
                Event::Decl(_) => self.declaration(span)?,
                Event::PI(instruction) => self.instruction(instruction.target(), span)?,
                Event::DocType(_) => {
                    let message = "document type declarations and entities are not accepted in domain XML";
                    return Err(self.error(span.start, message));
                }
                Event::Comment(_) => {}
                Event::Eof => return self.finish(),
            }
        }
    }

    fn offset(&self, position: u64) -> usize {
        usize::try_from(position).unwrap_or(usize::MAX).saturating_add(self.mark_len).min(self.document.source.len())
    }

    fn slice(&self, span: Span) -> &'a str {
        &self.document.source[span.start..span.end]
    }

    fn start(&mut self, tag: &BytesStart<'_>, span: Span, empty: bool) -> Result<(), XmlError> {
        if self.open.is_empty() && !self.document.elements.is_empty() {
            return Err(self.error(span.start, "more than one outermost element"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(span.start, format!("nested deeper than {MAX_DEPTH} elements")));
        }
        let end = if empty { "/>".len() } else { ">".len() };
        let inside = self.slice(Span::new(span.start + "<".len(), span.end - end));
        let name_len = tag.name().as_ref().len();
        let name = &inside[..name_len];
        if !wellformed::is_name(name) {
            return Err(self.error(span.start, "not a valid element name"));
        }
        let depth = self.open.len();
        let first_attribute = self.document.attributes.len();
        self.attributes(inside, name_len, span.start + 1, depth)?;

        let namespace = self.scopes.lookup(name);
        let index = self.document.elements.len();
        self.document.elements.push(ElementData {
            name,
            namespace: namespace.filter(|&namespace| namespace != 0),
            start_tag: span,
            whole: span,
            attributes: first_attribute..self.document.attributes.len(),
            subtree_end: index + 1,
        });
        self.open.push(index);
        if empty {
            self.end(span);
        }
        Ok(())
    }

    fn attributes(&mut self, inside: &'a str, from: usize, base: usize, depth: usize) -> Result<(), XmlError> {
        /// Comparing is faster for few names, hashing for many.
        const FEW: usize = 16;
        let mut many = HashSet::new();
        let first = self.document.attributes.len();
        let max_nodes = self.max_nodes;
        for attribute in wellformed::attributes(inside, from) {
            let attribute = attribute.map_err(|(at, message)| self.error(base + at, message))?;
            let name = &inside[attribute.name.clone()];
            let others = &self.document.attributes[first..];
            if others.len() >= max_nodes {
                return Err(self.error(base + attribute.name.start, "too many attributes"));
            }
            let is_new = if others.len() < FEW {
                others.iter().all(|other| other.name != name)
            } else {
                if many.is_empty() {
                    many.extend(others.iter().map(|other| other.name));
                }
                many.insert(name)
            };
            if !is_new {
                return Err(
                    self.error(base + attribute.name.start, format!("attribute `{}` is given twice", quoted(name)))
                );
            }
            let span = Span::new(base + attribute.value.start, base + attribute.value.end);
            let value = match &inside[attribute.value] {
                plain if attribute.is_plain => Cow::Borrowed(plain),
                raw => {
                    wellformed::attribute_value(raw).map_err(|(at, message)| self.error(span.start + at, message))?
                }
            };
            let declared = if name == "xmlns" { Some("") } else { name.strip_prefix("xmlns:") };
            if let Some(prefix) = declared {
                let namespace = if value.is_empty() { 0 } else { self.document.namespaces.len() };
                if namespace != 0 {
                    self.document.namespaces.push(value.clone());
                }
                self.scopes.bind(prefix, depth, namespace);
            }
            self.document.attributes.push(AttributeData { name, value, span });
        }
        Ok(())
    }

    fn end(&mut self, span: Span) {
        // quick-xml has already matched the end tag with its start tag.
        if let Some(index) = self.open.pop() {
            let behind = self.document.elements.len();
            let element = &mut self.document.elements[index];
            element.whole.end = span.end;
            element.subtree_end = behind;
            self.scopes.leave(self.open.len());
        }
    }

    fn characters(&mut self, span: Span) -> Result<(), XmlError> {
        let text = self.slice(span);
        // A search for one byte is faster than one for three, and hardly any text has it.
        if let Some(at) = text.contains(']').then(|| text.find("]]>")).flatten() {
            return Err(self.error(span.start + at, "`]]>` is not allowed in text"));
        }
        if self.open.is_empty() {
            return match text.find(|c: char| !matches!(c, ' ' | '\t' | '\n' | '\r')) {
                Some(at) if self.document.elements.is_empty() => {
                    Err(self.error(span.start + at, "text before the outermost element; not XML"))
                }
                Some(at) => Err(self.error(span.start + at, "text after the outermost element")),
                None => Ok(()),
            };
        }
        self.text(span, false);
        Ok(())
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

    fn cdata(&mut self, span: Span) -> Result<(), XmlError> {
        if self.open.is_empty() {
            return Err(self.error(span.start, "text outside the outermost element"));
        }
        let inside = Span::new(span.start + "<![CDATA[".len(), span.end - "]]>".len());
        self.document.texts.push(TextData { span: inside, has_references: false });
        Ok(())
    }

    fn reference(&mut self, name: &str, span: Span) -> Result<(), XmlError> {
        if self.open.is_empty() {
            return Err(self.error(span.start, "text outside the outermost element"));
        }
        wellformed::entity(name).map_err(|message| self.error(span.start, message))?;
        self.text(span, true);
        Ok(())
    }

    fn declaration(&self, span: Span) -> Result<(), XmlError> {
        if span.start != self.mark_len {
            return Err(self.error(span.start, "an XML declaration is allowed only at the very start"));
        }
        let inside = self.slice(span).trim_start_matches("<?xml").trim_end_matches("?>");
        // The one place where libxml2 does not require white space.
        let joined = inside.find("standalone").filter(|&at| inside[..at].ends_with(['\'', '"']));
        let inside = &*joined.map_or(Cow::Borrowed(inside), |at| format!("{} {}", &inside[..at], &inside[at..]).into());
        let wrong = |(at, message): (usize, &'static str)| self.error(span.start + "<?xml".len() + at, message);
        let attributes: Vec<_> = wellformed::attributes(inside, 0).collect::<Result<_, _>>().map_err(wrong)?;
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
                "us-ascii" | "ascii" => self.body.is_ascii(),
                _ => false,
            };
            if name == "encoding" && !known {
                let message = format!("encoding `{}`; domain XML is read as UTF-8 only", quoted(value));
                return Err(self.error(span.start + "<?xml".len() + attribute.value.start, message));
            }
        }
        match attributes.first() {
            Some(first) if &inside[first.name.clone()] == "version" => Ok(()),
            _ => Err(self.error(span.start, "an XML declaration without a version")),
        }
    }

    fn instruction(&self, target: &str, span: Span) -> Result<(), XmlError> {
        if !wellformed::is_name(target) || target.eq_ignore_ascii_case("xml") {
            return Err(self.error(span.start, "not a valid processing instruction"));
        }
        Ok(())
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
