//! `check --connect` with libvirts that answer and that fail. `tests/hook_e2e/connect.rs` has one that hangs.

use serde_json::Value;

use std::process::Command;

use crate::common::{run_check, work_dir};

/// What is said of each guest, and the exit status.
fn verdicts(uris: &[&str]) -> (Vec<(String, String)>, Option<i32>) {
    let options = ["--format", "json"];
    let (status, text) = run_check(options.into_iter().chain(uris.iter().flat_map(|uri| ["--connect", uri])));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let guests = document["guests"].as_array().expect("guests");
    for guest in guests.iter().filter(|guest| guest["verdict"] == "error") {
        assert!(!text(&guest["error"]).is_empty(), "{guest}");
    }
    (guests.iter().map(|guest| (text(&guest["source"]), text(&guest["verdict"]))).collect(), status)
}

fn expected(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|&(source, verdict)| (source.to_owned(), verdict.to_owned())).collect()
}

const GOOD: &str = "test:///default";
const NO_FILE: &str = "test:///no/such/file.xml";
const NO_DRIVER: &str = "nonsense:///system";

#[test]
fn a_libvirt_that_fails_is_told_in_its_place() {
    let of_good = [("test:///default test", "not-applicable"), ("test:///default test, running", "not-applicable")];
    assert_eq!(verdicts(&[GOOD]), (expected(&of_good), Some(0)));
    let mut all = vec![(NO_FILE, "error"), (NO_DRIVER, "error")];
    assert_eq!(verdicts(&[NO_FILE, NO_DRIVER]), (expected(&all), Some(2)), "nobody answers");
    all.extend(of_good);
    all.push((NO_FILE, "error"));
    all.extend(of_good);
    assert_eq!(verdicts(&[NO_FILE, NO_DRIVER, GOOD, NO_FILE, GOOD]), (expected(&all), Some(2)));
}

#[test]
fn a_libvirt_without_domains_is_named() {
    let node = work_dir("connect-empty").join("node.xml");
    std::fs::write(&node, "<node/>").expect("written");
    let empty = format!("test://{}", node.display());
    let run = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        let output =
            command.args(["check", "--policy", "none", "--connect", &empty]).args(options).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let said = format!("no domain in {empty}\n");
    assert_eq!(run(&[]), (Some(0), said.clone()));
    assert_eq!(run(&["--format", "json"]), (Some(0), said.clone()));
    assert_eq!(run(&["--connect", GOOD]), (Some(0), said));
    assert_eq!(run(&["-q"]), (Some(0), String::new()));
}
