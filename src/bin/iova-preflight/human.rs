//! Verdicts for people.

use std::fmt::Write as _;
use std::io::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::check::Verdict;
use iova_preflight::finding::{Finding, Severity};
use iova_preflight::qemu::layout::Layout;
use iova_preflight::text::{self, printable};

use crate::judge::Judged;

/// Prints guests one after the other and counts them.
pub(crate) struct Printer<'w, W: Write> {
    out: &'w mut W,
    verbose: bool,
    renderer: Renderer,
    counts: Counts,
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

impl<'w, W: Write> Printer<'w, W> {
    pub fn new(out: &'w mut W, verbose: bool) -> Self {
        let width = terminal_size();
        Self { out, verbose, renderer: Renderer::styled().term_width(width), counts: Counts::default() }
    }

    /// Which host the guests are judged for.
    pub fn host(&mut self, notice: &str) -> Result<()> {
        writeln!(self.out, "{}\n", printable(notice))?;
        Ok(())
    }

    /// One more input that could not be judged.
    pub fn count_unreadable(&mut self) {
        self.counts.unreadable += 1;
    }

    /// One guest: a line, and below it what there is to say.
    pub fn guest(&mut self, judged: &Judged<'_>) -> Result<()> {
        let evaluation = judged.evaluation;
        let position = VERDICTS.iter().position(|(verdict, _)| *verdict == evaluation.verdict).unwrap_or(0);
        self.counts.by_verdict[position] += 1;
        let style = VERDICTS[position].1;
        let verdict = evaluation.verdict.name();
        write!(self.out, "{style}{verdict:<8}{style:#} {}", printable(judged.name))?;
        if !judged.domain.name.is_empty() {
            write!(self.out, " ({})", printable(&judged.domain.name))?;
        }
        if let Some(reason) = &evaluation.not_applicable {
            write!(self.out, ": {}", printable(reason))?;
        }
        writeln!(self.out)?;

        let shown: Vec<&Finding> =
            evaluation.findings.iter().filter(|finding| self.verbose || finding.severity > Severity::Note).collect();
        let detail = !shown.is_empty() || self.verbose;
        for finding in &shown {
            self.finding(judged, finding)?;
        }
        if let Some(layout) = evaluation.facts.layout.as_ref().filter(|_| detail) {
            self.line("map", &map_line(layout, judged))?;
        }
        for assumption in &evaluation.assumptions {
            self.line("note", assumption)?;
        }
        if let Some(fix) = &evaluation.fix {
            let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
            self.line("fix", &changes.join(", "))?;
        }
        for tried in &evaluation.tried {
            self.line("tried", tried)?;
        }
        if detail && evaluation.verdict != Verdict::NotApplicable {
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn line(&mut self, title: &str, text: &str) -> Result<()> {
        let style = Style::new().bold();
        writeln!(self.out, "   {style}= {title}:{style:#} {}", printable(text))?;
        Ok(())
    }

    fn finding(&mut self, judged: &Judged<'_>, finding: &Finding) -> Result<()> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let path = printable(judged.name);
        let primary = AnnotationKind::Primary.span(finding.primary.span.start..finding.primary.span.end);
        let mut snippet = Snippet::source(judged.document.source())
            .path(path)
            .annotation(primary.label(printable(&finding.primary.text)));
        for label in &finding.related {
            let annotation = AnnotationKind::Context.span(label.span.start..label.span.end);
            snippet = snippet.annotation(annotation.label(printable(&label.text)));
        }
        let report =
            [Group::with_title(level.primary_title(printable(&finding.message)).id(finding.rule)).element(snippet)];
        writeln!(self.out, "{}", self.renderer.render(&report))?;
        Ok(())
    }

    /// How many of each.
    pub fn summary(&mut self) -> Result<()> {
        let total: usize = self.counts.by_verdict.iter().sum::<usize>() + self.counts.unreadable;
        if total < 2 {
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
        writeln!(self.out, "{line}")?;
        Ok(())
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
    let high = |start: u64| start >= iova_preflight::qemu::layout::ABOVE_4G_START;
    for reserved in judged.host.unmappable().iter().filter(|reserved| high(reserved.range.start)) {
        let _ = write!(line, " | reserved {}", text::range(reserved.range));
    }
    let bits = judged.evaluation.facts.phys_bits.map_or_else(String::new, |bits| format!(" of {bits}"));
    let _ = write!(line, " | needs {}{bits} phys-bits", layout.phys_bits_needed);
    line
}

/// Columns of the terminal; a pipe has enough.
fn terminal_size() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .filter(|&columns| columns >= 40)
        .unwrap_or(140)
}
