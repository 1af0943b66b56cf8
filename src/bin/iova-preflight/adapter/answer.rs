//! One call of an orchestrator, from its arguments to the exit status.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use clap::CommandFactory;
use iova_preflight::adapter::{AdapterCall, AdapterOutcome, Protocol, Reply, decide, read_call, vm_in};
use iova_preflight::argv::Call;
use iova_preflight::command_line::Launch;
use iova_preflight::decision::{BrokenPolicy, salvage_on_internal_error};
use iova_preflight::domain;
use iova_preflight::io::file::{read_limited, read_open};
use iova_preflight::io::policy;
use iova_preflight::policy::{OnInternalError, Policy};
use iova_preflight::report::source::GuestSource;
use iova_preflight::xml::{Document, Limits, MAX_BYTES};

use super::{qm, system_log, vdsm};
use crate::args::Cli;
use crate::input::host::HostSource;
use crate::place::Place;

/// What is known about a call, however it ends.
#[derive(Default)]
struct CallInput {
    input: OnceLock<Vec<u8>>,
    /// The file that the guest came in.
    place: OnceLock<Place>,
}

/// Answers a call of the orchestrator `name`. Any error is a failure of the adapter itself, for which the policy
/// decides.
pub(crate) fn answer(name: &str, arguments: &[OsString]) -> ExitCode {
    if arguments.is_empty() && is_typed() {
        return help(name).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    // A panic is a failure like any other; its text is not shown.
    std::panic::set_hook(Box::new(|_| {}));
    let Some((protocol, call)) = read_call(name, arguments) else { return ExitCode::FAILURE };
    if let AdapterCall::Elsewhere(text) = call {
        return print(&text).map_or(ExitCode::from(NOT_PRINTED), |()| ExitCode::SUCCESS);
    }
    let (policy, broken) = match operators_policy() {
        Ok(policy) => (policy, None),
        Err(broken) => {
            let mut policy = Policy::default();
            policy.on_internal_error = broken.on_internal_error;
            (policy, Some(broken.problem))
        }
    };
    let seen = Arc::new(CallInput::default());
    let vm = if name == "vdsm" { vdsm::vm() } else { vm_in(name, arguments) };
    let outcome = look_within(protocol, call, &policy, broken, &seen).of_vm(vm.as_deref());
    let input = seen.input.get().map(Vec::as_slice);
    let mut reply = protocol.reply(input, outcome, &policy);
    if let Some(new) = &reply.file {
        let replaced = seen.place.get().map(|place| place.replace(new.as_bytes()));
        if let Some(Err(error)) = replaced {
            let failure = AdapterOutcome::failure(format!("cannot write the domain XML: {error}"));
            reply = protocol.reply(input, failure.of_vm(vm.as_deref()), &policy);
        }
    }
    finish(protocol, &reply)
}

/// The exit status if standard output cannot be written: no protocol stops a guest with it.
const NOT_PRINTED: u8 = 3;

/// Whether a person at a terminal calls it, not an orchestrator.
fn is_typed() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && vdsm::domain_file().is_none()
}

fn help(name: &str) -> io::Result<()> {
    let mut program = Cli::command();
    program.build();
    let adapter = program.find_subcommand_mut("adapter").and_then(|adapter| adapter.find_subcommand_mut(name));
    adapter.map_or(Ok(()), clap::Command::print_help)
}

/// Writes the reply and gives its exit status.
fn finish(protocol: &Protocol, reply: &Reply) -> ExitCode {
    let printed = print(&reply.stdout);
    for (level, line) in &reply.log {
        system_log::line(*level, line);
    }
    if let Some(line) = &reply.stderr {
        // In one write. If standard error is closed, that cannot be reported anywhere.
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        thread::sleep(Duration::from_millis(protocol.linger));
    }
    match printed {
        // Half a domain must not be taken for one, and a status that stops must not be taken for a decision.
        Err(_) if reply.status == 0 => ExitCode::from(NOT_PRINTED),
        _ => reply.status.into(),
    }
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// The operator's policy; the default one if there is none. A policy that this user may not read is a failure: it could
/// even say `off`.
fn operators_policy() -> Result<Policy, BrokenPolicy> {
    let broken = |problem, on_internal_error| Err(BrokenPolicy { problem, on_internal_error });
    let bytes = match policy::read_operators(Path::new("/")) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Policy::default()),
        Err(error) => return broken(format!("{}: {error}", policy::PATH), OnInternalError::default()),
    };
    // Even if the rest is wrong, its setting for internal errors applies to this one.
    policy::parse(&bytes)
        .or_else(|error| broken(format!("{}:{error}", policy::PATH), salvage_on_internal_error(&bytes)))
}

/// Decides in a thread of its own, which may panic or take too long.
fn look_within(
    protocol: &'static Protocol,
    call: AdapterCall,
    policy: &Policy,
    broken: Option<String>,
    seen: &Arc<CallInput>,
) -> AdapterOutcome {
    let (sender, receiver) = mpsc::channel();
    let (policy, theirs) = (policy.clone(), seen.clone());
    let work = move || {
        let looked = catch_unwind(AssertUnwindSafe(|| look(protocol, &call, &policy, broken, &theirs)));
        let outcome = match looked {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(problem)) => AdapterOutcome::failure(problem),
            Err(_) => AdapterOutcome::failure("the program panicked"),
        };
        // The receiver is gone if this took too long.
        let _ = sender.send(outcome);
    };
    if let Err(error) = thread::Builder::new().spawn(work) {
        return AdapterOutcome::failure(format!("cannot start a thread: {error}"));
    }
    receiver.recv_timeout(Duration::from_secs(protocol.patience)).unwrap_or_else(|_| {
        AdapterOutcome::failure(format!("timed out: no decision after {} seconds", protocol.patience))
    })
}

fn look(
    protocol: &Protocol,
    call: &AdapterCall,
    policy: &Policy,
    broken: Option<String>,
    seen: &CallInput,
) -> Result<AdapterOutcome, String> {
    // Before anything else can fail: what goes back if it does.
    let input = match call {
        AdapterCall::Argument(xml) => Some(xml.clone()),
        AdapterCall::Stdin => Some(from_stdin()?),
        _ => None,
    };
    let input = input.map(|input| seen.input.get_or_init(|| input).as_slice());
    if let Some(problem) = broken {
        return Err(problem);
    }
    match call {
        AdapterCall::Broken(problem) => Err(problem.clone()),
        AdapterCall::Number(number) => look_at_call(protocol, &qm::showcmd(number)?, policy),
        AdapterCall::File if vdsm::is_left_alone() => Ok(AdapterOutcome::pass()),
        AdapterCall::File => look_at_xml(protocol, &from_file(seen)?, policy),
        _ => look_at_xml(protocol, input.unwrap_or_default(), policy),
    }
}

fn from_stdin() -> Result<Vec<u8>, String> {
    let input = read_limited(io::stdin().lock(), MAX_BYTES).map_err(|error| format!("standard input: {error}"))?;
    if input.len() > MAX_BYTES {
        return Err(format!("standard input: more than {} MiB", MAX_BYTES >> 20));
    }
    Ok(input)
}

/// Reads the file that VDSM names. Errors do not name it: the name would mean nothing to their reader.
fn from_file(seen: &CallInput) -> Result<Vec<u8>, String> {
    let path = vdsm::domain_file().ok_or("_hook_domxml is not set; VDSM sets it when it calls the hook")?;
    let explained = |error: io::Error| format!("the file in _hook_domxml: {error}");
    let place = Place::named(&path).map_err(explained)?;
    let read = place.file().and_then(|file| read_open(file, MAX_BYTES)).map_err(explained)?;
    // Only VDSM sets it.
    let _ = seen.place.set(place);
    Ok(read)
}

/// Whatever a guest's `<metadata>` holds, it is not a way around the check: no more nodes fit into the bytes than
/// these.
const LIMITS: Limits = Limits { bytes: MAX_BYTES, nodes: MAX_BYTES / 4 };

fn look_at_xml(protocol: &Protocol, xml: &[u8], policy: &Policy) -> Result<AdapterOutcome, String> {
    let document = Document::parse_within(xml, LIMITS)
        .map_err(|error| format!("domain XML:{}: {}", error.location, error.message))?;
    let domain = domain::read(&document)
        .map_err(|error| format!("domain XML:{}: {error}", document.location(error.span.start)))?;
    let source = HostSource::this();
    let host = source.host_of(&domain);
    Ok(decide(protocol, GuestSource::Xml(&document, &domain), &host, policy))
}

fn look_at_call(protocol: &Protocol, text: &[u8], policy: &Policy) -> Result<AdapterOutcome, String> {
    let call = Call::read(text).map_err(|error| format!("command line:{}: {}", error.location, error.message))?;
    let launch = Launch::read(&call);
    let source = HostSource::this();
    let host = source.host_of(&launch);
    Ok(decide(protocol, GuestSource::Call(&call, &launch), &host, policy))
}
