//! Replacing a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, Gid, Mode, Uid, accessat, fchmod, fchown, fstat, statat};
use rustix::io::Errno;
use xattr::FileExt;

use super::new::{Temporary, sync};
use super::{Place, is_same};

/// Extended attributes that the kernel computes from the content, or that say what it was (`security/integrity`).
const OF_THE_CONTENT: [&[u8]; 2] = [b"security.ima", b"security.evm"];

impl Place {
    /// Replaces the file in one step: a reader sees the old or the new one, complete, whatever happens meanwhile.
    /// Mode, owner, access control list, security label and other extended attributes stay.
    ///
    /// # Errors
    /// Something would be lost or cannot be written, or somebody changed the file or put another one in its place since
    /// it was opened. Then nothing is replaced.
    pub fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.assert_unchanged()?;
        let links = self.opened.st_nlink;
        if links > 1 {
            let why = format!("the file has {links} hard links; a rewrite would change only one of them");
            return Err(io::Error::other(why));
        }
        self.assert_writable()?;
        let mut new = Temporary::new(&self.folder, Mode::RUSR | Mode::WUSR, ".iova-preflight-", "")?;
        new.file.write_all(content)?;
        self.dress(&new.file)?;
        new.file.sync_all()?;
        self.assert_unchanged()?;
        new.become_file(&self.name)?;
        sync(&self.folder)
    }

    /// Whether the name still leads to the file that was opened, and that is as it was.
    fn assert_unchanged(&self) -> io::Result<()> {
        let named = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let same = named.is_ok_and(|now| is_same(&self.opened, &now)) && is_same(&self.opened, &fstat(&self.file)?);
        if same { Ok(()) } else { Err(io::Error::other("the file was changed at the same time; it is not rewritten")) }
    }

    /// A user who may not write to a file must not replace it either, although the folder would allow it.
    fn assert_writable(&self) -> io::Result<()> {
        // By access(2), not by opening: on an overlay file system, opening a file for writing makes a copy of it.
        match accessat(&self.folder, &self.name, Access::WRITE_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(()),
            Err(Errno::ACCESS) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only; run `chmod u+w` first"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the new file the owner and permissions of the old one.
    fn dress(&self, new: &File) -> io::Result<()> {
        let (old, now) = (&self.opened, fstat(new)?);
        if (old.st_uid, old.st_gid) != (now.st_uid, now.st_gid) {
            fchown(new, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))
                .map_err(|error| lost("its owner", error.into()))?;
        }
        // While only its owner may open it: an access control list first, and what it does not have on top.
        let (kept, given) = (attributes(&self.file)?, attributes(new)?);
        for name in given.keys().filter(|name| !kept.contains_key(*name)) {
            new.remove_xattr(name).map_err(|error| lost(&name.to_string_lossy(), error))?;
        }
        for (name, value) in kept.iter().filter(|(name, value)| given.get(*name) != Some(value)) {
            new.set_xattr(name, value).map_err(|error| lost(&name.to_string_lossy(), error))?;
        }
        // After the change of owner, which clears some of the bits.
        Ok(fchmod(new, Mode::from_raw_mode(old.st_mode))?)
    }
}

fn lost(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} cannot be preserved: {error}"))
}

/// The extended attributes of a file that have to be kept.
fn attributes(file: &File) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let names = match file.list_xattr() {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut attributes = BTreeMap::new();
    for name in names.filter(|name| !OF_THE_CONTENT.contains(&name.as_bytes())) {
        if let Some(value) = file.get_xattr(&name)? {
            attributes.insert(name, value);
        }
    }
    Ok(attributes)
}
