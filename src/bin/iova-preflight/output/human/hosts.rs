//! Guests on several hosts: which host runs which.

mod matrix;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::Write;

use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::finding::Severity;
use iova_preflight::text::{self, printable, wrapped};
use iova_preflight::verdict::Verdict;

use super::screen::Screen;
use super::table::{GuestNames, MOST, end, fit, keep_worst, rules, short};
use super::{VERDICTS, counted, pages_of, position, verdict_style};
use crate::input::evaluator::Evaluated;
use matrix::Matrix;

/// The indent of lines below a guest.
const INDENT: usize = 4;

/// A guest on one host.
pub(crate) struct OnHost {
    host: String,
    /// The guest's name.
    name: String,
    /// Where it was read from.
    source: String,
    is_domain: bool,
    verdict: Verdict,
    /// Why it is not simply `pass`, and what to do.
    reason: String,
    /// Whether the verdict depends on nothing that is unknown.
    is_certain: bool,
    rules: Vec<&'static str>,
    /// The full page, if it is requested.
    page: Option<String>,
}

impl OnHost {
    /// `page` is the full page, if it is requested.
    pub fn new(evaluated: &Evaluated<'_>, page: Option<String>) -> Self {
        let evaluation = evaluated.evaluation;
        let least = if evaluation.verdict.stops() { Severity::Error } else { Severity::Warning };
        let mut reasons = vec![rules(&evaluation.findings, least)];
        reasons.retain(|rules| !rules.is_empty());
        if let Some(fix) = evaluation.any_fix() {
            let changes: Vec<String> = fix.changes.iter().map(|change| short(&change.to_string())).collect();
            let option = if evaluation.fix.is_some() { "" } else { " --warnings" };
            reasons.push(format!("fix{option}: {}", changes.join(", ")));
        }
        reasons.extend_from_slice(&evaluation.assumptions);
        Self {
            host: evaluated.source.label.clone(),
            name: evaluated.guest.name().to_owned(),
            source: evaluated.name.to_owned(),
            is_domain: evaluated.guest.domain().is_some(),
            verdict: evaluation.verdict,
            reason: reasons.join("; "),
            is_certain: evaluation.assumptions.is_empty(),
            rules: evaluation.findings.iter().filter(|f| f.severity >= least).map(|finding| finding.rule).collect(),
            page,
        }
    }

    fn runs(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::Warn)
    }
}

/// A guest on all its hosts, or an input that could not be evaluated.
struct GuestRow {
    name: String,
    source: String,
    /// What is wrong with the input.
    error: Option<String>,
    hosts: Vec<OnHost>,
}

/// Where a guest runs, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    All,
    Unreadable,
    Some,
    None,
}

impl GuestRow {
    fn place(&self) -> Where {
        let runs = self.hosts.iter().filter(|on| on.runs()).count();
        match (&self.error, runs) {
            (Some(_), _) => Where::Unreadable,
            (None, 0) => Where::None,
            (None, runs) if runs == self.hosts.len() => Where::All,
            (None, _) => Where::Some,
        }
    }

    /// Whether a verdict depends on what is unknown.
    fn is_uncertain(&self) -> bool {
        self.hosts.iter().any(|on| !on.is_certain)
    }

    /// The higher, the worse: where it runs, its worst verdict, on how many hosts it stops, whether that is uncertain.
    fn urgency(&self) -> (Where, usize, usize, bool) {
        let stopped = self.hosts.iter().filter(|on| on.verdict.stops()).count();
        let worst = self.hosts.iter().filter(|on| on.verdict != Verdict::NotApplicable);
        let worst = worst.map(|on| position(on.verdict)).max().unwrap_or(0);
        (self.place(), worst, stopped, self.is_uncertain())
    }

    /// The hosts that run it.
    fn runs_on(&self) -> String {
        let runs: Vec<&str> = self.hosts.iter().filter(|on| on.runs()).map(|on| on.host.as_str()).collect();
        self.named(&runs)
    }

    /// How many hosts run it.
    fn runs_on_many(&self) -> String {
        let runs = self.hosts.iter().filter(|on| on.runs()).count();
        match self.place() {
            Where::None => "none".to_owned(),
            Where::All => "all".to_owned(),
            _ => format!("{runs} of {}", self.hosts.len()),
        }
    }

    /// Some of its hosts, in as few words as name them.
    fn named(&self, some: &[&str]) -> String {
        /// Fewer hosts than this are named one by one.
        const MANY: usize = 4;
        let all = self.hosts.len();
        match some.len() {
            0 => "none".to_owned(),
            count if count == all && all > 1 => "all".to_owned(),
            count if all >= MANY && 2 * count > all => {
                let others = self.hosts.iter().map(|on| on.host.as_str()).filter(|host| !some.contains(host));
                format!("all but {}", others.collect::<Vec<_>>().join(", "))
            }
            _ => some.join(", "),
        }
    }

    /// What is wrong with it on which hosts, and what to do, the worst first.
    fn reasons(&self) -> Vec<(Verdict, String)> {
        let mut groups: Vec<(Verdict, &str, Vec<&str>)> = Vec::new();
        for on in self.hosts.iter().filter(|on| !on.reason.is_empty()) {
            match groups.iter_mut().find(|(verdict, reason, _)| *verdict == on.verdict && *reason == on.reason) {
                Some((_, _, hosts)) => hosts.push(&on.host),
                None => groups.push((on.verdict, &on.reason, vec![&on.host])),
            }
        }
        groups.sort_by_key(|(verdict, ..)| Reverse(position(*verdict)));
        let lines = groups
            .into_iter()
            .map(|(verdict, reason, hosts)| (verdict, format!("on {}: {reason}", self.named(&hosts))));
        lines.collect()
    }
}

/// Prints which hosts run which guests. Memory stays bounded, however many there are.
pub(crate) struct HostsPrinter<W: Write> {
    screen: Screen<W>,
    hosts: Vec<HostTally>,
    /// The worst so far, sorted once they are twice as many as are shown.
    rows: Vec<GuestRow>,
    names: GuestNames,
    /// How many guests run where, and those of them that are not shown.
    all: PlaceTally,
    left_out: PlaceTally,
    /// How many of those that are not shown depend on what is unknown.
    uncertain: usize,
    not_applicable: usize,
    /// Guests that a fix helps on some host.
    fixable: usize,
    only_domains: bool,
    rules: Vec<&'static str>,
}

/// One of the hosts.
struct HostTally {
    /// Its name, and the part of it that is shown.
    label: String,
    shown: String,
    /// How many guests have which verdict there.
    counts: [usize; VERDICTS.len()],
}

/// The names of hosts without the domain that all share.
fn without_domain(labels: &[String]) -> Vec<String> {
    let parts: Option<Vec<(&str, &str)>> = labels.iter().map(|label| label.split_once('.')).collect();
    let parts = parts.unwrap_or_default();
    let is_one_domain = parts.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let mut names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let tells_apart = names.windows(2).all(|pair| pair[0] != pair[1]) && names.iter().all(|name| !name.is_empty());
    let is_path = labels.iter().any(|label| label.contains('/'));
    if parts.is_empty() || !is_one_domain || !tells_apart || is_path {
        return labels.to_vec();
    }
    parts.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// How many guests run where.
#[derive(Default)]
struct PlaceTally([usize; 4]);

impl PlaceTally {
    const ORDER: [Where; 4] = [Where::None, Where::Some, Where::All, Where::Unreadable];

    fn add(&mut self, place: Where) {
        self.0[place as usize] += 1;
    }

    fn total(&self) -> usize {
        self.0.iter().sum()
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, Style, usize)> {
        Self::ORDER.into_iter().map(|place| {
            let (name, colour) = match place {
                Where::None => ("run on none", Some(AnsiColor::Red)),
                Where::Some => ("run on some", Some(AnsiColor::Yellow)),
                Where::All => ("run on all", Some(AnsiColor::Green)),
                Where::Unreadable => ("unreadable", None),
            };
            (name, colour.map_or(Style::new(), |colour| colour.on_default().bold()), self.0[place as usize])
        })
    }
}

impl<W: Write + RawStream> HostsPrinter<W> {
    /// A printer for these hosts and a terminal of this width.
    pub fn new(out: W, columns: usize, labels: Vec<String>) -> Self {
        let shown = without_domain(&labels);
        let hosts = labels.into_iter().zip(shown);
        Self {
            screen: Screen::new(out, columns),
            hosts: hosts.map(|(label, shown)| HostTally { label, shown, counts: Default::default() }).collect(),
            rows: Vec::new(),
            names: GuestNames::default(),
            all: PlaceTally::default(),
            left_out: PlaceTally::default(),
            uncertain: 0,
            not_applicable: 0,
            fixable: 0,
            only_domains: true,
            rules: Vec::new(),
        }
    }

    /// Says under which policy guests are evaluated, if it is not the default.
    pub fn policy(&mut self, notice: Option<&str>) -> Result<()> {
        notice.map_or(Ok(()), |notice| self.screen.print(&format!("{}\n\n", printable(notice))))
    }

    /// One guest, on each of its hosts.
    pub fn guest(&mut self, mut hosts: Vec<OnHost>) -> Result<()> {
        let pages: String = hosts.iter_mut().filter_map(|on| on.page.take()).collect();
        for on in &mut hosts {
            if let Some(host) = self.hosts.iter_mut().find(|host| host.label == on.host) {
                host.counts[position(on.verdict)] += 1;
                on.host.clone_from(&host.shown);
            }
            for rule in &on.rules {
                if !self.rules.contains(rule) {
                    self.rules.push(rule);
                }
            }
        }
        let Some(first) = hosts.first() else { return Ok(()) };
        self.only_domains &= first.is_domain;
        self.names.add(&first.name);
        self.fixable += usize::from(hosts.iter().any(|on| on.verdict == Verdict::Fixable));
        if hosts.iter().all(|on| on.verdict == Verdict::NotApplicable) {
            self.not_applicable += 1;
        } else {
            self.push(GuestRow { name: first.name.clone(), source: first.source.clone(), error: None, hosts });
        }
        self.screen.print(&pages)
    }

    /// One more input that could not be evaluated. All that was printed before is written when this returns.
    pub fn unreadable(&mut self, source: &str, error: &str) -> Result<()> {
        let error = Some(error.trim_start().to_owned());
        self.push(GuestRow { name: String::new(), source: source.to_owned(), error, hosts: Vec::new() });
        self.screen.flush()
    }

    fn push(&mut self, row: GuestRow) {
        self.all.add(row.place());
        self.rows.push(row);
        if self.rows.len() >= 2 * MOST {
            self.cut();
        }
    }

    /// Forgets all but the worst, which are sorted.
    fn cut(&mut self) {
        let (left_out, uncertain) = (&mut self.left_out, &mut self.uncertain);
        keep_worst(&mut self.rows, GuestRow::urgency, |row| {
            left_out.add(row.place());
            *uncertain += usize::from(row.is_uncertain());
        });
    }

    /// The guests and where they run, the worst first, how many run where, and `remarks` about the inputs, a line each.
    pub fn summary(&mut self, remarks: &[String]) -> Result<()> {
        self.cut();
        let mut text = self.table();
        if !text.is_empty() {
            text.push('\n');
        }
        let columns = self.screen.columns;
        let total = self.all.total() + self.not_applicable;
        let guests = match (self.only_domains, total) {
            (true, 1) => "domain",
            (true, _) => "domains",
            (false, 1) => "guest",
            (false, _) => "guests",
        };
        let not_applicable = (Verdict::NotApplicable.name(), Style::new(), self.not_applicable);
        if total > 0 {
            let title = format!("{total} {guests}, {} hosts:", self.hosts.len());
            text += &counted(&title, self.all.counts().chain([not_applicable]), columns);
        }
        let used = || self.hosts.iter().filter(|host| host.counts.iter().any(|&count| count > 0));
        for HostTally { shown, counts, .. } in used().take(MOST) {
            let counts = VERDICTS.iter().zip(counts).map(|((verdict, style), count)| (verdict.name(), *style, *count));
            text += &counted(&format!("{}:", printable(shown)), counts, columns);
        }
        if used().count() > MOST {
            let _ = writeln!(text, "and {} more hosts", used().count() - MOST);
        }
        self.screen.print(&text)?;
        let mut sentences = Vec::new();
        if self.fixable > 0 {
            sentences.push(format!(
                "{} can be fixed; to see how, run `iova-preflight fix --host HOST` (several hosts: one fix for all of \
                 them)",
                self.fixable
            ));
        }
        if self.uncertain > 0 {
            sentences.push(format!(
                "of those not shown, {} depend on unknown facts; -v shows them, and so does --format jsonl",
                self.uncertain
            ));
        }
        sentences.extend_from_slice(remarks);
        if let Some(pages) = pages_of(&self.rules) {
            sentences.push(format!("for details, add -v, or run {pages}"));
        }
        self.screen.sentences(&sentences)?;
        self.screen.flush()
    }

    /// The name of a guest in the table.
    fn guest_of<'r>(&self, row: &'r GuestRow) -> &'r str {
        self.names.shown(&row.name, &row.source)
    }

    fn table(&self) -> String {
        let columns = self.screen.columns;
        let mut text = String::new();
        let hosts: Vec<&str> = self.hosts.iter().map(|host| host.shown.as_str()).collect();
        let matrix = Matrix::new(self.rows.iter().map(|row| (row, self.guest_of(row))), &hosts, columns);
        if let Some(matrix) = matrix.as_ref().filter(|_| !self.rows.is_empty()) {
            matrix.head(&mut text);
        }
        for row in &self.rows {
            match &matrix {
                Some(matrix) => matrix.row(&mut text, row, self.guest_of(row)),
                None => alone(&mut text, row, self.guest_of(row), columns),
            }
            for (verdict, reason) in row.reasons() {
                said(&mut text, (verdict.name(), verdict_style(verdict)), &reason, columns);
            }
            if let Some(error) = &row.error {
                said(&mut text, ("error", AnsiColor::Red.on_default().bold()), error, columns);
            }
        }
        let left: Vec<String> = self
            .left_out
            .counts()
            .filter(|(_, _, count)| *count > 0)
            .map(|(name, _, count)| format!("{count} {name}"))
            .collect();
        if !left.is_empty() {
            for line in wrapped(&format!("not shown here: {}", left.join(", ")), columns) {
                end(&mut text, &line);
            }
        }
        text
    }
}

/// A guest and the hosts that run it, in a line of its own.
fn alone(text: &mut String, row: &GuestRow, guest: &str, columns: usize) {
    let bold = Style::new().bold();
    let guest = fit(&printable(guest), columns);
    let runs = if row.error.is_some() { String::new() } else { format!(" runs on {}", printable(&row.runs_on())) };
    // A name may hold blanks, at which it is not broken.
    let lines = text::filled(std::iter::once(guest.as_str()).chain(runs.split(' ').skip(1)), columns - INDENT);
    for (nth, line) in lines.iter().enumerate() {
        match line.strip_prefix(guest.as_str()).filter(|_| nth == 0) {
            Some(rest) => end(text, &format!("{bold}{guest}{bold:#}{rest}")),
            None => end(text, &format!("{:INDENT$}{line}", "")),
        }
    }
}

/// A line below a guest: a highlighted word, and what it is about.
fn said(text: &mut String, (word, style): (&str, Style), about: &str, columns: usize) {
    /// What goes on in a further line is indented further, so that it is not taken for another reason.
    const HANGING: usize = 2;
    let lines = wrapped(&format!("{word} {}", printable(about)), columns - INDENT - HANGING);
    for (nth, line) in lines.iter().enumerate() {
        match line.strip_prefix(word).filter(|_| nth == 0) {
            Some(rest) => end(text, &format!("{:INDENT$}{style}{word}{style:#}{rest}", "")),
            None => end(text, &format!("{:1$}{line}", "", INDENT + HANGING)),
        }
    }
}
