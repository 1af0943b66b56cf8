//! Whether a program can be run, and by whom it can be changed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use iova_preflight::io::file::{open_regular, read_open};
use iova_preflight::io::trust::changeable_by_others;

/// Whether it is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A path of the system below `root`, as this process sees it.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix("/").map_or_else(|_| path.to_owned(), |relative| root.join(relative))
}

/// Why libvirt should not run this program as root, by the path to it; `None` if only root can change anything on the
/// way.
///
/// # Errors
/// The path leads nowhere.
pub(crate) fn changeable(root: &Path, path: &Path) -> Result<Option<String>> {
    let changeable = changeable_by_others(root, path).with_context(|| path.display().to_string())?;
    Ok(changeable.map(|changeable| {
        format!("{} can be changed by users other than root, and libvirt runs the hook as root", changeable.display())
    }))
}

/// Folders from which libvirtd's AppArmor profile lets hooks run programs (`/usr/bin/* PUx` and the like in
/// `usr.sbin.libvirtd`).
pub(crate) const APPARMOR_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/lib/libvirt", "/etc/libvirt/hooks"];

/// Whether AppArmor keeps libvirtd from running this program; `None` without AppArmor.
pub(crate) fn apparmor_refuses(root: &Path, program: &Path) -> Option<bool> {
    let allowed =
        || program.parent().is_some_and(|folder| APPARMOR_FOLDERS.iter().any(|known| folder == Path::new(known)));
    root.join("sys/kernel/security/apparmor/profiles").exists().then(|| !allowed())
}

/// What starts this program.
///
/// # Errors
/// It cannot be read.
pub(crate) fn loader(root: &Path, program: &Path) -> Result<Loader> {
    let file = open_regular(&below(root, program), 0);
    let bytes = file.and_then(|file| read_open(file, MOST_HEADERS)).with_context(|| program.display().to_string())?;
    Ok(Loader::of(&bytes))
}

/// Bytes within which linkers put the program headers.
const MOST_HEADERS: usize = 64 * 1024;

/// What starts a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loader {
    /// The kernel alone.
    Kernel,
    /// A dynamic loader, with libraries that may be missing one day.
    Dynamic,
    /// An interpreter, if anything: it is not an ELF program.
    Interpreter,
}

impl Loader {
    /// What starts the program that begins with these bytes (elf(5); Linux `fs/binfmt_elf.c` runs a loader if there is a
    /// `PT_INTERP`).
    fn of(bytes: &[u8]) -> Self {
        const PT_INTERP: u64 = 3;
        let number = |at: usize, len: usize| {
            let field = bytes.get(at..at.checked_add(len)?)?;
            Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        // EI_CLASS and EI_DATA: 64 or 32 bits, the lowest byte first.
        let offsets = match bytes {
            [0x7f, b'E', b'L', b'F', 2, 1, ..] => Some((0x20, 8, 0x36)),
            [0x7f, b'E', b'L', b'F', 1, 1, ..] => Some((0x1c, 4, 0x2a)),
            _ => None,
        };
        let header = offsets.and_then(|(offset, width, sizes)| {
            let size = usize::try_from(number(sizes, 2)?).ok()?;
            let first = usize::try_from(number(offset, width)?).ok()?;
            Some((first, size, number(sizes + 2, 2)?))
        });
        let Some((first, size, count)) = header else { return Self::Interpreter };
        let kinds = (0..count).map(|index| {
            let at = usize::try_from(index).ok()?.checked_mul(size)?.checked_add(first)?;
            number(at, 4)
        });
        match kinds.collect::<Option<Vec<u64>>>() {
            None => Self::Interpreter,
            Some(kinds) if kinds.contains(&PT_INTERP) => Self::Dynamic,
            Some(_) => Self::Kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_one_that_does_not() {
        let own = std::fs::read("/proc/self/exe").expect("this program");
        let linked_statically = cfg!(target_feature = "crt-static");
        assert_eq!(Loader::of(&own), if linked_statically { Loader::Kernel } else { Loader::Dynamic });
        assert_eq!(Loader::of(b"#!/bin/sh\n"), Loader::Interpreter);
        // A header without program headers, and the same cut off or with a table that is not there.
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(Loader::of(&header), Loader::Kernel);
        assert_eq!(Loader::of(&header[..50]), Loader::Interpreter);
        header[0x38] = 1;
        header[0x20..0x28].fill(0xff);
        assert_eq!(Loader::of(&header), Loader::Interpreter);
    }
}
