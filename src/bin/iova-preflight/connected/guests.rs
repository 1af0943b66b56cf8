//! `--connect`: guests of a libvirt instead of files.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::live::{Inventory, inventories};
use crate::input::host::HostSource;
use crate::input::{Batch, Input};
use crate::outcome::Outcome;
use crate::stderr;

/// The guests of every libvirt in `uris`. One that does not answer, or that no profile in `hosts` is for, is named on
/// standard error.
///
/// # Errors
/// A profile cannot be read.
pub(crate) fn batches(uris: &[String], domain: Option<&str>, hosts: &[PathBuf]) -> Result<(Vec<Batch>, Outcome)> {
    let profiles = profiles(hosts)?;
    let shows = std::io::stderr().is_terminal();
    let answers = inventories(uris, domain, |uri, guests| {
        if shows && uris.len() > 1 {
            stderr::line(&format!("{uri}: {guests} domains"));
        }
    });
    let (mut batches, mut outcome) = (Vec::new(), Outcome::Clean);
    for answer in answers {
        match answer.and_then(|inventory| batch(inventory, &profiles)) {
            Ok(batch) => batches.push(batch),
            Err(error) => {
                stderr::line(&format!("{error:#}"));
                outcome = Outcome::Failed;
            }
        }
    }
    Ok((batches, outcome))
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
            Input::Live(format!("{uri} {}{state}", guest.name), guest.xml.clone().into_bytes())
        })
        .collect();
    let sources = sources(inventory, profiles)?;
    Ok(Batch { sources, inputs })
}

/// The hosts that guests of this libvirt are evaluated for: those in `profiles` that are of its host or of no certain
/// one; without any, the host as it is known without them.
fn sources(inventory: Inventory, profiles: &[HostSource]) -> Result<Vec<HostSource>> {
    let Inventory { uri, host_name, host, is_local, .. } = inventory;
    let networks = host.networks.clone();
    let sources = match (profiles, is_local) {
        ([], true) => vec![HostSource::this()],
        ([], false) => vec![HostSource::told(&uri, host)],
        (profiles, _) => {
            let host_name = host_name.as_deref();
            let is_its = |profile: &HostSource| match (profile.host_name(), host_name) {
                (Some(name), Some(its)) => is_same_host(name, its),
                (name, _) => name.is_none(),
            };
            let found: Vec<HostSource> = profiles.iter().filter(|profile| is_its(profile)).cloned().collect();
            if found.is_empty() {
                let its = host_name.map_or_else(|| "unknown".to_owned(), str::to_owned);
                let names: Vec<&str> = profiles.iter().map(|profile| profile.label.as_str()).collect();
                bail!("{uri}: the name of its host is {its}, and no --host is of that name: {}", names.join(", "));
            }
            found
        }
    };
    Ok(sources.into_iter().map(|source| source.with_networks(networks.clone())).collect())
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
/// The libvirt does not answer or has no such guest, a profile cannot be read, or not exactly one is for this libvirt.
pub(crate) fn host_of(uri: &str, name: &str, hosts: &[PathBuf]) -> Result<HostSource> {
    let profiles = profiles(hosts)?;
    let inventory = inventories(&[uri.to_owned()], Some(name), |_, _| {})
        .pop()
        .unwrap_or_else(|| Err(anyhow!("{uri}: no answer")))?;
    let mut sources = sources(inventory, &profiles)?;
    match (sources.pop(), sources.is_empty()) {
        (Some(source), true) => Ok(source),
        _ => bail!("{uri}: several host profiles are for its host; name one of them"),
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
