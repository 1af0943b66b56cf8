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
        reserved_by_device: [("0000:00:1f.0".to_owned(), vec![of(0, 0xf_ffff, ReservedKind::DirectRelaxable), MSI])]
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
        all.push(kept(Some(Emulator::default()), vec![Emulator { path: other.path.clone(), ..Emulator::default() }]));
    }
    all
}

fn described(profile: Profile, origin: &FactOrigin) -> Described {
    // The last one has no known source.
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
        for origin in [FactOrigin::Found("a file".to_owned()), FactOrigin::Found(hostile.clone()), missing.clone()] {
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
    // Without a known IOMMU, its reserved ranges are not reported as missing too.
    for fact in FACTS.into_iter().filter(|&fact| fact != Fact::Reserved) {
        let start: String = fact.assumption().chars().take(20).collect();
        assert!(text.contains(&start), "{fact:?}: {start}\n{text}");
    }
    assert_eq!(text.matches("Nobody is root.").count(), 13, "{text}");
    assert_eq!(text.matches("Remedy: Be root.").count(), 13, "{text}");
}
