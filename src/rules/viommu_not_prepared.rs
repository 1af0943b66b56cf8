//! `viommu-not-prepared`.

use super::page::*;
use super::{Refuser, Rule, viommu};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::viommu::ViommuKind;
use crate::version::Version;

pub(crate) const RULE: Rule = Rule {
    id: "viommu-not-prepared",
    summary: "QEMU refuses a passthrough device: the guest's virtual IOMMU is not set up for it",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

/// The last QEMU whose amd-iommu is known not to work with VFIO (`amdvi_iommu_notify_flag_changed` in
/// `hw/i386/amd_iommu.c`), and which is known to reject devices that bypass an intel-iommu; 11.1 starts.
const LAST_MEASURED: Version = Version::new(10, 0);

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Version { major, minor, .. } = guest.setting.qemu;
    let is_old = Version::new(major, minor) <= LAST_MEASURED;
    // They look at every such device of the machine (`vtd_machine_done_notify_one`), newer ones at those behind it.
    let intel = if is_old { viommu::beside } else { viommu::of };
    if let Some((viommu, device)) = intel(guest, ViommuKind::Intel).filter(|(viommu, _)| !viommu.caching_mode) {
        let title = "QEMU refuses to start: intel-iommu needs its caching mode for a passthrough device";
        let cause = "without it, QEMU does not see what the guest maps";
        let finding = Finding::new(RULE.id, Severity::Error, title, viommu.origin.span(), "no caching mode");
        findings
            .push(finding.because(cause).with_label(device.origin.span(), "its DMA must follow the guest's mappings"));
    }
    if let Some((viommu, device)) = viommu::of(guest, ViommuKind::Amd).filter(|(viommu, _)| is_old || !viommu.dma_remap)
    {
        let (severity, title, cause) = match is_old {
            true => (
                Severity::Error,
                "QEMU refuses to start: its amd-iommu does not work with passthrough devices",
                format!("QEMU {} does not see what the guest maps; 11.1 does, with dma-remap=on", guest.setting.qemu),
            ),
            false => (
                Severity::Warning,
                "the guest's amd-iommu does not translate for passthrough devices",
                "without dma-remap=on, QEMU does not follow what the guest maps: once the virtual IOMMU translates, \
                 DMA goes to the wrong addresses"
                    .to_owned(),
            ),
        };
        let finding = Finding::new(RULE.id, severity, title, viommu.origin.span(), "does not work with VFIO");
        findings
            .push(finding.because(cause).with_label(device.origin.span(), "its DMA must follow the guest's mappings"));
    }
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "The guest has a virtual IOMMU and a passthrough device, and the two do not work together as they are \
             set up. QEMU says so and does not start. Only QEMU 11.1 with an `amd-iommu` that does not remap DMA \
             starts; this is a warning, because the device stops working once the guest uses the virtual IOMMU.",
    )],
    cause: &[
        Text(
            "Whenever the guest maps something for a passthrough device, QEMU has to map it, too. An `intel-iommu` \
             tells QEMU only in caching mode, which is off by default. An `amd-iommu` cannot tell it up to QEMU \
             10.0. In 11.1 it does so only with `dma-remap=on`, which is off by default and has no setting in \
             libvirt 12.8; use `-global amd-iommu.dma-remap=on` in `<qemu:commandline>`.",
        ),
        viommu::MAPPED_AT_START,
    ],
    history: &[],
    errors: &[
        ErrorText::qemu(
            "at start, up to 10.0",
            "We need to set caching-mode=on for intel-iommu to enable device assignment with \
             IOMMU protection.",
        ),
        ErrorText::qemu(
            "the same in 11.1",
            "vfio 0000:00:10.0: Failed to set vIOMMU: Device assignment is not allowed without \
             enabling caching-mode=on for Intel IOMMU.",
        ),
        ErrorText::qemu(
            "an amd-iommu, up to 10.0",
            "vfio 0000:00:10.0: failed to setup container for group 1: memory listener \
             initialization failed: Region amd_iommu: device 00.10.0 requires iommu notifier \
             which is not currently supported",
        ),
    ],
    fix: &[
        Text("Switch caching mode on, or use `<iommu model='virtio'/>`. Replace an `amd-iommu` by either of them:"),
        viommu::AS_IT_WORKS,
    ],
    verify: &[viommu::SHOWN[0], viommu::SHOWN[1]],
    background: &[Topic::Viommu, Topic::Looking],
};
