//! The sample domains: what `check` says of each, on the default profile and on the hosts beside them, against a
//! reviewed record. A new sample or a new host has to be written down in `tests/expected/samples.toml`.

use crate::common::{check, samples, work_dir};
use iova_preflight::rules::RULES;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The profile that counts if the record names no other.
const DEFAULT_HOST: &str = "amd-epyc";

const VERDICTS: [&str; 5] = ["pass", "warn", "fixable", "blocked", "not-applicable"];

/// For each sample, the result on the hosts it names: the verdict, `severity line rule` of each finding, the
/// changes of the fix, and who writes the definition anew at each start.
type Record = BTreeMap<String, BTreeMap<String, Vec<String>>>;

#[test]
fn every_sample_is_evaluated_as_recorded() {
    let record = record();
    let mut differences = String::new();
    for (host, profile) in hosts() {
        for (sample, guest) in check(&profile, &samples()) {
            let ours = said_of(&guest);
            let Some(recorded) = record.get(&sample) else {
                let _ = writeln!(differences, "{sample}: not recorded; {host} says {ours:?}");
                continue;
            };
            let expected = recorded.get(&host).or_else(|| recorded.get(DEFAULT_HOST));
            if expected != Some(&ours) {
                let _ = writeln!(differences, "{sample} on {host}\n  recorded {expected:?}\n  said     {ours:?}");
            }
        }
    }
    assert!(differences.is_empty(), "samples that are not evaluated as recorded\n{differences}");
}

#[test]
fn the_record_matches_the_samples() {
    let record = record();
    let hosts: BTreeSet<String> = hosts().into_iter().map(|(name, _)| name).collect();
    let samples: BTreeSet<String> = samples().iter().map(|path| file_name(path)).collect();
    let recorded: BTreeSet<String> = record.keys().cloned().collect();
    assert_eq!(recorded, samples, "the samples, each with its record");
    for (sample, by_host) in record {
        assert!(by_host.contains_key(DEFAULT_HOST), "{sample} has no record for {DEFAULT_HOST}");
        for (host, said) in &by_host {
            assert!(hosts.contains(host), "{sample} is recorded for {host}, which is not a profile");
            let same = host != DEFAULT_HOST && Some(said) == by_host.get(DEFAULT_HOST);
            assert!(!same, "{sample}: the record for {host} is that for {DEFAULT_HOST}, leave it out");
        }
    }
}

#[test]
fn every_verdict_and_every_rule_occurs() {
    let record = record();
    let mut by_default = BTreeSet::new();
    let mut anywhere = BTreeSet::new();
    for (host, said) in record.values().flatten() {
        // A verdict is one word, and the rule is the last of a finding's three.
        let words = said
            .iter()
            .filter(|line| !["fix ", "owner "].iter().any(|word| line.starts_with(word)))
            .filter_map(|line| line.split(' ').next_back());
        anywhere.extend(words.clone());
        if host == DEFAULT_HOST {
            by_default.extend(words);
        }
    }
    for verdict in VERDICTS {
        assert!(by_default.contains(verdict), "no sample is {verdict} on {DEFAULT_HOST}");
    }
    // Of what libvirt writes, QEMU takes all.
    let argument = check(Path::new(DEFAULT_HOST), &[folder().join("../argv-samples/wrong-unit.sh")]);
    let argument: BTreeSet<String> = argument.values().flat_map(said_of).collect();
    assert_eq!(argument, BTreeSet::from(["blocked", "error 3 refused-by-qemu"].map(str::to_owned)));
    // libvirt refuses a domain with more bits than the host has.
    let shown = |rule: &&str| !["refused-by-qemu", "bar-above-host-width"].contains(rule);
    for rule in RULES.iter().map(|rule| rule.id).filter(shown) {
        // Which types there are only a host whose QEMU is known can say, where BARs lie one that knows their sizes, and
        // what an IOMMU cannot address one that knows its width.
        let known = ["machine-type-not-available", "ram-above-iommu-width", "viommu-above-iommu-width"];
        let elsewhere = known.contains(&rule) || rule.starts_with("bar-");
        let found = if elsewhere { &anywhere } else { &by_default };
        assert!(found.contains(rule), "no sample shows {rule}");
    }
}

#[test]
fn every_sample_says_what_it_is() {
    let record = record();
    assert!(samples().len() >= 15, "a folder of samples");
    for path in samples() {
        let (name, text) = (file_name(&path), std::fs::read_to_string(&path).expect("read a sample"));
        let header = text
            .trim_start()
            .strip_prefix("<!--")
            .and_then(|rest| rest.split_once("-->"))
            .map(|(header, _)| header.trim())
            .unwrap_or_else(|| panic!("{name} does not begin with a comment"));
        let (story, verdict) = header.rsplit_once("\n\n").unwrap_or_else(|| panic!("{name}: no line for the verdict"));
        let lines = story.lines().count();
        assert!((3..=8).contains(&lines), "{name}: {lines} lines say what it is");
        let expected = record.get(&name).and_then(|by_host| by_host.get(DEFAULT_HOST)).and_then(|said| said.first());
        let said = verdict.trim().strip_prefix("Verdict on an AMD EPYC host: ");
        assert_eq!(said, expected.map(String::as_str), "the verdict in the header of {name}");
    }
}

/// If the sizes of BARs are unknown, `pass` does not cover them.
#[test]
fn unknown_bar_sizes_are_named_with_verbose() {
    let check = |host: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(["check", "-v", "--policy", "none", "xml-samples/gpu-four-h100-384g.xml", "--host", host])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("run iova-preflight");
        String::from_utf8_lossy(&output.stdout).contains("the BAR sizes of 0000:0f:00.0 and 3 more devices are unknown")
    };
    assert!(check("xml-samples/hosts/debian-13-turin.toml"));
    // A finding says so there.
    assert!(!check("amd-epyc"));
    assert!(!check("xml-samples/hosts/debian-12-epyc.toml"));
}

/// The fix of a warning is made only for those who ask for it; where devices have to reach one another, it is not a
/// warning.
#[test]
fn a_warning_is_fixed_where_somebody_asks_for_it() {
    let policy = work_dir("peer-to-peer").join("policy.toml");
    std::fs::write(&policy, "peer_to_peer = \"required\"\n").expect("write a policy");
    let policy = policy.to_str().expect("UTF-8");
    let sample = "xml-samples/gpu-four-a30-64g.xml";
    let fix = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(["fix", sample, "--host", "xml-samples/hosts/debian-12-epyc.toml"])
            .args(options)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("run iova-preflight");
        let advised = String::from_utf8_lossy(&output.stderr).contains("nothing to fix; add --warnings");
        assert_eq!(advised, output.stdout.is_empty(), "{options:?}: {output:?}");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).contains("bits='41'"))
    };
    assert_eq!(fix(&["--policy", "none"]), (Some(0), false));
    assert_eq!(fix(&["--policy", "none", "--warnings"]), (Some(0), true));
    assert_eq!(fix(&["--policy", policy]), (Some(1), true));
}

/// What one guest of the JSON document comes to, as the record has it.
fn said_of(guest: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut said = vec![text(&guest["verdict"])];
    for finding in list(&guest["findings"]) {
        let line = &finding["location"]["line"];
        said.push(format!("{} {line} {}", text(&finding["severity"]), text(&finding["rule"])));
    }
    said.extend(list(&guest["fix"]["changes"]).iter().map(|change| format!("fix {}", text(change))));
    said.extend(guest["owner"].as_str().map(|owner| format!("owner {owner}")));
    said
}

fn record() -> Record {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected/samples.toml");
    let text = std::fs::read_to_string(&path).expect("read samples.toml");
    toml::from_str(&text).expect("samples.toml is a record")
}

/// The default profile and those beside the samples, each with what `--host` is given.
fn hosts() -> Vec<(String, PathBuf)> {
    let mut hosts = vec![(DEFAULT_HOST.to_owned(), PathBuf::from(DEFAULT_HOST))];
    for entry in std::fs::read_dir(folder().join("hosts")).expect("read the folder of hosts") {
        let path = entry.expect("read a folder entry").path();
        let name = path.file_stem().expect("a profile has a name").to_string_lossy().into_owned();
        hosts.push((name, path));
    }
    hosts.sort();
    hosts
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("xml-samples")
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a sample is a file").to_string_lossy().into_owned()
}
