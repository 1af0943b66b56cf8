//! `iova-preflight watch`: looks at every guest when it is defined.

#[cfg(feature = "libvirt")]
mod agenda;
#[cfg(feature = "libvirt")]
mod backoff;
#[cfg(feature = "libvirt")]
mod journal;
#[cfg(feature = "libvirt")]
mod manager;
#[cfg(feature = "libvirt")]
mod service;

#[cfg(feature = "libvirt")]
pub(crate) use service::run;

/// Leaves it to the program that can.
#[cfg(not(feature = "libvirt"))]
pub(crate) fn run(_: &crate::args::WatchArgs) -> anyhow::Result<crate::Outcome> {
    Err(crate::connected::become_connected("watch"))
}
