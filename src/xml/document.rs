//! A parsed document: elements, attributes and text with their places, in flat arrays.

use std::borrow::Cow;

use super::parse::TreeBuilder;
use super::wellformed::{self, MAX_BYTES, MAX_NODES, XmlError};
use super::{Location, Span};

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
    pub(super) source: &'a str,
    pub(super) elements: Vec<ElementData<'a>>,
    pub(super) attributes: Vec<AttributeData<'a>>,
    pub(super) texts: Vec<TextData>,
    pub(super) namespaces: Vec<Cow<'a, str>>,
}

#[derive(Debug)]
pub(super) struct ElementData<'a> {
    pub name: &'a str,
    pub namespace: Option<usize>,
    pub start_tag: Span,
    pub whole: Span,
    pub attributes: std::ops::Range<usize>,
    /// Index behind the last descendant, so that children are found by jumping from sibling to sibling.
    pub subtree_end: usize,
}

#[derive(Debug)]
pub(super) struct AttributeData<'a> {
    pub name: &'a str,
    pub value: Cow<'a, str>,
    pub span: Span,
}

#[derive(Debug)]
pub(super) struct TextData {
    pub span: Span,
    /// Whether there are references in it.
    pub has_references: bool,
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
    /// Where the value stands, without its quotes.
    pub span: Span,
}

impl<'a> Document<'a> {
    /// Parses a whole document.
    ///
    /// # Errors
    /// Whatever makes libvirt's parser refuse it (not well-formed, nested deeper than [`MAX_DEPTH`]), and what no
    /// domain needs: a document type declaration, another encoding than UTF-8, more than [`Limits::FILE`] has.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, XmlError> {
        Self::parse_within(bytes, Limits::FILE)
    }

    /// Parses a whole document that may have as much as `limits` say.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_within(bytes: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
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

    /// Where the start tag stands, `<` and `>` included.
    pub fn start_tag(&self) -> Span {
        self.data().start_tag
    }

    /// Where the whole element stands.
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

    /// The attribute called `name` (prefix included, where it has one).
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

    /// Where the text stands; of an element without text, its start tag.
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
