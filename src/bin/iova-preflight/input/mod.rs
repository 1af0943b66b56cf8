//! What is read: domains from files, folders and standard input, hosts, the policy.

pub(crate) mod evaluator;
pub(crate) mod host;
pub(crate) mod policy;

use std::io;
use std::path::{Path, PathBuf};

use iova_preflight::io::file::{read_file_limited, read_limited};
use iova_preflight::xml::MAX_BYTES;
use walkdir::WalkDir;

use host::HostSource;

/// Guests and the host they are evaluated for.
pub(crate) struct Batch {
    pub source: HostSource,
    pub inputs: Vec<Input>,
}

/// A domain XML to be read.
#[derive(Debug)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// A path that leads to no file, and why.
    Unreadable(PathBuf, io::Error),
    /// A guest that libvirt told of: what to call it, and its XML.
    #[cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "only libvirt tells of guests"))]
    Live(String, Vec<u8>),
}

impl Input {
    /// What the paths on the command line stand for, in their order; the files of a folder sorted by name.
    pub fn expand(paths: &[PathBuf]) -> Vec<Self> {
        let mut inputs = Vec::new();
        for path in paths {
            if path.as_os_str() != "-" && path.is_dir() {
                let before = inputs.len();
                inputs.extend(folder(path));
                if inputs.len() == before {
                    // A mistyped folder must not look like one whose guests are all well.
                    let error = io::Error::new(io::ErrorKind::NotFound, "no *.xml in this folder");
                    inputs.push(Self::Unreadable(path.clone(), error));
                }
            } else {
                let read = inputs.iter().any(|input| matches!(input, Self::Stdin));
                inputs.push(match Self::one(path) {
                    Self::Stdin if read => {
                        let error = io::Error::other("standard input can be read only once");
                        Self::Unreadable(path.clone(), error)
                    }
                    input => input,
                });
            }
        }
        inputs
    }

    /// What one path on the command line stands for; a folder is none.
    pub fn one(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// The name for people and reports; what is not UTF-8 in it is replaced.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) | Self::Unreadable(path, _) => path.to_string_lossy().into_owned(),
            Self::Live(name, _) => name.clone(),
        }
    }

    /// The bytes, one more than [`MAX_BYTES`] at most.
    pub fn read(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Stdin => read_limited(io::stdin().lock(), MAX_BYTES),
            Self::File(path) => read_file_limited(&path, MAX_BYTES),
            Self::Unreadable(_, error) => Err(error),
            Self::Live(_, xml) => Ok(xml),
        }
    }
}

fn folder(path: &Path) -> impl Iterator<Item = Input> {
    // Links are not followed: libvirt's autostart folder links to files that are seen anyway.
    WalkDir::new(path).sort_by_file_name().into_iter().filter_map(|entry| match entry {
        Ok(entry) => {
            let is_xml = entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "xml");
            is_xml.then(|| Input::File(entry.into_path()))
        }
        Err(error) => {
            let path = error.path().unwrap_or(path).to_owned();
            Some(Input::Unreadable(path, error.into()))
        }
    })
}
