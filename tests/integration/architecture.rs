//! Which module may use which, and that a type's name is unique. The order is the one in docs/development.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A `use` or a path in the code: the line, from 1, and the module at the top of the crate that it leads to.
type Arrow = (usize, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules in the block below the line `heading` of docs/development.md, lowest first, each with its rank. What is
/// on one line of it follows in the order of that line, but is of one rank if there is a bar between.
fn order(heading: &str) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(root().join("docs/development.md")).expect("docs/development.md");
    let (_, below) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no line {heading:?}"));
    let block = below.trim_start_matches('\n').lines().take_while(|line| line.starts_with("    "));
    let mut order = Vec::new();
    let mut rank = 0;
    for word in block.flat_map(str::split_whitespace) {
        match word {
            "·" => {}
            "|" => rank -= 1,
            name => {
                order.push((name.to_owned(), rank));
                rank += 1;
            }
        }
    }
    assert!(order.len() > 1, "no list below {heading:?}");
    order
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a folder entry").path();
        match path.extension() {
            _ if path.is_dir() => files.extend(sources(&path)),
            Some(extension) if extension == "rs" => files.push(path),
            _ => {}
        }
    }
    files.sort();
    files
}

/// The path of the module in this file: `["rules", "page"]` for `rules/page/mod.rs`.
fn module(folder: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(folder).expect("below the folder").with_extension("");
    let mut parts: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|part| part == "mod") {
        parts.pop();
    }
    parts
}

/// The names at the beginning of what `rest` leads to: one, or those in braces.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut begin) = (0, Vec::new(), 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(list[begin..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(list[begin..at].trim_start()));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Where the code of a module `depth` levels below the top of its crate leads to by `crate::` or, through the top, by
/// `super::`.
fn arrows(text: &str, depth: usize) -> Vec<Arrow> {
    let mut found = Vec::new();
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let begin = offset;
        offset += line.len();
        // What a comment links to is not a dependency.
        let code = line.split("//").next().unwrap_or_default();
        for keyword in ["crate::", "super::"] {
            let mut at = 0;
            while let Some(position) = code[at..].find(keyword).map(|position| at + position) {
                let before = code[..position].chars().next_back();
                let mut end = position + keyword.len();
                at = end;
                if before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                    continue;
                }
                let mut levels = 1;
                while code[end..].starts_with("super::") {
                    end += "super::".len();
                    levels += 1;
                }
                // A module inside the file, such as `tests`, is one level further down.
                let depth = depth + usize::from(line.starts_with(' '));
                if keyword == "crate::" || levels >= depth {
                    found.extend(heads(&text[begin + end..]).into_iter().map(|name| (index + 1, name)));
                }
            }
        }
    }
    found
}

/// The dependencies of the crate in `folder` that run backwards or lead to a module without a place in the order.
fn backward(folder: &str, heading: &str) -> Vec<String> {
    let (folder, order) = (root().join(folder), order(heading));
    let place = |name: &str| order.iter().position(|(known, _)| known == name);
    let mut wrong = Vec::new();
    let mut seen = vec![false; order.len()];
    for file in sources(&folder) {
        let module = module(&folder, &file);
        let Some(top) = module.first().filter(|top| *top != "bin") else { continue };
        // The top of a crate knows everything.
        if module.len() == 1 && matches!(top.as_str(), "lib" | "main") {
            continue;
        }
        let shown = file.strip_prefix(root()).expect("in the repository").display();
        let Some(own) = place(top) else {
            wrong.push(format!("{shown}: `{top}` is not in the order"));
            continue;
        };
        seen[own] = true;
        let text = std::fs::read_to_string(&file).expect("a source");
        for (line, name) in arrows(&text, module.len()) {
            match place(&name) {
                Some(other) if other == own || order[other].1 < order[own].1 => {}
                Some(_) => wrong.push(format!("{shown}:{line}: {top} knows {name}, which is not below it")),
                None => wrong.push(format!("{shown}:{line}: `{name}` is not in the order")),
            }
        }
    }
    let gone =
        order.iter().zip(seen).filter(|(_, seen)| !seen).map(|((name, _), _)| format!("there is no module `{name}`"));
    wrong.extend(gone);
    wrong
}

#[test]
fn no_arrow_runs_back_in_the_library() {
    let wrong = backward("src", "The library, lowest first:");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_arrow_runs_back_in_the_programs() {
    let mut wrong = backward("src/bin/iova-preflight", "The command-line tool, lowest first:");
    wrong.extend(backward("src/bin/iova-preflight-hook", "The hook, lowest first:"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arrows_are_found_wherever_they_are() {
    let text = "use crate::a::B;\n/// [`crate::no`]\nuse crate::{c, d::{self, E},\n    f::G};\nlet x = crate::h::i();\n\
                use super::j;\nmod tests {\n    use super::*;\n    use super::super::k;\n}\nuse iova_crate::no;\n";
    let names: Vec<String> = arrows(text, 1).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "c", "d", "f", "h", "j", "k"]);
    let deeper: Vec<Arrow> = arrows("use super::x;\nuse super::super::y;\n", 2);
    assert_eq!(deeper, [(2, "y".to_owned())]);
}

/// Readers search a type by its name, so two must not share one.
#[test]
fn a_name_is_that_of_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources(&root().join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source");
        for line in text.lines() {
            let code = line.trim_start();
            let code = code.strip_prefix("pub(crate) ").or(code.strip_prefix("pub(super) ")).unwrap_or(code);
            let code = code.strip_prefix("pub ").unwrap_or(code);
            let kinds = ["struct ", "enum ", "trait "];
            if let Some(rest) = kinds.iter().find_map(|kind| code.strip_prefix(kind)) {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let shown = file.strip_prefix(root()).expect("in the repository").display().to_string();
                places.entry(rest[..end].to_owned()).or_default().push(shown);
            }
        }
    }
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}
