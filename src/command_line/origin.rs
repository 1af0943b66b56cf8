//! Where a part of a command line comes from.

use crate::xml::Span;

/// The place that made something part of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the XML of a domain.
    Xml(Span),
    /// Bytes of an argument.
    Argument {
        /// Which argument; 0 is the first after the program.
        number: usize,
        /// The bytes: of the text that it is in, where it is in one, and otherwise its own.
        span: Span,
    },
}

impl Origin {
    /// The bytes.
    pub fn span(self) -> Span {
        match self {
            Self::Xml(span) | Self::Argument { span, .. } => span,
        }
    }
}

/// A value that QEMU is told, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> Told<T> {
    /// A value from a place in the XML.
    pub fn in_xml(value: T, span: Span) -> Self {
        Self { value, origin: Origin::Xml(span) }
    }
}
