//! New files.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use iova_preflight::io::file::regular;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::{THROUGH, explain, resolve};

/// How a folder is opened that is listed or written to the disk.
pub(super) const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The mode of files and folders that everybody may run, list and enter.
const FOR_EVERYBODY: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// Whether the umask may reduce the mode of a new folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Umask {
    Holds,
    Ignored,
}

/// A folder that somebody named, to write files into.
#[derive(Debug)]
pub(crate) struct Folder(pub(super) OwnedFd);

impl Folder {
    /// Opens a folder, or makes it, and those above it, with this mode. Links on the way to it are followed if they are
    /// root's or this user's.
    ///
    /// # Errors
    /// It cannot be opened or made, or a link of another user leads to it.
    pub fn made(path: &Path, mode: Mode) -> io::Result<Self> {
        Ok(Self(open_or_make(path, mode, Umask::Holds)?))
    }

    /// As [`Self::made`], but everybody may list and go through what is made, whatever the umask says.
    ///
    /// # Errors
    /// It cannot be opened or made, or a link of another user leads to it.
    pub fn made_for_everybody(path: &Path) -> io::Result<Self> {
        Ok(Self(open_or_make(path, FOR_EVERYBODY, Umask::Ignored)?))
    }

    /// Opens a folder. Links on the way to it are followed if they are root's or this user's.
    ///
    /// # Errors
    /// It cannot be opened, or a link of another user leads to it.
    #[cfg(feature = "libvirt")]
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open_folder(path)?))
    }

    /// Writes a file that everybody may read, in the place of the file that has that name now: a link is replaced, not
    /// followed.
    ///
    /// # Errors
    /// It cannot be written, or what has the name is not a file; it is left as it is.
    pub fn write(&self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        self.may_replace(name)?;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let mut new = Temporary::new(&self.0, mode, ".iova-preflight-", "")?;
        new.file.write_all(content)?;
        // Whatever the umask says.
        fchmod(&new.file, mode)?;
        new.become_file(&name.to_owned())
    }

    /// Refuses to replace what is not a file, and a link to that: `/dev/null` and `/dev/stdout` stay what they are.
    fn may_replace(&self, name: &OsStr) -> io::Result<()> {
        match statat(&self.0, name, AtFlags::empty()) {
            Ok(found) => regular(found.st_mode),
            // There is nothing, or a link that leads nowhere.
            Err(_) => Ok(()),
        }
    }

    /// As [`Self::write`], but everybody may run it; with `like`, it gets the owner, group and mode of that file.
    ///
    /// # Errors
    /// It cannot be written, or what has the name is not a file; it is left as it is.
    pub fn write_program(&self, name: &OsStr, content: &[u8], like: Option<&Metadata>) -> io::Result<()> {
        self.may_replace(name)?;
        let mut new = Temporary::new(&self.0, Mode::RWXU, ".iova-preflight-", "")?;
        new.file.write_all(content)?;
        if let Some(like) = like {
            fchown(&new.file, Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())))?;
        }
        // Whatever the umask says.
        fchmod(&new.file, like.map_or(FOR_EVERYBODY, |like| Mode::from_raw_mode(like.mode() & 0o777)))?;
        new.file.sync_all()?;
        new.become_file(&name.to_owned())?;
        sync(&self.0)
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    match resolve(path)? {
        (above, Some(name)) => openat(above, &name, THROUGH | OFlags::NOFOLLOW, Mode::empty()).map_err(explain),
        (folder, None) => Ok(folder),
    }
}

fn open_or_make(path: &Path, mode: Mode, umask: Umask) -> io::Result<OwnedFd> {
    let opened = open_folder(path);
    let (Err(error), Some(name), Some(parent)) = (&opened, path.file_name(), path.parent()) else { return opened };
    if error.kind() != io::ErrorKind::NotFound {
        return opened;
    }
    let above = open_or_make(parent, mode, umask)?;
    match mkdirat(&above, name, mode) {
        Ok(()) if umask == Umask::Ignored => {
            fchmod(openat(&above, name, LISTED | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?, mode)?;
        }
        // Another process was faster, or it is a link that leads nowhere.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    openat(above, name, THROUGH | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)
}

/// The name of a file is on the disk only when the folder is. One that may not be listed cannot be opened for that.
pub(super) fn sync(folder: &OwnedFd) -> io::Result<()> {
    match openat(folder, ".", LISTED, Mode::empty()) {
        Ok(folder) => Ok(fsync(folder)?),
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A new file that is removed again unless it is kept.
pub(super) struct Temporary<'a> {
    pub file: File,
    folder: &'a OwnedFd,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    pub fn new(folder: &'a OwnedFd, mode: Mode, prefix: &str, suffix: &str) -> io::Result<Self> {
        /// How many names are tried.
        const ATTEMPTS: u64 = 100;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The hasher has a new random key each time, so that the name cannot be predicted.
        let random = RandomState::new();
        for attempt in 0..ATTEMPTS {
            let name = OsString::from(format!("{prefix}{:016x}{suffix}", random.hash_one(attempt)));
            match openat(folder, &name, flags, mode) {
                Ok(file) => return Ok(Self { file: file.into(), folder, name: Some(name) }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Takes the place of the file `name`.
    pub fn become_file(mut self, name: &OsString) -> io::Result<()> {
        if let Some(temporary) = &self.name {
            renameat(self.folder, temporary, self.folder, name)?;
            self.name = None;
        }
        Ok(())
    }

    /// Keeps the file under its name, which is returned.
    #[cfg(feature = "libvirt")]
    pub fn stay(mut self) -> OsString {
        self.name.take().unwrap_or_default()
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // If the file stays, it does no harm.
            let _ = unlinkat(self.folder, name, AtFlags::empty());
        }
    }
}
