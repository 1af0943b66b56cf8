//! Random command lines, spelled in every way that QEMU reads.

use crate::integration::differential::draw::{GIB, KIB, MIB, Rng, nudged};
use std::collections::BTreeSet;

/// What can be drawn for one QEMU.
pub struct Inventory {
    pub machines: Vec<String>,
    pub models: Vec<String>,
    pub kvm: bool,
}

/// A command line in the making.
#[derive(Default)]
pub struct Draft {
    /// The options, each with its value; they are shuffled where their order does not matter.
    options: Vec<Vec<String>>,
    pub has: BTreeSet<&'static str>,
    kvm: bool,
    /// Whether the chipset is q35.
    q35: bool,
    model: String,
    /// Bytes of RAM, and of memory devices.
    ram: u64,
    plugged: u64,
    backends: u64,
}

impl Draft {
    fn option(&mut self, rng: &mut Rng, name: &str, value: impl Into<String>) {
        let dashes = if rng.percent(5) { "--" } else { "-" };
        self.options.push(vec![format!("{dashes}{name}"), value.into()]);
    }

    fn switch(&mut self, name: &str) {
        self.options.push(vec![format!("-{name}")]);
    }

    /// What QEMU and KVM take of this machine for the guest (`memory_taken` of the oracle).
    pub fn taken(&self) -> u64 {
        let all = self.ram.saturating_add(self.plugged);
        all / 4096 * 3 / 8 + if self.kvm { all / 512 } else { 0 }
    }

    pub fn arguments(&self) -> Vec<String> {
        self.options.iter().flatten().cloned().collect()
    }
}

/// One command line.
pub fn line(rng: &mut Rng, inventory: &Inventory) -> Draft {
    let mut draft = Draft { kvm: inventory.kvm && rng.percent(35), ..Draft::default() };
    draft.ram = ram(rng, draft.kvm);
    machine(rng, inventory, &mut draft);
    accelerator(rng, &mut draft);
    cpu(rng, inventory, &mut draft);
    memory(rng, &mut draft);
    globals(rng, &mut draft);
    beside(rng, &mut draft);
    if rng.percent(8) {
        mistake(rng, &mut draft);
    }
    shuffle(rng, &mut draft.options);
    if rng.percent(1) {
        draft.has.insert("a missing value");
        draft.options.push(vec!["-m".to_owned()]);
    }
    draft
}

/// Only two options of different names change places: what is repeated keeps its order.
fn shuffle(rng: &mut Rng, options: &mut [Vec<String>]) {
    let kind = |option: &[String]| {
        let name = option[0].trim_start_matches('-');
        // An id has to be there before `-set` names it.
        match name {
            "M" => "machine".to_owned(),
            "set" | "device" => "device".to_owned(),
            name => name.to_owned(),
        }
    };
    for _ in 0..options.len() * 3 {
        let at = rng.below(options.len().max(2) as u64 - 1) as usize;
        if at + 1 < options.len() && kind(&options[at]) != kind(&options[at + 1]) {
            options.swap(at, at + 1);
        }
    }
}

fn ram(rng: &mut Rng, kvm: bool) -> u64 {
    match rng.below(10) {
        0 => rng.between(16, 3000) * MIB,
        1..=3 => rng.between(1, 16) * GIB,
        4 => {
            let edge = *rng.pick(&[2, 3, 4]) * GIB;
            nudged(rng, edge)
        }
        5..=8 => {
            let edge = *rng.pick(&[974, 1006, 1009, 1010, 1012, 1023, 1024, 1100]) * GIB;
            nudged(rng, edge)
        }
        _ if kvm => 1200 * GIB,
        _ => rng.between(1200, 5000) * GIB,
    }
}

/// A size in one of its spellings; `unit` is that of a number alone.
fn sized(rng: &mut Rng, bytes: u64, unit: u64) -> String {
    const UNITS: [(&str, u64); 8] =
        [("K", KIB), ("k", KIB), ("M", MIB), ("m", MIB), ("G", GIB), ("g", GIB), ("T", GIB * KIB), ("B", 1)];
    match rng.below(8) {
        0 | 1 if bytes.is_multiple_of(unit) => (bytes / unit).to_string(),
        2 if bytes.is_multiple_of(unit) => format!("{:#x}", bytes / unit),
        3 if bytes.is_multiple_of(KIB * KIB * KIB / 4) && bytes >= GIB => {
            format!("{}.{:02}G", bytes / GIB, bytes % GIB * 100 / GIB)
        }
        _ => {
            let fits: Vec<_> = UNITS.iter().filter(|(_, size)| bytes.is_multiple_of(*size)).collect();
            let (name, size) = rng.pick(&fits);
            format!("{}{name}", bytes / size)
        }
    }
}

fn machine(rng: &mut Rng, inventory: &Inventory, draft: &mut Draft) {
    const AROUND: &[&str] =
        &["pc", "q35", "pc-i440fx-7.0", "pc-q35-7.0", "pc-i440fx-7.1", "pc-q35-7.1", "pc-q35-6.2", "pc-q35-8.1"];
    let pick = |rng: &mut Rng| {
        let near = rng.text(AROUND).to_owned();
        let known = inventory.machines.contains(&near);
        if known && rng.percent(60) { near } else { rng.pick(&inventory.machines).clone() }
    };
    let name = pick(rng);
    draft.q35 = name.contains("q35");
    let mut parts = Vec::new();
    if rng.percent(15) {
        draft.has.insert("max-ram-below-4g");
        let limit =
            *rng.pick(&[0, 128 * MIB, 512 * MIB, GIB, 1536 * MIB, 2 * GIB, 3 * GIB, 13 * GIB / 4, 4 * GIB, 5 * GIB]);
        parts.push(format!("max-ram-below-4g={}", sized(rng, limit, 1)));
    }
    if rng.percent(10) {
        parts.push(
            rng.text(&["hpet=off", "usb=off", "graphics=off", "dump-guest-core=off", "acpi=on", "mem-merge=off"])
                .to_owned(),
        );
    }
    let option = rng.text(&["machine", "M"]).to_owned();
    match rng.below(20) {
        0 => {
            draft.has.insert("no machine");
            draft.q35 = false;
            if let Some(part) = parts.pop() {
                draft.option(rng, &option, part);
            }
        }
        1..=4 => {
            draft.has.insert("several machines");
            let first = pick(rng);
            draft.option(rng, &option, first);
            parts.insert(0, format!("type={name}"));
            let other = rng.text(&["machine", "M"]).to_owned();
            draft.option(rng, &other, parts.join(","));
            if rng.percent(50) {
                draft.option(rng, "machine", "hpet=off");
            }
        }
        5..=9 => {
            draft.has.insert("type=");
            let at = rng.below(parts.len() as u64 + 1) as usize;
            parts.insert(at, format!("type={name}"));
            draft.option(rng, &option, parts.join(","));
        }
        _ => {
            parts.insert(0, name);
            draft.option(rng, &option, parts.join(","));
        }
    }
}

fn accelerator(rng: &mut Rng, draft: &mut Draft) {
    let (kind, other) = if draft.kvm { ("kvm", "tcg") } else { ("tcg", "kvm") };
    match rng.below(10) {
        0 | 1 if draft.kvm => draft.switch("enable-kvm"),
        0 if !draft.kvm => {}
        2 => draft.option(rng, "machine", format!("accel={kind}")),
        3 => {
            draft.has.insert("accelerators with colons");
            draft.option(rng, "M", format!("accel={kind}:{other}"));
        }
        4 => {
            draft.has.insert("several -accel");
            draft.option(rng, "accel", kind);
            draft.option(rng, "accel", other);
        }
        5 => draft.option(rng, "accel", format!("accel={kind}")),
        6 => accelerators_that_are_not_there(rng, draft, kind),
        _ => draft.option(rng, "accel", kind),
    }
}

/// QEMU passes over those that it does not have, and refuses to start if there is no other.
fn accelerators_that_are_not_there(rng: &mut Rng, draft: &mut Draft, kind: &str) {
    draft.has.insert("accelerators that are not there");
    let none = rng.text(&["nosuch", "hvf", "KVM", "tcg:kvm"]).to_owned();
    match rng.below(6) {
        0 => {
            draft.option(rng, "accel", none);
            draft.option(rng, "accel", kind);
        }
        1 => {
            draft.option(rng, "accel", kind);
            draft.option(rng, "accel", none);
        }
        2 => draft.option(rng, "machine", format!("accel=nosuch:{kind}")),
        3 => draft.option(rng, "M", format!("accel={kind}:")),
        4 => {
            draft.option(rng, "machine", "accel=nosuch");
            draft.option(rng, "M", format!("accel={kind}"));
        }
        _ => draft.option(rng, "accel", none),
    }
}

fn cpu(rng: &mut Rng, inventory: &Inventory, draft: &mut Draft) {
    draft.model = "qemu64".to_owned();
    if rng.percent(7) {
        draft.has.insert("no cpu");
        return;
    }
    if rng.percent(10) {
        draft.has.insert("several cpus");
        let text = cpu_text(rng, inventory, draft);
        draft.option(rng, "cpu", text);
    }
    let text = cpu_text(rng, inventory, draft);
    draft.option(rng, "cpu", text);
}

fn cpu_text(rng: &mut Rng, inventory: &Inventory, draft: &mut Draft) -> String {
    const NEAR: &[&str] = &["EPYC", "qemu64", "kvm64", "max", "Skylake-Server", "pentium3", "qemu32"];
    draft.model = if rng.percent(60) { rng.text(NEAR).to_owned() } else { rng.pick(&inventory.models).clone() };
    let mut parts = Vec::new();
    if rng.percent(75) {
        let bits = match rng.below(8) {
            0 => rng.between(0, 60),
            1 => 40,
            _ => *rng.pick(&[41, 42, 43, 46, 48, 52]),
        };
        let name = rng.text(&["phys-bits", "phys-bits", "phys_bits"]);
        parts.push(if rng.percent(15) { format!("{name}={bits:#x}") } else { format!("{name}={bits}") });
    }
    if rng.percent(20) {
        draft.has.insert("vendor");
        parts.push(format!("vendor={}", rng.text(&["GenuineIntel", "AuthenticAMD", "HygonGenuine"])));
    }
    if rng.percent(20) {
        draft.has.insert("host-phys-bits");
        parts.push(
            rng.text(&[
                "host-phys-bits",
                "host-phys-bits=on",
                "host-phys-bits=off",
                "+host-phys-bits",
                "host_phys_bits=true",
                "-host-phys-bits",
            ])
            .to_owned(),
        );
        if rng.percent(50) {
            parts.push(format!("host-phys-bits-limit={}", rng.pick(&[0, 39, 42, 46, 52])));
        }
    }
    if rng.percent(20) {
        draft.has.insert("flags");
        for _ in 0..rng.between(1, 3) {
            parts.push(
                rng.text(&[
                    "+lm", "-lm", "lm=on", "lm=off", "lm", "+x2apic", "-svm", "pae=off", "-pse36", "+aes", "kvm=off",
                    "-pae",
                ])
                .to_owned(),
            );
        }
    }
    // Any order.
    for at in (1..parts.len()).rev() {
        let other = rng.below(at as u64 + 1) as usize;
        parts.swap(at, other);
    }
    let mut text = draft.model.clone();
    for part in parts {
        text = format!("{text},{part}");
    }
    text
}

fn memory(rng: &mut Rng, draft: &mut Draft) {
    if rng.percent(6) {
        draft.has.insert("no -m");
        draft.ram = 128 * MIB;
        return;
    }
    let size = sized(rng, draft.ram, MIB);
    let named = if rng.percent(30) { format!("size={size}") } else { size };
    if rng.percent(40) {
        plain_memory(rng, draft, named);
        return;
    }
    draft.has.insert("slots and maxmem");
    let slots = rng.between(1, 20);
    if rng.percent(70) {
        for number in 0..rng.between(1, 3) {
            device(rng, draft, number);
        }
    }
    let room = match rng.below(4) {
        0 => GIB,
        1 => rng.between(1, 64) * GIB,
        2 => (1010 * GIB).saturating_sub(draft.ram).max(GIB) / GIB * GIB,
        _ => draft.plugged + rng.between(0, 3) * GIB,
    };
    let maxmem = if rng.percent(90) { draft.ram + room.max(draft.plugged) } else { draft.ram + room };
    let maxmem = sized(rng, maxmem, 1);
    match rng.below(5) {
        0 => {
            draft.has.insert("several -m");
            draft.option(rng, "m", named);
            draft.option(rng, "m", format!("slots={slots},maxmem={maxmem}"));
        }
        1 => {
            let named = named.strip_prefix("size=").unwrap_or(&named).to_owned();
            draft.option(rng, "m", format!("maxmem={maxmem},slots={slots},size={named}"));
        }
        _ => draft.option(rng, "m", format!("{named},slots={slots},maxmem={maxmem}")),
    }
}

/// RAM alone: as it is, in a back end, or in NUMA nodes.
fn plain_memory(rng: &mut Rng, draft: &mut Draft, named: String) {
    match rng.below(8) {
        0 => {
            draft.has.insert("memory-backend");
            let id = backend(rng, draft, "ram", draft.ram);
            if rng.percent(70) {
                draft.option(rng, "m", named);
            }
            draft.option(rng, "machine", format!("memory-backend={id}"));
        }
        1 | 2 => {
            draft.has.insert("numa");
            let first = draft.ram / 2 / (2 * MIB) * (2 * MIB);
            draft.option(rng, "m", named);
            draft.option(rng, "smp", "2");
            for (number, size) in [first, draft.ram - first].into_iter().enumerate().filter(|(_, size)| *size > 0) {
                let id = backend(rng, draft, "ram", size);
                let node = match rng.below(3) {
                    0 => format!("node,nodeid={number},memdev={id},cpus={number}"),
                    1 => format!("node,memdev={id},cpus={number},nodeid={number}"),
                    _ => format!("type=node,cpus={number},memdev={id}"),
                };
                draft.option(rng, "numa", node);
            }
        }
        3 => {
            draft.has.insert("numa mem=");
            let text = sized(rng, draft.ram, MIB);
            draft.option(rng, "m", named);
            draft.option(rng, "numa", format!("node,mem={text}"));
        }
        4 => {
            draft.has.insert("several -m");
            draft.option(rng, "m", "77");
            draft.option(rng, "m", named);
        }
        _ => draft.option(rng, "m", named),
    }
}

/// A back end and its id.
fn backend(rng: &mut Rng, draft: &mut Draft, prefix: &str, bytes: u64) -> String {
    let id = format!("{prefix}{}", draft.backends);
    draft.backends += 1;
    let kind = rng.text(&["ram", "ram", "memfd", "file"]);
    let text = match (rng.below(3), kind) {
        (0, "ram" | "memfd") => {
            draft.has.insert("JSON");
            let text = format!(r#"{{"qom-type":"memory-backend-{kind}","size":{bytes},"id":"{id}"}}"#);
            if rng.percent(30) { text.replace('"', "'") } else { text }
        }
        (0, _) => {
            draft.has.insert("JSON");
            format!(
                r#"{{"id":"{id}","qom-type":"memory-backend-{kind}","size":{bytes},"mem-path":"/tmp","share":true}}"#
            )
        }
        (1, "file") => format!("memory-backend-file,share=on,size={},mem-path=/tmp,id={id}", sized(rng, bytes, 1)),
        (1, _) => format!("qom-type=memory-backend-{kind},size={},id={id}", sized(rng, bytes, 1)),
        (_, "file") => format!("memory-backend-file,id={id},mem-path=/tmp,size={},share=on", sized(rng, bytes, 1)),
        _ => format!("memory-backend-{kind},id={id},size={}", sized(rng, bytes, 1)),
    };
    draft.option(rng, "object", text);
    id
}

fn device(rng: &mut Rng, draft: &mut Draft, number: u64) {
    let bytes = match rng.below(4) {
        // Half of them no whole 2 MiB.
        0 => rng.between(1, 1200) * MIB,
        1 if !draft.kvm => rng.between(1, 40) * 8 * GIB,
        _ => rng.between(1, 8) * GIB,
    };
    draft.plugged += bytes;
    let memdev = backend(rng, draft, "mem", bytes);
    let (driver, property) = match rng.below(6) {
        0 => ("virtio-mem-pci", "memaddr"),
        1 => ("virtio-pmem-pci", "memaddr"),
        _ => ("pc-dimm", "addr"),
    };
    // NVDIMMs have to be switched on.
    let driver = if driver == "pc-dimm" && rng.percent(20) { "nvdimm" } else { driver };
    if driver == "nvdimm" && rng.percent(85) {
        draft.option(rng, "machine", "nvdimm=on");
    }
    draft.has.insert(driver);
    let mut parts = vec![("memdev", memdev)];
    if rng.percent(60) {
        parts.push(("id", format!("d{number}")));
    }
    if driver == "pc-dimm" && rng.percent(20) {
        parts.push(("slot", rng.between(0, 20).to_string()));
    }
    if driver == "virtio-mem-pci" && rng.percent(40) {
        parts.push(("block-size", (MIB << rng.below(3)).to_string()));
    }
    if rng.percent(20) {
        draft.has.insert("fixed address");
        let address = draft.ram + rng.between(1, 12) * GIB;
        let address = if rng.percent(80) { address / GIB * GIB } else { address };
        parts.push((property, address.to_string()));
    }
    if rng.percent(30) {
        draft.has.insert("JSON");
        let member = |(key, value): &(&str, String)| match value.parse::<u64>() {
            Ok(number) => format!(r#""{key}":{number}"#),
            Err(_) => format!(r#""{key}":"{value}""#),
        };
        let members: Vec<String> = parts.iter().map(member).collect();
        draft.option(rng, "device", format!(r#"{{{},"driver":"{driver}"}}"#, members.join(",")));
        return;
    }
    let spelled = |(key, value): &(&str, String)| match value.parse::<u64>() {
        Ok(number) if number > 4096 => format!("{key}={number:#x}"),
        _ => format!("{key}={value}"),
    };
    let mut words: Vec<String> = parts.iter().map(spelled).collect();
    if rng.percent(25) {
        let at = rng.below(words.len() as u64 + 1) as usize;
        words.insert(at, format!("driver={driver}"));
    } else {
        words.insert(0, driver.to_owned());
    }
    draft.option(rng, "device", words.join(","));
    if driver == "pc-dimm" && parts.iter().any(|(key, _)| *key == "id") && rng.percent(15) {
        draft.has.insert("-set");
        let address = (draft.ram / GIB + rng.between(2, 12)) * GIB;
        draft.option(rng, "set", format!("device.d{number}.addr={address}"));
    }
}

fn globals(rng: &mut Rng, draft: &mut Draft) {
    while rng.percent(25) {
        let (driver, property, value) = match rng.below(6) {
            0 | 1 => {
                let class = match rng.below(4) {
                    0 => "cpu".to_owned(),
                    1 => "x86_64-cpu".to_owned(),
                    2 => "EPYC-x86_64-cpu".to_owned(),
                    _ => format!("{}-x86_64-cpu", draft.model),
                };
                let (property, value) = *rng.pick(&[
                    ("phys-bits", "43"),
                    ("phys-bits", "0x2d"),
                    ("vendor", "GenuineIntel"),
                    ("vendor", "AuthenticAMD"),
                    ("host-phys-bits", "on"),
                    ("lm", "off"),
                ]);
                // Properties that not every class has are refused where one lacks them.
                let class = if class == "cpu" && rng.percent(50) { "x86_64-cpu".to_owned() } else { class };
                (class, property, value.to_owned())
            }
            2..=4 => {
                let own = if draft.q35 { "q35-pcihost" } else { "i440FX-pcihost" };
                let class = match rng.below(6) {
                    0 => "q35-pcihost",
                    1 => "i440FX-pcihost",
                    2 => "pci-host-bridge",
                    3 => "pcie-host-bridge",
                    _ => own,
                };
                let bytes = *rng.pick(&[0, MIB, GIB, 64 * GIB, 2 * KIB * GIB, 6 * KIB * GIB]);
                (class.to_owned(), "pci-hole64-size", sized(rng, bytes, 1))
            }
            _ => ("PIIX4_PM".to_owned(), "disable_s3", "1".to_owned()),
        };
        draft.has.insert("-global");
        let text = match rng.below(4) {
            0 => format!("driver={driver},property={property},value={value}"),
            1 => format!("value={value},driver={driver},property={property}"),
            _ => format!("{driver}.{property}={value}"),
        };
        draft.option(rng, "global", text);
    }
}

/// Options that change nothing, and that swallow no other.
fn beside(rng: &mut Rng, draft: &mut Draft) {
    const SWITCHES: &[&str] =
        &["nodefaults", "no-reboot", "no-user-config", "snapshot", "S", "no-shutdown", "only-migratable"];
    const OTHERS: &[(&str, &str)] = &[
        ("name", "guest=a,debug-threads=on"),
        ("name", "-m"),
        ("rtc", "base=utc"),
        ("boot", "menu=on,strict=on"),
        ("vga", "none"),
        ("serial", "none"),
        ("parallel", "none"),
        ("uuid", "7b10d7af-b932-4c66-b2c3-3996152ec465"),
        ("k", "de"),
        ("device", "virtio-rng-pci"),
        ("smbios", "type=1,manufacturer=a"),
        ("net", "none"),
        ("nic", "none"),
        ("overcommit", "mem-lock=off"),
    ];
    while rng.percent(55) {
        if rng.percent(50) {
            let name = rng.text(SWITCHES);
            draft.switch(name);
        } else {
            let (name, value) = *rng.pick(OTHERS);
            // Those that a second one contradicts.
            if !draft.options.iter().any(|option| option[0].trim_start_matches('-') == name) {
                draft.option(rng, name, value);
            }
        }
    }
}

/// Something that QEMU does not take. Left out is what takes a list of all that a QEMU has: options, devices, models
/// and features of CPUs.
fn mistake(rng: &mut Rng, draft: &mut Draft) {
    const MISTAKES: &[(&str, &str)] = &[
        ("m", "4Q"),
        ("m", "4G,foo=1"),
        ("m", "1e3"),
        ("m", "slots=x"),
        ("m", "-4G"),
        ("m", "size=4GiB"),
        ("m", "1.5"),
        ("m", "0x1.8G"),
        ("cpu", "EPYC,phys-bits=20"),
        ("cpu", "EPYC,phys-bits=x"),
        ("cpu", "EPYC,lm=maybe"),
        ("global", "nosuch"),
        ("global", "driver=cpu,property=lm"),
        ("machine", "max-ram-below-4g=x"),
        ("machine", "acpi=maybe"),
        ("machine", "memory-backend=nosuch"),
        ("numa", "node,memdev=nosuch"),
        ("numa", "node,mem=x"),
        ("numa", "nosuch"),
        ("numa", "node,nodeid=5"),
        ("numa", "node,nodeid=200"),
        ("numa", "node,nodeid=0"),
        ("numa", "node"),
        ("numa", "node,foo=1"),
        ("numa", "node,mem=1G,memdev=mem0"),
        ("machine", "memory-backend=mem0"),
        ("object", "memory-backend-ram,id=x"),
        ("object", "memory-backend-ram,size=1G"),
        ("object", "memory-backend-ram,id=x,size=1Q"),
        ("object", "{\"qom-type\":\"memory-backend-ram\""),
        ("object", "{\"qom-type\":\"memory-backend-ram\",\"id\":\"x\",\"size\":\"1G\"}"),
        ("object", "memory-backend-ram,id=5,size=1G"),
        ("object", "memory-backend-ram,id=mem0,size=1G"),
        ("object", "rng-random,id=mem0"),
        ("device", "pc-dimm"),
        ("device", "pc-dimm,memdev=nosuch"),
        ("device", "pc-dimm,memdev=mem0"),
        ("device", "pc-dimm,memdev=mem0,node=1"),
        ("device", "{\"driver\":\"pc-dimm\",\"memdev\":\"mem0\",\"addr\":\"0x1000000000\"}"),
        ("device", "nvdimm,memdev=mem0"),
        ("device", "virtio-rng-pci,id=d0"),
        ("device", "virtio-rng-pci,id=0"),
        ("device", "{\"driver\":"),
        ("set", "device.nosuch.addr=1"),
        ("set", "machine.a.hpet=off"),
        ("accel", "nosuch"),
    ];
    draft.has.insert("a mistake");
    let (name, value) = *rng.pick(MISTAKES);
    draft.option(rng, name, value);
}
