//! Where in a command the program is.

use super::Word;

/// Where a call of QEMU begins among the words of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At its program.
    Program(usize),
    /// At its first option; there is no program.
    Options(usize),
}

/// Commands that run the command after them, and words of the shell that one may come after.
const PREFIXES: [&str; 36] = [
    "!",
    "(",
    "cgexec",
    "chroot",
    "chrt",
    "command",
    "do",
    "doas",
    "else",
    "env",
    "eval",
    "exec",
    "gdb",
    "if",
    "ionice",
    "ltrace",
    "nice",
    "nohup",
    "nsenter",
    "numactl",
    "perf",
    "pkexec",
    "prlimit",
    "setarch",
    "setpriv",
    "setsid",
    "strace",
    "stdbuf",
    "sudo",
    "systemd-run",
    "taskset",
    "then",
    "time",
    "timeout",
    "unshare",
    "{",
];

/// Where QEMU is called in a command.
pub(super) fn find(words: &[Word]) -> Option<Start> {
    let first = words.iter().position(|word| !is_assignment(&word.text))?;
    let word = words.get(first)?;
    if is_option(&word.text) {
        return Some(Start::Options(first));
    }
    if is_qemu(&word.text) {
        return Some(Start::Program(first));
    }
    if PREFIXES.contains(&base_name(&word.text)) {
        let program = words.iter().skip(first).position(|word| is_qemu(&word.text))?;
        return Some(Start::Program(first.saturating_add(program)));
    }
    // Any program that is named by its path and given an option, as in libvirt's `<emulator>`.
    let options = words.get(first.saturating_add(1)).is_some_and(|word| is_option(&word.text));
    (word.text.contains('/') && options).then_some(Start::Program(first))
}

/// Whether a word is a variable and its value.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a word is an option, and not a number or a dash that begins a list.
fn is_option(word: &str) -> bool {
    let name = word.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name));
    name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Whether a program is called as QEMU's are: `qemu-system-x86_64`, `kvm` on Debian and Proxmox, `qemu-kvm` on RHEL, and
/// `.qemu-system-x86_64-wrapped` on NixOS.
fn is_qemu(word: &str) -> bool {
    let name = base_name(word);
    let name = name.strip_prefix('.').unwrap_or(name);
    let of_a_target = name.strip_prefix("qemu-system-").is_some_and(|target| {
        !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    });
    of_a_target || matches!(name, "qemu-kvm" | "kvm" | "kvm-spice" | "qemu")
}

/// The last part of a path.
fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}
