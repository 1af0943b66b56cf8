//! A word, and where each of its bytes comes from.

use std::ops::Range;

use crate::xml::Span;

/// An argument as the program gets it, and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The argument.
    pub text: String,
    /// Its bytes in the text, quotes included.
    pub span: Span,
    /// Whether a shell would put something else in the place of a part of it: `$RAM`, `` `nproc` ``.
    pub expands: bool,
    /// In order, from which byte of `text` on what comes from where.
    runs: Vec<Stretch>,
}

/// Bytes of a word that come from one place. If the place has as many bytes, they correspond one by one; otherwise only
/// as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// The first of them in the word.
    at: usize,
    /// How many they are.
    length: usize,
    /// Where they come from.
    from: Span,
}

impl Word {
    /// A word without quotes.
    pub(super) fn plain(source: &str, span: Range<usize>) -> Self {
        let mut word = Self::begun(span.start);
        word.take(source, span);
        word
    }

    /// A word of which nothing is known but where it begins.
    pub(super) fn begun(at: usize) -> Self {
        Self { text: String::new(), span: Span::new(at, at), expands: false, runs: Vec::new() }
    }

    /// Adds bytes of the text as they are.
    pub(super) fn take(&mut self, source: &str, from: Range<usize>) {
        self.add(source.get(from.clone()).unwrap_or_default(), Span::new(from.start, from.end));
    }

    /// Adds `text`, read from the bytes `from`.
    pub(super) fn add(&mut self, text: &str, from: Span) {
        let at = self.text.len();
        self.text.push_str(text);
        self.span.end = from.end;
        // Bytes that continue the previous piece are merged with it.
        if let Some(last) = self.runs.last_mut()
            && last.from.end == from.start
            && last.length == last.from.end.saturating_sub(last.from.start)
            && text.len() == from.end.saturating_sub(from.start)
        {
            last.length = last.length.saturating_add(text.len());
            last.from.end = from.end;
        } else if !text.is_empty() {
            self.runs.push(Stretch { at, length: text.len(), from });
        }
    }

    /// What the word takes up among the arguments of a program: a NUL and a pointer come with it.
    pub(super) fn argument_bytes(&self) -> usize {
        self.text.len().saturating_add(1).saturating_add(size_of::<u64>())
    }

    /// Where bytes of the word come from, without quotes around them; those between two of them are in it.
    pub fn place(&self, part: Range<usize>) -> Span {
        let start = self.start_of(part.start);
        let end = match part.end.checked_sub(1) {
            Some(last) if last >= part.start => self.end_of(last),
            _ => start,
        };
        Span::new(start, end.max(start))
    }

    fn run(&self, at: usize) -> Option<&Stretch> {
        let after = self.runs.partition_point(|run| run.at <= at);
        self.runs.get(after.checked_sub(1)?)
    }

    fn start_of(&self, at: usize) -> usize {
        let Some(run) = self.run(at) else { return self.span.start };
        let into = at.saturating_sub(run.at);
        match (into >= run.length, run.is_plain()) {
            // The end of the word, inside of its quotes.
            (true, _) => run.from.end,
            (false, true) => run.from.start.saturating_add(into),
            (false, false) => run.from.start,
        }
    }

    fn end_of(&self, last: usize) -> usize {
        let Some(run) = self.run(last) else { return self.span.end };
        match run.is_plain() {
            true => run.from.start.saturating_add(last.saturating_sub(run.at)).saturating_add(1),
            false => run.from.end,
        }
    }
}

impl Stretch {
    fn is_plain(&self) -> bool {
        self.from.end.checked_sub(self.from.start) == Some(self.length)
    }
}
