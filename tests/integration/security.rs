//! `SECURITY.md` lists what lets a guest start unchecked, and the test that shows it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::work_dir;

/// Every file with the ending below `folder`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry, ending));
        } else if entry.extension().is_some_and(|extension| extension == ending) {
            found.push(entry);
        }
    }
    found
}

/// Names after `fn` in Rust, and of shell and Python functions and whole scripts.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for path in ["src", "tests"].iter().flat_map(|folder| files(&root.join(folder), "rs")) {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
        names.extend(functions.map(str::to_owned));
    }
    names
}

#[test]
fn every_row_of_the_table_has_its_test() {
    let text = include_str!("../../SECURITY.md");
    let tests = tests();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 4, "{rows:?}");
    for row in rows.iter().filter(|row| !row.ends_with("| test |")) {
        let shown = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a cell").trim();
        for test in shown.split(", ").filter(|test| *test != "none can show it") {
            let name = test.trim_matches('`');
            let exists = tests.contains(name) || Path::new(env!("CARGO_MANIFEST_DIR")).join(name).is_file();
            assert!(exists, "{test} is not a test: {row}");
        }
    }
}

/// What the hook logs, `check` says, and the verdict is that of the guest without it.
#[test]
fn a_broken_override_is_ignored_and_said() {
    let folder = work_dir("security-override");
    let file = folder.join("a.xml");
    let xml = |asked: &str| {
        format!(
            "<domain type='kvm'><name>a</name><metadata><p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{asked}'/>\
             </metadata><memory unit='GiB'>4</memory><os><type machine='pc-q35-7.2'>hvm</type></os></domain>"
        )
    };
    let check = |asked: &str, arguments: &[&str]| {
        std::fs::write(&file, xml(asked)).expect("write a domain");
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(["check", "--policy", "none", "--host", "amd-epyc"]).args(arguments).arg(&file);
        let output = command.output().expect("run check");
        assert_eq!(output.status.code(), Some(0), "{asked}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let warning = check("x", &[]);
    assert!(warning.contains("a.xml: warning: its <metadata> is ignored: passthrough='x'"), "{warning}");
    for (asked, arguments) in [("assume", &[][..]), ("present", &[]), ("x", &["--quiet"])] {
        assert_eq!(check(asked, arguments), "", "{asked}");
    }
    // The others that evaluate say it as well.
    for arguments in [&["fix"][..], &["fix", "--diff"], &["map"]] {
        std::fs::write(&file, xml("x")).expect("write a domain");
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(arguments).args(["--policy", "none", "--host", "amd-epyc"]).arg(&file);
        let output = command.output().expect("run it");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(said.contains("a.xml: warning: its <metadata> is ignored: passthrough='x'"), "{arguments:?}: {said}");
    }
}
