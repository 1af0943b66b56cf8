//! The devices of a domain on PCI buses, as far as guest firmware has to find room for them.

use std::collections::BTreeSet;

use super::units::parse_kib;
use crate::xml::{Element, Span};

/// A place on a PCI bus of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// The index of the controller whose bus it is.
    pub bus: u32,
    /// 0 to 31.
    pub slot: u32,
    /// 0 to 7.
    pub function: u32,
}

impl std::fmt::Display for PciAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{:x}", self.bus, self.slot, self.function)
    }
}

/// A device on a PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// What QEMU calls it, or one that has the same BARs.
    pub driver: &'static str,
    /// What libvirt calls it, if that is known.
    pub alias: Option<String>,
    /// Where it is, if the domain says so.
    pub address: Option<PciAddress>,
    /// Bytes of the memory that it has in a BAR of its own.
    pub size: Option<u64>,
    /// Whether each of its queues has a page of its own (`<driver page_per_vq>`).
    pub page_per_queue: bool,
    /// Where it is.
    pub span: Span,
}

/// Where a device comes in the order in which libvirt gives addresses away, the PCI controllers left out
/// (`qemuDomainAssignDevicePCISlots` in libvirt `src/qemu/qemu_domain_address.c`).
fn rank(device: Element<'_>) -> Option<u8> {
    Some(match device.name() {
        "filesystem" => 0,
        "interface" if is_function(device) => FUNCTIONS_OF_NETWORKS,
        "interface" => 1,
        "sound" => 2,
        "controller" => CONTROLLERS,
        "disk" => 4,
        "hostdev" => 6,
        "memballoon" => BALLOONS,
        "rng" => 8,
        "video" => 9,
        "shmem" => 10,
        "input" => 11,
        "watchdog" => 12,
        "vsock" => 13,
        "memory" => 14,
        "crypto" => 15,
        _ => return None,
    })
}

/// The ranks of controllers, of interfaces that are functions of the host's, and of memory balloons.
const CONTROLLERS: u8 = 3;
const FUNCTIONS_OF_NETWORKS: u8 = 5;
const BALLOONS: u8 = 7;

/// What a domain says of PCI buses, apart from its controllers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PciDevices {
    /// The devices, in the order in which libvirt gives them addresses.
    pub listed: Vec<PciDevice>,
    /// Before which of them a USB controller would come, if there is none and the domain does not rule it out.
    pub without_usb: Option<usize>,
    /// The same for a memory balloon.
    pub without_balloon: Option<usize>,
    /// An address that is given twice, and the device that is the second to have it.
    pub given_twice: Option<(PciAddress, Span)>,
}

/// What `<devices>` says.
pub(super) fn pci_devices(devices: Option<Element<'_>>) -> PciDevices {
    let Some(devices) = devices else {
        return PciDevices { without_usb: Some(0), without_balloon: Some(0), ..PciDevices::default() };
    };
    let ranked = devices.children().filter_map(|device| Some((rank(device)?, pci_device(device)?)));
    let mut listed: Vec<(u8, PciDevice)> = ranked.collect();
    listed.sort_by_key(|(rank, _)| *rank);
    name_shared_memory(&mut listed);
    let end_of = |last: u8| listed.partition_point(|(rank, _)| *rank <= last);
    let mut controllers = devices.children_named("controller");
    let has_usb = controllers.any(|controller| controller.value("type") == Some("usb"));
    PciDevices {
        without_usb: (!has_usb).then(|| end_of(CONTROLLERS)),
        without_balloon: devices.child("memballoon").is_none().then(|| end_of(BALLOONS)),
        listed: listed.into_iter().map(|(_, device)| device).collect(),
        given_twice: given_twice(devices),
    }
}

/// An address that two devices have. Expected of libvirt 9.0, 11.3 and 12.8: each refuses every pair of these devices.
fn given_twice(devices: Element<'_>) -> Option<(PciAddress, Span)> {
    let has_address = |device: &Element<'_>| match device.name() {
        "controller" => device.value("type") != Some("usb") || device.value("model") != Some("none"),
        "memballoon" => device.value("model") != Some("none"),
        // Not known to libvirt 9.0.
        "crypto" => false,
        "serial" => true,
        _ => rank(*device).is_some(),
    };
    // libvirt takes an address of zeros for none (`virPCIDeviceAddressIsEmpty` of `src/util/virpci.c`).
    let is_given = |address: &PciAddress| (address.bus, address.slot) != (0, 0);
    let mut taken = BTreeSet::new();
    let with_address = devices.children().filter(has_address);
    let mut addresses =
        with_address.filter_map(|device| Some((pci_address(device).filter(is_given)?, device.start_tag())));
    addresses.find(|(address, _)| !taken.insert(*address))
}

/// Tells shared memory apart as libvirt does (`qemuAssignDeviceShmemAlias` of `src/qemu/qemu_alias.c`).
fn name_shared_memory(listed: &mut [(u8, PciDevice)]) {
    let shared = listed.iter_mut().filter(|(_, device)| device.driver == SHARED_MEMORY);
    for (number, (_, device)) in shared.enumerate() {
        device.alias.get_or_insert_with(|| format!("shmem{number}"));
    }
}

/// What QEMU calls shared memory without a server.
const SHARED_MEMORY: &str = "ivshmem-plain";

/// The longest alias of a user's that is kept, in bytes.
const LONGEST_ALIAS: usize = 256;

/// The `<address>` of a device in the guest.
pub(super) fn pci_address(device: Element<'_>) -> Option<PciAddress> {
    let address = device.child("address").filter(|address| address.value("type") == Some("pci"))?;
    let part = |name: &str| match address.value(name) {
        Some(text) => super::passthrough::parse_integer(text).and_then(|number| u32::try_from(number).ok()),
        None => Some(0),
    };
    let (bus, slot, function) = (part("bus")?, part("slot")?, part("function")?);
    (part("domain")? == 0 && slot < 32 && function < 8).then_some(PciAddress { bus, slot, function })
}

fn pci_device(device: Element<'_>) -> Option<PciDevice> {
    let model = device.value("model").or_else(|| device.child("model")?.value("type")).unwrap_or_default();
    let kind = device.value("type").unwrap_or_default();
    let virtio = model.starts_with("virtio");
    let address_type = device.child("address").and_then(|address| address.value("type"));
    if address_type.is_some_and(|kind| kind != "pci") && device.name() != "disk" {
        return None;
    }
    let driver = match device.name() {
        "filesystem" => "virtio-9p-pci",
        "rng" => "virtio-rng-pci",
        "vsock" => "vhost-vsock-pci",
        "crypto" => "virtio-crypto-pci",
        "interface" if is_function(device) => "vfio-pci",
        "interface" => match model {
            _ if virtio => "virtio-net-pci",
            "e1000e" | "igb" | "vmxnet3" => "e1000e",
            "usb-net" => return None,
            _ => "rtl8139",
        },
        "sound" if virtio => "virtio-sound-pci",
        "sound" if model == "usb" => return None,
        "controller" => controller(kind, model)?,
        "disk" => match device.child("target").and_then(|target| target.value("bus")) {
            Some("virtio") => "virtio-blk-pci",
            _ => return None,
        },
        "hostdev" => match kind {
            "pci" | "mdev" if address_type != Some("unassigned") => "vfio-pci",
            "scsi_host" => "vhost-scsi-pci",
            _ => return None,
        },
        "memballoon" if virtio => "virtio-balloon-pci",
        "memory" if virtio => "virtio-mem-pci",
        "shmem" if model.starts_with("ivshmem") || model.is_empty() => SHARED_MEMORY,
        "input" if device.value("bus") == Some("virtio") => "virtio-input-pci",
        "video" if virtio => "virtio-gpu-pci",
        _ => return None,
    };
    let is_shared = driver == SHARED_MEMORY;
    let size = is_shared.then(|| shared_memory(device)).flatten();
    let alias = device.child("alias").filter(|_| is_shared).and_then(|alias| alias.value("name"));
    let alias = alias.filter(|name| name.starts_with("ua-") && name.len() <= LONGEST_ALIAS).map(str::to_owned);
    let page_per_queue = device.child("driver").is_some_and(|driver| driver.value("page_per_vq") == Some("on"));
    let span = if device.name() == "memory" { device.span() } else { device.start_tag() };
    Some(PciDevice { driver, alias, address: pci_address(device), size, page_per_queue, span })
}

/// Whether an interface is a function of the host's.
fn is_function(interface: Element<'_>) -> bool {
    let actual = interface.child("actual").and_then(|actual| actual.value("type"));
    interface.value("type") == Some("hostdev") || actual == Some("hostdev")
}

fn controller(kind: &str, model: &str) -> Option<&'static str> {
    match (kind, model) {
        ("usb", "qemu-xhci") => Some("qemu-xhci"),
        ("usb", "nec-xhci") => Some("nec-usb-xhci"),
        ("virtio-serial", _) => Some("virtio-serial-pci"),
        ("scsi", model) if model.starts_with("virtio") => Some("virtio-scsi-pci"),
        ("nvme", _) => Some("nvme"),
        _ => None,
    }
}

/// `<size>` of `<shmem>`, in bytes; 4 MiB if it says none (`IVSHMEM` in libvirt `docs/formatdomain.rst`).
fn shared_memory(device: Element<'_>) -> Option<u64> {
    const DEFAULT: u64 = 4 << 20;
    let Some(size) = device.child("size") else { return Some(DEFAULT) };
    parse_kib(&size.text(), size.value("unit")).ok()?.checked_mul(1024)
}
