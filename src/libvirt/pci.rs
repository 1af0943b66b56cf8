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

/// More devices than any guest has: QEMU has 256 buses.
const MOST_DEVICES: usize = 4096;

/// Slots of a bus, and functions of a slot.
const SLOTS: u32 = 32;
const FUNCTIONS: u32 = 8;

/// Writes the ports and bridges of a domain, and every device with BARs that may matter.
pub(super) fn write(domain: &Domain, family: Family, line: &mut CommandLine) {
    if domain.controllers.len().saturating_add(domain.pci.listed.len()) > MOST_DEVICES {
        return;
    }
    let mut buses = Buses::new(domain, family);
    buses.ports(domain);
    let written = line.devices.iter().enumerate().rev().map(|(index, device)| (device.origin, index));
    let written: BTreeMap<Origin, usize> = written.collect();
    let added =
        |driver| PciDevice { driver, alias: None, address: None, size: None, page_per_queue: false, span: domain.span };
    let (xhci, balloon) = (added("qemu-xhci"), added("virtio-balloon-pci"));
    // `qemuDomainDefAddDefaultDevices` of libvirt `src/qemu/qemu_postparse.c` adds these two.
    let without_usb = domain.pci.without_usb.filter(|_| family == Family::Q35);
    let missing = [(without_usb, &xhci), (domain.pci.without_balloon, &balloon)];
    let mut devices: Vec<&PciDevice> = domain.pci.listed.iter().collect();
    // From the end, so that indices stay valid.
    for (at, device) in missing.into_iter().rev() {
        if let Some(at) = at.filter(|&at| at <= devices.len()) {
            devices.insert(at, device);
        }
    }
    if let Some(first) = devices.iter().find(|device| device.address.is_none() && is_conventional(device)) {
        buses.make_conventional(first.span);
    }
    for device in devices {
        let address = device.address.unwrap_or_else(|| buses.assign(device));
        let index = written.get(&Origin::Xml(device.span)).copied();
        place(device, index, &buses.name(address.bus), address, line);
    }
    // QEMU has the bus only once the port exists.
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
        line.devices.push(Device { driver, id: device.alias.clone(), properties, origin, settable: false });
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
    /// No index below this is free.
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
            let origin = Origin::Xml(controller.span);
            let mut properties = Properties::new();
            if !controller.hotplug {
                properties.set("hotplug", "off", origin);
            }
            // Since some version between 9.0 and 11.3; older ones leave it out.
            if let Some(kib) = controller.memory_reserve.filter(|_| is_port || driver == "pci-bridge") {
                properties.set("mem-reserve", kib.saturating_mul(1024), origin);
            }
            self.bridge(driver, index, address, properties, controller.span);
            if is_port && !self.occupied.contains(&index) {
                self.free.push(index);
            }
        }
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn bridge(
        &mut self,
        driver: &'static str,
        index: u32,
        address: PciAddress,
        mut properties: Properties,
        span: Span,
    ) {
        let origin = Origin::Xml(span);
        locate(&mut properties, &self.name(address.bus), address, origin);
        let id = Some(self.name(index));
        self.bridges.push(Device { driver: driver.into(), id, properties, origin, settable: false });
    }

    /// The address of a device for which the domain has none.
    fn assign(&mut self, device: &PciDevice) -> PciAddress {
        let on_root = self.family == Family::I440fx || device.driver == "virtio-gpu-pci";
        if on_root {
            return self.next_on_root(false);
        }
        if let Some(bus) = self.conventional.filter(|_| is_conventional(device)) {
            return self.next_on(bus, 1, false);
        }
        let bus = self.free.pop().unwrap_or_else(|| self.new_port(device.span));
        PciAddress { bus, slot: 0, function: 0 }
    }

    fn new_port(&mut self, span: Span) -> u32 {
        let (index, address) = (self.next_index(), self.next_on_root(true));
        self.bridge("pcie-root-port", index, address, Properties::new(), span);
        index
    }

    /// Makes the bus for devices that are not PCI Express; libvirt makes it before any device has an address.
    fn make_conventional(&mut self, span: Span) {
        if self.family == Family::Q35 {
            // It comes with a port, and takes the first one that is free.
            let new = self.new_port(span);
            let index = self.next_index();
            self.free.insert(0, new);
            let port = self.free.pop().unwrap_or(new);
            let address = PciAddress { bus: port, slot: 0, function: 0 };
            self.bridge("pcie-pci-bridge", index, address, Properties::new(), span);
            self.conventional = Some(index);
        }
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

/// Whether a device is not PCI Express.
fn is_conventional(device: &PciDevice) -> bool {
    matches!(device.driver, "rtl8139" | "ivshmem-plain")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::xml::Document;

    /// Where each device is, in the order of the command line: its driver, bus and address.
    fn written(devices: &str, family: Family) -> Vec<String> {
        let xml = format!("<domain type='kvm'><name>a</name><devices>{devices}</devices></domain>");
        let domain = domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain");
        let mut line = CommandLine::default();
        domain.passthrough.iter().for_each(|device| super::super::attach(device, &mut line));
        write(&domain, family, &mut line);
        let of = |device: &Device| {
            let value = |name: &str| device.properties.value(name).unwrap_or("-");
            let name = if value("host") == "-" { device.driver.to_string() } else { value("host").to_owned() };
            format!("{name} {} {}", value("bus"), value("addr"))
        };
        line.devices.iter().map(of).collect()
    }

    /// Expected values: what `virsh dumpxml` of libvirt 9.0.0 shows once such a domain is defined (the default adapter of
    /// video and SATA left out).
    #[test]
    fn addresses_that_are_missing_are_libvirts() {
        let q35 = "<controller type='pci' index='0' model='pcie-root'/>\
            <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>\
            <hostdev type='pci'><source><address bus='0x41' slot='0' function='0'/></source></hostdev>\
            <disk type='file'><target dev='vda' bus='virtio'/></disk>\
            <interface type='user'><model type='virtio'/></interface>\
            <interface type='user'><model type='e1000'/></interface>\
            <interface type='hostdev'><source><address type='pci' bus='0x42' slot='0' function='0'/></source></interface>\
            <hostdev type='pci'><source><address bus='0x43' slot='0' function='0'/></source></hostdev>\
            <rng model='virtio'/><shmem name='s'><model type='ivshmem-plain'/><size unit='M'>16</size></shmem>";
        let mut all = written(q35, Family::Q35);
        all.sort_unstable();
        assert_eq!(
            all,
            [
                "0000:41:00.0 pci.7 0x0.0x0",
                "0000:42:00.0 pci.6 0x0.0x0",
                "0000:43:00.0 pci.8 0x0.0x0",
                "ivshmem-plain pci.4 0x2.0x0",
                "pcie-pci-bridge pci.1 0x0.0x0",
                "pcie-root-port pcie.0 0x2.0x0",
                "pcie-root-port pcie.0 0x2.0x1",
                "pcie-root-port pcie.0 0x2.0x2",
                "pcie-root-port pcie.0 0x2.0x3",
                "pcie-root-port pcie.0 0x2.0x4",
                "pcie-root-port pcie.0 0x2.0x5",
                "pcie-root-port pcie.0 0x2.0x6",
                "pcie-root-port pcie.0 0x2.0x7",
                "pcie-root-port pcie.0 0x3.0x0",
                "qemu-xhci pci.3 0x0.0x0",
                "rtl8139 pci.4 0x1.0x0",
                "virtio-balloon-pci pci.9 0x0.0x0",
                "virtio-blk-pci pci.5 0x0.0x0",
                "virtio-net-pci pci.2 0x0.0x0",
                "virtio-rng-pci pci.10 0x0.0x0",
            ]
        );
    }

    /// Expected values: what `virsh domxml-to-native` of libvirt 11.3 and 12.8 writes; they refuse it of other models.
    #[test]
    fn memory_is_reserved_by_ports_and_bridges() {
        let reserved = |model: &str, family: Family| {
            let controller =
                format!("<controller type='pci' index='1' model='{model}'><target memReserve='4096'/></controller>");
            let xml = format!("<domain type='kvm'><name>a</name><devices>{controller}</devices></domain>");
            let domain = domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain");
            let mut line = CommandLine::default();
            write(&domain, family, &mut line);
            let bridge = line.devices.iter().find(|device| device.id.as_deref() == Some("pci.1")).expect("a bridge");
            bridge.properties.value("mem-reserve").map(str::to_owned)
        };
        assert_eq!(reserved("pcie-root-port", Family::Q35).as_deref(), Some("4194304"));
        assert_eq!(reserved("pci-bridge", Family::I440fx).as_deref(), Some("4194304"));
        assert_eq!(reserved("pcie-to-pci-bridge", Family::Q35), None);
    }

    #[test]
    fn addresses_that_are_there_stay() {
        let place = |bus: u32, slot: u32| format!("<address type='pci' bus='{bus:#04x}' slot='{slot:#04x}'/>");
        let devices = format!(
            "<controller type='pci' index='5' model='pcie-root-port'><target hotplug='off'/>{}</controller>\
             <controller type='usb' model='none'/><memballoon model='none'/>\
             <hostdev type='pci'><source><address bus='0x41' slot='0' function='0'/></source>{}</hostdev>",
            place(0, 4),
            place(5, 0)
        );
        assert_eq!(written(&devices, Family::Q35), ["pcie-root-port pcie.0 0x4.0x0", "0000:41:00.0 pci.5 0x0.0x0"]);
    }
}
