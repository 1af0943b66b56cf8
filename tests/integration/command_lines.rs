//! libvirt's own test domains: what `libvirt` writes for each, against the command line that libvirt itself writes,
//! read as QEMU reads it. All is compared that `qemu` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use iova_preflight::command_line::{
    Argument, CommandLine, Device, MemoryBackend, Model, NodeMemory, PageSize, PassthroughKind, Property,
};
use iova_preflight::domain::{CpuMode, Domain, HiddenDma, Unseen};
use iova_preflight::host::Host;
use iova_preflight::qemu::cpu::{AMD, HostCpu, Vcpu};
use iova_preflight::qemu::memory_device::MemoryDeviceKind;
use iova_preflight::version::Version;
use iova_preflight::xml::Document;
use iova_preflight::{domain, libvirt};

use crate::common::{corpus, note, xml_files};

/// Most pairs that may differ, for a reason that [`exception`] knows.
const MOST_EXCEPTIONS: usize = 15;

/// Why a fact of a domain does not follow from its XML alone, if it does not.
fn exception(fact: &str, domain: &Domain, arguments: &str, machine: &str) -> Option<&'static str> {
    let network = |hidden: &HiddenDma| matches!(hidden.unseen, Unseen::Network(_));
    let memory = fact == "memory" || fact == "ram" || fact.starts_with("node ");
    let pc = ["pc", "q35"].iter().any(|prefix| machine.starts_with(prefix));
    match fact {
        "passthrough" if domain.hidden_dma.iter().any(network) => Some("a virtual network hands out the device"),
        // libvirt's tests pretend that TCG can do what an Intel CPU can; it is AMD's.
        "cpu.amd" | "cpu.intel" if domain.cpu.as_ref().is_some_and(|cpu| cpu.mode == CpuMode::HostModel) => {
            Some("host-model without KVM, of a host that libvirt's tests make up")
        }
        "cpu.model" | "cpu.amd" | "cpu.intel" if !pc => Some("a machine that is neither pc nor q35, not evaluated"),
        _ if memory && arguments.contains("-incoming ") => Some("an incoming migration, where libvirt rounds nothing"),
        _ => None,
    }
}

#[test]
fn libvirt_writes_what_libvirt_writes() {
    let Some(folder) = corpus() else { return };
    let (mut pairs, mut facts) = (0, 0);
    let (mut differences, mut exceptions) = (Vec::new(), BTreeMap::<String, &str>::new());
    for path in xml_files(&folder) {
        let Ok(arguments) = std::fs::read_to_string(path.with_extension("args")) else { continue };
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let Some((domain, ours)) = written(&path) else { continue };
        pairs += 1;
        let theirs = read(&arguments);
        let machine = theirs.machine.kind.as_ref().map_or("", |kind| kind.value.as_str());
        let (expected, ours) = (facts_of(&theirs, &ours), facts_of(&ours, &ours));
        for key in expected.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
            facts += 1;
            if expected.get(key) == ours.get(key) {
                continue;
            }
            match exception(key, &domain, &arguments, machine) {
                Some(why) => drop(exceptions.insert(name.clone(), why)),
                None => differences.push(format!(
                    "{name}: {key}: libvirt {:?}, ours {:?}",
                    expected.get(key),
                    ours.get(key)
                )),
            }
        }
    }
    for (name, why) in &exceptions {
        note(&format!("command lines: {name} is left out: {why}"));
    }
    assert!(differences.is_empty(), "{} of {facts} facts differ\n{}", differences.len(), differences.join("\n"));
    assert!(exceptions.len() <= MOST_EXCEPTIONS, "{} pairs are left out", exceptions.len());
    note(&format!("command lines: {facts} facts of {pairs} pairs match"));
}

/// What is written for a domain of QEMU on x86, if it is one.
fn written(path: &Path) -> Option<(Domain, CommandLine)> {
    let xml = std::fs::read(path).expect("read a domain");
    let document = Document::parse(&xml).ok()?;
    let domain = domain::read(&document).ok()?;
    let mut host = Host::default();
    (host.libvirt, host.qemu) = (Some(LIBVIRT), Some(QEMU));
    let x86 = domain.arch.as_ref().is_none_or(|arch| matches!(arch.value.as_str(), "x86_64" | "i686"));
    let line = libvirt::write(&domain, &host).line;
    x86.then_some((domain, line))
}

/// The arguments of a line as libvirt's tests have it: variables, the program, then a line for each option.
fn read(text: &str) -> CommandLine {
    let words = split(&text.replace("\\\n", ""));
    let program = words.iter().position(|word| word.starts_with('/')).expect("a program");
    let mut line = CommandLine::default();
    line.merge(words[program + 1..].iter().enumerate().map(|(number, word)| Argument::numbered(number, word)));
    line
}

/// Words of a shell in single quotes or none.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The libvirt whose lines they are.
const LIBVIRT: Version = Version::new(11, 3);

/// The QEMU that they are for.
const QEMU: Version = Version::new(9, 2);

/// All that `qemu` reads of a line; `ours` is the one that is written here.
fn facts_of(line: &CommandLine, ours: &CommandLine) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut tell = |key: &str, value: String| drop(facts.insert(key.to_owned(), value));
    tell("machine", line.machine.kind.as_ref().map_or(String::new(), |kind| kind.value.clone()));
    tell("acpi", format!("{}", line.machine.acpi != Some(false)));
    tell("max-ram-below-4g", format!("{:?}", line.machine.max_ram_below_4g.map(|limit| limit.value)));
    tell("accelerator", format!("{:?}", line.accelerator()));
    let options = line.cpu_options();
    // The name that libvirt finds for host-model depends on the host; what QEMU makes of it has to be the same.
    if ours.cpu.as_ref().is_none_or(|cpu| cpu.model != Model::HostModel) {
        tell("cpu.model", format!("{:?}", options.model));
    }
    for (name, vendor) in [("cpu.amd", AMD), ("cpu.intel", "GenuineIntel")] {
        let host = HostCpu { vendor, phys_bits: 48 };
        tell(name, format!("{:?}", Vcpu::realize(&options, line.accelerator(), line.target, host, QEMU, None)));
    }
    let Some(memory) = line.memory else { return facts };
    tell("memory", format!("{:?}", (memory.size.value, memory.slots(), memory.maxmem.map(|maxmem| maxmem.value))));
    // What QEMU allocates itself for `mem=` is the same as an anonymous backend.
    let own = |size: u64| format!("{:?}", Some(format!("Ram {size} align None page Base")));
    let backend = |id: &str| line.backends.iter().find(|backend| backend.id == id).map(backend_fact);
    if let Some(id) = &line.machine.memory_backend {
        tell("ram", format!("{:?}", backend(id)));
    }
    for node in &line.nodes {
        let memory = match &node.memory {
            NodeMemory::Backend(id) => format!("{:?}", backend(id)),
            NodeMemory::Size(size) => own(*size),
            NodeMemory::None => "none".to_owned(),
        };
        tell(&format!("node {}", node.id), memory);
    }
    for (number, (kind, device)) in memory_devices(line).enumerate() {
        let size = |name: &str| device.properties.get(name).and_then(Property::size);
        let number_of = |name: &str| device.properties.get(name).and_then(Property::number);
        // `addr` of a virtio device is its place on the PCI bus.
        let address = number_of(if kind.has_slot() { "addr" } else { "memaddr" });
        let told = (size("label-size"), size("block-size"), address, number_of("slot"));
        let backend = device.properties.value("memdev").and_then(backend);
        tell(&format!("memory device {number}"), format!("{kind:?} {:?} {told:?} {backend:?}", device.id));
    }
    for host in ["q35-pcihost", "i440FX-pcihost"] {
        if let Some(hole) = line.global(&[host], "pci-hole64-size") {
            tell(host, format!("{:?}", hole.size()));
        }
    }
    let mut passthrough: Vec<String> = line
        .passthrough()
        .into_iter()
        .map(|device| match device.kind {
            // Its path is a number by the time QEMU gets it.
            PassthroughKind::VhostVdpa => "vhost-vdpa".to_owned(),
            kind => format!("{} {}", kind.name(), device.device),
        })
        .collect();
    passthrough.sort();
    tell("passthrough", passthrough.join(", "));
    tell("not modelled", format!("{:?}", line.not_modelled));
    facts
}

fn backend_fact(backend: &MemoryBackend) -> String {
    // The default of the host that libvirt's tests pretend to have.
    let page = if backend.page == PageSize::DefaultHuge { PageSize::Huge(2 << 20) } else { backend.page };
    format!("{:?} {} align {:?} page {page:?}", backend.kind, backend.size.value, backend.align)
}

fn memory_devices(line: &CommandLine) -> impl Iterator<Item = (MemoryDeviceKind, &Device)> {
    line.devices.iter().filter_map(|device| Some((MemoryDeviceKind::of(device)?, device)))
}
