//! `iova-preflight explain`.

mod text;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::builder::TypedValueParser;
use clap::{CommandFactory, ValueEnum};
use iova_preflight::finding::Severity;
use iova_preflight::rules::page::{Block, Content};
use iova_preflight::rules::{self, RULES, Rule};

use crate::args::{Cli, Color, ExplainArgs, ExplainFormat};
use crate::outcome::Outcome;
use crate::output::terminal;

/// Lines of text are no longer than this, however wide the terminal: longer ones are hard to read.
const LONGEST_LINE: usize = 100;

/// Columns from which on the table has a column for what a rule finds.
const TABLE_WIDTH: usize = 100;

const HEADING: Style = Style::new().bold();

/// Prints the page of a rule, the table of all, or what a text means.
pub(crate) fn run(args: &ExplainArgs) -> Result<Outcome> {
    let mut words = args.text.clone();
    let options = Options::from_end(&mut words);
    if let Some(color) = options.color {
        color.write_global();
    }
    if options.help {
        let mut program = Cli::command();
        program.build();
        let help = program.find_subcommand_mut("explain").map(clap::Command::render_long_help);
        return print(&help.map(|help| help.ansi().to_string()).unwrap_or_default());
    }
    let columns = terminal::columns();
    match words.as_slice() {
        [] => print(&table(columns)),
        [dash] if dash == "-" => text::explain_log(options.format.unwrap_or(args.format)),
        [word] if is_name(word) || rule(word).is_some() => match rule(word) {
            Some(rule) => print(&render(rule, columns.min(LONGEST_LINE))),
            None => Err(unknown(word)),
        },
        words => text::explain(words, options.format.unwrap_or(args.format)),
    }
}

fn print(text: &str) -> Result<Outcome> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Outcome::Clean)
}

fn rule(word: &OsString) -> Option<&'static Rule> {
    rules::rule(word.to_str()?)
}

/// Whether a word can be the name of a rule, and is not a text.
fn is_name(word: &OsString) -> bool {
    let bytes = word.as_encoded_bytes();
    !bytes.is_empty() && bytes.iter().all(|&byte| byte.is_ascii_alphabetic() || byte == b'-')
}

/// Ends like any invalid value of an option, with the most similar name.
fn unknown(word: &OsString) -> anyhow::Error {
    let mut program = Cli::command();
    program.build();
    let command = program.find_subcommand("explain").unwrap_or(&program);
    let argument = command.get_positionals().next();
    match ExplainArgs::rules().parse_ref(command, argument, word) {
        Err(error) => error.exit(),
        Ok(_) => anyhow::anyhow!("no such rule: {}", word.to_string_lossy()),
    }
}

/// The options that come after the text. Only the last words can be options: a text may begin with anything.
#[derive(Default)]
struct Options {
    format: Option<ExplainFormat>,
    color: Option<Color>,
    help: bool,
}

impl Options {
    /// Takes the options away from the end of `words`.
    fn from_end(words: &mut Vec<OsString>) -> Self {
        let mut options = Self::default();
        while words.len() > 1 && options.take(words) {}
        options
    }

    fn take(&mut self, words: &mut Vec<OsString>) -> bool {
        let text = |back: usize| words.len().checked_sub(back).and_then(|at| words[at].to_str());
        let last = text(1).unwrap_or_default();
        if matches!(last, "--help" | "-h") {
            self.help = true;
            words.pop();
            return true;
        }
        let (name, value, taken) = match last.split_once('=') {
            Some((name, value)) => (name, value, 1),
            None => (text(2).unwrap_or_default(), last, 2),
        };
        let known = match name {
            "--format" => ExplainFormat::from_str(value, false).map(|format| self.format = Some(format)).is_ok(),
            "--color" => Color::from_str(value, false).map(|color| self.color = Some(color)).is_ok(),
            _ => false,
        };
        // Some text remains.
        if known && taken < words.len() {
            words.truncate(words.len() - taken);
            return true;
        }
        false
    }
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
            // Unbroken on one line, so that it can be searched for.
            Content::Errors(errors) => {
                let lines = errors.iter().map(|error| {
                    let when = wrapped(&format!("{} ({}):", error.by.name(), error.when), columns, "  ");
                    format!("{when}\n    {}", error.text)
                });
                add(lines.collect::<Vec<_>>().join("\n"));
            }
            Content::Background(topics) => {
                let titles: Vec<&str> = topics.iter().map(|topic| topic.title()).collect();
                add(wrapped(&format!("docs/background.md: {}", titles.join("; ")), columns, "  "));
            }
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
    textwrap::fill(
        text,
        textwrap::Options::new(columns)
            .initial_indent(indent)
            .subsequent_indent(indent)
            .break_words(false)
            // Names of rules stay whole.
            .word_splitter(textwrap::WordSplitter::NoHyphenation),
    )
}
