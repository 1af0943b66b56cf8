//! The facts about this host.

use std::collections::BTreeMap;
use std::path::Path;

use super::capabilities::{self, Qemu};
use super::file::read_word;
use crate::domain::{Domain, Passthrough};
use crate::host::{Host, Iommu, Reserved, parse_reserved_regions};

/// Where libvirt's system daemon keeps its capability cache.
const CAPABILITY_CACHE: &str = "var/cache/libvirt/qemu/capabilities";

/// Where the kernel shows IOMMU groups (`Documentation/ABI/testing/sysfs-kernel-iommu_groups`).
const IOMMU_GROUPS: &str = "sys/kernel/iommu_groups";

/// The emulator of a domain that names none.
const DEFAULT_EMULATORS: [&str; 3] = ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm"];

/// This host, with every QEMU that its libvirt knows.
#[derive(Debug, Clone)]
pub struct Detected {
    host: Host,
    qemus: Vec<Qemu>,
}

impl Detected {
    /// Looks at the host whose root folder is `root` (`/`, or a copy in a test). What cannot be read stays unknown.
    pub fn new(root: &Path) -> Self {
        let (reserved, reserved_by_device) = groups(root);
        let host = Host {
            reserved,
            reserved_by_device,
            kernel: read_word(&root.join("proc/sys/kernel/osrelease")).and_then(|release| release.parse().ok()),
            kvm: Some(root.join("dev/kvm").exists()),
            ..cpu_and_iommu(root)
        };
        Self { host, qemus: capabilities::read_all(&root.join(CAPABILITY_CACHE)) }
    }

    /// What kind of IOMMU is at work.
    pub fn iommu(&self) -> Option<Iommu> {
        self.host.iommu
    }

    /// The host as a domain sees it that is run by `emulator`.
    pub fn host_for(&self, emulator: Option<&str>) -> Host {
        let mut host = self.host.clone();
        let by_path = |path: &str| self.qemus.iter().find(|qemu| qemu.emulator == path);
        if let Some(qemu) = emulators(emulator).find_map(by_path) {
            qemu.describe(&mut host);
        }
        host
    }
}

/// The host whose root folder is `root`, as far as one domain needs it: of the IOMMU groups, only those of its devices
/// where all of them are known.
pub fn host_for_domain(root: &Path, domain: &Domain) -> Host {
    let mut host = cpu_and_iommu(root);
    let device = |passthrough: &Passthrough| {
        let regions = root.join("sys/bus/pci/devices").join(&passthrough.device).join("iommu_group/reserved_regions");
        let is_address = !passthrough.device.is_empty() && !passthrough.device.contains('/');
        let text = is_address.then(|| read_word(&regions)).flatten()?;
        Some((passthrough.device.clone(), parse_reserved_regions(&text).ok()?))
    };
    let known: Option<BTreeMap<String, Vec<Reserved>>> = domain.passthrough.iter().map(device).collect();
    (host.reserved, host.reserved_by_device) = match known.filter(|known| !known.is_empty()) {
        Some(by_device) => (by_device.values().flatten().copied().collect(), by_device),
        None => groups(root),
    };
    let emulator = domain.emulator.as_ref().map(|emulator| emulator.value.as_str());
    let cache = root.join(CAPABILITY_CACHE);
    if let Some(qemu) = emulators(emulator).find_map(|path| capabilities::read_one(&cache, path)) {
        qemu.describe(&mut host);
    }
    host
}

/// Where the QEMU of a domain with this `<emulator>` may be.
fn emulators(emulator: Option<&str>) -> impl Iterator<Item = &str> {
    let fallback: &[&str] = if emulator.is_none() { &DEFAULT_EMULATORS } else { &[] };
    emulator.into_iter().chain(fallback.iter().copied())
}

fn cpu_and_iommu(root: &Path) -> Host {
    let (cpu_vendor, phys_bits) = cpu();
    Host { cpu_vendor, phys_bits, iommu: Some(iommu(&root.join("sys/class/iommu"))), ..Host::default() }
}

/// Vendor and physical address bits from CPUID, which is what QEMU looks at. `/proc/cpuinfo` shows fewer bits where
/// memory encryption takes some.
#[cfg(target_arch = "x86_64")]
fn cpu() -> (Option<String>, Option<u32>) {
    let cpuid = raw_cpuid::CpuId::new();
    let vendor = cpuid.get_vendor_info().map(|vendor| vendor.as_str().to_owned());
    let bits = cpuid.get_processor_capacity_feature_info().map(|info| u32::from(info.physical_address_bits()));
    (vendor, bits)
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> (Option<String>, Option<u32>) {
    (None, None)
}

/// The kind of IOMMU, by the names that drivers register in `/sys/class/iommu`: `ivhd0` (`drivers/iommu/amd/init.c`),
/// `dmar0` (`drivers/iommu/intel/dmar.c`).
fn iommu(class: &Path) -> Iommu {
    let names = std::fs::read_dir(class).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| {
            let name = name.to_string_lossy();
            let kinds = [("ivhd", Iommu::Amd), ("dmar", Iommu::Intel)];
            kinds.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, kind)| kind)
        })
        .next()
        .unwrap_or(Iommu::None)
}

/// The reserved ranges of all IOMMU groups, and those of each device's own group.
fn groups(root: &Path) -> (Vec<Reserved>, BTreeMap<String, Vec<Reserved>>) {
    let mut all = Vec::new();
    let mut by_device = BTreeMap::new();
    for group in std::fs::read_dir(root.join(IOMMU_GROUPS)).into_iter().flatten().flatten() {
        let group = group.path();
        let Some(text) = read_word(&group.join("reserved_regions")) else { continue };
        let Ok(regions) = parse_reserved_regions(&text) else { continue };
        for device in std::fs::read_dir(group.join("devices")).into_iter().flatten().flatten() {
            by_device.insert(device.file_name().to_string_lossy().into_owned(), regions.clone());
        }
        all.extend(regions);
    }
    all.sort_unstable();
    all.dedup();
    (all, by_device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
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
        let detected = Detected::new(&root);
        assert_eq!(detected.iommu(), Some(Iommu::Amd));
        let host = detected.host_for(None);
        assert_eq!((host.reserved.len(), host.unmappable_for("0000:42:00.0").len()), (2, 1));
        assert_eq!(host_for_domain(&root, &with_hostdev("0x41")).unmappable_for("0000:41:10.1").len(), 2);
        assert_eq!(host_for_domain(&root, &with_hostdev("0x42")).reserved.len(), 1);
        // A device that is not there: every group counts.
        assert_eq!(host_for_domain(&root, &with_hostdev("0x43")).reserved.len(), 2);
        std::fs::remove_dir_all(root).expect("removed");
    }
}
