//! Random domains that can be fixed: rewritten by us, then started by the real libvirt and the
//! real QEMU, which have to build the layout that we predict, outside the reserved range.

use super::draw::Rng;
use super::generate::{self, Inventory};
use super::oracle::Oracle;
use super::{
    ALONE, Answer, CASES, Overcommit, SEED, ask_all, compare, host_profile, inside_reserved, inventory, number, skip,
    tree, version,
};
use crate::common::{Differences, evaluated, note, work_dir};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Domains drawn at a time, and how often at most before the generator counts as broken.
const BATCH: u64 = 250;
const MOST_BATCHES: u64 = 200;

#[test]
fn random_domains_start_when_fixed() {
    start_fixed("machine");
}

#[test]
fn random_domains_start_on_debian_sid_when_fixed() {
    start_fixed("sid");
}

fn start_fixed(stack: &str) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let work = work_dir(&format!("differential-fixes-{stack}"));
    let oracle = match tree(stack).and_then(|tree| Oracle::start(&tree, &work)) {
        Ok(oracle) => oracle,
        Err(why) => return skip(&format!("no real libvirt and QEMU of {stack} to start fixed domains with: {why}")),
    };
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => return skip(&format!("guests larger than this machine cannot be started: {why}")),
    };
    let seed = number("IOVA_DIFF_SEED", SEED);
    // Fewer than random domains, as each of them counts: 60 where that test has 200.
    let wanted = (number("IOVA_DIFF_CASES", CASES as u64) * 3).div_ceil(10);
    let tool = Tool::new(&work, &oracle);
    let files = fixable(&tool, &oracle, seed, usize::try_from(wanted).expect("a count fits"));

    let mut diffs = rewrite(&tool, &files);
    let guests = tool.check(&files);
    let answers = ask_all(&oracle, &files);
    let mut rest = compare(&files, &answers, &guests, seed, &oracle);
    diffs.compared += rest.compared;
    diffs.found.append(&mut rest.found);
    let mut started = 0;
    for (file, answer) in files.iter().zip(&answers) {
        let case = file_name(file);
        let guest = &guests[&case];
        let startable = guest["verdict"] == "pass" || guest["verdict"] == "warn";
        diffs.expect((&case, "fixed"), "verdict", startable, "pass or warn", &guest["verdict"].to_string());
        match answer {
            Answer::Built { qemu, .. } if qemu["starts"] == true => {
                started += 1;
                let inside = inside_reserved(qemu);
                diffs.expect((&case, "fixed"), "reserved range", inside.is_empty(), "nothing in it", &inside);
            }
            Answer::Built { qemu, .. } => note(&format!("fixes: {case} is not started: {qemu}")),
            Answer::LibvirtRejects(why) => note(&format!("fixes: {case} is rejected: {why}")),
        }
    }
    note(&format!("fixes: seed {seed}, {started} of {} fixed domains were started", files.len()));
    diffs.assert_none(&format!(
        "differences after fixing from libvirt {} and QEMU {}, seed {seed}; fixed domains are in {}",
        oracle.libvirt_version,
        oracle.qemu_version,
        tool.work.display()
    ));
    assert!(started > 0, "not one fixed domain was started");
}

/// The program with this machine as its host, but for a reserved range whatever the CPU is.
struct Tool {
    work: PathBuf,
    profile: PathBuf,
    policy: PathBuf,
}

impl Tool {
    fn new(work: &Path, oracle: &Oracle) -> Self {
        let (profile, policy) = (work.join("host.toml"), work.join("policy.toml"));
        std::fs::write(&profile, host_profile(oracle, true)).expect("write the host profile");
        std::fs::write(&policy, "passthrough = \"assume\"\n").expect("write the policy");
        Tool { work: work.to_owned(), profile, policy }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(arguments).arg("--host").arg(&self.profile).arg("--policy").arg(&self.policy);
        command
    }

    /// What `check` says about each file, by its name.
    fn check(&self, files: &[PathBuf]) -> BTreeMap<String, Value> {
        evaluated(self.command(&["check", "--format", "json"]).args(files))
    }

    /// `fix -` of a file.
    fn fix(&self, file: &Path) -> Output {
        let input = std::fs::File::open(file).expect("open a domain");
        self.command(&["fix", "-q", "-"]).stdin(Stdio::from(input)).output().expect("run iova-preflight")
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a case is a file").to_string_lossy().into_owned()
}

/// Draws domains with old machine types until as many as wanted are fixable.
fn fixable(tool: &Tool, oracle: &Oracle, seed: u64, wanted: usize) -> Vec<PathBuf> {
    let mut old = oracle.machines.clone();
    // Those that have what newer ones add.
    old.retain(|machine| version(machine).is_some_and(|version| version <= (8, 0)));
    let inventory = Inventory { machines: old, ..inventory(oracle) };
    let (mut found, mut drawn) = (Vec::new(), BTreeMap::<String, usize>::new());
    let mut kinds = BTreeMap::<String, usize>::new();
    for batch in 0..MOST_BATCHES {
        let draw = |case| {
            // Not the domains of the other test.
            let (name, mut rng) = (format!("f{case:05}"), Rng::of_case(!seed, case));
            let path = tool.work.join(format!("{name}.xml"));
            std::fs::write(&path, generate::domain(&mut rng, &inventory, &name).0).expect("write a domain");
            path
        };
        let files: Vec<PathBuf> = (batch * BATCH..(batch + 1) * BATCH).map(draw).collect();
        let guests = tool.check(&files);
        for file in files {
            let guest = &guests[&file_name(&file)];
            let verdict = guest["verdict"].as_str().unwrap_or("none");
            *drawn.entry(verdict.to_owned()).or_default() += 1;
            if verdict == "fixable" && found.len() < wanted {
                *kinds.entry(kind(guest)).or_default() += 1;
                found.push(file);
            } else {
                std::fs::remove_file(&file).expect("remove a domain");
            }
        }
        if found.len() == wanted {
            break;
        }
    }
    note(&format!("fixes: seed {seed}, drawn for {wanted} fixable domains: {drawn:?}, to change {kinds:?}"));
    assert_eq!(found.len(), wanted, "too few of the domains drawn are fixable");
    found
}

/// Which things a fix changes.
fn kind(guest: &Value) -> String {
    let changes = guest["fix"]["changes"].as_array().into_iter().flatten();
    let mut first: Vec<&str> = changes.filter_map(|change| change.as_str()?.split(' ').next()).collect();
    first.dedup();
    first.join("+")
}

/// Rewrites all the files in place; `fix -` has to agree, and a second run to change nothing.
fn rewrite(tool: &Tool, files: &[PathBuf]) -> Differences {
    let mut diffs = Differences::default();
    let read = |file: &PathBuf| std::fs::read(file).expect("read a domain");
    let before: Vec<Vec<u8>> = files.iter().map(read).collect();
    let printed: Vec<Output> = files.iter().map(|file| tool.fix(file)).collect();
    let in_place = || tool.command(&["fix", "-q", "--in-place"]).args(files).output().expect("run iova-preflight");
    let first = in_place();
    let after: Vec<Vec<u8>> = files.iter().map(read).collect();
    let second = in_place();
    for ((file, printed), (before, after)) in files.iter().zip(&printed).zip(before.iter().zip(&after)) {
        let case = file_name(file);
        std::fs::write(file.with_extension("before"), before).expect("keep the domain as it was");
        let status = printed.status.to_string();
        diffs.expect((&case, "fix"), "fix - exits with 0", printed.status.success(), "success", &status);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let same = printed.stdout == *after;
        diffs.expect((&case, "fix"), "fix - and --in-place", same, &text(&printed.stdout), &text(after));
        diffs.expect((&case, "fix"), "rewritten", before != after, "another text", "the same text");
        diffs.expect((&case, "fix"), "second run", read(file) == *after, &text(after), &text(&read(file)));
    }
    for run in [&first, &second] {
        let stderr = String::from_utf8_lossy(&run.stderr);
        diffs.expect(
            ("all", "fix"),
            "--in-place",
            run.status.success(),
            "success",
            &format!("{} {stderr}", run.status),
        );
    }
    diffs
}
