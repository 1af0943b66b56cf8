//! `--connect`: guests of a libvirt instead of files.

use std::path::Path;

use anyhow::Result;
use iova_preflight::policy::Policy;

use crate::Outcome;
use crate::args::FixArgs;
use crate::check::Batch;

#[cfg(not(feature = "libvirt"))]
mod imp {
    use super::*;
    use anyhow::bail;

    const MISSING: &str =
        "--connect needs libvirt: install the package iova-preflight-libvirt, or build with `--features libvirt`";

    pub(crate) fn batches(_: &[String], _: Option<&str>, _: Option<&Path>) -> Result<(Vec<Batch>, Outcome)> {
        bail!(MISSING)
    }

    pub(crate) fn fix(_: &FixArgs, _: &str, _: &str, _: &Policy) -> Result<Outcome> {
        bail!(MISSING)
    }
}

#[cfg(feature = "libvirt")]
mod imp {
    use std::io::{IsTerminal, Write};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::PathBuf;

    use anyhow::{Context, anyhow, bail};
    use iova_preflight::check::evaluate;
    use iova_preflight::domain;
    use iova_preflight::report::diff::unified_diff;
    use iova_preflight::rewrite::rewrite;
    use iova_preflight::text::printable;
    use iova_preflight::xml::Document;

    use super::*;
    use crate::fix::{Said, explain_block, explain_fix, print_diff};
    use crate::input::Input;
    use crate::judge::{HostSource, Judge, complain};
    use crate::live::{Definition, Inventory, inventories};
    use crate::redefine::{Definitions, redefine};
    use crate::stderr;

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
        let mut judge = Judge::new(&source, policy);
        let mut new = None;
        judge.each(
            Input::Live(format!("{uri} {name}"), old.clone().into_bytes()),
            |judged| {
                match &judged.evaluation.fix {
                    Some(fix) => {
                        let rewritten = rewrite(judged.document, fix)?;
                        if !args.common.quiet {
                            explain_fix(judged, &mut Said::default());
                        }
                        if args.dry_run {
                            print_diff(&unified_diff(name, &old, &rewritten))?;
                        }
                        new = Some(rewritten);
                    }
                    None if judged.evaluation.verdict.stops() => explain_block(judged),
                    None => writeln!(anstream::stdout(), "{}: nothing to fix", printable(judged.name))?,
                }
                Ok(())
            },
            |name, error| complain(name, &error),
        )?;
        let Some(new) = new.filter(|_| !args.dry_run) else { return Ok(judge.outcome) };

        if let Some(obstacle) = definition.obstacle()?.filter(|_| !args.force) {
            bail!("guest {name} is left as it is: {obstacle}; --force redefines it all the same");
        }
        let backup = back_up(args.backup.as_deref(), name, &definition.uuid()?, &old)?;
        let accepted = |now: &str| {
            let document = Document::parse(now.as_bytes()).map_err(|error| anyhow!("{error}"))?;
            let domain = domain::read(&document)?;
            let host = source.host_for(domain.emulator.as_ref().map(|emulator| emulator.value.as_str()));
            let evaluation = evaluate(&domain, &host, policy);
            let finding = evaluation.findings.iter().find(|_| evaluation.verdict.stops());
            finding.map_or(Ok(()), |finding| Err(anyhow!("{}", finding.title)))
        };
        redefine(&mut definition, &old, &new, accepted).with_context(|| format!("guest {name}"))?;
        if !args.common.quiet {
            let mut out = anstream::stdout().lock();
            writeln!(out, "guest {} is redefined; what it was is in {}", printable(name), backup.display())?;
            if definition.is_running() {
                writeln!(out, "it is running, and picks the change up at its next cold start, not at a reboot")?;
            }
        }
        Ok(Outcome::Clean)
    }

    /// Keeps a definition in a file of its own, which is never overwritten and which only its owner can read: it may
    /// hold passwords.
    fn back_up(folder: Option<&Path>, name: &str, uuid: &str, xml: &str) -> Result<PathBuf> {
        let folder = folder.map_or_else(default_folder, |folder| Ok(folder.to_owned()))?;
        let context = || folder.display().to_string();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(context)?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
        let name: String = name.chars().take(100).map(plain).collect();
        let mut file = tempfile::Builder::new()
            .prefix(&format!("{}-{uuid}-", name.trim_start_matches('.')))
            .suffix(".xml")
            .tempfile_in(&folder)
            .with_context(context)?;
        file.write_all(xml.as_bytes()).with_context(context)?;
        file.as_file().sync_all().with_context(context)?;
        let (_, path) = file.keep().with_context(context)?;
        Ok(path)
    }

    fn default_folder() -> Result<PathBuf> {
        // The owner of its own folder is the user a process runs as.
        let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?) == 0;
        if root {
            return Ok(PathBuf::from("/var/lib/iova-preflight/backup"));
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = state
            .filter(|path| path.is_absolute())
            .or_else(home)
            .context("neither XDG_STATE_HOME nor HOME is set; --backup says where the replaced definition is kept")?;
        Ok(state.join("iova-preflight/backup"))
    }
}

pub(crate) use imp::{batches, fix};
