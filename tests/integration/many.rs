//! `check` over many guests: the same output however many are evaluated at once, the table at the end, and progress.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");

/// A folder of guests: the samples in many copies, and between them what is no guest.
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
    for arguments in [&[][..], &["-v"], &["-q"], &["--format", "json"], &["--color", "always"]] {
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
fn nonsense_is_no_number_of_jobs() {
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
    assert_eq!(complaint, "-: standard input can be read only once\n");
}

/// Where both streams go to one place, what is wrong with an input stands between the guests around it.
#[test]
fn complaints_come_in_their_place() {
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

/// Whoever has read enough is not kept waiting for an input that never ends.
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
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().expect("ends");
            panic!("waits for standard input, although nobody reads what it prints");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    drop(stdin);
}

#[test]
fn the_table_names_each_guest_that_needs_attention() {
    let folder = fleet("many-table", 3);
    let text = String::from_utf8(check(&folder, &[]).stdout).expect("UTF-8");
    let (_, table) = text.split_once("\nverdict  guest").expect("a table");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    let count = |verdict: &str| rows.iter().filter(|row| row.starts_with(verdict)).count();
    let summary = table.lines().find(|line| line.contains(" domains: ")).expect("a summary");
    assert!(summary.starts_with("99 domains: 9 pass, "), "{summary}");
    for (verdict, title) in [("blocked", "blocked"), ("fixable", "fixable"), ("error", "unreadable"), ("warn", "warn")]
    {
        assert!(count(verdict) > 0 && summary.contains(&format!(" {} {title}", count(verdict))), "{verdict}\n{table}");
    }
    assert!(
        rows.iter().any(|row| row.contains("ml-train-03-2") && row.ends_with("fix: machine pc-q35-7.1")),
        "{table}"
    );
    // One guest needs no table.
    let one = check(Path::new("xml-samples/old-machine-1200g-gpu.xml"), &[]);
    assert!(!String::from_utf8_lossy(&one.stdout).contains("verdict  guest"));
}

/// Runs a command in a terminal of 80 columns; what it writes to standard output goes to `output`.
fn in_a_terminal(command: &str, output: &str, term: &str) -> Vec<u8> {
    let line = format!("stty cols 80; {command} > {output}");
    let run = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", term)
        .stdin(Stdio::null())
        .output();
    run.expect("script is a part of every Debian").stdout
}

#[test]
fn progress_is_shown_on_long_runs_and_leaves_nothing_behind() {
    let folder = fleet("many-progress", 1);
    let pipe = folder.join("zzz.fifo");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("runs").success());
    let (folder, pipe) = (folder.display(), pipe.display());
    // The last two inputs come late: a run that takes longer than half a second.
    let slow = format!(
        "(sleep 0.8; cat xml-samples/arm-guest.xml > {pipe}) & {PROGRAM} check --policy none -q --jobs 1 {pipe} {folder} 2> /dev/tty"
    );
    let shown = String::from_utf8_lossy(&in_a_terminal(&slow, "/dev/null", "xterm")).into_owned();
    assert!(shown.contains("\r\x1b[K1 of 34 domains evaluated, 0 do not start\r\x1b[K"), "{shown:?}");
    assert!(shown.ends_with("\x1b[K") || shown.ends_with('\n'), "{shown:?}");
    // Not in a terminal that cannot erase, not on short runs, not in a pipe.
    let dumb = in_a_terminal(&slow, "/dev/null", "dumb");
    assert!(!String::from_utf8_lossy(&dumb).contains("evaluated"));
    let short = in_a_terminal(&format!("{PROGRAM} check --policy none -q {folder}"), "/dev/null", "xterm");
    assert!(!String::from_utf8_lossy(&short).contains("evaluated"));
    let piped = Command::new("bash").args(["-c", &slow.replace("2> /dev/tty", "2>&1")]).output().expect("runs");
    assert!(piped.status.code() == Some(2) && !String::from_utf8_lossy(&piped.stdout).contains("evaluated"));
}
