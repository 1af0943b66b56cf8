//! The memory map that a running QEMU has.

use serde_json::Value;

use super::world::World;

/// End of the memory below 4 GiB.
const FOUR_GIB: u64 = 1 << 32;

/// Fails unless the guest's RAM and PCI hole are where the prediction says.
#[track_caller]
pub fn assert_matches(world: &World, guest: &str, prediction: &Value) {
    let tree = world.monitor(guest, "info mtree -f");
    let ram = ranges(&tree, "pc.ram");
    let low_end = ram.iter().filter(|range| range.0 < FOUR_GIB).map(|range| range.1).max();
    let high: Vec<(u64, u64)> = ram.iter().copied().filter(|range| range.0 >= FOUR_GIB).collect();
    let layout = &prediction["layout"];
    assert_eq!(layout["ram_below_4g"]["end"].as_u64(), low_end, "{prediction:#}\n{tree}");
    assert_eq!(pair(&layout["ram_above_4g"]).into_iter().collect::<Vec<_>>(), high, "{prediction:#}\n{tree}");
    let property = |name: &str| {
        let answer = world.monitor(guest, &format!("qom-get /machine/q35 {name}"));
        answer.trim().parse::<u64>().unwrap_or_else(|_| panic!("{name}: {answer}"))
    };
    // QEMU says the first address after it.
    let hole = (property("pci-hole64-start"), property("pci-hole64-end") - 1);
    assert_eq!(pair(&layout["pci_hole64"]), Some(hole), "{prediction:#}");
}

/// Fails unless the one DIMM of the guest is where the prediction says.
#[track_caller]
pub fn assert_dimm_at(world: &World, guest: &str, start: u64) {
    let tree = world.monitor(guest, "info mtree -f");
    let dimm = ranges(&tree, "memdimm0");
    assert_eq!(dimm.first().map(|range| range.0), Some(start), "{tree}");
}

/// Where a memory region shows in what the CPUs see, without doubles: `start-end (prio 0, ram): NAME @offset`.
fn ranges(tree: &str, name: &str) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = tree
        .lines()
        .filter_map(|line| {
            let (range, rest) = line.trim().split_once(" (prio ")?;
            let (_, region) = rest.split_once("): ")?;
            let (start, end) = range.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            (region.split(' ').next() == Some(name)).then_some((number(start)?, number(end)?))
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn pair(range: &Value) -> Option<(u64, u64)> {
    Some((range["start"].as_u64()?, range["end"].as_u64()?))
}
