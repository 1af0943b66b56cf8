//! Where memory devices land in the device memory region.
//!
//! Source: QEMU `hw/mem/memory-device.c` (`memory_device_pre_plug`, `memory_device_get_free_addr`) and
//! `hw/i386/pc.c` (`pc_memory_pre_plug`), 7.2 to 11.1.

use std::collections::HashSet;

use crate::address::{GpaRange, round_down, round_up};
use crate::command_line::{BackendKind, CommandLine, Device, MemoryBackend, Origin, PageSize, Property};
use crate::machine::MachineType;

/// The alignment of anonymous memory, and the least for virtio-mem (`QEMU_VMALLOC_ALIGN` in QEMU
/// `include/qemu/osdep.h`, x86_64 Linux).
pub const DEFAULT_ALIGNMENT: u64 = 2 << 20;

/// The alignment of memory in a file or memfd on a file system without huge pages (`file_ram_alloc` in QEMU
/// `softmmu/physmem.c`: the page size of the file system).
pub const FILE_ALIGNMENT: u64 = 4096;

/// The most slots there can be (`ACPI_MAX_RAM_SLOTS` in QEMU `include/hw/acpi/memory_hotplug.h`).
pub const MAX_SLOTS: u64 = 256;

/// More devices than any QEMU has slots and PCI addresses for.
const MAX_DEVICES: usize = 4096;

/// The devices that are plugged into the device memory region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryDeviceKind {
    /// `pc-dimm`.
    Dimm,
    /// `nvdimm`.
    Nvdimm,
    /// `virtio-mem-pci`.
    VirtioMem,
    /// `virtio-pmem-pci`.
    VirtioPmem,
}

impl MemoryDeviceKind {
    /// The kind of a device; `None` for one that is not a memory device.
    pub fn of(device: &Device) -> Option<Self> {
        match device.driver.as_ref() {
            "pc-dimm" => Some(Self::Dimm),
            "nvdimm" => Some(Self::Nvdimm),
            "virtio-mem-pci" => Some(Self::VirtioMem),
            "virtio-pmem-pci" => Some(Self::VirtioPmem),
            _ => None,
        }
    }

    /// The name libvirt uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dimm => "dimm",
            Self::Nvdimm => "nvdimm",
            Self::VirtioMem => "virtio-mem",
            Self::VirtioPmem => "virtio-pmem",
        }
    }

    /// Whether it takes up a slot, and needs ACPI.
    pub fn has_slot(self) -> bool {
        matches!(self, Self::Dimm | Self::Nvdimm)
    }

    /// The classes its properties may be set for with `-global`.
    fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Dimm => &["pc-dimm"],
            Self::Nvdimm => &["nvdimm", "pc-dimm"],
            Self::VirtioMem => &["virtio-mem-pci"],
            Self::VirtioPmem => &["virtio-pmem-pci"],
        }
    }

    /// The property that fixes its guest-physical address.
    pub fn address_property(self) -> &'static str {
        if self.has_slot() { "addr" } else { "memaddr" }
    }
}

/// A device to be plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Bytes it takes up.
    pub size: u64,
    /// A power of two.
    pub alignment: u64,
    /// A fixed address.
    pub address: Option<u64>,
}

/// QEMU refuses a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// `not enough space, currently 0x… in use of total space for memory devices 0x…`
    #[error("not enough space: {used:#x} of {total:#x} bytes for memory devices are in use")]
    NotEnoughSpace {
        /// Bytes in use before it.
        used: u64,
        /// Bytes there are: `maxmem` less `size`.
        total: u64,
    },
    /// `address must be aligned to 0x… bytes`
    #[error("address {address:#x} is not aligned to {alignment:#x} bytes")]
    Unaligned {
        /// The fixed address.
        address: u64,
        /// What it has to be a multiple of.
        alignment: u64,
    },
    /// `can't add memory device [0x…:0x…], usable range for memory devices [0x…:0x…]`
    #[error("address {address:#x} lies outside the range for memory devices, {window}")]
    OutsideWindow {
        /// The fixed address.
        address: u64,
        /// The device memory region.
        window: GpaRange,
    },
    /// `address range conflicts with memory device id='…'`
    #[error("address {address:#x} is taken by the memory device at {other}")]
    Conflict {
        /// The fixed address.
        address: u64,
        /// The device in the way.
        other: GpaRange,
    },
    /// `backend memory size must be multiple of 0x…`
    #[error("the size of its backend is not a multiple of {alignment:#x} bytes")]
    UnalignedSize {
        /// What it has to be a multiple of: of virtio-mem at least its block size.
        alignment: u64,
    },
    /// `the size of memdev … (0x…) is too small to contain nvdimm label (0x…) and aligned PMEM (0x…)`
    #[error("its label leaves less than {alignment:#x} bytes")]
    NothingButLabel {
        /// What the rest is rounded down to.
        alignment: u64,
    },
    /// More devices than any QEMU has slots and PCI addresses for.
    #[error("there are {0} memory devices")]
    TooMany(usize),
    /// `invalid slot# …, should be less than …`
    #[error("there is no slot {slot}, only {all} slots")]
    NoSuchSlot {
        /// The slot it asks for.
        slot: u64,
        /// How many there are.
        all: u64,
    },
    /// `no free slots available`
    #[error("all slots are taken")]
    NoFreeSlot,
    /// `slot … is busy`
    #[error("slot {0} is taken by another device")]
    SlotTaken(u64),
    /// `'memdev' property is not set`
    #[error("it has no memory backend")]
    NoBackend,
    /// `could not find position in guest address space for memory device - memory fragmented due to alignments`
    #[error("no gap is large enough once the device is aligned to {alignment:#x} bytes")]
    Fragmented {
        /// What its address has to be a multiple of.
        alignment: u64,
    },
}

/// A device that is plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugged {
    /// Its index in [`CommandLine::devices`].
    pub device: usize,
    /// The kind.
    pub kind: MemoryDeviceKind,
    /// Where it lies.
    pub range: GpaRange,
    /// What decides that: its fixed address, or else its size.
    pub origin: Origin,
}

/// Plugs the memory devices of `line` into `window` of a machine of type `machine`, of which they may take `total`
/// bytes.
///
/// # Errors
/// The index in [`CommandLine::devices`] of the first one QEMU refuses, and why.
pub fn plug(
    line: &CommandLine,
    machine: &MachineType,
    window: Option<GpaRange>,
    total: u64,
) -> Result<Vec<Plugged>, (usize, PlacementError)> {
    let devices = line.devices.iter().enumerate();
    let mut devices: Vec<(usize, MemoryDeviceKind, &Device)> =
        devices.filter_map(|(index, device)| Some((index, MemoryDeviceKind::of(device)?, device))).collect();
    // Those given as JSON come last (`qemu_create_cli_devices` in QEMU `softmmu/vl.c`).
    devices.sort_by_key(|(_, _, device)| !device.settable);
    let Some(&(first, ..)) = devices.first() else { return Ok(Vec::new()) };
    if devices.len() > MAX_DEVICES {
        return Err((first, PlacementError::TooMany(devices.len())));
    }
    let backends = line.backends_by_id();
    let mut requests = Vec::with_capacity(devices.len());
    let mut origins = Vec::with_capacity(devices.len());
    let mut slots = Slots { all: line.memory.map_or(0, |memory| memory.slots()), taken: HashSet::new(), first_free: 0 };
    for &(index, kind, device) in &devices {
        let backend = device.properties.value("memdev").and_then(|id| backends.get(id));
        let backend = backend.ok_or((index, PlacementError::NoBackend))?;
        requests.push(request(line, machine, backend, kind, device).map_err(|error| (index, error))?);
        origins.push(origin(Some(backend), device));
        if kind.has_slot() {
            slots.take(device.properties.get("slot").and_then(Property::number)).map_err(|error| (index, error))?;
        }
    }
    let Some(window) = window else {
        return Err((first, PlacementError::NotEnoughSpace { used: 0, total }));
    };
    let ranges = place(window, total, &requests).map_err(|(nth, error)| (devices[nth].0, error))?;
    let plugged = devices.iter().zip(ranges).zip(origins);
    Ok(plugged.map(|((&(device, kind, _), range), origin)| Plugged { device, kind, range, origin }).collect())
}

/// The slots for DIMMs and NVDIMMs (`pc_dimm_get_free_slot` in QEMU `hw/mem/pc-dimm.c`).
struct Slots {
    all: u64,
    taken: HashSet<u64>,
    /// All slots below it are taken.
    first_free: u64,
}

impl Slots {
    /// Takes the slot that is asked for, or the first that is free.
    fn take(&mut self, asked: Option<u64>) -> Result<(), PlacementError> {
        let slot = match asked {
            Some(slot) if slot >= self.all => return Err(PlacementError::NoSuchSlot { slot, all: self.all }),
            Some(slot) => slot,
            None => {
                self.first_free = (self.first_free..self.all)
                    .find(|slot| !self.taken.contains(slot))
                    .ok_or(PlacementError::NoFreeSlot)?;
                self.first_free
            }
        };
        if self.taken.insert(slot) { Ok(()) } else { Err(PlacementError::SlotTaken(slot)) }
    }
}

/// What decides where a memory device lies.
fn origin(backend: Option<&MemoryBackend>, device: &Device) -> Origin {
    // Of virtio devices, `addr` is their place on the PCI bus.
    let address = MemoryDeviceKind::of(device).and_then(|kind| device.properties.get(kind.address_property()));
    address.map(|property| property.origin).or(backend.map(|backend| backend.size.origin)).unwrap_or(device.origin)
}

/// The place that decides where the memory device with that index in [`CommandLine::devices`] lies.
pub fn place_of(line: &CommandLine, device: usize) -> Option<Origin> {
    let device = line.devices.get(device)?;
    Some(origin(device.properties.value("memdev").and_then(|id| line.backend(id)), device))
}

/// What a device asks for.
fn request(
    line: &CommandLine,
    machine: &MachineType,
    backend: &MemoryBackend,
    kind: MemoryDeviceKind,
    device: &Device,
) -> Result<Request, PlacementError> {
    let told = |name: &str| device.properties.get(name).or_else(|| line.global(kind.classes(), name));
    let size = backend.size.value;
    let block = told("block-size").and_then(Property::size).filter(|&block| block > 0).unwrap_or(DEFAULT_ALIGNMENT);
    let address = told(kind.address_property()).and_then(Property::number).filter(|&address| address > 0);
    let of_backend = alignment(backend);
    let alignment = match kind {
        MemoryDeviceKind::VirtioMem => block.max(of_backend),
        // `legacy_align` in `pc_memory_pre_plug` of QEMU `hw/i386/pc.c`.
        MemoryDeviceKind::Dimm | MemoryDeviceKind::Nvdimm if !machine.enforce_aligned_dimm() => FILE_ALIGNMENT,
        MemoryDeviceKind::Dimm | MemoryDeviceKind::Nvdimm | MemoryDeviceKind::VirtioPmem => of_backend,
    };
    let size = match kind {
        // The label lies after the memory, which is rounded down (QEMU `nvdimm_prepare_memory_region`).
        MemoryDeviceKind::Nvdimm => {
            let label = told("label-size").and_then(Property::size).unwrap_or(0);
            match round_down(size.saturating_sub(label), of_backend) {
                0 => return Err(PlacementError::NothingButLabel { alignment: of_backend }),
                size => size,
            }
        }
        _ => size,
    };
    // `memory_device_get_free_addr` in QEMU `hw/mem/memory-device.c`.
    match size.is_multiple_of(alignment) {
        true => Ok(Request { size, alignment, address }),
        false => Err(PlacementError::UnalignedSize { alignment }),
    }
}

/// `memory_region_get_alignment` of a backend's memory, as QEMU `softmmu/physmem.c` sets it: the size of its pages, or
/// what is asked for (`file_ram_alloc`); [`DEFAULT_ALIGNMENT`] of anonymous memory.
fn alignment(backend: &MemoryBackend) -> u64 {
    let page = match (backend.page, backend.kind) {
        (PageSize::Huge(bytes), _) if bytes > FILE_ALIGNMENT && bytes.is_power_of_two() => bytes,
        (PageSize::DefaultHuge, _) | (_, BackendKind::Ram) => DEFAULT_ALIGNMENT,
        (PageSize::Base | PageSize::Huge(_), BackendKind::File | BackendKind::Memfd) => FILE_ALIGNMENT,
    };
    backend.align.filter(|align| align.is_power_of_two()).map_or(page, |align| align.max(page))
}

/// Plugs `requests` in order into `window`, of which devices may take `total` bytes.
///
/// # Errors
/// The index of the first device QEMU refuses, and why.
pub fn place(window: GpaRange, total: u64, requests: &[Request]) -> Result<Vec<GpaRange>, (usize, PlacementError)> {
    let mut placed: Vec<GpaRange> = Vec::with_capacity(requests.len());
    let mut in_address_order: Vec<GpaRange> = Vec::with_capacity(requests.len());
    let mut used: u64 = 0;
    for (index, request) in requests.iter().enumerate() {
        let Some(sum) = used.checked_add(request.size).filter(|&sum| sum <= total) else {
            return Err((index, PlacementError::NotEnoughSpace { used, total }));
        };
        let range = place_one(window, &in_address_order, *request).map_err(|error| (index, error))?;
        used = sum;
        placed.push(range);
        let position = in_address_order.partition_point(|other| other.start < range.start);
        in_address_order.insert(position, range);
    }
    Ok(placed)
}

fn place_one(window: GpaRange, plugged: &[GpaRange], request: Request) -> Result<GpaRange, PlacementError> {
    let alignment = request.alignment;
    if let Some(address) = request.address {
        if !address.is_multiple_of(alignment) {
            return Err(PlacementError::Unaligned { address, alignment });
        }
        let range = GpaRange::with_size(address, request.size)
            .filter(|&range| window.contains(range))
            .ok_or(PlacementError::OutsideWindow { address, window })?;
        return match plugged.iter().find(|other| other.overlaps(range)) {
            Some(&other) => Err(PlacementError::Conflict { address, other }),
            None => Ok(range),
        };
    }
    let fragmented = PlacementError::Fragmented { alignment };
    let candidate = |from| round_up(from, alignment).and_then(|start| GpaRange::with_size(start, request.size));
    let mut range = candidate(window.start).ok_or(fragmented)?;
    for other in plugged {
        if other.overlaps(range) {
            range = other.end.checked_add(1).and_then(candidate).ok_or(fragmented)?;
        } else if other.start > range.end {
            break;
        }
    }
    if window.contains(range) { Ok(range) } else { Err(fragmented) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::GIB;

    const WINDOW: GpaRange = GpaRange::inclusive(0x1_8000_0000, 0x6_7fff_ffff);

    fn dimm(gib: u64, address: Option<u64>) -> Request {
        Request { size: gib * GIB, alignment: DEFAULT_ALIGNMENT, address }
    }

    /// Expected values: `query-memory-devices` of QEMU 7.2.22 for the same devices.
    #[test]
    fn the_first_gap_that_fits_is_taken() {
        let placed =
            place(WINDOW, 16 * GIB, &[dimm(1, None), dimm(1, Some(0x2_8000_0000)), dimm(5, None), dimm(2, None)]);
        let starts: Vec<u64> = placed.expect("all fit").iter().map(|range| range.start).collect();
        assert_eq!(starts, [0x1_8000_0000, 0x2_8000_0000, 0x2_c000_0000, 0x1_c000_0000]);
    }

    #[test]
    fn fixed_addresses_are_refused_as_qemu_refuses_them() {
        let refused =
            |address| place(WINDOW, 16 * GIB, &[dimm(1, None), dimm(1, Some(address))]).expect_err("refused").1;
        assert!(matches!(refused(0x1_c000_1000), PlacementError::Unaligned { .. }));
        assert!(matches!(refused(0x1_0000_0000), PlacementError::OutsideWindow { .. }));
        assert!(matches!(refused(0x1_8000_0000), PlacementError::Conflict { .. }));
        assert!(matches!(refused(u64::MAX - DEFAULT_ALIGNMENT + 1), PlacementError::OutsideWindow { .. }));
    }

    #[test]
    fn space_is_counted_without_the_padding() {
        assert!(matches!(
            place(WINDOW, 2 * GIB, &[dimm(1, None), dimm(2, None)]),
            Err((1, PlacementError::NotEnoughSpace { .. }))
        ));
    }
}
