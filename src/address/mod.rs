//! Ranges of guest-physical addresses.

mod range;

pub use range::GpaRange;
