//! What is read: domains from files, folders and standard input, hosts, the policy.

pub(crate) mod evaluator;
pub(crate) mod host;
mod list;
pub(crate) mod policy;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iova_preflight::io::file::{read_expected, read_file_limited, read_limited, read_open};
use iova_preflight::process::QemuProcess;
use iova_preflight::xml::MAX_BYTES;

use crate::place::Searched;
use host::HostSource;
pub(crate) use list::Inputs;

/// Guests and the hosts they are evaluated for; no host if no guest is known.
pub(crate) struct Batch {
    pub sources: Vec<HostSource>,
    pub inputs: Inputs,
}

/// All that is evaluated.
pub(crate) struct Batches {
    /// The names of the hosts that guests may be evaluated for, each once.
    pub labels: Vec<String>,
    /// Whether a guest may be evaluated for more than one of them.
    pub has_several_each: bool,
    /// In order. The next one may take a while to arrive.
    pub parts: Box<dyn Iterator<Item = Batch>>,
}

impl Batches {
    /// Guests that are all evaluated for the same hosts.
    pub fn one(sources: Vec<HostSource>, inputs: Inputs) -> Self {
        let labels: Vec<String> = sources.iter().map(|source| source.label.clone()).collect();
        Self {
            has_several_each: labels.len() > 1,
            labels: distinct(labels),
            parts: Box::new(std::iter::once(Batch { sources, inputs })),
        }
    }

    /// The same, with only the hosts that guests are really evaluated for. With several profiles, this waits for the answer
    /// of every libvirt.
    pub fn settled(self) -> Self {
        if !self.has_several_each {
            return self;
        }
        let parts: Vec<Batch> = self.parts.collect();
        let labels = parts.iter().flat_map(|batch| &batch.sources).map(|source| source.label.clone());
        Self {
            labels: distinct(labels),
            has_several_each: parts.iter().any(|batch| batch.sources.len() > 1),
            parts: Box::new(parts.into_iter()),
        }
    }
}

/// Each of them once, in their order.
pub(crate) fn distinct(labels: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut distinct = Vec::new();
    for label in labels {
        if !distinct.contains(&label) {
            distinct.push(label);
        }
    }
    distinct
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
        /// The folder that was named.
        folder: Arc<Searched>,
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
    Process(Box<QemuProcess>),
}

impl Input {
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
            Self::Found { folder, .. } => Some(folder.path().clone()),
            Self::Open { folder, .. } => folder.clone(),
            _ => None,
        }
    }

    /// The bytes, one more than [`MAX_BYTES`] at most.
    pub fn read(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Stdin => read_limited(io::stdin().lock(), MAX_BYTES),
            Self::File(path) => read_file_limited(&path, MAX_BYTES),
            Self::Found { path, folder } => {
                let (file, bytes) = folder.open(&path)?;
                read_expected(file, bytes, MAX_BYTES)
            }
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
            1 => lines.push("skipped 1 libvirt XML file that is not a domain".to_owned()),
            more => lines.push(format!("skipped {more} libvirt XML files that are not domains")),
        }
        lines
    }
}
