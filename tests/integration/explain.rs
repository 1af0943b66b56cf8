//! `explain`: the pages that are committed are those of the program, and what they quote is what is really printed.

use super::golden;
use crate::common::{PATIENCE, check, every_host, generated, note, samples, skip, work_dir};
use iova_preflight::explain::{index, markdown};
use iova_preflight::messages::table::wordings;
use iova_preflight::rules::page::Block;
use iova_preflight::rules::{RULES, Rule};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

fn explain(arguments: &[&str], columns: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .arg("explain")
        .args(arguments)
        .env("COLUMNS", columns)
        .output()
        .expect("run iova-preflight")
}

#[test]
fn the_committed_pages_are_those_of_the_program() {
    generated("docs/rules/README.md", &index());
    let mut expected = BTreeSet::from(["README.md".to_owned()]);
    for rule in RULES {
        generated(&format!("docs/rules/{}.md", rule.id), &markdown(rule));
        expected.insert(format!("{}.md", rule.id));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules");
    let there: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("docs/rules")
        .map(|entry| entry.expect("a folder entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, expected, "a page for each rule and nothing else");
}

/// Every Markdown file below `folder`.
fn markdown_below(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of docs") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            texts.extend(markdown_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            texts.push(std::fs::read_to_string(&path).expect("UTF-8"));
        }
    }
    texts
}

/// `grep -rF` in docs, with a line of a message as it was printed.
#[test]
fn a_plain_search_in_docs_finds_every_message() {
    let texts = markdown_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
    let on_pages = RULES.iter().flat_map(|rule| rule.page.errors).map(|error| error.text);
    let in_table = wordings().flat_map(|wording| wording.forms.iter().copied());
    let mut count = 0;
    for line in on_pages.chain(in_table).flat_map(str::lines) {
        assert!(texts.iter().flat_map(|text| text.lines()).any(|found| found.contains(line)), "{line}");
        count += 1;
    }
    assert!(count > 200, "{count} lines");
}

#[test]
fn pages_link_to_sections_of_the_background() {
    let background = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/background.md");
    let background = std::fs::read_to_string(background).expect("docs/background.md");
    for (rule, topic) in RULES.iter().flat_map(|rule| rule.page.background.iter().map(move |topic| (rule, topic))) {
        assert!(background.contains(&format!("\n## {}\n", topic.title())), "{}: {}", rule.id, topic.title());
        assert!(markdown(rule).contains(&format!("](../background.md#{})", topic.anchor())), "{}", rule.id);
    }
}

#[test]
fn every_page_fits_every_terminal() {
    for columns in ["80", "120"] {
        let limit: usize = columns.parse().expect("a number");
        for rule in RULES {
            let output = explain(&[rule.id], columns);
            assert!(output.status.success() && output.stderr.is_empty(), "{}", rule.id);
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            assert!(!text.contains('\u{1b}'), "{}: escape sequences in a pipe", rule.id);
            let code = |line: &str| line.starts_with("    ");
            for line in text.lines().filter(|line| !code(line)) {
                assert!(line.chars().count() <= limit, "{} at {columns} columns: {line}", rule.id);
            }
            for error in rule.page.errors {
                assert!(text.contains(error.text), "{}: `{}` is not on one line", rule.id, error.text);
            }
        }
        let table = String::from_utf8(explain(&[], columns).stdout).expect("UTF-8");
        assert!(table.lines().all(|line| line.chars().count() <= limit), "{table}");
        for rule in RULES.iter().map(|rule| rule.id) {
            assert!(table.contains(rule), "no {rule} in the table");
        }
    }
}

#[test]
fn headings_are_bold_where_there_is_colour() {
    let output = explain(&["ram-in-reserved-range", "--color", "always"], "80");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("\u{1b}[1mWhat it means\u{1b}[0m\n"), "{text}");
}

#[test]
fn an_unknown_rule_is_an_error_that_suggests_another() {
    let output = explain(&["ram-in-reserved-ranges"], "80");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("a similar value exists: 'ram-in-reserved-range'"), "{stderr}");
}

#[test]
fn pages_name_the_severities_that_occur() {
    let mut inputs = samples();
    inputs.extend(golden::domains(&work_dir("explain-golden")));
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for host in every_host() {
        for guest in check(&host, &inputs).values() {
            let findings = guest["findings"].as_array().cloned().unwrap_or_default();
            // Raw arguments make warnings of errors, as the page of that rule says.
            let counts = |finding: &&Value| {
                !findings.iter().any(|f| f["rule"] == "not-modelled") || finding["rule"] == "not-modelled"
            };
            for finding in findings.iter().filter(counts) {
                let text = |field: &str| finding[field].as_str().expect("a text").to_owned();
                seen.entry(text("rule")).or_default().insert(text("severity"));
            }
        }
    }
    for rule in RULES {
        let said: BTreeSet<&str> = rule.page.severities.iter().map(|severity| severity.name()).collect();
        for severity in seen.get(rule.id).into_iter().flatten() {
            assert!(said.contains(severity.as_str()), "{} is {severity} too", rule.id);
        }
    }
}

/// Messages that real programs were seen to print; the last are from public reports.
const RECORDED: [&str; 5] = [
    include_str!("../data/vfio.txt"),
    REFUSALS,
    golden::RECORD,
    include_str!("../data/messages.txt"),
    include_str!("../data/viommu.txt"),
];

/// The same of refused starts on three stacks, and formats of newer programs than the installed ones.
const REFUSALS: &str = include_str!("../data/refusals.txt");

/// What real programs print: texts they were seen to print, and the formats they print with.
struct Evidence {
    formats: Vec<String>,
    /// The parts that are missing.
    missing: Vec<&'static str>,
}

impl Evidence {
    fn collect() -> Self {
        let formats = REFUSALS.lines().filter_map(|line| line.strip_prefix("format: ")).map(str::to_owned).collect();
        let mut evidence = Self { formats, missing: Vec::new() };
        let libraries = "/usr/lib/x86_64-linux-gnu";
        for (what, file) in [
            ("QEMU", "/usr/bin/qemu-system-x86_64".to_owned()),
            ("libvirt's QEMU driver", format!("{libraries}/libvirt/connection-driver/libvirt_driver_qemu.so")),
            ("libvirt", format!("{libraries}/libvirt.so.0")),
        ] {
            match std::fs::read(&file) {
                Ok(bytes) => evidence.formats.extend(texts(&bytes)),
                Err(_) => evidence.missing.push(what),
            }
        }
        evidence
    }

    /// Whether `text` was seen, or is what some format of a program makes.
    fn has(&self, text: &str) -> bool {
        RECORDED.iter().any(|seen| seen.contains(text)) || self.formats.iter().any(|format| makes(format, text))
    }
}

/// The texts in a program, as `strings` finds them.
fn texts(program: &[u8]) -> impl Iterator<Item = String> {
    program
        .split(|byte| !matches!(byte, b' '..=b'~'))
        .filter(|run| run.len() >= 8)
        .map(|run| String::from_utf8_lossy(run).into_owned())
}

/// Whether printf makes `text` of `format`: what is between the conversions is in the text, in order, from its start to
/// its end, and is most of it.
fn makes(format: &str, text: &str) -> bool {
    let mut pieces = format.split('%');
    let first = pieces.next().unwrap_or_default();
    let rest: Vec<&str> = pieces
        .map(|piece| {
            let conversion =
                piece.find(|c: char| c.is_ascii_alphabetic() && !"hjlz".contains(c)).map_or(piece.len(), |at| at + 1);
            &piece[conversion..]
        })
        .collect();
    let fixed = first.len() + rest.iter().map(|piece| piece.len()).sum::<usize>();
    let Some(mut left) = text.strip_prefix(first).filter(|_| fixed * 2 >= text.len()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for piece in middle {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

#[test]
fn a_format_makes_its_texts_only() {
    let format = "Address space limit 0x%lx < 0x%lx phys-bits too low (%u)";
    assert!(makes(format, "Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)"));
    assert!(!makes(format, "Address space limit 0xffffffffff > 0x2337fffffff phys-bits too low (40)"));
    assert!(!makes(format, "Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40) or so"));
    assert!(makes("slots '%1$s' of %2$zu", "slots 'a' of 3"));
    assert!(!makes("%s", "anything") && !makes("no slots", "no slots at all"));
}

#[test]
fn what_pages_quote_is_what_programs_print() {
    let evidence = Evidence::collect();
    let mut quoted = 0;
    for (rule, error) in RULES.iter().flat_map(|rule| rule.page.errors.iter().map(move |error| (rule, error))) {
        quoted += 1;
        if evidence.has(error.text) {
            continue;
        }
        assert!(!evidence.missing.is_empty(), "{}: nothing prints `{}`", rule.id, error.text);
        skip(&format!("`{}` of {} is not looked up: {} missing", error.text, rule.id, evidence.missing.join(", ")));
    }
    note(&format!("{quoted} quoted errors, {} texts of programs", evidence.formats.len()));
    assert!(quoted >= 30);
}

/// Of a BAR in the range, QEMU printed this when the guest's firmware had enabled it.
#[test]
fn the_page_of_bars_quotes_what_a_refused_bar_prints() {
    let (_, seen) = RECORDED[0].split_once("-device vfio-pci,host=0000:00:11.0,addr=0x10\n").expect("the BAR");
    let rule = RULES.iter().find(|rule| rule.id == "bar-in-reserved-range").expect("the rule");
    let quote = rule.page.errors[0].text;
    assert!(seen.contains(quote), "`{quote}` is not in {seen}");
}

/// The command lines of a page that run QEMU alone.
fn refusals(rule: &Rule) -> impl Iterator<Item = &'static str> {
    rule.page.verify.iter().filter_map(|block| match block {
        Block::Shell(line) if line.starts_with("qemu-system-x86_64") && line.contains(" -S ") => Some(*line),
        _ => None,
    })
}

#[test]
fn the_commands_that_show_a_refusal_show_it() {
    if Command::new("qemu-system-x86_64").arg("-version").output().is_err() {
        return skip("qemu-system-x86_64 is missing");
    }
    let mut shown = 0;
    for (rule, line) in RULES.iter().flat_map(|rule| refusals(rule).map(move |line| (rule, line))) {
        let output = Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(line.split(' '))
            .output()
            .expect("run QEMU");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}\n{stderr}");
        let fixed = |text: &str| text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        assert!(rule.page.errors.iter().any(|error| stderr.contains(&fixed(error.text))), "{line}\n{stderr}");
        shown += 1;
    }
    assert!(shown >= 4, "{shown} commands");
}
