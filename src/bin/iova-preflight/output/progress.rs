//! The progress of a long run, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line on standard error that is written again and again, and gone at the end.
pub(crate) struct Progress {
    /// When the next line is due; `None` if nobody watches.
    due: Option<Instant>,
    total: usize,
    done: usize,
    stopped: usize,
    shown: bool,
}

/// A run that takes no longer shows nothing.
const FIRST: Duration = Duration::from_millis(500);

/// Between two lines.
const PAUSE: Duration = Duration::from_millis(100);

/// To the first column, and nothing after it.
const ERASE: &[u8] = b"\r\x1b[K";

impl Progress {
    /// For this many inputs.
    pub fn new(total: usize) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let watched = std::io::stderr().is_terminal() && !dumb;
        Self { due: watched.then(|| Instant::now() + FIRST), total, done: 0, stopped: 0, shown: false }
    }

    /// One more input is evaluated; `stopped` if it needs attention.
    pub fn tick(&mut self, stopped: bool) {
        self.done += 1;
        self.stopped += usize::from(stopped);
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now >= due {
            self.due = Some(now + PAUSE);
            self.shown = true;
            let line = format!("{} of {} domains evaluated, {} do not start", self.done, self.total, self.stopped);
            write(&[ERASE, line.as_bytes()].concat());
        }
    }

    /// Makes room for other output.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write(ERASE);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn write(bytes: &[u8]) {
    // A failure to show progress changes nothing.
    let _ = std::io::stderr().write_all(bytes);
}
