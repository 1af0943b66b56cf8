//! `viommu-above-iommu-width`.

use super::page::*;
use super::{Refuser, Rule, viommu};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::viommu::ViommuKind;
use crate::version::Version;

pub(crate) const RULE: Rule = Rule {
    id: "viommu-above-iommu-width",
    summary: "the guest's virtual IOMMU has more address bits than the host's IOMMU",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

/// The first QEMU that compares the two (`vtd_check_hdev` in `hw/i386/intel_iommu.c`).
const FIRST_TO_COMPARE: Version = Version::new(9, 1);

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some((viommu, device)) = viommu::of(guest, ViommuKind::Intel) else { return };
    let (Some(bits), Some(host)) = (viommu.address_bits, guest.iommu_bits()) else { return };
    if bits <= host {
        return;
    }
    let refuses = guest.setting.qemu >= FIRST_TO_COMPARE;
    let (severity, title) = match refuses {
        true => (
            Severity::Error,
            format!(
                "QEMU refuses to start: the guest's intel-iommu has {bits} address bits, but the host's IOMMU only \
                 {host}"
            ),
        ),
        false => (
            Severity::Warning,
            format!("the guest's intel-iommu has {bits} bits, but the host's IOMMU can address only {host}"),
        ),
    };
    let cause = match refuses {
        true => "QEMU 9.1 and newer then refuse the passthrough device".to_owned(),
        false => format!("DMA to an address above {host} bits, if the guest maps one there, fails while it runs"),
    };
    let finding = Finding::new(RULE.id, severity, title, viommu.origin.span(), format!("{bits} bits")).because(cause);
    findings.push(finding.with_label(device.origin.span(), format!("the host's IOMMU has {host} bits")));
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "The guest has an `intel-iommu` with more address bits than the host's IOMMU, and a passthrough device \
             behind it. QEMU 9.1 and newer refuse to start. With older versions this is a warning: the guest may \
             map memory for the device at an address that the host refuses, and DMA to it fails.",
    )],
    cause: &[
        Text(
            "The width is `aw-bits` (libvirt: `<driver aw_bits>`), 39 or 48. The default is 39 with machine types \
             up to 9.1 and 48 with newer ones. Many Intel client CPUs have an IOMMU of 39 bits, and so has a \
             virtual host with QEMU's default.",
        ),
        viommu::MAPPED_AT_START,
    ],
    history: &[],
    errors: &[ErrorText::qemu(
        "at start, 9.1 and newer",
        "vfio 0000:00:10.0: Failed to set vIOMMU: aw-bits 48 > host aw-bits 39",
    )],
    fix: &[Text("Give the virtual IOMMU as many bits as the host's:"), viommu::AS_IT_WORKS],
    verify: &[viommu::SHOWN[0], viommu::SHOWN[1]],
    background: &[Topic::Viommu, Topic::Looking],
};
