//! Which VMs of Proxmox VE name the hookscript.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use iova_preflight::io::file::read_file_limited;

/// The name of the script in a VM's configuration.
const VOLUME: &str = "local:snippets/iova-preflight";

/// The VMs of the whole cluster whose configuration names the script, by their number, with the node of each if that is
/// known. Such a VM does not start on a node without the script: `exec_hookscript` in pve-guest-common's
/// `src/PVE/GuestHelpers.pm` dies then.
///
/// # Errors
/// A configuration cannot be read.
pub(super) fn named_by(root: &Path) -> Result<BTreeMap<u64, Option<String>>> {
    let pve = root.join("etc/pve");
    // The link to the folder of this node comes first: entries from the nodes' own folders replace its entries.
    let mut folders = vec![(None, pve.join("qemu-server"))];
    for (name, node) in entries(&pve.join("nodes"))? {
        folders.push((Some(name), node.join("qemu-server")));
    }
    let mut found = BTreeMap::new();
    for (node, folder) in folders {
        for (_, file) in entries(&folder)? {
            let number = file.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse().ok());
            let Some(number) = number.filter(|_| file.extension() == Some("conf".as_ref())) else { continue };
            if names_script(&file)? {
                found.insert(number, node.clone());
            }
        }
    }
    Ok(found)
}

/// The entries of a folder, which may be missing.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match listed {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Vec::new(),
        listed => listed.with_context(|| folder.display().to_string())?,
    };
    Ok(entries.iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect())
}

fn names_script(file: &Path) -> Result<bool> {
    /// Bytes. Proxmox' cluster file system takes files of 1 MiB.
    const MOST: usize = 1 << 20;
    match read_file_limited(file, MOST) {
        Ok(bytes) => Ok(is_named(&String::from_utf8_lossy(&bytes))),
        // The VM was removed, or is on another node by now.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// Whether a configuration names the script for its next start: the sections are snapshots, to which it can be reset.
fn is_named(configuration: &str) -> bool {
    let current = configuration.lines().take_while(|line| !line.starts_with('['));
    current.filter_map(|line| line.strip_prefix("hookscript:")).any(|value| value.trim() == VOLUME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_the_script_for_its_next_start() {
        for (configuration, expected) in [
            ("cores: 4\nhookscript: local:snippets/iova-preflight\nmemory: 1228800\n", true),
            ("hookscript:  local:snippets/iova-preflight  \n", true),
            ("cores: 4\n", false),
            ("#hookscript: local:snippets/iova-preflight\n", false),
            ("hookscript: local:snippets/other.pl\n", false),
            ("hookscript: cephfs:snippets/iova-preflight\n", false),
            ("cores: 4\n\n[before]\nhookscript: local:snippets/iova-preflight\n", false),
        ] {
            assert_eq!(is_named(configuration), expected, "{configuration}");
        }
    }
}
