//! A call, option by option.

use super::{Call, Form, Word, quoted};
use crate::xml::Span;

impl Call<'_> {
    /// The words in pieces that each begin with the program or an option.
    fn pieces(&self) -> Vec<Vec<&Word>> {
        let mut pieces: Vec<Vec<&Word>> = self.program.iter().map(|program| vec![program]).collect();
        for word in &self.arguments {
            match pieces.last_mut() {
                Some(piece) if !word.text.starts_with('-') => piece.push(word),
                _ => pieces.push(vec![word]),
            }
        }
        pieces
    }

    /// The option that a byte of the text belongs to, with its value, as bytes of the text.
    pub fn option_at(&self, offset: usize) -> Option<Span> {
        let pieces = self.pieces();
        let spans =
            pieces.iter().filter_map(|piece| Some(Span::new(piece.first()?.span.start, piece.last()?.span.end)));
        spans.take_while(|span| span.start <= offset).last().filter(|span| offset <= span.end)
    }

    /// Whether all of it is on one line.
    pub fn is_one_line(&self) -> bool {
        !self.source.get(self.span().start..self.extent.end).is_some_and(|text| text.contains('\n'))
    }

    /// The call with each option on a line of its own, if it is one line or NUL-separated.
    pub fn by_option(&self) -> Option<String> {
        if self.form != Form::Nul && !self.is_one_line() {
            return None;
        }
        let shown = |word: &&Word| match self.form {
            Form::Nul => quoted(&word.text),
            Form::Shell | Form::Log => self.source.get(word.span.start..word.span.end).unwrap_or_default().to_owned(),
        };
        let lines = self.pieces().into_iter().map(|piece| piece.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n");
        Some(lines.collect())
    }
}
