//! The guests that need attention, a line each.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};

use anstyle::{AnsiColor, Style};
use iova_preflight::finding::{Finding, Severity};
use iova_preflight::text::{self, printable};
use iova_preflight::verdict::Verdict;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::verdict_style;
use crate::input::evaluator::Evaluated;

/// How many guests are shown, at most.
pub(super) const MOST: usize = 50;

/// What the urgencies of rows mean, by number.
const URGENCIES: [&str; 4] = ["warn", "unreadable", "fixable", "blocked"];

/// Between columns.
pub(super) const GAP: usize = 2;

/// The least width of the column with what to do; if there is less, that gets a line of its own.
const LEAST_ADVICE: usize = 24;

/// A guest in the table.
pub(super) struct Row {
    /// `None` of an input that could not be evaluated.
    verdict: Option<Verdict>,
    /// The guest's name.
    name: String,
    /// Where its XML came from.
    source: String,
    machine: String,
    memory: String,
    advice: String,
}

impl Row {
    pub fn new(evaluated: &Evaluated<'_>) -> Self {
        let evaluation = evaluated.evaluation;
        let facts = &evaluation.facts;
        let requested = evaluated.guest.machine().map(str::to_owned);
        let memory = match (facts.ram, facts.maxmem) {
            (Some(ram), Some(most)) if most > ram => up_to(&text::size(ram), &text::size(most)),
            (Some(ram), _) => text::size(ram),
            (None, _) => String::new(),
        };
        let advice = match evaluation.any_fix() {
            Some(fix) => {
                let changes: Vec<String> = fix.changes.iter().map(|change| short(&change.to_string())).collect();
                let option = if evaluation.fix.is_some() { "" } else { " --warnings" };
                format!("fix{option}: {}", changes.join(", "))
            }
            None if evaluation.verdict == Verdict::Blocked => {
                format!("by hand, see above: {}", rules(&evaluation.findings, Severity::Error))
            }
            None => format!("see above: {}", rules(&evaluation.findings, Severity::Warning)),
        };
        Self {
            verdict: Some(evaluation.verdict),
            name: evaluated.guest.name().to_owned(),
            source: evaluated.name.to_owned(),
            machine: facts.machine.clone().or(requested).unwrap_or_default(),
            memory,
            advice,
        }
    }

    /// Blocked before fixable, what could not be evaluated before what starts.
    fn urgency(&self) -> Option<u8> {
        match self.verdict {
            Some(Verdict::Blocked) => Some(3),
            Some(Verdict::Fixable) => Some(2),
            None => Some(1),
            Some(Verdict::Warn) => Some(0),
            Some(Verdict::Pass | Verdict::NotApplicable) => None,
        }
    }

    fn verdict(&self) -> (&'static str, Style) {
        match self.verdict {
            Some(verdict) => (verdict.name(), verdict_style(verdict)),
            // As in JSON.
            None => ("error", AnsiColor::Red.on_default().bold()),
        }
    }
}

/// Two sizes, with the unit only once where it is the same.
fn up_to(least: &str, most: &str) -> String {
    match (least.split_once(' '), most.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}–{most}"),
        _ => format!("{least}–{most}"),
    }
}

/// A change without the old value, which another column shows or which does not matter.
pub(super) fn short(change: &str) -> String {
    let parts = change.split_once(" → ").and_then(|(from, to)| Some((from.rsplit_once(' ')?.0, to)));
    parts.map_or_else(|| change.to_owned(), |(what, to)| format!("{what} {to}"))
}

/// The rules that are about something this bad, each once.
pub(super) fn rules(findings: &[Finding], severity: Severity) -> String {
    let mut names: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.severity >= severity) {
        if !names.contains(&finding.rule) {
            names.push(finding.rule);
        }
    }
    names.join(", ")
}

/// Collects guests. Memory stays bounded, however many there are.
#[derive(Default)]
pub(super) struct Table {
    /// The worst so far, sorted once they are twice as many as are shown.
    rows: Vec<Row>,
    /// Those that are not shown, the least urgent first.
    left_out: [usize; 4],
    names: GuestNames,
}

/// The names of all guests, as hashes; of two that differ and have one, the sources are shown.
#[derive(Default)]
pub(super) struct GuestNames {
    /// Whether several have it.
    seen: HashMap<u64, bool>,
    hasher: RandomState,
}

impl GuestNames {
    pub fn add(&mut self, name: &str) {
        self.seen.entry(self.hasher.hash_one(name)).and_modify(|several| *several = true).or_default();
    }

    /// The name of a guest: one that several guests share is replaced by the source.
    pub fn shown<'g>(&self, name: &'g str, source: &'g str) -> &'g str {
        let unique = !name.is_empty() && self.seen.get(&self.hasher.hash_one(name)) == Some(&false);
        if unique { name } else { source }
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        self.names.add(&row.name);
        self.push(row);
    }

    fn push(&mut self, row: Row) {
        if row.urgency().is_some() {
            self.rows.push(row);
        }
        if self.rows.len() >= 2 * MOST {
            self.cut();
        }
    }

    /// Forgets all but the worst, which are sorted.
    fn cut(&mut self) {
        let left_out = &mut self.left_out;
        keep_worst(&mut self.rows, Row::urgency, |row| left_out[usize::from(row.urgency().unwrap_or(0))] += 1);
    }

    pub fn unreadable(&mut self, source: &str, error: &str) {
        self.push(Row {
            verdict: None,
            name: String::new(),
            source: source.to_owned(),
            machine: String::new(),
            memory: String::new(),
            advice: error.trim_start().to_owned(),
        });
    }

    /// The table, the worst first, or nothing if no guest needs attention.
    pub fn render(&mut self, columns: usize) -> String {
        self.cut();
        let cells: Vec<Cells> = self.rows.iter().map(|row| self.cells(row)).collect();
        if cells.is_empty() {
            return String::new();
        }
        let Some(layout) = Columns::new(&cells, columns) else {
            let mut text = stacked(&cells, columns);
            self.rest(&mut text, columns);
            return text;
        };
        let mut text = String::new();
        let title = Style::new().dimmed();
        let _ = write!(text, "{title}");
        layout.row(&mut text, ("verdict", Style::new()), ["guest", "machine", "memory"], "what to do");
        let _ = write!(text, "{title:#}");
        for row in &cells {
            let [guest, machine, memory] = &row.middle;
            layout.row(&mut text, row.verdict, [guest, machine, memory], &row.advice);
        }
        self.rest(&mut text, columns);
        text
    }

    /// How many more there are.
    fn rest(&self, text: &mut String, columns: usize) {
        let kinds = URGENCIES.iter().zip(self.left_out).rev().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = kinds.map(|(name, count)| format!("{count} {name}")).collect();
        if !counts.is_empty() {
            for line in text::wrapped(&format!("and {}, not shown here", counts.join(", ")), columns) {
                end(text, &line);
            }
        }
    }

    fn cells(&self, row: &Row) -> Cells {
        let guest = self.names.shown(&row.name, &row.source);
        let cell = |text: &str| printable(text).into_owned();
        Cells {
            verdict: row.verdict(),
            middle: [cell(guest), cell(&row.machine), cell(&row.memory)],
            advice: cell(&row.advice),
        }
    }
}

/// A row as it is printed.
struct Cells {
    verdict: (&'static str, Style),
    /// Guest, machine, memory.
    middle: [String; 3],
    advice: String,
}

/// The widths of the columns.
struct Columns {
    verdict: usize,
    middle: [usize; 3],
    advice: usize,
    /// Whether what to do goes below the other columns instead of next to them.
    below: bool,
}

impl Columns {
    /// As wide as the content of the columns, but no wider than is easy to read; `None` if there is no room.
    fn new(cells: &[Cells], columns: usize) -> Option<Self> {
        const LEAST: [usize; 3] = [12, 12, 8];
        const MOST: [usize; 3] = [36, 24, 24];
        let widest = |width: &dyn Fn(&Cells) -> usize| cells.iter().map(width).max().unwrap_or(0);
        let verdict = widest(&|row| row.verdict.0.len()).max("verdict".len());
        let mut middle = [0, 1, 2].map(|column| widest(&|row| row.middle[column].width()).min(MOST[column]));
        for (width, least) in middle.iter_mut().zip(LEAST) {
            *width = (*width).max(least);
        }
        let taken = |middle: [usize; 3]| verdict + middle.iter().sum::<usize>() + 3 * GAP;
        let words = cells.iter().flat_map(|row| row.advice.split(' ')).map(UnicodeWidthStr::width);
        let advice = words.max().unwrap_or(0).clamp(LEAST_ADVICE, 40) + GAP;
        [(advice, false), (0, true)].into_iter().find_map(|(needed, below)| {
            let mut middle = middle;
            // The names are shortened first.
            let too_much = (taken(middle) + needed).saturating_sub(columns);
            middle[0] = middle[0].saturating_sub(too_much).max(LEAST[0]);
            columns.checked_sub(taken(middle) + needed)?;
            let advice = columns - if below { verdict + GAP } else { taken(middle) + GAP };
            Some(Self { verdict, middle, advice, below })
        })
    }

    fn row(&self, text: &mut String, (verdict, style): (&str, Style), middle: [&str; 3], advice: &str) {
        let mut line = format!("{style}{verdict}{style:#}{:1$}", "", self.verdict - verdict.len());
        let mut width = self.verdict;
        for (column, cell) in middle.into_iter().enumerate() {
            let cell = fit(cell, self.middle[column]);
            let padding = self.middle[column] - cell.width();
            // Sizes are compared from the right.
            let _ = match column {
                2 => write!(line, "{:GAP$}{:padding$}{cell}", "", ""),
                _ => write!(line, "{:GAP$}{cell}{:padding$}", "", ""),
            };
            width += GAP + self.middle[column];
        }
        let indent = if self.below { self.verdict } else { width };
        let mut lines = text::wrapped(advice, self.advice).into_iter();
        if !self.below
            && let Some(first) = lines.next()
        {
            let _ = write!(line, "{:GAP$}{first}", "");
        }
        end(text, &line);
        for more in lines {
            end(text, &format!("{:indent$}{:GAP$}{more}", "", ""));
        }
    }
}

/// Keeps the [`MOST`] urgent of `rows`, sorted, and hands the others to `left_out`. Those that are equally urgent stay
/// in the order they came in.
pub(super) fn keep_worst<T, U: Ord>(rows: &mut Vec<T>, urgency: impl Fn(&T) -> U, left_out: impl FnMut(T)) {
    rows.sort_by_key(|row| Reverse(urgency(row)));
    rows.drain(MOST.min(rows.len())..).for_each(left_out);
}

/// Ends a line.
pub(super) fn end(text: &mut String, line: &str) {
    text.push_str(line.trim_end_matches(' '));
    text.push('\n');
}

/// Each guest in lines of its own, if there is no room for columns.
fn stacked(cells: &[Cells], columns: usize) -> String {
    const INDENT: usize = 4;
    let mut text = String::new();
    for row in cells {
        let (verdict, style) = row.verdict;
        let [guest, machine, memory] = &row.middle;
        let guest = fit(guest, columns.saturating_sub(verdict.len() + 1));
        let _ = writeln!(text, "{style}{verdict}{style:#} {guest}");
        let what: Vec<&str> = [machine.as_str(), memory.as_str()].into_iter().filter(|cell| !cell.is_empty()).collect();
        for line in [what.join(", "), row.advice.clone()] {
            for line in text::wrapped(&line, columns - INDENT) {
                let _ = writeln!(text, "{:INDENT$}{line}", "");
            }
        }
    }
    text
}

/// `text`, cut where it takes more than `width` columns: a path at its beginning, everything else at its end.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| match room.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    };
    if text.contains('/') {
        let kept: String = text.chars().rev().take_while(fits).collect();
        return format!("…{}", kept.chars().rev().collect::<String>());
    }
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstream::adapter::strip_str;

    fn row(verdict: Option<Verdict>, name: &str, advice: &str) -> Row {
        Row {
            verdict,
            name: name.to_owned(),
            source: format!("/etc/libvirt/qemu/{name}.xml"),
            machine: "pc-q35-6.2".to_owned(),
            memory: "1200 GiB".to_owned(),
            advice: advice.to_owned(),
        }
    }

    fn table(rows: impl IntoIterator<Item = Row>, columns: usize) -> String {
        let mut table = Table::default();
        rows.into_iter().for_each(|row| table.add(row));
        strip_str(&table.render(columns)).to_string()
    }

    #[test]
    fn only_what_needs_attention_is_shown_the_worst_first() {
        let rows = [
            row(Some(Verdict::Warn), "w", "see above: x"),
            row(Some(Verdict::Pass), "p", ""),
            row(Some(Verdict::Fixable), "f1", "fix: a"),
            row(Some(Verdict::NotApplicable), "n", ""),
            row(Some(Verdict::Blocked), "b", "by hand"),
            row(Some(Verdict::Fixable), "f2", "fix: a"),
        ];
        let text = table(rows, 80);
        let names: Vec<&str> = text.lines().map(|line| line.split_whitespace().nth(1).expect("a name")).collect();
        assert_eq!(names, ["guest", "b", "f1", "f2", "w"], "{text}");
        assert_eq!(table([row(Some(Verdict::Pass), "p", "")], 80), "");
    }

    #[test]
    fn the_worst_of_many_are_shown_and_the_rest_counted() {
        let fixable = (0..200).map(|n| row(Some(Verdict::Fixable), &format!("f{n}"), "fix: a"));
        let blocked = (0..3).map(|n| row(Some(Verdict::Blocked), &format!("b{n}"), "by hand"));
        let warned = (0..7).map(|n| row(Some(Verdict::Warn), &format!("w{n}"), "see above"));
        let text = table(warned.chain(fixable).chain(blocked), 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + MOST + 1, "{text}");
        assert!(lines[1].contains(" b0 ") && lines[3].contains(" b2 ") && lines[4].contains(" f0 "), "{text}");
        assert!(lines[MOST].contains(" f46 "), "{text}");
        assert_eq!(lines[MOST + 1], "and 153 fixable, 7 warn, not shown here");
        let mut table = Table::default();
        (0..10_000).for_each(|n| table.add(row(Some(Verdict::Fixable), &format!("f{n}"), "")));
        assert!(table.rows.len() < 2 * MOST);
    }

    #[test]
    fn a_shared_name_is_replaced_by_the_source() {
        let text = table([row(Some(Verdict::Warn), "db", ""), row(Some(Verdict::Pass), "db", "")], 120);
        assert!(text.contains("/etc/libvirt/qemu/db.xml"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_columns_line_up() {
        let names = ["db", "仮想マシン仮想マシン仮想マシン仮想マシン", "e\u{301}te\u{301}", "👩‍🔬 lab", &"x".repeat(90)];
        let advice = "fix: machine pc-q35-7.1, maxphysaddr emulate 42, pcihole64 32 GiB, memory any address";
        for columns in [40, 60, 72, 80, 100, 120, 200] {
            let text = table(names.map(|name| row(Some(Verdict::Fixable), name, advice)), columns);
            for line in text.lines() {
                assert!(line.width() <= columns, "{columns}: {} {line:?}", line.width());
            }
            if columns >= 60 {
                let places: Vec<usize> = text
                    .lines()
                    .filter_map(|line| line.split_once("pc-q35-6.2"))
                    .map(|(before, _)| before.width())
                    .collect();
                assert_eq!(places.len(), names.len(), "{text}");
                assert!(places.iter().all(|place| *place == places[0]), "{text}");
            }
        }
    }

    #[test]
    fn a_cut_text_keeps_the_part_that_distinguishes_it() {
        assert_eq!(fit("pc-q35-7.2", 10), "pc-q35-7.2");
        assert_eq!(fit("instance-00001a2f", 10), "instance-…");
        assert_eq!(fit("/etc/libvirt/qemu/db.xml", 10), "…mu/db.xml");
        assert_eq!(fit("仮想マシン", 6), "仮想…");
    }

    #[test]
    fn a_change_leaves_out_the_old_value() {
        assert_eq!(up_to("512 GiB", "1024 GiB"), "512–1024 GiB");
        assert_eq!(up_to("512 MiB", "1024 GiB"), "512 MiB–1024 GiB");
        assert_eq!(short("machine pc-q35-6.2 → pc-q35-7.1"), "machine pc-q35-7.1");
        assert_eq!(short("memory device 0x1000 → address chosen by QEMU"), "memory device address chosen by QEMU");
        assert_eq!(short("maxphysaddr emulate 42"), "maxphysaddr emulate 42");
    }
}
