//! One input after the other: read, evaluated for a host under a policy.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use iova_preflight::advice::{self, Advice};
use iova_preflight::argv::{self, Call};
use iova_preflight::command_line::Launch;
use iova_preflight::domain::{self, Domain, Owner, Unseen};
use iova_preflight::fix::Fix;
use iova_preflight::host::Host;
use iova_preflight::io::networks;
use iova_preflight::migration::{Journey, Migration, migrate};
use iova_preflight::policy::Policy;
use iova_preflight::process::{OpenDevice, QemuProcess};
use iova_preflight::report::Unreadable;
use iova_preflight::report::running::ProcessReport;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::{Evaluation, evaluate, evaluate_for_all};
use iova_preflight::xml::Document;

use crate::args::{InputKind, Words};
use crate::input::host::HostSource;
use crate::input::{Folders, Input};
use crate::outcome::Outcome;

/// An input that was evaluated.
pub(crate) struct Evaluated<'a> {
    pub name: &'a str,
    /// What it was read from.
    pub guest: GuestSource<'a>,
    pub evaluation: &'a Evaluation,
    /// Where the facts about the host come from, and the host as this guest sees it.
    pub source: &'a HostSource,
    pub host: &'a Host,
    /// The process that runs it, if the guest was found as a process.
    pub process: Option<&'a ProcessReport>,
    /// The overrides in the guest's `<metadata>` that are ignored.
    pub ignored: Option<&'a str>,
    /// In whose words fixes are told, if not in libvirt's.
    pub words: Option<Owner>,
    /// What becomes of it when it moves to this host; `guest` and `evaluation` are of a start there then.
    pub moving: Option<Moving<'a>>,
}

/// A guest that is to move to another host.
#[derive(Clone, Copy)]
pub(crate) struct Moving<'a> {
    pub migration: &'a Migration,
    /// The guest as it runs.
    pub running: GuestSource<'a>,
    /// The host that it runs on.
    pub from: &'a HostSource,
}

impl Evaluated<'_> {
    /// Who writes the guest's definition anew at each start.
    pub fn owner(&self) -> Option<Owner> {
        self.guest.subject().owner()
    }

    /// What to do so that a fix lasts, and whose words those are, if not libvirt's.
    pub fn advice(&self, fix: &Fix) -> Option<(Owner, Advice)> {
        self.words.map(|words| (words, advice::advise(words, self.guest.subject(), fix)))
    }

    /// A warning about overrides in its `<metadata>` that are ignored.
    pub fn warning(&self) -> Option<String> {
        self.ignored.map(|ignored| format!("{}: warning: {ignored}", self.name))
    }
}

/// Whether the guest's devices depend on a virtual network.
fn needs_networks(domain: &Domain) -> bool {
    domain.hidden_dma.iter().any(|hidden| matches!(hidden.unseen, Unseen::Network(_)))
}

/// Evaluates inputs and remembers the worst outcome.
pub(crate) struct Evaluator<'a> {
    sources: &'a [HostSource],
    /// Where guests run that are to move to these.
    from: Option<&'a HostSource>,
    policy: &'a Policy,
    /// The kind of every input, if given.
    kind: Option<InputKind>,
    /// In whose words every fix is told, if given.
    words: Option<Words>,
    /// Whether a guest is evaluated for all hosts together.
    together: bool,
    pub outcome: Outcome,
    /// What was found in folders.
    pub folders: Folders,
}

impl<'a> Evaluator<'a> {
    /// An evaluator for guests of each of `sources` under `policy`.
    pub fn new(sources: &'a [HostSource], policy: &'a Policy) -> Self {
        Self {
            sources,
            from: None,
            policy,
            kind: None,
            words: None,
            together: false,
            outcome: Outcome::Clean,
            folders: Folders::default(),
        }
    }

    /// The same, for inputs of this kind.
    pub fn of_kind(self, kind: Option<InputKind>) -> Self {
        Self { kind, ..self }
    }

    /// The same, with fixes told in these words.
    pub fn in_words(self, words: Option<Words>) -> Self {
        Self { words, ..self }
    }

    /// The same, for guests that run on this host and are to move.
    pub fn moving_from(self, from: Option<&'a HostSource>) -> Self {
        Self { from, ..self }
    }

    /// The same, but each guest is handed over once, as [`evaluate_for_all`] has it.
    pub fn for_all_hosts(self) -> Self {
        Self { together: true, ..self }
    }

    /// Reads one input and hands it to `evaluated` as it is on each host, or what is wrong with it to `unreadable`.
    pub fn each(
        &mut self,
        input: Input,
        mut evaluated: impl FnMut(&Evaluated<'_>) -> Result<()>,
        mut unreadable: impl FnMut(&str, Unreadable),
    ) -> Result<()> {
        let name = input.name();
        let folder = input.folder();
        let live = matches!(input, Input::Live(..) | Input::Running { .. });
        let mut input = input;
        let definition = match &mut input {
            Input::Running { definition, .. } => definition.take(),
            _ => None,
        };
        if let Some(folder) = &folder {
            self.folders.found(folder);
        }
        let path = input.path().map(Path::to_owned);
        if let Input::Process(process) = input {
            return self.process(&name, &process, evaluated, unreadable);
        }
        let bytes = match input.read() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.outcome = Outcome::Failed;
                unreadable(&name, Unreadable { at: None, message: error.to_string() });
                return Ok(());
            }
        };
        // libvirt returns domains, and files are found in folders as *.xml.
        let is_xml = match self.kind {
            _ if live || folder.is_some() => true,
            Some(kind) => kind == InputKind::Xml,
            None => argv::is_xml(&bytes),
        };
        if !is_xml {
            return self.call(&name, &bytes, None, evaluated, unreadable);
        }
        let (document, domain) = match read_domain(&bytes) {
            Ok(read) => read,
            Err(refused) => {
                if let Some(folder) = folder.filter(|_| refused.is_other) {
                    self.folders.pass_over(&folder);
                    return Ok(());
                }
                self.outcome = Outcome::Failed;
                unreadable(&name, refused.error);
                return Ok(());
            }
        };
        let definition = match definition.as_deref().map(read_domain).transpose() {
            Ok(definition) => definition,
            Err(refused) => {
                self.outcome = Outcome::Failed;
                unreadable(&format!("{name}, its definition"), refused.error);
                return Ok(());
            }
        };
        let definition = definition.as_ref().map(|(document, domain)| GuestSource::Xml(document, domain));
        let networks = path.filter(|_| needs_networks(&domain)).map(|path| networks::beside(&path));
        let host = |source: &'a HostSource| {
            let mut host = source.host_of(&domain);
            if let Some(networks) = &networks {
                host.to_mut().networks.extend(networks.clone());
            }
            host
        };
        let guest = GuestSource::Xml(&document, &domain);
        self.on_hosts(&name, (guest, definition), host, None, &mut evaluated)
    }

    /// Evaluates the guest of a process, with the devices added since its start.
    fn process(
        &mut self,
        name: &str,
        process: &QemuProcess,
        evaluated: impl FnMut(&Evaluated<'_>) -> Result<()>,
        unreadable: impl FnMut(&str, Unreadable),
    ) -> Result<()> {
        self.call(name, &process.arguments, Some(process), evaluated, unreadable)
    }

    /// Evaluates a command line of QEMU's.
    fn call(
        &mut self,
        name: &str,
        bytes: &[u8],
        process: Option<&QemuProcess>,
        mut evaluated: impl FnMut(&Evaluated<'_>) -> Result<()>,
        mut unreadable: impl FnMut(&str, Unreadable),
    ) -> Result<()> {
        let call = if process.is_some() { Call::of_process(bytes) } else { Call::read(bytes) };
        match call {
            Ok(call) => {
                let program = process.and_then(|process| process.program.as_deref());
                let called = call.program.as_ref().map(|word| word.text.as_str());
                let mut launch = Launch::read_as(&call, program.or(called));
                for device in process.iter().filter_map(|process| process.devices.as_ref()).flatten() {
                    match device {
                        OpenDevice::Vfio(name) => launch.attach_vfio(name),
                        OpenDevice::VhostVdpa(path) => launch.attach_vhost_vdpa(path),
                    }
                }
                launch.lock_limit = process.and_then(QemuProcess::lock_limit);
                let host = |source: &'a HostSource| source.host_of(&launch);
                self.on_hosts(name, (GuestSource::Call(&call, &launch), None), host, process, &mut evaluated)
            }
            Err(error) => {
                self.outcome = Outcome::Failed;
                unreadable(name, Unreadable { at: Some(error.location), message: error.message });
                Ok(())
            }
        }
    }

    /// Evaluates a guest for each host, as `host` makes it of its source, or for all together. What it will be started from
    /// is `definition`, if that is not what it was read from.
    fn on_hosts(
        &mut self,
        name: &str,
        (guest, definition): (GuestSource<'_>, Option<GuestSource<'_>>),
        host: impl Fn(&'a HostSource) -> Cow<'a, Host>,
        process: Option<&QemuProcess>,
        evaluated: &mut impl FnMut(&Evaluated<'_>) -> Result<()>,
    ) -> Result<()> {
        if let Some(first) = self.sources.first().filter(|_| self.together) {
            let hosts: Vec<(&str, Cow<'_, Host>)> =
                self.sources.iter().map(|source| (source.label.as_str(), host(source))).collect();
            let named: Vec<(&str, &Host)> = hosts.iter().map(|(name, host)| (*name, &**host)).collect();
            let evaluation = evaluate_for_all(guest.subject(), &named, self.policy);
            let of_guest = OfGuest { name, guest, process, moving: None };
            return self.hand_over(of_guest, (first, &hosts[0].1), &evaluation, evaluated);
        }
        let from = self.from.map(|from| (from, host(from)));
        for source in self.sources {
            let host = host(source);
            if let Some((from, source_host)) = &from {
                let defined = definition.unwrap_or(guest);
                let (running, definition) = (guest.subject(), defined.subject());
                let migration = migrate(Journey { running, definition, from: source_host, to: &host }, self.policy);
                let moving = Some(Moving { migration: &migration, running: guest, from });
                let of_guest = OfGuest { name, guest: defined, process, moving };
                self.hand_over(of_guest, (source, &host), &migration.start, evaluated)?;
                continue;
            }
            let evaluation = evaluate(guest.subject(), &host, self.policy);
            let of_guest = OfGuest { name, guest, process, moving: None };
            self.hand_over(of_guest, (source, &host), &evaluation, evaluated)?;
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        OfGuest { name, guest, process, moving }: OfGuest<'_>,
        (source, host): (&HostSource, &Host),
        evaluation: &Evaluation,
        evaluated: &mut impl FnMut(&Evaluated<'_>) -> Result<()>,
    ) -> Result<()> {
        let stops = match moving {
            Some(moving) => moving.migration.outcome.needs_attention(),
            None => evaluation.verdict.stops(),
        };
        if stops {
            self.outcome = self.outcome.max(Outcome::Stopped);
        }
        let ignored = guest.domain().and_then(|domain| self.policy.refused_override(&domain.overrides));
        let process = process.map(|process| ProcessReport::new(process, evaluation, host));
        let (process, ignored) = (process.as_ref(), ignored.as_deref());
        let words = self.words.map_or_else(|| guest.subject().owner(), |Words(words)| words);
        evaluated(&Evaluated { name, guest, evaluation, source, host, process, ignored, words, moving })
    }
}

/// What is handed over of a guest, whatever the host.
struct OfGuest<'a> {
    name: &'a str,
    guest: GuestSource<'a>,
    process: Option<&'a QemuProcess>,
    moving: Option<Moving<'a>>,
}

/// Why a text is not a domain.
struct NotADomain {
    error: Unreadable,
    /// Whether it is other XML of libvirt's.
    is_other: bool,
}

fn read_domain(bytes: &[u8]) -> Result<(Document<'_>, Domain), NotADomain> {
    let document = Document::parse(bytes).map_err(|error| NotADomain {
        error: Unreadable { at: Some(error.location), message: error.message.into_owned() },
        is_other: false,
    })?;
    match domain::read(&document) {
        Ok(domain) => Ok((document, domain)),
        Err(error) => {
            let at = Some(document.location(error.span.start));
            let is_other = error.other.is_some();
            Err(NotADomain { error: Unreadable { at, message: error.to_string() }, is_other })
        }
    }
}
