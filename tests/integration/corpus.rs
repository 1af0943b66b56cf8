//! libvirt's own test domains: every file gives a verdict or a clear error, and where libvirt
//! records the command line it builds, our memory and CPU facts are the ones written there.

use crate::common::{Differences, Profile, check, corpus, note, work_dir, xml_files};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The host that the recorded command lines are read on: bits above every request, so that the
/// request itself shows in what the CPU ends up with.
const HOST_BITS: u64 = 52;

/// What a CPU has when nothing is asked for.
const DEFAULT_BITS: u64 = 40;

/// Files whose command line cannot be derived from the XML alone, and why. An entry that is not
/// needed any more fails the test.
const EXCEPTIONS: &[(&str, &str)] =
    &[("migrate-numa-unaligned", "the command line of an incoming migration, where libvirt rounds nothing")];

const VERDICTS: [&str; 6] = ["pass", "warn", "fixable", "blocked", "not-applicable", "error"];

#[test]
fn every_domain_gives_a_verdict_or_a_clear_error() {
    let Some(folder) = corpus() else {
        return;
    };
    let (mut diffs, mut verdicts) = (Differences::default(), BTreeMap::<String, usize>::new());
    for (file, guest) in guests(&folder, "corpus-verdicts") {
        let verdict = guest["verdict"].as_str().unwrap_or("none");
        *verdicts.entry(verdict.to_owned()).or_default() += 1;
        diffs.expect((&file, "all"), "verdict", VERDICTS.contains(&verdict), "a verdict", verdict);
        let error = guest["error"].as_str().unwrap_or_default();
        let clear = verdict != "error" || names_a_place(error);
        diffs.expect((&file, "all"), "error", clear, "a text with line:column", error);
    }
    diffs.assert_none("domains without a verdict or a clear error");
    note(&format!("corpus: {verdicts:?}"));
}

#[test]
fn command_line_facts_match_libvirt() {
    let Some(folder) = corpus() else {
        return;
    };
    let mut diffs = Differences::default();
    let mut unneeded: Vec<&str> = Vec::new();
    let mut lines = 0;
    for (file, guest) in guests(&folder, "corpus-facts") {
        let args = folder.join(&file).with_extension("args");
        let Ok(text) = std::fs::read_to_string(&args) else {
            continue;
        };
        let name = file.trim_end_matches(".xml");
        lines += 1;
        let mut own = Differences::default();
        compare(&mut own, &file, &CommandLine::parse(&text), &guest);
        match EXCEPTIONS.iter().find(|(exception, _)| *exception == name) {
            Some((name, _)) if own.found.is_empty() => unneeded.push(name),
            Some((_, why)) => note(&format!("corpus: {name} is left out: {why}")),
            None => {
                diffs.compared += own.compared;
                diffs.found.append(&mut own.found);
            }
        }
    }
    diffs.assert_none("differences from libvirt's command lines");
    assert!(unneeded.is_empty(), "these match and need no exception: {unneeded:?}");
    note(&format!("corpus: {} facts of {lines} command lines match", diffs.compared));
}

fn guests(folder: &Path, name: &str) -> BTreeMap<String, Value> {
    let profile = work_dir(name).join("host.toml");
    Profile {
        vendor: "AuthenticAMD".to_owned(),
        phys_bits: HOST_BITS,
        kvm: true,
        qemu: "9.2.0".to_owned(),
        pc: "pc-i440fx-9.2".to_owned(),
        q35: "pc-q35-9.2".to_owned(),
        libvirt: "11.3.0".to_owned(),
    }
    .write(&profile);
    check(&profile, &xml_files(folder))
}

/// Whether a text names a place as `line:column`.
fn names_a_place(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit() && c != ':').any(|word| {
        let numbers: Vec<&str> = word.split(':').filter(|part| !part.is_empty()).collect();
        numbers.len() >= 2 && word.starts_with(|c: char| c.is_ascii_digit())
    })
}

fn compare(diffs: &mut Differences, file: &str, line: &CommandLine, guest: &Value) {
    let at = (file, "args");
    if !line.machine.starts_with("pc") && line.machine != "q35" {
        diffs.compare(at, "verdict", &json!("not-applicable"), &guest["verdict"]);
        return;
    }
    let accepted = guest["verdict"] != "error" && guest["verdict"] != "not-applicable";
    diffs.expect(at, "verdict", accepted, "a domain that libvirt accepts", &guest["verdict"].to_string());
    for (field, expected) in
        [("ram", &line.ram), ("slots", &line.slots), ("maxmem", &line.maxmem), ("pci_hole64_size", &line.pci_hole64)]
    {
        diffs.compare(at, field, expected, &guest["memory"][field]);
    }
    if let Some(bits) = line.phys_bits {
        diffs.compare(at, "phys_bits", &json!(bits), &guest["cpu"]["phys_bits"]);
    }
}

/// The facts of a recorded command line.
#[derive(Default)]
struct CommandLine {
    machine: String,
    ram: Value,
    slots: Value,
    maxmem: Value,
    pci_hole64: Value,
    /// What the CPU ends up with, where the line says anything about it.
    phys_bits: Option<u64>,
}

impl CommandLine {
    fn parse(text: &str) -> Self {
        let mut line = CommandLine { slots: json!(0), ..CommandLine::default() };
        let mut cpu = "";
        let mut kvm = false;
        for option in text.lines() {
            let option = option.trim_end_matches('\\').trim();
            let Some((name, value)) = option.split_once(' ') else {
                continue;
            };
            match name {
                "-machine" => value.split(',').next().unwrap_or_default().clone_into(&mut line.machine),
                "-accel" => kvm = value.starts_with("kvm"),
                "-cpu" => cpu = value,
                "-m" => line.memory(value),
                "-global" => {
                    if let Some((_, size)) = value.split_once(".pci-hole64-size=") {
                        line.pci_hole64 = json!(size.trim_end_matches('K').parse::<u64>().ok().map(|kib| kib << 10));
                    }
                }
                _ => {}
            }
        }
        line.phys_bits = effective_bits(cpu, kvm);
        line
    }

    fn memory(&mut self, value: &str) {
        for part in value.split(',') {
            let (key, number) = part.split_once('=').unwrap_or(("size", part));
            let bytes = match number.strip_suffix('k') {
                Some(kib) => kib.parse::<u64>().ok().map(|kib| kib << 10),
                None => number.parse::<u64>().ok().map(|mib| mib << 20),
            };
            match key {
                "size" => self.ram = json!(bytes),
                "maxmem" => self.maxmem = json!(bytes),
                "slots" => self.slots = json!(number.parse::<u64>().ok()),
                _ => {}
            }
        }
    }
}

/// The bits that a `-cpu` with an option for them gives the guest. `host` and `max` take the host's
/// bits under KVM whatever number is there, unless that is switched off.
fn effective_bits(cpu: &str, kvm: bool) -> Option<u64> {
    let mut words = cpu.split(',');
    let model = words.next().unwrap_or_default();
    let (mut number, mut from_host, mut limit) = (None, None, None);
    for word in words {
        match word.split_once('=') {
            Some(("phys-bits", bits)) => number = bits.parse::<u64>().ok(),
            Some(("host-phys-bits", state)) => from_host = Some(state == "on"),
            Some(("host-phys-bits-limit", bits)) => limit = bits.parse::<u64>().ok(),
            _ => {}
        }
    }
    if number.is_none() && from_host.is_none() {
        return None;
    }
    let takes_host = kvm && from_host.unwrap_or(model == "host" || model == "max");
    let host = limit.map_or(HOST_BITS, |limit| limit.min(HOST_BITS));
    Some(if takes_host { host } else { number.unwrap_or(DEFAULT_BITS) })
}
