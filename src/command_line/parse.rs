//! QEMU's arguments, read into a [`CommandLine`] as QEMU merges them.
//!
//! Sources: QEMU 7.2 to 11.1, `qemu_init` (`softmmu/vl.c`, later `system/vl.c`), `parse_memory_options`,
//! `qemu_global_option` (`softmmu/qdev-monitor.c`), `x86_cpu_parse_featurestr` (`target/i386/cpu.c`), `parse_numa_node`
//! (`hw/core/numa.c`).

mod things;

use std::collections::{HashMap, HashSet};

use super::cpu::{is_base_class, is_cpu_class};
use super::value::{boolean, is_hexadecimal, number, size};
use super::words::{Argument, Pair, last, pairs};
use super::{
    Accelerator, CommandLine, Cpu, CpuOptions, Device, Global, Memory, Model, NodeMemory, NotModelled, NumaNode,
    Properties, Property, Refused, Told,
};
use crate::version::Version;

const MIB: u64 = 1 << 20;

/// Accelerators that a QEMU for Linux can have and that are not modelled (`accel/` of QEMU 7.2 to 11.1).
const ACCELERATORS: [&str; 4] = ["xen", "qtest", "mshv", "nitro"];

/// The most that `max-ram-below-4g` may be, in bytes (`pc_machine_set_max_ram_below_4g` in QEMU `hw/i386/pc.c`).
const MAX_RAM_BELOW_4G: u64 = 4 << 30;

/// The other kinds of `-numa` than a node (`NumaOptionsType` in QEMU `qapi/machine.json`).
const OTHER_NUMA: [&str; 4] = ["dist", "cpu", "hmat-lb", "hmat-cache"];

/// Options without a value (`qemu-options.hx` of QEMU 2.12 to 11.1).
const WITHOUT_VALUE: [&str; 42] = [
    "S",
    "alt-grab",
    "async-teardown",
    "audio-help",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "jitdump",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-kvm-irqchip",
    "no-kvm-pit-reinjection",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "old-param",
    "one-insn-per-tb",
    "only-migratable",
    "perfmap",
    "portrait",
    "preconfig",
    "s",
    "sdl",
    "semihosting",
    "singlestep",
    "snapshot",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
];

/// Parts of `-machine` that change the memory map and are not modelled: SGX and CXL memory, and `-m` in other words.
const UNREADABLE_MACHINE: [&str; 4] = ["sgx-epc", "cxl", "cxl-fmw", "memory"];

/// Classes with so many subclasses that one of them lacks the property, so that QEMU refuses to start.
const GENERAL_CLASSES: [&str; 5] = ["object", "device", "sys-bus-device", "pci-device", "virtio-pci"];

/// Devices with memory of their own that are not modelled.
const UNREADABLE_DEVICES: [&str; 3] = ["cxl-", "pxb-cxl", "hv-balloon"];

/// What becomes of the value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It is part of the command line.
    Taken,
    /// It is not modelled.
    NotModelled,
    /// QEMU does not take it.
    Refused,
}

/// Takes what an option says.
type Take = fn(&mut CommandLine, Vec<Pair>, &Argument<'_>) -> Reading;

/// What becomes of JSON that cannot be read; the hook reads none.
const UNREADABLE_JSON: Reading = if cfg!(feature = "cli") { Reading::Refused } else { Reading::NotModelled };

/// The first QEMU that refuses a unit after a hexadecimal number (`docs/about/removed-features.rst`).
const WITHOUT_HEXADECIMAL_UNITS: Version = Version::new(8, 0);

/// What cannot be settled before all arguments are known.
#[derive(Default)]
struct Pending<'a> {
    /// Whether the arguments are all that QEMU is told. What libvirt writes has ids, nodes and back ends as they have to be.
    alone: bool,
    ids: DeviceIds,
    /// The ids of objects.
    objects: HashSet<String>,
    /// `-machine nvdimm=on`.
    #[cfg(feature = "cli")]
    nvdimm: bool,
    /// The last `-accel` of an accelerator that QEMU does not have.
    accelerator: Option<[Argument<'a>; 2]>,
    /// The last accelerators of the machine, if QEMU has none of them.
    of_machine: Option<[Argument<'a>; 2]>,
}

impl Pending<'_> {
    /// The hook always reads what comes after libvirt's own, and so has nothing of what depends on this.
    fn is_alone(&self) -> bool {
        cfg!(feature = "cli") && self.alone
    }

    /// Whether QEMU takes the id of an object or device: it has to be one (`id_wellformed` in QEMU `util/id.c`), but of a
    /// device as JSON, and there may be no other with it.
    fn takes_id(&mut self, implied: &str, pairs: &[Pair], value: &Argument<'_>, devices: &[Device]) -> bool {
        let Some(id) = last(pairs, "id").map(|id| id.value.as_str()) else { return true };
        let wellformed = id.starts_with(|c: char| c.is_ascii_alphabetic())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        match implied {
            "qom-type" => wellformed && self.objects.insert(id.to_owned()),
            "driver" if value.text.starts_with('{') => self.ids.index(id, devices).is_none(),
            "driver" => wellformed && self.ids.index(id, devices).is_none(),
            _ => true,
        }
    }
}

/// Where in [`CommandLine::devices`] the first device with an id is.
#[derive(Default)]
struct DeviceIds {
    index: HashMap<String, usize>,
    /// How many devices are in it.
    known: usize,
}

impl DeviceIds {
    fn index(&mut self, id: &str, devices: &[Device]) -> Option<usize> {
        for (index, device) in devices.iter().enumerate().skip(self.known) {
            if let Some(id) = &device.id {
                self.index.entry(id.clone()).or_insert(index);
            }
        }
        self.known = devices.len();
        self.index.get(id).copied()
    }
}

impl CommandLine {
    /// Reads further arguments after those read so far.
    pub fn merge<'a>(&mut self, arguments: impl IntoIterator<Item = Argument<'a>>) {
        self.read(arguments, Pending::default());
    }

    /// Reads the arguments that are all that QEMU is told.
    #[cfg(feature = "cli")]
    pub(super) fn merge_all<'a>(&mut self, arguments: impl IntoIterator<Item = Argument<'a>>) {
        self.read(arguments, Pending { alone: true, ..Pending::default() });
    }

    fn read<'a>(&mut self, arguments: impl IntoIterator<Item = Argument<'a>>, mut pending: Pending<'a>) {
        let mut arguments = arguments.into_iter().peekable();
        while let Some(option) = arguments.next() {
            // Both dashes mean the same to QEMU; what has none is a disk.
            let Some(name) = option.text.strip_prefix('-') else { continue };
            let name = name.strip_prefix('-').unwrap_or(name);
            let value = if is_switch(name) { None } else { arguments.next() };
            if value.is_none() && !is_switch(name) {
                self.refused.push(Refused::new(&option, ""));
            }
            self.option(name, option, value, &mut pending);
        }
        // One that QEMU lacks is passed over as long as there is another.
        let lacking = pending.accelerator.filter(|_| self.accelerator.is_none());
        for [option, value] in lacking.into_iter().chain(pending.of_machine) {
            self.refuse(&option, &value);
        }
        #[cfg(feature = "cli")]
        if pending.alone {
            self.check_memory_devices(pending.nvdimm);
        }
        self.check_cpu_class();
    }

    /// What a `-global` of a certain model does to libvirt's host-model depends on the model that libvirt finds.
    fn check_cpu_class(&mut self) {
        if self.cpu.as_ref().is_some_and(|cpu| cpu.model == Model::HostModel) {
            let of_a_model = |global: &&Global| is_cpu_class(&global.driver) && !is_base_class(&global.driver);
            let entries = self.globals.iter().filter(of_a_model).map(|global| NotModelled {
                option: "-global".to_owned(),
                value: format!("{}.{}={}", global.driver, global.property.name, global.property.value),
                origin: global.property.origin,
            });
            self.not_modelled.extend(entries);
        }
    }

    /// What QEMU refuses of memory devices, and libvirt never writes: a back end that is used already
    /// (`host_memory_backend_is_mapped`), a NUMA node that is not there (`pc_dimm_realize` in QEMU `hw/mem/pc-dimm.c`), and
    /// NVDIMMs that the machine has switched off (`pc_memory_pre_plug` in `hw/i386/pc.c`).
    #[cfg(feature = "cli")]
    fn check_memory_devices(&mut self, nvdimm: bool) {
        let mut used: HashSet<&str> = self.machine.memory_backend.as_deref().into_iter().collect();
        used.extend(self.nodes.iter().filter_map(|node| match &node.memory {
            NodeMemory::Backend(id) => Some(id.as_str()),
            _ => None,
        }));
        let nodes = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX).max(1);
        let is_memory = |device: &&Device| {
            matches!(device.driver.as_ref(), "pc-dimm" | "nvdimm")
                || device.driver.starts_with("virtio-mem")
                || device.driver.starts_with("virtio-pmem")
        };
        let mut refused = Vec::new();
        for device in self.devices.iter().filter(is_memory) {
            // Nothing is known of what a shell puts in.
            let known = |name: &str| device.properties.get(name).filter(|told| !told.value.contains(['$', '`']));
            let busy = known("memdev").is_some_and(|id| !used.insert(&id.value));
            let node = known("node").map_or(Some(0), Property::number);
            let off = device.driver == "nvdimm" && !nvdimm;
            if busy || off || node.is_none_or(|node| node >= nodes) {
                let (option, value) = ("-device".to_owned(), device.driver.clone().into_owned());
                refused.push(Refused { option, value, origin: device.origin, from: None });
            }
        }
        self.refused.extend(refused);
    }

    fn option<'a>(&mut self, name: &str, option: Argument<'a>, value: Option<Argument<'a>>, pending: &mut Pending<'a>) {
        let Some(value) = value else {
            match name {
                "enable-kvm" => {
                    self.machine.accelerator = Some(Accelerator::Kvm);
                    pending.of_machine = None;
                }
                "no-acpi" => self.machine.acpi = Some(false),
                _ => {}
            }
            return;
        };
        let (given, option, value) = ([option, value], &option, &value);
        match name {
            "machine" | "M" => self.machine_option(given, pending),
            "accel" => self.accelerator_option(given, pending),
            "cpu" => self.cpu_option(option, value),
            "m" => self.memory_option(option, value),
            "numa" => self.numa_option(option, value, pending.is_alone()),
            "global" => self.global_option(option, value),
            "set" => self.set_option(option, value, &mut pending.ids),
            "object" => self.structured(given, ("qom-type", Self::object), pending),
            "device" => self.structured(given, ("driver", Self::device), pending),
            "netdev" | "nic" => self.structured(given, ("type", Self::host_end), pending),
            "blockdev" => self.structured(given, ("driver", Self::host_end), pending),
            #[cfg(feature = "cli")]
            "bios" | "pflash" | "drive" | "fw_cfg" => self.firmware.option(name, value),
            #[cfg(feature = "cli")]
            "readconfig" if super::proxmox::is_known(value.text) => self.devices.extend(super::proxmox::devices(value)),
            // It may hold any other option.
            "readconfig" => self.not_modelled(option, value),
            _ => {}
        }
    }

    fn not_modelled(&mut self, option: &Argument<'_>, value: &Argument<'_>) {
        let entry = NotModelled { option: option.text.to_owned(), value: value.text.to_owned(), origin: value.origin };
        self.not_modelled.push(entry);
    }

    fn refuse(&mut self, option: &Argument<'_>, value: &Argument<'_>) {
        self.refused.push(Refused { origin: value.origin, ..Refused::new(option, value.text) });
    }

    /// The options that QEMU also reads as JSON.
    fn structured(
        &mut self,
        [option, value]: [Argument<'_>; 2],
        (implied, take): (&str, Take),
        pending: &mut Pending<'_>,
    ) {
        let (option, value) = (&option, &value);
        let pairs = if value.text.starts_with('{') { json(value) } else { Some(pairs(value, implied)) };
        if pending.is_alone()
            && pairs.as_ref().is_some_and(|pairs| !pending.takes_id(implied, pairs, value, &self.devices))
        {
            self.refuse(option, value);
        }
        let pairs = pairs.map(|mut pairs| {
            // Whatever the key is called, it is the kind of the thing.
            pairs.iter_mut().filter(|pair| pair.key == implied).for_each(|pair| pair.key.clear());
            pairs
        });
        match pairs.map_or(UNREADABLE_JSON, |pairs| take(self, pairs, value)) {
            Reading::Taken => {}
            Reading::NotModelled => self.not_modelled(option, value),
            Reading::Refused => self.refuse(option, value),
        }
    }

    /// QEMU tries one after the other and takes the first that it has (`do_configure_accelerator`).
    fn accelerator_option<'a>(&mut self, given: [Argument<'a>; 2], pending: &mut Pending<'a>) {
        let [option, value] = &given;
        let pairs = pairs(value, "accel");
        match last(&pairs, "accel").map(|name| name.value.as_str()).unwrap_or_default() {
            // It lists those that it has, and ends.
            "" | "help" | "?" => self.refuse(option, value),
            _ if self.accelerator.is_some() => {}
            name if ACCELERATORS.contains(&name) => self.not_modelled(option, value),
            name => {
                self.accelerator = accelerator(name);
                pending.accelerator = Some(given);
            }
        }
    }

    fn machine_option<'a>(&mut self, given: [Argument<'a>; 2], pending: &mut Pending<'a>) {
        let [option, value] = &given;
        let (mut all_known, mut all_taken) = (true, true);
        for Pair { key, value: text, origin } in pairs(value, "type") {
            let known = match key.as_str() {
                "type" => {
                    self.machine.kind = Some(Told { value: text, origin });
                    Some(())
                }
                "acpi" => {
                    // What is left to QEMU is on.
                    let on = if text == "auto" { Some(true) } else { boolean(&text) };
                    all_taken &= on.is_some();
                    self.machine.acpi = on.or(self.machine.acpi);
                    Some(())
                }
                "memory-backend" => {
                    self.machine.memory_backend = Some(text);
                    Some(())
                }
                "max-ram-below-4g" => {
                    let limit = size(&text, 1).filter(|&limit| limit <= MAX_RAM_BELOW_4G);
                    all_taken &= limit.is_some();
                    if let Some(value) = limit {
                        self.machine.max_ram_below_4g = Some(Told { value, origin });
                    }
                    Some(())
                }
                // With underscores in QEMU 6.1.
                "default-bus-bypass-iommu" | "default_bus_bypass_iommu" => {
                    all_taken &= boolean(&text).is_some();
                    self.machine.bypasses_iommu = boolean(&text) == Some(true);
                    Some(())
                }
                "accel" => {
                    let mut names =
                        text.split(':').filter(|name| accelerator(name).is_some() || ACCELERATORS.contains(name));
                    let first = names.next();
                    self.machine.accelerator = first.and_then(accelerator);
                    pending.of_machine = if first.is_none() { Some(given) } else { None };
                    first.is_none_or(|name| accelerator(name).is_some()).then_some(())
                }
                #[cfg(feature = "cli")]
                "firmware" | "pflash0" | "confidential-guest-support" | "memory-encryption" => {
                    self.firmware.machine(&key, text, origin);
                    Some(())
                }
                #[cfg(feature = "cli")]
                "nvdimm" => {
                    all_taken &= boolean(&text).is_some();
                    pending.nvdimm = boolean(&text) == Some(true);
                    Some(())
                }
                "cxl" if boolean(&text) == Some(false) => Some(()),
                key if UNREADABLE_MACHINE.contains(&key.split('.').next().unwrap_or_default()) => None,
                _ => Some(()),
            };
            all_known &= known.is_some();
        }
        if !all_known {
            self.not_modelled(option, value);
        }
        if !all_taken {
            self.refuse(option, value);
        }
    }

    /// The last `-cpu` is the only one.
    fn cpu_option(&mut self, option: &Argument<'_>, argument: &Argument<'_>) {
        let mut parts = argument.text.split(',');
        let model = match parts.next().unwrap_or_default() {
            "host" => Model::Host,
            "max" => Model::Max,
            name => Model::Named(name.to_owned()),
        };
        let mut properties = Properties::new();
        let (mut plus, mut minus) = (Vec::new(), Vec::new());
        for part in parts.filter(|part| !part.is_empty()) {
            if let Some(name) = part.strip_prefix('+') {
                plus.push((name, part));
            } else if let Some(name) = part.strip_prefix('-') {
                minus.push((name, part));
            } else {
                let (name, value) = part.split_once('=').unwrap_or((part, "on"));
                properties.set(name.replace('_', "-"), value, argument.origin_of(part));
            }
        }
        // These come after all others, and the minus last (`x86_cpu_expand_features`).
        for (features, value) in [(plus, "on"), (minus, "off")] {
            for (name, part) in features {
                properties.set(name.replace('_', "-"), value, argument.origin_of(part));
            }
        }
        if !properties.iter().all(|property| CpuOptions::reads(&property.name, &property.value)) {
            self.refuse(option, argument);
        }
        self.cpu = Some(Cpu { model, properties, origin: argument.origin });
    }

    fn memory_option(&mut self, option: &Argument<'_>, argument: &Argument<'_>) {
        let told = |value: u64, pair: &Pair| Told { value, origin: pair.origin };
        let pairs = pairs(argument, "size");
        let default = Memory { size: Told { value: 0, origin: argument.origin }, slots: None, maxmem: None };
        let mut memory = self.memory.unwrap_or(default);
        let mut all_taken = true;
        // The unit is added as a letter, where the text ends with a decimal digit: `0x1a` is 26 bytes.
        let unit = |text: &str| if text.ends_with(|c: char| c.is_ascii_digit()) { MIB } else { 1 };
        for pair in &pairs {
            let taken = match pair.key.as_str() {
                // Without a unit it is MiB here, and bytes in maxmem.
                // A fraction is read as one of a byte before the unit is added.
                "size" => size(&pair.value, 1)
                    .and_then(|_| size(&pair.value, unit(&pair.value)))
                    .map(|bytes| memory.size = told(bytes, pair)),
                "maxmem" => size(&pair.value, 1).map(|bytes| memory.maxmem = Some(told(bytes, pair))),
                "slots" => number(&pair.value).map(|slots| memory.slots = Some(told(slots, pair))),
                _ => None,
            };
            all_taken &= taken.is_some();
        }
        if !all_taken {
            self.refuse(option, argument);
        }
        if last(&pairs, "size").is_some_and(|size| is_hexadecimal(&size.value) && unit(&size.value) == MIB) {
            let from = Some(WITHOUT_HEXADECIMAL_UNITS);
            self.refused.push(Refused { origin: argument.origin, from, ..Refused::new(option, argument.text) });
        }
        self.memory = Some(memory);
    }

    fn numa_option(&mut self, option: &Argument<'_>, argument: &Argument<'_>, alone: bool) {
        let pairs = pairs(argument, "type");
        match last(&pairs, "type").map(|kind| kind.value.as_str()) {
            Some("node") => {}
            Some(other) if OTHER_NUMA.contains(&other) => return,
            _ => return self.refuse(option, argument),
        }
        let next = u64::try_from(self.nodes.len()).ok();
        let id = last(&pairs, "nodeid").map_or(next, |id| number(&id.value));
        let id = id.filter(|id| !alone || self.takes_node(*id, &pairs));
        let memory = match (last(&pairs, "memdev"), last(&pairs, "mem")) {
            (Some(backend), _) => Some(NodeMemory::Backend(backend.value.clone())),
            (None, Some(mem)) => size(&mem.value, MIB).map(NodeMemory::Size),
            (None, None) => Some(NodeMemory::None),
        };
        match (id, memory) {
            (Some(id), Some(memory)) => self.nodes.push(NumaNode { id, memory }),
            _ => self.refuse(option, argument),
        }
    }

    /// Whether QEMU takes a node (`parse_numa_node`).
    fn takes_node(&self, id: u64, pairs: &[Pair]) -> bool {
        const KEYS: [&str; 6] = ["type", "nodeid", "cpus", "mem", "memdev", "initiator"];
        /// `MAX_NODES`.
        const MOST: u64 = 128;
        let has = |key: &str| last(pairs, key).is_some();
        let sized = self.nodes.iter().any(|node| matches!(node.memory, NodeMemory::Size(_)));
        let backed = self.nodes.iter().any(|node| matches!(node.memory, NodeMemory::Backend(_)));
        let mixed = (sized || has("mem")) && (backed || has("memdev"));
        let known = pairs.iter().all(|pair| KEYS.contains(&pair.key.as_str()));
        id < MOST && known && !mixed && self.nodes.iter().all(|node| node.id != id)
    }

    fn global_option(&mut self, option: &Argument<'_>, argument: &Argument<'_>) {
        let short = argument.text.split_once('=').and_then(|(name, value)| {
            let (driver, property) = name.split_once('.')?;
            Some((driver.to_owned(), property.to_owned(), value.to_owned()))
        });
        let (driver, property, value) = match short {
            Some(short) => short,
            None => {
                let pairs = pairs(argument, "");
                let part = |key: &str| last(&pairs, key).map(|pair| pair.value.clone());
                match (part("driver"), part("property"), part("value")) {
                    (Some(driver), Some(property), Some(value)) => (driver, property, value),
                    _ => return self.refuse(option, argument),
                }
            }
        };
        let readable = CpuOptions::reads(&property, &value) || !is_cpu_class(&driver);
        if !readable || !reads(&property, &value) || GENERAL_CLASSES.contains(&driver.as_str()) {
            self.not_modelled(option, argument);
        }
        let property = Property { name: property.into(), value, origin: argument.origin };
        self.globals.push(Global { driver: driver.into(), property });
    }

    /// Changes a device that was given as `key=value`; others are not found by QEMU either.
    fn set_option(&mut self, option: &Argument<'_>, argument: &Argument<'_>, ids: &mut DeviceIds) {
        let parts = argument.text.split_once('=').and_then(|(path, value)| {
            let mut path = path.splitn(3, '.');
            Some((path.next()?, path.next()?, path.next()?, value))
        });
        match parts {
            Some(("device", id, property, value)) => {
                let device = ids.index(id, &self.devices).and_then(|index| self.devices.get_mut(index));
                match device.filter(|device| device.settable) {
                    Some(device) => device.properties.set(property.to_owned(), value, argument.origin),
                    None => self.refuse(option, argument),
                }
            }
            Some(("memory" | "numa" | "accel", ..)) => self.not_modelled(option, argument),
            // What the machine is told has no id.
            Some(("machine", ..)) | None => self.refuse(option, argument),
            Some(_) => {}
        }
    }
}

/// Whether an option has no value.
pub(super) fn is_switch(name: &str) -> bool {
    WITHOUT_VALUE.contains(&name)
}

/// Whether QEMU takes the value for a property of a memory device or of the PCI host bridge; no other device that counts
/// has properties of these names.
fn reads(property: &str, value: &str) -> bool {
    match property {
        "memaddr" => number(value).is_some(),
        "label-size" | "block-size" | "requested-size" | "pci-hole64-size" => size(value, 1).is_some(),
        _ => true,
    }
}

fn accelerator(name: &str) -> Option<Accelerator> {
    match name {
        "kvm" => Some(Accelerator::Kvm),
        "tcg" => Some(Accelerator::Tcg),
        _ => None,
    }
}

#[cfg(feature = "cli")]
fn json(argument: &Argument<'_>) -> Option<Vec<Pair>> {
    super::json::pairs(argument)
}

/// The hook reads no JSON: its tree stays tiny.
#[cfg(not(feature = "cli"))]
fn json(_: &Argument<'_>) -> Option<Vec<Pair>> {
    None
}

#[cfg(test)]
mod tests;
