//! The pages of the rules and of messages as Markdown.

use std::fmt::Write as _;

use crate::messages::cause::{Answer, answers};
use crate::messages::sample_cause;
use crate::messages::table::{Speaker, wordings};
use crate::rules::page::{Block, Content};
use crate::rules::{RULES, Rule};

/// The page as a file of its own.
pub fn markdown(rule: &Rule) -> String {
    let mut text = format!("# {}\n\n{}: {}.\n", rule.id, capitalized(&rule.page.severity_words()), rule.summary);
    for section in rule.page.sections() {
        let _ = write!(text, "\n## {}\n", section.title);
        text += &body(section.content);
    }
    text
}

/// The page without its title, to be shown under a title.
pub fn help(rule: &Rule) -> String {
    let mut text = String::new();
    for section in rule.page.sections() {
        let _ =
            write!(text, "{}## {}\n{}", if text.is_empty() { "" } else { "\n" }, section.title, body(section.content));
    }
    text
}

/// The table of all pages.
pub fn index() -> String {
    let mut text = String::from(
        "# Rules\n\nWhat `iova-preflight check` can find. `iova-preflight explain RULE` prints the same pages.\n\n\
         | rule | severity | what it finds |\n|---|---|---|\n",
    );
    for rule in RULES {
        let (id, severity, summary) = (rule.id, rule.page.severity_words(), escaped(rule.summary));
        let _ = writeln!(text, "| [{id}]({id}.md) | {severity} | {summary} |");
    }
    text
}

/// The page with every message that is known, and what is behind it.
pub fn messages_page() -> String {
    let mut text = String::from(
        "# Messages\n\nError messages of QEMU, libvirt and the kernel about passthrough devices, and what is behind each. \
         They are quoted as they are printed, with the numbers of an example, so that a search for the text finds them \
         here. `iova-preflight explain TEXT` reads the numbers of a message, and `iova-preflight explain - < LOG` finds \
         the messages in a log; `--format json` prints what [a schema](explain.schema.json) describes.\n\n\
         | cause | what goes wrong | rule of `check` |\n|---|---|---|\n",
    );
    for answer in answers() {
        let rule = answer.rule.map(|rule| format!("[{rule}](rules/{rule}.md)")).unwrap_or_default();
        let _ = writeln!(text, "| [{0}](#{0}) | {1} | {rule} |", answer.id, escaped(answer.headline));
    }
    answers().for_each(|answer| section(&mut text, answer));
    text
}

fn section(text: &mut String, answer: &Answer) {
    let _ =
        write!(text, "\n## {}\n\n{}. {}\n", answer.id, capitalized(&escaped(answer.headline)), escaped(answer.because));
    let mut speaker: Option<Speaker> = None;
    for wording in wordings() {
        for form in wording.forms.iter().filter(|form| sample_cause(form) == Some(answer.cause)) {
            if speaker != Some(wording.by) {
                let _ = write!(text, "\nPrinted by {}:\n", wording.by.name());
                speaker = Some(wording.by);
            }
            let _ = write!(text, "\n```text\n{form}\n```\n\n{}\n", escaped(wording.source));
        }
    }
    text.push_str("\nIt is not:\n\n");
    for not in answer.is_not {
        let _ = writeln!(text, "- {}", escaped(not));
    }
    text.push_str("\nWhat to do:\n");
    text.push_str(&body(Content::Blocks(answer.fix)));
}

fn body(content: Content) -> String {
    let mut text = String::new();
    match content {
        Content::Blocks(blocks) => blocks.iter().for_each(|block| {
            let _ = match block {
                Block::Text(words) => write!(text, "\n{}\n", escaped(words)),
                Block::Shell(commands) => write!(text, "\n```sh\n{commands}\n```\n"),
                Block::Xml(markup) => write!(text, "\n```xml\n{markup}\n```\n"),
                Block::Output(lines) => write!(text, "\n```text\n{lines}\n```\n"),
            };
        }),
        Content::Errors(errors) => errors.iter().for_each(|error| {
            let _ = write!(text, "\n{}, {}:\n\n```text\n{}\n```\n", error.by.name(), escaped(error.when), error.text);
        }),
    }
    text
}

/// `text` with what Markdown would take for markup escaped, but for what is between backquotes.
fn escaped(text: &str) -> String {
    let mut in_code = false;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        in_code ^= c == '`';
        if !in_code && matches!(c, '<' | '>' | '*' | '_' | '[' | ']' | '|' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_are_escaped() {
        assert_eq!(escaped("a <b> `<c>` d_e"), "a \\<b\\> `<c>` d\\_e");
    }
}
