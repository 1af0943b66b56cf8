//! `iova-preflight check`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use iova_preflight::host::Host;
use iova_preflight::io::processes::{Processes, qemu_processes};
use iova_preflight::report::json::{GuestReport, HostReport, Report, VERSION, line, text};
use iova_preflight::report::migration::MigrationReport;
use iova_preflight::report::{Unreadable, sarif};
use serde::Serialize;

use crate::args::{CheckArgs, Format, InputKind, Words};
use crate::connected;
use crate::input::evaluator::{Evaluated, Evaluator};
use crate::input::host::HostSource;
use crate::input::policy::ChosenPolicy;
use crate::input::{Batch, Batches, Folders, Input, Inputs};
use crate::outcome::Outcome;
use crate::output::human::{HostsPrinter, MovesPrinter, OnHost, PageStyle, Printer};
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
    if args.format == Format::Sarif && args.from.is_some() {
        bail!("SARIF does not know migrations; use --format json with --from");
    }
    let policy = ChosenPolicy::choose(args.common.policy.as_deref())?;
    let (from, batches) = match &args.from {
        Some(from) => {
            let (from, batches) = journeys(args, from)?;
            (Some(from), batches)
        }
        None => (None, batches(args)?),
    };
    if args.format == Format::Sarif && batches.has_several_each {
        bail!("SARIF takes one --host; run it once for each host, or use --format json");
    }
    let batches = batches.settled();
    let jobs = args.jobs.map_or_else(parallel::default_jobs, usize::from);
    let how = How { policy: &policy, jobs, kind: args.common.input, words: args.common.advice, from: from.as_ref() };
    match args.format {
        Format::Human if args.common.quiet => quiet(batches, how),
        Format::Human if from.is_some() => moves(batches, how, args.verbose),
        Format::Human => human(batches, how, args.verbose),
        Format::Json => json(batches, how),
        Format::Jsonl => jsonl(batches, how),
        Format::Sarif => sarif(batches, how),
    }
}

/// What the command line names, libvirt by libvirt.
fn batches(args: &CheckArgs) -> Result<Batches> {
    if !args.connect.is_empty() {
        let patience = Duration::from_secs(args.connect_timeout);
        return connected::batches(&args.connect, args.domain.as_deref(), patience, &args.common);
    }
    if args.running {
        return running(&args.common.host, args.common.quiet);
    }
    let sources = HostSource::choose_all(&args.common.host)?;
    Ok(Batches::one(sources, Inputs::expand(&args.common.paths)))
}

/// The host that guests run on, and the guests that are to move to others.
fn journeys(args: &CheckArgs, from: &Path) -> Result<(HostSource, Batches)> {
    let (from, sources) = HostSource::choose_journey(from, &args.to)?;
    let inputs = if args.connect.is_empty() {
        Inputs::expand(&args.common.paths)
    } else {
        let patience = Duration::from_secs(args.connect_timeout);
        connected::running(&args.connect, args.domain.as_deref(), patience, &from, args.common.quiet)?
    };
    Ok((from, Batches::one(sources, inputs)))
}

/// How all inputs are evaluated.
#[derive(Clone, Copy)]
struct How<'a> {
    policy: &'a ChosenPolicy,
    jobs: usize,
    /// The kind of the inputs, if `--input` gives it.
    kind: Option<InputKind>,
    /// In whose words fixes are told, if `--advice` says so.
    words: Option<Words>,
    /// The host that guests run on, if they are to move.
    from: Option<&'a HostSource>,
}

impl How<'_> {
    /// Whether the host of an evaluation is named.
    fn names_hosts(self, batches: &Batches) -> bool {
        self.from.is_some() || batches.labels.len() > 1
    }
}

/// The processes of this host.
fn running(hosts: &[PathBuf], quiet: bool) -> Result<Batches> {
    let sources = if hosts.is_empty() { vec![HostSource::this()] } else { HostSource::choose_all(hosts)? };
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
    Ok(Batches::one(sources, found.into_iter().map(|process| Input::Process(Box::new(process))).collect()))
}

/// The remaining inputs, and the results so far.
struct CheckRun<'a> {
    how: How<'a>,
    progress: Progress,
    outcome: Outcome,
    folders: Folders,
    /// Whether what is not an error is said on standard error.
    warns: bool,
}

impl<'a> CheckRun<'a> {
    fn new(how: How<'a>) -> Self {
        Self { how, progress: Progress::new(), outcome: Outcome::Clean, folders: Folders::default(), warns: true }
    }

    /// Evaluates every input of a batch and hands what `view` makes of it on each host to `done`, in order, or its name
    /// and what is wrong with it.
    fn each<T: Send>(
        &mut self,
        sources: &[HostSource],
        inputs: Inputs,
        view: impl Fn(&Evaluated<'_>) -> T + Sync,
        mut done: impl FnMut(Result<Vec<T>, (String, Unreadable)>) -> Result<()>,
    ) -> Result<()> {
        let How { policy, jobs, kind, words, from } = self.how;
        let work = |input| {
            let mut evaluator = Evaluator::new(sources, &policy.policy).of_kind(kind).in_words(words).moving_from(from);
            let (mut seen, mut refused, mut unreadable) = (Vec::with_capacity(sources.len()), None, None);
            evaluator.each(
                input,
                |evaluated| {
                    seen.push(view(evaluated));
                    refused = evaluated.warning();
                    Ok(())
                },
                |name, error| unreadable = Some((name.to_owned(), error)),
            )?;
            Ok((evaluator, seen, refused, unreadable))
        };
        self.progress.expect(inputs.len());
        for inputs in inputs.apart() {
            parallel::in_order(inputs, jobs, work, |evaluated: Result<_>| {
                let (Evaluator { outcome, folders, .. }, seen, refused, unreadable) = evaluated?;
                self.folders.append(folders);
                self.progress.clear();
                if let Some((name, error)) = unreadable {
                    // Earlier output first, in case both streams go to one place.
                    done(Err((name.clone(), error.clone())))?;
                    complain(&name, &error);
                }
                if !seen.is_empty() {
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

fn quiet(batches: Batches, how: How<'_>) -> Result<Outcome> {
    let mut run = CheckRun { warns: false, ..CheckRun::new(how) };
    for Batch { sources, inputs } in batches.parts {
        run.each(&sources, inputs, |_| (), |_| Ok(()))?;
    }
    Ok(run.outcome)
}

fn human(batches: Batches, how: How<'_>, verbose: bool) -> Result<Outcome> {
    if batches.has_several_each {
        return on_hosts(batches, how, verbose);
    }
    let style = PageStyle::new(verbose);
    let mut printer = Printer::new(io::stdout().lock(), terminal::columns());
    let mut run = CheckRun::new(how);
    for Batch { sources, inputs } in batches.parts {
        sources.iter().for_each(|source| printer.host(&source.notice, how.policy.notice.as_deref()));
        run.each(
            &sources,
            inputs,
            |evaluated| style.page(evaluated),
            |pages| match pages {
                Ok(pages) => pages.into_iter().try_for_each(|page| printer.guest(page)),
                Err((name, error)) => printer.unreadable(&name, &error.to_string()),
            },
        )?;
        // The next batch may take a while to arrive.
        printer.flush()?;
    }
    run.progress.clear();
    printer.summary(&run.folders.remarks())?;
    printer.pointer()?;
    Ok(run.outcome)
}

/// Guests on several hosts: of each, which hosts run it.
fn on_hosts(batches: Batches, how: How<'_>, verbose: bool) -> Result<Outcome> {
    let style = PageStyle::new(verbose).of_hosts();
    let mut printer = HostsPrinter::new(io::stdout().lock(), terminal::columns(), batches.labels);
    let mut run = CheckRun::new(how);
    printer.policy(how.policy.notice.as_deref())?;
    for Batch { sources, inputs } in batches.parts {
        run.each(
            &sources,
            inputs,
            |evaluated| OnHost::new(evaluated, verbose.then(|| style.page(evaluated).into_text())),
            |hosts| match hosts {
                Ok(hosts) => printer.guest(hosts),
                Err((name, error)) => printer.unreadable(&name, &error.to_string()),
            },
        )?;
    }
    run.progress.clear();
    printer.summary(&run.folders.remarks())?;
    Ok(run.outcome)
}

/// Guests that are to move: what becomes of each on its way to each host.
fn moves(batches: Batches, how: How<'_>, verbose: bool) -> Result<Outcome> {
    let style = PageStyle::new(verbose);
    let mut printer = MovesPrinter::new(io::stdout().lock(), terminal::columns());
    let mut run = CheckRun::new(how);
    printer.policy(how.policy.notice.as_deref())?;
    for Batch { sources, inputs } in batches.parts {
        run.each(
            &sources,
            inputs,
            |evaluated| evaluated.moving.map(|moving| style.move_page(evaluated, moving)),
            |pages| match pages {
                Ok(pages) => printer.guest(pages.into_iter().flatten().collect()),
                Err(_) => printer.unreadable(),
            },
        )?;
    }
    run.progress.clear();
    printer.summary(&run.folders.remarks())?;
    Ok(run.outcome)
}

/// `named`: whether its host is named.
fn report_of(evaluated: &Evaluated<'_>, named: bool) -> GuestReport {
    let &Evaluated { name, guest, evaluation, words, process, source, moving, .. } = evaluated;
    let host = named.then_some(source.label.as_str());
    let migration = moving.map(|moving| MigrationReport::new(moving.migration, &moving.from.label, moving.running));
    let report = GuestReport::new(name.to_owned(), guest, evaluation, words).on_host(host);
    report.of_process(process).of_migration(migration)
}

fn json(batches: Batches, how: How<'_>) -> Result<Outcome> {
    let several = how.names_hosts(&batches);
    let (mut guests, mut hosts) = (Vec::new(), Vec::<HostSource>::new());
    let mut run = CheckRun::new(how);
    for Batch { sources, inputs } in batches.parts {
        run.each(
            &sources,
            inputs,
            |evaluated| report_of(evaluated, several),
            |reports| {
                guests.extend(reports.unwrap_or_else(|(name, error)| vec![GuestReport::unreadable(name, &error)]));
                Ok(())
            },
        )?;
        for source in sources {
            if hosts.iter().all(|known| known.label != source.label) {
                hosts.push(source);
            }
        }
    }
    run.progress.clear();
    let passed_over = run.folders.passed_over();
    let facts: Vec<(HostSource, Host)> = hosts.into_iter().map(|source| (source.clone(), source.host())).collect();
    let unknown = Host::default();
    let host =
        facts.first().map_or(HostReport::new(&unknown, ""), |(source, host)| HostReport::new(host, &source.name));
    let named = facts
        .iter()
        .filter(|_| several)
        .map(|(source, host)| HostReport { name: Some(&source.label), ..HostReport::new(host, &source.name) });
    let hosts = named.collect();
    let source = how.from.map(|from| (from, from.host()));
    let from =
        source.as_ref().map(|(from, host)| HostReport { name: Some(&from.label), ..HostReport::new(host, &from.name) });
    let policy = how.policy.file.as_deref();
    print(&Report { version: VERSION, host, hosts, from, policy, passed_over, guests })?;
    Ok(run.outcome)
}

/// Memory stays bounded, however many guests there are: only a few are read before the first of them is written.
fn jsonl(batches: Batches, how: How<'_>) -> Result<Outcome> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let watched = out.get_ref().is_terminal();
    let several = how.names_hosts(&batches);
    let mut run = CheckRun::new(how);
    for Batch { sources, inputs } in batches.parts {
        run.each(
            &sources,
            inputs,
            |evaluated| line(&report_of(evaluated, several)),
            |guest| {
                let unreadable = guest.is_err();
                let lines = guest.unwrap_or_else(|(name, error)| vec![line(&GuestReport::unreadable(name, &error))]);
                for line in lines {
                    writeln!(out, "{}", line?)?;
                }
                // What is wrong with an input is said on standard error, after what came before it.
                if watched || unreadable {
                    out.flush()?;
                }
                Ok(())
            },
        )?;
        // The next batch may take a while to arrive.
        out.flush()?;
    }
    run.progress.clear();
    out.flush()?;
    Ok(run.outcome)
}

fn sarif(batches: Batches, how: How<'_>) -> Result<Outcome> {
    let mut all = sarif::LogBuilder::default();
    let mut run = CheckRun::new(how);
    for Batch { sources, inputs } in batches.parts {
        run.each(
            &sources,
            inputs,
            |evaluated| {
                let mut one = sarif::LogBuilder::default();
                one.guest(evaluated.name, evaluated.guest, evaluated.evaluation, evaluated.words);
                one
            },
            |guest| {
                match guest {
                    Ok(guests) => guests.into_iter().for_each(|guest| all.append(guest)),
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
