//! What the source does not migrate: passthrough devices and virtual IOMMUs.

use super::{Obstacle, Side};
use crate::command_line::{Mobility, Passthrough, PassthroughKind};
use crate::evaluate::Facts;
use crate::finding::Label;
use crate::guest::Subject;
use crate::host::Host;
use crate::qemu::viommu::{Viommu, ViommuKind};
use crate::version::Version;

/// The first QEMU that migrates VFIO devices without an experimental property (`enable-migration` of `hw/vfio/pci.c`; it is
/// `x-enable-migration`, off, in 5.2 to 8.0, and there is none before).
const VFIO_SINCE: Version = Version::new(8, 1);

/// The first QEMU that migrates vDPA network devices, with shadow virtqueues (`vhost_vdpa_init` of `net/vhost-vdpa.c`).
/// Before, `vhost_dev_init` of `hw/virtio/vhost.c` refuses: no vDPA back end has `VHOST_F_LOG_ALL`.
const VDPA_SINCE: Version = Version::new(8, 0);

/// The first libvirt that asks QEMU what is in the way (`query-migrate`, `blocked-reasons`) and not its own table, which
/// has all of these devices (`qemuMigrationSrcIsAllowed` and `qemuMigrationSrcIsAllowedHostdev` of
/// `src/qemu/qemu_migration.c`). Its capability `migration.blocked-reasons` is younger than those of 8.5; 9.0, 11.3 and
/// 12.8 have it.
const BLOCKERS_SINCE: Version = Version::new(8, 6);

/// The first QEMU that migrates VFIO devices with `x-enable-migration=on` (`hw/vfio/pci.c`).
const EXPERIMENTAL_SINCE: Version = Version::new(5, 2);

/// The last QEMU that is known to refuse VFIO devices behind a virtual IOMMU, whatever they are (`vfio_migration_realize` of
/// `hw/vfio/migration.c`, since 8.1). Newer ones refuse those that track by themselves what they write.
const NEVER_BEHIND_VIOMMU: Version = Version::new(10, 0);

/// The last QEMU whose amd-iommu is known to have no `pci-id`; that of 11.1 has it (`amdvi_sysbus_realize` of
/// `hw/i386/amd_iommu.c`).
const WITHOUT_PCI_ID: Version = Version::new(10, 0);

/// What stays, and what that depends on.
pub(super) fn left_behind(running: Subject<'_>, facts: &Facts, from: &Host) -> (Vec<Obstacle>, Vec<String>) {
    let (mut obstacles, mut unknown) = (Vec::new(), Vec::new());
    // Who starts QEMU without libvirt does not ask libvirt.
    let libvirt = running.domain().and(from.libvirt);
    let viommu = facts.viommu.as_ref();
    let mut followed = false;
    for device in &facts.passthrough {
        if matches!(device.mobility, Mobility::OfQemu | Mobility::Unplugged) {
            continue;
        }
        let around = viommu.filter(|viommu| device.kind != PassthroughKind::VhostVdpa && !viommu.may_be_bypassed);
        if let Some(obstacle) = stays(device, around, from.qemu, libvirt) {
            obstacles.push(obstacle);
            continue;
        }
        followed |= around.is_some() && from.qemu.is_none_or(|qemu| qemu >= VFIO_SINCE);
        unknown.push(if device.device.is_empty() { "a device" } else { device.device.as_str() });
    }
    let mut notes = Vec::new();
    let is_amd = viommu.filter(|viommu| viommu.kind == ViommuKind::Amd);
    if let Some(viommu) = is_amd
        && (!viommu.has_pci_id || from.qemu.is_some_and(|qemu| release(qemu) <= WITHOUT_PCI_ID))
    {
        let cause = "it does only with pci-id, which QEMU 11.1 has and 10.0 does not; libvirt 12.8 passes it";
        let title = "QEMU does not migrate the guest's amd-iommu".to_owned();
        obstacles.push(Obstacle::new(Side::Source, title, cause, viommu.origin.span(), "cannot move".to_owned()));
    }
    let asks_libvirt = running.domain().is_some() && libvirt.is_none();
    if (!unknown.is_empty() && (from.qemu.is_none() || asks_libvirt)) || (is_amd.is_some() && from.qemu.is_none()) {
        notes.push("depends on the versions of QEMU and libvirt on the source, which are unknown".to_owned());
    }
    if followed {
        let what = "whether QEMU can migrate VFIO devices behind a virtual IOMMU";
        notes.push(format!("depends on {what}, which is unknown: it cannot up to {}", short(NEVER_BEHIND_VIOMMU)));
    }
    if !unknown.is_empty() {
        let what = if unknown.len() == 1 {
            "the driver can save and load the state of"
        } else {
            "the drivers can save and load the states of"
        };
        notes.push(format!("depends on whether {what} {}, which is unknown", unknown.join(", ")));
    }
    (obstacles, notes)
}

/// Why a device cannot move that has to hand over its state, if it cannot; `around` is the virtual IOMMU that it is behind.
fn stays(
    device: &Passthrough,
    around: Option<&Viommu>,
    qemu: Option<Version>,
    libvirt: Option<Version>,
) -> Option<Obstacle> {
    let (since, kind) = match (device.kind, device.mobility) {
        (PassthroughKind::VhostVdpa, _) => (VDPA_SINCE, "vDPA network devices"),
        (_, Mobility::Experimental) => (EXPERIMENTAL_SINCE, "VFIO devices"),
        _ => (VFIO_SINCE, "VFIO devices"),
    };
    let obstacle = |title: String, cause: &str| {
        Some(Obstacle::new(Side::Source, title, cause, device.origin.span(), "cannot move".to_owned()))
    };
    let first = |version: Version| {
        let version = short(version);
        format!("{version} is the first that does, if the device's driver can save its state; detach the device before")
    };
    match (qemu, libvirt) {
        (Some(qemu), _) if qemu < since => {
            obstacle(format!("QEMU {qemu} does not migrate {kind}"), &format!("QEMU {}", first(since)))
        }
        (_, Some(libvirt)) if libvirt < BLOCKERS_SINCE => {
            let cause = format!("libvirt {}", first(BLOCKERS_SINCE));
            obstacle(format!("libvirt {libvirt} does not migrate {kind}"), &cause)
        }
        _ if device.mobility == Mobility::Disabled => {
            obstacle("QEMU does not migrate the device".to_owned(), "enable-migration is off; detach the device before")
        }
        (Some(qemu), _) if qemu >= VFIO_SINCE && release(qemu) <= NEVER_BEHIND_VIOMMU => {
            let viommu = around?;
            let title = format!("QEMU {qemu} does not migrate VFIO devices behind a virtual IOMMU");
            let related = vec![Label { span: viommu.origin.span(), text: "the virtual IOMMU".to_owned() }];
            obstacle(title, "detach the device before").map(|obstacle| Obstacle { related, ..obstacle })
        }
        _ => None,
    }
}

/// A version without its patch level.
fn release(version: Version) -> Version {
    Version::new(version.major, version.minor)
}

/// The same as text.
fn short(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}
