//! OpenNebula's own `deploy`, which is kept next to the script that replaces it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iova_preflight::io::file::{open_regular, read_open};

use crate::adapter::scripts::Found;
use crate::hook::owners::is_executable;
use crate::place::Folder;

/// The name that the script expects.
const ORIGINAL: &str = "deploy.one";

/// A copy of what was kept: a [`ORIGINAL`] that differs was put there, or changed, by somebody else.
const RECORD: &str = ".iova-preflight-deploy.one";

/// Where the original is kept.
pub(super) fn original(place: &Path) -> PathBuf {
    place.with_file_name(ORIGINAL)
}

/// Keeps what is in the place of the script now; gives what is known of it: owner, group and mode are to be those of the
/// script, too.
///
/// At every moment there is a `deploy` that works: the original gets a second name before the script takes the first.
pub(super) fn keep_original(place: &Path, found: &Found) -> Result<Metadata> {
    let (shown, kept) = (place.display(), original(place));
    match found {
        Found::Nothing => bail!("{shown} does not exist; the script runs before it"),
        Found::Ours { .. } if is_executable(&kept) => {}
        Found::Ours { .. } => bail!(
            "{shown} is our script, but {}, which it runs, does not exist, so no VM starts; restore OpenNebula's own \
             deploy from its package to {shown} and run this command again",
            kept.display()
        ),
        Found::Foreign => keep_foreign(place, &kept)?,
    }
    fs::metadata(&kept).with_context(|| kept.display().to_string())
}

fn keep_foreign(place: &Path, kept: &Path) -> Result<()> {
    let shown = place.display();
    let metadata = fs::symlink_metadata(place).with_context(|| shown.to_string())?;
    if !metadata.is_file() {
        bail!("{shown} is not a regular file and is not changed");
    }
    let content = read(place).with_context(|| shown.to_string())?;
    // Somebody else's script of the same kind.
    if content.windows(ORIGINAL.len()).any(|window| window == ORIGINAL.as_bytes()) {
        bail!("{shown} runs {ORIGINAL} and is not our script; it is not changed");
    }
    // After an upgrade of OpenNebula, what was kept is its old one.
    let may_be_replaced = match fs::symlink_metadata(kept) {
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        _ => read(kept).is_ok_and(|there| there == content || read(&record(place)).is_ok_and(|ours| ours == there)),
    };
    if !may_be_replaced {
        bail!("{} is not our script and is not changed; move it away and run this command again", kept.display());
    }
    let temporary = place.with_file_name(format!(".iova-preflight-{}", std::process::id()));
    let linked = fs::hard_link(place, &temporary).and_then(|()| fs::rename(&temporary, kept));
    if linked.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    linked.with_context(|| kept.display().to_string())?;
    let Some(folder) = place.parent() else { bail!("{shown}: not a file") };
    Folder::made_for_everybody(folder)
        .and_then(|folder| folder.write_program(RECORD.as_ref(), &content, Some(&metadata)))
        .with_context(|| record(place).display().to_string())
}

fn record(place: &Path) -> PathBuf {
    place.with_file_name(RECORD)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    /// Bytes. The original has 6,000.
    const MOST: usize = 1 << 20;
    open_regular(path, libc::O_NOFOLLOW).and_then(|file| read_open(file, MOST))
}

/// Puts the original back in its place, in one step.
pub(super) fn put_original_back(place: &Path) -> Result<()> {
    let kept = original(place);
    fs::rename(&kept, place)
        .with_context(|| format!("{} cannot be restored to {}", kept.display(), place.display()))?;
    match fs::remove_file(record(place)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| record(place).display().to_string())
        }
        _ => Ok(()),
    }
}
