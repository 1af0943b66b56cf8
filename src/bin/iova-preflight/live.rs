//! Guests that libvirt knows, over the crate `virt`. Nothing else in the project calls libvirt.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use iova_preflight::host::Host;
use iova_preflight::version::Version;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

use crate::redefine::Definitions;

/// How long a daemon may take to answer everything, before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one libvirt knows.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The URI it was asked for.
    pub uri: String,
    /// The host as its capabilities describe it.
    pub host: Host,
    /// Whether that is the host this program runs on.
    pub is_local: bool,
    /// Its guests, sorted by name; a running guest whose definition is persistent is there twice.
    pub guests: Vec<LiveGuest>,
}

/// A guest's XML.
#[derive(Debug)]
pub(crate) struct LiveGuest {
    /// Its name.
    pub name: String,
    /// Whether the XML is that of the running guest, not of its definition.
    pub running: bool,
    /// The domain XML.
    pub xml: String,
}

/// Asks every libvirt in `uris` at once, for all guests or for the one called `domain`; the answers come in the order
/// of `uris`. `progress` is told of each as it comes.
pub(crate) fn inventories(
    uris: &[String],
    domain: Option<&str>,
    mut progress: impl FnMut(&str, usize),
) -> Vec<Result<Inventory>> {
    // libvirt prints errors by itself otherwise.
    virt::error::clear_error_callback();
    let pending: Vec<_> = uris
        .iter()
        .map(|uri| {
            let (sender, receiver) = mpsc::channel();
            let (uri, domain) = (uri.clone(), domain.map(str::to_owned));
            // A thread that libvirt never answers is left behind; the process ends without it.
            thread::spawn(move || {
                // Nobody waits any more once patience has run out.
                let _ = sender.send(inventory(&uri, domain.as_deref()));
            });
            receiver
        })
        .collect();
    uris.iter()
        .zip(pending)
        .map(|(uri, receiver)| {
            let answer = receiver
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| Err(anyhow!("no answer within {} seconds", PATIENCE.as_secs())))
                .with_context(|| uri.clone());
            progress(uri, answer.as_ref().map_or(0, |inventory| inventory.guests.len()));
            answer
        })
        .collect()
}

fn inventory(uri: &str, wanted: Option<&str>) -> Result<Inventory> {
    check_uri(uri)?;
    let connection = Connect::open_read_only(Some(uri))?;
    let mut host = Host::from_libvirt_capabilities(connection.capabilities()?.as_bytes())?;
    host.libvirt = connection.lib_version().ok().map(Version::from_libvirt_number);
    host.qemu = connection.hyp_version().ok().map(Version::from_libvirt_number);
    let domains = match wanted {
        Some(name) => vec![connection.lookup_domain_by_name(name)?],
        None => connection.list_all_domains(0)?,
    };
    let mut guests = Vec::new();
    for domain in domains {
        // A guest may be gone by the time it is asked for.
        let Ok(name) = domain.name() else { continue };
        let kinds = [(domain.is_persistent().unwrap_or(false), false), (domain.is_active().unwrap_or(false), true)];
        for (_, running) in kinds.into_iter().filter(|(there, _)| *there) {
            let flags = if running { 0 } else { sys::VIR_DOMAIN_XML_INACTIVE };
            if let Ok(xml) = domain.xml_desc(flags) {
                guests.push(LiveGuest { name: name.clone(), running, xml });
            }
        }
    }
    guests.sort_by(|a, b| (&a.name, a.running).cmp(&(&b.name, b.running)));
    Ok(Inventory { uri: uri.to_owned(), host, is_local: is_local(uri), guests })
}

/// `driver:///path` without a host or another transport.
fn is_local(uri: &str) -> bool {
    uri.split_once("://")
        .is_some_and(|(scheme, rest)| rest.starts_with('/') && (!scheme.contains('+') || scheme.ends_with("+unix")))
}

/// The crate panics on a NUL.
fn check_uri(text: &str) -> Result<()> {
    if text.contains('\0') { bail!("a NUL character") } else { Ok(()) }
}

/// One persistent definition of a libvirt.
pub(crate) struct Definition {
    connection: Connect,
    domain: Domain,
}

impl Definition {
    /// Opens `uri` for writing and finds the guest.
    pub fn open(uri: &str, name: &str) -> Result<Self> {
        virt::error::clear_error_callback();
        check_uri(uri)?;
        let connection = Connect::open(Some(uri)).with_context(|| uri.to_owned())?;
        let domain = connection.lookup_domain_by_name(name)?;
        if !domain.is_persistent()? {
            bail!("guest {name} is transient: it has no definition that could be rewritten");
        }
        Ok(Self { connection, domain })
    }

    /// Why a rewrite would lose something, if it would: what was saved with the old definition no longer restores.
    pub fn obstacle(&self) -> Result<Option<&'static str>> {
        if self.domain.has_managed_save(0)? {
            return Ok(Some("it has a managed save image, which would no longer restore"));
        }
        // Drivers without snapshots say so with an error.
        let snapshots = self.domain.num_snapshots(0).unwrap_or(0);
        Ok((snapshots > 0).then_some("it has snapshots, which would no longer restore"))
    }

    /// Whether it runs at the moment.
    pub fn is_running(&self) -> bool {
        self.domain.is_active().unwrap_or(false)
    }

    /// The guest's UUID.
    pub fn uuid(&self) -> Result<String> {
        Ok(self.domain.uuid_string()?)
    }
}

impl Definitions for Definition {
    fn read(&mut self) -> Result<String> {
        // Without SECURE, libvirt leaves out passwords, and they would be lost.
        Ok(self.domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)?)
    }

    fn define(&mut self, xml: &str) -> Result<()> {
        self.connection.define_domain_xml_flags(xml, sys::VIR_DOMAIN_DEFINE_VALIDATE)?;
        Ok(())
    }
}
