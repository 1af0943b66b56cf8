//! Editing a document without touching anything else: a list of replaced spans, and helpers that write XML the way the
//! file around it is written.

use std::borrow::Cow;

use super::{Document, Element, Span};

/// A span and what is there instead. An empty span inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced.
    pub span: Span,
    /// The replacement, as XML.
    pub text: String,
}

/// Two edits want the same bytes, or one lies outside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rewrite contradicts itself at byte {0}")]
pub struct EditError(pub usize);

/// `source` with all `edits` made. Those that insert at the same place are kept in their order.
///
/// # Errors
/// Two edits overlap, or one does not fit the text.
pub fn apply(source: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.span);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut result = String::with_capacity(source.len() + added);
    let mut copied = 0;
    for edit in sorted {
        let Span { start, end } = edit.span;
        let untouched = source.get(copied..start).filter(|_| source.get(start..end).is_some());
        result.push_str(untouched.ok_or(EditError(start))?);
        result.push_str(&edit.text);
        copied = end;
    }
    result.push_str(source.get(copied..).ok_or(EditError(copied))?);
    Ok(result)
}

/// Sets an attribute: replaces its value, or adds it as the last one of the start tag.
pub fn set_attribute(document: &Document<'_>, element: Element<'_>, name: &str, value: &str) -> Edit {
    let value = escape(value);
    if let Some(attribute) = element.attribute(name) {
        return Edit { span: attribute.span, text: value.into_owned() };
    }
    let quote = quote_of(document, element);
    let at = end_of_attributes(document, element);
    Edit { span: Span::new(at, at), text: format!(" {name}={quote}{value}{quote}") }
}

/// Removes an attribute and the white space before it; `None` if it is not there.
pub fn remove_attribute(document: &Document<'_>, element: Element<'_>, name: &str) -> Option<Edit> {
    let value = element.attribute(name)?.span;
    let before_value = &document.source()[element.start_tag().start..value.start];
    let name_at = before_value.rfind(name)?;
    let start = before_value[..name_at].trim_end().len();
    let span = Span::new(element.start_tag().start + start, value.end + 1);
    Some(Edit { span, text: String::new() })
}

/// Adds `markup`, a whole element, as the first child element of `parent`, on a line of its own where the file does so.
pub fn insert_first_child(document: &Document<'_>, parent: Element<'_>, markup: &str) -> Edit {
    let source = document.source();
    let tag = parent.start_tag();
    let name = parent.name();
    if let Some(first) = parent.children().next() {
        let at = first.span().start;
        let separator = line_break_before(source, at).unwrap_or_default();
        return Edit { span: Span::new(at, at), text: format!("{markup}{separator}") };
    }
    let (outer, unit) = (line_break_before(source, tag.start), indent_unit(document));
    let inner = outer.map_or(String::new(), |outer| format!("{outer}{unit}"));
    let outer = outer.unwrap_or_default();
    if source[tag.start..tag.end].ends_with("/>") {
        let at = end_of_attributes(document, parent);
        return Edit { span: Span::new(at, tag.end), text: format!(">{inner}{markup}{outer}</{name}>") };
    }
    // Nothing or only text and comments inside: in front of them, and of the white space before the end tag.
    let inside = &source[tag.end..parent.span().end];
    let closes_here = inside.starts_with("</");
    let outer = if closes_here { outer } else { "" };
    Edit { span: Span::new(tag.end, tag.end), text: format!("{inner}{markup}{outer}") }
}

/// Adds `markup`, whose lines are indented by `indent_unit` below the first, after `sibling`, on lines of its own where
/// the file does so.
pub fn insert_after(document: &Document<'_>, sibling: Element<'_>, lines: &[(usize, &str)]) -> Edit {
    let source = document.source();
    let separator = line_break_before(source, sibling.span().start);
    let at = sibling.span().end + separator.map_or(0, |_| remarks(&source[sibling.span().end..]));
    let unit = indent_unit(document);
    let mut text = String::new();
    for (depth, line) in lines {
        if let Some(separator) = separator {
            text.push_str(separator);
            text.extend(std::iter::repeat_n(unit.as_ref(), *depth));
        }
        text.push_str(line);
    }
    Edit { span: Span::new(at, at), text }
}

/// The length of comments and blanks at the start of `rest`, up to the end of the line; 0 if something else is on it.
fn remarks(rest: &str) -> usize {
    let mut at = 0;
    loop {
        at += rest[at..].len() - rest[at..].trim_start_matches([' ', '\t']).len();
        if rest[at..].starts_with(['\r', '\n']) {
            return at;
        }
        match rest[at..].strip_prefix("<!--").and_then(|comment| comment.find("-->")) {
            Some(length) if !rest[at..at + length].contains('\n') => at += "<!--".len() + length + "-->".len(),
            _ => return 0,
        }
    }
}

/// Where the text of an element is, to be replaced as a whole: everything between its tags, if it is not just
/// characters.
pub fn value_span(document: &Document<'_>, element: Element<'_>) -> Span {
    let (source, text) = (document.source(), element.text_span());
    if source[text.start..text.end] == *element.text()
        && source[..text.start].ends_with('>')
        && source[text.end..].starts_with("</")
    {
        return text;
    }
    let whole = element.span();
    let end = source[whole.start..whole.end].rfind("</").map_or(whole.end, |length| whole.start + length);
    Span::new(element.start_tag().end.min(end), end)
}

/// Where another attribute of `element` goes: after the last one, or after the name.
fn end_of_attributes(document: &Document<'_>, element: Element<'_>) -> usize {
    let tag = element.start_tag();
    let markup = &document.source()[tag.start..tag.end];
    tag.start + markup.trim_end_matches('>').trim_end_matches('/').trim_end().len()
}

/// The quote that the element's attributes are in, or that of the file's first attribute; single, as libvirt writes.
fn quote_of(document: &Document<'_>, element: Element<'_>) -> char {
    let of = |element: Element<'_>| {
        let tag = element.start_tag();
        document.source()[tag.start..tag.end].chars().find(|c| matches!(c, '\'' | '"'))
    };
    of(element).or_else(|| of(document.root())).unwrap_or('\'')
}

/// The white space right before `at`, with the line break in it.
fn white_space_before(source: &str, at: usize) -> &str {
    let before = &source[..at];
    &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..]
}

/// The last line break before `at` and the indent after it, if nothing else is in between.
fn line_break_before(source: &str, at: usize) -> Option<&str> {
    let space = white_space_before(source, at);
    let newline = space.rfind('\n')?;
    let start = if space[..newline].ends_with('\r') { newline - 1 } else { newline };
    Some(&space[start..])
}

/// How much deeper the file indents a child than its parent; two spaces if it does not show.
fn indent_unit<'d>(document: &'d Document<'_>) -> Cow<'d, str> {
    let source = document.source();
    let root = document.root();
    let indent = |at| line_break_before(source, at).map(|space| space.trim_start_matches(['\r', '\n']));
    let own = indent(root.span().start).unwrap_or_default();
    root.children()
        .next()
        .and_then(|child| indent(child.span().start))
        .and_then(|deeper| deeper.strip_prefix(own))
        .filter(|unit| !unit.is_empty())
        .map_or(Cow::Borrowed("  "), Cow::Borrowed)
}

pub(crate) fn escape(value: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(source: &str, make: impl for<'d> Fn(&'d Document<'d>) -> Vec<Edit>) -> String {
        let document = Document::parse(source.as_bytes()).expect("well-formed");
        apply(source, &make(&document)).expect("edits fit")
    }

    #[test]
    fn an_attribute_is_replaced_added_and_removed() {
        let set = |source: &str, name: &'static str, value: &'static str| {
            edit(source, |d| vec![set_attribute(d, d.root(), name, value)])
        };
        assert_eq!(set("<a b = \"1\"  c='2'/>", "b", "x"), "<a b = \"x\"  c='2'/>");
        assert_eq!(set("<a b=\"1\" />", "c", "2"), "<a b=\"1\" c=\"2\" />");
        assert_eq!(set("<a>t</a>", "c", "<'"), "<a c='&lt;&apos;'>t</a>");
        let remove = |source: &str| edit(source, |d| remove_attribute(d, d.root(), "b").into_iter().collect());
        assert_eq!(remove("<a b='1' c='2'/>"), "<a c='2'/>");
        assert_eq!(remove("<a c='b=1'\n   b='2'/>"), "<a c='b=1'/>");
        assert_eq!(remove("<a c='2'/>"), "<a c='2'/>");
    }

    #[test]
    fn a_child_is_added_the_way_the_file_is_written() {
        for (source, expected) in [
            ("<a>\n  <cpu/>\n</a>", "<a>\n  <cpu>\n    <m/>\n  </cpu>\n</a>"),
            ("<a>\n\t<cpu x='1' />\n</a>", "<a>\n\t<cpu x='1'>\n\t\t<m/>\n\t</cpu>\n</a>"),
            ("<a>\r\n    <cpu></cpu>\r\n</a>", "<a>\r\n    <cpu>\r\n        <m/>\r\n    </cpu>\r\n</a>"),
            ("<a><cpu/></a>", "<a><cpu><m/></cpu></a>"),
            ("<a><cpu><b/></cpu></a>", "<a><cpu><m/><b/></cpu></a>"),
            ("<a>\n  <cpu>\n    <b/>\n  </cpu>\n</a>", "<a>\n  <cpu>\n    <m/>\n    <b/>\n  </cpu>\n</a>"),
            ("<a>\n  <cpu>\n\n    <b/>\n  </cpu>\n</a>", "<a>\n  <cpu>\n\n    <m/>\n    <b/>\n  </cpu>\n</a>"),
            ("<a>\n  <cpu>\n    <!-- c -->\n  </cpu>\n</a>", "<a>\n  <cpu>\n    <m/>\n    <!-- c -->\n  </cpu>\n</a>"),
        ] {
            let result = edit(source, |d| vec![insert_first_child(d, d.root().child("cpu").expect("there"), "<m/>")]);
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn an_element_is_added_after_another() {
        let lines: &[(usize, &str)] = &[(0, "<cpu>"), (1, "<m/>"), (0, "</cpu>")];
        for (source, expected) in [
            ("<a>\n  <os/>\n  <x/>\n</a>", "<a>\n  <os/>\n  <cpu>\n    <m/>\n  </cpu>\n  <x/>\n</a>"),
            ("<a>\n  <os/> <!-- os -->\n</a>", "<a>\n  <os/> <!-- os -->\n  <cpu>\n    <m/>\n  </cpu>\n</a>"),
            ("<a><os/><x/></a>", "<a><os/><cpu><m/></cpu><x/></a>"),
        ] {
            assert_eq!(edit(source, |d| vec![insert_after(d, d.root().child("os").expect("there"), lines)]), expected);
        }
    }

    #[test]
    fn edits_that_overlap_are_refused() {
        let edit = |start, end| Edit { span: Span::new(start, end), text: String::new() };
        assert_eq!(apply("abcdef", &[edit(3, 5), edit(1, 4)]), Err(EditError(3)));
        assert_eq!(apply("abc", &[edit(2, 9)]), Err(EditError(2)));
        assert_eq!(apply("ä", &[edit(1, 1)]), Err(EditError(1)));
        assert_eq!(apply("abcdef", &[edit(1, 3), edit(3, 5)]).as_deref(), Ok("af"));
    }
}
