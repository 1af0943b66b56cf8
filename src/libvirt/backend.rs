//! Memory backends and memory devices.
//!
//! Sources: libvirt 9.0 and 11.3, `qemuBuildMemoryBackendProps`, `qemuBuildMemoryGetPagesize`,
//! `qemuBuildMemoryDeviceProps` and `qemuBuildNumaCommandLine` (`src/qemu/qemu_command.c`),
//! `qemuAssignDeviceMemoryAlias` (`src/qemu/qemu_alias.c`), `qemuDomainAssignMemorySlots`
//! (`src/qemu/qemu_domain_address.c`).

use std::collections::HashSet;

use super::memory::{CELL_ADDED, DYNAMIC_MEMSLOTS, Sizes};
use crate::command_line::{
    BackendKind, CommandLine, Device, MemoryBackend, NodeMemory, NumaNode, Origin, PageSize, Properties, Told,
};
use crate::domain::{Domain, MemoryDevice, MemoryModel, MemorySource};
use crate::machine::MachineType;
use crate::version::Version;

/// The base page of an x86 host, in KiB.
const BASE_PAGE_KIB: u64 = 4;

/// The backend that is the RAM of an x86 machine (`default_ram_id` in QEMU `hw/i386/pc.c`).
const RAM: &str = "pc.ram";

/// The first libvirt known to pass a virtio device's address on.
const VIRTIO_ADDRESS_SINCE: Version = Version::new(9, 4);

/// The last libvirt measured to write a backend for a NUMA cell without memory, which QEMU refuses; 12.8 writes none.
const LAST_WITH_EMPTY_BACKEND: Version = Version::new(11, 3);

/// The last machine type of which a NUMA node may have a size in place of a backend (`numa_mem_supported` in QEMU
/// `hw/i386/pc_q35.c` and `hw/i386/pc_piix.c`).
const LAST_WITH_SIZED_NODES: Version = Version::new(5, 0);

/// More cells than QEMU has (`MAX_NODES` in QEMU `include/sysemu/numa.h`) have no pages of their own.
const MAX_NODES: usize = 128;

/// Writes the memory of a domain whose sizes are these.
pub(super) fn memory(
    domain: &Domain,
    machine: Option<&MachineType>,
    sizes: &Sizes,
    libvirt: Option<Version>,
    line: &mut CommandLine,
) {
    let cell_added = domain.max_memory.is_some_and(|maximum| maximum.value > 0)
        && libvirt.is_none_or(|version| version >= CELL_ADDED);
    let mut cells: Vec<Told<u64>> =
        domain.numa_cells.iter().zip(&sizes.cells).map(|(cell, &size)| Told::in_xml(size, cell.span)).collect();
    if cells.is_empty() && cell_added {
        cells.push(sizes.memory.size);
    }
    if cells.is_empty() {
        line.machine.memory_backend = Some(RAM.to_owned());
        let backing = Backing { cell: None, page_kib: None, has_access: false };
        line.backends.push(backend(domain, RAM.to_owned(), sizes.memory.size, &backing));
    }
    let nodes = (0..).zip(cells).map(|(index, size)| {
        let backing = Backing { cell: Some(index), page_kib: None, has_access: false };
        (index, backend(domain, format!("ram-node{index}"), size, &backing))
    });
    let nodes: Vec<(u32, MemoryBackend)> = nodes.collect();
    // Old machine types take sizes in place of backends, and get them unless a backend sets more than a size.
    let plain = nodes.iter().all(|(_, backend)| backend.kind == BackendKind::Ram) && !domain.has_memory_nodes;
    if plain && machine.is_some_and(|machine| machine.version <= LAST_WITH_SIZED_NODES) {
        let sized = |(index, backend): &(u32, MemoryBackend)| NumaNode {
            id: u64::from(*index),
            memory: NodeMemory::Size(backend.size.value),
        };
        line.nodes.extend(nodes.iter().map(sized));
    } else {
        nodes.into_iter().for_each(|(index, backend)| add_node(index, backend, libvirt, line));
    }
    let mut names = Names::new(domain);
    for (device, &size) in domain.memory_devices.iter().zip(&sizes.devices) {
        memory_device(domain, device, size, libvirt, &mut names, line);
    }
}

fn add_node(index: u32, backend: MemoryBackend, libvirt: Option<Version>, line: &mut CommandLine) {
    let without_memory = backend.size.value == 0 && libvirt.is_none_or(|version| version > LAST_WITH_EMPTY_BACKEND);
    let memory = if without_memory { NodeMemory::None } else { NodeMemory::Backend(backend.id.clone()) };
    line.nodes.push(NumaNode { id: u64::from(index), memory });
    if !without_memory {
        line.backends.push(backend);
    }
}

fn memory_device(
    domain: &Domain,
    device: &MemoryDevice,
    size: u64,
    libvirt: Option<Version>,
    names: &mut Names,
    line: &mut CommandLine,
) {
    let (slot, id) = names.next(device);
    let driver = match device.model {
        MemoryModel::Dimm => "pc-dimm",
        MemoryModel::Nvdimm => "nvdimm",
        MemoryModel::VirtioMem => "virtio-mem-pci",
        MemoryModel::VirtioPmem => "virtio-pmem-pci",
        // Part of -machine, and not in the device memory region.
        MemoryModel::SgxEpc => return,
    };
    let backend_id = format!("mem{id}");
    let backing = Backing {
        cell: device.node.map(|node| node.value),
        page_kib: device.page_kib.filter(|&kib| kib > 0),
        has_access: device.has_access,
    };
    let mut backend = backend(domain, backend_id.clone(), Told::in_xml(size, device.size.span), &backing);
    if matches!(device.model, MemoryModel::Nvdimm | MemoryModel::VirtioPmem) {
        (backend.kind, backend.page) = (BackendKind::File, PageSize::Base);
    }
    backend.align = device.align_kib.filter(|&kib| kib > 0).and_then(|kib| kib.checked_mul(1024));
    line.backends.push(backend);

    let origin = Origin::Xml(device.span);
    let mut properties = Properties::new();
    if let Some(node) = device.node.filter(|_| device.model != MemoryModel::VirtioPmem) {
        properties.set("node", node.value, Origin::Xml(node.span));
    }
    let bytes = |kib: Option<u64>| kib.filter(|&kib| kib > 0).and_then(|kib| kib.checked_mul(1024));
    if let Some(label) = bytes(device.label_kib).filter(|_| device.model == MemoryModel::Nvdimm) {
        properties.set("label-size", label, origin);
    }
    if let Some(block) = bytes(device.block_kib).filter(|_| device.model == MemoryModel::VirtioMem) {
        properties.set("block-size", block, origin);
    }
    let dynamic = device.dynamic_memslots.filter(|dynamic| dynamic.value && device.model == MemoryModel::VirtioMem);
    if let Some(dynamic) = dynamic.filter(|_| libvirt.is_none_or(|version| version >= DYNAMIC_MEMSLOTS)) {
        properties.set("dynamic-memslots", "on", Origin::Xml(dynamic.span));
    }
    properties.set("memdev", backend_id, origin);
    let virtio = matches!(device.model, MemoryModel::VirtioMem | MemoryModel::VirtioPmem);
    if let Some(slot) = slot {
        properties.set("slot", slot, device.slot.map_or(origin, |slot| Origin::Xml(slot.span)));
    }
    let passed_on = !virtio || libvirt.is_none_or(|version| version >= VIRTIO_ADDRESS_SINCE);
    if let Some(address) = device.address.filter(|_| passed_on) {
        let name = if virtio { "memaddr" } else { "addr" };
        properties.set(name, address.value, Origin::Xml(address.span));
    }
    line.devices.push(Device { driver: driver.into(), id: Some(id), properties, origin, settable: false });
}

/// What decides the pages of a piece of memory.
struct Backing {
    /// The cell it belongs to.
    cell: Option<u32>,
    /// The huge page it asks for itself, in KiB.
    page_kib: Option<u64>,
    /// Whether it has an access of its own.
    has_access: bool,
}

fn backend(domain: &Domain, id: String, size: Told<u64>, backing: &Backing) -> MemoryBackend {
    let page = page(domain, backing);
    let cell = backing.cell.and_then(|cell| domain.cells_with_access.get(cell as usize));
    let has_access = backing.has_access || cell.is_some_and(|&has_access| has_access) || domain.backing.has_access;
    let kind = match domain.backing.source {
        Some(MemorySource::Memfd) => BackendKind::Memfd,
        Some(MemorySource::File) => BackendKind::File,
        None if page != PageSize::Base || has_access => BackendKind::File,
        None => BackendKind::Ram,
    };
    MemoryBackend { id, kind, size, align: None, page }
}

fn page(domain: &Domain, backing: &Backing) -> PageSize {
    let pages = &domain.backing.huge_pages;
    let of_cell = backing
        .cell
        .filter(|&cell| (cell as usize) < MAX_NODES)
        .and_then(|cell| pages.iter().find(|page| page.cells.as_ref().is_some_and(|cells| cells.contains(cell))));
    let general = || pages.iter().rev().find(|page| page.cells.is_none());
    let kib = backing.page_kib.or_else(|| of_cell.or_else(general).map(|page| page.size_kib));
    match kib {
        None | Some(BASE_PAGE_KIB) => PageSize::Base,
        Some(0) => PageSize::DefaultHuge,
        Some(kib) => kib.checked_mul(1024).map_or(PageSize::Base, PageSize::Huge),
    }
}

/// The slots and aliases of memory devices.
struct Names {
    taken: HashSet<u64>,
    next_slot: u64,
    virtio_mem: u64,
    virtio_pmem: u64,
    epc: u64,
}

impl Names {
    fn new(domain: &Domain) -> Self {
        let taken = domain.memory_devices.iter().filter_map(|device| device.slot).map(|slot| u64::from(slot.value));
        Self { taken: taken.collect(), next_slot: 0, virtio_mem: 0, virtio_pmem: 0, epc: 0 }
    }

    /// The slot and the alias of the next device.
    fn next(&mut self, device: &MemoryDevice) -> (Option<u64>, String) {
        let counted = |counter: &mut u64, prefix: &str| {
            let number = *counter;
            *counter = counter.saturating_add(1);
            format!("{prefix}{number}")
        };
        let alias = |name: String| device.alias.clone().unwrap_or(name);
        match device.model {
            MemoryModel::Dimm | MemoryModel::Nvdimm => {
                let slot = device.slot.map_or_else(|| self.free_slot(), |slot| u64::from(slot.value));
                (Some(slot), alias(format!("{}{slot}", device.model.name())))
            }
            MemoryModel::VirtioMem => (None, alias(counted(&mut self.virtio_mem, "virtiomem"))),
            MemoryModel::VirtioPmem => (None, alias(counted(&mut self.virtio_pmem, "virtiopmem"))),
            MemoryModel::SgxEpc => (None, alias(counted(&mut self.epc, "epc"))),
        }
    }

    fn free_slot(&mut self) -> u64 {
        while self.taken.contains(&self.next_slot) {
            self.next_slot = self.next_slot.saturating_add(1);
        }
        let slot = self.next_slot;
        self.next_slot = self.next_slot.saturating_add(1);
        slot
    }
}
