//! Messages of QEMU, libvirt and the kernel: which are known, what their numbers say, and what causes them.

pub mod cause;
pub mod clue;
mod printed;
mod search;
mod sighting;
pub mod table;

pub use printed::{Printed, from_pages, quoted_line};
pub use sighting::{LogReader, Sighting, from_fragment};

/// The causes of a text, the most telling first; `None` if no message is known.
pub fn sample_cause(text: &str) -> Option<cause::Cause> {
    let mut reader = LogReader::default();
    reader.read(text.as_bytes());
    reader.finish().0.first().map(|sighting| sighting.cause)
}
