//! How much memory the kernel pins for a guest's DMA, and counts as locked by QEMU.
//!
//! VFIO's type 1 adds each page that it maps for an IOMMU to the process's `locked_vm`, once for each container
//! (`vfio_pin_pages_remote` in Linux `drivers/vfio/vfio_iommu_type1.c`); what a mediated device pins as it needs it counts as
//! well (`vfio_iommu_type1_pin_pages`). Huge pages count, a device's own BARs do not. A process with CAP_IPC_LOCK has no
//! limit. vhost-vdpa adds to `pinned_vm` instead, for each device, and knows no exemption (`vhost_vdpa_pa_map` in
//! `drivers/vhost/vdpa.c`), so that the two do not add up; software devices pin nothing. iommufd counts as type 1 does,
//! and without libvirt for all processes of a user together (`iopt_alloc_pages` in `drivers/iommu/iommufd/pages.c`).
//!
//! QEMU has one container for all devices in one address space: one for all without a virtual IOMMU, one for each device
//! with one (`pci_device_iommu_address_space` in `hw/pci/pci.c`). While the guest has not turned its IOMMU on, all memory is
//! mapped into each (`vtd_switch_address_space` in `hw/i386/intel_iommu.c`). Its own NVMe driver has a container for each
//! device (`qemu_vfio_open_pci` in `util/vfio-helpers.c`), into which all RAM is mapped (`qemu_vfio_ram_block_added`).

use super::memory_device::{MemoryDeviceKind, Plugged};
use super::viommu::hides_memory_at_start;
use crate::command_line::{CommandLine, Device, PassthroughKind, Property};

/// What is pinned, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pinned {
    /// The least that VFIO pins before the guest runs.
    pub at_start: u64,
    /// The most that it pins later.
    pub vfio: u64,
    /// The most that vhost-vdpa pins, if its devices are not made of software.
    pub vdpa: u64,
}

/// The most that VFIO locks besides memory, in bytes: ROMs are mapped, too, 256 KiB of firmware and a few of devices.
/// With a limit of exactly the RAM a guest starts on Linux 6.1, and on 6.12 the mapping of SeaBIOS at 0xfffc0000 fails
/// (measured with QEMU 7.2 on both).
pub const ROMS: u64 = 1 << 20;

/// The virtual IOMMUs that QEMU has for x86.
const VIRTUAL_IOMMUS: [&str; 4] = ["intel-iommu", "amd-iommu", "virtio-iommu-pci", "virtio-iommu"];

/// What is pinned for the guest of `line` with that much RAM; `nvme_disks` counts those that QEMU drives itself and
/// that are not in `line`; `virtual_iommu` is whether there is one that is not in it.
pub fn pinned(line: &CommandLine, ram: u64, plugged: &[Plugged], nvme_disks: u64, virtual_iommu: bool) -> Pinned {
    let devices = line.passthrough();
    let number = |kind: PassthroughKind| {
        u64::try_from(devices.iter().filter(|device| device.kind == kind).count()).unwrap_or(u64::MAX)
    };
    let (pci, mdev) = (number(PassthroughKind::VfioPci), number(PassthroughKind::VfioMdev));
    let translates =
        virtual_iommu || line.devices.iter().any(|device| VIRTUAL_IOMMUS.contains(&device.driver.as_ref()));
    let containers = pci.saturating_add(mdev);
    let containers = if translates { containers } else { containers.min(1) };
    let nvme = u64::try_from(line.host_ends.iter().filter(|end| is_nvme(end)).count()).unwrap_or(u64::MAX);
    let containers = containers.saturating_add(nvme).saturating_add(nvme_disks);

    // virtio-mem plugs nothing before the guest asks for it.
    let fixed = plugged
        .iter()
        .filter(|device| device.kind != MemoryDeviceKind::VirtioMem)
        .filter_map(|device| device.range.size());
    let fixed = fixed.fold(ram, u64::saturating_add);
    let other = line.devices.iter().filter_map(|device| shared_memory(device, line));
    let most = plugged.iter().filter_map(|device| device.range.size()).chain(other).fold(ram, u64::saturating_add);
    // Of encrypted memory, only what the guest shares is mapped, and with a virtio-iommu that hides memory, only what
    // the guest reveals.
    let certain = pci > 0 && line.firmware.confidential.is_none() && !hides_memory_at_start(line);
    Pinned {
        at_start: if certain { fixed } else { 0 },
        vfio: most.saturating_mul(containers),
        vdpa: most.saturating_mul(number(PassthroughKind::VhostVdpa)),
    }
}

/// Whether a `-blockdev` is, or has inside, QEMU's own driver for NVMe devices.
fn is_nvme(end: &Device) -> bool {
    let inside = |property: &Property| property.value == "nvme" && property.name.ends_with(".driver");
    end.driver == "nvme" || end.properties.iter().any(inside)
}

/// Memory in a BAR of an emulated device, in bytes, which VFIO maps as it maps RAM (QEMU `hw/misc/ivshmem.c`).
fn shared_memory(device: &Device, line: &CommandLine) -> Option<u64> {
    if device.driver != "ivshmem-plain" {
        return None;
    }
    let backend = device.properties.value("memdev").and_then(|id| line.backend(id));
    backend.map(|backend| backend.size.value).or_else(|| device.properties.get("size").and_then(Property::size))
}
