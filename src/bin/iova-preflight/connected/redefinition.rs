//! Rewriting the definition of a guest where libvirt keeps it, as `fix --connect` and `watch` do it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use iova_preflight::domain;
use iova_preflight::policy::Policy;
use iova_preflight::text::{shell_word, size};
use iova_preflight::verdict::evaluate;
use iova_preflight::xml::Document;
use rustix::fs::Mode;

use crate::connected::redefine::{Definitions, Failure, redefine};
use crate::input::host::HostSource;
use crate::place::Folder;

/// A guest that was redefined.
pub(crate) struct Redefined {
    /// What libvirt made of the new definition.
    pub now: String,
    /// The file with the old one.
    pub backup: PathBuf,
}

/// A guest that was not redefined.
pub(crate) struct NotRedefined {
    /// Why, and in which state its definition is.
    pub failure: Failure,
    /// The file with the old definition, unless that is certainly in place still.
    backup: Option<PathBuf>,
}

impl NotRedefined {
    /// What happened, and where the old definition is; if it is not known which one is in place, also how to find out
    /// and how to restore it. `uri` and `name` are those of the guest.
    pub fn told(self, uri: &str, name: &str) -> String {
        let leaves_open = self.failure.leaves_open();
        let mut text = format!("{:#}", anyhow::Error::from(self.failure));
        let Some(backup) = self.backup else { return text };
        let file = backup.display().to_string();
        text += &format!("; the previous definition is saved in {file}");
        if leaves_open {
            let (uri, name, file) = (shell_word(uri), shell_word(name), shell_word(&file));
            text += &format!(
                ". `virsh -c {uri} dumpxml --inactive {name}` shows which definition is in place; `virsh -c {uri} define \
                 {file}` restores the previous one"
            );
        }
        text
    }
}

impl From<Failure> for NotRedefined {
    fn from(failure: Failure) -> Self {
        Self { failure, backup: None }
    }
}

/// A definition that can be redefined.
pub(crate) trait Redefinable: Definitions {
    /// Why a rewrite would lose something, if it would: states saved with the old definition cannot be restored.
    fn obstacle(&mut self) -> Result<Option<&'static str>>;
    /// The guest's UUID.
    fn uuid(&mut self) -> Result<String>;
    /// The guest's name.
    fn name(&mut self) -> Result<String>;
}

/// How definitions are rewritten.
pub(crate) struct Redefinition<'a> {
    /// The host the guests run on.
    pub source: &'a HostSource,
    /// What is allowed.
    pub policy: &'a Policy,
    /// The folder for replaced definitions, if not the usual one.
    pub backup: Option<&'a Path>,
    /// Whether saved state may be lost.
    pub force: bool,
    /// How much may be kept, if that is limited.
    pub room: Option<Room>,
}

/// The limits of the folder for replaced definitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Room {
    /// Why a file of `len` bytes no longer fits; `None` if it fits.
    fn lacks(self, path: &Path, folder: &Folder, len: usize) -> Result<Option<String>> {
        let (files, bytes) = folder.holds()?;
        let fits = files < self.files && bytes.saturating_add(len as u64) <= self.bytes;
        Ok((!fits).then(|| {
            let (folder, most) = (path.display(), size(self.bytes));
            format!(
                "{folder} is full: it holds at most {} previous definitions, {most} in all; remove those you no \
                 longer need",
                self.files
            )
        }))
    }
}

impl Redefinition<'_> {
    /// Replaces `old`, which was read from `definition`, by `new`.
    ///
    /// # Errors
    /// Why not, and in which state the definition is.
    pub fn make(&self, definition: &mut impl Redefinable, old: &str, new: &str) -> Result<Redefined, NotRedefined> {
        let obstacle = definition.obstacle().map_err(Failure::Unreadable)?;
        if let Some(obstacle) = obstacle.filter(|_| !self.force) {
            return Err(Failure::Obstacle(obstacle).into());
        }
        let (path, folder) = self.folder().map_err(Failure::NotKept)?;
        let lacks =
            self.room.map(|room| room.lacks(&path, &folder, old.len())).transpose().map_err(Failure::NotKept)?;
        if let Some(why) = lacks.flatten() {
            return Err(Failure::Full(why).into());
        }
        let backup = back_up(&path, &folder, definition, old).map_err(Failure::NotKept)?;
        match redefine(definition, old, new, |now| self.accepted(now)) {
            Ok(now) => Ok(Redefined { now, backup: path.join(backup) }),
            Err(failure) => {
                if failure.wrote_nothing() {
                    // The definition it holds is still in place. If the file stays, it does no harm.
                    let _ = folder.remove(&backup);
                    return Err(failure.into());
                }
                Err(NotRedefined { failure, backup: Some(path.join(backup)) })
            }
        }
    }

    /// The folder for replaced definitions, made if it is missing.
    fn folder(&self) -> Result<(PathBuf, Folder)> {
        let path = self.backup.map_or_else(default_folder, |folder| Ok(folder.to_owned()))?;
        let folder = Folder::made(&path, Mode::RWXU).with_context(|| path.display().to_string())?;
        Ok((path, folder))
    }

    /// Whether a guest may start with this definition.
    fn accepted(&self, xml: &str) -> Result<()> {
        let document = Document::parse(xml.as_bytes()).map_err(|error| anyhow!("{error}"))?;
        let domain = domain::read(&document)?;
        let host = self.source.host_of(&domain);
        let evaluation = evaluate(&domain, &host, self.policy);
        let finding = evaluation.findings.iter().find(|_| evaluation.verdict.stops());
        finding.map_or(Ok(()), |finding| Err(anyhow!("{}", finding.title)))
    }
}

/// Keeps a definition in a file of its own, which is never overwritten and which only its owner can read: it may
/// hold passwords.
fn back_up(path: &Path, folder: &Folder, definition: &mut impl Redefinable, xml: &str) -> Result<OsString> {
    let (name, uuid) = (definition.name()?, definition.uuid()?);
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = name.chars().take(100).map(plain).collect();
    let prefix = format!("{}-{uuid}-", name.trim_start_matches('.'));
    folder.keep(&prefix, ".xml", xml.as_bytes()).with_context(|| path.display().to_string())
}

fn default_folder() -> Result<PathBuf> {
    // The owner of its folder in `/proc` is the user a process runs as.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?) == 0;
    if root {
        return Ok(PathBuf::from("/var/lib/iova-preflight/backup"));
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state
        .filter(|path| path.is_absolute())
        .or_else(home)
        .context("neither XDG_STATE_HOME nor HOME is set; use --backup to say where to save the previous definition")?;
    Ok(state.join("iova-preflight/backup"))
}
