//! `--connect`: guests of a libvirt instead of files.

#[cfg(feature = "libvirt")]
pub(crate) mod live;
#[cfg(feature = "libvirt")]
pub(crate) mod redefine;
#[cfg(feature = "libvirt")]
pub(crate) mod redefinition;

use std::path::Path;

use anyhow::Result;
use iova_preflight::policy::Policy;

use crate::Outcome;
use crate::args::FixArgs;
use crate::commands::check::Batch;

/// Where the package iova-preflight-libvirt has its program.
#[cfg(not(feature = "libvirt"))]
const CONNECTED: &str = "/usr/libexec/iova-preflight/iova-preflight";

/// Becomes the program that can talk to libvirt, with the same arguments. Where that is missing, gives the error that
/// says so of `what`.
#[cfg(not(feature = "libvirt"))]
pub(crate) fn become_connected(what: &str) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "iova-preflight".into());
    let error = std::process::Command::new(CONNECTED).arg0(name).args(arguments).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        anyhow::anyhow!(
            "{what} needs libvirt: install the package iova-preflight-libvirt, or build with `--features libvirt`"
        )
    } else {
        anyhow::Error::from(error).context(CONNECTED)
    }
}

#[cfg(not(feature = "libvirt"))]
mod imp {
    use super::*;

    pub(crate) fn batches(_: &[String], _: Option<&str>, _: Option<&Path>) -> Result<(Vec<Batch>, Outcome)> {
        Err(become_connected("--connect"))
    }

    pub(crate) fn fix(_: &FixArgs, _: &str, _: &str, _: &Policy) -> Result<Outcome> {
        Err(become_connected("--connect"))
    }
}

#[cfg(feature = "libvirt")]
mod imp {
    use std::io::{IsTerminal, Write};

    use anyhow::anyhow;
    use iova_preflight::fix::rewrite::rewrite;
    use iova_preflight::report::diff::unified_diff;
    use iova_preflight::text::printable;

    use super::*;
    use crate::commands::fix::{Said, explain_block, explain_fix, print_diff};
    use crate::connected::live::{Definition, Inventory, inventories};
    use crate::connected::redefine::{Definitions, Failure};
    use crate::connected::redefinition::Redefinition;
    use crate::input::Input;
    use crate::input::evaluator::{Evaluator, HostSource, complain};
    use crate::output::stderr;

    /// The guests of every libvirt in `uris`. One that does not answer is named on standard error.
    pub(crate) fn batches(uris: &[String], domain: Option<&str>, host: Option<&Path>) -> Result<(Vec<Batch>, Outcome)> {
        let shows = std::io::stderr().is_terminal();
        let answers = inventories(uris, domain, |uri, guests| {
            if shows && uris.len() > 1 {
                stderr::line(&format!("{uri}: {guests} domains"));
            }
        });
        let (mut batches, mut outcome) = (Vec::new(), Outcome::Clean);
        for answer in answers {
            match answer {
                Ok(inventory) => batches.push(batch(inventory, host)?),
                Err(error) => {
                    stderr::line(&format!("{error:#}"));
                    outcome = Outcome::Failed;
                }
            }
        }
        Ok((batches, outcome))
    }

    fn batch(inventory: Inventory, host: Option<&Path>) -> Result<Batch> {
        let Inventory { uri, guests, .. } = &inventory;
        let inputs = guests
            .iter()
            .map(|guest| {
                let state = if guest.running { ", running" } else { "" };
                Input::Live(format!("{uri} {}{state}", guest.name), guest.xml.clone().into_bytes())
            })
            .collect();
        let source = source(inventory, host)?;
        Ok(Batch { source, inputs })
    }

    fn source(inventory: Inventory, host: Option<&Path>) -> Result<HostSource> {
        match host {
            Some(_) => HostSource::choose(host),
            None if inventory.is_local => Ok(HostSource::this()),
            None => Ok(HostSource::told(&inventory.uri, inventory.host)),
        }
    }

    /// Redefines one guest.
    pub(crate) fn fix(args: &FixArgs, uri: &str, name: &str, policy: &Policy) -> Result<Outcome> {
        let inventory = inventories(&[uri.to_owned()], Some(name), |_, _| {})
            .pop()
            .unwrap_or_else(|| Err(anyhow!("{uri}: no answer")))?;
        let source = source(inventory, args.common.host.as_deref())?;
        let mut definition = Definition::open(uri, name)?;
        let old = definition.read()?;
        let mut evaluator = Evaluator::new(&source, policy);
        let mut new = None;
        evaluator.each(
            Input::Live(format!("{uri} {name}"), old.clone().into_bytes()),
            |evaluated| {
                match &evaluated.evaluation.fix {
                    Some(fix) => {
                        let rewritten = rewrite(evaluated.document, fix)?;
                        if !args.common.quiet {
                            explain_fix(evaluated, &mut Said::default());
                        }
                        if args.dry_run {
                            print_diff(&unified_diff(name, &old, &rewritten))?;
                        }
                        new = Some(rewritten);
                    }
                    None if evaluated.evaluation.verdict.stops() => explain_block(evaluated),
                    None => writeln!(anstream::stdout(), "{}: nothing to fix", printable(evaluated.name))?,
                }
                Ok(())
            },
            |name, error| complain(name, &error),
        )?;
        let Some(new) = new.filter(|_| !args.dry_run) else { return Ok(evaluator.outcome) };

        let redefinition = Redefinition { source: &source, policy, backup: args.backup.as_deref(), force: args.force };
        let redefined = redefinition.make(&mut definition, &old, &new).map_err(|failure| {
            let force =
                if matches!(failure, Failure::Obstacle(_)) { "; --force redefines it all the same" } else { "" };
            anyhow!("guest {name}: {:#}{force}", anyhow::Error::from(failure))
        })?;
        if !args.common.quiet {
            let mut out = anstream::stdout().lock();
            writeln!(out, "guest {} is redefined; what it was is in {}", printable(name), redefined.backup.display())?;
            if definition.is_running() {
                writeln!(out, "it is running, and picks the change up at its next cold start, not at a reboot")?;
            }
        }
        Ok(Outcome::Clean)
    }
}

pub(crate) use imp::{batches, fix};
