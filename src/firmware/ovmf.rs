//! OVMF: the window of `OvmfPkg/Library/PlatformInitLib/MemDetect.c`, the padding of
//! `OvmfPkg/PciHotPlugInitDxe/PciHotPlugInit.c`, and how `MdeModulePkg/Bus/Pci/PciBusDxe` and `PciHostBridgeDxe` share
//! the window out; read in edk2-stable202208 to 202605, and measured in 2026.08.

use std::collections::BTreeSet;

use super::build::Build;
use super::platform::{Node, Placement, Platform, Port};
use crate::address::{AMD_HT_START, GIB, GpaRange, round_down, round_up};
use crate::machine::Family;
use crate::version::Version;

pub(super) const NEWEST_READ: Version = Version::new(2026, 8);

/// What bridges, and the root, align their windows to (`CreateResourceMap`, `PciHostBridgeResourceAllocator`).
const SMALLEST_WINDOW: u64 = 1 << 20;
/// `PcdPciMmio64Size` (`OvmfPkg/OvmfPkgX64.dsc`).
const CLASSIC_SIZE: u64 = 32 * GIB;

/// What `PlatformInitLib` hands to the PCI drivers.
struct Window {
    /// `PcdPciMmio64Base`
    base: u64,
    /// `PcdPciMmio64Size`; 0 where 64-bit BARs are treated as 32-bit ones.
    size: u64,
    /// First address that cannot be allocated from `base` on.
    end: u64,
}

impl Window {
    fn new(build: Build, platform: &Platform) -> Self {
        let version = build.version;
        // `PlatformGetFirstNonAddress`: X-PciMmio64Mb is ignored above 16 TiB, and counted in GiB.
        let asked = platform.x_pci_mmio64_mb.filter(|&mib| mib <= 0x100_0000);
        let size = asked.map_or(CLASSIC_SIZE, |mib| mib << 20);
        let size = round_up(size, GIB).unwrap_or(size);
        let naturally_aligned =
            |base: u64| round_up(round_up(base, GIB)?, size.checked_ilog2().map_or(1, |bit| 1u64 << bit));
        let base = if size == 0 { 0 } else { naturally_aligned(platform.after_ram()).unwrap_or(u64::MAX) };
        let mut window = Self { base, size, end: base.saturating_add(size) };
        let mut reserved = version >= Version::new(2023, 2) && platform.ht_entry;
        if let Some(bits) = believed_bits(version, platform) {
            let space = 1u64 << bits;
            // `PlatformDynamicMmioWindow`: an eighth of the space; a quarter after 2026.08.
            let dynamic = space >> if version <= NEWEST_READ { 3 } else { 2 };
            // X-PciMmio64Mb is a minimum; from 9ac1704af6 on it is the size.
            let fixed = asked.is_some() && build.has_fixed_window == Some(true);
            if !fixed && size < dynamic && base.saturating_add(dynamic) < space {
                window.base = space.saturating_sub(dynamic);
                if reserved && overlaps_ht(window.base, dynamic) {
                    // `PlatformReservationConflictCB` (c0a0b9bc35, 2023.02): RAM is not asked.
                    window.base = round_down(AMD_HT_START.saturating_sub(dynamic), dynamic);
                    reserved = false;
                }
                window.size = dynamic;
                window.end = window.base.saturating_add(dynamic);
            }
            // `CoreInitializeGcdServices` (MdeModulePkg/Core/Dxe/Gcd/Gcd.c): nothing exists above the width.
            window.end = window.end.min(space);
        }
        // `AddMemoryMappedIoSpace` (PciHostBridgeDxe/PciHostBridge.c) ends at the first range that is something else:
        // RAM, or from bf65d7ee88 (2023.02) on a reserved entry of the e820 table.
        if platform.ram_above_4g_end.is_some_and(|end| window.base <= end) {
            window.end = window.base;
        }
        if reserved && overlaps_ht(window.base, window.size) {
            window.end = window.end.min(AMD_HT_START.max(window.base));
        }
        window
    }

    /// What of it can be allocated, or all of it if nothing can: it lies in RAM.
    fn usable(&self) -> Option<GpaRange> {
        let usable = self.end.saturating_sub(self.base);
        GpaRange::with_size(self.base, if usable > 0 { usable } else { self.size })
    }

    /// Where a block of that size and alignment goes (`AllocateResource`, PciHostBridgeDxe/PciHostBridge.c).
    fn allocate(&self, size: u64, align: u64) -> Option<u64> {
        allocate(self.base, self.end, size, align)
    }
}

fn allocate(base: u64, end: u64, size: u64, align: u64) -> Option<u64> {
    let base = round_up(base, align)?;
    (base.checked_add(size)? <= end).then_some(base)
}

fn overlaps_ht(base: u64, size: u64) -> bool {
    base < 1 << 40 && base.saturating_add(size) > AMD_HT_START
}

/// The width that OVMF uses, where it believes CPUID (`PlatformAddressWidthFromCpuid`, `MemDetect.c`). Debian's builds
/// have no 5-level paging.
fn believed_bits(version: Version, platform: &Platform) -> Option<u32> {
    if version < Version::new(2022, 11) {
        return None;
    }
    let mut bits = platform.phys_bits;
    // 603ad2d6ae (2024.08): GuestPhysBits is believed if it is set.
    let guest = platform.guest_phys_bits.filter(|_| version >= Version::new(2024, 8));
    if guest.is_none() && !platform.vendor.is_believed(bits) {
        return None;
    }
    bits = bits.min(guest.unwrap_or(bits));
    // c1e8537690 (2023.08): 46 instead of 47.
    bits = bits.min(if version < Version::new(2023, 8) { 47 } else { 46 });
    Some(if platform.gb_pages { bits } else { bits.min(40) })
}

/// The hole below 4 GiB, which 64-bit BARs that fit nowhere else are tried in (`PlatformMemMapInitialization`,
/// `OvmfPkg/Library/PlatformInitLib/Platform.c`; `PlatformQemuUc32BaseInitialization`, `MemDetect.c`).
fn low_hole(version: Version, platform: &Platform) -> (u64, u64) {
    let ram = platform.ram_below_4g_end.saturating_add(1);
    let hole = (4 * GIB).saturating_sub(ram).max(1);
    let uncached = (4 * GIB).saturating_sub(1u64 << hole.ilog2());
    match platform.family {
        Family::I440fx => (uncached, 0xfc00_0000),
        // Up to 2023.02 MMCONFIG is at 0xb0000000, then at 0xe0000000.
        Family::Q35 if version <= Version::new(2023, 2) => (0xc000_0000, 0xfc00_0000),
        Family::Q35 => (uncached, 0xe000_0000),
    }
}

/// `PCI_RESOURCE_NODE`
struct Resource {
    size: u64,
    /// A power of two.
    align: u64,
    offset: u64,
    what: ResourceKind,
}

enum ResourceKind {
    Bar {
        id: usize,
        function: usize,
    },
    Window(Vec<Resource>),
    /// Room for what will be plugged into that port.
    Padding {
        port: usize,
    },
}

/// Functions and ports by the order of a walk over the tree.
#[derive(Default)]
struct Count {
    functions: usize,
    ports: usize,
}

/// What `RejectPciDevice` took away so far.
#[derive(Default)]
struct Rejected {
    functions: BTreeSet<usize>,
    paddings: BTreeSet<usize>,
}

/// How many functions, BARs and ports are looked at, over all attempts: enough for 100 devices, each behind its port,
/// of which none fits. Beyond that, which ones are lost does not matter.
const MOST_WORK: usize = 1 << 15;

/// Where OVMF of this version puts the BARs.
pub(super) fn place(build: Build, platform: &Platform) -> Placement {
    let placement = place_with(build, platform, false);
    let same = build.version >= WITHOUT_IO_PADDING || placement == place_with(build, platform, true);
    Placement { exact: placement.exact && same, ..placement }
}

/// The same, where all functions behind ports have I/O BARs, or none has.
pub(super) fn place_with(build: Build, platform: &Platform, have_io: bool) -> Placement {
    let version = build.version;
    let window = Window::new(build, platform);
    let mut placement = Placement { window: window.usable(), addresses: vec![None; platform.ids()], exact: true };
    let padding = padding(version, window.size);
    let (low, low_end) = low_hole(version, platform);
    let mut rejected = Rejected::default();
    let mut work = 0_usize;
    // `PciHostBridgeResourceAllocator`: until it fits, or nothing is left that can go.
    loop {
        // `PciHostBridgeAdjustAllocation` looks at I/O ports first.
        let io = (version < WITHOUT_IO_PADDING).then(|| io_port(platform, have_io, &rejected)).flatten();
        let mut collect = Collect { version, padding, rejected: &rejected, seen: 0, low: Vec::new() };
        let root = collect.root(&platform.root);
        work = work.saturating_add(collect.seen);
        if work > MOST_WORK {
            placement.exact = false;
            return placement;
        }
        let above = (window.size > 0).then(|| window.allocate(root.size, root.align)).flatten();
        // `NotifyPhase`: what does not fit above 4 GiB as a whole is tried below.
        let below = || allocate(round_up(low, root.align)?, low_end, root.size, root.align.min(1 << 31));
        match (above.or_else(below), io) {
            (Some(base), None) => {
                program(&root, base, &mut placement.addresses);
                for id in collect.low {
                    if let Some(place) = placement.addresses.get_mut(id) {
                        *place = Some(low);
                    }
                }
                // Below 4 GiB there are 32-bit BARs too, which may not fit then.
                placement.exact = above.is_some() || root.size == 0;
                return placement;
            }
            // With less padding the rest fits all the more.
            (Some(_), Some(_)) => {
                while let Some(port) = io_port(platform, have_io, &rejected) {
                    rejected.paddings.insert(port);
                }
            }
            (None, io) => {
                match (largest(&root, true), io) {
                    (Some(Resource { what: ResourceKind::Bar { function, .. }, .. }), _) => {
                        rejected.functions.insert(*function);
                    }
                    (Some(Resource { what: ResourceKind::Padding { port }, .. }), _) if Some(*port) != io => {
                        rejected.paddings.insert(*port);
                    }
                    (_, Some(_)) => {}
                    // `EFI_ABORTED`: no BAR of the guest is programmed.
                    _ => return placement,
                }
                rejected.paddings.extend(io);
            }
        }
    }
}

/// The first release that does not reserve I/O ports for each hot-plug capable port (27727338b2, `GetResourcePadding`).
const WITHOUT_IO_PADDING: Version = Version::new(2023, 8);

/// The port that loses its padding, of memory too, as there are not enough I/O ports for all: 40 KiB of q35 and 16 KiB
/// of i440fx (`PlatformMemMapInitialization`), 4 KiB for each port and for the chipset. Of equal ones it is the last in
/// the list, the first on the bus.
fn io_port(platform: &Platform, have_io: bool, rejected: &Rejected) -> Option<usize> {
    let most = match platform.family {
        Family::Q35 => 9,
        Family::I440fx => 3,
    };
    let ports = || {
        let ports = platform.root.iter().filter_map(|node| if let Node::Port(port) = node { Some(port) } else { None });
        ports.enumerate()
    };
    let is_padded = |&(number, port): &(usize, &Port)| port.hotplug && !rejected.paddings.contains(&number);
    let has_window = |port: &(usize, &Port)| is_padded(port) || have_io && !port.1.children.is_empty();
    let full = ports().filter(has_window).count() > most;
    ports().find(is_padded).map(|(number, _)| number).filter(|_| full)
}

/// What a hot-plug capable port gets at least (`GetResourcePadding`; 9e6b552b4c, 2022.11).
fn padding(version: Version, window: u64) -> Option<u64> {
    (version >= Version::new(2022, 11) && window > 32 * GIB).then(|| (window >> 8).next_power_of_two())
}

/// `CreateResourceMap` and what it calls.
struct Collect<'a> {
    version: Version,
    padding: Option<u64>,
    rejected: &'a Rejected,
    /// How many resources there were.
    seen: usize,
    /// The BARs that are treated as 32-bit ones.
    low: Vec<usize>,
}

impl Collect<'_> {
    fn root(&mut self, nodes: &[Node]) -> Resource {
        let (mut mem, pmem) = self.bus(nodes, &mut Count::default());
        // `DegradeResource`: the root has one window for both.
        for resource in pmem {
            insert(&mut mem, resource);
        }
        window(mem)
    }

    /// The 64-bit requests of a bus: of memory that is not prefetchable, and that is.
    fn bus(&mut self, nodes: &[Node], count: &mut Count) -> (Vec<Resource>, Vec<Resource>) {
        let (mut mem, mut pmem) = (Vec::new(), Vec::new());
        self.seen = self.seen.saturating_add(nodes.len());
        for node in nodes {
            match node {
                Node::Function { bars, .. } => {
                    self.seen = self.seen.saturating_add(bars.len());
                    let function = count.functions;
                    count.functions = function.saturating_add(1);
                    if self.rejected.functions.contains(&function) {
                        continue;
                    }
                    for bar in bars {
                        let what = ResourceKind::Bar { id: bar.id, function };
                        let resource = Resource { size: bar.size, align: bar.size, offset: 0, what };
                        insert(if bar.prefetchable { &mut pmem } else { &mut mem }, resource);
                    }
                }
                Node::Port(port) => {
                    let children = self.port(port, count);
                    if !children.is_empty() {
                        insert(&mut pmem, window(children));
                    }
                }
            }
        }
        (mem, pmem)
    }

    /// What is behind a port and goes through its 64-bit window.
    fn port(&mut self, port: &Port, count: &mut Count) -> Vec<Resource> {
        let number = count.ports;
        count.ports = number.saturating_add(1);
        let (mem, mut pmem) = self.bus(&port.children, count);
        // `ResourcePaddingPolicy`
        let size = port.pref64_reserve.filter(|&size| size > 0).and_then(u64::checked_next_power_of_two);
        if let Some(size) = size.or(self.padding)
            && port.hotplug
            && !self.rejected.paddings.contains(&number)
        {
            insert(&mut pmem, Resource { size, align: size, offset: 0, what: ResourceKind::Padding { port: number } });
        }
        // `DegradeResource`: a bridge has no 64-bit window for memory that is not prefetchable. 2026.02 put it into the
        // other (f6489621b8, taken back by defbd14d63 in 2026.05); all others put it below 4 GiB.
        for resource in mem {
            if self.version == Version::new(2026, 2) {
                insert(&mut pmem, resource);
            } else if let ResourceKind::Bar { id, .. } = resource.what {
                self.low.push(id);
            }
        }
        pmem
    }
}

/// `InsertResourceNode`: largest alignment first. Of equal ones the last comes first, unless it leaves a gap.
fn insert(resources: &mut Vec<Resource>, resource: Resource) {
    let rest = |resource: &Resource| resource.size & resource.align.saturating_sub(1);
    let larger = resources.partition_point(|other| other.align > resource.align);
    let goes_before =
        |other: &Resource| resource.align > other.align || rest(&resource) == 0 || rest(&resource) >= rest(other);
    let passed = resources.iter().skip(larger).take_while(|other| !goes_before(other)).count();
    resources.insert(larger.saturating_add(passed), resource);
}

/// `CalculateResourceAperture`: the larger of what is there and of the padding.
fn window(mut children: Vec<Resource>) -> Resource {
    let (mut used, mut padded) = (0u64, 0u64);
    for child in &mut children {
        let end = if matches!(child.what, ResourceKind::Padding { .. }) { &mut padded } else { &mut used };
        child.offset = round_up(*end, child.align).unwrap_or(u64::MAX);
        *end = child.offset.saturating_add(child.size);
    }
    let size = round_up(used.max(padded), SMALLEST_WINDOW).unwrap_or(u64::MAX);
    let align = children.first().map_or(SMALLEST_WINDOW, |first| first.align.max(SMALLEST_WINDOW));
    Resource { size, align, offset: 0, what: ResourceKind::Window(children) }
}

/// `GetMaxResourceConsumerDevice`: the largest, the last of equal ones. A device on bus 0 cannot be rejected
/// (`IsRejectiveDevice`).
fn largest(resource: &Resource, is_root: bool) -> Option<&Resource> {
    let ResourceKind::Window(children) = &resource.what else { return None };
    let candidates = children.iter().filter_map(|child| match child.what {
        ResourceKind::Window(_) => largest(child, false),
        ResourceKind::Bar { .. } if is_root => None,
        ResourceKind::Bar { .. } | ResourceKind::Padding { .. } => Some(child),
    });
    candidates.max_by_key(|resource| resource.size)
}

/// `ProgramResource`
fn program(resource: &Resource, base: u64, addresses: &mut [Option<u64>]) {
    let address = base.saturating_add(resource.offset);
    match &resource.what {
        ResourceKind::Window(children) => children.iter().for_each(|child| program(child, address, addresses)),
        ResourceKind::Bar { id, .. } => {
            if let Some(place) = addresses.get_mut(*id) {
                *place = Some(address);
            }
        }
        ResourceKind::Padding { .. } => {}
    }
}
