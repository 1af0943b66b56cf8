//! `iova-preflight explain`.

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::finding::Severity;
use iova_preflight::rules::page::{Block, Content};
use iova_preflight::rules::{self, RULES, Rule};
use textwrap::Options;

use crate::outcome::Outcome;
use crate::output::terminal;

/// Lines of text are no longer than this, however wide the terminal: longer ones are hard to read.
const LONGEST_LINE: usize = 100;

/// Columns from which on the table has a column for what a rule finds.
const TABLE_WIDTH: usize = 100;

const HEADING: Style = Style::new().bold();

/// Prints the page of a rule, or the table of all.
pub(crate) fn run(rule: Option<&str>) -> Result<Outcome> {
    let columns = terminal::columns();
    let text = match rule.and_then(rules::rule) {
        Some(rule) => render(rule, columns.min(LONGEST_LINE)),
        None => table(columns),
    };
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Outcome::Clean)
}

fn table(columns: usize) -> String {
    let rule_width = RULES.iter().map(|rule| rule.id.len()).max().unwrap_or_default();
    let severity_width = RULES.iter().map(|rule| rule.page.severity_words().len()).max().unwrap_or_default();
    let mut text = String::new();
    for rule in RULES {
        let (style, severity) = (style_of(rule), rule.page.severity_words());
        let _ = write!(text, "{HEADING}{:<rule_width$}{HEADING:#}  {style}{severity}{style:#}", rule.id);
        if columns >= TABLE_WIDTH {
            let indent = " ".repeat(rule_width + 2 + severity_width + 2);
            let summary = wrapped(rule.summary, columns, &indent);
            let _ = writeln!(text, "{:1$}  {2}", "", severity_width - severity.len(), summary.trim_start());
        } else {
            let _ = writeln!(text, "\n{}", wrapped(rule.summary, columns, "    "));
        }
    }
    let _ = writeln!(text, "\nFor details, run `iova-preflight explain RULE`.");
    text
}

/// The colour of the worst that a rule can find.
fn style_of(rule: &Rule) -> Style {
    match rule.page.severities.first() {
        Some(Severity::Error) => AnsiColor::Red.on_default(),
        Some(Severity::Warning) => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

fn render(rule: &Rule, columns: usize) -> String {
    let style = style_of(rule);
    let mut text = format!("{HEADING}{}{HEADING:#}  {style}{}{style:#}\n", rule.id, rule.page.severity_words());
    let _ = writeln!(text, "{}", wrapped(rule.summary, columns, ""));
    for section in rule.page.sections() {
        let _ = write!(text, "\n{HEADING}{}{HEADING:#}\n", section.title);
        let mut separator = "";
        let mut add = |part: String| {
            let _ = writeln!(text, "{separator}{part}");
            separator = "\n";
        };
        match section.content {
            Content::Blocks(blocks) => blocks.iter().for_each(|block| add(shown(block, columns))),
            // Word for word on one line, as it is searched for.
            Content::Errors(errors) => errors.iter().for_each(|error| {
                add(format!("  {}, {}:\n    {}", error.by.name(), error.when, error.text));
            }),
        }
    }
    text
}

fn shown(block: &Block, columns: usize) -> String {
    match block {
        Block::Text(words) => wrapped(words, columns, "  "),
        Block::Shell(commands) => indented(commands, "    $ "),
        Block::Xml(lines) | Block::Output(lines) => indented(lines, "    "),
    }
}

fn indented(lines: &str, indent: &str) -> String {
    let lines: Vec<String> =
        lines.lines().map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") }).collect();
    lines.join("\n")
}

fn wrapped(text: &str, columns: usize, indent: &str) -> String {
    textwrap::fill(text, Options::new(columns).initial_indent(indent).subsequent_indent(indent).break_words(false))
}
