//! What is read: domains from files, folders and standard input, hosts, the policy.

pub(crate) mod evaluator;
pub(crate) mod host;
pub(crate) mod policy;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iova_preflight::io::file::{read_file_limited, read_limited, read_open};
use iova_preflight::process::QemuProcess;
use iova_preflight::xml::MAX_BYTES;
use walkdir::{DirEntry, WalkDir};

use crate::place::open_found;
use host::HostSource;

/// Guests and the hosts they are evaluated for, at least one.
pub(crate) struct Batch {
    pub sources: Vec<HostSource>,
    pub inputs: Vec<Input>,
}

/// A domain XML to be read.
#[derive(Debug)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A file that was named.
    File(PathBuf),
    /// A file that was found in a folder that was named.
    Found {
        /// The file.
        path: PathBuf,
        /// The folder, as it was named.
        folder: Arc<Path>,
    },
    /// A file that is open: how it was named, the folder it was found in if it was, and the file.
    Open {
        /// The file.
        path: PathBuf,
        /// The folder, as it was named.
        folder: Option<Arc<Path>>,
        /// The same, open.
        file: std::fs::File,
    },
    /// A path that leads to no file, and why.
    Unreadable(PathBuf, io::Error),
    /// A guest from libvirt: its name in reports, and its XML.
    #[cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "only libvirt tells of guests"))]
    Live(String, Vec<u8>),
    /// A guest that runs in a libvirt.
    #[cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "only libvirt tells of guests"))]
    Running {
        /// What to call it.
        name: String,
        /// Its XML as it runs.
        xml: Vec<u8>,
        /// Its persistent definition, if it has one.
        definition: Option<Vec<u8>>,
    },
    /// A QEMU that runs on this host.
    Process(QemuProcess),
}

impl Input {
    /// What the paths on the command line mean, in their order; the files of a folder sorted by name.
    pub fn expand(paths: &[PathBuf]) -> Vec<Self> {
        let mut inputs = Vec::new();
        for path in paths {
            if path.as_os_str() != "-" && path.is_dir() {
                let before = inputs.len();
                inputs.extend(folder(path));
                if inputs.len() == before {
                    // A mistyped folder must not look like one whose guests all pass.
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

    /// What one path on the command line means; a folder is none.
    pub fn one(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// The name for people and reports; what is not UTF-8 in it is replaced.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) | Self::Found { path, .. } | Self::Open { path, .. } | Self::Unreadable(path, _) => {
                path.to_string_lossy().into_owned()
            }
            Self::Live(name, _) | Self::Running { name, .. } => name.clone(),
            Self::Process(process) => format!("/proc/{}/cmdline", process.pid),
        }
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Found { path, .. } | Self::Open { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The folder it was found in, if it was not named itself.
    pub fn folder(&self) -> Option<Arc<Path>> {
        match self {
            Self::Found { folder, .. } => Some(folder.clone()),
            Self::Open { folder, .. } => folder.clone(),
            _ => None,
        }
    }

    /// The bytes, one more than [`MAX_BYTES`] at most.
    pub fn read(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Stdin => read_limited(io::stdin().lock(), MAX_BYTES),
            Self::File(path) => read_file_limited(&path, MAX_BYTES),
            Self::Found { path, folder } => read_open(open_found(&folder, &path)?, MAX_BYTES),
            Self::Open { file, .. } => read_open(file, MAX_BYTES),
            Self::Unreadable(_, error) => Err(error),
            Self::Live(_, xml) | Self::Running { xml, .. } => Ok(xml),
            Self::Process(process) => Ok(process.arguments),
        }
    }
}

/// Counts of the files found in folders.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// In the order of the command line.
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    folder: Arc<Path>,
    found: usize,
    /// Those that are libvirt's XML but not a domain.
    passed_over: usize,
}

impl Folders {
    /// One more file of `folder`.
    pub fn found(&mut self, folder: &Arc<Path>) {
        self.of(folder).found += 1;
    }

    /// One of the files that were found is not a domain.
    pub fn pass_over(&mut self, folder: &Arc<Path>) {
        self.of(folder).passed_over += 1;
    }

    /// Adds what another one counted.
    pub fn append(&mut self, other: Self) {
        for Seen { folder, found, passed_over } in other.seen {
            let sum = self.of(&folder);
            sum.found += found;
            sum.passed_over += passed_over;
        }
    }

    fn of(&mut self, folder: &Arc<Path>) -> &mut Seen {
        let index = self.seen.iter().position(|seen| seen.folder == *folder).unwrap_or_else(|| {
            self.seen.push(Seen { folder: folder.clone(), found: 0, passed_over: 0 });
            self.seen.len() - 1
        });
        &mut self.seen[index]
    }

    /// How many files were passed over.
    pub fn passed_over(&self) -> usize {
        self.seen.iter().map(|seen| seen.passed_over).sum()
    }

    /// Remarks about them, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let without = self.seen.iter().filter(|seen| seen.found == seen.passed_over);
        let mut lines: Vec<String> = without.map(|seen| format!("no domain in {}", seen.folder.display())).collect();
        match self.passed_over() {
            0 => {}
            1 => lines.push("passed over 1 XML file of libvirt's that is not a domain".to_owned()),
            more => lines.push(format!("passed over {more} XML files of libvirt's that are not domains")),
        }
        lines
    }
}

fn folder(path: &Path) -> impl Iterator<Item = Input> {
    let folder: Arc<Path> = path.into();
    // Of two paths in one folder only the names differ; to cut them out takes longer than to compare the whole.
    let in_order = |a: &DirEntry, b: &DirEntry| a.path().as_os_str().cmp(b.path().as_os_str());
    // Links are not followed: libvirt's autostart folder links to files that are seen anyway.
    WalkDir::new(path).sort_by(in_order).into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let is_xml = entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "xml");
            is_xml.then(|| Input::Found { path: entry.into_path(), folder: folder.clone() })
        }
        Err(error) => {
            let path = error.path().unwrap_or(&folder).to_owned();
            Some(Input::Unreadable(path, error.into()))
        }
    })
}
