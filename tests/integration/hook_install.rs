//! `iova-preflight hook install|uninstall|status` below a root folder of the test's own.

use crate::common::{skip, wait_for, work_dir};
use std::fs;
use std::io::Write;
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
    assert!(status == 0 && text.contains("already installed"), "{text}");
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
    assert!(text.contains("is not changed") && text.starts_with(include_str!("../../hooks/chain.sh")), "{text}");
    root.hook(&["uninstall"]);
    assert_eq!(fs::read_to_string(root.path(SOLE)).expect("still there"), script);
    // The script in its place runs both, and is not to be put in front of itself.
    root.write(SOLE, include_str!("../../hooks/chain.sh"), 0o755);
    let (status, text) = root.install();
    assert!(status == 0 && text.contains("already runs it"), "{text}");
    let (_, text) = root.hook(&["status"]);
    assert!(text.contains(&format!("runs {PROGRAM}, and then qemu.before")), "{text}");
    let older = include_str!("../../hooks/chain.sh").replace("exit 0", "exit 00");
    root.write(SOLE, &older, 0o755);
    let (status, text) = root.install();
    assert!(status == 2 && text.contains("leave qemu.before alone"), "{text}");
    assert_eq!(fs::read_to_string(root.path(SOLE)).expect("still there"), older);

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

/// What is around a chain: the script, our program, and the hook that was there before.
struct Chain {
    root: Root,
    script: String,
}

impl Chain {
    /// The script as it is shipped.
    fn shipped(root: Root) -> Self {
        Self { root, script: include_str!("../../hooks/chain.sh").to_owned() }
    }

    /// The script as `hook install` prints it beside somebody else's hook.
    fn printed(root: Root) -> Self {
        root.with_libvirt(6_004_000);
        root.write(SOLE, "#!/bin/sh\n", 0o755);
        let (_, text) = root.install();
        let (script, _) = text.rsplit_once("iova-preflight: ").expect("the advice after the script");
        let script = script.to_owned();
        Self { root, script }
    }

    /// Runs it for an operation; gives the exit status and what the hook before got and was called with, if it was.
    fn run(&self, operation: &str, environment: &[(&str, &str)]) -> (Option<i32>, Option<String>) {
        let place = |text: &str, name: &str, file: &str| {
            let line = format!("{name}={file}\n");
            assert!(text.contains(&line), "{text}");
            text.replace(
                &line,
                &format!("{name}={}\n", self.root.path(file.rsplit('/').next().expect("a name")).display()),
            )
        };
        let script = place(&self.script, "hook", PROGRAM);
        self.root.write("chain", &place(&script, "before", "/etc/libvirt/hooks/qemu.before"), 0o755);
        let _ = fs::remove_file(self.root.path("got"));
        let mut child = Command::new(self.root.path("chain"))
            .args(["db", operation, "begin", "-"])
            .env("GOT", self.root.path("got"))
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("runs");
        // A script that reads nothing closes the pipe.
        let _ = child.stdin.take().expect("a pipe").write_all(b"<domain/>\n\n");
        let status = child.wait().expect("ends").code();
        (status, fs::read_to_string(self.root.path("got")).ok())
    }
}

/// Every operation of libvirt 9.0's hook for QEMU (`virHookQemuOpTypeToString`, src/util/virhook.c), and one that is to
/// come.
const OPERATIONS: [&str; 10] =
    ["start", "stopped", "prepare", "release", "migrate", "started", "reconnect", "attach", "restore", "new"];

/// The operations on which the hook decides.
const DECIDING: [&str; 4] = ["prepare", "start", "migrate", "restore"];

/// Writes down its arguments and its input.
const BEFORE: &str = "#!/bin/sh\necho \"$*\" > \"$GOT\"\ncat >> \"$GOT\"\nexit ${BEFORE:-0}\n";

#[test]
fn a_chain_stops_a_guest_only_when_the_hook_says_so() {
    let chains = [Chain::shipped(Root::new("chain-shipped")), Chain::printed(Root::new("chain-printed"))];
    let broken =
        ["#!/nonexistent\n", "\u{7f}ELF", "#!/bin/sh\nkill -9 $$\n", "#!/bin/sh\nexit 2\n", "#!/bin/sh\nexit 127\n"];
    for chain in chains {
        for operation in OPERATIONS {
            let _ = fs::remove_file(chain.root.path("iova-preflight-hook"));
            let _ = fs::remove_file(chain.root.path("qemu.before"));
            assert_eq!(chain.run(operation, &[]), (Some(0), None), "{operation}: neither is there");
            chain.root.write("qemu.before", BEFORE, 0o755);
            let all = Some(format!("db {operation} begin -\n<domain/>\n\n"));
            assert_eq!(chain.run(operation, &[]), (Some(0), all.clone()), "{operation}: the program is gone");
            assert_eq!(
                chain.run(operation, &[("BEFORE", "7")]),
                (Some(7), all.clone()),
                "{operation}: the other's status"
            );
            // No place for files.
            assert_eq!(
                chain.run(operation, &[("TMPDIR", "/nonexistent")]),
                (Some(0), all.clone()),
                "{operation}: TMPDIR"
            );
            for program in broken {
                chain.root.write("iova-preflight-hook", program, 0o755);
                assert_eq!(chain.run(operation, &[]), (Some(0), all.clone()), "{operation}: {program}");
            }
            chain.root.write("iova-preflight-hook", "#!/bin/sh\n", 0o644);
            assert_eq!(chain.run(operation, &[]), (Some(0), all.clone()), "{operation}: not executable");
            chain.root.write("iova-preflight-hook", "#!/bin/sh\necho '<other/>'\ncat > /dev/null\nexit 1\n", 0o755);
            let refused = if DECIDING.contains(&operation) { (Some(1), None) } else { (Some(0), all) };
            assert_eq!(chain.run(operation, &[]), refused, "{operation}: refused");
        }
    }
}

/// Installing the script a second time renames the first one to `qemu.before`, which would then run itself.
#[test]
fn a_chain_does_not_run_itself() {
    for chain in [Chain::shipped(Root::new("chain-twice")), Chain::printed(Root::new("chain-twice-printed"))] {
        chain.root.write("iova-preflight-hook", "#!/bin/sh\ncat > /dev/null\nexit ${OURS:-0}\n", 0o755);
        chain.run("started", &[]);
        let script = fs::read(chain.root.path("chain")).expect("readable");
        let before = chain.root.path("qemu.before");
        let copy = |before: &Path| {
            fs::write(before, &script).expect("written");
            fs::set_permissions(before, fs::Permissions::from_mode(0o755)).expect("changed");
        };
        let link = |before: &Path| std::os::unix::fs::symlink(chain.root.path("chain"), before).expect("linked");
        for put in [&copy as &dyn Fn(&Path), &link] {
            let _ = fs::remove_file(&before);
            put(&before);
            for operation in OPERATIONS {
                for ours in ["0", "1"] {
                    let output = Command::new("timeout")
                        .args(["--kill-after=5", "60"])
                        .arg(chain.root.path("chain"))
                        .args(["db", operation, "begin", "-"])
                        .env("OURS", ours)
                        .stdin(std::process::Stdio::null())
                        .output()
                        .expect("runs");
                    let refused = ours == "1" && DECIDING.contains(&operation);
                    assert_eq!(output.status.code(), Some(i32::from(refused)), "{operation} {ours}: {output:?}");
                }
            }
        }
    }
}

/// A shell that cannot start a process ends with an exit status that libvirt would take for a refusal.
#[test]
fn a_chain_that_can_start_no_process_stops_nothing() {
    let words = ["--reuid", "1234", "--clear-groups", "prlimit", "--nproc=0", "--"];
    let limited = |arguments: &[&str]| {
        Command::new("setpriv").args(words).args(arguments).stdin(std::process::Stdio::null()).output()
    };
    for chain in [Chain::shipped(Root::new("chain-nproc")), Chain::printed(Root::new("chain-nproc-printed"))] {
        chain.root.write("iova-preflight-hook", "#!/bin/sh\nexit 1\n", 0o755);
        chain.run("started", &[]);
        let program = chain.root.path("chain").display().to_string();
        // Root is not limited, and the limited user has to be able to read all this.
        if !limited(&["test", "-r", &program]).is_ok_and(|output| output.status.success()) {
            return skip("only root can take processes away from a user who may read the chain");
        }
        chain.root.write("got", "", 0o666);
        let got = chain.root.path("got");
        let run = |operation: &str| {
            fs::write(&got, "").expect("written");
            let output = limited(&["env", &format!("GOT={}", got.display()), &program, "db", operation, "begin", "-"]);
            (output.expect("runs").status.code(), fs::read_to_string(&got).expect("readable"))
        };
        for operation in OPERATIONS {
            assert_eq!(run(operation), (Some(0), String::new()), "{operation}");
        }
        // The hook that was there before gets the place of the shell.
        chain.root.write("qemu.before", "#!/bin/sh\necho \"$*\" > \"$GOT\"\nexit 7\n", 0o755);
        for operation in OPERATIONS {
            assert_eq!(run(operation), (Some(7), format!("db {operation} begin -\n")), "{operation}");
        }
    }
}

/// The program that is started is the shell, which needs memory and a descriptor before its first line: without them it
/// fails, libvirt takes that for a refusal, and no script can change it.
#[test]
fn a_shell_that_cannot_start_refuses_the_guest() {
    let chain = Chain::shipped(Root::new("chain-limits"));
    chain.run("started", &[]);
    for limit in ["--as=400000", "--as=1000000", "--nofile=3"] {
        let mut command = Command::new("prlimit");
        command.args([limit, "--"]).arg(chain.root.path("chain")).args(["db", "prepare", "begin", "-"]);
        let output = command.stdin(std::process::Stdio::null()).output().expect("run prlimit");
        assert!(!output.status.success(), "{limit}: {output:?}");
    }
}

#[test]
fn a_chain_logs_which_guest_starts_unchecked() {
    let chain = Chain::shipped(Root::new("chain-log"));
    let path = format!("{}:{}", chain.root.path("").display(), std::env::var("PATH").expect("a PATH"));
    let log = chain.root.path("log");
    // Renamed once it is complete: the chain does not wait for it.
    let logger = format!("#!/bin/sh\necho \"$*\" > '{0}.new' && mv '{0}.new' '{0}'\n", log.display());
    chain.root.write("logger", &logger, 0o755);
    assert_eq!(chain.run("start", &[("PATH", &path)]), (Some(0), None));
    wait_for("the log", || log.exists());
    let said = fs::read_to_string(log).expect("readable");
    assert!(said.starts_with("-p daemon.err -t iova-preflight guest db: "), "{said}");
    assert!(said.ends_with("failed with status 127; allowing start unchecked\n"), "{said}");
}

#[test]
fn a_chain_gives_the_hook_the_xml_as_it_came_and_passes_on_what_the_other_prints() {
    let chain = Chain::shipped(Root::new("chain-xml"));
    chain.root.write("iova-preflight-hook", &BEFORE.replace("$GOT", "$OURS"), 0o755);
    chain.root.write("qemu.before", "#!/bin/sh\ntr d D\n", 0o755);
    let ours = chain.root.path("ours");
    let ours = ours.to_str().expect("UTF-8");
    assert_eq!(chain.run("restore", &[("OURS", ours)]).0, Some(0));
    assert_eq!(fs::read_to_string(ours).expect("written"), "db restore begin -\n<domain/>\n\n");
    let xml = "<domain/>\n".repeat(3 << 20);
    fs::write(chain.root.path("xml"), &xml).expect("written");
    let output = Command::new(chain.root.path("chain"))
        .args(["db", "restore", "begin", "-"])
        .env("OURS", "/dev/null")
        .stdin(fs::File::open(chain.root.path("xml")).expect("opens"))
        .output()
        .expect("runs");
    assert!(
        output.status.success() && output.stdout == xml.replace('d', "D").as_bytes(),
        "{} bytes",
        output.stdout.len()
    );
}

#[test]
fn a_program_that_apparmor_keeps_from_libvirtd_is_not_installed_unasked() {
    let root = Root::new("apparmor");
    root.write("sys/kernel/security/apparmor/profiles", "libvirtd (enforce)\n", 0o444);
    let program = "/opt/iova-preflight-hook";
    let (status, text) = root.hook(&["install", "--program", program]);
    assert!(status == 2 && text.contains("kills running ones when libvirtd restarts"), "{text}");
    assert_eq!(root.target(LINK), None);
    assert_eq!(root.hook(&["install", "--force", "--program", program]).0, 0);
    assert_eq!(root.target(LINK).as_deref(), Some(Path::new(program)));
    assert_eq!(root.install().0, 0);
}

#[test]
fn uninstall_names_hooks_that_still_run_the_program() {
    let root = Root::new("mentions");
    root.install();
    root.write(
        "etc/libvirt/hooks/qemu.d/10-other",
        "#!/bin/sh\n/usr/bin/iova-preflight-hook \"$@\" || exit 1\n",
        0o755,
    );
    root.write("etc/libvirt/hooks/qemu.d/20-unconcerned", "#!/bin/sh\n", 0o755);
    let (status, text) = root.hook(&["uninstall"]);
    assert_eq!(status, 0);
    assert!(text.contains("qemu.d/10-other mentions iova-preflight-hook"), "{text}");
    assert!(!text.contains("20-unconcerned"), "{text}");
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

/// A program that needs nothing but the kernel: an ELF header without program headers (elf(5)).
fn linked_statically() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header
}

#[test]
fn a_program_that_others_can_change_is_not_installed_unasked() {
    let root = Root::new("changeable");
    let program = root.path(PROGRAM.trim_start_matches('/'));
    root.write("usr/bin/iova-preflight-hook", "", 0o755);
    fs::write(&program, linked_statically()).expect("written");
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    let folder = root.path("usr/bin");
    for (path, bad, good) in [(&program, 0o757, 0o755), (&program, 0o775, 0o755), (&folder, 0o777, 0o755)] {
        mode(path, bad);
        let (status, text) = root.install();
        assert!(status == 2 && text.contains("can be changed by users other than root"), "{text}");
        assert!(text.contains("--force") && root.target(LINK).is_none(), "{text}");
        mode(path, good);
    }
    assert_eq!(root.install().0, 0);
    let (status, text) = root.hook(&["status"]);
    assert!(status == 0 && !text.contains("FAIL"), "{text}");

    // Every path that libvirt and the hook follow is checked alike.
    root.write("etc/iova-preflight/policy.toml", "", 0o644);
    let all = [
        "usr/bin/iova-preflight-hook",
        "usr/bin",
        "etc/libvirt/hooks/qemu.d",
        "etc/libvirt/hooks",
        "etc/iova-preflight",
        "etc/iova-preflight/policy.toml",
        "etc",
    ];
    for below in all {
        mode(&root.path(below), 0o777);
        let (status, text) = root.hook(&["status"]);
        let named = root.path(below).display().to_string();
        let fails =
            |line: &str| line.starts_with("FAIL") && line.contains(&named) && line.contains("users other than root");
        assert!(status == 1 && text.lines().any(fails), "{below}:\n{text}");
        mode(&root.path(below), 0o755);
    }
    assert_eq!(root.hook(&["status"]).0, 0);
    mode(&folder, 0o777);
    assert_eq!(root.hook(&["uninstall"]).0, 0);
    assert_eq!(root.hook(&["install", "--force", "--program", PROGRAM]).0, 0);
    assert_eq!(root.target(LINK).as_deref(), Some(Path::new(PROGRAM)));
}

#[test]
fn a_program_with_libraries_that_may_be_missing_is_not_installed_unasked() {
    let root = Root::new("dynamic");
    root.write("usr/bin/iova-preflight-hook", "", 0o755);
    // What cargo builds is linked dynamically, unlike what `hooks/build` does.
    fs::copy(env!("CARGO_BIN_EXE_iova-preflight"), root.path("usr/bin/iova-preflight-hook")).expect("copied");
    let (status, text) = root.install();
    assert!(status == 2 && text.contains("dynamically linked") && text.contains("--force"), "{text}");
    assert_eq!(root.target(LINK), None);
    assert_eq!(root.hook(&["install", "--force", "--program", PROGRAM]).0, 0);
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("FAIL /usr/bin/iova-preflight-hook is dynamically linked"), "{text}");
}

#[test]
fn status_names_what_is_wrong() {
    let root = Root::new("status");
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("does not exist"), "{text}");
    root.install();
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("not an executable file"), "{text}");
    root.write("usr/bin/iova-preflight-hook", "", 0o777);
    let (status, text) = root.hook(&["status"]);
    assert!(status == 1 && text.contains("can be changed by users other"), "{text}");
    root.write("sys/kernel/security/apparmor/profiles", "", 0o444);
    // As if it was installed before AppArmor, or with `--force`.
    root.hook(&["install", "--force", "--program", "/usr/libexec/iova-preflight-hook"]);
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
    assert!(root.hook(&["status"]).1.contains("PASS the running daemon uses hooks"), "{}", root.hook(&["status"]).1);
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
    // What cargo builds is linked dynamically.
    assert!(run(&["install", "--force", "--program", "/usr/bin/iova-preflight-hook"]).status.success());
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
