//! [`Build`]: which firmware.

use crate::host::FirmwareKind;
use crate::version::Version;

/// A release of a guest firmware, ordered by age within its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// Which firmware.
    pub kind: FirmwareKind,
    /// Its upstream version: edk2's year and month, or SeaBIOS's number.
    pub version: Version,
    /// Whether X-PciMmio64Mb is the size of OVMF's window, and not its least size; `None` if that is unknown.
    pub has_fixed_window: Option<bool>,
}

/// The releases of edk2 whose rules differ, as `src/firmware/ovmf.rs` tells them apart.
const OVMF: [Version; 9] = [
    Version::new(2022, 8),
    Version::new(2022, 11),
    Version::new(2023, 2),
    Version::new(2023, 8),
    Version::new(2024, 8),
    Version::new(2025, 2),
    Version::new(2026, 2),
    Version::new(2026, 5),
    super::ovmf::NEWEST_READ,
];

/// The releases of SeaBIOS whose rules differ, as `src/firmware/seabios.rs` tells them apart.
const SEABIOS: [Version; 3] =
    [Version { major: 1, minor: 16, micro: 2 }, Version { major: 1, minor: 16, micro: 3 }, super::seabios::NEWEST_READ];

/// What the firmware of a guest may be, the likeliest first: the one release where kind and version are known, else
/// every release whose rules differ. `version` is that of a host profile.
pub fn possible_builds(kind: Option<FirmwareKind>, version: Option<&str>) -> Vec<Build> {
    let of = |kind| move |&version: &Version| Build { kind, version, has_fixed_window: fixed_window(version, "") };
    let ovmf = OVMF.iter().rev().map(of(FirmwareKind::Ovmf));
    let seabios = SEABIOS.iter().rev().map(of(FirmwareKind::SeaBios));
    match kind {
        None => ovmf.chain(seabios).collect(),
        Some(kind) => match version.and_then(|text| Some((upstream_version(kind, text)?, text))) {
            Some((version, text)) => {
                vec![Build { kind, version, has_fixed_window: fixed_window(version, text) }]
            }
            None if kind == FirmwareKind::Ovmf => ovmf.collect(),
            None => seabios.collect(),
        },
    }
}

/// The upstream version in what a distribution calls its package: `2022.11-6+deb12u2`, `4.2023.08-4` (Proxmox),
/// `20231122-6.el9` (the day of edk2-stable202311), `rel-1.16.3-0-ga6ed6b701f0a`.
fn upstream_version(kind: FirmwareKind, text: &str) -> Option<Version> {
    let mut starts = text
        .char_indices()
        .filter(|&(at, c)| c.is_ascii_digit() && !text[..at].ends_with(|before: char| before.is_ascii_digit()));
    starts.find_map(|(at, _)| match kind {
        FirmwareKind::SeaBios => text[at..].parse().ok(),
        FirmwareKind::Ovmf => {
            let (year, rest) = text.get(at..)?.split_at_checked(4)?;
            let month = rest.strip_prefix('.').unwrap_or(rest).get(..2)?;
            let (year, month) = (year.parse().ok()?, month.parse().ok()?);
            ((2000..2100).contains(&year) && (1..=12).contains(&month)).then(|| Version::new(year, month))
        }
    })
}

/// Whether a package has 9ac1704af6 of edk2: 2025.05 and later, Debian's 2025.02-2 and later; Ubuntu brought it into
/// older releases in updates (Launchpad 2101903).
fn fixed_window(version: Version, package: &str) -> Option<bool> {
    let revision = package.split_once('-').map_or("", |(_, revision)| revision);
    let digits = revision.find(|c: char| !c.is_ascii_digit()).unwrap_or(revision.len());
    let is_debian =
        package.starts_with("2025.02-") && revision[..digits].parse::<u32>().is_ok_and(|number| number >= 2);
    match version {
        _ if version >= Version::new(2025, 5) || is_debian => Some(true),
        _ if package.contains("ubuntu") => None,
        _ => Some(false),
    }
}

impl Build {
    /// Whether its rules were read in its source: releases after the newest that was read may do otherwise.
    pub(super) fn is_known(self) -> bool {
        let newest = match self.kind {
            FirmwareKind::Ovmf => super::ovmf::NEWEST_READ,
            FirmwareKind::SeaBios => super::seabios::NEWEST_READ,
        };
        self.version <= newest
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Version { major, minor, .. } = self.version;
        match self.kind {
            FirmwareKind::Ovmf => write!(f, "OVMF {major}.{minor:02}"),
            FirmwareKind::SeaBios => write!(f, "SeaBIOS {}", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_version_is_one_build() {
        let one = |kind, version| match possible_builds(Some(kind), Some(version)).as_slice() {
            [build] => build.to_string(),
            builds => format!("{} builds", builds.len()),
        };
        for (version, shown) in [
            ("2022.11-6+deb12u2", "OVMF 2022.11"),
            ("2025.02", "OVMF 2025.02"),
            ("2026.08+ds-2", "OVMF 2026.08"),
            ("0~20201229", "OVMF 2020.12"),
            ("4.2023.08-4", "OVMF 2023.08"),
            ("20231122-6.el9", "OVMF 2023.11"),
            ("edk2-stable202505", "OVMF 2025.05"),
            ("git", "9 builds"),
            ("2026", "9 builds"),
            ("2026.13", "9 builds"),
        ] {
            assert_eq!(one(FirmwareKind::Ovmf, version), shown, "{version}");
        }
        for (version, shown) in [
            ("1.16.3-debian-1.16.3-2", "SeaBIOS 1.16.3"),
            ("rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org", "SeaBIOS 1.16.3"),
            ("?", "3 builds"),
        ] {
            assert_eq!(one(FirmwareKind::SeaBios, version), shown, "{version}");
        }
    }

    #[test]
    fn what_was_brought_into_packages_counts() {
        for (version, fixed) in [
            ("2025.02", Some(false)),
            ("2025.02-1", Some(false)),
            ("2025.02-8+deb13u1", Some(true)),
            ("2025.02-3ubuntu2", Some(true)),
            ("2025.05-1", Some(true)),
            ("2024.02-2ubuntu0.1", None),
            ("2022.11-6+deb12u2", Some(false)),
            ("20250221-8.el10", Some(false)),
        ] {
            let [build] = possible_builds(Some(FirmwareKind::Ovmf), Some(version))[..] else { panic!("{version}") };
            assert_eq!(build.has_fixed_window, fixed, "{version}");
        }
    }

    #[test]
    fn unknown_firmware_is_any_of_both_kinds() {
        let shown: Vec<_> = possible_builds(None, Some("2025.02")).iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 12);
        assert_eq!((shown[0].as_str(), shown[11].as_str()), ("OVMF 2026.08", "SeaBIOS 1.16.2"));
    }
}
