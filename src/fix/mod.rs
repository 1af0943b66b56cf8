//! Which rewrite of a guest helps, found by trying it and evaluating again.

#[cfg(feature = "cli")]
pub(crate) mod arguments;
#[cfg(feature = "cli")]
mod bars;
#[cfg(feature = "cli")]
mod common;
mod draft;
pub mod rewrite;
mod search;
#[cfg(test)]
mod tests;

#[cfg(feature = "cli")]
pub(crate) use bars::relieve;
#[cfg(feature = "cli")]
pub(crate) use common::{plan_for_all, stops_on};
pub(crate) use search::plan;

use crate::text::{self, quoted};

/// A rewrite that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fix {
    /// Its parts, in the order they were tried.
    pub changes: Vec<Change>,
    /// What it depends on that is not known, if anything. That the guest is stopped without it does not depend on it.
    pub assumption: Option<String>,
    /// What the guest gets more address bits for than its memory map needs as it is, if it does.
    pub spare_bits: Option<String>,
    /// Whether RAM lies above 1 TiB with it, and does not without.
    pub moves_ram: bool,
}

impl Fix {
    /// What changes for the guest, a sentence each, and when.
    pub fn consequences(&self) -> Vec<&'static str> {
        let mut sentences = self.risks();
        sentences.push("on a running guest it takes effect at the next cold start");
        sentences
    }

    /// What changes for the guest, a sentence each.
    pub fn risks(&self) -> Vec<&'static str> {
        let mut sentences = Vec::new();
        let has = |wanted: fn(&Change) -> bool| self.changes.iter().any(wanted);
        if has(|change| matches!(change, Change::Machine { .. })) {
            sentences.push(
                "a new machine type is a new revision of the virtual hardware: Windows may ask to be activated again",
            );
            sentences.push("saved states and internal snapshots from before can no longer be restored");
        }
        if self.moves_ram {
            sentences.push("RAM moves above 1 TiB, which some Windows GPU drivers do not work with");
        }
        if has(Change::is_limit) {
            sentences.push(
                "the guest sees a different number of physical address bits: hosts it migrates to need at least as \
                 many",
            );
        } else if has(Change::is_width) {
            sentences.push("the guest sees more physical address bits: hosts it migrates to need at least as many");
        }
        // A larger one is there to move RAM.
        if has(Change::is_hole) && !self.moves_ram {
            sentences.push("the guest's kernel has less room for 64-bit BARs of devices that are plugged in later");
        }
        sentences
    }
}

/// A part of a rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Another `<os><type machine>`.
    Machine {
        /// The type the domain has.
        from: String,
        /// The type it gets.
        to: String,
    },
    /// `<maxphysaddr mode='emulate' bits=…>`.
    EmulateBits(u32),
    /// `<maxphysaddr mode='passthrough'/>`.
    PassHostBits,
    /// `<maxphysaddr mode='passthrough' limit=…/>`.
    #[cfg(feature = "cli")]
    PassHostBitsUpTo(u32),
    /// Another `<pcihole64>`, in KiB.
    PciHole64(u64),
    /// Another fixed address of a memory device, because the device memory region moves.
    DeviceAddress {
        /// Its index among the memory devices.
        device: usize,
        /// The address it has.
        from: u64,
        /// The address it gets.
        to: u64,
    },
    /// No fixed address for a memory device.
    FreeAddress {
        /// Its index among the memory devices.
        device: usize,
        /// The address it has.
        from: u64,
    },
    /// `-cpu …,phys-bits=`, and `host-phys-bits=off` where the CPU would have the host's.
    #[cfg(feature = "cli")]
    PhysBits(u32),
    /// `-cpu …,host-phys-bits=on`.
    #[cfg(feature = "cli")]
    HostPhysBits,
    /// `-cpu …,host-phys-bits=on,host-phys-bits-limit=`.
    #[cfg(feature = "cli")]
    HostPhysBitsUpTo(u32),
    /// Another `pci-hole64-size`, in bytes.
    #[cfg(feature = "cli")]
    HoleSize(u64),
}

impl Change {
    /// Whether it changes how wide the CPU's addresses are.
    pub(crate) fn is_width(&self) -> bool {
        match self {
            Self::EmulateBits(_) | Self::PassHostBits => true,
            #[cfg(feature = "cli")]
            Self::PhysBits(_) | Self::HostPhysBits | Self::HostPhysBitsUpTo(_) | Self::PassHostBitsUpTo(_) => true,
            _ => false,
        }
    }

    /// The phys-bits that it gives the CPU, whatever the host has.
    fn bits(&self) -> Option<u32> {
        match *self {
            Self::EmulateBits(bits) => Some(bits),
            #[cfg(feature = "cli")]
            Self::PhysBits(bits) => Some(bits),
            _ => None,
        }
    }

    /// Whether it gives the CPU the host's addresses up to a width, which may be less than it has.
    fn is_limit(&self) -> bool {
        match self {
            #[cfg(feature = "cli")]
            Self::PassHostBitsUpTo(_) | Self::HostPhysBitsUpTo(_) => true,
            _ => false,
        }
    }

    /// Whether it changes the size of the 64-bit PCI hole.
    pub(crate) fn is_hole(&self) -> bool {
        match self {
            Self::PciHole64(_) => true,
            #[cfg(feature = "cli")]
            Self::HoleSize(_) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine { from, to } => write!(f, "machine {} → {to}", quoted(from)),
            Self::EmulateBits(bits) => write!(f, "maxphysaddr emulate {bits}"),
            Self::PassHostBits => write!(f, "maxphysaddr passthrough"),
            Self::PciHole64(kib) => write!(f, "pcihole64 {}", text::size(kib.saturating_mul(1024))),
            Self::FreeAddress { from, .. } => write!(f, "memory device {from:#x} → address chosen by QEMU"),
            Self::DeviceAddress { from, to, .. } => write!(f, "memory device {from:#x} → {to:#x}"),
            #[cfg(feature = "cli")]
            Self::PassHostBitsUpTo(bits) => write!(f, "maxphysaddr passthrough, limit {bits}"),
            #[cfg(feature = "cli")]
            Self::HostPhysBitsUpTo(bits) => write!(f, "host-phys-bits on, limit {bits}"),
            #[cfg(feature = "cli")]
            Self::PhysBits(bits) => write!(f, "phys-bits {bits}"),
            #[cfg(feature = "cli")]
            Self::HostPhysBits => write!(f, "host-phys-bits on"),
            #[cfg(feature = "cli")]
            Self::HoleSize(bytes) => write!(f, "pci-hole64-size {}", text::size(*bytes)),
        }
    }
}
