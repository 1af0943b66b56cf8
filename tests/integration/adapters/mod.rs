//! `iova-preflight adapter`, called as each orchestrator calls its hook: arguments, environment, standard streams and
//! exit status as its source has them.
//!
//! Everything runs in a namespace with an AMD IOMMU, a policy of its own and, where `adapter NAME install` puts it, the
//! hook. What needs these says SKIPPED elsewhere.

mod cloudstack;
mod install;
mod kubevirt;
mod opennebula;
mod proxmox;
mod vdsm;

use crate::common::guest::Guest;
use crate::common::namespace::{Namespace, SystemLog};
use crate::common::{skip, work_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");

/// Part of every reason for the guests below.
const CAUSE: &str = "HyperTransport";

/// A host.
struct Host {
    namespace: Namespace,
    log: SystemLog,
    /// A folder that is the same inside and outside.
    folder: PathBuf,
}

impl Host {
    /// A host of this test. `None` after saying why there cannot be one.
    fn new(test: &str) -> Option<Self> {
        let folder = work_dir(&format!("adapters-{test}-files"));
        match Namespace::new(&work_dir(&format!("adapters-{test}")), None) {
            Ok(namespace) => {
                let log = namespace.system_log();
                Some(Self { namespace, log, folder })
            }
            Err(why) => {
                skip(&format!("adapters {test}: {why}"));
                None
            }
        }
    }

    fn set_policy(&self, text: &str) {
        self.namespace.set_policy(text);
    }

    /// Puts the hook of an orchestrator below the folder, as `install` does, and gives its path.
    fn install(&self, words: &[&str], path: &str, program: &str) -> PathBuf {
        let output = Command::new(PROGRAM)
            .arg("adapter")
            .args(words)
            .args(["--program", program, "--root"])
            .arg(&self.folder)
            .output()
            .expect("runs");
        assert!(output.status.success(), "{output:?}");
        self.folder.join(path)
    }

    /// Programs that fail in every way: one that is missing, one that cannot be run, one that panics, one that is killed,
    /// one of another version, one that says nothing and is killed after a while, and one that a full disk has left empty.
    fn broken_programs(&self) -> Vec<String> {
        let made = [
            ("not-a-program", "\u{1}"),
            ("panics", "#!/bin/sh\necho half a dom\necho 'thread main panicked' >&2\nexit 101\n"),
            ("is-killed", "#!/bin/sh\necho half a dom\nkill -9 $$\n"),
            ("is-older", "#!/bin/sh\necho \"error: unrecognized subcommand 'adapter'\" >&2\nexit 2\n"),
            ("is-killed-late", "#!/bin/sh\nsleep 0.2\nkill -9 $$\n"),
            ("is-empty", ""),
        ];
        let mut programs = vec![self.folder.join("missing").display().to_string()];
        for (name, text) in made {
            let path = self.folder.join(name);
            write_program(&path, text);
            programs.push(path.display().to_string());
        }
        programs
    }
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
    std::fs::write(path, text).expect("a program");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Runs a command without input, as daemons start their hooks.
fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("runs")
}

/// A guest that fits.
fn fine() -> String {
    Guest::small("web").xml() + "\n"
}

/// A guest that another machine type fixes.
fn fixable() -> String {
    Guest::huge("db", "pc-q35-6.2").with_hostdev().xml() + "\n"
}

/// The same with the machine type that QEMU moves RAM for.
fn fixed() -> String {
    fixable().replace("pc-q35-6.2", "pc-q35-7.1")
}

/// A policy under which nothing fixes it.
const NO_FIX: &str = "machine_upgrade = 'never'\n";

/// Input that is not a domain.
const BROKEN: [&str; 3] = ["<domain", "", "<network><name>default</name></network>"];

/// Of a guest that is stopped: one line of ASCII with the cause and what to do.
#[track_caller]
fn assert_block_line(stderr: &[u8]) -> String {
    let text = String::from_utf8(stderr.to_vec()).expect("UTF-8");
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(line.is_ascii() && !line.contains(char::is_control), "{line:?}");
    assert!(line.starts_with("iova-preflight: ") && !line.contains("/tmp") && !line.contains("host:"), "{line}");
    line.to_owned()
}

/// Standard output, standard error and exit status.
#[track_caller]
fn assert_ended(output: &Output, stdout: &str, stderr: &str, status: i32) {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = (shown(&output.stdout), shown(&output.stderr), output.status.code());
    assert_eq!(ended, (stdout.to_owned(), stderr.to_owned(), Some(status)));
}
