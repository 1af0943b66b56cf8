//! `--connect`: guests of a libvirt instead of files.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use iova_preflight::host::Host;

use super::live::{Inventory, inventories};
use crate::input::host::HostSource;
use crate::input::{Batch, Input};
use crate::stderr;

/// How long a libvirt may take to tell of one guest, before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The guests of every libvirt in `uris`. One that has not told of them within `patience`, or that fails, is an input that
/// cannot be read.
pub(crate) fn batches(
    uris: &[String],
    domain: Option<&str>,
    patience: Duration,
    host: Option<&Path>,
) -> Result<Vec<Batch>> {
    let shows = std::io::stderr().is_terminal();
    let answers = inventories(uris, domain, patience, |uri, guests| {
        if shows && uris.len() > 1 {
            stderr::line(&format!("{uri}: {guests} domains"));
        }
    });
    let mut batches: Vec<Batch> = Vec::new();
    // Those before the first that answers.
    let mut silent = Vec::new();
    for (uri, answer) in uris.iter().zip(answers) {
        match (answer, batches.last_mut()) {
            (Ok(inventory), _) => {
                let mut batch = batch(inventory, host)?;
                batch.inputs.splice(..0, silent.drain(..));
                batches.push(batch);
            }
            (Err(error), Some(batch)) => batch.inputs.push(unreadable(uri, &error)),
            (Err(error), None) => silent.push(unreadable(uri, &error)),
        }
    }
    if let Some(first) = uris.first().filter(|_| !silent.is_empty()) {
        batches.push(Batch { source: HostSource::told(first, Host::default()), inputs: silent });
    }
    Ok(batches)
}

fn unreadable(uri: &str, error: &anyhow::Error) -> Input {
    Input::Unreadable(uri.into(), io::Error::other(format!("{error:#}")))
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
    let inventory = inventories(&[uri.to_owned()], Some(name), PATIENCE, |_, _| {})
        .pop()
        .unwrap_or_else(|| Err(anyhow!("no answer")))
        .with_context(|| uri.to_owned())?;
    source(inventory, host)
}
