//! `hotplug-window-in-reserved-range`.

use super::{Rule, collision};
use crate::address::GpaRange;
use crate::finding::{Finding, Severity};
use crate::guest::{Exposure, Guest};
use crate::text;

pub(super) const RULE: Rule = Rule {
    id: "hotplug-window-in-reserved-range",
    summary: "memory that is hot-plugged later can land where the host's IOMMU maps nothing",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(window) = guest.layout().and_then(|layout| layout.device_memory) else { return };
    let plugged = guest.plugged.as_deref().unwrap_or_default();
    for (common, reserved) in guest.collisions(window) {
        if is_covered(common, plugged.iter().map(|device| device.range)) {
            continue;
        }
        let consequence = match guest.exposure {
            Exposure::Present | Exposure::Assumed => "memory hot-plugged into it aborts the running guest",
            Exposure::None | Exposure::MediatedOnly => {
                "once a passthrough device is attached, memory hot-plugged into it aborts the running guest"
            }
        };
        let title = format!("the window for memory hot-plug reaches into {}", collision::reserved_name(reserved));
        let cause = collision::cause(guest).map_or(consequence.to_owned(), |cause| format!("{consequence}; {cause}"));
        let span = guest.domain.max_memory.map_or(guest.domain.span, |maximum| maximum.span);
        let label = format!("the window takes up {}, a GiB for each slot included", text::range(window));
        let finding = Finding::new(RULE.id, Severity::Warning, title, span, label).because(cause).about(common);
        findings.push(collision::labelled(guest, finding));
    }
}

/// Whether plugged devices take up all of `range`, so that nothing more can land there.
fn is_covered(range: GpaRange, plugged: impl Iterator<Item = GpaRange>) -> bool {
    let mut ranges: Vec<GpaRange> = plugged.collect();
    ranges.sort_unstable();
    let mut free_from = range.start;
    for taken in ranges {
        if taken.start > free_from {
            break;
        }
        if taken.end >= range.end {
            return true;
        }
        free_from = free_from.max(taken.end.saturating_add(1));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gapless_row_of_devices_covers() {
        let range = GpaRange::inclusive(10, 29);
        let r = GpaRange::inclusive;
        assert!(is_covered(range, [r(20, 40), r(0, 19)].into_iter()));
        assert!(!is_covered(range, [r(21, 40), r(0, 19)].into_iter()));
        assert!(!is_covered(range, [r(0, 28)].into_iter()));
        assert!(!is_covered(range, std::iter::empty()));
    }
}
