//! Any bytes as a domain: read, evaluated for several hosts under several policies, reported and rewritten.

#![no_main]

use std::sync::LazyLock;

use iova_preflight::Layout;
use iova_preflight::address::GpaRange;
use iova_preflight::domain::{self, Domain};
use iova_preflight::finding::{Finding, Severity};
use iova_preflight::fix::rewrite::rewrite;
use iova_preflight::host::{Host, builtin};
use iova_preflight::machine::{Resolved, resolve};
use iova_preflight::policy::Policy;
use iova_preflight::report::json::GuestReport;
use iova_preflight::report::picture::{self, Picture};
use iova_preflight::report::sarif::LogBuilder;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::{Evaluation, Verdict, evaluate};
use iova_preflight::xml::{Document, Element, Location, Span, XmlError};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Hosts about which everything, only the CPU, or nothing is known, with policies that allow all, some, or no changes.
static SETTINGS: LazyLock<Vec<(Host, Policy)>> = LazyLock::new(|| {
    let profile = |text| Host::from_profile(text).expect("a sample profile");
    let policy = |text| Policy::from_toml(text).expect("a policy");
    vec![
        (profile(include_str!("../../xml-samples/hosts/debian-12-epyc.toml")), Policy::default()),
        (
            builtin("amd-epyc").expect("a built-in profile"),
            policy("passthrough = 'assume'\nmachine_upgrade = 'latest'\nphys_bits = 'host'"),
        ),
        (Host::default(), policy("passthrough = 'assume'\nmachine_upgrade = 'never'\nphys_bits = 'never'")),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let document = match Document::parse(bytes) {
        Ok(document) => document,
        Err(error) => return check_error(bytes, &error),
    };
    assert_eq!(document.source().as_bytes(), bytes, "the source is not the input");
    check_element(&document, document.root(), Span::new(0, bytes.len()));
    let domain = match domain::read(&document) {
        Ok(domain) => domain,
        Err(error) => {
            check_span(&document, error.span);
            assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
            return;
        }
    };
    for (host, policy) in SETTINGS.iter() {
        let evaluation = evaluate(&domain, host, policy);
        check_evaluation(&document, &evaluation);
        check_fix(&document, &evaluation, host, policy);
        check_picture(&domain, &evaluation);
        check_sarif(&document, &domain, &evaluation);
        let json = report(&document, &domain, &evaluation);
        let again = evaluate(&domain, host, policy);
        assert_eq!(json, report(&document, &domain, &again), "the same domain is evaluated in two ways");
    }
});

fn check_error(bytes: &[u8], error: &XmlError) {
    assert_place(bytes, error.location);
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    let again = Document::parse(bytes).expect_err("the same bytes");
    assert_eq!(*error, again, "the same bytes are refused in two ways");
}

fn assert_place(bytes: &[u8], place: Location) {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!((1..=lines).contains(&place.line), "line {} of {lines}", place.line);
    let line = bytes.split(|&byte| byte == b'\n').nth(place.line - 1).unwrap_or_default();
    assert!((1..=line.len() + 1).contains(&place.column), "column {} of {}", place.column, line.len());
}

/// A span lies in the source and cuts no character: slicing panics otherwise.
fn check_span<'d>(document: &'d Document<'_>, span: Span) -> &'d str {
    &document.source()[span.start..span.end]
}

fn check_element(document: &Document<'_>, element: Element<'_>, parent: Span) {
    let (whole, tag, text) = (element.span(), element.start_tag(), element.text_span());
    assert!(parent.start <= whole.start && whole.end <= parent.end, "an element outside of its parent");
    for span in [whole, tag] {
        let markup = check_span(document, span);
        assert!(markup.starts_with('<') && markup.ends_with('>'), "{markup:?}");
    }
    assert!(check_span(document, tag)[1..].starts_with(element.name()), "{:?}", element.name());
    check_span(document, text);
    assert!(whole.start <= text.start && text.end <= whole.end, "text outside of its element");
    assert!(element.text().len() <= whole.end - whole.start, "text longer than its element");
    let mut before = tag.end;
    for child in element.children() {
        assert!(before <= child.span().start, "children that overlap");
        before = child.span().end;
        check_element(document, child, whole);
    }
}

fn check_evaluation(document: &Document<'_>, evaluation: &Evaluation) {
    for finding in &evaluation.findings {
        check_finding(document, finding);
    }
    let worst = evaluation.findings.iter().map(|finding| finding.severity).max();
    let verdict = evaluation.verdict;
    assert_eq!(verdict.stops(), worst == Some(Severity::Error), "{verdict:?} with {worst:?}");
    assert_eq!(verdict == Verdict::Fixable, evaluation.fix.is_some(), "{verdict:?} with {:?}", evaluation.fix);
    assert_eq!(verdict == Verdict::Blocked, !evaluation.tried.is_empty(), "{verdict:?}, {:?}", evaluation.tried);
    assert_eq!(verdict == Verdict::NotApplicable, evaluation.not_applicable.is_some(), "{verdict:?} without a reason");
    if let Some(layout) = &evaluation.facts.layout {
        let machine = evaluation.facts.machine.as_deref().map(resolve);
        let old = matches!(machine, Some(Resolved::Known(machine)) if machine.broken_reserved_end());
        check_layout(layout, old);
        for (_, device) in &evaluation.facts.memory_devices {
            let window = layout.device_memory;
            assert!(window.is_some_and(|window| window.contains(*device)), "{device} outside of {window:?}");
        }
    }
}

fn check_finding(document: &Document<'_>, finding: &Finding) {
    assert!(!finding.message().is_empty() && !finding.message().contains('\n'), "{finding:?}");
    for label in finding.related.iter().chain([&finding.primary]) {
        check_span(document, label.span);
    }
    assert!(finding.range.is_none_or(|range| range.start <= range.end), "{finding:?}");
}

/// What QEMU lays out does not overlap and comes in the order of its addresses. Only `old` machine types forget the
/// device memory when they place the PCI hole after it.
fn check_layout(layout: &Layout, old: bool) {
    let device_memory = layout.device_memory.filter(|_| !old);
    let ranges = [Some(layout.ram_below_4g), layout.ram_above_4g, device_memory, layout.pci_hole64];
    let ranges: Vec<GpaRange> = ranges.into_iter().flatten().collect();
    assert!(ranges.iter().all(|range| range.start <= range.end), "{layout:?}");
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{layout:?}");
    // `max_gpa` is not asserted: for a CPU without long mode QEMU counts less than it lays out.
    assert!(layout.phys_bits_needed <= 64, "{layout:?}");
    let reach = 1_u128 << layout.phys_bits_needed;
    assert!(u128::from(layout.max_gpa) < reach && reach <= u128::from(layout.max_gpa).max(1) * 2, "{layout:?}");
}

/// A fix that is offered can be made, and helps.
fn check_fix(document: &Document<'_>, evaluation: &Evaluation, host: &Host, policy: &Policy) {
    let Some(fix) = &evaluation.fix else { return };
    let text = rewrite(document, fix).expect("the fix fits the document it was planned for");
    let fixed = Document::parse(text.as_bytes()).expect("the rewritten document is XML");
    let domain = domain::read(&fixed).expect("the rewritten document is a domain");
    let verdict = evaluate(&domain, host, policy).verdict;
    assert!(matches!(verdict, Verdict::Pass | Verdict::Warn), "{verdict:?} after {:?}:\n{text}", fix.changes);
}

/// Every fix in the log, made by lines and columns alone, gives what the rewrite gives.
fn check_sarif(document: &Document<'_>, domain: &Domain, evaluation: &Evaluation) {
    let mut builder = LogBuilder::default();
    builder.guest("domain.xml", GuestSource::Xml(document, domain), evaluation, None);
    let log = serde_json::to_value(builder.finish(0, None)).expect("JSON");
    let results = log["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), evaluation.findings.len());
    let Some(fix) = &evaluation.fix else { return };
    let expected = rewrite(document, fix).expect("the fix fits the document it was planned for");
    let fixes = results.iter().filter_map(|result| result["fixes"].as_array()).flatten();
    let mut all = 0;
    for fix in fixes {
        assert_eq!(applied(document.source(), &fix["artifactChanges"][0]["replacements"]), expected);
        all += 1;
    }
    assert!(all > 0, "a fixable guest without a fix");
}

/// `text` with the replacements made, whose columns count characters and no byte order mark.
fn applied(text: &str, replacements: &Value) -> String {
    let (mark, body) = text.strip_prefix('\u{feff}').map_or(("", text), |body| ("\u{feff}", body));
    let starts: Vec<usize> = std::iter::once(0).chain(body.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let offset = |line: &Value, column: &Value| {
        let number = |value: &Value| value.as_u64().expect("a number") as usize - 1;
        let start = starts[number(line)];
        start + body[start..].chars().take(number(column)).map(char::len_utf8).sum::<usize>()
    };
    let mut result = String::from(mark);
    let mut copied = 0;
    for replacement in replacements.as_array().expect("replacements") {
        let region = &replacement["deletedRegion"];
        let start = offset(&region["startLine"], &region["startColumn"]);
        result += &body[copied..start];
        result += replacement["insertedContent"]["text"].as_str().unwrap_or_default();
        copied = offset(&region["endLine"], &region["endColumn"]);
    }
    result + &body[copied..]
}

/// Every map is drawn: blocks without gaps, an SVG that is XML, and no terminal control sequences except colours.
fn check_picture(domain: &Domain, evaluation: &Evaluation) {
    let hypotheses = evaluation.hypotheses.iter().map(|(heading, facts)| (heading.clone(), facts));
    let views: Vec<_> = hypotheses.chain([(domain.name.clone(), &evaluation.facts)]).collect();
    let Some(picture) = Picture::new(domain.name.clone(), &views, vec![domain.name.clone()]) else { return };
    let gapless = |ranges: &[GpaRange]| {
        assert_eq!(ranges[0].start, 0, "{picture:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].end.checked_add(1) == Some(pair[1].start)), "{picture:?}");
    };
    gapless(&picture.intervals.iter().map(|interval| interval.range).collect::<Vec<_>>());
    for column in &picture.columns {
        gapless(&column.blocks.iter().map(|block| block.range).collect::<Vec<_>>());
    }
    let svg = picture::svg(&picture);
    Document::parse(svg.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{svg}"));
    let text = picture::text(&picture, 80);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\u{1b}'), "{text:?}");
}

fn report(document: &Document<'_>, domain: &Domain, evaluation: &Evaluation) -> String {
    let report = GuestReport::new("-".to_owned(), GuestSource::Xml(document, domain), evaluation, None);
    let json = serde_json::to_string(&report).expect("a report is JSON");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON that reads back");
    assert_eq!(value["verdict"], evaluation.verdict.name(), "the verdict is lost");
    json
}
