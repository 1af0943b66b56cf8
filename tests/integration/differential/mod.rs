//! Random domains, put to real libvirt and real QEMU and to us. Nothing here is recorded: the
//! expected values are what the real programs answer at this moment.
//!
//! Three stacks answer: this machine's libvirt and QEMU, and those of two Debian releases, each with a libvirtd of its
//! own. `IOVA_DIFF_SEED` and `IOVA_DIFF_CASES` choose the domains.

mod bars;
mod common_fix;
mod draw;
mod fixes;
mod generate;
mod lines;
mod locked;
pub mod oracle;
mod raw;

use crate::common::{Differences, check, expect, note, skip, work_dir};
use draw::Rng;
use generate::Inventory;
use iova_preflight::io::detect::detect;
use iova_preflight::{Document, Policy, evaluate, read_domain};
use oracle::Oracle;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEED: u64 = 7;
const CASES: usize = 100;

/// Machines that run at the same time. More only compete for the same memory bandwidth.
const WORKERS: usize = 2;

/// Held by the test that runs machines: they take turns, so that one does not end what another needs.
static ALONE: Mutex<()> = Mutex::new(());

/// What libvirt or QEMU refuse for reasons that are not in the domain's memory or CPU address
/// width: the host cannot run it, whatever its map looks like.
const OUTSIDE: &[&str] = &[
    "failed to set MSR",
    "the CPU is incompatible with host CPU",
    "Cannot allocate memory",
    "MSI-X is not supported by interrupt controller",
    "System Management Mode not supported by this hypervisor",
    "sgx epc isn't supported by this QEMU binary",
    "launch security is not supported with this QEMU binary",
    "Unable to find any firmware to satisfy",
    "Unable to find 'efi' firmware",
    "Unable to find 'bios' firmware",
];

/// What the real programs say about one case.
enum Answer {
    LibvirtRejects(String),
    Built { libvirt: Value, qemu: Value },
}

#[test]
fn random_domains_match_this_machine() {
    match_stack("machine");
}

#[test]
fn random_domains_match_debian_trixie() {
    match_stack("trixie");
}

#[test]
fn random_domains_match_debian_sid() {
    match_stack("sid");
}

/// The root of a stack: this machine's, or the tree of a Debian release, which is made if there is none.
fn tree(stack: &str) -> Result<PathBuf, String> {
    if stack == "machine" {
        return Ok(PathBuf::from("/"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/test/trees");
    let output = Command::new(&script).arg(stack).output().map_err(|e| format!("{}: {e}", script.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Asks the programs of a stack about random domains, and compares.
fn match_stack(stack: &str) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => {
            return skip(&format!("guests larger than this machine cannot be started: {why}"));
        }
    };
    let (seed, cases) = (number("IOVA_DIFF_SEED", SEED), number("IOVA_DIFF_CASES", CASES as u64));
    let work = work_dir(&format!("differential-{stack}"));
    let oracle = match tree(stack).and_then(|tree| Oracle::start(&tree, &work)) {
        Ok(oracle) => oracle,
        Err(why) => return skip(&format!("no real libvirt and QEMU of {stack} to compare with: {why}")),
    };
    models_match(&oracle, &work);
    let (vendor, host_bits) = host_cpu();
    let inventory = inventory(&oracle);
    let mut features = BTreeMap::<&str, usize>::new();
    let mut files = Vec::new();
    for case in 0..cases {
        let (name, mut rng) = (format!("c{case:05}"), Rng::of_case(seed, case));
        let path = work.join(format!("{name}.xml"));
        let (xml, has) = generate::domain(&mut rng, &inventory, &name);
        has.into_iter().for_each(|feature| *features.entry(feature).or_default() += 1);
        std::fs::write(&path, xml).expect("write a domain");
        files.push(path);
    }
    note(&format!("differential: {stack}: drawn {features:?}"));
    let answers = ask_all(&oracle, &files);
    let text = files.iter().zip(&answers).map(|(file, answer)| format!("{} {}\n", file.display(), answer.real()));
    std::fs::write(work.join("answers"), text.collect::<String>()).expect("keep the answers");

    let profile = work.join("host.toml");
    oracle.profile(vendor, host_bits, inventory.kvm).write(&profile);
    let guests = check(&profile, &files);
    let diffs = compare(&files, &answers, &guests, seed, &oracle);
    diffs.assert_none(&format!(
        "differences from libvirt {} and QEMU {}, seed {seed}; the domains are in {}",
        oracle.libvirt_version,
        oracle.qemu_version,
        work.display()
    ));
}

/// Asks libvirt about every CPU model that it or QEMU knows, and compares with what its capability cache tells.
fn models_match(oracle: &Oracle, work: &Path) {
    let host = detect(&oracle.root()).profile.host_for(None).into_owned();
    assert!(!host.cpu_models.is_empty(), "{}: no cache with CPU models", oracle.root().display());
    let mut differences = Vec::new();
    let all: Vec<&String> = oracle.models.iter().chain(&oracle.lacking).chain(&oracle.unknown).collect();
    for model in &all {
        let xml = format!(
            "<domain type='qemu'><name>a</name><memory unit='GiB'>1</memory><os><type machine='q35'>hvm</type></os>\
             <cpu mode='custom'><model fallback='forbid'>{model}</model></cpu></domain>"
        );
        let path = work.join("model.xml");
        std::fs::write(&path, &xml).expect("write a domain");
        let theirs = oracle.command_line(&path).err();
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = read_domain(&document).expect("a domain");
        let ours = evaluate(&domain, &host, &Policy::default()).findings;
        let ours = ours.iter().find(|finding| finding.rule == "refused-by-libvirt").map(|finding| &finding.title);
        if theirs.is_some() != ours.is_some() {
            differences.push(format!("{model}: libvirt {theirs:?}, ours {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let (libvirt, qemu) = (&oracle.libvirt_version, &oracle.qemu_version);
    note(&format!("differential: {} CPU models of libvirt {libvirt} and QEMU {qemu}", all.len()));
}

/// What the generator can draw for a stack.
fn inventory(oracle: &Oracle) -> Inventory {
    Inventory {
        machines: oracle.machines.clone(),
        models: oracle.models.clone(),
        lacking: oracle.lacking.clone(),
        unknown: oracle.unknown.clone(),
        kvm: kvm(),
        i386: oracle.i386,
        host_bits: host_cpu().1,
    }
}

/// The HyperTransport range (AMD I/O Virtualization Technology Specification, 48882, section 2.1.2).
const RESERVED: (u64, u64) = (0xfd_0000_0000, 0xff_ffff_ffff);

/// This machine with the programs of a stack and an IOMMU of AMD, which reserves the HyperTransport range if `reserves`, as
/// the TOML that `--host` reads.
fn host_profile(oracle: &Oracle, reserves: bool) -> String {
    let (vendor, bits) = host_cpu();
    let mut text = format!("[cpu]\nvendor = {vendor:?}\nphys_bits = {bits}\n[iommu]\nkind = \"amd\"\n");
    let interrupts = (0xfee0_0000, 0xfeef_ffff);
    for (start, end) in std::iter::once(interrupts).chain(reserves.then_some(RESERVED)) {
        let _ = write!(text, "[[iommu.reserved]]\nstart = {start:#x}\nend = {end:#x}\ntype = \"reserved\"\n");
    }
    let _ = write!(text, "[kvm]\navailable = {}\n", kvm());
    let _ = write!(text, "[qemu]\nversion = {:?}\nmachines = {:?}\n", oracle.qemu_version, oracle.machines);
    let _ = write!(text, "[qemu.aliases]\npc = {:?}\nq35 = {:?}\n", oracle.pc, oracle.q35);
    let _ = write!(text, "[libvirt]\nversion = {:?}\n", oracle.libvirt_version);
    text
}

/// What of a measured layout lies in the reserved range, as text.
fn inside_reserved(cell: &Value) -> String {
    let mut inside = String::new();
    let mut note_if_inside = |what: &str, start: Option<u64>, end: Option<u64>| {
        let (Some(start), Some(end)) = (start, end) else { return };
        if start <= RESERVED.1 && end >= RESERVED.0 {
            let _ = write!(inside, "{what} {start:#x}-{end:#x} ");
        }
    };
    for part in ["ram_below_4g", "ram_above_4g"] {
        note_if_inside(part, cell[part]["start"].as_u64(), cell[part]["end"].as_u64());
    }
    for device in cell["memory_devices"].as_array().into_iter().flatten() {
        let start = device["addr"].as_u64();
        // One that is not plugged yet has no size here, but a place.
        let last = device["size"].as_u64().unwrap_or_default().saturating_sub(1);
        note_if_inside(device["type"].as_str().unwrap_or("device"), start, start.map(|start| start + last));
    }
    inside
}

/// The version in the name of a machine type of upstream's.
fn version(machine: &str) -> Option<(u32, u32)> {
    let (major, minor) = machine.rsplit('-').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn kvm() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

impl Answer {
    fn real(&self) -> Value {
        match self {
            Answer::LibvirtRejects(why) => json!({"libvirt_rejects": why}),
            Answer::Built { libvirt, qemu } => json!({"libvirt": libvirt, "qemu": qemu}),
        }
    }
}

/// Asks about every case, a few at a time.
fn ask_all(oracle: &Oracle, files: &[PathBuf]) -> Vec<Answer> {
    ask_each(&files.iter().map(|file| (oracle, file.as_path())).collect::<Vec<_>>())
}

/// Asks each oracle about its file, a few at a time.
fn ask_each(questions: &[(&Oracle, &Path)]) -> Vec<Answer> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<BTreeMap<usize, Answer>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((oracle, file)) = questions.get(index) else { break };
                    let answer = ask(oracle, file);
                    answers.lock().expect("no worker has failed").insert(index, answer);
                }
            });
        }
    });
    answers.into_inner().expect("no worker has failed").into_values().collect()
}

fn ask(oracle: &Oracle, file: &Path) -> Answer {
    match oracle.command_line(file) {
        Err(why) => Answer::LibvirtRejects(why),
        Ok(line) => Answer::Built { libvirt: oracle::libvirt_facts(&line), qemu: oracle.layout(&line) },
    }
}

fn compare(
    files: &[PathBuf],
    answers: &[Answer],
    guests: &BTreeMap<String, Value>,
    seed: u64,
    oracle: &Oracle,
) -> Differences {
    let mut diffs = Differences::default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shown = 0;
    for (number, (file, answer)) in files.iter().zip(answers).enumerate() {
        let case = file.file_name().expect("a case is a file").to_string_lossy();
        let (at, guest) = ((case.as_ref(), "now"), &guests[case.as_ref()]);
        let before = diffs.found.len();
        *counts.entry(compare_one(&mut diffs, at, answer, guest)).or_default() += 1;
        if diffs.found.len() > before && shown < 5 {
            shown += 1;
            let xml = std::fs::read_to_string(file).expect("read the domain again");
            let real = answer.real();
            note(&format!("MISMATCH seed {seed} case {number} {}\n{xml}real: {real}\nours: {guest}", file.display()));
        }
    }
    note(&format!(
        "differential: seed {seed}, {} cases, libvirt {}, QEMU {}: {counts:?}, {} facts compared",
        files.len(),
        oracle.libvirt_version,
        oracle.qemu_version,
        diffs.compared
    ));
    diffs
}

/// Compares one case and says what kind it was.
fn compare_one(diffs: &mut Differences, at: (&str, &str), answer: &Answer, guest: &Value) -> &'static str {
    let outside = |text: &str| OUTSIDE.iter().any(|part| text.contains(part));
    match answer {
        Answer::LibvirtRejects(why) if outside(why) => {
            note(&format!("differential: {} is refused for something else: {why}", at.0));
            "refused for something else"
        }
        Answer::LibvirtRejects(why) => {
            expect::rejected(diffs, at, why, guest);
            "refused by libvirt"
        }
        Answer::Built { libvirt, qemu } => {
            expect::libvirt(diffs, at, libvirt, guest);
            let error = qemu["error"].as_str().unwrap_or_default();
            if !qemu["not_asked"].is_null() {
                return "not asked of QEMU";
            }
            if !qemu["machine_missing"].is_null() {
                return "without such a machine type";
            }
            if outside(error) {
                note(&format!("differential: {} does not run on this host: {error}", at.0));
                return "refused for something else";
            }
            expect::qemu(diffs, at, qemu, guest);
            if qemu["starts"] == true { "started" } else { "refused by QEMU" }
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => default,
    }
}

/// The vendor and the physical address bits of this machine's CPU.
fn host_cpu() -> (String, u64) {
    let text = std::fs::read_to_string("/proc/cpuinfo").expect("read /proc/cpuinfo");
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let bits = value("address sizes").and_then(|sizes| sizes.split_whitespace().next()?.parse().ok());
    (value("vendor_id").expect("a CPU vendor"), bits.expect("the CPU's address sizes"))
}

/// Lets guests be larger than this machine for as long as it lives.
struct Overcommit(Option<String>);

const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

impl Overcommit {
    fn allow() -> Result<Self, String> {
        let before = std::fs::read_to_string(OVERCOMMIT).map_err(|e| format!("{OVERCOMMIT}: {e}"))?;
        if before.trim() == "1" {
            return Ok(Overcommit(None));
        }
        std::fs::write(OVERCOMMIT, "1").map_err(|e| format!("vm.overcommit_memory is not 1 and {OVERCOMMIT}: {e}"))?;
        Ok(Overcommit(Some(before)))
    }
}

impl Drop for Overcommit {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(OVERCOMMIT, before.trim());
        }
    }
}
