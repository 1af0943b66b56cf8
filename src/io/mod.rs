//! Where the library touches the machine: sysfs, procfs, libvirt's capability cache and networks, guest
//! firmware, the policy, and files of limited size.
#![allow(clippy::arithmetic_side_effects, reason = "lengths of files with a limit, and counts of them")]

pub mod capability_cache;
pub mod detect;
pub mod file;
#[cfg(feature = "cli")]
pub mod firmware;
mod iommu_width;
pub mod networks;
#[cfg(feature = "cli")]
pub mod pci;
pub mod policy;
#[cfg(feature = "cli")]
pub mod processes;
pub mod trust;
