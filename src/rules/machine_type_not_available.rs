//! `machine-type-not-available`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(super) const RULE: Rule =
    Rule { id: "machine-type-not-available", summary: "the host's QEMU does not have the machine type", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (host, machine) = (guest.setting.host, guest.setting.machine);
    if host.machines.is_empty() || host.machines.contains(&machine.name) {
        return;
    }
    let span = guest.domain.machine.as_ref().map_or(guest.domain.span, |name| name.span);
    let message = format!("libvirt refuses the guest: the host's QEMU does not have machine type {}", machine.name);
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "not there"));
}
