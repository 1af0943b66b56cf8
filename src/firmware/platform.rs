//! [`Platform`], which with the firmware decides the placement, and [`Placement`], the result.

use crate::address::GpaRange;
use crate::machine::Family;

/// What firmware sees of a guest and decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The vCPU's vendor.
    pub vendor: Vendor,
    /// Its physical address bits (CPUID 0x80000008 EAX, bits 7:0), 32 to 52.
    pub phys_bits: u32,
    /// Whether it has 64-bit mode (CPUID 0x80000001 EDX, bit 29).
    pub long_mode: bool,
    /// Whether it has 1 GiB pages (`pdpe1gb`, CPUID 0x80000001 EDX, bit 26).
    pub gb_pages: bool,
    /// QEMU's `guest-phys-bits` if it is not 0 (CPUID 0x80000008 EAX, bits 23:16).
    pub guest_phys_bits: Option<u32>,
    /// Which chipset.
    pub family: Family,
    /// Last byte of RAM below 4 GiB.
    pub ram_below_4g_end: u64,
    /// Last byte of RAM above 4 GiB, if there is some; memory devices are not RAM of this kind.
    pub ram_above_4g_end: Option<u64>,
    /// First byte after the window for memory devices, if there is one (fw_cfg `etc/reserved-memory-end`).
    pub reserved_memory_end: Option<u64>,
    /// Whether the e820 table has the HyperTransport range as reserved (QEMU `hw/i386/pc.c`, `pc_memory_init`, from
    /// 7.1).
    pub ht_entry: bool,
    /// fw_cfg `opt/ovmf/X-PciMmio64Mb`, MiB.
    pub x_pci_mmio64_mb: Option<u64>,
    /// What is on bus 0, in the order of slot and function.
    pub root: Vec<Node>,
}

/// Vendors that firmware tells apart (CPUID leaf 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// `AuthenticAMD`
    Amd,
    /// `GenuineIntel`
    Intel,
    /// Any other.
    Other,
}

/// A function on a PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A bridge.
    Port(Port),
    /// Any other.
    Function {
        /// Whether it is a USB controller (class 0c03).
        usb: bool,
        /// Its 64-bit memory BARs, lowest register first.
        bars: Vec<BarRequest>,
    },
}

/// A bridge to another bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Whether it is a PCI Express root port or downstream port with a slot.
    pub express: bool,
    /// Whether a device can be plugged into it: the slot is hot-plug capable, or the bridge has an SHPC.
    pub hotplug: bool,
    /// The property `pref64-reserve`, bytes.
    pub pref64_reserve: Option<u64>,
    /// What is on its bus, in the order of slot and function.
    pub children: Vec<Node>,
}

/// A 64-bit memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarRequest {
    /// Its index in [`Placement::addresses`].
    pub id: usize,
    /// Bytes, a power of two.
    pub size: u64,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}

/// Where firmware puts the BARs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The window above 4 GiB, where firmware has one.
    pub window: Option<GpaRange>,
    /// The first byte of each BAR, by its id; `None` of one that the guest does not reach.
    pub addresses: Vec<Option<u64>>,
    /// Whether that is what firmware does, but for addresses below 4 GiB: where they are there depends on 32-bit BARs,
    /// and those are estimates.
    pub exact: bool,
}

impl Platform {
    /// First address after RAM and the window for memory devices, 4 GiB or more.
    pub(super) fn after_ram(&self) -> u64 {
        self.reserved_memory_end.unwrap_or(0).max(self.ram_end())
    }

    /// First address after RAM, 4 GiB or more.
    pub(super) fn ram_end(&self) -> u64 {
        self.ram_above_4g_end.map_or(crate::address::ABOVE_4G_START, |end| end.saturating_add(1))
    }

    /// Whether there is a bridge behind a bridge, which was not measured.
    pub(super) fn has_nested_ports(&self) -> bool {
        let ports = |nodes: &[Node]| nodes.iter().any(|node| matches!(node, Node::Port(_)));
        self.root.iter().any(|node| matches!(node, Node::Port(port) if ports(&port.children)))
    }

    /// One more than the highest id.
    pub(super) fn ids(&self) -> usize {
        fn ids(nodes: &[Node]) -> usize {
            let of = |node: &Node| match node {
                Node::Port(port) => ids(&port.children),
                Node::Function { bars, .. } => bars.iter().map(|bar| bar.id.saturating_add(1)).max().unwrap_or(0),
            };
            nodes.iter().map(of).max().unwrap_or(0)
        }
        ids(&self.root)
    }
}

impl Vendor {
    /// Whether firmware believes this width. QEMU says 40 bits by default, whatever the host has, so that firmware
    /// takes 41 and more, and of less only what real processors of that vendor have (edk2
    /// `OvmfPkg/Library/PlatformInitLib/MemDetect.c`, `PlatformAddressWidthFromCpuid`, from 2022.11; SeaBIOS
    /// `src/fw/paravirt.c`, `physbits`, from 1.16.3).
    pub(super) fn is_believed(self, phys_bits: u32) -> bool {
        match self {
            _ if phys_bits >= 41 => true,
            Self::Intel => matches!(phys_bits, 36 | 39),
            Self::Amd => phys_bits == 40,
            Self::Other => false,
        }
    }
}
