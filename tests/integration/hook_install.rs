//! `iova-preflight hook install|uninstall|status` below a root folder of the test's own.

use crate::common::work_dir;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const LINK: &str = "etc/libvirt/hooks/qemu.d/50-iova-preflight";
const SOLE: &str = "etc/libvirt/hooks/qemu";
const PROGRAM: &str = "/usr/bin/iova-preflight-hook";

/// A root folder that is removed with the value.
struct Root(PathBuf);

impl Root {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("iova-preflight-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    fn write(&self, below: &str, text: &str, mode: u32) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// As libvirt of that version leaves it.
    fn with_libvirt(&self, version: u32) {
        let cache = format!(
            "<qemuCaps><emulator>/usr/bin/qemu-system-x86_64</emulator><selfvers>{version}</selfvers>\
             <version>5002000</version><arch>x86_64</arch></qemuCaps>"
        );
        self.write("var/cache/libvirt/qemu/capabilities/x.xml", &cache, 0o600);
    }

    fn hook(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
            .arg("hook")
            .args(words)
            .args(["--root".as_ref(), self.0.as_os_str()])
            .output()
            .expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("a status"), String::from_utf8(text).expect("UTF-8"))
    }

    fn install(&self) -> (i32, String) {
        self.hook(&["install", "--program", PROGRAM])
    }

    fn target(&self, link: &str) -> Option<PathBuf> {
        fs::read_link(self.path(link)).ok()
    }

    fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() && !entry.is_symlink() {
                    walk(&entry, found);
                }
                found.push(entry);
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found.sort();
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn installs_twice_and_leaves_nothing_behind() {
    let root = Root::new("idempotent");
    root.write("etc/libvirt/hooks/daemon", "#!/bin/sh\n", 0o755);
    let before = root.files();
    assert_eq!(root.install().0, 0);
    assert_eq!(root.target(LINK).as_deref(), Some(Path::new(PROGRAM)));
    let installed = root.files();
    let (status, text) = root.install();
    assert!(status == 0 && text.contains("in place already"), "{text}");
    assert_eq!(root.files(), installed);
    assert_eq!(root.hook(&["uninstall"]).0, 0);
    assert_eq!(root.files(), before);
    let (status, text) = root.hook(&["uninstall"]);
    assert!(status == 0 && text.contains("not installed"), "{text}");
}

#[test]
fn before_libvirt_6_5_the_hook_is_the_only_one() {
    let root = Root::new("sole");
    root.with_libvirt(6_004_000);
    assert_eq!(root.install().0, 0);
    assert_eq!((root.target(SOLE).as_deref(), root.target(LINK)), (Some(Path::new(PROGRAM)), None));
    // libvirt is upgraded, and the link is still found.
    root.with_libvirt(9_000_000);
    assert_eq!(root.hook(&["uninstall"]).0, 0);
    assert_eq!(root.target(SOLE), None);
}

#[test]
fn a_foreign_hook_is_never_touched() {
    let root = Root::new("foreign");
    let script = "#!/bin/sh\nexit 0\n";
    root.with_libvirt(6_004_000);
    root.write(SOLE, script, 0o755);
    let (status, text) = root.install();
    assert_eq!(status, 2);
    assert!(text.contains("left as it is") && text.contains(PROGRAM) && text.contains("\"$@\""), "{text}");
    root.hook(&["uninstall"]);
    assert_eq!(fs::read_to_string(root.path(SOLE)).expect("still there"), script);

    root.with_libvirt(9_000_000);
    root.write(LINK, script, 0o755);
    assert_eq!(root.install().0, 2);
    root.hook(&["uninstall"]);
    assert_eq!(fs::read_to_string(root.path(LINK)).expect("still there"), script);

    fs::remove_file(root.path(LINK)).expect("removed");
    symlink("/usr/bin/other", root.path(LINK)).expect("a link");
    assert_eq!(root.install().0, 2);
    assert_eq!(root.target(LINK).as_deref(), Some(Path::new("/usr/bin/other")));
}

#[test]
fn a_link_of_ours_is_pointed_elsewhere() {
    let root = Root::new("upgrade");
    root.write("etc/libvirt/hooks/qemu.d/10-other", "#!/bin/sh\n", 0o755);
    assert_eq!(root.hook(&["install", "--program", "/opt/iova-preflight-hook"]).0, 0);
    assert_eq!(root.install().0, 0);
    assert_eq!(root.target(LINK).as_deref(), Some(Path::new(PROGRAM)));
    // The folder of another hook stays.
    assert_eq!(root.hook(&["uninstall"]).0, 0);
    assert!(root.path("etc/libvirt/hooks/qemu.d/10-other").exists());
}

#[test]
fn a_program_libvirt_could_not_run_is_refused() {
    let root = Root::new("program");
    assert_eq!(root.hook(&["install", "--program", "iova-preflight-hook"]).0, 2);
    assert_eq!(root.hook(&["install", "--program", "/bin/true"]).0, 2);
    assert_eq!(root.target(LINK), None);
}

#[test]
fn status_names_what_is_wrong() {
    let root = Root::new("status");
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("is not there"), "{text}");
    root.install();
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("not an executable file"), "{text}");
    root.write("usr/bin/iova-preflight-hook", "", 0o777);
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("can be changed by others"), "{text}");
    root.write("sys/kernel/security/apparmor/profiles", "", 0o444);
    root.hook(&["install", "--program", "/usr/libexec/iova-preflight-hook"]);
    root.write("usr/libexec/iova-preflight-hook", "", 0o755);
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("FAIL AppArmor"), "{text}");
}

/// A daemon that started before there was any hook has to be told.
#[test]
fn status_tells_whether_the_daemon_knows() {
    let root = Root::new("daemon");
    let process = |ticks: u64| {
        root.write("proc/stat", "cpu 1\nbtime 1000000000\n", 0o444);
        root.write("proc/42/comm", "libvirtd\n", 0o444);
        root.write(
            "proc/42/stat",
            &format!("42 (libvirtd) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0"),
            0o444,
        );
    };
    root.write("usr/bin/iova-preflight-hook", "", 0o755);
    root.install();
    // libvirt runs what is executable; below a root, the link leads to nothing, so that the daemon is given another.
    root.write("etc/libvirt/hooks/qemu.d/10-other", "", 0o755);
    process(0);
    assert!(root.hook(&["status"]).1.contains("NOTE libvirtd was started before"), "{}", root.hook(&["status"]).1);
    process(200_000_000_000);
    assert!(root.hook(&["status"]).1.contains("PASS the running daemon knows"), "{}", root.hook(&["status"]).1);
}

#[test]
fn status_says_what_the_policy_has_the_hook_do() {
    let root = work_dir("hook-status-policy");
    let program = root.join("usr/bin/iova-preflight-hook");
    std::fs::create_dir_all(program.parent().expect("a folder")).expect("folders");
    std::fs::copy(env!("CARGO_BIN_EXE_iova-preflight-hook"), &program).expect("the hook");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(["hook", "--root"]).arg(&root).args(arguments).output().expect("runs")
    };
    assert!(run(&["install", "--program", "/usr/bin/iova-preflight-hook"]).status.success());
    let policy = root.join("etc/iova-preflight/policy.toml");
    std::fs::create_dir_all(policy.parent().expect("a folder")).expect("folders");
    for (text, expected) in [
        ("", "PASS"),
        ("mode = 'warn'", "NOTE"),
        ("mode = 'off'", "NOTE"),
        ("mod = 'off'", "FAIL"),
        ("mode = 'of'", "FAIL"),
    ] {
        std::fs::write(&policy, text).expect("written");
        let output = run(&["status"]);
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find(|line| line.contains("policy.toml")).unwrap_or_else(|| panic!("{text}: {said}"));
        assert!(line.starts_with(expected), "{text}: {line}");
        assert!(expected != "FAIL" || output.status.code() == Some(1), "{text}: {said}");
    }
}
