//! What libvirt makes of a domain before QEMU sees it: sizes aligned, defaults filled in, and what it refuses.

mod cpu;
mod memory;

pub use cpu::cpu_options;
pub(crate) use cpu::{LIMIT_SINCE, MAXPHYSADDR_SINCE};
pub use memory::{Memory, memory};

use crate::xml::Span;

/// libvirt refuses the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What libvirt objects to, in one line.
    pub message: String,
    /// Where it stands.
    pub span: Span,
}

fn refuse<T>(span: Span, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), span })
}
