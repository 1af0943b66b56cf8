//! `check` over many guests: the same output however many are evaluated at once, the table at the end, and progress.

use crate::common::{end_of, open_when_read, wait_for, writer_of};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");

/// A folder of guests: the samples in many copies, and between them what is not a guest.
fn fleet(name: &str, copies: usize) -> PathBuf {
    let folder = crate::common::work_dir(name);
    let samples = crate::common::xml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("xml-samples"));
    for copy in 0..copies {
        for sample in &samples {
            let text = fs::read_to_string(sample).expect("a sample");
            let text = text.replacen("</name>", &format!("-{copy}</name>"), 1);
            let name = sample.file_name().expect("a file").to_string_lossy().into_owned();
            fs::write(folder.join(format!("{copy:03}-{name}")), text).expect("written");
        }
        fs::write(folder.join(format!("{copy:03}-m-broken.xml")), "<domain>\n<name>").expect("written");
        fs::write(folder.join(format!("{copy:03}-n-sofa.xml")), "<sofa/>").expect("written");
    }
    folder
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(["check", "--policy", "none", "--host", "amd-epyc"])
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .expect("runs")
}

#[test]
fn output_is_the_same_however_many_are_evaluated_at_once() {
    let folder = fleet("many-jobs", 4);
    for arguments in [&[][..], &["-v"], &["-q"], &["--format", "json"], &["--format", "jsonl"], &["--color", "always"]]
    {
        let one = check(&folder, &[&["--jobs", "1"], arguments].concat());
        assert_eq!(one.status.code(), Some(2));
        assert!(one.stderr.iter().filter(|byte| **byte == b'\n').count() == 8, "every unreadable file is named");
        for jobs in ["2", "3", "16", "1000"] {
            let many = check(&folder, &[&["--jobs", jobs], arguments].concat());
            assert_eq!(many.status, one.status, "{arguments:?} {jobs}");
            assert!(many.stdout == one.stdout, "{arguments:?} --jobs {jobs}: standard output differs");
            assert!(many.stderr == one.stderr, "{arguments:?} --jobs {jobs}: standard error differs");
        }
        let default = check(&folder, arguments);
        assert!(default.stdout == one.stdout && default.stderr == one.stderr, "{arguments:?}");
    }
}

#[test]
fn the_lines_of_jsonl_are_the_guests_of_the_document() {
    let folder = fleet("many-lines", 1);
    let lines = check(&folder, &["--format", "jsonl"]);
    let document: serde_json::Value =
        serde_json::from_slice(&check(&folder, &["--format", "json"]).stdout).expect("JSON");
    let guests = document["guests"].as_array().expect("guests");
    let text = String::from_utf8(lines.stdout).expect("UTF-8");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() > 30 && &lines == guests, "{text}");
    assert!(lines.iter().filter(|guest| guest["verdict"] == "error").count() == 2);
}

/// A reader gets a guest before the next one is read.
#[test]
fn a_line_of_jsonl_for_an_unreadable_input_is_there_before_the_complaint() {
    let folder = fleet("many-order", 1);
    let both = folder.join("both");
    let file = fs::File::create(&both).expect("created");
    let copy = file.try_clone().expect("a second handle");
    let status = Command::new(PROGRAM)
        .args(["check", "--policy", "none", "--host", "amd-epyc", "--format", "jsonl", "--jobs", "2"])
        .arg(&folder)
        .stdout(file)
        .stderr(copy)
        .status()
        .expect("runs");
    assert_eq!(status.code(), Some(2));
    let text = fs::read_to_string(&both).expect("UTF-8");
    let place = |words: &str| text.lines().position(|line| line.contains(words)).expect("a line");
    assert_eq!(place("n-sofa.xml:1:1"), place("n-sofa.xml\",") + 1, "{text}");
}

/// Guests that can be fixed, each with a name of its own.
fn alike(name: &str, guests: usize) -> PathBuf {
    let folder = crate::common::work_dir(name);
    let text = fs::read_to_string("xml-samples/old-machine-1200g-gpu.xml").expect("a sample");
    for guest in 0..guests {
        let text = text.replacen("</name>", &format!("-{guest}</name>"), 1);
        fs::write(folder.join(format!("{guest:05}.xml")), text).expect("written");
    }
    folder
}

/// The peak of its memory, in bytes, until the whole folder is printed.
fn peak(folder: &Path, format: &str, jobs: &str) -> u64 {
    // It waits for standard input once it complains about the file before that.
    let mut child = Command::new(PROGRAM)
        .args(["check", "--policy", "none", "--host", "amd-epyc", "--format", format, "--jobs", jobs])
        .args([folder, Path::new("not-there.xml"), Path::new("-")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut complaints = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let complaint = complaints.next().expect("a line").expect("UTF-8");
    assert!(complaint.starts_with("not-there.xml:"), "{complaint}");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    drop(child.stdin.take());
    assert_eq!(end_of(&mut child).code(), Some(2));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Of each guest, its path and a hash of its name are kept, and nothing of what is printed.
#[test]
fn memory_does_not_grow_with_what_is_printed() {
    const FEW: usize = 200;
    const MANY: usize = 2000;
    let (few, many) = (alike("many-few", FEW), alike("many-many", MANY));
    let path = many.join("00000.xml").as_os_str().len();
    // What is printed of each guest is over 1000 bytes. How much is evaluated at once differs from run to run.
    let most = (MANY - FEW) * (path + 64) + (1 << 20);
    for format in ["human", "jsonl"] {
        let growth = peak(&many, format, "2").saturating_sub(peak(&few, format, "2"));
        assert!(growth <= most as u64, "{format}: {growth} bytes more, {most} at most");
    }
}

#[test]
fn nonsense_is_not_a_number_of_jobs() {
    let folder = fleet("many-nonsense", 1);
    for jobs in ["0", "-1", "x", "100000"] {
        assert_eq!(check(&folder, &["--jobs", jobs]).status.code(), Some(2), "{jobs}");
    }
}

#[test]
fn standard_input_is_read_once() {
    let sample = fs::File::open("xml-samples/old-machine-1200g-gpu.xml").expect("a sample");
    let output = Command::new(PROGRAM)
        .args(["check", "--policy", "none", "--host", "amd-epyc", "xml-samples/gpu-attached-later.xml", "-", "-"])
        .stdin(sample)
        .output()
        .expect("runs");
    let (text, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("3 domains:") && text.contains("fixable        - (ml-train-03)"), "{text}");
    assert_eq!(complaint, "-: standard input can only be read once\n");
}

/// If both streams go to one place, an input's error is printed between the guests around it.
#[test]
fn errors_are_printed_between_the_guests_around_them() {
    let line = format!(
        "exec {PROGRAM} check --policy none --host amd-epyc xml-samples/large-pcihole64.xml none.xml \
                        xml-samples/gpu-attached-later.xml 2>&1"
    );
    let output = Command::new("sh").args(["-c", &line]).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} in {text}"));
    let (before, complaint, after) = (at("= map: "), at("none.xml:"), at("gpu-attached-later.xml ("));
    assert!(before < complaint && complaint < after, "{text}");
}

/// A reader that closes the pipe does not have to wait for an input that never ends.
#[test]
fn a_reader_that_leaves_ends_the_run() {
    let folder = fleet("many-leaves", 6);
    let mut child = Command::new(PROGRAM)
        .args(["check", "--policy", "none", "--host", "amd-epyc"])
        .arg(&folder)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let stdin = child.stdin.take();
    drop(child.stdout.take());
    assert_eq!(end_of(&mut child).signal(), Some(13), "SIGPIPE");
    drop(stdin);
}

#[test]
fn the_table_names_each_guest_that_needs_attention() {
    let folder = fleet("many-table", 1);
    let text = String::from_utf8(check(&folder, &[]).stdout).expect("UTF-8");
    let (_, table) = text.split_once("\nverdict  guest").expect("a table");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    let count = |verdict: &str| rows.iter().filter(|row| row.starts_with(verdict)).count();
    let summary = table.lines().find(|line| line.contains(" domains: ")).expect("a summary");
    let domains = crate::common::xml_files(&folder).len();
    assert!(summary.starts_with(&format!("{domains} domains: ")), "{summary}");
    for (verdict, title) in [("blocked", "blocked"), ("fixable", "fixable"), ("error", "unreadable"), ("warn", "warn")]
    {
        assert!(count(verdict) > 0 && summary.contains(&format!(" {} {title}", count(verdict))), "{verdict}\n{table}");
    }
    assert!(
        rows.iter().any(|row| row.contains("ml-train-03-0") && row.ends_with("fix: machine pc-q35-7.1")),
        "{table}"
    );
    // One guest needs no table.
    let one = check(Path::new("xml-samples/old-machine-1200g-gpu.xml"), &[]);
    assert!(!String::from_utf8_lossy(&one.stdout).contains("verdict  guest"));
}

/// A `check` in a terminal of 80 columns whose standard error is shown there, and what is shown.
struct Shown {
    script: Child,
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Shown {
    fn start(arguments: &str, term: &str) -> Self {
        let line = format!("stty cols 80; {PROGRAM} check --policy none -q {arguments} > /dev/null");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", term);
        let mut script = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("part of every Debian");
        let (mut output, text) = (script.stdout.take().expect("a pipe"), Arc::<Mutex<Vec<u8>>>::default());
        let collected = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let mut text = collected.lock().expect("a text");
                text.extend_from_slice(&buffer[..length]);
            }
        });
        Self { script, text, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("a text")).into_owned()
    }

    /// All that was shown.
    fn end(mut self) -> String {
        end_of(&mut self.script);
        self.reader.join().expect("read to the end");
        String::from_utf8_lossy(&self.text.lock().expect("a text")).into_owned()
    }
}

/// Longer than a run may take before its progress is shown.
const LONG: Duration = Duration::from_millis(700);

#[test]
fn progress_is_shown_on_long_runs_and_leaves_nothing_behind() {
    let folder = fleet("many-progress", 1);
    let pipes = ["first", "last"].map(|name| folder.join(name));
    assert!(Command::new("mkfifo").args(&pipes).status().expect("runs").success());
    let guest = fs::read("xml-samples/arm-guest.xml").expect("a sample");
    // The first and the last input are pipes that are written to late, so that the run is long at that point.
    let arguments = format!("--jobs 1 {} {} {}", pipes[0].display(), folder.display(), pipes[1].display());
    let give = |mut pipe: fs::File| pipe.write_all(&guest).expect("written");
    let writers = || pipes.each_ref().map(|pipe| writer_of(pipe));
    let opened = |pipe: &Path, held: fs::File| {
        let pipe = open_when_read(pipe);
        drop(held);
        pipe
    };
    let first_late = |held: fs::File| {
        let pipe = opened(&pipes[0], held);
        std::thread::sleep(LONG);
        give(pipe);
    };

    let [first, last] = writers();
    let shown = Shown::start(&arguments, "xterm");
    first_late(first);
    let last = opened(&pipes[1], last);
    let inputs = crate::common::xml_files(&folder).len() + pipes.len();
    wait_for("progress", || shown.so_far().contains("domains evaluated"));
    give(last);
    let text = shown.end();
    let line = format!("\r\x1b[K1 of {inputs} domains evaluated, 0 do not start\r\x1b[K");
    assert!(text.contains(&line), "{text:?}");
    assert!(text.ends_with("\x1b[K") || text.ends_with('\n'), "{text:?}");

    // Not in a terminal that cannot erase.
    let [first, last] = writers();
    let dumb = Shown::start(&arguments, "dumb");
    first_late(first);
    give(opened(&pipes[1], last));
    assert!(!dumb.end().contains("evaluated"));
    // Not in a pipe.
    let [first, last] = writers();
    let words: Vec<&str> = arguments.split(' ').collect();
    let mut piped = Command::new(PROGRAM);
    piped.args(["check", "--policy", "none", "-q"]).args(words).stdout(Stdio::null()).stderr(Stdio::piped());
    let piped = piped.spawn().expect("runs");
    first_late(first);
    give(opened(&pipes[1], last));
    let piped = piped.wait_with_output().expect("runs");
    assert!(piped.status.code() == Some(2) && !String::from_utf8_lossy(&piped.stderr).contains("evaluated"));
    // Not on short runs. On a busy machine any run may be long, but not all of them.
    let is_quiet = || !Shown::start(&folder.display().to_string(), "xterm").end().contains("evaluated");
    assert!((0..100).any(|_| is_quiet()), "a short run shows its progress");
}
