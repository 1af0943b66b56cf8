//! The page of one guest.

use std::fmt::Write as _;

use annotate_snippets::{Group, Level, Renderer};
use anstream::adapter::strip_str;
use anstyle::Style;
use iova_preflight::Layout;
use iova_preflight::address::ABOVE_4G_START;
use iova_preflight::advice::{is_command, place};
use iova_preflight::finding::{Finding, Label, Severity};
use iova_preflight::report::source::GuestSource;
use iova_preflight::rules::UNKNOWN_MACHINE_TYPE;
use iova_preflight::text::{self, printable, quoted};
use iova_preflight::verdict::{Evaluation, Verdict};

use super::excerpt::excerpts;
use super::table::Row;
use super::verdict_style;
use crate::input::evaluator::Evaluated;
use crate::output::fix::LATER;
use crate::output::terminal;

/// How guests are shown.
pub(crate) struct PageStyle {
    pub(super) verbose: bool,
    /// Whether the host is named: there are several.
    names_hosts: bool,
    /// Where sentences are broken, if anywhere.
    columns: Option<usize>,
    renderer: Renderer,
}

/// A guest as it is shown, with escape sequences.
pub(crate) struct GuestPage {
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// Whether it takes more than a line.
    pub(super) detail: bool,
    pub(super) row: Row,
    /// Whether it was read from the XML of a domain.
    pub(super) is_domain: bool,
    /// Whether its definition is changed in an orchestrator.
    pub(super) is_owned: bool,
    /// The rules of the findings that are shown.
    pub(super) rules: Vec<&'static str>,
}

impl GuestPage {
    /// All that is shown of it.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl PageStyle {
    /// For this terminal; `verbose` also shows notes.
    pub fn new(verbose: bool) -> Self {
        let renderer = Renderer::styled().term_width(terminal::columns());
        Self { verbose, names_hosts: false, columns: terminal::known_columns(), renderer }
    }

    /// The same, for guests that are evaluated for several hosts.
    pub fn of_hosts(self) -> Self {
        Self { names_hosts: true, ..self }
    }

    /// One guest: a line, and its findings below.
    pub fn page(&self, evaluated: &Evaluated<'_>) -> GuestPage {
        let evaluation = evaluated.evaluation;
        let shown: Vec<&Finding> =
            evaluation.findings.iter().filter(|finding| self.verbose || finding.severity > Severity::Note).collect();
        // The finding about the machine type says it already.
        let said = evaluation.findings.iter().any(|finding| finding.rule == UNKNOWN_MACHINE_TYPE);
        let assumptions: Vec<&String> = evaluation.assumptions.iter().filter(|_| !said).collect();
        let remark = evaluated.guest.remark();
        let has_notes = remark.is_some() || evaluated.process.is_some_and(|process| !process.notes.is_empty());
        let detail = evaluation.verdict != Verdict::NotApplicable
            && (!shown.is_empty() || !assumptions.is_empty() || has_notes || self.verbose);

        let style = verdict_style(evaluation.verdict);
        let mut text = format!("{style}{:<14}{style:#} {}", evaluation.verdict.name(), printable(evaluated.name));
        if !evaluated.guest.name().is_empty() {
            let _ = write!(text, " ({})", quoted(evaluated.guest.name()));
        }
        if let Some(reason) = &evaluation.not_applicable {
            let _ = write!(text, ": {}", printable(reason));
        }
        text.push('\n');

        if self.names_hosts {
            text += &self.line("host", &evaluated.source.label);
        }
        if let Some(remark) = &remark {
            text += &self.line("input", remark);
        }
        for finding in &shown {
            text += &self.finding(evaluated, finding);
            text.push('\n');
        }
        if let Some(layout) = evaluation.facts.layout.as_ref().filter(|_| detail) {
            text += &self.line("map", &map_line(layout, evaluated));
        }
        if let Some(process) = evaluated.process.filter(|_| detail) {
            text += &self.line("process", &process.line());
            process.notes.iter().for_each(|note| text += &self.line("note", note));
        }
        if let Some(owner) = evaluated.owner().filter(|_| detail) {
            text += &self.line("owner", place(owner));
        }
        for assumption in assumptions {
            text += &self.line("note", assumption);
        }
        let about_bars = shown.iter().any(|finding| finding.rule.starts_with("bar-"));
        if let Some(note) = unknown_sizes(evaluation).filter(|_| detail && self.verbose && !about_bars) {
            text += &self.line("note", &note);
        }
        if let Some(fix) = evaluation.any_fix() {
            let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
            let how = if evaluation.fix.is_some() { "" } else { ", with `iova-preflight fix --warnings`" };
            text += &self.line("fix", &format!("{}{how}", changes.join(", ")));
            for note in fix.assumption.iter().chain(&fix.spare_bits) {
                text += &self.line("note", note);
            }
            if let Some((owner, advice)) = evaluated.advice(fix) {
                // Its advice needs no `fix`, which would say this.
                fix.risks().iter().for_each(|risk| text += &self.line("note", risk));
                advice.steps.iter().for_each(|line| text += &self.advice(owner.name(), line));
                advice.later.iter().for_each(|line| text += &self.advice(LATER, line));
            }
        }
        for tried in &evaluation.tried {
            text += &self.line("no fix", tried);
        }
        let other = evaluated.words.filter(|&words| Some(words) != evaluated.owner());
        if let Some(words) = other.filter(|_| evaluation.verdict == Verdict::Blocked) {
            text += &self.line(words.name(), place(words));
        }
        if detail {
            text.push('\n');
        }
        let rules = shown.iter().map(|finding| finding.rule).collect();
        let is_domain = evaluated.guest.domain().is_some();
        let is_owned = evaluated.owner().is_some();
        GuestPage { verdict: evaluation.verdict, text, detail, row: Row::new(evaluated), is_domain, is_owned, rules }
    }

    pub(super) fn line(&self, title: &str, text: &str) -> String {
        let indent = "   = : ".len() + title.len();
        titled(title, &self.broken(text, indent).replace('\n', &format!("\n{:indent$}", "")))
    }

    /// A line of advice: a command is pasted into a shell, which runs what comes before a line end.
    fn advice(&self, title: &str, text: &str) -> String {
        if is_command(text) { titled(title, &printable(text)) } else { self.line(title, text) }
    }

    /// A sentence in lines that fit after `indent` columns.
    fn broken(&self, text: &str, indent: usize) -> String {
        let text = printable(text);
        /// With less room, a broken sentence is harder to read than one that the terminal breaks.
        const LEAST: usize = 24;
        let longest = text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
        let room = self.columns.map(|columns| columns.saturating_sub(indent));
        let room = room.filter(|&room| room >= longest.max(LEAST));
        let Some(room) = room else { return text.into_owned() };
        let lines = match text.contains(BAR) {
            // What is between bars stays together.
            true => text::filled(text.replace(BAR, " |\n").split('\n'), room),
            false => text::wrapped(&text, room),
        };
        lines.join("\n")
    }

    pub(super) fn finding(&self, evaluated: &Evaluated<'_>, finding: &Finding) -> String {
        let Finding { severity, rule, title, cause, primary, related, .. } = finding;
        let said =
            Statement { severity: *severity, rule: Some(rule), title, cause: cause.as_deref(), primary, related };
        self.said(evaluated.guest, evaluated.name, &said)
    }

    /// Something that is said of places in a guest's text.
    pub(super) fn said(&self, guest: GuestSource<'_>, name: &str, said: &Statement<'_>) -> String {
        let (level, severity) = match said.severity {
            Severity::Error => (Level::ERROR, "error"),
            Severity::Warning => (Level::WARNING, "warning"),
            Severity::Note => (Level::NOTE, "note"),
        };
        let id = said.rule.map(|rule| format!("[{rule}]")).unwrap_or_default();
        let title = level.primary_title(self.broken(said.title, format!("{severity}{id}: ").len()));
        let title = match said.rule {
            Some(rule) => title.id(rule),
            None => title,
        };
        let mut group = excerpts(guest, &printable(name), said.primary, said.related)
            .into_iter()
            .fold(Group::with_title(title), Group::element);
        if let Some(cause) = said.cause {
            group = group.element(Level::NOTE.with_name("cause").message(self.broken(cause, "   = cause: ".len())));
        }
        without_breaks(&self.renderer.render(&[group]))
    }
}

/// What is said of places in a guest's text.
pub(super) struct Statement<'a> {
    pub severity: Severity,
    pub rule: Option<&'a str>,
    pub title: &'a str,
    pub cause: Option<&'a str>,
    pub primary: &'a Label,
    pub related: &'a [Label],
}

fn titled(title: &str, text: &str) -> String {
    let style = Style::new().bold();
    format!("   {style}= {title}:{style:#} {text}\n")
}

/// An excerpt without the lines by which the renderer tells one source from another: options of one command line are of
/// one source.
fn without_breaks(rendered: &str) -> String {
    let kept = rendered.split_inclusive('\n').filter(|line| strip_str(line).to_string().trim() != ":::");
    kept.collect()
}

/// That the rules about BARs look at devices whose BARs are unknown.
fn unknown_sizes(evaluation: &Evaluation) -> Option<String> {
    let (first, others) = evaluation.facts.mmio64.as_ref()?.unsized_devices.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        1 => " and 1 more device".to_owned(),
        more => format!(" and {more} more devices"),
    };
    let device = &first.device;
    Some(format!(
        "the BAR sizes of {device}{others} are unknown; for PCI devices, run `iova-preflight host` on their host to \
         find them"
    ))
}

/// Between the parts of a map.
const BAR: &str = " | ";

/// The map in one line.
fn map_line(layout: &Layout, evaluated: &Evaluated<'_>) -> String {
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
    // Ranges below 4 GiB do not concern RAM, and those above the map do not concern this guest.
    let near = |start: u64| (ABOVE_4G_START..=layout.max_gpa).contains(&start);
    for unmappable in &evaluated.evaluation.facts.unmappable {
        let start = unmappable.range.start;
        match unmappable.width() {
            Some(bits) if near(start) => {
                let _ = write!(line, " | IOMMU of {bits} bits ends at {}", text::size(start));
            }
            None if start >= ABOVE_4G_START && (layout.relocated || near(start)) => {
                let _ = write!(line, " | reserved {}", text::range(unmappable.range));
            }
            _ => {}
        }
    }
    let _ = write!(line, " | needs {} phys-bits", layout.phys_bits_needed);
    if let Some(bits) = evaluated.evaluation.facts.phys_bits {
        let _ = write!(line, ", has {bits}");
    }
    line
}
