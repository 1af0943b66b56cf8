//! Guests that libvirt knows, over the crate `virt`. Nothing else in the project calls libvirt.

pub(crate) mod events;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{thread, vec};

use anyhow::{Result, anyhow, bail};
use iova_preflight::Version;
use iova_preflight::host::{Host, Networks, read_network};
use iova_preflight::text::printable;
use iova_preflight::xml::Document;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

use crate::connected::redefine::{Definitions, NotDefined};
use crate::connected::redefinition::Redefinable;
use crate::output::progress::Progress;
use events::Subscription;

/// The answer of one libvirt.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The URI it was asked for.
    pub uri: String,
    /// The name of its host, if its driver has one.
    pub host_name: Option<String>,
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
    /// The domain XML, or libvirt's error if it does not return it.
    pub xml: Result<String, String>,
}

/// The answers of libvirts that are all asked at once, in the order of their URIs, each as soon as it and those before it
/// have arrived. A libvirt that has not answered completely in time is given up on.
pub(crate) struct Answers {
    uris: vec::IntoIter<(usize, String)>,
    receiver: Receiver<(usize, Result<Inventory>)>,
    patience: Duration,
    end: Instant,
    /// Those that arrived before their turn.
    early: BTreeMap<usize, Result<Inventory>>,
    /// How many have arrived, of how many.
    arrived: usize,
    all: usize,
    progress: Progress,
}

impl Answers {
    /// Asks for all guests or for the one called `domain`; gives up after `patience`.
    pub fn ask(uris: &[String], domain: Option<&str>, patience: Duration) -> Self {
        // libvirt prints errors by itself otherwise.
        virt::error::clear_error_callback();
        let end = Instant::now() + patience;
        let (sender, receiver) = mpsc::channel();
        let uris: Vec<(usize, String)> = uris.iter().cloned().enumerate().collect();
        for (index, uri) in uris.clone() {
            let (sender, domain) = (sender.clone(), domain.map(str::to_owned));
            // A libvirt call cannot be cancelled. A thread that gets no answer is left behind; the process ends without it.
            thread::spawn(move || {
                // The receiver is gone once patience has run out.
                let _ = sender.send((index, inventory(&uri, domain.as_deref())));
            });
        }
        let (all, uris) = (uris.len(), uris.into_iter());
        Self { uris, receiver, patience, end, early: BTreeMap::new(), arrived: 0, all, progress: Progress::new() }
    }

    /// The answer with this index; `None` if it does not arrive in time.
    fn wait_for(&mut self, index: usize, uri: &str) -> Option<Result<Inventory>> {
        /// Between two progress lines.
        const SLICE: Duration = Duration::from_millis(200);
        loop {
            if let Some(answer) = self.early.remove(&index) {
                return Some(answer);
            }
            let left = self.end.saturating_duration_since(Instant::now());
            // Answers that arrived before the deadline count, even if they are read after it.
            match self.receiver.recv_timeout(left.min(SLICE)) {
                Ok((index, answer)) => {
                    self.arrived += 1;
                    self.early.insert(index, answer);
                }
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {
                    let (arrived, all) = (self.arrived, self.all);
                    self.progress
                        .say(|| format!("{arrived} of {all} libvirts have answered; waiting for {}", printable(uri)));
                }
                Err(_) => return None,
            }
        }
    }
}

impl Iterator for Answers {
    type Item = (String, Result<Inventory>);

    fn next(&mut self) -> Option<Self::Item> {
        let (index, uri) = self.uris.next()?;
        let answer = self.wait_for(index, &uri);
        self.progress.clear();
        let seconds = self.patience.as_secs();
        Some((uri, answer.unwrap_or_else(|| Err(anyhow!("no answer within {seconds} seconds")))))
    }
}

fn inventory(uri: &str, wanted: Option<&str>) -> Result<Inventory> {
    check_uri(uri)?;
    let connection = Connect::open_read_only(Some(uri))?;
    let host = describe(&connection)?;
    let host_name = connection.hostname().ok();
    let domains = match wanted {
        Some(name) => vec![connection.lookup_domain_by_name(name)?],
        None => connection.list_all_domains(0)?,
    };
    let mut guests = Vec::new();
    for domain in domains {
        match guests_of(&domain) {
            Ok(found) => guests.extend(found),
            // It was undefined or has migrated away meanwhile.
            Err(error) if wanted.is_none() && error.code().is(ErrorNumber::NoDomain) => {}
            // A guest that is not there is not missed: the rest of a list must not get lost.
            Err(error) if wanted.is_some() || !connection.is_alive().unwrap_or(false) => return Err(error.into()),
            Err(error) => {
                guests.push(LiveGuest { name: domain.name()?, running: false, xml: Err(error.to_string()) });
            }
        }
    }
    guests.sort_by(|a, b| (&a.name, a.running).cmp(&(&b.name, b.running)));
    Ok(Inventory { uri: uri.to_owned(), host_name, host, is_local: is_local(uri), guests })
}

/// The definition of a domain, if it has one, and the guest that runs, if it does.
fn guests_of(domain: &Domain) -> Result<Vec<LiveGuest>, virt::error::Error> {
    let name = domain.name()?;
    let kinds = [(domain.is_persistent()?, false), (domain.is_active()?, true)];
    let guest = |running: bool| {
        let flags = if running { 0 } else { sys::VIR_DOMAIN_XML_INACTIVE };
        Ok(LiveGuest { name: name.clone(), running, xml: Ok(domain.xml_desc(flags)?) })
    };
    kinds.into_iter().filter(|(there, _)| *there).map(|(_, running)| guest(running)).collect()
}

/// The host as its capabilities describe it. For them, libvirt probes every QEMU that it does not know yet.
fn describe(connection: &Connect) -> Result<Host> {
    let mut host = Host::from_libvirt_capabilities(connection.capabilities()?.as_bytes())?;
    host.libvirt = connection.lib_version().ok().map(Version::from_libvirt_number);
    host.qemu = connection.hyp_version().ok().map(Version::from_libvirt_number);
    host.networks = networks(connection);
    Ok(host)
}

/// The virtual networks; empty if libvirt has no network driver.
fn networks(connection: &Connect) -> Networks {
    let all = connection.list_all_networks(0).unwrap_or_default();
    // A network may be gone by the time it is asked for.
    let xml = all.iter().filter_map(|network| network.xml_desc(0).ok());
    xml.filter_map(|xml| read_network(&Document::parse(xml.as_bytes()).ok()?)).collect()
}

/// `driver:///path` without a host or another transport.
pub(crate) fn is_local(uri: &str) -> bool {
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
    may_write: bool,
}

impl Definition {
    /// Opens `uri` for writing and finds the guest.
    pub fn open(uri: &str, name: &str) -> Result<Self> {
        virt::error::clear_error_callback();
        check_uri(uri)?;
        let connection = Connect::open(Some(uri))?;
        let domain = connection.lookup_domain_by_name(name)?;
        if !domain.is_persistent()? {
            bail!("guest {name} is transient: it has no persistent definition to rewrite");
        }
        Ok(Self { connection, domain, may_write: true })
    }

    /// Whether it runs at the moment.
    pub fn is_running(&self) -> bool {
        self.domain.is_active().unwrap_or(false)
    }
}

impl Redefinable for Definition {
    fn obstacle(&mut self) -> Result<Option<&'static str>> {
        if self.domain.has_managed_save(0)? {
            return Ok(Some("it has a managed save image, which could no longer be restored"));
        }
        // Drivers without snapshots say so with an error.
        let snapshots = self.domain.num_snapshots(0).unwrap_or(0);
        Ok((snapshots > 0).then_some("it has snapshots, which could no longer be restored"))
    }

    fn uuid(&mut self) -> Result<String> {
        Ok(self.domain.uuid_string()?)
    }

    fn name(&mut self) -> Result<String> {
        Ok(self.domain.name()?)
    }
}

impl Definitions for Definition {
    fn read(&mut self) -> Result<String> {
        // Without SECURE, libvirt leaves out passwords, and they would be lost; only who may write may ask for them.
        let secure = if self.may_write { sys::VIR_DOMAIN_XML_SECURE } else { 0 };
        Ok(self.domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | secure)?)
    }

    fn define(&mut self, xml: &str) -> Result<(), NotDefined> {
        // Without VIR_DOMAIN_DEFINE_VALIDATE, which takes libvirt ten times as long, during which somebody else may
        // define the guest. What libvirt does not understand it leaves out, and that is seen when it is read back.
        match self.connection.define_domain_xml_flags(xml, 0) {
            Ok(_) => Ok(()),
            Err(error) if self.connection.is_alive().unwrap_or(false) => Err(NotDefined::Refused(error.into())),
            // The connection broke before the answer.
            Err(error) => Err(NotDefined::Unanswered(error.into())),
        }
    }
}

/// A connection that reports every guest that is defined; [`events::start`] has to be called first.
pub(crate) struct Session {
    subscription: Subscription,
    uri: String,
    may_write: bool,
}

impl Session {
    /// Connects to `uri`. Events from then on carry the number `generation`.
    ///
    /// # Errors
    /// libvirt's.
    pub fn open(uri: &str, may_write: bool, generation: usize) -> Result<Self> {
        /// Seconds between two keep-alive messages.
        const KEEP_ALIVE: i32 = 5;
        /// How many of them the daemon may leave unanswered before calls that wait for it fail.
        const UNANSWERED: u32 = 3;
        virt::error::clear_error_callback();
        check_uri(uri)?;
        let connection = if may_write { Connect::open(Some(uri)) } else { Connect::open_read_only(Some(uri)) }?;
        // Drivers without a daemon do not need it and return an error.
        let _ = connection.set_keep_alive(KEEP_ALIVE, UNANSWERED);
        let subscription = Subscription::new(connection, generation)?;
        Ok(Self { subscription, uri: uri.to_owned(), may_write })
    }

    fn connection(&self) -> &Connect {
        self.subscription.connection()
    }

    /// The host as libvirt describes it, and whether that is the host this program runs on.
    ///
    /// # Errors
    /// libvirt's.
    pub fn host(&self) -> Result<(Host, bool)> {
        Ok((describe(self.connection())?, is_local(&self.uri)))
    }

    /// The UUIDs of the guests that have a definition.
    ///
    /// # Errors
    /// libvirt's.
    pub fn guests(&self) -> Result<Vec<String>> {
        let domains = self.connection().list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
        domains.iter().map(|domain| Ok(domain.uuid_string()?)).collect()
    }

    /// The definition of a guest; `None` if it is gone or transient.
    ///
    /// # Errors
    /// libvirt's.
    pub fn definition(&self, uuid: &str) -> Result<Option<Definition>> {
        let connection = self.connection().clone();
        let domain = match connection.lookup_domain_by_uuid_string(uuid) {
            Ok(domain) => domain,
            Err(error) if error.code().is(ErrorNumber::NoDomain) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let persistent = domain.is_persistent()?;
        Ok(persistent.then_some(Definition { connection, domain, may_write: self.may_write }))
    }

    /// Whether the daemon is still there.
    pub fn is_alive(&self) -> bool {
        self.connection().is_alive().unwrap_or(false)
    }
}
