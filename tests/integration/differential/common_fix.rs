//! Guests that do not start on each of three hosts: rewritten once for all of them, and then started on the libvirt and QEMU
//! of each. Where a host is said to be in the way, what helps elsewhere fails there.

use super::draw::Rng;
use super::generate::{self, Inventory};
use super::oracle::Oracle;
use super::{
    ALONE, Answer, OUTSIDE, Overcommit, SEED, ask_each, compare_one, host_profile, inside_reserved, inventory, number,
    skip, tree, version,
};
use crate::common::{Differences, note, samples_folder, work_dir};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The hosts, with whether their IOMMU reserves the HyperTransport range.
const HOSTS: [(&str, bool); 3] = [("machine", true), ("trixie", false), ("sid", true)];

/// Domains drawn at a time, and how often at most before the generator counts as broken.
const BATCH: u64 = 300;
const MOST_BATCHES: u64 = 20;

/// How many drawn domains are wanted that one rewrite helps, and for which a host is in the way.
const FIXED: usize = 6;
const IN_THE_WAY: usize = 4;

/// Samples that differ between these hosts: of the first four, one rewrite helps.
const SAMPLES: [&str; 7] = [
    "old-machine-1200g-gpu",
    "old-machine-1200g-no-device",
    "fixed-dimm-address-in-the-hole",
    "vgpu-mdev-1200g",
    "hotplug-without-numa",
    "hygon-vendor-id",
    "intel-model-under-tcg",
];

/// A host: its programs, and how it is described.
struct Host {
    name: &'static str,
    /// Whether its IOMMU reserves the HyperTransport range.
    reserves: bool,
    oracle: Oracle,
    profile: PathBuf,
}

/// The program with all hosts or some of them.
struct Tool {
    policy: PathBuf,
}

impl Tool {
    fn run<'h>(&self, arguments: &[&str], hosts: impl IntoIterator<Item = &'h Host>, files: &[PathBuf]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(arguments).arg("--policy").arg(&self.policy);
        hosts.into_iter().for_each(|host| _ = command.arg("--host").arg(&host.profile));
        command.args(files).output().expect("run iova-preflight")
    }

    /// What `check` says of each file on each host, by the names of both.
    fn check(&self, hosts: &[Host], files: &[PathBuf]) -> BTreeMap<(String, String), Value> {
        let output = self.run(&["check", "--format", "json"], hosts, files);
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}", String::from_utf8_lossy(&output.stderr)));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        // What cannot be read is of no host.
        let guests = document["guests"].as_array().expect("guests").iter().filter(|guest| guest["verdict"] != "error");
        guests
            .map(|guest| ((file_name(Path::new(&text(&guest["source"]))), text(&guest["host"])), guest.clone()))
            .collect()
    }

    /// Rewrites what can be rewritten, and gives what is said of the others.
    fn fix<'h>(&self, hosts: impl IntoIterator<Item = &'h Host>, files: &[PathBuf]) -> BTreeMap<String, BTreeSet<Way>> {
        let output = self.run(&["fix", "--in-place"], hosts, files);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        let mut blocked = BTreeMap::<String, BTreeSet<Way>>::new();
        let mut file = None;
        for line in said.lines() {
            if let Some(path) = line.strip_suffix(": no automatic fix") {
                file = Some(file_name(Path::new(path)));
            } else if let Some((names, reason)) = line.strip_prefix("  on ").and_then(|line| line.split_once(": ")) {
                let helps_on = reason.split_once(", which helps on ").and_then(|(_, rest)| rest.split(',').next());
                let ways = names.split(", ").map(|host| (host.to_owned(), helps_on.map(str::to_owned)));
                blocked.entry(file.clone().expect("below a file")).or_default().extend(ways);
            } else if !line.starts_with("  ") {
                file = None;
            }
        }
        blocked
    }
}

/// A host that is in the way, and the other one whose rewrite is not enough there; without that, no rewrite is.
type Way = (String, Option<String>);

fn file_name(path: &Path) -> String {
    path.file_name().expect("a case is a file").to_string_lossy().into_owned()
}

/// What came of a start.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Outside the reserved range, or on a host that reserves nothing.
    Runs,
    /// Refused, or inside the reserved range; with the reason.
    Fails(String),
    /// Not a question of the domain.
    Unasked(String),
}

fn outcome(answer: &Answer, reserves: bool) -> Outcome {
    let outside = |text: &str| OUTSIDE.iter().any(|part| text.contains(part));
    match answer {
        Answer::LibvirtRejects(why) if outside(why) => Outcome::Unasked(why.clone()),
        Answer::LibvirtRejects(why) => Outcome::Fails(why.clone()),
        Answer::Built { qemu, .. } => {
            let error = qemu["error"].as_str().unwrap_or_default();
            let inside = inside_reserved(qemu);
            match () {
                () if outside(error) || !qemu["not_asked"].is_null() => Outcome::Unasked(qemu.to_string()),
                () if qemu["starts"] != true => Outcome::Fails(qemu.to_string()),
                () if reserves && !inside.is_empty() => Outcome::Fails(inside),
                () => Outcome::Runs,
            }
        }
    }
}

#[test]
fn one_rewrite_starts_on_every_host() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let work = work_dir("differential-common-fix");
    let hosts = match start(&work) {
        Ok(hosts) => hosts,
        Err(why) => return skip(&format!("no three real stacks to start rewritten domains on: {why}")),
    };
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => return skip(&format!("guests larger than this machine cannot be started: {why}")),
    };
    // Every domain counts as one with a passthrough device: the real ones have none.
    let tool = Tool { policy: work.join("policy.toml") };
    std::fs::write(&tool.policy, "passthrough = \"assume\"\n").expect("write the policy");
    let seed = number("IOVA_DIFF_SEED", SEED);
    let cases = draw(&tool, &hosts, &work, seed);
    let answers = ask_all(&hosts, &cases);

    let rewritten: Vec<PathBuf> =
        cases.iter().filter(|case| case.way.is_empty()).map(|case| case.file.clone()).collect();
    let guests = tool.check(&hosts, &rewritten);
    let mut diffs = Differences::default();
    let mut counts = BTreeMap::<String, usize>::new();
    for ((case, wanted, host), answer) in &answers {
        let (case, host) = (&cases[*case], &hosts[*host]);
        let at = (case.name.as_str(), host.name);
        let outcome = outcome(answer, host.reserves);
        let holds = match (&outcome, wanted) {
            (Outcome::Unasked(why), _) => {
                note(&format!("common fix: {} on {}: {why}", case.name, host.name));
                continue;
            }
            (Outcome::Runs, Wanted::Rewritten | Wanted::HelpedHere) => true,
            (Outcome::Fails(_), Wanted::Before | Wanted::HelpedElsewhere) => true,
            _ => false,
        };
        *counts.entry(format!("{wanted:?} {}", host.name)).or_default() += 1;
        diffs.expect(at, "start", holds, &format!("{wanted:?}, case {case:?}"), &format!("{outcome:?}"));
        if let (Wanted::Rewritten, Some(guest)) = (wanted, guests.get(&(file_name(&case.file), host.name.to_owned()))) {
            compare_one(&mut diffs, at, answer, guest);
        }
    }
    let fixed = rewritten.len();
    let versions: Vec<String> =
        hosts.iter().map(|host| format!("{}/{}", host.oracle.libvirt_version, host.oracle.qemu_version)).collect();
    note(&format!(
        "common fix: seed {seed}, libvirt/QEMU {versions:?}: {fixed} domains rewritten, {} with a host in the way, {} starts: \
         {counts:?}; {} facts compared",
        cases.len() - fixed,
        answers.len(),
        diffs.compared
    ));
    diffs.assert_none(&format!("one rewrite for all, seed {seed}; the domains are in {}", work.display()));
    for host in &hosts {
        let started = counts.get(&format!("{:?} {}", Wanted::Rewritten, host.name)).copied().unwrap_or_default();
        assert!(started * 3 > fixed * 2, "{started} of {fixed} started on {}", host.name);
    }
}

/// The stacks, started at once.
fn start(work: &Path) -> Result<Vec<Host>, String> {
    let one = |(name, reserves): (&'static str, bool)| -> Result<Host, String> {
        let oracle = tree(name).and_then(|tree| Oracle::start(&tree, work)).map_err(|why| format!("{name}: {why}"))?;
        let profile = work.join(format!("{name}.toml"));
        let text = format!("[host]\nname = {name:?}\n{}", host_profile(&oracle, reserves));
        std::fs::write(&profile, text).expect("write the host profile");
        Ok(Host { name, reserves, oracle, profile })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = HOSTS.into_iter().map(|host| scope.spawn(move || one(host))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread has failed")).collect()
    })
}

/// A guest that differs between the hosts.
#[derive(Debug)]
struct Case {
    name: String,
    /// What is changed, or what helps on which host and what is in the way.
    kind: String,
    /// As it was, and rewritten.
    before: PathBuf,
    file: PathBuf,
    /// The hosts that it does not start on as it was.
    stops: BTreeSet<String>,
    /// What is in the way of one rewrite; what helps on which hosts.
    way: BTreeSet<Way>,
    elsewhere: Vec<(String, PathBuf)>,
}

/// What a domain is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The one rewrite: it runs.
    Rewritten,
    /// What stops as it was: it fails.
    Before,
    /// What helps on this host alone: it runs.
    HelpedHere,
    /// What helps on another host, and this one is in the way: it fails.
    HelpedElsewhere,
}

/// A sample as any machine runs it: emulated, with a CPU model of the same width, and without what only its host has.
fn portable(sample: &str) -> String {
    let mut kept = String::new();
    let mut skipped = None;
    for line in sample.lines() {
        let trimmed = line.trim_start();
        let opens = ["hostdev", "disk", "interface"].into_iter().find(|name| trimmed.starts_with(&format!("<{name} ")));
        skipped = skipped.or(opens);
        match skipped {
            Some(name) if trimmed.starts_with(&format!("</{name}>")) => skipped = None,
            Some(_) => {}
            None => kept += &format!("{line}\n"),
        }
    }
    let wide =
        "<cpu mode='custom' match='exact' check='none'><model>EPYC</model><maxphysaddr mode='emulate' bits='48'/>";
    kept.replace("<domain type='kvm'", "<domain type='qemu'")
        .replace("<cpu mode='host-passthrough' check='none'/>", &format!("{wide}</cpu>"))
        .replace("<cpu mode='host-passthrough' check='none'>", wide)
}

/// Samples and random domains that differ between the hosts, rewritten.
fn draw(tool: &Tool, hosts: &[Host], work: &Path, seed: u64) -> Vec<Case> {
    let samples = SAMPLES.map(|name| {
        let text = std::fs::read_to_string(samples_folder().join(format!("{name}.xml"))).expect("a sample");
        (name.to_owned(), portable(&text))
    });
    let mut cases = choose(tool, hosts, work, samples.into());
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, SAMPLES, "every sample differs between the hosts");
    assert!(cases.iter().enumerate().all(|(nth, case)| case.way.is_empty() == (nth < 4)), "{cases:?}");

    // Of the first host, and two that it is too old for.
    let mut machines = hosts[0].oracle.machines.clone();
    machines.retain(|machine| version(machine).is_none_or(|version| version <= (8, 0)));
    machines.extend(["pc-q35-8.1", "pc-q35-10.0"].map(str::to_owned));
    let known = |model: &String| hosts.iter().all(|host| host.oracle.models.contains(model));
    let mut inventory = Inventory { machines, ..inventory(&hosts[0].oracle) };
    inventory.models.retain(known);
    let mut drawn = 0;
    let (mut fixed, mut blocked) = (Kinds::default(), Kinds::default());
    for batch in 0..MOST_BATCHES {
        let domains = (batch * BATCH..(batch + 1) * BATCH).map(|case| {
            // Not the domains of the other tests.
            let (name, mut rng) = (format!("a{case:05}"), Rng::of_case(seed.rotate_left(17), case));
            let xml = generate::domain(&mut rng, &inventory, &name).0;
            (name, xml)
        });
        drawn += BATCH;
        for case in choose(tool, hosts, work, domains.collect()) {
            let (kinds, most) = if case.way.is_empty() { (&mut fixed, FIXED) } else { (&mut blocked, IN_THE_WAY) };
            if kinds.take(&case.kind, most) {
                cases.push(case);
            }
        }
        if fixed.count() == FIXED && blocked.count() == IN_THE_WAY {
            break;
        }
    }
    note(&format!("common fix: seed {seed}, of {drawn} drawn: rewritten {:?}, in the way {:?}", fixed.0, blocked.0));
    assert_eq!(
        (fixed.count(), blocked.count()),
        (FIXED, IN_THE_WAY),
        "too few of the domains drawn differ between the hosts"
    );
    cases
}

/// How many of each kind were taken.
#[derive(Default)]
struct Kinds(BTreeMap<String, usize>);

impl Kinds {
    fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// Takes one more of a kind, but not many of the same.
    fn take(&mut self, kind: &str, most: usize) -> bool {
        const MOST_OF_A_KIND: usize = 2;
        let takes = self.count() < most && self.0.get(kind).copied().unwrap_or_default() < MOST_OF_A_KIND;
        if takes {
            *self.0.entry(kind.to_owned()).or_default() += 1;
        }
        takes
    }
}

/// Those of these domains that differ between the hosts: where they stop, and what helps.
fn choose(tool: &Tool, hosts: &[Host], work: &Path, domains: Vec<(String, String)>) -> Vec<Case> {
    let place = |prefix: &str, name: &str| work.join(format!("{prefix}{name}.xml"));
    let write = |path: &Path, xml: &str| std::fs::write(path, xml).expect("write a domain");
    for (name, xml) in &domains {
        write(&place("", name), xml);
    }
    let files: Vec<PathBuf> = domains.iter().map(|(name, _)| place("", name)).collect();
    let verdicts = tool.check(hosts, &files);
    let told = |file: &Path| -> Vec<&Value> {
        hosts.iter().filter_map(|host| verdicts.get(&(file_name(file), host.name.to_owned()))).collect()
    };
    let differs = |file: &PathBuf| {
        let told = told(file);
        let stops = told.iter().any(|guest| stops(guest));
        let helped = told.iter().any(|guest| guest["verdict"] != "blocked");
        let says = |guest: &Value| (guest["verdict"].clone(), guest["fix"]["changes"].clone());
        let differs = told.iter().any(|guest| says(guest) != says(told[0]));
        // Larger ones take too much of this machine.
        let is_large = told.iter().any(|guest| guest["layout"]["max_gpa"].as_u64().is_some_and(|end| end >> 42 > 0));
        told.len() == hosts.len() && stops && helped && differs && !is_large
    };
    let (chosen, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(differs);
    others.iter().for_each(|file| std::fs::remove_file(file).expect("remove a domain"));
    let blocked = tool.fix(hosts, &chosen);
    let case = |file: PathBuf| {
        let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
        let xml = &domains.iter().find(|(known, _)| *known == name).expect("of these").1;
        let before = place("before-", &name);
        write(&before, xml);
        let told: Vec<(&Host, &Value)> = hosts.iter().zip(told(&file)).collect();
        let way = blocked.get(&file_name(&file)).cloned().unwrap_or_default();
        let is_rewritten = std::fs::read_to_string(&file).expect("read a domain") != *xml;
        assert_eq!(is_rewritten, way.is_empty(), "{}: rewritten, or a host is in the way: {way:?}", file.display());
        let mut elsewhere = Vec::new();
        let is_lost = |name: &str| way.contains(&(name.to_owned(), None));
        for (host, guest) in told.iter().filter(|(host, _)| !way.is_empty() && !is_lost(host.name)) {
            let path = place(&format!("{}-", host.name), &name);
            write(&path, xml);
            if stops(guest) {
                assert!(
                    tool.fix([*host], std::slice::from_ref(&path)).is_empty(),
                    "{} on {}",
                    file.display(),
                    host.name
                );
            }
            elsewhere.push((host.name.to_owned(), path));
        }
        let changes = |guest: &Value| {
            let changes = guest["fix"]["changes"].as_array().into_iter().flatten();
            changes.filter_map(|change| change.as_str()?.split(' ').next()).collect::<Vec<_>>().join("+")
        };
        let kinds = told.iter().map(|(host, guest)| format!("{} {} {}", host.name, guest["verdict"], changes(guest)));
        Case {
            kind: kinds.collect::<Vec<_>>().join(", "),
            before,
            stops: told.iter().filter(|(_, guest)| stops(guest)).map(|(host, _)| host.name.to_owned()).collect(),
            name,
            file,
            way,
            elsewhere,
        }
    };
    chosen.into_iter().map(case).collect()
}

fn stops(guest: &Value) -> bool {
    guest["verdict"] == "fixable" || guest["verdict"] == "blocked"
}

/// Starts every case as it was and rewritten, a few at a time; the numbers of the case and of the host beside each answer.
fn ask_all(hosts: &[Host], cases: &[Case]) -> Vec<((usize, Wanted, usize), Answer)> {
    let number = |name: &str| hosts.iter().position(|host| host.name == name).expect("one of these");
    let mut jobs: Vec<(usize, Wanted, usize, &Path)> = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        jobs.extend(case.stops.iter().map(|host| (at, Wanted::Before, number(host), case.before.as_path())));
        if case.way.is_empty() {
            jobs.extend((0..hosts.len()).map(|host| (at, Wanted::Rewritten, host, case.file.as_path())));
        }
        for (host, file) in &case.elsewhere {
            jobs.push((at, Wanted::HelpedHere, number(host), file));
            let fails = case.way.iter().filter(|(_, of)| of.as_ref().is_none_or(|of| of == host));
            jobs.extend(fails.map(|(other, _)| (at, Wanted::HelpedElsewhere, number(other), file.as_path())));
        }
    }
    let questions: Vec<_> = jobs.iter().map(|&(_, _, host, file)| (&hosts[host].oracle, file)).collect();
    let answers = ask_each(&questions);
    jobs.into_iter().map(|(case, wanted, host, _)| (case, wanted, host)).zip(answers).collect()
}
