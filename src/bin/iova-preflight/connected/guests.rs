//! `--connect`: guests of a libvirt instead of files.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Result, anyhow};

use super::live::{Inventory, inventories};
use crate::input::host::HostSource;
use crate::input::{Batch, Input};
use crate::outcome::Outcome;
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
    let networks = inventory.host.networks.clone();
    let source = match host {
        Some(_) => HostSource::choose(host)?,
        None if inventory.is_local => HostSource::this(),
        None => HostSource::told(&inventory.uri, inventory.host),
    };
    Ok(source.with_networks(networks))
}

/// The host of the libvirt at `uri`, which has a guest called `name`: the one in the profile `host`, if there is one.
///
/// # Errors
/// The libvirt does not answer or has no such guest, or the profile cannot be read.
pub(crate) fn host_of(uri: &str, name: &str, host: Option<&Path>) -> Result<HostSource> {
    let inventory = inventories(&[uri.to_owned()], Some(name), |_, _| {})
        .pop()
        .unwrap_or_else(|| Err(anyhow!("{uri}: no answer")))?;
    source(inventory, host)
}
