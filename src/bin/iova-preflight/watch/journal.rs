//! The service's messages on standard error: to the journal with a priority, to a terminal without.

use std::os::unix::fs::MetadataExt;

use crate::stderr;

/// Priorities of sd-daemon(3), those of syslog(3).
#[derive(Debug, Clone, Copy)]
pub(super) enum Priority {
    /// Something failed.
    Error = 3,
    /// A guest that would not start.
    Warning = 4,
    /// A guest that was redefined.
    Notice = 5,
    /// Normal operation.
    Info = 6,
}

/// Where standard error leads.
#[derive(Debug)]
pub(super) struct Journal {
    is_journal: bool,
}

impl Journal {
    /// The journal, if that is where standard error leads.
    pub fn new() -> Self {
        Self { is_journal: std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream)) }
    }

    /// Says one line.
    pub fn line(&self, priority: Priority, text: &str) {
        if self.is_journal {
            stderr::line(&format!("<{}>{text}", priority as u8));
        } else {
            stderr::line(text);
        }
    }
}

/// Whether the device and inode in `JOURNAL_STREAM` (systemd.exec(5)) are those of standard error.
fn is_stderr(stream: &str) -> bool {
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
