//! The document that `host --format json` prints: the facts about a host, each with where it came from. Addresses are
//! in bytes, ends are inclusive.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::host::{
    BUILTIN, Builtin, Described, Emulator, Fact, FactOrigin, FirmwareFile, Host, Iommu, PciBar, Reserved, builtin,
};
use crate::report::json::ReservedReport;
use crate::version::Version;

/// The version of this document's form.
pub const VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Serialize)]
pub struct HostFacts {
    version: u32,
    host: NameFacts,
    cpu: CpuFacts,
    iommu: IommuFacts,
    kernel: VersionFacts,
    kvm: KvmFacts,
    libvirt: VersionFacts,
    qemu: Known<QemuFacts>,
    /// The QEMUs of guests that name one.
    emulators: Vec<Known<QemuFacts>>,
    memory: MemoryFacts,
    /// The firmware for guests; without a path, of those that name none.
    firmware: Known<Vec<FirmwareFacts>>,
    /// The memory BARs of each PCI function that can be passed on.
    pci: Known<BTreeMap<String, Vec<BarFacts>>>,
}

#[derive(Debug, Serialize)]
struct NameFacts {
    name: Known<String>,
}

#[derive(Debug, Serialize)]
struct MemoryFacts {
    /// Bytes.
    total: Known<u64>,
}

#[derive(Debug, Serialize)]
struct FirmwareFacts {
    path: Option<String>,
    kind: &'static str,
    version: Option<String>,
    /// Where the version came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

#[derive(Debug, Serialize)]
struct BarFacts {
    index: u8,
    /// Bytes.
    size: u64,
    prefetchable: bool,
    bits64: bool,
}

/// A fact with where it came from, or why there is none.
#[derive(Debug, Serialize)]
struct Known<T> {
    /// `null` if it is not known.
    value: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
}

#[derive(Debug, Serialize)]
struct Missing {
    why: String,
    /// What a verdict takes for true.
    assumption: &'static str,
    /// How to get at the fact; empty if there is no way.
    remedy: String,
}

#[derive(Debug, Serialize)]
struct CpuFacts {
    vendor: Known<String>,
    phys_bits: Known<u32>,
    gb_pages: Known<bool>,
}

#[derive(Debug, Serialize)]
struct IommuFacts {
    kind: Known<&'static str>,
    /// How many bits an IOVA may have.
    address_bits: Known<u32>,
    /// The same of the devices that are behind a narrower unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    address_bits_of_devices: BTreeMap<String, u32>,
    reserved: Known<Vec<ReservedReport>>,
    /// What the group of each device reserves.
    devices: BTreeMap<String, Vec<ReservedReport>>,
}

#[derive(Debug, Serialize)]
struct VersionFacts {
    version: Known<String>,
}

#[derive(Debug, Serialize)]
struct KvmFacts {
    available: Known<bool>,
}

#[derive(Debug, Serialize)]
struct QemuFacts {
    path: Option<String>,
    version: Option<String>,
    machines: Vec<String>,
    aliases: BTreeMap<String, String>,
    /// Null if it is not known which are.
    deprecated: Option<Vec<String>>,
}

impl From<&Emulator> for QemuFacts {
    fn from(emulator: &Emulator) -> Self {
        let Emulator { path, version, machines, aliases, deprecated, .. } = emulator.clone();
        Self { path, version: version.map(|version| version.to_string()), machines, aliases, deprecated }
    }
}

fn regions(reserved: &[Reserved]) -> Vec<ReservedReport> {
    reserved.iter().map(|r| ReservedReport { range: r.range, kind: r.kind }).collect()
}

impl HostFacts {
    /// What is known of a host.
    pub fn new(described: &Described) -> Self {
        let Described { profile, emulators, firmwares, .. } = described;
        let host = &profile.host;
        let version = |fact, version: Option<Version>| VersionFacts {
            version: known(described, fact, version.map(|version| version.to_string())),
        };
        Self {
            version: VERSION,
            host: NameFacts { name: known(described, Fact::Name, host.name.clone()) },
            cpu: CpuFacts {
                vendor: known(described, Fact::CpuVendor, host.cpu_vendor.clone()),
                phys_bits: known(described, Fact::PhysBits, host.phys_bits),
                gb_pages: known(described, Fact::GbPages, host.gb_pages),
            },
            iommu: IommuFacts {
                kind: known(described, Fact::Iommu, host.iommu.map(Iommu::name)),
                address_bits: known(described, Fact::IommuBits, host.iommu_bits),
                address_bits_of_devices: host.iommu_bits_by_device.clone(),
                reserved: known(described, Fact::Reserved, host.knows_reserved().then(|| regions(&host.reserved))),
                devices: host.reserved_by_device.iter().map(|(device, own)| (device.clone(), regions(own))).collect(),
            },
            kernel: version(Fact::Kernel, host.kernel),
            kvm: KvmFacts { available: known(described, Fact::Kvm, host.kvm) },
            libvirt: version(Fact::Libvirt, host.libvirt),
            qemu: known(described, Fact::Qemu, profile.qemu.as_ref().map(QemuFacts::from)),
            emulators: profile
                .emulators
                .iter()
                .enumerate()
                .map(|(number, emulator)| Known {
                    value: Some(emulator.into()),
                    source: emulators.get(number).cloned(),
                    missing: None,
                })
                .collect(),
            memory: MemoryFacts { total: known(described, Fact::Memory, host.memory) },
            firmware: known(described, Fact::Firmware, firmware(&host.firmwares, firmwares)),
            pci: known(described, Fact::Pci, functions(&host.pci)),
        }
    }
}

fn firmware(files: &[FirmwareFile], sources: &[String]) -> Option<Vec<FirmwareFacts>> {
    let facts = |(number, file): (usize, &FirmwareFile)| {
        let FirmwareFile { path, kind, version } = file.clone();
        FirmwareFacts { path, kind: kind.key(), version, source: sources.get(number).cloned() }
    };
    (!files.is_empty()).then(|| files.iter().enumerate().map(facts).collect())
}

fn functions(functions: &BTreeMap<String, Vec<PciBar>>) -> Option<BTreeMap<String, Vec<BarFacts>>> {
    let facts = |&PciBar { index, size, prefetchable, bits64 }: &PciBar| BarFacts { index, size, prefetchable, bits64 };
    let named = functions.iter().map(|(address, bars)| (address.clone(), bars.iter().map(facts).collect()));
    (!functions.is_empty()).then(|| named.collect())
}

fn known<T>(described: &Described, fact: Fact, value: Option<T>) -> Known<T> {
    let (source, missing) = match (described.origin(fact), &value) {
        (Some(FactOrigin::Found(source)), Some(_)) => (Some(source.clone()), None),
        (Some(FactOrigin::Missing { why, remedy }), None) => {
            let (why, remedy, assumption) = (why.clone(), remedy.clone(), fact.assumption());
            (None, Some(Missing { why, assumption, remedy }))
        }
        _ => (None, None),
    };
    Known { value, source, missing }
}

/// The document that `host --list --format json` prints.
#[derive(Debug, Serialize)]
pub struct Profiles {
    version: u32,
    profiles: Vec<BuiltinReport>,
}

#[derive(Debug, Serialize)]
struct BuiltinReport {
    name: &'static str,
    summary: &'static str,
    cpu_vendor: Option<String>,
    phys_bits: Option<u32>,
    iommu: Option<&'static str>,
    reserved: Vec<ReservedReport>,
}

impl Profiles {
    /// The profiles that come with the program.
    pub fn builtin() -> Self {
        let report = |&Builtin { name, summary, .. }: &Builtin| {
            let host: Host = builtin(name).unwrap_or_default();
            BuiltinReport {
                name,
                summary,
                phys_bits: host.phys_bits,
                iommu: host.iommu.map(Iommu::name),
                reserved: regions(&host.reserved),
                cpu_vendor: host.cpu_vendor,
            }
        };
        Self { version: VERSION, profiles: BUILTIN.iter().map(report).collect() }
    }
}
