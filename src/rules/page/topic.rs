//! What is the background of several rules.

/// A section of docs/background.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// What AMD hosts reserve, and since when QEMU and Linux know.
    HyperTransport,
    /// RAM, the window for memory devices and the PCI hole.
    Layout,
    /// The width of the vCPU, and who sets it.
    PhysBits,
    /// What OVMF and SeaBIOS do with 64-bit BARs.
    Bars,
    /// What VFIO maps for a guest with an IOMMU of its own.
    Viommu,
    /// RLIMIT_MEMLOCK.
    LockedMemory,
    /// What the numbers of QEMU's message say.
    RefusedMapping,
    /// Commands that show what host, libvirt, QEMU and guest do.
    Looking,
}

impl Topic {
    /// The heading of the section.
    pub fn title(self) -> &'static str {
        match self {
            Self::HyperTransport => "The HyperTransport range",
            Self::Layout => "How QEMU lays out memory",
            Self::PhysBits => "Physical address bits",
            Self::Bars => "Where firmware puts BARs",
            Self::Viommu => "Virtual IOMMUs",
            Self::LockedMemory => "Locked memory",
            Self::RefusedMapping => "Reading a refused mapping",
            Self::Looking => "How to look",
        }
    }

    /// What links to the section end with: the heading as Markdown renderers make an anchor of it.
    pub fn anchor(self) -> String {
        self.title().to_lowercase().replace(' ', "-")
    }
}
