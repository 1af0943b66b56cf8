//! The terminal that output goes to.

/// Columns of what is no terminal: a pipe or a file has enough for every line.
const WIDE: usize = 140;

/// Columns below which nothing can be laid out any more; the terminal then wraps.
const NARROWEST: usize = 40;

/// The columns that standard output has: those of the environment variable COLUMNS, else those of the terminal.
pub(crate) fn columns() -> usize {
    let wanted = std::env::var("COLUMNS").ok();
    let terminal = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    choose(wanted.as_deref(), terminal)
}

fn choose(wanted: Option<&str>, terminal: Option<usize>) -> usize {
    let wanted = wanted.and_then(|columns| columns.parse().ok());
    // A serial console says that it has none.
    let mut known = wanted.into_iter().chain(terminal).filter(|&columns| columns > 0);
    known.next().map_or(WIDE, |columns| columns.max(NARROWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_wins() {
        for (wanted, terminal, columns) in [
            (None, None, WIDE),
            (None, Some(80), 80),
            (None, Some(0), WIDE),
            (None, Some(20), NARROWEST),
            (Some("120"), Some(80), 120),
            (Some("1"), None, NARROWEST),
            (Some("0"), Some(80), 80),
            (Some("-3"), Some(80), 80),
            (Some("many"), None, WIDE),
        ] {
            assert_eq!(choose(wanted, terminal), columns, "{wanted:?} {terminal:?}");
        }
    }
}
