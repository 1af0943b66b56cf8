//! Small domains of kinds that the random ones do not draw, each with what real libvirt, QEMU and KVM made of it on three
//! stacks (`tests/data/cases/cases.json`, see `tests/data/README.md`).

use std::path::Path;

use iova_preflight::rules::RULES;
use serde::Deserialize;
use serde_json::Value;

use crate::common::{Differences, Profile, check, note, work_dir};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The domain, below the folder of `cases.json`.
    file: String,
    /// libvirt:QEMU.
    stacks: Vec<String>,
    starts: Option<bool>,
    ram_above_4g_start: Option<u64>,
    said: String,
    #[serde(default)]
    expect: Expected,
}

/// The expected findings for a guest whose start shows nothing.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: Option<String>,
    rule: Option<String>,
    not_rule: Option<String>,
}

/// The host that was measured on, with another libvirt and QEMU.
fn profile(folder: &Path, stack: &str) -> std::path::PathBuf {
    let (libvirt, qemu) = stack.split_once(':').expect("libvirt:QEMU");
    let newest = qemu.rsplit_once('.').expect("three numbers").0;
    let path = folder.join(format!("{libvirt}-{qemu}.toml"));
    let profile = Profile {
        vendor: "AuthenticAMD".to_owned(),
        phys_bits: 48,
        kvm: true,
        qemu: qemu.to_owned(),
        pc: format!("pc-i440fx-{newest}"),
        q35: format!("pc-q35-{newest}"),
        libvirt: libvirt.to_owned(),
    };
    profile.write(&path);
    path
}

#[test]
fn every_case_fares_as_it_was_measured() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    let text = std::fs::read_to_string(data.join("cases.json")).expect("read cases.json");
    let rows: Vec<Row> = serde_json::from_str(&text).expect("cases.json is a list of rows");
    let work = work_dir("cases");
    let mut differences = Differences::default();
    let mut pairs = 0;
    for row in &rows {
        for stack in &row.stacks {
            pairs += 1;
            compare(row, stack, &profile(&work, stack), &data.join(&row.file), &mut differences);
        }
    }
    note(&format!(
        "cases: {} rows, {pairs} pairs of row and stack, {} facts compared",
        rows.len(),
        differences.compared
    ));
    assert!(rows.len() >= 28 && pairs >= 67, "{} rows, {pairs} pairs", rows.len());
    differences.assert_none("cases that do not fare as measured");
}

fn compare(row: &Row, stack: &str, host: &Path, file: &Path, differences: &mut Differences) {
    let guests = check(host, &[file.to_owned()]);
    let guest = guests.values().next().expect("a guest");
    let at = (row.file.as_str(), stack);
    let verdict = guest["verdict"].as_str().unwrap_or_default();
    let findings: Vec<&Value> = guest["findings"].as_array().into_iter().flatten().collect();
    let rules: Vec<&str> = findings.iter().filter_map(|finding| finding["rule"].as_str()).collect();
    let ours = format!("{verdict} {rules:?}");
    if let Some(starts) = row.starts {
        let holds = if starts { matches!(verdict, "pass" | "warn") } else { matches!(verdict, "fixable" | "blocked") };
        let expected = format!("starts: {starts} ({})", row.said);
        differences.expect(at, "start", holds, &expected, &ours);
    }
    if let Some(start) = row.ram_above_4g_start {
        let ours = &guest["layout"]["ram_above_4g"]["start"];
        differences.compare(at, "RAM above 4 GiB", &start.into(), ours);
    }
    let Expected { verdict: wanted, rule, not_rule } = &row.expect;
    if let Some(wanted) = wanted {
        differences.expect(at, "verdict", wanted == verdict, wanted, &ours);
    }
    if let Some(rule) = rule {
        differences.expect(at, "rule", rules.contains(&rule.as_str()), rule, &ours);
    }
    if let Some(rule) = not_rule {
        differences.expect(at, "no such rule", !rules.contains(&rule.as_str()), rule, &ours);
    }
}

/// A search for an error finds the page that explains it.
#[test]
fn every_refusal_that_was_seen_is_on_a_page() {
    // Addresses differ from guest to guest, and libvirt begins some errors with a capital.
    let plain = |text: &str| {
        let words = text.split(' ').map(|word| if word.contains("0x") { "N" } else { word });
        words.collect::<Vec<_>>().join(" ").to_lowercase()
    };
    let quoted: Vec<String> =
        RULES.iter().flat_map(|rule| rule.page.errors.iter().map(|error| plain(error.text))).collect();
    let rows: Vec<Row> = serde_json::from_str(include_str!("../data/cases/cases.json")).expect("a list of rows");
    let refusals = rows.iter().filter(|row| row.starts == Some(false));
    // What is left out of an error, or said about it, comes after these.
    let error = |said: &str| plain(said.split('…').next().and_then(|text| text.split(" (").next()).unwrap_or_default());
    let mut seen = 0;
    for row in refusals.filter(|row| !row.said.starts_with("libvirt ")) {
        let text = error(&row.said);
        assert!(quoted.iter().any(|quoted| quoted.contains(text.trim())), "{}: no page has `{text}`", row.file);
        seen += 1;
    }
    assert!(seen >= 13, "{seen} refusals");
}
