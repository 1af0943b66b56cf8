//! Where libvirt looks for its hook, and what is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use iova_preflight::Version;

use super::daemons::libvirt_version;
use super::owners::is_executable;

/// The name of the hook program.
pub(crate) const PROGRAM: &str = "iova-preflight-hook";

/// libvirt's folder for hooks.
const HOOKS: &str = "etc/libvirt/hooks";

/// The first libvirt that runs every program in `qemu.d`.
const QEMU_D_SINCE: Version = Version::new(6, 5);

/// Where the hook goes, below a root folder.
#[derive(Debug)]
pub(crate) struct HookPlace {
    /// The link.
    pub link: PathBuf,
    /// Whether it is libvirt's only hook for QEMU, as before 6.5.
    pub sole: bool,
}

impl HookPlace {
    /// The folder of the link.
    pub fn folder(&self) -> &Path {
        self.link.parent().unwrap_or(&self.link)
    }
}

/// What is at the place of the link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Nothing.
    Nothing,
    /// A link to a program called [`PROGRAM`].
    Ours(PathBuf),
    /// Something that is not ours.
    Foreign,
}

/// Both places a hook can be, the one in `qemu.d` first.
pub(crate) fn places(root: &Path) -> [HookPlace; 2] {
    let hooks = root.join(HOOKS);
    [
        HookPlace { link: hooks.join("qemu.d/50-iova-preflight"), sole: false },
        HookPlace { link: hooks.join("qemu"), sole: true },
    ]
}

/// The place that this libvirt reads.
pub(crate) fn place(root: &Path) -> HookPlace {
    let [in_folder, sole] = places(root);
    if libvirt_version(root).is_some_and(|version| version < QEMU_D_SINCE) { sole } else { in_folder }
}

/// What is at the place of the link.
pub(crate) fn present(link: &Path) -> Result<Present> {
    let metadata = match std::fs::symlink_metadata(link) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Present::Nothing),
        Err(error) => return Err(error).with_context(|| link.display().to_string()),
    };
    if !metadata.is_symlink() {
        return Ok(Present::Foreign);
    }
    let target = std::fs::read_link(link).with_context(|| link.display().to_string())?;
    let ours = target.file_name().is_some_and(|name| name == PROGRAM);
    Ok(if ours { Present::Ours(target) } else { Present::Foreign })
}

/// Every program that libvirt runs as a hook for QEMU.
pub(super) fn programs(root: &Path, place: &HookPlace) -> Vec<PathBuf> {
    let [in_folder, sole] = places(root);
    let mut hooks = vec![sole.link];
    if !place.sole {
        let entries = std::fs::read_dir(in_folder.folder()).into_iter().flatten().flatten();
        hooks.extend(entries.map(|entry| entry.path()));
    }
    hooks.retain(|hook| is_executable(hook));
    hooks
}
