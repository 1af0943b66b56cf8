//! `iova-preflight check`.

use std::cell::RefCell;
use std::io::{self, Write};

use anyhow::Result;
use iova_preflight::policy::Policy;
use iova_preflight::report::json::{GuestReport, HostReport, Report, VERSION};
use iova_preflight::report::sarif;
use serde::Serialize;

use crate::Outcome;
use crate::args::{CheckArgs, Format};
use crate::connect;
use crate::human::Printer;
use crate::input::Input;
use crate::judge::{HostSource, Judge, complain, read_policy};

/// Guests and the host they are judged for.
pub(crate) struct Batch {
    pub source: HostSource,
    pub inputs: Vec<Input>,
}

/// Judges every input and prints the verdicts.
pub(crate) fn run(args: &CheckArgs) -> Result<Outcome> {
    let policy = read_policy(args.common.policy.as_deref())?;
    let (batches, outcome) = batches(args)?;
    let judged = match args.format {
        _ if args.common.quiet => quiet(batches, &policy)?,
        Format::Human => human(batches, &policy, args.verbose)?,
        Format::Json => json(batches, &policy)?,
        Format::Sarif => sarif(batches, &policy, outcome)?,
    };
    Ok(outcome.max(judged))
}

/// What the command line names, host by host; the outcome is `Failed` where some of it could not be had.
fn batches(args: &CheckArgs) -> Result<(Vec<Batch>, Outcome)> {
    if !args.connect.is_empty() {
        return connect::batches(&args.connect, args.domain.as_deref(), args.common.host.as_deref());
    }
    let source = HostSource::choose(args.common.host.as_deref())?;
    Ok((vec![Batch { source, inputs: Input::expand(&args.common.paths) }], Outcome::Clean))
}

fn quiet(batches: Vec<Batch>, policy: &Policy) -> Result<Outcome> {
    let mut outcome = Outcome::Clean;
    for batch in batches {
        let mut judge = Judge::new(&batch.source, policy);
        for input in batch.inputs {
            judge.each(input, |_| Ok(()), |name, error| complain(name, &error))?;
        }
        outcome = outcome.max(judge.outcome);
    }
    Ok(outcome)
}

fn human(batches: Vec<Batch>, policy: &Policy, verbose: bool) -> Result<Outcome> {
    let mut printer = Printer::new(io::stdout().lock(), verbose);
    let mut outcome = Outcome::Clean;
    for batch in batches {
        printer.host(&batch.source.notice);
        let mut judge = Judge::new(&batch.source, policy);
        for input in batch.inputs {
            let mut unreadable = false;
            judge.each(
                input,
                |judged| printer.guest(judged),
                |name, error| {
                    unreadable = true;
                    complain(name, &error);
                },
            )?;
            if unreadable {
                printer.count_unreadable();
            }
        }
        outcome = outcome.max(judge.outcome);
    }
    printer.summary()?;
    printer.pointer()?;
    Ok(outcome)
}

fn json(batches: Vec<Batch>, policy: &Policy) -> Result<Outcome> {
    let mut outcome = Outcome::Clean;
    let mut guests = Vec::new();
    // One document speaks of one host; of several libvirts, the first.
    let first = batches.first().map(|batch| (batch.source.host_for(None), batch.source.name.clone()));
    for batch in batches {
        let mut judge = Judge::new(&batch.source, policy);
        for input in batch.inputs {
            let mut report = None;
            let mut failed = None;
            judge.each(
                input,
                |judged| {
                    let name = judged.name.to_owned();
                    report = Some(GuestReport::new(name, judged.document, judged.domain, judged.evaluation));
                    Ok(())
                },
                |name, error| {
                    complain(name, &error);
                    failed = Some(GuestReport::unreadable(name.to_owned(), &error));
                },
            )?;
            guests.extend(report.or(failed));
        }
        outcome = outcome.max(judge.outcome);
    }
    let (host, name) = first.unwrap_or_default();
    let report = Report { version: VERSION, host: HostReport::new(&host, &name), guests };
    print(&report)?;
    Ok(outcome)
}

/// `before` is what has come of the command line itself.
fn sarif(batches: Vec<Batch>, policy: &Policy, before: Outcome) -> Result<Outcome> {
    let mut outcome = Outcome::Clean;
    // Both closures add to it, one at a time.
    let builder = RefCell::new(sarif::Builder::default());
    for batch in batches {
        let mut judge = Judge::new(&batch.source, policy);
        for input in batch.inputs {
            judge.each(
                input,
                |judged| {
                    builder.borrow_mut().guest(judged.name, judged.document, judged.domain, judged.evaluation);
                    Ok(())
                },
                |name, error| {
                    complain(name, &error);
                    builder.borrow_mut().unreadable(name, &error);
                },
            )?;
        }
        outcome = outcome.max(judge.outcome);
    }
    print(&builder.into_inner().finish(outcome.max(before).code()))?;
    Ok(outcome)
}

fn print(document: &impl Serialize) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
