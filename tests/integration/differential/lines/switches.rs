//! Which options have no value: one that is taken for the wrong kind swallows the next, or leaves its value behind.

use crate::common::{note, skip};
use crate::integration::differential::tree;
use iova_preflight::command_line::{Argument, CommandLine};
use std::path::Path;
use std::process::{Command, Stdio};

/// Options of QEMU 2.12 to 11.1 that are hidden from `-help`, or gone.
const HIDDEN: &[&str] = &["no-acpi", "no-hpet", "singlestep", "portrait", "enable-kvm", "old-param", "win2k-hack"];

/// A machine type that is read only where the option before it has no value.
const MACHINE: &str = "pc-q35-6.2";

#[test]
fn options_take_a_value_where_every_qemu_does() {
    let (mut compared, mut qemus) = (0, 0);
    let mut wrong = Vec::new();
    for stack in ["machine", "trixie", "sid"] {
        let tree = match tree(stack) {
            Ok(tree) => tree,
            Err(why) => {
                skip(&format!("no QEMU of {stack} to compare with: {why}"));
                continue;
            }
        };
        let Some(help) = said(&tree, &["-help"]) else {
            skip(&format!("no QEMU of {stack} to compare with"));
            continue;
        };
        qemus += 1;
        let words = help.lines().filter(|line| line.starts_with('-')).flat_map(|line| {
            let alternatives = line.split(" or ").map(|part| part.split([' ', '[']).next().unwrap_or_default());
            alternatives.filter_map(|word| word.strip_prefix('-')).map(str::to_owned).collect::<Vec<_>>()
        });
        let names: Vec<String> = words.chain(HIDDEN.iter().map(|name| (*name).to_owned())).collect();
        assert!(names.len() > 100, "{stack}: {names:?}");
        for name in names {
            let Some(expected) = has_value(&tree, &name) else { continue };
            compared += 1;
            if has_value_here(&name) != expected {
                wrong.push(format!("{stack}: -{name}: QEMU {expected}, ours {}", !expected));
            }
        }
    }
    assert!(wrong.is_empty(), "whether options have a value:\n{}", wrong.join("\n"));
    note(&format!("switches: {compared} options of {qemus} QEMUs"));
}

/// Whether QEMU takes the word after an option for its value; `None` if it lacks the option. It reads all words before
/// it does anything, and ends at the first that it does not know.
fn has_value(tree: &Path, name: &str) -> Option<bool> {
    let option = format!("-{name}");
    let said = said(tree, &[&option, "-first", "-second"])?;
    match (said.contains("-first: invalid option"), said.contains("-second: invalid option")) {
        (true, _) => Some(false),
        (_, true) => Some(true),
        _ => None,
    }
}

fn has_value_here(name: &str) -> bool {
    let option = format!("-{name}");
    let mut line = CommandLine::default();
    let words = [option.as_str(), "-machine", MACHINE, "-machine", "hpet=off"];
    line.merge(words.iter().enumerate().map(|(number, word)| Argument::numbered(number, word)));
    line.machine.kind.is_none_or(|kind| kind.value != MACHINE)
}

fn said(tree: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("chroot");
    command.arg(tree).arg("/usr/bin/qemu-system-x86_64").args(arguments).stdin(Stdio::null());
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    (output.status.code() != Some(127)).then(|| String::from_utf8_lossy(&text).into_owned())
}
