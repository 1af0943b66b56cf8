//! `fix` over libvirt's own test domains, as they are and as large guests of old machine types:
//! if there is nothing to do not a byte changes, and elsewhere only what has to.

use crate::common::{Differences, corpus, evaluated, note, skip, work_dir, xml_files};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What `virt-xml-validate` checks a domain against.
const SCHEMA: &str = "/usr/share/libvirt/schemas/domain.rng";

/// Every line that a fix writes or replaces holds one of these.
const WORDS: [&str; 4] = ["machine", "maxphysaddr", "cpu", "pcihole64"];

const GIB_IN_KIB: u64 = 1 << 20;

/// RAM that collides with the HyperTransport range whatever the machine type's split below 4 GiB.
const LARGE_KIB: u64 = 1200 * GIB_IN_KIB;

/// A 64-bit PCI hole (400 TiB) that no 48 bits address.
const HOLE_KIB: u64 = 400 * 1024 * GIB_IN_KIB;

#[test]
fn libvirt_domains_change_where_they_have_to_and_nowhere_else() {
    let Some(corpus) = corpus() else {
        return;
    };
    let work = work_dir("fix-corpus");
    let tool = Tool::new(&work);
    let (before, after) = (folder(&work, "before"), folder(&work, "after"));
    let files = write_variants(&corpus, &before);
    let guests = tool.check(&files);

    let mut diffs = Differences::default();
    let mut verdicts = BTreeMap::<&str, usize>::new();
    let mut changed = Vec::new();
    for file in &files {
        let case = file_name(file);
        let guest = &guests[&case];
        let verdict = guest["verdict"].as_str().unwrap_or("none");
        *verdicts.entry(verdict).or_default() += 1;
        let input = std::fs::read(file).expect("read a domain");
        let output = tool.fix(&input);
        let at = (case.as_str(), verdict);
        if verdict != "fixable" {
            unchanged(&mut diffs, at, &input, &output);
            continue;
        }
        diffs.expect(at, "exit code", output.status.code() == Some(0), "0", &output.status.to_string());
        let (old, new) = (String::from_utf8_lossy(&input), String::from_utf8_lossy(&output.stdout));
        diffs.expect(at, "rewritten", old != new, "another text", "the same text");
        let readdressed = guest["fix"]["changes"].to_string().contains("memory device");
        for line in changed_lines(&old, &new) {
            let expected = WORDS.iter().any(|word| line.contains(word)) || readdressed && line.contains("<address");
            diffs.expect(at, "changed line", expected, "a line about machine, CPU or PCI hole", line);
        }
        let again = tool.fix(&output.stdout);
        let same = again.stdout == output.stdout && again.status.code() == Some(0);
        diffs.expect(at, "second run", same, "no change", &again.status.to_string());
        let path = after.join(&case);
        std::fs::write(&path, &output.stdout).expect("write a fixed domain");
        changed.push(path);
    }
    still_valid(&mut diffs, &before, &changed);
    for (case, guest) in tool.check(&changed) {
        let verdict = guest["verdict"].as_str().unwrap_or("none");
        diffs.expect((&case, "fixed"), "verdict", ["pass", "warn"].contains(&verdict), "pass or warn", verdict);
    }
    diffs.assert_none(&format!("wrong rewrites; the domains are in {}", work.display()));
    assert!(changed.len() > 100, "only {} domains have something to fix", changed.len());
    let count = files.len();
    note(&format!("fix corpus: {count} domains {verdicts:?}, {} facts compared", diffs.compared));
}

#[test]
fn line_ends_and_byte_order_marks_are_kept() {
    let Some(corpus) = corpus() else {
        return;
    };
    let work = work_dir("fix-corpus-crlf");
    let tool = Tool::new(&work);
    let (plain, other) = (folder(&work, "plain"), folder(&work, "other"));
    let files = write_variants(&corpus, &plain);
    for file in &files {
        let text = std::fs::read_to_string(file).expect("read a domain");
        std::fs::write(other.join(file_name(file)), windows(&text)).expect("write a domain");
    }
    // Each folder as a whole, whatever else is in it.
    for folder in [&plain, &other] {
        let output = tool.command(&["fix", "--in-place", "-q"]).arg(folder).output().expect("run iova-preflight");
        let code = output.status.code();
        assert!(matches!(code, Some(0..=2)), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut diffs = Differences::default();
    for file in &files {
        let case = file_name(file);
        let plain = std::fs::read_to_string(file).expect("read a domain");
        let other = std::fs::read_to_string(other.join(&case)).expect("read a domain");
        let same = windows(&plain) == other;
        diffs.expect((&case, "crlf"), "text", same, &windows(&plain), &other);
    }
    diffs.assert_none(&format!("line ends or byte order marks lost; the domains are in {}", work.display()));
}

/// The text as some editors store it.
fn windows(text: &str) -> String {
    format!("\u{feff}{}", text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

/// Nothing to fix, or no fix.
fn unchanged(diffs: &mut Differences, at: (&str, &str), input: &[u8], output: &Output) {
    let (code, printed): (_, &[u8]) = match at.1 {
        "error" => (2, b""),
        "blocked" => (1, b""),
        _ => (0, input),
    };
    diffs.expect(at, "exit code", output.status.code() == Some(code), &code.to_string(), &output.status.to_string());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    diffs.expect(at, "stdout", output.stdout == printed, &text(printed), &text(&output.stdout));
    let says_why = code == 0 || !output.stderr.is_empty();
    diffs.expect(at, "stderr", says_why, "a reason", "nothing");
}

/// The schema accepts what is rewritten wherever it accepted it before.
fn still_valid(diffs: &mut Differences, before: &Path, changed: &[PathBuf]) {
    let old: Vec<PathBuf> = changed.iter().map(|file| before.join(file_name(file))).collect();
    let (old, new) = match (valid(&old), valid(changed)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(why), _) | (_, Err(why)) => return skip(&format!("no check against libvirt's schema: {why}")),
    };
    for case in &old {
        diffs.expect((case, "schema"), "valid", new.contains(case), "valid as before", "invalid");
    }
    note(&format!("fix corpus: {} of {} rewritten domains were valid and had to stay so", old.len(), changed.len()));
    assert!(!old.is_empty(), "the schema accepts not one domain");
}

/// The names of the files that libvirt's schema accepts.
fn valid(files: &[PathBuf]) -> Result<BTreeSet<String>, String> {
    if !Path::new(SCHEMA).exists() {
        return Err(format!("{SCHEMA} is not there"));
    }
    let output = Command::new("xmllint")
        .args(["--noout", "--relaxng", SCHEMA])
        .args(files)
        .output()
        .map_err(|e| format!("xmllint: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let accepted = text.lines().filter_map(|line| line.strip_suffix(" validates"));
    Ok(accepted.map(|path| file_name(Path::new(path))).collect())
}

/// The program with everything that shapes its verdicts fixed.
struct Tool {
    policy: PathBuf,
}

impl Tool {
    fn new(work: &Path) -> Self {
        let policy = work.join("policy.toml");
        std::fs::write(&policy, "passthrough = \"assume\"\n").expect("write the policy");
        Tool { policy }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(arguments).args(["--host", "amd-epyc", "--policy"]).arg(&self.policy);
        command
    }

    fn fix(&self, input: &[u8]) -> Output {
        let mut command = self.command(&["fix", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run iova-preflight");
        child.stdin.take().expect("a pipe").write_all(input).expect("write the domain");
        child.wait_with_output().expect("wait for iova-preflight")
    }

    /// What `check` says about each file, by its name.
    fn check(&self, files: &[PathBuf]) -> BTreeMap<String, Value> {
        evaluated(self.command(&["check", "--format", "json"]).args(files))
    }
}

fn folder(work: &Path, name: &str) -> PathBuf {
    let path = work.join(name);
    std::fs::create_dir(&path).expect("create a folder");
    path
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a case is a file").to_string_lossy().into_owned()
}

/// Writes every domain of the corpus as it is, and with each change that gives something to fix.
fn write_variants(corpus: &Path, into: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in xml_files(corpus) {
        let text = std::fs::read_to_string(&path).expect("a domain in UTF-8");
        let name = file_name(&path).trim_end_matches(".xml").to_owned();
        let variants = [
            ("as-is", text.clone()),
            ("large", large(&text)),
            ("large-old", old_machine(&large(&text))),
            ("hole", wide_hole(&text)),
        ];
        for (index, (variant, changed)) in variants.iter().enumerate() {
            if variants[..index].iter().any(|(_, earlier)| earlier == changed) {
                continue;
            }
            let file = into.join(format!("{name}.{variant}.xml"));
            std::fs::write(&file, changed).expect("write a domain");
            files.push(file);
        }
    }
    files
}

/// With 1200 GiB of RAM, all of it or shared out over the NUMA cells, and room for hot-plug.
fn large(text: &str) -> String {
    let text = with_size(text, "memory", LARGE_KIB);
    let text = with_size(&text, "currentMemory", LARGE_KIB);
    let text = with_size(&text, "maxMemory", 2 * LARGE_KIB);
    let cells = text.matches("<cell ").count().max(1) as u64;
    let mut result = String::new();
    for (index, part) in text.split("<cell ").enumerate() {
        let (tag, rest) = if index == 0 { ("", part) } else { part.split_at(part.find('>').unwrap_or(0)) };
        let tag = with_attribute(tag, "memory", &(LARGE_KIB / cells).to_string());
        let start = if index == 0 { "" } else { "<cell " };
        result += &format!("{start}{}{rest}", with_attribute(&tag, "unit", "KiB"));
    }
    result
}

fn old_machine(text: &str) -> String {
    let text = text.replace("machine='pc'", "machine='pc-i440fx-6.2'").replace("machine='q35'", "machine='pc-q35-6.2'");
    text.replace("machine=\"pc\"", "machine=\"pc-i440fx-6.2\"").replace("machine=\"q35\"", "machine=\"pc-q35-6.2\"")
}

fn wide_hole(text: &str) -> String {
    with_size(text, "pcihole64", HOLE_KIB)
}

/// The text with another size in every element `name` that holds nothing but a number.
fn with_size(text: &str, name: &str, kib: u64) -> String {
    let open = format!("<{name}");
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&open) {
        let (before, element) = rest.split_at(at + open.len());
        result += before;
        rest = element;
        let Some((tag, inside)) = element.split_once('>') else { continue };
        let number = inside.split('<').next().unwrap_or_default();
        let is_size = tag.is_empty() || tag.starts_with(' ') && !tag.ends_with('/');
        if is_size && number.trim().parse::<u64>().is_ok() {
            result += &format!("{}>{kib}", with_attribute(tag, "unit", "KiB"));
            rest = &inside[number.len()..];
        }
    }
    result + rest
}

/// A start tag with another value of an attribute, where it has that.
fn with_attribute(tag: &str, name: &str, value: &str) -> String {
    for quote in ['\'', '"'] {
        let start = format!(" {name}={quote}");
        if let Some((before, after)) = format!(" {tag}").split_once(&start) {
            let after = after.split_once(quote).map_or("", |(_, after)| after);
            return format!("{before}{start}{value}{quote}{after}")[1..].to_owned();
        }
    }
    tag.to_owned()
}

/// The lines of either text that are not part of a longest common subsequence.
fn changed_lines<'t>(old: &'t str, new: &'t str) -> Vec<&'t str> {
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    old.drain(..same);
    new.drain(..same);
    while old.last().is_some_and(|line| new.last() == Some(line)) {
        old.pop();
        new.pop();
    }
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let longest = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { longest };
        }
    }
    let (mut i, mut j, mut changed) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            changed.push(old[i]);
            i += 1;
        } else {
            changed.push(new[j]);
            j += 1;
        }
    }
    changed
}
