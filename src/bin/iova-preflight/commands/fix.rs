//! `iova-preflight fix`.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use iova_preflight::evaluate::Verdict;
use iova_preflight::fix::rewrite::rewrite;
use iova_preflight::report::diff::unified_diff;
use iova_preflight::text::printable;

use crate::Outcome;
use crate::args::FixArgs;
use crate::connected;
use crate::input::Input;
use crate::input::evaluator::{Evaluated, Evaluator, HostSource, complain, read_policy};
use crate::output::stderr;

/// Rewrites every input that a rewrite helps.
pub(crate) fn run(args: &FixArgs) -> Result<Outcome> {
    let policy = read_policy(args.common.policy.as_deref())?;
    if let (Some(uri), Some(domain)) = (&args.connect, &args.domain) {
        return connected::fix(args, uri, domain, &policy);
    }
    let stdin = args.common.paths.iter().any(|path| path.as_os_str() == "-");
    if stdin && args.in_place {
        bail!("--in-place: standard input has no place; without it, the rewritten domain goes to standard output");
    }
    if stdin && !args.diff && args.common.paths.len() > 1 {
        bail!("-: standard output is for one domain; fix the others in another run, or see all of them with --diff");
    }
    let source = HostSource::choose(args.common.host.as_deref())?;
    let mut evaluator = Evaluator::new(&source, &policy);
    let mut outcome = Outcome::Clean;
    let mut said = Said::default();
    let mut notice = Some(source.notice.as_str()).filter(|_| !args.common.quiet);
    for input in Input::expand(&args.common.paths) {
        let target = Target::of(&input, args);
        evaluator.each(
            input,
            |evaluated| {
                if evaluated.evaluation.verdict.stops()
                    && let Some(notice) = notice.take()
                {
                    stderr::line(notice);
                }
                if !args.common.quiet {
                    explain_fix(evaluated, &mut said);
                }
                outcome = outcome.max(match fix(evaluated, &target) {
                    Ok(outcome) => outcome,
                    // Standard output is gone for every input, a file only for this one.
                    Err(error) if !matches!(target, Target::File(_)) => return Err(error),
                    Err(error) => {
                        stderr::line(&format!("{error:#}"));
                        Outcome::Failed
                    }
                });
                Ok(())
            },
            |name, error| complain(name, &error),
        )?;
    }
    io::stdout().flush()?;
    // What the evaluator calls stopped may have been rewritten; what it could not evaluate stays so.
    Ok(if evaluator.outcome == Outcome::Failed { Outcome::Failed } else { outcome })
}

/// Where a rewritten domain goes.
enum Target {
    /// To standard output, whole.
    Stdout,
    /// To standard output, as a diff.
    Diff,
    /// Nowhere: only the exit status is wanted.
    Nowhere,
    /// Back into its file.
    File(std::path::PathBuf),
}

impl Target {
    fn of(input: &Input, args: &FixArgs) -> Self {
        match input {
            Input::Stdin if !args.diff => Self::Stdout,
            Input::File(path) if args.in_place => Self::File(path.clone()),
            _ if args.common.quiet && !args.diff => Self::Nowhere,
            _ => Self::Diff,
        }
    }
}

fn fix(evaluated: &Evaluated<'_>, target: &Target) -> Result<Outcome> {
    let before = evaluated.document.source();
    let Some(fix) = &evaluated.evaluation.fix else {
        let blocked = evaluated.evaluation.verdict == Verdict::Blocked;
        if blocked {
            explain_block(evaluated);
        } else if matches!(target, Target::Stdout) {
            io::stdout().write_all(before.as_bytes())?;
        }
        return Ok(if blocked { Outcome::Stopped } else { Outcome::Clean });
    };
    let after = rewrite(evaluated.document, fix).with_context(|| evaluated.name.to_owned())?;
    match target {
        Target::Stdout => {
            io::stdout().write_all(after.as_bytes())?;
            Ok(Outcome::Clean)
        }
        Target::Diff => {
            print_diff(&unified_diff(evaluated.name, before, &after))?;
            Ok(Outcome::Stopped)
        }
        Target::Nowhere => Ok(Outcome::Stopped),
        Target::File(path) => {
            replace_file(path, after.as_bytes()).with_context(|| path.display().to_string())?;
            Ok(Outcome::Clean)
        }
    }
}

pub(crate) fn explain_block(evaluated: &Evaluated<'_>) {
    stderr::line(&format!("{}: no rewrite helps", evaluated.name));
    for tried in &evaluated.evaluation.tried {
        stderr::line(&format!("  {tried}"));
    }
}

/// The consequences that were named already; each is said once, before the first guest it is about changes.
#[derive(Default)]
pub(crate) struct Said(Vec<&'static str>);

/// Says what changes and what comes of it.
pub(crate) fn explain_fix(evaluated: &Evaluated<'_>, said: &mut Said) {
    let Some(fix) = &evaluated.evaluation.fix else { return };
    let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
    stderr::line(&format!("{}: {}", evaluated.name, changes.join(", ")));
    if let Some(assumption) = &fix.assumption {
        stderr::line(&format!("  note: {assumption}"));
    }
    for consequence in fix.consequences() {
        if !said.0.contains(&consequence) {
            stderr::line(&format!("  note: {consequence}"));
            said.0.push(consequence);
        }
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

/// Replaces a file in one step: whoever reads it sees the old or the new one, whole, whatever happens meanwhile.
fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // A link stays a link, to a new file.
    let path = path.canonicalize()?;
    let metadata = std::fs::metadata(&path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".iova-preflight-").tempfile_in(folder)?;
    file.write_all(content)?;
    if metadata.uid() != std::fs::metadata(file.path())?.uid()
        || metadata.gid() != std::fs::metadata(file.path())?.gid()
    {
        fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
    }
    // Behind the change of owner, which clears some of its bits.
    file.as_file().set_permissions(metadata.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // The name is on the disk only when the folder is.
    std::fs::File::open(folder)?.sync_all()
}
