//! `memory-device-in-reserved-range`.

use super::{Rule, collision};
use crate::finding::Finding;
use crate::guest::Guest;
use crate::text;

pub(super) const RULE: Rule = Rule {
    id: "memory-device-in-reserved-range",
    summary: "a plugged memory device lies where the host's IOMMU maps nothing",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Ok(plugged) = &guest.plugged else { return };
    for device in plugged {
        for hit in guest.collisions(device.range) {
            let what = format!("the {} at {:#x}", device.kind.name(), device.range.start);
            let span = device.origin.span();
            findings.push(collision::finding(
                guest,
                RULE.id,
                &what,
                hit,
                span,
                format!("takes up {}", text::range(device.range)),
            ));
        }
    }
}
