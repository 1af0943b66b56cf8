//! A folder in which files are kept for later.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, openat, statat, unlinkat};

use super::new::{Folder, LISTED, Temporary, sync};

impl Folder {
    /// Writes a file that only its owner may read, with this beginning and end of a unique name. Returns the name once
    /// the file is on the disk.
    ///
    /// # Errors
    /// It cannot be written, and is not there then.
    pub fn keep(&self, prefix: &str, suffix: &str, content: &[u8]) -> io::Result<OsString> {
        let mut new = Temporary::new(&self.0, Mode::RUSR | Mode::WUSR, prefix, suffix)?;
        new.file.write_all(content)?;
        new.file.sync_all()?;
        sync(&self.0)?;
        Ok(new.stay())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// It does not exist, or cannot be removed.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// How many files, links and folders are in there, and how many bytes they have; nothing is opened or followed.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn holds(&self) -> io::Result<(usize, u64)> {
        let (mut files, mut bytes) = (0_usize, 0_u64);
        for entry in Dir::new(openat(&self.0, ".", LISTED, Mode::empty())?)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            // If it was removed meanwhile, it takes no space.
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let Ok(found) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            files = files.saturating_add(1);
            bytes = bytes.saturating_add(u64::try_from(found.st_size).unwrap_or(0));
        }
        Ok((files, bytes))
    }
}
