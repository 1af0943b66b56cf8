//! Random domains, drawn around every place where the memory map changes shape, and of every kind that libvirt or QEMU
//! treat in a way of their own. The same seed and case number give the same domain on the same stack.

mod cpu;
mod devices;
mod memory;

use super::draw::{GIB, KIB, Rng, element, nudged};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What a stack can be asked for.
pub struct Inventory {
    pub machines: Vec<String>,
    /// CPU models that libvirt knows.
    pub models: Vec<String>,
    /// Those of them that QEMU lacks.
    pub lacking: Vec<String>,
    /// Models of QEMU that libvirt does not know.
    pub unknown: Vec<String>,
    pub kvm: bool,
    /// Whether there is a qemu-system-i386.
    pub i386: bool,
    pub host_bits: u64,
}

/// What makes a domain more than plain. Each is drawn alone and together with others.
pub const FEATURES: &[&str] = &[
    "access",
    "arch-i686",
    "bits",
    "cells",
    "cpu-check",
    "cpu-fallback",
    "cpu-features",
    "cpu-host-model-with-model",
    "cpu-lacking",
    "cpu-minimum",
    "cpu-strict",
    "cpu-unknown",
    "dynamic-memslots",
    "expander-bus",
    "firmware",
    "huge-pages",
    "iommu",
    "launch-security",
    "memfd-or-file",
    "mixed-memory-devices",
    "no-slots",
    "nvdimm",
    "pci-hole",
    "piece-of-8-tib",
    "terabytes",
    "vendor-id",
    "virtio-mem",
    "virtio-pmem",
    "without-cells",
];

/// What is wrong with a domain: at most one of these at a time, or they would hide one another.
pub const MISTAKES: &[&str] =
    &["absurd-hole", "cell-ids", "dimm-address", "missing-type", "requested-or-block", "root", "sgx-epc"];

/// The state of one case, on which later draws depend.
pub struct Draft<'a> {
    pub inventory: &'a Inventory,
    /// The features and the mistake that are wanted.
    wanted: BTreeSet<&'static str>,
    /// What of [`FEATURES`] and [`MISTAKES`] the domain has.
    pub has: BTreeSet<&'static str>,
    pub kvm: bool,
    pub arch: &'static str,
    pub machine: String,
    pub ram: u64,
    pub cells: u64,
    /// maxMemory in bytes and its slots.
    pub hotplug: Option<(u64, Option<u64>)>,
    /// Bytes in the huge pages that back the guest.
    pub page: Option<u64>,
    pub devices: Vec<String>,
    pub plugged: u64,
}

impl Draft<'_> {
    /// Whether to draw a feature; notes that the domain has it.
    pub fn take(&mut self, feature: &'static str) -> bool {
        debug_assert!(FEATURES.contains(&feature) || MISTAKES.contains(&feature), "{feature}");
        let wanted = self.wanted.contains(feature);
        if wanted {
            self.has.insert(feature);
        }
        wanted
    }

    pub fn q35(&self) -> bool {
        self.machine.contains("q35")
    }
}

/// Chooses what a domain is to have.
fn wishes(rng: &mut Rng) -> BTreeSet<&'static str> {
    if rng.percent(35) {
        let both: Vec<&'static str> = FEATURES.iter().chain(MISTAKES).copied().collect();
        return std::iter::once(*rng.pick(&both)).collect();
    }
    // The more features there are, the more they interfere.
    let chance = *rng.pick(&[4, 8, 14]);
    let mut wanted: BTreeSet<&'static str> = FEATURES.iter().copied().filter(|_| rng.percent(chance)).collect();
    if rng.percent(50) {
        wanted.insert(rng.text(MISTAKES));
    }
    wanted
}

/// RAM: at a threshold of the map, small and odd, or anything up to 2 TiB.
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
        _ => rng.between(4 * GIB, 2048 * GIB),
    }
}

/// RAM where address widths end.
fn terabytes(rng: &mut Rng) -> u64 {
    const TIB: u64 = KIB * GIB;
    let edge = *rng.pick(&[2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]) * TIB;
    match rng.below(3) {
        0 => nudged(rng, edge),
        1 => edge - *rng.pick(&[4, 34, 1024]) * GIB,
        _ => rng.between(2 * TIB, 64 * TIB),
    }
}

/// The XML of one domain, and what of [`FEATURES`] and [`MISTAKES`] it has.
pub fn domain(rng: &mut Rng, inventory: &Inventory, name: &str) -> (String, BTreeSet<&'static str>) {
    let mut draft = Draft {
        inventory,
        wanted: wishes(rng),
        has: BTreeSet::new(),
        kvm: inventory.kvm && rng.percent(50),
        arch: "x86_64",
        machine: machine(rng, inventory),
        ram: ram(rng),
        cells: 0,
        hotplug: None,
        page: None,
        devices: Vec::new(),
        plugged: 0,
    };
    if draft.take("arch-i686") {
        draft.arch = "i686";
        draft.ram = if rng.percent(60) { rng.between(1, 80 * GIB) } else { draft.ram };
    }
    if draft.take("terabytes") {
        // KVM allocates a gigabyte for each 512 GiB; a few of these guests would be too many.
        draft.ram = terabytes(rng);
        draft.kvm = draft.kvm && rng.percent(20);
    }
    if draft.take("piece-of-8-tib") {
        draft.ram = 8 * KIB * GIB + rng.below(64) * 128 * GIB + 4 * GIB;
        draft.kvm = inventory.kvm;
    }
    let hotplug = rng.percent(45) || memory::DEVICES.iter().any(|device| draft.wanted.contains(device));
    let without = draft.take("without-cells");
    let several = draft.take("cells");
    if draft.wanted.contains("iommu") && !draft.q35() && rng.percent(85) {
        let q35: Vec<&String> = inventory.machines.iter().filter(|machine| machine.contains("q35")).collect();
        draft.machine = (*rng.pick(&q35)).clone();
    }
    draft.cells = match (without, several) {
        (true, _) => 0,
        (_, true) => rng.between(2, 4),
        _ if hotplug => 1,
        _ => u64::from(rng.percent(15)),
    };
    memory::backing(rng, &mut draft);
    if hotplug || draft.wanted.contains("sgx-epc") {
        memory::devices(rng, &mut draft);
    }
    if hotplug {
        hotplug_window(rng, &mut draft);
    }
    let xml = write_domain(rng, &mut draft, name);
    (xml, draft.has)
}

fn machine(rng: &mut Rng, inventory: &Inventory) -> String {
    const AROUND_THE_CHANGE: &[&str] =
        &["pc", "q35", "pc-i440fx-7.0", "pc-q35-7.0", "pc-i440fx-7.1", "pc-q35-7.1", "pc-q35-8.0", "pc-q35-8.1"];
    let near = rng.text(AROUND_THE_CHANGE);
    let known = near == "pc" || near == "q35" || inventory.machines.iter().any(|m| m == near);
    if known && rng.percent(50) { near.to_owned() } else { rng.pick(&inventory.machines).clone() }
}

fn hotplug_window(rng: &mut Rng, draft: &mut Draft<'_>) {
    let total = draft.ram + draft.plugged;
    let (max, slots) = match rng.below(16) {
        // The number of slots alone decides here whether RAM moves above 1 TiB.
        0 if draft.ram < 8 * GIB => {
            draft.ram = 4 * GIB;
            (960 * GIB + draft.plugged, rng.between(17, 20))
        }
        1 if rng.percent(50) => (total, rng.between(1, 32)),
        1 => (total.saturating_sub(GIB).max(1 << 20), rng.between(1, 32)),
        10 => (total + GIB, *rng.pick(&[0, 255, 256, 257])),
        2..=9 => {
            let edge = *rng.pick(&[960, 970, 978, 990, 1000, 1009, 1012, 1024, 2048]) * GIB;
            (nudged(rng, edge.max(total + GIB)), *rng.pick(&[1, 2, 8, 16, 32, 64]))
        }
        _ => (total + rng.between(1, 64 * KIB) * (1 << 20) + rng.below(1 << 20), rng.between(1, 32)),
    };
    let slots = if rng.percent(95) { slots.max(draft.devices.len() as u64) } else { slots };
    let slots = if draft.take("no-slots") { None } else { Some(slots) };
    draft.hotplug = Some((max, slots));
}

fn write_domain(rng: &mut Rng, draft: &mut Draft<'_>, name: &str) -> String {
    let missing = draft.take("missing-type").then(|| rng.text(&["domain", "os", "arch", "machine", "devices"]));
    let accelerator = match (missing, draft.kvm) {
        (Some("domain"), _) => "",
        (_, true) => " type='kvm'",
        (_, false) => " type='qemu'",
    };
    let vcpus = draft.cells.max(1);
    let mut xml = format!("<domain{accelerator}>\n  <name>{name}</name>\n");
    if let Some((max, slots)) = draft.hotplug {
        let slots = slots.map(|slots| format!(" slots='{slots}'")).unwrap_or_default();
        let _ = writeln!(xml, "  {}", element(rng, "maxMemory", &slots, max));
    }
    let _ = writeln!(xml, "  {}", element(rng, "memory", "", draft.ram + draft.plugged));
    let _ = writeln!(xml, "  {}\n  <vcpu>{vcpus}</vcpu>", memory::backing_element(rng, draft));
    let (firmware, loader) = devices::firmware(rng, draft);
    let arch = if missing == Some("arch") { String::new() } else { format!(" arch='{}'", draft.arch) };
    let machine = if missing == Some("machine") { String::new() } else { format!(" machine='{}'", draft.machine) };
    let os_type = if missing == Some("os") { String::new() } else { format!("<type{arch}{machine}>hvm</type>") };
    let _ = writeln!(xml, "  <os{firmware}>{os_type}{loader}</os>");
    let iommu = devices::iommu(rng, draft);
    let acpi = if rng.percent(97) { "<acpi/>" } else { "" };
    let _ = writeln!(xml, "  <features>{acpi}{}</features>\n  {}", iommu.features, cpu::cpu(rng, draft));
    let _ = writeln!(xml, "  <devices>\n    {}", emulator(rng, draft));
    let _ = writeln!(xml, "    {}", devices::controllers(rng, draft, missing == Some("devices")));
    for device in &draft.devices {
        let _ = writeln!(xml, "    {device}");
    }
    let _ = writeln!(xml, "    {}<memballoon model='none'/>\n  </devices>", iommu.device);
    let _ = writeln!(xml, "  {}</domain>", devices::launch_security(rng, draft));
    xml
}

fn emulator(rng: &mut Rng, draft: &Draft<'_>) -> String {
    if rng.percent(20) {
        return String::new();
    }
    let other = draft.arch == "i686" && draft.inventory.i386 && rng.percent(50);
    let wrong = draft.arch == "x86_64" && draft.inventory.i386 && rng.percent(1);
    let program = if other || wrong { "qemu-system-i386" } else { "qemu-system-x86_64" };
    format!("<emulator>/usr/bin/{program}</emulator>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_feature_is_in_one_case_of_twenty() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let inventory = Inventory {
            machines: names(&["pc-q35-7.0", "pc-q35-7.1", "pc-i440fx-7.0", "pc-i440fx-6.2"]),
            models: names(&["EPYC", "Skylake-Server", "Dhyana"]),
            lacking: names(&["cpu64-rhel5"]),
            unknown: names(&["YongFeng"]),
            kvm: true,
            i386: true,
            host_bits: 48,
        };
        let mut counts: BTreeMap<&str, u64> = FEATURES.iter().chain(MISTAKES).map(|name| (*name, 0)).collect();
        let cases = 4000;
        for case in 0..cases {
            let (_, has) = domain(&mut Rng::of_case(super::super::SEED, case), &inventory, "x");
            for feature in has {
                *counts.entry(feature).or_default() += 1;
            }
        }
        counts.retain(|_, count| *count * 20 < cases);
        assert!(counts.is_empty(), "in too few of {cases} cases: {counts:?}");
    }
}
