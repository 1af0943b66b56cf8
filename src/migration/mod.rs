//! Whether a guest that runs on one host can move to another, and whether it could be started there.
//!
//! `virsh migrate` starts a QEMU on the destination with the XML of the running guest, and the source's QEMU copies memory
//! and the state of devices into it. The destination's libvirt runs its hook and validates the XML as it does at a start
//! (`qemuMigrationDstPrepareFresh` in libvirt `src/qemu/qemu_migration.c`; `qemuProcessStartValidate` in
//! `src/qemu/qemu_process.c`; both of 9.0 and 11.3). Nobody compares the two memory maps: QEMU sends RAM block by block,
//! by name and offset (`migration/ram.c`), so that a map that is another one on the destination is found out by the guest.
//!
//! Disks, networks, CPU features and all else that has nothing to do with the memory map are not looked at, nor are shared
//! memory (ivshmem), virtiofs and encrypted memory (`<launchSecurity>`), with which QEMU or libvirt may refuse.

mod guess;
mod source;

use self::guess::Guess;
use self::source::left_behind;
use crate::command_line::{Launch, Origin};
use crate::domain::{CpuMode, Domain};
use crate::evaluate::{Facts, diagnose};
use crate::finding::{Finding, Label, Severity};
use crate::guest::Subject;
use crate::host::Host;
use crate::policy::Policy;
use crate::qemu::layout::Layout;
use crate::rules;
use crate::text;
use crate::verdict::{Evaluation, evaluate};
use crate::xml::Span;

/// What becomes of a guest that is to move, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveOutcome {
    /// Not an x86 `pc` or `q35` guest of QEMU.
    NotApplicable,
    /// It moves, and could be started there.
    Migrates,
    /// It moves, and once it is off it does not start there.
    CannotStart,
    /// It stays where it is, and runs on.
    Refused,
    /// It moves, and its memory map or its CPU is another one afterwards.
    Breaks,
}

impl MoveOutcome {
    /// All of them, in the order of a summary.
    pub const ALL: [Self; 5] = [Self::Migrates, Self::CannotStart, Self::Refused, Self::Breaks, Self::NotApplicable];

    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplicable => "not-applicable",
            Self::Migrates => "migrates",
            Self::CannotStart => "cannot-start",
            Self::Refused => "refused",
            Self::Breaks => "breaks",
        }
    }

    /// Whether something has to be done before the guest is moved, or before it is started again.
    pub fn needs_attention(self) -> bool {
        matches!(self, Self::CannotStart | Self::Refused | Self::Breaks)
    }
}

/// Where a guest is refused, or what breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The host that it runs on.
    Source,
    /// The host that it is to move to.
    Destination,
}

impl Side {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What keeps a guest where it is, or breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// On which host that is.
    pub side: Side,
    /// The rule that says the same of a start; `None` for what only concerns a migration.
    pub rule: Option<&'static str>,
    /// What is wrong, in a line that fits a terminal.
    pub title: String,
    /// Why, and what comes of it.
    pub cause: Option<String>,
    /// The place in the XML of the running guest that decides.
    pub primary: Label,
    /// Other places that have to do with it.
    pub related: Vec<Label>,
}

impl Obstacle {
    fn new(side: Side, title: String, cause: &str, span: Span, label: String) -> Self {
        let primary = Label { span, text: label };
        Self { side, rule: None, title, cause: Some(cause.to_owned()), primary, related: Vec::new() }
    }

    /// What is wrong and why, in one line.
    pub fn message(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.title),
            None => self.title.clone(),
        }
    }
}

impl From<Finding> for Obstacle {
    fn from(finding: Finding) -> Self {
        let Finding { rule, title, cause, primary, related, .. } = finding;
        Self { side: Side::Destination, rule: Some(rule), title, cause, primary, related }
    }
}

/// A guest that is to move.
#[derive(Debug, Clone, Copy)]
pub struct Journey<'a> {
    /// The guest as it runs.
    pub running: Subject<'a>,
    /// What a start on the destination would read: the persistent definition, if that is another text.
    pub definition: Subject<'a>,
    /// The host that it runs on.
    pub from: &'a Host,
    /// The host that it is to move to.
    pub to: &'a Host,
}

/// What becomes of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Migration {
    /// That in a word.
    pub outcome: MoveOutcome,
    /// What keeps it where it is, or breaks it: what comes first, on the source before the destination, is what `virsh
    /// migrate` fails with.
    pub obstacles: Vec<Obstacle>,
    /// What that depends on, and what is good to know, a sentence each.
    pub notes: Vec<String>,
    /// What would become of the definition at a start on the destination.
    pub start: Evaluation,
}

/// Says what becomes of a guest that is to move.
pub fn migrate(journey: Journey<'_>, policy: &Policy) -> Migration {
    let Journey { running, definition, from, to } = journey;
    // A command line is read again at each start, with its alias.
    let meant = definition.machine().filter(|_| definition.domain().is_some());
    let defined = Arrived::new(definition, meant.map(|name| from.canonical_machine(name)));
    let start = evaluate(defined.subject(), to, policy);
    let here = diagnose(running, from, policy);
    if here.not_applicable.is_some() {
        return Migration { outcome: MoveOutcome::NotApplicable, obstacles: Vec::new(), notes: Vec::new(), start };
    }
    let mut notes = Vec::new();
    let arrived = Arrived::new(running, here.facts.machine.as_deref());
    if here.facts.machine.is_none() {
        notes.push("depends on the machine type that it runs with, which is unknown".to_owned());
    }
    if let Some(finding) = here.findings.iter().find(|finding| finding.severity == Severity::Error) {
        notes.push(format!("the source would not start it ({}); this is what happens if it runs there", finding.rule));
    }
    let there = diagnose(arrived.subject(), to, policy);

    let (mut obstacles, depends) = left_behind(running, &here.facts, from);
    let refuses = |finding: &&Finding| finding.severity == Severity::Error && !rules::by_policy(finding);
    obstacles.extend(there.findings.iter().filter(refuses).cloned().map(Obstacle::from));
    let guess_there = Guess::of(arrived.subject(), Side::Destination, to, &there.facts, policy);
    let guess = Guess::of(running, Side::Source, from, &here.facts, policy).or(guess_there);
    let vendors = changed(&here.facts.cpu_vendor, &there.facts.cpu_vendor).filter(|_| !guess.vendor);
    let spots = Spots::of(running);
    if let (Some(vendors), Some(true)) = (vendors, running.domain().map(demands_vendor)) {
        obstacles.push(spots.refused_vendor(vendors));
    }
    let mut changes = Vec::new();
    if obstacles.is_empty() {
        notes.extend(depends);
        notes.extend(there.assumptions.iter().filter(|assumption| !guess.covers(assumption)).cloned());
        notes.extend(guess.notes());
        changes = spots.changes(vendors, &here.facts, &there.facts, &guess);
        if !guess.bits
            && let (Some(before), Some(after)) = (here.facts.phys_bits, there.facts.phys_bits)
            && after > before
        {
            notes.push(format!(
                "its CPU has {before} physical address bits on the source and {after} on the destination"
            ));
        }
    } else if obstacles.iter().all(|obstacle| obstacle.side == Side::Destination) {
        notes.extend(there.assumptions.iter().cloned());
    }
    let outcome = match (obstacles.is_empty(), changes.is_empty()) {
        (false, _) => MoveOutcome::Refused,
        (true, false) => MoveOutcome::Breaks,
        (true, true) if start.verdict.stops() => MoveOutcome::CannotStart,
        (true, true) => MoveOutcome::Migrates,
    };
    obstacles.append(&mut changes);
    Migration { outcome, obstacles, notes, start }
}

/// A guest as the destination gets it: libvirt records what an alias means when the guest is defined
/// (`virQEMUCapsGetCanonicalMachine`), and QEMU on the destination has to build the same machine.
enum Arrived<'a> {
    Same(Subject<'a>),
    Domain(Box<Domain>),
    Launch(Box<Launch>),
}

impl<'a> Arrived<'a> {
    fn new(running: Subject<'a>, canonical: Option<&str>) -> Self {
        let alias = running.machine().filter(|name| canonical.is_some_and(|canonical| canonical != *name));
        let (Some(canonical), Some(_)) = (canonical, alias) else { return Self::Same(running) };
        match running {
            Subject::Domain(domain) => {
                let mut domain = Box::new(domain.clone());
                domain.machine.iter_mut().for_each(|machine| canonical.clone_into(&mut machine.value));
                Self::Domain(domain)
            }
            Subject::Launch(launch) => {
                let mut launch = Box::new(launch.clone());
                launch.line.machine.kind.iter_mut().for_each(|kind| canonical.clone_into(&mut kind.value));
                Self::Launch(launch)
            }
        }
    }

    fn subject(&self) -> Subject<'_> {
        match self {
            Self::Same(subject) => *subject,
            Self::Domain(domain) => (&**domain).into(),
            Self::Launch(launch) => (&**launch).into(),
        }
    }
}

/// Whether the destination's libvirt compares the CPU's vendor with its host's: host-model runs as a model with all its
/// features, `<vendor>` is compared unless `check='none'` says otherwise (`virCPUx86Compare` in `src/cpu/cpu_x86.c`).
fn demands_vendor(domain: &Domain) -> bool {
    domain.cpu.as_ref().is_some_and(|cpu| {
        let checks = cpu.check.as_ref().is_none_or(|check| check.value != "none");
        cpu.mode == CpuMode::HostModel || (cpu.vendor.is_some() && checks)
    })
}

/// Where in its text a guest says what its CPU and its machine are.
struct Spots {
    cpu: Span,
    machine: Span,
}

impl Spots {
    fn of(running: Subject<'_>) -> Self {
        let written = match running {
            Subject::Domain(domain) => domain.cpu.as_ref().map(|cpu| cpu.span),
            Subject::Launch(launch) => launch.line.cpu.as_ref().map(|cpu| cpu.origin).map(Origin::span),
        };
        let whole = running.span();
        Self { cpu: written.unwrap_or(whole), machine: running.machine_span().unwrap_or(whole) }
    }

    /// That libvirt compares the CPU's vendor with the host's.
    fn refused_vendor(&self, (before, after): (&str, &str)) -> Obstacle {
        let title = format!("libvirt refuses the guest: its CPU is one of {before}, and the host's is one of {after}");
        let cause = "it compares the CPU that the guest runs with";
        Obstacle::new(Side::Destination, title, cause, self.cpu, format!("{before} on the source"))
    }

    /// What of the guest is not the same on the destination.
    fn changes(&self, vendors: Option<(&str, &str)>, here: &Facts, there: &Facts, guess: &Guess) -> Vec<Obstacle> {
        let mut changes = Vec::new();
        if let Some((before, after)) = vendors {
            // Under KVM it is the host's (`host_cpu_instance_init` in QEMU `target/i386/host-cpu.c`), and CPUID is not in
            // the migration stream.
            let title = format!("the guest's CPU vendor changes from {before} to {after}");
            let cause = "libvirt refuses that only if it misses a CPU feature, and no operating system expects it";
            changes.push(Obstacle::new(Side::Destination, title, cause, self.cpu, format!("{before} on the source")));
        }
        // Another vendor's CPU is another one in every way.
        if vendors.is_none()
            && !guess.bits
            && let (Some(before), Some(after)) = (here.phys_bits, there.phys_bits)
            && after < before
        {
            let title = format!("the guest's CPU has {before} physical address bits, and {after} on the destination");
            let cause = "neither libvirt nor QEMU compares them; addresses that the guest uses may no longer be valid";
            let label = format!("gives {before} bits on the source");
            changes.push(Obstacle::new(Side::Destination, title, cause, self.cpu, label));
        }
        if guess.map {
            return changes;
        }
        if let (Some(before), Some(after)) = (&here.layout, &there.layout)
            && let Some(what) = moved(before, after)
        {
            let cause = "QEMU does not compare the maps: the migration ends well, and the guest finds other memory than \
                         it was told of";
            let title = format!("the memory map changes: {what}");
            changes.push(Obstacle::new(Side::Destination, title, cause, self.machine, "builds both maps".to_owned()));
        } else if here.layout.is_some() && there.layout.is_some() && here.memory_devices != there.memory_devices {
            let title = "memory devices are at other addresses on the destination".to_owned();
            let cause = "their addresses are not written down; the XML of a running guest has them";
            changes.push(Obstacle::new(Side::Destination, title, cause, self.machine, "builds both maps".to_owned()));
        }
        changes
    }
}

/// The vendor of the guest's CPU on the source and on the destination, if it is another one.
fn changed<'f>(before: &'f Option<String>, after: &'f Option<String>) -> Option<(&'f str, &'f str)> {
    before.as_deref().zip(after.as_deref()).filter(|(before, after)| before != after)
}

/// The first part of the map that is not where it was.
fn moved(before: &Layout, after: &Layout) -> Option<String> {
    let shown = |range: Option<crate::address::GpaRange>| range.map_or_else(|| "nowhere".to_owned(), text::range);
    let parts = [
        ("RAM below 4 GiB", Some(before.ram_below_4g), Some(after.ram_below_4g)),
        ("RAM above 4 GiB", before.ram_above_4g, after.ram_above_4g),
        ("device memory", before.device_memory, after.device_memory),
        ("the PCI hole", before.pci_hole64, after.pci_hole64),
    ];
    let other = parts.into_iter().find(|(_, before, after)| before != after);
    other.map(|(part, before, after)| {
        format!("{part} is {} on the source and {} on the destination", shown(before), shown(after))
    })
}

#[cfg(test)]
mod tests;
