//! The pages of the rules as Markdown.

mod markdown;

pub use markdown::{help, index, markdown};
