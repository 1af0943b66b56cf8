//! XML with the exact place of everything, as strict as the parser that libvirt uses.

mod document;
pub mod edit;
mod span;
mod wellformed;

pub use document::{Attribute, Document, Element, Limits};
pub use span::{Location, Places, Span};
pub use wellformed::{MAX_BYTES, MAX_DEPTH, MAX_NODES, XmlError};
pub(crate) use wellformed::{attribute_value, attributes};
