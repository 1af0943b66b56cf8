//! `iova-preflight map`.

use std::io::{self, Write};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result, anyhow};
use iova_preflight::Facts;
use iova_preflight::argv::Call;
use iova_preflight::command_line::Launch;
use iova_preflight::domain;
use iova_preflight::finding::Severity;
use iova_preflight::report::picture::{self, Picture};
use iova_preflight::report::source::GuestSource;
use iova_preflight::text::{quoted, size};
use iova_preflight::verdict::{Evaluation, Verdict, evaluate};
use iova_preflight::xml::Document;

use crate::args::{MapArgs, MapFormat};
use crate::input::Input;
use crate::input::evaluator::{Evaluated, Evaluator};
use crate::input::host::HostSource;
use crate::input::policy::ChosenPolicy;
use crate::outcome::Outcome;
use crate::output::terminal;
use crate::stderr::{self, complain};

/// Draws the memory map of one guest.
pub(crate) fn run(args: &MapArgs) -> Result<Outcome> {
    let policy = ChosenPolicy::choose(args.policy.as_deref())?;
    let source = HostSource::choose(args.host.as_deref())?;
    let mut evaluator = Evaluator::new(std::slice::from_ref(&source), &policy.policy).of_kind(args.input);
    let mut outcome = Outcome::Clean;
    evaluator.each(
        Input::one(&args.path),
        |evaluated| {
            evaluated.warning().iter().for_each(|line| stderr::line(line));
            match draw(evaluated, &source, &policy)? {
                Some(picture) => print(&picture, args.format)?,
                None => {
                    stderr::line(&format!("{}: no map: {}", evaluated.name, why_not(evaluated.evaluation)));
                    outcome = Outcome::Failed;
                }
            }
            Ok(())
        },
        |name, error| complain(name, &error),
    )?;
    // The exit status does not say whether the guest starts: that is for `check`.
    Ok(if evaluator.outcome == Outcome::Failed { Outcome::Failed } else { outcome })
}

/// The guest as it is, and next to it as `fix` would make it.
fn draw(evaluated: &Evaluated<'_>, source: &HostSource, policy: &ChosenPolicy) -> Result<Option<Picture>> {
    let evaluation = evaluated.evaluation;
    let fixed = match evaluation.any_fix() {
        Some(fix) => {
            let after = evaluated.guest.rewritten(fix)?;
            Some(match evaluated.guest {
                GuestSource::Xml(..) => {
                    let document = Document::parse(after.as_bytes()).map_err(|error| anyhow!("{error}"))?;
                    let domain = domain::read(&document).context("the rewritten domain")?;
                    evaluate(&domain, evaluated.host, &policy.policy)
                }
                GuestSource::Call(..) => {
                    let call = Call::read(after.as_bytes()).context("the rewritten command line")?;
                    evaluate(&Launch::read(&call), evaluated.host, &policy.policy)
                }
            })
        }
        None => None,
    };
    let heading = |what: &str, verdict: Verdict| format!("{what}: {}", verdict.name());
    let mut views: Vec<(String, &Facts)> = vec![(heading("as it is", evaluation.verdict), &evaluation.facts)];
    views.extend(fixed.iter().map(|after| (heading("with the fix", after.verdict), &after.facts)));
    views.extend(evaluation.hypotheses.iter().map(|(what, facts)| (what.clone(), facts)));

    let memory = evaluation.facts.ram.map(|ram| format!(", {} of RAM", size(ram))).unwrap_or_default();
    let name = evaluated.guest.name();
    let guest = if name.is_empty() { evaluated.name.to_owned() } else { quoted(name) };
    let mut title = format!("{guest}{memory} — {}", source.notice);
    if let Some(remark) = evaluated.guest.remark() {
        title += &format!("; {remark}");
    }
    if let Some(notice) = &policy.notice {
        title += &format!("; {notice}");
    }
    Ok(Picture::new(title, &views, remarks(evaluation)))
}

/// What stops or threatens the guest, and what to do.
fn remarks(evaluation: &Evaluation) -> Vec<String> {
    let findings = evaluation.findings.iter().filter(|finding| finding.severity > Severity::Note);
    let mut remarks: Vec<String> = findings
        .map(|finding| {
            let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
            format!("{severity}[{}]: {}", finding.rule, finding.title)
        })
        .collect();
    if let Some(fix) = evaluation.any_fix() {
        let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
        let option = if evaluation.fix.is_some() { "" } else { " --warnings" };
        remarks.push(format!("fix{option}: {}", changes.join(", ")));
    }
    remarks.extend(evaluation.tried.iter().map(|tried| format!("no fix: {tried}")));
    remarks
}

fn why_not(evaluation: &Evaluation) -> String {
    let finding = evaluation.findings.iter().max_by_key(|finding| finding.severity);
    match (&evaluation.not_applicable, finding) {
        (Some(reason), _) => reason.clone(),
        (None, Some(finding)) => finding.message(),
        (None, None) => "it is not known".to_owned(),
    }
}

fn print(picture: &Picture, format: MapFormat) -> Result<()> {
    let mut out = io::stdout().lock();
    let page = match format {
        MapFormat::Svg => picture::svg(picture),
        MapFormat::Human => {
            let page = picture::text(picture, terminal::columns());
            let coloured = AutoStream::choice(&out) != ColorChoice::Never;
            if coloured { page } else { strip_str(&page).to_string() }
        }
    };
    out.write_all(page.as_bytes())?;
    out.flush()?;
    Ok(())
}
