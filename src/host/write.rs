//! A host as the text of a profile that people read, too: each fact with where it came from, and for each that is
//! missing, what follows and how to get at it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{
    Described, Emulator, FIRST_KERNEL_TO_REFUSE_RESERVED, Fact, FactOrigin, FirmwareFile, Host, Iommu, PciBar, Reserved,
};
use crate::address::AMD_HT_START;
use crate::text;
use crate::version::Version;

/// Columns that no line goes beyond, where what stands in it can be broken.
const COLUMNS: usize = 80;

/// The column of comments beside a value.
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
    /// A table such as `[cpu]`, and what stands behind it.
    Table(String, Option<String>),
    /// A key, its value and what stands behind it.
    Entry(String, String, Option<String>),
    /// A further line of a value.
    More(String),
}

impl ProfileLine {
    /// What stands before the comment, padded where there is one; and the comment.
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
    /// The host profile, line by line. It is TOML that [`super::Profile::from_toml`] reads, and a guest gets the same verdict
    /// with what is read as on the host itself.
    pub fn lines(&self) -> Vec<ProfileLine> {
        let mut page = ProfileText { described: self, lines: Vec::new() };
        page.comment(
            "A host profile: `iova-preflight check --host FILE` evaluates guests for this host on any machine. Comments \
             say where a fact came from, or what is missing, what a verdict then takes for true, and how to get at it.",
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

/// Devices for which something else counts than for one that is not known.
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

    /// A key with where its value came from, beside it or, where that is too long, above it.
    fn entry(&mut self, key: &str, value: String, note: Option<String>) {
        // Paths come from elsewhere, and a line break in one would end the comment.
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

    /// Says that a fact is missing, why, what follows, and how to get at it.
    fn missing(&mut self, fact: Fact, what: &str) {
        let (why, remedy) = match self.described.origin(fact) {
            Some(FactOrigin::Missing { why, remedy }) => (why.as_str(), remedy.as_str()),
            _ => ("Nothing tells.", ""),
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
                    "No IOMMU is at work: no device can be passed to a guest here, and no range is reserved. \
                     `iova-preflight check` without --host takes amd-epyc instead of this host.",
                );
                self.comment(if amd_cpu {
                    "If the machine has one, the firmware's setup switches it on, and the kernel's command line must \
                     be without amd_iommu=off; `dmesg | grep AMD-Vi` shows it."
                } else {
                    "If the machine has one, the firmware's setup switches it on (VT-d), and so does intel_iommu=on \
                     on the kernel's command line; `dmesg | grep DMAR` shows it."
                });
            }
            Some(Iommu::Intel) => self.comment(
                "An Intel IOMMU has no HyperTransport range: what starts here may fail on an AMD host. \
                 `iova-preflight check` without --host takes amd-epyc instead of this host.",
            ),
            Some(Iommu::Amd) | None => {}
        }
        if !self.host().reserved.is_empty() {
            self.reserved();
        } else if self.host().iommu.is_some_and(|kind| kind != Iommu::None) {
            self.missing(Fact::Reserved, "What is reserved is missing:");
        }
        self.groups();
    }

    fn reserved(&mut self) {
        let everywhere = self.host().reserved_for_any();
        if let Some(source) = self.found(Fact::Reserved) {
            self.lines.push(ProfileLine::Blank);
            self.comment(&format!("Where VFIO maps no guest memory ({source}):"));
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
                "The HyperTransport range, 1012–1024 GiB, is not among them{why}. QEMU moves RAM out of that range all \
                 the same."
            ));
        }
    }

    fn groups(&mut self) {
        let others = self.groups_of_their_own();
        let ranges = others.iter().any(|group| group.reserved != self.host().reserved_for_any());
        if !others.is_empty() {
            self.lines.push(ProfileLine::Blank);
            self.comment(match ranges {
                true => "The IOMMU groups of these devices reserve something else; only that counts for them:",
                false => "The IOMMU that these devices are behind has other address bits; only those count for them:",
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

    /// The devices for which something else counts than for one that is not known, by these ranges and address bits.
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
                "Older than 5.4: VFIO maps guest memory even where it is reserved, unless the distribution has taken the \
                 check over. The guest then starts, and DMA to what lies there fails while it runs.",
            );
        } else if amd && reserves_ht {
            self.comment("5.4 or newer: VFIO refuses to map what is reserved (-22, Invalid argument).");
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
            self.comment("No guest of type kvm starts here, whatever its verdict.");
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
                self.table("[qemu]", Some("of guests that name no <emulator>"));
                let source = self.found(Fact::Qemu);
                self.emulator(&qemu, source.as_deref());
            }
            None => {
                // Not an empty table: it would stand for the emulators that are not known, too.
                self.lines.push(ProfileLine::Blank);
                let what = match self.described.profile.emulators.is_empty() {
                    true => "[qemu] is missing:",
                    false => "[qemu], for guests that name no <emulator>, is missing:",
                };
                self.missing(Fact::Qemu, what);
            }
        }
    }

    fn emulators(&mut self) {
        let described = self.described;
        for (number, emulator) in described.profile.emulators.iter().enumerate() {
            self.table("[[emulator]]", Some("of guests that name it"));
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
            let note = if path.is_some() { "of guests that name it" } else { "of guests that name none" };
            self.table("[[firmware]]", Some(note));
            if let Some(path) = path {
                self.entry("path", string(path), None);
            }
            self.entry("kind", string(kind.key()), None);
            if let Some(version) = version {
                // Files of SeaBIOS have it in them.
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
            "The memory BARs of what can be passed on, as large as they are now{source}. Leave out what no guest gets."
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

    /// A list, as many to a line as there is room for.
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

/// A basic string of TOML, in which nothing is left that a terminal would act on.
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
mod tests {
    use super::*;
    use crate::address::GpaRange;
    use crate::host::{FirmwareKind, Profile, ReservedKind};

    const HT: Reserved =
        Reserved { range: GpaRange::inclusive(AMD_HT_START, 0xff_ffff_ffff), kind: ReservedKind::Reserved };
    const MSI: Reserved = Reserved { range: GpaRange::inclusive(0xfee0_0000, 0xfeef_ffff), kind: ReservedKind::Msi };

    const FACTS: [Fact; 14] = [
        Fact::Name,
        Fact::CpuVendor,
        Fact::PhysBits,
        Fact::GbPages,
        Fact::Iommu,
        Fact::IommuBits,
        Fact::Reserved,
        Fact::Kernel,
        Fact::Kvm,
        Fact::Libvirt,
        Fact::Qemu,
        Fact::Memory,
        Fact::Firmware,
        Fact::Pci,
    ];

    fn of(start: u64, end: u64, kind: ReservedKind) -> Reserved {
        Reserved { range: GpaRange { start, end }, kind }
    }

    fn emulator(path: &str) -> Emulator {
        Emulator {
            path: Some(path.to_owned()),
            version: Some(Version { major: 7, minor: 2, micro: 22 }),
            machines: (0..40).map(|minor| format!("pc-q35-{minor}.0")).collect(),
            deprecated: Some((0..20).map(|minor| format!("pc-q35-{minor}.0")).collect()),
            aliases: [("q35", "pc-q35-39.0"), ("a b", "pc-q35-0.0"), ("", "x"), ("ü.=[\"'\n", "\u{202e}\\")]
                .map(|(alias, machine)| (alias.to_owned(), machine.to_owned()))
                .into(),
            ..Emulator::default()
        }
    }

    /// Hosts of every kind.
    fn hosts() -> Vec<Profile> {
        let amd = Host {
            cpu_vendor: Some("AuthenticAMD".to_owned()),
            phys_bits: Some(48),
            iommu: Some(Iommu::Amd),
            reserved: vec![
                of(0, u64::MAX, ReservedKind::DirectRelaxable),
                of(0x1000, 0x1fff, ReservedKind::Direct),
                MSI,
                HT,
            ],
            reserved_by_device: [
                ("0000:41:10.1".to_owned(), vec![MSI, HT]),
                ("0000:00:14.0".to_owned(), vec![of(0x1000, 0x1fff, ReservedKind::Direct), MSI, HT]),
                ("0000:42:00.0".to_owned(), vec![MSI]),
                ("0000:43:00.0".to_owned(), vec![MSI]),
                ("0000:44:00.0".to_owned(), Vec::new()),
                ("\u{1b}[31m\"\\\n\u{0}".to_owned(), vec![of(0, u64::MAX, ReservedKind::DirectRelaxable)]),
            ]
            .into(),
            kernel: Some(Version { major: 5, minor: 3, micro: 18 }),
            kvm: Some(true),
            libvirt: Some(Version::new(9, 0)),
            name: Some("a\"b\n\u{1b}[31m".to_owned()),
            gb_pages: Some(true),
            memory: Some(2 << 40),
            firmwares: vec![
                FirmwareFile { path: None, kind: FirmwareKind::SeaBios, version: Some("1.16.3".to_owned()) },
                FirmwareFile { path: Some("/\u{202e}'\n".to_owned()), kind: FirmwareKind::Ovmf, version: None },
            ],
            pci: [
                ("0000:41:10.1".to_owned(), Vec::new()),
                (
                    "0000:c1:00.0".to_owned(),
                    vec![
                        PciBar { index: 0, size: 16 << 20, prefetchable: false, bits64: false },
                        PciBar { index: 2, size: 128 << 30, prefetchable: true, bits64: true },
                    ],
                ),
            ]
            .into(),
            ..Host::default()
        };
        let turin = Host {
            reserved: vec![of(0, 0xf_ffff, ReservedKind::DirectRelaxable), MSI],
            reserved_by_device: [(
                "0000:00:1f.0".to_owned(),
                vec![of(0, 0xf_ffff, ReservedKind::DirectRelaxable), MSI],
            )]
            .into(),
            kernel: Some(Version::new(6, 17)),
            ..amd.clone()
        };
        let intel = Host {
            cpu_vendor: Some("GenuineIntel".to_owned()),
            iommu: Some(Iommu::Intel),
            iommu_bits: Some(39),
            reserved: vec![MSI],
            reserved_by_device: BTreeMap::new(),
            ..amd.clone()
        };
        let two_widths = Host {
            iommu_bits: Some(48),
            iommu_bits_by_device: [("0000:00:02.0".to_owned(), 39), ("0000:42:00.0".to_owned(), 46)].into(),
            reserved_by_device: [("0000:42:00.0".to_owned(), vec![of(0x1000, 0x1fff, ReservedKind::Direct)])].into(),
            reserved: vec![of(0x1000, 0x1fff, ReservedKind::Direct), MSI],
            ..intel.clone()
        };
        let mute = Host { reserved: Vec::new(), reserved_by_device: BTreeMap::new(), ..amd.clone() };
        let none = Host { iommu: Some(Iommu::None), kvm: Some(false), ..mute.clone() };
        let default = emulator("/usr/bin/qemu-system-x86_64");
        let other = emulator("/opt/\"qemu\\ 11\"/bin/qemu\t\u{7f}\u{feff}#");
        let mut all = Vec::new();
        for host in [amd, turin, intel, two_widths, mute, none, Host::default()] {
            let kept = |qemu, emulators| Profile { host: host.clone(), qemu, emulators };
            all.push(kept(None, Vec::new()));
            all.push(kept(Some(default.clone()), Vec::new()));
            all.push(kept(Some(default.clone()), vec![other.clone()]));
            all.push(kept(None, vec![other.clone()]));
            all.push(kept(Some(Emulator { path: None, ..default.clone() }), vec![other.clone()]));
            all.push(kept(
                Some(Emulator::default()),
                vec![Emulator { path: other.path.clone(), ..Emulator::default() }],
            ));
        }
        all
    }

    fn described(profile: Profile, origin: &FactOrigin) -> Described {
        // Of the last one, nobody says where it came from.
        let emulators = profile.emulators.iter().skip(1).map(|_| "/a/b.xml".to_owned()).collect();
        let firmwares = vec!["dpkg: seabios 1.16.3-2\n".to_owned()];
        Described { origins: FACTS.map(|fact| (fact, origin.clone())).into(), profile, emulators, firmwares }
    }

    fn text(described: &Described) -> String {
        described.lines().iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn what_is_written_reads_as_the_same_host() {
        let hostile = "\n[cpu]\nvendor = 'x'\u{1b}[31m".to_owned();
        let missing = FactOrigin::Missing { why: hostile.clone(), remedy: hostile.clone() };
        for profile in hosts() {
            for origin in [FactOrigin::Found("a file".to_owned()), FactOrigin::Found(hostile.clone()), missing.clone()]
            {
                let text = text(&described(profile.clone(), &origin));
                let read = Profile::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                for path in [None, Some("/usr/bin/qemu-system-x86_64"), Some("/unknown")]
                    .into_iter()
                    .chain(profile.emulators.iter().map(|emulator| emulator.path.as_deref()))
                {
                    let (before, after) = (profile.host_for(path), read.host_for(path));
                    let by_device = BTreeMap::new();
                    let without = |host: &Host| Host { reserved_by_device: by_device.clone(), ..host.clone() };
                    assert_eq!(without(&before), without(&after), "{path:?}\n{text}");
                    for device in before.reserved_by_device.keys().map(String::as_str).chain(["0000:ff:00.0"]) {
                        assert_eq!(before.unmappable([device]), after.unmappable([device]), "{device:?}\n{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn lines_are_short_and_hold_nothing_that_a_terminal_acts_on() {
        let origin = FactOrigin::Found("/sys/kernel/iommu_groups/*/reserved_regions, 14 groups".to_owned());
        for profile in hosts() {
            for line in described(profile, &origin).lines() {
                let shown = line.to_string();
                assert!(!shown.contains(text::is_hidden), "{shown:?}");
                let breaks = shown.contains("devices") || shown.contains("aliases") || shown.contains("path");
                assert!(shown.chars().count() <= COLUMNS || breaks, "{shown}");
                assert_eq!(shown.trim_end(), shown);
            }
        }
    }

    #[test]
    fn a_long_path_keeps_what_finds_the_file() {
        let folder = "/var/cache/libvirt/qemu/capabilities";
        assert_eq!(shortened(&format!("{folder}/{}.xml", "0a1b2c3d".repeat(8))), format!("{folder}/0a1b2c3d….xml"));
        assert_eq!(shortened(&format!("{folder}/0a1b.xml")), format!("{folder}/0a1b.xml"));
        assert_eq!(shortened(&"ä".repeat(100)), "ä".repeat(100));
    }

    #[test]
    fn a_missing_fact_says_why_what_follows_and_what_to_do() {
        let origin = FactOrigin::Missing { why: "Nobody is root.".to_owned(), remedy: "Be root.".to_owned() };
        let text = text(&described(Profile::default(), &origin));
        // What is reserved by no known IOMMU is not said to be missing too.
        for fact in FACTS.into_iter().filter(|&fact| fact != Fact::Reserved) {
            let start: String = fact.assumption().chars().take(20).collect();
            assert!(text.contains(&start), "{fact:?}: {start}\n{text}");
        }
        assert_eq!(text.matches("Nobody is root.").count(), 13, "{text}");
        assert_eq!(text.matches("Remedy: Be root.").count(), 13, "{text}");
    }
}
