//! Checks of this host, a line each, in the manner of virt-host-validate.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::text::printable;

/// How one check ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grade {
    Pass,
    Note,
    Fail,
}

/// Prints checks and remembers whether one failed.
pub(crate) struct Checks<'w, W: Write> {
    out: &'w mut W,
    pub failed: bool,
}

impl<'w, W: Write> Checks<'w, W> {
    /// None yet.
    pub fn new(out: &'w mut W) -> Self {
        Self { out, failed: false }
    }

    /// Prints one.
    pub fn line(&mut self, mark: Grade, text: &str) -> Result<()> {
        let (word, style): (_, Style) = match mark {
            Grade::Pass => ("PASS", AnsiColor::Green.on_default()),
            Grade::Note => ("NOTE", AnsiColor::Yellow.on_default()),
            Grade::Fail => ("FAIL", AnsiColor::Red.on_default()),
        };
        self.failed |= mark == Grade::Fail;
        writeln!(self.out, "{style}{word}{style:#} {}", printable(text))?;
        Ok(())
    }
}
