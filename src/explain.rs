//! The pages of the rules and of messages as Markdown. Their texts are Markdown as they are: what it would take for markup
//! is code in them, so that nothing is escaped and a search for what a program prints finds it.

use std::fmt::Write as _;

use crate::messages::cause::{Answer, Cause, answers};
use crate::messages::sample_cause;
use crate::messages::table::{Speaker, Wording, wordings};
use crate::rules::page::{Block, Content, ErrorText, Section};
use crate::rules::{RULES, Rule, rule};

/// From how many messages on a page has a table of them.
const TABLE: usize = 12;

/// How a page links to the pages of rules.
#[derive(Clone, Copy)]
enum Links {
    /// From the folder of the rules.
    Beside,
    /// From the folder above.
    Above,
    /// Not at all: where the page is shown there are no files.
    None,
}

/// The page as a file of its own.
pub fn markdown(rule: &Rule) -> String {
    let mut text = format!("# {}\n\n{}: {}.\n", rule.id, capitalized(&rule.page.severity_words()), rule.summary);
    for section in rule.page.sections() {
        text.push('\n');
        text += &titled(section, Links::Beside);
    }
    text
}

/// The page without its title and its links, to be shown under a title.
pub fn help(rule: &Rule) -> String {
    let sections = rule.page.sections().filter(|section| !matches!(section.content, Content::Background(_)));
    sections.map(|section| titled(section, Links::None)).collect::<Vec<_>>().join("\n")
}

/// The table of all pages.
pub fn index() -> String {
    let mut text = String::from(
        "# Rules\n\nWhat `iova-preflight check` can find. `iova-preflight explain RULE` prints the same pages, and \
         [background](../background.md) has what they share: the range, QEMU's memory map, and how to look at both.\n\n\
         | rule | severity | what it finds |\n|---|---|---|\n",
    );
    for rule in RULES {
        let (id, severity, summary) = (rule.id, rule.page.severity_words(), rule.summary);
        let _ = writeln!(text, "| [{id}]({id}.md) | {severity} | {summary} |");
    }
    text
}

/// Who prints messages, in the order of the page.
const SPEAKERS: [Speaker; 5] =
    [Speaker::Qemu, Speaker::Libvirt, Speaker::HostKernel, Speaker::GuestKernel, Speaker::CloudHypervisor];

/// The page with every message that is known, and what is behind it.
pub fn messages_page() -> String {
    let mut text = String::from(
        "# Messages\n\nError messages about passthrough devices, and the cause of each. To find one, search this page for \
         its constant part (without numbers and names), or let `iova-preflight explain TEXT` search: it also reads the \
         numbers. `iova-preflight explain - < LOG` finds the messages in a log, and `--format json` prints them as \
         [a schema](explain.schema.json) describes. What libvirt and QEMU say of a domain that they refuse is on the \
         [pages of the rules](rules/README.md), above all on [refused-by-libvirt](rules/refused-by-libvirt.md).\n\n",
    );
    for by in SPEAKERS {
        let anchor = format!("messages of {}", by.name()).to_lowercase().replace(' ', "-").replace('\'', "");
        let _ = writeln!(text, "- [{}](#{anchor})", by.name());
    }
    for by in SPEAKERS {
        let _ = write!(text, "\n## Messages of {}\n\n| message | cause |\n|---|---|\n", by.name());
        for wording in wordings().filter(|wording| wording.by == by) {
            rows(&mut text, wording);
        }
    }
    answers().for_each(|answer| section(&mut text, answer));
    text
}

/// A row for each thing that a message can mean. Of those that mean several, a short one is there as it is printed, and a
/// long one with its error.
fn rows(text: &mut String, wording: &Wording) {
    /// Characters.
    const SHORT: usize = 80;
    let means: Vec<(Cause, &str)> =
        wording.forms.iter().filter_map(|form| Some((sample_cause(form)?, *form))).collect();
    let several = means.iter().any(|(cause, _)| *cause != means[0].0);
    let mut rows: Vec<String> = Vec::new();
    for (cause, form) in means {
        let words = wording.words.trim();
        let error = form.split_once(" = -").and_then(|(_, rest)| rest.split(' ').next());
        let message = match error {
            _ if !several => format!("`{words}`"),
            _ if form.len() <= SHORT => format!("`{form}`"),
            Some(error) => format!("`{words}` … `= -{error}`"),
            None => format!("`{words}`"),
        };
        let answer = cause.answer();
        let row = format!("| {message} | [{}](#{}) |\n", answer.headline, answer.id);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    text.push_str(&rows.concat());
}

fn section(text: &mut String, answer: &Answer) {
    let _ = write!(text, "\n## {}\n\n**{}.** {}\n", answer.id, capitalized(answer.headline), answer.because);
    for wording in wordings() {
        let forms: Vec<&str> =
            wording.forms.iter().copied().filter(|form| sample_cause(form) == Some(answer.cause)).collect();
        if !forms.is_empty() {
            let (by, source, forms) = (wording.by.name(), wording.source, forms.join("\n"));
            let _ = write!(text, "\nPrinted by {by} in {source}:\n\n```text\n{forms}\n```\n");
        }
    }
    text.push_str("\nThis is not:\n\n");
    for not in answer.is_not {
        let _ = writeln!(text, "- {not}");
    }
    text.push_str("\nWhat to do:\n");
    text.push_str(&body(Content::Blocks(answer.fix), Links::Above));
    if let Some(rule) = answer.rule {
        let _ = write!(text, "\n`check` finds this before the start: see {}.\n", linked(rule, Links::Above));
    }
}

fn titled(section: Section, links: Links) -> String {
    format!("## {}\n{}", section.title, body(section.content, links))
}

fn body(content: Content, links: Links) -> String {
    let mut text = String::new();
    match content {
        Content::Blocks(blocks) => blocks.iter().for_each(|block| {
            let _ = match block {
                Block::Text(words) => write!(text, "\n{}\n", linked(words, links)),
                Block::Shell(commands) => write!(text, "\n```sh\n{commands}\n```\n"),
                Block::Xml(markup) => write!(text, "\n```xml\n{markup}\n```\n"),
                Block::Output(lines) => write!(text, "\n```text\n{lines}\n```\n"),
            };
        }),
        Content::Errors(errors) if errors.len() > TABLE => text = table(errors),
        Content::Errors(errors) => errors.iter().for_each(|error| {
            let _ = write!(text, "\n{} ({}):\n\n```text\n{}\n```\n", error.by.name(), error.when, error.text);
        }),
        Content::Background(topics) => {
            text.push('\n');
            for topic in topics {
                let _ = writeln!(text, "- [{}](../background.md#{})", topic.title(), topic.anchor());
            }
        }
    }
    text
}

/// Messages as a table for each program.
fn table(errors: &[ErrorText]) -> String {
    let mut text = String::new();
    for errors in errors.chunk_by(|one, other| one.by == other.by) {
        let by = errors.first().map_or("", |error| error.by.name());
        let _ = write!(text, "\n| what is wrong | what {by} prints |\n|---|---|\n");
        for error in errors {
            let _ = writeln!(text, "| {} | `{}` |", error.when, error.text);
        }
    }
    text
}

/// `text` with a link for each name of a rule.
fn linked(text: &str, links: Links) -> String {
    let folder = match links {
        Links::Beside => "",
        Links::Above => "rules/",
        Links::None => return text.to_owned(),
    };
    let words = text.split(' ').map(|word| {
        let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match rule(name) {
            Some(_) if !word.contains('`') => word.replace(name, &format!("[{name}]({folder}{name}.md)")),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of all pages that are not in a block of code.
    fn texts() -> Vec<&'static str> {
        let words = |blocks: &'static [Block]| {
            blocks.iter().filter_map(|block| if let Block::Text(words) = block { Some(*words) } else { None })
        };
        let mut texts = Vec::new();
        for Rule { summary, page, .. } in RULES {
            texts.push(*summary);
            for blocks in [page.meaning, page.cause, page.history, page.fix, page.verify] {
                texts.extend(words(blocks));
            }
            texts.extend(page.errors.iter().map(|error| error.when));
        }
        for answer in answers() {
            texts.extend([answer.headline, answer.because]);
            texts.extend(answer.is_not);
            texts.extend(words(answer.fix));
        }
        texts.extend(wordings().map(|wording| wording.source));
        texts
    }

    /// Whether a renderer of Markdown shows `text` as it is written, but for the backquotes.
    fn is_plain(text: &str) -> bool {
        let words = text.split('`').step_by(2);
        let markup = |words: &str| {
            let inside = |at: usize| {
                let neighbours = [at.checked_sub(1), at.checked_add(1)].map(|at| words.as_bytes().get(at?).copied());
                neighbours.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
            };
            words.contains(['<', '>', '*', '[', ']', '|', '\\', '&'])
                || words.match_indices('_').any(|(at, _)| !inside(at))
        };
        text.matches('`').count().is_multiple_of(2) && !words.into_iter().any(markup)
    }

    #[test]
    fn markup_in_texts_is_code() {
        for text in texts() {
            assert!(is_plain(text), "{text}");
        }
        assert!(is_plain("RLIMIT_MEMLOCK of `<a>`") && !is_plain("a <b>") && !is_plain("_a") && !is_plain("`a"));
    }

    /// A cell of a table ends at a `|`, and code at a backquote.
    #[test]
    fn messages_in_tables_are_cells() {
        let long = RULES.iter().map(|rule| rule.page.errors).filter(|errors| errors.len() > TABLE);
        let texts = long.flatten().flat_map(|error| [error.text, error.when]);
        for text in texts.chain(wordings().map(|wording| wording.words)).chain(answers().map(|answer| answer.headline))
        {
            assert!(!text.contains('|'), "{text}");
        }
        assert!(wordings().flat_map(|wording| wording.forms).all(|form| !form.contains('`')));
    }

    #[test]
    fn names_of_rules_are_links() {
        assert_eq!(linked("(see bar-in-ram).", Links::Beside), "(see [bar-in-ram](bar-in-ram.md)).");
        assert_eq!(linked("`bar-in-ram` bar-in", Links::Above), "`bar-in-ram` bar-in");
    }
}
