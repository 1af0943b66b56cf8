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

/// Says what is missing.
#[cfg(not(feature = "libvirt"))]
pub(crate) fn run(_: &crate::args::WatchArgs) -> anyhow::Result<crate::Outcome> {
    anyhow::bail!("watch {}", crate::connect::MISSING)
}
