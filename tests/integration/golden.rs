//! Four hundred recorded domains: compares what real libvirt passes to QEMU, and what three versions of real QEMU build
//! from it, with what we compute. Every cell has to match.

use super::differential::oracle::libvirt_facts;
use crate::common::{Differences, Profile, check, expect, note, work_dir};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The columns of the record and the exact QEMU version each was measured with.
const COLUMNS: [(&str, &str); 3] = [("7.2", "7.2.22"), ("10.0", "10.0.13"), ("11.1", "11.1.3")];

/// The record.
pub const RECORD: &str = include_str!("../data/golden.txt");

/// A domain, and the facts measured with it in the form that [`expect`] compares.
pub struct Case<'a> {
    name: &'a str,
    xml: String,
    libvirt: Value,
    cells: BTreeMap<&'a str, Value>,
}

impl<'a> Case<'a> {
    /// All of the record.
    fn all() -> Vec<Case<'static>> {
        let paragraphs = RECORD.split("\n\n").skip(1);
        paragraphs.map(|text| Case::parse(text).unwrap_or_else(|| panic!("not a case:\n{text}"))).collect()
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let mut head = lines.next()?.split(' ');
        let (name, hypervisor, machine) = (head.next()?, head.next()?, head.next()?);
        let (mut top, mut cpu, mut devices) = (String::new(), String::new(), String::new());
        let (mut libvirt, mut cells) = (Value::Null, BTreeMap::new());
        for line in lines.map(str::trim_start) {
            if line.starts_with('<') {
                let (part, indent) = match line.split([' ', '>']).next()? {
                    "<cpu" => (&mut cpu, 2),
                    "<maxMemory" => (&mut top, 2),
                    "<memory" if !line.starts_with("<memory model=") => (&mut top, 2),
                    _ => (&mut devices, 4),
                };
                let _ = writeln!(part, "{:indent$}{line}", "");
            } else if let Some(facts) = line.strip_prefix("libvirt: ") {
                libvirt = command_line(facts)?;
            } else {
                let (columns, outcome) = line.split_once(": ")?;
                let cell = cell(outcome)?;
                cells.extend(columns.split(' ').map(|column| (column, cell.clone())));
            }
        }
        let xml = format!(
            "<domain type='{hypervisor}'>\n  <name>{name}</name>\n{top}  <vcpu>2</vcpu>\n  \
             <os><type arch='x86_64' machine='{machine}'>hvm</type></os>\n  <features><acpi/></features>\n{cpu}  \
             <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n{devices}  </devices>\n</domain>\n"
        );
        Some(Self { name, xml, libvirt, cells })
    }

    fn file(&self) -> String {
        format!("{}.xml", self.name)
    }
}

/// The domains of the record, written into a folder.
pub fn domains(folder: &Path) -> Vec<PathBuf> {
    write(&Case::all(), folder)
}

fn write(cases: &[Case], folder: &Path) -> Vec<PathBuf> {
    let write = |case: &Case| {
        let path = folder.join(case.file());
        std::fs::write(&path, &case.xml).expect("write a domain");
        path
    };
    cases.iter().map(write).collect()
}

/// `MACHINE ACCELERATOR CPU MEMORY [pci-hole64-size=SIZE]`, as QEMU's options take them.
fn command_line(text: &str) -> Option<Value> {
    let words: Vec<&str> = text.split(' ').collect();
    let (options, hole) = words.split_at_checked(4)?;
    let mut line = Vec::new();
    for (option, value) in ["-machine", "-accel", "-cpu", "-m"].into_iter().zip(options) {
        line.extend([option.to_owned(), (*value).to_owned()]);
    }
    line.extend(hole.iter().map(|hole| format!("host.{hole}")));
    Some(libvirt_facts(&line))
}

/// `no such machine`, `refuses: ERROR`, or `VENDOR BITS bits` and places: what it is, `=`, and in hexadecimal the first
/// and the last byte, or of a memory device the start and the size.
fn cell(text: &str) -> Option<Value> {
    if text == "no such machine" {
        return Some(json!({"machine_missing": true}));
    }
    if let Some(error) = text.strip_prefix("refuses: ") {
        return Some(json!({"starts": false, "error": error}));
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut words = text.split(' ');
    let (vendor, bits) = (words.next()?, words.next()?.parse::<u64>().ok()?);
    words.next().filter(|word| *word == "bits")?;
    let mut cell = json!({
        "starts": true, "vendor": vendor, "phys_bits": bits, "ram_below_4g": null, "ram_above_4g": null,
        "device_memory": null, "relocated": false, "memory_devices": [],
    });
    for word in words {
        let Some((what, place)) = word.split_once('=') else {
            cell["relocated"] = (word == "relocated").then_some(true)?.into();
            continue;
        };
        let range = place.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
        let range = range.map(|(start, end)| json!({"start": start, "end": end}));
        match what {
            "below" => cell["ram_below_4g"] = range?,
            "above" => cell["ram_above_4g"] = range?,
            "window" => cell["device_memory"] = range?,
            kind => {
                let (addr, size) = place.split_once('+')?;
                let device = json!({"type": kind, "addr": number(addr)?, "size": number(size)?});
                cell["memory_devices"].as_array_mut()?.push(device);
            }
        }
    }
    Some(cell)
}

#[test]
fn every_recorded_layout_matches() {
    let work = work_dir("golden");
    let record = Case::all();
    assert_eq!(record.len(), 400);
    let files = write(&record, &work);
    let mut diffs = Differences::default();
    let mut missing = 0;
    for (column, version) in COLUMNS {
        let profile = Profile {
            vendor: "AuthenticAMD".to_owned(),
            phys_bits: 48,
            kvm: true,
            qemu: version.to_owned(),
            pc: "pc-i440fx-7.2".to_owned(),
            q35: "pc-q35-7.2".to_owned(),
            libvirt: "9.0.0".to_owned(),
        };
        let path = work.join(format!("host-{column}.toml"));
        profile.write(&path);
        let guests = check(&path, &files);
        for case in &record {
            let file = case.file();
            let (at, guest, cell) = ((file.as_str(), column), &guests[&file], &case.cells[column]);
            if !cell["machine_missing"].is_null() {
                missing += 1;
            } else {
                expect::libvirt(&mut diffs, at, &case.libvirt, guest);
                expect::qemu(&mut diffs, at, cell, guest);
            }
        }
    }
    let cells = record.len() * COLUMNS.len();
    diffs.assert_none("differences from the recorded layouts");
    note(&format!(
        "golden: {} facts in {} cells match; {missing} cells have no such machine type",
        diffs.compared,
        cells - missing
    ));
}
