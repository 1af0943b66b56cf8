//! What the black-box tests share: running the built program, host profiles, and reporting missing real parts.
#![allow(dead_code, reason = "each of the two programs uses its own part of this module")]

pub mod expect;
pub mod guest;
pub mod namespace;
pub mod validators;

use iova_preflight::host::BUILTIN;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Says that a real part is missing. Where every part is there by definition (`CI` is set), that
/// is a failure. Written to stderr directly, because the test harness swallows `eprintln!`.
pub fn skip(why: &str) {
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(std::env::var("CI").unwrap_or_default().is_empty(), "a real part is missing under CI: {why}");
}

/// How long anything may take before it counts as hung. Not a measure of speed: a busy machine can be a hundred times
/// slower than an idle one.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until something holds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a program that must not hang.
#[track_caller]
pub fn end_of(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for the program") {
            return status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("hung: not done after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Opens a named pipe for writing before anybody reads from it, so that a reader waits for what is written.
pub fn writer_of(pipe: &Path) -> File {
    // Opening one end waits for the other one.
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(pipe).expect("open the pipe");
    let writer = File::options().write(true).open(pipe).expect("open the pipe");
    drop(reader);
    writer
}

/// Opens a named pipe once a program reads from it, which is after it has read the earlier inputs. Another writer has to be
/// there until then, see [`writer_of`].
#[track_caller]
pub fn open_when_read(pipe: &Path) -> File {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pipe = pipe.to_owned();
    // Opening blocks, for ever if the program never does its part.
    std::thread::spawn(move || sender.send(File::options().write(true).open(pipe)));
    receiver.recv_timeout(PATIENCE).expect("the program opens the pipe").expect("open the pipe")
}

/// A line for the reader that the test harness does not swallow.
pub fn note(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// libvirt's own test domains, `NAME.xml`, with libvirt's command lines for the newest QEMU beside them, `NAME.args`;
/// or `None` after saying why they are missing.
///
/// They are not part of this project. `$IOVA_PREFLIGHT_SHARED/corpus` has them, or Debian's source package of libvirt,
/// from which they are taken once.
pub fn corpus() -> Option<PathBuf> {
    static CORPUS: LazyLock<Result<PathBuf, String>> = LazyLock::new(find_corpus);
    CORPUS.as_ref().map_err(|why| skip(&format!("libvirt's own test domains: {why}"))).ok().cloned()
}

fn find_corpus() -> Result<PathBuf, String> {
    const NAME: &str = "corpus/libvirt-11.3";
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("IOVA_PREFLIGHT_SHARED").map_or_else(|| project.join("../shared"), PathBuf::from);
    if shared.join(NAME).is_dir() {
        return Ok(shared.join(NAME));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(NAME);
    let run = Command::new(project.join("tests/libvirt-corpus")).arg(&folder).output();
    let output = run.map_err(|error| format!("tests/libvirt-corpus: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let last = String::from_utf8_lossy(&said).lines().last().unwrap_or_default().to_owned();
    output.status.success().then_some(folder).ok_or(format!("not from Debian's source package: {last}"))
}

/// A folder for this test's files, empty when the test starts.
pub fn work_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("create the work folder");
    dir
}

/// The commands that the help of `program` names and the commands of these, as words after the program's name; the
/// program itself, without any, is the last.
pub fn commands(program: &str) -> Vec<Vec<String>> {
    commands_below(program, Vec::new())
}

fn commands_below(program: &str, above: Vec<String>) -> Vec<Vec<String>> {
    let output = Command::new(program).args(&above).arg("-h").output().expect("runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let list = help.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    // A description that continues on the next line is indented further than a name.
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let line = line.strip_prefix("  ")?;
        line.starts_with(|c: char| c != ' ').then(|| line.split(' ').next().unwrap_or_default())
    });
    let mut all = Vec::new();
    for name in names.filter(|name| *name != "help") {
        all.extend(commands_below(program, [&above[..], &[name.to_owned()]].concat()));
    }
    all.push(above);
    all
}

/// The XML files of a folder, sorted by name.
pub fn xml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("read the folder of XML files")
        .map(|entry| entry.expect("read a folder entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "xml"))
        .collect();
    files.sort();
    files
}

/// The sample domains.
pub fn samples() -> Vec<PathBuf> {
    xml_files(&samples_folder())
}

/// The host that a verdict is asked for.
pub struct Profile {
    pub vendor: String,
    pub phys_bits: u64,
    pub kvm: bool,
    pub qemu: String,
    pub pc: String,
    pub q35: String,
    pub libvirt: String,
}

impl Profile {
    /// Writes it as the TOML that `--host` reads.
    pub fn write(&self, path: &Path) {
        let mut text = String::new();
        let iommu = if self.vendor == "AuthenticAMD" { "amd" } else { "intel" };
        let _ = writeln!(text, "[cpu]\nvendor = {:?}\nphys_bits = {}\n", self.vendor, self.phys_bits);
        let _ = writeln!(text, "[iommu]\nkind = {iommu:?}\n");
        let _ = writeln!(text, "[[iommu.reserved]]\nstart = 0xfee00000\nend = 0xfeefffff\ntype = \"msi\"\n");
        if iommu == "amd" {
            let _ =
                writeln!(text, "[[iommu.reserved]]\nstart = 0xfd00000000\nend = 0xffffffffff\ntype = \"reserved\"\n");
        }
        let _ = writeln!(text, "[kvm]\navailable = {}\n", self.kvm);
        let _ = writeln!(text, "[qemu]\nversion = {:?}\n", self.qemu);
        let _ = writeln!(text, "[qemu.aliases]\npc = {:?}\nq35 = {:?}\n", self.pc, self.q35);
        let _ = writeln!(text, "[libvirt]\nversion = {:?}", self.libvirt);
        std::fs::write(path, text).expect("write the host profile");
    }
}

/// The arguments as they are, but under the default policy: the policy in `/etc/iova-preflight` on this machine must
/// not matter.
pub fn with_default_policy<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = arguments.to_vec();
    let evaluates = arguments.iter().position(|argument| ["check", "fix", "map"].contains(argument));
    if let Some(command) = evaluates.filter(|_| !arguments.contains(&"--policy")) {
        arguments.splice(command + 1..command + 1, ["--policy", "none"]);
    }
    arguments
}

/// Runs `check` once over all the files and gives the guests by file name. The exit code has to
/// agree with the verdicts.
pub fn check(profile: &Path, files: &[PathBuf]) -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--format", "json", "--host"])
        .arg(profile)
        .args(files)
        .output()
        .expect("run iova-preflight");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("no JSON on stdout ({e}), {}, stderr:\n{stderr}", output.status));
    let guests: BTreeMap<String, Value> = document["guests"]
        .as_array()
        .expect("guests is a list")
        .iter()
        .map(|guest| {
            let source = guest["source"].as_str().expect("a guest has a source");
            let name = Path::new(source).file_name().expect("a source is a file");
            (name.to_string_lossy().into_owned(), guest.clone())
        })
        .collect();
    let any = |wanted: &[&str]| guests.values().any(|g| wanted.iter().any(|w| g["verdict"] == *w));
    let expected = match (any(&["error"]), any(&["blocked", "fixable"])) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    };
    assert_eq!(output.status.code(), Some(expected), "exit code against the verdicts, stderr:\n{stderr}");
    assert_eq!(guests.len(), files.len(), "one guest for each file");
    guests
}

/// What `check --format json`, run as `command`, says about each file, by its name.
pub fn evaluated(command: &mut Command) -> BTreeMap<String, Value> {
    let output = command.output().expect("run iova-preflight");
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("no JSON ({e}): {}", String::from_utf8_lossy(&output.stderr)));
    let guests = document["guests"].as_array().expect("guests is a list").iter();
    let name = |guest: &Value| {
        let source = Path::new(guest["source"].as_str().expect("a guest has a source"));
        source.file_name().expect("a source is a file").to_string_lossy().into_owned()
    };
    guests.map(|guest| (name(guest), guest.clone())).collect()
}

/// One fact on which we and the real programs disagree.
pub struct Difference {
    pub case: String,
    pub column: String,
    pub field: String,
    pub expected: String,
    pub ours: String,
}

/// Everything compared so far.
#[derive(Default)]
pub struct Differences {
    pub compared: usize,
    pub found: Vec<Difference>,
}

impl Differences {
    /// Compares one fact.
    pub fn compare(&mut self, at: (&str, &str), field: &str, expected: &Value, ours: &Value) {
        self.expect(at, field, expected == ours, &expected.to_string(), &ours.to_string());
    }

    /// Notes one fact that holds or does not.
    pub fn expect(&mut self, at: (&str, &str), field: &str, holds: bool, expected: &str, ours: &str) {
        self.compared += 1;
        if !holds {
            self.found.push(Difference {
                case: at.0.to_owned(),
                column: at.1.to_owned(),
                field: field.to_owned(),
                expected: expected.to_owned(),
                ours: ours.to_owned(),
            });
        }
    }

    /// Fails with a readable table when there is any difference.
    pub fn assert_none(&self, what: &str) {
        assert!(self.found.is_empty(), "{what}\n{}", self.table());
    }

    fn table(&self) -> String {
        let mut cases: Vec<&str> = self.found.iter().map(|d| d.case.as_str()).collect();
        cases.dedup();
        let mut by_field: BTreeMap<&str, usize> = BTreeMap::new();
        for difference in &self.found {
            *by_field.entry(&difference.field).or_default() += 1;
        }
        let mut text = format!(
            "{} of {} facts differ, in {} cases; by field: {by_field:?}\n",
            self.found.len(),
            self.compared,
            cases.len()
        );
        let _ = writeln!(text, "{:<28} {:<6} {:<28} expected | ours", "case", "column", "fact");
        for d in self.found.iter().take(20) {
            let _ = writeln!(text, "{:<28} {:<6} {:<28} {} | {}", d.case, d.column, d.field, d.expected, d.ours);
        }
        text
    }
}

/// Fails where a committed file is not what the program makes it; with IOVA_PREFLIGHT_REGENERATE set, writes it.
pub fn generated(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("IOVA_PREFLIGHT_REGENERATE").is_some() {
        std::fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("make the folder");
        std::fs::write(&file, text).expect("write the generated file");
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{path} is not what the program makes it: IOVA_PREFLIGHT_REGENERATE=1 cargo test writes it anew"
    );
}

/// The folder of the sample domains.
pub fn samples_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("xml-samples")
}

/// The sample command lines.
pub fn command_lines() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("argv-samples");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("argv-samples").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// What `--host` takes for every host there is: the built-in ones and those beside the samples.
pub fn every_host() -> Vec<PathBuf> {
    let mut hosts: Vec<PathBuf> = BUILTIN.iter().map(|host| host.name.into()).collect();
    hosts.extend(
        std::fs::read_dir(samples_folder().join("hosts")).expect("hosts").map(|entry| entry.expect("an entry").path()),
    );
    hosts
}

/// Files that are not domains, each in its own way, and one that is not there, in a folder of this test.
pub fn broken_inputs(folder: &Path) -> Vec<PathBuf> {
    let contents: [(&str, &[u8]); 6] = [
        ("empty.xml", b""),
        ("not-xml.xml", b"<domain>\n  <name>a</nam>\n</domain>\n"),
        ("not-utf-8.xml", b"<domain>\xff</domain>"),
        ("network.xml", b"<network><name>default</name></network>"),
        ("no-number.xml", b"<domain type='kvm'>\n  <memory>much</memory>\n</domain>"),
        ("colour \u{7f}: größe #1 100%.xml", b"<a/>"),
    ];
    let mut paths = Vec::new();
    for (name, content) in contents {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("write a broken input");
        paths.push(path);
    }
    paths.push(folder.join("missing.xml"));
    paths
}

/// What `check` prints and how it exits, run in the project's folder.
pub fn run_check<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run iova-preflight");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}
