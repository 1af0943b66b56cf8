//! `viommu-in-reserved-range`.

use super::page::*;
use super::{Refuser, Rule, collision, viommu};
use crate::address::{ABOVE_4G_START, GpaRange, last_address};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::viommu::ViommuKind;

pub(crate) const RULE: Rule = Rule {
    id: "viommu-in-reserved-range",
    summary: "the guest's virtual IOMMU lets it choose addresses that the host's IOMMU reserves",
    by: Refuser::Nobody,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some((viommu, device)) = viommu::of(guest, ViommuKind::Intel) else { return };
    let Some(bits) = viommu.address_bits else { return };
    // The window of interrupts, just below 4 GiB, is the guest's own too.
    let own = GpaRange { start: ABOVE_4G_START, end: last_address(bits).max(ABOVE_4G_START) };
    let hit = guest.reserved().find_map(|reserved| Some((own.intersection(reserved.range)?, reserved)));
    let Some((common, reserved)) = hit else { return };
    let title = format!("the guest's intel-iommu reaches into {}", collision::reserved_name(reserved));
    let cause =
        "intel-iommu does not report the range to the guest; if the guest maps an address in it, DMA to it fails";
    let finding =
        Finding::new(RULE.id, Severity::Warning, title, viommu.origin.span(), format!("has {bits} address bits"));
    let finding = finding.because(cause).about(common);
    findings.push(finding.with_label(device.origin.span(), "the host reserves it for this device"));
}

const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The guest starts. With its `intel-iommu`, it chooses the addresses for DMA itself, below 2 to the \
             power of `aw-bits`, and may choose some that the host's IOMMU reserves. VFIO does not map those, so \
             the device's DMA to them fails; QEMU only prints a message.",
    )],
    cause: &[
        Text(
            "A `virtio-iommu` tells the guest what the host reserves (QEMU 9.0 and newer); an `intel-iommu` \
             cannot. Linux in the guest starts below 4 GiB and then uses addresses from the top of the device's \
             DMA mask down. So it takes many mappings, or a driver that chooses addresses itself (VFIO in the \
             guest, DPDK), to reach the range.",
        ),
        shared::THE_RANGE,
        viommu::MAPPED_AT_START,
    ],
    history: &[],
    errors: &[shared::VFIO_MAP],
    fix: &[
        Text(
            "Give the virtual IOMMU 39 bits (512 GiB), which leave no address in the HyperTransport range, or use \
             `<iommu model='virtio'/>`:",
        ),
        viommu::AS_IT_WORKS,
    ],
    verify: &[shared::RESERVED[0], shared::RESERVED[1], viommu::SHOWN[0], viommu::SHOWN[1]],
    background: &[Topic::HyperTransport, Topic::Viommu, Topic::RefusedMapping, Topic::Looking],
};
