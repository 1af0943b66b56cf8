//! Reading files that may be anything.

use std::fs::{File, OpenOptions};
#[cfg(feature = "cli")]
use std::io::IsTerminal;
use std::io::{self, Read};
#[cfg(feature = "cli")]
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Reads at most `limit` bytes and one more, so that the caller sees that there are more.
///
/// # Errors
/// Those of the reader.
pub fn read_limited(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads at most `limit` bytes and one more of the file at `path`, which the user named. It follows links, and reads a
/// pipe that a program writes to, or a terminal, up to its end, however long that takes. Opening never waits.
///
/// # Errors
/// Those of opening and reading; a pipe that is empty and that no program writes to; any other file whose end does not
/// come by itself.
#[cfg(feature = "cli")]
pub fn read_file_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = open_at_once(path, 0)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let mut bytes = Vec::with_capacity(capacity(metadata.len(), limit));
    let mut reader = (&file).take(limit as u64 + 1);
    match reader.read_to_end(&mut bytes) {
        // That is not its end before a program has opened it for writing. The pipe of `<(…)` has no path, and its writer was
        // there before it was named.
        Ok(0) if kind.is_fifo() && path.canonicalize().is_ok() => {
            Err(io::Error::other("an empty pipe: no program writes to it"))
        }
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Err(_) if kind.is_fifo() || file.is_terminal() => {
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
            reader.read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        // Such as /proc/kmsg, which waits for the kernel's next message.
        Err(_) => Err(io::Error::other("not a file with an end")),
    }
}

/// Reads at most `limit` bytes and one more of a file that was found, see [`open_found`].
///
/// # Errors
/// Those of opening and reading.
pub fn read_found(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(open_found(path)?, limit)
}

/// Opens a file that was not named by the user but found in a trusted folder. Whatever is there, this neither blocks
/// nor follows a link.
///
/// # Errors
/// It cannot be opened, is not a regular file, or belongs to neither root nor the user of this process.
pub fn open_found(path: &Path) -> io::Result<File> {
    let file = open_regular(path, libc::O_NOFOLLOW)?;
    let owner = file.metadata()?.uid();
    if owner != 0 && Some(owner) != user() {
        return Err(io::Error::other(format!("belongs to user {owner}, not to root or to the user of this process")));
    }
    Ok(file)
}

/// Opens a regular file for reading, with these flags of open(2) more. Never blocks.
///
/// # Errors
/// It cannot be opened, or is not a regular file.
pub fn open_regular(path: &Path, flags: i32) -> io::Result<File> {
    let file = open_at_once(path, flags)?;
    regular(file.metadata()?.mode())?;
    Ok(file)
}

fn open_at_once(path: &Path, flags: i32) -> io::Result<File> {
    // Opening a pipe waits for a writer; O_NONBLOCK has no effect on a regular file.
    let opened = OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if flags & libc::O_NOFOLLOW != 0 => {
            io::Error::other("a symbolic link, which is not followed")
        }
        // open(2) fails so for a socket.
        Some(libc::ENXIO) => io::Error::other("not a regular file"),
        _ => error,
    })
}

/// Refuses what is not a regular file; `mode` is the `st_mode` of stat(2).
///
/// # Errors
/// What it is instead.
pub fn regular(mode: u32) -> io::Result<()> {
    let what = match mode & libc::S_IFMT {
        libc::S_IFREG => return Ok(()),
        libc::S_IFDIR => return Err(io::ErrorKind::IsADirectory.into()),
        libc::S_IFIFO => "a pipe",
        libc::S_IFSOCK => "a socket",
        libc::S_IFLNK => "a symbolic link",
        _ => "a device",
    };
    Err(io::Error::other(format!("{what}, not a regular file")))
}

/// The user of this process, who owns its folder in `/proc` (proc_pid(5)); `None` without procfs.
pub fn user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|folder| folder.uid())
}

/// Reads at most `limit` bytes and one more of an open file.
///
/// # Errors
/// Those of reading.
pub fn read_open(file: File, limit: usize) -> io::Result<Vec<u8>> {
    let expected = file.metadata().map_or(0, |metadata| metadata.len());
    read_expected(file, expected, limit)
}

/// Without a hint a buffer would grow, and be read into, seven times for a common domain.
fn capacity(expected: u64, limit: usize) -> usize {
    usize::try_from(expected.min(limit as u64)).unwrap_or(0) + 1
}

/// Reads at most `limit` bytes and one more of an open file that is believed to have `expected` bytes.
///
/// # Errors
/// Those of reading.
pub fn read_expected(file: File, expected: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(capacity(expected, limit));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a small file of the kernel's, without white space around it; `None` if it cannot be read.
pub(super) fn read_word(path: &Path) -> Option<String> {
    // sysfs is full of links; what they lead to is a file.
    let bytes = read_limited(open_regular(path, 0).ok()?, 64 * 1024).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_than_regular_files_are_errors_without_waiting() {
        let folder = std::env::temp_dir().join(format!("iova-preflight-found-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = |name: &str| folder.join(name);
        std::fs::write(path("file"), "text").expect("a file");
        std::os::unix::fs::symlink("file", path("link")).expect("a link");
        let status = std::process::Command::new("mkfifo").arg(path("pipe")).status().expect("mkfifo runs");
        assert!(status.success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");

        assert_eq!(read_found(&path("file"), 2).expect("a regular file"), b"tex");
        #[cfg(feature = "cli")]
        {
            let named = |path: &Path| read_file_limited(path, 9).map_err(|error| error.to_string());
            assert_eq!(named(&path("link")).as_deref(), Ok(&b"text"[..]));
            assert_eq!(named(&path("pipe")), Err("an empty pipe: no program writes to it".to_owned()));
            assert_eq!(named(&path("socket")), Err("not a regular file".to_owned()));
            assert_eq!(named(Path::new("/dev/zero")).as_deref(), Ok(&[0; 10][..]));
            assert!(named(&folder).is_err_and(|error| error.starts_with("Is a directory")));
        }
        let error = |path: &Path| read_found(path, 9).expect_err("refused").to_string();
        assert_eq!(error(&path("link")), "a symbolic link, which is not followed");
        assert_eq!(error(&path("pipe")), "a pipe, not a regular file");
        assert_eq!(error(&path("socket")), "not a regular file");
        assert_eq!(error(Path::new("/dev/zero")), "a device, not a regular file");
        assert_eq!(read_found(&folder, 9).expect_err("refused").kind(), io::ErrorKind::IsADirectory);
        if user() == Some(0) {
            std::os::unix::fs::chown(path("file"), Some(1234), None).expect("root gives files away");
            assert!(error(&path("file")).starts_with("belongs to user 1234"));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
