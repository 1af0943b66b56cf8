//! The operator's policy, which `check`, `fix` and `map` follow as the hook does.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::guest::Guest;
use crate::common::namespace::Namespace;
use crate::common::{skip, work_dir};

const TOOL: &str = env!("CARGO_BIN_EXE_iova-preflight");
const POLICY: &str = "/etc/iova-preflight/policy.toml";

/// A machine with a policy. `None` after saying that there can be none.
fn machine(test: &str, policy: &str) -> Option<Namespace> {
    match Namespace::new(&work_dir(&format!("policy-{test}")), None) {
        Ok(namespace) => {
            namespace.set_policy(policy);
            Some(namespace)
        }
        Err(why) => {
            skip(&format!("policy {test}: {why}"));
            None
        }
    }
}

fn feed(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // A guest that takes a newer machine type.
    let guest = Guest::huge("db", "pc-q35-6.2").with_hostdev().xml();
    // A program that reports a mistake reads nothing.
    let _ = child.stdin.take().expect("a pipe").write_all(guest.as_bytes());
    child.wait_with_output().expect("runs")
}

fn run(namespace: &Namespace, arguments: &[&str]) -> (i32, String, String) {
    let output = feed(namespace.command(TOOL).args(arguments).args(["--host", "amd-epyc", "-"]));
    (output.status.code().expect("a status"), text(&output.stdout), text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(namespace: &Namespace, arguments: &[&str]) -> Value {
    let (_, stdout, stderr) = run(namespace, &[&["check", "--format", "json"], arguments].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"))
}

#[test]
fn check_fix_and_map_follow_the_operators_policy_and_name_it() {
    let Some(machine) = machine("followed", "machine_upgrade = 'never'\n") else { return };
    let named = "policy: /etc/iova-preflight/policy.toml: machine_upgrade = \"never\"";

    let (status, stdout, _) = run(&machine, &["check"]);
    assert!(status == 1 && stdout.contains("blocked") && stdout.contains(named), "{stdout}");
    let (status, stdout, stderr) = run(&machine, &["fix"]);
    assert!(status == 1 && stdout.is_empty() && stderr.contains(named), "{stdout}{stderr}");
    let (status, stdout, _) = run(&machine, &["map"]);
    assert!(status == 0 && stdout.contains("policy: ") && !stdout.contains("with the fix"), "{stdout}");
    let document = json(&machine, &[]);
    assert_eq!((&document["policy"], &document["guests"][0]["verdict"]), (&POLICY.into(), &"blocked".into()));
    let (_, sarif, _) = run(&machine, &["check", "--format", "sarif"]);
    let sarif: Value = serde_json::from_str(&sarif).expect("JSON");
    assert_eq!(sarif["runs"][0]["properties"]["policy"], POLICY);

    for arguments in [["check", "--policy", "none"], ["fix", "--policy", "none"], ["map", "--policy", "none"]] {
        let (_, stdout, stderr) = run(&machine, &arguments);
        assert!(stdout.contains("pc-q35-7.1") && !format!("{stdout}{stderr}").contains("policy"), "{stdout}{stderr}");
    }
    let document = json(&machine, &["--policy", "none"]);
    assert_eq!((&document["policy"], &document["guests"][0]["verdict"]), (&Value::Null, &"fixable".into()));

    let other = machine.path("/etc/other.toml");
    std::fs::write(other, "machine_upgrade = 'pc-q35-7.2'\n").expect("written");
    let document = json(&machine, &["--policy", "/etc/other.toml"]);
    let changes = document["guests"][0]["fix"]["changes"].to_string();
    assert!(document["policy"] == "/etc/other.toml" && changes.contains("pc-q35-7.2"), "{document}");
}

#[test]
fn keys_for_the_hook_and_the_service_change_nothing() {
    let policy = "mode = 'off'\nexempt = ['db']\non_internal_error = 'block'\n[watch]\nrewrite = true\n";
    let Some(machine) = machine("others", policy) else { return };
    assert_eq!(run(&machine, &["check"]), run(&machine, &["check", "--policy", "none"]));
    assert_eq!(run(&machine, &["check"]).0, 1);
    assert_eq!(json(&machine, &[])["policy"], Value::Null);
}

#[test]
fn a_policy_that_cannot_be_followed_is_an_error_or_a_warning() {
    let Some(machine) = machine("broken", "mode = 'warn'\nmachine_upgrades = 'never'\n") else { return };
    for command in ["check", "fix", "map"] {
        let (status, stdout, stderr) = run(&machine, &[command]);
        assert_eq!((status, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("/etc/iova-preflight/policy.toml:2:1: "), "{stderr}");
    }
    // A user who may not read it gets the defaults and a warning.
    machine.set_policy("machine_upgrade = 'never'\n");
    let path = machine.path(POLICY);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let program = "/run/iova-preflight";
    std::fs::copy(TOOL, machine.path(program)).expect("copied");
    let nobody =
        ["--reuid", "65534", "--regid", "65534", "--clear-groups", program, "check", "--host", "amd-epyc", "-"];
    let output = feed(machine.command("setpriv").args(nobody));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.code() == Some(1) && stdout.contains("fixable"), "{stdout}{stderr}");
    let warning = "warning: policy /etc/iova-preflight/policy.toml: Permission denied";
    assert!(stderr.starts_with(warning) && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn the_policy_may_be_a_link_where_all_of_it_is_roots() {
    let Some(machine) = machine("link", "") else { return };
    let path = machine.path(POLICY);
    let replace_by_link = |target: &str| {
        std::fs::remove_file(&path).expect("removed");
        symlink(target, &path).expect("a link");
    };
    let hook = || {
        let log = machine.system_log();
        let words = ["db", "prepare", "begin", "-"];
        let output = feed(machine.command(env!("CARGO_BIN_EXE_iova-preflight-hook")).args(words));
        (output.status.code(), log.lines().concat())
    };
    machine.write("/etc/sites/here.toml", "machine_upgrade = 'never'\nmode = 'warn'\n");
    replace_by_link("../sites/here.toml");
    assert_eq!(json(&machine, &[])["policy"], POLICY);
    assert!(matches!(hook(), (Some(0), log) if log.contains("allowed by policy")));

    let target = machine.path("/etc/sites/here.toml");
    let others = |expected: &str| {
        let (status, _, stderr) = run(&machine, &["check"]);
        assert!(status == 2 && stderr.contains(&format!("users other than root can change {expected}")), "{stderr}");
        let (status, log) = hook();
        assert!(status == Some(0) && log.contains(expected) && log.contains("guest db"), "{log}");
    };
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o666)).expect("a mode");
    others("/etc/sites/here.toml");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    chown(target.parent().expect("a folder"), Some(1234), None).expect("an owner");
    others("/etc/sites");
    chown(target.parent().expect("a folder"), Some(0), None).expect("an owner");
    assert_eq!(json(&machine, &[])["policy"], POLICY);

    // If there is no policy, nobody can change it, whatever the folder.
    let folder = path.parent().expect("a folder");
    std::fs::remove_file(&path).expect("removed");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_eq!(json(&machine, &[])["policy"], Value::Null);
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    symlink("here", &path).expect("a link");

    // A link that leads nowhere counts as no policy, and anything but a file is an error.
    replace_by_link("nowhere");
    assert_eq!(json(&machine, &[])["policy"], Value::Null);
    replace_by_link("/dev/zero");
    let (status, _, stderr) = run(&machine, &["check"]);
    assert!(status == 2 && stderr.contains("policy.toml"), "{stderr}");
}
