//! Machine types and the flags of theirs that decide the memory map.

use serde::Serialize;

use crate::version::Version;

/// The chipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub enum Family {
    /// `pc-q35-*` (QEMU `hw/i386/pc_q35.c`).
    Q35,
    /// `pc-i440fx-*` and the older `pc-*` (QEMU `hw/i386/pc_piix.c`).
    I440fx,
}

impl Family {
    /// The name of the family, as in machine types.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::I440fx => "i440fx",
        }
    }
}

/// Whose names a machine type follows. A rewrite never moves a guest from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// `pc-q35-7.2`.
    Upstream,
    /// `pc-q35-7.2+pve0`; QEMU as Proxmox builds it cuts the name at the plus sign.
    Proxmox,
    /// `pc-q35-rhel9.2.0`.
    Rhel,
    /// `pc-q35-noble`, `pc-q35-jammy-hpb`.
    Ubuntu,
}

/// A machine type that is known, with what QEMU's class of it says (`PCMachineClass` in `include/hw/i386/pc.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineType {
    /// The name, aliases resolved.
    pub name: String,
    /// The chipset.
    pub family: Family,
    /// Whose names it follows.
    pub flavor: Flavor,
    /// The upstream version it behaves like.
    pub version: Version,
    /// `enforce_amd_1tb_hole`: RAM above 4 GiB moves to 1 TiB where it would cross the HyperTransport range.
    pub enforces_amd_1tb_hole: bool,
    /// Downstream types with `host-phys-bits=on` for every CPU: `Some(0)` without a limit, `Some(48)` on RHEL
    /// (`pc_rhel_compat`).
    pub host_phys_bits_limit: Option<u32>,
}

impl MachineType {
    /// `broken_32bit_mem_addr_check`, up to 8.1.
    pub fn broken_32bit_mem_addr_check(&self) -> bool {
        self.version <= Version::new(8, 1)
    }

    /// `broken_reserved_end`, up to 2.4: the size of the device memory region is left out of what lies before the
    /// 64-bit PCI hole.
    pub fn broken_reserved_end(&self) -> bool {
        self.version <= Version::new(2, 4)
    }

    /// `enforce_aligned_dimm`, from 2.2 on: the device memory region has a GiB more per slot.
    pub fn enforce_aligned_dimm(&self) -> bool {
        self.version >= Version::new(2, 2)
    }

    /// `has_reserved_memory`, from 2.1 on: there is a device memory region at all.
    pub fn has_reserved_memory(&self) -> bool {
        self.version >= Version::new(2, 1)
    }

    /// The newest QEMU that has the type, where one that is known lacks it.
    ///
    /// `docs/about/removed-features.rst`: "`pc-0.10` up to `pc-1.3` (removed in 4.0 up to 6.0)"; the q35 types before
    /// 2.4 were gone earlier. QEMU 10.0 begins with 2.4, 11.1 with 5.2.
    pub fn newest_qemu(&self) -> Option<Version> {
        match self.flavor {
            Flavor::Upstream | Flavor::Proxmox => {}
            // RHEL 7 was the last that had the types of RHEL 6.
            Flavor::Rhel if self.version < Version::new(1, 4) => return Some(Version::new(2, 12)),
            Flavor::Rhel | Flavor::Ubuntu => return None,
        }
        let first = if self.family == Family::Q35 { Version::new(2, 4) } else { Version::new(1, 4) };
        let removals = [
            (first, Version::new(5, 2)),
            (Version::new(2, 4), Version::new(9, 2)),
            (Version::new(5, 2), Version::new(11, 0)),
        ];
        removals.into_iter().find(|&(first_left, _)| self.version < first_left).map(|(_, qemu)| qemu)
    }

    /// Whether QEMU of this version deprecates the type, by upstream's rule: from 9.1 on, three major versions later
    /// (`MACHINE_VER_DEPRECATION_MAJOR` in `include/hw/boards.h`). For types of distributions it is unknown, and taken
    /// to be false.
    pub fn is_deprecated_by(&self, qemu: Version) -> bool {
        const MAJORS: u32 = 3;
        let (major, minor) = (self.version.major.saturating_add(MAJORS), self.version.minor);
        matches!(self.flavor, Flavor::Upstream | Flavor::Proxmox)
            && qemu >= Version::new(9, 1)
            && (qemu.major, qemu.minor) >= (major, minor)
    }

    /// `gigabyte_align`, from 2.0 on: RAM below 4 GiB of a large i440fx guest ends at 3 GiB, not 3.5.
    pub fn gigabyte_align(&self) -> bool {
        self.version >= Version::new(2, 0)
    }
}

/// What a machine type's name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// A type whose flags are known.
    Known(MachineType),
    /// A `pc` or `q35` type, or an alias of one, whose flags are not known; they are not guessed.
    Unknown {
        /// The chipset, where the name tells it.
        family: Option<Family>,
        /// The name.
        name: String,
        /// Whether it is an alias that only the host's QEMU can resolve.
        alias: bool,
    },
    /// A machine of another kind: `microvm`, `isapc`, `none`.
    NotPc(String),
}

/// Types of qemu-system-x86_64 that have neither chipset.
const OTHER_MACHINES: [&str; 8] = ["isapc", "microvm", "none", "xenfv", "xenpv", "xenpvh", "x-remote", "nitro-enclave"];

/// The upstream types `pc-i440fx-X.Y` and `pc-q35-X.Y` (QEMU `hw/i386/pc_piix.c` and `pc_q35.c`, all releases up to
/// 11.1): for each major version, its first and last minor version.
const UPSTREAM: &[(u32, u32, u32)] = &[
    (1, 4, 7),
    (2, 0, 12),
    (3, 0, 1),
    (4, 0, 2),
    (5, 0, 2),
    (6, 0, 2),
    (7, 0, 2),
    (8, 0, 2),
    (9, 0, 2),
    (10, 0, 2),
    (11, 0, 1),
];

/// The newest upstream type, and the newest QEMU whose behaviour is known: the end of the table.
pub const NEWEST: Version = {
    let (major, _, last) = UPSTREAM[UPSTREAM.len() - 1];
    Version::new(major, last)
};

/// The first upstream type with `enforce_amd_1tb_hole` (QEMU 7.1, commit b3e6982b4154).
pub const FIRST_ENFORCING: Version = Version::new(7, 1);

/// RHEL and CentOS Stream types with the upstream version they behave like. Sources: the machine type patches of
/// qemu-kvm in RHEL 8.8 to 10 (`0022-x86-rhel-9.2.0-machine-type.patch` and its successors).
const RHEL: &[(&str, Version)] = &[
    ("7.0.0", Version::new(2, 0)),
    ("7.1.0", Version::new(2, 1)),
    ("7.2.0", Version::new(2, 3)),
    ("7.3.0", Version::new(2, 6)),
    ("7.4.0", Version::new(2, 9)),
    ("7.5.0", Version::new(2, 11)),
    ("7.6.0", Version::new(2, 12)),
    ("8.0.0", Version::new(3, 1)),
    ("8.1.0", Version::new(4, 0)),
    ("8.2.0", Version::new(4, 2)),
    ("8.3.0", Version::new(5, 1)),
    ("8.4.0", Version::new(5, 2)),
    ("8.5.0", Version::new(6, 0)),
    ("8.6.0", Version::new(6, 2)),
    ("9.0.0", Version::new(7, 0)),
    ("9.2.0", Version::new(7, 2)),
    ("9.4.0", Version::new(8, 2)),
    ("9.6.0", Version::new(9, 1)),
    ("10.0.0", Version::new(9, 1)),
    ("10.2.0", Version::new(10, 1)),
];

/// Ubuntu's types with the upstream version they behave like. Sources: `hw/i386/pc_q35.c` and `pc_piix.c` of Ubuntu's
/// qemu 6.2 and 9.0.
const UBUNTU: &[(&str, Version)] = &[
    ("trusty", Version::new(2, 0)),
    ("utopic", Version::new(2, 1)),
    ("vivid", Version::new(2, 2)),
    ("wily", Version::new(2, 3)),
    ("xenial", Version::new(2, 5)),
    ("yakkety", Version::new(2, 6)),
    ("zesty", Version::new(2, 8)),
    ("artful", Version::new(2, 10)),
    ("bionic", Version::new(2, 11)),
    ("cosmic", Version::new(2, 12)),
    ("disco", Version::new(3, 1)),
    ("eoan", Version::new(4, 0)),
    ("focal", Version::new(4, 2)),
    ("groovy", Version::new(5, 0)),
    ("hirsute", Version::new(5, 2)),
    ("impish", Version::new(6, 0)),
    ("jammy", Version::new(6, 2)),
    ("kinetic", Version::new(7, 0)),
    ("lunar", Version::new(7, 2)),
    ("mantic", Version::new(8, 0)),
    ("noble", Version::new(8, 2)),
    ("noble-v2", Version::new(8, 2)),
    ("oracular", Version::new(9, 0)),
    ("plucky", Version::new(9, 2)),
    ("questing", Version::new(10, 1)),
    ("questing-v2", Version::new(10, 1)),
    ("resolute", Version::new(10, 2)),
];

/// Whether a name is one of a single type for ever, and not an alias: all types of both chipsets begin with `pc-`
/// (QEMU `hw/i386/pc_q35.c` and `pc_piix.c`, those of distributions too), and no alias does.
pub fn is_versioned(name: &str) -> bool {
    name.starts_with("pc-")
}

/// The name without the revision that Proxmox adds to it: `q35` of `q35+pve0`.
pub fn without_revision(name: &str) -> &str {
    name.split_once("+pve").map_or(name, |(base, _)| base)
}

/// What `name` means, aliases resolved beforehand.
pub fn resolve(name: &str) -> Resolved {
    if OTHER_MACHINES.contains(&name) {
        return Resolved::NotPc(name.to_owned());
    }
    let (family, rest) = if let Some(rest) = name.strip_prefix("pc-q35-") {
        (Some(Family::Q35), rest)
    } else if let Some(rest) = name.strip_prefix("pc-i440fx-") {
        (Some(Family::I440fx), rest)
    } else if let Some(old) = before_1_4(name) {
        return Resolved::Known(old);
    } else {
        match without_revision(name) {
            "q35" | "ubuntu-q35" => (Some(Family::Q35), ""),
            "pc" | "ubuntu" => (Some(Family::I440fx), ""),
            _ if name.starts_with("pc-") => (Some(Family::I440fx), ""),
            _ => (None, ""),
        }
    };
    if let Some(known) = family.and_then(|family| known(name, family, rest)) {
        return Resolved::Known(known);
    }
    let alias = matches!(without_revision(name), "q35" | "ubuntu-q35" | "pc" | "ubuntu");
    Resolved::Unknown { family, name: name.to_owned(), alias }
}

/// A type from before QEMU 1.4, when names did not tell the chipset: `pc-0.10` to `pc-1.3`, and those of Red Hat
/// Enterprise Linux 5 and 6, whose qemu-kvm was 0.12.
fn before_1_4(name: &str) -> Option<MachineType> {
    const UPSTREAM: [(u32, u32, u32); 2] = [(0, 10, 15), (1, 0, 3)];
    const RHEL: [&str; 11] =
        ["5.4.0", "5.4.4", "5.5.0", "5.6.0", "6.0.0", "6.1.0", "6.2.0", "6.3.0", "6.4.0", "6.5.0", "6.6.0"];
    let (version, flavor) = if let Some(release) = name.strip_prefix("rhel") {
        RHEL.contains(&release).then_some((Version::new(0, 12), Flavor::Rhel))?
    } else {
        // Ubuntu 12.04 had two more names for pc-1.0.
        let base = name.strip_prefix("pc-")?;
        let base = if matches!(base, "1.0-precise" | "1.0-qemu-kvm") { "1.0" } else { base };
        (listed(base, &UPSTREAM)?, Flavor::Upstream)
    };
    Some(MachineType {
        name: name.to_owned(),
        family: Family::I440fx,
        flavor,
        version,
        enforces_amd_1tb_hole: false,
        host_phys_bits_limit: None,
    })
}

fn known(name: &str, family: Family, rest: &str) -> Option<MachineType> {
    let (base, proxmox) = match rest.split_once('+') {
        Some((base, suffix)) => (base, suffix.starts_with("pve")),
        None => (rest, false),
    };
    if base.len() != rest.len() && !proxmox {
        return None;
    }
    let (version, flavor, host_phys_bits_limit) = if let Some(release) = base.strip_prefix("rhel") {
        (lookup(RHEL, release)?, Flavor::Rhel, Some(48))
    } else if let Some(version) = upstream(base) {
        (version, if proxmox { Flavor::Proxmox } else { Flavor::Upstream }, None)
    } else {
        ubuntu(base, family)?
    };
    Some(MachineType {
        name: name.to_owned(),
        family,
        flavor,
        version,
        enforces_amd_1tb_hole: version >= FIRST_ENFORCING,
        host_phys_bits_limit,
    })
}

fn lookup(table: &[(&str, Version)], name: &str) -> Option<Version> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, version)| version)
}

fn upstream(base: &str) -> Option<Version> {
    // The only type with three numbers, a q35 one.
    if base == "4.0.1" {
        return Some(Version::new(4, 0));
    }
    // Ubuntu 13.10 had two more names for 1.5.
    listed(if matches!(base, "1.5-qemu-kvm" | "1.5-saucy") { "1.5" } else { base }, UPSTREAM)
}

/// The version `text`, if it is in a list of major versions with the first and last minor version of each.
fn listed(text: &str, versions: &[(u32, u32, u32)]) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (major, minor) = (number(major)?, number(minor)?);
    versions
        .iter()
        .any(|&(known, first, last)| known == major && (first..=last).contains(&minor))
        .then(|| Version::new(major, minor))
}

fn ubuntu(base: &str, family: Family) -> Option<(Version, Flavor, Option<u32>)> {
    let base = base.strip_suffix("-maxcpus").unwrap_or(base);
    // `-hpb` is the base type with host-phys-bits=on and no limit.
    let (code_name, limit) = match base.strip_suffix("-hpb") {
        Some(code_name) => (code_name, Some(0)),
        None => (base, None),
    };
    let version = match (code_name, family) {
        ("cosmic", Family::Q35) => Version::new(2, 11),
        _ => lookup(UBUNTU, code_name)?,
    };
    Some((version, Flavor::Ubuntu, limit))
}

/// The types of the same family and flavor that move RAM above 1 TiB.
///
/// `available` are the types the host's QEMU has. Where that list is empty, the types are taken to exist that are no
/// newer than `qemu`, or all of them if that is not known either.
pub fn enforcing(from: &MachineType, available: &[String], qemu: Option<Version>) -> impl Iterator<Item = MachineType> {
    let listed = !available.is_empty();
    let names = if listed { available.to_vec() } else { all_names(from.family, from.flavor) };
    let (family, flavor, host_phys_bits) = (from.family, from.flavor, from.host_phys_bits_limit);
    let fits = move |machine: &MachineType| {
        machine.enforces_amd_1tb_hole
            && machine.family == family
            && machine.flavor == flavor
            // A guest without `-hpb` stays without.
            && (flavor != Flavor::Ubuntu || machine.host_phys_bits_limit.is_none() || host_phys_bits.is_some())
            && (listed || qemu.is_none_or(|qemu| machine.version <= qemu))
    };
    names.into_iter().filter_map(move |name| match resolve(&name) {
        Resolved::Known(machine) if fits(&machine) => Some(machine),
        _ => None,
    })
}

fn all_names(family: Family, flavor: Flavor) -> Vec<String> {
    let prefix = format!("pc-{}-", family.name());
    match flavor {
        Flavor::Upstream => UPSTREAM
            .iter()
            .flat_map(|&(major, first, last)| (first..=last).map(move |minor| (major, minor)))
            .map(|(major, minor)| format!("{prefix}{major}.{minor}"))
            .collect(),
        // Proxmox numbers its revisions per version; which exist only the host can tell.
        Flavor::Proxmox => Vec::new(),
        // The last i440fx type of RHEL is 7.6.0.
        Flavor::Rhel if family == Family::I440fx => Vec::new(),
        Flavor::Rhel => RHEL.iter().map(|(name, _)| format!("{prefix}rhel{name}")).collect(),
        Flavor::Ubuntu => UBUNTU.iter().map(|(name, _)| format!("{prefix}{name}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(name: &str) -> Option<(Family, bool, Option<u32>)> {
        match resolve(name) {
            Resolved::Known(m) => Some((m.family, m.enforces_amd_1tb_hole, m.host_phys_bits_limit)),
            _ => None,
        }
    }

    #[test]
    fn the_hole_is_enforced_from_7_1_on() {
        use Family::{I440fx, Q35};
        for (name, expected) in [
            ("pc-q35-7.0", (Q35, false, None)),
            ("pc-q35-7.1", (Q35, true, None)),
            ("pc-i440fx-7.0", (I440fx, false, None)),
            ("pc-i440fx-7.1", (I440fx, true, None)),
            ("pc-i440fx-2.12", (I440fx, false, None)),
            ("pc-q35-10.0", (Q35, true, None)),
            ("pc-q35-11.1", (Q35, true, None)),
            ("pc-q35-4.0.1", (Q35, false, None)),
            ("pc-q35-rhel9.0.0", (Q35, false, Some(48))),
            ("pc-q35-rhel9.2.0", (Q35, true, Some(48))),
            ("pc-i440fx-rhel7.6.0", (I440fx, false, Some(48))),
            ("pc-q35-rhel10.0.0", (Q35, true, Some(48))),
            ("pc-q35-jammy", (Q35, false, None)),
            ("pc-q35-kinetic", (Q35, false, None)),
            ("pc-q35-lunar", (Q35, true, None)),
            ("pc-q35-jammy-hpb", (Q35, false, Some(0))),
            ("pc-i440fx-mantic-hpb-maxcpus", (I440fx, true, Some(0))),
            ("pc-q35-noble-v2", (Q35, true, None)),
            ("pc-q35-7.0+pve1", (Q35, false, None)),
            ("pc-q35-7.1+pve0", (Q35, true, None)),
        ] {
            assert_eq!(flags(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn old_names_are_old_types() {
        for (name, newest) in [
            ("pc-0.10", (5, 2)),
            ("pc-0.13", (5, 2)),
            ("pc-1.0-precise", (5, 2)),
            ("pc-1.3", (5, 2)),
            ("rhel6.6.0", (2, 12)),
            ("pc-q35-1.4", (5, 2)),
            ("pc-i440fx-1.5-saucy", (9, 2)),
            ("pc-i440fx-2.3", (9, 2)),
            ("pc-q35-2.4", (11, 0)),
            ("pc-i440fx-5.1", (11, 0)),
        ] {
            let Resolved::Known(machine) = resolve(name) else { panic!("{name} is known") };
            assert!(!machine.enforces_amd_1tb_hole, "{name}");
            assert_eq!(machine.newest_qemu(), Some(Version::new(newest.0, newest.1)), "{name}");
        }
        assert_eq!(flags("pc-i440fx-trusty"), Some((Family::I440fx, false, None)));
        for name in ["pc-q35-5.2", "pc-i440fx-11.1", "pc-q35-rhel7.6.0"] {
            let Resolved::Known(machine) = resolve(name) else { panic!("{name} is known") };
            assert_eq!(machine.newest_qemu(), None, "{name}");
        }
    }

    /// What `-machine help` of Debian's QEMU 10.0.13 and 11.1.3 marks as deprecated.
    #[test]
    fn types_are_deprecated_three_major_versions_later() {
        for (name, qemu, deprecated) in [
            ("pc-q35-7.0", "10.0.13", true),
            ("pc-q35-7.1", "10.0.13", false),
            ("pc-i440fx-2.4", "10.0.13", true),
            ("pc-q35-8.1", "11.1.3", true),
            ("pc-i440fx-8.2", "11.1.3", false),
            ("pc-q35-6.2", "7.2.22", false),
        ] {
            let Resolved::Known(machine) = resolve(name) else { panic!("{name} is known") };
            assert_eq!(machine.is_deprecated_by(qemu.parse().expect("a version")), deprecated, "{name} in {qemu}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for name in [
            "pc-q35-99.0",
            "pc-q35-4.3",
            "pc-q35-rhel9.99.0",
            "pc-q35-zebra",
            "q35",
            "pc",
            "q35+pve0",
            "pc+pve1",
            "pc-0.9",
            "pc-1.4",
            "pc-q35-7.2+x",
            "pc-q35-7",
        ] {
            assert!(matches!(resolve(name), Resolved::Unknown { family: Some(_), .. }), "{name}");
        }
        assert!(matches!(resolve("frobnitz"), Resolved::Unknown { family: None, .. }));
        assert_eq!(resolve("microvm"), Resolved::NotPc("microvm".to_owned()));
    }

    #[test]
    fn an_upgrade_stays_in_its_family_and_flavor() {
        let oldest = |name: &str, available: &[&str]| {
            let Resolved::Known(machine) = resolve(name) else { panic!("{name} is known") };
            let available: Vec<String> = available.iter().map(|&s| s.to_owned()).collect();
            enforcing(&machine, &available, None).min_by_key(|m| m.version).map(|m| m.name)
        };
        assert_eq!(oldest("pc-q35-6.2", &[]).as_deref(), Some("pc-q35-7.1"));
        assert_eq!(
            oldest("pc-i440fx-2.4", &["pc-i440fx-8.2", "pc-i440fx-9.0", "pc-q35-7.1"]).as_deref(),
            Some("pc-i440fx-8.2")
        );
        assert_eq!(oldest("pc-q35-rhel8.6.0", &[]).as_deref(), Some("pc-q35-rhel9.2.0"));
        assert_eq!(oldest("pc-i440fx-rhel7.6.0", &[]), None);
        assert_eq!(oldest("pc-q35-jammy", &[]).as_deref(), Some("pc-q35-lunar"));
        assert_eq!(oldest("pc-q35-6.2", &["pc-q35-6.2", "pc-q35-7.0"]), None);
        let Resolved::Known(machine) = resolve("pc-q35-6.2") else { panic!("known") };
        let newest = |qemu: &str| enforcing(&machine, &[], qemu.parse().ok()).max_by_key(|m| m.version).map(|m| m.name);
        assert_eq!(newest("7.2.22").as_deref(), Some("pc-q35-7.2"));
        assert_eq!(newest("6.2"), None);
    }
}
