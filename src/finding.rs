//! What a rule has to say about a guest.

use serde::Serialize;

use crate::address::GpaRange;
use crate::xml::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub enum Severity {
    /// Good to know.
    Note,
    /// Starts, but something is latent.
    Warning,
    /// Does not start, or a DMA mapping fails.
    Error,
}

impl Severity {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A place in the XML with a few words on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The words.
    pub text: String,
}

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a line that fits a terminal.
    pub title: String,
    /// Why, and what comes of it.
    pub cause: Option<String>,
    /// The addresses it is about: what two ranges have in common, where they collide.
    pub range: Option<GpaRange>,
    /// The place that decides.
    pub primary: Label,
    /// Other places that have to do with it.
    pub related: Vec<Label>,
}

impl Finding {
    /// A finding at `span`.
    pub fn new(
        rule: &'static str,
        severity: Severity,
        title: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> Self {
        let primary = Label { span, text: label.into() };
        Self { rule, severity, title: title.into(), cause: None, range: None, primary, related: Vec::new() }
    }

    /// What is wrong and why, in one line.
    pub fn message(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.title),
            None => self.title.clone(),
        }
    }

    /// The same, with the reason.
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same, about `range`.
    pub fn about(mut self, range: GpaRange) -> Self {
        self.range = Some(range);
        self
    }

    /// The same, with another place.
    pub fn with_label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push(Label { span, text: text.into() });
        self
    }
}
