//! Lines on standard error. Whether anybody reads them changes nothing about what is done and how it ends.

use std::io::Write;

use iova_preflight::text::printable;

/// Prints a line that holds nothing a terminal would act on.
pub(crate) fn line(text: &str) {
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(anstream::stderr(), "{}", printable(text));
}
