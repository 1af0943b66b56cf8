//! A view of this machine that only one test has: its own processes, mounts and network, an AMD IOMMU that the machine
//! may not have, and its own `/etc`, `/run` and libvirt folders. Nothing done in there is left behind.
#![allow(dead_code, reason = "two test programs use this, each its own part")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs as the namespace's first process.
const FIRST_PROCESS: &str = include_str!("namespace.sh");

/// The namespaces. They end with this value, and with the process that holds it, however it ends.
#[derive(Debug)]
pub struct Namespace {
    unshare: Child,
    pid: u32,
}

impl Namespace {
    /// New namespaces that use the empty folder `work` as a mount point and `capabilities`, if given, as libvirt's
    /// capability cache.
    ///
    /// # Errors
    /// This machine does not allow them; the error says why.
    pub fn new(work: &Path, capabilities: Option<&Path>) -> Result<Self, String> {
        if !is_root() {
            return Err("not root: no namespace with an IOMMU of its own can be made".to_owned());
        }
        for folder in ["/sys/kernel/iommu_groups", "/sys/class/iommu"] {
            if !Path::new(folder).is_dir() {
                return Err(format!("{folder} is not there: this kernel is built without IOMMU support"));
            }
        }
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--propagation", "private"])
            .args(["bash", "-c", FIRST_PROCESS, "namespace.sh"])
            .arg(work)
            .arg(capabilities.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut line = String::new();
        let stdout = unshare.stdout.take().expect("stdout is a pipe");
        let read = BufReader::new(stdout).read_line(&mut line);
        match (read, line.trim().parse()) {
            (Ok(_), Ok(pid)) => Ok(Self { unshare, pid }),
            _ => {
                drop(unshare.stdin.take());
                let mut why = String::new();
                let _ = unshare.stderr.take().expect("stderr is a pipe").read_to_string(&mut why);
                let _ = unshare.wait();
                Err(format!("no namespaces can be made here: {}", why.trim()))
            }
        }
    }

    /// A file or folder in there, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// Writes a file in there.
    pub fn write(&self, inside: &str, text: impl AsRef<[u8]>) {
        let path = self.path(inside);
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("make the folder");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{inside}: {e}"));
    }

    /// The policy that the hook reads in there.
    pub fn set_policy(&self, text: impl AsRef<[u8]>) {
        self.write("/etc/iova-preflight/policy.toml", text);
    }

    /// A program to be run in there, in the environment that a service has.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["--mount", "--pid", "--net", "--target", &self.pid.to_string(), "--", program]);
        command
    }

    /// Listens where the system log of the namespace would.
    pub fn system_log(&self) -> SystemLog {
        let path = self.path("/dev/log");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("listen for the system log");
        socket.set_nonblocking(true).expect("a socket that does not block");
        SystemLog(socket)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The first process ends when its standard input does.
        drop(self.unshare.stdin.take());
        let _ = self.unshare.wait();
    }
}

/// What is sent to the system log.
#[derive(Debug)]
pub struct SystemLog(UnixDatagram);

impl SystemLog {
    /// What was sent since the last call.
    pub fn lines(&self) -> Vec<String> {
        let mut buffer = [0; 8192];
        let mut lines = Vec::new();
        while let Ok(len) = self.0.recv(&mut buffer) {
            lines.push(String::from_utf8(buffer[..len].to_vec()).expect("a line of UTF-8"));
        }
        lines
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
