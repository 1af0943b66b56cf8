//! libvirt's cache of what each QEMU binary can do: version, machine types and aliases, without asking a daemon.
//!
//! Source: libvirt `src/qemu/qemu_capabilities.c` (`virQEMUCapsFormatCache`), files
//! `/var/cache/libvirt/qemu/capabilities/*.xml`, readable by root.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::file::read_found;
use crate::host::{Emulator, Host};
use crate::version::Version;
use crate::xml::{Document, MAX_BYTES};

/// What the cache says of one QEMU binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedQemu {
    /// Path of the binary, version and machine types.
    pub emulator: Emulator,
    /// Version of the libvirt that wrote the cache.
    pub libvirt: Option<Version>,
    /// When libvirt looked, seconds since 1970.
    probed: u64,
}

impl CachedQemu {
    /// Reads one cache file; `None` where it is none, or of another architecture's QEMU.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document = Document::parse(bytes).ok()?;
        let root = document.root();
        let text = |name: &'static str| root.child(name).map(|element| element.text().into_owned());
        if root.name() != "qemuCaps" || text("arch")? != "x86_64" {
            return None;
        }
        let mut machines = Vec::new();
        let mut aliases = BTreeMap::new();
        for machine in root.children_named("machine") {
            let Some(name) = machine.value("name") else { continue };
            if let Some(alias) = machine.value("alias") {
                aliases.insert(alias.to_owned(), name.to_owned());
            }
            machines.push(name.to_owned());
        }
        machines.sort_by(|a: &String, b| numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b)));
        machines.dedup();
        Some(Self {
            emulator: Emulator {
                path: Some(text("emulator")?),
                version: Some(Version::from_libvirt_number(text("version")?.parse().ok()?)),
                machines,
                aliases,
            },
            libvirt: text("selfvers").and_then(|number| number.parse().ok()).map(Version::from_libvirt_number),
            probed: text("qemuctime").and_then(|time| time.parse().ok()).unwrap_or(0),
        })
    }

    /// Adds what is known of this QEMU to what is known of the host.
    pub fn describe(&self, host: &mut Host) {
        host.qemu = self.emulator.version;
        host.libvirt = self.libvirt;
        host.machines.clone_from(&self.emulator.machines);
        host.aliases.clone_from(&self.emulator.aliases);
    }
}

/// What to sort names by, so that 2.10 comes behind 2.9: what stands before each number, and the number.
fn numbers(name: &str) -> Vec<(&str, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let start = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let length = rest[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - start);
        let (number, behind) = (&rest[start..start + length], &rest[start + length..]);
        parts.push((&rest[..start], number.parse().unwrap_or(0)));
        rest = behind;
    }
    parts
}

/// The QEMU at `emulator`, the last probed one where the cache has several; `None` where it has none or cannot be read.
///
/// Only what libvirt can have written counts, see [`super::file::open_found`]. Of the other files only the beginning is
/// read, where libvirt writes the path.
pub fn read_one(folder: &Path, emulator: &str) -> Option<CachedQemu> {
    /// Bytes within which the path stands (`virQEMUCapsFormatCache` writes it first).
    const BEGINNING: usize = 4096;
    let wanted = format!("<emulator>{emulator}</emulator>");
    let mentions = |path: &Path| {
        read_found(path, BEGINNING).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|w| w == wanted.as_bytes()))
    };
    files(folder).filter(|path| mentions(path)).filter_map(|path| read(&path)).max_by_key(|qemu| qemu.probed)
}

/// Every QEMU in the cache folder `folder` with its file, the last probed one of each binary, sorted by path of the
/// binary. Files that are none are passed over, and so is what libvirt cannot have written, see
/// [`super::file::open_found`].
///
/// # Errors
/// The folder cannot be read, or a file in it must not be.
pub fn read_all(folder: &Path) -> io::Result<Vec<(PathBuf, CachedQemu)>> {
    let mut newest: BTreeMap<Option<String>, (PathBuf, CachedQemu)> = BTreeMap::new();
    // Sorted, so that two that were probed in the same second give the same answer every time.
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths.into_iter().filter(|path| is_xml(path)) {
        let bytes = match read_found(&path, MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // libvirt replaces files at any time.
            bytes => bytes.unwrap_or_default(),
        };
        let Some(qemu) = CachedQemu::parse(&bytes) else { continue };
        if newest.get(&qemu.emulator.path).is_none_or(|(_, known)| known.probed <= qemu.probed) {
            newest.insert(qemu.emulator.path.clone(), (path, qemu));
        }
    }
    Ok(newest.into_values().collect())
}

fn is_xml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "xml")
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_xml(path))
}

fn read(path: &Path) -> Option<CachedQemu> {
    CachedQemu::parse(&read_found(path, MAX_BYTES).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libvirt_writes() {
        let cache = b"<qemuCaps>\n  <emulator>/usr/bin/qemu-system-x86_64</emulator>\n  <qemuctime>1795392742</qemuctime>\n  \
            <selfvers>9000000</selfvers>\n  <version>7002022</version>\n  <arch>x86_64</arch>\n  \
            <machine type='kvm' name='pc-q35-7.2' alias='q35'/>\n  <machine type='qemu' name='pc-q35-7.2' alias='q35'/>\n  \
            <machine type='kvm' name='pc-q35-6.2'/>\n  <machine type='kvm' name='pc-q35-2.10'/>\n  \
            <machine type='kvm' name='pc-q35-2.9'/>\n</qemuCaps>\n";
        let qemu = CachedQemu::parse(cache).expect("a cache file");
        assert_eq!(qemu.emulator.path.as_deref(), Some("/usr/bin/qemu-system-x86_64"));
        assert_eq!(qemu.emulator.version, Some(Version { major: 7, minor: 2, micro: 22 }));
        assert_eq!(qemu.libvirt, Some(Version::new(9, 0)));
        assert_eq!(qemu.emulator.machines, ["pc-q35-2.9", "pc-q35-2.10", "pc-q35-6.2", "pc-q35-7.2"]);
        assert_eq!(qemu.emulator.aliases.get("q35").map(String::as_str), Some("pc-q35-7.2"));
        assert_eq!(CachedQemu::parse(b"<qemuCaps><arch>aarch64</arch></qemuCaps>"), None);
        assert_eq!(CachedQemu::parse(b"not xml"), None);
    }
}
