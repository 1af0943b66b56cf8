//! Verdicts for people.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::check::Verdict;
use iova_preflight::finding::{Finding, Label, Severity};
use iova_preflight::qemu::layout::{ABOVE_4G_START, Layout};
use iova_preflight::rules::UNKNOWN_MACHINE_TYPE;
use iova_preflight::text::{self, printable, quoted};
use iova_preflight::xml::{Document, Span};

use crate::judge::Judged;
use crate::terminal;

/// Prints guests one after the other and counts them.
pub(crate) struct Printer<W: Write> {
    out: BufWriter<W>,
    /// Whether escape sequences are let through.
    coloured: bool,
    /// Whether somebody watches, who wants to see each guest at once and in order with what standard error says.
    watched: bool,
    /// What is printed next.
    page: String,
    verbose: bool,
    renderer: Renderer,
    counts: Counts,
    notice: Option<String>,
    /// The rules of the findings printed so far, each once.
    rules: Vec<&'static str>,
    /// Whether the last guest took one line only, to which the next may be joined.
    after_line: bool,
}

#[derive(Default)]
struct Counts {
    by_verdict: [usize; 5],
    unreadable: usize,
}

/// The order of the summary, and how each verdict looks.
const VERDICTS: [(Verdict, Style); 5] = [
    (Verdict::Pass, AnsiColor::Green.on_default().bold()),
    (Verdict::Warn, AnsiColor::Yellow.on_default().bold()),
    (Verdict::Fixable, AnsiColor::Red.on_default().bold()),
    (Verdict::Blocked, AnsiColor::Red.on_default().bold()),
    (Verdict::NotApplicable, AnsiColor::BrightBlack.on_default()),
];

impl<W: Write + RawStream> Printer<W> {
    pub fn new(out: W, verbose: bool) -> Self {
        Self {
            coloured: AutoStream::choice(&out) != ColorChoice::Never,
            watched: out.is_terminal(),
            out: BufWriter::new(out),
            page: String::new(),
            verbose,
            renderer: Renderer::styled().term_width(terminal::columns()),
            counts: Counts::default(),
            notice: None,
            rules: Vec::new(),
            after_line: false,
        }
    }

    /// Prints the page.
    fn turn(&mut self) -> Result<()> {
        if self.coloured {
            self.out.write_all(self.page.as_bytes())?;
        } else {
            write!(self.out, "{}", strip_str(&self.page))?;
        }
        self.page.clear();
        if self.watched {
            self.out.flush()?;
        }
        Ok(())
    }

    /// `notice` says which host the next guests are judged for.
    pub fn host(&mut self, notice: &str) {
        self.notice = Some(notice.to_owned());
    }

    /// One more input that could not be judged.
    pub fn count_unreadable(&mut self) {
        self.counts.unreadable += 1;
    }

    /// One guest: a line, and below it what there is to say.
    pub fn guest(&mut self, judged: &Judged<'_>) -> Result<()> {
        if let Some(notice) = self.notice.take() {
            writeln!(self.page, "{}\n", printable(&notice))?;
        }
        let evaluation = judged.evaluation;
        let position = VERDICTS.iter().position(|(verdict, _)| *verdict == evaluation.verdict).unwrap_or(0);
        self.counts.by_verdict[position] += 1;
        let shown: Vec<&Finding> =
            evaluation.findings.iter().filter(|finding| self.verbose || finding.severity > Severity::Note).collect();
        let detail = evaluation.verdict != Verdict::NotApplicable && (!shown.is_empty() || self.verbose);
        if detail && self.after_line {
            writeln!(self.page)?;
        }
        self.after_line = !detail;

        let style = VERDICTS[position].1;
        let verdict = evaluation.verdict.name();
        write!(self.page, "{style}{verdict:<14}{style:#} {}", printable(judged.name))?;
        if !judged.domain.name.is_empty() {
            write!(self.page, " ({})", quoted(&judged.domain.name))?;
        }
        if let Some(reason) = &evaluation.not_applicable {
            write!(self.page, ": {}", printable(reason))?;
        }
        writeln!(self.page)?;

        for finding in &shown {
            self.finding(judged, finding)?;
        }
        if let Some(layout) = evaluation.facts.layout.as_ref().filter(|_| detail) {
            self.line("map", &map_line(layout, judged))?;
        }
        // The finding about the machine type says it already.
        let said = evaluation.findings.iter().any(|finding| finding.rule == UNKNOWN_MACHINE_TYPE);
        for assumption in evaluation.assumptions.iter().filter(|_| !said) {
            self.line("note", assumption)?;
        }
        if let Some(fix) = &evaluation.fix {
            let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
            self.line("fix", &changes.join(", "))?;
        }
        for tried in &evaluation.tried {
            self.line("tried", tried)?;
        }
        if detail {
            writeln!(self.page)?;
        }
        self.turn()
    }

    fn line(&mut self, title: &str, text: &str) -> Result<()> {
        let style = Style::new().bold();
        writeln!(self.page, "   {style}= {title}:{style:#} {}", printable(text))?;
        Ok(())
    }

    fn finding(&mut self, judged: &Judged<'_>, finding: &Finding) -> Result<()> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(printable(&finding.title)).id(finding.rule);
        let mut group = excerpts(judged.document, &printable(judged.name), finding)
            .into_iter()
            .fold(Group::with_title(title), Group::element);
        if let Some(cause) = &finding.cause {
            group = group.element(Level::NOTE.with_name("cause").message(printable(cause)));
        }
        let report = [group];
        writeln!(self.page, "{}", self.renderer.render(&report))?;
        if !self.rules.contains(&finding.rule) {
            self.rules.push(finding.rule);
        }
        Ok(())
    }

    /// Where to read on, if there is anything to read about.
    pub fn pointer(&mut self) -> Result<()> {
        match self.rules[..] {
            [] => {}
            [rule] => writeln!(self.page, "`iova-preflight explain {rule}` says more")?,
            _ => writeln!(self.page, "`iova-preflight explain RULE` says more about a finding")?,
        }
        self.turn()?;
        self.out.flush()?;
        Ok(())
    }

    /// How many of each.
    pub fn summary(&mut self) -> Result<()> {
        let total: usize = self.counts.by_verdict.iter().sum::<usize>() + self.counts.unreadable;
        if total < 2 {
            self.out.flush()?;
            return Ok(());
        }
        let mut line = format!("{total} domains:");
        let mut separator = " ";
        for ((verdict, style), count) in VERDICTS.iter().zip(self.counts.by_verdict) {
            if count > 0 {
                write!(line, "{separator}{style}{count} {}{style:#}", verdict.name())?;
                separator = ", ";
            }
        }
        if self.counts.unreadable > 0 {
            write!(line, "{separator}{} unreadable", self.counts.unreadable)?;
        }
        if self.after_line {
            writeln!(self.page)?;
        }
        writeln!(self.page, "{line}")?;
        let fixable = VERDICTS.iter().position(|(verdict, _)| *verdict == Verdict::Fixable);
        match fixable.map_or(0, |position| self.counts.by_verdict[position]) {
            0 => {}
            1 => writeln!(self.page, "1 can be fixed: `iova-preflight fix` shows how")?,
            some => writeln!(self.page, "{some} can be fixed: `iova-preflight fix` shows how")?,
        }
        self.turn()?;
        self.out.flush()?;
        Ok(())
    }
}

/// A label on one line of the source.
struct Mark<'d> {
    /// The line, from its first byte to the one before its end.
    line: Span,
    /// What is underlined of it.
    span: Span,
    text: Cow<'d, str>,
    kind: AnnotationKind,
}

impl<'d> Mark<'d> {
    fn new(source: &str, label: &'d Label, kind: AnnotationKind) -> Self {
        let start = source[..label.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let end = source[label.span.start..].find('\n').map_or(source.len(), |length| label.span.start + length);
        // Of a tag that goes over many lines, the first says which it is.
        let span = Span::new(label.span.start, label.span.end.min(end));
        Self { line: Span::new(start, end), span, text: printable(&label.text), kind }
    }
}

/// The lines of the source that the labels of a finding stand on, as few as show them: the renderer looks at all it is
/// given.
fn excerpts<'d>(document: &'d Document<'_>, path: &str, finding: &'d Finding) -> Vec<Element<'d>> {
    /// Lines this far apart are shown in pieces of their own, in bytes.
    const FAR_APART: usize = 64 * 1024;
    /// A longer line is named and not shown, in bytes.
    const LONGEST_LINE: usize = 1000;
    let source = document.source();
    let related = finding.related.iter().map(|label| Mark::new(source, label, AnnotationKind::Context));
    let primary = Mark::new(source, &finding.primary, AnnotationKind::Primary);
    let mut marks: Vec<Mark<'_>> = std::iter::once(primary).chain(related).collect();
    if marks.iter().any(|mark| mark.line.end - mark.line.start > LONGEST_LINE) {
        let at = document.location(finding.primary.span.start);
        return vec![Origin::path(path.to_owned()).line(at.line).char_column(at.column).into()];
    }
    marks.sort_by_key(|mark| mark.line.start);
    marks
        .chunk_by(|before, mark| mark.line.start < before.line.end + FAR_APART)
        .map(|near| {
            let (first, last) = (near[0].line.start, near[near.len() - 1].line.end);
            let shown = Shown::new(&source[first..last]);
            let annotations = near.iter().map(|mark| {
                let (start, end) = (shown.offset(mark.span.start - first), shown.offset(mark.span.end - first));
                mark.kind.span(start..end).label(mark.text.clone())
            });
            let annotations: Vec<_> = annotations.collect();
            Snippet::source(shown.text)
                .path(path.to_owned())
                .line_start(document.location(first).line)
                .annotations(annotations)
                .into()
        })
        .collect()
}

/// Source lines as they are printed: what a terminal would act on is replaced.
struct Shown<'d> {
    text: Cow<'d, str>,
    /// For each character, the offsets behind it in the source and in the text; empty where both are the same.
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
            shown.push(if hidden(c) { char::REPLACEMENT_CHARACTER } else { c });
            let behind = offset + c.len_utf8();
            shifts.push((behind, shown.len()));
        }
        Self { text: Cow::Owned(shown), shifts }
    }

    /// Where a byte of the source is in the text.
    fn offset(&self, source: usize) -> usize {
        match self.shifts.partition_point(|&(behind, _)| behind <= source) {
            0 if self.shifts.is_empty() => source,
            0 => 0,
            n => self.shifts[n - 1].1,
        }
    }
}

/// The map in one line.
fn map_line(layout: &Layout, judged: &Judged<'_>) -> String {
    let mut line = format!("RAM {}", text::range(layout.ram_below_4g));
    if let Some(ram) = layout.ram_above_4g {
        let _ = write!(line, ", {}", text::range(ram));
    }
    if let Some(window) = layout.device_memory {
        let _ = write!(line, " | device memory {}", text::range(window));
    }
    if let Some(hole) = layout.pci_hole64 {
        let _ = write!(line, " | PCI hole {}", text::range(hole));
    }
    // Ranges below 4 GiB are of no concern to RAM, and those above the map of none to this guest.
    let near = |start: u64| (ABOVE_4G_START..=layout.max_gpa).contains(&start);
    let reserved = judged.host.unmappable();
    for reserved in reserved.iter().filter(|reserved| layout.relocated || near(reserved.range.start)) {
        if reserved.range.start >= ABOVE_4G_START {
            let _ = write!(line, " | reserved {}", text::range(reserved.range));
        }
    }
    let _ = write!(line, " | needs {} phys-bits", layout.phys_bits_needed);
    if let Some(bits) = judged.evaluation.facts.phys_bits {
        let _ = write!(line, ", has {bits}");
    }
    line
}
