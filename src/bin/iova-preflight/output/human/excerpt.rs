//! The lines of a document that a finding is about, or the options of a command line that is one long line.

use std::borrow::Cow;

use annotate_snippets::{AnnotationKind, Element, Origin, Snippet};
use iova_preflight::argv::{Call, Form};
use iova_preflight::finding::Label;
use iova_preflight::report::source::GuestSource;
use iova_preflight::text::{self, printable};
use iova_preflight::xml::Span;

/// A label on one line of the source.
struct Mark<'d> {
    /// The line, from its first byte to the one before its end, or the option.
    line: Span,
    /// What is underlined of it.
    span: Span,
    text: Cow<'d, str>,
    kind: AnnotationKind,
}

impl<'d> Mark<'d> {
    fn new(source: &str, options: Option<&Call<'_>>, label: &'d Label, kind: AnnotationKind) -> Self {
        let start = source[..label.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let end = source[label.span.start..].find('\n').map_or(source.len(), |length| label.span.start + length);
        let option = options.and_then(|call| call.option_at(label.span.start));
        let (start, end) = option.map_or((start, end), |option| (option.start, option.end));
        let mut span = Span::new(label.span.start, label.span.end.min(end));
        // For an element, the name identifies it and leaves room for the label.
        if let Some(tag) = source[span.start..span.end].strip_prefix('<') {
            let name = tag.find(|c: char| c.is_whitespace() || matches!(c, '/' | '>')).unwrap_or(tag.len());
            span.end = span.start + 1 + name;
        }
        Self { line: Span::new(start, end), span, text: printable(&label.text), kind }
    }

    /// The same for an option of QEMU: for a device with many properties, the driver identifies it and is short.
    fn of_option(mut self, source: &str) -> Self {
        /// A longer value is not underlined as a whole, in bytes.
        const LONG: usize = 24;
        let value = &source[self.span.start..self.span.end];
        if value.len() > LONG {
            self.span.end = self.span.start + value.find(',').unwrap_or(value.len());
        }
        self
    }
}

/// The lines of the source that these labels are on, as few as show them: the renderer looks at all it is
/// given.
pub(super) fn excerpts<'d>(
    guest: GuestSource<'d>,
    path: &str,
    primary: &'d Label,
    related: &'d [Label],
) -> Vec<Element<'d>> {
    /// Lines this far apart are shown in pieces of their own, in bytes.
    const FAR_APART: usize = 64 * 1024;
    /// A longer line is named and not shown, in bytes.
    const LONGEST_LINE: usize = 1000;
    let source = guest.text();
    let options = match guest {
        GuestSource::Call(call, _) => Some(call).filter(|call| call.is_one_line() || call.form == Form::Nul),
        GuestSource::Xml(..) => None,
    };
    let at = guest.location(primary.span.start);
    let related = related.iter().map(|label| Mark::new(source, options, label, AnnotationKind::Context));
    let primary = Mark::new(source, options, primary, AnnotationKind::Primary);
    let marks = std::iter::once(primary).chain(related);
    let mut marks: Vec<Mark<'_>> = match guest {
        GuestSource::Call(..) => marks.map(|mark| mark.of_option(source)).collect(),
        GuestSource::Xml(..) => marks.collect(),
    };
    let place = || Origin::path(path.to_owned()).line(at.line).char_column(at.column).into();
    if marks.iter().any(|mark| mark.line.end - mark.line.start > LONGEST_LINE) {
        return vec![place()];
    }
    marks.sort_by_key(|mark| mark.line.start);
    let near = |before: &Mark<'_>, mark: &Mark<'_>| match options {
        Some(_) => mark.line == before.line,
        None => mark.line.start < before.line.end + FAR_APART,
    };
    // The column in an option is not the one in the line.
    let first = options.map(|_| place());
    let pieces = marks.chunk_by(near).map(|near| {
        let (first, last) = (near[0].line.start, near[near.len() - 1].line.end);
        let shown = Shown::new(&source[first..last]);
        let annotations = near.iter().map(|mark| {
            let (start, end) = (shown.offset(mark.span.start - first), shown.offset(mark.span.end - first));
            mark.kind.span(start..end).label(mark.text.clone())
        });
        let annotations: Vec<_> = annotations.collect();
        let path = options.is_none().then(|| path.to_owned());
        Snippet::source(shown.text).path(path).line_start(guest.location(first).line).annotations(annotations).into()
    });
    first.into_iter().chain(pieces).collect()
}

/// Source lines as they are printed: what a terminal would act on is replaced.
struct Shown<'d> {
    text: Cow<'d, str>,
    /// For each character, the offsets behind it in the source and in the text; empty if both are the same.
    shifts: Vec<(usize, usize)>,
}

impl<'d> Shown<'d> {
    fn new(source: &'d str) -> Self {
        let hidden = |c: char| !matches!(c, '\t' | '\n' | '\r') && text::is_hidden(c);
        if !source.contains(hidden) {
            return Self { text: Cow::Borrowed(source), shifts: Vec::new() };
        }
        let (mut shown, mut shifts) = (String::with_capacity(source.len()), Vec::new());
        for (offset, c) in source.char_indices() {
            shown.push(match c {
                // Between words of /proc/PID/cmdline.
                '\0' => ' ',
                c if hidden(c) => char::REPLACEMENT_CHARACTER,
                c => c,
            });
            let behind = offset + c.len_utf8();
            shifts.push((behind, shown.len()));
        }
        Self { text: Cow::Owned(shown), shifts }
    }

    /// Where a byte of the source is in the text.
    fn offset(&self, source: usize) -> usize {
        match self.shifts.partition_point(|&(after, _)| after <= source) {
            0 if self.shifts.is_empty() => source,
            0 => 0,
            n => self.shifts[n - 1].1,
        }
    }
}
