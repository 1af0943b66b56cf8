//! `host` on a host with an AMD IOMMU and a libvirt that knows its QEMU.

use serde_json::Value;

use super::world::World;

/// Every sample has to get the same verdict where the profile was written and anywhere else.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/xml-samples");

/// What `check --format json` says of the guests.
fn guests(json: &str) -> Value {
    let document: Value = serde_json::from_str(json).expect("JSON");
    assert!(document["guests"].as_array().is_some_and(|guests| guests.len() > 20), "{document:#}");
    document["guests"].clone()
}

#[test]
fn the_profile_of_a_real_host_evaluates_as_the_host_does() {
    let Some(world) = World::new("host") else { return };
    // Makes libvirt probe QEMU, if it has not yet.
    world.virsh(&["capabilities"]).expect_ok();
    let profile = world.tool(&["host"]).expect_ok();
    for line in [
        "kind = \"amd\"                    # /sys/class/iommu/ivhd0",
        "[[iommu.reserved]]              # HyperTransport, 1012–1024 GiB",
        "[qemu]                          # for guests without <emulator>",
        "path = \"/usr/bin/qemu-system-x86_64\"",
    ] {
        assert!(profile.lines().any(|known| known == line), "{line}\n{profile}");
    }
    // No kernel shows the width of AMD's IOMMU.
    let missing: Vec<&str> =
        profile.lines().filter_map(|line| line.split_once(" is missing:")).map(|(key, _)| key).collect();
    assert_eq!(missing, ["# address_bits"], "{profile}");
    let file = world.files().join("host.toml");
    std::fs::write(&file, &profile).expect("written");

    let here = world.tool(&["check", "--format", "json", SAMPLES]).stdout;
    // The file is seen in there and outside; outside there is no AMD IOMMU, and libvirt's cache is another one.
    let elsewhere = std::process::Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--format", "json", SAMPLES, "--host"])
        .arg(&file)
        .output()
        .expect("runs");
    let elsewhere = String::from_utf8(elsewhere.stdout).expect("UTF-8");
    assert_eq!(guests(&here), guests(&elsewhere));
}

#[test]
fn other_users_are_told_which_facts_need_root() {
    let Some(world) = World::new("host-not-root") else { return };
    world.virsh(&["capabilities"]).expect_ok();
    // In a folder from which any user may run it.
    let program = "/run/iova-preflight";
    std::fs::copy(env!("CARGO_BIN_EXE_iova-preflight"), world.path(program)).expect("copied");
    let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups", program, "host"];
    let profile = world.command("setpriv", &words).expect_ok();
    let text = profile.replace("\n#  ", "");
    assert!(text.contains("Only root can read /var/cache/libvirt/qemu/capabilities."), "{profile}");
    assert!(text.contains("Remedy: Run this as root."), "{profile}");
    assert!(profile.contains("HyperTransport, 1012–1024 GiB"), "{profile}");
}
