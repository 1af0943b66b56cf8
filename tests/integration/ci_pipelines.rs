//! The pipelines of `docs/ci.md`: valid for their services, and their commands do what the page says.

use crate::common::validators::{Schema, Validators};
use crate::common::{samples, samples_folder, skip, work_dir};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pipelines by the file that their first line names.
fn pipeline(name: &str) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md")).expect("docs/ci.md");
    let start = format!("```yaml\n# {name}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no {name} in docs/ci.md"));
    rest.split_once("```").expect("the block ends").0.to_owned()
}

/// A checkout of a repository with the domains and a host profile.
fn repository(name: &str, domains: &[PathBuf]) -> PathBuf {
    let folder = work_dir(name);
    for part in ["domains", "hosts"] {
        std::fs::create_dir_all(folder.join(part)).expect("make a folder");
    }
    for domain in domains {
        std::fs::copy(domain, folder.join("domains").join(domain.file_name().expect("a file"))).expect("copy");
    }
    std::fs::copy(samples_folder().join("hosts/debian-12-epyc.toml"), folder.join("hosts/epyc.toml")).expect("copy");
    folder
}

/// Runs a script as the services do, with the program that was built in the place of the one the job installs.
fn run(folder: &Path, script: &str) -> Option<i32> {
    let program = Path::new(env!("CARGO_BIN_EXE_iova-preflight"));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", program.parent().expect("a folder").display()))
        .output()
        .expect("run bash");
    output.status.code()
}

/// One repository for each exit status: all well, findings, and a file that is not a domain beside findings.
fn repositories(name: &str) -> [(i32, PathBuf); 3] {
    let good = samples_folder().join("last-that-fits-978g.xml");
    let broken = work_dir(&format!("{name}-broken")).join("broken.xml");
    std::fs::write(&broken, "<domain>\n</domian>\n").expect("write");
    let mut all = samples();
    let findings = repository(&format!("{name}-1"), &all);
    all.push(broken);
    [(0, repository(&format!("{name}-0"), &[good])), (1, findings), (2, repository(&format!("{name}-2"), &all))]
}

/// GitHub takes the issue forms, and the one about a guest asks for what a verdict can be repeated with.
#[test]
fn issue_forms_are_valid_and_ask_for_domain_host_and_versions() {
    let Some(validators) = Validators::install() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/ISSUE_TEMPLATE");
    let forms = ["guest.yml", "other.yml"].map(|name| folder.join(name));
    validators.assert_valid(&Schema::Builtin("vendor.github-issue-forms"), &forms);
    validators.assert_valid(&Schema::Builtin("vendor.github-issue-config"), &[folder.join("config.yml")]);
    // The control.
    let text = std::fs::read_to_string(&forms[0]).expect("readable");
    let broken = work_dir("issue-form").join("guest.yml");
    std::fs::write(&broken, text.replace("type: textarea", "type: text")).expect("written");
    validators.assert_rejected(&Schema::Builtin("vendor.github-issue-forms"), &[broken]);

    let form = validators.yaml(&forms[0]);
    let asked: BTreeSet<&str> =
        form["body"].as_array().expect("parts").iter().filter_map(|p| p["id"].as_str()).collect();
    assert!(["error", "domain", "host", "versions"].iter().all(|id| asked.contains(id)), "{asked:?}");
    assert!(text.contains("`iova-preflight host`"));
}

#[test]
fn the_github_pipeline_works() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("github-pipeline");
    let path = folder.join("domains.yml");
    std::fs::write(&path, pipeline(".github/workflows/domains.yml")).expect("write");
    validators.assert_valid(&Schema::Builtin("vendor.github-workflows"), std::slice::from_ref(&path));
    let workflow = validators.yaml(&path);
    let job = &workflow["jobs"]["check"];
    assert_eq!(workflow["permissions"]["security-events"], "write", "uploading needs it");
    let steps = job["steps"].as_array().expect("steps");
    let runs: Vec<&str> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    let [install, check] = runs[..] else { panic!("{runs:?}") };
    assert!(install.starts_with("cargo install "), "{install}");
    let upload = steps.last().expect("a step");
    assert!(upload["if"].as_str().is_some_and(|condition| condition.contains("!cancelled()")), "after findings too");
    let mut logs = Vec::new();
    for (status, repository) in repositories("github") {
        assert_eq!(run(&repository, check), Some(status));
        let log = repository.join(upload["with"]["sarif_file"].as_str().expect("a file"));
        let text = std::fs::read_to_string(&log).expect("the log");
        assert_eq!(text.contains("\"uri\": \"domains/"), status > 0, "paths from the root of the repository");
        logs.push(log);
    }
    validators.assert_valid(&Schema::File(&validators.sarif_schema()), &logs);
}

#[test]
fn the_gitlab_pipeline_works() {
    let Some(validators) = Validators::install() else { return };
    if Command::new("jq").arg("--version").output().is_err() {
        return skip("jq is missing");
    }
    let path = work_dir("gitlab-pipeline").join(".gitlab-ci.yml");
    std::fs::write(&path, pipeline(".gitlab-ci.yml")).expect("write");
    validators.assert_valid(&Schema::Builtin("vendor.gitlab-ci"), std::slice::from_ref(&path));
    let job = &validators.yaml(&path)["domains"];
    let lines = job["script"].as_array().expect("a script").iter();
    let script: Vec<&str> = lines.map(|line| line.as_str().expect("a command")).collect();
    for (status, repository) in repositories("gitlab") {
        assert_eq!(run(&repository, &script.join("\n")), Some(status));
        assert!(repository.join(job["artifacts"]["paths"][0].as_str().expect("a file")).exists());
        let report = job["artifacts"]["reports"]["codequality"].as_str().expect("a file");
        let text = std::fs::read_to_string(repository.join(report)).expect("the report");
        let report: Vec<Value> = serde_json::from_str(&text).expect("a list");
        // What GitLab documents of the format: these fields, these severities, fingerprints that differ.
        let severities = ["info", "minor", "major", "critical", "blocker"];
        let mut fingerprints = BTreeSet::new();
        for issue in &report {
            assert!(issue["description"].is_string() && issue["check_name"].is_string(), "{issue}");
            assert!(severities.contains(&issue["severity"].as_str().expect("a severity")), "{issue}");
            assert!(issue["location"]["lines"]["begin"].as_u64().is_some_and(|line| line > 0), "{issue}");
            let path = issue["location"]["path"].as_str().expect("a path");
            assert!(path.starts_with("domains/") && repository.join(path).exists(), "{issue}");
            assert!(fingerprints.insert(issue["fingerprint"].to_string()), "{issue}");
        }
        assert_eq!(report.iter().any(|issue| issue["severity"] == "critical"), status > 0);
        let unreadable = report.iter().filter(|issue| issue["check_name"] == "unreadable-input").count();
        assert_eq!(unreadable, usize::from(status == 2));
    }
}

#[test]
fn invalid_pipelines_are_rejected() {
    let Some(validators) = Validators::install() else { return };
    let folder = work_dir("no-pipelines");
    for (schema, name, wrong) in [
        ("vendor.github-workflows", ".github/workflows/domains.yml", ("runs-on:", "run-on:")),
        ("vendor.gitlab-ci", ".gitlab-ci.yml", ("when: always", "when: ever")),
    ] {
        let path = folder.join(format!("{schema}.yml"));
        let text = pipeline(name);
        assert!(text.contains(wrong.0));
        std::fs::write(&path, text.replace(wrong.0, wrong.1)).expect("write");
        validators.assert_rejected(&Schema::Builtin(schema), &[path]);
    }
}
