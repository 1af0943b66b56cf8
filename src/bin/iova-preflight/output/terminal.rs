//! The terminal that output goes to.

/// Columns of what is not a terminal: a pipe or a file has enough for every line.
const WIDE: usize = 140;

/// Columns below which nothing can be laid out any more; the terminal then wraps.
const NARROWEST: usize = 40;

/// The columns that standard output has, or enough for any line if it is not a terminal.
pub(crate) fn columns() -> usize {
    known_columns().unwrap_or(WIDE)
}

/// The columns that standard output has: those of the environment variable COLUMNS, else those of the terminal; `None`
/// in a pipe or a file, where sentences are better left unbroken.
pub(crate) fn known_columns() -> Option<usize> {
    let wanted = std::env::var("COLUMNS").ok();
    let terminal = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    choose(wanted.as_deref(), terminal)
}

fn choose(wanted: Option<&str>, terminal: Option<usize>) -> Option<usize> {
    let wanted = wanted.and_then(|columns| columns.parse().ok());
    // A serial console reports 0 columns.
    let mut known = wanted.into_iter().chain(terminal).filter(|&columns| columns > 0);
    known.next().map(|columns: usize| columns.max(NARROWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_wins() {
        for (wanted, terminal, columns) in [
            (None, None, None),
            (None, Some(80), Some(80)),
            (None, Some(0), None),
            (None, Some(20), Some(NARROWEST)),
            (Some("120"), Some(80), Some(120)),
            (Some("1"), None, Some(NARROWEST)),
            (Some("0"), Some(80), Some(80)),
            (Some("-3"), Some(80), Some(80)),
            (Some("many"), None, None),
        ] {
            assert_eq!(choose(wanted, terminal), columns, "{wanted:?} {terminal:?}");
        }
    }
}
