//! `SECURITY.md` says what lets a guest go, and which test shows it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
