//! What a libvirt domain XML says about memory, CPU and devices, with the place of every value.
//!
//! Only what decides the guest-physical memory map is read. Nothing is interpreted here: see `libvirt` for
//! what libvirt makes of it and `qemu` for what QEMU builds then.

mod devices;
#[cfg(feature = "cli")]
mod locked_memory;
mod other;
#[cfg(feature = "cli")]
mod owner;
mod passthrough;
#[cfg(feature = "cli")]
mod pci;
mod printed;
mod read;
pub mod units;

#[cfg(feature = "cli")]
pub use devices::LoaderElement;
pub use devices::{Controller, LaunchSecurity, VirtualIommu};
#[cfg(feature = "cli")]
pub use locked_memory::LockedMemory;
pub use other::{OtherDocument, other_document};
#[cfg(feature = "cli")]
pub use owner::{Owner, Ownership};
pub use passthrough::{HiddenDma, Unseen};
#[cfg(feature = "cli")]
pub use pci::{PciAddress, PciDevice, PciDevices};
pub use printed::{MAX_PRINTED_BYTES, PrintedDomain, TooLong};
pub use read::{ReadError, read};
pub(crate) use read::{pci_hole64_element, root_controller};

use crate::text::quoted;
use crate::xml::Span;

/// A value and where it is in the XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it is: the attribute value or the text that says it, or the element that implies it.
    pub span: Span,
}

/// A domain, as written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Domain {
    /// `<name>`; empty if there is none.
    pub name: String,
    /// `<uuid>`.
    pub uuid: Option<String>,
    /// `<domain type>`: `kvm`, `qemu` or another hypervisor's.
    pub hypervisor: Option<Sourced<String>>,
    /// `<os><type>`: `hvm` for a machine of its own.
    pub os_type: Option<Sourced<String>>,
    /// `<os><type arch>`.
    pub arch: Option<Sourced<String>>,
    /// `<os><type machine>`.
    pub machine: Option<Sourced<String>>,
    /// `<devices><emulator>`.
    pub emulator: Option<Sourced<String>>,
    /// CPU sockets with a CPU in them: `<vcpu>` over the cores and threads of each.
    pub sockets: u64,
    /// `<memory>`, in KiB.
    pub memory: Option<Sourced<u64>>,
    /// `<maxMemory>`, in KiB.
    pub max_memory: Option<Sourced<u64>>,
    /// `<maxMemory slots>`.
    pub slots: Option<Sourced<u32>>,
    /// `<cpu><numa>`, whether or not there is a cell in it.
    pub numa: Option<Span>,
    /// Whether a NUMA cell has more memory settings than its size: by `<numatune><memnode>` or by
    /// `<numa><interconnects>`.
    pub has_memory_nodes: bool,
    /// The `<cell id>` of each NUMA cell in document order.
    pub cell_ids: Vec<Option<Sourced<u32>>>,
    /// The `<cell memory>` of each NUMA cell, in KiB, in the order of their ids.
    pub numa_cells: Vec<Sourced<u64>>,
    /// Whether each NUMA cell has a `memAccess`, in the same order.
    pub cells_with_access: Vec<bool>,
    /// `<memoryBacking>`.
    pub backing: MemoryBacking,
    /// Its settings for locked memory.
    #[cfg(feature = "cli")]
    pub locked_memory: LockedMemory,
    /// `<memory model=…>` devices in document order.
    pub memory_devices: Vec<MemoryDevice>,
    /// The first `<cpu>`; libvirt reads no other.
    pub cpu: Option<CpuElement>,
    /// `<pcihole64>` of the root controller, in KiB.
    pub pci_hole64: Option<Sourced<u64>>,
    /// Whether it has so many bytes that libvirt's rounding up to KiB overflows to 0.
    pub pci_hole64_is_endless: bool,
    /// The PCI controllers, and those without a type, in document order.
    pub controllers: Vec<Controller>,
    /// The first `<iommu>`.
    pub iommu: Option<VirtualIommu>,
    /// `<launchSecurity>`.
    pub launch_security: Option<LaunchSecurity>,
    /// `<os firmware>`.
    pub firmware: Option<Sourced<String>>,
    /// `<os><loader secure>`.
    pub loader_secure: Option<Span>,
    /// `<os><loader>`.
    #[cfg(feature = "cli")]
    pub loader: Option<LoaderElement>,
    /// The options of `<sysinfo type='fwcfg'>`: name and value; no value where it is in a file.
    #[cfg(feature = "cli")]
    pub fw_cfg: Vec<(String, Option<String>, Span)>,
    /// The devices on PCI buses.
    #[cfg(feature = "cli")]
    pub pci: PciDevices,
    /// `<features><ioapic driver>`.
    pub ioapic: Option<Sourced<String>>,
    /// Whether the root controller is a `pcie-root`.
    pub pcie: bool,
    /// Whether `<features>` has `<acpi/>`; QEMU plugs no DIMM without it.
    pub acpi: bool,
    /// Devices whose DMA the host's IOMMU translates, without those that raw QEMU arguments add.
    pub passthrough: Vec<HostDevice>,
    /// Devices that may reach guest memory through the host's IOMMU, although the XML does not show it.
    pub hidden_dma: Vec<HiddenDma>,
    /// Whether the guest runs Windows, by its Hyper-V enlightenments or its metadata.
    pub windows: bool,
    /// The options in `<qemu:commandline>`, in order.
    pub raw_args: Vec<Sourced<String>>,
    /// The changes in `<qemu:override>`, in order.
    pub device_changes: Vec<DeviceChange>,
    /// What the domain's own `<metadata>` asks of this tool.
    pub overrides: Overrides,
    /// Who writes the domain anew at each start.
    #[cfg(feature = "cli")]
    pub ownership: Option<Ownership>,
    /// The element that names the domain; findings about the guest as a whole point to it.
    pub span: Span,
}

/// A device of the host's that is given to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// How it is attached.
    pub kind: HostDeviceKind,
    /// A PCI address `0000:41:10.1`, an mdev UUID, or a device path; empty if only libvirt will know it.
    pub device: String,
    /// Whether it is a network interface.
    pub network: bool,
    /// `<teaming type='transient' persistent='…'>`: the interface that stays when this one is unplugged for a migration.
    #[cfg(feature = "cli")]
    pub failover: Option<String>,
    /// Where it is.
    pub span: Span,
}

/// How a device of the host's is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostDeviceKind {
    /// A PCI function through VFIO.
    Pci,
    /// A mediated device.
    Mdev,
    /// A vDPA network device or disk.
    Vdpa,
}

/// A `<property>` in `<qemu:override>`: a property of a device that libvirt writes otherwise than it would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceChange {
    /// The device's alias.
    pub alias: String,
    /// The property.
    pub name: String,
    /// Its value; `None` takes it away.
    pub value: Option<String>,
    /// Where it is.
    pub span: Span,
}

/// `<memoryBacking>`: what the guest's memory consists of.
#[derive(Debug, Clone, Default)]
pub struct MemoryBacking {
    /// `<source type>`.
    pub source: Option<MemorySource>,
    /// `<source type='anonymous'>`.
    pub anonymous: Option<Span>,
    /// `<allocation mode='ondemand'>`.
    pub on_demand: Option<Span>,
    /// Whether there is an `<access>`, which makes a file of what would be anonymous memory.
    pub has_access: bool,
    /// The `<page>` elements of `<hugepages>`, or one of the host's default size if there is none.
    pub huge_pages: Vec<HugePage>,
}

/// `<memoryBacking><source type>`, if it is not `anonymous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySource {
    /// `file`.
    File,
    /// `memfd`.
    Memfd,
}

/// A `<page>` of `<hugepages>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePage {
    /// `size`, in KiB; 0 is the host's default.
    pub size_kib: u64,
    /// `nodeset`: the NUMA cells whose memory it is; `None` means all that no other `<page>` names.
    pub cells: Option<NodeSet>,
}

/// A set of numbers as libvirt writes it, for example `0-3,^2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSet(Vec<(std::ops::RangeInclusive<u32>, bool)>);

impl NodeSet {
    /// Whether `number` is in the set: the last part that names it decides (`virBitmapParse` in libvirt
    /// `src/util/virbitmap.c`).
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().rev().find(|(range, _)| range.contains(&number)).is_some_and(|&(_, included)| included)
    }
}

/// A `<memory model=…>` device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// The model.
    pub model: MemoryModel,
    /// `<target><size>`, in KiB.
    pub size: Sourced<u64>,
    /// `<target><label><size>` of an NVDIMM, in KiB.
    pub label_kib: Option<u64>,
    /// `<target><block>` of a virtio-mem device, in KiB.
    pub block_kib: Option<u64>,
    /// `<target><node>`: the NUMA cell it belongs to.
    pub node: Option<Sourced<u32>>,
    /// `<source><pagesize>`, in KiB: the huge page that backs it.
    pub page_kib: Option<u64>,
    /// `<source><alignsize>`, in KiB.
    pub align_kib: Option<u64>,
    /// Whether it has an `access` of its own, which makes a file of what would be anonymous memory.
    pub has_access: bool,
    /// Whether that access is `shared`.
    pub is_shared: bool,
    /// Whether there is a `<source><path>`.
    pub has_path: bool,
    /// `<target><requested>` of a virtio-mem device, in KiB.
    pub requested: Option<Sourced<u64>>,
    /// `<target dynamicMemslots>` of a virtio-mem device, since libvirt 10.1.
    pub dynamic_memslots: Option<Sourced<bool>>,
    /// `<address type>`.
    pub address_type: Option<Sourced<String>>,
    /// Whether there is an `<address>`.
    pub has_address: bool,
    /// Guest-physical address: `<address type='dimm' base>` or `<target><address base>`.
    pub address: Option<Sourced<u64>>,
    /// `<address type='dimm' slot>`.
    pub slot: Option<Sourced<u32>>,
    /// `<alias name>`, if it is one that a user may choose: with `ua-` before it.
    pub alias: Option<String>,
    /// The whole element.
    pub span: Span,
}

/// The kinds of memory device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryModel {
    /// `dimm`: QEMU's pc-dimm.
    Dimm,
    /// `nvdimm`.
    Nvdimm,
    /// `virtio-mem`.
    VirtioMem,
    /// `virtio-pmem`.
    VirtioPmem,
    /// `sgx-epc`: not in the device memory region.
    SgxEpc,
}

impl MemoryModel {
    /// The name libvirt uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dimm => "dimm",
            Self::Nvdimm => "nvdimm",
            Self::VirtioMem => "virtio-mem",
            Self::VirtioPmem => "virtio-pmem",
            Self::SgxEpc => "sgx-epc",
        }
    }
}

/// The first `<cpu>`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CpuElement {
    /// `mode`; `custom` if it is missing.
    pub mode: CpuMode,
    /// `<model>`, if it names one.
    pub model: Option<Sourced<String>>,
    /// `<model vendor_id>`: becomes QEMU's `vendor=`.
    pub vendor_id: Option<Sourced<String>>,
    /// `<vendor>`: only a demand on the host, never passed to QEMU.
    pub vendor: Option<Sourced<String>>,
    /// `match`.
    pub matching: Option<Sourced<String>>,
    /// `check`.
    pub check: Option<Sourced<String>>,
    /// `<model fallback>`.
    pub fallback: Option<Sourced<String>>,
    /// `<feature>` elements that decide the width of addresses and how far firmware maps them: lm, pae, pse36, pdpe1gb.
    pub features: Vec<Feature>,
    /// Whether there is any `<feature>` at all.
    pub has_features: bool,
    /// `<maxphysaddr>`.
    pub maxphysaddr: Option<MaxPhysAddr>,
    /// The start tag.
    pub span: Span,
}

/// `<cpu mode>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuMode {
    /// A named model, or the machine's default.
    Custom,
    /// The named model nearest to the host's CPU.
    HostModel,
    /// The host's CPU itself.
    HostPassthrough,
    /// All that the accelerator can do.
    Maximum,
}

/// A `<feature>`.
#[derive(Debug, Clone)]
pub struct Feature {
    /// `name`.
    pub name: String,
    /// Whether the policy turns it on (`require`, `force`), off (`disable`, `forbid`), or leaves it to the host
    /// (`optional`).
    pub enabled: Option<bool>,
    /// The element.
    pub span: Span,
}

/// `<maxphysaddr>`.
#[derive(Debug, Clone)]
pub struct MaxPhysAddr {
    /// `mode`.
    pub mode: MaxPhysAddrMode,
    /// `bits`.
    pub bits: Option<Sourced<u32>>,
    /// `limit`, since libvirt 9.3.
    pub limit: Option<Sourced<u32>>,
    /// The element.
    pub span: Span,
}

/// `<maxphysaddr mode>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxPhysAddrMode {
    /// QEMU's `host-phys-bits=on`.
    Passthrough,
    /// QEMU's `phys-bits=`.
    Emulate,
}

/// What `<metadata>` asks of this tool, in the namespace [`METADATA_NAMESPACE`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// `passthrough='assume'`: evaluate the guest as if it had a passthrough device, because one is hot-plugged later.
    pub assume_passthrough: Option<bool>,
    /// Why something that is there is ignored, in one line.
    pub broken: Option<Sourced<String>>,
}

impl Overrides {
    /// `passthrough` of `<policy>`. The guest's owner writes it: any other word must not keep the guest from being
    /// checked.
    pub fn from_passthrough(value: &str, span: Span) -> Self {
        match value {
            "assume" => Self { assume_passthrough: Some(true), broken: None },
            "present" => Self { assume_passthrough: Some(false), broken: None },
            other => {
                let value = format!("passthrough='{}' is neither `present` nor `assume`", quoted(other));
                Self { assume_passthrough: None, broken: Some(Sourced { value, span }) }
            }
        }
    }
}

/// The XML namespace of the `<policy>` element in `<metadata>`.
pub const METADATA_NAMESPACE: &str = "urn:iova-preflight:policy:1";
