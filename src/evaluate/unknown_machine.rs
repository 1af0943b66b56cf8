//! A guest whose machine type is not known: an alias on a host whose QEMU is not known, or a name that may be newer
//! than this program. It is evaluated as an old and as a new type, and what both say is certain.

use std::borrow::Cow;

use super::{Diagnosis, Fate, Question, known_machine, nothing_known};
use crate::finding::{Finding, Severity};
use crate::guest::Subject;
use crate::host::Host;
use crate::machine::{FIRST_ENFORCING, Family, Flavor, MachineType, NEWEST, Resolved, resolve};
use crate::rules::{machine_type_not_available, unknown_machine_type};
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

/// The newest type that does not move RAM represents all of them.
const OLD: Version = Version::new(7, 0);

pub(super) fn diagnose(question: Question<'_>, unknown: &Unknown) -> Diagnosis {
    let Question { subject, host, .. } = question;
    // A name that is not an alias and not in the list of a host that is known leads nowhere.
    let listed = host.machines.contains(&unknown.name);
    if !unknown.alias && !host.machines.is_empty() && !listed {
        return not_available(subject, unknown);
    }
    let Some(family) = unknown.family else {
        let mut diagnosis = nothing_known(Fate::Warn);
        let said = finding(subject, unknown, listed, Severity::Warning, "the guest cannot be evaluated");
        diagnosis.findings.push(said);
        return diagnosis;
    };
    let like = |version: Version| MachineType {
        name: unknown.name.clone(),
        family,
        flavor: Flavor::Upstream,
        version,
        enforces_amd_1tb_hole: version >= FIRST_ENFORCING,
        host_phys_bits_limit: None,
    };
    // Whatever it is, the host's QEMU has it.
    let has_types = host.qemu.is_some() || !host.machines.is_empty();
    let host = match has_types {
        true => Cow::Owned(Host { machines: vec![unknown.name.clone()], ..host.clone() }),
        false => Cow::Borrowed(host),
    };
    let question = Question { host: &host, ..question };
    let old = known_machine(question, &like(OLD));
    let new = known_machine(question, &like(NEWEST));

    let same_map = new.facts.layout == old.facts.layout;
    let same_fate = new.stops() == old.stops();
    // An unknown name may not exist at all.
    let harmless = unknown.alias && new.fate == old.fate;
    let mut diagnosis = what_both_say(&old, &new);
    diagnosis.facts.phys_bits_needed = new.facts.phys_bits_needed.max(old.facts.phys_bits_needed);
    diagnosis.facts.machine = (!unknown.alias).then(|| unknown.name.clone());
    diagnosis.facts.enforces_amd_1tb_hole = None;
    let consequence = match (same_fate, same_map) {
        (true, true) => "it makes no difference to this guest",
        (true, false) => "where RAM above 4 GiB lies depends on it, but whether the guest starts does not",
        (false, _) => "whether the guest starts depends on it",
    };
    if !same_fate {
        diagnosis.assumptions.push("depends on the machine type, which is unknown".to_owned());
    }
    if !same_map {
        diagnosis.facts.layout = None;
        diagnosis.facts.memory_devices.clear();
        let possible = [("with a type older than 7.1", old), ("with 7.1 or newer", new)];
        diagnosis.hypotheses = possible
            .map(|(what, then)| (format!("{what}: {}", if then.stops() { "fails" } else { "starts" }), then.facts))
            .into();
    }
    if !harmless && !diagnosis.stops() {
        diagnosis.fate = Fate::Warn;
    }
    let severity = if harmless { Severity::Note } else { Severity::Warning };
    diagnosis.findings.insert(0, finding(subject, unknown, listed, severity, consequence));
    diagnosis
}

/// A guest whose machine type is the alias `name`, which means the newest type of its family, because the policy says
/// so: the newest of those that the host's QEMU is known to have, or else that of its version.
pub(super) fn diagnose_newest(question: Question<'_>, family: Family, name: &str) -> Diagnosis {
    let Question { subject, host, .. } = question;
    let listed = host.machines.iter().filter_map(|listed| match resolve(listed) {
        Resolved::Known(machine) if machine.family == family => Some(machine),
        _ => None,
    });
    let version = host.qemu.map_or(NEWEST, |qemu| Version::new(qemu.major, qemu.minor).min(NEWEST));
    let newest = listed.max_by_key(|machine| machine.version).unwrap_or_else(|| MachineType {
        name: format!("pc-{}-{}.{}", family.name(), version.major, version.minor),
        family,
        flavor: Flavor::Upstream,
        version,
        enforces_amd_1tb_hole: version >= FIRST_ENFORCING,
        host_phys_bits_limit: None,
    });
    let mut diagnosis = known_machine(question, &newest);
    let title = format!("machine type {} is treated as {}, the newest", quoted(name), newest.name);
    let span = subject.machine_span().unwrap_or(subject.span());
    let said = Finding::new(unknown_machine_type::RULE.id, Severity::Note, title, span, "an alias")
        .because("which one it is depends on the host's QEMU; the policy says alias = \"newest\"");
    diagnosis.findings.insert(0, said);
    diagnosis
}

/// The better of both diagnoses, with the findings that are certain, and those that are true one way or the other.
fn what_both_say(old: &Diagnosis, new: &Diagnosis) -> Diagnosis {
    let (better, other) = if new.stops() { (old, new) } else { (new, old) };
    let has = |diagnosis: &Diagnosis, finding: &Finding| {
        diagnosis.findings.iter().any(|same| (same.rule, same.range) == (finding.rule, finding.range))
    };
    let mut diagnosis = better.clone();
    diagnosis.findings.retain(|finding| has(other, finding));
    // The same rule finds something either way, but not the same; or it stops either way, for different reasons.
    let by_both = |rule| [old, new].iter().all(|one| one.findings.iter().any(|finding| finding.rule == rule));
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    let certainly_stopped = better.findings.iter().any(|finding| is_error(finding) && by_both(finding.rule));
    let one_way = [(better, other), (other, better)]
        .into_iter()
        .flat_map(|(one, another)| one.findings.iter().filter(move |finding| !has(another, finding)));
    let told =
        one_way.filter(|finding| by_both(finding.rule) || (better.stops() && !certainly_stopped && is_error(finding)));
    diagnosis.findings.extend(
        told.map(|finding| Finding { title: format!("with some machine types: {}", finding.title), ..finding.clone() }),
    );
    diagnosis
}

fn not_available(subject: Subject<'_>, unknown: &Unknown) -> Diagnosis {
    let mut diagnosis = nothing_known(Fate::Stopped);
    diagnosis.facts.machine = Some(unknown.name.clone());
    diagnosis.facts.family = unknown.family;
    let shown = quoted(&unknown.name);
    let title = format!("{}: the host's QEMU does not have machine type {shown}", subject.refuser());
    let span = subject.machine_span().unwrap_or(subject.span());
    let label = "the host's QEMU has no such type";
    diagnosis.findings.push(Finding::new(machine_type_not_available::RULE.id, Severity::Error, title, span, label));
    diagnosis
}

/// Whether a future QEMU may have a type of this name: not if the name ends in a known or older version.
fn may_be_newer(name: &str) -> bool {
    let version = name.rsplit('-').next().unwrap_or(name);
    let is_number = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !is_number || version.parse::<Version>().map_or(true, |version| version > NEWEST)
}

/// The label for the type; `listed` is whether the host's QEMU has it.
fn finding(subject: Subject<'_>, unknown: &Unknown, listed: bool, severity: Severity, consequence: &str) -> Finding {
    let shown = quoted(&unknown.name);
    let title = match (unknown.alias, subject.machine_span().is_some()) {
        (true, true) => format!("the meaning of machine type {shown} depends on the host's QEMU"),
        (true, false) => "no machine type is given: which it is depends on the host's QEMU".to_owned(),
        (false, _) if listed => format!("machine type {shown} is unknown to this program"),
        (false, _) if may_be_newer(&unknown.name) => {
            format!("machine type {shown} is unknown: it may be newer than this program")
        }
        (false, _) => {
            format!("machine type {shown} is unknown: no QEMU up to {}.{} has it", NEWEST.major, NEWEST.minor)
        }
    };
    let remedy = if unknown.alias { "; give the type's full name, or a host profile with [qemu.aliases]" } else { "" };
    let span = subject.machine_span().unwrap_or(subject.span());
    Finding::new(unknown_machine_type::RULE.id, severity, title, span, "unknown")
        .because(format!("{consequence}{remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::evaluate::diagnose;
    use crate::policy::Policy;
    use crate::xml::Document;

    const HT: &str = "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n[iommu]\nkind = 'amd'\n\
        [[iommu.reserved]]\nstart = 0xfd00000000\nend = 0xffffffffff\ntype = 'reserved'\n";

    /// A guest of 1200 GiB with a device, or without one, whose machine type is not in the tables.
    fn diagnosed(machine: &str, device: bool, more: &str) -> Diagnosis {
        let host = Host::from_profile(&format!("{HT}{more}")).expect("a profile");
        let device = if device { "<hostdev type='pci'><source><address bus='1'/></source></hostdev>" } else { "" };
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>1200</memory><os><type machine='{machine}'>hvm</type></os>\
             <cpu><maxphysaddr mode='emulate' bits='42'/></cpu><devices>{device}</devices></domain>"
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        diagnose(&domain::read(&document).expect("a domain"), &host, &Policy::default())
    }

    /// An alias leads to a type that the host's QEMU has, however old that QEMU is.
    #[test]
    fn a_known_qemu_does_not_make_an_alias_unavailable() {
        let diagnosis = diagnosed("q35", true, "[qemu]\nversion = '7.2'");
        assert_eq!(diagnosis.fate, Fate::Warn, "{:?}", diagnosis.findings);
        assert!(!diagnosis.assumptions.is_empty());
        assert!(diagnosis.hypotheses[1].0.ends_with("starts"), "{:?}", diagnosis.hypotheses);
    }

    /// In a container, QEMU is not to be seen.
    #[test]
    fn the_policy_takes_an_alias_for_the_newest_type() {
        let policy = Policy::from_toml("alias = 'newest'").expect("a policy");
        let diagnosed = |machine: &str, host: &str| {
            let host = Host::from_profile(&format!("{HT}{host}")).expect("a profile");
            let xml = format!(
                "<domain type='kvm'><name>a</name><memory unit='GiB'>1200</memory><os><type machine='{machine}'>hvm</type>\
                 </os><cpu><maxphysaddr mode='emulate' bits='42'/></cpu><devices><hostdev type='pci'><source>\
                 <address bus='1'/></source></hostdev></devices></domain>"
            );
            let document = Document::parse(xml.as_bytes()).expect("well-formed");
            diagnose(&domain::read(&document).expect("a domain"), &host, &policy)
        };
        let newest = format!("pc-q35-{}.{}", NEWEST.major, NEWEST.minor);
        for (machine, host, expected, fate) in [
            ("q35", "", newest.as_str(), Fate::Pass),
            ("pc", "", &newest.replace("q35", "i440fx"), Fate::Pass),
            ("q35", "[qemu]\nversion = '7.2.22'", "pc-q35-7.2", Fate::Pass),
            ("q35", "[qemu]\nversion = '6.2'", "pc-q35-6.2", Fate::Stopped),
            (
                "q35",
                "[qemu]\nversion = '9.0'\nmachines = ['pc-q35-8.0', 'pc-q35-7.1', 'pc-i440fx-9.0']",
                "pc-q35-8.0",
                Fate::Pass,
            ),
            // If it is known, the policy has no say.
            ("q35", "[qemu]\nversion = '7.2'\n[qemu.aliases]\nq35 = 'pc-q35-6.2'", "pc-q35-6.2", Fate::Stopped),
            ("pc-q35-zebra", "", "pc-q35-zebra", Fate::Warn),
        ] {
            let diagnosis = diagnosed(machine, host);
            assert_eq!(diagnosis.facts.machine.as_deref(), Some(expected), "{machine} {host}");
            assert_eq!(diagnosis.fate, fate, "{machine} {host}: {:?}", diagnosis.findings);
            let said = diagnosis.findings.iter().any(|finding| finding.title.contains("is treated as"));
            assert_eq!(said, !host.contains("aliases") && !machine.contains("zebra"), "{machine} {host}");
        }
    }

    #[test]
    fn only_what_may_come_is_said_to_be_newer() {
        let next = format!("pc-q35-{}.{}", NEWEST.major, NEWEST.minor + 1);
        for (name, newer) in [
            ("pc-q35-99.0", true),
            (&next, true),
            ("pc-q35-zebra", true),
            ("pc-q35-rhel99.0.0", true),
            ("pc-0.9", false),
            ("pc-q35-4.3", false),
            ("pc-i440fx-1.3", false),
        ] {
            assert_eq!(may_be_newer(name), newer, "{name}");
        }
    }

    #[test]
    fn a_type_that_is_listed_is_there() {
        let list = "[qemu]\nversion = '11.0'\nmachines = ['pc-q35-11.0', 'pc-q35-stonking']";
        assert_eq!(diagnosed("pc-q35-stonking", true, list).fate, Fate::Warn);
        assert_eq!(diagnosed("pc-q35-missing", true, list).fate, Fate::Stopped);
    }

    /// Both possibilities collide, but each elsewhere.
    #[test]
    fn findings_for_one_possibility_are_marked() {
        let second = "[[iommu.reserved]]\nstart = 0x22000000000\nend = 0x220ffffffff\ntype = 'reserved'\n";
        let diagnosis = diagnosed("q35", false, second);
        let titles: Vec<&str> =
            diagnosis.findings.iter().filter(|f| f.rule == "ram-in-reserved-range").map(|f| f.title.as_str()).collect();
        assert!(titles.iter().all(|title| title.starts_with("with some machine types: ")), "{titles:?}");
        assert_eq!(titles.len(), 2, "{titles:?}");
    }
}
