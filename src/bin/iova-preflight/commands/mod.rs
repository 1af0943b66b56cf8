//! One module per command.

pub(crate) mod adapter;
pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod fix;
pub(crate) mod hook;
pub(crate) mod host;
pub(crate) mod map;
pub(crate) mod packages;
pub(crate) mod redefine;
pub(crate) mod watch;
