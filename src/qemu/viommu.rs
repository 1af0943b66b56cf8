//! The virtual IOMMU of a guest, as far as it concerns passthrough devices.
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

/// Whether no device can access the guest's memory until the guest allows it: a virtio-iommu with `boot-bypass=off`
/// (`virtio_iommu_device_bypassed`). With every other one, and by default with this one too, devices see all of memory
/// until the guest translates (`vtd_switch_address_space`), so that VFIO maps it at start.
pub(crate) fn hides_memory_at_start(line: &CommandLine) -> bool {
    if may_be_bypassed(line) {
        return false;
    }
    // A device that is created before it bypasses it; devices given as JSON are created last
    // (`qemu_create_cli_devices`).
    let (first, last): (Vec<_>, Vec<_>) = line.devices.iter().partition(|device| device.settable);
    let made = first.into_iter().chain(last);
    let mut devices = made
        .take_while(|device| !device.driver.starts_with("vfio-pci"))
        .filter(|device| VIRTIO.contains(&&*device.driver));
    let off = |value: &str| boolean(value) == Some(false);
    let globally = || line.global(&VIRTIO, "boot-bypass").is_some_and(|property| off(&property.value));
    devices.any(|device| device.properties.value("boot-bypass").map_or_else(globally, off))
}

/// The drivers of further root buses (`hw/pci-bridge/pci_expander_bridge.c`).
const EXPANDERS: [&str; 3] = ["pxb", "pxb-pcie", "pxb-cxl"];

/// Whether devices of a root bus see all of the guest's memory whatever its virtual IOMMU does: those of the first one, or
/// those of an expander (`pci_bus_bypass_iommu` in `hw/pci/pci.c`, since 6.1).
pub(crate) fn may_be_bypassed(line: &CommandLine) -> bool {
    let on = |value: &str| boolean(value) == Some(true);
    let globally = || line.global(&EXPANDERS, "bypass_iommu").is_some_and(|property| on(&property.value));
    let mut expanders = line.devices.iter().filter(|device| EXPANDERS.contains(&&*device.driver));
    let own = expanders.any(|device| device.properties.value("bypass_iommu").is_some_and(on));
    line.machine.bypasses_iommu || own || globally()
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
    /// `dma-remap` of amd-iommu: whether QEMU follows what the guest maps.
    pub dma_remap: bool,
    /// `pci-id` of amd-iommu: whether its PCI function is a device of its own, without which QEMU does not migrate it.
    pub has_pci_id: bool,
    /// How many bits the guest's own IOVAs may have; of intel-iommu only.
    pub address_bits: Option<u32>,
    /// Whether devices may do without it.
    pub may_be_bypassed: bool,
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
            let is_on = |name: &str| told(name).and_then(|told| boolean(&told.value)).unwrap_or(false);
            let bits = || match told("aw-bits") {
                Some(told) => told.number().and_then(|bits| u32::try_from(bits).ok()),
                None => Some(default_address_bits(machine)),
            };
            Some(Self {
                kind,
                caching_mode: is_on("caching-mode"),
                dma_remap: is_on("dma-remap"),
                has_pci_id: told("pci-id").is_some(),
                address_bits: if kind == ViommuKind::Intel { bits() } else { None },
                may_be_bypassed: may_be_bypassed(line),
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
