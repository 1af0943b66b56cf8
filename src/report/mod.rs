//! Evaluations in the forms that other programs read.

#[cfg(feature = "cli")]
pub mod diff;
#[cfg(feature = "cli")]
pub mod host;
#[cfg(feature = "cli")]
pub mod json;
#[cfg(feature = "cli")]
pub mod picture;
