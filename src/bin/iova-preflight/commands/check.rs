//! `iova-preflight check`.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use iova_preflight::io::processes::{Processes, qemu_processes};
use iova_preflight::report::json::{GuestReport, HostReport, Report, VERSION, line, text};
use iova_preflight::report::{Unreadable, sarif};
use serde::Serialize;

use crate::args::{CheckArgs, Format, InputKind, Words};
use crate::connected;
use crate::input::evaluator::{Evaluated, Evaluator};
use crate::input::host::HostSource;
use crate::input::policy::ChosenPolicy;
use crate::input::{Batch, Folders, Input};
use crate::outcome::Outcome;
use crate::output::human::{PageStyle, Printer};
use crate::output::progress::Progress;
use crate::output::terminal;
use crate::parallel;
use crate::stderr::{self, complain};

/// Evaluates every input and prints the verdicts.
pub(crate) fn run(args: &CheckArgs) -> Result<Outcome> {
    if args.format == Format::Sarif && (args.running || !args.connect.is_empty()) {
        let option = if args.running { "--running" } else { "--connect" };
        bail!("SARIF needs file locations; use --format json with {option}");
    }
    let policy = ChosenPolicy::choose(args.common.policy.as_deref())?;
    let batches = batches(args)?;
    let jobs = args.jobs.map_or_else(parallel::default_jobs, usize::from);
    let how = How { policy: &policy, jobs, kind: args.common.input, words: args.common.advice };
    match args.format {
        Format::Human if args.common.quiet => quiet(batches, how),
        Format::Human => human(batches, how, args.verbose),
        Format::Json => json(batches, how),
        Format::Jsonl => jsonl(batches, how),
        Format::Sarif => sarif(batches, how),
    }
}

/// What the command line names, host by host.
fn batches(args: &CheckArgs) -> Result<Vec<Batch>> {
    if !args.connect.is_empty() {
        let patience = Duration::from_secs(args.connect_timeout);
        let (domain, host) = (args.domain.as_deref(), args.common.host.as_deref());
        return connected::batches(&args.connect, domain, patience, host);
    }
    if args.running {
        return running(args.common.host.as_deref(), args.common.quiet);
    }
    let source = HostSource::choose(args.common.host.as_deref())?;
    Ok(vec![Batch { source, inputs: Input::expand(&args.common.paths) }])
}

/// How all inputs are evaluated.
#[derive(Clone, Copy)]
struct How<'a> {
    policy: &'a ChosenPolicy,
    jobs: usize,
    /// What they are, where somebody said so.
    kind: Option<InputKind>,
    /// In whose words fixes are told, where somebody said so.
    words: Option<Words>,
}

/// What runs on this host.
fn running(host: Option<&Path>, quiet: bool) -> Result<Vec<Batch>> {
    let source = match host {
        Some(_) => HostSource::choose(host)?,
        None => HostSource::this(),
    };
    let Processes { found, hidden } = qemu_processes(Path::new("/")).context("/proc")?;
    if !quiet {
        if found.is_empty() {
            stderr::line("no QEMU process on this host");
        }
        if hidden {
            stderr::line("processes of other users are hidden from this user; run as root to see all");
        } else if found.iter().any(|process| process.devices.is_none()) {
            stderr::line(
                "open VFIO devices of other users' processes are hidden from this user; run as root to see all",
            );
        }
    }
    let inputs = found.into_iter().map(Input::Process).collect();
    Ok(vec![Batch { source, inputs }])
}

/// The inputs that are left, and what has come of those before.
struct CheckRun<'a> {
    how: How<'a>,
    progress: Progress,
    outcome: Outcome,
    folders: Folders,
    /// Whether what is no error is said on standard error.
    warns: bool,
}

impl<'a> CheckRun<'a> {
    fn new(batches: &[Batch], how: How<'a>) -> Self {
        let progress = Progress::new(batches.iter().map(|batch| batch.inputs.len()).sum());
        Self { how, progress, outcome: Outcome::Clean, folders: Folders::default(), warns: true }
    }

    /// Evaluates every input of a batch and hands what `view` makes of it to `done`, in order, or its name and what is
    /// wrong with it.
    fn each<T: Send>(
        &mut self,
        source: &HostSource,
        inputs: Vec<Input>,
        view: impl Fn(&Evaluated<'_>) -> T + Sync,
        mut done: impl FnMut(Result<T, (String, Unreadable)>) -> Result<()>,
    ) -> Result<()> {
        let How { policy, jobs, kind, words } = self.how;
        let work = |input| {
            let mut evaluator = Evaluator::new(source, &policy.policy).of_kind(kind).in_words(words);
            let (mut seen, mut refused, mut unreadable) = (None, None, None);
            evaluator.each(
                input,
                |evaluated| {
                    seen = Some(view(evaluated));
                    refused = evaluated.warning();
                    Ok(())
                },
                |name, error| unreadable = Some((name.to_owned(), error)),
            )?;
            Ok((evaluator, seen, refused, unreadable))
        };
        for inputs in apart(inputs) {
            parallel::in_order(inputs, jobs, work, |evaluated: Result<_>| {
                let (Evaluator { outcome, folders, .. }, seen, refused, unreadable) = evaluated?;
                self.folders.append(folders);
                self.progress.clear();
                if let Some((name, error)) = unreadable {
                    // First what came before it, where both streams go to one place.
                    done(Err((name.clone(), error.clone())))?;
                    complain(&name, &error);
                }
                if let Some(seen) = seen {
                    done(Ok(seen))?;
                }
                if let Some(line) = refused.filter(|_| self.warns) {
                    stderr::line(&line);
                }
                self.progress.tick(outcome == Outcome::Stopped);
                self.outcome = self.outcome.max(outcome);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Standard input apart from the other inputs: it may never end, and whoever waits for a thread that reads it waits as
/// long.
fn apart(inputs: Vec<Input>) -> Vec<Vec<Input>> {
    let mut parts: Vec<Vec<Input>> = Vec::new();
    let mut alone = true;
    for input in inputs {
        let stdin = matches!(input, Input::Stdin);
        match parts.last_mut() {
            Some(part) if !alone && !stdin => part.push(input),
            _ => parts.push(vec![input]),
        }
        alone = stdin;
    }
    parts
}

fn quiet(batches: Vec<Batch>, how: How<'_>) -> Result<Outcome> {
    let mut run = CheckRun { warns: false, ..CheckRun::new(&batches, how) };
    for Batch { source, inputs } in batches {
        run.each(&source, inputs, |_| (), |_| Ok(()))?;
    }
    Ok(run.outcome)
}

fn human(batches: Vec<Batch>, how: How<'_>, verbose: bool) -> Result<Outcome> {
    let style = PageStyle::new(verbose);
    let mut printer = Printer::new(io::stdout().lock(), terminal::columns());
    let mut run = CheckRun::new(&batches, how);
    for Batch { source, inputs } in batches {
        printer.host(&source.notice, how.policy.notice.as_deref());
        run.each(
            &source,
            inputs,
            |evaluated| style.page(evaluated),
            |page| match page {
                Ok(page) => printer.guest(page),
                Err((name, error)) => printer.unreadable(&name, &error.to_string()),
            },
        )?;
    }
    run.progress.clear();
    printer.summary(&run.folders.remarks())?;
    printer.pointer()?;
    Ok(run.outcome)
}

fn report_of(evaluated: &Evaluated<'_>) -> GuestReport {
    let &Evaluated { name, guest, evaluation, words, process, .. } = evaluated;
    GuestReport::new(name.to_owned(), guest, evaluation, words).of_process(process)
}

fn json(batches: Vec<Batch>, how: How<'_>) -> Result<Outcome> {
    // One document speaks of one host; of several libvirts, the first.
    let first = batches.first().map(|batch| (batch.source.host(), batch.source.name.clone()));
    let mut guests = Vec::new();
    let mut run = CheckRun::new(&batches, how);
    for Batch { source, inputs } in batches {
        run.each(&source, inputs, report_of, |report| {
            guests.push(report.unwrap_or_else(|(name, error)| GuestReport::unreadable(name, &error)));
            Ok(())
        })?;
    }
    run.progress.clear();
    let (host, name) = first.unwrap_or_default();
    let passed_over = run.folders.passed_over();
    let host = HostReport::new(&host, &name);
    print(&Report { version: VERSION, host, policy: how.policy.file.as_deref(), passed_over, guests })?;
    Ok(run.outcome)
}

/// Little is kept, however many guests there are: a guest is written before the next one but a few is read.
fn jsonl(batches: Vec<Batch>, how: How<'_>) -> Result<Outcome> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let watched = out.get_ref().is_terminal();
    let mut run = CheckRun::new(&batches, how);
    for Batch { source, inputs } in batches {
        run.each(
            &source,
            inputs,
            |evaluated| line(&report_of(evaluated)),
            |guest| {
                let unreadable = guest.is_err();
                let text = guest.unwrap_or_else(|(name, error)| line(&GuestReport::unreadable(name, &error)))?;
                writeln!(out, "{text}")?;
                // What is wrong with an input is said on standard error, after what came before it.
                if watched || unreadable {
                    out.flush()?;
                }
                Ok(())
            },
        )?;
    }
    run.progress.clear();
    out.flush()?;
    Ok(run.outcome)
}

fn sarif(batches: Vec<Batch>, how: How<'_>) -> Result<Outcome> {
    let mut all = sarif::LogBuilder::default();
    let mut run = CheckRun::new(&batches, how);
    for Batch { source, inputs } in batches {
        run.each(
            &source,
            inputs,
            |evaluated| {
                let mut one = sarif::LogBuilder::default();
                one.guest(evaluated.name, evaluated.guest, evaluated.evaluation, evaluated.words);
                one
            },
            |guest| {
                match guest {
                    Ok(guest) => all.append(guest),
                    Err((name, error)) => all.unreadable(&name, &error),
                }
                Ok(())
            },
        )?;
    }
    run.progress.clear();
    print(&all.finish(run.outcome.code(), how.policy.file.clone()))?;
    Ok(run.outcome)
}

fn print(document: &impl Serialize) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    out.write_all(text(document).map_err(io::Error::from)?.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
