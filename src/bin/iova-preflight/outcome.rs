//! How a run ends.

use std::process::ExitCode;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Every guest may start, or the text was recognised.
    Clean,
    /// At least one guest is stopped, or the text was not recognised.
    Stopped,
    /// At least one input could not be evaluated.
    Failed,
}

impl Outcome {
    /// The exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Stopped => 1,
            Self::Failed => 2,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        outcome.code().into()
    }
}

/// Ends the process as one ends whose standard output nobody reads any more, as in `| head`: by SIGPIPE. No exit status
/// would be true, because neither is every guest evaluated, nor is it an error.
#[allow(unsafe_code)]
pub(crate) fn unread() -> ExitCode {
    // The standard library ignores the signal, so that writing fails instead.
    // SAFETY: nothing depends on how this process handles the signal.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
    // Whoever started this blocked the signal; this is what a shell makes of it.
    ExitCode::from(128 + libc::SIGPIPE.unsigned_abs() as u8)
}
