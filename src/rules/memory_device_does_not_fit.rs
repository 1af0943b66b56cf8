//! `memory-device-does-not-fit`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::memory_device::Kind;

pub(super) const RULE: Rule = Rule {
    id: "memory-device-does-not-fit",
    summary: "QEMU refuses to start: a memory device has no place in the device memory region",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Err((index, error)) = &guest.plugged else { return };
    let kind = guest.line.devices.get(*index).and_then(Kind::of).map_or("memory device", Kind::name);
    let message = format!("QEMU refuses to start: the {kind} has no place, {error}");
    let span = guest.device_span(*index);
    let mut finding = Finding::new(RULE.id, Severity::Error, message, span, "does not fit");
    if let Some(maximum) = guest.domain.max_memory {
        finding = finding.with_label(maximum.span, "the room there is");
    }
    findings.push(finding);
}
