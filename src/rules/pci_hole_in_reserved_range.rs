//! `pci-hole-in-reserved-range`.

use super::{Rule, collision};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(super) const RULE: Rule = Rule {
    id: "pci-hole-in-reserved-range",
    summary: "firmware can place a device's BAR where the host's IOMMU maps nothing",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(hole) = guest.layout().and_then(|layout| layout.pci_hole64) else { return };
    for (common, reserved) in guest.collisions(hole) {
        let message = format!(
            "the 64-bit PCI hole {hole} reaches into {}: a BAR placed there has no peer-to-peer DMA",
            collision::reserved_name(reserved)
        );
        let (span, label) = match (guest.domain.pci_hole64, &guest.memory) {
            (Some(size), _) => (size.span, "the hole ends that far above the memory"),
            (None, Ok(memory)) => (memory.span, "the hole follows the memory"),
            (None, Err(_)) => (guest.domain.span, "the hole follows the memory"),
        };
        findings.push(Finding::new(RULE.id, Severity::Warning, message, span, label).about(common));
    }
}
