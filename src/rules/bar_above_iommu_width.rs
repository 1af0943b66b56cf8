//! `bar-above-iommu-width`.

use super::bars::{self, Hit};
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::mmio64::{Mmio64, Possible};

pub(crate) const RULE: Rule = Rule {
    id: "bar-above-iommu-width",
    summary: "firmware puts a device's BAR above what the host's IOMMU can address",
    by: Refuser::Policy,
    stops: false,
    check,
    page: &PAGE,
};

/// The BARs above it.
pub(super) fn hits(guest: &Guest<'_>, mmio64: &Mmio64, possible: &Possible) -> Vec<Hit> {
    match guest.iommu_bits() {
        Some(bits) => bars::above(mmio64, possible, bits),
        _ => Vec::new(),
    }
}

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(mmio64), Some(bits)) = (&guest.mmio64, guest.iommu_bits()) else { return };
    let Some(trouble) = bars::trouble(mmio64, |possible| hits(guest, mmio64, possible)) else { return };
    let what = collision::above_width(bits);
    let title = trouble.title(&format!("lies {what}"), &format!("lie {what}"), &format!("may lie {what}"));
    let cause = format!(
        "VFIO does not map it for DMA, so other devices cannot reach it (peer-to-peer DMA); {}",
        trouble.place()
    );
    let severity = trouble.peer_to_peer_severity(guest);
    let finding = trouble.finding(RULE.id, severity, title, cause);
    findings.push(Finding { range: trouble.first_place(), ..finding });
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[
        Text(
            "The guest starts, but its firmware puts a 64-bit BAR of a passthrough device at an address that the \
             host's IOMMU cannot translate. The guest's CPUs reach the BAR; other passthrough devices do not, \
             because VFIO cannot map it for DMA (peer-to-peer, as between GPUs). Black screens of a single GPU \
             have been reported, too.",
        ),
        Text(
            "`check` and `watch` report an error instead of a warning if the policy says `peer_to_peer = \
             \"required\"` and every firmware that the guest may have does this. The hook does not look at BARs.",
        ),
    ],
    cause: &[
        Text(
            "The IOMMUs of many Intel desktop CPUs translate 39 bits (512 GiB), while the CPU has 46. A guest with \
             `<maxphysaddr mode='passthrough'/>` or `host-passthrough` sees 46 bits, and its firmware puts BARs at \
             the top: at 56 TiB with OVMF and SeaBIOS 1.16.3, at 14 TiB with SeaBIOS 1.17.",
        ),
        shared::WINDOW,
    ],
    history: &[],
    errors: &[shared::BAR_NOT_MAPPED[0], shared::BAR_NOT_MAPPED[1]],
    fix: &[
        Text(
            "If the guest works, no action is needed. Otherwise give the guest no more bits than the IOMMU has, as found \
             below (`limit` needs libvirt 9.3 or newer):",
        ),
        Xml("<cpu mode='host-passthrough'>\n\
             \x20 <maxphysaddr mode='passthrough' limit='39'/>\n\
             </cpu>"),
        shared::FIX_WARNINGS,
    ],
    verify: &[
        Text(
            "The width of an Intel IOMMU, as bits 21 to 16 of this register plus one and as `iova-preflight host` \
             prints it:",
        ),
        Shell(
            "cat /sys/class/iommu/dmar0/intel-iommu/cap\n\
             iova-preflight host | grep address_bits",
        ),
        shared::WHERE_BARS_ARE[0],
        shared::WHERE_BARS_ARE[1],
    ],
    background: &[Topic::Bars, Topic::RefusedMapping, Topic::Looking],
};

#[cfg(test)]
mod tests {
    use super::super::bars::tests::{BarCase, found};
    use super::*;

    /// OVMF with 46 bits has 56–64 TiB; VT-d of that host has 39 bits.
    #[test]
    fn a_bar_at_56_tib_is_out_of_reach_of_39_bits() {
        let placed = [("OVMF 2025.02", Some((57344, 65536)), &[Some(57344)][..])];
        let case = |iommu_bits| BarCase { bits: 46, bars: &[32], iommu_bits, placed: &placed, ..BarCase::default() };
        let findings = found(&RULE, &case(Some(39)));
        let [(severity, title, _)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Warning);
        assert_eq!(title, "BAR 1 of 0000:41:00.0 (32 GiB) lies above the 39 bits that the host's IOMMU can address");
        assert!(found(&RULE, &case(Some(48))).is_empty() && found(&RULE, &case(None)).is_empty());
        let required = found(&RULE, &BarCase { peer_to_peer: true, ..case(Some(39)) });
        assert_eq!(required[0].0, Severity::Error);
    }
}
