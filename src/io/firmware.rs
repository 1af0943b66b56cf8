//! The firmware for guests that a host has: SeaBIOS, whose files carry their version, and OVMF, whose version is in the
//! package database.

use std::path::Path;

use super::file::read_found;
use crate::host::{FirmwareFile, FirmwareKind};

/// Where the files of SeaBIOS are: QEMU's own folder, Debian's, Proxmox's and RHEL's.
const SEABIOS_FOLDERS: [&str; 4] = ["usr/share/qemu", "usr/share/seabios", "usr/share/kvm", "usr/share/qemu-kvm"];

/// The file that QEMU takes for every machine type since 1.7 (`bios_name` in QEMU `hw/i386/pc.c`), and the small one of
/// older types.
const SEABIOS_FILES: [&str; 2] = ["bios-256k.bin", "bios.bin"];

/// The largest file that is looked at, in bytes. SeaBIOS has 256 KiB.
const MAX_SEABIOS: usize = 1 << 20;

/// dpkg's list of packages, in blocks of `Key: value` (dpkg(1), deb-control(5)).
const DPKG_STATUS: &str = "var/lib/dpkg/status";

/// The packages with OVMF: Debian's and Ubuntu's, and Proxmox's before and since edk2 2023.05.
const OVMF_PACKAGES: [&str; 3] = ["ovmf", "pve-edk2-firmware-ovmf", "pve-edk2-firmware"];

/// The largest list that is read, in bytes. One of 5000 packages has 5 MB.
const MAX_STATUS: usize = 64 << 20;

/// Parts of the names of builds that behave differently: those for confidential guests and for Cloud Hypervisor. Files
/// of variables are not firmware.
const OTHER_BUILDS: [&str; 5] = ["amdsev", "inteltdx", "cloudhv", "_vars", "aavmf"];

/// A file, and where its version came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The file.
    pub firmware: FirmwareFile,
    /// Where its version came from; why it is unknown, if it is.
    pub source: String,
}

/// The firmware that the host below `root` has, that of guests which name none first.
pub fn installed(root: &Path) -> Vec<Installed> {
    let mut all = seabios(root);
    all.extend(ovmf(root));
    all
}

fn seabios(root: &Path) -> Vec<Installed> {
    let mut files = Vec::new();
    for folder in SEABIOS_FOLDERS {
        for file in SEABIOS_FILES {
            let path = format!("{folder}/{file}");
            // Some folders have links to those of others.
            let Ok(target) = root.join(&path).canonicalize() else { continue };
            let Ok(bytes) = read_found(&target, MAX_SEABIOS) else { continue };
            files.push((file, format!("/{path}"), seabios_version(&bytes)));
        }
    }
    let file = |path: Option<String>, version: Option<String>, source: String| Installed {
        firmware: FirmwareFile { path, kind: FirmwareKind::SeaBios, version },
        source,
    };
    let default: Vec<_> = files.iter().filter(|(file, ..)| *file == SEABIOS_FILES[0]).collect();
    let (versions, paths): (Vec<_>, Vec<_>) = default.iter().map(|(_, path, version)| (version, path.as_str())).unzip();
    // With several of them, it is unknown which one QEMU loads.
    let same = versions.first().copied().filter(|first| versions.iter().all(|version| version == first)).cloned();
    let of_none = same.flatten().map(|version| file(None, Some(version), paths.join(", ")));
    let named = files.into_iter().map(|(_, path, version)| file(Some(path.clone()), version, path));
    of_none.into_iter().chain(named).collect()
}

/// The version in a file of SeaBIOS: `1.16.3-debian-1.16.3-2`, `rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org`
/// (`VERSION` in SeaBIOS `src/post.c`, which `scripts/buildversion.py` writes).
fn seabios_version(bytes: &[u8]) -> Option<String> {
    let texts = bytes.split(|byte| !byte.is_ascii_graphic()).filter(|text| (5..=100).contains(&text.len()));
    let texts = texts.filter_map(|text| std::str::from_utf8(text).ok());
    let mut versions = texts.filter(|text| {
        let number = text.strip_prefix("rel-").unwrap_or(text);
        let mut parts = number.split('.');
        let digits = |part: Option<&str>| part.is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        parts.next() == Some("1") && digits(parts.next()) && digits(parts.next())
    });
    versions.next().map(str::to_owned)
}

fn ovmf(root: &Path) -> Vec<Installed> {
    let Ok(status) = read_found(&root.join(DPKG_STATUS), MAX_STATUS) else { return Vec::new() };
    let status = String::from_utf8_lossy(&status);
    let packages = OVMF_PACKAGES.iter().filter_map(|package| Some((package, installed_version(&status, package)?)));
    let mut all = Vec::new();
    for (package, version) in packages {
        let list = root.join(format!("var/lib/dpkg/info/{package}.list"));
        let Ok(list) = read_found(&list, MAX_SEABIOS) else { continue };
        let list = String::from_utf8_lossy(&list);
        let files = list.lines().filter(|path| is_ovmf(path)).map(|path| Installed {
            firmware: FirmwareFile {
                path: Some(path.to_owned()),
                kind: FirmwareKind::Ovmf,
                version: Some(version.to_owned()),
            },
            source: format!("dpkg: {package} {version}"),
        });
        all.extend(files);
    }
    all.sort_by(|a, b| a.firmware.path.cmp(&b.firmware.path));
    all
}

/// The version of a package that dpkg lists as installed.
fn installed_version<'a>(status: &'a str, package: &str) -> Option<&'a str> {
    let heading = format!("Package: {package}\n");
    let mut starts = status.match_indices(&heading).map(|(at, _)| at);
    let start = starts.find(|&at| at == 0 || status[..at].ends_with('\n'))?;
    let block = status[start..].split("\n\n").next()?;
    let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value("Status")?.ends_with(" installed").then(|| value("Version"))?
}

/// Whether a file of such a package is firmware of x86 guests.
fn is_ovmf(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.starts_with("ovmf") && name.ends_with(".fd") && !OTHER_BUILDS.iter().any(|other| name.contains(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_seabios_is_found_in_its_file() {
        for (bytes, version) in [
            (&b"\x00\x01SeaBIOS (version %s)\n\x001.16.2-debian-1.16.2-1\x00\xff"[..], Some("1.16.2-debian-1.16.2-1")),
            (
                b"\x90rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org\x00",
                Some("rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org"),
            ),
            (b"\x001.16.1-1.el9\x00", Some("1.16.1-1.el9")),
            (b"\x00 1.5 and 1.x.y\x00", None),
        ] {
            assert_eq!(seabios_version(bytes).as_deref(), version);
        }
    }

    #[test]
    fn files_other_than_dpkgs_are_skipped() {
        let root = std::env::temp_dir().join(format!("iova-preflight-dpkg-{}", std::process::id()));
        let dpkg = root.join("var/lib/dpkg");
        std::fs::create_dir_all(dpkg.join("info")).expect("folders");
        std::fs::write(dpkg.join("info/ovmf.list"), "/usr/share/OVMF/OVMF_CODE_4M.fd\n").expect("a list");
        let status = dpkg.join("status");
        let text = "Package: ovmf\nStatus: install ok installed\nVersion: 2022.11-6\n\n";
        std::fs::write(&status, text).expect("a file");
        assert_eq!(ovmf(&root).len(), 1);
        std::fs::rename(&status, root.join("elsewhere")).expect("moved");
        std::os::unix::fs::symlink(root.join("elsewhere"), &status).expect("a link");
        assert_eq!(ovmf(&root).len(), 0);
        // Nobody will ever write to it.
        std::fs::remove_file(&status).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&status).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        let (done, is_done) = std::sync::mpsc::channel();
        let looked_at = root.clone();
        std::thread::spawn(move || {
            let _ = done.send(ovmf(&looked_at).len());
        });
        assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(60)), Ok(0));
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_package_counts_where_it_is_installed() {
        let block = |name: &str, status: &str, version: &str| {
            format!(
                "Package: {name}\nStatus: install ok {status}\nMaintainer: x\nVersion: {version}\nDescription: y\n Version: z\n\n"
            )
        };
        let status = block("libovmf", "installed", "1")
            + &block("ovmf", "installed", "2022.11-6+deb12u2")
            + &block("pve-edk2-firmware", "config-files", "4.2023.08-4");
        assert_eq!(installed_version(&status, "ovmf"), Some("2022.11-6+deb12u2"));
        assert_eq!(installed_version(&status, "pve-edk2-firmware"), None);
        assert_eq!(installed_version(&status, "pve-edk2-firmware-ovmf"), None);
        for (path, expected) in [
            ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", true),
            ("/usr/share/ovmf/OVMF.fd", true),
            ("/usr/share/OVMF/OVMF_VARS_4M.fd", false),
            ("/usr/share/ovmf/OVMF.amdsev.fd", false),
            ("/usr/share/pve-edk2-firmware/AAVMF_CODE.fd", false),
            ("/usr/share/doc/ovmf", false),
        ] {
            assert_eq!(is_ovmf(path), expected, "{path}");
        }
    }
}
