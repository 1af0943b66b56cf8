//! libvirt's cache of what each QEMU binary can do: version, machine types and aliases, without asking a daemon.
//!
//! Source: libvirt `src/qemu/qemu_capabilities.c` (`virQEMUCapsFormatCache`), files
//! `/var/cache/libvirt/qemu/capabilities/*.xml`, readable by root.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::file::{open_found, read_found};
use crate::host::{Emulator, Host};
use crate::version::Version;
#[cfg(feature = "cli")]
use crate::xml::Element;
use crate::xml::{Document, MAX_BYTES};

/// What the cache holds about one QEMU binary.
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
    /// Reads one cache file; `None` if it is none, or of another architecture's QEMU.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document = Document::parse(bytes).ok()?;
        let root = document.root();
        let text = |name: &'static str| root.child(name).map(|element| element.text().into_owned());
        if root.name() != "qemuCaps" || text("arch")? != "x86_64" {
            return None;
        }
        let mut machines = Machines::default();
        for machine in root.children_named("machine") {
            let Some(name) = machine.value("name") else { continue };
            machines.add(name, machine.value("alias"), machine.value("deprecated"));
        }
        let version = |name| text(name).and_then(|number| number.parse().ok()).map(Version::from_libvirt_number);
        let probed = text("qemuctime").and_then(|time| time.parse().ok());
        let qemu = Self::new(text("emulator")?, version("version")?, version("selfvers"), probed, machines);
        #[cfg(feature = "cli")]
        let qemu = Self { emulator: Emulator { cpu_models: cpu_models(root), ..qemu.emulator }, ..qemu };
        Some(qemu)
    }

    /// What [`Self::parse`] gives but for the CPU models, read by lines: of a file as libvirt writes it, one element a
    /// line, up to the last machine type of its first accelerator. QEMU has the same machine types with each, and
    /// `virQEMUCapsFormatAccel` writes the list again for each. `None` if the file is not as libvirt writes it, or of
    /// another architecture's QEMU.
    pub fn skim(text: &str) -> Option<Self> {
        let inside = text.strip_prefix("<qemuCaps>\n")?.trim_ascii_end().strip_suffix("</qemuCaps>")?;
        let mut machines = Machines::default();
        let (mut emulator, mut version, mut libvirt, mut probed, mut is_x86) = (None, None, None, None, false);
        // Every line inside one of these elements is indented deeper.
        for line in inside.lines().filter_map(|line| line.strip_prefix("  <")) {
            if let Some(attributes) = line.strip_prefix("machine") {
                let value = |start| quoted_value(attributes, start);
                machines.add(value(" name='")?, value(" alias='"), value(" deprecated='"));
                continue;
            }
            if !machines.names.is_empty() {
                break;
            }
            let Some((name, rest)) = line.split_once('>') else { continue };
            let Some((value, _)) = rest.split_once('<') else { continue };
            let number = || value.parse().ok().map(Version::from_libvirt_number);
            match name {
                "emulator" => emulator = Some(value),
                "version" => version = number(),
                "selfvers" => libvirt = number(),
                "qemuctime" => probed = value.parse().ok(),
                "arch" => is_x86 = value == "x86_64",
                _ => {}
            }
        }
        let emulator = emulator.filter(|path| is_x86 && !path.contains('&'))?;
        Some(Self::new(emulator.to_owned(), version?, libvirt, probed, machines))
    }

    fn new(path: String, version: Version, libvirt: Option<Version>, probed: Option<u64>, machines: Machines) -> Self {
        let Machines { mut names, aliases, mut deprecated } = machines;
        for list in [&mut names, &mut deprecated] {
            list.sort_by(|a, b| numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b)));
            list.dedup();
        }
        let deprecated = Some(deprecated);
        let emulator = Emulator {
            path: Some(path),
            version: Some(version),
            machines: names,
            aliases,
            deprecated,
            ..Emulator::default()
        };
        Self { emulator, libvirt, probed: probed.unwrap_or(0) }
    }

    /// Adds what is known of this QEMU to what is known of the host.
    pub fn describe(&self, host: &mut Host) {
        host.qemu = self.emulator.version;
        host.libvirt = self.libvirt;
        host.machines.clone_from(&self.emulator.machines);
        host.aliases.clone_from(&self.emulator.aliases);
        host.deprecated.clone_from(&self.emulator.deprecated);
    }
}

/// The CPU models, which libvirt lists for each accelerator (`virQEMUCapsFormatCPUModels`): QEMU has the same with
/// each, and `usable` is about the host.
#[cfg(feature = "cli")]
fn cpu_models(root: Element<'_>) -> Vec<String> {
    let named = root.children_named("cpu").filter_map(|cpu| cpu.value("name"));
    let models: std::collections::BTreeSet<&str> = named.collect();
    models.into_iter().map(str::to_owned).collect()
}

/// The machine types in a cache file, in the order they come in.
#[derive(Default)]
struct Machines {
    names: Vec<String>,
    aliases: BTreeMap<String, String>,
    deprecated: Vec<String>,
}

impl Machines {
    /// One more; `deprecated` is the attribute of that name, see `virQEMUCapsFormatMachines`.
    fn add(&mut self, name: &str, alias: Option<&str>, deprecated: Option<&str>) {
        if let Some(alias) = alias {
            self.aliases.insert(alias.to_owned(), name.to_owned());
        }
        if deprecated == Some("yes") {
            self.deprecated.push(name.to_owned());
        }
        self.names.push(name.to_owned());
    }
}

/// The sort key of names, so that 2.10 comes after 2.9: the text before each number, and the number.
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

/// The QEMU at `emulator`, the last probed one if the cache has several; `None` if it has none or cannot be read.
///
/// Only files that libvirt can have written are used, see [`open_found`]. Of the files of other binaries only the
/// beginning is read, which has the path.
pub fn read_one(folder: &Path, emulator: &str) -> Option<CachedQemu> {
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| is_xml(path));
    files.filter_map(|path| read_if_of(&path, emulator)).max_by_key(|qemu| qemu.probed)
}

/// Reads a cache file if it is of this binary.
fn read_if_of(path: &Path, emulator: &str) -> Option<CachedQemu> {
    /// Bytes within which the path is (`virQEMUCapsFormatCache` writes it first).
    const BEGINNING: usize = 4096;
    let mut file = open_found(path).ok()?;
    let expected = file.metadata().ok()?.len().min(MAX_BYTES as u64);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).ok()? + 1);
    file.by_ref().take(BEGINNING as u64).read_to_end(&mut bytes).ok()?;
    let wanted = format!("<emulator>{emulator}</emulator>");
    if !bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
        return None;
    }
    file.take((MAX_BYTES - BEGINNING) as u64).read_to_end(&mut bytes).ok()?;
    std::str::from_utf8(&bytes).ok().and_then(CachedQemu::skim).or_else(|| CachedQemu::parse(&bytes))
}

/// Every QEMU in the cache folder `folder` with its file, the last probed one of each binary, sorted by path of the
/// binary. Other files are skipped, and so are files that libvirt cannot have written, see
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

/// The value between the `'` at the end of `start` and the next one, unless it has references.
fn quoted_value<'t>(attributes: &'t str, start: &str) -> Option<&'t str> {
    let (value, _) = attributes.split_once(start)?.1.split_once('\'')?;
    Some(value).filter(|value| !value.contains('&'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libvirt_writes() {
        let cache = b"<qemuCaps>\n  <emulator>/usr/bin/qemu-system-x86_64</emulator>\n  <qemuctime>1795392742</qemuctime>\n  \
            <selfvers>9000000</selfvers>\n  <version>7002022</version>\n  <arch>x86_64</arch>\n  \
            <machine type='kvm' name='pc-q35-7.2' alias='q35'/>\n  <machine type='qemu' name='pc-q35-7.2' alias='q35'/>\n  \
            <machine type='kvm' name='pc-q35-6.2' maxCpus='288' deprecated='yes'/>\n  <machine type='kvm' name='pc-q35-2.10'/>\n  \
            <machine type='kvm' name='pc-q35-2.9'/>\n</qemuCaps>\n";
        let qemu = CachedQemu::parse(cache).expect("a cache file");
        assert_eq!(qemu.emulator.path.as_deref(), Some("/usr/bin/qemu-system-x86_64"));
        assert_eq!(qemu.emulator.version, Some(Version { major: 7, minor: 2, micro: 22 }));
        assert_eq!(qemu.libvirt, Some(Version::new(9, 0)));
        assert_eq!(qemu.emulator.machines, ["pc-q35-2.9", "pc-q35-2.10", "pc-q35-6.2", "pc-q35-7.2"]);
        assert_eq!(qemu.emulator.deprecated, Some(vec!["pc-q35-6.2".to_owned()]));
        assert_eq!(qemu.emulator.aliases.get("q35").map(String::as_str), Some("pc-q35-7.2"));
        assert_eq!(CachedQemu::parse(b"<qemuCaps><arch>aarch64</arch></qemuCaps>"), None);
        assert_eq!(CachedQemu::parse(b"not xml"), None);
    }

    #[test]
    fn the_hook_reads_the_same_of_it_without_parsing_it() {
        let machines = |accelerator: &str| {
            let types = ["pc-q35-7.2' alias='q35", "pc-q35-2.10", "pc-i440fx-7.2' alias='pc", "pc-q35-2.9"];
            let line = |machine: &&str| {
                format!(
                    "  <machine type='{accelerator}' name='{machine}' maxCpus='288' defaultCPU='qemu64-x86_64-cpu'/>\n"
                )
            };
            types.iter().map(line).collect::<String>()
        };
        let cache = format!(
            "<qemuCaps>\n  <emulator>/usr/bin/qemu-system-x86_64</emulator>\n  <qemuctime>1795392742</qemuctime>\n  \
             <selfvers>9000000</selfvers>\n  <flag name='kvm'/>\n  <version>7002022</version>\n  <kvmVersion>0</kvmVersion>\n  \
             <package>Debian 1:7.2+dfsg-7</package>\n  <arch>x86_64</arch>\n  <hostCPU type='kvm' model='base' migratability='yes'>\n    \
             <property name='phys-bits' type='number' value='0'/>\n  </hostCPU>\n  \
             <cpu type='kvm' name='max' typename='max-x86_64-cpu' usable='no'>\n    <blocker name='machine'/>\n  </cpu>\n{}  \
             <cpu type='tcg' name='max' typename='max-x86_64-cpu' usable='yes'/>\n{}</qemuCaps>\n",
            machines("kvm"),
            machines("tcg")
        );
        let mut parsed = CachedQemu::parse(cache.as_bytes());
        #[cfg(feature = "cli")]
        if let Some(qemu) = &mut parsed {
            assert_eq!(std::mem::take(&mut qemu.emulator.cpu_models), ["max"]);
        }
        assert!(
            parsed.as_ref().is_some_and(|qemu| qemu.emulator.machines.len() == 4 && qemu.emulator.aliases.len() == 2)
        );
        assert_eq!(CachedQemu::skim(&cache), parsed);
        for (part, other) in [
            ("x86_64</arch>", "aarch64</arch>"),
            ("</qemuCaps>", ""),
            ("<qemuCaps>\n", "<qemuCaps>"),
            ("name='pc-q", "name='&"),
        ] {
            assert_eq!(CachedQemu::skim(&cache.replace(part, other)), None, "{part}");
        }
    }
}
