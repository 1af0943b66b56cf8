//! Devices that reach guest memory through the host's IOMMU.

use super::Sourced;
use super::units::parse_number;
use crate::xml::{Element, Span};

/// The namespace of `<qemu:commandline>` (libvirt `docs/drvqemu.rst`).
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// A device whose DMA goes through VFIO or vDPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// How it is attached.
    pub kind: PassthroughKind,
    /// A PCI address `0000:41:10.1`, an mdev UUID, or a device path; empty where only libvirt will know it.
    pub device: String,
    /// Whether it is a network interface.
    pub network: bool,
    /// Where it stands.
    pub span: Span,
}

/// How a passthrough device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassthroughKind {
    /// A PCI function through vfio-pci.
    VfioPci,
    /// A mediated device. Without an IOMMU-backed parent its list of valid IOVAs is empty, which allows everything.
    VfioMdev,
    /// A vDPA network device or disk.
    VhostVdpa,
}

impl PassthroughKind {
    /// The name of the QEMU device.
    pub fn name(self) -> &'static str {
        match self {
            Self::VfioPci => "vfio-pci",
            Self::VfioMdev => "vfio-mdev",
            Self::VhostVdpa => "vhost-vdpa",
        }
    }
}

/// A device that may reach guest memory through the host's IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenDma {
    /// Who knows whether it does.
    pub unseen: Unseen,
    /// Where it stands.
    pub span: Span,
}

/// Who knows whether a device reaches guest memory through the host's IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// The process at the other end of a socket, which speaks this protocol: `vhost-user` or `vfio-user`.
    Process(&'static str),
    /// The virtual network of this name: one with `<forward mode='hostdev'>` hands out a PCI function at start.
    Network(String),
}

/// The devices under `<devices>` whose back end may hold a VFIO device.
///
/// vhost-user devices with a back end of libvirt's own have none: virtiofsd, swtpm, vhost-user-gpu, passt.
pub(super) fn hidden_in_devices(devices: Element<'_>) -> Vec<HiddenDma> {
    let hidden = |device: Element<'_>| {
        let unseen = match (device.name(), device.value("type")?) {
            ("interface", "vhostuser") => {
                let passt = device.child("backend").and_then(|backend| backend.value("type")) == Some("passt");
                (!passt).then_some(Unseen::Process("vhost-user"))?
            }
            ("disk", "vhostuser") => Unseen::Process("vhost-user"),
            // Once the guest runs, libvirt records what the network gave it.
            ("interface", "network") if device.child("actual").is_none() => {
                Unseen::Network(device.child("source")?.value("network")?.to_owned())
            }
            _ => return None,
        };
        Some(HiddenDma { unseen, span: device.start_tag() })
    };
    devices.children().filter_map(hidden).collect()
}

/// The same of raw arguments.
pub(super) fn hidden_in_raw_args(args: &[Sourced<String>]) -> Vec<HiddenDma> {
    args.iter()
        .filter_map(|arg| {
            let protocol = match driver(&arg.value) {
                "vfio-user-pci" => "vfio-user",
                // The network back end and the disks; what else speaks vhost-user is served by programs without devices.
                "vhost-user" => "vhost-user",
                name if name.starts_with("vhost-user-blk") || name.starts_with("vhost-user-scsi") => "vhost-user",
                _ => return None,
            };
            Some(HiddenDma { unseen: Unseen::Process(protocol), span: arg.span })
        })
        .collect()
}

/// The passthrough devices under `<devices>`.
pub(super) fn from_devices(devices: Element<'_>) -> Vec<Passthrough> {
    devices.children().filter_map(from_device).collect()
}

fn from_device(device: Element<'_>) -> Option<Passthrough> {
    let network = device.name() == "interface";
    let found = |kind, name: String| Some(Passthrough { kind, device: name, network, span: device.start_tag() });
    let source_device = || device.child("source").and_then(|s| s.value("dev")).unwrap_or_default().to_owned();
    match (device.name(), device.value("type")?) {
        // An explicit legacy or Xen driver has no VFIO behind it.
        ("hostdev", "pci") if driver_is_vfio(device) => found(PassthroughKind::VfioPci, source_pci(device)),
        ("hostdev", "mdev") => {
            let address = device.descend(&["source", "address"]);
            let uuid = address.and_then(|a| a.value("uuid")).unwrap_or_default();
            found(PassthroughKind::VfioMdev, uuid.to_owned())
        }
        ("interface", "hostdev") => found(PassthroughKind::VfioPci, source_pci(device)),
        ("interface", "vdpa") => found(PassthroughKind::VhostVdpa, source_device()),
        // A network whose forward mode is hostdev hands out a function at start; libvirt then records it here.
        ("interface", "network") => {
            let actual = device.child("actual").filter(|a| a.value("type") == Some("hostdev"))?;
            found(PassthroughKind::VfioPci, source_pci(actual))
        }
        ("disk", "vhostvdpa") => found(PassthroughKind::VhostVdpa, source_device()),
        _ => None,
    }
}

fn driver_is_vfio(device: Element<'_>) -> bool {
    device.child("driver").and_then(|d| d.value("name")).is_none_or(|name| name == "vfio")
}

/// The host address in `<source><address domain bus slot function>`, as sysfs spells it.
fn source_pci(device: Element<'_>) -> String {
    let Some(address) = device.descend(&["source", "address"]) else { return String::new() };
    let part = |name| address.value(name).map_or(Some(0), parse_integer);
    match (part("domain"), part("bus"), part("slot"), part("function")) {
        (Some(domain), Some(bus), Some(slot), Some(function)) => {
            format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")
        }
        _ => String::new(),
    }
}

fn parse_integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => parse_number(text).ok(),
    }
}

/// The arguments in `<qemu:commandline>`.
pub(super) fn raw_args(domain: Element<'_>) -> Vec<Sourced<String>> {
    domain
        .children()
        .filter(|e| e.local_name() == "commandline" && e.namespace() == Some(QEMU_NAMESPACE))
        .flat_map(|commandline| commandline.children())
        .filter(|e| e.local_name() == "arg" && e.namespace() == Some(QEMU_NAMESPACE))
        .filter_map(|arg| arg.attribute("value"))
        .map(|value| Sourced { value: value.value.to_owned(), span: value.span })
        .collect()
}

/// The passthrough devices that raw arguments add, in QEMU's plain or JSON notation.
pub(super) fn from_raw_args(args: &[Sourced<String>]) -> Vec<Passthrough> {
    args.iter()
        .filter_map(|arg| {
            let kind = match driver(&arg.value) {
                "vfio-pci" | "vfio-pci-nohotplug" => PassthroughKind::VfioPci,
                "vhost-vdpa" | "vhost-vdpa-device-pci" | "vhost-vdpa-device" => PassthroughKind::VhostVdpa,
                _ => return None,
            };
            let device = ["host", "sysfsdev", "vhostdev"].iter().find_map(|key| property(&arg.value, key));
            let device = device.unwrap_or_default().to_owned();
            Some(Passthrough { kind, device, network: false, span: arg.span })
        })
        .collect()
}

/// The driver or type an option value names: `vfio-pci` of `vfio-pci,host=…`, `driver=vfio-pci,…` or
/// `{"driver":"vfio-pci",…}`.
fn driver(value: &str) -> &str {
    property(value, "driver")
        .or_else(|| property(value, "type"))
        .unwrap_or_else(|| value.split(',').next().unwrap_or_default())
}

/// The value of `key` in `a,key=value` or `{"key":"value"}`.
fn property<'v>(value: &'v str, key: &str) -> Option<&'v str> {
    if value.trim_start().starts_with('{') {
        let quoted = format!("\"{key}\"");
        let (_, rest) = value.split_once(&quoted)?;
        return rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next();
    }
    value.split(',').find_map(|part| part.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}
