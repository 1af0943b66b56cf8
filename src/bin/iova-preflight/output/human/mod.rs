//! Verdicts for people to read.

mod excerpt;
mod hosts;
mod moves;
mod page;
mod screen;
mod table;

use std::fmt::Write as _;
use std::io::Write;

use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::text::{printable, wrapped};
use iova_preflight::verdict::Verdict;
use unicode_width::UnicodeWidthStr;

pub(crate) use hosts::{HostsPrinter, OnHost};
pub(crate) use moves::MovesPrinter;
pub(crate) use page::{GuestPage, PageStyle};
use screen::Screen;
use table::Table;

/// Prints guests one after the other and counts them.
pub(crate) struct Printer<W: Write> {
    screen: Screen<W>,
    counts: Counts,
    table: Table,
    notice: Option<String>,
    /// The rules of the findings printed so far, each once.
    rules: Vec<&'static str>,
    /// Whether all guests so far are domains.
    only_domains: bool,
    /// Whether a guest can be fixed whose definition no orchestrator regenerates.
    fixes_here: bool,
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

fn position(verdict: Verdict) -> usize {
    VERDICTS.iter().position(|(known, _)| *known == verdict).unwrap_or(0)
}

fn verdict_style(verdict: Verdict) -> Style {
    VERDICTS[position(verdict)].1
}

impl<W: Write + RawStream> Printer<W> {
    /// A printer for a terminal of this width.
    pub fn new(out: W, columns: usize) -> Self {
        Self {
            screen: Screen::new(out, columns),
            counts: Counts::default(),
            table: Table::default(),
            notice: None,
            rules: Vec::new(),
            only_domains: true,
            fixes_here: false,
            after_line: false,
        }
    }

    /// Says which host the next guests are evaluated for, and under which policy, if either is not the default.
    pub fn host(&mut self, host: &str, policy: Option<&str>) {
        let lines: Vec<_> = std::iter::once(host).chain(policy).map(printable).collect();
        self.notice = Some(lines.join("\n"));
    }

    /// One more input that could not be evaluated. All that was printed before is written when this returns.
    pub fn unreadable(&mut self, name: &str, error: &str) -> Result<()> {
        self.counts.unreadable += 1;
        self.table.unreadable(name, error);
        self.screen.flush()
    }

    /// One guest.
    pub fn guest(&mut self, page: GuestPage) -> Result<()> {
        let mut text = String::new();
        if let Some(notice) = self.notice.take() {
            let _ = writeln!(text, "{notice}\n");
        }
        self.counts.by_verdict[position(page.verdict)] += 1;
        if page.detail && self.after_line {
            text.push('\n');
        }
        self.after_line = !page.detail;
        self.only_domains &= page.is_domain;
        self.fixes_here |= page.verdict == Verdict::Fixable && !page.is_owned;
        text += &page.text;
        for rule in page.rules {
            if !self.rules.contains(&rule) {
                self.rules.push(rule);
            }
        }
        self.table.add(page.row);
        self.screen.print(&text)
    }

    /// Writes everything printed so far.
    pub fn flush(&mut self) -> Result<()> {
        self.screen.flush()
    }

    /// The guests that need attention, how many there are of each kind, unless there is only one, and `remarks` about the
    /// inputs, a line each.
    pub fn summary(&mut self, remarks: &[String]) -> Result<()> {
        let total: usize = self.counts.by_verdict.iter().sum::<usize>() + self.counts.unreadable;
        if total >= 2 {
            self.counted(total)?;
        }
        self.screen.sentences(remarks)?;
        self.screen.flush()
    }

    fn counted(&mut self, total: usize) -> Result<()> {
        let mut text = String::new();
        if self.after_line {
            text.push('\n');
        }
        let table = self.table.render(self.screen.columns);
        if !table.is_empty() {
            let _ = writeln!(text, "{table}");
        }
        let counts = VERDICTS
            .iter()
            .zip(self.counts.by_verdict)
            .map(|((verdict, style), count)| (verdict.name(), *style, count));
        let unreadable = ("unreadable", Style::new(), self.counts.unreadable);
        let guests = if self.only_domains { "domains" } else { "guests" };
        text += &counted(&format!("{total} {guests}:"), counts.chain([unreadable]), self.screen.columns);
        let fixable = self.counts.by_verdict[position(Verdict::Fixable)];
        if self.fixes_here {
            for line in
                wrapped(&format!("{fixable} can be fixed; to see how, run `iova-preflight fix`"), self.screen.columns)
            {
                let _ = writeln!(text, "{line}");
            }
        }
        self.screen.print(&text)
    }

    /// Where to read more, if any rule found something.
    pub fn pointer(&mut self) -> Result<()> {
        let text = pages_of(&self.rules).map(|pages| format!("for details, run {pages}"));
        self.screen.sentences(&[text.unwrap_or_default()])?;
        self.screen.flush()
    }
}

/// The command that prints what a rule means; of one rule or two by name.
fn pages_of(rules: &[&str]) -> Option<String> {
    let explain = |rule: &&str| format!("`iova-preflight explain {rule}`");
    match rules {
        [] => None,
        [rule] => Some(explain(rule)),
        [rule, other] => Some(format!("{} or {}", explain(rule), explain(other))),
        _ => Some(explain(&"RULE")),
    }
}

/// How many there are of each kind, in lines that fit, after `title`; kinds that there are none of are left out.
fn counted(title: &str, counts: impl IntoIterator<Item = (&'static str, Style, usize)>, columns: usize) -> String {
    let (mut text, mut line) = (title.to_owned(), title.width());
    let mut comma = "";
    for (name, style, count) in counts.into_iter().filter(|(_, _, count)| *count > 0) {
        let part = format!("{count} {name}");
        text += comma;
        // The comma after it, too.
        if line + part.len() + 2 > columns {
            text += "\n ";
            line = 0;
        }
        let _ = write!(text, " {style}{part}{style:#}");
        line += part.len() + 2;
        comma = ",";
    }
    text.push('\n');
    text
}
