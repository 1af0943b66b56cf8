//! `iova-preflight check`.

use std::cell::RefCell;
use std::io::{self, Write};

use anyhow::Result;
use iova_preflight::report::json::{GuestReport, HostReport, Report, VERSION};

use crate::Outcome;
use crate::args::{CheckArgs, Format};
use crate::human::Printer;
use crate::input::Input;
use crate::judge::{HostSource, Judge, complain};

/// Judges every input and prints the verdicts.
pub(crate) fn run(args: &CheckArgs) -> Result<Outcome> {
    let source = HostSource::choose(args.common.host.as_deref())?;
    let mut judge = Judge::new(&source, args.common.policy.as_deref())?;
    let inputs = Input::expand(&args.common.paths);
    match args.format {
        _ if args.common.quiet => {
            for input in inputs {
                judge.each(input, |_| Ok(()), |name, error| complain(name, &error))?;
            }
        }
        Format::Human => human(&mut judge, inputs, &source, args.common.verbose)?,
        Format::Json => json(&mut judge, inputs, &source)?,
    }
    Ok(judge.outcome)
}

fn human(judge: &mut Judge<'_>, inputs: Vec<Input>, source: &HostSource, verbose: bool) -> Result<()> {
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let mut printer = Printer::new(&mut out, &source.notice, verbose);
    for input in inputs {
        let mut unreadable = false;
        judge.each(
            input,
            |judged| printer.guest(judged),
            |name, error| {
                unreadable = true;
                complain(name, &error)
            },
        )?;
        if unreadable {
            printer.count_unreadable();
        }
    }
    printer.summary()?;
    out.flush()?;
    Ok(())
}

fn json(judge: &mut Judge<'_>, inputs: Vec<Input>, source: &HostSource) -> Result<()> {
    let guests = RefCell::new(Vec::with_capacity(inputs.len()));
    for input in inputs {
        judge.each(
            input,
            |judged| {
                let report =
                    GuestReport::new(judged.name.to_owned(), judged.document, judged.domain, judged.evaluation);
                guests.borrow_mut().push(report);
                Ok(())
            },
            |name, error| {
                complain(name, &error)?;
                guests.borrow_mut().push(GuestReport::unreadable(name.to_owned(), error));
                Ok(())
            },
        )?;
    }
    let host = source.host_for(None);
    let report = Report { version: VERSION, host: HostReport::new(&host, &source.name), guests: guests.into_inner() };
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
