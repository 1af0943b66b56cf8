//! PCI buses: the ports that a domain has, and where its devices are.
//!
//! Sources: libvirt 9.0 to 12.8, `qemuBuildPCIControllerDevProps` (`src/qemu/qemu_command.c`) for what is written;
//! `qemuDomainAssignPCIAddresses` (`src/qemu/qemu_domain_address.c`) and `virDomainPCIAddressSetGrow`
//! (`src/conf/domain_addr.c`) for addresses that a domain leaves out. A definition that libvirt has taken has all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::command_line::{CommandLine, Device, Origin, Properties};
use crate::domain::{Controller, Domain, PciAddress, PciDevice};
use crate::machine::Family;
use crate::xml::Span;

/// The first slot of the root bus that is given away: before it are the chip set and the primary video adapter.
const FIRST_SLOT: u32 = 2;

/// More devices than this no guest has: QEMU has 256 buses.
const MOST_DEVICES: usize = 4096;

/// Slots of a bus, and functions of a slot.
const SLOTS: u32 = 32;
const FUNCTIONS: u32 = 8;

/// Writes the ports and bridges of a domain, and every device with BARs that may count.
pub(super) fn write(domain: &Domain, family: Family, line: &mut CommandLine) {
    if domain.controllers.len().saturating_add(domain.pci.listed.len()) > MOST_DEVICES {
        return;
    }
    let mut buses = Buses::new(domain, family);
    buses.ports(domain);
    let written = line.devices.iter().enumerate().rev().map(|(index, device)| (device.origin, index));
    let written: BTreeMap<Origin, usize> = written.collect();
    let added = |driver, is_missing: bool| {
        is_missing.then_some(PciDevice { driver, address: None, size: None, page_per_queue: false, span: domain.span })
    };
    let devices = &domain.pci;
    let xhci = added("qemu-xhci", family == Family::Q35 && !devices.has_usb);
    let balloon = added("virtio-balloon-pci", !devices.has_balloon);
    // `qemuDomainDefAddDefaultDevices` of libvirt `src/qemu/qemu_postparse.c` adds these two.
    for device in devices.listed.iter().chain(&xhci).chain(&balloon) {
        let address = device.address.unwrap_or_else(|| buses.assign(device));
        let index = written.get(&Origin::Xml(device.span)).copied();
        place(device, index, &buses.name(address.bus), address, line);
    }
    // QEMU has a bus only after the port is there.
    let others = std::mem::take(&mut line.devices);
    line.devices = buses.bridges;
    line.devices.extend(others);
}

/// Says where a device is; one that has no index in the command line is written.
fn place(device: &PciDevice, index: Option<usize>, bus: &str, address: PciAddress, line: &mut CommandLine) {
    let origin = Origin::Xml(device.span);
    let index = index.unwrap_or_else(|| {
        let mut properties = Properties::new();
        if let Some(size) = device.size {
            properties.set("size", size, origin);
        }
        if device.page_per_queue {
            properties.set("page-per-vq", "on", origin);
        }
        let driver = device.driver.into();
        line.devices.push(Device { driver, id: None, properties, origin, settable: false });
        line.devices.len().saturating_sub(1)
    });
    if let Some(written) = line.devices.get_mut(index) {
        locate(&mut written.properties, bus, address, origin);
    }
}

fn locate(properties: &mut Properties, bus: &str, address: PciAddress, origin: Origin) {
    properties.set("bus", bus, origin);
    properties.set("addr", format!("{:#x}.{:#x}", address.slot, address.function), origin);
}

/// The buses of a domain.
struct Buses {
    family: Family,
    /// The bridges, as they are written.
    bridges: Vec<Device>,
    /// The indices of controllers.
    indices: BTreeSet<u32>,
    /// None below this is free.
    next_index: u32,
    /// The addresses that are taken, and the buses that they are on.
    taken: BTreeSet<PciAddress>,
    occupied: BTreeSet<u32>,
    /// The buses of ports without a device, the first one last.
    free: Vec<u32>,
    /// The bus of the bridge for devices that are not PCI Express, once there is one.
    conventional: Option<u32>,
}

impl Buses {
    fn new(domain: &Domain, family: Family) -> Self {
        let controllers = domain.controllers.iter().filter_map(|controller| controller.address);
        let devices = domain.pci.listed.iter().filter_map(|device| device.address);
        let indices = domain.controllers.iter().filter_map(|controller| Some(controller.index?.value));
        let taken: BTreeSet<PciAddress> = controllers.chain(devices).collect();
        Self {
            family,
            bridges: Vec::new(),
            indices: indices.chain([0]).collect(),
            next_index: 1,
            occupied: taken.iter().map(|address| address.bus).collect(),
            taken,
            free: Vec::new(),
            conventional: None,
        }
    }

    /// Writes the controllers of the domain.
    fn ports(&mut self, domain: &Domain) {
        let driver = |controller: &Controller| {
            let of_pci = controller.kind.as_ref().is_some_and(|kind| kind.value == "pci");
            of_pci.then(|| driver(&controller.model.as_ref()?.value)).flatten()
        };
        for controller in &domain.controllers {
            let Some(driver) = driver(controller) else { continue };
            let index = controller.index.map_or_else(|| self.next_index(), |index| index.value);
            let is_port = driver == "pcie-root-port";
            let address = controller.address.unwrap_or_else(|| self.next_on_root(is_port));
            self.bridge(driver, index, address, controller.hotplug, controller.span);
            if is_port && !self.occupied.contains(&index) {
                self.free.push(index);
            }
        }
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn bridge(&mut self, driver: &'static str, index: u32, address: PciAddress, hotplug: bool, span: Span) {
        let origin = Origin::Xml(span);
        let mut properties = Properties::new();
        locate(&mut properties, &self.name(address.bus), address, origin);
        if !hotplug {
            properties.set("hotplug", "off", origin);
        }
        let id = Some(self.name(index));
        self.bridges.push(Device { driver: driver.into(), id, properties, origin, settable: false });
    }

    /// The address of a device for which the domain has none.
    fn assign(&mut self, device: &PciDevice) -> PciAddress {
        let on_root = self.family == Family::I440fx || device.driver == "virtio-gpu-pci";
        if on_root {
            return self.next_on_root(false);
        }
        if matches!(device.driver, "rtl8139" | "ivshmem-plain") {
            let bus = self.conventional.unwrap_or_else(|| self.conventional_bridge(device.span));
            self.conventional = Some(bus);
            return self.next_on(bus, 1, false);
        }
        let bus = self.free.pop().unwrap_or_else(|| self.new_port(device.span));
        PciAddress { bus, slot: 0, function: 0 }
    }

    fn new_port(&mut self, span: Span) -> u32 {
        let (index, address) = (self.next_index(), self.next_on_root(true));
        self.bridge("pcie-root-port", index, address, true, span);
        index
    }

    fn conventional_bridge(&mut self, span: Span) -> u32 {
        let port = self.free.pop().unwrap_or_else(|| self.new_port(span));
        let index = self.next_index();
        self.bridge("pcie-pci-bridge", index, PciAddress { bus: port, slot: 0, function: 0 }, true, span);
        index
    }

    fn next_index(&mut self) -> u32 {
        let index = (self.next_index..=u32::MAX).find(|index| !self.indices.contains(index)).unwrap_or(u32::MAX);
        self.next_index = index.saturating_add(1);
        index
    }

    /// Ports share a slot, each with a function of its own.
    fn next_on_root(&mut self, is_port: bool) -> PciAddress {
        self.next_on(0, FIRST_SLOT, is_port)
    }

    fn next_on(&mut self, bus: u32, first: u32, is_port: bool) -> PciAddress {
        let functions = if is_port { FUNCTIONS } else { 1 };
        let mut places =
            (first..SLOTS).flat_map(|slot| (0..functions).map(move |function| PciAddress { bus, slot, function }));
        let full = PciAddress { bus, slot: SLOTS.saturating_sub(1), function: 0 };
        let free = places.find(|place| !self.taken.contains(place)).unwrap_or(full);
        self.taken.insert(free);
        free
    }

    /// What QEMU calls the bus of a controller.
    fn name(&self, index: u32) -> String {
        match (index, self.family) {
            (0, Family::Q35) => "pcie.0".to_owned(),
            _ => format!("pci.{index}"),
        }
    }
}

/// The device of a model of PCI controller (`virDomainControllerPCIModelName` in libvirt `src/conf/domain_conf.c`).
fn driver(model: &str) -> Option<&'static str> {
    Some(match model {
        "pcie-root-port" => "pcie-root-port",
        "pcie-switch-upstream-port" => "x3130-upstream",
        "pcie-switch-downstream-port" => "xio3130-downstream",
        "pcie-to-pci-bridge" => "pcie-pci-bridge",
        "pci-bridge" => "pci-bridge",
        "dmi-to-pci-bridge" => "i82801b11-bridge",
        "pci-expander-bus" => "pxb",
        "pcie-expander-bus" => "pxb-pcie",
        _ => return None,
    })
}
