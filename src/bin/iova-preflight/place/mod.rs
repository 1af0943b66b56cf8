//! Files that stay the same from the moment they are opened, whatever others put in their place meanwhile.

#[cfg(feature = "libvirt")]
mod keep;
mod new;
mod replace;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use iova_preflight::io::file::{open_regular, regular};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

pub(crate) use new::Folder;

/// How many links may lead from one to the next (`MAXSYMLINKS` in the kernel's `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// How a folder is opened that is only gone through.
#[cfg(target_os = "linux")]
const THROUGH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const THROUGH: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How a file is opened: the file of that name itself, without waiting if it is not a regular file.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A regular file that is open, and where it is.
#[derive(Debug)]
pub(crate) struct Place {
    file: File,
    folder: OwnedFd,
    name: OsString,
    opened: Stat,
}

impl Place {
    /// Opens a file that the user named. Links on the way to it are followed if they are root's or this user's.
    ///
    /// # Errors
    /// It cannot be opened, is not a regular file, or a link of another user leads to it.
    pub fn named(path: &Path) -> io::Result<Self> {
        let (folder, name) = match resolve(path) {
            Ok((folder, Some(name))) => (folder, name),
            Ok((_, None)) => return Err(io::ErrorKind::IsADirectory.into()),
            Err(error) => {
                // For a path without a place, such as /dev/stdin, the error says what it is.
                open_regular(path, 0)?;
                return Err(error);
            }
        };
        Self::at(folder, name)
    }

    /// Opens a file that was found in `folder`, which somebody named: no link below that is followed.
    ///
    /// # Errors
    /// It cannot be opened, is not a regular file, a link of another user leads to `folder`, or anybody may have put it
    /// there.
    pub fn found(folder: &Path, path: &Path) -> io::Result<Self> {
        let top = match resolve(folder)? {
            (above, Some(name)) => openat(above, &name, THROUGH | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?,
            (top, None) => top,
        };
        let (here, name) = descend(&top, folder, path)?;
        let (file, opened) = open_file(here.as_ref().unwrap_or(&top), &name)?;
        may_belong_there(&opened, here.as_ref().unwrap_or(&top), &top)?;
        Ok(Self { file, folder: here.unwrap_or(top), name, opened })
    }

    fn at(folder: OwnedFd, name: OsString) -> io::Result<Self> {
        let (file, opened) = open_file(&folder, &name)?;
        Ok(Self { file, folder, name, opened })
    }

    /// Another handle of the same file.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// A folder that somebody named, whose files are read. It is opened once, together with the first of them.
#[derive(Debug)]
pub(crate) struct Searched {
    path: Arc<Path>,
    top: OnceLock<OwnedFd>,
}

impl Searched {
    /// The folder of this name.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), top: OnceLock::new() }
    }

    /// Its path, as it was named.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Opens a file for reading that was found in it, and returns its size in bytes. No link below the folder is followed.
    ///
    /// # Errors
    /// It cannot be opened, is not a regular file, or anybody may have put it there.
    pub fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        let top = match self.top.get() {
            Some(top) => top,
            None => {
                let top = openat(CWD, &*self.path, THROUGH, Mode::empty())?;
                self.top.get_or_init(|| top)
            }
        };
        let (below, name) = descend(top, &self.path, path)?;
        let here = below.as_ref().unwrap_or(top);
        let (file, opened) = open_file(here, &name)?;
        may_belong_there(&opened, here, top)?;
        Ok((file, u64::try_from(opened.st_size).unwrap_or(0)))
    }
}

/// The folder of `path`, if it is not `folder` itself, and its name; no link below `folder` is followed.
fn descend(top: &OwnedFd, folder: &Path, path: &Path) -> io::Result<(Option<OwnedFd>, OsString)> {
    let below = path.strip_prefix(folder).map_err(io::Error::other)?;
    let (Some(name), Some(parents)) = (below.file_name(), below.parent()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let mut here = None;
    for parent in parents {
        let above = here.as_ref().unwrap_or(top);
        here = Some(openat(above, parent, THROUGH | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?);
    }
    Ok((here, name.to_owned()))
}

fn open_file(folder: &OwnedFd, name: &OsString) -> io::Result<(File, Stat)> {
    let file = File::from(openat(folder, name, FILE, Mode::empty()).map_err(explain)?);
    let opened = fstat(&file)?;
    regular(opened.st_mode)?;
    Ok((file, opened))
}

/// In a folder that everybody may write to, a file has to belong to root, to this user or to the owner of its folder or
/// of the one that was named (as `fs.protected_regular` of Linux has it).
fn may_belong_there(file: &Stat, folder: &OwnedFd, named: &OwnedFd) -> io::Result<()> {
    let owner = file.st_uid;
    // Nearly every file: no need to look at the folders.
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    let folder = fstat(folder)?;
    let trusted = [folder.st_uid, fstat(named)?.st_uid].contains(&owner);
    if trusted || !Mode::from_raw_mode(folder.st_mode).contains(Mode::WOTH) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "belongs to user {owner} in a world-writable folder; name the file itself to read it"
    )))
}

fn explain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::MLINK => io::Error::other("a symbolic link, which is not followed"),
        // open(2) fails so for a socket.
        Errno::NXIO => io::Error::other("not a regular file"),
        error => error.into(),
    }
}

/// The kind of a directory entry.
enum Look {
    /// A link, with its owner and target.
    Link(u32, PathBuf),
    /// Anything else.
    Other,
}

/// Looks at one name without following it.
#[cfg(target_os = "linux")]
fn look(folder: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<Look> {
    // One handle for both, so that owner and target are those of one link.
    let here = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&here)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(Look::Other);
    }
    let target = readlinkat(&here, "", Vec::new())?;
    Ok(Look::Link(stat.st_uid, OsString::from_vec(target.into_bytes()).into()))
}

/// Looks at one name without following it.
#[cfg(not(target_os = "linux"))]
fn look(folder: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<Look> {
    use rustix::fs::{AtFlags, statat};
    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(Look::Other);
    }
    let target = readlinkat(folder, name, Vec::new())?;
    if !is_same(&stat, &statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?) {
        return Err(io::Error::other("it is being changed by another process"));
    }
    Ok(Look::Link(stat.st_uid, OsString::from_vec(target.into_bytes()).into()))
}

/// The folder of what `path` leads to, and its name in there; no name if it is a folder like `/` or `..`. Links are
/// followed one by one, and only those of root and of this user.
fn resolve(path: &Path) -> io::Result<(OwnedFd, Option<OsString>)> {
    let mut here = openat(CWD, ".", THROUGH, Mode::empty())?;
    let mut ahead = parts(path);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => here = openat(CWD, "/", THROUGH, Mode::empty())?,
            Some(Component::ParentDir) => here = openat(&here, "..", THROUGH, Mode::empty())?,
            Some(Component::Normal(name)) => match look(&here, name)? {
                Look::Link(owner, target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if owner != 0 && owner != geteuid().as_raw() {
                        let name = name.to_string_lossy();
                        return Err(io::Error::other(format!(
                            "{name} is a symbolic link of user {owner}, which is not followed"
                        )));
                    }
                    ahead.extend(parts(&target));
                }
                Look::Other if ahead.is_empty() => return Ok((here, Some(name.to_owned()))),
                Look::Other => {
                    here = openat(&here, name, THROUGH | OFlags::NOFOLLOW, Mode::empty()).map_err(explain)?
                }
            },
            _ => {}
        }
    }
    Ok((here, None))
}

/// The parts of a path, the first last.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether a file is the same, and unchanged.
fn is_same(before: &Stat, now: &Stat) -> bool {
    let identity = |stat: &Stat| {
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
    };
    identity(before) == identity(now)
}
