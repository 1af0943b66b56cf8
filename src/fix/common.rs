//! One rewrite for several hosts.

use std::collections::BTreeSet;

use super::draft::Draft;
use super::search::{FixSearch, plan};
use super::{Change, Fix};
use crate::evaluate::{Diagnosis, diagnose};
use crate::finding::Severity;
use crate::guest::Subject;
use crate::host::Host;
use crate::policy::Policy;

/// A host and what it is called.
pub(super) type NamedHost<'a> = (&'a str, &'a Host);

/// The first of `hosts` on which the guest would not start with these changes, and what is wrong there.
pub(crate) fn stops_on<'h>(
    subject: Subject<'_>,
    hosts: &[NamedHost<'h>],
    policy: &Policy,
    changes: &[Change],
) -> Option<(&'h str, String)> {
    hosts.iter().find_map(|(name, host)| {
        let after = Draft::new(subject, host, policy).with(changes);
        after.stops().then(|| (*name, worst(&after)))
    })
}

fn worst(diagnosis: &Diagnosis) -> String {
    let finding = diagnosis.findings.iter().find(|finding| finding.severity == Severity::Error);
    finding.map(|finding| finding.title.to_string()).unwrap_or_default()
}

/// The least rewrite after which the guest starts on every one of `hosts`, and no mapping fails there.
///
/// # Errors
/// Which host is in the way, a sentence for each reason.
pub(crate) fn plan_for_all(subject: Subject<'_>, hosts: &[NamedHost<'_>], policy: &Policy) -> Result<Fix, Vec<String>> {
    let (mut own, mut reasons) = (Vec::new(), Vec::new());
    for (name, host) in hosts {
        let broken = diagnose(subject, host, policy);
        if !broken.stops() {
            continue;
        }
        match plan(subject, host, policy, &broken) {
            Ok(fix) => own.push((*name, fix.changes)),
            Err(tried) => reasons.extend(tried.into_iter().map(|sentence| (*name, sentence))),
        }
    }
    // A guest that cannot be fixed for one host cannot be fixed for all.
    if !reasons.is_empty() {
        return Err(by_sentence(reasons));
    }
    let all = least(hosts);
    let narrowed = hosts.iter().filter_map(|(_, base)| {
        let host = narrowed(base, &all);
        let broken = diagnose(subject, &host, policy);
        plan(subject, &host, policy, &broken).ok().filter(|_| broken.stops())
    });
    let mut candidates: Vec<Vec<Change>> = own.iter().map(|(_, changes)| changes.clone()).collect();
    candidates.extend(narrowed.map(|fix| fix.changes));
    candidates.sort_by_key(Vec::len);
    let draft = hosts.first().map(|(_, host)| Draft::new(subject, host, policy));
    let freed: Vec<_> = draft.iter().flat_map(|draft| candidates.iter().map(|changes| freed(changes, draft))).collect();
    candidates.extend(freed);
    // Of many hosts, most take the same.
    let mut tried = Vec::new();
    candidates.retain(|changes| {
        !tried.contains(changes) && {
            tried.push(changes.clone());
            true
        }
    });
    let found = candidates.into_iter().find(|changes| stops_on(subject, hosts, policy, changes).is_none());
    if let Some(changes) = found {
        return Ok(fix_of(subject, hosts, policy, changes));
    }
    let mut told = Vec::new();
    for (name, changes) in own {
        if told.contains(&changes) {
            continue;
        }
        let names: Vec<String> = changes.iter().map(Change::to_string).collect();
        if let Some((other, why)) = stops_on(subject, hosts, policy, &changes) {
            reasons.push((other, format!("{}, which helps on {name}, is not enough: {why}", names.join(" and "))));
        }
        told.push(changes);
    }
    Err(by_sentence(reasons))
}

/// The same without addresses of memory devices, which would have to fit the map of every host: QEMU finds one on each.
fn freed(changes: &[Change], draft: &Draft<'_>) -> Vec<Change> {
    let movable: BTreeSet<usize> =
        draft.fixed().into_iter().filter(|fixed| fixed.can_move).map(|fixed| fixed.device).collect();
    let free = |change: &Change| match *change {
        Change::DeviceAddress { device, from, .. } if movable.contains(&device) => Change::FreeAddress { device, from },
        _ => change.clone(),
    };
    changes.iter().map(free).collect()
}

/// Each sentence once, with the hosts that it is about.
fn by_sentence(reasons: Vec<(&str, String)>) -> Vec<String> {
    let mut grouped: Vec<(Vec<&str>, String)> = Vec::new();
    for (host, sentence) in reasons {
        match grouped.iter_mut().find(|(_, known)| *known == sentence) {
            Some((hosts, _)) => hosts.push(host),
            None => grouped.push((vec![host], sentence)),
        }
    }
    grouped.into_iter().map(|(hosts, sentence)| format!("on {}: {sentence}", hosts.join(", "))).collect()
}

fn fix_of(subject: Subject<'_>, hosts: &[NamedHost<'_>], policy: &Policy, changes: Vec<Change>) -> Fix {
    let bits = changes.iter().find_map(Change::bits);
    let (mut spare, mut needing) = (None, Vec::new());
    let mut moves_ram = false;
    let (mut assumption, mut uncertain) = (None, Vec::new());
    for (name, host) in hosts {
        let before = diagnose(subject, host, policy);
        let search = FixSearch::new(subject, host, policy, &before);
        let after = search.draft.with(&changes);
        let Fix { assumption: depends, spare_bits, moves_ram: moves, .. } = search.fix(changes.clone(), &after);
        uncertain.extend(after.assumptions.into_iter().map(|depends| (*name, format!("whether it starts {depends}"))));
        let here = |sentence: Option<String>| sentence.map(|sentence| format!("on {name}: {sentence}"));
        moves_ram |= moves;
        assumption = assumption.or(here(depends));
        spare = spare.or(here(spare_bits));
        if bits.is_some() && before.facts.phys_bits_needed == bits {
            needing.push(*name);
        }
    }
    // What is more than one host needs is what another one does.
    let needed = bits.filter(|_| !needing.is_empty());
    let needed = needed.map(|bits| format!("the memory map needs {bits} phys-bits on {}", needing.join(", ")));
    let uncertain = by_sentence(uncertain);
    let assumption = assumption.or_else(|| (!uncertain.is_empty()).then(|| uncertain.join("; ")));
    Fix { changes, assumption, spare_bits: spare.map(|sentence| needed.unwrap_or(sentence)), moves_ram }
}

/// What every one of `hosts` has: of the lists of machine types those that are known, of numbers the least, of reserved
/// ranges all.
fn least(hosts: &[NamedHost<'_>]) -> Host {
    let all = || hosts.iter().map(|(_, host)| *host);
    let lists: Vec<BTreeSet<&String>> =
        all().filter(|host| !host.machines.is_empty()).map(|host| host.machines.iter().collect()).collect();
    let machines = lists.first().map(|first| {
        let in_all = |name: &&&String| lists.iter().all(|list| list.contains(*name));
        first.iter().filter(in_all).map(|name| (*name).clone()).collect()
    });
    let deprecated: BTreeSet<&String> = all().filter_map(|host| host.deprecated.as_ref()).flatten().collect();
    let mut reserved: Vec<_> = all().flat_map(|host| host.reserved.iter().copied()).collect();
    reserved.sort_unstable();
    reserved.dedup();
    Host {
        machines: machines.unwrap_or_default(),
        deprecated: Some(deprecated.into_iter().cloned().collect()),
        qemu: all().filter_map(|host| host.qemu).min(),
        libvirt: all().filter_map(|host| host.libvirt).min(),
        phys_bits: all().filter_map(|host| host.phys_bits).min(),
        iommu_bits: all().filter_map(|host| host.iommu_bits).min(),
        reserved,
        ..Host::default()
    }
}

/// `base`, with no more than what [`least`] finds.
fn narrowed(base: &Host, all: &Host) -> Host {
    Host {
        machines: all.machines.clone(),
        deprecated: all.deprecated.clone().filter(|_| base.deprecated.is_some()),
        qemu: all.qemu,
        libvirt: all.libvirt,
        phys_bits: all.phys_bits,
        iommu_bits: all.iommu_bits,
        reserved: all.reserved.clone(),
        ..base.clone()
    }
}
