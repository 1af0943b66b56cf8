//! The hook as a program: what libvirt, or anything else that calls it, can pass to it, and how it answers.
//!
//! Where namespaces can be made, it runs in one with its own policy and IOMMU; what needs these says SKIPPED elsewhere.

mod calls;
mod failures;
mod guests;
mod policy;
mod time;

use crate::common::guest::Guest;
use crate::common::namespace::Namespace;
use crate::common::{skip, work_dir};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The hook of this build, or the one that `IOVA_PREFLIGHT_HOOK` names: the static one that is shipped, say.
static HOOK: LazyLock<String> = LazyLock::new(|| {
    let built = env!("CARGO_BIN_EXE_iova-preflight-hook");
    std::env::var("IOVA_PREFLIGHT_HOOK").unwrap_or_else(|_| built.to_owned())
});

/// The operations at which a guest can be stopped.
const DECIDING: [&str; 4] = ["prepare", "start", "migrate", "restore"];

/// A limit longer than any wait of the tests, however busy the machine is.
const AT_LAST: Duration = Duration::from_secs(180);

/// Where the hook runs.
struct Place(Option<Namespace>);

/// How it ended.
#[derive(Debug)]
struct Run {
    output: Output,
    took: Duration,
}

impl Place {
    /// A namespace, or this machine as it is.
    fn any(test: &str) -> Option<Self> {
        match Namespace::new(&work_dir(&format!("hook_protocol-{test}")), None) {
            Ok(namespace) => Some(Self(Some(namespace))),
            Err(_) if !Path::new("/etc/iova-preflight/policy.toml").exists() => Some(Self(None)),
            Err(why) => {
                skip(&format!("hook_protocol {test}: this machine has a policy of its own, and {why}"));
                None
            }
        }
    }

    /// A namespace. `None` after saying that there can be none.
    fn own(test: &str) -> Option<(Self, impl Fn(&str))> {
        match Namespace::new(&work_dir(&format!("hook_protocol-{test}")), None) {
            Ok(namespace) => {
                let policy = namespace.path("/etc/iova-preflight/policy.toml");
                let set_policy = move |text: &str| std::fs::write(&policy, text).expect("write the policy");
                Some((Self(Some(namespace)), set_policy))
            }
            Err(why) => {
                skip(&format!("hook_protocol {test}: {why}"));
                None
            }
        }
    }

    fn namespace(&self) -> &Namespace {
        self.0.as_ref().expect("made by `own`")
    }

    fn command(&self, program: &str) -> Command {
        match &self.0 {
            Some(namespace) => namespace.command(program),
            None => {
                let mut command = Command::new(program);
                command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
                command
            }
        }
    }

    /// Calls the hook through a command that ends in it, with these bytes on its standard input.
    fn feed(&self, command: &mut Command, input: &[u8]) -> Run {
        let start = Instant::now();
        let mut child = spawn(command.stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            // The hook does not have to read everything.
            scope.spawn(move || stdin.write_all(input));
            child.wait_with_output().expect("wait for the hook")
        });
        Run { output, took: start.elapsed() }
    }

    /// Calls the hook as libvirt does.
    fn hook(&self, name: &str, operation: &str, input: &[u8]) -> Run {
        self.feed(self.command(&HOOK).args([name, operation, "begin", "-"]), input)
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the hook")
}

impl Run {
    fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("a line of UTF-8")
    }

    /// Properties of every run, whatever its input.
    #[track_caller]
    fn assert_sane(&self) -> bool {
        let status = self.output.status;
        assert!(matches!(status.code(), Some(0 | 1)), "{status} {:?}: {}", status.signal(), self.stderr());
        assert!(self.output.stdout.is_empty(), "something on stdout");
        assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
        assert!(self.took < AT_LAST, "took {:?}", self.took);
        status.code() == Some(0)
    }

    /// Passed without output.
    #[track_caller]
    fn assert_passed(&self) {
        let passed = self.assert_sane();
        assert_eq!((passed, self.stderr().as_str()), (true, ""));
    }

    /// Stopped: one line, which can be shown on any terminal.
    #[track_caller]
    fn assert_stopped(&self) -> String {
        let passed = self.assert_sane();
        let stderr = self.stderr();
        assert!(!passed, "passed");
        let line = stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {stderr:?}"));
        assert!(line.starts_with("iova-preflight: "), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
        line.to_owned()
    }
}

/// A guest that QEMU refuses on every host: it has more memory than 40 bits reach.
fn doomed() -> Vec<u8> {
    Guest::huge("db", "pc-q35-7.2").with_phys_bits(40).xml().into_bytes()
}

fn fine() -> Vec<u8> {
    Guest::small("web").xml().into_bytes()
}
