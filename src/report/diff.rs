//! The change of a file as a unified diff.

use similar::TextDiff;

/// The unified diff, with three lines of context, that makes `after` of `before`; empty if they are equal. `patch -p1`
/// and `git apply` take it.
pub fn unified_diff(name: &str, before: &str, after: &str) -> String {
    // For patch only a line feed ends a line; the library would also count a lone carriage return.
    let (before, after): (Vec<&str>, Vec<&str>) =
        (before.split_inclusive('\n').collect(), after.split_inclusive('\n').collect());
    TextDiff::configure()
        .newline_terminated(true)
        .diff_slices(&before, &after)
        .unified_diff()
        .header(&header("a", name), &header("b", name))
        .to_string()
}

/// A file name as git writes it: quoted as in C where it holds what would break the line, and ended by a tab where it
/// holds a blank.
fn header(side: &str, name: &str) -> String {
    let plain = |component: &&str| !matches!(*component, "" | ".");
    let relative: Vec<&str> = name.split('/').filter(plain).collect();
    let path = format!("{side}/{}", relative.join("/"));
    if !path.contains(|c: char| c.is_ascii_control() || matches!(c, '"' | '\\')) {
        return if path.contains(' ') { format!("{path}\t") } else { path };
    }
    let mut quoted = String::from('"');
    for c in path.chars() {
        match c {
            '\t' => quoted += "\\t",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => quoted += &format!("\\{:03o}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_git_writes_them() {
        assert_eq!(header("a", "/etc/x.xml"), "a/etc/x.xml");
        assert_eq!(header("a", "./x.xml"), "a/x.xml");
        assert_eq!(header("a", "a b.xml"), "a/a b.xml\t");
        assert_eq!(header("a", ".//x/./y.xml"), "a/x/y.xml");
        assert_eq!(header("a", "ä\"\u{7}.xml"), "\"a/ä\\\"\\007.xml\"");
        assert_eq!(header("b", "tab\tx.xml"), "\"b/tab\\tx.xml\"");
    }

    #[test]
    fn a_lone_carriage_return_ends_no_line() {
        let diff = unified_diff("x", "a\rb\nc\n", "a\rb\nd\n");
        assert!(diff.contains("@@ -1,2 +1,2 @@"), "{diff}");
    }
}
