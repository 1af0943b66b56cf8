//! Compares where firmware was seen to put 64-bit BARs with what we compute. Every BAR of a GiB and more has to match.

use iova_preflight::Call;
use iova_preflight::firmware::{BarRequest, Build, Node, Placement, Platform, Port, Vendor, place, possible_builds};
use iova_preflight::host::FirmwareKind;
use iova_preflight::machine::{Resolved, resolve};
use iova_preflight::qemu::{self, cpu::HostCpu};
use iova_preflight::{Launch, Version};

const GIB: u64 = 1 << 30;

/// The record.
const RECORD: &str = include_str!("../data/bars.txt");

/// A guest of the record.
struct Row<'a> {
    firmware: (FirmwareKind, &'a str),
    machine: &'a str,
    cpu: &'a str,
    memory: &'a str,
    /// Properties of the host bridge and of fw_cfg.
    options: &'a str,
    root: Vec<Node>,
    /// The sizes of the BARs.
    sizes: Vec<u64>,
    addresses: Vec<Option<u64>>,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut columns = line.split(" | ");
        let head: Vec<&str> = columns.next()?.split(' ').collect();
        let [kind, version, machine, cpu, memory, options] = head[..] else { return None };
        let kind = if kind == "ovmf" { FirmwareKind::Ovmf } else { FirmwareKind::SeaBios };
        let (mut root, mut sizes) = (Vec::new(), Vec::new());
        for device in columns.next()?.split(' ') {
            let (_, size) = device.split_once(['/', '='])?;
            let mut function = Vec::new();
            if !size.is_empty() {
                let bar = BarRequest { id: sizes.len(), size: number(size)?, prefetchable: true };
                function.push(Node::Function { usb: false, bars: vec![bar] });
                sizes.push(bar.size);
            }
            if device.contains('=') {
                root.append(&mut function);
            } else {
                let port = Port { express: true, hotplug: true, pref64_reserve: None, children: function };
                root.push(Node::Port(port));
            }
        }
        let addresses = columns.next()?.split(' ').map(number).collect();
        Some(Self { firmware: (kind, version), machine, cpu, memory, options, root, sizes, addresses })
    }

    /// A property of the host bridge or of fw_cfg.
    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.split(';').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    fn platform(&self) -> Platform {
        let hole = self.option("pci-hole64-size").map(|size| format!(" -global q35-pcihost.pci-hole64-size={size}"));
        let memory = self.memory.to_owned() + &hole.unwrap_or_default();
        let mib = self.option("X-PciMmio64Mb").map(|mib| mib.parse().expect("MiB"));
        platform(self.machine, self.cpu, &memory, mib, self.root.clone())
    }
}

/// What the firmware sees of a guest with these values of `-machine`, `-cpu` and `-m`: its map is the one that we say,
/// which other tests compare with QEMU.
pub fn platform(machine: &str, model: &str, memory: &str, x_pci_mmio64_mb: Option<u64>, root: Vec<Node>) -> Platform {
    let text = format!("qemu-system-x86_64 -machine {machine},accel=tcg -cpu {model} -m {memory}");
    let launch = Launch::read(&Call::read(text.as_bytes()).expect("a command line"));
    let Resolved::Known(machine) = resolve(machine) else { panic!("{text}: not a machine type") };
    let host = HostCpu { vendor: "AuthenticAMD", phys_bits: 48 };
    let built = qemu::build(&launch.line, &machine, host, Version::new(10, 0));
    let cpu = built.cpu.expect("a CPU");
    let layout = built.layout.expect("sizes that QEMU takes").expect("a map");
    let round_up = |end: u64| (end + 1).next_multiple_of(GIB);
    Platform {
        vendor: match cpu.vendor.as_deref() {
            Some("AuthenticAMD") => Vendor::Amd,
            Some("GenuineIntel") => Vendor::Intel,
            _ => Vendor::Other,
        },
        phys_bits: cpu.phys_bits,
        long_mode: cpu.long_mode,
        gb_pages: !model.starts_with("qemu64"),
        guest_phys_bits: model.split(',').find_map(|part| part.strip_prefix("guest-phys-bits=")?.parse().ok()),
        family: machine.family,
        ram_below_4g_end: layout.ram_below_4g.end,
        ram_above_4g_end: layout.ram_above_4g.map(|ram| ram.end),
        reserved_memory_end: layout.device_memory.map(|window| round_up(window.end)),
        ht_entry: cpu.is_amd() && cpu.phys_bits >= 40 && machine.enforces_amd_1tb_hole,
        x_pci_mmio64_mb,
        root,
    }
}

/// A size or an address; `None` of one that is not there.
fn number(text: &str) -> Option<u64> {
    match (text.strip_suffix('G'), text.strip_prefix("0x")) {
        (Some(gib), _) => Some(gib.parse::<u64>().ok()? * GIB),
        (_, Some(digits)) => u64::from_str_radix(digits, 16).ok(),
        _ => None,
    }
}

#[test]
fn measured_bars_are_where_we_say() {
    let rows: Vec<_> = RECORD.lines().skip(1).collect();
    let mut differences = Vec::new();
    for line in &rows {
        let row = Row::parse(line).unwrap_or_else(|| panic!("not a row: {line}"));
        let (kind, version) = row.firmware;
        let builds: Vec<Build> = possible_builds(Some(kind), Some(version));
        let [build] = builds[..] else { panic!("{line}: {} builds", builds.len()) };
        let Placement { addresses, exact, .. } = place(build, &row.platform());
        let matches = |bar: usize| row.sizes[bar] < GIB || addresses[bar] == row.addresses[bar];
        if !(0..row.sizes.len()).all(matches) {
            let said: Vec<_> = addresses.iter().map(|at| at.map(|at| format!("{:#x}", at))).collect();
            differences.push(format!("{line}\n    we say {said:?}, exact: {exact}"));
        }
    }
    assert_eq!(rows.len(), 168);
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), rows.len(), differences.join("\n"));
}
