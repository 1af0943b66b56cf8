//! `iova-preflight watch`.

use anyhow::Result;

use crate::args::WatchArgs;
use crate::outcome::Outcome;

/// Watches until it is asked to end.
#[cfg(feature = "libvirt")]
pub(crate) fn run(args: &WatchArgs) -> Result<Outcome> {
    crate::watch::run(args)
}

/// Runs the program that can.
#[cfg(not(feature = "libvirt"))]
pub(crate) fn run(_: &WatchArgs) -> Result<Outcome> {
    Err(crate::connected::become_connected("watch"))
}
