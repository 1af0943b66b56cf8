//! `iova-preflight watch` as a service manager runs it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::World;
use crate::common::{end_of, wait_for};

/// A running service, and the service manager's end of its socket. Dropping the value ends it.
pub struct Watcher<'a> {
    world: &'a World,
    nsenter: Child,
    told: Arc<Mutex<Vec<String>>>,
    output: PathBuf,
}

/// Where the service keeps what it replaces, as root.
pub const BACKUPS: &str = "/var/lib/libvirt/backups";

impl<'a> Watcher<'a> {
    /// Starts the service under this policy.
    pub fn start(world: &'a World, policy: &str) -> Self {
        Self::start_with(world, policy, &[])
    }

    /// The same, with more options.
    pub fn start_with(world: &'a World, policy: &str, options: &[&str]) -> Self {
        world.set_policy(policy);
        let path = world.path("/run/notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("listen as a service manager");
        // The socket has to be read all the time: an unread datagram blocks its sender.
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::downgrade(&told);
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(told) = hears.upgrade() {
                if let Ok(len) = socket.recv(&mut buffer) {
                    let text = String::from_utf8(buffer[..len].to_vec()).expect("UTF-8");
                    told.lock().expect("a list").extend(text.lines().map(str::to_owned));
                }
            }
        });
        let output = world.files().join("watch.log");
        let log = std::fs::File::create(&output).expect("a log");
        // As systemd does if standard error is the journal.
        let file = log.metadata().expect("the log's inode");
        let stream = format!("{}:{}", file.dev(), file.ino());
        let nsenter = world
            .program(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(["watch", "--backup", BACKUPS])
            .args(options)
            .envs([("NOTIFY_SOCKET", "/run/notify"), ("WATCHDOG_USEC", "2000000"), ("JOURNAL_STREAM", &stream)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("run the service");
        Self { world, nsenter, told, output }
    }

    /// The same, and waits until it has looked at every guest.
    pub fn ready(world: &'a World, policy: &str) -> Self {
        let watcher = Self::start(world, policy);
        watcher.wait_until_told("READY=1");
        watcher
    }

    /// What the service manager was told so far.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().expect("a list").clone()
    }

    #[track_caller]
    pub fn wait_until_told(&self, what: &str) {
        wait_for(what, || self.told().iter().any(|line| line == what));
    }

    /// What it said so far.
    pub fn said(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.output).expect("the log");
        text.lines().map(str::to_owned).collect()
    }

    /// How many lines it said so far that have all these words.
    pub fn count(&self, words: &[&str]) -> usize {
        self.said().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    #[track_caller]
    pub fn wait_until_said(&self, words: &[&str]) {
        wait_for(&format!("{words:?}"), || self.count(words) > 0);
    }

    /// The definitions it replaced, as the names of their files.
    pub fn backups(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.world.path(BACKUPS)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect()
    }

    pub fn pid(&self) -> u32 {
        let words = ["iova-preflight\0watch\0", BACKUPS];
        let mut pid = None;
        wait_for("the service", || {
            pid = self.world.process(&words);
            pid.is_some()
        });
        pid.expect("a PID")
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was resident so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> u64 {
        let status = self.world.path(&format!("/proc/{}/status", self.pid()));
        let status = std::fs::read_to_string(status).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect(which);
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.signal("KILL");
        end_of(&mut self.nsenter);
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = self.world.program("kill").args(["-s", signal, &pid]).status().expect("run kill");
        assert!(status.success());
    }

    /// Ends it with SIGTERM; gives what it said and its exit status. Fails if it does not end.
    pub fn stop(mut self) -> (Vec<String>, Option<i32>) {
        self.signal("TERM");
        let status = end_of(&mut self.nsenter).code();
        (self.said(), status)
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the service said:\n{}", self.said().join("\n"));
        }
        // Already ended, or ended with its namespace.
        let _ = self.nsenter.kill();
        let _ = self.nsenter.wait();
    }
}
