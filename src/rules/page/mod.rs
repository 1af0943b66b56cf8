//! The page of a rule: what it means, where it comes from, and what to do. `iova-preflight explain` prints it, and
//! `docs/rules` holds it.

pub(crate) mod shared;
mod topic;

pub use crate::finding::Severity;
pub(crate) use Block::{Output, Shell, Text, Xml};
pub use topic::Topic;

/// The page of a rule.
#[derive(Debug)]
pub struct Page {
    /// How bad its findings can be, the worst first.
    pub severities: &'static [Severity],
    /// What a finding says.
    pub meaning: &'static [Block],
    /// Why it is so.
    pub cause: &'static [Block],
    /// What differs between versions, and since when.
    pub history: &'static [Block],
    /// What is printed by the programs that refuse, warn or abort.
    pub errors: &'static [ErrorText],
    /// What to do about it.
    pub fix: &'static [Block],
    /// How to verify it by hand.
    pub verify: &'static [Block],
    /// What docs/background.md says about it, for this page and others.
    pub background: &'static [Topic],
}

/// A piece of a page.
#[derive(Debug, Clone, Copy)]
pub enum Block {
    /// A paragraph; what is between backquotes is code.
    Text(&'static str),
    /// Commands for a shell, one a line.
    Shell(&'static str),
    /// A part of a domain.
    Xml(&'static str),
    /// What a program prints or a file holds.
    Output(&'static str),
}

/// What a program prints.
#[derive(Debug, Clone, Copy)]
pub struct ErrorText {
    /// Who prints it.
    pub by: Program,
    /// When.
    pub when: &'static str,
    /// The text as it is printed, with numbers and names of an example.
    pub text: &'static str,
}

impl ErrorText {
    /// What QEMU prints.
    pub(crate) const fn qemu(when: &'static str, text: &'static str) -> Self {
        Self { by: Program::Qemu, when, text }
    }

    /// What libvirt prints.
    pub(crate) const fn libvirt(when: &'static str, text: &'static str) -> Self {
        Self { by: Program::Libvirt, when, text }
    }
}

/// Who prints an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// QEMU; the text is in the guest's log and in what `virsh start` prints.
    Qemu,
    /// libvirt.
    Libvirt,
}

impl Program {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Libvirt => "libvirt",
        }
    }
}

/// A heading and what is below it.
#[derive(Debug)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// What is below.
    pub content: Content,
}

/// What is below a heading.
#[derive(Debug)]
pub enum Content {
    /// Text and code.
    Blocks(&'static [Block]),
    /// What programs print.
    Errors(&'static [ErrorText]),
    /// Sections of docs/background.md.
    Background(&'static [Topic]),
}

impl Page {
    /// The sections that are not empty, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section> + '_ {
        let blocks = |title, blocks: &'static [Block]| {
            (!blocks.is_empty()).then_some(Section { title, content: Content::Blocks(blocks) })
        };
        let errors = (!self.errors.is_empty())
            .then_some(Section { title: "What is printed", content: Content::Errors(self.errors) });
        let background = (!self.background.is_empty())
            .then_some(Section { title: "Background", content: Content::Background(self.background) });
        [
            blocks("What it means", self.meaning),
            blocks("Cause", self.cause),
            blocks("History", self.history),
            errors,
            blocks("What to do", self.fix),
            blocks("How to verify", self.verify),
            background,
        ]
        .into_iter()
        .flatten()
    }

    /// The severities in words: `error, warning`.
    pub fn severity_words(&self) -> String {
        let names: Vec<&str> = self.severities.iter().map(|severity| severity.name()).collect();
        names.join(", ")
    }
}
