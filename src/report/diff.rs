//! The change of a file as a unified diff.

use similar::TextDiff;

/// The unified diff, with three lines of context, that makes `after` of `before`; empty where they are equal.
pub fn unified_diff(name: &str, before: &str, after: &str) -> String {
    let relative = name.trim_start_matches('/');
    TextDiff::from_lines(before, after)
        .unified_diff()
        .header(&format!("a/{relative}"), &format!("b/{relative}"))
        .to_string()
}
