//! XML with the exact place of everything, as strict as the parser that libvirt uses.
#![allow(clippy::arithmetic_side_effects, reason = "offsets into a text that is in memory")]

mod document;
pub mod edit;
mod span;
mod wellformed;

pub use document::{Attribute, Document, Element, Limits};
pub use span::{Location, Places, Span};
pub use wellformed::{MAX_BYTES, MAX_DEPTH, MAX_NODES, XmlError};
pub(crate) use wellformed::{attribute_value, attributes};
