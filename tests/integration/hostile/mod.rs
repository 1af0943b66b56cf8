//! Inputs that are wrong, hostile or unreadable: each gives exit status 2 and one message with its place, in bounded
//! time and memory, and the other inputs of the same call are evaluated all the same.

mod command_lines;
mod paths;
mod sizes;
mod streams;
mod values;
mod xml;

use crate::common::{end_of, work_dir};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// The longest message, its path not counted: quoted values are cut.
const LONGEST_MESSAGE: usize = 400;

/// A guest that starts anywhere.
const GOOD: &str = "<domain type='kvm'>\n  <name>good</name>\n  <memory unit='GiB'>4</memory>\n  \
                    <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\n</domain>\n";

/// A guest that is stopped, with a finding on most lines.
const REALISTIC: &str = "<?xml version='1.0' encoding='UTF-8'?>
<!-- written by hand -->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>db-1</name>
  <uuid>6f8f3c4e-6c0c-4b9b-9a0e-0d5b6f0e7a11</uuid>
  <title>R&amp;D</title>
  <memory unit='GiB'>1200</memory>
  <vcpu placement='static'>64</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-6.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough' check='none'>
    <maxphysaddr mode='passthrough'/>
  </cpu>
  <description><![CDATA[a b]]></description>
  <?keep this?>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source>
        <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/>
      </source>
    </hostdev>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-no-hpet'/>
  </qemu:commandline>
</domain>
";

/// What is wrong, the document, the place to be named, and words of the message.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn case(name: &'static str, document: impl AsRef<[u8]>, place: &'static str, words: &'static str) -> Case {
    (name, document.as_ref().to_vec(), place, words)
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
}

/// Evaluates every document in one call, between two guests that pass, and each one alone on standard input.
fn assert_all(cases: &[Case]) {
    assert_all_of(cases, ("", "xml"), &[]);
}

/// The same for documents whose kind `--input` gives.
fn assert_all_as(input: &str, cases: &[Case]) {
    assert_all_of(cases, (input, "xml"), &["--input", input]);
}

fn assert_all_of(cases: &[Case], (suffix, extension): (&str, &str), options: &[&str]) {
    let folder = work_dir(&format!("hostile-{}{suffix}", cases[0].0));
    let (first, last) = (folder.join("-first.xml"), folder.join("-last.xml"));
    std::fs::write(&first, GOOD).expect("write a file");
    std::fs::write(&last, GOOD).expect("write a file");
    let mut paths = vec![first.clone()];
    for (name, document, ..) in cases {
        let path = folder.join(format!("{name}.{extension}"));
        std::fs::write(&path, document).expect("write a file");
        paths.push(path);
    }
    paths.push(last.clone());
    let mut wrong = Vec::new();
    let together = run(check_command().args(options).args(&paths), b"");
    for ((name, document, place, words), path) in cases.iter().zip(&paths[1..]) {
        let alone = run(check_command().args(options).arg("-"), document);
        let complaints = [together.complaint(path, place, words), alone.complaint(Path::new("-"), place, words)]
            .into_iter()
            .flatten();
        wrong.extend(complaints.map(|what| format!("{name}: {what}")));
        if alone.code() != Some(2) || alone.stderr.lines().count() != 1 {
            wrong.push(format!("{name} on standard input: {:?}, stderr:\n{}", alone.status, alone.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(together.code(), Some(2));
    assert_eq!(together.stderr.lines().count(), cases.len(), "one message each:\n{}", together.stderr);
    together.assert_passes(&first);
    together.assert_passes(&last);
}

/// What a call gave.
struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Run {
    fn code(&self) -> Option<i32> {
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.status.code()
    }

    /// What is wrong with the one message `path:place: …words…`.
    fn complaint(&self, path: &Path, place: &str, words: &str) -> Option<String> {
        let start = format!("{}:", path.display());
        let mut messages = self.stderr.lines().filter_map(|line| line.strip_prefix(&start));
        let message = messages.next().unwrap_or("no message");
        let place = if place.ends_with(':') { place.to_owned() } else { format!("{place}: ") };
        let good = message.starts_with(&place)
            && message.contains(words)
            && message.len() <= LONGEST_MESSAGE
            && messages.next().is_none();
        (!good).then(|| format!("expected `{place}…{words}…`, got `{message:.500}`"))
    }

    fn assert_complaint(&self, path: &Path, place: &str, words: &str) {
        assert_eq!(self.complaint(path, place, words), None, "{}", path.display());
    }

    /// A message without a place, for what could not be read at all.
    fn assert_message(&self, path: &Path, words: &str) {
        let start = format!("{}: ", path.display());
        let messages: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with(&start)).collect();
        assert!(messages.len() == 1 && messages[0].contains(words), "expected `{start}…{words}`:\n{}", self.stderr);
    }

    fn assert_passes(&self, path: &Path) {
        let path = path.display().to_string();
        let passes = |line: &str| line.split_whitespace().take(2).eq(["pass", path.as_str()]);
        assert!(self.stdout.lines().any(passes), "{path} does not pass:\n{}", self.stdout);
    }
}

fn check_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.args(["check", "--policy", "none", "--host", "amd-epyc", "--color", "never"]);
    command
}

fn check(paths: &[impl AsRef<OsStr>]) -> Run {
    run(check_command().args(paths), b"")
}

fn run(command: &mut Command, input: &[u8]) -> Run {
    Running::start(command).end(input)
}

/// A running program with pipes on all three ends.
struct Running {
    child: Child,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run iova-preflight");
        let stdout = Collector::start(child.stdout.take().expect("a pipe"));
        let stderr = Collector::start(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// The most memory that was resident at any time so far, in KiB.
    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).expect("the program is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak in it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Gives it `input` to the end, and waits for its own.
    fn end(mut self, input: &[u8]) -> Run {
        let mut stdin = self.child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // It may stop reading before the end.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let status = end_of(&mut self.child);
        writer.join().expect("the writer does not panic");
        Run { status, stdout: self.stdout.end(), stderr: self.stderr.end() }
    }
}

/// Reads one end of a pipe, so that the other never blocks.
struct Collector(JoinHandle<Vec<u8>>);

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        Self(std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read what the program prints");
            bytes
        }))
    }

    fn end(self) -> String {
        String::from_utf8_lossy(&self.0.join().expect("the reader does not panic")).into_owned()
    }
}
