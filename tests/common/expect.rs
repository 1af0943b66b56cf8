//! Compares one guest of our JSON with the facts measured on real libvirt and real QEMU. The
//! facts have the same shape whether they were recorded before or are asked for now.

use super::Differences;
use serde_json::{Value, json};

/// What QEMU says when it refuses to build a machine, and the rule that has to predict it.
const REFUSALS: &[(&str, &str)] = &[
    ("phys-bits too low", "phys-bits-too-low"),
    ("phys-bits is not user-configurable in 32 bit", "phys-bits-not-configurable"),
];

/// Compares what libvirt passes to QEMU with ours.
pub fn libvirt(diffs: &mut Differences, at: (&str, &str), facts: &Value, guest: &Value) {
    diffs.compare(at, "machine.canonical", &facts["machine"], &guest["machine"]["canonical"]);
    for field in ["ram", "slots", "maxmem", "pci_hole64_size"] {
        diffs.compare(at, &format!("memory.{field}"), &facts[field], &guest["memory"][field]);
    }
}

/// Compares what QEMU builds, or why it refuses, with ours.
pub fn qemu(diffs: &mut Differences, at: (&str, &str), cell: &Value, guest: &Value) {
    if cell["starts"] == true {
        started(diffs, at, cell, guest);
    } else {
        refused(diffs, at, cell["error"].as_str().unwrap_or_default(), guest);
    }
}

/// A domain that libvirt refuses must not appear to start.
pub fn rejected(diffs: &mut Differences, at: (&str, &str), why: &str, guest: &Value) {
    let verdict = verdict(guest);
    let stops = ["blocked", "fixable", "error"].contains(&verdict);
    diffs.expect(at, "verdict", stops, &format!("libvirt rejects: {why}"), verdict);
}

fn verdict(guest: &Value) -> &str {
    guest["verdict"].as_str().unwrap_or("none")
}

fn started(diffs: &mut Differences, at: (&str, &str), cell: &Value, guest: &Value) {
    let verdict = verdict(guest);
    let findings = || guest["findings"].to_string() + &guest["error"].to_string();
    diffs.expect(at, "verdict", ["pass", "warn"].contains(&verdict), "starts", &format!("{verdict} {}", findings()));
    diffs.compare(at, "cpu.vendor", &cell["vendor"], &guest["cpu"]["vendor"]);
    diffs.compare(at, "cpu.phys_bits", &cell["phys_bits"], &guest["cpu"]["phys_bits"]);
    let layout = &guest["layout"];
    for field in ["ram_below_4g", "ram_above_4g", "device_memory"] {
        diffs.compare(at, &format!("layout.{field}"), &cell[field], &layout[field]);
    }
    // With nothing above 4 GiB the machine shows no trace of where that would have begun.
    if !cell["ram_above_4g"].is_null() || !cell["device_memory"].is_null() {
        diffs.compare(at, "layout.relocated", &cell["relocated"], &layout["relocated"]);
    }
    let (expected, ours) = (plugged(&cell["memory_devices"]), placed(&cell["memory_devices"], layout));
    diffs.compare(at, "layout.memory_devices", &expected, &ours);
}

/// The measured memory devices as kind, start and end in the order of their addresses. The end is
/// left out if the size measured is not the size of the region (virtio-mem reports what is
/// plugged at the moment).
fn plugged(devices: &Value) -> Value {
    let rows = devices.as_array().map(Vec::as_slice).unwrap_or_default();
    sorted(rows.iter().map(|d| {
        let start = d["addr"].as_u64().unwrap_or_default();
        let size = d["size"].as_u64().filter(|size| *size > 0);
        (d["type"].as_str().unwrap_or_default(), start, size.map(|size| start + size - 1))
    }))
}

/// Ours in the same form.
fn placed(measured: &Value, layout: &Value) -> Value {
    let unsized_at = |start: u64| {
        let rows = measured.as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().any(|d| d["addr"] == start && d["size"] == 0)
    };
    let rows = layout["memory_devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    sorted(rows.iter().map(|d| {
        let start = d["start"].as_u64().unwrap_or_default();
        let end = d["end"].as_u64().filter(|_| !unsized_at(start));
        (d["kind"].as_str().unwrap_or_default(), start, end)
    }))
}

fn sorted<'a>(rows: impl Iterator<Item = (&'a str, u64, Option<u64>)>) -> Value {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| row.1);
    json!(rows)
}

fn refused(diffs: &mut Differences, at: (&str, &str), error: &str, guest: &Value) {
    let verdict = verdict(guest);
    let text = format!("QEMU refuses: {error}");
    diffs.expect(at, "verdict", ["blocked", "fixable"].contains(&verdict), &text, verdict);
    let findings = guest["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<&str> =
        findings.iter().filter(|f| f["severity"] == "error").filter_map(|f| f["rule"].as_str()).collect();
    let known = REFUSALS.iter().find(|(part, _)| error.contains(part));
    let (holds, rule) = match known {
        Some((_, rule)) => (errors.contains(rule), *rule),
        None => (!errors.is_empty(), "any"),
    };
    diffs.expect(at, "finding", holds, &format!("an error of rule {rule}: {error}"), &format!("{errors:?}"));
    if let Some((limit, needed, bits)) = address_space_limit(error) {
        diffs.compare(at, "cpu.phys_bits", &json!(bits), &guest["cpu"]["phys_bits"]);
        diffs.compare(at, "layout.max_gpa", &json!(needed), &guest["layout"]["max_gpa"]);
        let ours = guest["cpu"]["phys_bits"].as_u64().and_then(|b| 1u64.checked_shl(u32::try_from(b).ok()?));
        diffs.compare(at, "address space limit", &json!(limit), &json!(ours.map(|size| size - 1)));
    }
}

/// The numbers of `Address space limit 0x… < 0x… phys-bits too low (…)`.
fn address_space_limit(error: &str) -> Option<(u64, u64, u64)> {
    let rest = error.split_once("Address space limit 0x")?.1;
    let (limit, rest) = rest.split_once(" < 0x")?;
    let (needed, rest) = rest.split_once(" phys-bits too low (")?;
    let bits = rest.split_once(')')?.0;
    Some((u64::from_str_radix(limit, 16).ok()?, u64::from_str_radix(needed, 16).ok()?, bits.parse().ok()?))
}
