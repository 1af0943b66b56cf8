//! A column for each host, if there is room.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use iova_preflight::text::{printable, wrapped};
use iova_preflight::verdict::Verdict;
use unicode_width::UnicodeWidthStr;

use super::super::table::{GAP, end, fit};
use super::super::verdict_style;
use super::GuestRow;

const GUEST: &str = "guest";
const RUNS_ON: &str = "runs on";

/// The widths of the columns, and what is above them.
pub(super) struct Matrix<'h> {
    guest: usize,
    hosts: Vec<(&'h str, HostHead)>,
    runs_on: usize,
    /// Whether the hosts that run a guest are named, not counted.
    names: bool,
}

struct HostHead {
    width: usize,
    /// The host's name in lines.
    head: Vec<String>,
}

impl<'h> Matrix<'h> {
    /// The widest that fits; `None` if there is no room for so many hosts.
    pub fn new<'r>(
        rows: impl Iterator<Item = (&'r GuestRow, &'r str)>,
        hosts: &[&'h str],
        columns: usize,
    ) -> Option<Self> {
        /// How wide the columns of hosts may be, how much of the guests' names is kept, and whether the hosts that run
        /// a guest are named, in the order of preference.
        const TRIES: [(usize, usize, bool); 6] =
            [(usize::MAX, 24, true), (12, 20, true), (10, 16, true), (8, 16, true), (12, 16, false), (8, 16, false)];
        /// Longer names of guests are cut.
        const MOST: usize = 36;
        /// Hosts that run a guest are named below one another if there is less room for them.
        const NAMES: usize = 16;
        let (mut guest, mut runs_on, mut counts, mut cells) =
            (GUEST.len(), RUNS_ON.len(), RUNS_ON.len(), vec![0; hosts.len()]);
        for (row, name) in rows {
            guest = guest.max(printable(name).width());
            let words = row.runs_on();
            let longest = words.split(' ').map(|word| printable(word).width()).max().unwrap_or(0);
            runs_on = runs_on.max(longest).max(printable(&words).width().min(NAMES));
            counts = counts.max(row.runs_on_many().width());
            for on in &row.hosts {
                if let Some(column) = hosts.iter().position(|host| *host == on.host) {
                    cells[column] = cells[column].max(cell(on.verdict).width());
                }
            }
        }
        TRIES.into_iter().find_map(|(widest, least, names)| {
            let hosts: Vec<(&str, HostHead)> = hosts
                .iter()
                .zip(&cells)
                .map(|(host, least)| (*host, HostHead::new(&printable(host), widest.max(*least), *least)))
                .collect();
            let taken: usize = hosts.iter().map(|(_, column)| GAP + column.width).sum();
            let runs_on = if names { runs_on } else { counts };
            let room = columns.checked_sub(taken + GAP + runs_on + guest.min(least))?;
            let guest = guest.min(MOST).min(guest.min(least) + room);
            Some(Self { guest, hosts, runs_on: columns - taken - GAP - guest, names })
        })
    }

    /// The titles of the columns.
    pub fn head(&self, text: &mut String) {
        let title = Style::new().dimmed();
        let lines = self.hosts.iter().map(|(_, column)| column.head.len()).max().unwrap_or(1);
        let _ = write!(text, "{title}");
        for line in 0..lines {
            let is_last = line + 1 == lines;
            let mut shown = format!("{:1$}", if is_last { GUEST } else { "" }, self.guest);
            for (_, HostHead { width, head }) in &self.hosts {
                // What is short is at the bottom.
                let part = (line + head.len()).checked_sub(lines).map_or("", |nth| head[nth].as_str());
                let padding = width - part.width();
                let _ = write!(shown, "{:GAP$}{part}{:padding$}", "", "");
            }
            let _ = write!(shown, "{:GAP$}{}", "", if is_last { RUNS_ON } else { "" });
            end(text, &shown);
        }
        let _ = write!(text, "{title:#}");
    }

    /// A guest.
    pub fn row(&self, text: &mut String, row: &GuestRow, name: &str) {
        let guest = fit(&printable(name), self.guest);
        let mut line = format!("{guest}{:1$}", "", self.guest - guest.width());
        if row.error.is_some() {
            end(text, &line);
            return;
        }
        for (host, HostHead { width, .. }) in &self.hosts {
            let verdict = row.hosts.iter().find(|on| on.host == *host).map(|on| on.verdict);
            let (word, style) = verdict.map_or(("-", Style::new()), |verdict| (cell(verdict), verdict_style(verdict)));
            let padding = width - word.len();
            let _ = write!(line, "{:GAP$}{style}{word}{style:#}{:padding$}", "", "");
        }
        let indent: usize = self.guest + self.hosts.iter().map(|(_, column)| GAP + column.width).sum::<usize>();
        let names = if self.names { row.runs_on() } else { row.runs_on_many() };
        let mut names = wrapped(&printable(&names), self.runs_on).into_iter();
        let first = names.next().unwrap_or_default();
        let style = if first == "none" { AnsiColor::Red.on_default().bold() } else { Style::new() };
        end(text, &format!("{line}{:GAP$}{style}{first}{style:#}", ""));
        for more in names {
            end(text, &format!("{:indent$}{:GAP$}{more}", "", ""));
        }
    }
}

/// A verdict in a column.
fn cell(verdict: Verdict) -> &'static str {
    if verdict == Verdict::NotApplicable { "n/a" } else { verdict.name() }
}

impl HostHead {
    /// At most `widest` columns and at least `least`, for what is below.
    fn new(host: &str, widest: usize, least: usize) -> Self {
        let head = broken(host, widest);
        let width = head.iter().map(|part| part.width()).max().unwrap_or(0).max(least);
        Self { width, head }
    }
}

/// A name in lines, broken after what joins its parts where it is too long, and elsewhere only if that does not help.
fn broken(name: &str, widest: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for part in name.split_inclusive(['-', '.', '_', '/', ':', ' ']) {
        if !line.is_empty() && line.width() + part.width() > widest {
            lines.push(std::mem::take(&mut line));
        }
        for c in part.chars() {
            if line.width() + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) > widest {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn a_long_name_is_broken_at_its_joints() {
        assert_eq!(broken("debian-12-epyc", 20), ["debian-12-epyc"]);
        assert_eq!(broken("debian-12-epyc", 10), ["debian-12-", "epyc"]);
        assert_eq!(broken("hv0123456789.example.com", 8), ["hv012345", "6789.", "example.", "com"]);
    }
}
