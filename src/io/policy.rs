//! Where the operator's policy is, and how it is read.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{open_regular, read_file_limited, read_limited};
use crate::policy::{Policy, PolicyError};

/// The policy that the hook and the watch service read.
pub const PATH: &str = "/etc/iova-preflight/policy.toml";

/// The longest policy that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Why there is no policy to be had from a file. Without the file's name, which the caller knows.
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

/// The bytes of a policy file, for [`parse`].
///
/// # Errors
/// Those of opening and reading.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    read_file_limited(path, MAX_BYTES)
}

/// The bytes of the policy file that is always read, for [`parse`]. A link is followed, a pipe is not waited for.
///
/// # Errors
/// Those of opening and reading; it is not a regular file.
pub fn read_installed(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(open_regular(path, 0)?, MAX_BYTES)
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

/// The policy in a file.
///
/// # Errors
/// The file cannot be read, or is not a policy.
pub fn read(path: &Path) -> Result<Policy, PolicyFileError> {
    parse(&read_bytes(path)?)
}
