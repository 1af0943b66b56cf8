//! A [`Picture`] for a terminal: addresses on the left, a bar and its labels for each column. Kinds differ in their
//! pattern, so that it can be read without colour too.
#![allow(clippy::arithmetic_side_effects, reason = "columns of a terminal")]

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use textwrap::core::display_width;

use super::{Column, Kind, Picture};
use crate::text::{address, printable, wrapped};

/// Columns of the terminal that a bar takes.
const BAR: usize = 8;

/// Columns of the terminal from which on there is room for addresses in hexadecimal, as other tools print them.
const WITH_HEX: usize = 110;

/// Columns of the terminal below which maps are below one another: less leaves no room for labels.
const SIDE_BY_SIDE: usize = 72;

impl Kind {
    fn glyph(self) -> char {
        match self {
            Self::Ram => '█',
            Self::Device => '▓',
            Self::Window => '▒',
            Self::PciHole => '░',
            Self::Bar => '■',
            Self::BarWindow => ':',
            Self::Hidden => '#',
            Self::Reserved => '/',
            Self::Collision => 'X',
            Self::Low => '·',
            Self::Unused => ' ',
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ram | Self::Device => AnsiColor::Green.on_default(),
            Self::Bar => AnsiColor::Blue.on_default(),
            Self::Window | Self::PciHole | Self::BarWindow => AnsiColor::Cyan.on_default(),
            Self::Reserved => AnsiColor::Yellow.on_default(),
            Self::Collision | Self::Hidden => AnsiColor::Red.on_default().bold(),
            Self::Low | Self::Unused => AnsiColor::BrightBlack.on_default(),
        }
    }
}

/// The picture, `width` columns wide, with escape sequences for colour, which the caller strips if they are not
/// wanted.
pub fn text(picture: &Picture, width: usize) -> String {
    let mut page = String::new();
    let bold = Style::new().bold();
    let mut line = |text: &str| {
        for part in wrap(text, width) {
            let _ = writeln!(page, "{bold}{part}{bold:#}");
        }
    };
    line(&picture.title);
    if width < SIDE_BY_SIDE {
        for picture in picture.apart() {
            draw(&mut page, &picture, width);
        }
    } else {
        draw(&mut page, picture, width);
    }
    page.push('\n');
    let mut used = 0;
    for (kind, words) in picture.legend() {
        let style = kind.style();
        let wide = display_width(words) + 5;
        if used > 0 && used + wide > width {
            page.push('\n');
            used = 0;
        }
        let gap = if used > 0 { "   " } else { "" };
        let _ = write!(page, "{gap}{style}{}{style:#} {words}", kind.glyph());
        used += wide;
    }
    page.push('\n');
    for remark in &picture.remarks {
        page.push('\n');
        for part in wrap(remark, width) {
            page.push_str(&part);
            page.push('\n');
        }
    }
    page
}

/// Printable lines of at most `width` columns, but for words that are longer.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    wrapped(&printable(text), width)
}

/// An address in GiB and in hexadecimal.
fn both(at: u64) -> String {
    let (gib, hex) = (address(at), format!("{at:#x}"));
    if gib == hex { hex } else { format!("{gib:>9} {hex:>14}") }
}

/// Draws the columns beside one another.
fn draw(page: &mut String, picture: &Picture, width: usize) {
    page.push('\n');
    let (intervals, columns) = (&picture.intervals, &picture.columns);
    let ends = picture.end().into_iter();
    let axis = intervals.iter().map(|i| i.range.start).chain(ends);
    let axis: Vec<String> = axis.map(|at| if width < WITH_HEX { address(at) } else { both(at) }).collect();
    let axis_width = axis.iter().map(|label| label.len()).max().unwrap_or(0);
    // Between the axis, the columns and their labels are two blanks, one and two.
    let each = width.saturating_sub(axis_width) / columns.len();
    let label_width = each.saturating_sub(BAR + 3).max(8);
    let mut sheet = Sheet { page, axis_width, label_width };

    let bold = Style::new().bold();
    for (style, words) in [(bold, |column: &Column| &column.heading), (Style::new(), |column: &Column| &column.facts)]
        as [(Style, fn(&Column) -> &String); 2]
    {
        let lines: Vec<Vec<String>> = columns.iter().map(|column| wrap(words(column), label_width + BAR + 1)).collect();
        for nth in 0..lines.iter().map(Vec::len).max().unwrap_or(0) {
            let cells = lines.iter().map(|lines| Cell::heading(style, lines.get(nth)));
            sheet.row("", cells);
        }
    }
    for (interval, start) in intervals.iter().zip(&axis) {
        let address = interval.range.start;
        if columns.iter().any(|column| column.limit_at(address).is_some()) {
            let cells = columns.iter().map(|column| Cell::limit(column, address));
            sheet.row("", cells);
        }
        let labels: Vec<Vec<String>> = columns
            .iter()
            .map(|column| match column.at(address) {
                Some((block, true)) => wrap(&block.label, label_width),
                _ => Vec::new(),
            })
            .collect();
        let rows = labels.iter().map(Vec::len).max().unwrap_or(0).max(interval.rows);
        for row in 0..rows {
            let cells = columns.iter().zip(&labels).map(|(column, lines)| Cell::block(column, address, lines.get(row)));
            sheet.row(if row == 0 { start } else { "" }, cells);
        }
    }
    if let Some(end) = axis.get(intervals.len()) {
        sheet.row(end, std::iter::empty());
    }
}

/// What is in one row of one column.
struct Cell {
    bar: String,
    bar_style: Style,
    label: String,
    label_style: Style,
}

impl Cell {
    fn heading(style: Style, text: Option<&String>) -> Self {
        let bar = text.cloned().unwrap_or_default();
        Self { bar, bar_style: style, label: String::new(), label_style: Style::new() }
    }

    fn block(column: &Column, address: u64, label: Option<&String>) -> Self {
        let kind = column.at(address).map_or(Kind::Unused, |(block, _)| block.kind);
        let label_style = match kind {
            Kind::Collision | Kind::Hidden | Kind::Unused | Kind::Low => kind.style(),
            _ => Style::new(),
        };
        let bar = String::from_iter([kind.glyph(); BAR]);
        Self { bar, bar_style: kind.style(), label: label.cloned().unwrap_or_default(), label_style }
    }

    /// The end of what the vCPU reaches, which is `address`, or the block before it.
    fn limit(column: &Column, address: u64) -> Self {
        let Some(bits) = column.limit_at(address) else { return Self::block(column, address.saturating_sub(1), None) };
        let style = AnsiColor::Red.on_default().bold();
        Self {
            bar: "─".repeat(BAR), bar_style: style, label: format!("{bits} phys-bits end here"), label_style: style
        }
    }
}

struct Sheet<'p> {
    page: &'p mut String,
    axis_width: usize,
    label_width: usize,
}

impl Sheet<'_> {
    fn row(&mut self, axis: &str, cells: impl Iterator<Item = Cell>) {
        let mut line = format!("{axis:>width$}", width = self.axis_width);
        // Blanks are written only when something follows them.
        let mut pending = 2;
        for cell in cells {
            let _ = write!(line, "{:pending$}", "");
            let (bar, label) = (cell.bar_style, cell.label_style);
            let mut used = display_width(&cell.bar);
            if cell.bar.trim().is_empty() {
                line.push_str(&cell.bar);
            } else {
                let _ = write!(line, "{bar}{}{bar:#}", cell.bar);
            }
            if !cell.label.is_empty() {
                let _ = write!(line, " {label}{}{label:#}", cell.label);
                used += 1 + display_width(&cell.label);
            }
            pending = (BAR + 1 + self.label_width + 2).saturating_sub(used);
        }
        let _ = writeln!(self.page, "{}", line.trim_end());
    }
}
