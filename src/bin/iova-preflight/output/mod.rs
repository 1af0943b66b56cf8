//! What the commands print, and where.

pub(crate) mod fix;
pub(crate) mod grades;
pub(crate) mod human;
pub(crate) mod progress;
pub(crate) mod terminal;
