//! A libvirtd that only one test has, with the hook in place, in namespaces of its own.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::guest::Guest;
use crate::common::namespace::{Namespace, SystemLog};
use crate::common::{skip, wait_for, work_dir};

/// Where libvirt keeps what it learned about each QEMU. Asking QEMU again takes seconds.
const CAPABILITIES: &str = "/var/cache/libvirt/qemu/capabilities";

/// In libvirt's hook folder, from where AppArmor lets libvirtd run programs; libvirt itself runs only known names there.
const HOOK: &str = "/etc/libvirt/hooks/iova-preflight-hook";

/// A foreign hook that writes down how it is called, in a file of its own name, and how much XML it got.
const RECORDER: &str = "#!/bin/sh\necho \"$2 $3 $1 $(wc -c | tr -d ' ')\" >> \"/run/calls-$(basename \"$0\")\"\n";

/// The daemons of one test and their namespaces. Dropping the value ends all of them.
#[derive(Debug)]
pub struct World {
    namespace: Namespace,
    uri: String,
    files: Folder,
}

/// A folder that is removed with this value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Another run empties it again if this fails.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Reply {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Reply {
    /// Returns the output; fails if the command failed.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.ok, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns the error message; fails if the command succeeded.
    #[track_caller]
    pub fn expect_error(self) -> String {
        assert!(!self.ok, "did not fail: {}{}", self.stdout, self.stderr);
        self.stderr
    }
}

impl World {
    /// Daemons, with the hook installed before they start. `None` after saying which real part is missing.
    pub fn new(name: &str) -> Option<Self> {
        let world = Self::without_hook(name)?;
        world.install_hook();
        world.start_daemons();
        Some(world)
    }

    /// The namespaces alone.
    pub fn without_hook(name: &str) -> Option<Self> {
        match Self::make(name) {
            Ok(world) => Some(world),
            Err(why) => {
                skip(&format!("hook_e2e {name}: {why}"));
                None
            }
        }
    }

    fn make(name: &str) -> Result<Self, String> {
        let programs = ["virsh", "libvirtd", "virtlogd", "qemu-system-x86_64", "unshare", "nsenter"];
        if let Some(missing) = programs.into_iter().find(|program| !is_installed(program)) {
            return Err(format!("{missing} is not installed"));
        }
        let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        if overcommit.trim() != "1" {
            return Err("vm.overcommit_memory is not 1: no guest can be larger than this machine".to_owned());
        }
        let files = Folder(work_dir(&format!("hook_e2e-{name}")));
        let (mount_point, capabilities) = (files.0.join("namespace"), files.0.join("capabilities"));
        std::fs::create_dir(&mount_point).expect("make the mount point");
        std::fs::create_dir(&capabilities).expect("make the capability cache");
        for file in std::fs::read_dir(CAPABILITIES).into_iter().flatten().flatten() {
            // Without it libvirtd asks QEMU anew, which only takes longer.
            let _ = std::fs::copy(file.path(), capabilities.join(file.file_name()));
        }
        let namespace = Namespace::new(&mount_point, Some(&capabilities))?;
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a new UUID");
        // A socket in the file system is reached from every network namespace.
        let socket = namespace.path("/run/libvirt/libvirt-sock");
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        namespace.write(
            "/etc/libvirt/libvirtd.conf",
            format!(
                "auth_unix_rw = \"none\"\nhost_uuid = \"{}\"\nlog_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n",
                uuid.trim()
            ),
        );
        // Root, because the folder with the sockets of a migration may be in a home folder.
        namespace.write(
            "/etc/libvirt/qemu.conf",
            "namespaces = []\nsecurity_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\n",
        );
        Ok(Self { namespace, uri, files })
    }

    /// Puts the hook in place the way an operator does.
    ///
    /// It is the hook of this build, or the one that `IOVA_PREFLIGHT_HOOK` names: for example that of a package.
    pub fn install_hook(&self) {
        let built = Path::new(env!("CARGO_BIN_EXE_iova-preflight-hook"));
        let hook = std::env::var_os("IOVA_PREFLIGHT_HOOK").map_or_else(|| built.to_owned(), PathBuf::from);
        std::fs::copy(&hook, self.namespace.path(HOOK)).unwrap_or_else(|e| panic!("{}: {e}", hook.display()));
        let mut install = self.namespace.command(env!("CARGO_BIN_EXE_iova-preflight"));
        // What cargo builds is linked dynamically, which has to be asked for.
        self.run(install.args(["hook", "install", "--force", "--program", HOOK])).expect_ok();
    }

    /// Puts a program of someone else's below libvirt's hook folder.
    pub fn add_hook(&self, place: &str, program: &str) {
        let inside = format!("/etc/libvirt/hooks/{place}");
        self.namespace.write(&inside, program);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.namespace.path(&inside), mode).expect("make it executable");
    }

    /// Puts a hook in place that writes down its calls.
    pub fn add_recorder(&self, place: &str) {
        self.add_hook(place, RECORDER);
    }

    /// The calls that a recorder wrote down for a guest, as operation and sub-operation, and the size of the XML.
    pub fn calls(&self, recorder: &str, guest: &str) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(self.namespace.path(&format!("/run/calls-{recorder}"))).unwrap_or_default();
        let mut calls = Vec::new();
        for line in text.lines() {
            let [operation, sub_operation, name, size] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not a call: {line}")
            };
            if name == guest {
                calls.push((format!("{operation} {sub_operation}"), size.parse().expect("a size")));
            }
        }
        calls
    }

    /// The operations that a recorder was called for.
    pub fn operations(&self, recorder: &str, guest: &str) -> Vec<String> {
        self.calls(recorder, guest).into_iter().map(|(operation, _)| operation).collect()
    }

    /// The operator's policy from here on.
    pub fn set_policy(&self, text: &str) {
        self.namespace.set_policy(text);
    }

    /// Writes a file in there.
    pub fn write(&self, inside: &str, text: &str) {
        self.namespace.write(inside, text);
    }

    /// Makes libvirt believe that QEMU does not have a machine type; its daemon is to be started again.
    pub fn forget_machine(&self, machine: &str) {
        // It has asked QEMU, and written down what it was told, by the time it answers this.
        self.virsh(&["domcapabilities"]).expect_ok();
        for file in std::fs::read_dir(self.namespace.path(CAPABILITIES)).expect("the capability cache") {
            let file = file.expect("a folder entry").path();
            let text = std::fs::read_to_string(&file).expect("a capability file");
            let named = format!("name='{machine}'");
            let kept = text.split_inclusive('\n').filter(|line| !line.contains(&named));
            std::fs::write(&file, kept.collect::<String>()).expect("write the capability file");
        }
    }

    /// Listens to what the hook tells the system log.
    pub fn system_log(&self) -> SystemLog {
        self.namespace.system_log()
    }

    /// Starts virtlogd and libvirtd.
    pub fn start_daemons(&self) {
        for daemon in ["virtlogd", "libvirtd"] {
            self.start_daemon(daemon);
        }
    }

    fn start_daemon(&self, daemon: &str) {
        // It goes into the background and must not hold our pipes open.
        let status = self.namespace.command(daemon).arg("--daemon").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.expect("run nsenter").success(), "{daemon} did not start");
        if daemon == "libvirtd" {
            wait_for("libvirtd to answer", || self.virsh(&["list"]).ok);
        }
    }

    /// Ends libvirtd, as an upgrade does, and starts it again. Guests run on.
    pub fn restart_libvirtd(&self) {
        let pid = self.signal_libvirtd("TERM");
        let process = self.namespace.path(&format!("/proc/{pid}"));
        wait_for("libvirtd to end", || !process.exists());
        self.start_daemon("libvirtd");
    }

    /// Ends libvirtd as a crash does.
    pub fn kill_libvirtd(&self) {
        let pid = self.signal_libvirtd("KILL");
        let process = self.namespace.path(&format!("/proc/{pid}"));
        wait_for("libvirtd to be dead", || !process.exists());
    }

    /// Starts libvirtd again.
    pub fn start_libvirtd(&self) {
        self.start_daemon("libvirtd");
    }

    /// The machine type in a guest's definition.
    pub fn machine(&self, guest: &str) -> String {
        let xml = self.virsh(&["dumpxml", "--inactive", guest]).expect_ok();
        let (_, rest) = xml.split_once("machine='").expect("a machine type");
        rest.split('\'').next().expect("its end").to_owned()
    }

    /// Sends libvirtd a signal.
    pub fn signal_daemon(&self, signal: &str) {
        self.signal_libvirtd(signal);
    }

    /// A program to be run among the daemons, in the environment that a service has.
    pub fn program(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Tells libvirtd to read its configuration again.
    pub fn reload_libvirtd(&self) {
        self.signal_libvirtd("HUP");
    }

    fn signal_libvirtd(&self, signal: &str) -> String {
        let pid = std::fs::read_to_string(self.namespace.path("/run/libvirtd.pid")).expect("libvirtd's PID");
        let pid = pid.trim().to_owned();
        self.run(self.namespace.command("kill").args(["-s", signal, &pid])).expect_ok();
        pid
    }

    /// Runs virsh against this libvirtd.
    pub fn virsh(&self, args: &[&str]) -> Reply {
        self.run(Command::new("virsh").args(["--quiet", "--connect", &self.uri]).args(args).env("LC_ALL", "C"))
    }

    /// Where this libvirtd is reached from anywhere on this machine.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Defines many guests with one virsh.
    pub fn define_all(&self, guests: &[Guest]) {
        let mut commands = String::new();
        for guest in guests {
            let file = self.files.0.join(format!("{}.xml", guest.name));
            std::fs::write(&file, guest.xml()).expect("write the domain");
            commands.push_str(&format!("define {}; ", file.display()));
        }
        self.virsh(&[&commands]).expect_ok();
    }

    /// Defines a guest.
    pub fn define(&self, guest: &Guest) {
        let file = self.files.0.join(format!("{}.xml", guest.name));
        std::fs::write(&file, guest.xml()).expect("write the domain");
        self.virsh(&["define", file.to_str().expect("UTF-8")]).expect_ok();
    }

    /// Starts a defined guest. Its CPUs stay halted: what is tested happens before they would run.
    pub fn start(&self, name: &str) -> Reply {
        self.virsh(&["start", "--paused", name])
    }

    /// Defines a guest and starts it.
    pub fn define_and_start(&self, guest: &Guest) -> Reply {
        self.define(guest);
        self.start(&guest.name)
    }

    /// The state of a guest as libvirt prints it: `paused`, `shut off`.
    pub fn state(&self, name: &str) -> String {
        self.virsh(&["domstate", name]).expect_ok().trim().to_owned()
    }

    /// The PID of a guest's QEMU, if there is one.
    pub fn qemu(&self, name: &str) -> Option<u32> {
        self.process(&["qemu-system", &format!("guest={name},")])
    }

    /// The PID, as the namespace counts, of a process whose command line has all these words.
    pub fn process(&self, wanted: &[&str]) -> Option<u32> {
        let processes = std::fs::read_dir(self.namespace.path("/proc")).expect("list the processes");
        processes.flatten().find_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(process.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            wanted.iter().all(|word| words.contains(word)).then_some(pid)
        })
    }

    /// Fails if QEMU was ever started for a guest.
    #[track_caller]
    pub fn assert_never_started(&self, name: &str) {
        assert_eq!(self.state(name), "shut off");
        assert_eq!(self.qemu(name), None);
        let log = std::fs::read_to_string(self.namespace.path(&format!("/var/log/libvirt/qemu/{name}.log")));
        let log = log.unwrap_or_default();
        assert!(!log.contains("starting up"), "QEMU was started:\n{log}");
    }

    /// Asks QEMU's monitor.
    pub fn monitor(&self, name: &str, command: &str) -> String {
        self.virsh(&["qemu-monitor-command", "--hmp", name, command]).expect_ok()
    }

    /// What `iova-preflight check` says of a guest as libvirt has it now.
    pub fn check(&self, name: &str) -> Value {
        let xml = self.virsh(&["dumpxml", name]).expect_ok();
        let mut child = self
            .namespace
            .command(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(["check", "--format", "json", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run iova-preflight");
        child.stdin.take().expect("a pipe").write_all(xml.as_bytes()).expect("write the domain");
        let output = child.wait_with_output().expect("run iova-preflight");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["guests"][0].clone()
    }

    /// Runs `iova-preflight` in the namespace.
    pub fn tool(&self, words: &[&str]) -> Reply {
        self.command(env!("CARGO_BIN_EXE_iova-preflight"), words)
    }

    /// Runs a program in the namespace.
    pub fn command(&self, program: &str, words: &[&str]) -> Reply {
        self.run(self.namespace.command(program).args(words))
    }

    /// A path in the namespace, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.namespace.path(inside)
    }

    /// A folder that the daemons of every test see at the same place; virsh reads from it.
    pub fn files(&self) -> &Path {
        &self.files.0
    }

    fn run(&self, command: &mut Command) -> Reply {
        let output = command.stdin(Stdio::null()).output().expect("run a command");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Reply { ok: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.namespace.path("/var/log/libvirt/libvirtd.log"));
            eprintln!("libvirtd.log:\n{}", log.unwrap_or_default());
        }
    }
}

fn is_installed(program: &str) -> bool {
    // Daemons are not in every user's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|folder| folder.join(program).is_file())
}
