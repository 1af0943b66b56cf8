//! Lines on standard error. A closed standard error changes nothing else.

use std::io::Write;

use iova_preflight::report::Unreadable;
use iova_preflight::text::printable;

/// Prints a line that holds nothing a terminal would act on.
pub(crate) fn line(text: &str) {
    // A closed standard error cannot be reported anywhere.
    let _ = writeln!(anstream::stderr(), "{}", printable(text));
}

/// Says what is wrong with an input.
pub(crate) fn complain(name: &str, error: &Unreadable) {
    let space = if error.at.is_some() { "" } else { " " };
    line(&format!("{name}:{space}{error}"));
}
