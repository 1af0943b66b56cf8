//! The JSON schema of `check --format json`, and the documents held against it by a validator that is not ours.

use crate::common::validators::{Schema, Validators};
use crate::common::{broken_inputs, command_lines, every_host, generated, run_check, work_dir};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let mut text = serde_json::to_string_pretty(&iova_preflight::report::json::schema()).expect("JSON");
    text.push('\n');
    generated("docs/check.schema.json", &text);
}

/// The committed schema, but closed: no key is allowed that it does not name.
fn strict(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(committed()).expect("the schema");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    let closed = json!(false);
    // Details are a part of a guest, which sees all keys.
    let objects = schema["$defs"].as_object_mut().expect("definitions").iter_mut();
    objects.filter(|(name, definition)| *name != "Details" && definition["type"] == "object").for_each(
        |(_, definition)| {
            definition["unevaluatedProperties"] = closed.clone();
        },
    );
    schema["unevaluatedProperties"] = closed;
    let path = folder.join("strict.json");
    std::fs::write(&path, schema.to_string()).expect("write the closed schema");
    path
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.schema.json")
}

#[test]
fn every_document_follows_the_schema() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("schema");
    let strict = strict(&folder);
    let mut inputs = broken_inputs(&folder);
    inputs.push("xml-samples".into());
    inputs.extend(command_lines());
    let mut documents = Vec::new();
    let mut verdicts = BTreeSet::new();
    for (nth, host) in every_host().into_iter().enumerate() {
        let arguments = ["--format".into(), "json".into(), "--host".into(), host];
        let (code, text) = run_check(arguments.into_iter().chain(inputs.iter().cloned()));
        assert_eq!(code, Some(2), "some inputs are broken");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let guests = document["guests"].as_array().expect("guests").iter();
        verdicts.extend(guests.map(|guest| guest["verdict"].as_str().expect("a verdict").to_owned()));
        let path = folder.join(format!("{nth}.json"));
        std::fs::write(&path, text).expect("write the document");
        documents.push(path);
    }
    assert_eq!(verdicts.len(), 6, "every verdict occurs: {verdicts:?}");
    for schema in [committed(), strict] {
        validators.assert_valid(&Schema::File(&schema), &documents);
    }
}

#[test]
fn what_does_not_follow_the_schema_is_rejected() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("schema-rejects");
    let (_, text) = run_check(["--format", "json", "--host", "amd-epyc", "xml-samples/old-machine-1200g-gpu.xml"]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let mut written = 0;
    let mut write = |document: &Value| {
        written += 1;
        let path = folder.join(format!("{written}.json"));
        std::fs::write(&path, document.to_string()).expect("write a document");
        path
    };
    let (open, closed) = (committed(), strict(&folder));
    let (open, closed) = (Schema::File(&open), Schema::File(&closed));
    let mut corrupted = Vec::new();
    for (pointer, value) in [
        ("/version", json!(2)),
        ("/guests/0/verdict", json!("perhaps")),
        ("/guests/0/verdict", json!("error")),
        ("/guests/0/findings/0/severity", json!("fatal")),
        ("/guests/0/findings/0/rule", json!("No Rule")),
        ("/guests/0/findings/0/location", json!(null)),
        ("/guests/0/findings/0/location/line", json!(0)),
        ("/guests/0/layout/max_gpa", json!("0x1000")),
        ("/guests/0/layout/ram_below_4g", json!({"start": 0})),
        ("/guests/0/machine/family", json!("virt")),
        ("/guests/0/fix/changes", json!("machine")),
        ("/host/reserved/0/type", json!("other")),
        ("/guests/0/memory", json!({})),
    ] {
        let mut document = document.clone();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        corrupted.push(write(&document));
    }
    validators.assert_rejected(&open, &corrupted);
    let mut more = vec![write(&document)];
    validators.assert_valid(&closed, &more);
    more.clear();
    for pointer in ["", "/host", "/guests/0", "/guests/0/layout", "/guests/0/findings/0", "/guests/0/fix"] {
        let mut document = document.clone();
        document.pointer_mut(pointer).expect("an object")["another"] = json!(1);
        more.push(write(&document));
    }
    validators.assert_valid(&open, &more);
    validators.assert_rejected(&closed, &more);
}
