//! A host as the text of a profile, for people too: each fact with its source, and for each missing one, what follows
//! and how to make it known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{
    Described, Emulator, FIRST_KERNEL_TO_REFUSE_RESERVED, Fact, FactOrigin, FirmwareFile, Host, Iommu, PciBar, Reserved,
};
use crate::address::AMD_HT_START;
use crate::text;
use crate::version::Version;

/// The widest line in columns, unless it cannot be broken.
const COLUMNS: usize = 80;

/// The column of comments after a value.
const NOTE_COLUMN: usize = 32;

/// The first kernel that leaves the HyperTransport range out where the IOMMU can (commit 94a9921e2c25,
/// `drivers/iommu/amd/iommu.c`).
const FIRST_HT_IGNORING_KERNEL: Version = Version::new(6, 16);

/// A line of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileLine {
    /// Nothing.
    Blank,
    /// A comment, without its `#`.
    Comment(String),
    /// The same, about a fact that is missing.
    Missing(String),
    /// A table such as `[cpu]`, and its comment.
    Table(String, Option<String>),
    /// A key, its value and its comment.
    Entry(String, String, Option<String>),
    /// A further line of a value.
    More(String),
}

impl ProfileLine {
    /// What is before the comment, padded if there is one; and the comment.
    pub fn parts(&self) -> (String, Option<&str>) {
        let (text, note) = match self {
            Self::Blank => (String::new(), None),
            Self::Comment(comment) | Self::Missing(comment) => return (String::new(), Some(comment)),
            Self::Table(name, note) => (name.clone(), note.as_deref()),
            Self::Entry(key, value, note) => (format!("{key} = {value}"), note.as_deref()),
            Self::More(text) => (text.clone(), None),
        };
        let width = if note.is_some() { NOTE_COLUMN.max(text.chars().count().saturating_add(2)) } else { 0 };
        (format!("{text:<width$}"), note)
    }
}

impl fmt::Display for ProfileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (text, Some(note)) => write!(f, "{text}# {note}"),
            (text, None) => f.write_str(&text),
        }
    }
}

impl Described {
    /// The host profile, line by line. It is TOML that [`super::Profile::from_toml`] reads, and a guest gets the same
    /// verdict with what is read as on the host itself.
    pub fn lines(&self) -> Vec<ProfileLine> {
        let mut page = ProfileText { described: self, lines: Vec::new() };
        page.comment(
            "A host profile: `iova-preflight check --host FILE` evaluates guests for this host on any machine. \
             Comments say where each fact was found. For a missing fact they say what verdicts assume and how to find it.",
        );
        page.name();
        page.cpu();
        page.iommu();
        page.kernel();
        page.kvm();
        page.libvirt();
        page.qemu();
        page.emulators();
        page.memory();
        page.firmwares();
        page.functions();
        page.lines
    }
}

/// The devices whose ranges or address bits differ from those of an unknown device.
struct OwnGroup {
    devices: Vec<String>,
    reserved: Vec<Reserved>,
    address_bits: Option<u32>,
}

struct ProfileText<'a> {
    described: &'a Described,
    lines: Vec<ProfileLine>,
}

impl ProfileText<'_> {
    fn host(&self) -> &Host {
        &self.described.profile.host
    }

    fn comment(&mut self, text: &str) {
        self.lines.extend(text::wrapped(&text::printable(text), COLUMNS - 2).into_iter().map(ProfileLine::Comment));
    }

    fn table(&mut self, name: &str, note: Option<&str>) {
        self.lines.push(ProfileLine::Blank);
        self.lines.push(ProfileLine::Table(name.to_owned(), note.map(|note| text::printable(note).into_owned())));
    }

    /// A key with the source of its value, after it or, if that is too long, above it.
    fn entry(&mut self, key: &str, value: String, note: Option<String>) {
        // A line break in a path would end the comment.
        let note = note.map(|note| text::printable(&note).into_owned());
        let line = ProfileLine::Entry(key.to_owned(), value, note);
        match line {
            ProfileLine::Entry(key, value, Some(note)) if line_length(&key, &value, &note) > COLUMNS => {
                self.comment(&note);
                self.lines.push(ProfileLine::Entry(key, value, None));
            }
            line => self.lines.push(line),
        }
    }

    fn found(&self, fact: Fact) -> Option<String> {
        match self.described.origin(fact) {
            Some(FactOrigin::Found(source)) => Some(source.clone()),
            _ => None,
        }
    }

    /// Says that a fact is missing, why, what follows, and how to make it known.
    fn missing(&mut self, fact: Fact, what: &str) {
        let (why, remedy) = match self.described.origin(fact) {
            Some(FactOrigin::Missing { why, remedy }) => (why.as_str(), remedy.as_str()),
            _ => ("Not found.", ""),
        };
        for (title, text) in [(what, why), ("", fact.assumption()), ("Remedy:", remedy)] {
            let text = text::printable(text);
            let lines = text::wrapped(&format!("{title} {text}"), COLUMNS - 4);
            for (number, line) in lines.into_iter().enumerate().filter(|_| !text.is_empty()) {
                let indent = if number == 0 { "" } else { "  " };
                self.lines.push(ProfileLine::Missing(format!("{indent}{line}")));
            }
        }
    }

    fn name(&mut self) {
        self.table("[host]", None);
        match self.host().name.clone() {
            Some(name) => self.entry("name", string(&name), self.found(Fact::Name)),
            None => self.missing(Fact::Name, "name is missing:"),
        }
    }

    fn cpu(&mut self) {
        self.table("[cpu]", None);
        match self.host().cpu_vendor.clone() {
            Some(vendor) => self.entry("vendor", string(&vendor), self.found(Fact::CpuVendor)),
            None => self.missing(Fact::CpuVendor, "vendor is missing:"),
        }
        match self.host().phys_bits {
            Some(bits) => self.entry("phys_bits", bits.to_string(), self.found(Fact::PhysBits)),
            None => self.missing(Fact::PhysBits, "phys_bits is missing:"),
        }
        match self.host().gb_pages {
            Some(there) => self.entry("gb_pages", there.to_string(), self.found(Fact::GbPages)),
            None => self.missing(Fact::GbPages, "gb_pages is missing:"),
        }
    }

    fn iommu(&mut self) {
        self.table("[iommu]", None);
        let host = self.host();
        let amd_cpu = host.cpu_vendor.as_deref() != Some("GenuineIntel");
        match host.iommu {
            Some(kind) => self.entry("kind", string(kind.name()), self.found(Fact::Iommu)),
            None => self.missing(Fact::Iommu, "kind is missing:"),
        }
        match (self.host().iommu_bits, self.host().iommu) {
            (Some(bits), _) => self.entry("address_bits", bits.to_string(), self.found(Fact::IommuBits)),
            (None, Some(Iommu::None)) => {}
            (None, _) => self.missing(Fact::IommuBits, "address_bits is missing:"),
        }
        match self.host().iommu {
            Some(Iommu::None) => {
                self.comment(
                    "No IOMMU is active: no device can be passed through on this host, and no range is reserved. \
                     Without --host, `iova-preflight check` uses amd-epyc instead of this host.",
                );
                self.comment(if amd_cpu {
                    "If the machine has one, enable it in the firmware setup, and remove amd_iommu=off from the \
                     kernel command line; then `dmesg | grep AMD-Vi` shows it."
                } else {
                    "If the machine has one, enable it in the firmware setup (VT-d) and with intel_iommu=on on the \
                     kernel command line; then `dmesg | grep DMAR` shows it."
                });
            }
            Some(Iommu::Intel) => self.comment(
                "An Intel IOMMU has no HyperTransport range: what starts here may fail on an AMD host. \
                 Without --host, `iova-preflight check` uses amd-epyc instead of this host.",
            ),
            Some(Iommu::Amd) | None => {}
        }
        if !self.host().reserved.is_empty() {
            self.reserved();
        } else if self.host().iommu.is_some_and(|kind| kind != Iommu::None) {
            self.missing(Fact::Reserved, "The reserved ranges are missing:");
        }
        self.groups();
    }

    fn reserved(&mut self) {
        let everywhere = self.host().reserved_for_any();
        if let Some(source) = self.found(Fact::Reserved) {
            self.lines.push(ProfileLine::Blank);
            self.comment(&format!("Ranges where VFIO maps no guest memory ({source}):"));
        }
        for reserved in self.host().reserved.clone() {
            self.table("[[iommu.reserved]]", Some(&reserved.meaning()));
            self.entry("start", format!("{:#x}", reserved.range.start), None);
            self.entry("end", format!("{:#x}", reserved.range.end), None);
            self.entry("type", string(reserved.kind.name()), None);
        }
        let amd = self.host().iommu == Some(Iommu::Amd);
        if amd && !everywhere.iter().any(covers_ht) {
            self.lines.push(ProfileLine::Blank);
            let why = match self.host().kernel.is_none_or(|kernel| kernel >= FIRST_HT_IGNORING_KERNEL) {
                true => ": this IOMMU has HTRangeIgnore, which Linux uses since 6.16",
                false => "",
            };
            self.comment(&format!(
                "The HyperTransport range, 1012–1024 GiB, is not among them{why}. QEMU moves RAM out of that range \
                 anyway."
            ));
        }
    }

    fn groups(&mut self) {
        let others = self.groups_of_their_own();
        let ranges = others.iter().any(|group| group.reserved != self.host().reserved_for_any());
        if !others.is_empty() {
            self.lines.push(ProfileLine::Blank);
            self.comment(match ranges {
                true => "The IOMMU groups of these devices have their own reserved ranges; only those apply to them:",
                false => "The IOMMU of these devices has its own number of address bits; only that applies to them:",
            });
        }
        for group in others {
            self.table("[[iommu.group]]", None);
            self.list("devices", group.devices.iter().map(|device| string(device)));
            self.list("reserved", group.reserved.iter().map(|region| inline(*region)));
            if let Some(bits) = group.address_bits {
                self.entry("address_bits", bits.to_string(), None);
            }
        }
    }

    /// The devices with these ranges and address bits, where they differ from those of an unknown device.
    fn groups_of_their_own(&self) -> Vec<OwnGroup> {
        let host = self.host();
        let everywhere = host.reserved_for_any();
        let mut groups: BTreeMap<(&[Reserved], Option<u32>), Vec<String>> = BTreeMap::new();
        let devices: BTreeSet<&String> =
            host.reserved_by_device.keys().chain(host.iommu_bits_by_device.keys()).collect();
        for device in devices {
            let bits = host.iommu_bits_by_device.get(device).copied();
            if bits.is_some() || host.reserved_for(device) != everywhere {
                let regions = host.reserved_by_device.get(device).unwrap_or(&everywhere);
                groups.entry((regions, bits)).or_default().push(device.clone());
            }
        }
        let own = |((reserved, address_bits), devices): ((&[Reserved], _), _)| OwnGroup {
            devices,
            reserved: reserved.to_vec(),
            address_bits,
        };
        groups.into_iter().map(own).collect()
    }

    fn kernel(&mut self) {
        self.table("[kernel]", None);
        let Some(version) = self.host().kernel else {
            self.missing(Fact::Kernel, "version is missing:");
            return;
        };
        self.entry("version", string(&version.to_string()), self.found(Fact::Kernel));
        let host = self.host();
        let amd = host.iommu == Some(Iommu::Amd);
        let reserves_ht = host.reserved_for_any().iter().any(covers_ht);
        if version < FIRST_KERNEL_TO_REFUSE_RESERVED {
            self.comment(
                "Older than 5.4: VFIO maps guest memory even in reserved ranges, unless the distribution has \
                 backported the check. The guest then starts, and DMA to such memory is lost while it runs.",
            );
        } else if amd && reserves_ht {
            self.comment("5.4 or newer: VFIO refuses to map reserved ranges (-22, Invalid argument).");
            if version < FIRST_HT_IGNORING_KERNEL {
                self.comment("With Linux 6.16 or newer, an IOMMU that has HTRangeIgnore (EPYC Turin) frees the range.");
            }
        }
    }

    fn kvm(&mut self) {
        self.table("[kvm]", None);
        match self.host().kvm {
            Some(available) => self.entry("available", available.to_string(), self.found(Fact::Kvm)),
            None => self.missing(Fact::Kvm, "available is missing:"),
        }
        if self.host().kvm == Some(false) {
            self.comment("Guests of type kvm do not start on this host, whatever their verdict.");
        }
    }

    fn libvirt(&mut self) {
        self.table("[libvirt]", None);
        match self.host().libvirt {
            Some(version) => self.entry("version", string(&version.to_string()), self.found(Fact::Libvirt)),
            None => self.missing(Fact::Libvirt, "version is missing:"),
        }
    }

    fn qemu(&mut self) {
        match self.described.profile.qemu.clone() {
            Some(qemu) => {
                self.table("[qemu]", Some("for guests without <emulator>"));
                let source = self.found(Fact::Qemu);
                self.emulator(&qemu, source.as_deref());
            }
            None => {
                // Not an empty table: it would mean the emulators that are not known, too.
                self.lines.push(ProfileLine::Blank);
                let what = match self.described.profile.emulators.is_empty() {
                    true => "[qemu] is missing:",
                    false => "[qemu], for guests without <emulator>, is missing:",
                };
                self.missing(Fact::Qemu, what);
            }
        }
    }

    fn emulators(&mut self) {
        let described = self.described;
        for (number, emulator) in described.profile.emulators.iter().enumerate() {
            self.table("[[emulator]]", Some("for guests that use it"));
            self.emulator(emulator, described.emulators.get(number).map(String::as_str));
        }
    }

    fn memory(&mut self) {
        self.table("[memory]", None);
        match self.host().memory {
            Some(bytes) => self.entry("total", bytes.to_string(), self.found(Fact::Memory)),
            None => self.missing(Fact::Memory, "total is missing:"),
        }
    }

    fn firmwares(&mut self) {
        let described = self.described;
        let firmwares = &described.profile.host.firmwares;
        if firmwares.is_empty() {
            self.lines.push(ProfileLine::Blank);
            self.missing(Fact::Firmware, "[[firmware]] is missing:");
        }
        for (number, FirmwareFile { path, kind, version }) in firmwares.iter().enumerate() {
            let note = if path.is_some() { "for guests that use it" } else { "for guests that name no firmware" };
            self.table("[[firmware]]", Some(note));
            if let Some(path) = path {
                self.entry("path", string(path), None);
            }
            self.entry("kind", string(kind.key()), None);
            if let Some(version) = version {
                // SeaBIOS files contain their version.
                let source = described.firmwares.get(number).filter(|&source| Some(source) != path.as_ref());
                self.entry("version", string(version), source.cloned());
            }
        }
    }

    fn functions(&mut self) {
        let described = self.described;
        let functions = &described.profile.host.pci;
        self.lines.push(ProfileLine::Blank);
        if functions.is_empty() {
            self.missing(Fact::Pci, "[[pci]] is missing:");
            return;
        }
        let source = self.found(Fact::Pci).map(|source| format!(" ({source})")).unwrap_or_default();
        self.comment(&format!(
            "The memory BARs of the devices that can be passed through, with their current sizes{source}. Leave out \
             devices that no guest gets."
        ));
        for (address, bars) in functions {
            self.table("[[pci]]", None);
            self.entry("address", string(address), None);
            self.list("bars", bars.iter().copied().map(inline_bar));
        }
    }

    fn emulator(&mut self, emulator: &Emulator, source: Option<&str>) {
        if let Some(source) = source {
            self.comment(&shortened(source));
        }
        if let Some(path) = &emulator.path {
            self.entry("path", string(path), None);
        }
        if let Some(version) = emulator.version {
            self.entry("version", string(&version.to_string()), None);
        }
        for (alias, machine) in &emulator.aliases {
            self.entry(&format!("aliases.{}", key(alias)), string(machine), None);
        }
        if !emulator.machines.is_empty() {
            self.list("machines", emulator.machines.iter().map(|machine| string(machine)));
        }
        if let Some(deprecated) = &emulator.deprecated {
            self.list("deprecated", deprecated.iter().map(|machine| string(machine)));
        }
    }

    /// A list, with as many items on a line as fit.
    fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        const INDENT: &str = "    ";
        let items: Vec<String> = items.collect();
        let all = format!("[{}]", items.join(", "));
        if format!("{key} = {all}").chars().count() <= COLUMNS {
            self.entry(key, all, None);
            return;
        }
        self.entry(key, "[".to_owned(), None);
        let words = items.iter().map(|item| format!("{item},"));
        for line in text::filled(words, COLUMNS.saturating_sub(INDENT.len())) {
            self.lines.push(ProfileLine::More(format!("{INDENT}{line}")));
        }
        self.lines.push(ProfileLine::More("]".to_owned()));
    }
}

/// A path with a shorter file name, where it is too long for a line: libvirt names its cache files by a hash.
fn shortened(path: &str) -> String {
    const KEPT: usize = 8;
    match path.rsplit_once('/').map(|(folder, name)| (folder, name, name.char_indices().nth(KEPT))) {
        Some((folder, name, Some((kept, _)))) if path.chars().count() > COLUMNS - 2 => {
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            format!("{folder}/{}….{extension}", &name[..kept])
        }
        _ => path.to_owned(),
    }
}

fn covers_ht(reserved: &Reserved) -> bool {
    (reserved.range.start..=reserved.range.end).contains(&AMD_HT_START)
}

fn inline(reserved: Reserved) -> String {
    let (range, kind) = (reserved.range, reserved.kind.name());
    format!("{{ start = {:#x}, end = {:#x}, type = \"{kind}\" }}", range.start, range.end)
}

fn inline_bar(bar: PciBar) -> String {
    let PciBar { index, size, prefetchable, bits64 } = bar;
    format!("{{ index = {index}, size = {size:#x}, prefetchable = {prefetchable}, bits64 = {bits64} }}")
}

fn line_length(key: &str, value: &str, note: &str) -> usize {
    let line = ProfileLine::Entry(key.to_owned(), value.to_owned(), Some(note.to_owned()));
    line.to_string().chars().count()
}

/// A basic string of TOML, with everything escaped that a terminal would act on.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if text::is_hidden(c) => quoted += &format!("\\U{:08x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A key of TOML.
fn key(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.chars().all(bare) { text.to_owned() } else { string(text) }
}

#[cfg(test)]
mod tests;
