//! Random domains, drawn around every place where the memory map changes shape. The same seed
//! and case number give the same domain on the same machine.

use super::draw::{GIB, KIB, MIB, Rng, element, nudged, sized};
use std::fmt::Write as _;

/// What this machine can be asked for.
pub struct Inventory {
    pub machines: Vec<String>,
    pub models: Vec<String>,
    pub kvm: bool,
    pub host_bits: u64,
}

/// RAM: at a threshold of the map, small and odd, or anything up to 2.5 TiB.
fn ram(rng: &mut Rng) -> u64 {
    const EDGES_IN_QUARTERS: &[u64] = &[
        8,
        11,
        12,
        14,
        16,
        16,
        900 * 4,
        970 * 4,
        977 * 4,
        978 * 4,
        979 * 4,
        980 * 4,
        990 * 4,
        991 * 4,
        1007 * 4,
        1008 * 4,
        1009 * 4,
        1010 * 4,
        1011 * 4,
        1012 * 4,
        1022 * 4,
        1024 * 4,
        1200 * 4,
        2014 * 4,
        2046 * 4,
    ];
    match rng.below(10) {
        0..=5 => {
            let edge = *rng.pick(EDGES_IN_QUARTERS) * GIB / 4;
            nudged(rng, edge)
        }
        6 | 7 => rng.between(1, 4 * GIB),
        8 => rng.between(4, 64) * GIB,
        _ => rng.between(4 * GIB, 2560 * GIB),
    }
}

/// What one case has drawn so far and later draws depend on.
struct Draft<'a> {
    inventory: &'a Inventory,
    kvm: bool,
    machine: String,
    ram: u64,
    cells: u64,
    /// maxMemory in bytes and its slots.
    hotplug: Option<(u64, u64)>,
    devices: Vec<String>,
    plugged: u64,
}

/// The XML of one domain.
pub fn domain(rng: &mut Rng, inventory: &Inventory, name: &str) -> String {
    let mut draft = Draft {
        inventory,
        kvm: inventory.kvm && rng.percent(50),
        machine: machine(rng, inventory),
        ram: ram(rng),
        cells: 0,
        hotplug: None,
        devices: Vec::new(),
        plugged: 0,
    };
    let hotplug = rng.percent(45);
    // A window that needs NUMA and has none is something libvirt refuses: kept, but rarely.
    draft.cells = if hotplug && rng.percent(95) || rng.percent(20) { rng.between(1, 3) } else { 0 };
    if hotplug {
        for _ in 0..rng.below(4) {
            memory_device(rng, &mut draft);
        }
        hotplug_window(rng, &mut draft);
    } else if rng.percent(4) {
        memory_device(rng, &mut draft);
    }
    write_domain(rng, &draft, name)
}

fn machine(rng: &mut Rng, inventory: &Inventory) -> String {
    const AROUND_THE_CHANGE: &[&str] = &["pc", "q35", "pc-i440fx-7.0", "pc-q35-7.0", "pc-i440fx-7.1", "pc-q35-7.1"];
    let near = *rng.pick(AROUND_THE_CHANGE);
    let known = near == "pc" || near == "q35" || inventory.machines.iter().any(|m| m == near);
    if known && rng.percent(50) { near.to_owned() } else { rng.pick(&inventory.machines).clone() }
}

fn hotplug_window(rng: &mut Rng, draft: &mut Draft) {
    let total = draft.ram + draft.plugged;
    let (max, slots) = match rng.below(16) {
        // The number of slots alone decides here whether RAM moves above 1 TiB.
        0 => {
            draft.ram = 4 * GIB;
            (960 * GIB, rng.between(17, 20))
        }
        1 if rng.percent(50) => (total, rng.between(1, 32)),
        1 => (total.saturating_sub(GIB).max(MIB), rng.between(1, 32)),
        10 => (total + GIB, *rng.pick(&[0, 255, 256, 257])),
        2..=9 => {
            let edge = *rng.pick(&[960, 970, 978, 990, 1000, 1009, 1012, 1024, 2048]) * GIB;
            (nudged(rng, edge.max(total + GIB)), *rng.pick(&[1, 2, 8, 16, 32, 64]))
        }
        _ => (total + rng.between(1, 64 * KIB) * MIB + rng.below(MIB), rng.between(1, 32)),
    };
    let slots = if rng.percent(95) { slots.max(draft.devices.len() as u64) } else { slots };
    draft.hotplug = Some((max, slots));
}

fn memory_device(rng: &mut Rng, draft: &mut Draft) {
    let size = match rng.below(4) {
        0 => rng.between(1, 64 * KIB) * KIB,
        1 => rng.between(1, 2048) * MIB,
        _ => rng.between(1, 32) * GIB,
    };
    let kind = rng.below(100);
    let xml = match kind {
        0..=54 => dimm(rng, draft, size),
        55..=69 => nvdimm(rng, draft, size.min(8 * GIB)),
        70..=92 => virtio_mem(rng, size),
        _ => virtio_pmem(rng, size.min(8 * GIB)),
    };
    draft.plugged += size.next_multiple_of(2 * MIB);
    draft.devices.push(xml);
}

fn node(rng: &mut Rng) -> &'static str {
    if rng.percent(3) { "<node>7</node>" } else { "<node>0</node>" }
}

/// A fixed place: around where the window may begin, beside it, or somewhere it cannot be.
fn dimm_address(rng: &mut Rng, draft: &Draft) -> String {
    if rng.percent(65) {
        return String::new();
    }
    let slot = if rng.percent(90) { draft.devices.len() as u64 } else { rng.below(20) };
    if rng.percent(15) {
        return format!("<address type='dimm' slot='{slot}'/>");
    }
    let above = 4 * GIB + draft.ram.saturating_sub(*rng.pick(&[2 * GIB, 3 * GIB]));
    let window = above.next_multiple_of(GIB);
    let base = match rng.below(10) {
        0..=5 => window + rng.below(64) * 128 * MIB,
        6 => window + rng.below(64) * 2 * MIB,
        7 => window + rng.below(64) * 4 * KIB,
        8 => (1 << 40) + draft.ram.next_multiple_of(GIB) + rng.below(16) * GIB,
        _ => *rng.pick(&[0x1000, GIB, 4 * GIB, 0xfd_0000_0000, 0x7fff_ffff_0000_0000]),
    };
    format!("<address type='dimm' slot='{slot}' base='{base:#x}'/>")
}

fn dimm(rng: &mut Rng, draft: &Draft, size: u64) -> String {
    let (size, node, address) = (element(rng, "size", "", size), node(rng), dimm_address(rng, draft));
    let small_pages = "<source><pagesize unit='KiB'>4</pagesize></source>";
    let source = if rng.percent(5) { small_pages } else { "" };
    let access = access(rng, "access");
    format!("<memory model='dimm'{access}>{source}<target>{size}{node}</target>{address}</memory>")
}

/// Any mode here, private too, backs the memory with a file.
fn access(rng: &mut Rng, attribute: &str) -> String {
    match rng.below(16) {
        0 => format!(" {attribute}='shared'"),
        1 => format!(" {attribute}='private'"),
        _ => String::new(),
    }
}

fn nvdimm(rng: &mut Rng, draft: &Draft, size: u64) -> String {
    let label = match rng.below(8) {
        0 => element(rng, "size", "", 128 * KIB),
        1 | 2 => format!("<size>{}</size>", rng.between(100, 4096)),
        3 => {
            let nearly_all = size.saturating_sub(rng.below(16) * KIB);
            element(rng, "size", "", nearly_all.max(128 * KIB))
        }
        _ => String::new(),
    };
    let label = if label.is_empty() { label } else { format!("<label>{label}</label>") };
    let align = match rng.below(6) {
        0 => format!("<alignsize unit='KiB'>{}</alignsize>", *rng.pick(&[4, 64, 2048, 4096, 1024 * 1024])),
        _ => String::new(),
    };
    let (size, node, address) = (element(rng, "size", "", size), node(rng), dimm_address(rng, draft));
    format!(
        "<memory model='nvdimm'><source><path>/var/lib/nvdimm</path>{align}</source>\
         <target>{size}{node}{label}</target>{address}</memory>"
    )
}

fn virtio_mem(rng: &mut Rng, size: u64) -> String {
    let block = *rng.pick(&[2, 2, 2, 4, 64, 1024, 1, 3]);
    let (size, node) = (element(rng, "size", "", size.max(2 * MIB)), node(rng));
    format!(
        "<memory model='virtio-mem'><target>{size}{node}<block unit='MiB'>{block}</block>\
         <requested>0</requested></target></memory>"
    )
}

fn virtio_pmem(rng: &mut Rng, size: u64) -> String {
    let size = element(rng, "size", "", size);
    format!(
        "<memory model='virtio-pmem' access='shared'><source><path>/var/lib/pmem</path></source>\
         <target>{size}</target></memory>"
    )
}

/// RAM shared out over the NUMA cells, none of which has to be a whole MiB.
fn numa(rng: &mut Rng, draft: &Draft) -> String {
    if draft.cells == 0 {
        return String::new();
    }
    let mut xml = String::from("<numa>");
    let mut left = draft.ram;
    for id in 0..draft.cells {
        let share = match draft.cells - id {
            1 => left,
            more if rng.percent(50) => left / more,
            _ => rng.between(0, left / 2),
        };
        let share = share.max(KIB);
        left = left.saturating_sub(share);
        let (unit, number) = sized(rng, share);
        let access = access(rng, "memAccess");
        let _ = write!(xml, "<cell id='{id}' cpus='{id}' memory='{number}'{unit}{access}/>");
    }
    xml + "</numa>"
}

fn max_phys_addr(rng: &mut Rng, draft: &Draft) -> String {
    let host = draft.inventory.host_bits;
    // As many bits as all of it takes, without the PCI hole: that is where the verdict flips.
    let window = draft.hotplug.map_or(0, |(max, slots)| max + slots * GIB);
    let need = u64::from(u64::BITS - (draft.ram.max(window) + 4 * GIB).leading_zeros());
    let bits = match rng.below(40) {
        0..=11 => return String::new(),
        12..=28 => rng.between(need.saturating_sub(1), need + 2),
        29..=33 => rng.between(32, host.max(33)),
        34 | 35 => *rng.pick(&[0, 31, host + 1, 52, 64]),
        36 => return "<maxphysaddr mode='emulate'/>".to_owned(),
        37 | 38 => return "<maxphysaddr mode='passthrough'/>".to_owned(),
        _ => {
            let limit = rng.between(36, host);
            return format!("<maxphysaddr mode='passthrough' limit='{limit}'/>");
        }
    };
    format!("<maxphysaddr mode='emulate' bits='{bits}'/>")
}

fn features(rng: &mut Rng, draft: &Draft) -> String {
    let mut xml = String::new();
    for name in ["lm", "pae", "pse36"] {
        if rng.percent(12) {
            let policy = *rng.pick(&["force", "require", "optional", "disable", "forbid"]);
            let _ = write!(xml, "<feature policy='{policy}' name='{name}'/>");
        }
    }
    // A host that is itself a guest may announce this one and not allow to set it.
    if draft.kvm {
        xml.push_str("<feature policy='disable' name='arch-capabilities'/>");
    }
    xml
}

fn cpu(rng: &mut Rng, draft: &Draft) -> String {
    let (bits, numa) = (max_phys_addr(rng, draft), numa(rng, draft));
    let vendor = match rng.below(8) {
        0 => format!(
            " vendor_id='{}'",
            *rng.pick(&["AuthenticAMD", "GenuineIntel", "HygonGenuine", "KVMKVMKVMKVM", "AMD"])
        ),
        _ => String::new(),
    };
    let passthrough = if draft.kvm { 15 } else { 1 };
    match rng.below(100) {
        0..=9 if numa.is_empty() => String::new(),
        0..=19 => format!("<cpu>{bits}{numa}</cpu>"),
        20..=34 => format!("<cpu mode='host-model' check='none'>{bits}{}{numa}</cpu>", features(rng, draft)),
        35..=46 => format!("<cpu mode='maximum' check='none'>{bits}{}{numa}</cpu>", features(rng, draft)),
        n if n < 47 + passthrough => {
            format!("<cpu mode='host-passthrough' check='none'>{bits}{}{numa}</cpu>", features(rng, draft))
        }
        _ => {
            let model = rng.pick(&draft.inventory.models);
            format!(
                "<cpu mode='custom' match='exact' check='none'><model{vendor} fallback='allow'>{model}</model>\
                 {bits}{}{numa}</cpu>",
                features(rng, draft)
            )
        }
    }
}

fn pci_hole(rng: &mut Rng, machine: &str) -> String {
    if rng.percent(75) {
        return String::new();
    }
    let root = if machine.contains("q35") { "pcie-root" } else { "pci-root" };
    let size = *rng.pick(&[0, 1, 512, MIB, GIB, 2 * GIB, 32 * GIB, 64 * GIB, 128 * GIB, 1024 * GIB]);
    let size = if rng.percent(30) { size + rng.below(GIB) } else { size };
    let hole = element(rng, "pcihole64", "", size);
    format!("<controller type='pci' index='0' model='{root}'>{hole}</controller>")
}

/// What backs the guest's memory. It decides how a memory device has to be aligned.
fn memory_backing(rng: &mut Rng) -> &'static str {
    const BACKINGS: &[&str] = &[
        "",
        "",
        "",
        "",
        "<memoryBacking><source type='memfd'/></memoryBacking>",
        "<memoryBacking><source type='file'/></memoryBacking>",
        "<memoryBacking><source type='anonymous'/><access mode='private'/></memoryBacking>",
        "<memoryBacking><access mode='shared'/></memoryBacking>",
        "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
    ];
    let backing: &&str = rng.pick(BACKINGS);
    backing
}

fn write_domain(rng: &mut Rng, draft: &Draft, name: &str) -> String {
    let accelerator = if draft.kvm { "kvm" } else { "qemu" };
    let acpi = if rng.percent(97) { "<features><acpi/></features>" } else { "" };
    let vcpus = draft.cells.max(1);
    let mut xml = format!("<domain type='{accelerator}'>\n  <name>{name}</name>\n");
    if let Some((max, slots)) = draft.hotplug {
        let _ = writeln!(xml, "  {}", element(rng, "maxMemory", &format!(" slots='{slots}'"), max));
    }
    let _ = writeln!(xml, "  {}", element(rng, "memory", "", draft.ram + draft.plugged));
    let _ = writeln!(xml, "  {}\n  <vcpu>{vcpus}</vcpu>", memory_backing(rng));
    let _ = writeln!(xml, "  <os><type arch='x86_64' machine='{}'>hvm</type></os>", draft.machine);
    let _ = writeln!(xml, "  {acpi}\n  {}", cpu(rng, draft));
    let _ = writeln!(xml, "  <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>");
    let _ = writeln!(xml, "    {}", pci_hole(rng, &draft.machine));
    for device in &draft.devices {
        let _ = writeln!(xml, "    {device}");
    }
    xml + "    <memballoon model='none'/>\n  </devices>\n</domain>\n"
}
