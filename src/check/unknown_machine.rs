//! A guest whose machine type is not known: an alias on a host whose QEMU is not known, or a name that may be newer than
//! this program. It is judged as an old and as a new type, and what both say is certain.

use super::{Evaluation, NEWEST_QEMU, Verdict, known_machine, nothing_known};
use crate::domain::Domain;
use crate::finding::{Finding, Severity};
use crate::host::Host;
use crate::policy::Policy;
use crate::qemu::machine::{FIRST_ENFORCING, Family, Flavor, MachineType};
use crate::rules;
use crate::text::quoted;
use crate::version::Version;

/// A name that is not in the tables of machine types.
pub(super) struct Unknown {
    /// The chipset, where the name tells.
    pub family: Option<Family>,
    /// The name.
    pub name: String,
    /// Whether it is an alias, which leads to some type that exists.
    pub alias: bool,
}

/// The newest type that does not move RAM stands for all of them.
const OLD: Version = Version::new(7, 0);

pub(super) fn judge(domain: &Domain, host: &Host, policy: &Policy, unknown: &Unknown) -> Evaluation {
    // A name that is no alias and not in the list of a host that is known leads nowhere.
    let listed = host.machines.contains(&unknown.name);
    if !unknown.alias && !host.machines.is_empty() && !listed {
        return not_available(domain, unknown);
    }
    let Some(family) = unknown.family else {
        let mut evaluation = nothing_known(Verdict::Warn);
        let said = finding(domain, unknown, listed, Severity::Warning, "nothing can be said of the guest");
        evaluation.findings.push(said);
        return evaluation;
    };
    let like = |version: Version| MachineType {
        name: unknown.name.clone(),
        family,
        flavor: Flavor::Upstream,
        version,
        enforces_amd_1tb_hole: version >= FIRST_ENFORCING,
        host_phys_bits_limit: None,
    };
    // The list of the host's machine types has no part in this: the name is not resolved.
    let host = &Host { machines: Vec::new(), ..host.clone() };
    let old = known_machine(domain, host, policy, &like(OLD));
    let new = known_machine(domain, host, policy, &like(NEWEST_QEMU));

    let same_map = new.facts.layout == old.facts.layout;
    let same_fate = new.verdict.stops() == old.verdict.stops();
    // A name that nobody knows may lead nowhere.
    let harmless = unknown.alias && new.verdict == old.verdict;
    let mut evaluation = what_both_say(&old, &new);
    evaluation.facts.phys_bits_needed = new.facts.phys_bits_needed.max(old.facts.phys_bits_needed);
    evaluation.facts.machine = (!unknown.alias).then(|| unknown.name.clone());
    evaluation.facts.enforces_amd_1tb_hole = None;
    let consequence = match (same_fate, same_map) {
        (true, true) => "it makes no difference to this guest",
        (true, false) => "where RAM above 4 GiB lies depends on it, whether the guest starts does not",
        (false, _) => "whether the guest starts depends on it",
    };
    if !same_fate {
        evaluation.assumptions.push("depends on the machine type, which is not known here".to_owned());
    }
    if !same_map {
        evaluation.facts.layout = None;
        evaluation.facts.memory_devices.clear();
        let possible = [("with a type older than 7.1", old), ("with 7.1 or newer", new)];
        evaluation.hypotheses = possible
            .map(|(what, then)| {
                (format!("{what}: {}", if then.verdict.stops() { "fails" } else { "starts" }), then.facts)
            })
            .into();
    }
    if !harmless && !evaluation.verdict.stops() {
        evaluation.verdict = Verdict::Warn;
    }
    let severity = if harmless { Severity::Note } else { Severity::Warning };
    evaluation.findings.insert(0, finding(domain, unknown, listed, severity, consequence));
    evaluation
}

/// The better of both evaluations, with the findings that are certain.
fn what_both_say(old: &Evaluation, new: &Evaluation) -> Evaluation {
    let (better, other) = if new.verdict.stops() { (old, new) } else { (new, old) };
    let mut evaluation = better.clone();
    evaluation.findings.retain(|finding| other.findings.iter().any(|same| same.rule == finding.rule));
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    if evaluation.verdict.stops() && !evaluation.findings.iter().any(|finding| is_error(&finding)) {
        // It stops either way, for different reasons.
        let either = better.findings.iter().chain(&other.findings).filter(is_error);
        evaluation.findings.extend(either.map(|finding| Finding {
            title: format!("with some machine types: {}", finding.title),
            ..finding.clone()
        }));
    }
    evaluation
}

fn not_available(domain: &Domain, unknown: &Unknown) -> Evaluation {
    let mut evaluation = nothing_known(Verdict::Blocked);
    evaluation.facts.machine = Some(unknown.name.clone());
    evaluation.facts.family = unknown.family;
    let shown = quoted(&unknown.name);
    let title = format!("libvirt refuses the guest: the host's QEMU does not have machine type {shown}");
    let span = domain.machine.as_ref().map_or(domain.span, |machine| machine.span);
    let label = "the host's QEMU has no such type";
    evaluation.findings.push(Finding::new(rules::MACHINE_TYPE_NOT_AVAILABLE, Severity::Error, title, span, label));
    evaluation
}

/// What there is to say of the type; `listed` is whether the host's QEMU has it.
fn finding(domain: &Domain, unknown: &Unknown, listed: bool, severity: Severity, consequence: &str) -> Finding {
    let shown = quoted(&unknown.name);
    let title = match (unknown.alias, domain.machine.is_some()) {
        (true, true) => format!("what machine type {shown} is an alias of is up to the host's QEMU"),
        (true, false) => "the machine type is up to the host's QEMU".to_owned(),
        (false, _) if listed => format!("machine type {shown} is not known to this program"),
        (false, _) => format!("machine type {shown} is not known: it may be newer than this program"),
    };
    let remedy =
        if unknown.alias { "; a host profile with [qemu.aliases], or a type by its full name, tells" } else { "" };
    let span = domain.machine.as_ref().map_or(domain.span, |machine| machine.span);
    Finding::new(rules::UNKNOWN_MACHINE_TYPE, severity, title, span, "not known")
        .because(format!("{consequence}{remedy}"))
}
