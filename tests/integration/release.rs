//! What has to be in order before a version is published, as far as a test can check it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const MANIFEST: &str = include_str!("../../Cargo.toml");
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn cargo(args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Every crate that may be part of the programs or their tests, but our own.
fn crates() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--locked", "--all-features"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages.filter(|package| package["name"] != "iova-preflight").cloned().collect()
}

fn manifest() -> toml::Table {
    MANIFEST.parse().expect("TOML")
}

/// A version number's first two parts.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
    (parts.next().expect("a number"), parts.next().unwrap_or(0))
}

#[test]
fn no_crate_needs_a_newer_rust() {
    let ours = manifest()["package"]["rust-version"].as_str().map(version).expect("a version");
    let crates = crates();
    assert!(crates.len() > 20, "{}", crates.len());
    for package in crates {
        let theirs = package["rust_version"].as_str().map_or((0, 0), version);
        assert!(theirs <= ours, "{} {} needs Rust {theirs:?}", package["name"], package["version"]);
    }
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let deny: toml::Table = include_str!("../../deny.toml").parse().expect("TOML");
    let words = |value: &toml::Value| -> BTreeSet<String> {
        value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let licenses = &deny["licenses"];
    let mut exceptions = BTreeMap::new();
    for exception in licenses["exceptions"].as_array().expect("a list") {
        exceptions.insert(exception["crate"].as_str().expect("a name"), words(&exception["allow"]));
    }
    for package in crates() {
        let name = package["name"].as_str().expect("a name");
        let mut allowed = words(&licenses["allow"]);
        allowed.extend(exceptions.get(name).cloned().unwrap_or_default());
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        // All that are in use here are alternatives, of which each may be several at once.
        let plain = licence.replace(['(', ')'], "").replace('/', " OR ");
        let is_allowed = match plain.split_once(" AND ") {
            Some((any, and)) => any.split(" OR ").any(|l| allowed.contains(l)) && allowed.contains(and),
            None => plain.split(" OR ").any(|l| allowed.contains(l)),
        };
        assert!(is_allowed, "{name}: {licence}");
        let source = package["source"].as_str().unwrap_or_default();
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
    }
}

#[test]
fn the_packages_are_of_this_version() {
    let manifest = manifest();
    let metadata = &manifest["package"]["metadata"];
    let rpm = metadata["generate-rpm"]["variants"]["libvirt"]["requires"]["iova-preflight"].as_str();
    assert_eq!(rpm, Some(format!("= {VERSION}").as_str()));
    let (rest, last) = VERSION.rsplit_once('.').expect("three numbers");
    let next = format!("{rest}.{}", last.parse::<u32>().expect("a number") + 1);
    let deb = metadata["deb"]["variants"]["libvirt"]["depends"].as_str();
    let wanted = format!("$auto, iova-preflight (>= {VERSION}~), iova-preflight (<< {next}~)");
    assert_eq!(deb, Some(wanted.as_str()));
    let heading = format!("## {VERSION}");
    assert!(
        include_str!("../../CHANGELOG.md").lines().any(|line| line.starts_with(&heading)),
        "{heading} in CHANGELOG.md"
    );
}

#[test]
fn the_crate_holds_what_it_needs_and_nothing_else() {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        return crate::common::skip("not a git checkout: what would be packaged is not known");
    }
    let listed = cargo(&["package", "--list", "--allow-dirty", "--locked"]);
    let listed: BTreeSet<&str> = listed.lines().collect();
    for needed in [
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "README.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "deny.toml",
        "src/lib.rs",
        "hooks/build",
    ] {
        assert!(listed.contains(needed), "{needed} is missing");
    }
    for file in &listed {
        let is_foreign = [".ci/", ".github/", "fuzz/", "target/"].iter().any(|folder| file.starts_with(folder));
        assert!(!is_foreign, "{file}");
    }
}

/// systemd checks the unit files; it does not have to run for that.
#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let folder = crate::common::work_dir("unit");
    let program = env!("CARGO_BIN_EXE_iova-preflight");
    let unit = include_str!("../../packaging/systemd/iova-preflight-watch.service")
        .replace("/usr/libexec/iova-preflight/iova-preflight", program)
        .replace("Documentation=man:iova-preflight-watch(1)\n", "");
    let path = folder.join("iova-preflight-watch.service");
    std::fs::write(&path, unit).expect("written");
    let verify = |path: &Path| Command::new("systemd-analyze").arg("verify").arg(path).output();
    let Ok(output) = verify(&path) else { return crate::common::skip("systemd-analyze is not there") };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("iova-preflight-watch")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
    // The control: it reads what it is given.
    std::fs::write(&path, "[Service]\nTyp=notify\nExecStart=/nonexistent\n").expect("written");
    let output = verify(&path).expect("runs");
    assert!(!output.stderr.is_empty());
}
