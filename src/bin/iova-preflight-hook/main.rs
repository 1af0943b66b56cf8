//! `iova-preflight-hook`, called by libvirt for every step of every guest.
//!
//! It never writes to standard output, starts no process, talks to no daemon but the system log, and ends by itself:
//! whatever happens, the exit status is 0 (the guest goes on) or 1 (it is stopped).

mod deadline;
mod log;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use iova_preflight::decision::{Decision, Operation, decide, is_exempt, is_out_of_reach, salvage_on_internal_error};
use iova_preflight::domain;
use iova_preflight::io::detect::host_for_domain;
use iova_preflight::io::policy;
use iova_preflight::policy::{Mode, OnInternalError, Policy};
use iova_preflight::text::printable;
use iova_preflight::xml::{Document, MAX_BYTES};

/// Ends the process with the status libvirt understands. Buffers are flushed by hand, nothing else has to be.
fn exit(blocked: bool) -> ! {
    // Not `std::process::exit`: no destructor or handler may stand between the decision and libvirt.
    deadline::exit_now(i32::from(blocked))
}

fn main() {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let [_, name, operation, sub_operation, ..] = args.as_slice() else {
        let usage = "iova-preflight-hook is called by libvirt as NAME OPERATION SUB-OPERATION EXTRA with domain XML on stdin;\n\
                     see `iova-preflight hook --help` for how to install it";
        let _ = writeln!(std::io::stderr(), "{usage}");
        exit(false)
    };
    let Some(operation) = Operation::parse(operation, sub_operation) else { exit(false) };
    deadline::arm();
    // A panic is an internal error like any other; its text is for the log, not for whoever starts the guest.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(operation, name)));
    match outcome.unwrap_or_else(|_| Err("it panicked".to_owned())) {
        Ok(Decision::Allow { log }) => {
            if let Some(line) = log {
                log::send(log::Level::Warning, &line);
            }
            exit(false)
        }
        Ok(Decision::Block { message }) => {
            log::send(log::Level::Warning, &format!("stopped: {message}"));
            let _ = writeln!(std::io::stderr(), "iova-preflight: {message}");
            exit(true)
        }
        Err(problem) => {
            let block = deadline::on_internal_error() == OnInternalError::Block;
            let consequence = if block { "is stopped" } else { "goes on unchecked" };
            let line = format!("internal error: {problem}; guest {} {consequence}", printable(name));
            log::send(log::Level::Error, &line);
            if block {
                let source = format_args!("on_internal_error = \"block\" in {}", policy::PATH);
                let _ = writeln!(std::io::stderr(), "iova-preflight: {line} ({source})");
            }
            exit(block)
        }
    }
}

/// Decides.
///
/// # Errors
/// What kept it from deciding.
fn run(operation: Operation, name: &str) -> Result<Decision, String> {
    let policy = read_policy()?;
    deadline::set_on_internal_error(policy.on_internal_error);
    let nothing = Ok(Decision::Allow { log: None });
    if policy.mode == Mode::Off || is_exempt(&policy, name, None) {
        return nothing;
    }
    let mut xml = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut xml)
        .map_err(|e| format!("standard input: {e}"))?;
    deadline::input_is_complete();
    let document = Document::parse(&xml).map_err(|e| format!("domain XML:{e}"))?;
    let domain = domain::read(&document).map_err(|e| format!("domain XML:{}: {e}", document.location(e.span.start)))?;
    if is_exempt(&policy, &domain.name, domain.uuid.as_deref()) || is_out_of_reach(&domain) {
        return nothing;
    }
    let host = host_for_domain(Path::new("/"), &domain);
    Ok(decide(operation, &domain, &host, &policy))
}

fn read_policy() -> Result<Policy, String> {
    let read = policy::read_operators(Path::new("/")).map_err(|error| format!("{}: {error}", policy::PATH));
    let Some(bytes) = read? else { return Ok(Policy::default()) };
    // Whatever is wrong with the rest, what it says of internal errors holds for this one.
    deadline::set_on_internal_error(salvage_on_internal_error(&bytes));
    policy::parse(&bytes).map_err(|error| format!("{}:{error}", policy::PATH))
}
