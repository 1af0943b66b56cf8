//! From what QEMU is told and what is known of the host: the guest's PCI tree with its 64-bit BARs, what firmware may
//! find there, and where each firmware puts the BARs then.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Bar, Mmio64, Possible, UnsizedDevice};
use crate::address::GpaRange;
use crate::command_line::{
    Accelerator, CommandLine, Device, Firmware, Model, Origin, Passthrough, PassthroughKind, Property, QemuTarget,
    boolean,
};
use crate::firmware::{BarRequest, Build, Node, Placement, Platform, Port, Vendor, place, possible_builds};
use crate::host::{FirmwareFile, FirmwareKind, Host};
use crate::machine::{Family, Flavor, MachineType};
use crate::qemu::cpu::{self, Vcpu};
use crate::qemu::layout::{FIRST_RELOCATING_QEMU, Layout};
use crate::version::Version;

/// A guest whose BARs are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Mmio64Input<'a> {
    /// What QEMU is told.
    pub line: &'a CommandLine,
    /// The host.
    pub host: &'a Host,
    /// The version of its QEMU.
    pub qemu: Version,
    /// The machine type.
    pub machine: &'a MachineType,
    /// The vCPU.
    pub cpu: &'a Vcpu,
    /// The memory map.
    pub layout: &'a Layout,
}

/// The least RAM, in bytes, with which a guest without a passthrough device may lose BARs: they do not get lost in a
/// map that ends below 768 GiB (`src/firmware`), and 512 GiB are well below.
const LARGE: u64 = 512 << 30;

/// The least BAR, in bytes, that may not be placed in a guest that is not large.
const LARGE_BAR: u64 = 1 << 30;

/// PCI buses of a guest, and as many bridges behind one another as are looked at.
const MOST_BUSES: usize = 256;
const DEEPEST: usize = 8;

/// The most memory below 4 GiB, in bytes, that bridges may be told to keep for what will be plugged in (`mem-reserve`)
/// without an effect on 64-bit BARs: more may leave no room there for the other BARs, and then firmware gives up some.
const MOST_RESERVED: u64 = 128 << 20;

/// More BARs than any guest has.
const MOST_BARS: usize = 4096;

/// The BAR of a modern virtio device, in bytes: four regions of a page each (`virtio_pci_realize` in QEMU
/// `hw/virtio/virtio-pci.c`); with a page for each of 1024 queues, 8 MiB.
const VIRTIO_BAR: u64 = 16 << 10;
const VIRTIO_BAR_OF_PAGES: u64 = 8 << 20;

/// The first machine type with modern virtio devices (`pc_compat_2_6` of QEMU `hw/i386/pc.c`).
const MODERN_VIRTIO: Version = Version::new(2, 7);

/// The BARs of NVMe and xHCI controllers, in bytes (`nvme_init_pci` of QEMU `hw/nvme/ctrl.c`, `XHCI_LEN_REGS` of
/// `hw/usb/hcd-xhci.h`).
const CONTROLLER_BAR: u64 = 16 << 10;

/// What a BAR of unknown size is taken for, in bytes: a page.
const UNKNOWN_BAR: u64 = 4096;

/// The models of QEMU without pages of 1 GiB, by how their names begin (`query-cpu-model-expansion` of QEMU 7.2, 10.0
/// and 11.1: `pdpe1gb`).
const WITHOUT_GB_PAGES: [&str; 22] = [
    "486",
    "Broadwell",
    "Conroe",
    "Haswell",
    "IvyBridge",
    "Nehalem",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "Penryn",
    "SandyBridge",
    "Skylake-Client",
    "Westmere",
    "athlon",
    "base",
    "core2duo",
    "coreduo",
    "cpu64-rhel",
    "kvm",
    "n270",
    "pentium",
    "qemu",
];

/// The first machine type, and the first QEMU, that shows guests KVM's width (`pc_compat_9_0` of QEMU `hw/i386/pc.c`,
/// `kvm_set_guest_phys_bits` of `target/i386/kvm/kvm-cpu.c`); and the first Linux that tells it (commit 980b8bc01938,
/// `arch/x86/kvm/cpuid.c`).
const GUEST_PHYS_BITS: Version = Version::new(9, 1);
const GUEST_PHYS_BITS_KERNEL: Version = Version::new(6, 10);

/// The width that page tables of four levels reach, in bits.
const FOUR_LEVELS: u32 = 48;

impl Mmio64 {
    /// The 64-bit BARs of a guest, and where each firmware that it may have puts them; `None` for a guest that has
    /// small emulated ones only, of which no firmware loses one.
    pub fn of(input: Mmio64Input<'_>) -> Option<Self> {
        let Mmio64Input { line, host, .. } = input;
        // Most guests are small and have nothing that could be large.
        if input.layout.max_gpa < LARGE && !line.devices.iter().any(may_be_large) {
            return None;
        }
        let tree = Tree::read(input)?;
        let matters =
            tree.bars.iter().any(|bar| bar.passed || bar.size >= LARGE_BAR) || !tree.unsized_devices.is_empty();
        if !matters && input.layout.max_gpa < LARGE {
            return None;
        }
        let exact = tree.exact && tree.unsized_devices.is_empty() && line.firmware.not_modelled.is_none();
        let platforms = platforms(input, &tree.root);
        let mut possible: Vec<Possible> = Vec::new();
        for build in builds(line, host) {
            for platform in &platforms {
                let found = tree.possible(build, platform, exact);
                if !possible.contains(&found) {
                    possible.push(found);
                }
            }
        }
        let all = Self { bars: tree.bars, unsized_devices: tree.unsized_devices, possible };
        (matters || all.loses_some(input.layout)).then_some(all)
    }

    /// Whether some firmware puts a BAR nowhere, or into memory.
    fn loses_some(&self, layout: &Layout) -> bool {
        let in_memory = |place: GpaRange| layout.ram().chain(layout.device_memory).any(|memory| memory.overlaps(place));
        let mut places = self.possible.iter().flat_map(|possible| self.placed(possible));
        places.any(|(_, place)| place.is_none_or(in_memory))
    }
}

/// Whether a device can be one whose BARs matter in a small guest: a passthrough device, or one whose memory has any
/// size.
fn may_be_large(device: &Device) -> bool {
    ["memdev", "size", "membar", "hostmem"].iter().any(|size| device.properties.get(size).is_some())
        || Passthrough::of(device).is_some()
}

/// The firmware that the guest may have, the likeliest first.
fn builds(line: &CommandLine, host: &Host) -> Vec<Build> {
    let known = |kind: FirmwareKind, file: Option<&FirmwareFile>| {
        possible_builds(Some(kind), file.and_then(|file| file.version.as_deref()))
    };
    let of_kind = |kind: FirmwareKind| host.firmwares.iter().filter(move |file| file.kind == kind);
    let unnamed = |kind: FirmwareKind| of_kind(kind).find(|file| file.path.is_none());
    match line.firmware() {
        Firmware::Confidential => Vec::new(),
        Firmware::Default => known(FirmwareKind::SeaBios, unnamed(FirmwareKind::SeaBios)),
        Firmware::Uefi => {
            // Which file libvirt takes does not count where all are of one version.
            let mut files = of_kind(FirmwareKind::Ovmf);
            let first = files.next();
            let same = first.filter(|first| files.all(|file| file.version == first.version));
            known(FirmwareKind::Ovmf, unnamed(FirmwareKind::Ovmf).or(same))
        }
        Firmware::Flash(path) => {
            let file = host.firmware(Some(path));
            known(file.map_or(FirmwareKind::Ovmf, |file| file.kind), file)
        }
        Firmware::Rom(path) => match host.firmware(Some(path)) {
            Some(file) => known(file.kind, Some(file)),
            None => possible_builds(kind_by_name(path), None),
        },
    }
}

/// What a file is, by the names that distributions have for it.
fn kind_by_name(path: &str) -> Option<FirmwareKind> {
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or(&path);
    if ["ovmf", "edk2", "uefi"].iter().any(|part| path.contains(part)) {
        return Some(FirmwareKind::Ovmf);
    }
    (path.contains("seabios") || name.starts_with("bios")).then_some(FirmwareKind::SeaBios)
}

/// What firmware may find, one for each value of what is unknown.
fn platforms(input: Mmio64Input<'_>, root: &[Node]) -> Vec<Platform> {
    let Mmio64Input { line, host, qemu, machine, cpu, layout } = input;
    let end = |range: GpaRange| range.end;
    let platform = |gb_pages: bool, guest_phys_bits: Option<u32>| Platform {
        vendor: match cpu.vendor.as_deref() {
            Some(cpu::AMD) => Vendor::Amd,
            Some("GenuineIntel") => Vendor::Intel,
            _ => Vendor::Other,
        },
        phys_bits: cpu.phys_bits,
        long_mode: cpu.long_mode,
        gb_pages,
        guest_phys_bits,
        family: machine.family,
        ram_below_4g_end: layout.ram_below_4g.end,
        ram_above_4g_end: layout.ram_above_4g.map(end),
        // `pc_memory_init` of QEMU `hw/i386/pc.c` tells where the hole begins.
        reserved_memory_end: layout.device_memory.map(|_| layout.pci_hole64_start),
        ht_entry: cpu.is_amd()
            && machine.enforces_amd_1tb_hole
            && qemu >= FIRST_RELOCATING_QEMU
            && cpu.phys_bits >= cpu::DEFAULT_PHYS_BITS,
        x_pci_mmio64_mb: line.firmware.pci_mmio64_mb.map(|told| told.value),
        root: root.to_vec(),
    };
    let widths = guest_phys_bits(line, host, qemu, machine, cpu.phys_bits);
    let pages = gb_pages(line, host);
    pages
        .into_iter()
        .flat_map(|pages| widths.iter().map(move |&width| (pages, width)))
        .map(|(pages, width)| platform(pages, width))
        .collect()
}

/// Whether the vCPU has pages of 1 GiB: what may be.
fn gb_pages(line: &CommandLine, host: &Host) -> Vec<bool> {
    let told = line.cpu_property("pdpe1gb").and_then(|property| boolean(&property.value));
    let options = line.cpu_options();
    let of_model = match &options.model {
        Model::Named(name) => !WITHOUT_GB_PAGES.iter().any(|start| name.starts_with(start)),
        Model::Host | Model::Max | Model::HostModel => true,
    };
    match (told.unwrap_or(of_model), line.accelerator()) {
        (false, _) => vec![false],
        _ if line.target == QemuTarget::I386 => vec![false],
        // QEMU's own translator has them.
        (true, Accelerator::Tcg) => vec![true],
        (true, Accelerator::Kvm) => match host.gb_pages {
            Some(there) => vec![there],
            // AMD's CPUs have had them longer than an IOMMU (family 10h), and Intel's since the first with 46 bits.
            None if host.cpu_vendor.as_deref() == Some(cpu::AMD) || host.phys_bits >= Some(46) => vec![true],
            None => vec![true, false],
        },
    }
}

/// CPUID's GuestPhysBits: what may be.
fn guest_phys_bits(
    line: &CommandLine,
    host: &Host,
    qemu: Version,
    machine: &MachineType,
    phys_bits: u32,
) -> Vec<Option<u32>> {
    let told = line.cpu_property("guest-phys-bits").and_then(|property| property.number());
    if let Some(bits) = told.and_then(|bits| u32::try_from(bits).ok()) {
        return vec![Some(bits).filter(|&bits| bits > 0)];
    }
    let tells = line.accelerator() == Accelerator::Kvm && machine.version >= GUEST_PHYS_BITS && qemu >= GUEST_PHYS_BITS;
    if !tells || host.kernel.is_some_and(|kernel| kernel < GUEST_PHYS_BITS_KERNEL) {
        return vec![None];
    }
    let mut all = vec![Some(phys_bits)];
    if phys_bits > FOUR_LEVELS {
        all.push(Some(FOUR_LEVELS));
    }
    // Distributions' kernels have what is newer, too, and KVM tells nothing without nested pages.
    all.push(None);
    all
}

/// The PCI tree of a guest.
struct Tree {
    bars: Vec<Bar>,
    unsized_devices: Vec<UnsizedDevice>,
    root: Vec<Node>,
    /// Whether the tree is known for certain, and one that the model is exact for.
    exact: bool,
}

/// A place on a bus.
type SlotFunction = (u32, u32);

/// What is on a bus, by its place.
#[derive(Default)]
struct TreeBus<'a> {
    functions: BTreeMap<SlotFunction, Function<'a>>,
    /// The slots whose function 0 has no 64-bit BAR.
    without_bars: BTreeSet<u32>,
}

impl TreeBus<'_> {
    /// Whether firmware finds all that is on it: in a slot without function 0 it looks no further (`PciScanBus` of
    /// edk2's `PciEnumeratorSupport.c`, `pci_next` of SeaBIOS's `src/hw/pci.c`).
    fn is_found(&self) -> bool {
        let has_first = |slot| self.functions.contains_key(&(slot, 0)) || self.without_bars.contains(&slot);
        self.functions.keys().all(|&(slot, function)| function == 0 || has_first(slot))
    }
}

/// A device with its BARs, or a bridge.
struct Function<'a> {
    device: &'a Device,
    bars: Vec<TreeBar>,
}

/// A BAR to place.
struct TreeBar {
    /// Its index in [`Mmio64::bars`], or that of its device in [`Mmio64::unsized_devices`].
    bar: Result<usize, usize>,
    size: u64,
    prefetchable: bool,
}

/// The bridges of QEMU that have a bus of their own.
fn is_bridge(driver: &str) -> bool {
    is_express_port(driver)
        || matches!(
            driver,
            "pci-bridge" | "pci-bridge-seat" | "pcie-pci-bridge" | "i82801b11-bridge" | "x3130-upstream"
        )
}

/// Ports that a device is plugged into.
fn is_express_port(driver: &str) -> bool {
    matches!(driver, "pcie-root-port" | "ioh3420" | "xio3130-downstream")
}

/// Whether there is a bus behind a device.
fn has_bus(driver: &str) -> bool {
    is_bridge(driver) || is_expander(driver)
}

/// Roots of their own.
fn is_expander(driver: &str) -> bool {
    matches!(driver, "pxb" | "pxb-pcie" | "pxb-cxl")
}

impl Tree {
    fn read(input: Mmio64Input<'_>) -> Option<Self> {
        let Mmio64Input { line, machine, .. } = input;
        let bridges = line.devices.iter().filter(|device| has_bus(&device.driver)).count();
        if bridges > MOST_BUSES {
            return None;
        }
        let root = if machine.family == Family::Q35 { "pcie.0" } else { "pci.0" };
        let mut reader = Reader {
            input,
            root,
            buses: HashMap::from([(root, TreeBus::default())]),
            bars: Vec::new(),
            unsized_devices: Vec::new(),
            reserved: 0,
            silent_ports: 0,
            exact: true,
        };
        reader.devices()?;
        if reader.bars.len().max(reader.unsized_devices.len()) > MOST_BARS {
            return None;
        }
        let nodes = reader.nodes(root, 0)?;
        let exact = reader.exact && reader.reserved <= MOST_RESERVED && reader.silent_ports <= MOST_SILENT_PORTS;
        Some(Self { bars: reader.bars, unsized_devices: reader.unsized_devices, root: nodes, exact })
    }

    /// What one firmware makes of it.
    fn possible(&self, build: Build, platform: &Platform, exact: bool) -> Possible {
        let placement = place(build, platform);
        let addresses = self.addresses(&placement);
        let has_spare_port = || {
            let mut wider = platform.clone();
            let port = Port { express: true, hotplug: true, pref64_reserve: None, children: Vec::new() };
            wider.root.push(Node::Port(port));
            self.addresses(&place(build, &wider)).iter().all(Option::is_some)
        };
        Possible {
            firmware: build.to_string(),
            kind: build.kind,
            window: placement.window,
            has_spare_port: addresses.iter().all(Option::is_some) && has_spare_port(),
            addresses,
            exact: placement.exact && exact,
        }
    }

    /// Those of the BARs whose sizes are known.
    fn addresses(&self, placement: &Placement) -> Vec<Option<u64>> {
        (0..self.bars.len()).map(|id| placement.addresses.get(id).copied().flatten()).collect()
    }
}

/// A tree that is being read.
struct Reader<'a> {
    input: Mmio64Input<'a>,
    /// The root bus.
    root: &'static str,
    buses: HashMap<&'a str, TreeBus<'a>>,
    bars: Vec<Bar>,
    unsized_devices: Vec<UnsizedDevice>,
    /// Bytes below 4 GiB that bridges keep for what will be plugged in.
    reserved: u64,
    /// Ports that take devices and do not say so.
    silent_ports: usize,
    exact: bool,
}

impl<'a> Reader<'a> {
    /// Puts every bridge and every function with BARs on its bus; `None` if one does not fit there.
    fn devices(&mut self) -> Option<()> {
        let line = self.input.line;
        self.exact &= line.not_modelled.is_empty();
        for device in &line.devices {
            let is_bus = has_bus(&device.driver);
            let bars = if is_bus { Vec::new() } else { self.bars_of(device) };
            let bus = device.properties.value("bus").unwrap_or(self.root);
            if !is_bus && bars.is_empty() {
                if let Some((slot, 0)) = device.properties.value("addr").and_then(place_of) {
                    self.buses.get_mut(bus).map(|bus| bus.without_bars.insert(slot));
                }
                continue;
            }
            // Of a bus that is not there yet QEMU knows nothing; one may come from arguments that are not modelled.
            let bus = match self.buses.get_key_value(bus) {
                Some((&known, _)) => known,
                None => {
                    self.exact &= bus == self.root;
                    self.root
                }
            };
            let told = device.properties.value("addr").and_then(place_of);
            let functions = &mut self.buses.entry(bus).or_default().functions;
            let place = told.filter(|place| !functions.contains_key(place));
            // QEMU refuses a place that is taken.
            self.exact &= told.is_none() || place.is_some();
            let place = place.or_else(|| free_place(functions, bus == self.root))?;
            functions.insert(place, Function { device, bars });
            if let Some(id) = device.id.as_deref().filter(|_| is_bus) {
                self.buses.entry(id).or_default();
            }
        }
        Some(())
    }

    /// The 64-bit BARs of a device that is not a bridge.
    fn bars_of(&mut self, device: &'a Device) -> Vec<TreeBar> {
        let name = || device.id.clone().unwrap_or_else(|| device.driver.to_string());
        if let Some(passthrough) = Passthrough::of(device).filter(|device| device.kind != PassthroughKind::VhostVdpa) {
            let origin = device.origin;
            let known = match passthrough.kind {
                PassthroughKind::VfioPci => self.input.host.bars(&passthrough.device),
                PassthroughKind::VfioMdev | PassthroughKind::VhostVdpa => None,
            };
            let Some(bars) = known else {
                let request = TreeBar { bar: Err(self.unsized_devices.len()), size: UNKNOWN_BAR, prefetchable: true };
                self.unsized_devices.push(UnsizedDevice { device: passthrough.device, origin });
                return vec![request];
            };
            let name = passthrough.device;
            let bars = bars.iter().filter(|bar| bar.bits64);
            return bars.map(|bar| self.bar(&name, bar.index, bar.size, bar.prefetchable, true, origin)).collect();
        }
        let Some(emulated) = emulated(device, self.input) else {
            self.exact = false;
            return Vec::new();
        };
        let own = |bar: Emulated| self.bar(&name(), bar.index, bar.size, bar.prefetchable, false, device.origin);
        emulated.into_iter().map(own).collect()
    }

    fn bar(&mut self, device: &str, index: u8, size: u64, prefetchable: bool, passed: bool, origin: Origin) -> TreeBar {
        let bar = Ok(self.bars.len());
        self.bars.push(Bar { device: device.to_owned(), index, size, passed, origin });
        TreeBar { bar, size, prefetchable }
    }

    /// Whether a device can be plugged into a bridge, as far as firmware sees: a slot of PCI Express unless it is
    /// switched off, an SHPC otherwise (QEMU `hw/pci-bridge/pcie_root_port.c`, `pci_bridge_dev.c`,
    /// `pcie_pci_bridge.c`).
    fn takes_hotplug(&mut self, device: &Device) -> bool {
        let switch = |name: &str| device.properties.value(name).and_then(boolean).unwrap_or(true);
        let driver = device.driver.as_ref();
        if !is_express_port(driver) {
            return matches!(driver, "pci-bridge" | "pci-bridge-seat" | "pcie-pci-bridge") && switch("shpc");
        }
        let Mmio64Input { line, machine, .. } = self.input;
        let by_acpi = line.global(&["ICH9-LPC"], ACPI_HOTPLUG).and_then(|told| boolean(&told.value)).unwrap_or(true);
        if machine.version != WITHOUT_NATIVE_HOTPLUG || !by_acpi || !switch("hotplug") {
            return switch("hotplug");
        }
        self.silent_ports = self.silent_ports.saturating_add(1);
        // Distributions' types of that version may have it set right.
        self.exact &= machine.flavor == Flavor::Upstream;
        false
    }

    /// What is on a bus, as firmware finds it; `None` if there are too many bridges behind one another.
    fn nodes(&mut self, bus: &str, depth: usize) -> Option<Vec<Node>> {
        if depth > DEEPEST {
            return None;
        }
        let bus = self.buses.remove(bus).unwrap_or_default();
        self.exact &= bus.is_found();
        let mut nodes = Vec::new();
        for Function { device, bars } in bus.functions.into_values() {
            let driver = device.driver.as_ref();
            if has_bus(driver) {
                let children = match device.id.as_deref() {
                    Some(id) => self.nodes(id, depth.saturating_add(1))?,
                    None => Vec::new(),
                };
                if is_expander(driver) {
                    self.exact = false;
                    nodes.extend(children);
                    continue;
                }
                let reserve = |name: &str| device.properties.get(name).and_then(Property::size);
                let below = reserve("mem-reserve").map_or(0, |size| size.checked_next_power_of_two().unwrap_or(size));
                self.reserved = self.reserved.saturating_add(below);
                // It takes the place of what firmware keeps above 4 GiB (`GetResourcePadding` of edk2's
                // `OvmfPkg/PciHotPlugInitDxe`).
                self.exact &= reserve("pref32-reserve").is_none();
                nodes.push(Node::Port(Port {
                    express: is_express_port(driver),
                    hotplug: self.takes_hotplug(device),
                    pref64_reserve: reserve("pref64-reserve"),
                    children,
                }));
            } else {
                let bars = bars.into_iter().map(|request| BarRequest {
                    id: request.bar.unwrap_or_else(|number| self.bars.len().saturating_add(number)),
                    size: request.size,
                    prefetchable: request.prefetchable,
                });
                nodes.push(Node::Function { usb: driver.contains("xhci"), bars: bars.collect() });
            }
        }
        Some(nodes)
    }
}

/// What makes ACPI plug devices into ports (QEMU `hw/isa/lpc_ich9.c`, `hw/acpi/ich9.c`).
const ACPI_HOTPLUG: &str = "acpi-pci-hotplug-with-bridge-support";

/// The machine type in which ports with a slot that ACPI takes care of do not say that they take devices
/// (`ich9_pm_add_properties` of QEMU 6.1 and `pc_q35_6_1_machine_options` of later ones: `x-native-hotplug`).
const WITHOUT_NATIVE_HOTPLUG: Version = Version::new(6, 1);

/// As many such ports SeaBIOS has I/O ports for, 4 KiB each; with one more it stops ("PCI: out of I/O address space",
/// measured with 1.16.2, 1.16.3 and 1.17.0).
const MOST_SILENT_PORTS: usize = 14;

/// A BAR of an emulated device.
struct Emulated {
    index: u8,
    size: u64,
    prefetchable: bool,
}

/// The 64-bit BARs of an emulated device; `None` if it may have one whose size is unknown.
fn emulated(device: &Device, input: Mmio64Input<'_>) -> Option<Vec<Emulated>> {
    let Mmio64Input { line, machine, .. } = input;
    let size = |name: &str| device.properties.get(name).and_then(Property::size).filter(|&size| size > 0);
    let switch = |name: &str| device.properties.value(name).and_then(boolean);
    let one = |index, size: u64, prefetchable| {
        vec![Emulated { index, size: size.checked_next_power_of_two().unwrap_or(size), prefetchable }]
    };
    Some(match device.driver.as_ref() {
        // Its process knows.
        "vfio-user-pci" => return None,
        "qemu-xhci" | "nec-usb-xhci" | "nvme" => one(0, CONTROLLER_BAR, false),
        // QEMU `hw/misc/pci-testdev.c`.
        "pci-testdev" => size("membar").map(|size| one(2, size, true)).unwrap_or_default(),
        // QEMU `hw/misc/ivshmem.c`; of a server's, only the server knows.
        "ivshmem-plain" | "ivshmem-doorbell" => {
            let backend = device.properties.value("memdev").and_then(|id| line.backend(id));
            one(2, backend.map(|backend| backend.size.value).or_else(|| size("size"))?, true)
        }
        driver if is_virtio(driver) => {
            let modern = switch("disable-modern").map_or(machine.version >= MODERN_VIRTIO, |disabled| !disabled);
            if !modern {
                return Some(Vec::new());
            }
            let pages = switch("page-per-vq") == Some(true);
            let registers = if pages { VIRTIO_BAR_OF_PAGES } else { VIRTIO_BAR };
            // QEMU `hw/display/virtio-vga.c`, `virtio-gpu-pci.c`: memory of the host's is BAR 4.
            let hostmem = size("hostmem");
            let index = if driver.starts_with("virtio-vga") || hostmem.is_some() { 2 } else { 4 };
            let mut bars = one(index, registers, true);
            bars.extend(hostmem.into_iter().flat_map(|size| one(4, size, true)));
            bars
        }
        _ => Vec::new(),
    })
}

/// Whether a device speaks virtio on PCI.
fn is_virtio(driver: &str) -> bool {
    let name = driver.strip_suffix("-transitional").unwrap_or(driver);
    let name = name.strip_suffix("-non").unwrap_or(name);
    (name.starts_with("virtio-") || name.starts_with("vhost-"))
        && (name.ends_with("-pci") || name.starts_with("virtio-vga"))
}

/// `addr=` of a PCI device: slot and function in hexadecimal digits (`pci_devfn_option` of QEMU
/// `hw/core/qdev-properties-system.c`).
fn place_of(text: &str) -> Option<SlotFunction> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let (slot, function) = (number(slot)?, number(function)?);
    (slot < SLOTS && function < 8).then_some((slot, function))
}

/// Slots of a bus.
const SLOTS: u32 = 32;

/// The first slot without a function; QEMU refuses one more device than there are slots (`do_pci_register_device` of
/// `hw/pci/pci.c`). The chip set has slot 0.
fn free_place(functions: &BTreeMap<SlotFunction, Function<'_>>, root: bool) -> Option<SlotFunction> {
    let free = |&slot: &u32| functions.range((slot, 0)..(slot.saturating_add(1), 0)).next().is_none();
    Some(((u32::from(root)..SLOTS).find(free)?, 0))
}
