//! `bar-in-reserved-range`.

use super::bars::{self, Hit};
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::command_line::PassthroughKind;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::host::Reserved;
use crate::mmio64::{Mmio64, Possible};
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "bar-in-reserved-range",
    summary: "firmware puts a device's BAR in a range reserved by the host's IOMMU",
    by: Refuser::Policy,
    stops: false,
    check,
    page: &PAGE,
};

/// The BARs in any such range.
pub(super) fn hits(guest: &Guest<'_>, mmio64: &Mmio64, possible: &Possible) -> Vec<Hit> {
    guest.reserved().flat_map(|reserved| inside(mmio64, possible, reserved)).collect()
}

fn inside(mmio64: &Mmio64, possible: &Possible, reserved: Reserved) -> Vec<Hit> {
    let passed = mmio64.placed(possible).filter(|(bar, _)| bar.passed);
    let inside = passed.filter(|(_, place)| place.is_some_and(|place| place.overlaps(reserved.range)));
    inside.map(|(bar, place)| Hit::bar(bar, place)).collect()
}

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(mmio64) = &guest.mmio64 else { return };
    for reserved in guest.reserved() {
        if let Some(trouble) = bars::trouble(mmio64, |possible| inside(mmio64, possible, reserved)) {
            let range = collision::reserved_name(reserved);
            let title =
                trouble.title(&format!("lies in {range}"), &format!("lie in {range}"), &format!("may lie in {range}"));
            let cause = format!(
                "VFIO does not map it for DMA, so other devices cannot reach it (peer-to-peer DMA); {}",
                trouble.place()
            );
            let severity = trouble.peer_to_peer_severity(guest);
            let finding = trouble.finding(RULE.id, severity, title, cause);
            let common = trouble.first_place().and_then(|place| place.intersection(reserved.range));
            findings.push(Finding { range: common, ..finding });
            continue;
        }
        // If sizes are unknown, the finding can only say how much is too much.
        let device = mmio64.unsized_devices.iter().find(|device| {
            let of = |kind| guest.passthrough.iter().any(|it| it.kind == kind && it.origin == device.origin);
            of(PassthroughKind::VfioPci)
        });
        let windows = mmio64.possible.iter().filter_map(|possible| possible.window);
        let reach = windows.filter_map(|window| {
            let common = window.intersection(reserved.range)?;
            Some((common, common.start.checked_sub(window.start).filter(|&room| room > 0)?))
        });
        if let (Some(device), Some((common, room))) = (device, reach.min_by_key(|&(_, room)| room)) {
            let title =
                format!("BARs of more than {} in all reach {}", text::size(room), collision::reserved_name(reserved));
            let cause = "BAR sizes are unknown; run this on the host, or use a host profile that has them";
            let finding = Finding::new(RULE.id, Severity::Note, title, device.origin.span(), "its BARs are unknown");
            findings.push(finding.because(cause).about(common));
        }
    }
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning, Severity::Note],
    meaning: &[
        Text(
            "The guest starts, but its firmware puts a 64-bit BAR of a passthrough device in a range that the \
             host's IOMMU reserves. The guest's CPUs reach the BAR; other passthrough devices do not, because VFIO \
             cannot map it for DMA. This breaks peer-to-peer DMA, as between GPUs (GPUDirect, NCCL without \
             NVLink). A guest with a single device usually works.",
        ),
        Text(
            "`check` and `watch` report an error instead of a warning if the policy says `peer_to_peer = \
             \"required\"` and every firmware that the guest may have does this. The hook does not look at BARs. If \
             the sizes of the BARs are unknown, it is a note that says from which size on they would reach the \
             range.",
        ),
    ],
    cause: &[
        shared::THE_RANGE,
        shared::WINDOW,
        Text(
            "With 40 bits, libvirt's default, OVMF's window is 896–1024 GiB, and the reserved range is its end. \
             Firmware keeps out of the range only if QEMU marks it as reserved in the guest's E820 map, which it \
             does for an AMD vCPU with at least 40 bits and a machine type of 7.1 or newer. OVMF 2022.11 (Debian \
             12) ignores that entry, and SeaBIOS considers it only once. SeaBIOS up to 1.16.2 places BARs right \
             after RAM, whatever the number of bits.",
        ),
    ],
    history: &[],
    errors: &[shared::BAR_NOT_MAPPED[0], shared::BAR_NOT_MAPPED[1]],
    fix: &[
        Text(
            "If no device talks to another one, no action is needed. Otherwise give the guest enough physical \
             address bits for all BARs, but no more than the host and its IOMMU have. With 41 bits the window is \
             1792–2048 GiB; with more it is higher:",
        ),
        shared::FIX_WARNINGS,
        shared::MORE_BITS,
        shared::RELOCATE,
    ],
    verify: &[
        shared::RESERVED[0],
        shared::RESERVED[1],
        shared::WHERE_BARS_ARE[0],
        shared::WHERE_BARS_ARE[1],
        Text(
            "With iommufd, QEMU prints `IOMMU_IOAS_MAP failed: Bad address, PCI BAR?` (-14) for any BAR at any \
             address. Only -22 with an address in the range is this problem.",
        ),
    ],
    background: &[Topic::HyperTransport, Topic::Bars, Topic::RefusedMapping, Topic::Looking],
};

#[cfg(test)]
mod tests {
    use super::super::bars::tests::{BarCase, found};
    use super::*;

    /// Debian 12's OVMF with four GPUs of 32 GiB in 64 GiB of RAM: the fourth lies at 992–1024 GiB.
    #[test]
    fn a_bar_across_the_range_is_a_warning_and_an_error_where_devices_have_to_reach_it() {
        let placed = [("OVMF 2022.11", Some((896, 1024)), &[Some(896), Some(928), Some(960), Some(992)][..])];
        let case = BarCase { bars: &[32; 4], placed: &placed, ..BarCase::default() };
        let findings = found(&RULE, &case);
        let [(severity, title, cause)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Warning);
        assert_eq!(title, "BAR 1 of 0000:41:00.0 (32 GiB) lies in the reserved HyperTransport range, 1012–1024 GiB");
        assert!(cause.ends_with("with OVMF 2022.11 it lies at 992–1024 GiB"), "{cause}");
        let required = found(&RULE, &BarCase { peer_to_peer: true, ..case });
        assert_eq!(required.len(), 1);
        assert_eq!(required[0].0, Severity::Error);
    }

    #[test]
    fn findings_for_some_firmware_only_say_may() {
        let placed = [
            ("OVMF 2025.02", Some((768, 896)), &[Some(768)][..]),
            ("OVMF 2022.11", Some((896, 1024)), &[Some(896)][..]),
        ];
        let findings = found(&RULE, &BarCase { peer_to_peer: true, placed: &placed, ..BarCase::default() });
        let [(severity, title, cause)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Warning);
        assert!(title.contains("may lie in") && cause.contains("with OVMF 2022.11"), "{title}: {cause}");
        assert!(found(&RULE, &BarCase { placed: &placed[..1], ..BarCase::default() }).is_empty());
    }

    #[test]
    fn unknown_sizes_give_the_size_that_is_too_much() {
        let placed = [("OVMF 2022.11", Some((896, 1024)), &[][..])];
        let findings = found(&RULE, &BarCase { bars: &[], placed: &placed, ..BarCase::default() });
        let [(severity, title, _)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Note);
        assert!(title.starts_with("BARs of more than 116 GiB"), "{title}");
        let clear = [("OVMF 2025.02", Some((768, 896)), &[][..])];
        assert!(found(&RULE, &BarCase { bars: &[], placed: &clear, ..BarCase::default() }).is_empty());
    }
}
