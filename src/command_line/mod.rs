//! What QEMU is told, as a value: the options that decide the guest-physical memory map, the CPU, and which devices
//! reach the guest's memory.
//!
//! [`crate::libvirt`] writes it from a domain, QEMU's own arguments are read into it, and [`crate::qemu`] builds the
//! guest from it. How QEMU merges options that are given more than once is settled here.

use std::collections::HashMap;

use crate::version::Version;

mod cpu;
#[cfg(feature = "cli")]
mod firmware;
#[cfg(feature = "cli")]
mod json;
#[cfg(feature = "cli")]
mod launch;
mod options;
mod origin;
mod parse;
mod passthrough;
#[cfg(feature = "cli")]
mod proxmox;
mod value;
mod words;

pub(crate) use cpu::default_model;
pub use cpu::{Cpu, CpuOptions, Model};
#[cfg(feature = "cli")]
pub(crate) use firmware::PCI_MMIO64_MB;
#[cfg(feature = "cli")]
pub use firmware::{Firmware, FirmwareOptions};
#[cfg(feature = "cli")]
pub use launch::{Launch, ProcessLimit};
pub use options::{Device, Global, Properties, Property};
pub use origin::{Origin, Told};
pub(crate) use passthrough::MDEV_FOLDER;
#[cfg(feature = "cli")]
pub use passthrough::Mobility;
pub use passthrough::{Passthrough, PassthroughKind};
pub(crate) use value::boolean;
pub use words::Argument;

/// What QEMU is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Which QEMU it is for.
    pub target: QemuTarget,
    /// `-machine`.
    pub machine: Machine,
    /// The first `-accel` that QEMU has.
    pub accelerator: Option<Accelerator>,
    /// `-cpu`; the machine type's default if there is none.
    pub cpu: Option<Cpu>,
    /// `-m`; [`DEFAULT_RAM`] if there is none.
    pub memory: Option<Memory>,
    /// CPU sockets with a CPU in them (`-smp`); 0 if not given.
    pub sockets: u64,
    /// `-object memory-backend-*`, in order.
    pub backends: Vec<MemoryBackend>,
    /// `-numa node`, in order.
    pub nodes: Vec<NumaNode>,
    /// `-global`, in order: where two say different things, the last counts.
    pub globals: Vec<Global>,
    /// `-device`, in order.
    pub devices: Vec<Device>,
    /// `-netdev` and `-blockdev`, in order.
    pub host_ends: Vec<Device>,
    /// What may change any of this and is not modelled, in order.
    pub not_modelled: Vec<NotModelled>,
    /// What QEMU refuses to start with, in order, where this is all that QEMU is told.
    pub refused: Vec<Refused>,
    /// What QEMU is told of firmware.
    #[cfg(feature = "cli")]
    pub firmware: FirmwareOptions,
}

/// An argument that is not modelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotModelled {
    /// The option.
    pub option: String,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// An argument that QEMU does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The option.
    pub option: String,
    /// Its value; empty if it misses one.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The first QEMU that does not take it; `None` if none does.
    pub from: Option<Version>,
}

impl Refused {
    fn new(option: &Argument<'_>, value: &str) -> Self {
        Self { option: option.text.to_owned(), value: value.to_owned(), origin: option.origin, from: None }
    }
}

/// The QEMUs that have `pc` and `q35`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QemuTarget {
    /// `qemu-system-x86_64`.
    #[default]
    X86_64,
    /// `qemu-system-i386`: no CPU of it has long mode.
    I386,
}

/// RAM of a machine without `-m`, in bytes (`default_ram_size` in QEMU `hw/core/machine.c`).
pub const DEFAULT_RAM: u64 = 128 << 20;

/// `-machine`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The machine type.
    pub kind: Option<Told<String>>,
    /// `acpi=`; QEMU takes on for granted.
    pub acpi: Option<bool>,
    /// `memory-backend=`: the id of the backend that is the RAM.
    pub memory_backend: Option<String>,
    /// `max-ram-below-4g=`, in bytes.
    pub max_ram_below_4g: Option<Told<u64>>,
    /// `default-bus-bypass-iommu=`: devices on the root bus do without the virtual IOMMU.
    pub bypasses_iommu: bool,
    /// The first of `accel=` that QEMU has, or `-enable-kvm`; the last of these options counts.
    pub accelerator: Option<Accelerator>,
}

/// What runs the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// KVM.
    Kvm,
    /// QEMU's own translator.
    #[default]
    Tcg,
}

/// `-m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// `size`: RAM without memory devices, in bytes; 0 is the same as none.
    pub size: Told<u64>,
    /// `slots`.
    pub slots: Option<Told<u64>>,
    /// `maxmem`, in bytes.
    pub maxmem: Option<Told<u64>>,
}

impl Memory {
    /// The number of slots for memory devices.
    pub fn slots(&self) -> u64 {
        self.slots.map_or(0, |slots| slots.value)
    }
}

/// An `-object memory-backend-*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBackend {
    /// `id`.
    pub id: String,
    /// The kind.
    pub kind: BackendKind,
    /// `size`, in bytes.
    pub size: Told<u64>,
    /// `align`, in bytes.
    pub align: Option<u64>,
    /// The pages that it consists of.
    pub page: PageSize,
}

/// The kinds of memory backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// `memory-backend-ram`: anonymous memory.
    Ram,
    /// `memory-backend-file`.
    File,
    /// `memory-backend-memfd`.
    Memfd,
}

/// The pages of a memory backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSize {
    /// Pages of the host's base size.
    Base,
    /// Huge pages of the host's default size.
    DefaultHuge,
    /// Huge pages of this many bytes.
    Huge(u64),
}

/// A `-numa node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// `nodeid`.
    pub id: u64,
    /// What its RAM is.
    pub memory: NodeMemory,
}

/// The RAM of a NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMemory {
    /// `memdev=`: the id of a backend.
    Backend(String),
    /// `mem=`, in bytes.
    Size(u64),
    /// Neither.
    None,
}

impl CommandLine {
    /// The memory backend called `id`.
    pub fn backend(&self, id: &str) -> Option<&MemoryBackend> {
        self.backends.iter().find(|backend| backend.id == id)
    }

    /// The memory backends by their ids.
    pub(crate) fn backends_by_id(&self) -> HashMap<&str, &MemoryBackend> {
        self.backends.iter().rev().map(|backend| (backend.id.as_str(), backend)).collect()
    }

    /// What runs the CPU (`configure_accelerators` in QEMU `softmmu/vl.c`).
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator.or(self.machine.accelerator).unwrap_or_default()
    }

    /// What the last `-global` says of `property` of an object of one of the `classes`.
    pub fn global(&self, classes: &[&str], property: &str) -> Option<&Property> {
        let mut globals = self.globals.iter().rev();
        let global =
            globals.find(|global| global.property.name == property && classes.contains(&global.driver.as_ref()));
        global.map(|global| &global.property)
    }
}
