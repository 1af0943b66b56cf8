//! What there is to say of one guest.

use std::fmt::Write as _;

use annotate_snippets::{Group, Level, Renderer};
use anstyle::Style;
use iova_preflight::check::Verdict;
use iova_preflight::finding::{Finding, Severity};
use iova_preflight::qemu::layout::{ABOVE_4G_START, Layout};
use iova_preflight::rules::UNKNOWN_MACHINE_TYPE;
use iova_preflight::text::{self, printable, quoted};

use super::excerpt::excerpts;
use super::table::Row;
use super::verdict_style;
use crate::judge::Judged;

/// How guests are shown.
pub(crate) struct Look {
    verbose: bool,
    renderer: Renderer,
}

/// A guest as it is shown, with escape sequences.
pub(crate) struct Page {
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// Whether it takes more than a line.
    pub(super) detail: bool,
    pub(super) row: Row,
}

impl Look {
    /// For a terminal of this width; `verbose` shows what is merely good to know, too.
    pub fn new(columns: usize, verbose: bool) -> Self {
        Self { verbose, renderer: Renderer::styled().term_width(columns) }
    }

    /// One guest: a line, and below it what there is to say.
    pub fn page(&self, judged: &Judged<'_>) -> Page {
        let evaluation = judged.evaluation;
        let shown: Vec<&Finding> =
            evaluation.findings.iter().filter(|finding| self.verbose || finding.severity > Severity::Note).collect();
        let detail = evaluation.verdict != Verdict::NotApplicable && (!shown.is_empty() || self.verbose);

        let style = verdict_style(evaluation.verdict);
        let mut text = format!("{style}{:<14}{style:#} {}", evaluation.verdict.name(), printable(judged.name));
        if !judged.domain.name.is_empty() {
            let _ = write!(text, " ({})", quoted(&judged.domain.name));
        }
        if let Some(reason) = &evaluation.not_applicable {
            let _ = write!(text, ": {}", printable(reason));
        }
        text.push('\n');

        for finding in &shown {
            text += &self.finding(judged, finding);
            text.push('\n');
        }
        if let Some(layout) = evaluation.facts.layout.as_ref().filter(|_| detail) {
            text += &line("map", &map_line(layout, judged));
        }
        // The finding about the machine type says it already.
        let said = evaluation.findings.iter().any(|finding| finding.rule == UNKNOWN_MACHINE_TYPE);
        for assumption in evaluation.assumptions.iter().filter(|_| !said) {
            text += &line("note", assumption);
        }
        if let Some(fix) = &evaluation.fix {
            let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
            text += &line("fix", &changes.join(", "));
        }
        for tried in &evaluation.tried {
            text += &line("tried", tried);
        }
        if detail {
            text.push('\n');
        }
        Page { verdict: evaluation.verdict, text, detail, row: Row::new(judged) }
    }

    fn finding(&self, judged: &Judged<'_>, finding: &Finding) -> String {
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
        self.renderer.render(&[group])
    }
}

fn line(title: &str, text: &str) -> String {
    let style = Style::new().bold();
    format!("   {style}= {title}:{style:#} {}\n", printable(text))
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
