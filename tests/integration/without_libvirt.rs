//! QEMU's command lines as input: the same guest gives the same result however it is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use iova_preflight::argv::Call;
use iova_preflight::command_line::Launch;
use iova_preflight::domain::{self, Domain};
use iova_preflight::finding::Severity;
use iova_preflight::fix::rewrite::rewrite_call;
use iova_preflight::host::Host;
use iova_preflight::policy::Policy;
use iova_preflight::verdict::{Evaluation, Verdict, evaluate};
use iova_preflight::version::Version;
use iova_preflight::xml::Document;

use crate::common::{corpus, note, skip, xml_files};

/// The hosts of the comparison: a plain one, and two that reserve ranges where small guests, such as libvirt's test
/// domains, have their memory.
const HOSTS: [&str; 3] = [
    "[[iommu.reserved]]\nstart = 0xfd00000000\nend = 0xffffffffff\ntype = 'reserved'\n",
    "[[iommu.reserved]]\nstart = 0x8000000\nend = 0x8ffffff\ntype = 'reserved'\n",
    "[[iommu.reserved]]\nstart = 0x100000000\nend = 0x17fffffff\ntype = 'reserved'\n",
];

fn host(reserved: &str) -> Host {
    let profile = format!(
        "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n[iommu]\nkind = 'amd'\n[qemu]\nversion = '9.2'\n\
         [libvirt]\nversion = '11.3'\n{reserved}"
    );
    Host::from_profile(&profile).expect("a profile")
}

fn launch(text: &str) -> Launch {
    Launch::read(&Call::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{text}")))
}

/// The result for a guest: the verdict, and each finding with its rule, severity and range.
fn said(evaluation: &Evaluation) -> BTreeSet<String> {
    let findings = evaluation
        .findings
        .iter()
        .map(|finding| format!("{} {:?} {:?}", finding.rule, finding.severity, finding.range));
    findings.chain([format!("verdict {}", evaluation.verdict.name())]).collect()
}

/// Most comparisons that may differ, for a reason that [`exception`] knows.
const MOST_EXCEPTIONS: usize = 12;

/// Why a guest may differ from the command line that libvirt writes for it, where it may.
fn exception(domain: &Domain, of_domain: &Evaluation, arguments: &str) -> Option<&'static str> {
    let libvirt = |finding: &iova_preflight::Finding| {
        finding.rule == "refused-by-libvirt"
            || (finding.severity == Severity::Error && finding.title.starts_with("libvirt refuses"))
    };
    if of_domain.findings.iter().any(libvirt) {
        return Some("libvirt refuses the domain");
    }
    if of_domain.not_applicable.is_some() {
        return Some("not applicable");
    }
    if !domain.hidden_dma.is_empty() {
        return Some("a network of libvirt's, of which the command line shows the device");
    }
    if arguments.contains("/passt/") {
        return Some("passt serves a vhost-user socket, which the command line does not tell");
    }
    if arguments.contains("-incoming ") {
        return Some("an incoming migration, where libvirt rounds nothing");
    }
    None
}

#[test]
fn a_domain_and_its_command_line_are_the_same_guest() {
    let Some(folder) = corpus() else { return };
    let (mut compared, mut findings) = (0, 0);
    let (mut differences, mut exceptions) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for path in xml_files(&folder) {
        let Ok(arguments) = std::fs::read_to_string(path.with_extension("args")) else { continue };
        let Some(domain) = read(&path) else { continue };
        let launch = launch(&arguments);
        for reserved in HOSTS {
            let host = host(reserved);
            let of_domain = evaluate(&domain, &host, &Policy::default());
            let of_line = evaluate(&launch, &host, &Policy::default());
            compared += 1;
            findings += of_domain.findings.len();
            let (expected, actual) = (said(&of_domain), said(&of_line));
            if expected == actual {
                continue;
            }
            match exception(&domain, &of_domain, &arguments) {
                Some(why) => *exceptions.entry(why).or_default() += 1,
                None => differences.push(format!(
                    "{}: the domain alone {:?}, the line alone {:?}",
                    path.file_stem().expect("a file").to_string_lossy(),
                    expected.difference(&actual).collect::<Vec<_>>(),
                    actual.difference(&expected).collect::<Vec<_>>(),
                )),
            }
        }
    }
    for (why, count) in &exceptions {
        note(&format!("without libvirt: {count} comparisons are left out: {why}"));
    }
    assert!(exceptions.values().sum::<usize>() <= MOST_EXCEPTIONS, "{exceptions:?}");
    assert!(differences.is_empty(), "{} of {compared} differ\n{}", differences.len(), differences.join("\n"));
    note(&format!("without libvirt: {compared} comparisons of a domain and its command line, {findings} findings"));
}

fn read(path: &Path) -> Option<Domain> {
    let xml = std::fs::read(path).expect("read a domain");
    let document = Document::parse(&xml).ok()?;
    let domain = domain::read(&document).ok()?;
    let x86 = domain.arch.as_ref().is_none_or(|arch| matches!(arch.value.as_str(), "x86_64" | "i686"));
    x86.then_some(domain)
}

/// A generator with a fixed sequence.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// A word as a shell reads it, each piece of it quoted in another way.
    fn quoted(&mut self, word: &str) -> String {
        let mut shown = String::new();
        let mut rest = word;
        while !rest.is_empty() {
            let most = rest.chars().count() as u64;
            let length = rest.chars().take(1 + self.roll(most) as usize).map(char::len_utf8).sum();
            let (piece, after) = rest.split_at(length);
            rest = after;
            let safe = |c: char| c.is_ascii_alphanumeric() || "-_.,=:/".contains(c);
            match self.roll(5) {
                0 if piece.chars().all(safe) => shown += piece,
                0 | 1 => shown.extend(piece.chars().flat_map(|c| ['\\', c])),
                2 if !piece.contains('\'') => shown += &format!("'{piece}'"),
                3 => shown += &format!("$'{}'", piece.replace('\\', "\\\\").replace('\'', "\\'")),
                _ => {
                    let special = |c: char| "\"\\$`".contains(c).then_some('\\');
                    let inside: String = piece.chars().flat_map(|c| special(c).into_iter().chain([c])).collect();
                    shown += &format!("\"{inside}\"");
                }
            }
            if self.roll(4) == 0 {
                shown += "\\\n";
            }
        }
        if word.is_empty() { "''".to_owned() } else { shown }
    }
}

/// The same call as a shell takes it on one line and in many quotes, in libvirt's log, and as in `/proc/PID/cmdline`.
fn forms(text: &str, dice: &mut Dice) -> Vec<(&'static str, String)> {
    let call = Call::read(text.as_bytes()).expect("a call");
    let words: Vec<&str> = call.program.iter().chain(&call.arguments).map(|word| word.text.as_str()).collect();
    let one_line: Vec<String> = words.iter().map(|word| iova_preflight::argv::quoted(word)).collect();
    let wild: Vec<String> = words.iter().map(|word| dice.quoted(word)).collect();
    let before =
        "2026-11-29 06:31:02.123+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22, hostname: a\n";
    let after = "char device redirected to /dev/pts/1 (label charserial0)\nqemu: it's over\n2026-11-29 06:31:03.123+0000: \
                 shutting down, reason=failed\n";
    vec![
        ("one line", one_line.join(" ")),
        ("as an administrator types it", format!("sudo -E nohup {} >/dev/null 2>&1 &\n", one_line.join(" "))),
        ("in many quotes", wild.join(" \\\n\t")),
        ("log", format!("{before}{text}{after}{before}{text}{after}")),
        ("NUL-separated", words.iter().map(|word| format!("{word}\0")).collect()),
        ("of Windows", text.replace('\n', "\r\n")),
    ]
}

/// The words that a finding points at.
fn pointed(text: &str, evaluation: &Evaluation) -> Vec<String> {
    let spans = evaluation.findings.iter().map(|finding| finding.primary.span);
    spans.map(|span| text[span.start..span.end].to_owned()).collect()
}

#[test]
fn a_command_line_says_the_same_in_every_form() {
    let Some(folder) = corpus() else { return };
    let mut dice = Dice(42);
    let (mut compared, mut findings) = (0, 0);
    for path in xml_files(&folder) {
        let Ok(text) = std::fs::read_to_string(path.with_extension("args")) else { continue };
        let expected = launch(&text);
        for (form, other) in forms(&text, &mut dice) {
            let actual = launch(&other);
            assert_eq!(
                (&actual.program, &actual.name, &actual.arguments),
                (&expected.program, &expected.name, &expected.arguments),
                "{form}: {}",
                path.display()
            );
            for reserved in HOSTS {
                let host = host(reserved);
                let [expected, actual] = [&expected, &actual].map(|launch| evaluate(launch, &host, &Policy::default()));
                assert_eq!(said(&expected), said(&actual), "{form}: {}", path.display());
                if matches!(form, "one line" | "NUL-separated" | "log" | "of Windows") {
                    assert_eq!(pointed(&text, &expected), pointed(&other, &actual), "{form}: {}", path.display());
                }
                compared += 1;
                findings += actual.findings.len();
            }
        }
    }
    note(&format!("without libvirt: {compared} comparisons of two forms of a command line, {findings} findings"));
}

/// What the shell makes of each text: its words, or `None` if it refuses the text.
fn bash(texts: &[String]) -> Option<Vec<Option<Vec<String>>>> {
    const SCRIPT: &str =
        "for text; do (eval \"printf '%s\\0' kvm $text\") 2>/dev/null && printf '\\1\\0' || printf '\\2\\0'; done";
    let output = Command::new("bash").args(["-c", SCRIPT, "bash"]).args(texts).output().ok()?;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut answers = Vec::new();
    let mut words = Vec::new();
    for word in text.split_terminator('\0') {
        match word {
            "\u{1}" => answers.push(Some(std::mem::take(&mut words))),
            "\u{2}" => {
                words.clear();
                answers.push(None);
            }
            word => words.push(word.to_owned()),
        }
    }
    assert_eq!(answers.len(), texts.len());
    Some(answers)
}

#[test]
fn words_are_what_bash_makes_of_them() {
    const PIECES: [&str; 20] = [
        "a", "b", "=", ",", "-", " ", " ", "'", "'", "\"", "\"", "\\'", "\\\"", "\\\\", "\\ ", "\\a", "\\\n", "#",
        "$'", "\\t",
    ];
    let mut dice = Dice(7);
    let mut texts: Vec<String> = Vec::new();
    for _ in 0..1000 {
        let length = 1 + dice.roll(12);
        let text: String = (0..length).map(|_| PIECES[dice.roll(PIECES.len() as u64) as usize]).collect();
        // After a comment, the next line is another command.
        texts.push(if text.contains('#') { text.replace("\\\n", "") } else { text });
    }
    let Some(answers) = bash(&texts) else { return skip("words of a shell: no bash") };
    let mut refused = 0;
    for (text, expected) in texts.iter().zip(answers) {
        let text = format!("kvm {text}");
        let actual = Call::read(text.as_bytes()).map(|call| {
            let words = call.program.into_iter().chain(call.arguments).map(|word| word.text);
            words.collect::<Vec<_>>()
        });
        refused += usize::from(expected.is_none());
        match (&expected, &actual) {
            (Some(expected), Ok(actual)) => assert_eq!(expected, actual, "{text:?}"),
            (None, Err(error)) => assert!(error.message.ends_with("is not closed"), "{text:?}: {error}"),
            _ => panic!("{text:?}: bash {expected:?}, ours {actual:?}"),
        }
    }
    assert!((100..900).contains(&refused), "{refused} of {} are refused", texts.len());
    note(&format!("words of a shell: {} texts as bash reads them, {refused} of them refused", texts.len()));
}

/// Command lines that are stopped, each with what the fix makes of a part of it.
const BROKEN: [(&str, &str, &str); 15] = [
    // Proxmox' form.
    (
        "/usr/bin/qemu-system-x86_64 -name 'web,debug-threads=on' -machine 'accel=tcg,type=pc-q35-6.2' -m 1228800 \
         -cpu 'EPYC,phys-bits=48'",
        "type=pc-q35-6.2",
        "type=pc-q35-7.1",
    ),
    (
        "qemu-system-x86_64 \\\n  -M pc-i440fx-7.0 \\\n  -accel tcg \\\n  -m size=1200G \\\n  -cpu EPYC,phys-bits=48\n",
        "pc-i440fx-7.0",
        "pc-i440fx-7.1",
    ),
    ("qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 1200G -cpu EPYC", "EPYC", "EPYC,phys-bits=42"),
    ("qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 1200G -cpu \"EPYC\"", "\"EPYC\"", "\"EPYC,phys-bits=42\""),
    ("qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 1200G", "64 -M", "64 -cpu qemu64,phys-bits=42 -M"),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 1200G -cpu EPYC -global cpu.phys-bits=41",
        "cpu.phys-bits=41",
        "cpu.phys-bits=42",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 1200G -cpu EPYC,phys_bits=40,+x2apic",
        "phys_bits=40",
        "phys_bits=42",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 16G -cpu EPYC -global q35-pcihost.pci-hole64-size=2048G",
        "-cpu EPYC",
        "-cpu EPYC,phys-bits=42",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 16G -cpu EPYC,phys-bits=40 -global \
         driver=q35-pcihost,property=pci-hole64-size,value=300T",
        "value=300T",
        "value=32G",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 4G,slots=2,maxmem=8G -cpu EPYC -object \
         memory-backend-ram,id=a,size=1G -device pc-dimm,memdev=a,addr=0x4000000000",
        ",addr=0x4000000000",
        "",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel tcg -m 4G,slots=2,maxmem=8G -cpu EPYC -object \
         '{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"size\":1073741824}' -device \
         '{\"driver\":\"pc-dimm\",\"memdev\":\"a\",\"addr\":274877906944,\"id\":\"d\"}'",
        ",\"addr\":274877906944",
        "",
    ),
    (
        "qemu-system-x86_64 -M pc-q35-7.2 -accel kvm -m 1200G -cpu \
         EPYC,vendor=AuthenticAMD,host-phys-bits=on,host-phys-bits-limit=40",
        "host-phys-bits=on,host-phys-bits-limit=40",
        "host-phys-bits=off,host-phys-bits-limit=40,phys-bits=42",
    ),
    (
        "qemu-system-x86_64 -enable-kvm -machine pc-q35-6.2 -m 1200G -cpu EPYC,vendor=AuthenticAMD,phys-bits=48",
        "pc-q35-6.2",
        "pc-q35-7.1",
    ),
    // The window moves with the RAM, and the device with the window.
    (
        "qemu-system-x86_64 -M pc-q35-6.2 -accel tcg -m 1100G,slots=1,maxmem=1102G -cpu EPYC,phys-bits=48 -object \
         memory-backend-ram,id=a,size=1G -device pc-dimm,memdev=a,addr=0x11380000000",
        "addr=0x11380000000",
        "addr=0x21280000000",
    ),
    ("qemu-system-x86_64\0-M\0pc-q35-7.2\0-accel\0tcg\0-m\x001200G\0", "64\0-M", "64\0-cpu\0qemu64,phys-bits=42\0-M"),
];

/// Proxmox' QEMU takes upstream's types with a revision of Proxmox' own; no other QEMU does.
#[test]
fn a_type_of_proxmox_becomes_one_of_proxmox() {
    let text = "kvm -id 1 -m 1228800 -cpu host -machine 'type=pc-q35-6.2+pve1' -device vfio-pci,host=0000:41:00.0";
    let call = Call::read(text.as_bytes()).expect("a call");
    let launch = Launch::read(&call);
    let evaluation = evaluate(&launch, &assumed("9.2").0, &Policy::default());
    let fixed = rewrite_call(&call, &launch, evaluation.fix.as_ref().expect("a fix")).expect("fits");
    assert_eq!(fixed, text.replace("pc-q35-6.2+pve1", "pc-q35-7.1+pve0"));
}

/// What Proxmox puts into the command line of every q35 guest leaves no verdict open, and its revisions are those of an
/// alias, too.
#[test]
fn a_q35_guest_of_proxmox_is_known() {
    let text = "kvm -id 1 -m 1228800 -cpu host -readconfig /usr/share/qemu-server/pve-q35-4.0.cfg \
                -machine 'type=q35+pve0' -device vfio-pci,host=0000:41:00.0,bus=ich9-pcie-port-1";
    for (newest, verdict) in [("pc-q35-7.0", Verdict::Fixable), ("pc-q35-9.2", Verdict::Pass)] {
        let mut host = assumed("9.2").0;
        host.aliases.insert("q35".to_owned(), newest.to_owned());
        let evaluation = evaluate(&launch(text), &host, &Policy::default());
        assert_eq!(evaluation.verdict, verdict, "{newest}: {:?}", evaluation.findings);
    }
}

#[test]
fn a_message_is_one_line_whatever_the_machine_type_is_called() {
    for machine in ["pc-q35-6.2+pve\n1", "pc-q35-\n3", "q35+pve\n0", "pc-i440fx-0.9\n"] {
        let text =
            format!("kvm -m 1228800,slots=1,maxmem=4T -cpu host -machine '{machine}' -device vfio-pci,host=41:00.0");
        let mut host = assumed("9.2").0;
        for machines in [vec![], vec!["pc-q35-7.2".to_owned()]] {
            host.machines = machines;
            let evaluation = evaluate(&launch(&text), &host, &Policy::default());
            let fix = evaluation.fix.iter().flat_map(|fix| fix.changes.iter().map(ToString::to_string));
            let messages: Vec<String> =
                evaluation.findings.iter().map(|finding| finding.message()).chain(fix).collect();
            assert!(!messages.is_empty() && messages.iter().all(|message| !message.contains('\n')), "{messages:?}");
        }
    }
}

/// The host that these are for; QEMU's version is that of this machine.
/// Recorded with `query-memory-devices` of QEMU 7.2.22 and 11.1.3, those of type 2.1 with 7.2.22.
#[test]
fn memory_devices_are_as_large_and_lie_where_qemu_wants_it() {
    const REFUSED: &str = "backend memory size must be multiple of 0x200000";
    let ram =
        |size: &str, device: &str| format!("-object memory-backend-ram,id=m,size={size} -device {device},memdev=m");
    let memfd = |size: &str, device: &str| {
        format!("-object memory-backend-memfd,id=m,size={size},reserve=off -device {device},memdev=m")
    };
    let second =
        "-object memory-backend-memfd,id=n,size=1G,hugetlb=on,hugetlbsize=1G,reserve=off -device pc-dimm,memdev=n";
    for (machine, devices, expected) in [
        ("q35", ram("3M", "pc-dimm"), Err(REFUSED)),
        ("q35", ram("3M", "virtio-mem-pci,block-size=1M"), Err(REFUSED)),
        ("q35", ram("3M", "virtio-pmem-pci"), Err(REFUSED)),
        ("q35,nvdimm=on", ram("3M", "nvdimm"), Ok(vec![(0x1_0000_0000, 2 << 20)])),
        ("q35", memfd("3M", "pc-dimm"), Ok(vec![(0x1_0000_0000, 3 << 20)])),
        ("q35", memfd("3M", "virtio-mem-pci,block-size=1M"), Ok(vec![(0x1_0000_0000, 3 << 20)])),
        ("q35", memfd("3M", "virtio-pmem-pci"), Ok(vec![(0x1_0000_0000, 3 << 20)])),
        ("pc-i440fx-2.1", ram("3M", "pc-dimm"), Ok(vec![(0x1_0000_0000, 3 << 20)])),
        ("pc-i440fx-2.1", ram("3M", "virtio-pmem-pci"), Err(REFUSED)),
        (
            "pc-i440fx-2.1",
            format!("{} {second}", ram("2M", "pc-dimm")),
            Ok(vec![(4_294_967_296, 2 << 20), (4_297_064_448, 1 << 30)]),
        ),
        (
            "pc-i440fx-2.2",
            format!("{} {second}", ram("2M", "pc-dimm")),
            Ok(vec![(4_294_967_296, 2 << 20), (5_368_709_120, 1 << 30)]),
        ),
    ] {
        let text = format!("qemu-system-x86_64 -accel tcg -m 1G,slots=4,maxmem=8G -M {machine} {devices}");
        let mut host = host(HOSTS[0]);
        host.qemu = Some(Version::new(7, 2));
        let evaluation = evaluate(&launch(&text), &host, &Policy::default());
        match expected {
            Err(_) => {
                let says = evaluation.findings.iter().any(|finding| finding.rule == "memory-device-does-not-fit");
                assert!(says, "{text}: {:?}", evaluation.findings);
            }
            Ok(devices) => {
                assert_eq!(evaluation.verdict, Verdict::Pass, "{text}: {:?}", evaluation.findings);
                let found = evaluation.facts.memory_devices.iter().map(|(_, range)| (range.start, range.size()));
                let devices = devices.into_iter().map(|(start, size): (u64, u64)| (start, Some(size)));
                assert!(found.eq(devices), "{text}: {:?}", evaluation.facts.memory_devices);
            }
        }
    }
}

fn assumed(qemu: &str) -> (Host, Policy) {
    let profile = format!(
        "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n[iommu]\nkind = 'amd'\n[qemu]\nversion = '{qemu}'\n{}",
        HOSTS[0]
    );
    let policy = Policy::from_toml("passthrough = 'assume'").expect("a policy");
    (Host::from_profile(&profile).expect("a profile"), policy)
}

/// The version of this machine's QEMU.
fn qemu_version() -> Option<String> {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("version ").nth(1)?.split([' ', '\n']).next()?.to_owned();
    Some(version)
}

/// The ranges in `info mtree` of what a real QEMU builds.
fn built(program: &str, arguments: &[String]) -> Result<BTreeMap<&'static str, (u64, u64)>, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .args(["-S", "-display", "none", "-nodefaults", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // It may have ended already.
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"info mtree\nquit\n");
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let range = |what: &str| {
        let line = tree.lines().find(|line| line.contains(what))?;
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((number(start)?, number(end)?))
    };
    let parts = ["alias ram-below-4g", "alias ram-above-4g", "device-memory"];
    let found: BTreeMap<_, _> = parts.into_iter().filter_map(|what| Some((what, range(what)?))).collect();
    if found.is_empty() { Err(String::from_utf8_lossy(&output.stderr).into_owned()) } else { Ok(found) }
}

/// The same ranges as they are predicted.
fn predicted(evaluation: &Evaluation) -> BTreeMap<&'static str, (u64, u64)> {
    let layout = evaluation.facts.layout.as_ref().expect("a map");
    let above = layout.ram_above_4g.map(|range| ("alias ram-above-4g", (range.start, range.end)));
    let window = layout.device_memory.map(|range| ("device-memory", (range.start, range.end)));
    let below = ("alias ram-below-4g", (layout.ram_below_4g.start, layout.ram_below_4g.end));
    above.into_iter().chain(window).chain([below]).collect()
}

#[test]
fn a_fixed_command_line_starts_with_the_map_that_is_predicted() {
    let qemu = qemu_version();
    let (host, policy) = assumed(qemu.as_deref().unwrap_or("7.2"));
    let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    let starts = qemu.is_some() && overcommit.trim() == "1";
    if !starts {
        skip("fixed command lines: no qemu-system-x86_64, or vm.overcommit_memory is not 1");
    }
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !kvm {
        skip("fixed command lines: those with KVM are not started, there is no /dev/kvm");
    }
    for (text, part, expected) in BROKEN {
        let call = Call::read(text.as_bytes()).expect("a call");
        let launch = Launch::read(&call);
        let evaluation = evaluate(&launch, &host, &policy);
        assert_eq!(evaluation.verdict, Verdict::Fixable, "{text:?}: {:?} {:?}", evaluation.findings, evaluation.tried);
        let fix = evaluation.fix.as_ref().expect("a fix");
        let fixed = rewrite_call(&call, &launch, fix).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        // Nothing else changes but what the other changes of the same fix do.
        assert!(fixed.contains(expected), "{text:?} became {fixed:?}");
        if fix.changes.len() == 1 {
            assert_eq!(fixed, text.replacen(part, expected, 1), "{:?}", fix.changes);
        }
        let again = self::launch(&fixed);
        let after = evaluate(&again, &host, &policy);
        assert!(!after.verdict.stops(), "{fixed:?}: {:?}", after.findings);
        if starts && (kvm || !text.contains("kvm")) {
            let program = again.program.as_deref().expect("a program");
            let map = built(program, &again.arguments).unwrap_or_else(|error| panic!("{fixed:?}: {error}"));
            assert_eq!(map, predicted(&after), "{fixed:?}");
        }
    }
    note(&format!("without libvirt: {} command lines are fixed, QEMU {}", BROKEN.len(), qemu.unwrap_or_default()));
}
