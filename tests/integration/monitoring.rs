//! The metrics in `docs/monitoring.md`, its script and its alert rules.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iova_preflight::decision::{BrokenPolicy, HookOutcome, Operation, Outside, XmlProblem, run};
use iova_preflight::domain::{Domain, TooLong};
use iova_preflight::host::{Host, builtin};
use iova_preflight::policy::{OnInternalError, Policy};
use iova_preflight::report::metrics::{Tally, WatchMetrics};

use crate::common::guest::Guest;
use crate::common::validators::{Validators, promtool};
use crate::common::work_dir;

const PAGE: &str = include_str!("../../docs/monitoring.md");

/// The only block of this kind.
fn block(kind: &str) -> &'static str {
    let begin = format!("```{kind}\n");
    let mut parts = PAGE.split(&begin);
    let (_, Some(after), None) = (parts.next(), parts.next(), parts.next()) else { panic!("{kind}: not one block") };
    after.split("```").next().expect("its end")
}

/// Names of metrics, or of what begins like one.
fn names(text: &str) -> BTreeSet<&str> {
    let is_other = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(is_other).filter(|word| word.starts_with("iova_preflight_")).collect()
}

fn metrics() -> String {
    let tally = Tally::default();
    let last_evaluation = Some(Duration::from_secs(1_790_000_000));
    WatchMetrics { uri: "qemu:///system?a=\"\\", is_connected: true, tally: &tally, redefinitions: 0, last_evaluation }
        .to_text()
}

/// What the hook is told of a guest that it stops.
struct Stopped;

impl Outside for Stopped {
    fn policy(&mut self) -> Result<Policy, BrokenPolicy> {
        Ok(Policy::default())
    }

    fn on_internal_error(&mut self, _: OnInternalError) {}

    fn xml(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), TooLong>) -> Result<(), XmlProblem> {
        Ok(take(Guest::huge("a", "pc-q35-6.2").with_hostdev().xml().as_bytes())?)
    }

    fn host(&mut self, _: &Domain) -> Host {
        builtin("amd-epyc").expect("built in")
    }
}

/// Runs the script where `journalctl` prints these lines, or fails.
fn counted(folder: &Path, lines: Option<&[String]>) -> (bool, String) {
    std::fs::write(folder.join("script"), block("sh")).expect("written");
    std::fs::write(folder.join("lines"), lines.unwrap_or_default().join("\n")).expect("written");
    let journal = if lines.is_some() { "#!/bin/sh\ncat \"${0%/*}/lines\"\n" } else { "#!/bin/sh\nexit 1\n" };
    std::fs::write(folder.join("journalctl"), journal).expect("written");
    std::fs::set_permissions(folder.join("journalctl"), PermissionsExt::from_mode(0o755)).expect("executable");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("PATH"));
    let status = Command::new("sh").arg("script").arg(folder).current_dir(folder).env("PATH", path).status();
    let text = std::fs::read_to_string(folder.join("iova-preflight-hook.prom")).unwrap_or_default();
    (status.expect("run sh").success(), text)
}

#[test]
fn the_script_counts_what_the_hook_logs() {
    let folder = work_dir("monitoring-script");
    let internal = |choice| HookOutcome::of_failure("a", "the policy is malformed", choice);
    let outcomes = [
        run(Operation::Prepare, "a", &mut Stopped),
        internal(OnInternalError::Allow),
        internal(OnInternalError::Allow),
        // A name cannot make one of the other.
        HookOutcome::of_failure(
            "is stopped (on_internal_error)",
            "stopped: the program panicked",
            OnInternalError::Allow,
        ),
        internal(OnInternalError::Block),
    ];
    let lines: Vec<String> = outcomes.into_iter().flat_map(|outcome| outcome.log).map(|(_, line)| line).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let sample = |outcome, count| format!("iova_preflight_hook_recent_decisions{{outcome=\"{outcome}\"}} {count}\n");
    let (succeeded, before) = counted(&folder, Some(&lines));
    assert!(succeeded && before.ends_with(&(sample("refused", 2) + &sample("unchecked", 3))), "{before}");
    let file = folder.join("iova-preflight-hook.prom");
    assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o7777, 0o644);
    if let Some(validators) = Validators::install() {
        validators.assert_metrics(&file);
    }
    // Nothing was logged; the journal cannot be read.
    let (succeeded, none) = counted(&folder, Some(&[]));
    assert!(succeeded && none.ends_with(&(sample("refused", 0) + &sample("unchecked", 0))), "{none}");
    assert_eq!(counted(&folder, None), (false, none));
    let hidden = |entry: &PathBuf| entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let left = std::fs::read_dir(&folder).expect("listed").flatten().map(|entry| entry.path()).find(hidden);
    assert_eq!(left, None);
}

/// The node exporter would skip it silently.
#[test]
fn a_file_that_the_node_exporter_does_not_read_is_a_mistake() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    let output = command.args(["watch", "--metrics", "/var/lib/metrics.txt"]).output().expect("run it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("names end in .prom"), "{said}");
}

#[test]
fn the_page_names_every_metric() {
    let table: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| `iova_preflight_")).collect();
    let text = metrics();
    let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(table.len(), types.len());
    for (row, kind) in table.iter().zip(types) {
        let (name, kind) = kind.split_once(' ').expect("a name and a type");
        assert!(names(row).contains(name) && row.contains(&format!(" | {kind} | ")), "{name}: {row}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for label in ["verdict", "reason"] {
            let Some((_, value)) = line.split_once(&format!("{label}=\"")) else { continue };
            let value = value.split('"').next().expect("its end");
            assert!(PAGE.contains(&format!("`{value}`")), "{label} {value}");
        }
    }
}

#[test]
fn the_alert_rules_are_rules_about_our_metrics() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("monitoring-rules");
    let file = folder.join("iova-preflight.rules.yml");
    std::fs::write(&file, block("yaml")).expect("written");
    promtool(Command::new("promtool").args(["check", "rules"]).arg(&file));
    let metrics = metrics();
    let mut known = names(&metrics);
    known.extend(names(block("sh")));
    let rules = validators.yaml(&file);
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() >= 4);
    for rule in rules {
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let used = text(&rule["expr"]);
        assert!(!names(&used).is_empty() && names(&used).is_subset(&known), "{used}");
        for value in [&rule["alert"], &rule["labels"]["severity"], &rule["annotations"]["summary"]] {
            assert!(!text(value).is_empty(), "{rule}");
        }
    }
    let file = folder.join("iova-preflight.prom");
    std::fs::write(&file, &metrics).expect("written");
    validators.assert_metrics(&file);
}
