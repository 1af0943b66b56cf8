//! What the Markdown of the project says can be typed, and what the README says of error messages and of the fix by hand.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use iova_preflight::{Document, Policy, Verdict, builtin_host, evaluate, read_domain};

use crate::common::work_dir;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");
const README: &str = include_str!("../../README.md");

/// Every Markdown file that people read, without the changelog, which is about older versions.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["", "docs", "hooks", "packaging", "tests"].map(|name| Path::new(PROJECT).join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && folder != Path::new(PROJECT).join("") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("CHANGELOG.md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The calls of `iova-preflight` in code, as words of a shell without its comments, redirections and pipes: in indented and
/// fenced blocks where a command begins, and in spans that begin with it.
fn calls(page: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            let commands = line.split(['|', ';', '&', '`', '(']).map(str::trim_start);
            calls.extend(commands.filter(|command| command.starts_with("iova-preflight ")).map(str::to_owned));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            calls.extend(spans.filter(|span| span.starts_with("iova-preflight ")).map(str::to_owned));
        }
    }
    calls
}

/// The arguments of a call: what follows the name of the program, up to a comment, a redirection or an ellipsis.
fn arguments(call: &str) -> Vec<String> {
    let mut words = Vec::new();
    // A template's value is one word.
    let call = call.replace("{{ ", "").replace(" }}", "");
    let mut rest = call.strip_prefix("iova-preflight").expect("a call").trim_start();
    while !rest.is_empty() && !rest.starts_with(['#', '>', '<', '…']) {
        let quote = rest.chars().next().filter(|first| ['\'', '"'].contains(first));
        let (word, behind) = match quote {
            Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.trim_end_matches([')', '\'', '"', ',']).to_owned());
        rest = behind.trim_start();
    }
    words
}

/// The program takes each call that a page shows: it knows the command, its options and their values.
#[test]
fn every_command_in_the_docs_is_known() {
    let (mut seen, mut refused) = (BTreeSet::new(), String::new());
    for page in pages() {
        let text = fs::read_to_string(&page).expect("readable");
        for call in calls(&text) {
            let mut arguments = arguments(&call);
            // A placeholder for one of a few names.
            if arguments.first().is_some_and(|command| command == "adapter")
                && let Some(name) = arguments.get_mut(1).filter(|name| *name == "NAME")
            {
                "vdsm".clone_into(name);
            }
            let output = Command::new(PROGRAM).args(&arguments).arg("--help").output().expect("runs");
            if !output.status.success() {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let _ = writeln!(refused, "{}: {call}\n{stderr}", page.display());
            }
            seen.insert(arguments.first().cloned().unwrap_or_default());
        }
    }
    assert!(refused.is_empty(), "{refused}");
    for command in ["check", "fix", "map", "explain", "host", "hook", "adapter", "watch"] {
        assert!(seen.contains(command), "no page shows {command}");
    }
}

/// What `docs/usage.md` shows of files is run as it is there, in a shell: `guest.xml` is a sample and `hosts` its hosts.
#[test]
fn the_commands_of_the_usage_page_work() {
    let folder = work_dir("usage");
    let sample = Path::new(PROJECT).join("xml-samples/ubuntu-jammy-large.xml");
    let shared = ["xml-samples", "argv-samples"].map(|name| (Path::new(PROJECT).join(name), name));
    for (from, name) in shared.into_iter().chain([(Path::new(PROJECT).join("xml-samples/hosts"), "hosts")]) {
        std::os::unix::fs::symlink(from, folder.join(name)).expect("a link");
    }
    let path = format!(
        "{}:{}",
        Path::new(PROGRAM).parent().expect("a folder").display(),
        std::env::var("PATH").expect("a path")
    );
    let page = include_str!("../../docs/usage.md");
    let real = ["virsh ", "qm ", "--connect", "--running", " hook ", " watch", " adapter ", "/var/log"];
    let mut ran = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.is_empty()) {
        if real.iter().any(|word| line.split(" #").next().expect("a command").contains(word)) {
            continue;
        }
        fs::copy(&sample, folder.join("guest.xml")).expect("a copy");
        let command = format!("set -o pipefail; {line}");
        let output = Command::new("bash").args(["-c", &command]).current_dir(&folder).env("PATH", &path).output();
        let output = output.expect("run bash");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // A guest of the samples may not start; that is what 1 says.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{line}\n{said}");
        ran += 1;
    }
    assert!(ran >= 14, "{ran} commands");
}

/// The page of each cause, for a message that somebody met; `tests/integration/messages.rs` holds the messages themselves
/// against their causes.
#[test]
fn the_readme_links_the_cause_of_each_kind_of_message() {
    let (_, table) = README.split_once("## Is it my error?").expect("a section");
    let (table, _) = table.split_once("## Fix it by hand").expect("the next section");
    for (text, page) in [
        (
            "Region pc.ram: vfio_dma_map(0x1, 0x100000000, 0xff30000000, 0x2) = -22 (Invalid argument)",
            "rules/ram-in-reserved-range.md",
        ),
        (
            "Region ram-node0: vfio_dma_map(0x1, 0x100000000, 0x11280000000, 0x2) = -22",
            "rules/ram-in-reserved-range.md",
        ),
        (
            "Region m0: vfio_dma_map(0x1, 0xfd00000000, 0x8000000, 0x2) = -22 (Invalid argument)",
            "rules/memory-device-in-reserved-range.md",
        ),
        (
            "Region pc.ram: vfio_dma_map(0x1, 0x100000000, 0x7f80000000, 0x2) = -22 (Invalid argument)",
            "rules/ram-above-iommu-width.md",
        ),
        (
            "kvm: vfio_dma_map(0x1, 0x380000000000, 0x10000000, 0x2) = -22 (Invalid argument)",
            "rules/bar-above-iommu-width.md",
        ),
        (
            "vfio_dma_map(0x1, 0x8000000000, 0x8000000000, 0x2) = -22 (Invalid argument)",
            "rules/bar-in-reserved-range.md",
        ),
        (
            "Region pc.ram: vfio_dma_map(0x1, 0x0, 0x80000000, 0x2) = -12 (Cannot allocate memory)",
            "rules/locked-memory-too-low.md",
        ),
        (
            "Region pc.ram: vfio_dma_map(0x1, 0x100000000, 0x180000000, 0x2) = -14 (Bad address)",
            "messages.md#memory-not-pinned",
        ),
        ("vfio_container_dma_map(0x1, 0xfa800000, 0x4000, 0x2) = -14 (Bad address)", "messages.md#bar-not-mappable"),
        ("Address space limit 0xffffffffff < 0x1347fffffff phys-bits too low (40)", "rules/phys-bits-too-low.md"),
    ] {
        let output = Command::new(PROGRAM).args(["explain", "--format", "json", text]).output().expect("runs");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let cause = document["messages"][0]["cause"].as_str().unwrap_or_else(|| panic!("{text}: {document}"));
        assert!(page.contains(cause), "{text}: {cause}");
        assert!(table.contains(&format!("](docs/{page})")), "{page}");
    }
}

/// The shell's arithmetic of the README, and the two numbers it says come out.
#[test]
fn the_readme_computes_the_addresses_of_its_message() {
    let (_, command) = README.split_once("`echo ").expect("a command");
    let (command, rest) = command.split_once('`').expect("its end");
    let output = Command::new("bash").args(["-c", &format!("echo {command}")]).output().expect("run bash");
    let numbers = String::from_utf8(output.stdout).expect("UTF-8");
    let [first, last] = numbers.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{numbers}") };
    assert!(rest.contains(&format!("Here they are {first} and {last}:")), "{numbers}");
    // The numbers of the message above.
    for number in ["0x100000000", "0xff30000000"] {
        assert!(command.contains(number) && README.contains(&format!(" {number}, ")), "{number}");
    }
}

/// What the README says to change by hand: the machine type and `<maxphysaddr>`.
fn by_hand() -> (&'static str, &'static str) {
    let between = |start: &str, end: &str| {
        let (_, rest) = README.split_once(start).unwrap_or_else(|| panic!("{start}"));
        rest.split_once(end).expect("the end").0
    };
    (between("machine='", "'"), between("  <maxphysaddr", "\n"))
}

#[test]
fn the_fix_by_hand_of_the_readme_helps() {
    let (machine, bits) = by_hand();
    let verdict = |machine: &str, cpu: &str, gib: u64| {
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>{gib}</memory>\
             <os><type arch='x86_64' machine='{machine}'>hvm</type></os>{cpu}<devices>\
             <hostdev type='pci'><source><address bus='1'/></source></hostdev></devices></domain>"
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = read_domain(&document).expect("a domain");
        evaluate(&domain, &builtin_host("amd-epyc").expect("built in"), &Policy::default()).verdict
    };
    let cpu = |mode: &str, bits: &str| format!("<cpu mode='{mode}'>{bits}</cpu>");
    let as_said = cpu("host-model", &format!("<maxphysaddr{bits}"));
    let wider = as_said.replace("bits='42'", "bits='43'");
    let intel = format!("<cpu><model vendor_id='GenuineIntel'>EPYC</model><maxphysaddr{bits}</cpu>");
    assert_ne!(wider, as_said);
    for (machine, cpu, gib, expected) in [
        ("pc-q35-6.2", &as_said, 1200, Verdict::Fixable),
        (machine, &as_said, 1200, Verdict::Pass),
        ("pc-i440fx-7.1", &as_said, 1200, Verdict::Pass),
        ("pc-q35-lunar", &as_said, 1200, Verdict::Pass),
        ("pc-q35-rhel9.2.0", &cpu("host-model", ""), 1200, Verdict::Pass),
        (machine, &as_said, 3000, Verdict::Pass),
        (machine, &as_said, 7000, Verdict::Fixable),
        (machine, &wider, 7000, Verdict::Pass),
        (machine, &cpu("host-passthrough", ""), 7000, Verdict::Pass),
        (machine, &cpu("host-model", ""), 1200, Verdict::Fixable),
        (machine, &intel, 1200, Verdict::Blocked),
        // As large as a guest with an old machine type may be.
        ("pc-q35-6.2", &as_said, 1010, Verdict::Warn),
        ("pc-q35-6.2", &as_said, 1011, Verdict::Fixable),
        ("pc-i440fx-6.2", &as_said, 1011, Verdict::Warn),
        ("pc-i440fx-6.2", &as_said, 1012, Verdict::Fixable),
    ] {
        assert_eq!(verdict(machine, cpu, gib), expected, "{machine}, {cpu}, {gib} GiB");
    }
}
