//! Tells, before QEMU starts, whether a guest with PCI passthrough collides with what the host's IOMMU reserves.
//!
//! AMD hosts reserve the range 0xfd_0000_0000 to 0xff_ffff_ffff, HyperTransport, just below 1 TiB. This library reads a
//! libvirt domain, works out the guest-physical memory map that QEMU will build, and compares the two:
//!
//! [`xml`] → [`domain`] → [`libvirt`] → [`command_line`] → [`qemu`] → [`guest`] → [`rules`] → [`evaluate`] → [`fix`] → [`report`]
//!
//! All of it is pure: text in, values out. What touches the machine is in [`io`].
//!
//! Arithmetic is checked: a size or an address that passes 64 bits is a finding and not a wrong number.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod address;
pub mod command_line;
pub mod decision;
pub mod domain;
pub mod evaluate;
#[cfg(feature = "cli")]
pub mod explain;
pub mod finding;
pub mod fix;
pub mod guest;
pub mod host;
pub mod io;
pub mod libvirt;
pub mod machine;
pub mod policy;
pub mod qemu;
pub mod report;
pub mod rules;
pub mod text;
pub mod verdict;
pub mod version;
pub mod xml;
