//! The inputs that are still to be read, in little memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use walkdir::WalkDir;

use super::Input;
use crate::place::Searched;

/// Inputs in their order. Files found in folders take little more memory than their paths.
#[derive(Default)]
pub(crate) struct Inputs {
    parts: VecDeque<Part>,
    left: usize,
}

enum Part {
    One(Input),
    Folder(FoundFiles),
}

impl Inputs {
    /// What the paths on the command line mean, in their order; the files of a folder sorted by name.
    pub fn expand(paths: &[PathBuf]) -> Self {
        let mut inputs = Self::default();
        let mut stdin_seen = false;
        for path in paths {
            if path.as_os_str() != "-" && path.is_dir() {
                let found = FoundFiles::search(path);
                if found.order.len() > 0 {
                    inputs.push_part(Part::Folder(found));
                } else {
                    // A mistyped folder must not look like one whose guests all pass.
                    let error = io::Error::new(io::ErrorKind::NotFound, "no *.xml in this folder");
                    inputs.push(Input::Unreadable(path.clone(), error));
                }
            } else {
                inputs.push(match Input::one(path) {
                    Input::Stdin if stdin_seen => {
                        let error = io::Error::other("standard input can only be read once");
                        Input::Unreadable(path.clone(), error)
                    }
                    input => {
                        stdin_seen |= matches!(input, Input::Stdin);
                        input
                    }
                });
            }
        }
        inputs
    }

    /// The same inputs in parts. One that may block its reader, as standard input or a pipe does, is alone in its part:
    /// waiting for a thread that reads it may never end.
    pub fn apart(self) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut alone = true;
        for part in self.parts {
            let waits = match &part {
                Part::One(Input::Stdin) => true,
                Part::One(Input::File(path)) => !path.is_file(),
                _ => false,
            };
            if alone || waits {
                parts.push(Self::default());
            }
            if let Some(last) = parts.last_mut() {
                last.push_part(part);
            }
            alone = waits;
        }
        parts
    }

    fn push(&mut self, input: Input) {
        self.push_part(Part::One(input));
    }

    fn push_part(&mut self, part: Part) {
        self.left += match &part {
            Part::One(_) => 1,
            Part::Folder(found) => found.order.len(),
        };
        self.parts.push_back(part);
    }
}

impl FromIterator<Input> for Inputs {
    fn from_iter<T: IntoIterator<Item = Input>>(inputs: T) -> Self {
        let mut list = Self::default();
        inputs.into_iter().for_each(|input| list.push(input));
        list
    }
}

impl Iterator for Inputs {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        loop {
            let input = match self.parts.front_mut()? {
                Part::Folder(found) => found.next(),
                Part::One(_) => None,
            };
            let input = match input {
                Some(input) => input,
                None => match self.parts.pop_front()? {
                    Part::One(input) => input,
                    Part::Folder(_) => continue,
                },
            };
            self.left -= 1;
            return Some(input);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Inputs {}

/// What was found in a folder.
struct FoundFiles {
    folder: Arc<Searched>,
    /// The paths, each with a NUL at its end, as they were found.
    paths: Vec<u8>,
    /// Where each remaining path begins, sorted by path.
    order: vec::IntoIter<usize>,
    /// Why some of them could not be read, by where the path begins.
    errors: BTreeMap<usize, io::Error>,
}

impl FoundFiles {
    fn search(folder: &Path) -> Self {
        let (mut paths, mut order, mut errors) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut add = |path: &Path| {
            let begin = paths.len();
            paths.extend_from_slice(path.as_os_str().as_bytes());
            paths.push(0);
            order.push(begin);
            begin
        };
        // Links are not followed: libvirt's autostart folder links to files that are seen anyway. Not sorted by
        // walkdir, which keeps all entries of a folder for that, several times the size of their paths.
        for entry in WalkDir::new(folder) {
            match entry {
                Ok(entry) => {
                    if entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "xml") {
                        add(entry.path());
                    }
                }
                Err(error) => {
                    let begin = add(error.path().unwrap_or(folder));
                    // Its own text repeats the path, which is shown before it. Links, which may be a loop, are not followed.
                    let error = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
                    errors.insert(begin, error);
                }
            }
        }
        order.sort_by(|&a, &b| as_walked(&paths[a..], &paths[b..]));
        Self { folder: Arc::new(Searched::new(folder)), paths, order: order.into_iter(), errors }
    }

    fn next(&mut self) -> Option<Input> {
        let begin = self.order.next()?;
        let path = Path::new(OsStr::from_bytes(path_at(&self.paths, begin))).to_owned();
        Some(match self.errors.remove(&begin) {
            Some(error) => Input::Unreadable(path, error),
            None => Input::Found { path, folder: self.folder.clone() },
        })
    }
}

/// The path that begins there.
fn path_at(paths: &[u8], begin: usize) -> &[u8] {
    let path = paths.get(begin..).and_then(|rest| CStr::from_bytes_until_nul(rest).ok());
    path.map_or(&[], CStr::to_bytes)
}

/// The order of a walk through folders that takes the entries of each by name: the files of a folder come where the folder
/// does among its neighbours. Each path ends with its first NUL.
fn as_walked(a: &[u8], b: &[u8]) -> Ordering {
    // No name has a NUL, and what ends comes before what goes on.
    let rank = |byte: u8| if byte == b'/' { 1 } else { u16::from(byte) << 1 };
    match a.iter().zip(b).find(|&(&a, &b)| a != b || a == 0) {
        Some((&a, &b)) => rank(a).cmp(&rank(b)),
        None => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_folder_comes_where_the_folder_does() {
        let mut paths = [c"d/b.xml", c"d/a.xml", c"d/a/z.xml", c"d/a-b.xml", c"d/a/b/c.xml", c"d/a", c"d/a\x01"];
        paths.sort_by(|a, b| as_walked(a.to_bytes_with_nul(), b.to_bytes_with_nul()));
        let sorted = [c"d/a", c"d/a/b/c.xml", c"d/a/z.xml", c"d/a\x01", c"d/a-b.xml", c"d/a.xml", c"d/b.xml"];
        assert_eq!(paths, sorted);
    }

    #[test]
    fn an_input_that_may_never_end_is_alone() {
        let inputs: Inputs = ["Cargo.toml", "/dev/null", "-", "Cargo.toml", "Cargo.lock"]
            .into_iter()
            .map(|path| Input::one(Path::new(path)))
            .collect();
        let parts: Vec<Vec<String>> =
            inputs.apart().into_iter().map(|part| part.map(|input| input.name()).collect()).collect();
        assert_eq!(parts, [vec!["Cargo.toml"], vec!["/dev/null"], vec!["-"], vec!["Cargo.toml", "Cargo.lock"]]);
    }
}
