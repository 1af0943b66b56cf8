//! The log that `--format sarif` prints: Static Analysis Results Interchange Format, version 2.1.0 (OASIS). Of its
//! object model only what code scanning services and editors show.

use serde::Serialize;

use crate::advice::{advise, place as place_of_change};
use crate::domain::Owner;
use crate::explain;
use crate::finding::{Finding, Label, Severity};
use crate::fix::Fix;
use crate::report::Unreadable;
use crate::report::source::GuestSource;
use crate::rules::page::Block;
use crate::rules::{RULES, Rule, is_about_bars};
use crate::verdict::{Evaluation, Verdict};
use crate::xml::edit::Edit;
use crate::xml::{Places, Span};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The rule of inputs that could not be evaluated. It is not one of [`crate::rules`], but services show results only.
const UNREADABLE: &str = "unreadable-input";

/// A log with one run.
#[derive(Debug, Serialize)]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    invocations: [Invocation; 1],
    column_kind: &'static str,
    results: Vec<SarifResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<RunProperties>,
}

#[derive(Debug, Serialize)]
struct RunProperties {
    policy: String,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    semantic_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    information_uri: Option<String>,
    rules: Vec<ReportingDescriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportingDescriptor {
    id: &'static str,
    short_description: Message,
    full_description: Message,
    help: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    help_uri: Option<String>,
    default_configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: Severity,
}

#[derive(Debug, Clone, Serialize)]
struct Message {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    exit_code: u8,
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Debug, Serialize)]
struct Notification {
    level: Severity,
    message: Message,
    locations: [ResultLocation; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: &'static str,
    rule_index: usize,
    level: Severity,
    message: Message,
    locations: [ResultLocation; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_locations: Vec<ResultLocation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_fingerprints: Option<Fingerprints>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixes: Vec<SarifFix>,
}

/// What stays the same while the lines of a file move.
#[derive(Debug, Serialize)]
struct Fingerprints {
    #[serde(rename = "guestRule/v1")]
    guest_rule: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultLocation {
    physical_location: PhysicalLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<TextRegion>,
}

#[derive(Debug, Clone, Serialize)]
struct ArtifactLocation {
    uri: String,
}

/// Lines and columns count from 1; the end column is the one after the last character.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct TextRegion {
    start_line: usize,
    start_column: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_column: Option<usize>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifFix {
    description: Message,
    artifact_changes: [ArtifactChange; 1],
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactChange {
    artifact_location: ArtifactLocation,
    replacements: Vec<Replacement>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replacement {
    deleted_region: TextRegion,
    #[serde(skip_serializing_if = "Option::is_none")]
    inserted_content: Option<Message>,
}

/// Gathers what a log is made of.
#[derive(Debug, Default)]
pub struct LogBuilder {
    results: Vec<SarifResult>,
    notifications: Vec<Notification>,
}

impl LogBuilder {
    /// Adds a guest that was evaluated; `source` is the path of what it was read from, `words` whose words its fix is
    /// told in, if not in libvirt's.
    pub fn guest(&mut self, source: &str, guest: GuestSource<'_>, evaluation: &Evaluation, words: Option<Owner>) {
        let places = Places::of(guest.text());
        let whole_fix = evaluation.any_fix().map(|fix| sarif_fix(source, guest, &places, fix));
        for (index, finding) in evaluation.findings.iter().enumerate() {
            let same = evaluation.findings[..index].iter().filter(|other| other.rule == finding.rule).count();
            let guest_rule = format!("{}/{}/{same}", guest.name(), finding.rule);
            // Every error of the guest gets the fix: it fixes the guest as a whole.
            let fixes = whole_fix.iter().filter(|_| is_fixed(finding, evaluation)).cloned().collect();
            self.results.push(SarifResult {
                rule_id: finding.rule,
                rule_index: rule_index(finding.rule),
                level: finding.severity,
                message: said_of(finding, guest, evaluation, words),
                locations: [labelled(source, &places, &finding.primary)],
                related_locations: finding.related.iter().map(|label| labelled(source, &places, label)).collect(),
                partial_fingerprints: Some(Fingerprints { guest_rule }),
                fixes,
            });
        }
        let of_fix = evaluation.any_fix().and_then(|fix| fix.assumption.clone());
        let of_verdict = evaluation.assumptions.iter().map(|assumption| format!("the verdict {assumption}"));
        for sentence in of_verdict.chain(of_fix) {
            let message = message(format!("{}: {sentence}", guest.name()));
            self.notifications.push(Notification { level: Severity::Note, message, locations: [place(source, None)] });
        }
    }

    /// Adds an input that could not be evaluated.
    pub fn unreadable(&mut self, source: &str, error: &Unreadable) {
        let region = || {
            let at = error.at?;
            Some(TextRegion { start_line: at.line, start_column: at.column, end_line: None, end_column: None })
        };
        self.notifications.push(Notification {
            level: Severity::Error,
            message: message(error.message.clone()),
            locations: [place(source, region())],
        });
        self.results.push(SarifResult {
            rule_id: UNREADABLE,
            rule_index: rule_index(UNREADABLE),
            level: Severity::Error,
            message: message(error.message.clone()),
            locations: [place(source, region())],
            related_locations: Vec::new(),
            partial_fingerprints: None,
            fixes: Vec::new(),
        });
    }

    /// Adds what another one has gathered.
    pub fn append(&mut self, other: Self) {
        self.results.extend(other.results);
        self.notifications.extend(other.notifications);
    }

    /// The log of a run that ends with `exit_code`. `policy` is the policy file, if it differs from the defaults.
    pub fn finish(self, exit_code: u8, policy: Option<String>) -> Log {
        let version = env!("CARGO_PKG_VERSION");
        let repository = Some(env!("CARGO_PKG_REPOSITORY")).filter(|uri| !uri.is_empty());
        let driver = Driver {
            name: env!("CARGO_PKG_NAME"),
            version,
            semantic_version: version,
            information_uri: repository.map(str::to_owned),
            rules: rules(repository),
        };
        let invocation = Invocation {
            // There is no notification for an input that could not be read.
            execution_successful: exit_code < 2,
            exit_code,
            tool_execution_notifications: self.notifications,
        };
        let run = Run {
            tool: Tool { driver },
            invocations: [invocation],
            column_kind: "unicodeCodePoints",
            results: self.results,
            properties: policy.map(|policy| RunProperties { policy }),
        };
        Log { schema: SCHEMA, version: "2.1.0", runs: [run] }
    }
}

/// The rules, with the pages about them; those are found below `repository`.
fn rules(repository: Option<&str>) -> Vec<ReportingDescriptor> {
    let uri = |rule: &Rule| {
        let version = env!("CARGO_PKG_VERSION");
        repository.map(|repository| format!("{repository}/blob/v{version}/docs/rules/{}.md", rule.id))
    };
    let unreadable = "The input could not be evaluated: it cannot be read, is not well-formed, or is neither a \
                      libvirt domain nor a QEMU command line. There is no verdict on the guest.";
    let described = RULES.iter().map(|rule| {
        let meaning: Vec<&str> = rule.page.meaning.iter().filter_map(words).collect();
        ReportingDescriptor {
            id: rule.id,
            short_description: message(capitalized(rule.summary)),
            full_description: message(meaning.first().copied().unwrap_or_default().replace('`', "")),
            help: Message {
                text: format!("{}\n\nFor details, run `iova-preflight explain {}`.", meaning.join("\n\n"), rule.id),
                markdown: Some(explain::help(rule)),
            },
            help_uri: uri(rule),
            default_configuration: Configuration {
                level: rule.page.severities.first().copied().unwrap_or(Severity::Note),
            },
        }
    });
    described
        .chain([ReportingDescriptor {
            id: UNREADABLE,
            short_description: message("The input could not be evaluated"),
            full_description: message(unreadable),
            help: message(unreadable),
            help_uri: None,
            default_configuration: Configuration { level: Severity::Error },
        }])
        .collect()
}

fn words(block: &Block) -> Option<&'static str> {
    match block {
        Block::Text(words) => Some(words),
        _ => None,
    }
}

fn rule_index(rule: &str) -> usize {
    RULES.iter().position(|known| known.id == rule).unwrap_or(RULES.len())
}

fn message(text: impl Into<String>) -> Message {
    Message { text: text.into(), markdown: None }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Whether it is what a fix of the guest is for.
fn is_fixed(finding: &Finding, evaluation: &Evaluation) -> bool {
    match evaluation.verdict {
        Verdict::Warn => is_about_bars(finding),
        _ => finding.severity == Severity::Error,
    }
}

/// What is wrong, why, and what helps: services show only this text next to the line.
fn said_of(finding: &Finding, guest: GuestSource<'_>, evaluation: &Evaluation, words: Option<Owner>) -> Message {
    let mut text = finding.message();
    if is_fixed(finding, evaluation) {
        if let Some(fix) = evaluation.any_fix() {
            text += &format!("\nFix: {}", changes(fix));
            if let Some(owner) = words {
                let advice = advise(owner, guest.subject(), fix);
                advice.steps.iter().for_each(|step| text += &format!("\n{}: {step}", owner.title()));
                advice.later.iter().for_each(|step| text += &format!("\nNew guests: {step}"));
            }
        }
        if evaluation.fix.is_none() {
            evaluation.tried.iter().for_each(|tried| text += &format!("\nTried: {tried}"));
        }
        if let (Some(owner), None) = (words, evaluation.any_fix()) {
            text += &format!("\n{}", place_of_change(owner));
        }
    }
    message(text)
}

fn changes(fix: &Fix) -> String {
    let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
    changes.join(", ")
}

fn labelled(source: &str, places: &Places<'_>, label: &Label) -> ResultLocation {
    ResultLocation { message: Some(message(label.text.clone())), ..place(source, Some(region(places, label.span))) }
}

fn place(source: &str, region: Option<TextRegion>) -> ResultLocation {
    ResultLocation {
        physical_location: PhysicalLocation { artifact_location: artifact(source), region },
        message: None,
    }
}

fn artifact(source: &str) -> ArtifactLocation {
    ArtifactLocation { uri: uri(source) }
}

fn region(places: &Places<'_>, span: Span) -> TextRegion {
    let (start, end) = (places.at(span.start), places.at(span.end));
    TextRegion {
        start_line: start.line,
        start_column: start.column,
        end_line: Some(end.line),
        end_column: Some(end.column),
    }
}

fn sarif_fix(source: &str, guest: GuestSource<'_>, places: &Places<'_>, fix: &Fix) -> SarifFix {
    let replacements = disjoint(guest.edits(fix).unwrap_or_default())
        .into_iter()
        .map(|edit| Replacement {
            deleted_region: region(places, edit.span),
            inserted_content: (!edit.text.is_empty()).then(|| message(edit.text)),
        })
        .collect();
    SarifFix {
        description: message(changes(fix)),
        artifact_changes: [ArtifactChange { artifact_location: artifact(source), replacements }],
    }
}

/// The same edits in the order of the text, with adjacent ones joined, so that they can be applied in any order.
fn disjoint(mut edits: Vec<Edit>) -> Vec<Edit> {
    edits.sort_by_key(|edit| edit.span);
    let mut joined: Vec<Edit> = Vec::with_capacity(edits.len());
    for edit in edits {
        match joined.last_mut() {
            Some(last) if last.span.end == edit.span.start => {
                last.span.end = edit.span.end;
                last.text += &edit.text;
            }
            _ => joined.push(edit),
        }
    }
    joined
}

/// A path as a URI reference: relative where the path is, without `.` segments, percent-encoded (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    let mut separator = if path.starts_with('/') { "/" } else { "" };
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        uri += separator;
        separator = "/";
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri += &format!("%{byte:02X}");
            }
        }
    }
    // The current folder has no name.
    if uri.is_empty() { "./".to_owned() } else { uri }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uri_references() {
        for (path, expected) in [
            ("a/b.xml", "a/b.xml"),
            ("./a//b.xml", "a/b.xml"),
            (".", "./"),
            ("../a.xml", "../a.xml"),
            ("/etc/libvirt/qemu/x y.xml", "file:///etc/libvirt/qemu/x%20y.xml"),
            ("a:b#c?d%.xml", "a%3Ab%23c%3Fd%25.xml"),
            ("größe.xml", "gr%C3%B6%C3%9Fe.xml"),
            ("-", "-"),
        ] {
            assert_eq!(uri(path), expected);
        }
    }

    #[test]
    fn the_pages_of_rules_are_below_the_repository() {
        let rules = rules(Some("https://example.org/x"));
        let uri = rules[0].help_uri.as_deref().expect("there");
        assert!(uri.starts_with("https://example.org/x/blob/v"), "{uri}");
        assert!(uri.ends_with("/docs/rules/unknown-machine-type.md"), "{uri}");
    }

    #[test]
    fn edits_that_touch_become_one() {
        let edit = |start, end, text: &str| Edit { span: Span::new(start, end), text: text.to_owned() };
        assert_eq!(
            disjoint(vec![edit(9, 10, "x"), edit(3, 4, "a"), edit(4, 4, "b"), edit(4, 6, "c")]),
            [edit(3, 6, "abc"), edit(9, 10, "x")]
        );
    }
}
