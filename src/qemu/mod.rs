//! What QEMU builds from a command line: the vCPU's vendor and phys-bits, and the guest-physical memory map.
//!
//! Formulas follow QEMU's source; each names the function and version it comes from.

pub mod cpu;
pub mod layout;
pub mod memory_backend;
pub mod memory_device;
pub mod tables;

use crate::command_line::{CommandLine, DEFAULT_RAM, Memory, Origin};
use crate::machine::{Family, MachineType};
use crate::version::Version;
use cpu::{Cpu, CpuRefusal, HostCpu};
use layout::{Layout, LayoutError, LayoutInput};
use memory_backend::BackendError;
use memory_device::{Kind, PlacementError, Plugged};
use tables::TableError;

/// What QEMU builds.
#[derive(Debug)]
pub struct Built {
    /// The CPU, or why QEMU refuses it.
    pub cpu: Result<Cpu, CpuRefusal>,
    /// Why QEMU refuses `-m`, if it does.
    pub memory_refusal: Option<String>,
    /// The piece of memory that QEMU or KVM refuses, if one does, and the place that decides.
    pub backend_refusal: Option<(BackendError, Origin)>,
    /// Why QEMU cannot describe the map to the firmware.
    pub table_refusal: Option<TableError>,
    /// `pci-hole64-size`, bytes, where it is told one.
    pub pci_hole64_size: Option<u64>,
    /// The map; `None` where QEMU refuses before there is one.
    pub layout: Option<Result<Layout, LayoutError>>,
    /// The memory devices in the order QEMU plugs them; or the index in [`CommandLine::devices`] of the one it refuses.
    pub plugged: Result<Vec<Plugged>, (usize, PlacementError)>,
}

/// Builds the guest that `line` describes.
pub fn build(line: &CommandLine, machine: &MachineType, host: HostCpu<'_>, qemu: Version) -> Built {
    let cpu =
        Cpu::realize(&line.cpu_options(), line.accelerator, line.target, host, qemu, machine.host_phys_bits_limit);
    let (ram, maxmem, slots) = memory(line);
    let pci_hole64_size = pci_hole64_size(line, machine.family);
    let layout = match &cpu {
        // QEMU refuses slots without room before it makes a CPU, everything else only after the map is laid out.
        Ok(cpu) if !slots_without_room(line.memory.as_ref()) => Some(Layout::plan(&LayoutInput {
            machine,
            qemu,
            amd: cpu.is_amd(),
            long_mode: cpu.long_mode,
            phys_bits: cpu.phys_bits,
            ram,
            maxmem,
            slots,
            pci_hole64_size,
        })),
        _ => None,
    };
    let plugged = match &layout {
        Some(Ok(layout)) => memory_device::plug(line, layout.device_memory, maxmem.saturating_sub(ram)),
        _ => Ok(Vec::new()),
    };
    let map = layout.as_ref().and_then(|layout| layout.as_ref().ok());
    let too_large = || memory_backend::too_large(line, map?, plugged.as_deref().unwrap_or_default());
    Built {
        memory_refusal: memory_refusal(line, machine),
        backend_refusal: memory_backend::refused(line, machine, qemu).or_else(too_large),
        table_refusal: map.and_then(|map| tables::refused(line, machine, map, ram, qemu)),
        cpu,
        pci_hole64_size,
        layout,
        plugged,
    }
}

/// RAM, the most memory there can be, both in bytes, and the slots.
fn memory(line: &CommandLine) -> (u64, u64, u64) {
    match &line.memory {
        Some(memory) => {
            let ram = memory.size.value;
            (ram, memory.maxmem.map_or(ram, |maxmem| maxmem.value), memory.slots())
        }
        None => (DEFAULT_RAM, DEFAULT_RAM, 0),
    }
}

fn slots_without_room(memory: Option<&Memory>) -> bool {
    memory.is_some_and(|memory| {
        memory.slots() > 0 && memory.maxmem.is_some_and(|maxmem| maxmem.value == memory.size.value)
    })
}

/// The property of the PCI host bridge (QEMU `hw/pci-host/q35.c`, `hw/pci-host/i440fx.c`) and of what it is derived
/// from.
fn pci_hole64_size(line: &CommandLine, family: Family) -> Option<u64> {
    let classes: &[&str] = match family {
        Family::Q35 => &["q35-pcihost", "pcie-host-bridge", "pci-host-bridge", "sys-bus-device", "device"],
        Family::I440fx => &["i440FX-pcihost", "pci-host-bridge", "sys-bus-device", "device"],
    };
    let kib = line.global(classes, "pci-hole64-size")?.value.strip_suffix('K')?.parse::<u64>().ok()?;
    kib.checked_mul(1024)
}

/// QEMU 7.2 to 11.1: `machine_set_mem` and `machine_parse_memory` (`hw/core/machine.c`), `pc_memory_init` and
/// `pc_memory_pre_plug` (`hw/i386/pc.c`).
fn memory_refusal(line: &CommandLine, machine: &MachineType) -> Option<String> {
    let memory = line.memory.as_ref()?;
    memory.maxmem?;
    if slots_without_room(Some(memory)) {
        return Some("there are memory slots, but <maxMemory> is no more than the initial memory".to_owned());
    }
    if !machine.has_reserved_memory() {
        return Some(format!("machine type {} has no memory hotplug", machine.name));
    }
    if memory.slots() > memory_device::MAX_SLOTS {
        return Some(format!("{} memory slots, QEMU has at most {}", memory.slots(), memory_device::MAX_SLOTS));
    }
    let dimm = line.devices.iter().any(|device| Kind::of(device).is_some_and(Kind::has_slot));
    (dimm && line.machine.acpi == Some(false)).then(|| "a DIMM needs <features><acpi/></features>".to_owned())
}
