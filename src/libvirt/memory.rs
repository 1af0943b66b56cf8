//! `-m` and the sizes of memory devices.
//!
//! Sources: libvirt 9.0 and 11.3, `virDomainDefPostParseMemory` (`src/conf/domain_postparse.c`),
//! `qemuDomainAlignMemorySizes` and `qemuDomainDefValidateMemoryHotplug` (`src/qemu/qemu_domain.c`),
//! `qemuBuildMemCommandLine` (`src/qemu/qemu_command.c`).

use std::collections::HashSet;

use super::{Refusal, refuse};
use crate::address::round_up;
use crate::command_line::{Memory, Told};
use crate::domain::{Domain, MemoryDevice, MemoryModel, Sourced};
use crate::host::Host;
use crate::version::Version;

/// The unit, in KiB, that memory and NUMA cells are rounded up to on x86.
const MEMORY_ALIGNMENT_KIB: u64 = 1024;

/// The unit, in KiB, that memory devices are rounded up to on x86.
const DEVICE_ALIGNMENT_KIB: u64 = 2048;

/// The smallest label of an NVDIMM, in KiB.
const MIN_LABEL_KIB: u64 = 128;

/// The first libvirt that takes `<maxMemory>` without slots and counts only DIMMs and NVDIMMs against them (libvirt
/// `NEWS.rst`, v9.5.0).
const SLOTS_OPTIONAL: Version = Version::new(9, 5);

/// The first libvirt that adds a NUMA cell to a domain that needs one and has none (`qemuDomainDefNumaAutoAdd` in
/// `src/qemu/qemu_postparse.c`; libvirt `NEWS.rst`, v9.6.0).
pub(super) const CELL_ADDED: Version = Version::new(9, 6);

/// The first libvirt with `<target dynamicMemslots>` (libvirt `NEWS.rst`, v10.1.0).
pub(super) const DYNAMIC_MEMSLOTS: Version = Version::new(10, 1);

/// The first QEMU with `dynamic-memslots` (QEMU `hw/virtio/virtio-mem.c`).
const DYNAMIC_MEMSLOTS_QEMU: Version = Version::new(8, 2);

/// The sizes libvirt writes, in bytes.
pub(super) struct Sizes {
    /// `-m`.
    pub memory: Memory,
    /// Each NUMA cell's, in order.
    pub cells: Vec<u64>,
    /// Each memory device's, in document order.
    pub devices: Vec<u64>,
}

/// The sizes when the guest is started (not on incoming migration or restore, which align nothing).
pub(super) fn sizes(domain: &Domain, host: &Host) -> Result<Sizes, Refusal> {
    let slots = domain.slots.map_or(0, |slots| slots.value);
    let maximum = domain.max_memory.filter(|maximum| maximum.value > 0);
    let devices_kib = domain.memory_devices.iter().try_fold(0u64, |sum, device| sum.checked_add(device.size.value));
    let overflow =
        || Refusal { message: "the sum of all memory sizes is more than libvirt accepts".into(), span: domain.span };
    let devices_kib = devices_kib.ok_or_else(overflow)?;
    let cells_kib =
        domain.numa_cells.iter().try_fold(0u64, |sum, cell| sum.checked_add(cell.value)).ok_or_else(overflow)?;

    // The cells decide if there are any; `<memory>` is then overwritten.
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
        return refuse(maximum.span, "<maxMemory> is less than the guest's memory");
    }
    hotplug(domain, slots, maximum.is_some(), host)?;

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

fn hotplug(domain: &Domain, slots: u32, has_maximum: bool, host: &Host) -> Result<(), Refusal> {
    let span = domain.max_memory.map_or(domain.span, |maximum| maximum.span);
    let before = |version: Version| host.libvirt.is_some_and(|libvirt| libvirt < version);
    if (slots > 0 && !has_maximum) || (has_maximum && slots == 0 && before(SLOTS_OPTIONAL)) {
        return refuse(span, "<maxMemory> needs a size and slots");
    }
    if !has_maximum {
        return match domain.memory_devices.first() {
            Some(device) => refuse(device.span, "a memory device needs <maxMemory>"),
            None => Ok(()),
        };
    }
    let cell_added = domain.numa_cells.is_empty() && !before(CELL_ADDED);
    if domain.numa_cells.is_empty() && !cell_added {
        return refuse(span, "memory hotplug needs at least one NUMA cell");
    }
    let has_slot = |device: &MemoryDevice| matches!(device.model, MemoryModel::Dimm | MemoryModel::Nvdimm);
    let takes_slot = |device: &&MemoryDevice| before(SLOTS_OPTIONAL) || has_slot(device);
    if let Some(device) = domain.memory_devices.iter().filter(takes_slot).nth(slots as usize) {
        return refuse(device.span, format!("more memory devices than the {slots} slots of <maxMemory>"));
    }
    let cells = if cell_added { 1 } else { domain.numa_cells.len() };
    for device in &domain.memory_devices {
        node(device, cells, cell_added)?;
        match device.model {
            MemoryModel::Dimm => address(device, slots)?,
            MemoryModel::Nvdimm => {
                address(device, slots)?;
                nvdimm(device)?;
            }
            MemoryModel::VirtioMem => virtio_mem(device, host)?,
            MemoryModel::VirtioPmem => virtio_pmem(device)?,
            MemoryModel::SgxEpc => {}
        }
    }
    check_doubles(domain)
}

/// `virDomainMemoryDefValidate`, `qemuDomainDefValidateMemoryHotplugDevice`.
fn node(device: &MemoryDevice, cells: usize, cell_added: bool) -> Result<(), Refusal> {
    let takes_node = matches!(device.model, MemoryModel::Dimm | MemoryModel::Nvdimm | MemoryModel::VirtioMem);
    match device.node {
        Some(node) if device.model == MemoryModel::VirtioPmem => refuse(node.span, "virtio-pmem takes no NUMA node"),
        Some(node) if node.value as usize >= cells => {
            refuse(node.span, format!("NUMA node {} is not among the {cells} cells", node.value))
        }
        None if takes_node && !cell_added => refuse(device.span, "a memory device needs a NUMA node, <target><node>"),
        _ => Ok(()),
    }
}

/// The address of a DIMM (`virDomainDeviceDimmAddressParseXML` in `src/conf/device_conf.c`,
/// `qemuDomainDefValidateMemoryHotplugDevice`).
fn address(device: &MemoryDevice, slots: u32) -> Result<(), Refusal> {
    if !device.has_address {
        return Ok(());
    }
    match device.address_type.as_ref().map(|kind| (kind.value.as_str(), kind.span)) {
        None => return refuse(device.span, "<address> has no type"),
        Some(("dimm", _)) => {}
        Some((_, span)) => return refuse(span, "the <address> of a DIMM has the type dimm"),
    }
    match device.slot {
        None => refuse(device.span, "<address type='dimm'> has no slot"),
        Some(slot) if slot.value >= slots => {
            refuse(slot.span, format!("slot {} is not among the {slots} slots of <maxMemory>", slot.value))
        }
        Some(_) => Ok(()),
    }
}

/// `virDomainMemoryDefParseXML`, `virDomainMemoryDefValidate`.
fn nvdimm(device: &MemoryDevice) -> Result<(), Refusal> {
    if !device.has_path {
        return refuse(device.span, "an NVDIMM needs <source><path>");
    }
    match device.label_kib.is_some_and(|label| label > 0 && label < MIN_LABEL_KIB || label >= device.size.value) {
        true => refuse(device.span, "the label of an NVDIMM must be at least 128 KiB and smaller than the device"),
        false => Ok(()),
    }
}

/// `virDomainMemoryDefValidate`, `qemuValidateDomainDeviceDefMemory`.
fn virtio_mem(device: &MemoryDevice, host: &Host) -> Result<(), Refusal> {
    let requested = device.requested.unwrap_or(Sourced { value: 0, span: device.span });
    if requested.value > device.size.value {
        return refuse(requested.span, "more memory is requested of virtio-mem than the device has");
    }
    let block = device.block_kib.unwrap_or(0);
    if block < DEVICE_ALIGNMENT_KIB || !block.is_power_of_two() {
        return refuse(device.span, "the block size of virtio-mem is a power of two and at least 2 MiB");
    }
    if !requested.value.is_multiple_of(block) {
        return refuse(requested.span, "the memory requested of virtio-mem is not a multiple of its block size");
    }
    if device.has_address && device.address_type.as_ref().is_none_or(|kind| kind.value == "dimm") {
        return refuse(device.span, "the <address> of virtio-mem has the type pci");
    }
    let lacks = host.qemu.is_some_and(|qemu| qemu < DYNAMIC_MEMSLOTS_QEMU);
    let knows = host.libvirt.is_some_and(|libvirt| libvirt >= DYNAMIC_MEMSLOTS);
    match device.dynamic_memslots.filter(|_| lacks && knows) {
        Some(dynamic) => refuse(dynamic.span, "this QEMU has no dynamicMemslots"),
        None => Ok(()),
    }
}

/// `virDomainMemoryDefValidate`.
fn virtio_pmem(device: &MemoryDevice) -> Result<(), Refusal> {
    if !device.has_path {
        return refuse(device.span, "virtio-pmem needs <source><path>");
    }
    // Without an access it is shared (`virDomainMemoryDefPostParse`).
    match device.has_access && !device.is_shared {
        true => refuse(device.span, "virtio-pmem needs access='shared'"),
        false => Ok(()),
    }
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
