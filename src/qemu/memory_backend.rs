//! Whether QEMU and KVM take the pieces that the guest's memory consists of.
//!
//! Sources: QEMU 7.2 to 11.1, `host_memory_backend_memory_complete` and `host_memory_backend_set_size`
//! (`backends/hostmem.c`), `file_ram_alloc` (`softmmu/physmem.c`, later `system/physmem.c`), `qemu_memfd_create`
//! (`util/memfd.c`), `virtio_mem_device_realize` (`hw/virtio/virtio-mem.c`).

use std::collections::HashMap;

use super::layout::Layout;
use super::memory_device::{DEFAULT_ALIGNMENT, FILE_ALIGNMENT, MemoryDeviceKind, Plugged};
use crate::command_line::{
    Accelerator, BackendKind, CommandLine, Device, MemoryBackend, NodeMemory, Origin, PageSize, boolean,
};
use crate::machine::MachineType;
use crate::text;
use crate::version::Version;

/// The first QEMU measured to want files to be of whole pages (`aligned` in `backends/hostmem-file.c`); 7.2 does not.
const WHOLE_PAGES: Version = Version::new(10, 0);

/// The last machine types whose virtio-mem need not be inaccessible where it is unplugged (`pc_compat_8_0` and
/// `pc_compat_6_2` in QEMU `hw/i386/pc.c`).
const ACCESSIBLE_IF_ANONYMOUS: Version = Version::new(8, 0);
const ACCESSIBLE: Version = Version::new(6, 2);

/// The bytes of one piece of memory that are too many for KVM: a slot has at most 2^31 - 1 pages
/// (`KVM_MEM_MAX_NR_PAGES` in Linux `include/linux/kvm_host.h`), and QEMU splits none on x86
/// (`kvm_set_max_memslot_size` in QEMU `accel/kvm/kvm-all.c` is for s390x).
pub const TOO_LARGE_FOR_KVM: u64 = 1 << 43;

/// QEMU or KVM refuses a piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// `property 'size' of memory-backend-ram doesn't take value '0'`
    #[error("a memory backend has no size")]
    Empty,
    /// `memory size 0x… must be equal to or larger than page size 0x…`
    #[error("{} of memory is less than a page of {}", text::size(*.size), text::size(*.page))]
    LessThanPage {
        /// Its bytes.
        size: u64,
        /// Bytes in a page.
        page: u64,
    },
    /// `backend 'memory-backend-file' memory size must be multiple of 2 MiB`; of a memfd `failed to resize memfd to …`
    #[error("{} of memory is not a whole number of {} pages", text::size(*.size), text::size(*.page))]
    NotWholePages {
        /// Its bytes.
        size: u64,
        /// Bytes in a page.
        page: u64,
    },
    /// `alignment 0x… must be multiples of page size 0x…`, `alignment 0x… must be a power of two`
    #[error("the alignment {} is not a power of two of at least {}, one page", text::size(*.align), text::size(*.page))]
    Alignment {
        /// `align`, in bytes.
        align: u64,
        /// Bytes in a page.
        page: u64,
    },
    /// `'block-size' property has to be at least the page size (0x…)`
    #[error("the block size of virtio-mem, {}, is smaller than its page size, {}", text::size(*.block), text::size(*.page))]
    BlockLessThanPage {
        /// `block-size`, in bytes.
        block: u64,
        /// Bytes in a page.
        page: u64,
    },
    /// `'dynamic-memslots' property set to 'on' requires 'unplugged-inaccessible' to be 'on'`
    #[error("dynamic memory slots of virtio-mem need a newer machine type")]
    DynamicMemslots,
    /// `KVM_SET_USER_MEMORY_REGION failed … Invalid argument`
    #[error("{} in one memory backend is too much: a KVM memory slot holds less than 8 TiB", text::size(*.size))]
    TooLargeForKvm {
        /// Its bytes.
        size: u64,
    },
}

/// The first piece of memory that is refused before there is a map, and the place that decides.
pub fn refused(line: &CommandLine, machine: &MachineType, qemu: Version) -> Option<(BackendError, Origin)> {
    let backends = line.backends.iter().find_map(|backend| Some((backend_error(backend, qemu)?, backend.size.origin)));
    backends.or_else(|| {
        let is_virtio_mem = |device: &&Device| MemoryDeviceKind::of(device) == Some(MemoryDeviceKind::VirtioMem);
        let mut devices = line.devices.iter().filter(is_virtio_mem).peekable();
        // Few guests have one.
        devices.peek()?;
        let by_id = line.backends_by_id();
        devices.find_map(|device| {
            let origin = device.properties.get("dynamic-memslots").map_or(device.origin, |property| property.origin);
            Some((virtio_mem_error(&by_id, machine, device)?, origin))
        })
    })
}

/// The first piece of memory in a map that is too large for KVM.
pub fn too_large(line: &CommandLine, layout: &Layout, plugged: &[Plugged]) -> Option<(BackendError, Origin)> {
    if line.accelerator() != Accelerator::Kvm {
        return None;
    }
    let ram = line.memory.map(|memory| (memory.size.value, memory.size.origin))?;
    let by_id = if line.nodes.is_empty() { HashMap::new() } else { line.backends_by_id() };
    let nodes = line.nodes.iter().filter_map(|node| match &node.memory {
        NodeMemory::Backend(id) => by_id.get(id.as_str()).map(|backend| (backend.size.value, backend.size.origin)),
        // Sizes only divide RAM, which is one piece then.
        NodeMemory::Size(_) | NodeMemory::None => None,
    });
    let mut pieces: Vec<(u64, Origin)> = nodes.collect();
    if pieces.is_empty() {
        pieces.push(ram);
    }
    let mut below = layout.ram_below_4g.size().unwrap_or(0);
    for (size, _) in &mut pieces {
        // What lies below 4 GiB is a piece of its own.
        let low = below.min(*size);
        below = below.saturating_sub(low);
        *size = size.saturating_sub(low);
    }
    let dynamic = |device: usize| line.devices.get(device).is_some_and(has_dynamic_memslots);
    let devices = plugged.iter().filter(|device| !dynamic(device.device));
    pieces.extend(devices.map(|device| (device.range.size().unwrap_or(u64::MAX), device.origin)));
    let (size, origin) = pieces.into_iter().find(|&(size, _)| size >= TOO_LARGE_FOR_KVM)?;
    Some((BackendError::TooLargeForKvm { size }, origin))
}

fn backend_error(backend: &MemoryBackend, qemu: Version) -> Option<BackendError> {
    let (size, page) = (backend.size.value, page(backend));
    if size == 0 {
        return Some(BackendError::Empty);
    }
    if backend.kind == BackendKind::Ram {
        return None;
    }
    if let Some(align) = backend.align.filter(|align| !align.is_multiple_of(page) || !align.is_power_of_two()) {
        return Some(BackendError::Alignment { align, page });
    }
    let whole = size.is_multiple_of(page);
    match backend.kind {
        BackendKind::Memfd if !whole => Some(BackendError::NotWholePages { size, page }),
        _ if size < page => Some(BackendError::LessThanPage { size, page }),
        _ if !whole && qemu >= WHOLE_PAGES => Some(BackendError::NotWholePages { size, page }),
        _ => None,
    }
}

fn virtio_mem_error(
    by_id: &HashMap<&str, &MemoryBackend>,
    machine: &MachineType,
    device: &Device,
) -> Option<BackendError> {
    let backend = by_id.get(device.properties.value("memdev")?)?;
    // The zero page is shared where memory is anonymous (`virtio_mem_has_shared_zeropage`).
    let accessible =
        machine.version <= ACCESSIBLE || machine.version <= ACCESSIBLE_IF_ANONYMOUS && backend.kind == BackendKind::Ram;
    if has_dynamic_memslots(device) && accessible {
        return Some(BackendError::DynamicMemslots);
    }
    let (block, page) = (device.properties.value("block-size")?.parse::<u64>().ok()?, page(backend));
    (block < page).then_some(BackendError::BlockLessThanPage { block, page })
}

fn has_dynamic_memslots(device: &Device) -> bool {
    device.properties.value("dynamic-memslots").and_then(boolean) == Some(true)
}

/// Bytes in a page of a backend's memory (`qemu_ram_pagesize`).
fn page(backend: &MemoryBackend) -> u64 {
    match (backend.page, backend.kind) {
        (_, BackendKind::Ram) | (PageSize::Base, _) => FILE_ALIGNMENT,
        (PageSize::DefaultHuge, _) => DEFAULT_ALIGNMENT,
        (PageSize::Huge(bytes), _) => bytes.max(FILE_ALIGNMENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::Told;

    const MIB: u64 = 1 << 20;

    /// Expected values: QEMU 7.2.22, 10.0.13 and 11.1.3 with backends of these sizes on 2 MiB and 1 GiB pages.
    #[test]
    fn huge_pages_are_whole() {
        let origin = Origin::Argument { number: 1, span: crate::xml::Span::new(0, 0) };
        let refused = |kind, size: u64, page: u64, qemu: &str| {
            let size = Told { value: size * MIB, origin };
            let page = PageSize::Huge(page * MIB);
            let backend = MemoryBackend { id: "a".to_owned(), kind, size, align: None, page };
            backend_error(&backend, qemu.parse().expect("a version")).is_some()
        };
        for (kind, size, page, old, new) in [
            (BackendKind::File, 65, 2, false, true),
            (BackendKind::File, 64, 2, false, false),
            (BackendKind::File, 1, 2, true, true),
            (BackendKind::File, 512, 1024, true, true),
            (BackendKind::File, 1536, 1024, false, true),
            (BackendKind::Memfd, 65, 2, true, true),
            (BackendKind::Memfd, 2048, 1024, false, false),
            (BackendKind::Ram, 65, 2, false, false),
        ] {
            assert_eq!(refused(kind, size, page, "7.2.22"), old, "{kind:?} {size} {page}");
            assert_eq!(refused(kind, size, page, "10.0.13"), new, "{kind:?} {size} {page}");
        }
    }
}
