//! Terminals, pipes and closed streams: colour only if it is wanted, lines that fit, and how a run ends whose reader leaves.

use crate::common::with_default_policy;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");
const SIGPIPE: i32 = 13;
const ESCAPE: char = '\u{1b}';

/// A run of each command that prints something, and whether its output is coloured.
const RUNS: [(&[&str], bool); 24] = [
    (&["check", "xml-samples/old-machine-1200g-gpu.xml", "--host", "amd-epyc"], true),
    (&["check", "xml-samples", "--host", "amd-epyc"], true),
    (&["host", "--list"], true),
    (&["map", "xml-samples/old-machine-1200g-gpu.xml", "--host", "amd-epyc"], true),
    (&["explain"], true),
    (&["explain", "ram-in-reserved-range"], true),
    (&["host"], true),
    (&["fix", "xml-samples", "--host", "amd-epyc"], true),
    (&["hook", "status", "--root", "/nonexistent"], true),
    (&["check", "--format", "json", "xml-samples", "--host", "amd-epyc"], false),
    (&["check", "--format", "sarif", "xml-samples", "--host", "amd-epyc"], false),
    (&["host", "--format", "json"], false),
    (&["map", "xml-samples/old-machine-1200g-gpu.xml", "--format", "svg", "--host", "amd-epyc"], false),
    (&["check", "--format", "jsonl", "xml-samples", "--host", "amd-epyc"], false),
    (&["check", "-v", "xml-samples", "--host", "amd-epyc"], true),
    (&["check", "xml-samples", "--host", "xml-samples/hosts"], true),
    (&["check", "xml-samples", "--from", "amd-epyc", "--to", "intel-xeon"], true),
    (&["explain", "VFIO_MAP_DMA failed: Invalid argument"], true),
    (&["explain", "VFIO_MAP_DMA failed: Invalid argument", "--format", "json"], false),
    (&["adapter", "vdsm", "status", "--root", "/nonexistent"], true),
    (&["completions", "bash"], false),
    (&["man"], false),
    // Of the colours of its help, clap decides.
    (&["--help"], false),
    (&["--version"], false),
];

/// The runs whose lines all fit come first in [`RUNS`]; `explain` prints errors word for word on one line.
const FITTING: usize = 4;

fn runs() -> impl Iterator<Item = &'static [&'static str]> {
    RUNS.into_iter().map(|(run, _)| run)
}

fn coloured() -> impl Iterator<Item = &'static [&'static str]> {
    RUNS.into_iter().filter(|(_, coloured)| *coloured).map(|(run, _)| run)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(with_default_policy(arguments)).stdin(Stdio::null()).env("TERM", "xterm-256color");
    for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(variable);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What a terminal of this many columns gets, with the line ends that it gets; standard error is left out.
fn in_a_terminal(arguments: &[&str], columns: u32, environment: &[(&str, &str)]) -> String {
    let line = format!(
        "stty cols {columns} rows 50; exec {PROGRAM} {} 2> /dev/null",
        with_default_policy(arguments).join(" ")
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    for variable in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(variable);
    }
    let output = script.env("TERM", "xterm-256color").envs(environment.iter().copied()).output();
    text(&output.expect("script is a part of every Debian").stdout)
}

/// Text without escape sequences.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(ESCAPE) {
        plain += before;
        rest = after.split_once('m').expect("an escape sequence for a colour").1;
    }
    plain + rest
}

#[test]
fn colour_is_for_terminals() {
    for (run, coloured) in RUNS {
        let piped = text(&command(run).output().expect("runs").stdout);
        assert!(!piped.contains(ESCAPE), "{run:?} in a pipe: {piped}");
        if run[0].starts_with("--") {
            continue;
        }
        let shown = in_a_terminal(run, 140, &[]);
        assert_eq!(shown.contains(ESCAPE), coloured, "{run:?} in a terminal: {shown}");
        let piped = text(&command(run).env("COLUMNS", "140").output().expect("runs").stdout);
        assert_eq!(plain(&shown).replace("\r\n", "\n"), piped, "{run:?} says something else in a terminal");
    }
}

#[test]
fn colour_can_be_switched_off() {
    for run in coloured() {
        for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let shown = in_a_terminal(run, 140, &[environment]);
            assert!(!shown.contains(ESCAPE), "{run:?} {environment:?}: {shown}");
        }
        let never = in_a_terminal(&[run, &["--color", "never"]].concat(), 140, &[]);
        assert!(!never.contains(ESCAPE), "{run:?} --color never: {never}");
    }
}

#[test]
fn colour_can_be_forced() {
    for run in coloured() {
        let arguments = [run, &["--color", "always"]].concat();
        for environment in [None, Some(("NO_COLOR", "1")), Some(("TERM", "dumb"))] {
            let output = command(&arguments).envs(environment).output().expect("runs");
            assert!(text(&output.stdout).contains(ESCAPE), "{run:?} {environment:?}");
        }
    }
}

/// Lines that are not broken: those of the XML with what is said of them, what names a file, commands, those of an
/// orchestrator too, and, in the narrowest terminals, the title of a finding after the name of its rule.
fn may_be_long(line: &str, columns: u32) -> bool {
    let excerpt = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let title = ["error[", "warning["].iter().any(|start| line.starts_with(start));
    let command = line.trim_start().starts_with('`') && line.trim_end_matches(',').ends_with('`');
    let commands = ["= nova: openstack ", "= nova: nova-manage ", "= new guests: openstack "];
    let advice = commands.iter().any(|start| line.trim_start().starts_with(start));
    excerpt || command || line.contains(".xml") || (title && columns < 80) || advice
}

#[test]
fn lines_fit_into_narrow_terminals() {
    for run in runs().take(FITTING) {
        for columns in [40, 60, 80] {
            let shown = plain(&in_a_terminal(run, columns, &[]));
            let lines: Vec<&str> = shown.lines().filter(|line| !may_be_long(line, columns)).collect();
            assert!(lines.len() > 5, "{run:?} at {columns}: {shown}");
            for line in lines {
                assert!(line.chars().count() <= columns as usize, "{run:?} at {columns}: {line}");
            }
            // A pipe that is told the width gets the same.
            let piped = command(run).env("COLUMNS", columns.to_string()).output().expect("runs");
            assert_eq!(text(&piped.stdout), shown.replace("\r\n", "\n"), "{run:?} at {columns}");
        }
    }
    // A profile is made for 80 columns and is the same anywhere.
    for line in plain(&in_a_terminal(&["host"], 80, &[])).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(plain(&in_a_terminal(&["host"], 40, &[])), plain(&in_a_terminal(&["host"], 200, &[])));
}

/// It ends as other programs do whose reader has left, and never with a status that says that all is well.
#[test]
fn a_reader_that_leaves_ends_a_run_by_sigpipe() {
    for run in runs() {
        let whole = command(run).output().expect("runs").status.code().expect("a status");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(run).stdout(writer).output().expect("runs");
        let complaint = text(&output.stderr);
        assert!(!complaint.contains("panicked") && !complaint.contains("roken pipe"), "{run:?}: {complaint}");
        assert_eq!(output.status.signal(), Some(SIGPIPE), "{run:?}: {:?}: {complaint}", output.status);
        // One that reads a little first.
        let line =
            format!("{PROGRAM} {} | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}", with_default_policy(run).join(" "));
        let output = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().expect("runs");
        assert!(!text(&output.stderr).contains("panicked"), "{run:?}: {}", text(&output.stderr));
        let status: i32 = text(&output.stdout).trim().parse().expect("a status");
        // All of a short text may be in the pipe before its reader leaves.
        assert!([whole, 128 + SIGPIPE].contains(&status), "{run:?}: {status}");
    }
    // Whoever starts it may ignore the signal or block it.
    let ignored = format!("trap '' PIPE; {PROGRAM} explain | true; echo ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").args(["-c", &ignored]).output().expect("runs");
    assert!(["0\n", "141\n"].contains(&text(&output.stdout).as_str()), "{}", text(&output.stdout));
}

#[test]
fn closed_streams_change_nothing_else() {
    for run in runs() {
        let status = command(run).output().expect("runs").status;
        for redirection in [">&-", "2>&-", ">&- 2>&-", "2> /dev/full", "<&-"] {
            let line = format!("exec {PROGRAM} {} {redirection}", with_default_policy(run).join(" "));
            let output = Command::new("bash").args(["-c", &line]).output().expect("runs");
            assert_eq!(output.status, status, "{run:?} {redirection}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn a_full_disk_is_an_error() {
    for run in runs() {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = command(run).stdout(full).output().expect("runs");
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{run:?}: {complaint}");
        assert!(
            complaint.contains("iova-preflight: standard output: No space left") && !complaint.contains("panicked"),
            "{run:?}: {complaint}"
        );
    }
}

/// An adapter that is called by hand prints its usage; one that an orchestrator calls does not.
#[test]
fn an_adapter_without_arguments_explains_itself_in_a_terminal() {
    for name in ["vdsm", "kubevirt", "cloudstack", "opennebula", "proxmox"] {
        let shown = plain(&in_a_terminal(&["adapter", name], 80, &[]));
        assert!(shown.contains(&format!("Usage: iova-preflight adapter {name}")), "{shown}");
    }
    let output = command(&["adapter", "kubevirt"]).output().expect("runs");
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

/// `-h` is read in a terminal of 80 columns, and `--help` has the details.
#[test]
fn short_help_has_one_line_for_each_command_and_option() {
    for command in crate::common::commands(PROGRAM) {
        let output = Command::new(PROGRAM).args(&command).arg("-h").env("COLUMNS", "80").output().expect("runs");
        let help = text(&output.stdout);
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{command:?}: {line}");
            // A second line is indented as far as the column of descriptions.
            let indent = line.len() - line.trim_start().len();
            assert!(indent < 10, "{command:?}: not one line: {line}");
        }
        let (_, commands) = help.split_once("\nCommands:\n").unwrap_or_default();
        for line in commands.lines().take_while(|line| !line.is_empty()) {
            let (name, summary) = line.trim_start().split_once("  ").expect("a summary");
            let summary = summary.trim_start();
            assert!(!summary.is_empty() && summary.chars().count() <= 60, "{command:?}: {name}: {summary}");
            assert!(!["completions", "man"].contains(&name), "{command:?}: {name} is for packages");
        }
    }
}
