//! `machine-type-not-available`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::machine::Flavor;

pub(super) const RULE: Rule =
    Rule { id: "machine-type-not-available", summary: "the host's QEMU does not have the machine type", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (host, machine) = (guest.setting.host, guest.setting.machine);
    // The list of a host that is known decides; where there is none, no upstream type is newer than its QEMU.
    let newer = matches!(machine.flavor, Flavor::Upstream | Flavor::Proxmox)
        && host.qemu.is_some_and(|qemu| (qemu.major, qemu.minor) < (machine.version.major, machine.version.minor));
    if host.machines.contains(&machine.name) || (host.machines.is_empty() && !newer) {
        return;
    }
    let span = guest.domain.machine.as_ref().map_or(guest.domain.span, |name| name.span);
    let message = format!("libvirt refuses the guest: the host's QEMU does not have machine type {}", machine.name);
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "the host's QEMU has no such type"));
}
