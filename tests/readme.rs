//! What the README shows is what the program prints.

use std::process::Command;

/// The examples: `<!-- example: ARGUMENTS -->`, then a block whose first line is the command.
fn examples(text: &str) -> Vec<(Vec<String>, String)> {
    text.split("<!-- example: ")
        .skip(1)
        .map(|rest| {
            let (arguments, rest) = rest.split_once(" -->\n```text\n").expect("a block behind the marker");
            let (block, _) = rest.split_once("\n```").expect("the block ends");
            let (command, output) = block.split_once('\n').expect("a command and its output");
            assert_eq!(command, format!("$ iova-preflight {arguments}"));
            (arguments.split(' ').map(str::to_owned).collect(), output.to_owned())
        })
        .collect()
}

#[test]
fn the_readme_does_not_lie() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("readable");
    let examples = examples(&readme);
    assert!(!examples.is_empty());
    for (arguments, expected) in examples {
        let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
            .args(&arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("COLUMNS")
            .output()
            .expect("runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected.trim_end(), "{arguments:?}");
    }
}
