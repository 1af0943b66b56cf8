//! `iova-preflight completions` and `iova-preflight man`: what packages install with the program. Nothing in either
//! depends on when or where it is made.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use rustix::fs::Mode;

use crate::args::Cli;
use crate::outcome::Outcome;
use crate::place::Folder;

/// The section of the manual.
const SECTION: &str = "1";

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<Outcome> {
    let mut script = Vec::new();
    // Not to standard output directly: the generator panics where that is closed.
    clap_complete::generate(shell, &mut Cli::command(), "iova-preflight", &mut script);
    // For bash, the generator spells a program's name with a hyphen in two ways, of which one never matches, so that
    // nothing is completed after a command (https://github.com/clap-rs/clap/issues/6421).
    let script = String::from_utf8(script)?.replace("iova__subcmd__preflight__", "iova__preflight__");
    print(script.as_bytes())
}

/// Prints the program's manual page, or writes it and one page for each command into `folder`.
pub(crate) fn man(folder: Option<&Path>) -> Result<Outcome> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let Some(folder) = folder else { return print(&page(&program, &program)?) };
    let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    let opened = Folder::made(folder, all).with_context(|| folder.display().to_string())?;
    write_pages(&program, &program, &opened)?;
    Ok(Outcome::Clean)
}

fn print(text: &[u8]) -> Result<Outcome> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(Outcome::Clean)
}

fn write_pages(command: &Command, program: &Command, folder: &Folder) -> Result<()> {
    for below in visible(command) {
        write_pages(below, program, folder)?;
    }
    let name = format!("{}.{SECTION}", page_name(command));
    folder.write(name.as_ref(), &page(command, program)?).context(name)
}

/// One page.
fn page(command: &Command, program: &Command) -> Result<Vec<u8>> {
    // The synopsis is that of `--help`, without repeating every option.
    let usage = command.clone().render_usage().to_string();
    let command = &command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned());
    let man = Man::new(command.clone()).section(SECTION);
    let mut page = Vec::new();
    // By hand, because the generator drops the empty date, and the version takes its place.
    let (title, version) = (page_name(command).to_uppercase(), program.get_version().unwrap_or_default());
    writeln!(page, ".TH \"{title}\" \"{SECTION}\" \"\" \"{} {version}\" \"User Commands\"", program.get_name())?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    options(&man, &mut page)?;
    if visible(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::default();
    if let Some(help) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        after_help(&help.to_string(), &mut rest);
    }
    see_also(command, program, &mut rest);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The options in one section, with a part for each heading that the help has: the generator makes them sections.
fn options(man: &Man, page: &mut Vec<u8>) -> Result<()> {
    let mut sections = Vec::new();
    man.render_options_section(&mut sections)?;
    let parts = String::from_utf8(sections)?.replace(".SH OPTIONS\n", "").replace(".SH ", ".SS ");
    Ok(write!(page, ".SH OPTIONS\n{parts}")?)
}

/// What is below the options in the help: the exit status in the section where readers look for it.
fn after_help(text: &str, roff: &mut Roff) {
    const EXIT_STATUS: &str = "Exit status: ";
    let (status, notes): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").partition(|paragraph| paragraph.starts_with(EXIT_STATUS));
    let mut section = |title: &str, paragraphs: Vec<&str>| {
        for (number, paragraph) in paragraphs.into_iter().enumerate() {
            if number == 0 {
                roff.control("SH", [title]);
            } else {
                roff.control("PP", []);
            }
            roff.text([roman(paragraph.trim_start_matches(EXIT_STATUS))]);
        }
    };
    section("NOTES", notes);
    section("EXIT STATUS", status);
}

/// The pages of the program and of its other commands.
fn see_also(command: &Command, program: &Command, roff: &mut Roff) {
    let here = page_name(command);
    let mut pages: Vec<&str> = std::iter::once(program).chain(visible(program)).map(page_name).collect();
    pages.retain(|page| *page != here);
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for page in pages {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(page), roman(format!("({SECTION})"))]);
    }
    line.extend([roman(", "), bold("virsh"), roman("(1)")]);
    roff.text(line);
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// `iova-preflight-hook-install`, as in the name of the page.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}
