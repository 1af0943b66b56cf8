//! OpenNebula's own `deploy`, which is kept beside the script that takes its place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iova_preflight::io::file::{open_regular, read_open};

use crate::adapter::scripts::Found;

/// The name that the script expects.
const ORIGINAL: &str = "deploy.one";

/// Where the original is kept.
pub(super) fn original(place: &Path) -> PathBuf {
    place.with_file_name(ORIGINAL)
}

/// Keeps what is in the place of the script now; gives its owner and group, who are to be those of the script, too.
///
/// At every moment there is a `deploy` that works: the original gets a second name before the script takes the first.
pub(super) fn keep_original(place: &Path, found: &Found) -> Result<(u32, u32)> {
    let (shown, kept) = (place.display(), original(place));
    let owner = |path: &Path| -> Result<(u32, u32)> {
        let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
        Ok((metadata.uid(), metadata.gid()))
    };
    match found {
        Found::Nothing => bail!("{shown} is not there: nothing to put the script in front of"),
        Found::Ours { .. } => {
            if !kept.is_file() {
                bail!("{shown} is ours, but {} is not there; put OpenNebula's deploy in its place", kept.display());
            }
            return owner(place);
        }
        Found::Foreign => {}
    }
    if !fs::symlink_metadata(place).with_context(|| shown.to_string())?.is_file() {
        bail!("{shown} is not a regular file and is left as it is");
    }
    if runs_original(place)? {
        bail!("{shown} runs {ORIGINAL} and is not ours; it is left as it is");
    }
    // After an upgrade of OpenNebula, what was kept is its old one.
    let temporary = place.with_file_name(format!(".iova-preflight-{}", std::process::id()));
    let linked = fs::hard_link(place, &temporary).and_then(|()| fs::rename(&temporary, &kept));
    if linked.is_err() {
        // The error worth telling is the first.
        let _ = fs::remove_file(&temporary);
    }
    linked.with_context(|| kept.display().to_string())?;
    owner(place)
}

/// Whether it is somebody else's script of the same kind.
fn runs_original(place: &Path) -> Result<bool> {
    /// Bytes. The original has 6,000.
    const MOST: usize = 1 << 20;
    let bytes = open_regular(place, libc::O_NOFOLLOW).and_then(|file| read_open(file, MOST));
    let bytes = bytes.with_context(|| place.display().to_string())?;
    Ok(bytes.windows(ORIGINAL.len()).any(|window| window == ORIGINAL.as_bytes()))
}

/// Puts the original back in its place, in one step.
pub(super) fn put_original_back(place: &Path) -> Result<()> {
    let kept = original(place);
    fs::rename(&kept, place)
        .with_context(|| format!("{} cannot be put back in the place of {}", kept.display(), place.display()))
}
