//! Evaluations in the forms that other programs read.

#[cfg(feature = "cli")]
pub mod diff;
#[cfg(feature = "cli")]
pub mod explanation;
#[cfg(feature = "cli")]
pub mod host_facts;
#[cfg(feature = "cli")]
pub mod json;
#[cfg(feature = "cli")]
pub mod metrics;
#[cfg(feature = "cli")]
pub mod migration;
#[cfg(feature = "cli")]
pub mod picture;
#[cfg(feature = "cli")]
pub mod running;
#[cfg(feature = "cli")]
pub mod sarif;
#[cfg(feature = "cli")]
pub mod source;

use crate::xml::Location;

/// Why an input could not be evaluated.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Where, if it is a matter of the text.
    pub at: Option<Location>,
    /// What is wrong, in one line.
    pub message: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some(at) => write!(f, "{at}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
