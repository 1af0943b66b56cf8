//! The adapters on a host: how they are called, and where each is put.

pub(crate) mod answer;
mod qm;
pub(crate) mod scripts;
mod system_log;
mod vdsm;
