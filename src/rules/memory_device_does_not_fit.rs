//! `memory-device-does-not-fit`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(super) const RULE: Rule = Rule {
    id: "memory-device-does-not-fit",
    summary: "QEMU refuses to start: a memory device has no place in the device memory region",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Err((index, error)) = &guest.plugged else { return };
    let device = &guest.domain.memory_devices[*index];
    let message = format!("QEMU refuses to start: the {} has no place, {error}", device.model.name());
    let span = device.address.map_or(device.size.span, |address| address.span);
    let mut finding = Finding::new(RULE.id, Severity::Error, message, span, "does not fit");
    if let Some(maximum) = guest.domain.max_memory {
        finding = finding.with_label(maximum.span, "the room there is");
    }
    findings.push(finding);
}
