//! The libvirt hook on a host: where it goes, who owns it, which daemons run it.

pub(crate) mod chain;
pub(crate) mod daemons;
pub(crate) mod owners;
pub(crate) mod places;
