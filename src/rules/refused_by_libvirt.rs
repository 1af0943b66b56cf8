//! `refused-by-libvirt`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(super) const RULE: Rule =
    Rule { id: "refused-by-libvirt", summary: "libvirt refuses the domain for its memory or CPU settings", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    for refusal in guest.refusals {
        let message = format!("libvirt refuses the guest: {}", refusal.message);
        findings.push(Finding::new(RULE.id, Severity::Error, message, refusal.span, "refused"));
    }
}
