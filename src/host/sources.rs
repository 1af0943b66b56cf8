//! Where the facts about a host came from, and what follows if one is missing.

use std::collections::BTreeMap;

use super::Profile;

/// What can be known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// The host's name.
    Name,
    /// Vendor of the CPU.
    CpuVendor,
    /// Its physical address bits.
    PhysBits,
    /// Whether it has pages of 1 GiB.
    GbPages,
    /// The kind of IOMMU.
    Iommu,
    /// How many bits an IOVA may have.
    IommuBits,
    /// What it reserves.
    Reserved,
    /// Version of the kernel.
    Kernel,
    /// Whether there is KVM.
    Kvm,
    /// Version of libvirt.
    Libvirt,
    /// The QEMU of guests that name none.
    Qemu,
    /// The host's RAM.
    Memory,
    /// The firmware for guests.
    Firmware,
    /// The BARs of PCI functions.
    Pci,
}

impl Fact {
    /// What a verdict takes for true if the fact is missing.
    pub fn assumption(self) -> &'static str {
        match self {
            Self::CpuVendor => "Verdicts assume AuthenticAMD; if GenuineIntel would change a verdict, it says so.",
            Self::PhysBits => "Verdicts assume 48; if 40 or 52 would change a verdict, it says so.",
            Self::Iommu | Self::Reserved => "Verdicts assume that nothing is reserved, and say that they depend on it.",
            Self::Name | Self::Kernel | Self::Kvm | Self::Memory => "No verdict depends on it.",
            Self::GbPages => {
                "The 64-bit BARs of guests are placed for both cases; only what is true in both is \
                              certain."
            }
            Self::IommuBits => "Verdicts assume that the IOMMU can address everything.",
            Self::Firmware => {
                "The 64-bit BARs of guests are placed as by every known firmware; only what all of them do is certain."
            }
            Self::Pci => "For a device whose BARs are unknown, findings say only what is true for any BAR.",
            Self::Libvirt => "Verdicts assume a libvirt that passes every setting on to QEMU.",
            Self::Qemu => {
                "Verdicts assume the newest known QEMU with every machine type; if an older one, or the meaning of an \
                 alias such as q35, would change a verdict, it says so."
            }
        }
    }
}

/// Where a fact came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FactOrigin {
    /// A file or an instruction of the CPU.
    Found(String),
    /// The fact is unknown.
    Missing {
        /// Why, in a sentence.
        why: String,
        /// How to make it known, in a sentence; empty if there is no way.
        remedy: String,
    },
}

/// A host and where the facts about it came from.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// The facts.
    pub profile: Profile,
    /// Where each came from.
    pub origins: BTreeMap<Fact, FactOrigin>,
    /// Where what is known of each of [`Profile::emulators`] came from, in their order.
    pub emulators: Vec<String>,
    /// Where what is known of each of [`super::Host::firmwares`] came from, in their order.
    #[cfg(feature = "cli")]
    pub firmwares: Vec<String>,
}

impl Described {
    /// Where a fact came from.
    pub fn origin(&self, fact: Fact) -> Option<&FactOrigin> {
        self.origins.get(&fact)
    }
}
