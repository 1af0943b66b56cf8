//! The file with metrics that the node exporter reads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use iova_preflight::report::metrics::{Tally, WatchMetrics};

use super::agenda::Agenda;
use crate::place::Folder;

/// How old the file gets while guests are evaluated one after the other. Prometheus reads it once or several times a
/// minute.
const AGE: Duration = Duration::from_secs(15);

/// Counts what the agenda does not, and writes all metrics to the file, if one is configured.
#[derive(Debug)]
pub(super) struct Metrics<'a> {
    file: Option<&'a Path>,
    uri: &'a str,
    is_connected: bool,
    redefinitions: u64,
    evaluated: Option<SystemTime>,
    /// When the file was written last; at first, when there began to be something to write.
    written: Instant,
    complained: String,
}

impl<'a> Metrics<'a> {
    /// Metrics of the libvirt at `uri`, before the first event.
    pub fn new(file: Option<&'a Path>, uri: &'a str) -> Self {
        let (written, complained) = (Instant::now(), String::new());
        Self { file, uri, is_connected: false, redefinitions: 0, evaluated: None, written, complained }
    }

    /// Whether libvirt answers.
    pub fn connected(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
    }

    /// A guest was evaluated, or there is none.
    pub fn evaluated(&mut self) {
        self.evaluated = Some(SystemTime::now());
    }

    /// A guest was redefined.
    pub fn redefined(&mut self) {
        self.redefinitions = self.redefinitions.saturating_add(1);
    }

    /// Whether the file is so old that it is time to write it, whatever else there is to do.
    pub fn is_due(&self) -> bool {
        self.file.is_some() && self.written.elapsed() >= AGE
    }

    /// Writes the file. Returns the error, unless it was the last one reported.
    pub fn write(&mut self, agenda: &Agenda) -> Option<String> {
        let file = self.file?;
        self.written = Instant::now();
        let error = self.try_to_write(file, &agenda.tally()).err().map(|error| format!("metrics: {error:#}"));
        let line = error.clone().filter(|error| *error != self.complained);
        self.complained = error.unwrap_or_default();
        line
    }

    fn try_to_write(&self, file: &Path, tally: &Tally) -> Result<()> {
        let Self { uri, is_connected, redefinitions, evaluated, .. } = *self;
        // A clock before 1970 was not set.
        let last_evaluation = evaluated.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let text = WatchMetrics { uri, is_connected, tally, redefinitions, last_evaluation }.to_text();
        let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let name = file.file_name().unwrap_or_default();
        let write = || Folder::open(&folder)?.write(name, text.as_bytes());
        write().with_context(|| file.display().to_string())
    }
}
