//! The virtual IOMMU of a guest, as far as passthrough devices have to do with it.
//!
//! Sources: QEMU 7.2 and 10.0 `hw/i386/intel_iommu.c`, `hw/i386/amd_iommu.c`, `hw/virtio/virtio-iommu.c`.

#[cfg(feature = "cli")]
use crate::command_line::Device;
#[cfg(feature = "cli")]
use crate::command_line::Origin;
use crate::command_line::{CommandLine, boolean};
#[cfg(feature = "cli")]
use crate::machine::MachineType;
#[cfg(feature = "cli")]
use crate::version::Version;

/// The drivers of virtio-iommu: its own name, and those of the kinds of PCI device (`virtio_pci_types_register`).
const VIRTIO: [&str; 3] = ["virtio-iommu-pci", "virtio-iommu-pci-non-transitional", "virtio-iommu-device"];

/// Whether no device gets at the guest's memory until the guest says so: a virtio-iommu with `boot-bypass=off`
/// (`virtio_iommu_device_bypassed`). In front of every other one, and by default of this one too, devices see all of memory
/// until the guest translates (`vtd_switch_address_space`), so that VFIO maps it at start.
pub(crate) fn hides_memory_at_start(line: &CommandLine) -> bool {
    let mut devices = line.devices.iter().filter(|device| VIRTIO.contains(&&*device.driver));
    let off = |value: &str| boolean(value) == Some(false);
    let globally = || line.global(&VIRTIO, "boot-bypass").is_some_and(|property| off(&property.value));
    devices.any(|device| device.properties.value("boot-bypass").map_or_else(globally, off))
}

/// A kind of virtual IOMMU.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViommuKind {
    /// `intel-iommu`.
    Intel,
    /// `virtio-iommu-pci`.
    Virtio,
    /// `amd-iommu`.
    Amd,
}

/// A virtual IOMMU.
#[cfg(feature = "cli")]
#[derive(Debug, Clone)]
pub struct Viommu {
    /// Its kind.
    pub kind: ViommuKind,
    /// `caching-mode` of intel-iommu: whether QEMU learns what the guest maps.
    pub caching_mode: bool,
    /// How many bits the guest's own IOVAs may have; of intel-iommu only.
    pub address_bits: Option<u32>,
    /// Where it comes from.
    pub origin: Origin,
}

#[cfg(feature = "cli")]
impl Viommu {
    /// That of a guest: the device that libvirt writes for a domain, or the first that is given otherwise.
    pub(crate) fn of(written: Option<&Device>, line: &CommandLine, machine: &MachineType) -> Option<Self> {
        written.into_iter().chain(&line.devices).find_map(|device| {
            let kind = match &*device.driver {
                "intel-iommu" => ViommuKind::Intel,
                "amd-iommu" => ViommuKind::Amd,
                driver if VIRTIO.contains(&driver) => ViommuKind::Virtio,
                _ => return None,
            };
            let told = |name: &str| device.properties.get(name).or_else(|| line.global(&[&*device.driver], name));
            let bits = || match told("aw-bits") {
                Some(told) => told.number().and_then(|bits| u32::try_from(bits).ok()),
                None => Some(default_address_bits(machine)),
            };
            Some(Self {
                kind,
                caching_mode: told("caching-mode").and_then(|told| boolean(&told.value)).unwrap_or(false),
                address_bits: if kind == ViommuKind::Intel { bits() } else { None },
                origin: device.origin,
            })
        })
    }
}

/// `aw-bits` of an intel-iommu that is not told any: 48, and 39 with machine types up to 9.1 (`VTD_HOST_ADDRESS_WIDTH` in
/// `include/hw/i386/intel_iommu.h` of 7.2; `pc_compat_9_1` in `hw/i386/pc.c` of 10.0).
#[cfg(feature = "cli")]
fn default_address_bits(machine: &MachineType) -> u32 {
    if machine.version < Version::new(9, 2) { 39 } else { 48 }
}
