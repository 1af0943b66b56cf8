//! The service: one thread that waits for events and works through the agenda. libvirt's event loop and the signals
//! have threads of their own and only send messages.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use iova_preflight::advice::{advise, place};
use iova_preflight::decision::is_exempt;
use iova_preflight::finding::Severity;
use iova_preflight::policy::{OwnedPolicy, Policy};
use iova_preflight::report::metrics::LeftAlone;
use iova_preflight::text::shell_word;
use iova_preflight::verdict::Verdict;

use super::agenda::{Agenda, Fingerprint, Next, Permission};
use super::backoff::Backoff;
use super::journal::{Journal, Priority};
use super::manager::{Manager, on_stop};
use super::metrics::Metrics;
use crate::args::WatchArgs;
use crate::connected::live::events::{self, Event};
use crate::connected::live::{Definition, Session};
use crate::connected::redefine::{Definitions, Failure};
use crate::connected::redefinition::{NotRedefined, Redefinable, Redefinition, Room};
use crate::input::Input;
use crate::input::evaluator::{Evaluated, Evaluator};
use crate::input::host::HostSource;
use crate::input::policy::ChosenPolicy;
use crate::outcome::Outcome;

/// How often every guest is checked without an event: libvirt sends none for a device added to a definition.
const ROUND: Duration = Duration::from_secs(600);

/// The limits of replaced definitions that are kept: every guest of a large host, several times. Without limits, users
/// who may define guests could fill the disk.
const ROOM: Room = Room { files: 4096, bytes: 256 * 1024 * 1024 };

/// A wait that is shorter than this is part of the work.
const SOON: Duration = Duration::from_secs(1);

/// A message from the other threads.
enum Wakeup {
    /// The process is asked to end.
    Stop,
    /// An event of libvirt, on the connection of this generation.
    Libvirt(usize, Event),
}

/// Why a connection is over.
enum Over {
    /// The process is asked to end.
    Stop,
    /// libvirt is gone, and why if that is known.
    Lost(Option<anyhow::Error>),
}

/// Watches until it is asked to end.
pub(crate) fn run(args: &WatchArgs) -> Result<Outcome> {
    let policy = ChosenPolicy::choose(args.policy.as_deref())?.policy;
    // A profile that cannot be read is to be known now, not at the first connection.
    args.host.as_deref().map(|host| HostSource::choose(Some(host))).transpose()?;
    let (sender, messages) = mpsc::channel();
    let stop = sender.clone();
    // Without a receiver, the process is ending.
    on_stop(move || drop(stop.send(Wakeup::Stop)))?;
    events::start(move |generation, event| drop(sender.send(Wakeup::Libvirt(generation, event))))?;
    let journal = Journal::new();
    let metrics = Metrics::new(args.metrics.as_deref(), &args.connect);
    let (manager, agenda) = (Manager::new(), Agenda::default());
    let watch = Service { args, policy: &policy, messages, journal, manager, metrics, agenda };
    watch.run();
    Ok(Outcome::Clean)
}

/// A guest that is looked at.
struct Case<'a> {
    uuid: &'a str,
    xml: &'a str,
    source: &'a HostSource,
    definition: &'a mut Definition,
}

struct Service<'a> {
    args: &'a WatchArgs,
    policy: &'a Policy,
    messages: Receiver<Wakeup>,
    journal: Journal,
    manager: Manager,
    metrics: Metrics<'a>,
    agenda: Agenda,
}

impl Service<'_> {
    /// Connects again and again.
    fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut complained = String::new();
        for generation in 1.. {
            let connected = Instant::now();
            let over = match Session::open(&self.args.connect, self.policy.watch.rewrite, generation) {
                Ok(session) => {
                    complained.clear();
                    self.metrics.connected(true);
                    self.session(&session, generation)
                }
                Err(error) => Over::Lost(Some(error)),
            };
            self.metrics.connected(false);
            self.write_metrics();
            let Over::Lost(why) = over else { break };
            let why = why.map_or_else(|| "the connection was closed".to_owned(), |error| format!("{error:#}"));
            if why != complained {
                let line = format!("{}: {why}; retrying until it answers", self.args.connect);
                self.journal.line(Priority::Error, &line);
                complained.clone_from(&why);
            }
            self.manager.status(format!("waiting for {}: {why}", self.args.connect));
            // A libvirt that comes later is not a reason to fail.
            self.manager.ready();
            let wait = backoff.after(connected.elapsed());
            if self.rest(wait) {
                break;
            }
        }
        self.manager.stopping();
        self.journal.line(Priority::Info, "stopped");
    }

    /// Waits; true if the process is asked to end meanwhile. Events of libvirt are dropped: they belong to a connection
    /// that is over.
    fn rest(&mut self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            self.manager.beat();
            match self.receive(end) {
                Some(Wakeup::Stop) => return true,
                Some(Wakeup::Libvirt(..)) => {}
                None if Instant::now() >= end => return false,
                None => {}
            }
        }
    }

    /// The next message; none if there is none until `end`, or until the next sign of life is due.
    fn receive(&self, end: Instant) -> Option<Wakeup> {
        let until_end = end.saturating_duration_since(Instant::now());
        let wait = self.manager.interval().map_or(until_end, |interval| until_end.min(interval / 2));
        match self.messages.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            // The thread that waits for signals has one end of the channel and never lets go of it.
            Err(RecvTimeoutError::Disconnected) => Some(Wakeup::Stop),
        }
    }

    /// Works as long as libvirt is there.
    fn session(&mut self, session: &Session, generation: usize) -> Over {
        let mut source = None;
        let mut round = Instant::now();
        let mut first = true;
        loop {
            self.manager.beat();
            let now = Instant::now();
            if now >= round {
                // The installed QEMU may have changed as well.
                match self.begin_round(session, now) {
                    Ok(found) => source = Some(found),
                    Err(error) => return Over::Lost(Some(error)),
                }
                round = now + ROUND;
            }
            // Events come before work.
            let mut wait = match self.agenda.next(now) {
                Next::Look(uuid) => {
                    if let Some(source) = &source
                        && let Err(error) = self.look(session, source, &uuid)
                    {
                        if !session.is_alive() {
                            return Over::Lost(Some(error));
                        }
                        self.agenda.failed(&uuid);
                        self.say(&uuid, Priority::Error, &format!("guest {uuid}: {error:#}"));
                    }
                    now
                }
                Next::WaitUntil(then) if then < now + SOON => then,
                next => {
                    self.settle(std::mem::take(&mut first));
                    if let Next::WaitUntil(then) = next { then.min(round) } else { round }
                }
            };
            if self.metrics.is_due() {
                self.write_metrics();
            }
            while let Some(message) = self.receive(wait) {
                match message {
                    Wakeup::Stop => return Over::Stop,
                    Wakeup::Libvirt(of, _) if of != generation => {}
                    Wakeup::Libvirt(_, Event::Closed) => return Over::Lost(None),
                    Wakeup::Libvirt(_, Event::Defined(uuid)) => self.agenda.defined(&uuid, Instant::now()),
                    Wakeup::Libvirt(_, Event::Undefined(uuid)) => self.agenda.gone(&uuid, Instant::now()),
                }
                // There is work to do; waiting events come first.
                wait = Instant::now();
            }
        }
    }

    /// Puts every guest on the agenda, and detects the host.
    fn begin_round(&mut self, session: &Session, now: Instant) -> Result<HostSource> {
        let (host, is_local) = session.host()?;
        let networks = host.networks.clone();
        let source = match self.args.host.as_deref() {
            Some(host) => HostSource::choose(Some(host))?,
            None if is_local => HostSource::this(),
            None => HostSource::told(&self.args.connect, host),
        };
        let source = source.with_networks(networks);
        let guests = session.guests()?;
        if guests.is_empty() {
            self.metrics.evaluated();
        }
        self.agenda.all(guests, now);
        Ok(source)
    }

    /// Reports the state once there is nothing to do.
    fn settle(&mut self, first: bool) {
        let tally = self.agenda.tally();
        let (fixable, blocked) = (tally.of(Verdict::Fixable), tally.of(Verdict::Blocked));
        let text = format!("{} guests, {fixable} fixable, {blocked} blocked", tally.guests);
        if first {
            let rewrites = if self.policy.watch.rewrite { "fixing guests automatically" } else { "reporting only" };
            self.journal.line(Priority::Info, &format!("watching {}: {text}; {rewrites}", self.args.connect));
        }
        self.manager.status(text);
        // The metrics exist once the service reports that it is ready.
        self.write_metrics();
        self.manager.ready();
    }

    /// Writes the metrics, if they are wanted.
    fn write_metrics(&mut self) {
        if let Some(line) = self.metrics.write(&self.agenda) {
            self.journal.line(Priority::Error, &line);
        }
    }

    /// Evaluates a guest, and rewrites it if that is wanted.
    fn look(&mut self, session: &Session, source: &HostSource, uuid: &str) -> Result<()> {
        let Some(mut definition) = session.definition(uuid)? else {
            self.agenda.gone(uuid, Instant::now());
            return Ok(());
        };
        let name = definition.name()?;
        if is_exempt(self.policy, &name, Some(uuid)) {
            self.agenda.exempt(uuid);
            return Ok(());
        }
        let xml = definition.read()?;
        let mut case = Case { uuid, xml: &xml, source, definition: &mut definition };
        let mut unreadable = None;
        let mut evaluator = Evaluator::new(std::slice::from_ref(source), self.policy);
        evaluator.each(
            Input::Live(name, xml.clone().into_bytes()),
            |evaluated| self.evaluated(evaluated, &mut case),
            |name, error| unreadable = Some(format!("guest {name}: the definition cannot be evaluated: {error}")),
        )?;
        if let Some(line) = unreadable {
            self.agenda.failed(uuid);
            self.say(uuid, Priority::Error, &line);
        }
        self.metrics.evaluated();
        Ok(())
    }

    fn evaluated(&mut self, evaluated: &Evaluated<'_>, case: &mut Case<'_>) -> Result<()> {
        let (name, evaluation) = (evaluated.name, evaluated.evaluation);
        if self.agenda.found(case.uuid, Fingerprint::of(case.xml), evaluation.verdict, Instant::now()) {
            let line = format!(
                "guest {name} was also defined by someone else while it was rewritten; that change may be lost"
            );
            self.journal.line(Priority::Warning, &line);
        }
        let is_news = self.agenda.is_newly_ignored(case.uuid, evaluated.ignored);
        if let Some(ignored) = evaluated.ignored.filter(|_| is_news) {
            self.journal.line(Priority::Warning, &format!("guest {name}: {ignored}"));
        }
        let worst = evaluation.findings.iter().max_by_key(|finding| finding.severity);
        let title = worst.map_or("", |finding| finding.title.as_str());
        let Some(fix) = &evaluation.fix else {
            let mut tried = evaluation.tried.join("; ");
            if let Some(owner) = evaluated.owner() {
                tried = format!("{tried}; {}", place(owner));
            }
            match evaluation.verdict {
                Verdict::Blocked => {
                    self.say(case.uuid, Priority::Warning, &format!("guest {name}: blocked: {title}; {tried}"));
                }
                Verdict::Warn if worst.is_some_and(|finding| finding.severity >= Severity::Warning) => {
                    self.say(case.uuid, Priority::Info, &format!("guest {name}: warn: {title}"));
                }
                _ => self.agenda.is_well(case.uuid),
            }
            return Ok(());
        };
        let changes = fix.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let owner = evaluated.owner().filter(|_| self.policy.owned == OwnedPolicy::Leave);
        let helps = match owner {
            Some(owner) => {
                let steps = advise(owner, evaluated.guest.subject(), fix).steps.join("; ");
                format!("guest {name}: fixable: {title}; {}: {steps}", place(owner))
            }
            None => format!(
                "guest {name}: fixable: {title}; fix: {changes} with `iova-preflight fix --connect {} --domain {}`",
                shell_word(&self.args.connect),
                shell_word(name)
            ),
        };
        // A rewrite is lost when the guest's owner starts it.
        if !self.policy.watch.rewrite || owner.is_some() {
            let reason = if owner.is_some() { LeftAlone::Owner } else { LeftAlone::Policy };
            self.agenda.left_alone(case.uuid, reason);
            self.say(case.uuid, Priority::Warning, &helps);
        } else if let Some(assumption) = evaluation.assumptions.first().or(fix.assumption.as_ref()) {
            // A person may know what is unknown here.
            self.agenda.left_alone(case.uuid, LeftAlone::UnknownFact);
            let line = format!("{helps}; not rewritten automatically, because that {assumption}");
            self.say(case.uuid, Priority::Warning, &line);
        } else {
            match self.agenda.may_rewrite(case.uuid, Fingerprint::of(case.xml), Instant::now()) {
                Permission::Granted => self.rewrite(case, name, &evaluated.guest.rewritten(fix)?, &changes, &helps)?,
                Permission::Hopeless => {}
                Permission::Exhausted => {
                    let line = format!("{helps}; rewritten too often; not rewriting it again for some minutes");
                    self.say(case.uuid, Priority::Error, &line);
                }
            }
        }
        Ok(())
    }

    /// Rewrites a guest, and says how that ended.
    fn rewrite(&mut self, case: &mut Case<'_>, name: &str, new: &str, changes: &str, helps: &str) -> Result<()> {
        let (source, backup) = (case.source, self.args.backup.as_deref());
        let redefinition = Redefinition { source, policy: self.policy, backup, force: false, room: Some(ROOM) };
        match redefinition.make(case.definition, case.xml, new) {
            Ok(redefined) => {
                self.agenda.rewritten(case.uuid, Fingerprint::of(&redefined.now));
                self.metrics.redefined();
                let is_running = case.definition.is_running();
                let running =
                    if is_running { "; it is running; the change takes effect at its next cold start" } else { "" };
                let backup = redefined.backup.display();
                let line = format!(
                    "guest {name} is redefined: {changes}; the previous definition is saved in {backup}{running}"
                );
                self.journal.line(Priority::Notice, &line);
                Ok(())
            }
            // There is or will be an event that leads here again.
            Err(NotRedefined { failure: Failure::ChangedMeanwhile | Failure::Overtaken, .. }) => Ok(()),
            Err(
                not @ NotRedefined {
                    failure: Failure::Unreadable(_) | Failure::NotReadBack(_) | Failure::Unanswered(_),
                    ..
                },
            ) => Err(anyhow!("{}", not.told(&self.args.connect, name))),
            Err(not) => {
                let failure = &not.failure;
                if matches!(failure, Failure::Full(_)) {
                    self.agenda.not_rewritten(case.uuid);
                }
                self.agenda.left_alone(case.uuid, LeftAlone::Failed);
                if failure.is_final() {
                    self.agenda.hopeless(case.uuid, Fingerprint::of(case.xml));
                }
                let told = not.told(&self.args.connect, name);
                self.say(case.uuid, Priority::Error, &format!("{helps}; {told}"));
                Ok(())
            }
        }
    }

    /// Reports a message about a guest, unless it was the last one about it.
    fn say(&mut self, uuid: &str, priority: Priority, line: &str) {
        if self.agenda.is_news(uuid, line) {
            self.journal.line(priority, line);
        }
    }
}
