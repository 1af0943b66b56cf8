//! `iova-preflight-hook`, called by libvirt for every step of every guest.
//!
//! It never writes to standard output, starts no process, talks to no daemon but the system log, and ends by itself:
//! whatever happens, the exit status is 0 (the guest starts) or 1 (it is stopped).

// Before it calls `main`, the standard library aborts if a descriptor is closed and it cannot open another, or if it
// gets no memory for a second stack.
#![no_main]

mod output;
mod process;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use iova_preflight::decision::{
    BrokenPolicy, HookOutcome, Operation, Outside, XmlProblem, run, salvage_on_internal_error,
};
use iova_preflight::domain::{Domain, TooLong};
use iova_preflight::host::Host;
use iova_preflight::io::detect::host_for_domain;
use iova_preflight::io::policy;
use iova_preflight::policy::{OnInternalError, Policy};

/// The message for people who call it by hand.
const USAGE: &str = "iova-preflight-hook is called by libvirt as NAME OPERATION SUB-OPERATION EXTRA with domain XML on \
                     stdin;\nsee `iova-preflight hook --help` for how to install it";

/// The hook; called by `main` in [`process`].
fn hook() -> ! {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let [_, name, operation, sub_operation, ..] = args.as_slice() else {
        output::to_stderr(&[USAGE]);
        process::exit(false)
    };
    let Some(operation) = Operation::parse(operation, sub_operation) else { process::exit(false) };
    process::harden(name);
    // A panic is an internal error like any other; its text is not shown.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(operation, name, &mut System)));
    let outcome =
        outcome.unwrap_or_else(|_| HookOutcome::of_failure(name, "the program panicked", process::on_internal_error()));
    // From here on nothing changes the guest's outcome.
    process::decided(outcome.blocked);
    for (level, line) in &outcome.log {
        output::to_log(*level as u8, &[line]);
    }
    if let Some(message) = outcome.message {
        output::to_stderr(&[&message]);
    }
    process::exit(outcome.blocked)
}

/// This machine.
struct System;

impl Outside for System {
    fn policy(&mut self) -> Result<Policy, BrokenPolicy> {
        let broken = |problem, on_internal_error| Err(BrokenPolicy { problem, on_internal_error });
        let bytes = match policy::read_operators(Path::new("/")) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Policy::default()),
            Err(error) => return broken(format!("{}: {error}", policy::PATH), OnInternalError::default()),
        };
        // Even if the rest is wrong, its setting for internal errors applies to this one.
        let salvaged = salvage_on_internal_error(&bytes);
        self.on_internal_error(salvaged);
        policy::parse(&bytes).or_else(|error| broken(format!("{}:{error}", policy::PATH), salvaged))
    }

    fn on_internal_error(&mut self, choice: OnInternalError) {
        process::set_on_internal_error(choice);
    }

    fn xml(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), TooLong>) -> Result<(), XmlProblem> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match process::read_stdin(&mut buffer).map_err(XmlProblem::Input)? {
                0 => return Ok(()),
                length => take(&buffer[..length])?,
            }
        }
    }

    fn host(&mut self, domain: &Domain) -> Host {
        host_for_domain(Path::new("/"), domain)
    }
}
