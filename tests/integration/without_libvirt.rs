//! QEMU's command lines as input: the same guest gives the same result however it is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use iova_preflight::argv::Call;
use iova_preflight::command_line::Launch;
use iova_preflight::domain::{self, Domain};
use iova_preflight::finding::Severity;
use iova_preflight::host::Host;
use iova_preflight::policy::Policy;
use iova_preflight::verdict::{Evaluation, evaluate};
use iova_preflight::xml::Document;

use crate::common::{corpus, note, xml_files};

/// The hosts of the comparison: one as it is, and two that reserve ranges where small guests have their memory, as libvirt's
/// test domains are small.
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

/// What is said of a guest: the verdict, and each finding with its rule, severity and range.
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

/// A generator of numbers that are the same each time.
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
