//! `iova-preflight fix --connect`.

use anyhow::Result;
use iova_preflight::policy::Policy;

use crate::args::FixArgs;
use crate::outcome::Outcome;

/// Runs the program that can.
#[cfg(not(feature = "libvirt"))]
pub(crate) fn run(_: &FixArgs, _: &str, _: &str, _: &Policy, _: Option<&str>) -> Result<Outcome> {
    Err(crate::connected::become_connected("--connect"))
}

/// Redefines one guest. `notice` says which policy that is under.
#[cfg(feature = "libvirt")]
pub(crate) fn run(args: &FixArgs, uri: &str, name: &str, policy: &Policy, notice: Option<&str>) -> Result<Outcome> {
    use std::io::Write;
    use std::time::Duration;

    use anyhow::{Context, anyhow};
    use iova_preflight::advice::place;
    use iova_preflight::policy::OwnedPolicy;
    use iova_preflight::report::diff::unified_diff;
    use iova_preflight::text::printable;

    use crate::connected::host_of;
    use crate::connected::patient::PatientDefinition;
    use crate::connected::redefine::{Definitions, Failure};
    use crate::connected::redefinition::Redefinition;
    use crate::input::Input;
    use crate::input::evaluator::Evaluator;
    use crate::output::fix::{Said, chosen, explain_block, explain_fix, nothing_to_fix, print_diff};
    use crate::stderr::{self, complain};

    let patience = Duration::from_secs(args.connect_timeout);
    let source = host_of(uri, name, patience, &args.common.host)?;
    let mut definition = PatientDefinition::open(uri, name, patience).with_context(|| uri.to_owned())?;
    let old = definition.read().with_context(|| uri.to_owned())?;
    let mut evaluator = Evaluator::new(std::slice::from_ref(&source), policy).in_words(args.common.advice);
    let (mut new, mut owner) = (None, None);
    evaluator.each(
        Input::Live(format!("{uri} {name}"), old.clone().into_bytes()),
        |evaluated| {
            if !args.common.quiet {
                notice.filter(|_| evaluated.evaluation.verdict.stops()).into_iter().for_each(stderr::line);
                evaluated.warning().iter().for_each(|line| stderr::line(line));
            }
            match chosen(evaluated.evaluation, args.warnings) {
                Some(fix) => {
                    let rewritten = evaluated.guest.rewritten(fix)?;
                    if !args.common.quiet {
                        explain_fix(evaluated, fix, &mut Said::default());
                    }
                    if args.dry_run {
                        print_diff(&unified_diff(name, &old, &rewritten))?;
                    }
                    new = Some(rewritten);
                    owner = evaluated.owner();
                }
                None if evaluated.evaluation.verdict.stops() => explain_block(evaluated),
                None if args.common.quiet => {}
                None => {
                    let nothing = nothing_to_fix(evaluated.evaluation.warning_fix.is_some());
                    stderr::line(&format!("{}: {nothing}", evaluated.name));
                }
            }
            Ok(())
        },
        |name, error| complain(name, &error),
    )?;
    let Some(new) = new.filter(|_| !args.dry_run) else { return Ok(evaluator.outcome) };
    if let Some(owner) = owner.filter(|_| !args.force && policy.owned == OwnedPolicy::Leave) {
        let name = printable(name);
        stderr::line(&format!("guest {name} is unchanged: {}; use --force to redefine it anyway", place(owner)));
        return Ok(evaluator.outcome);
    }

    let redefinition =
        Redefinition { source: &source, policy, backup: args.backup.as_deref(), force: args.force, room: None };
    let redefined = redefinition.make(&mut definition, &old, &new).map_err(|not| {
        let is_obstacle = matches!(not.failure, Failure::Obstacle(_));
        let force = if is_obstacle { "; use --force to redefine it anyway" } else { "" };
        anyhow!("guest {name}: {}{force}", not.told(uri, name))
    })?;
    if !args.common.quiet {
        let mut out = anstream::stdout().lock();
        writeln!(
            out,
            "guest {} is redefined; the previous definition is saved in {}",
            printable(name),
            redefined.backup.display()
        )?;
        if definition.is_running() {
            writeln!(out, "it is running; the change takes effect at its next cold start, not at a reboot")?;
        }
    }
    Ok(Outcome::Clean)
}
