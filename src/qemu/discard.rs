//! What excludes a device that gives guest memory back to the host.
//!
//! virtio-mem needs memory that can be discarded (`virtio_mem_device_realize` in QEMU `hw/virtio/virtio-mem.c`:
//! `Discarding RAM is disabled`, `Incompatible with mlock`). vhost-vdpa forbids that, as it pins all of it
//! (`vhost_vdpa_init` in `hw/virtio/vhost-vdpa.c`: `Cannot set discarding of RAM broken`). VFIO does not: it maps what is
//! plugged (`vfio_ram_block_discard_disable` in `hw/vfio/container.c`), and neither refuses a balloon, which then does
//! nothing. Measured on QEMU 7.2.22, 10.0.13 and 11.1.3, with simulated vhost-vdpa ioctls.

use super::memory_device::MemoryDeviceKind;
use crate::command_line::{CommandLine, Origin};
use crate::version::Version;

/// The first QEMU that is known to refuse it.
const REFUSES: Version = Version::new(7, 2);

/// What forbids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// A vDPA device, at this place.
    Vdpa(Origin),
    /// All memory is locked (`-overcommit mem-lock=on`).
    Locked,
}

/// The first virtio-mem device and what excludes it; `locked` is whether all memory is locked.
pub fn refused(line: &CommandLine, qemu: Version, locked: bool) -> Option<(Origin, Pinning)> {
    let mut devices = line.devices.iter();
    let device = devices.find(|device| MemoryDeviceKind::of(device) == Some(MemoryDeviceKind::VirtioMem))?;
    if qemu < REFUSES {
        return None;
    }
    let networks = line.host_ends.iter().filter(|end| end.driver == "vhost-vdpa");
    let others = line.devices.iter().filter(|device| device.driver.starts_with("vhost-vdpa-device"));
    let vdpa = networks.chain(others).map(|device| Pinning::Vdpa(device.origin)).next();
    let pinning = vdpa.or(locked.then_some(Pinning::Locked))?;
    Some((device.origin, pinning))
}
