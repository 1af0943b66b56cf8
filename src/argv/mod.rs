//! A call of QEMU in a text: the program and its arguments, each with the place of all its bytes. The text is one of
//! shell words, libvirt's log of a guest, or NUL-separated as in `/proc/PID/cmdline`.
//!
//! [`crate::command_line`] interprets the arguments.

mod options;
mod program;
mod shell;
mod word;
mod write;

use std::ops::{ControlFlow, Range};

use crate::xml::{Location, MAX_BYTES, Span};
pub use word::Word;
pub use write::quoted;

/// The most bytes of arguments that Linux passes to a program with the usual limit of 8 MiB for its stack (a quarter of
/// it, a NUL and a pointer for each argument included: `bprm_stack_limits` in Linux `fs/exec.c`).
pub const MAX_ARGUMENT_BYTES: usize = 2 << 20;

/// The error for more than that.
const TOO_LONG: &str = "more than 2 MiB of arguments, more than Linux passes to a program";

/// A call of QEMU in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'t> {
    source: &'t str,
    /// How it is written.
    pub form: Form,
    /// The program; `None` if the text begins with its first option.
    pub program: Option<Word>,
    /// What comes after it, in order.
    pub arguments: Vec<Word>,
    /// How many calls there are in the text. This one is the last.
    pub calls: usize,
    /// Its bytes in the text, with what comes before the program.
    pub extent: Span,
}

/// How a call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As words of a shell.
    Shell,
    /// The same, in libvirt's log of a guest.
    Log,
    /// As bytes that a NUL ends.
    Nul,
}

/// A text without a call of QEMU, or one that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct CallError {
    /// Where.
    pub location: Location,
    /// What is wrong, in one line.
    pub message: String,
}

/// What is wrong, and the offset of the byte.
type Wrong = (usize, String);

/// The error for blank text.
const EMPTY: &str = "empty: neither domain XML nor a QEMU command line";

/// The error for text that is neither.
const NEITHER: &str = "neither domain XML nor a QEMU command line";

/// Whether the text is XML: its first character after blanks and a byte order mark is `<`. UTF-16 can only be XML.
pub fn is_xml(bytes: &[u8]) -> bool {
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let rest = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    utf16 || rest.trim_ascii_start().starts_with(b"<")
}

impl<'t> Call<'t> {
    /// The last call of QEMU in a text.
    ///
    /// # Errors
    /// The text is longer than [`MAX_BYTES`] or not UTF-8, a quote has no end, a NUL is inside a word, the arguments
    /// are longer than [`MAX_ARGUMENT_BYTES`], or there is no call.
    pub fn read(text: &'t [u8]) -> Result<Self, CallError> {
        let wrong = |(offset, message): Wrong| CallError { location: Location::of(text, offset), message };
        let source = std::str::from_utf8(text).map_err(|error| wrong((error.valid_up_to(), "not UTF-8".to_owned())))?;
        if text.len() > MAX_BYTES {
            return Err(wrong((MAX_BYTES, "longer than 4 MiB; the QEMU command line alone is enough".to_owned())));
        }
        if source.trim_start_matches('\u{feff}').trim().is_empty() {
            return Err(wrong((0, EMPTY.to_owned())));
        }
        let begin = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let call = match source.find('\0') {
            Some(nul) => separated(source, begin, nul),
            None => last_call(source, begin),
        };
        call.map_err(wrong)
    }

    /// The call that a process was started by, in the form of `/proc/PID/cmdline`: the first word is the program,
    /// whatever it is called.
    ///
    /// # Errors
    /// It is not UTF-8, or longer than [`MAX_ARGUMENT_BYTES`].
    pub fn of_process(text: &'t [u8]) -> Result<Self, CallError> {
        let wrong = |(offset, message): Wrong| CallError { location: Location::of(text, offset), message };
        let source = std::str::from_utf8(text).map_err(|error| wrong((error.valid_up_to(), "not UTF-8".to_owned())))?;
        let words = nul_words(source, 0).map_err(wrong)?;
        Ok(call(source, Form::Nul, words, program::Start::Program(0), 1))
    }

    /// The text it was read from.
    pub fn source(&self) -> &'t str {
        self.source
    }

    /// The place of a byte of the text.
    pub fn location(&self, offset: usize) -> Location {
        Location::of(self.source.as_bytes(), offset)
    }

    /// The word to point at for the call as a whole: the program, or the first option.
    pub fn span(&self) -> Span {
        self.program.as_ref().or(self.arguments.first()).map_or(Span::new(0, 0), |word| word.span)
    }

    /// A note on which call this is, if there are several.
    pub fn remark(&self) -> Option<String> {
        let line = self.location(self.span().start).line;
        match self.form {
            _ if self.calls < 2 => None,
            Form::Log => Some(format!("the last of {} starts in this log, line {line}", self.calls)),
            Form::Shell | Form::Nul => Some(format!("the last of {} QEMU command lines, line {line}", self.calls)),
        }
    }
}

/// Words that a NUL ends. `nul` is the first.
fn separated(source: &str, begin: usize, nul: usize) -> Result<Call<'_>, Wrong> {
    let (first, nul) = (source.get(begin..nul).unwrap_or_default(), nul);
    if first.contains(char::is_whitespace) && is_like_shell(first) {
        return Err((nul, "a NUL byte in a shell word".to_owned()));
    }
    let words = nul_words(source, begin)?;
    let start = program::find(&words).ok_or_else(|| (begin, NEITHER.to_owned()))?;
    Ok(call(source, Form::Nul, words, start, 1))
}

/// The words that a NUL ends, from `begin` on.
fn nul_words(source: &str, begin: usize) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut bytes = 0_usize;
    let mut at = begin;
    // What comes after the last NUL is a word if it is more than the end of a line.
    while let Some(rest) = source.get(at..).filter(|rest| !matches!(*rest, "" | "\n" | "\r\n")) {
        let length = rest.find('\0').unwrap_or(rest.len());
        let end = at.saturating_add(length);
        let word = Word::plain(source, at..end);
        bytes = bytes.saturating_add(word.argument_bytes());
        if bytes > MAX_ARGUMENT_BYTES {
            return Err((at, TOO_LONG.to_owned()));
        }
        words.push(word);
        at = end.saturating_add(1);
    }
    Ok(words)
}

/// Whether what comes before a NUL are words of a shell.
fn is_like_shell(text: &str) -> bool {
    let mut found = false;
    let read = shell::commands(text, 0..text.len(), |words| {
        found |= program::find(&words).is_some();
        ControlFlow::Continue(())
    });
    read.is_err() || found
}

fn call(source: &str, form: Form, mut words: Vec<Word>, start: program::Start, calls: usize) -> Call<'_> {
    let (program, first) = match start {
        program::Start::Program(index) => (words.get(index).cloned(), index.saturating_add(1)),
        program::Start::Options(index) => (None, index),
    };
    let (begin, end) = (words.first().map_or(0, |word| word.span.start), words.last().map_or(0, |word| word.span.end));
    let extent = Span::new(begin, end);
    let arguments = words.split_off(first.min(words.len()));
    Call { source, form, program, arguments, calls, extent }
}

/// The last call in a text of lines.
fn last_call(source: &str, begin: usize) -> Result<Call<'_>, Wrong> {
    let mut parts: Vec<Range<usize>> = starts(source, begin);
    let form = if parts.is_empty() { Form::Shell } else { Form::Log };
    if parts.is_empty() {
        parts.push(begin..source.len());
    }
    let mut last = None;
    let mut calls = 0_usize;
    for part in parts {
        shell::commands(source, part, |words| {
            let Some(start) = program::find(&words) else { return ControlFlow::Continue(()) };
            calls = calls.saturating_add(1);
            last = Some((words, start));
            // What follows in the log of one start was printed by QEMU.
            if form == Form::Log { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    let (words, start) = last.ok_or_else(|| {
        let blank = source[begin..].len().saturating_sub(source[begin..].trim_start().len());
        (begin.saturating_add(blank), NEITHER.to_owned())
    })?;
    Ok(call(source, form, words, start, calls))
}

/// In libvirt's log of a guest, what follows each line that says that it starts, up to the next line with a date
/// (`qemuLogOperation` in libvirt `src/qemu/qemu_domain.c`: "DATE: starting up libvirt version: …").
fn starts(source: &str, begin: usize) -> Vec<Range<usize>> {
    let mut starts: Vec<Range<usize>> = Vec::new();
    let mut open: Option<usize> = None;
    let mut at = begin;
    for line in source[begin..].split_inclusive('\n') {
        let end = at.saturating_add(line.len());
        if is_dated(line) {
            starts.extend(open.take().map(|from| from..at));
            if line.contains("starting up") {
                open = Some(end);
            }
        }
        at = end;
    }
    starts.extend(open.map(|from| from..source.len()));
    starts
}

/// Whether a line begins with a date as libvirt writes it: `2026-11-29 06:31:02.123+0000: `.
fn is_dated(line: &str) -> bool {
    const FORM: &[u8] = b"dddd-dd-dd dd:dd:dd";
    let fits = |(form, byte): (&u8, &u8)| if *form == b'd' { byte.is_ascii_digit() } else { form == byte };
    line.len() > FORM.len() && FORM.iter().zip(line.as_bytes()).all(fits)
}

#[cfg(test)]
mod tests;
