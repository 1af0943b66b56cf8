//! Devices that reach guest memory through the host's IOMMU.

use super::units::parse_number;
use super::{DeviceChange, HostDevice, HostDeviceKind, Sourced};
use crate::xml::{Element, Span};

/// The namespace of `<qemu:commandline>` and `<qemu:override>` (libvirt `docs/drvqemu.rst`).
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// A device that may reach guest memory through the host's IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenDma {
    /// Who knows whether it does.
    pub unseen: Unseen,
    /// As [`HostDevice::failover`].
    #[cfg(feature = "cli")]
    pub failover: Option<String>,
    /// Where it is.
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
        if !matches!(device.name(), "interface" | "disk") {
            return None;
        }
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
        Some(HiddenDma {
            unseen,
            #[cfg(feature = "cli")]
            failover: failover(device),
            span: device.start_tag(),
        })
    };
    devices.children().filter_map(hidden).collect()
}

/// The passthrough devices under `<devices>`.
pub(super) fn from_devices(devices: Element<'_>) -> Vec<HostDevice> {
    devices.children().filter_map(from_device).collect()
}

fn from_device(device: Element<'_>) -> Option<HostDevice> {
    if !matches!(device.name(), "hostdev" | "interface" | "disk") {
        return None;
    }
    let network = device.name() == "interface";
    let found = |kind, name: String| {
        Some(HostDevice {
            kind,
            device: name,
            network,
            #[cfg(feature = "cli")]
            failover: failover(device),
            span: device.start_tag(),
        })
    };
    // Kept for later: the guest does not get it (`qemuBuildHostdevCommandLine` in libvirt `src/qemu/qemu_command.c`).
    if device.child("address").is_some_and(|address| address.value("type") == Some("unassigned")) {
        return None;
    }
    let source_device = || device.child("source").and_then(|s| s.value("dev")).unwrap_or_default().to_owned();
    match (device.name(), device.value("type")?) {
        // An explicit legacy or Xen driver has no VFIO behind it.
        ("hostdev", "pci") if driver_is_vfio(device) => found(HostDeviceKind::Pci, source_pci(device)),
        ("hostdev", "mdev") => {
            let address = device.descend(&["source", "address"]);
            let uuid = address.and_then(|a| a.value("uuid")).unwrap_or_default();
            found(HostDeviceKind::Mdev, uuid.to_owned())
        }
        ("interface", "hostdev") => found(HostDeviceKind::Pci, source_pci(device)),
        ("interface", "vdpa") => found(HostDeviceKind::Vdpa, source_device()),
        // A network whose forward mode is hostdev hands out a function at start; libvirt then records it here.
        ("interface", "network") => {
            let actual = device.child("actual").filter(|a| a.value("type") == Some("hostdev"))?;
            found(HostDeviceKind::Pci, source_pci(actual))
        }
        ("disk", "vhostvdpa") => found(HostDeviceKind::Vdpa, source_device()),
        _ => None,
    }
}

/// `virDomainNetTeamingInfoParseXML` of libvirt `src/conf/domain_conf.c`.
#[cfg(feature = "cli")]
fn failover(device: Element<'_>) -> Option<String> {
    let teaming = device.child("teaming").filter(|teaming| teaming.value("type") == Some("transient"))?;
    Some(teaming.value("persistent").unwrap_or_default().to_owned())
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

pub(super) fn parse_integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => parse_number(text).ok(),
    }
}

/// Whether an element is one of libvirt's for QEMU. Hardly any has a namespace, so that this is asked first.
fn is_of_qemu(element: &Element<'_>, name: &str) -> bool {
    element.namespace() == Some(QEMU_NAMESPACE) && element.local_name() == name
}

/// The arguments in `<qemu:commandline>`.
pub(super) fn raw_args(domain: Element<'_>) -> Vec<Sourced<String>> {
    domain
        .children()
        .filter(|element| is_of_qemu(element, "commandline"))
        .flat_map(|commandline| commandline.children())
        .filter(|element| is_of_qemu(element, "arg"))
        .filter_map(|arg| arg.attribute("value"))
        .map(|value| Sourced { value: value.value.to_owned(), span: value.span })
        .collect()
}

/// The changes in `<qemu:override>`.
pub(super) fn device_changes(domain: Element<'_>) -> Vec<DeviceChange> {
    let overrides = domain.children().filter(|element| is_of_qemu(element, "override"));
    let devices = overrides.flat_map(|element| element.children()).filter(|element| is_of_qemu(element, "device"));
    let mut changes = Vec::new();
    for device in devices {
        let Some(alias) = device.value("alias") else { continue };
        let frontends = device.children().filter(|element| is_of_qemu(element, "frontend"));
        let properties =
            frontends.flat_map(|element| element.children()).filter(|element| is_of_qemu(element, "property"));
        changes.extend(properties.filter_map(|property| {
            let value = match property.value("type")? {
                "remove" => None,
                "bool" => Some(if property.value("value")? == "true" { "on" } else { "off" }.to_owned()),
                _ => Some(property.value("value")?.to_owned()),
            };
            let name = property.value("name")?.to_owned();
            Some(DeviceChange { alias: alias.to_owned(), name, value, span: property.start_tag() })
        }));
    }
    changes
}
