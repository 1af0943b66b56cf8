//! A guest's memory map as a picture: what lies where, to a scale on which both the first 4 GiB and the neighbourhood
//! of 1 TiB can be read, and next to it the map after a rewrite.

mod svg;
mod terminal;

use std::collections::BTreeSet;

pub use svg::svg;
pub use terminal::text;

use crate::address::{ABOVE_4G_START, AMD_HT_START, GIB, GpaRange};
use crate::evaluate::Facts;
use crate::host::{ReservedKind, Unmappable, Why};
use crate::mmio64::{Bar, Mmio64, Possible};
use crate::qemu::layout::Layout;
use crate::text::{quoted, size};

/// What lies at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing.
    Unused,
    /// The 32-bit PCI hole, APICs and firmware, between RAM and 4 GiB.
    Low,
    /// The 64-bit PCI hole.
    PciHole,
    /// Firmware's window for 64-bit BARs, if there are no BARs.
    BarWindow,
    /// A 64-bit BAR.
    Bar,
    /// The region for memory devices, if none is plugged.
    Window,
    /// A plugged memory device.
    Device,
    /// RAM.
    Ram,
    /// A reserved range of the host's IOMMU without anything of the guest.
    Reserved,
    /// Something of the guest in such a range.
    Collision,
    /// A BAR where the guest has memory, or room for it.
    Hidden,
}

impl Kind {
    /// In the order of a legend.
    const ALL: [Self; 11] = [
        Self::Ram,
        Self::Device,
        Self::Window,
        Self::PciHole,
        Self::Bar,
        Self::BarWindow,
        Self::Low,
        Self::Reserved,
        Self::Collision,
        Self::Hidden,
        Self::Unused,
    ];

    /// What a legend says; `None` if every block says it itself.
    fn legend(self) -> Option<&'static str> {
        match self {
            Self::Ram => Some("RAM"),
            Self::Device => Some("memory device"),
            Self::Window => Some("window for memory hot-plug"),
            Self::PciHole => Some("64-bit PCI hole"),
            Self::Bar => Some("64-bit BAR"),
            Self::BarWindow => Some("firmware's window for 64-bit BARs"),
            Self::Hidden => Some("BAR hidden by RAM"),
            Self::Reserved => Some("reserved by the host's IOMMU"),
            Self::Collision => Some("collision with a reserved range"),
            Self::Low | Self::Unused => None,
        }
    }
}

/// A block of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Where it is.
    pub range: GpaRange,
    /// What it is.
    pub kind: Kind,
    /// What it is and how large, in a few words; nothing after the end of the map.
    pub label: String,
}

/// One memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Which map this is.
    pub heading: String,
    /// Machine type, phys-bits and, where BARs are drawn, the firmware that places them.
    pub facts: String,
    /// What lies where, from address 0 on, without gaps.
    pub blocks: Vec<Area>,
    /// phys-bits of the vCPU, and the first address that they do not reach; `None` if they reach all of the map.
    pub limit: Option<(u32, u64)>,
}

/// A part of the address space between two addresses at which something begins or ends in some column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Where it is.
    pub range: GpaRange,
    /// How many rows high it is drawn: one more with every eightfold size.
    pub rows: usize,
}

/// One map, or several on one scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// What is shown, in one line.
    pub title: String,
    /// The maps.
    pub columns: Vec<Column>,
    /// The scale.
    pub intervals: Vec<Interval>,
    /// Remarks about it, a line each.
    pub remarks: Vec<String>,
}

impl Picture {
    /// The maps in `views`, each with its heading; one that is not known is left out, and `None` if none is known.
    pub fn new(title: String, views: &[(String, &Facts)], mut remarks: Vec<String>) -> Option<Self> {
        let maps: Vec<_> = views.iter().filter_map(|(heading, facts)| Map::new(heading, facts)).collect();
        let top = maps.iter().map(Map::top).max()?;
        remarks.extend(maps.iter().filter_map(Map::unplaced));
        let columns: Vec<Column> = maps.iter().map(|map| map.column(top)).collect();
        Some(Self { title, intervals: intervals(&columns, top), columns, remarks })
    }

    /// Each map on a scale of its own.
    fn apart(&self) -> impl Iterator<Item = Self> {
        self.columns.iter().map(|column| {
            let blocks: Vec<Area> = column.blocks.iter().filter(|block| !block.label.is_empty()).cloned().collect();
            let top = blocks.last().map_or(0, |block| block.range.end);
            let columns = vec![Column { blocks, ..column.clone() }];
            Self { intervals: intervals(&columns, top), columns, ..self.clone() }
        })
    }

    /// The kinds that occur and need a legend, each with its text.
    fn legend(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let occurs = |kind: Kind| self.columns.iter().flat_map(|column| &column.blocks).any(|block| block.kind == kind);
        Kind::ALL.into_iter().filter(move |&kind| occurs(kind)).filter_map(|kind| Some((kind, kind.legend()?)))
    }

    /// The address after the last one; `None` if that is the end of the 64-bit space.
    fn end(&self) -> Option<u64> {
        self.intervals.last()?.range.end.checked_add(1)
    }
}

impl Column {
    /// The block at `address`, and whether it begins there.
    fn at(&self, address: u64) -> Option<(&Area, bool)> {
        let after = self.blocks.partition_point(|block| block.range.start <= address);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        (block.range.end >= address).then_some((block, block.range.start == address))
    }

    /// phys-bits, if the addresses from `address` on are out of their reach and those before are not.
    fn limit_at(&self, address: u64) -> Option<u32> {
        self.limit.filter(|&(_, first)| first == address).map(|(bits, _)| bits)
    }
}

/// The intervals from 0 to `top`, inclusive.
fn intervals(columns: &[Column], top: u64) -> Vec<Interval> {
    let blocks = columns.iter().flat_map(|column| &column.blocks).map(|block| block.range.start);
    let limits = columns.iter().filter_map(|column| column.limit).map(|(_, address)| address);
    let starts: BTreeSet<u64> = blocks.chain(limits).collect();
    let ends = starts.iter().skip(1).map(|start| start.saturating_sub(1)).chain([top]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| Interval { range: GpaRange { start, end }, rows: rows(end.saturating_sub(start)) })
        .collect()
}

/// The rows that this many bytes take: one more for every eightfold of a GiB.
fn rows(bytes: u64) -> usize {
    const BITS_PER_ROW: u32 = 3;
    let bits = (bytes / GIB).checked_ilog2().unwrap_or(0);
    (bits / BITS_PER_ROW).saturating_add(1) as usize
}

/// A map whose parts may still overlap.
struct Map<'f> {
    heading: &'f str,
    facts: &'f Facts,
    layout: &'f Layout,
    reserved: Vec<Unmappable>,
    parts: Vec<(GpaRange, Kind, String)>,
}

impl<'f> Map<'f> {
    fn new(heading: &'f str, facts: &'f Facts) -> Option<Self> {
        let layout = facts.layout.as_ref()?;
        let mut parts: Vec<(GpaRange, Kind, String)> =
            layout.ram().map(|ram| (ram, Kind::Ram, "RAM".to_owned())).collect();
        let after_ram = layout.ram_below_4g.end.checked_add(1).filter(|&start| start < ABOVE_4G_START);
        if let Some(start) = after_ram {
            let low = GpaRange { start, end: ABOVE_4G_START - 1 };
            parts.push((low, Kind::Low, "32-bit PCI, firmware".to_owned()));
        }
        parts.extend(devices(facts).into_iter().map(|(range, name)| (range, Kind::Device, name)));
        parts.extend(layout.device_memory.map(|window| (window, Kind::Window, "hot-plug window".to_owned())));
        parts.extend(layout.pci_hole64.map(|hole| (hole, Kind::PciHole, "64-bit PCI hole".to_owned())));
        if let Some((mmio64, likeliest)) = likeliest(facts) {
            let window = mmio64.window().or(likeliest.window.filter(|_| !mmio64.bars.is_empty()));
            parts.extend(window.map(|window| (window, Kind::BarWindow, "window for BARs".to_owned())));
            let memory: Vec<GpaRange> = layout.ram().chain(layout.device_memory).collect();
            parts.extend(bars(mmio64, likeliest, &memory).into_iter().map(|(range, name)| (range, Kind::Bar, name)));
        }
        // What is reserved below 4 GiB, the MSI window first of all, matters only if there is RAM.
        let matters = |unmappable: &&Unmappable| {
            unmappable.range.start >= ABOVE_4G_START || layout.ram().any(|ram| ram.overlaps(unmappable.range))
        };
        // The part above the IOMMU's width extends to the last address; it is drawn up to the end of the map.
        let end = parts.iter().map(|(range, ..)| range.end).max().unwrap_or_default();
        let drawn = |unmappable: &Unmappable| match unmappable.why {
            Why::Reserved(_) => Some(*unmappable),
            Why::Width(_) => {
                let range = unmappable.range.intersection(GpaRange { start: 0, end })?;
                Some(Unmappable { range, ..*unmappable })
            }
        };
        let reserved = facts.unmappable.iter().filter(matters).filter_map(drawn).collect();
        Some(Self { heading, facts, layout, reserved, parts })
    }

    /// The last address that is worth drawing.
    fn top(&self) -> u64 {
        let parts = self.parts.iter().map(|(range, ..)| range.end);
        parts.chain(self.reserved.iter().map(|reserved| reserved.range.end)).max().unwrap_or(ABOVE_4G_START)
    }

    fn column(&self, top: u64) -> Column {
        let needed = self.layout.phys_bits_needed;
        let has = self.facts.phys_bits;
        let machine = self.facts.machine.as_deref().map_or_else(|| "some machine type".to_owned(), quoted);
        let facts = match has {
            Some(bits) if bits < needed => format!("{machine}, {bits} phys-bits of {needed}"),
            Some(bits) => format!("{machine}, {bits} phys-bits"),
            None => format!("{machine}, needs {needed} phys-bits"),
        };
        let facts = match likeliest(self.facts) {
            Some((mmio64, likeliest)) => {
                let others = if mmio64.possible.len() > 1 { " or other firmware" } else { "" };
                format!("{facts}, {}{others}", likeliest.firmware)
            }
            None => facts,
        };
        let limit = has.and_then(|bits| Some((bits, 1u64.checked_shl(bits)?)));
        // A limit far above the map would only stretch the scale.
        let limit = limit.filter(|&(_, address)| address <= self.layout.max_gpa);
        Column { heading: self.heading.to_owned(), facts, blocks: self.blocks(top), limit }
    }

    /// The BARs that cannot be drawn.
    fn unplaced(&self) -> Option<String> {
        let (mmio64, likeliest) = likeliest(self.facts)?;
        let lost = mmio64.placed(likeliest).filter(|(bar, place)| place.is_none() && bar.size >= GIB);
        let names: Vec<String> = lost.map(|(bar, _)| format!("{} ({})", bar.name(), size(bar.size))).collect();
        let heading = self.heading.split(':').next().unwrap_or_default();
        (!names.is_empty()).then(|| format!("{heading}, without an address: {}", names.join(", ")))
    }

    fn blocks(&self, top: u64) -> Vec<Area> {
        let ranges = self.parts.iter().map(|(range, ..)| *range);
        let ranges = ranges.chain(self.reserved.iter().map(|reserved| reserved.range));
        let starts: BTreeSet<u64> =
            ranges.flat_map(|range| [Some(range.start), range.end.checked_add(1)]).flatten().chain([0]).collect();
        let starts: Vec<u64> = starts.into_iter().filter(|&start| start <= top).collect();
        let mut blocks: Vec<(GpaRange, Kind, String)> = Vec::new();
        for (index, &start) in starts.iter().enumerate() {
            let end = starts.get(index.saturating_add(1)).map_or(top, |next| next.saturating_sub(1));
            let (kind, name) = self.what_is_at(start);
            match blocks.last_mut() {
                Some((range, before, of)) if (*before, of.as_str()) == (kind, &name) => range.end = end,
                _ => blocks.push((GpaRange { start, end }, kind, name)),
            }
        }
        let label = |range: GpaRange, kind: Kind, name: String| match (kind, range.size()) {
            // Beyond the end of this map, where another one continues.
            (Kind::Unused, _) if range.end == top => String::new(),
            (Kind::Low | Kind::BarWindow, _) | (_, None) => name,
            (_, Some(bytes)) => format!("{name} {}", size(bytes)),
        };
        blocks.into_iter().map(|(range, kind, name)| Area { range, kind, label: label(range, kind, name) }).collect()
    }

    /// What is drawn at `address`: of parts that overlap, memory or a BAR rather than a window for it.
    fn what_is_at(&self, address: u64) -> (Kind, String) {
        let contains = |range: GpaRange| range.start <= address && address <= range.end;
        let mut parts = self.parts.iter().filter(|(range, ..)| contains(*range));
        let bar = parts.clone().find(|(_, kind, _)| *kind == Kind::Bar);
        let memory = parts.clone().find(|(_, kind, _)| matches!(kind, Kind::Ram | Kind::Device | Kind::Window));
        if let (Some((_, _, name)), Some((_, _, memory))) = (bar, memory) {
            return (Kind::Hidden, format!("{name} in {memory}"));
        }
        let part = parts.clone().max_by_key(|(_, kind, _)| *kind);
        let reserved = self.reserved.iter().find(|reserved| contains(reserved.range));
        match (part, reserved) {
            // A window without BARs does not collide: firmware may avoid the reserved range.
            (Some(_), Some(reserved)) if parts.all(|(_, kind, _)| *kind == Kind::BarWindow) => {
                (Kind::Reserved, reserved_name(*reserved))
            }
            (Some((_, _, name)), Some(reserved)) => {
                let of = if reserved.width().is_some() { " " } else { " in " };
                (Kind::Collision, format!("{name}{of}{}", reserved_name(*reserved)))
            }
            (Some((_, kind, name)), None) => (*kind, name.clone()),
            (None, Some(reserved)) => (Kind::Reserved, reserved_name(*reserved)),
            (None, None) => (Kind::Unused, "unused".to_owned()),
        }
    }
}

/// What the host does not map, in a word or two.
fn reserved_name(unmappable: Unmappable) -> String {
    match (unmappable.why, unmappable.range.start) {
        (Why::Reserved(ReservedKind::Reserved), AMD_HT_START) => "HyperTransport".to_owned(),
        (Why::Reserved(kind), _) => format!("reserved ({})", kind.name()),
        (Why::Width(bits), _) => format!("above the IOMMU's {bits} bits"),
    }
}

/// The 64-bit BARs, and what the likeliest firmware makes of them; `None` if there is nothing of interest: neither a
/// BAR that is large or a passthrough device's, nor certainty about the window of one whose BARs are unknown.
fn likeliest(facts: &Facts) -> Option<(&Mmio64, &Possible)> {
    let mmio64 = facts.mmio64.as_ref()?;
    let of_interest =
        mmio64.bars.iter().any(is_of_interest) || (mmio64.window().is_some() && !mmio64.unsized_devices.is_empty());
    Some((mmio64, mmio64.possible.first().filter(|_| of_interest)?))
}

/// Whether a BAR is drawn wherever it lies.
fn is_of_interest(bar: &Bar) -> bool {
    bar.passed || bar.size >= GIB
}

/// The BARs that have an address above 4 GiB; of small ones of emulated devices only those in `memory`. Small ones that
/// lie close together are one range, as are all if there are too many to be told apart.
fn bars(mmio64: &Mmio64, possible: &Possible, memory: &[GpaRange]) -> Vec<(GpaRange, String)> {
    /// More would make the picture a list.
    const MOST: usize = 16;
    /// Below it a BAR is small, and what is nearer than that is close. Bytes.
    const SMALL: u64 = GIB;
    let placed = mmio64.placed(possible).filter_map(|(bar, place)| Some((place?, bar)));
    let placed = placed.filter(|(place, bar)| is_of_interest(bar) || memory.iter().any(|part| part.overlaps(*place)));
    let mut placed: Vec<(GpaRange, &Bar)> = placed.filter(|(place, _)| place.start >= ABOVE_4G_START).collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    let mut merged: Vec<(GpaRange, &Bar, usize)> = Vec::new();
    for &(place, bar) in &placed {
        match merged.last_mut() {
            Some((last, before, count))
                if bar.size < SMALL && before.size < SMALL && place.start.saturating_sub(last.end) < SMALL =>
            {
                last.end = last.end.max(place.end);
                *count = count.saturating_add(1);
            }
            _ => merged.push((place, bar, 1)),
        }
    }
    if let (Some((first, ..)), Some((last, ..)), true) = (merged.first(), merged.last(), merged.len() > MOST) {
        let range = GpaRange { start: first.start, end: last.end.max(first.end) };
        return vec![(range, format!("{} BARs, within", placed.len()))];
    }
    let name = |bar: &Bar, count: usize| if count > 1 { format!("{count} BARs, within") } else { bar.name() };
    merged.into_iter().map(|(range, bar, count)| (range, name(bar, count))).collect()
}

/// Plugged memory devices, neighbours of one kind in one; if there are too many to be told apart, one range from the
/// first to the last.
fn devices(facts: &Facts) -> Vec<(GpaRange, String)> {
    /// More would make the picture a list.
    const MOST: usize = 8;
    let mut plugged = facts.memory_devices.clone();
    plugged.sort_unstable_by_key(|(_, range)| *range);
    let mut merged: Vec<(GpaRange, &'static str, usize)> = Vec::new();
    for &(model, range) in &plugged {
        match merged.last_mut() {
            Some((last, kind, count)) if *kind == model && last.end.checked_add(1) == Some(range.start) => {
                last.end = range.end;
                *count = count.saturating_add(1);
            }
            _ => merged.push((range, model, 1)),
        }
    }
    if let (Some((first, ..)), Some((last, ..)), true) = (merged.first(), merged.last(), merged.len() > MOST) {
        let range = GpaRange { start: first.start, end: last.end };
        return vec![(range, format!("{} memory devices, within", plugged.len()))];
    }
    let name = |model: &str, count: usize| if count > 1 { format!("{count} × {model}") } else { model.to_owned() };
    merged.into_iter().map(|(range, model, count)| (range, name(model, count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::builtin;

    /// What the layout tests know of QEMU 7.2 with 1200 GiB: unmoved with a 6.2 type, moved with a 7.1 type.
    fn facts(relocated: bool) -> Facts {
        let above = if relocated { 1024 } else { 4 };
        let ram_end = (above + 1198) * GIB;
        Facts {
            machine: Some("pc-q35-7.2".to_owned()),
            phys_bits: Some(40),
            layout: Some(Layout {
                relocated,
                ram_below_4g: GpaRange::inclusive(0, 2 * GIB - 1),
                ram_above_4g: GpaRange::with_size(above * GIB, 1198 * GIB),
                device_memory: None,
                pci_hole64: GpaRange::with_size(ram_end, 32 * GIB),
                pci_hole64_start: ram_end,
                pci_hole64_size: 32 * GIB,
                max_gpa: ram_end + 32 * GIB - 1,
                phys_bits_needed: 41 + u32::from(relocated),
            }),
            unmappable: builtin("amd-epyc").expect("built in").unmappable([]),
            ..Facts::default()
        }
    }

    /// [`facts`] of 384 GiB, with four BARs of 128 GiB at these addresses in GiB.
    fn with_bars(window: Option<GpaRange>, addresses: [Option<u64>; 4]) -> Facts {
        let origin = crate::command_line::Origin::Xml(crate::xml::Span { start: 0, end: 0 });
        let bar = |nth: usize| Bar {
            device: format!("0000:{:x}:00.0", 0x41 + nth),
            index: 2,
            size: 128 * GIB,
            passed: true,
            origin,
        };
        let possible = Possible {
            firmware: "OVMF 2025.02".to_owned(),
            kind: crate::host::FirmwareKind::Ovmf,
            window,
            addresses: addresses.map(|at| at.map(|at| at * GIB)).to_vec(),
            exact: true,
            has_spare_port: true,
        };
        let mmio64 = Mmio64 { bars: (0..4).map(bar).collect(), possible: vec![possible], ..Mmio64::default() };
        let layout = facts(false).layout.expect("a layout");
        let above = GpaRange::with_size(4 * GIB, 382 * GIB);
        let layout = Layout { ram_above_4g: above, pci_hole64: None, ..layout };
        Facts { mmio64: Some(mmio64), layout: Some(layout), ..facts(false) }
    }

    fn picture(relocated: bool) -> Picture {
        Picture::new(String::new(), &[(String::new(), &facts(relocated))], Vec::new()).expect("a map")
    }

    #[test]
    fn blocks_follow_one_another_from_zero_to_the_top() {
        for relocated in [false, true] {
            let picture = picture(relocated);
            let blocks = &picture.columns[0].blocks;
            assert_eq!(blocks[0].range.start, 0);
            assert!(blocks.windows(2).all(|pair| pair[0].range.end + 1 == pair[1].range.start), "{blocks:?}");
            assert_eq!(blocks.last().map(|block| block.range.end), picture.intervals.last().map(|i| i.range.end));
            assert!(picture.intervals.windows(2).all(|pair| pair[0].range.end + 1 == pair[1].range.start));
        }
    }

    #[test]
    fn what_collides_is_neither_ram_nor_reserved() {
        let kinds = |picture: &Picture| -> Vec<(Kind, u64)> {
            picture.columns[0].blocks.iter().map(|block| (block.kind, block.range.start / GIB)).collect()
        };
        use Kind::{Collision, Low, PciHole, Ram, Reserved, Unused};
        let unmoved = [(Ram, 0), (Low, 2), (Ram, 4), (Collision, 1012), (Ram, 1024), (PciHole, 1202)];
        assert_eq!(kinds(&picture(false)), unmoved);
        let moved = [(Ram, 0), (Low, 2), (Unused, 4), (Reserved, 1012), (Ram, 1024), (PciHole, 2222)];
        assert_eq!(kinds(&picture(true)), moved);
    }

    /// Three of four GPUs: window 512–1024, the last BAR without an address. And SeaBIOS: 384, 256, 128, and one at
    /// 896 that reaches the reserved range.
    #[test]
    fn bars_are_drawn_where_firmware_puts_them() {
        let drawn = |facts: &Facts| Picture::new(String::new(), &[("as it is: warn".to_owned(), facts)], Vec::new());
        let window = GpaRange::with_size(512 * GIB, 512 * GIB);
        let picture = drawn(&with_bars(window, [Some(512), Some(640), Some(768), None])).expect("a map");
        let kinds = |picture: &Picture| -> Vec<(Kind, u64)> {
            picture.columns[0].blocks.iter().map(|block| (block.kind, block.range.start / GIB)).collect()
        };
        use Kind::{Bar, BarWindow, Collision, Hidden, Low, Ram, Reserved, Unused};
        let expected = [
            (Ram, 0),
            (Low, 2),
            (Ram, 4),
            (Unused, 386),
            (Bar, 512),
            (Bar, 640),
            (Bar, 768),
            (BarWindow, 896),
            (Reserved, 1012),
        ];
        assert_eq!(kinds(&picture), expected);
        assert_eq!(picture.columns[0].blocks[4].label, "BAR 2 of 0000:41:00.0 128 GiB");
        assert!(picture.columns[0].facts.ends_with(", OVMF 2025.02"), "{}", picture.columns[0].facts);
        assert_eq!(picture.remarks, ["as it is, without an address: BAR 2 of 0000:44:00.0 (128 GiB)"]);

        let picture = drawn(&with_bars(None, [Some(128), Some(384), Some(512), Some(896)])).expect("a map");
        let expected = [
            (Ram, 0),
            (Low, 2),
            (Ram, 4),
            (Hidden, 128),
            (Ram, 256),
            (Hidden, 384),
            (Bar, 386),
            (Bar, 512),
            (Unused, 640),
            (Bar, 896),
            (Collision, 1012),
        ];
        assert_eq!(kinds(&picture), expected);
    }

    #[test]
    fn small_bars_that_lie_close_are_one_range() {
        let mut facts = with_bars(None, [Some(900), Some(901), Some(902), Some(960)]);
        let mmio64 = facts.mmio64.as_mut().expect("BARs");
        mmio64.bars.iter_mut().for_each(|bar| bar.size = 16 << 10);
        mmio64.possible[0].addresses = [0, 16 << 10, 32 << 10, 60 * GIB].map(|at| Some(900 * GIB + at)).to_vec();
        let (mmio64, likeliest) = likeliest(&facts).expect("BARs");
        let names: Vec<String> = bars(mmio64, likeliest, &[]).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["3 BARs, within", "BAR 2 of 0000:44:00.0"]);
    }

    #[test]
    fn a_limit_is_drawn_only_where_the_map_passes_it() {
        assert_eq!(picture(true).columns[0].limit, Some((40, 1 << 40)));
        let reaching = Facts { phys_bits: Some(48), ..facts(true) };
        let picture = Picture::new(String::new(), &[(String::new(), &reaching)], Vec::new()).expect("a map");
        assert_eq!(picture.columns[0].limit, None);
    }

    #[test]
    fn many_devices_are_one_range() {
        let at = |slot: u64| ("dimm", GpaRange::inclusive(slot * GIB, slot * GIB + 5));
        let facts = |devices: Vec<_>| Facts { memory_devices: devices, ..Facts::default() };
        let all = devices(&facts((0..300).map(at).collect()));
        assert_eq!(all, [(GpaRange::inclusive(0, 299 * GIB + 5), "300 memory devices, within".to_owned())]);
        let touching = vec![("dimm", GpaRange::inclusive(0, 9)), ("dimm", GpaRange::inclusive(10, 19))];
        assert_eq!(devices(&facts(touching)), [(GpaRange::inclusive(0, 19), "2 × dimm".to_owned())]);
    }

    #[test]
    fn the_end_of_the_address_space_is_drawn() {
        let mut facts = facts(false);
        let range = GpaRange::inclusive(1 << 63, u64::MAX);
        facts.unmappable.push(Unmappable { range, why: Why::Reserved(ReservedKind::Reserved) });
        let picture = Picture::new(String::new(), &[(String::new(), &facts)], Vec::new()).expect("a map");
        assert_eq!(picture.end(), None);
        assert_eq!(picture.columns[0].at(u64::MAX).map(|(block, _)| block.kind), Some(Kind::Reserved));
    }
}
