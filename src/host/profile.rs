//! Host profiles: the facts about a host as TOML, so that a domain can be evaluated on another machine.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::{Emulator, Host, Iommu, Profile, Reserved, ReservedKind};
#[cfg(feature = "cli")]
use super::{FirmwareFile, FirmwareKind, PciBar};
use super::{limits, pci_address::pci_address};
use crate::address::GpaRange;
use crate::text::{quoted, toml_message};
use crate::version::Version;
use crate::xml::Location;

/// A profile that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// The name for `--host`.
    pub name: &'static str,
    /// Which host it describes.
    pub summary: &'static str,
    text: &'static str,
}

/// The built-in profiles. They hold what follows from the CPU, and leave QEMU and libvirt unknown.
pub const BUILTIN: [Builtin; 3] = [
    Builtin {
        name: "amd-epyc",
        summary: "AMD EPYC (Naples to Genoa) with its IOMMU on: the HyperTransport range below 1 TiB is reserved",
        text: include_str!("profiles/amd-epyc.toml"),
    },
    Builtin {
        name: "amd-turin-ht-ignore",
        summary: "AMD EPYC whose IOMMU has HTRangeIgnore, under Linux 6.16 or newer: no HyperTransport range",
        text: include_str!("profiles/amd-turin-ht-ignore.toml"),
    },
    Builtin {
        name: "intel-xeon",
        summary: "Intel Xeon with VT-d: nothing reserved but the MSI window",
        text: include_str!("profiles/intel-xeon.toml"),
    },
];

/// The built-in profile called `name`.
pub fn builtin(name: &str) -> Option<Host> {
    let found = BUILTIN.iter().find(|builtin| builtin.name == name)?;
    Host::from_profile(found.text).ok()
}

/// Why a text is not a host profile, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct ProfileError {
    /// Where it is.
    pub location: Location,
    /// What is wrong, in one line.
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    #[cfg(feature = "cli")]
    host: HostTable,
    cpu: CpuTable,
    iommu: IommuTable,
    kernel: VersionTable,
    kvm: KvmTable,
    qemu: Option<QemuTable>,
    emulator: Vec<toml::Spanned<QemuTable>>,
    libvirt: VersionTable,
    #[cfg(feature = "cli")]
    firmware: Vec<FirmwareTable>,
    #[cfg(feature = "cli")]
    pci: Vec<PciTable>,
    #[cfg(feature = "cli")]
    memory: MemoryTable,
}

#[cfg(feature = "cli")]
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HostTable {
    name: Option<String>,
}

#[cfg(feature = "cli")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirmwareTable {
    path: Option<String>,
    kind: FirmwareName,
    version: Option<String>,
}

#[cfg(feature = "cli")]
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FirmwareName {
    Ovmf,
    SeaBios,
}

#[cfg(feature = "cli")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PciTable {
    address: toml::Spanned<String>,
    bars: Vec<toml::Spanned<BarTable>>,
}

#[cfg(feature = "cli")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BarTable {
    index: u8,
    size: u64,
    prefetchable: bool,
    bits64: bool,
}

#[cfg(feature = "cli")]
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct MemoryTable {
    total: Option<toml::Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CpuTable {
    vendor: Option<toml::Spanned<String>>,
    phys_bits: Option<toml::Spanned<i64>>,
    #[cfg(feature = "cli")]
    gb_pages: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct IommuTable {
    kind: Option<IommuKind>,
    address_bits: Option<toml::Spanned<i64>>,
    reserved: Vec<RegionTable>,
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    devices: Vec<toml::Spanned<String>>,
    reserved: Vec<RegionTable>,
    address_bits: Option<toml::Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum IommuKind {
    Amd,
    Intel,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionTable {
    start: toml::Spanned<u64>,
    end: u64,
    #[serde(rename = "type")]
    kind: toml::Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct VersionTable {
    version: Option<toml::Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct KvmTable {
    available: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct QemuTable {
    path: Option<String>,
    version: Option<toml::Spanned<String>>,
    machines: Vec<String>,
    aliases: BTreeMap<String, String>,
    deprecated: Option<Vec<String>>,
}

impl Host {
    /// Reads a host profile: the host as a guest sees it that names no QEMU. Every key is optional.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a value that is none.
    pub fn from_profile(text: &str) -> Result<Self, ProfileError> {
        Ok(Profile::from_toml(text)?.host_for(None).into_owned())
    }
}

impl Profile {
    /// Reads a host profile. Every key is optional, but for the path of an `[[emulator]]`, and devices and ranges of
    /// an `[[iommu.group]]`.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a value that is none.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let wrong =
            |offset: usize, message: String| ProfileError { location: Location::of(text.as_bytes(), offset), message };
        let tables: Tables =
            toml::from_str(text).map_err(|e| wrong(e.span().map_or(0, |span| span.start), toml_message(text, &e)))?;
        let version = |version: Option<toml::Spanned<String>>| -> Result<Option<Version>, ProfileError> {
            version
                .map(|v| v.get_ref().parse::<Version>().map_err(|e| wrong(v.span().start, e.to_string())))
                .transpose()
        };
        let regions = |regions: Vec<RegionTable>| -> Result<Vec<Reserved>, ProfileError> {
            let mut reserved = Vec::new();
            for region in regions {
                let kind: ReservedKind =
                    region.kind.get_ref().parse().map_err(|e| wrong(region.kind.span().start, e))?;
                let (start, end) = (*region.start.get_ref(), region.end);
                if start > end {
                    let message = "the region ends before it starts; `end` is its last address".to_owned();
                    return Err(wrong(region.start.span().start, message));
                }
                reserved.push(Reserved { range: GpaRange { start, end }, kind });
            }
            Ok(reserved)
        };
        let emulator = |qemu: QemuTable| -> Result<Emulator, ProfileError> {
            let QemuTable { path, version: number, machines, aliases, deprecated } = qemu;
            Ok(Emulator { path, version: version(number)?, machines, aliases, deprecated, ..Emulator::default() })
        };
        let mut reserved = regions(tables.iommu.reserved)?;
        let (mut reserved_by_device, mut iommu_bits_by_device) = (BTreeMap::new(), BTreeMap::new());
        let mistake = |(at, message): Mistake| wrong(at, message);
        for group in tables.iommu.group {
            let own = regions(group.reserved)?;
            reserved.extend(&own);
            let bits = iommu_bits(group.address_bits).map_err(mistake)?;
            for device in group.devices {
                let place = device.span().start;
                let device = group_member(device.into_inner()).map_err(|message| wrong(place, message))?;
                if let Some(bits) = bits {
                    iommu_bits_by_device.insert(device.clone(), bits);
                }
                if reserved_by_device.contains_key(&device) {
                    return Err(wrong(place, format!("{} is in a group already", quoted(&device))));
                }
                reserved_by_device.insert(device, own.clone());
            }
        }
        reserved.sort_unstable();
        reserved.dedup();
        let mut emulators: Vec<Emulator> = Vec::new();
        for table in tables.emulator {
            let place = table.span().start;
            let emulator = emulator(table.into_inner())?;
            if emulator.path.is_none() {
                return Err(wrong(place, "an emulator without `path`".to_owned()));
            }
            emulators.push(emulator);
        }
        let host = Host {
            cpu_vendor: tables.cpu.vendor.map(vendor).transpose().map_err(mistake)?,
            phys_bits: phys_bits(tables.cpu.phys_bits).map_err(mistake)?,
            iommu: tables.iommu.kind.map(|kind| match kind {
                IommuKind::Amd => Iommu::Amd,
                IommuKind::Intel => Iommu::Intel,
                IommuKind::None => Iommu::None,
            }),
            iommu_bits: iommu_bits(tables.iommu.address_bits).map_err(mistake)?,
            iommu_bits_by_device,
            reserved,
            reserved_by_device,
            kernel: version(tables.kernel.version)?,
            kvm: tables.kvm.available,
            libvirt: version(tables.libvirt.version)?,
            #[cfg(feature = "cli")]
            name: tables.host.name,
            #[cfg(feature = "cli")]
            gb_pages: tables.cpu.gb_pages,
            #[cfg(feature = "cli")]
            firmwares: tables.firmware.into_iter().map(firmware_file).collect(),
            #[cfg(feature = "cli")]
            pci: functions(tables.pci).map_err(mistake)?,
            #[cfg(feature = "cli")]
            memory: memory(tables.memory.total).map_err(mistake)?,
            ..Host::default()
        };
        Ok(Self { host, qemu: tables.qemu.map(emulator).transpose()?, emulators })
    }
}

/// What is wrong, and where.
type Mistake = (usize, String);

/// The number, if it is in `range`; otherwise `message`.
fn within<N>(number: Option<toml::Spanned<i64>>, range: &RangeInclusive<N>, message: &str) -> Result<Option<N>, Mistake>
where
    N: TryFrom<i64> + PartialOrd,
{
    let Some(number) = number else { return Ok(None) };
    match N::try_from(*number.get_ref()) {
        Ok(valid) if range.contains(&valid) => Ok(Some(valid)),
        _ => Err((number.span().start, format!("{message}, not {}", number.get_ref()))),
    }
}

fn phys_bits(bits: Option<toml::Spanned<i64>>) -> Result<Option<u32>, Mistake> {
    let message = "`phys_bits` of an x86-64 CPU are 32 to 52 (CPUID leaf 0x80000008, bits 7:0)";
    within(bits, &limits::PHYS_BITS, message)
}

fn iommu_bits(bits: Option<toml::Spanned<i64>>) -> Result<Option<u32>, Mistake> {
    let message = "`address_bits` of an IOMMU are 30 to 64 (VT-d page tables: 30, 39, 48 or 57 bits; AMD's: up to 64)";
    within(bits, &limits::IOMMU_BITS, message)
}

#[cfg(feature = "cli")]
fn memory(total: Option<toml::Spanned<i64>>) -> Result<Option<u64>, Mistake> {
    let message = "`total` is the RAM in bytes, 1 to 4503599627370496 (52 physical address bits)";
    within(total, &limits::MEMORY, message)
}

fn vendor(vendor: toml::Spanned<String>) -> Result<String, Mistake> {
    let place = vendor.span().start;
    let vendor = vendor.into_inner();
    if vendor.len() == limits::VENDOR_LENGTH {
        return Ok(vendor);
    }
    let vendor = quoted(&vendor);
    Err((place, format!("`vendor` is the 12 characters of CPUID leaf 0, such as \"AuthenticAMD\", not \"{vendor}\"")))
}

/// A device of an IOMMU group; a PCI address as sysfs spells it. Other devices have names of other forms.
fn group_member(name: String) -> Result<String, String> {
    if let Ok(address) = pci_address(&name) {
        return Ok(address);
    }
    match pci_address(&format!("0000:{name}")) {
        Ok(address) => Err(format!("the PCI address {} lacks its domain: {address}", quoted(&name))),
        Err(_) => Ok(name),
    }
}

#[cfg(feature = "cli")]
fn firmware_file(table: FirmwareTable) -> FirmwareFile {
    let kind = match table.kind {
        FirmwareName::Ovmf => FirmwareKind::Ovmf,
        FirmwareName::SeaBios => FirmwareKind::SeaBios,
    };
    FirmwareFile { path: table.path, kind, version: table.version }
}

/// The BARs of each function, by index.
#[cfg(feature = "cli")]
fn functions(tables: Vec<PciTable>) -> Result<BTreeMap<String, Vec<PciBar>>, Mistake> {
    let mut functions = BTreeMap::new();
    for PciTable { address, bars: tables } in tables {
        let place = address.span().start;
        let address = pci_address(address.get_ref()).map_err(|message| (place, message))?;
        let mut bars: BTreeMap<u8, PciBar> = BTreeMap::new();
        for table in tables {
            let place = table.span().start;
            let BarTable { index, size, prefetchable, bits64 } = table.into_inner();
            let bar = PciBar { index, size, prefetchable, bits64 };
            if let Some(mistake) = bar.mistake() {
                return Err((place, mistake));
            }
            if bars.contains_key(&index) {
                return Err((place, format!("BAR {index} of {address} is given twice")));
            }
            if let Some(other) = bars.values().find(|other| other.overlaps(bar)) {
                let lower = index.min(other.index);
                return Err((
                    place,
                    format!(
                        "BAR {lower} of {address} has 64 bits, which are the place of BAR {} too",
                        lower.saturating_add(1)
                    ),
                ));
            }
            bars.insert(index, bar);
        }
        if functions.insert(address.clone(), bars.into_values().collect()).is_some() {
            return Err((place, format!("[[pci]] of {address} is given twice")));
        }
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_reads() {
        for profile in BUILTIN {
            assert!(Host::from_profile(profile.text).is_ok(), "{}", profile.name);
        }
        let epyc = builtin("amd-epyc").expect("built in");
        assert!(epyc.reserved_for_any().iter().any(|r| r.range == GpaRange::inclusive(0xfd_0000_0000, 0xff_ffff_ffff)));
        let turin = builtin("amd-turin-ht-ignore").expect("built in");
        assert!(turin.reserved_for_any().iter().all(|r| r.kind == ReservedKind::Msi));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, location, words) in [
            ("[cpu]\nvendr = 'x'", (2, 1), "unknown field"),
            ("[cpu]\nphys_bits = 'x'", (2, 13), "invalid type"),
            ("[iommu]\nkind = 'arm'", (2, 8), "unknown variant"),
            ("[[iommu.reserved]]\nstart = 2\nend = 1\ntype = 'msi'", (2, 9), "last address"),
            ("[[iommu.reserved]]\nstart = 1\nend = 2\ntype = 'x'", (4, 8), "not a type of reserved region"),
            ("[qemu]\nversion = '7'", (2, 11), "not a version"),
            ("[[emulator]]\nversion = '7.2'", (1, 1), "without `path`"),
            ("[[iommu.group]]\ndevices = ['0000:01:00.0']", (1, 1), "missing field `reserved`"),
            ("[[emulator]]\npath = 'x'\nname = 'y'", (3, 1), "unknown field"),
            ("[cpu", (1, 5), ""),
            ("[cpu]\nphys_bits = 0", (2, 13), "32 to 52"),
            ("[cpu]\nphys_bits = 31", (2, 13), "32 to 52"),
            ("[cpu]\nphys_bits = 53", (2, 13), "32 to 52"),
            ("[cpu]\nphys_bits = 57", (2, 13), "(CPUID leaf 0x80000008, bits 7:0), not 57"),
            ("[cpu]\nphys_bits = -48", (2, 13), "32 to 52"),
            ("[cpu]\nphys_bits = 9223372036854775807", (2, 13), "32 to 52"),
            ("[cpu]\nvendor = 'AMD'", (2, 10), "such as \"AuthenticAMD\", not \"AMD\""),
            ("[iommu]\naddress_bits = 65", (2, 16), "30 to 64"),
            ("[iommu]\naddress_bits = 29", (2, 16), "30 to 64"),
            ("[iommu]\naddress_bits = 0", (2, 16), "30 to 64"),
            ("[[iommu.group]]\ndevices = []\nreserved = []\naddress_bits = 0", (4, 16), "30 to 64"),
            ("[[iommu.group]]\ndevices = ['41:00.0']\nreserved = []", (2, 12), "lacks its domain: 0000:41:00.0"),
            (
                "[[iommu.group]]\ndevices = ['0000:c1:00.0', '0000:C1:00.0']\nreserved = []",
                (2, 28),
                "in a group already",
            ),
            (
                "[[iommu.group]]\ndevices = []\nreserved = [{ start = 2, end = 1, type = 'msi' }]",
                (3, 23),
                "last address",
            ),
            ("[[iommu.reserved]]\nstart = -1\nend = 2\ntype = 'msi'", (2, 9), "invalid value"),
            ("[[iommu.reserved]]\nstart = 1\nend = 0x1_0000_0000_0000_0000\ntype = 'msi'", (3, 7), ""),
            ("[[firmware]]\npath = '/x'", (1, 1), "missing field `kind`"),
            ("[[firmware]]\nkind = 'uboot'", (2, 8), "unknown variant"),
            ("[[pci]]\naddress = '41:00.0'\nbars = []", (2, 11), "not a PCI address"),
            ("[[pci]]\naddress = '0000:41:00.0'", (1, 1), "missing field `bars`"),
            ("[host]\nname = 'a'\nnick = 'b'", (3, 1), "unknown field"),
            ("[memory]\ntotal = -1", (2, 9), "RAM in bytes"),
            ("[memory]\ntotal = 0", (2, 9), "RAM in bytes"),
            ("[memory]\ntotal = 0x10_0000_0000_0001", (2, 9), "1 to 4503599627370496"),
        ] {
            let error = Host::from_profile(text).expect_err(text);
            assert_eq!((error.location.line, error.location.column), location, "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }

    /// The least and the most that hosts have: an Atom, a nested host of QEMU; VT-d of two levels, AMD-Vi of six.
    #[test]
    fn what_hosts_have_is_accepted() {
        for bits in [32, 36, 39, 46, 48, 52] {
            let host = Host::from_profile(&format!("[cpu]\nphys_bits = {bits}")).expect("a profile");
            assert_eq!(host.phys_bits, Some(bits));
        }
        for bits in [30, 36, 39, 47, 48, 52, 57, 64] {
            let group = "[[iommu.group]]\ndevices = ['0000:C1:00.0', 'AMDI0040:00']\nreserved = []\naddress_bits = 64";
            let host = Host::from_profile(&format!("[iommu]\naddress_bits = {bits}\n{group}")).expect("a profile");
            assert_eq!((host.iommu_bits, host.iommu_bits_for("0000:c1:00.0")), (Some(bits), Some(64)));
            assert_eq!(host.iommu_bits_for("AMDI0040:00"), Some(64));
        }
        let region = "[[iommu.reserved]]\nstart = 1\nend = 1\ntype = 'direct'\n\
                      [[iommu.reserved]]\nstart = 0\nend = 0xffff_ffff_ffff_ffff\ntype = 'reserved'";
        let host = Host::from_profile(region).expect("a profile");
        let ranges = host.reserved.iter().map(|reserved| (reserved.range.start, reserved.range.end));
        assert_eq!(ranges.collect::<Vec<_>>(), [(0, u64::MAX), (1, 1)]);
        assert!(Host::from_profile("[cpu]\nvendor = 'VIA VIA VIA '").is_ok());
    }

    #[cfg(feature = "cli")]
    #[test]
    fn functions_and_firmware_are_read_with_their_mistakes() {
        let with = |bars: &str| format!("[[pci]]\naddress = '0000:41:00.0'\nbars = [{bars}]\n");
        let bar = |index: u8, size: u64, bits64: bool| {
            format!("{{ index = {index}, size = {size}, prefetchable = true, bits64 = {bits64} }}")
        };
        let large = bar(2, 128 << 30, true);
        let text = format!(
            "[host]\nname = 'h'\n[cpu]\ngb_pages = true\n[iommu]\naddress_bits = 39\n[memory]\ntotal = 4096\n\
             [[firmware]]\nkind = 'seabios'\nversion = '1.16.3'\n[[firmware]]\nkind = 'ovmf'\npath = '/f'\n{}",
            with(&format!("{large}, {}", bar(0, 16 << 20, false)))
        );
        let host = Host::from_profile(&text).expect("a profile");
        assert_eq!(
            (host.name.as_deref(), host.gb_pages, host.iommu_bits, host.memory),
            (Some("h"), Some(true), Some(39), Some(4096))
        );
        let bars = [
            PciBar { index: 0, size: 16 << 20, prefetchable: true, bits64: false },
            PciBar { index: 2, size: 128 << 30, prefetchable: true, bits64: true },
        ];
        assert_eq!(host.pci.get("0000:41:00.0").map(Vec::as_slice), Some(&bars[..]));
        let kind_and_version = |path| host.firmware(path).map(|found| (found.kind, found.version.as_deref()));
        assert_eq!(kind_and_version(None), Some((FirmwareKind::SeaBios, Some("1.16.3"))));
        assert_eq!(kind_and_version(Some("/f")), Some((FirmwareKind::Ovmf, None)));
        assert_eq!(kind_and_version(Some("/g")), None);
        for (bars, words) in [
            (bar(5, 16, true), "0 to 4"),
            (bar(6, 16, false), "0 to 5"),
            (bar(0, 3 << 30, true), "power of two"),
            (bar(0, 8, false), "power of two"),
            (bar(0, 4 << 30, false), "at most 2 GiB"),
            (bar(0, 0, true), "power of two"),
            (format!("{large}, {large}"), "BAR 2 of 0000:41:00.0 is given twice"),
            (format!("{large}, {}", bar(3, 16, false)), "BAR 2 of 0000:41:00.0 has 64 bits"),
            (format!("{large}, {}", bar(1, 16, true)), "BAR 1 of 0000:41:00.0 has 64 bits"),
        ] {
            let error = Host::from_profile(&with(&bars)).expect_err(&bars);
            assert!(error.location.line == 3 && error.message.contains(words), "{error}");
        }
        let twice = format!("{}{}", with(""), with(""));
        assert!(Host::from_profile(&twice).expect_err("twice").message.contains("is given twice"));
    }
}
