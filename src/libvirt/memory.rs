//! `-m` and the sizes of memory devices.
//!
//! Sources: libvirt 9.0 and 11.3, `virDomainDefPostParseMemory` (`src/conf/domain_postparse.c`),
//! `qemuDomainAlignMemorySizes` and `qemuDomainDefValidateMemoryHotplug` (`src/qemu/qemu_domain.c`),
//! `qemuBuildMemCommandLine` (`src/qemu/qemu_command.c`).

use std::collections::HashSet;

use super::{Refusal, refuse};
use crate::address::round_up;
use crate::command_line::{Memory, Told};
use crate::domain::{Domain, MemoryDevice, MemoryModel};
use crate::version::Version;

/// The unit, in KiB, that memory and NUMA cells are rounded up to on x86.
const MEMORY_ALIGNMENT_KIB: u64 = 1024;

/// The unit, in KiB, that memory devices are rounded up to on x86.
const DEVICE_ALIGNMENT_KIB: u64 = 2048;

/// The smallest label of an NVDIMM, in KiB.
const MIN_LABEL_KIB: u64 = 128;

/// The first libvirt known to take `<maxMemory>` without slots and to count only DIMMs and NVDIMMs against them.
const SLOTS_OPTIONAL: Version = Version::new(11, 3);

/// The last libvirt known not to.
const SLOTS_REQUIRED: Version = Version::new(9, 0);

/// The sizes libvirt writes, in bytes.
pub(super) struct Sizes {
    /// `-m`.
    pub memory: Memory,
    /// Each NUMA cell's, in order.
    pub cells: Vec<u64>,
    /// Each memory device's, in document order.
    pub devices: Vec<u64>,
}

/// The sizes when the guest is started (not on incoming migration or restore, where nothing is aligned).
pub(super) fn sizes(domain: &Domain, libvirt: Option<Version>) -> Result<Sizes, Refusal> {
    let slots = domain.slots.map_or(0, |slots| slots.value);
    let maximum = domain.max_memory.filter(|maximum| maximum.value > 0);
    let devices_kib = domain.memory_devices.iter().try_fold(0u64, |sum, device| sum.checked_add(device.size.value));
    let overflow =
        || Refusal { message: "the sum of all memory sizes is more than libvirt accepts".into(), span: domain.span };
    let devices_kib = devices_kib.ok_or_else(overflow)?;
    let cells_kib =
        domain.numa_cells.iter().try_fold(0u64, |sum, cell| sum.checked_add(cell.value)).ok_or_else(overflow)?;

    // The cells decide where there are any; `<memory>` is then overwritten.
    let (initial_kib, span) = if cells_kib > 0 {
        (cells_kib, domain.numa_cells[0].span)
    } else {
        let total = domain.memory.map_or(0, |memory| memory.value);
        let span = domain.memory.map_or(domain.span, |memory| memory.span);
        match total.checked_sub(devices_kib) {
            Some(initial) => (initial, span),
            None => return refuse(span, "the memory devices are larger than the whole memory"),
        }
    };
    if initial_kib == 0 {
        return refuse(span, "memory size must be specified with <memory> or <numa>");
    }
    let total_kib = initial_kib.checked_add(devices_kib).ok_or_else(overflow)?;
    if let Some(maximum) = maximum.filter(|maximum| maximum.value < total_kib) {
        return refuse(maximum.span, "<maxMemory> is less than the memory the guest has");
    }
    hotplug(domain, slots, maximum.is_some(), libvirt)?;

    let align = |kib: u64, unit: u64| round_up(kib, unit).and_then(|kib| kib.checked_mul(1024)).ok_or_else(overflow);
    let cells = domain.numa_cells.iter().map(|cell| align(cell.value, MEMORY_ALIGNMENT_KIB));
    let cells = cells.collect::<Result<Vec<u64>, Refusal>>()?;
    let ram = if cells_kib > 0 {
        cells.iter().try_fold(0u64, |sum, &cell| sum.checked_add(cell)).ok_or_else(overflow)?
    } else {
        align(initial_kib, MEMORY_ALIGNMENT_KIB)?
    };
    let devices = domain.memory_devices.iter().map(|device| align(device.size.value, DEVICE_ALIGNMENT_KIB));
    let devices = devices.collect::<Result<Vec<u64>, Refusal>>()?;
    let maxmem = maximum.map(|maximum| Ok(Told::in_xml(align(maximum.value, MEMORY_ALIGNMENT_KIB)?, maximum.span)));
    let slots = domain.slots.map(|slots| Told::in_xml(u64::from(slots.value), slots.span));
    let memory = Memory { size: Told::in_xml(ram, span), slots, maxmem: maxmem.transpose()? };
    Ok(Sizes { memory, cells, devices })
}

fn hotplug(domain: &Domain, slots: u32, has_maximum: bool, libvirt: Option<Version>) -> Result<(), Refusal> {
    let span = domain.max_memory.map_or(domain.span, |maximum| maximum.span);
    let old =
        libvirt.is_some_and(|version| (version.major, version.minor) <= (SLOTS_REQUIRED.major, SLOTS_REQUIRED.minor));
    if (slots > 0 && !has_maximum) || (has_maximum && slots == 0 && old) {
        return refuse(span, "<maxMemory> needs a size and slots");
    }
    let device_without_window = domain.memory_devices.iter().find(|device| device.model != MemoryModel::SgxEpc);
    if !has_maximum {
        return match device_without_window {
            Some(device) => refuse(device.span, "a memory device needs <maxMemory>"),
            None => Ok(()),
        };
    }
    if domain.numa_cells.is_empty() {
        return refuse(span, "memory hotplug needs at least one NUMA cell");
    }
    let new = libvirt.is_none_or(|version| version >= SLOTS_OPTIONAL);
    let takes_slot = |device: &&MemoryDevice| !new || matches!(device.model, MemoryModel::Dimm | MemoryModel::Nvdimm);
    if let Some(device) = domain.memory_devices.iter().filter(takes_slot).nth(slots as usize) {
        return refuse(device.span, format!("more memory devices than the {slots} slots of <maxMemory>"));
    }
    domain.memory_devices.iter().try_for_each(|device| check_device(device, slots, domain.numa_cells.len()))?;
    check_doubles(domain)
}

fn check_device(device: &MemoryDevice, slots: u32, cells: usize) -> Result<(), Refusal> {
    if let Some(node) = device.node.filter(|node| node.value as usize >= cells) {
        return refuse(node.span, format!("NUMA node {} is not among the {cells} cells", node.value));
    }
    if let Some(slot) = device.slot.filter(|slot| slot.value >= slots) {
        return refuse(slot.span, format!("slot {} is not among the {slots} slots of <maxMemory>", slot.value));
    }
    let label = device.label_kib.filter(|_| device.model == MemoryModel::Nvdimm);
    if label.is_some_and(|label| label < MIN_LABEL_KIB || label >= device.size.value) {
        return refuse(device.span, "the label of an NVDIMM takes at least 128 KiB and less than the device");
    }
    let block = device.block_kib.filter(|_| device.model == MemoryModel::VirtioMem);
    if block.is_some_and(|block| block < DEVICE_ALIGNMENT_KIB || !block.is_power_of_two()) {
        return refuse(device.span, "the block size of virtio-mem is a power of two and at least 2 MiB");
    }
    Ok(())
}

fn check_doubles(domain: &Domain) -> Result<(), Refusal> {
    let (mut slots, mut addresses) = (HashSet::new(), HashSet::new());
    for device in &domain.memory_devices {
        if let Some(slot) = device.slot.filter(|slot| !slots.insert(slot.value)) {
            return refuse(slot.span, format!("slot {} is given twice", slot.value));
        }
        let address = device.address.filter(|_| device.model != MemoryModel::VirtioMem);
        if let Some(address) = address.filter(|address| !addresses.insert(address.value)) {
            return refuse(address.span, format!("base {:#x} is given twice", address.value));
        }
    }
    Ok(())
}
