//! `memory-device-in-reserved-range`.

use super::{Rule, collision};
use crate::finding::Finding;
use crate::guest::{Guest, window_devices};
use crate::text;

pub(super) const RULE: Rule = Rule {
    id: "memory-device-in-reserved-range",
    summary: "a plugged memory device lies where the host's IOMMU maps nothing",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Ok(plugged) = &guest.plugged else { return };
    let devices = window_devices(guest.domain);
    for ((model, range), (_, device)) in plugged.iter().zip(devices) {
        for hit in guest.collisions(*range) {
            let what = format!("the {} at {:#x}", model.name(), range.start);
            let span = device.address.map_or(device.size.span, |address| address.span);
            findings.push(collision::finding(
                guest,
                RULE.id,
                &what,
                hit,
                span,
                format!("takes up {}", text::range(*range)),
            ));
        }
    }
}
