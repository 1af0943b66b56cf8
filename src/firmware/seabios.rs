//! SeaBIOS, `src/fw/pciinit.c`, read in 1.16.2, 1.16.3 and 1.17.0: `pci_setup`, `pci_bios_check_devices`,
//! `pci_bios_map_devices`.

use super::platform::{Node, Placement, Platform, Port};
use crate::address::{AMD_HT_START, GIB, GpaRange, round_down};
use crate::machine::Family;
use crate::version::Version;

pub(super) const NEWEST_READ: Version = Version::new(1, 17);

/// The least that SeaBIOS gives a BAR (`PCI_DEVICE_MEM_MIN`).
const SMALLEST_BAR: u64 = 1 << 12;
/// What it aligns the windows of bridges to (`PCI_BRIDGE_MEM_MIN`).
const SMALLEST_WINDOW: u64 = 1 << 21;
/// The end of its window below 4 GiB (`BUILD_PCIMEM_END`, `src/config.h`).
const LOW_END: u64 = 0xfec0_0000;
/// More than the 32-bit BARs of a guest take: if all 64-bit BARs fit below 4 GiB next to that many, they always do.
const OTHER_BARS: u64 = 1 << 28;
/// First address after the HyperTransport range.
const HT_END: u64 = 1 << 40;
/// No guest reaches an address from here on: the architecture has 52 bits. A BAR that SeaBIOS puts below 0 wraps to
/// one.
const BEYOND: u64 = 1 << 52;

/// `pci_mem64_top` and `pci_pad_mem64` of `pci_setup`.
#[derive(Clone, Copy)]
struct Above4G {
    /// The end of the address space that is used, where the width is believed.
    top: Option<u64>,
    /// Whether all 64-bit BARs go up, and the windows of ports are padded.
    pad: bool,
}

impl Above4G {
    fn new(version: Version, platform: &Platform) -> Self {
        let bits = if platform.long_mode {
            Some(platform.phys_bits).filter(|&bits| platform.vendor.is_believed(bits))
        } else {
            // `physbits`: without long mode that of PAE, which every CPU model of QEMU that starts has.
            Some(36)
        };
        let has_ram = platform.ram_above_4g_end.is_some();
        if version < (Version { major: 1, minor: 16, micro: 3 }) {
            Self { top: None, pad: false }
        } else if version < Version::new(1, 17) {
            Self { top: bits.map(|bits| 1 << bits.min(46)), pad: bits.is_some() && platform.long_mode && has_ram }
        } else {
            let below_1t = platform.ram_end().saturating_sub(4 * GIB) < 1 << 40;
            let used = |bits: u32| if below_1t { bits.min(44) } else { bits.min(52) };
            Self { top: bits.map(|bits| 1 << used(bits)), pad: platform.long_mode && has_ram }
        }
    }
}

/// `struct pci_region_entry`.
#[derive(Clone, Copy)]
struct RegionEntry {
    size: u64,
    align: u64,
    /// Whether it may go above 4 GiB (`is64`, and not of a USB controller: `pci_region_migrate_64bit_entries`).
    up: bool,
    what: RegionContent,
}

#[derive(Clone, Copy)]
enum RegionContent {
    Bar { id: usize, size: u64 },
    Window { bus: usize },
}

/// A bus with the bridge to it; bus 0 has none.
struct Bus<'a> {
    bridge: Option<(&'a Port, usize)>,
    regions: [Region; 2],
}

/// `struct pci_region` of 64-bit BARs and of what is passed to them: of memory that is not prefetchable, and that is.
#[derive(Default, Clone)]
struct Region {
    entries: Vec<RegionEntry>,
}

const MEM: usize = 0;
const PREF: usize = 1;

impl Region {
    /// `pci_region_create_entry`: largest alignment first, then size; equal ones in order of arrival.
    fn insert(&mut self, entry: RegionEntry) {
        let smaller = |other: &RegionEntry| (other.align, other.size) < (entry.align, entry.size);
        let at = self.entries.iter().position(smaller).unwrap_or(self.entries.len());
        self.entries.insert(at, entry);
    }

    fn align(&self) -> u64 {
        self.entries.first().map_or(1, |entry| entry.align)
    }

    fn sum(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.wrapping_add(entry.size))
    }

    /// `pci_region_migrate_64bit_entries`: takes out what goes up.
    fn take_up(&mut self) -> Self {
        let (up, stays) = self.entries.drain(..).partition(|entry| entry.up);
        self.entries = stays;
        Self { entries: up }
    }
}

/// Rounds up as SeaBIOS does: numbers wrap.
fn align_up(value: u64, align: u64) -> u64 {
    let below = align.saturating_sub(1);
    value.wrapping_add(below) & !below
}

/// Where SeaBIOS of this version puts the BARs.
pub(super) fn place(version: Version, platform: &Platform) -> Placement {
    let above = Above4G::new(version, platform);
    let mut buses = vec![Bus { bridge: None, regions: Default::default() }];
    add_bus(&mut buses, 0, &platform.root);
    for bus in (1..buses.len()).rev() {
        add_window(&mut buses, bus, version, above);
    }
    let mut placement = Placement { window: None, addresses: vec![None; platform.ids()], exact: true };
    let Some(root) = buses.first_mut() else { return placement };
    let (mut up, bases, stays) = match low_bases(&root.regions, platform, 0) {
        Some(bases) if !above.pad => {
            placement.exact = low_bases(&root.regions, platform, OTHER_BARS).is_some();
            (Default::default(), bases, true)
        }
        _ => {
            let up = [root.regions[MEM].take_up(), root.regions[PREF].take_up()];
            // SeaBIOS panics if the rest does not fit below 4 GiB either.
            (up, low_bases(&root.regions, platform, 0).unwrap_or_default(), false)
        }
    };
    let mut regions =
        vec![(root.regions[MEM].clone(), bases[MEM], MEM), (root.regions[PREF].clone(), bases[PREF], PREF)];
    if !stays {
        let (window, bases) = high_bases(&up, platform, above);
        placement.window = window;
        for kind in [MEM, PREF] {
            regions.push((std::mem::take(&mut up[kind]), bases[kind], kind));
        }
    }
    for (region, base, kind) in regions {
        map(&region, base, kind, &buses, &mut placement.addresses);
    }
    placement
}

/// `pci_bios_init_bus_rec` numbers buses depth first, `pci_bios_check_devices` collects their BARs.
fn add_bus<'a>(buses: &mut Vec<Bus<'a>>, bus: usize, nodes: &'a [Node]) {
    for node in nodes {
        match node {
            Node::Port(port) => {
                let behind = buses.len();
                buses.push(Bus { bridge: Some((port, bus)), regions: Default::default() });
                add_bus(buses, behind, &port.children);
            }
            Node::Function { usb, bars } => {
                for bar in bars {
                    let size = bar.size.max(SMALLEST_BAR);
                    let what = RegionContent::Bar { id: bar.id, size: bar.size };
                    let entry = RegionEntry { size, align: size, up: !usb, what };
                    if let Some(bus) = buses.get_mut(bus) {
                        bus.regions[if bar.prefetchable { PREF } else { MEM }].insert(entry);
                    }
                }
            }
        }
    }
}

/// What a bridge requests on its parent bus: the second half of `pci_bios_check_devices`.
fn add_window(buses: &mut [Bus<'_>], bus: usize, version: Version, above: Above4G) {
    let Some((Bus { bridge: Some((port, parent)), regions }, parents)) =
        buses.get_mut(..=bus).and_then(<[_]>::split_last_mut)
    else {
        return;
    };
    let Some(parent) = parents.get_mut(*parent) else { return };
    // `pci_bus_hotplug_support` asks a port whether it has a slot, not whether that is hot-plug capable.
    let hotplug = port.express || port.hotplug;
    for kind in [MEM, PREF] {
        let region = &regions[kind];
        let mut align = region.align().max(SMALLEST_WINDOW);
        let mut sum = region.sum();
        if version < (Version { major: 1, minor: 16, micro: 3 }) {
            if sum == 0 && hotplug {
                sum = align;
            }
        } else {
            if let (true, PREF, Some(top)) = (hotplug && above.pad, kind, above.top) {
                // 1.16.3 forgets the alignment of the BARs here (96a8d130; e5f2e4c6 in 1.17.0).
                align = if version < Version::new(1, 17) { top >> 11 } else { align.max(top >> 11) };
            }
            if align > sum && hotplug {
                sum = align;
            }
        }
        let reserve = if kind == PREF { port.pref64_reserve.unwrap_or(0) } else { 0 };
        let size = align_up(sum.max(reserve), align);
        // `pci_bios_bridge_region_is64`: only the prefetchable window of a bridge has 64 bits.
        parent.regions[kind].insert(RegionEntry { size, align, up: kind == PREF, what: RegionContent::Window { bus } });
    }
}

/// `pci_bios_init_root_regions_mem`: where both regions begin below 4 GiB; `None` if they do not fit. The 32-bit BARs
/// take `others` bytes.
fn low_bases(regions: &[Region; 2], platform: &Platform, others: u64) -> Option<[u64; 2]> {
    let start = match platform.family {
        // `mch_mem_addr_setup`: after MMCONFIG.
        Family::Q35 => 0xc000_0000,
        // `i440fx_mem_addr_setup`
        Family::I440fx => match platform.ram_below_4g_end {
            ..0x8000_0000 => 0x8000_0000,
            0x8000_0000..0xc000_0000 => 0xc000_0000,
            end => end.saturating_add(1),
        },
    };
    let (first, last) = if regions[MEM].align() < regions[PREF].align() { (PREF, MEM) } else { (MEM, PREF) };
    let mut bases = [0; 2];
    let end = LOW_END.checked_sub(others)?;
    bases[last] = round_down(end.checked_sub(regions[last].sum())?, regions[last].align());
    bases[first] = round_down(bases[last].checked_sub(regions[first].sum())?, regions[first].align());
    (bases[first] >= start).then_some(bases)
}

/// The window above 4 GiB, and where both regions begin in it (`pci_bios_map_devices`).
fn high_bases(up: &[Region; 2], platform: &Platform, above: Above4G) -> (Option<GpaRange>, [u64; 2]) {
    let mut base = platform.after_ram();
    if let Some(top) = above.top {
        let mut size = align_up(up[MEM].sum(), GIB).wrapping_add(align_up(up[PREF].sum(), GIB));
        if above.pad {
            size = align_up(size, top >> 3);
        }
        // Both are compared as unsigned numbers.
        base = base.max(top.wrapping_sub(size));
        // `e820_is_used`: one subtraction, and RAM is not asked again.
        if platform.ht_entry && base < HT_END && base.wrapping_add(size) > AMD_HT_START {
            base = base.wrapping_sub(size);
        }
    }
    let mem = align_up(align_up(base, up[MEM].align()), GIB);
    let pref = align_up(align_up(mem.wrapping_add(up[MEM].sum()), up[PREF].align()), GIB);
    let end = align_up(pref.wrapping_add(up[PREF].sum()), GIB);
    let window = GpaRange::with_size(mem, end.wrapping_sub(mem)).filter(|window| window.end < BEYOND);
    (window, [mem, pref])
}

/// `pci_region_map_entries`: one after the other.
fn map(region: &Region, mut base: u64, kind: usize, buses: &[Bus<'_>], addresses: &mut [Option<u64>]) {
    for entry in &region.entries {
        match entry.what {
            RegionContent::Bar { id, size } => {
                // The register does not hold the bits below the size of the BAR.
                let address = round_down(base, size);
                let reached = address != 0 && address.saturating_add(size) <= BEYOND;
                if let Some(place) = addresses.get_mut(id) {
                    *place = reached.then_some(address);
                }
            }
            RegionContent::Window { bus } => {
                if let Some(bus) = buses.get(bus) {
                    map(&bus.regions[kind], base, kind, buses, addresses);
                }
            }
        }
        base = base.wrapping_add(entry.size);
    }
}
