//! Reading files that may be anything.

use std::fs::File;
use std::io::{self, Read};
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

/// Reads at most `limit` bytes and one more of the file at `path`.
///
/// # Errors
/// Those of opening and reading.
pub fn read_file_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Without a hint the buffer would grow, and be read into, seven times for a common domain.
    let expected = file.metadata().map_or(0, |metadata| metadata.len()).min(limit as u64);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a small file of the kernel's, without white space around it; `None` where it cannot be read.
pub(super) fn read_word(path: &Path) -> Option<String> {
    let bytes = read_file_limited(path, 64 * 1024).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}
