//! Any bytes as a QEMU command line: read, evaluated for several hosts under several policies, reported, fixed, and
//! read again.

#![no_main]

use std::sync::LazyLock;

use iova_preflight::argv::{Call, CallError, is_xml};
use iova_preflight::command_line::{Launch, Origin};
use iova_preflight::finding::Severity;
use iova_preflight::fix::rewrite::rewrite_call;
use iova_preflight::host::{Host, builtin};
use iova_preflight::policy::Policy;
use iova_preflight::report::json::GuestReport;
use iova_preflight::report::sarif::LogBuilder;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::{Evaluation, Verdict, evaluate};
use iova_preflight::xml::Span;
use libfuzzer_sys::fuzz_target;

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
    is_xml(bytes);
    if let Ok(process) = Call::of_process(bytes) {
        check_call(&process, |bytes| Call::of_process(bytes));
    }
    match Call::read(bytes) {
        Ok(call) => check_call(&call, |bytes| Call::read(bytes)),
        Err(error) => check_error(bytes, &error),
    }
});

fn check_error(bytes: &[u8], error: &CallError) {
    let place = error.location;
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!((1..=lines).contains(&place.line), "line {} of {lines}", place.line);
    let line = bytes.split(|&byte| byte == b'\n').nth(place.line - 1).unwrap_or_default();
    assert!((1..=line.len() + 1).contains(&place.column), "column {} of {}", place.column, line.len());
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    assert_eq!(*error, Call::read(bytes).expect_err("the same bytes"), "the same bytes are refused in two ways");
}

/// How a text was read.
type Read = for<'t> fn(&'t [u8]) -> Result<Call<'t>, CallError>;

fn check_call(call: &Call<'_>, read: Read) {
    let source = call.source();
    let launch = Launch::read(call);
    check_places(source, &launch);
    for (host, policy) in SETTINGS.iter() {
        let evaluation = evaluate(&launch, host, policy);
        check_evaluation(source, &evaluation);
        check_fix((call, read), &launch, &evaluation, host, policy);
        let json = report(call, &launch, &evaluation);
        let again = evaluate(&launch, host, policy);
        assert_eq!(json, report(call, &launch, &again), "the same call is evaluated in two ways");
    }
}

/// A span lies in the source and cuts no character: slicing panics otherwise.
fn check_span(source: &str, span: Span) -> &str {
    &source[span.start..span.end]
}

/// What is read comes from the arguments that are there, and the arguments are in the text one after another.
fn check_places(source: &str, launch: &Launch) {
    check_span(source, launch.span);
    let line = &launch.line;
    let devices = line.devices.iter().chain(&line.host_ends);
    let properties = devices.clone().flat_map(|device| device.properties.iter()).map(|property| property.origin);
    let sizes = line.backends.iter().map(|backend| backend.size.origin);
    let others = line.not_modelled.iter().map(|entry| entry.origin);
    let globals = line.globals.iter().map(|global| global.property.origin);
    for origin in devices.map(|device| device.origin).chain(properties).chain(sizes).chain(others).chain(globals) {
        let Origin::Argument { number, span } = origin else { panic!("{origin:?} in a command line") };
        assert!(number < launch.arguments.len(), "{origin:?} of {} arguments", launch.arguments.len());
        check_span(source, span);
    }
}

fn check_evaluation(source: &str, evaluation: &Evaluation) {
    for finding in &evaluation.findings {
        assert!(!finding.message().is_empty() && !finding.message().contains('\n'), "{finding:?}");
        for label in finding.related.iter().chain([&finding.primary]) {
            check_span(source, label.span);
        }
        assert!(finding.range.is_none_or(|range| range.start <= range.end), "{finding:?}");
    }
    let worst = evaluation.findings.iter().map(|finding| finding.severity).max();
    let verdict = evaluation.verdict;
    assert_eq!(verdict.stops(), worst == Some(Severity::Error), "{verdict:?} with {worst:?}");
    assert_eq!(verdict == Verdict::Fixable, evaluation.fix.is_some(), "{verdict:?} with {:?}", evaluation.fix);
    assert_eq!(verdict == Verdict::Blocked, !evaluation.tried.is_empty(), "{verdict:?}, {:?}", evaluation.tried);
    assert_eq!(verdict == Verdict::NotApplicable, evaluation.not_applicable.is_some(), "{verdict:?} without a reason");
}

/// A fix that is offered can be made; the fixed text is a call of the same program for a guest that is not stopped.
fn check_fix((call, read): (&Call<'_>, Read), launch: &Launch, evaluation: &Evaluation, host: &Host, policy: &Policy) {
    let Some(fix) = &evaluation.fix else { return };
    let text = rewrite_call(call, launch, fix).expect("the fix fits the call it was planned for");
    let fixed = read(text.as_bytes());
    let fixed = fixed.unwrap_or_else(|error| panic!("{error} after {:?}:\n{text}", fix.changes));
    if fixed.form != call.form {
        return;
    }
    let again = Launch::read(&fixed);
    assert_eq!(again.program, launch.program, "{text}");
    let after = evaluate(&again, host, policy);
    let verdict = after.verdict;
    assert!(
        matches!(verdict, Verdict::Pass | Verdict::Warn),
        "{verdict:?} after {:?}: {:?}\nbefore: {:?}\nafter: {text:?}",
        fix.changes,
        after.findings,
        call.source()
    );
}

fn report(call: &Call<'_>, launch: &Launch, evaluation: &Evaluation) -> String {
    let source = GuestSource::Call(call, launch);
    let mut log = LogBuilder::default();
    log.guest("a.args", source, evaluation, None);
    let log = serde_json::to_value(log.finish(0, None)).expect("JSON");
    assert_eq!(log["runs"][0]["results"].as_array().map(Vec::len), Some(evaluation.findings.len()));
    let json =
        serde_json::to_string(&GuestReport::new("-".to_owned(), source, evaluation, None)).expect("a report is JSON");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON that reads back");
    assert_eq!(value["verdict"], evaluation.verdict.name(), "the verdict is lost");
    json
}
