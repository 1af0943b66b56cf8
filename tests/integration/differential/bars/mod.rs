//! Random guests whose firmware puts 64-bit BARs somewhere, put to the real firmware in the real QEMU and to us.
//!
//! What firmware does follows from CPUID, e820 and fw_cfg, so that TCG is enough. `IOVA_DIFF_SEED` and
//! `IOVA_DIFF_CASES` choose the guests.

mod generate;
mod real;

use super::{ALONE, Overcommit, WORKERS, number, tree};
use crate::common::{note, skip};
use crate::integration::bars::platform;
use generate::Guest;
use iova_preflight::firmware::{BarRequest, Node, Placement, place, possible_builds};
use iova_preflight::host::FirmwareKind;
use real::{Firmware, Seen};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEED: u64 = 7;
/// OVMF takes ten seconds under TCG on an idle machine.
const CASES: u64 = 20;

/// Where 64-bit BARs begin.
const HIGH: u64 = 1 << 32;

#[test]
fn random_bars_match_this_machine() {
    match_stack("machine", CASES);
}

#[test]
fn random_bars_match_debian_trixie() {
    match_stack("trixie", 0);
}

#[test]
fn random_bars_match_debian_sid() {
    match_stack("sid", 0);
}

/// Asks the firmware of a stack about random guests, and compares.
fn match_stack(stack: &str, cases: u64) {
    let (seed, cases) = (number("IOVA_DIFF_SEED", SEED), number("IOVA_DIFF_CASES", cases));
    if cases == 0 {
        return note(&format!("bars: {stack}: asked with IOVA_DIFF_CASES"));
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => return skip(&format!("guests larger than this machine cannot be started: {why}")),
    };
    let firmware = match tree(stack).and_then(|tree| Firmware::find(&tree)) {
        Ok(firmware) => firmware,
        Err(why) => return skip(&format!("no real firmware of {stack} to compare with: {why}")),
    };
    let guests: Vec<Guest> = (0..cases).map(|case| generate::guest(seed, case, &firmware)).collect();
    let answers = ask_all(&firmware, &guests);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut different = Vec::new();
    for (case, (guest, answer)) in guests.iter().zip(&answers).enumerate() {
        let outcome = match answer {
            Err(why) => Err(format!("no answer: {why}")),
            Ok(seen) => compare(&firmware, guest, seen),
        };
        let outcome = outcome.unwrap_or_else(|difference| {
            different.push(format!("seed {seed} case {case}: {}\n{difference}", guest.line().join(" ")));
            "different"
        });
        *outcomes.entry(outcome).or_default() += 1;
    }
    note(&format!("bars: {stack}: seed {seed}, {cases} guests: {outcomes:?}"));
    assert!(different.is_empty(), "{} guests of {cases}:\n{}", different.len(), different.join("\n"));
}

fn ask_all(firmware: &Firmware, guests: &[Guest]) -> Vec<Result<Vec<Seen>, String>> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(guest) = guests.get(index) else { break };
                    let answer = firmware.bars(guest);
                    answers.lock().expect("no worker has failed").insert(index, answer);
                }
            });
        }
    });
    answers.into_inner().expect("no worker has failed").into_values().collect()
}

/// Compares one guest and says what kind it was, or what differs.
fn compare(firmware: &Firmware, guest: &Guest, seen: &[Seen]) -> Result<&'static str, String> {
    let bars = |id: &str| {
        let of_it = seen.iter().enumerate().filter(|(_, bar)| bar.device == id);
        of_it.map(|(id, bar)| BarRequest { id, size: bar.size, prefetchable: bar.prefetchable }).collect()
    };
    let root: Vec<Node> = guest.root(&bars);
    let platform = platform(&guest.machine, &guest.cpu, &guest.memory, guest.x_pci_mmio64_mb, root);
    let builds = possible_builds(Some(guest.firmware), Some(firmware.version(guest.firmware)));
    let [build] = builds[..] else { return Err(format!("{} builds", builds.len())) };
    let Placement { addresses, exact, window } = place(build, &platform);
    let differs = |(bar, ours): (&Seen, &Option<u64>)| match (bar.address, *ours) {
        // Where they are below 4 GiB depends on 32-bit BARs.
        (Some(real), Some(ours)) => real != ours && real.max(ours) >= HIGH,
        (real, ours) => real != ours,
    };
    let different = seen.iter().zip(&addresses).any(differs);
    if different && exact {
        let shown = |at: Option<u64>| at.map_or("none".to_owned(), |at| format!("{at:#x}"));
        let bars = seen.iter().zip(&addresses).map(|(bar, ours)| {
            format!("    {} {:#x}: real {}, ours {}", bar.device, bar.size, shown(bar.address), shown(*ours))
        });
        let window = window.map_or("none".to_owned(), |window| window.to_string());
        return Err(format!("{}\n    window {window}, {build}", bars.collect::<Vec<_>>().join("\n")));
    }
    Ok(match (guest.firmware, exact) {
        (_, false) if different => "not exact, and different",
        (_, false) => "not exact",
        (FirmwareKind::Ovmf, _) => "OVMF, equal",
        (FirmwareKind::SeaBios, _) => "SeaBIOS, equal",
    })
}
