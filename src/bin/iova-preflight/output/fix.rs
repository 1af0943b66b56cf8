//! How a fix is printed.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::advice::place;
use iova_preflight::fix::Fix;
use iova_preflight::text::printable;
use iova_preflight::verdict::Evaluation;

use crate::input::evaluator::Evaluated;
use crate::stderr;

/// The line before advice for guests that are created later.
pub(crate) const LATER: &str = "new guests";

/// Says why there is no automatic fix.
pub(crate) fn explain_block(evaluated: &Evaluated<'_>) {
    stderr::line(&format!("{}: no automatic fix", evaluated.name));
    for tried in &evaluated.evaluation.tried {
        stderr::line(&format!("  {tried}"));
    }
    if let Some(owner) = evaluated.words {
        stderr::line(&format!("  note: {}", place(owner)));
    }
}

/// That there is nothing to fix, and how to fix what is a warning only.
pub(crate) fn nothing_to_fix(has_warning_fix: bool) -> &'static str {
    match has_warning_fix {
        true => "nothing to fix; add --warnings to make room for BARs",
        false => "nothing to fix",
    }
}

/// The consequences printed so far; each is printed once, before the first guest that it concerns.
#[derive(Default)]
pub(crate) struct Said(Vec<&'static str>);

/// The fix to make: that of a warning only if `warnings` is set.
pub(crate) fn chosen(evaluation: &Evaluation, warnings: bool) -> Option<&Fix> {
    if warnings { evaluation.any_fix() } else { evaluation.fix.as_ref() }
}

/// Says what changes and what comes of it.
pub(crate) fn explain_fix(evaluated: &Evaluated<'_>, fix: &Fix, said: &mut Said) {
    let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
    stderr::line(&format!("{}: {}", evaluated.name, changes.join(", ")));
    if let Some(assumption) = &fix.assumption {
        stderr::line(&format!("  note: {assumption}"));
    }
    if let Some(reason) = &fix.spare_bits {
        stderr::line(&format!("  note: {reason}"));
    }
    for consequence in fix.consequences() {
        if !said.0.contains(&consequence) {
            stderr::line(&format!("  note: {consequence}"));
            said.0.push(consequence);
        }
    }
    if let Some((owner, advice)) = evaluated.advice(fix) {
        stderr::line(&format!("  note: {}", place(owner)));
        advice.steps.iter().for_each(|line| stderr::line(&format!("  {}: {line}", owner.name())));
        advice.later.iter().for_each(|line| stderr::line(&format!("  {LATER}: {line}")));
    }
}

/// Prints a diff, coloured for a terminal and byte for byte for a file.
pub(crate) fn print_diff(diff: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    if anstream::AutoStream::choice(&out) == anstream::ColorChoice::Never {
        out.write_all(diff.as_bytes())?;
        return Ok(());
    }
    for line in diff.split_inclusive('\n') {
        let style: Style = match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => Style::new().bold(),
            Some(b'+') => AnsiColor::Green.on_default(),
            Some(b'-') => AnsiColor::Red.on_default(),
            Some(b'@') => AnsiColor::Cyan.on_default(),
            _ => Style::new(),
        };
        let (text, end) = line.split_at(line.trim_end_matches(['\r', '\n']).len());
        write!(out, "{style}{}{style:#}{end}", printable(text))?;
    }
    Ok(())
}
