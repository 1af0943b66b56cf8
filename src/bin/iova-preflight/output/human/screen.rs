//! Where verdicts for people are printed.

use std::io::{BufWriter, Write};

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anyhow::Result;
use iova_preflight::text::{printable, wrapped};

/// A terminal, a pipe or a file.
pub(super) struct Screen<W: Write> {
    out: BufWriter<W>,
    /// Whether escape sequences are let through.
    coloured: bool,
    /// Whether it is a terminal, where each guest has to appear at once and in order with standard error.
    watched: bool,
    pub columns: usize,
}

impl<W: Write + RawStream> Screen<W> {
    pub fn new(out: W, columns: usize) -> Self {
        Self {
            coloured: AutoStream::choice(&out) != ColorChoice::Never,
            watched: out.is_terminal(),
            out: BufWriter::new(out),
            columns,
        }
    }

    /// Prints text with escape sequences.
    pub fn print(&mut self, text: &str) -> Result<()> {
        if self.coloured {
            self.out.write_all(text.as_bytes())?;
        } else {
            write!(self.out, "{}", strip_str(text))?;
        }
        if self.watched {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Prints sentences, each in lines that fit.
    pub fn sentences(&mut self, sentences: &[String]) -> Result<()> {
        let lines = sentences.iter().flat_map(|sentence| wrapped(&printable(sentence), self.columns));
        let text: String = lines.map(|line| line + "\n").collect();
        self.print(&text)
    }

    /// Writes all that was printed.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}
