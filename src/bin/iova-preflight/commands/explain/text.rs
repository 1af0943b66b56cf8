//! What an error message or a log means.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use iova_preflight::messages::cause::{Answer, Cause};
use iova_preflight::messages::{self, LogReader, Printed, Sighting};
use iova_preflight::report::explanation::Explanation;
use iova_preflight::report::json;
use iova_preflight::rules::page::Block;
use iova_preflight::text::wrapped;

use super::{HEADING, LONGEST_LINE};
use crate::args::ExplainFormat;
use crate::outcome::Outcome;
use crate::output::terminal;

/// How many lines of a log are shown for each cause.
const SHOWN: usize = 4;

/// Bytes that are read from standard input at once.
const PIECE: usize = 128 << 10;

/// How much of standard input is searched for what the pages of the rules quote, in bytes.
const SHORT: usize = 16 << 10;

/// The answer if no message is known.
const UNKNOWN: &str = "this text contains no known message";

/// Where a known message would be.
const WHERE: [(&str, &str); 3] = [
    ("what QEMU printed, as libvirt keeps it", "iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
    ("what the host's kernel printed", "dmesg | grep -iE 'vfio|iommu|AMD-Vi|DMAR|kvm' | iova-preflight explain -"),
    ("whether the guest can start at all", "iova-preflight check --connect qemu:///system --domain NAME"),
];

/// Says what a text on the command line means; several words are one text.
pub(super) fn explain(words: &[OsString], format: ExplainFormat) -> Result<Outcome> {
    let text = words.join(" ".as_ref());
    let mut reader = LogReader::default();
    reader.read(text.as_encoded_bytes());
    let (mut sightings, omitted) = reader.finish();
    let is_fragment = sightings.is_empty();
    if is_fragment {
        sightings = messages::from_fragment(text.as_encoded_bytes());
    }
    // The file itself may be meant.
    let file = words.first().filter(|word| words.len() == 1 && Path::new(word).is_file());
    // virsh prints this line before the reason.
    if sightings.iter().all(|sighting| sighting.cause == Cause::QemuExited)
        && let Some(printed) = messages::from_pages(&text.to_string_lossy())
    {
        return print_page(printed, &text.to_string_lossy(), format);
    }
    let more = (is_fragment && !sightings.is_empty()).then_some(FRAGMENT);
    print(&sightings, omitted, format, false, Remarks { file, more })
}

/// Says which rule is about a message that is not in the table, but on the page of the rule.
fn print_page(printed: Printed, text: &str, format: ExplainFormat) -> Result<Outcome> {
    let quote = messages::quoted_line(text);
    let text = match format {
        ExplainFormat::Json => json::text(&Explanation::of_page(printed, &quote))? + "\n",
        ExplainFormat::Human => {
            let (rule, error) = (printed.rule, printed.error);
            let style = AnsiColor::Red.on_default().bold();
            let headline =
                wrapped(&format!("cause: {}", rule.summary), terminal::columns().min(LONGEST_LINE)).join("\n");
            let headline = headline.trim_start_matches("cause");
            let mut text = format!("{style}cause{style:#}{HEADING}{headline}{HEADING:#}\n");
            let _ = writeln!(text, "  {}:\n    {quote}", error.by.name());
            remark(&mut text, "printed", error.when);
            remark(&mut text, "page", &format!("`iova-preflight explain {}`", rule.id));
            text
        }
    };
    write_out(&text)?;
    Ok(Outcome::Clean)
}

/// The note with an answer to a few words.
const FRAGMENT: &str = "paste the whole line to have its addresses, sizes and error number explained";

/// A note after an answer.
#[derive(Default)]
struct Remarks<'a> {
    /// The name of a file that is taken for a text.
    file: Option<&'a OsString>,
    /// The line below the answer.
    more: Option<&'static str>,
}

/// Says what a log on standard input means.
pub(super) fn explain_log(format: ExplainFormat) -> Result<Outcome> {
    let mut reader = LogReader::default();
    let mut piece = vec![0; PIECE];
    // A text short enough to have been pasted, not a log of weeks.
    let mut short = Vec::new();
    let mut input = io::stdin().lock();
    loop {
        match input.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                if short.len() <= SHORT {
                    short.extend_from_slice(&piece[..length]);
                }
                reader.read(&piece[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("standard input"),
        }
    }
    let (sightings, omitted) = reader.finish();
    let short = String::from_utf8_lossy(if short.len() > SHORT { b"" } else { &short });
    if sightings.iter().all(|sighting| sighting.cause == Cause::QemuExited)
        && let Some(printed) = messages::from_pages(&short)
    {
        return print_page(printed, &short, format);
    }
    print(&sightings, omitted, format, true, Remarks::default())
}

fn print(
    sightings: &[Sighting],
    omitted: u64,
    format: ExplainFormat,
    log: bool,
    remarks: Remarks<'_>,
) -> Result<Outcome> {
    let text = match format {
        ExplainFormat::Json => json::text(&Explanation::new(sightings, omitted))? + "\n",
        ExplainFormat::Human if sightings.is_empty() => unknown(remarks.file),
        ExplainFormat::Human => {
            let mut text = answers(sightings, omitted, log);
            remarks.more.into_iter().for_each(|more| remark(&mut text, "note", more));
            text
        }
    };
    write_out(&text)?;
    Ok(if sightings.is_empty() { Outcome::Stopped } else { Outcome::Clean })
}

fn write_out(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn unknown(file: Option<&OsString>) -> String {
    let mut text = format!("{HEADING}{UNKNOWN}{HEADING:#}\n");
    if file.is_some() {
        remark(&mut text, "note", "this is the name of a file; to read it, run `iova-preflight explain - < FILE`");
    }
    remark(&mut text, "look at", "the lines just before QEMU ended, and the first error rather than the last:");
    for (what, command) in WHERE {
        let _ = writeln!(text, "       # {what}\n       $ {command}");
    }
    remark(
        &mut text,
        "known",
        "messages.md of the documentation lists all; packages have it in /usr/share/doc/iova-preflight",
    );
    text
}

fn answers(sightings: &[Sighting], omitted: u64, log: bool) -> String {
    let mut text = String::new();
    for group in sightings.chunk_by(|one, other| one.cause == other.cause) {
        let [first, ..] = group else { continue };
        if !text.is_empty() {
            text.push('\n');
        }
        let answer = first.cause.answer();
        let style = style_of(answer);
        let lines = wrapped(&format!("cause: {}", answer.headline), terminal::columns().min(LONGEST_LINE)).join("\n");
        let headline = lines.trim_start_matches("cause");
        let _ = writeln!(text, "{style}cause{style:#}{HEADING}{headline}{HEADING:#}");
        for sighting in group.iter().take(SHOWN) {
            shown(&mut text, sighting, log);
        }
        let started_by =
            group.iter().map(|sighting| StartedBy::of(&sighting.quote)).max().unwrap_or(StartedBy::Libvirt);
        let more: u64 = group.iter().skip(SHOWN).map(|sighting| sighting.count).sum();
        if more > 0 {
            let _ = writeln!(text, "  and {more} more like these");
        }
        about(&mut text, answer, started_by);
    }
    if omitted > 0 {
        let _ = writeln!(text, "\n{omitted} further messages, too many to list");
    }
    text
}

fn style_of(answer: &Answer) -> Style {
    match (answer.ours, answer.cause) {
        (_, Cause::QemuExited | Cause::BarNotMappable | Cause::RomUnreadable | Cause::PhysBitsMismatch) => {
            AnsiColor::Yellow.on_default()
        }
        (true, _) => AnsiColor::Red.on_default().bold(),
        (false, _) => AnsiColor::Red.on_default(),
    }
}

/// A message as it is there, and what its numbers mean.
fn shown(text: &mut String, sighting: &Sighting, log: bool) {
    let by = sighting.wording.by.name();
    let times = if sighting.count > 1 { format!(", {} times", sighting.count) } else { String::new() };
    let place = if log { format!("line {}, ", sighting.line) } else { String::new() };
    let _ = writeln!(text, "  {place}{by}{times}:\n    {}", sighting.quote);
    for (name, value) in sighting.told() {
        remark(text, name, &value);
    }
}

/// What started the QEMU that printed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StartedBy {
    /// Or a script.
    Libvirt,
    /// It is called `kvm`, as Proxmox VE calls it (`get_command_for_arch` in `src/PVE/QemuServer/Helpers.pm` of qemu-server
    /// 9.2.6). Debian and others have a program of this name, too.
    MaybeProxmox,
    /// Proxmox VE, without libvirt.
    Proxmox,
}

impl StartedBy {
    /// What only messages of Proxmox VE have. The first is the name in its journal, as recorded logs have it; the others are
    /// names of files, devices and machine types in `src/PVE/QemuServer/CPUConfig.pm`, `QemuServer/PCI.pm`,
    /// `QemuServer.pm` and `API2/Qemu/Machine.pm` of qemu-server 9.2.6.
    const SIGNS: [&str; 6] = [" QEMU[", "/usr/share/kvm/", "id=hostpci", "/etc/pve/", "/run/qemu-server/", "+pve"];

    fn of(quote: &str) -> Self {
        if !quote.starts_with("kvm: ") && !quote.contains(" kvm: ") {
            return Self::Libvirt;
        }
        if Self::SIGNS.iter().any(|sign| quote.contains(sign)) { Self::Proxmox } else { Self::MaybeProxmox }
    }
}

/// Commands for a guest of libvirt's in the words of Proxmox VE; `None` for one without an equivalent.
fn in_words_of_proxmox(line: &str) -> Option<String> {
    let is_about_a_guest = line.contains(" --connect qemu:///system --domain NAME");
    if is_about_a_guest && line.starts_with("iova-preflight fix ") {
        return None;
    }
    if is_about_a_guest {
        return Some(
            "qm showcmd VMID --pretty | iova-preflight check -   # what is wrong, and the qm commands".to_owned(),
        );
    }
    Some(line.replace(
        "iova-preflight explain - < /var/log/libvirt/qemu/NAME.log",
        "journalctl -b | iova-preflight explain -",
    ))
}

fn about(text: &mut String, answer: &Answer, started_by: StartedBy) {
    remark(text, "why", answer.because);
    for not in answer.is_not {
        remark(text, "not", not);
    }
    let mut name = "do";
    for block in answer.fix {
        match block {
            Block::Text(words) => remark(text, name, words),
            Block::Shell(lines) if started_by == StartedBy::Proxmox => {
                let lines: Vec<String> = lines.lines().filter_map(in_words_of_proxmox).collect();
                indented(text, &lines.join("\n"), "$ ");
            }
            Block::Shell(lines) => indented(text, lines, "$ "),
            Block::Xml(lines) | Block::Output(lines) => indented(text, lines, ""),
        }
        name = "and";
    }
    if started_by == StartedBy::MaybeProxmox && answer.ours {
        remark(text, "proxmox", "if this is Proxmox VE: `qm showcmd VMID --pretty | iova-preflight check -`");
    }
    if started_by == StartedBy::Proxmox && answer.ours && answer.fix.iter().any(|block| matches!(block, Block::Xml(_)))
    {
        remark(text, "proxmox", "the XML above is of libvirt; `check` names the `qm set` commands that do the same");
    }
    if let Some(rule) = answer.rule {
        remark(text, "page", &format!("`iova-preflight explain {rule}`"));
    }
    if !answer.ours {
        remark(
            text,
            "note",
            "`iova-preflight check` does not look for this: it is not about addresses, widths or limits",
        );
    }
}

fn indented(text: &mut String, lines: &str, mark: &str) {
    for line in lines.lines() {
        let mark = if line.starts_with('#') { "" } else { mark };
        let _ = writeln!(text, "       {mark}{line}");
    }
}

/// `   = name: words`, with further lines below the words.
fn remark(text: &mut String, name: &str, words: &str) {
    let head = format!("   = {name}: ");
    let room = terminal::columns().min(LONGEST_LINE).saturating_sub(head.len()).max(20);
    for (number, line) in wrapped(words, room).iter().enumerate() {
        let indent = if number == 0 { head.clone() } else { " ".repeat(head.len()) };
        let _ = writeln!(text, "{indent}{line}");
    }
}
