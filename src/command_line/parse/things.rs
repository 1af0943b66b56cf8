//! Options for things of many kinds, each with an id and properties: objects, devices, host ends.

use super::super::value::{boolean, size};
use super::super::words::{Argument, Pair, last};
use super::super::{BackendKind, CommandLine, Device, MemoryBackend, PageSize, Properties, Told};
use super::{Reading, UNREADABLE_DEVICES, reads};

impl CommandLine {
    pub(super) fn object(&mut self, pairs: Vec<Pair>, _: &Argument<'_>) -> Reading {
        let kind = match last(&pairs, "").map(|kind| kind.value.as_str()).unwrap_or_default() {
            "memory-backend-ram" => BackendKind::Ram,
            "memory-backend-file" => BackendKind::File,
            // Shared memory without a file is mapped as a memfd is.
            "memory-backend-memfd" | "memory-backend-shm" => BackendKind::Memfd,
            "" => return Reading::Refused,
            other if other.starts_with("memory-backend-") => return Reading::NotModelled,
            _ => return Reading::Taken,
        };
        self.backend_of(kind, &pairs).map_or(Reading::Refused, |()| Reading::Taken)
    }

    /// A memory backend; `None` if QEMU does not take it.
    fn backend_of(&mut self, kind: BackendKind, pairs: &[Pair]) -> Option<()> {
        let bytes = last(pairs, "size")?;
        let size = Told { value: size(&bytes.value, 1)?, origin: bytes.origin };
        let align = last(pairs, "align").map_or(Some(None), |align| self::size(&align.value, 1).map(Some))?;
        let page = match kind {
            BackendKind::Ram => PageSize::Base,
            BackendKind::File => last(pairs, "mem-path").map_or(PageSize::Base, |path| page_in(&path.value)),
            BackendKind::Memfd => {
                let huge = last(pairs, "hugetlb").map_or(Some(false), |huge| boolean(&huge.value))?;
                let bytes = last(pairs, "hugetlbsize").map_or(Some(0), |bytes| self::size(&bytes.value, 1))?;
                match (huge, bytes) {
                    (false, _) => PageSize::Base,
                    (true, 0) => PageSize::DefaultHuge,
                    (true, bytes) => PageSize::Huge(bytes),
                }
            }
        };
        let id = last(pairs, "id")?.value.clone();
        self.backends.push(MemoryBackend { id, kind, size, align, page });
        Some(())
    }

    pub(super) fn device(&mut self, pairs: Vec<Pair>, argument: &Argument<'_>) -> Reading {
        let Some(device) = thing(pairs, argument) else { return Reading::Refused };
        let unreadable = UNREADABLE_DEVICES.iter().any(|driver| device.driver.starts_with(driver));
        let readable = device.properties.iter().all(|property| reads(&property.name, &property.value));
        self.devices.push(device);
        match (readable, unreadable) {
            (false, _) => Reading::Refused,
            (true, true) => Reading::NotModelled,
            (true, false) => Reading::Taken,
        }
    }

    pub(super) fn host_end(&mut self, pairs: Vec<Pair>, argument: &Argument<'_>) -> Reading {
        let Some(end) = thing(pairs, argument) else { return Reading::NotModelled };
        self.host_ends.push(end);
        Reading::Taken
    }
}

/// An object of some kind, with an id and properties.
fn thing(pairs: Vec<Pair>, argument: &Argument<'_>) -> Option<Device> {
    let driver = last(&pairs, "")?.value.clone();
    let id = last(&pairs, "id").map(|id| id.value.clone());
    let mut properties = Properties::new();
    for pair in pairs.into_iter().filter(|pair| !matches!(pair.key.as_str(), "" | "id")) {
        properties.set(pair.key, pair.value, pair.origin);
    }
    let settable = !argument.text.starts_with('{');
    Some(Device { driver: driver.into(), id, properties, origin: argument.origin, settable })
}

/// The pages of the file system that a file of a memory backend lies on, as its path tells by the names that libvirt,
/// Proxmox and systemd have for the places where huge pages are mounted: `/dev/hugepages`, `/dev/hugepages1G`,
/// `/run/hugepages/kvm/1048576kB`.
fn page_in(path: &str) -> PageSize {
    let mut parts = path.split('/').skip_while(|part| !part.starts_with("hugepages") && !part.starts_with("hugetlbfs"));
    let Some(mount) = parts.next() else { return PageSize::Base };
    let bytes = |text: &str| size(text.trim_end_matches('B'), 1).filter(|&bytes| bytes > 0);
    let named = bytes(mount.trim_start_matches(|c: char| !c.is_ascii_digit()));
    let below = || parts.find_map(|part| part.strip_suffix("kB").and_then(|kib| size(kib, 1 << 10)));
    named.or_else(below).map_or(PageSize::DefaultHuge, PageSize::Huge)
}
