//! Guests around what firmware decides by.

use super::super::draw::{GIB, MIB, Rng};
use super::real::Firmware;
use iova_preflight::firmware::{BarRequest, Node, Port};
use iova_preflight::host::FirmwareKind;

/// A guest.
pub struct Guest {
    pub firmware: FirmwareKind,
    pub machine: String,
    pub cpu: String,
    /// The value of `-m`.
    pub memory: String,
    pub x_pci_mmio64_mb: Option<u64>,
    root: Vec<Device>,
}

/// A device on bus 0.
struct Device {
    slot: u64,
    function: u64,
    what: What,
}

enum What {
    Port { hotplug: bool, pref64_reserve: Option<u64>, mem_reserve: Option<u64>, behind: Vec<Function> },
    Function(Function),
}

/// A function and its `-device` without bus and address.
struct Function {
    id: String,
    device: String,
}

const MACHINES: [&str; 7] =
    ["pc-q35-7.2", "pc-q35-7.1", "pc-q35-7.0", "pc-q35-6.2", "pc-q35-6.1", "pc-i440fx-7.2", "pc-i440fx-6.2"];

/// Model and physical bits.
const CPUS: [(&str, u64); 20] = [
    ("EPYC", 40),
    ("EPYC", 40),
    ("EPYC", 40),
    ("EPYC", 40),
    ("EPYC", 41),
    ("EPYC", 42),
    ("EPYC", 39),
    ("EPYC", 36),
    ("Skylake-Server", 40),
    ("Skylake-Server", 39),
    ("Skylake-Server", 36),
    ("Skylake-Server", 41),
    ("Skylake-Server", 42),
    ("qemu64", 40),
    ("qemu64", 42),
    ("EPYC", 43),
    ("EPYC", 44),
    ("EPYC", 46),
    ("EPYC", 48),
    ("Skylake-Server", 52),
];
/// How many of them OVMF of Debian 12 has done with in seconds: above, it builds page tables for minutes.
const QUICK_CPUS: usize = 15;

/// Where windows begin and end, GiB.
const EDGES: [u64; 14] = [2, 3, 4, 8, 64, 300, 384, 512, 700, 766, 800, 862, 900, 960];

/// The guest of this number.
pub fn guest(seed: u64, case: u64, stack: &Firmware) -> Guest {
    let mut rng = Rng::of_case(seed, case);
    let firmware = if case % 10 < 3 { FirmwareKind::Ovmf } else { FirmwareKind::SeaBios };
    let ovmf = firmware == FirmwareKind::Ovmf;
    let machine = rng.text(&MACHINES).to_owned();
    let cpus = if ovmf && (stack.is_slow() || rng.percent(80)) { &CPUS[..QUICK_CPUS] } else { &CPUS[..] };
    let &(model, bits) = rng.pick(cpus);
    // QEMU refuses a map that the CPU does not reach, and the PCI hole counts.
    let reached = (1 << (bits - 30)) - 44;
    let edge = *rng.pick(&EDGES);
    let ram = (edge + rng.below(5)).saturating_sub(rng.below(5)).clamp(1, reached);
    let uneven = if rng.percent(20) { rng.below(8) * 128 } else { 0 };
    let mut memory = format!("{}M", ram * 1024 + uneven);
    if rng.percent(20) && ram < 512 {
        let more = rng.between(1, reached.min(900) - ram.min(reached.min(900) - 1));
        memory += &format!(",slots={},maxmem={}M", rng.between(1, 8), (ram + more) * 1024 + uneven);
    }
    let x_pci_mmio64_mb = (ovmf && rng.percent(25))
        .then(|| *rng.pick(&[0, 16 * 1024, 64 * 1024, 100 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024, 1 << 25]));
    // With more ports of this type SeaBIOS is out of I/O ports, and stops.
    let most_ports = if machine == "pc-q35-6.1" { 14 } else { usize::MAX };
    let root = devices(&mut rng, machine.contains("q35"), ovmf, most_ports);
    Guest { firmware, machine, cpu: format!("{model},phys-bits={bits}"), memory, x_pci_mmio64_mb, root }
}

fn devices(rng: &mut Rng, q35: bool, ovmf: bool, most_ports: usize) -> Vec<Device> {
    let mut functions = Vec::new();
    let large = 1 << rng.between(0, 8);
    for number in 0..rng.between(1, 5) {
        let size = if rng.percent(60) { large * GIB } else { GIB << rng.below(9) };
        let size = if rng.percent(15) { (16 << 10) << rng.below(14) } else { size };
        functions.push(Function { id: format!("bar{number}"), device: format!("pci-testdev,membar={size}") });
    }
    for driver in ["virtio-rng-pci", "nvme,serial=n", "qemu-xhci"] {
        // OVMF's driver waits minutes for an NVMe controller whose BAR has no address.
        if rng.percent(15) && !(ovmf && driver.starts_with("nvme")) {
            let id = driver.split(',').next().unwrap_or(driver).to_owned();
            functions.push(Function { id, device: driver.to_owned() });
        }
    }
    let mut devices = Vec::new();
    let (mut ports, mut slots) = (0, 0);
    let mut port = |rng: &mut Rng, behind| {
        ports += 1;
        let what = What::Port {
            hotplug: !rng.percent(10),
            pref64_reserve: rng.percent(10).then(|| *rng.pick(&[MIB, 512 * MIB, 3 * GIB, 64 * GIB])),
            // All ports together less than what may count.
            mem_reserve: rng.percent(15).then(|| *rng.pick(&[MIB, 3 * MIB, 8 * MIB])),
            behind,
        };
        Device { slot: 4 + (ports - 1) / 8, function: (ports - 1) % 8, what }
    };
    for function in functions {
        if q35 && rng.percent(85) {
            if let (true, Some(Device { what: What::Port { behind, .. }, .. })) = (rng.percent(15), devices.last_mut())
            {
                behind.push(function);
            } else {
                devices.push(port(rng, vec![function]));
            }
        } else {
            slots += 1;
            // Before the ports, or after them.
            let slot = if slots <= 2 && rng.percent(30) { 1 + slots } else { 0x10 + slots };
            devices.push(Device { slot, function: 0, what: What::Function(function) });
        }
    }
    if q35 && rng.percent(40) {
        for _ in 0..rng.below(14) {
            let ports = devices.iter().filter(|device| matches!(device.what, What::Port { .. })).count();
            if ports < most_ports {
                devices.push(port(rng, Vec::new()));
            }
        }
    }
    devices.sort_by_key(|device| (device.slot, device.function));
    devices
}

impl Guest {
    /// QEMU's arguments, without those that say where the firmware is and how it is watched.
    pub fn line(&self) -> Vec<String> {
        let mut line = vec![
            "-machine".to_owned(),
            format!("{},accel=tcg", self.machine),
            "-cpu".to_owned(),
            self.cpu.clone(),
            "-m".to_owned(),
            self.memory.clone(),
        ];
        if let Some(mib) = self.x_pci_mmio64_mb {
            line.extend(["-fw_cfg".to_owned(), format!("name=opt/ovmf/X-PciMmio64Mb,string={mib}")]);
        }
        let mut add = |device: String| line.extend(["-device".to_owned(), device]);
        for (number, Device { slot, function, what }) in self.root.iter().enumerate() {
            match what {
                What::Function(Function { id, device }) => add(format!("{device},id={id},addr={slot:x}")),
                What::Port { hotplug, pref64_reserve, mem_reserve, behind } => {
                    let mut port = format!(
                        "pcie-root-port,id=port{number},bus=pcie.0,chassis={},addr={slot:x}.{function},multifunction=on",
                        number + 1
                    );
                    if !hotplug {
                        port += ",hotplug=off";
                    }
                    if let Some(bytes) = pref64_reserve {
                        port += &format!(",pref64-reserve={bytes}");
                    }
                    if let Some(bytes) = mem_reserve {
                        port += &format!(",mem-reserve={bytes}");
                    }
                    add(port);
                    for (function, Function { id, device }) in behind.iter().enumerate() {
                        add(format!("{device},id={id},bus=port{number},addr=0.{function},multifunction=on"));
                    }
                }
            }
        }
        line
    }

    /// What firmware finds on bus 0, with the BARs that each device has.
    pub fn root(&self, bars: &dyn Fn(&str) -> Vec<BarRequest>) -> Vec<Node> {
        let function = |Function { id, device }: &Function| Node::Function {
            usb: device.starts_with("qemu-xhci"),
            bars: bars(id),
        };
        let node = |device: &Device| match &device.what {
            What::Function(it) => function(it),
            What::Port { hotplug, pref64_reserve, behind, .. } => Node::Port(Port {
                express: true,
                // Only in 6.1 ACPI hot-plug takes the capability from the slots (`pc_q35_6_1_machine_options` and
                // `ich9_pm_add_properties`, QEMU 6.2).
                hotplug: *hotplug && self.machine != "pc-q35-6.1",
                pref64_reserve: *pref64_reserve,
                children: behind.iter().map(function).collect(),
            }),
        };
        self.root.iter().map(node).collect()
    }
}
