//! `--connect`: guests of a libvirt instead of files.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::live::{Answers, Inventory, LiveGuest, is_local};
use crate::args::CommonArgs;
use crate::input::host::HostSource;
use crate::input::{Batch, Batches, Input, Inputs, distinct};
use crate::stderr;

/// The guests of every libvirt in `uris`, as the answers arrive. A libvirt that does not answer within `patience`, fails,
/// or has no profile in `options` is an input that cannot be read. One without any domain is named on standard error.
///
/// # Errors
/// A profile cannot be read.
pub(crate) fn batches(
    uris: &[String],
    domain: Option<&str>,
    patience: Duration,
    options: &CommonArgs,
) -> Result<Batches> {
    let (profiles, quiet) = (profiles(&options.host)?, options.quiet);
    let label = |uri: &String| if is_local(uri) { HostSource::HERE.to_owned() } else { uri.clone() };
    let labels = match &profiles[..] {
        [] => distinct(uris.iter().map(label)),
        profiles => distinct(profiles.iter().map(|profile| profile.label.clone())),
    };
    let has_several_each = profiles.len() > 1;
    let parts = Answers::ask(uris, domain, patience).map(move |(uri, answer)| {
        let batch = answer.and_then(|inventory| batch(inventory, &profiles)).unwrap_or_else(|error| Batch {
            // It has no guest to evaluate for a host.
            sources: Vec::new(),
            inputs: std::iter::once(unreadable(&uri, &error)).collect(),
        });
        if batch.inputs.len() == 0 && !quiet {
            stderr::line(&format!("no domain in {uri}"));
        }
        batch
    });
    Ok(Batches { labels, has_several_each, parts: Box::new(parts) })
}

/// The guests that run in every libvirt in `uris`, each with its persistent definition if it has one. A libvirt that has not
/// told of them within `patience`, that fails, or whose host is not `from` is an input that cannot be read, and so is
/// `domain` if it does not run. One without a guest that runs is named on standard error unless `quiet`.
///
/// # Errors
/// None; the program without libvirt has one.
pub(crate) fn running(
    uris: &[String],
    domain: Option<&str>,
    patience: Duration,
    from: &HostSource,
    quiet: bool,
) -> Result<Inputs> {
    let mut inputs = Vec::new();
    for (uri, answer) in Answers::ask(uris, domain, patience) {
        let running = answer.and_then(|inventory| {
            let host_name = inventory.host_name.as_deref();
            if !is_profile_of(from, host_name) {
                let its = host_name.unwrap_or("unknown");
                bail!("its host is called {its}, but the profile of --from is that of {}", from.label);
            }
            let name = |guest: &LiveGuest| format!("{uri} {}", guest.name);
            let (running, stopped): (Vec<_>, Vec<_>) = inventory.guests.into_iter().partition(|guest| guest.running);
            let unknown = stopped.iter().filter_map(|guest| Some((name(guest), guest.xml.as_ref().err()?.clone())));
            let mut found: Vec<Input> = unknown.map(|(name, error)| unreadable(&name, &anyhow!(error))).collect();
            found.extend(running.into_iter().map(|guest| {
                let definition = stopped.iter().find(|stopped| stopped.name == guest.name);
                let definition = definition.and_then(|stopped| stopped.xml.clone().ok()).map(String::into_bytes);
                let name = name(&guest);
                match guest.xml {
                    Ok(xml) => Input::Running { name, xml: xml.into_bytes(), definition },
                    Err(error) => unreadable(&name, &anyhow!(error)),
                }
            }));
            if let (Some(domain), true) = (domain, found.is_empty()) {
                bail!("guest {domain} does not run; to check where it could be started, use --host instead of --from");
            }
            Ok(found)
        });
        match running {
            Ok(found) => {
                if found.is_empty() && !quiet {
                    stderr::line(&format!("{uri}: no guest runs"));
                }
                inputs.extend(found);
            }
            Err(error) => inputs.push(unreadable(&uri, &error)),
        }
    }
    Ok(inputs.into_iter().collect())
}

fn unreadable(uri: &str, error: &anyhow::Error) -> Input {
    Input::Unreadable(uri.into(), io::Error::other(format!("{error:#}")))
}

/// The hosts in the profiles that were named.
fn profiles(hosts: &[PathBuf]) -> Result<Vec<HostSource>> {
    if hosts.is_empty() { Ok(Vec::new()) } else { HostSource::choose_all(hosts) }
}

fn batch(inventory: Inventory, profiles: &[HostSource]) -> Result<Batch> {
    let Inventory { uri, guests, .. } = &inventory;
    let inputs = guests
        .iter()
        .map(|guest| {
            let state = if guest.running { ", running" } else { "" };
            let name = format!("{uri} {}{state}", guest.name);
            match &guest.xml {
                Ok(xml) => Input::Live(name, xml.clone().into_bytes()),
                Err(error) => unreadable(&name, &anyhow!(error.clone())),
            }
        })
        .collect();
    let sources = sources(inventory, profiles)?;
    Ok(Batch { sources, inputs })
}

/// The hosts that guests of this libvirt are evaluated for: those in `profiles` that carry its host's name or none;
/// without profiles, the host as libvirt describes it.
fn sources(inventory: Inventory, profiles: &[HostSource]) -> Result<Vec<HostSource>> {
    let Inventory { uri, host_name, host, is_local, .. } = inventory;
    let networks = host.networks.clone();
    let sources = match (profiles, is_local) {
        ([], true) => vec![HostSource::this()],
        ([], false) => vec![HostSource::told(&uri, host)],
        (profiles, _) => {
            let host_name = host_name.as_deref();
            let found: Vec<HostSource> =
                profiles.iter().filter(|profile| is_profile_of(profile, host_name)).cloned().collect();
            if found.is_empty() {
                let (its, names) = (host_name.unwrap_or("unknown"), names(profiles));
                bail!("its host is called {its}, but no --host profile has that name: {names}");
            }
            found
        }
    };
    Ok(sources.into_iter().map(|source| source.with_networks(networks.clone())).collect())
}

/// Whether a profile is that of the libvirt whose host has this name: it carries the name, or none.
fn is_profile_of(profile: &HostSource, host_name: Option<&str>) -> bool {
    profile.host_name().is_none_or(|name| host_name.is_some_and(|its| is_same_host(name, its)))
}

/// The names of the hosts in profiles, as far as they fit into a message.
fn names(profiles: &[HostSource]) -> String {
    const MOST: usize = 10;
    let mut names: Vec<String> = profiles.iter().take(MOST).map(|profile| profile.label.clone()).collect();
    if profiles.len() > MOST {
        names.push(format!("and {} more", profiles.len() - MOST));
    }
    names.join(", ")
}

/// Whether two names are of one host. libvirt's has its domain if the resolver knows that (`virGetHostname` in
/// `src/util/virutil.c`), the kernel's mostly has none.
fn is_same_host(one: &str, other: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let is_short = |name: &str| !name.contains('.');
    one.eq_ignore_ascii_case(other)
        || ((is_short(one) || is_short(other)) && first(one).eq_ignore_ascii_case(&first(other)))
}

/// The host of the libvirt at `uri`, which has a guest called `name`: the one in the profile of `hosts` that is for it, if
/// profiles are named.
///
/// # Errors
/// The libvirt does not answer within `patience` or has no such guest, a profile cannot be read, or not exactly one is for
/// this libvirt.
pub(crate) fn host_of(uri: &str, name: &str, patience: Duration, hosts: &[PathBuf]) -> Result<HostSource> {
    let profiles = profiles(hosts)?;
    let mut answers = Answers::ask(&[uri.to_owned()], Some(name), patience);
    let inventory = answers.next().map_or_else(|| Err(anyhow!("no answer")), |(_, answer)| answer);
    let mut sources = inventory.and_then(|inventory| sources(inventory, &profiles)).with_context(|| uri.to_owned())?;
    match (sources.pop(), sources.is_empty()) {
        (Some(source), true) => Ok(source),
        _ => bail!("{uri}: several host profiles match its host; give only one"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_same_host;

    #[test]
    fn a_host_has_its_name_with_and_without_its_domain() {
        for (one, other, same) in [
            ("epyc-1", "epyc-1", true),
            ("epyc-1", "EPYC-1.example.com", true),
            ("epyc-1.example.com", "epyc-1", true),
            ("epyc-1.example.com", "epyc-1.example.org", false),
            ("epyc-1", "epyc-11", false),
            ("epyc-1", "", false),
        ] {
            assert_eq!(is_same_host(one, other), same, "{one} {other}");
        }
    }
}
