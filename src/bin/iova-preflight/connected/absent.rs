//! How a program without libvirt handles commands that need a connection.

use std::time::Duration;

use anyhow::Result;

use crate::args::CommonArgs;
use crate::input::host::HostSource;
use crate::input::{Batches, Inputs};

/// Where the package iova-preflight-libvirt has its program.
const CONNECTED: &str = "/usr/libexec/iova-preflight/iova-preflight";

/// Becomes the program that can talk to libvirt, with the same arguments. If that is missing, gives the error that
/// says so of `what`.
pub(crate) fn become_connected(what: &str) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "iova-preflight".into());
    let error = std::process::Command::new(CONNECTED).arg0(name).args(arguments).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        anyhow::anyhow!(
            "{what} needs libvirt: install the package iova-preflight-libvirt, or build with `--features libvirt`"
        )
    } else {
        anyhow::Error::from(error).context(CONNECTED)
    }
}

/// Never comes back with guests.
pub(crate) fn batches(_: &[String], _: Option<&str>, _: Duration, _: &CommonArgs) -> Result<Batches> {
    Err(become_connected("--connect"))
}

/// Never comes back with guests.
pub(crate) fn running(_: &[String], _: Option<&str>, _: Duration, _: &HostSource, _: bool) -> Result<Inputs> {
    Err(become_connected("--connect"))
}
