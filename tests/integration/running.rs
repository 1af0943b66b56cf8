//! `check --running`: real QEMUs, started by hand and by libvirt.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::common::{skip, wait_for, work_dir};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A QEMU whose guest never runs; it ends with this value.
struct Guest(Child);

impl Guest {
    /// Started with these words before it, which may be none.
    fn start(before: &[&str], arguments: &[&str]) -> Self {
        let mut words = before.iter().chain([&QEMU]).chain(arguments).chain(&["-nodefaults", "-display", "none", "-S"]);
        let mut command = Command::new(words.next().expect("a program"));
        let child = command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("QEMU starts"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check(before: &[&str], arguments: &[&str]) -> Output {
    let mut words =
        before.iter().chain(&[env!("CARGO_BIN_EXE_iova-preflight"), "check", "--running", "--policy", "none"]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).args(["--host", "amd-epyc"]).args(arguments).output().expect("run check --running")
}

/// The guest of that name as `check --running` has it, once it runs.
fn seen(before: &[&str], name: &str) -> Value {
    let mut guest = Value::Null;
    wait_for(name, || {
        let output = check(before, &["--format", "json"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let guests = report["guests"].as_array().expect("guests");
        guest = guests.iter().find(|guest| guest["name"] == name).cloned().unwrap_or_default();
        !guest.is_null()
    });
    guest
}

fn is_missing(program: &str) -> bool {
    let missing = !Path::new(program).exists();
    if missing {
        skip(&format!("{program} is missing"));
    }
    missing
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|folder| std::os::unix::fs::MetadataExt::uid(&folder) == 0)
}

#[test]
fn a_guest_that_runs_is_evaluated_for_its_next_start() {
    if is_missing(QEMU) {
        return;
    }
    let name = format!("running-lost-{}", std::process::id());
    // Little memory, and a map that ends in the reserved range: with a device it would be lost.
    let machine = ["-accel", "tcg", "-machine", "pc-q35-6.2", "-cpu", "EPYC,phys-bits=42", "-name", &name];
    let memory = ["-m", "size=128M,slots=1,maxmem=1200G"];
    let _guest = Guest::start(&[], &[&machine[..], &memory].concat());
    let guest = seen(&[], &name);
    assert_eq!(guest["verdict"], "warn", "{guest}");
    let pid = guest["process"]["pid"].as_u64().expect("a pid");
    assert_eq!(guest["source"], format!("/proc/{pid}/cmdline"));
    assert_eq!(guest["process"]["open_devices"], serde_json::json!([]));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).expect("the limit");
    let limit = limit.split_whitespace().next().expect("a number");
    let reported = &guest["process"]["locked_memory_limit"];
    assert_eq!(
        reported.as_u64().map_or_else(|| reported.as_str().unwrap_or_default().to_owned(), |n| n.to_string()),
        limit
    );
    // The same line from the file gives the same.
    let from_file = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--host", "amd-epyc", "--format", "json"])
        .arg(format!("/proc/{pid}/cmdline"))
        .output()
        .expect("run check");
    let report: Value = serde_json::from_slice(&from_file.stdout).expect("JSON");
    assert_eq!(report["guests"][0]["findings"], guest["findings"]);
    assert_eq!(report["guests"][0]["layout"], guest["layout"]);
}

#[test]
fn it_is_found_by_what_it_is_whoever_started_it() {
    if is_missing(QEMU) {
        return;
    }
    let name = |what: &str| format!("running-{what}-{}", std::process::id());
    let (renamed, elsewhere, other) = (name("renamed"), name("elsewhere"), name("other"));
    let arguments = |name: &'static str| ["-accel", "tcg", "-m", "64", "-name", name];
    let leak = |name: &str| -> &'static str { Box::leak(name.to_owned().into_boxed_str()) };
    // Debian's and Proxmox' `kvm` is a link, and a process may call itself anything.
    let _renamed = Guest::start(&["bash", "-c", "exec -a anything \"$@\"", "-"], &arguments(leak(&renamed)));
    assert_eq!(seen(&[], &renamed)["verdict"], "pass");
    if !is_root() {
        return skip("not root: no other user, no other namespace");
    }
    let _elsewhere =
        Guest::start(&["unshare", "--mount", "--pid", "--fork", "--kill-child"], &arguments(leak(&elsewhere)));
    assert_eq!(seen(&[], &elsewhere)["verdict"], "pass");
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let _other = Guest::start(&nobody, &arguments(leak(&other)));
    assert_eq!(seen(&[], &other)["process"]["open_devices"], serde_json::json!([]));
    // Another user sees the process, but not what it has open.
    let (guest, output) = (seen(&nobody, &elsewhere), check(&nobody, &[]));
    assert_eq!(guest["process"]["open_devices"], Value::Null);
    assert!(String::from_utf8_lossy(&output.stderr).contains("run as root to see all"), "{output:?}");
    assert_eq!(seen(&nobody, &other)["process"]["open_devices"], serde_json::json!([]));
}

#[test]
fn hidden_processes_are_said_to_be_hidden() {
    if !is_root() {
        return skip("not root: procfs cannot be mounted");
    }
    let hidden = "mount -t proc -o hidepid=invisible proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let output = check(&["unshare", "--mount", "bash", "-c", hidden, "-"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("no QEMU process") && said.contains("run as root to see all"), "{said}");
    let without = "umount /proc && exec \"$@\"";
    let work = work_dir("running-without-procfs");
    let covered = format!("mount --bind {} /proc && exec \"$@\"", work.display());
    for script in [without, &covered] {
        let output = check(&["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", script, "-"], &[]);
        if script == without && output.status.code() == Some(0) {
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{script}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("/proc"), "{script}: {output:?}");
    }
}

/// A QEMU that ends during the run is either reported or not, and never an error.
#[test]
fn a_process_that_ends_meanwhile_is_not_an_error() {
    if is_missing(QEMU) {
        return;
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // The usage of QEMU; it is gone in a moment.
                let _ = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
            }
        });
        for _ in 0..100 {
            let output = check(&[], &["--quiet"]);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn conflicting_options_are_refused() {
    for (arguments, expected) in [
        (&["--format", "sarif"][..], "SARIF needs file locations; use --format json with --running"),
        (&["a.xml"], "cannot be used with"),
        (&["--connect", "test:///default"], "cannot be used with"),
        (&["--domain", "db"], "cannot be used with"),
        (&["--input", "xml"], "cannot be used with"),
    ] {
        let output = check(&[], arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    }
}

/// Before its machine is made, QEMU takes any device.
#[test]
fn a_limit_of_locked_memory_that_is_too_low_is_found() {
    if is_missing(QEMU) || is_missing("/usr/bin/setpriv") || is_missing("/usr/bin/prlimit") {
        return;
    }
    if !is_root() {
        return skip("only root can take CAP_IPC_LOCK away, or have it");
    }
    let limited: &[&str] = &["prlimit", "--memlock=65536"];
    let without = [&["setpriv", "--bounding-set", "-ipc_lock"], limited].concat();
    let vfio = ["-device", "vfio-pci,host=0000:41:10.1"];
    let vdpa = ["-device", "vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0"];
    // vhost-vdpa has no exemption, and may be software that locks nothing.
    for (what, before, device, expected) in [
        ("root", limited, vfio, None),
        ("without", without.as_slice(), vfio, Some(("blocked", "error"))),
        ("vdpa", limited, vdpa, Some(("warn", "warning"))),
    ] {
        let name = format!("running-locked-{what}-{}", std::process::id());
        let machine = ["-preconfig", "-accel", "tcg", "-machine", "pc-q35-7.2", "-m", "512M", "-name", &name];
        let _guest = Guest::start(before, &[&machine[..], &device].concat());
        let guest = seen(&[], &name);
        let findings = guest["findings"].as_array().expect("findings");
        let found: Vec<&Value> = findings.iter().filter(|one| one["rule"] == "locked-memory-too-low").collect();
        match expected {
            None => assert!(found.is_empty(), "{what}: {found:?}"),
            Some((verdict, severity)) => {
                assert_eq!((&guest["verdict"], &found[0]["severity"]), (&verdict.into(), &severity.into()), "{guest}");
                let message = found[0]["message"].as_str().expect("a message");
                assert!(
                    message.contains("but QEMU may lock only 64 KiB") && message.contains(" 1.5 GiB or more"),
                    "{message}"
                );
            }
        }
    }
}
