//! Random command lines, put to three real QEMUs and to us: QEMU's own reading of its options, without libvirt.
//!
//! `IOVA_DIFF_SEED` and `IOVA_DIFF_CASES` choose the lines.

mod generate;
mod switches;

use super::oracle::Oracle;
use super::{ALONE, CASES, OUTSIDE, Overcommit, SEED, host_cpu, kvm, number, tree};
use crate::common::{Differences, check, expect, note, skip, work_dir};
use crate::integration::differential::draw::Rng;
use generate::Inventory;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Guests that are asked at the same time.
const WORKERS: usize = 2;

/// What a guest may take of this machine's memory for it to be asked at all.
const MOST_MEMORY: u64 = 4 << 30;

#[test]
fn random_lines_match_this_machine() {
    match_stack("machine");
}

#[test]
fn random_lines_match_debian_trixie() {
    match_stack("trixie");
}

#[test]
fn random_lines_match_debian_sid() {
    match_stack("sid");
}

fn match_stack(stack: &str) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => return skip(&format!("guests larger than this machine cannot be started: {why}")),
    };
    let (seed, cases) = (number("IOVA_DIFF_SEED", SEED), number("IOVA_DIFF_CASES", CASES as u64));
    let work = work_dir(&format!("lines-{stack}"));
    let oracle = match tree(stack).and_then(|tree| Oracle::start(&tree, &work)) {
        Ok(oracle) => oracle,
        Err(why) => return skip(&format!("no real QEMU of {stack} to compare with: {why}")),
    };
    let models = oracle.models.iter().chain(&oracle.unknown).filter(|model| *model != "host").cloned().collect();
    let inventory = Inventory { machines: oracle.machines.clone(), models, kvm: kvm() };
    let mut features = BTreeMap::<&str, usize>::new();
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    for case in 0..cases {
        let draft = generate::line(&mut Rng::of_case(seed, case), &inventory);
        if draft.taken() > MOST_MEMORY {
            continue;
        }
        draft.has.iter().for_each(|feature| *features.entry(feature).or_default() += 1);
        let arguments = draft.arguments();
        let path = work.join(format!("l{case:05}.args"));
        let quoted: Vec<String> = arguments.iter().map(|word| iova_preflight::argv::quoted(word)).collect();
        std::fs::write(&path, format!("/usr/bin/qemu-system-x86_64 {}\n", quoted.join(" "))).expect("write a line");
        lines.push(arguments);
        files.push(path);
    }
    note(&format!("lines: {stack}: drawn {features:?}"));
    let answers = ask_all(&oracle, &lines);
    let text = files.iter().zip(&answers).map(|(file, answer)| format!("{} {answer}\n", file.display()));
    std::fs::write(work.join("answers"), text.collect::<String>()).expect("keep the answers");
    let profile = work.join("host.toml");
    let (vendor, phys_bits) = host_cpu();
    oracle.profile(vendor, phys_bits, inventory.kvm).write(&profile);
    let guests = check(&profile, &files);
    let mut diffs = Differences::default();
    let mut counts = BTreeMap::<&str, usize>::new();
    for (file, answer) in files.iter().zip(&answers) {
        let name = file.file_name().expect("a case is a file").to_string_lossy();
        let guest = &guests[name.as_ref()];
        let before = diffs.found.len();
        let kind = compare(&mut diffs, (&name, "now"), answer, guest);
        *counts.entry(kind).or_default() += 1;
        if diffs.found.len() > before && diffs.found.len() < 12 {
            let text = std::fs::read_to_string(file).expect("read the line again");
            note(&format!("MISMATCH seed {seed} {}\n{text}real: {answer}\nours: {guest}", file.display()));
        }
    }
    note(&format!(
        "lines: seed {seed}, {} lines, QEMU {}: {counts:?}, {} facts compared",
        files.len(),
        oracle.qemu_version,
        diffs.compared
    ));
    diffs.assert_none(&format!("differences from QEMU {}; the lines are in {}", oracle.qemu_version, work.display()));
}

/// Compares one line and says what kind it was.
fn compare(diffs: &mut Differences, at: (&str, &str), answer: &Value, guest: &Value) -> &'static str {
    let error = answer["error"].as_str().unwrap_or_default();
    if OUTSIDE.iter().any(|part| error.contains(part)) {
        return "refused for something else";
    }
    if !answer["machine_missing"].is_null() {
        return "without such a machine type";
    }
    expect::qemu(diffs, at, answer, guest);
    if answer["starts"] != true {
        return "refused";
    }
    let hole = &guest["layout"]["pci_hole64"];
    let size = hole["end"].as_u64().zip(hole["start"].as_u64()).map_or(0, |(end, start)| end - start + 1);
    diffs.compare(at, "pci-hole64-size", &answer["pci_hole64_size"], &json!(size));
    "started"
}

fn ask_all(oracle: &Oracle, lines: &[Vec<String>]) -> Vec<Value> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<BTreeMap<usize, Value>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(line) = lines.get(index) else { break };
                    let answer = oracle.built(line);
                    answers.lock().expect("no worker has failed").insert(index, answer);
                }
            });
        }
    });
    answers.into_inner().expect("no worker has failed").into_values().collect()
}
