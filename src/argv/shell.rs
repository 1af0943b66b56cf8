//! Words of a shell (POSIX.1-2024, XCU 2.2 Quoting and 2.3 Token Recognition; `$'…'` as bash has it).

use std::ops::{ControlFlow, Range};

use super::{MAX_ARGUMENT_BYTES, TOO_LONG, Word, Wrong, program};
use crate::xml::Span;

/// Hands the commands in a part of the text to `each`, one after the other, each as its words, until it breaks. What
/// cannot be read is an error only in a call of QEMU: elsewhere it may not have been meant for a shell.
pub(super) fn commands(
    source: &str,
    part: Range<usize>,
    mut each: impl FnMut(Vec<Word>) -> ControlFlow<()>,
) -> Result<(), Wrong> {
    /// Lines that cannot be read. What has more of them was not written for a shell.
    const MOST_UNREADABLE: usize = 32;
    let mut scanner = Scanner { source, at: part.start, end: part.end, words: Vec::new(), word: None, bytes: 0 };
    let mut unreadable = 0_usize;
    while scanner.at < scanner.end && unreadable < MOST_UNREADABLE {
        let line = scanner.at;
        if let Err(wrong) = scanner.command() {
            if scanner.is_call() {
                return Err(wrong);
            }
            unreadable = unreadable.saturating_add(1);
            // On from the next line.
            let rest = source.get(line..part.end).unwrap_or_default();
            let length = rest.find('\n').map_or(rest.len(), |newline| newline.saturating_add(1));
            scanner.at = line.saturating_add(length.max(1));
            scanner.word = None;
        }
        scanner.bytes = 0;
        let words = std::mem::take(&mut scanner.words);
        if !words.is_empty() && each(words).is_break() {
            break;
        }
    }
    Ok(())
}

struct Scanner<'t> {
    source: &'t str,
    /// The next byte.
    at: usize,
    /// The end of the part.
    end: usize,
    /// The words of the command that are complete.
    words: Vec<Word>,
    /// The word that is not.
    word: Option<Word>,
    /// What the words that are complete take up among a program's arguments.
    bytes: usize,
}

impl Scanner<'_> {
    /// What is left.
    fn rest(&self) -> &str {
        self.source.get(self.at..self.end).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Whether what was read so far is a call of QEMU.
    fn is_call(&self) -> bool {
        let words: Vec<Word> = self.words.iter().chain(&self.word).cloned().collect();
        program::find(&words).is_some()
    }

    /// The word that is being read, begun here if there is none.
    fn word(&mut self) -> &mut Word {
        let at = self.at;
        self.word.get_or_insert_with(|| Word::begun(at))
    }

    /// Adds the next bytes to the word as they are.
    fn take(&mut self, length: usize) {
        let (source, from) = (self.source, self.at..self.at.saturating_add(length).min(self.end));
        self.word().take(source, from.clone());
        self.at = from.end;
    }

    /// Goes over bytes that belong to the word and are not in it.
    fn pass(&mut self, length: usize) {
        let end = self.at.saturating_add(length).min(self.end);
        self.word().span.end = end;
        self.at = end;
    }

    fn skip(&mut self, length: usize) {
        self.at = self.at.saturating_add(length).min(self.end);
    }

    fn end_word(&mut self) -> Result<(), Wrong> {
        let Some(word) = self.word.take() else { return Ok(()) };
        self.bytes = self.bytes.saturating_add(word.argument_bytes());
        let too_long = (self.bytes > MAX_ARGUMENT_BYTES).then(|| (word.span.start, TOO_LONG.to_owned()));
        self.words.push(word);
        too_long.map_or(Ok(()), Err)
    }

    /// Reads up to the end of a command.
    fn command(&mut self) -> Result<(), Wrong> {
        while let Some(c) = self.peek() {
            match c {
                '\n' | ';' | '|' | ')' => {
                    self.end_word()?;
                    self.skip(1);
                    return Ok(());
                }
                ' ' | '\t' | '\r' => {
                    self.end_word()?;
                    self.skip(1);
                }
                '&' if self.rest().starts_with("&>") => self.redirection()?,
                '&' => {
                    self.end_word()?;
                    self.skip(1);
                    return Ok(());
                }
                '<' | '>' => self.redirection()?,
                '#' if self.word.is_none() => {
                    let length = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.skip(length);
                }
                '\\' => self.escaped()?,
                '\'' => self.single()?,
                '"' => self.double()?,
                '$' => self.dollar()?,
                '`' => self.substitution(1, '`', "`")?,
                _ => self.take(c.len_utf8()),
            }
        }
        self.end_word()?;
        Ok(())
    }

    /// A backslash outside of quotes.
    fn escaped(&mut self) -> Result<(), Wrong> {
        if let Some(length) = continuation(self.rest()) {
            // The line continues, as if there were nothing here.
            self.skip(length);
            return Ok(());
        }
        let next = self.rest().chars().nth(1);
        self.pass(1);
        if let Some(c) = next {
            self.take(c.len_utf8());
        }
        Ok(())
    }

    fn single(&mut self) -> Result<(), Wrong> {
        let open = self.at;
        self.pass(1);
        let length = self.rest().find('\'').ok_or_else(|| unclosed(open, "'"))?;
        self.take(length);
        self.pass(1);
        Ok(())
    }

    fn double(&mut self) -> Result<(), Wrong> {
        let open = self.at;
        self.pass(1);
        loop {
            match self.peek().ok_or_else(|| unclosed(open, "\""))? {
                '"' => {
                    self.pass(1);
                    return Ok(());
                }
                '\\' => {
                    let next = self.rest().chars().nth(1);
                    match (continuation(self.rest()), next) {
                        (Some(length), _) => self.pass(length),
                        (None, Some(c @ ('$' | '`' | '"' | '\\'))) => {
                            self.pass(1);
                            self.take(c.len_utf8());
                        }
                        (None, _) => self.take(1),
                    }
                }
                '$' => self.dollar_in_quotes()?,
                '`' => self.substitution(1, '`', "`")?,
                c => self.take(c.len_utf8()),
            }
        }
    }

    /// A dollar outside of quotes.
    fn dollar(&mut self) -> Result<(), Wrong> {
        match self.rest().chars().nth(1) {
            Some('\'') => self.ansi(),
            Some('"') => {
                self.pass(1);
                self.double()
            }
            _ => self.dollar_in_quotes(),
        }
    }

    fn dollar_in_quotes(&mut self) -> Result<(), Wrong> {
        match self.rest().chars().nth(1) {
            Some('(') => self.substitution(2, ')', "$("),
            Some('{') => self.substitution(2, '}', "${"),
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '*' | '#' | '?' | '!' | '$') => {
                self.word().expands = true;
                self.take(2);
                Ok(())
            }
            _ => {
                self.take(1);
                Ok(())
            }
        }
    }

    /// What a shell would replace; it is kept as it is written.
    fn substitution(&mut self, opening: usize, close: char, shown: &str) -> Result<(), Wrong> {
        let open = self.at;
        let inside = self.rest().get(opening..).unwrap_or_default();
        let mut depth = 0_usize;
        for (offset, c) in inside.char_indices() {
            if c == close && depth == 0 {
                self.word().expands = true;
                self.take(opening.saturating_add(offset).saturating_add(1));
                return Ok(());
            }
            match (c, close) {
                ('(', ')') | ('{', '}') => depth = depth.saturating_add(1),
                (c, close) if c == close => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Err(unclosed(open, shown))
    }

    /// `$'…'`.
    fn ansi(&mut self) -> Result<(), Wrong> {
        let open = self.at;
        self.pass(2);
        loop {
            match self.peek().ok_or_else(|| unclosed(open, "$'"))? {
                '\'' => {
                    self.pass(1);
                    return Ok(());
                }
                '\\' => {
                    let (text, length) = ansi_escape(self.rest());
                    let from = Span::new(self.at, self.at.saturating_add(length));
                    if text.contains('\0') {
                        return Err((self.at, "a NUL byte in a shell word".to_owned()));
                    }
                    self.word().add(&text, from);
                    self.at = from.end;
                }
                c => self.take(c.len_utf8()),
            }
        }
    }

    /// `>file`, `2>&1`, `&>file`, `<file`: not a word of the command.
    fn redirection(&mut self) -> Result<(), Wrong> {
        // The number before it belongs to it.
        let number = |word: &Word| !word.text.is_empty() && word.text.bytes().all(|byte| byte.is_ascii_digit());
        if self.word.as_ref().is_some_and(number) {
            self.word = None;
        }
        self.end_word()?;
        let operator = |c: char| matches!(c, '<' | '>' | '&' | '|' | '-');
        let length = self.rest().find(|c| !operator(c)).unwrap_or(self.rest().len());
        self.skip(length);
        let blanks = self.rest().find(|c| !matches!(c, ' ' | '\t')).unwrap_or(self.rest().len());
        self.skip(blanks);
        let target = self.rest().find(|c: char| c.is_whitespace() || matches!(c, ';' | '|' | '&' | '<' | '>' | ')'));
        self.skip(target.unwrap_or(self.rest().len()));
        Ok(())
    }
}

fn unclosed(open: usize, quote: &str) -> Wrong {
    (open, format!("this {quote} is not closed"))
}

/// The length of a backslash that ends a line with the end of that line, also of Windows, or where the
/// text ends.
fn continuation(rest: &str) -> Option<usize> {
    ["\\\n", "\\\r\n"].iter().find(|end| rest.starts_with(**end)).map(|end| end.len()).or((rest == "\\").then_some(1))
}

/// What a backslash in `$'…'` means, and how many bytes it takes.
fn ansi_escape(rest: &str) -> (String, usize) {
    let Some(c) = rest.chars().nth(1) else { return ("\\".to_owned(), 1) };
    let digits = |from: usize, most: usize, radix: u32| {
        let tail = rest.get(from..).unwrap_or_default();
        let length = tail.chars().take(most).take_while(|c| c.is_digit(radix)).count();
        let value = tail.get(..length).and_then(|digits| u32::from_str_radix(digits, radix).ok());
        value.and_then(char::from_u32).map(|c| (c.to_string(), from.saturating_add(length)))
    };
    let simple = |c: char| (c.to_string(), 2);
    match c {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'e' | 'E' => simple('\u{1b}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        '\\' | '\'' | '"' | '?' => simple(c),
        'x' => digits(2, 2, 16).unwrap_or(("\\x".to_owned(), 2)),
        'u' => digits(2, 4, 16).unwrap_or(("\\u".to_owned(), 2)),
        'U' => digits(2, 8, 16).unwrap_or(("\\U".to_owned(), 2)),
        '0'..='7' => digits(1, 3, 8).unwrap_or(("\\".to_owned(), 1)),
        c => (format!("\\{c}"), c.len_utf8().saturating_add(1)),
    }
}
