//! What QEMU builds from a command line: the vCPU's vendor and phys-bits, and the guest-physical memory map.
//!
//! Formulas follow QEMU's source; each names the function and version it comes from.

pub mod cpu;
#[cfg(feature = "cli")]
pub mod discard;
pub mod layout;
pub mod memory_backend;
pub mod memory_device;
#[cfg(feature = "cli")]
pub mod pinned;
pub mod tables;
pub mod viommu;

use std::collections::HashMap;
#[cfg(feature = "cli")]
use std::collections::HashSet;

use crate::address::round_up;
use crate::command_line::{CommandLine, DEFAULT_RAM, NodeMemory, NumaNode, Origin, Told};
use crate::machine::{Family, MachineType};
use crate::text::quoted;
use crate::version::Version;
use cpu::{CpuRefusal, HostCpu, Vcpu};
use layout::{Layout, LayoutError, LayoutInput};
use memory_backend::BackendError;
use memory_device::{MemoryDeviceKind, PlacementError, Plugged};
use tables::TableError;

/// What QEMU builds.
#[derive(Debug)]
pub struct Built {
    /// The CPU, or why QEMU refuses it.
    pub cpu: Result<Vcpu, CpuRefusal>,
    /// Why QEMU refuses `-m`, if it does.
    pub memory_refusal: Option<String>,
    /// The piece of memory that QEMU or KVM refuses, if one does, and the place that decides.
    pub backend_refusal: Option<(BackendError, Origin)>,
    /// Why QEMU cannot describe the map to the firmware.
    pub table_refusal: Option<TableError>,
    /// RAM without memory devices, in bytes.
    pub ram: u64,
    /// `pci-hole64-size`, bytes, where it is told one.
    pub pci_hole64_size: Option<Told<u64>>,
    /// The map; `None` if QEMU refuses before there is one.
    pub layout: Option<Result<Layout, LayoutError>>,
    /// The memory devices in the order QEMU plugs them; or the index in [`CommandLine::devices`] of the one it refuses.
    pub plugged: Result<Vec<Plugged>, (usize, PlacementError)>,
}

/// Builds the guest that `line` describes.
pub fn build(line: &CommandLine, machine: &MachineType, host: HostCpu<'_>, qemu: Version) -> Built {
    let cpu =
        Vcpu::realize(&line.cpu_options(), line.accelerator(), line.target, host, qemu, machine.host_phys_bits_limit);
    let (ram, maxmem, slots) = memory(line);
    let size_refusal = size_refusal(line, ram, qemu);
    let pci_hole64_size = pci_hole64_size(line, machine.family);
    let layout = match &cpu {
        // QEMU refuses the sizes before it makes a CPU, everything else only after the map is laid out.
        Ok(cpu) if size_refusal.is_none() => Some(Layout::plan(&LayoutInput {
            machine,
            qemu,
            amd: cpu.is_amd(),
            long_mode: cpu.long_mode,
            phys_bits: cpu.phys_bits,
            ram,
            maxmem,
            slots,
            pci_hole64_size: pci_hole64_size.map(|size| size.value),
            max_ram_below_4g: line.machine.max_ram_below_4g.map(|limit| limit.value),
        })),
        _ => None,
    };
    let plugged = match &layout {
        Some(Ok(layout)) => memory_device::plug(line, machine, layout.device_memory, maxmem.saturating_sub(ram)),
        _ => Ok(Vec::new()),
    };
    let map = layout.as_ref().and_then(|layout| layout.as_ref().ok());
    let too_large = || memory_backend::too_large(line, map?, plugged.as_deref().unwrap_or_default());
    Built {
        ram,
        memory_refusal: size_refusal.or_else(|| memory_refusal(line, machine, ram)),
        backend_refusal: memory_backend::refused(line, machine, qemu).or_else(too_large),
        table_refusal: map.and_then(|map| tables::refused(line, machine, map, ram, qemu)),
        cpu,
        pci_hole64_size,
        layout,
        plugged,
    }
}

/// RAM, the most memory there can be, both in bytes, and the slots (`machine_set_mem` in QEMU `hw/core/machine.c`,
/// `qemu_resolve_machine_memdev` in `softmmu/vl.c`).
fn memory(line: &CommandLine) -> (u64, u64, u64) {
    let told = line.memory.map(|memory| memory.size.value).filter(|&size| size > 0);
    let backend = || line.machine.memory_backend.as_ref().and_then(|id| line.backend(id));
    // The size of a backend is taken as it is.
    let rounded = |bytes: u64| round_up(bytes, RAM_UNIT).unwrap_or(bytes);
    let of_backend = || backend().map(|backend| backend.size.value);
    let ram = told.map(rounded).or_else(of_backend).unwrap_or(DEFAULT_RAM);
    let maxmem = line.memory.and_then(|memory| memory.maxmem);
    (ram, maxmem.map_or(ram, |maxmem| maxmem.value), line.memory.map_or(0, |memory| memory.slots()))
}

/// RAM is rounded up to this many bytes (`machine_set_mem` in QEMU `hw/core/machine.c`).
const RAM_UNIT: u64 = 8192;

/// What the most memory is a multiple of, in bytes (`TARGET_PAGE_SIZE` in QEMU `pc_memory_init`).
const PAGE: u64 = 4096;

/// The first QEMU that does not split RAM among nodes without memory (`docs/about/removed-features.rst`).
const WITHOUT_IMPLICIT_NODES: Version = Version::new(5, 2);

/// The last machine type that takes `-numa node,mem=` (`numa_mem_supported` in QEMU `hw/i386/pc_q35.c` and
/// `pc_piix.c`).
const LAST_WITH_NODE_SIZES: Version = Version::new(5, 0);

/// Why QEMU refuses the sizes in `-m` (`machine_set_mem` and `machine_run_board_init` in QEMU `hw/core/machine.c`,
/// `numa_complete_configuration` in `hw/core/numa.c`).
fn size_refusal(line: &CommandLine, ram: u64, qemu: Version) -> Option<String> {
    if let Some(memory) = &line.memory {
        match memory.maxmem.map(|maxmem| maxmem.value) {
            Some(maxmem) if maxmem < ram => {
                return Some(format!(
                    "invalid value of maxmem: maximum memory size ({maxmem:#x}) must be at least the initial memory size \
                     ({ram:#x})"
                ));
            }
            Some(maxmem) if memory.slots() > 0 && maxmem == ram => {
                return Some(format!(
                    "invalid value of maxmem: memory slots were specified but maximum memory size ({maxmem:#x}) is equal \
                     to the initial memory size ({ram:#x})"
                ));
            }
            None if memory.slots.is_some_and(|slots| slots.value > 0) => {
                return Some("slots specified but no max-size".to_owned());
            }
            _ => {}
        }
    }
    let backends = if line.nodes.is_empty() { HashMap::new() } else { line.backends_by_id() };
    let node = |node: &NumaNode| match &node.memory {
        NodeMemory::Backend(id) => backends.get(id.as_str()).map_or(0, |backend| backend.size.value),
        NodeMemory::Size(bytes) => *bytes,
        NodeMemory::None => 0,
    };
    let missing = line.nodes.iter().find_map(|node| match &node.memory {
        NodeMemory::Backend(id) if !backends.contains_key(id.as_str()) => Some(id),
        _ => None,
    });
    if let Some(id) = missing {
        return Some(format!("memdev={} of a NUMA node is not a memory backend", quoted(id)));
    }
    #[cfg(feature = "cli")]
    if let Some(why) = nodes_refusal(line) {
        return Some(why);
    }
    let told = qemu >= WITHOUT_IMPLICIT_NODES || line.nodes.iter().any(|node| node.memory != NodeMemory::None);
    let total = line.nodes.iter().map(node).fold(0, u64::saturating_add);
    if told && !line.nodes.is_empty() && total != ram {
        return Some(format!("total memory for NUMA nodes ({total:#x}) should equal RAM size ({ram:#x})"));
    }
    let id = line.machine.memory_backend.as_deref()?;
    let Some(backend) = line.backend(id) else {
        return Some(format!("memory-backend={} is not a memory backend", quoted(id)));
    };
    Some(backend)
        .filter(|backend| backend.size.value != ram)
        .map(|_| "Machine memory size does not match the size of the memory backend".to_owned())
}

/// Why QEMU refuses the NUMA nodes of a command line that libvirt has not checked: libvirt numbers them and gives each
/// its own memory (`numa_complete_configuration` and `numa_init_memdev_container` in QEMU `hw/core/numa.c`).
#[cfg(feature = "cli")]
fn nodes_refusal(line: &CommandLine) -> Option<String> {
    let ids: HashSet<u64> = line.nodes.iter().map(|node| node.id).collect();
    let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    if let Some(missing) = (0..count).find(|id| !ids.contains(id)) {
        return Some(format!("numa: Node ID missing: {missing}"));
    }
    let mut used = HashSet::new();
    let memdevs = line.nodes.iter().filter_map(|node| match &node.memory {
        NodeMemory::Backend(id) => Some(id.as_str()),
        _ => None,
    });
    for id in memdevs {
        if line.machine.memory_backend.is_some() {
            return Some("'-machine memory-backend' and '-numa memdev' properties are mutually exclusive".to_owned());
        }
        if !used.insert(id) {
            return Some(format!("memory backend {} can't be used multiple times", quoted(id)));
        }
    }
    None
}

/// The property of the PCI host bridge (QEMU `hw/pci-host/q35.c`, `hw/pci-host/i440fx.c`) and of what it is derived
/// from.
fn pci_hole64_size(line: &CommandLine, family: Family) -> Option<Told<u64>> {
    let classes: &[&str] = match family {
        Family::Q35 => &["q35-pcihost", "pcie-host-bridge", "pci-host-bridge"],
        Family::I440fx => &["i440FX-pcihost", "pci-host-bridge"],
    };
    let told = line.global(classes, "pci-hole64-size")?;
    Some(Told { value: told.size()?, origin: told.origin })
}

/// Why QEMU refuses `-m` with sizes that it takes: QEMU 7.2 to 11.1, `pc_memory_init` and `pc_memory_pre_plug`
/// (`hw/i386/pc.c`).
fn memory_refusal(line: &CommandLine, machine: &MachineType, ram: u64) -> Option<String> {
    let sized = line.nodes.iter().any(|node| matches!(node.memory, NodeMemory::Size(_)));
    if sized && machine.version > LAST_WITH_NODE_SIZES {
        return Some(format!("machine type {} takes memdev= of a NUMA node, and not mem=", quoted(&machine.name)));
    }
    let memory = line.memory.as_ref()?;
    let maxmem = memory.maxmem?.value;
    if !machine.has_reserved_memory() {
        return Some(format!("machine type {} has no memory hotplug", quoted(&machine.name)));
    }
    if memory.slots() > memory_device::MAX_SLOTS {
        return Some(format!(
            "{} memory slots, but QEMU supports at most {}",
            memory.slots(),
            memory_device::MAX_SLOTS
        ));
    }
    if maxmem > ram && !maxmem.is_multiple_of(PAGE) {
        return Some(format!("maxmem is not a multiple of {PAGE} bytes"));
    }
    let dimm = line.devices.iter().any(|device| MemoryDeviceKind::of(device).is_some_and(MemoryDeviceKind::has_slot));
    (dimm && line.machine.acpi == Some(false))
        .then(|| "memory hotplug is not enabled: missing acpi device or acpi disabled".to_owned())
}
