//! A [`Picture`] as a self-contained SVG document.
#![allow(clippy::arithmetic_side_effects, reason = "pixels on a page whose every part is bounded")]

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use textwrap::core::display_width;

use super::terminal::wrap;
use super::{Area, Column, Kind, Picture};
use crate::text::{address, printable};

/// Lengths in pixels.
const ROW: usize = 22;
const MARGIN: usize = 24;
const AXIS: usize = 110;
const BAR: usize = 90;
const COLUMN: usize = 440;
const LINE: usize = 20;
/// The width of a character of the font, on average; a guess on the safe side.
const CHARACTER: usize = 8;
const TITLE_CHARACTER: usize = 12;

/// Characters in the longest line of the title, which is larger, and of a remark.
const TITLE_LENGTH: usize = 80;
const LINE_LENGTH: usize = 110;
const LABEL_LENGTH: usize = (COLUMN - BAR - 20) / CHARACTER;

type Result = io::Result<()>;

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Device => "device",
            Self::Window => "window",
            Self::PciHole => "hole",
            Self::Bar => "bar64",
            Self::BarWindow => "bar-window",
            Self::Hidden => "hidden",
            Self::Low => "low",
            Self::Reserved => "reserved",
            Self::Collision => "collision",
            Self::Unused => "unused",
        }
    }
}

/// Colours, and a pattern for each for those who cannot see them or print in black.
const STYLE: &str = "
text { font: 14px 'DejaVu Sans', Verdana, sans-serif; fill: #1a1a1a }
.title { font-weight: bold; font-size: 17px }
.heading { font-weight: bold }
.axis { font-size: 12px; fill: #444 }
.limit { stroke: #c00000; stroke-width: 2 }
.limit-text { fill: #c00000; font-weight: bold }
.paper { fill: #ffffff }
.bar { stroke: #333; stroke-width: 1 }
.tick { stroke: #bbb; stroke-width: 1 }
.ram { fill: #3f8f4f }
.device { fill: url(#device) }
.window { fill: url(#window) }
.hole { fill: url(#hole) }
.bar64 { fill: #6a8fd0 }
.bar-window { fill: url(#bar-window) }
.hidden { fill: url(#hidden) }
.reserved { fill: url(#reserved) }
.collision { fill: url(#collision) }
.low { fill: #d9d9d9 }
.unused { fill: #ffffff }
";

/// Patterns: name, ground, line, path within 8 × 8 pixels.
const PATTERNS: [(&str, &str, &str, &str); 7] = [
    ("device", "#8cc49a", "#2c6b39", "M0 4H8"),
    ("window", "#e3f1e6", "#3f8f4f", "M0 4H8M4 0V8"),
    ("hole", "#e4edf8", "#4a78b0", "M2 2h1v1h-1zM6 6h1v1h-1z"),
    ("bar-window", "#eef2fb", "#6a8fd0", "M0 8L8 0"),
    ("hidden", "#3f8f4f", "#c00000", "M0 0L8 8M8 0L0 8"),
    ("reserved", "#fbeecb", "#b07d00", "M-2 2L2 -2M0 8L8 0M6 10L10 6"),
    ("collision", "#f8c9c4", "#c00000", "M0 0L8 8M8 0L0 8"),
];

/// The picture as SVG 1.1, with a white ground and both a title and a description for those who do not see it.
pub fn svg(picture: &Picture) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing to a vector cannot fail, and everything written is UTF-8.
    let written = draw(&mut writer, picture);
    debug_assert!(written.is_ok());
    let mut text = String::from_utf8(writer.into_inner()).unwrap_or_default();
    text.push('\n');
    text
}

fn draw(writer: &mut Writer<Vec<u8>>, picture: &Picture) -> Result {
    let heights: Vec<usize> = picture.intervals.iter().map(|interval| interval.rows * ROW).collect();
    let title = wrap(&picture.title, TITLE_LENGTH);
    let top = MARGIN + (3 + title.len()) * LINE;
    let bottom = top + heights.iter().sum::<usize>();
    let columns_width = picture.columns.len() * COLUMN;
    let remarks: Vec<String> = picture.remarks.iter().flat_map(|remark| wrap(remark, LINE_LENGTH)).collect();
    let longest = |lines: &[String]| lines.iter().map(|line| display_width(line)).max().unwrap_or(0);
    let words = (longest(&remarks) * CHARACTER).max(longest(&title) * TITLE_CHARACTER);
    let width = 2 * MARGIN + (AXIS + columns_width).max(words);
    let legend = picture.legend().count() * LINE;
    let height = bottom + MARGIN + legend + remarks.len() * LINE + 2 * MARGIN;

    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let mut root = writer.create_element("svg");
    let size = [("width", width), ("height", height)].map(|(name, value)| (name, value.to_string()));
    root = root.with_attribute(("xmlns", "http://www.w3.org/2000/svg")).with_attribute(("role", "img"));
    for (name, value) in &size {
        root = root.with_attribute((*name, value.as_str()));
    }
    root = root.with_attribute(("viewBox", format!("0 0 {width} {height}").as_str()));
    root.write_inner_content(|writer| {
        element_text(writer, "title", &picture.title)?;
        element_text(writer, "desc", &description(picture))?;
        element_text(writer, "style", STYLE)?;
        patterns(writer)?;
        rectangle(writer, "paper", (0, 0), (width, height), None)?;
        for (nth, line) in title.iter().enumerate() {
            text(writer, "title", (MARGIN, MARGIN + nth * LINE + LINE - 4), "start", line)?;
        }
        let mut y = top;
        for (interval, height) in picture.intervals.iter().zip(&heights) {
            tick(writer, y, columns_width, &address(interval.range.start))?;
            y += height;
        }
        if let Some(end) = picture.end() {
            tick(writer, y, columns_width, &address(end))?;
        }
        for (nth, drawn) in picture.columns.iter().enumerate() {
            column(writer, picture, drawn, &heights, (MARGIN + AXIS + nth * COLUMN, top))?;
        }
        y = bottom + MARGIN;
        for (kind, words) in picture.legend() {
            rectangle(writer, kind.class(), (MARGIN, y), (LINE + 8, LINE - 5), None)?;
            text(writer, "", (MARGIN + LINE + 18, y + LINE - 8), "start", words)?;
            y += LINE;
        }
        y += MARGIN;
        for remark in &remarks {
            text(writer, "", (MARGIN, y), "start", remark)?;
            y += LINE;
        }
        Ok(())
    })?;
    Ok(())
}

/// The picture in words.
fn description(picture: &Picture) -> String {
    let block = |block: &&Area| format!("{} at {}", block.label, address(block.range.start));
    let column = |column: &Column| {
        let blocks = column.blocks.iter().filter(|block| !block.label.is_empty());
        let blocks: Vec<String> = blocks.map(|it| block(&it)).collect();
        format!("{} ({}): {}", column.heading, column.facts, blocks.join("; "))
    };
    let columns: Vec<String> = picture.columns.iter().map(column).collect();
    columns.join(". ")
}

fn column(
    writer: &mut Writer<Vec<u8>>,
    picture: &Picture,
    column: &Column,
    heights: &[usize],
    (x, top): (usize, usize),
) -> Result {
    text(writer, "heading", (x, top - 2 * LINE), "start", &cut(&column.heading))?;
    text(writer, "", (x, top - LINE + 2), "start", &cut(&column.facts))?;
    let y_of = |address: u64| {
        let above = picture.intervals.iter().zip(heights).take_while(|(interval, _)| interval.range.end < address);
        top + above.map(|(_, height)| height).sum::<usize>()
    };
    for block in column.blocks.iter().filter(|block| !block.label.is_empty()) {
        let (from, to) = (y_of(block.range.start), y_of(block.range.end) + last_height(picture, heights, block));
        rectangle(writer, &format!("bar {}", block.kind.class()), (x, from), (BAR, to - from), Some(&block.label))?;
        for (nth, line) in wrap(&block.label, LABEL_LENGTH).iter().enumerate() {
            text(writer, "", (x + BAR + 10, from + nth * (LINE - 4) + ROW - 6), "start", line)?;
        }
    }
    if let Some((bits, address)) = column.limit {
        let y = y_of(address);
        let (left, right) = ((x - 6).to_string(), (x + COLUMN - 30).to_string());
        let line = writer.create_element("line").with_attribute(("class", "limit"));
        let y_text = y.to_string();
        line.with_attributes([("x1", left.as_str()), ("x2", &right), ("y1", &y_text), ("y2", &y_text)])
            .write_empty()?;
        text(writer, "limit-text", (x + COLUMN - 30, y - 5), "end", &format!("{bits} phys-bits end here"))?;
    }
    Ok(())
}

/// As much of a line as there is room for in a column.
fn cut(line: &str) -> String {
    const MOST: usize = COLUMN / CHARACTER;
    if line.chars().count() <= MOST { line.to_owned() } else { line.chars().take(MOST - 1).chain(['…']).collect() }
}

/// The height of the interval in which a block ends.
fn last_height(picture: &Picture, heights: &[usize], block: &Area) -> usize {
    let last = picture.intervals.iter().position(|interval| interval.range.end >= block.range.end);
    last.map_or(0, |last| heights[last])
}

fn tick(writer: &mut Writer<Vec<u8>>, y: usize, columns_width: usize, label: &str) -> Result {
    let (left, right, y_text) =
        ((MARGIN + AXIS - 8).to_string(), (MARGIN + AXIS + columns_width - 30).to_string(), y.to_string());
    let line = writer.create_element("line").with_attribute(("class", "tick"));
    line.with_attributes([("x1", left.as_str()), ("x2", &right), ("y1", &y_text), ("y2", &y_text)]).write_empty()?;
    text(writer, "axis", (MARGIN + AXIS - 14, y + 4), "end", label)
}

fn patterns(writer: &mut Writer<Vec<u8>>) -> Result {
    writer.create_element("defs").write_inner_content(|writer| {
        for (name, ground, line, path) in PATTERNS {
            let pattern = writer.create_element("pattern").with_attributes([
                ("id", name),
                ("width", "8"),
                ("height", "8"),
                ("patternUnits", "userSpaceOnUse"),
            ]);
            pattern.write_inner_content(|writer| {
                let ground = [("width", "8"), ("height", "8"), ("fill", ground)];
                writer.create_element("rect").with_attributes(ground).write_empty()?;
                let drawn = [("d", path), ("stroke", line), ("stroke-width", "1.5"), ("fill", "none")];
                writer.create_element("path").with_attributes(drawn).write_empty()?;
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(())
}

/// A rectangle; `title` is what a viewer shows when it is pointed at.
fn rectangle(
    writer: &mut Writer<Vec<u8>>,
    class: &str,
    (x, y): (usize, usize),
    (width, height): (usize, usize),
    title: Option<&str>,
) -> Result {
    let numbers = [("x", x), ("y", y), ("width", width), ("height", height)].map(|(name, n)| (name, n.to_string()));
    let numbers = numbers.iter().map(|(name, value)| (*name, value.as_str()));
    let rectangle = writer.create_element("rect").with_attribute(("class", class)).with_attributes(numbers);
    match title {
        Some(title) => rectangle.write_inner_content(|writer| element_text(writer, "title", title))?,
        None => rectangle.write_empty()?,
    };
    Ok(())
}

fn text(writer: &mut Writer<Vec<u8>>, class: &str, (x, y): (usize, usize), anchor: &str, words: &str) -> Result {
    let (x, y) = (x.to_string(), y.to_string());
    let mut text = writer.create_element("text");
    if !class.is_empty() {
        text = text.with_attribute(("class", class));
    }
    if anchor != "start" {
        text = text.with_attribute(("text-anchor", anchor));
    }
    text.with_attributes([("x", x.as_str()), ("y", y.as_str())])
        .write_text_content(BytesText::new(&printable(words)))?;
    Ok(())
}

fn element_text(writer: &mut Writer<Vec<u8>>, name: &str, words: &str) -> Result {
    let words = if name == "style" { words.into() } else { printable(words) };
    writer.create_element(name).write_text_content(BytesText::new(&words))?;
    Ok(())
}
