//! Four hundred recorded domains: what real libvirt passes to QEMU, and what three versions of
//! real QEMU build from it, against what we say. Every cell has to match.

use crate::common::{Differences, Profile, check, expect, note, shared, work_dir, xml_files};
use serde_json::Value;

/// The columns of the record and the exact QEMU version each was measured with.
const COLUMNS: [(&str, &str); 3] = [("7.2", "7.2.22"), ("10.0", "10.0.13"), ("11.1", "11.1.3")];

#[test]
fn every_recorded_layout_matches() {
    let Some(golden) = shared("golden") else {
        return;
    };
    let text = std::fs::read_to_string(golden.join("layout.json")).expect("read layout.json");
    let record: Value = serde_json::from_str(&text).expect("layout.json is JSON");
    let record = record.as_object().expect("layout.json is an object");
    let files = xml_files(&golden.join("cases"));
    assert_eq!(files.len(), record.len(), "one record for each case");

    let work = work_dir("golden");
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
        for (case, facts) in record {
            let (at, guest) = ((case.as_str(), column), &guests[case]);
            if let Some(why) = facts["libvirt_rejects"].as_str() {
                expect::rejected(&mut diffs, at, why, guest);
            } else if !facts[column]["machine_missing"].is_null() {
                missing += 1;
            } else {
                expect::libvirt(&mut diffs, at, &facts["libvirt"], guest);
                expect::qemu(&mut diffs, at, &facts[column], guest);
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
