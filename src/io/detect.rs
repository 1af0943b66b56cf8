//! The facts about this host.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::capability_cache::{self, CachedQemu};
use super::file::read_word;
#[cfg(feature = "cli")]
use super::{firmware, pci};
use super::{iommu_width, networks};
use crate::command_line::Passthrough;
use crate::domain::Domain;
#[cfg(feature = "cli")]
use crate::host::FirmwareFile;
use crate::host::{
    DEFAULT_EMULATORS, Described, Fact, FactOrigin, Host, Iommu, Profile, Reserved, limits, parse_reserved_regions,
};
use crate::libvirt;

/// Where libvirt's system daemon keeps its capability cache.
const CAPABILITY_CACHE: &str = "var/cache/libvirt/qemu/capabilities";

/// Where the kernel shows IOMMU groups (`Documentation/ABI/testing/sysfs-kernel-iommu_groups`).
const IOMMU_GROUPS: &str = "sys/kernel/iommu_groups";

/// Where IOMMU drivers register (`Documentation/ABI/testing/sysfs-class-iommu`).
const IOMMU_CLASS: &str = "sys/class/iommu";

/// Where the kernel shows PCI functions (`Documentation/ABI/testing/sysfs-bus-pci`).
const PCI_DEVICES: &str = "sys/bus/pci/devices";

/// What `uname -r` prints.
const OSRELEASE: &str = "proc/sys/kernel/osrelease";

/// KVM's device node.
const KVM: &str = "dev/kvm";

/// What `uname -n` prints.
#[cfg(feature = "cli")]
const HOSTNAME: &str = "proc/sys/kernel/hostname";

/// The kernel's memory figures (proc_meminfo(5)).
#[cfg(feature = "cli")]
const MEMINFO: &str = "proc/meminfo";

/// Detects the facts of the host whose root folder is `root` (`/`, or a copy in a test). What cannot be read stays
/// unknown.
#[cfg(feature = "cli")]
pub fn detect(root: &Path) -> Described {
    let mut described = detect_for_any_guest(root);
    let host = &mut described.profile.host;
    host.pci = pci::functions(root);
    let functions = host.pci.len();
    let found = format!("/{}/*/resource, {functions} function{}", pci::DEVICES, if functions == 1 { "" } else { "s" });
    let origin = if functions > 0 { FactOrigin::Found(found) } else { missing(nothing_in(pci::DEVICES), "") };
    described.origins.insert(Fact::Pci, origin);
    for found in firmware::installed(root) {
        host.firmwares.push(found.firmware);
        described.firmwares.push(found.source);
    }
    described.origins.insert(Fact::Firmware, firmware_origin(&host.firmwares));
    described
}

/// The same without what only some guests need: BARs of PCI functions and guest firmware.
pub fn detect_for_any_guest(root: &Path) -> Described {
    let mut origins = BTreeMap::new();
    let mut host = cpu_and_iommu(root);
    origins.insert(Fact::CpuVendor, cpu_origin(host.cpu_vendor.is_some(), "CPUID leaf 0"));
    origins.insert(Fact::PhysBits, cpu_origin(host.phys_bits.is_some(), "CPUID leaf 0x80000008"));
    origins.insert(Fact::Iommu, iommu_origin(root));
    #[cfg(feature = "cli")]
    cli_facts(root, &mut host, &mut origins);

    let groups = groups(root);
    origins.insert(Fact::Reserved, groups.origin());
    (host.reserved, host.reserved_by_device) = (groups.reserved, groups.by_device);

    host.kernel = read_word(&root.join(OSRELEASE)).and_then(|release| release.parse().ok());
    origins.insert(Fact::Kernel, found_at(OSRELEASE, host.kernel.is_some()));
    host.networks = networks::defined(root);
    host.kvm = Some(root.join(KVM).exists());
    origins.insert(Fact::Kvm, found_at(KVM, true));

    let mut profile = Profile::from(host);
    let mut sources = Vec::new();
    let caches = capability_cache::read_all(&root.join(CAPABILITY_CACHE));
    let trouble = cache_trouble(&caches);
    let caches = caches.unwrap_or_default();
    profile.host.libvirt = caches.iter().filter_map(|(_, qemu)| qemu.libvirt).max();
    origins.insert(
        Fact::Libvirt,
        match profile.host.libvirt {
            Some(_) => FactOrigin::Found("from libvirt's cache, see below".to_owned()),
            None => missing("It is read from the same cache as [qemu], see below.", ""),
        },
    );
    origins.insert(Fact::Qemu, trouble);
    let is_default = |path: &str| caches.iter().any(|(_, qemu)| qemu.emulator.path.as_deref() == Some(path));
    let default = DEFAULT_EMULATORS.into_iter().find(|path| is_default(path));
    for (file, qemu) in caches {
        let source = shown(root, &file);
        if qemu.emulator.path.as_deref() == default {
            profile.qemu = Some(qemu.emulator);
            origins.insert(Fact::Qemu, FactOrigin::Found(source));
        } else {
            profile.emulators.push(qemu.emulator);
            sources.push(source);
        }
    }
    Described {
        profile,
        origins,
        emulators: sources,
        #[cfg(feature = "cli")]
        firmwares: Vec::new(),
    }
}

/// The facts that the hook does not need.
#[cfg(feature = "cli")]
fn cli_facts(root: &Path, host: &mut Host, origins: &mut BTreeMap<Fact, FactOrigin>) {
    host.name = read_word(&root.join(HOSTNAME)).filter(|name| !name.is_empty());
    origins.insert(Fact::Name, found_at(HOSTNAME, host.name.is_some()));
    host.gb_pages = gb_pages();
    origins.insert(Fact::GbPages, cpu_origin(host.gb_pages.is_some(), "CPUID leaf 0x80000001"));
    let units = intel_units(root);
    let class = root.join(IOMMU_CLASS);
    host.iommu_bits = iommu_width::widest(&class, &units);
    host.iommu_bits_by_device = iommu_width::narrower(&class, &units);
    let units = if units.len() == 1 { format!("{}/intel-iommu", units[0]) } else { "dmar*/intel-iommu".to_owned() };
    origins.insert(
        Fact::IommuBits,
        match host.iommu_bits {
            Some(_) => FactOrigin::Found(format!("/{IOMMU_CLASS}/{units}/cap")),
            None if host.iommu == Some(Iommu::Amd) => missing(
                "What the kernel shows of AMD's IOMMU width differs between its versions.",
                "Set it by hand if you know it.",
            ),
            None => missing(format!("/{IOMMU_CLASS}/{units}/cap does not say."), ""),
        },
    );
    let total = read_word(&root.join(MEMINFO)).and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024).filter(|total| limits::MEMORY.contains(total))
    });
    host.memory = total;
    origins.insert(Fact::Memory, found_at(MEMINFO, total.is_some()));
}

#[cfg(feature = "cli")]
fn nothing_in(folder: &str) -> String {
    format!("There is nothing in /{folder}.")
}

/// The source of each file's version is kept with it; this is about all of them.
#[cfg(feature = "cli")]
fn firmware_origin(firmwares: &[FirmwareFile]) -> FactOrigin {
    if firmwares.is_empty() {
        return missing(
            "No SeaBIOS in QEMU's folders and no OVMF in dpkg's database; that of rpm is not read.",
            "`rpm -qf FILE` prints the version of a file; enter it as [[firmware]].",
        );
    }
    FactOrigin::Found("files of SeaBIOS, dpkg".to_owned())
}

/// The path of a file below `root` as it is called on the host.
fn shown(root: &Path, file: &Path) -> String {
    Path::new("/").join(file.strip_prefix(root).unwrap_or(file)).to_string_lossy().into_owned()
}

fn missing(why: impl Into<String>, remedy: impl Into<String>) -> FactOrigin {
    FactOrigin::Missing { why: why.into(), remedy: remedy.into() }
}

fn cpu_origin(known: bool, leaf: &str) -> FactOrigin {
    if known {
        return FactOrigin::Found(leaf.to_owned());
    }
    missing("CPUID does not say.", "Run `lscpu` on the host.")
}

fn found_at(path: &str, known: bool) -> FactOrigin {
    if known { FactOrigin::Found(format!("/{path}")) } else { missing(format!("/{path} does not say."), "") }
}

fn iommu_origin(root: &Path) -> FactOrigin {
    let class = root.join(IOMMU_CLASS);
    let mut names: Vec<String> = drivers(&class).collect();
    names.sort_unstable();
    let path = shown(root, &class);
    match (iommu(root), names.first()) {
        (None, _) => missing(format!("{path} does not exist."), "Run this on the host itself, not in a container."),
        (Some(_), None) => FactOrigin::Found(format!("{path} is empty")),
        (Some(Iommu::None), Some(other)) => FactOrigin::Found(format!("{path} has only {other}")),
        (Some(_), Some(name)) if names.len() == 1 => FactOrigin::Found(format!("{path}/{name}")),
        (Some(_), Some(name)) => FactOrigin::Found(format!("{path}: {name} and {} more", names.len() - 1)),
    }
}

/// Why the QEMU of guests that name none is not known, if it is not.
fn cache_trouble(caches: &io::Result<Vec<(PathBuf, CachedQemu)>>) -> FactOrigin {
    const LOOK: &str = "`virsh -c qemu:///system capabilities` makes libvirt probe QEMU and fill its cache.";
    match caches {
        Ok(caches) if caches.is_empty() => missing(format!("/{CAPABILITY_CACHE} holds no x86 QEMU."), LOOK),
        Ok(_) => missing(format!("None of {} is in libvirt's cache.", DEFAULT_EMULATORS.join(", ")), LOOK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(format!("/{CAPABILITY_CACHE} does not exist: libvirt has not probed a QEMU yet."), LOOK)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            missing(format!("Only root can read /{CAPABILITY_CACHE}."), "Run this as root.")
        }
        Err(error) => missing(format!("/{CAPABILITY_CACHE}: {error}."), ""),
    }
}

/// The host whose root folder is `root`, as far as one domain needs it: of the IOMMU groups, only those of its devices
/// where all of them are known.
pub fn host_for_domain(root: &Path, domain: &Domain) -> Host {
    let mut host = cpu_and_iommu(root);
    let device = |passthrough: &Passthrough| {
        let function = root.join(PCI_DEVICES).join(address(passthrough)?);
        let text = read_word(&function.join("iommu_group/reserved_regions"))?;
        Some((passthrough.device.clone(), parse_reserved_regions(&text).ok()?))
    };
    let devices = libvirt::passthrough(domain);
    let known: Option<BTreeMap<String, Vec<Reserved>>> = devices.iter().map(device).collect();
    (host.reserved, host.reserved_by_device) = match known.filter(|known| !known.is_empty()) {
        Some(by_device) => {
            let all: std::collections::BTreeSet<Reserved> = by_device.values().flatten().copied().collect();
            (all.into_iter().collect(), by_device)
        }
        None => {
            let groups = groups(root);
            (groups.reserved, groups.by_device)
        }
    };
    let width = |passthrough: &Passthrough| {
        let bits = iommu_width::of_function(&root.join(PCI_DEVICES).join(address(passthrough)?))?;
        Some((passthrough.device.clone(), bits))
    };
    host.iommu_bits_by_device = devices.iter().filter_map(width).collect();
    if devices.is_empty() || devices.iter().any(|device| !host.iommu_bits_by_device.contains_key(&device.device)) {
        host.iommu_bits = iommu_width::widest(&root.join(IOMMU_CLASS), &intel_units(root));
    }
    let emulator = domain.emulator.as_ref().map(|emulator| emulator.value.as_str());
    let cache = root.join(CAPABILITY_CACHE);
    if let Some(qemu) = emulators(emulator).find_map(|path| capability_cache::read_one(&cache, path)) {
        qemu.describe(&mut host);
    }
    host
}

/// What the folder of a device in sysfs may be called; `None` of a vDPA device, which has a path.
fn address(passthrough: &Passthrough) -> Option<&str> {
    Some(passthrough.device.as_str()).filter(|device| !device.is_empty() && !device.contains('/'))
}

/// The units of VT-d, sorted.
fn intel_units(root: &Path) -> Vec<String> {
    let mut units: Vec<String> = drivers(&root.join(IOMMU_CLASS)).filter(|name| name.starts_with("dmar")).collect();
    units.sort_unstable();
    units
}

/// Where the QEMU of a domain with this `<emulator>` may be.
fn emulators(emulator: Option<&str>) -> impl Iterator<Item = &str> {
    let fallback: &[&str] = if emulator.is_none() { &DEFAULT_EMULATORS } else { &[] };
    emulator.into_iter().chain(fallback.iter().copied())
}

fn cpu_and_iommu(root: &Path) -> Host {
    let (cpu_vendor, phys_bits) = cpu();
    Host { cpu_vendor, phys_bits, iommu: iommu(root), ..Host::default() }
}

/// Vendor and physical address bits from CPUID, which is what QEMU looks at. `/proc/cpuinfo` shows fewer bits where
/// memory encryption takes some.
#[cfg(target_arch = "x86_64")]
fn cpu() -> (Option<String>, Option<u32>) {
    let cpuid = raw_cpuid::CpuId::new();
    let vendor = cpuid.get_vendor_info().map(|vendor| vendor.as_str().to_owned());
    let bits = cpuid.get_processor_capacity_feature_info().map(|info| u32::from(info.physical_address_bits()));
    // A hypervisor may show anything.
    let vendor = vendor.filter(|vendor| vendor.len() == limits::VENDOR_LENGTH);
    (vendor, bits.filter(|bits| limits::PHYS_BITS.contains(bits)))
}

/// Whether there are pages of 1 GiB, from CPUID too.
#[cfg(all(feature = "cli", target_arch = "x86_64"))]
fn gb_pages() -> Option<bool> {
    let features = raw_cpuid::CpuId::new().get_extended_processor_and_feature_identifiers();
    features.map(|features| features.has_1gib_pages())
}

#[cfg(all(feature = "cli", not(target_arch = "x86_64")))]
fn gb_pages() -> Option<bool> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> (Option<String>, Option<u32>) {
    (None, None)
}

/// The kind of IOMMU, by the names that drivers register in `/sys/class/iommu`: `ivhd0` (`drivers/iommu/amd/init.c`),
/// `dmar0` (`drivers/iommu/intel/dmar.c`). `None` if there is no sysfs to look at.
fn iommu(root: &Path) -> Option<Iommu> {
    let known = drivers(&root.join(IOMMU_CLASS)).find_map(|name| {
        let kinds = [("ivhd", Iommu::Amd), ("dmar", Iommu::Intel)];
        kinds.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| kind)
    });
    known.or_else(|| root.join("sys/class").is_dir().then_some(Iommu::None))
}

fn drivers(class: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(class).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// What the IOMMU groups reserve.
#[derive(Default)]
struct Groups {
    /// How many there are.
    count: usize,
    /// How many of them show what they reserve.
    readable: usize,
    /// What any of them reserves, sorted.
    reserved: Vec<Reserved>,
    /// What each device's own group reserves.
    by_device: BTreeMap<String, Vec<Reserved>>,
}

impl Groups {
    fn origin(&self) -> FactOrigin {
        let path = format!("/{IOMMU_GROUPS}/*/reserved_regions");
        match (self.count, self.readable) {
            (0, _) => missing(format!("There are no groups in /{IOMMU_GROUPS}."), ""),
            (count, 0) => missing(
                format!("None of {count} groups has a readable {path}; Linux has them since 4.11."),
                "Run this on the host itself, as root.",
            ),
            (1, _) => FactOrigin::Found(format!("{path}, 1 group")),
            (count, readable) if count == readable => FactOrigin::Found(format!("{path}, {count} groups")),
            (count, readable) => {
                FactOrigin::Found(format!("{path}, {readable} of {count} groups; the others are not readable"))
            }
        }
    }
}

fn groups(root: &Path) -> Groups {
    let mut groups = Groups::default();
    for group in std::fs::read_dir(root.join(IOMMU_GROUPS)).into_iter().flatten().flatten() {
        let group = group.path();
        groups.count += 1;
        let Some(text) = read_word(&group.join("reserved_regions")) else { continue };
        let Ok(regions) = parse_reserved_regions(&text) else { continue };
        groups.readable += 1;
        for device in std::fs::read_dir(group.join("devices")).into_iter().flatten().flatten() {
            groups.by_device.insert(device.file_name().to_string_lossy().into_owned(), regions.clone());
        }
        groups.reserved.extend(regions);
    }
    groups.reserved.sort_unstable();
    groups.reserved.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::host::Unmappable;
    use crate::xml::Document;

    const HT: &str = "0x00000000fee00000 0x00000000feefffff msi\n0x000000fd00000000 0x000000ffffffffff reserved\n";

    /// A sysfs with two groups, of which one has the HyperTransport range.
    fn sysfs() -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("iova-preflight-sysfs-{}", std::process::id()));
        for (group, device, regions) in
            [("0", "0000:41:10.1", HT), ("1", "0000:42:00.0", "0x00000000fee00000 0x00000000feefffff msi\n")]
        {
            let folder = root.join(IOMMU_GROUPS).join(group);
            std::fs::create_dir_all(folder.join("devices").join(device)).expect("folders");
            std::fs::write(folder.join("reserved_regions"), regions).expect("regions");
            let pci = root.join("sys/bus/pci/devices").join(device).join("iommu_group");
            std::fs::create_dir_all(&pci).expect("folders");
            std::fs::write(pci.join("reserved_regions"), regions).expect("regions");
        }
        std::fs::create_dir_all(root.join("sys/class/iommu/ivhd0")).expect("folders");
        root
    }

    fn with_hostdev(bus: &str) -> Domain {
        let xml = format!(
            "<domain type='kvm'><devices><hostdev type='pci'><source><address bus='{bus}' slot='{}' function='{}'/></source></hostdev></devices></domain>",
            if bus == "0x41" { "0x10" } else { "0" },
            if bus == "0x41" { "1" } else { "0" }
        );
        domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain")
    }

    #[test]
    fn the_devices_own_group_is_what_counts() {
        let root = sysfs();
        let detected = detect(&root).profile;
        assert_eq!(detected.host.iommu, Some(Iommu::Amd));
        let host = detected.host_for(None);
        assert_eq!((host.reserved.len(), host.unmappable(["0000:42:00.0"]).len()), (2, 1));
        assert_eq!(host_for_domain(&root, &with_hostdev("0x41")).unmappable(["0000:41:10.1"]).len(), 2);
        assert_eq!(host_for_domain(&root, &with_hostdev("0x42")).reserved.len(), 1);
        // A device that is not there: every group counts.
        assert_eq!(host_for_domain(&root, &with_hostdev("0x43")).reserved.len(), 2);
        std::fs::remove_dir_all(root).expect("removed");
    }

    /// What the hook knows of a host with two units of VT-d, of which one is narrower.
    #[test]
    fn the_devices_own_unit_is_what_counts() {
        let root = std::env::temp_dir().join(format!("iova-preflight-units-{}", std::process::id()));
        for (unit, cap, device) in
            [("dmar0", "1c0000c40660462\n", "0000:41:10.1"), ("dmar1", "8d2078c106f0466\n", "0000:42:00.0")]
        {
            let class = root.join(IOMMU_CLASS).join(unit);
            std::fs::create_dir_all(class.join("devices").join(device)).expect("folders");
            std::fs::create_dir_all(class.join("intel-iommu")).expect("folders");
            std::fs::write(class.join("intel-iommu/cap"), cap).expect("a register");
            let pci = root.join(PCI_DEVICES).join(device);
            std::fs::create_dir_all(&pci).expect("folders");
            std::os::unix::fs::symlink(&class, pci.join("iommu")).expect("a link");
        }
        let width = |host: &Host, device: &str| host.unmappable([device]).into_iter().find_map(Unmappable::width);
        for (bus, device, bits) in [("0x41", "0000:41:10.1", 39), ("0x42", "0000:42:00.0", 48)] {
            assert_eq!(width(&host_for_domain(&root, &with_hostdev(bus)), device), Some(bits), "{device}");
        }
        // A device that is not there: what the widest unit does not translate, none does.
        assert_eq!(width(&host_for_domain(&root, &with_hostdev("0x43")), "0000:43:00.0"), Some(48));
        let none = domain::read(&Document::parse(b"<domain type='kvm'/>").expect("well-formed")).expect("a domain");
        assert_eq!(host_for_domain(&root, &none).iommu_bits, Some(48));
        #[cfg(feature = "cli")]
        {
            let host = detect(&root).profile.host;
            assert_eq!((width(&host, "0000:41:10.1"), width(&host, "0000:42:00.0")), (Some(39), Some(48)));
        }
        std::fs::remove_dir_all(root).expect("removed");
    }
}
