//! Guests that are to move: whether each can, and what becomes of it.

use std::fmt::Write as _;
use std::io::Write;

use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::finding::{Finding, Severity};
use iova_preflight::migration::{MoveOutcome, Side};
use iova_preflight::text::{printable, quoted};

use super::counted;
use super::page::{PageStyle, Statement};
use super::screen::Screen;
use crate::input::evaluator::{Evaluated, Moving};

/// A guest on its way to one host, as it is shown, with escape sequences.
pub(crate) struct MovePage {
    outcome: MoveOutcome,
    /// The host that it is to move to.
    to: String,
    /// Where the guest was read from.
    source: String,
    text: String,
    /// Whether it takes more than a line.
    detail: bool,
    /// The rules of what is shown.
    rules: Vec<&'static str>,
}

fn style_of(outcome: MoveOutcome) -> Style {
    let colour = match outcome {
        MoveOutcome::Migrates => AnsiColor::Green,
        MoveOutcome::CannotStart => AnsiColor::Yellow,
        MoveOutcome::Refused | MoveOutcome::Breaks => AnsiColor::Red,
        MoveOutcome::NotApplicable => return AnsiColor::BrightBlack.on_default(),
    };
    colour.on_default().bold()
}

impl PageStyle {
    /// One guest and one host: a line, and below it what there is to say.
    pub fn move_page(&self, evaluated: &Evaluated<'_>, moving: Moving<'_>) -> MovePage {
        let Moving { migration, running, from } = moving;
        let (outcome, to) = (migration.outcome, &evaluated.source.label);
        let style = style_of(outcome);
        let mut text = format!("{style}{:<14}{style:#} {}", outcome.name(), printable(evaluated.name));
        if !running.name().is_empty() {
            let _ = write!(text, " ({})", quoted(running.name()));
        }
        let _ = writeln!(text, ": {} → {}", printable(&from.label), printable(to));
        let mut rules = Vec::new();
        for obstacle in &migration.obstacles {
            let said = Statement {
                severity: Severity::Error,
                rule: obstacle.rule,
                title: &obstacle.title,
                cause: obstacle.cause.as_deref(),
                primary: &obstacle.primary,
                related: &obstacle.related,
            };
            text += &self.said(running, evaluated.name, &said);
            text.push('\n');
            rules.extend(obstacle.rule);
        }
        if let Some(first) = migration.obstacles.first().filter(|_| outcome == MoveOutcome::Refused) {
            let host = if first.side == Side::Source { &from.label } else { to };
            text += &self.line("refused by", host);
        }
        let start = &migration.start;
        let starts_elsewhere = outcome == MoveOutcome::CannotStart;
        let least = if self.verbose { Severity::Note } else { Severity::Error };
        let shown: Vec<&Finding> = start
            .findings
            .iter()
            .filter(|finding| (self.verbose || starts_elsewhere) && finding.severity >= least)
            .filter(|finding| !rules.contains(&finding.rule))
            .collect();
        for finding in &shown {
            text += &self.finding(evaluated, finding);
            text.push('\n');
            rules.push(finding.rule);
        }
        if starts_elsewhere {
            text += &self.line("start", "it migrates; once it is off, it does not start there");
            if let Some(fix) = start.any_fix() {
                let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
                text += &self.line("fix", &changes.join(", "));
            }
            start.tried.iter().for_each(|tried| text += &self.line("no fix", tried));
        }
        migration.notes.iter().for_each(|note| text += &self.line("note", note));
        let detail = !migration.obstacles.is_empty() || !shown.is_empty() || !migration.notes.is_empty();
        if detail {
            text.push('\n');
        }
        MovePage { outcome, to: to.clone(), source: evaluated.name.to_owned(), text, detail, rules }
    }
}

/// How many moves there are of each kind, in the order of a summary.
type Counts = [usize; MoveOutcome::ALL.len()];

/// How many hosts and guests a summary names, at most.
const MOST: usize = 50;

/// Prints moves one after the other and counts them.
pub(crate) struct MovesPrinter<W: Write> {
    screen: Screen<W>,
    counts: Counts,
    /// The hosts that guests are to move to, in order.
    hosts: Vec<(String, Counts)>,
    /// The first guests that can move to none of several hosts, and how many there are.
    stuck: Vec<String>,
    all_stuck: usize,
    unreadable: usize,
    /// The rules of what was printed so far, each once.
    rules: Vec<&'static str>,
    /// Whether the last move took one line only.
    after_line: bool,
}

impl<W: Write + RawStream> MovesPrinter<W> {
    /// A printer for a terminal of this width.
    pub fn new(out: W, columns: usize) -> Self {
        let screen = Screen::new(out, columns);
        Self {
            screen,
            counts: Counts::default(),
            hosts: Vec::new(),
            stuck: Vec::new(),
            all_stuck: 0,
            unreadable: 0,
            rules: Vec::new(),
            after_line: false,
        }
    }

    /// Says under which policy guests are evaluated, if that is worth a line.
    pub fn policy(&mut self, notice: Option<&str>) -> Result<()> {
        notice.map_or(Ok(()), |notice| self.screen.print(&format!("{}\n\n", printable(notice))))
    }

    /// One guest on its way to each host.
    pub fn guest(&mut self, pages: Vec<MovePage>) -> Result<()> {
        let stays = |page: &MovePage| matches!(page.outcome, MoveOutcome::Refused | MoveOutcome::Breaks);
        if let [first, _, ..] = &pages[..]
            && pages.iter().all(stays)
        {
            self.all_stuck += 1;
            if self.stuck.len() < MOST {
                self.stuck.push(first.source.clone());
            }
        }
        pages.into_iter().enumerate().try_for_each(|(nth, page)| self.page(nth, page))
    }

    /// The same, on its way to the host with this index.
    fn page(&mut self, host: usize, page: MovePage) -> Result<()> {
        let nth = MoveOutcome::ALL.iter().position(|outcome| *outcome == page.outcome).unwrap_or(0);
        self.counts[nth] += 1;
        if self.hosts.len() <= host {
            self.hosts.push((page.to, Counts::default()));
        }
        self.hosts[host].1[nth] += 1;
        let break_before = if page.detail && self.after_line { "\n" } else { "" };
        self.after_line = !page.detail;
        for rule in page.rules {
            if !self.rules.contains(&rule) {
                self.rules.push(rule);
            }
        }
        self.screen.print(&format!("{break_before}{}", page.text))
    }

    /// One more input that could not be evaluated. All that was printed before is written when this returns.
    pub fn unreadable(&mut self) -> Result<()> {
        self.unreadable += 1;
        self.screen.flush()
    }

    /// How many there are of each kind on the way to each of several hosts.
    fn by_host(&self) -> String {
        let mut text = String::new();
        if self.hosts.len() < 2 {
            return text;
        }
        for (host, counts) in self.hosts.iter().take(MOST) {
            let counts = MoveOutcome::ALL.into_iter().zip(counts);
            let counts = counts.map(|(outcome, count)| (outcome.name(), style_of(outcome), *count));
            text += &counted(&format!("→ {}:", printable(host)), counts, self.screen.columns);
        }
        if self.hosts.len() > MOST {
            let _ = writeln!(text, "and {} more hosts", self.hosts.len() - MOST);
        }
        text
    }

    /// How many there are of each kind, unless there is only one, `remarks` about the inputs, a line each, and where to
    /// read on.
    pub fn summary(&mut self, remarks: &[String]) -> Result<()> {
        let total: usize = self.counts.iter().sum();
        if total + self.unreadable >= 2 {
            let counts = MoveOutcome::ALL.into_iter().zip(self.counts);
            let counts = counts.map(|(outcome, count)| (outcome.name(), style_of(outcome), count));
            let title = format!("{total} {}:", if total == 1 { "migration" } else { "migrations" });
            let unreadable = ("unreadable", Style::new(), self.unreadable);
            let line = counted(&title, counts.chain([unreadable]), self.screen.columns);
            let break_before = if self.after_line { "\n" } else { "" };
            self.screen.print(&format!("{break_before}{line}"))?;
            self.screen.print(&self.by_host())?;
        }
        if self.all_stuck > 0 {
            let mut names = self.stuck.join(", ");
            if self.all_stuck > MOST {
                let _ = write!(names, " and {} more", self.all_stuck - MOST);
            }
            self.screen.sentences(&[format!("can be moved to none of the hosts: {names}")])?;
        }
        self.screen.sentences(remarks)?;
        let pointer = match self.rules[..] {
            [] => None,
            [rule] => Some(format!("for details, run `iova-preflight explain {rule}`")),
            _ => Some("for details, run `iova-preflight explain RULE`".to_owned()),
        };
        self.screen.sentences(pointer.as_slice())?;
        self.screen.flush()
    }
}
