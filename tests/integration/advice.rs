//! A fix is told in the words of the orchestrator that regenerates the guest's definition at each start.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::guest::Guest;

const NOVA: &str = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
                    <nova:flavor name='gpu'/></nova:instance>";

/// What is printed of a guest: status, standard output, standard error.
fn run(guest: &Guest, arguments: &[&str]) -> (i32, String, String) {
    run_in("400", guest, arguments)
}

/// The same, in this many columns.
fn run_in(columns: &str, guest: &Guest, arguments: &[&str]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(arguments)
        .env("COLUMNS", columns)
        .args(["--host", "amd-epyc", "--policy", "none", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    // A program that reports a mistake reads nothing.
    let _ = child.stdin.take().expect("a pipe").write_all(guest.xml().as_bytes());
    let output = child.wait_with_output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a status"), text(output.stdout), text(output.stderr))
}

fn instance(machine: &'static str) -> Guest {
    Guest::huge("vnf", machine).with_hostdev().with_uuid().with_metadata(NOVA)
}

/// `fix` of the first guest of `check --format json`, and its owner.
fn json(guest: &Guest, arguments: &[&str]) -> (Value, Value) {
    let (_, document, error) = run(guest, &[&["check", "--format", "json"], arguments].concat());
    let document: Value = serde_json::from_str(&document).unwrap_or_else(|e| panic!("{e}: {error}"));
    let guest = &document["guests"][0];
    (guest["owner"].clone(), guest["fix"]["advice"].clone())
}

#[test]
fn the_owner_is_named_and_gets_its_own_words() {
    let (status, said, _) = run(&instance("pc-q35-6.2"), &["check"]);
    let command = "= nova: nova-manage libvirt update_machine_type c0ffee00-0000-4000-8000-766e66000000 pc-q35-7.1";
    for part in
        ["= owner: Nova regenerates this definition at each start", command, "= new guests: openstack image set "]
    {
        assert!(status == 1 && said.contains(part), "{said}");
    }
    let (owner, advice) = json(&instance("pc-q35-6.2"), &[]);
    assert_eq!((owner, advice.as_array().map(Vec::len)), ("nova".into(), Some(4)));
    // A guest without an owner.
    let (owner, advice) = json(&Guest::huge("db", "pc-q35-6.2").with_hostdev(), &[]);
    assert!(owner.is_null() && advice.is_null());
}

/// Half a command may do harm if it is pasted into a shell.
#[test]
fn commands_are_not_broken_in_narrow_terminals() {
    let guest = Guest::huge("vnf", "pc-q35-6.2").with_hostdev();
    let mut commands = 0;
    for name in ["nova", "vdsm", "kubevirt", "cloudstack", "opennebula", "proxmox"] {
        let (_, said, _) = run_in("40", &guest, &["check", "--advice", name]);
        let advice = json(&guest, &["--advice", name]).1;
        for line in advice.as_array().expect("lines").iter().map(|line| line.as_str().expect("a line")) {
            let is_command = ["openstack ", "nova-manage ", "kubectl ", "virtctl ", "onevm ", "qm "]
                .iter()
                .any(|p| line.starts_with(p));
            commands += usize::from(is_command);
            let whole = said.lines().any(|shown| shown.ends_with(&format!(": {line}")));
            assert!(whole || !is_command, "{line}\n{said}");
        }
    }
    assert!(commands >= 8, "{commands}");
}

/// The consequences of a rewrite also apply to a change at the owner.
#[test]
fn the_owner_is_told_of_the_risks() {
    let (_, said, _) = run(&instance("pc-q35-6.2"), &["check"]);
    let risks = ["Windows may ask to be activated again", "can no longer be restored", "RAM moves above 1 TiB"];
    for risk in risks {
        assert!(said.lines().any(|line| line.starts_with("   = note: ") && line.contains(risk)), "{risk}: {said}");
    }
    let (_, said, _) = run(&Guest::huge("db", "pc-q35-6.2").with_hostdev(), &["check"]);
    assert!(risks.iter().all(|risk| !said.contains(risk)), "{said}");
}

/// The summary names `fix` only if it can fix a guest.
#[test]
fn the_summary_points_to_fix_for_guests_without_an_owner() {
    let file = |name: &str, guest: &Guest| {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, guest.xml()).expect("written");
        path.to_string_lossy().into_owned()
    };
    let owned = file("advice-owned.xml", &instance("pc-q35-6.2"));
    let free = file("advice-free.xml", &Guest::huge("db", "pc-q35-6.2").with_hostdev());
    let fine = instance("pc-q35-7.1");
    let (_, said, _) = run(&fine, &["check", &owned]);
    assert!(said.contains("2 domains:") && !said.contains("can be fixed"), "{said}");
    let (_, said, _) = run(&fine, &["check", &owned, &free]);
    assert!(said.contains("2 can be fixed; to see how, run `iova-preflight fix`"), "{said}");
}

/// Services show no more of a result than its message.
#[test]
fn sarif_tells_it_in_the_message() {
    let (_, document, error) = run(&instance("pc-q35-6.2"), &["check", "--format", "sarif"]);
    let document: Value = serde_json::from_str(&document).unwrap_or_else(|e| panic!("{e}: {error}"));
    let message = document["runs"][0]["results"][0]["message"]["text"].as_str().expect("a text");
    for part in ["\nFix: machine", "\nOpenStack Nova: nova-manage libvirt", "\nNew guests: openstack image set"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_file_is_rewritten_whoever_wrote_it() {
    let (status, xml, error) = run(&instance("pc-q35-6.2"), &["fix"]);
    assert!(status == 0 && xml == instance("pc-q35-7.1").xml(), "{xml}");
    assert!(
        error.contains("  note: Nova regenerates") && error.contains("  nova: openstack server stop c0ffee00-"),
        "{error}"
    );
}

#[test]
fn an_option_chooses_the_words() {
    let (_, said, _) = run(&instance("pc-q35-6.2"), &["check", "--advice", "libvirt"]);
    assert!(said.contains("= owner: Nova") && !said.contains("= nova:"), "{said}");
    let free = Guest::huge("vdi", "pc-q35-6.2").with_hostdev();
    for name in ["nova", "vdsm", "kubevirt", "cloudstack", "opennebula", "proxmox"] {
        let (_, said, _) = run(&free, &["check", "--advice", name]);
        assert!(said.contains(&format!("= {name}: ")) && !said.contains("= owner:"), "{said}");
        assert!(json(&free, &["--advice", name]).1.is_array(), "{name}");
    }
    let (status, _, error) = run(&free, &["check", "--advice", "vmware"]);
    assert!(status == 2 && error.contains("libvirt, nova, vdsm, kubevirt, cloudstack, opennebula, proxmox"), "{error}");
}

/// No known change helps this guest: its machine type is not the cause.
#[test]
fn a_guest_without_a_fix_is_changed_at_its_owner() {
    let guest =
        instance("pc-q35-6.2").with_cpu("<cpu mode='custom'><model vendor_id='GenuineIntel'>EPYC</model></cpu>");
    let (status, said, error) = run(&guest, &["fix"]);
    assert!(status == 1 && said.is_empty() && error.contains("  note: Nova regenerates this definition"), "{error}");
}
