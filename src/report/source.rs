//! What a guest was read from.

use crate::argv::{Call, Form};
use crate::command_line::Launch;
use crate::domain::Domain;
use crate::fix::Fix;
use crate::fix::rewrite::{call_edits, edits};
use crate::guest::Subject;
use crate::report::diff::unified_diff;
use crate::xml::edit::{self, Edit, EditError};
use crate::xml::{Document, Location, Span};

/// What a guest was read from, as text and as what the text says.
#[derive(Debug, Clone, Copy)]
pub enum GuestSource<'a> {
    /// The XML of a domain.
    Xml(&'a Document<'a>, &'a Domain),
    /// A call of QEMU.
    Call(&'a Call<'a>, &'a Launch),
}

impl<'a> GuestSource<'a> {
    /// What is evaluated.
    pub fn subject(self) -> Subject<'a> {
        match self {
            Self::Xml(_, domain) => domain.into(),
            Self::Call(_, launch) => launch.into(),
        }
    }

    /// The domain, if it is one.
    pub fn domain(self) -> Option<&'a Domain> {
        self.subject().domain()
    }

    /// The text.
    pub fn text(self) -> &'a str {
        match self {
            Self::Xml(document, _) => document.source(),
            Self::Call(call, _) => call.source(),
        }
    }

    /// The place of a byte of the text.
    pub fn location(self, offset: usize) -> Location {
        match self {
            Self::Xml(document, _) => document.location(offset),
            Self::Call(call, _) => call.location(offset),
        }
    }

    /// The guest's name; empty if it has none.
    pub fn name(self) -> &'a str {
        self.subject().name()
    }

    /// The machine type that is asked for.
    pub fn machine(self) -> Option<&'a str> {
        self.subject().machine()
    }

    /// The program that runs it, where it is named.
    pub fn emulator(self) -> Option<&'a str> {
        match self {
            Self::Xml(_, domain) => domain.emulator.as_ref().map(|emulator| emulator.value.as_str()),
            Self::Call(_, launch) => launch.program.as_deref(),
        }
    }

    /// A remark about the text itself.
    pub fn remark(self) -> Option<String> {
        match self {
            Self::Xml(..) => None,
            Self::Call(call, _) => call.remark(),
        }
    }

    /// The edits that a fix takes.
    ///
    /// # Errors
    /// The fix was planned for another guest.
    pub fn edits(self, fix: &Fix) -> Result<Vec<Edit>, EditError> {
        match self {
            Self::Xml(document, _) => Ok(edits(document, fix)),
            Self::Call(call, launch) => call_edits(call, launch, fix),
        }
    }

    /// The text with a fix made.
    ///
    /// # Errors
    /// As [`Self::edits`].
    pub fn rewritten(self, fix: &Fix) -> Result<String, EditError> {
        edit::apply(self.text(), &self.edits(fix)?)
    }

    /// The text for a program that reads it, with the fix made if there is one; for a log, the command line of the last
    /// start.
    ///
    /// # Errors
    /// As [`Self::edits`].
    pub fn filtered(self, fix: Option<&Fix>) -> Result<String, EditError> {
        let mut edits = fix.map_or_else(|| Ok(Vec::new()), |fix| self.edits(fix))?;
        if let Self::Call(call, _) = self
            && call.form == Form::Log
        {
            let without = |start, end, text: &str| Edit { span: Span::new(start, end), text: text.to_owned() };
            edits.push(without(0, call.extent.start, ""));
            edits.push(without(call.extent.end, self.text().len(), "\n"));
        }
        edit::apply(self.text(), &edits)
    }

    /// What a fix changes, as a unified diff of the text called `name`; of a command line that is one long line, or
    /// NUL-separated, option by option.
    ///
    /// # Errors
    /// As [`Self::edits`].
    pub fn diff(self, name: &str, fix: &Fix) -> Result<String, EditError> {
        let (before, after) = (self.text(), self.rewritten(fix)?);
        let by_option = match self {
            Self::Call(call, _) => {
                call.by_option().zip(Call::read(after.as_bytes()).ok().and_then(|call| call.by_option()))
            }
            Self::Xml(..) => None,
        };
        Ok(match by_option {
            Some((before, after)) => unified_diff(name, &before, &after),
            None => unified_diff(name, before, &after),
        })
    }
}
