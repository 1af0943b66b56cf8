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
            Self::CpuVendor => {
                "Guests are evaluated as on AuthenticAMD; where GenuineIntel would change a verdict, it says so."
            }
            Self::PhysBits => "Guests are evaluated with 48; where 40 or 52 would change a verdict, it says so.",
            Self::Iommu | Self::Reserved => {
                "Guests are evaluated as if nothing were reserved, and every verdict says that it depends on that."
            }
            Self::Name | Self::Kernel | Self::Kvm | Self::Memory => "No verdict depends on it.",
            Self::GbPages => "The 64-bit BARs of guests are placed as with and as without; what both say is certain.",
            Self::IommuBits => "No address is taken to be too wide for the IOMMU.",
            Self::Firmware => {
                "The 64-bit BARs of guests are placed as by every firmware that is known; what all of them do is certain."
            }
            Self::Pci => "Of a device whose BARs are unknown, only what holds for any BAR is said.",
            Self::Libvirt => "Guests are evaluated with a libvirt that passes every setting on to QEMU.",
            Self::Qemu => {
                "Guests are evaluated with the newest known QEMU and every machine type; where an older one would change \
                 a verdict, or what an alias such as q35 stands for, it says so."
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
