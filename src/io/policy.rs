//! Where the operator's policy is, and how it is read.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "cli")]
use super::file::read_file_limited;
use super::file::{open_regular, read_open};
use super::trust::changeable_by_others;
use crate::policy::{Policy, PolicyError};

/// The operator's policy.
pub const PATH: &str = "/etc/iova-preflight/policy.toml";

/// The longest policy that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a file gives no policy. Without the file's name, which the caller knows.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error(" {0}")]
    Unreadable(#[from] io::Error),
    /// It is longer than 1 MiB.
    #[error(" longer than 1 MiB")]
    TooLong,
    /// It is not UTF-8.
    #[error(" not UTF-8")]
    NotUtf8,
    /// It is not a policy.
    #[error("{0}")]
    Malformed(#[from] PolicyError),
}

/// [`PATH`] on the system below the folder `root`.
pub fn path_below(root: &Path) -> PathBuf {
    root.join(PATH.trim_start_matches('/'))
}

/// The bytes of the operator's policy, [`PATH`] on the system below the folder `root`, for [`parse`]; `None` if there is
/// none. It may be a link; one that leads nowhere is none. What others than root can change is not the operator's, and
/// is not read.
///
/// # Errors
/// It cannot be read, is not a regular file, or others than root can change it or the way to it.
pub fn read_operators(root: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = path_below(root);
    match std::fs::metadata(&path).and_then(|_| changeable_by_others(root, Path::new(PATH))) {
        Ok(None) => read_open(open_regular(&path, 0)?, MAX_BYTES).map(Some),
        Ok(Some(changeable)) => {
            Err(io::Error::other(format!("users other than root can change {}", changeable.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The policy in the bytes of a file.
///
/// # Errors
/// Too long, not UTF-8, or not a policy.
pub fn parse(bytes: &[u8]) -> Result<Policy, PolicyFileError> {
    if bytes.len() > MAX_BYTES {
        return Err(PolicyFileError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PolicyFileError::NotUtf8)?;
    Ok(Policy::from_toml(text)?)
}

/// The policy in a file that the user named.
///
/// # Errors
/// The file cannot be read, or is not a policy.
#[cfg(feature = "cli")]
pub fn read(path: &Path) -> Result<Policy, PolicyFileError> {
    parse(&read_file_limited(path, MAX_BYTES)?)
}
