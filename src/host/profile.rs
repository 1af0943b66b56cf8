//! Host profiles: the facts about a host as TOML, so that a domain can be evaluated on another machine.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Emulator, Host, Iommu, Profile, Reserved, ReservedKind};
use crate::address::GpaRange;
use crate::version::Version;
use crate::xml::Location;

/// A profile that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// The name for `--host`.
    pub name: &'static str,
    /// What host it stands for.
    pub summary: &'static str,
    text: &'static str,
}

/// The built-in profiles. They say what follows from the CPU, and leave QEMU and libvirt unknown.
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

/// Why a text is no host profile, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct ProfileError {
    /// Where it stands.
    pub location: Location,
    /// What is wrong, in one line.
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    cpu: CpuTable,
    iommu: IommuTable,
    kernel: VersionTable,
    kvm: KvmTable,
    qemu: Option<QemuTable>,
    emulator: Vec<toml::Spanned<QemuTable>>,
    libvirt: VersionTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CpuTable {
    vendor: Option<String>,
    phys_bits: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct IommuTable {
    kind: Option<IommuKind>,
    reserved: Vec<RegionTable>,
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    devices: Vec<String>,
    reserved: Vec<RegionTable>,
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
        Ok(Profile::from_toml(text)?.host_for(None))
    }
}

impl Profile {
    /// Reads a host profile. Every key is optional, but for the path of an `[[emulator]]` and both keys of an
    /// `[[iommu.group]]`.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a value that is none.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let wrong =
            |offset: usize, message: String| ProfileError { location: Location::of(text.as_bytes(), offset), message };
        let tables: Tables = toml::from_str(text)
            .map_err(|e| wrong(e.span().map_or(0, |span| span.start), e.message().replace('\n', " ")))?;
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
            Ok(Emulator { path, version: version(number)?, machines, aliases, deprecated })
        };
        let mut reserved = regions(tables.iommu.reserved)?;
        let mut reserved_by_device = BTreeMap::new();
        for group in tables.iommu.group {
            let own = regions(group.reserved)?;
            reserved.extend(&own);
            reserved_by_device.extend(group.devices.into_iter().map(|device| (device, own.clone())));
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
            cpu_vendor: tables.cpu.vendor,
            phys_bits: tables.cpu.phys_bits,
            iommu: tables.iommu.kind.map(|kind| match kind {
                IommuKind::Amd => Iommu::Amd,
                IommuKind::Intel => Iommu::Intel,
                IommuKind::None => Iommu::None,
            }),
            reserved,
            reserved_by_device,
            kernel: version(tables.kernel.version)?,
            kvm: tables.kvm.available,
            libvirt: version(tables.libvirt.version)?,
            ..Host::default()
        };
        Ok(Self { host, qemu: tables.qemu.map(emulator).transpose()?, emulators })
    }
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
        assert!(epyc.unmappable().iter().any(|r| r.range == GpaRange::inclusive(0xfd_0000_0000, 0xff_ffff_ffff)));
        let turin = builtin("amd-turin-ht-ignore").expect("built in");
        assert!(turin.unmappable().iter().all(|r| r.kind == ReservedKind::Msi));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, location, words) in [
            ("[cpu]\nvendr = 'x'", (2, 1), "unknown field"),
            ("[cpu]\nphys_bits = 'x'", (2, 13), "invalid type"),
            ("[iommu]\nkind = 'arm'", (2, 8), "unknown variant"),
            ("[[iommu.reserved]]\nstart = 2\nend = 1\ntype = 'msi'", (2, 9), "last address"),
            ("[[iommu.reserved]]\nstart = 1\nend = 2\ntype = 'x'", (4, 8), "no type of reserved region"),
            ("[qemu]\nversion = '7'", (2, 11), "not a version"),
            ("[[emulator]]\nversion = '7.2'", (1, 1), "without `path`"),
            ("[[iommu.group]]\ndevices = ['0000:01:00.0']", (1, 1), "missing field `reserved`"),
            ("[[emulator]]\npath = 'x'\nname = 'y'", (3, 1), "unknown field"),
            ("[cpu", (1, 5), ""),
        ] {
            let error = Host::from_profile(text).expect_err(text);
            assert_eq!((error.location.line, error.location.column), location, "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }
}
