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
    /// For no inputs yet.
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let watched = std::io::stderr().is_terminal() && !dumb;
        Self { due: watched.then(|| Instant::now() + FIRST), total: 0, done: 0, stopped: 0, shown: false }
    }

    /// For this many inputs more.
    pub fn expect(&mut self, more: usize) {
        self.total += more;
    }

    /// One more input is evaluated; `stopped` if it needs attention.
    pub fn tick(&mut self, stopped: bool) {
        self.done += 1;
        self.stopped += usize::from(stopped);
        let (done, total, stopped) = (self.done, self.total, self.stopped);
        self.say(|| format!("{done} of {total} domains evaluated, {stopped} do not start"));
    }

    /// Shows `line`, if one is due.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now >= due {
            self.due = Some(now + PAUSE);
            self.shown = true;
            write(&[ERASE, line().as_bytes()].concat());
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
