//! The diffs of `fix`, applied by other programs.

use super::{
    NEW_TYPE, OLD_TYPE, Way, blocked, code, command, elaborate, fine, fixable, fixed, read, run, stderr, stdout, write,
};
use crate::common::work_dir;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Runs `fix` with the arguments in `folder`, and applies what it prints with both programs. The
/// paths are the names that other programs read from it.
fn diff_applies(folder: &Path, arguments: &[&str], files: &[(&str, String, String)]) {
    let source = folder.join("source");
    for (name, before, _) in files {
        write(&source, name, before);
    }
    let output = run(&source, arguments);
    assert_eq!(code(&output), 1, "{arguments:?}: {}", stderr(&output));
    for (name, before, _) in files {
        assert_eq!(read(&source.join(name)), *before, "a diff is all there is to be");
    }
    let diff = write(folder, "the.diff", &stdout(&output));
    for (program, options) in [("patch", vec!["-p1", "--batch", "-i"]), ("git", vec!["apply", "--whitespace=nowarn"])] {
        let Some(mut command) = super::program(program) else { continue };
        let target = folder.join(program);
        for (name, before, _) in files {
            write(&target, name, before);
        }
        command.args(options).arg(&diff).current_dir(&target);
        // Not the repository and the settings around this test.
        command.env("GIT_CEILING_DIRECTORIES", folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        let applied = command.output().expect("apply the diff");
        let said = format!("{}{}\n{}", stdout(&applied), stderr(&applied), stdout(&output));
        assert!(applied.status.success(), "{program} {arguments:?}: {said}");
        for (name, _, after) in files {
            assert_eq!(read(&target.join(name)), *after, "{program} {name}: {said}");
        }
    }
}

#[test]
fn diffs_apply_whatever_the_text() {
    let folder = work_dir("fix-diff-text");
    let cpu = "\n  <cpu>\n    <maxphysaddr mode='emulate' bits='42'/>\n  </cpu>";
    let elaborate = (elaborate("pc-q35-6.2", ""), elaborate("pc-q35-7.1", cpu));
    let plain = (fixable(), fixed());
    let ways: [(&str, Way); 8] = [
        ("plain", str::to_owned),
        ("crlf", |text| text.replace('\n', "\r\n")),
        ("mark", |text| format!("\u{feff}{text}")),
        ("no-end", |text| text.trim_end().to_owned()),
        ("crlf-no-end", |text| text.trim_end().replace('\n', "\r\n")),
        ("mixed", |text| text.replacen('\n', "\r\n", 4)),
        ("cr", |text| text.replace("  <os>", "  <!-- a\rb --><os>")),
        ("controls", |text| text.replace("  <os>", "  <!-- \u{7f}\u{80}\u{9b}1m\u{85}\u{2028} --><os>")),
    ];
    for (name, way) in ways {
        for (text, (before, after)) in [("plain", &plain), ("elaborate", &elaborate)] {
            let folder = folder.join(format!("{name}-{text}"));
            diff_applies(&folder, &["a.xml"], &[("a.xml", way(before), way(after))]);
        }
    }
    let line = |text: String| text.replace('\n', "");
    diff_applies(&folder.join("line"), &["--diff", "a.xml"], &[("a.xml", line(fixable()), line(fixed()))]);
}

#[test]
fn diffs_apply_whatever_the_name() {
    let folder = work_dir("fix-diff-name");
    let names = [
        "a b.xml",
        "ä €.xml",
        "tab\there.xml",
        "quote\"d.xml",
        "back\\slash.xml",
        "line\nbreak.xml",
        "--- a.xml",
        "it's.xml",
        "it's \"ä\".xml",
        "bell\u{7}.xml",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let folder = folder.join(number.to_string());
        diff_applies(&folder, &["--", name], &[(name, fixable(), fixed())]);
    }
}

#[test]
fn a_folder_gives_one_diff_that_applies() {
    let folder = work_dir("fix-diff-folder");
    let crlf = |text: String| text.replace('\n', "\r\n");
    let files = [
        ("guests/a.xml", fixable(), fixed()),
        ("guests/b/b.xml", crlf(fixable()), crlf(fixed())),
        ("guests/b/c.xml", fixable().trim_end().to_owned(), fixed().trim_end().to_owned()),
        ("guests/fine.xml", fine(), fine()),
        ("guests/stuck.xml", blocked(), blocked()),
    ];
    for (number, way) in ["guests", "./guests", "guests/", "."].into_iter().enumerate() {
        diff_applies(&folder.join(number.to_string()), &[way], &files);
    }
}

#[test]
fn standard_input_gives_a_diff_on_request() {
    let mut command = command();
    command.args(["--diff", "-q", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run iova-preflight");
    child.stdin.take().expect("a pipe").write_all(fixable().as_bytes()).expect("write the domain");
    let output = child.wait_with_output().expect("wait for iova-preflight");
    assert_eq!(code(&output), 1);
    let printed = stdout(&output);
    let changed: Vec<&str> = printed.lines().skip(2).filter(|line| line.starts_with(['+', '-'])).collect();
    assert_eq!(changed, [format!("-    {OLD_TYPE}"), format!("+    {NEW_TYPE}")]);
}
