//! The facts about this host.

use std::collections::BTreeMap;
use std::path::Path;

use super::capabilities::{self, Qemu};
use super::file::read_word;
use crate::host::{Host, Iommu, Reserved, parse_reserved_regions};

/// Where libvirt's system daemon keeps its capability cache.
const CAPABILITY_CACHE: &str = "var/cache/libvirt/qemu/capabilities";

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
        let (vendor, phys_bits) = cpu();
        let (reserved, reserved_by_device) = groups(&root.join("sys/kernel/iommu_groups"));
        let host = Host {
            cpu_vendor: vendor,
            phys_bits,
            iommu: Some(iommu(&root.join("sys/class/iommu"))),
            reserved,
            reserved_by_device,
            kernel: read_word(&root.join("proc/sys/kernel/osrelease")).and_then(|release| release.parse().ok()),
            kvm: Some(root.join("dev/kvm").exists()),
            ..Host::default()
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
        let qemu = match emulator {
            Some(path) => by_path(path),
            None => DEFAULT_EMULATORS.iter().find_map(|path| by_path(path)),
        };
        if let Some(qemu) = qemu {
            qemu.describe(&mut host);
        }
        host
    }
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
fn groups(folder: &Path) -> (Vec<Reserved>, BTreeMap<String, Vec<Reserved>>) {
    let mut all = Vec::new();
    let mut by_device = BTreeMap::new();
    for group in std::fs::read_dir(folder).into_iter().flatten().flatten() {
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
