//! `iova-preflight`, the command-line tool.

mod args;
mod check;
mod connect;
mod explain;
mod fix;
mod hook;
mod hook_status;
mod host;
mod human;
mod input;
mod judge;
#[cfg(feature = "libvirt")]
mod live;
mod map;
#[cfg(feature = "libvirt")]
mod mend;
mod packages;
mod parallel;
mod progress;
#[cfg(feature = "libvirt")]
mod redefine;
mod stderr;
mod terminal;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    let result = match &cli.command {
        Command::Check(args) => check::run(args),
        Command::Fix(args) => fix::run(args),
        Command::Map(args) => map::run(args),
        Command::Explain { rule } => explain::run(rule.as_deref()),
        Command::Hook(args) => hook::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Host(args) => host::run(args),
        Command::Completions { shell } => packages::completions(*shell),
        Command::Man { folder } => packages::man(folder.as_deref()),
    };
    match result {
        Ok(outcome) => outcome.into(),
        // Whoever reads our output has had enough (`| head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(&format!("iova-preflight: {error:#}"));
            Outcome::Failed.into()
        }
    }
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Every guest may start.
    Clean,
    /// At least one guest is stopped.
    Stopped,
    /// At least one input could not be judged.
    Failed,
}

impl Outcome {
    /// The exit status.
    fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Stopped => 1,
            Self::Failed => 2,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        outcome.code().into()
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
