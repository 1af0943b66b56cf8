//! `iova-preflight`, the command-line tool.

mod adapter;
mod args;
mod commands;
mod connected;
mod hook;
mod input;
mod outcome;
mod output;
mod parallel;
mod place;
mod stderr;
#[cfg(feature = "libvirt")]
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use commands::{
    adapter as adapter_command, check, explain, fix, hook as hook_command, host, map, packages, watch as watch_command,
};
use outcome::Outcome;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return end(shown(&error)),
    };
    cli.color.write_global();
    if let Command::Adapter(args) = &cli.command
        && let Some((name, arguments)) = args.call()
    {
        return adapter::answer::answer(name, arguments);
    }
    end(match &cli.command {
        Command::Check(args) => check::run(args),
        Command::Fix(args) => fix::run(args),
        Command::Map(args) => map::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Adapter(args) => adapter_command::run(args),
        Command::Hook(args) => hook_command::run(args),
        Command::Watch(args) => watch_command::run(args),
        Command::Host(args) => host::run(args),
        Command::Completions { shell } => packages::completions(*shell),
        Command::Man { folder } => packages::man(folder.as_deref()),
    })
}

/// Prints a usage error, or the help or version that was asked for.
fn shown(error: &clap::Error) -> anyhow::Result<Outcome> {
    let printed = error.print();
    if error.use_stderr() {
        return Ok(Outcome::Failed);
    }
    printed?;
    Ok(Outcome::Clean)
}

fn end(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) if is_broken_pipe(&error) => outcome::unread(),
        // Errors of files come with the name of the file.
        Err(error) if error.is::<std::io::Error>() && error.chain().count() == 1 => {
            stderr::line(&format!("iova-preflight: standard output: {error}"));
            Outcome::Failed.into()
        }
        Err(error) => {
            stderr::line(&format!("iova-preflight: {error:#}"));
            Outcome::Failed.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
