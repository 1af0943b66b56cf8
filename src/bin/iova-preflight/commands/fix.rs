//! `iova-preflight fix`.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use iova_preflight::fix::Fix;
use iova_preflight::io::file::open_regular;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::Verdict;

use crate::args::FixArgs;
use crate::commands::redefine;
use crate::input::evaluator::{Evaluated, Evaluator};
use crate::input::host::HostSource;
use crate::input::policy::ChosenPolicy;
use crate::input::{Input, Inputs};
use crate::outcome::Outcome;
use crate::output::fix::{Said, chosen, explain_block, explain_fix, nothing_to_fix, print_diff};
use crate::place::Place;
use crate::stderr::{self, complain};

/// Rewrites every input that can be fixed.
pub(crate) fn run(args: &FixArgs) -> Result<Outcome> {
    let ChosenPolicy { policy, notice: policy_notice, .. } = ChosenPolicy::choose(args.common.policy.as_deref())?;
    if let (Some(uri), Some(domain)) = (&args.connect, &args.domain) {
        return redefine::run(args, uri, domain, &policy, policy_notice.as_deref());
    }
    let stdin = args.common.paths.iter().any(|path| path.as_os_str() == "-");
    if stdin && args.in_place {
        bail!(
            "--in-place does not work with standard input; without it, the rewritten domain is printed on standard \
               output"
        );
    }
    if stdin && !args.diff && args.common.paths.len() > 1 {
        bail!(
            "-: only one domain can be printed on standard output; fix the others in another run, or add --diff to \
               see all changes"
        );
    }
    let sources = HostSource::choose_all(&args.common.host)?;
    let evaluator = Evaluator::new(&sources, &policy).of_kind(args.common.input).in_words(args.common.advice);
    let mut evaluator = evaluator.for_all_hosts();
    let mut outcome = Outcome::Clean;
    let (mut said, mut guests, mut fixes, mut warning_fixes) = (Said::default(), 0_usize, 0_usize, 0_usize);
    let mut uncertain = 0_usize;
    let mut notices = notices_of(&sources);
    notices.extend(policy_notice);
    if args.common.quiet {
        notices.clear();
    }
    for input in Inputs::expand(&args.common.paths) {
        let (input, target) = open(input, args);
        evaluator.each(
            input,
            |evaluated| {
                guests += 1;
                let chosen = chosen(evaluated.evaluation, args.warnings);
                fixes += usize::from(chosen.is_some());
                warning_fixes += usize::from(evaluated.evaluation.warning_fix.is_some());
                uncertain += usize::from(!evaluated.evaluation.assumptions.is_empty());
                if evaluated.evaluation.verdict.stops() || chosen.is_some() {
                    notices.drain(..).for_each(|line| stderr::line(&line));
                }
                if !args.common.quiet {
                    evaluated.warning().iter().for_each(|line| stderr::line(line));
                    let remark = evaluated.guest.remark();
                    remark.iter().for_each(|remark| stderr::line(&format!("{}: {remark}", evaluated.name)));
                    if let Some(fix) = chosen {
                        explain_fix(evaluated, fix, &mut said);
                    }
                }
                outcome = outcome.max(match fix(evaluated, chosen, &target) {
                    Ok(outcome) => outcome,
                    // An error of standard output concerns every input, one of a file only this one.
                    Err(error) if !matches!(target, Target::Place(_)) => return Err(error),
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
    if !args.common.quiet {
        evaluator.folders.remarks().iter().for_each(|remark| stderr::line(remark));
    }
    // A stopped guest may have been rewritten; an input that could not be evaluated stays an error.
    let outcome = if evaluator.outcome == Outcome::Failed { Outcome::Failed } else { outcome };
    let filter = stdin && !args.diff;
    if outcome == Outcome::Clean && guests > 0 && fixes == 0 && !filter && !args.common.quiet {
        stderr::line(nothing_to_fix(warning_fixes > 0));
        if uncertain > 0 {
            let guests = if uncertain == 1 { "1 guest depends" } else { &format!("{uncertain} guests depend") };
            stderr::line(&format!("{guests} on unknown facts; `iova-preflight check` says on which"));
        }
    }
    Ok(outcome)
}

/// Which hosts guests are fixed for: a line each, or one for all if they are many.
fn notices_of(sources: &[HostSource]) -> Vec<String> {
    const MANY: usize = 10;
    const NAMED: usize = 3;
    if sources.len() < MANY {
        return sources.iter().map(|source| source.notice.clone()).collect();
    }
    let named: Vec<&str> = sources.iter().take(NAMED).map(|source| source.label.as_str()).collect();
    vec![format!("hosts: {} and {} more", named.join(", "), sources.len() - NAMED)]
}

/// Where a rewritten domain goes.
enum Target {
    /// To standard output, whole.
    Stdout,
    /// To standard output, as a diff.
    Diff,
    /// Nowhere: only the exit status is requested.
    Nowhere,
    /// Back into its file.
    Place(Place),
}

/// What is read, and where it goes. Of files, only regular ones can be fixed.
fn open(input: Input, args: &FixArgs) -> (Input, Target) {
    let elsewhere = if args.common.quiet && !args.diff { Target::Nowhere } else { Target::Diff };
    let (path, folder) = match input {
        Input::Stdin if !args.diff => return (input, Target::Stdout),
        Input::File(path) => (path, None),
        Input::Found { path, folder } => (path, Some(folder)),
        other => return (other, elsewhere),
    };
    let opened = if args.in_place {
        let place = match &folder {
            Some(folder) => Place::found(folder.path(), &path),
            None => Place::named(&path),
        };
        place.and_then(|place| Ok((place.file()?, Target::Place(place))))
    } else {
        let file = match &folder {
            Some(folder) => folder.open(&path).map(|(file, _)| file),
            None => open_regular(&path, 0),
        };
        file.map(|file| (file, elsewhere))
    };
    match opened {
        Ok((file, target)) => {
            let folder = folder.map(|folder| folder.path().clone());
            (Input::Open { path, folder, file }, target)
        }
        Err(error) => (Input::Unreadable(path, error), Target::Nowhere),
    }
}

fn fix(evaluated: &Evaluated<'_>, chosen: Option<&Fix>, target: &Target) -> Result<Outcome> {
    let Some(fix) = chosen else {
        let blocked = evaluated.evaluation.verdict == Verdict::Blocked;
        if blocked {
            explain_block(evaluated);
        } else if matches!(target, Target::Stdout) {
            io::stdout().write_all(evaluated.guest.filtered(None)?.as_bytes())?;
        }
        return Ok(if blocked { Outcome::Stopped } else { Outcome::Clean });
    };
    // A guest that starts as it is may start.
    let left = if evaluated.evaluation.verdict.stops() { Outcome::Stopped } else { Outcome::Clean };
    let rewritten = || evaluated.guest.rewritten(fix).with_context(|| evaluated.name.to_owned());
    match target {
        Target::Stdout => {
            let filtered = evaluated.guest.filtered(Some(fix)).with_context(|| evaluated.name.to_owned())?;
            io::stdout().write_all(filtered.as_bytes())?;
            Ok(Outcome::Clean)
        }
        Target::Diff => {
            print_diff(&evaluated.guest.diff(evaluated.name, fix).with_context(|| evaluated.name.to_owned())?)?;
            Ok(left)
        }
        Target::Nowhere => Ok(left),
        Target::Place(_) if matches!(evaluated.guest, GuestSource::Call(..)) => {
            bail!("{}: --in-place rewrites domain XML only, and this is a QEMU command line", evaluated.name)
        }
        Target::Place(place) => {
            place.replace(rewritten()?.as_bytes()).with_context(|| evaluated.name.to_owned())?;
            Ok(Outcome::Clean)
        }
    }
}
