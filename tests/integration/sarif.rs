//! `check --format sarif`: held against the official schema, against the JSON document, and its fixes against `fix`.

use crate::common::validators::{Schema, Validators};
use crate::common::{broken_inputs, command_lines, every_host, note, run_check, samples, samples_folder, work_dir};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn log(host: &Path, inputs: &[PathBuf]) -> (Option<i32>, Value) {
    let arguments = ["--format", "sarif", "--host"].map(PathBuf::from).into_iter();
    let (code, text) = run_check(arguments.chain([host.to_owned()]).chain(inputs.iter().cloned()));
    (code, serde_json::from_str(&text).expect("JSON"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn results(log: &Value) -> &[Value] {
    list(&log["runs"][0]["results"])
}

fn write(path: &Path, log: &Value) {
    std::fs::write(path, log.to_string()).expect("write the log");
}

#[test]
fn every_log_follows_the_official_schema() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("sarif");
    let mut inputs = broken_inputs(&folder);
    inputs.push("xml-samples".into());
    inputs.extend(command_lines());
    let mut logs = Vec::new();
    for (nth, host) in every_host().into_iter().enumerate() {
        let (code, log) = log(&host, &inputs);
        assert_eq!(code, Some(2), "some inputs are broken");
        logs.push(folder.join(format!("{nth}.sarif")));
        write(&logs[nth], &log);
    }
    validators.assert_valid(&Schema::File(&validators.sarif_schema()), &logs);
}

#[test]
fn a_corrupted_log_is_rejected() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("sarif-rejects");
    let mut logs = Vec::new();
    let (_, log) = log("amd-epyc".as_ref(), &["xml-samples/old-machine-1200g-gpu.xml".into()]);
    for (pointer, value) in [
        ("/version", json!("2.0.0")),
        ("/runs/0/tool", json!({})),
        ("/runs/0/columnKind", json!("bytes")),
        ("/runs/0/results/0/level", json!("fatal")),
        ("/runs/0/results/0/message", json!({})),
        ("/runs/0/results/0/locations/0/physicalLocation/region/startLine", json!(0)),
        ("/runs/0/results/0/fixes/0/artifactChanges/0/replacements", json!([])),
        ("/runs/0/invocations/0", json!({"exitCode": 1})),
    ] {
        let mut corrupted = log.clone();
        *corrupted.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        logs.push(folder.join(format!("{}.sarif", logs.len())));
        write(&logs[logs.len() - 1], &corrupted);
    }
    validators.assert_rejected(&Schema::File(&validators.sarif_schema()), &logs);
}

#[test]
fn a_log_says_what_the_json_document_says() {
    let mut inputs = broken_inputs(&work_dir("sarif-same"));
    inputs.push("xml-samples".into());
    inputs.extend(command_lines());
    for host in every_host() {
        let (code, log) = log(&host, &inputs);
        let arguments = ["--format", "json", "--host"].map(PathBuf::from).into_iter();
        let (json_code, text) = run_check(arguments.chain([host]).chain(inputs.iter().cloned()));
        assert_eq!(code, json_code);
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let mut expected = Vec::new();
        for guest in list(&document["guests"]) {
            for finding in list(&guest["findings"]) {
                let place = &finding["location"];
                expected.push((
                    finding["rule"].clone(),
                    finding["severity"].clone(),
                    place["line"].clone(),
                    place["column"].clone(),
                ));
            }
            if guest["verdict"] == "error" {
                expected.push((json!("unreadable-input"), json!("error"), json!(null), json!(null)));
            }
        }
        let said: Vec<_> = results(&log)
            .iter()
            .map(|result| {
                let rule = &log["runs"][0]["tool"]["driver"]["rules"]
                    [result["ruleIndex"].as_u64().expect("an index") as usize];
                assert_eq!(rule["id"], result["ruleId"]);
                let region = &result["locations"][0]["physicalLocation"]["region"];
                let unreadable = result["ruleId"] == "unreadable-input";
                let place = |field: &str| if unreadable { json!(null) } else { region[field].clone() };
                (result["ruleId"].clone(), result["level"].clone(), place("startLine"), place("startColumn"))
            })
            .collect();
        assert_eq!(said, expected);
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!((&invocation["exitCode"], &invocation["executionSuccessful"]), (&json!(2), &json!(false)));
    }
}

#[test]
fn the_exit_status_is_that_of_check() {
    for (sample, status) in [("last-that-fits-978g.xml", 0), ("old-machine-1200g-gpu.xml", 1)] {
        let (code, log) = log("amd-epyc".as_ref(), &[format!("xml-samples/{sample}").into()]);
        assert_eq!(code, Some(status), "{sample}");
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!((&invocation["exitCode"], &invocation["executionSuccessful"]), (&json!(status), &json!(true)));
    }
}

#[test]
fn an_input_that_cannot_be_evaluated_is_a_result_at_its_place() {
    let folder = work_dir("sarif-unreadable");
    let inputs = broken_inputs(&folder);
    let (_, log) = log("amd-epyc".as_ref(), &inputs);
    let at = |name: &str| {
        let found = results(&log).iter().find(|result| {
            let uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().expect("a URI");
            path_of(uri).file_name().is_some_and(|file| file.to_string_lossy() == name)
        });
        found.unwrap_or_else(|| panic!("no result for {name}"))["locations"][0]["physicalLocation"]["region"].clone()
    };
    assert_eq!(at("not-xml.xml")["startLine"], 2);
    assert_eq!(at("not-utf-8.xml")["startColumn"], 9);
    assert_eq!(at("no-number.xml")["startLine"], 2);
    assert!(at("missing.xml").is_null());
    assert_eq!(results(&log).len(), inputs.len());
    assert_eq!(list(&log["runs"][0]["invocations"][0]["toolExecutionNotifications"]).len(), inputs.len());
}

/// The file that a URI of a log names, seen from the project's folder.
fn path_of(uri: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = uri.strip_prefix("file://").unwrap_or(uri).bytes();
    while let Some(byte) = rest.next() {
        assert!(byte.is_ascii_graphic(), "{uri} is not a URI");
        bytes.push(match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            _ => byte,
        });
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join(String::from_utf8(bytes).expect("UTF-8"))
}

/// The text with the one fix of a result made, by nothing but lines and columns as SARIF counts them.
fn applied(text: &str, fix: &Value) -> String {
    let (mark, text) = text.strip_prefix('\u{feff}').map_or(("", text), |rest| ("\u{feff}", rest));
    let lines: Vec<Vec<char>> = text.split_inclusive('\n').map(|line| line.chars().collect()).chain([vec![]]).collect();
    let offset = |region: &Value, line: &str, column: &str| {
        let number = |field: &str| region[field].as_u64().expect("a number") as usize;
        let before: usize = lines[..number(line) - 1].iter().map(Vec::len).sum();
        assert!(number(column) <= lines[number(line) - 1].len() + 1, "a column outside its line");
        before + number(column) - 1
    };
    let changes = list(&fix["artifactChanges"]);
    assert_eq!(changes.len(), 1);
    let mut replacements: Vec<(usize, usize, &str)> = list(&changes[0]["replacements"])
        .iter()
        .map(|replacement| {
            let region = &replacement["deletedRegion"];
            let inserted = replacement["insertedContent"]["text"].as_str().unwrap_or_default();
            (offset(region, "startLine", "startColumn"), offset(region, "endLine", "endColumn"), inserted)
        })
        .collect();
    // In any order: here from the end, so that what is before stays where it is.
    replacements.sort_unstable();
    let mut text: Vec<char> = text.chars().collect();
    for pair in replacements.windows(2) {
        assert!(pair[0].1 < pair[1].0, "replacements that touch: {pair:?}");
    }
    for (start, end, inserted) in replacements.into_iter().rev() {
        text.splice(start..end, inserted.chars());
    }
    mark.chars().chain(text).collect()
}

fn fixed(host: &Path, text: &str, options: &[&str]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["fix", "--policy", "none", "-", "--host"])
        .arg(host)
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run iova-preflight");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write the domain");
    String::from_utf8(child.wait_with_output().expect("runs").stdout).expect("UTF-8")
}

/// The sample, and the same domain as other editors and systems write it.
fn variants(sample: &str) -> [(&'static str, String); 5] {
    let strange = "<!-- größer 𝔊 e\u{301} \u{feff} -->";
    let commented = sample
        .replace("<maxphysaddr", &format!("{strange}<maxphysaddr"))
        .replace("<type ", &format!("{strange}<type "));
    let mut one_line = String::new();
    for line in sample.split_once("-->").expect("a comment").1.lines() {
        let _ = write!(one_line, "{}", line.trim_start());
    }
    [
        ("as it is", sample.to_owned()),
        ("CRLF", sample.replace('\n', "\r\n")),
        ("byte order mark", format!("\u{feff}{commented}")),
        ("not ASCII", commented),
        ("one line", format!("{strange}{one_line}")),
    ]
}

#[test]
fn the_fixes_in_a_log_are_those_of_fix() {
    let folder = work_dir("sarif-fixes");
    for sample in samples() {
        let text = std::fs::read_to_string(&sample).expect("read a sample");
        for (variant, text) in variants(&text) {
            let folder = folder.join(variant);
            std::fs::create_dir_all(&folder).expect("make a folder");
            std::fs::write(folder.join(sample.file_name().expect("a name")), text).expect("write a domain");
        }
    }
    let cmdline = folder.join("cmdline");
    std::fs::write(&cmdline, b"qemu-system-x86_64\0-name\0d\xc3\xa4b\0-m\x001100G\0-M\0q35\0")
        .expect("write a command line");
    // Of a log, `fix` prints the last start alone.
    let lines = command_lines().into_iter().filter(|path| path.extension().is_none_or(|extension| extension != "log"));
    let inputs: Vec<PathBuf> = [folder, cmdline].into_iter().chain(lines).collect();
    let mut made = BTreeMap::new();
    for host in every_host() {
        let (_, log) = log(&host, &inputs);
        for result in results(&log) {
            for fix in list(&result["fixes"]) {
                let about_bars = result["ruleId"].as_str().is_some_and(|rule| rule.starts_with("bar-"));
                let is_error = result["level"] == "error";
                assert!(is_error || about_bars, "only what stops a guest is fixed, or hides a BAR: {result}");
                let options: &[&str] = if is_error { &[] } else { &["--warnings"] };
                let uri = &fix["artifactChanges"][0]["artifactLocation"]["uri"];
                let path = path_of(uri.as_str().expect("a URI"));
                let text = std::fs::read_to_string(&path).expect("the domain that is meant");
                assert!(applied(&text, fix) == fixed(&host, &text, options), "{} {}", path.display(), host.display());
                let variant = path.parent().and_then(Path::file_name).expect("a folder").to_owned();
                *made.entry(variant).or_insert(0) += 1;
            }
        }
    }
    note(&format!("fixes applied: {made:?}"));
    // Five forms of every domain, and two folders with command lines.
    assert_eq!(made.values().filter(|&&count| count > 20).count(), 5, "{made:?}");
    assert_eq!(made.len(), 7, "{made:?}");
}

#[test]
fn regions_are_where_the_text_is() {
    let (_, log) = log("amd-epyc".as_ref(), &["./xml-samples/old-machine-1200g-gpu.xml".into()]);
    let result = &results(&log)[0];
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "xml-samples/old-machine-1200g-gpu.xml");
    let shown = |location: &Value| {
        let region = &location["physicalLocation"]["region"];
        let number = |field: &str| region[field].as_u64().expect("a number") as usize;
        let text = std::fs::read_to_string(samples_folder().join("old-machine-1200g-gpu.xml")).expect("the sample");
        assert_eq!(number("startLine"), number("endLine"));
        let line = text.lines().nth(number("startLine") - 1).expect("a line").to_owned();
        line[number("startColumn") - 1..number("endColumn") - 1].to_owned()
    };
    assert_eq!(shown(&result["locations"][0]), "1200");
    let related: Vec<String> = list(&result["relatedLocations"]).iter().map(shown).collect();
    assert_eq!(related, ["pc-q35-6.2", "<hostdev mode='subsystem' type='pci' managed='yes'>"]);
    let said = result["message"]["text"].as_str().expect("a text");
    assert!(said.ends_with("\nFix: machine pc-q35-6.2 → pc-q35-7.1"), "{said}");
}
