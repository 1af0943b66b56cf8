//! `check` and `fix` with `--connect`: a guest that the hook stops is redefined, and then runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::real_map;
use super::start::assert_stopped;
use super::world::World;
use crate::common::guest::Guest;

/// There is no device to attach, so every guest is evaluated as if it had one.
const ASSUME: &str = "passthrough = 'assume'\n";

/// How a run of the tool ended: status, standard output, standard error.
type Ended = (i32, String, String);

/// Runs `iova-preflight` against the world's libvirtd for the host that the namespace shows.
fn tool(world: &World, words: &[&str]) -> Ended {
    tool_under(world, ASSUME, words)
}

/// The same under another policy.
fn tool_under(world: &World, text: &str, words: &[&str]) -> Ended {
    let policy = world.files().join("policy-of-the-tool.toml");
    std::fs::write(&policy, text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(words)
        .args(["--host", "amd-epyc", "--policy"])
        .arg(policy)
        .output()
        .expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a status"), text(output.stdout), text(output.stderr))
}

fn fix(world: &World, guest: &str, words: &[&str]) -> Ended {
    let backup = backups(world);
    let backup = backup.to_str().expect("UTF-8");
    tool(world, &[&["fix", "--connect", world.uri(), "--domain", guest, "--backup", backup], words].concat())
}

fn backups(world: &World) -> PathBuf {
    world.files().join("backup")
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_guest_that_is_stopped_runs_once_it_is_fixed() {
    let Some(world) = World::new("fixed") else { return };
    world.set_policy(ASSUME);
    let reply = world.define_and_start(&Guest::huge("db", "pc-q35-6.2"));
    assert_stopped(reply, "db", "prepare");
    let before = world.virsh(&["dumpxml", "--inactive", "--security-info", "db"]).expect_ok();

    let (status, diff, _) = fix(&world, "db", &["--dry-run"]);
    assert!(status == 1 && diff.contains("+    <type arch='x86_64' machine='pc-q35-7.1'>"), "{diff}");
    assert_eq!((world.machine("db").as_str(), kept(&backups(&world)).len()), ("pc-q35-6.2", 0));

    let (status, said, error) = fix(&world, "db", &[]);
    assert!(status == 0 && said.contains("is redefined"), "{said}{error}");
    let kept = kept(&backups(&world));
    assert_eq!(kept.len(), 1);
    assert!(said.contains(kept[0].to_str().expect("UTF-8")), "{said}");
    assert_eq!(std::fs::read_to_string(&kept[0]).expect("readable").trim(), before.trim());
    assert_eq!(std::fs::metadata(&kept[0]).expect("there").permissions().mode() & 0o777, 0o600);

    world.start("db").expect_ok();
    let prediction = world.check("db");
    assert_eq!(prediction["layout"]["relocated"], true);
    real_map::assert_matches(&world, "db", &prediction);

    let (status, said, error) = fix(&world, "db", &[]);
    assert!(status == 0 && said.is_empty() && error.contains("nothing to fix"), "{said}{error}");
}

#[test]
fn a_managed_save_image_is_not_lost_by_accident() {
    let Some(world) = World::new("managed-save") else { return };
    // Little enough memory to be saved in a moment, and a DIMM in the hole.
    world.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    world.virsh(&["managedsave", "db"]).expect_ok();
    let (status, _, error) = fix(&world, "db", &[]);
    assert!(status == 2 && error.contains("managed save image") && error.contains("--force"), "{error}");
    assert_eq!(world.machine("db"), "pc-q35-6.2");
    let (status, said, error) = fix(&world, "db", &["--force"]);
    assert!(status == 0, "{said}{error}");
    assert_eq!(world.machine("db"), "pc-q35-7.1");
}

/// Nova would overwrite a rewrite at the next start.
#[test]
fn a_guest_of_an_orchestrator_is_left_to_it() {
    let Some(world) = World::new("owned") else { return };
    let instance = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>";
    let guest = Guest::huge("vnf", "pc-q35-6.2").with_uuid().with_metadata(instance);
    world.define(&guest);
    let (status, said, error) = fix(&world, "vnf", &[]);
    assert!(status == 1 && said.is_empty(), "{status} {said}{error}");
    for part in
        ["nova: nova-manage libvirt update_machine_type c0ffee00-", "vnf is unchanged: Nova regenerates", "--force"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((world.machine("vnf").as_str(), kept(&backups(&world)).len()), ("pc-q35-6.2", 0));
    let (status, diff, _) = fix(&world, "vnf", &["--dry-run"]);
    assert!(status == 1 && diff.contains("pc-q35-7.1"), "{diff}");

    let redefine = ["fix", "--connect", world.uri(), "--domain", "vnf", "--backup"];
    let backup = backups(&world);
    let words = [&redefine[..], &[backup.to_str().expect("UTF-8")]].concat();
    let (status, said, error) = tool_under(&world, &format!("{ASSUME}owned = 'rewrite'\n"), &words);
    assert!(status == 0 && said.contains("is redefined"), "{said}{error}");
    assert_eq!(world.machine("vnf"), "pc-q35-7.1");
    world.define(&guest);
    let (status, said, error) = fix(&world, "vnf", &["--force"]);
    assert!(status == 0 && said.contains("is redefined"), "{said}{error}");
    assert_eq!(world.machine("vnf"), "pc-q35-7.1");
}

#[test]
fn without_a_backup_nothing_is_redefined() {
    let Some(world) = World::new("no-backup") else { return };
    world.define(&Guest::huge("db", "pc-q35-6.2"));
    std::fs::write(backups(&world), "a file where the folder should be").expect("written");
    let (status, _, error) = fix(&world, "db", &[]);
    assert!(status == 2 && error.contains("backup"), "{error}");
    assert_eq!(world.machine("db"), "pc-q35-6.2");
}

#[test]
fn a_running_guest_is_redefined_for_its_next_start() {
    let Some(world) = World::new("running") else { return };
    world.define_and_start(&Guest::huge("db", "pc-q35-6.2")).expect_ok();
    let qemu = world.qemu("db");
    let (status, said, error) = fix(&world, "db", &[]);
    assert!(status == 0 && said.contains("next cold start"), "{said}{error}");
    assert_eq!((world.machine("db").as_str(), world.qemu("db")), ("pc-q35-7.1", qemu));
    // The running guest and its definition differ, and both are evaluated.
    let (status, document, _) = tool(&world, &["check", "--format", "json", "--connect", world.uri()]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let verdicts: Vec<&str> =
        document["guests"].as_array().expect("guests").iter().filter_map(|g| g["verdict"].as_str()).collect();
    assert_eq!((status, verdicts), (1, vec!["pass", "fixable"]));
}

#[test]
fn one_libvirt_that_does_not_answer_does_not_hide_another() {
    let Some(world) = World::new("several") else { return };
    world.define(&Guest::small("web"));
    let nowhere = "qemu+unix:///system?socket=/nonexistent";
    let (status, said, error) = tool(&world, &["check", "--connect", nowhere, "--connect", world.uri()]);
    assert!(status == 2 && error.contains(nowhere) && said.contains("pass"), "{said}{error}");
    let (status, _, error) = tool(&world, &["check", "--connect", world.uri(), "--domain", "nobody"]);
    assert!(status == 2 && error.contains("nobody"), "{error}");
}

/// Whether a network hands out PCI functions is looked up in the libvirt that the guest is in.
#[test]
fn a_network_that_hands_out_functions_is_looked_up() {
    let Some(world) = World::new("networks") else { return };
    let define = |kind: &str, xml: &str| {
        let file = world.files().join("new.xml");
        std::fs::write(&file, xml).expect("written");
        world.virsh(&[kind, file.to_str().expect("UTF-8")]).expect_ok();
    };
    for (name, forward) in [("pool", "mode='hostdev'"), ("bridge", "mode='bridge'")] {
        let end = if name == "pool" { "<pf dev='lo'/></forward>" } else { "</forward><bridge name='br0'/>" };
        define("net-define", &format!("<network><name>{name}</name><forward {forward}>{end}</network>"));
        define(
            "define",
            &format!(
                "<domain type='kvm'><name>on-{name}</name><memory unit='GiB'>1200</memory><vcpu>1</vcpu>\
                 <os><type arch='x86_64' machine='pc-q35-6.2'>hvm</type></os><cpu mode='host-passthrough'/>\
                 <devices><interface type='network'><source network='{name}'/></interface></devices></domain>"
            ),
        );
    }
    let said = |guest: &str| {
        let (_, document, _) = tool_under(
            &world,
            "passthrough = 'present'\n",
            &["check", "--format", "json", "--connect", world.uri(), "--domain", guest],
        );
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let guest = &document["guests"][0];
        (guest["verdict"].clone(), guest["passthrough"].as_array().map(Vec::len))
    };
    assert_eq!(said("on-pool"), ("fixable".into(), Some(1)));
    assert_eq!(said("on-bridge"), ("warn".into(), Some(0)));
}
