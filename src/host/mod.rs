//! The facts about a host that decide whether a guest starts there, as plain data.
//!
//! Every fact may be unknown. Where a verdict depends on an unknown one, the verdict says so.

mod capabilities;
#[cfg(feature = "cli")]
mod firmware_file;
pub(crate) mod limits;
mod networks;
#[cfg(feature = "cli")]
mod pci;
mod pci_address;
mod profile;
mod sources;
mod unmappable;
#[cfg(feature = "cli")]
mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;

#[cfg(feature = "cli")]
pub use firmware_file::{FirmwareFile, FirmwareKind};
pub use networks::{Networks, read_network};
#[cfg(feature = "cli")]
pub use pci::PciBar;
pub use profile::{BUILTIN, Builtin, ProfileError, builtin};
pub use sources::{Described, Fact, FactOrigin};
pub(crate) use unmappable::{FIRST_KERNEL_TO_KNOW_WIDTHS, FIRST_KERNEL_TO_REFUSE_RESERVED};
pub use unmappable::{Unmappable, Why};
#[cfg(feature = "cli")]
pub use write::ProfileLine;

use serde::Serialize;

use crate::address::{AMD_HT_START, GpaRange};
use crate::machine::{MachineType, is_versioned, without_revision};
use crate::text::{self, quoted};
use crate::version::Version;

/// The facts about one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// The host's name.
    #[cfg(feature = "cli")]
    pub name: Option<String>,
    /// CPU vendor as CPUID leaf 0 spells it, 12 characters; KVM shows it to guests.
    pub cpu_vendor: Option<String>,
    /// Physical address bits, CPUID leaf 0x80000008.
    pub phys_bits: Option<u32>,
    /// Whether the CPU has pages of 1 GiB (`pdpe1gb`): KVM gives them to guests only then.
    #[cfg(feature = "cli")]
    pub gb_pages: Option<bool>,
    /// What kind of IOMMU translates DMA.
    pub iommu: Option<Iommu>,
    /// How many bits an IOVA may have; of several IOMMUs, those of the widest.
    pub iommu_bits: Option<u32>,
    /// The same for the IOMMU of a single PCI function, if it differs.
    pub iommu_bits_by_device: BTreeMap<String, u32>,
    /// Ranges that some IOMMU group reserves; sorted, without doubles.
    pub reserved: Vec<Reserved>,
    /// The ranges that the group of one PCI function reserves, by address (`0000:41:10.1`).
    pub reserved_by_device: BTreeMap<String, Vec<Reserved>>,
    /// Kernel version.
    pub kernel: Option<Version>,
    /// Whether /dev/kvm works.
    pub kvm: Option<bool>,
    /// QEMU version.
    pub qemu: Option<Version>,
    /// The machine types this QEMU has, aliases not among them; empty if unknown.
    pub machines: Vec<String>,
    /// What the aliases mean: `q35` is `pc-q35-7.2`.
    pub aliases: BTreeMap<String, String>,
    /// Those of [`Self::machines`] that QEMU deprecates; `None` if that is unknown.
    pub deprecated: Option<Vec<String>>,
    /// The CPU models this QEMU has; empty if unknown. A profile has none.
    #[cfg(feature = "cli")]
    pub cpu_models: Vec<String>,
    /// libvirt version.
    pub libvirt: Option<Version>,
    /// libvirt's virtual networks, as far as they are known.
    pub networks: Networks,
    /// The firmware for guests.
    #[cfg(feature = "cli")]
    pub firmwares: Vec<FirmwareFile>,
    /// The memory BARs of PCI functions, by address (`0000:41:00.0`), those of a function by index. A function that is
    /// not in it is unknown; one without BARs has none.
    #[cfg(feature = "cli")]
    pub pci: BTreeMap<String, Vec<PciBar>>,
    /// The host's RAM, in bytes.
    #[cfg(feature = "cli")]
    pub memory: Option<u64>,
}

impl Host {
    /// The firmware in the file that a guest names, or that of guests that name none.
    #[cfg(feature = "cli")]
    pub fn firmware(&self, path: Option<&str>) -> Option<&FirmwareFile> {
        self.firmwares.iter().find(|firmware| firmware.path.as_deref() == path)
    }

    /// The memory BARs of the function at a PCI address, however it is spelled; `None` if they are unknown.
    #[cfg(feature = "cli")]
    pub fn bars(&self, address: &str) -> Option<&[PciBar]> {
        let bars = self.pci.get(address).or_else(|| self.pci.get(&pci_address::pci_address(address).ok()?));
        bars.map(Vec::as_slice)
    }

    /// The machine type that `requested` means.
    ///
    /// A versioned type means itself, whatever an alias of its name says: QEMU has no such alias, and one in a file
    /// would pass an old type off as a new one.
    pub fn canonical_machine<'a>(&'a self, requested: &'a str) -> &'a str {
        if is_versioned(requested) {
            return requested;
        }
        self.aliases.get(without_revision(requested)).map_or(requested, String::as_str)
    }

    /// Whether this host's QEMU deprecates a machine type. Without a list of those that it does, the upstream rule
    /// decides; types of distributions follow none.
    pub fn deprecates(&self, machine: &MachineType) -> bool {
        match &self.deprecated {
            Some(listed) => listed.contains(&machine.name),
            None => self.qemu.is_some_and(|qemu| machine.is_deprecated_by(qemu)),
        }
    }
}

/// One QEMU binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Emulator {
    /// Its path, as `<emulator>` names it.
    pub path: Option<String>,
    /// Its version.
    pub version: Option<Version>,
    /// The machine types it has, aliases not among them; empty if unknown.
    pub machines: Vec<String>,
    /// What the aliases mean.
    pub aliases: BTreeMap<String, String>,
    /// Those of [`Self::machines`] that it deprecates; `None` if that is unknown.
    pub deprecated: Option<Vec<String>>,
    /// The CPU models it has, sorted; empty if unknown. A profile has none.
    #[cfg(feature = "cli")]
    pub cpu_models: Vec<String>,
}

/// The facts about one host with every QEMU that it has: what a host profile holds.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Profile {
    /// What holds for every guest.
    pub host: Host,
    /// The QEMU of guests that name none; if it has no path, also of those whose `<emulator>` is not in
    /// [`Self::emulators`].
    pub qemu: Option<Emulator>,
    /// The QEMUs of guests that name one, each with its path.
    pub emulators: Vec<Emulator>,
}

/// Where the QEMU of a guest that names none may be, the likeliest first.
pub const DEFAULT_EMULATORS: [&str; 3] = ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm"];

impl Profile {
    /// The host as a guest with this `<emulator>` sees it.
    pub fn host_for(&self, emulator: Option<&str>) -> Cow<'_, Host> {
        let named = |path: &str| {
            self.qemu.iter().chain(&self.emulators).find(|emulator| emulator.path.as_deref() == Some(path))
        };
        let found = match emulator {
            Some(path) => named(path).or_else(|| self.qemu.as_ref().filter(|qemu| qemu.path.is_none())),
            None => self.qemu.as_ref().or_else(|| DEFAULT_EMULATORS.into_iter().find_map(named)),
        };
        match found {
            Some(emulator) => Cow::Owned(Host {
                qemu: emulator.version,
                machines: emulator.machines.clone(),
                aliases: emulator.aliases.clone(),
                deprecated: emulator.deprecated.clone(),
                #[cfg(feature = "cli")]
                cpu_models: emulator.cpu_models.clone(),
                ..self.host.clone()
            }),
            None => Cow::Borrowed(&self.host),
        }
    }
}

impl From<Host> for Profile {
    fn from(host: Host) -> Self {
        Self { host, qemu: None, emulators: Vec::new() }
    }
}

/// Kinds of IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Iommu {
    /// AMD-Vi.
    Amd,
    /// VT-d.
    Intel,
    /// None, or switched off.
    None,
}

impl Iommu {
    /// The name in a host profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Intel => "intel",
            Self::None => "none",
        }
    }
}

/// A range of IOVAs that an IOMMU group sets aside, a line of
/// `/sys/kernel/iommu_groups/*/reserved_regions` (`drivers/iommu/iommu.c`, `iommu_group_show_resv_regions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reserved {
    /// The range.
    pub range: GpaRange,
    /// What it is set aside for.
    pub kind: ReservedKind,
}

impl Reserved {
    /// What the range is, for people.
    pub fn meaning(self) -> String {
        let range = text::range(self.range);
        match (self.kind, self.range.start) {
            (ReservedKind::Msi, 0xfee0_0000) => "interrupts, just below 4 GiB".to_owned(),
            (ReservedKind::Msi, _) => format!("interrupts, {range}"),
            (ReservedKind::Reserved, AMD_HT_START) => format!("HyperTransport, {range}"),
            (ReservedKind::Reserved, _) => range,
            (ReservedKind::Direct, _) => format!("single devices, {range}"),
            (ReservedKind::DirectRelaxable, _) => "until a device is passed through".to_owned(),
        }
    }
}

/// The kinds of reserved region, as sysfs spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum ReservedKind {
    /// `direct`: identity-mapped for firmware's use of one device.
    Direct,
    /// `direct-relaxable`: the same, but given up when the device is assigned.
    DirectRelaxable,
    /// `reserved`: never to be mapped. AMD's HyperTransport range is one.
    Reserved,
    /// `msi`: message signalled interrupts.
    Msi,
}

impl ReservedKind {
    /// The name in sysfs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::DirectRelaxable => "direct-relaxable",
            Self::Reserved => "reserved",
            Self::Msi => "msi",
        }
    }
}

impl std::str::FromStr for ReservedKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Direct, Self::DirectRelaxable, Self::Reserved, Self::Msi];
        all.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            format!("`{}` is not a type of reserved region: direct, direct-relaxable, reserved or msi", quoted(text))
        })
    }
}

/// The lines of one `reserved_regions` file: `0x000000fd00000000 0x000000ffffffffff reserved`, end inclusive.
///
/// # Errors
/// The first malformed line.
pub fn parse_reserved_regions(text: &str) -> Result<Vec<Reserved>, String> {
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut address = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
            let (start, end) = (address(), address());
            match (start, end, words.next().map(str::parse)) {
                (Some(start), Some(end), Some(Ok(kind))) if start <= end => {
                    Ok(Reserved { range: GpaRange { start, end }, kind })
                }
                _ => Err(format!("not a reserved region: `{}`", quoted(line))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_the_kernel() {
        let regions = parse_reserved_regions(
            "0x00000000fee00000 0x00000000feefffff msi\n0x000000fd00000000 0x000000ffffffffff reserved\n",
        );
        let expected =
            [(0xfee0_0000, 0xfeef_ffff, ReservedKind::Msi), (0xfd_0000_0000, 0xff_ffff_ffff, ReservedKind::Reserved)];
        let expected = expected.map(|(start, end, kind)| Reserved { range: GpaRange { start, end }, kind });
        assert_eq!(regions.as_deref(), Ok(&expected[..]));
        assert!(parse_reserved_regions("0x2 0x1 msi").is_err());
        assert!(parse_reserved_regions("0x1 0x2 other").is_err());
    }
}
