//! `memory-hotplug-refused`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(super) const RULE: Rule = Rule {
    id: "memory-hotplug-refused",
    summary: "QEMU refuses to start: slots and maxmem do not go together, or not with the machine",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(why) = &guest.memory_refusal else { return };
    let span = guest.domain.max_memory.map_or(guest.domain.span, |maximum| maximum.span);
    let message = format!("QEMU refuses to start: {why}");
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "memory hot-plug is asked for here"));
}
