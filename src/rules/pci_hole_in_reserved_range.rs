//! `pci-hole-in-reserved-range`.

use super::{Rule, collision};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text;

pub(super) const RULE: Rule = Rule {
    id: "pci-hole-in-reserved-range",
    summary: "firmware can place a device's BAR where the host's IOMMU maps nothing",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(hole) = guest.layout().and_then(|layout| layout.pci_hole64) else { return };
    for (common, reserved) in guest.collisions(hole) {
        let title = format!("the 64-bit PCI hole reaches into {}", collision::reserved_name(reserved));
        let consequence = "a BAR that firmware places there has no peer-to-peer DMA";
        let cause = collision::cause(guest).map_or(consequence.to_owned(), |cause| format!("{consequence}; {cause}"));
        let takes = format!("the hole takes up {}", text::range(hole));
        let told = guest.domain.pci_hole64.map(|size| size.span);
        let span = told.or(guest.ram_span()).unwrap_or(guest.domain.span);
        let finding = Finding::new(RULE.id, Severity::Warning, title, span, takes).because(cause).about(common);
        findings.push(collision::labelled(guest, finding));
    }
}
