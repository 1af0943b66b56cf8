//! Guests of a libvirt, and their redefinition. Without the feature `libvirt`, they run the program that has it.

#[cfg(not(feature = "libvirt"))]
mod absent;
#[cfg(feature = "libvirt")]
mod guests;
#[cfg(feature = "libvirt")]
pub(crate) mod live;
#[cfg(feature = "libvirt")]
pub(crate) mod patient;
#[cfg(feature = "libvirt")]
pub(crate) mod redefine;
#[cfg(feature = "libvirt")]
pub(crate) mod redefinition;

#[cfg(not(feature = "libvirt"))]
pub(crate) use absent::{batches, become_connected, running};
#[cfg(feature = "libvirt")]
pub(crate) use guests::{batches, host_of, running};
