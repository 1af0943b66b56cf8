//! New text in a call, quoted like the text around it.

use std::ops::Range;

use super::{Call, Form, Word};
use crate::xml::Span;

/// The quoting around a byte of a shell word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
    /// `$'…'`.
    Ansi,
}

impl Call<'_> {
    /// What takes the place of which bytes of the text, so that new text takes the place of parts of an argument.
    /// `None` if there is no such argument or part, or where a shell would put something else in the place of what is
    /// quoted anew.
    pub fn replacements(&self, number: usize, parts: &[(Range<usize>, &str)]) -> Option<Vec<(Span, String)>> {
        let word = self.arguments.get(number)?;
        let in_place: Option<Vec<_>> = parts.iter().map(|(part, new)| self.in_place(word, part, new)).collect();
        if in_place.is_some() {
            return in_place;
        }
        // A quote begins or ends in the middle of a part.
        let mut parts = parts.to_vec();
        parts.sort_by_key(|(part, _)| (part.start, part.end));
        let (mut text, mut copied) = (String::new(), 0);
        for (part, new) in parts {
            text.push_str(word.text.get(copied..part.start)?);
            text.push_str(new);
            copied = part.end;
        }
        text.push_str(word.text.get(copied..)?);
        (!word.expands).then(|| vec![(word.span, quoted(&text))])
    }

    /// The same for one part, where the same quote is around all of it.
    fn in_place(&self, word: &Word, part: &Range<usize>, new: &str) -> Option<(Span, String)> {
        let place = word.place(part.clone());
        if self.form == Form::Nul {
            return Some((place, new.to_owned()));
        }
        let (quote, whole) = self.quote_around(word, place);
        whole.then(|| (place, escaped(new, quote)))
    }

    /// Where new words before all other arguments go, and what they look like there.
    pub fn insertion(&self, words: &[String]) -> Option<(Span, String)> {
        let at =
            self.arguments.first().map(|word| word.span.start).or(self.program.as_ref().map(|word| word.span.end))?;
        let before = self.program.as_ref().filter(|_| !self.arguments.is_empty()).map(|word| word.span.end);
        let (between, after) = match self.form {
            Form::Nul => ("\0", "\0"),
            // As the first option comes after the program: perhaps on a line of its own.
            Form::Shell | Form::Log => (" ", before.and_then(|end| self.source.get(end..at)).unwrap_or(" ")),
        };
        let shown = words.iter().map(|word| if self.form == Form::Nul { word.clone() } else { quoted(word) });
        let text = shown.collect::<Vec<_>>().join(between);
        let first = self.arguments.is_empty();
        Some((Span::new(at, at), if first { format!("{after}{text}") } else { format!("{text}{after}") }))
    }

    /// The quoting at a place in a word, and whether all of the place has it.
    fn quote_around(&self, word: &Word, place: Span) -> (Quote, bool) {
        let text = self.source.get(word.span.start..place.end).unwrap_or_default();
        let inside = place.start.saturating_sub(word.span.start);
        let (mut quote, mut at, mut around) = (Quote::None, 0_usize, None);
        let mut same = true;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if at >= inside && around.is_none() {
                around = Some(quote);
            }
            let escape = rest.starts_with('\\') && quote != Quote::Single;
            let (length, next) = match (quote, rest) {
                _ if escape => (1_usize.saturating_add(rest.chars().nth(1).map_or(0, char::len_utf8)), quote),
                (Quote::None, rest) if rest.starts_with("$'") => (2, Quote::Ansi),
                (Quote::None, rest) if rest.starts_with('\'') => (1, Quote::Single),
                (Quote::None, rest) if rest.starts_with('"') => (1, Quote::Double),
                (Quote::Single | Quote::Ansi, rest) if rest.starts_with('\'') => (1, Quote::None),
                (Quote::Double, rest) if rest.starts_with('"') => (1, Quote::None),
                (quote, rest) => (rest.chars().next().map_or(1, char::len_utf8), quote),
            };
            same &= around.is_none() || next == quote;
            (at, quote) = (at.saturating_add(length), next);
        }
        (around.unwrap_or(quote), same)
    }
}

/// Whether a character means nothing to a shell, wherever it is in a word.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | '=' | '+' | ':' | '/' | '@' | '%')
}

/// `text` as it is written if there is such a quote around it.
fn escaped(text: &str, quote: Quote) -> String {
    let special = |c: char| match quote {
        Quote::None => !is_plain(c),
        Quote::Single => c == '\'',
        Quote::Double => matches!(c, '"' | '\\' | '$' | '`'),
        Quote::Ansi => matches!(c, '\'' | '\\'),
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match quote {
            Quote::Single if special(c) => shown.push_str("'\\''"),
            _ => {
                if special(c) {
                    shown.push('\\');
                }
                shown.push(c);
            }
        }
    }
    shown
}

/// A word of its own.
pub fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", escaped(word, Quote::Single))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::edit::{Edit, apply};

    /// The text after each `new` has taken the place of a part of the second argument.
    fn after(text: &str, changes: &[(&str, &str)]) -> String {
        let call = Call::read(text.as_bytes()).expect("a call");
        let word = &call.arguments[1].text;
        let place = |part: &str| {
            let at = word.find(part).expect("a part");
            at..at + part.len()
        };
        let parts: Vec<_> = changes.iter().map(|(part, new)| (place(part), *new)).collect();
        let replaced = call.replacements(1, &parts).expect("replacements");
        let edits: Vec<Edit> = replaced.into_iter().map(|(span, text)| Edit { span, text }).collect();
        let result = apply(text, &edits).expect("edits that fit");
        let read = Call::read(result.as_bytes()).expect("a call");
        let expected = changes.iter().fold(word.clone(), |word, (part, new)| word.replacen(part, new, 1));
        assert_eq!(read.arguments[1].text, expected, "{result:?}");
        result
    }

    #[test]
    fn new_text_is_quoted_like_the_text_around_it() {
        for (text, part, new, expected) in [
            ("kvm -M q35,a=b", "q35", "x-1.2", "kvm -M x-1.2,a=b"),
            ("kvm -M 'q35,a=b'", "q35", "x", "kvm -M 'x,a=b'"),
            ("kvm -M \"q35\",a=b", "q35", "x", "kvm -M \"x\",a=b"),
            ("kvm -M $'q35,a=b'", "q35", "x", "kvm -M $'x,a=b'"),
            ("kvm -M \"q\"35,a=b", "q35", "x", "kvm -M x,a=b"),
            ("kvm -M q35", "q35", "a b;'", "kvm -M a\\ b\\;\\'"),
            ("kvm -M 'q35'", "q35", "a b;'", "kvm -M 'a b;'\\'''"),
            ("kvm -M \"q35\"", "q35", "a $b\"`", "kvm -M \"a \\$b\\\"\\`\""),
            ("kvm -M q\\\n35", "q35", "x", "kvm -M x"),
            ("kvm\0-M\0q35\0", "q35", "a b", "kvm\0-M\0a b\0"),
        ] {
            assert_eq!(after(text, &[(part, new)]), expected);
        }
        // Several parts of one argument.
        for (text, expected) in [
            ("kvm -cpu EPYC,a=1,b=2", "kvm -cpu EPYC,a=5,b=6"),
            ("kvm -cpu 'EPYC,a=1',b=2", "kvm -cpu 'EPYC,a=5',b=6"),
            ("kvm -cpu 'EPYC,a='1,b=2", "kvm -cpu EPYC,a=5,b=6"),
            ("kvm -cpu 'EPYC,a=1,b='\"2\"", "kvm -cpu EPYC,a=5,b=6"),
        ] {
            assert_eq!(after(text, &[("a=1", "a=5"), ("b=2", "b=6")]), expected);
            assert_eq!(after(text, &[("b=2", "b=6"), ("a=1", "a=5")]), expected);
        }
        // The end of a word is inside of its quotes.
        let call = Call::read(b"kvm -cpu 'EPYC'").expect("a call");
        assert_eq!(call.replacements(1, &[(4..4, ",x=1")]), Some(vec![(Span::new(14, 14), ",x=1".to_owned())]));
        // A shell would no longer replace it.
        let call = Call::read(b"kvm -M q\"35\",$X").expect("a call");
        assert_eq!(call.replacements(1, &[(0..3, "x")]), None);
    }

    #[test]
    fn new_words_come_first_and_look_like_the_others() {
        let words = ["-cpu".to_owned(), "a b".to_owned()];
        for (text, expected) in [
            ("kvm -S", "kvm -cpu 'a b' -S"),
            ("kvm \\\n  -S", "kvm \\\n  -cpu 'a b' \\\n  -S"),
            ("-S", "-cpu 'a b' -S"),
            ("kvm", "kvm -cpu 'a b'"),
            ("kvm\0-S\0", "kvm\0-cpu\0a b\0-S\0"),
            ("kvm\0", "kvm\0-cpu\0a b\0"),
        ] {
            let call = Call::read(text.as_bytes()).expect("a call");
            let (span, shown) = call.insertion(&words).expect("a place");
            assert_eq!(format!("{}{shown}{}", &text[..span.start], &text[span.end..]), expected, "{text:?}");
        }
    }
}
