//! `iova-preflight host`.

use std::io::{BufWriter, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::host::{BUILTIN, Host, Iommu, ProfileLine, builtin};
use iova_preflight::io::detect::detect;
use iova_preflight::report::host_facts::{HostFacts, Profiles};
use iova_preflight::report::json;
use iova_preflight::text;
use serde::Serialize;

use crate::args::{HostArgs, HostFormat};
use crate::outcome::Outcome;
use crate::output::terminal;

const DIM: Style = Style::new().dimmed();
const MISSING: Style = AnsiColor::Yellow.on_default();
const BOLD: Style = Style::new().bold();

/// Prints what is known of this host, or the built-in profiles.
pub(crate) fn run(args: &HostArgs) -> Result<Outcome> {
    let mut out = BufWriter::new(anstream::stdout().lock());
    match (args.list, args.format) {
        (true, HostFormat::Human) => list(&mut out)?,
        (true, HostFormat::Json) => json(&mut out, &Profiles::builtin())?,
        (false, format) => {
            let described = detect(Path::new("/"));
            match format {
                HostFormat::Human => described.lines().iter().try_for_each(|line| print(&mut out, line))?,
                HostFormat::Json => json(&mut out, &HostFacts::new(&described))?,
            }
        }
    }
    out.flush()?;
    Ok(Outcome::Clean)
}

fn json(out: &mut impl Write, document: &impl Serialize) -> Result<()> {
    out.write_all(json::text(document).map_err(std::io::Error::from)?.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A line of the profile: comments are dimmed, tables are emphasised.
fn print(out: &mut impl Write, line: &ProfileLine) -> Result<()> {
    let (text, note) = line.parts();
    match line {
        ProfileLine::Table(..) => write!(out, "{BOLD}{text}{BOLD:#}")?,
        _ => write!(out, "{text}")?,
    }
    if let Some(note) = note {
        let style = if matches!(line, ProfileLine::Missing(_)) { MISSING } else { DIM };
        write!(out, "{style}# {note}{style:#}")?;
    }
    writeln!(out)?;
    Ok(())
}

/// The built-in profiles.
fn list(out: &mut impl Write) -> Result<()> {
    /// With fewer columns, the name has a line of its own.
    const BESIDE: usize = 60;
    let columns = terminal::columns().min(100);
    let longest = BUILTIN.iter().map(|builtin| builtin.name.len()).max().unwrap_or(0);
    let indent = if columns < BESIDE { 2 } else { longest + 2 };
    for profile in BUILTIN {
        let host = builtin(profile.name).unwrap_or_default();
        write!(out, "{BOLD}{}{BOLD:#}", profile.name)?;
        let mut padding = indent.checked_sub(profile.name.len());
        let summary = text::wrapped(&format!("{}.", profile.summary), columns - indent);
        for line in summary.into_iter().chain(facts(&host)) {
            if padding.is_none() {
                writeln!(out)?;
            }
            writeln!(out, "{:1$}{line}", "", padding.unwrap_or(indent))?;
            padding = Some(indent);
        }
        writeln!(out)?;
    }
    let how = "Use one with `--host NAME`, or the output of `iova-preflight host` from another machine with `--host \
               FILE`.";
    for line in text::wrapped(how, columns) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What a profile says, a line for each fact.
fn facts(host: &Host) -> Vec<String> {
    let mut facts = Vec::new();
    if let (Some(vendor), Some(bits)) = (&host.cpu_vendor, host.phys_bits) {
        facts.push(format!("CPU      {vendor}, {bits} phys-bits"));
    }
    if let Some(kind) = host.iommu.map(Iommu::name) {
        facts.push(format!("IOMMU    {kind}"));
    }
    for (number, reserved) in host.reserved.iter().enumerate() {
        let title = if number == 0 { "reserved" } else { "" };
        facts.push(format!("{title:<8} {}", reserved.meaning()));
    }
    facts
}
