//! Who may run and change a program.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Whether it is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether only root can change the file, as libvirt runs it as root.
pub(crate) fn is_safely_owned(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.permissions().mode() & 0o022 == 0)
}
