//! The operator's policy as a file: where it is, and whether it is one.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{open_regular, read_open};
use super::trust::changeable_by_others;
use crate::policy::Policy;

/// Where the operator's policy is.
pub const POLICY: &str = "/etc/iova-preflight/policy.toml";

/// The longest policy that is read, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Where the operator's policy is in the system below `root`.
pub fn path(root: &Path) -> PathBuf {
    root.join(POLICY.trim_start_matches('/'))
}

/// The operator's policy in the system below `root`, one byte more than [`MAX_BYTES`] at most; `None` if there is none.
/// It may be a link; one that leads nowhere is none. What others than root can change is not the operator's, and is not read.
///
/// # Errors
/// It cannot be read, is not a regular file, or others than root can change it, the way to it included.
pub fn read(root: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = path(root);
    match changeable_by_others(root, Path::new(POLICY)) {
        Ok(None) => read_open(open_regular(&path, 0)?, MAX_BYTES).map(Some),
        Ok(Some(changeable)) => Err(io::Error::other(format!("others than root can change {}", changeable.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The policy in a file's bytes, of which [`MAX_BYTES`] are allowed. `shown` names the file in errors.
///
/// # Errors
/// It is not a policy, and where in the file.
pub fn parse(bytes: Vec<u8>, shown: &str) -> Result<Policy, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{shown}: longer than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown}: not UTF-8"))?;
    Policy::from_toml(&text).map_err(|error| format!("{shown}:{error}"))
}
