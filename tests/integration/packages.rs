//! What packages install with the program, put to the programs that read it: bash, man and mandoc.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_iova-preflight");

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

fn ours(arguments: &[&str]) -> Output {
    let output = run(Command::new(PROGRAM).args(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Whether a program is installed; says so if it is not.
fn is_there(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        crate::common::skip(&format!("{program} is not installed"));
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let folder = crate::common::work_dir(&format!("man-{:?}", std::thread::current().id())).join("new");
    ours(&["man", folder.to_str().expect("UTF-8")]);
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("made").map(|entry| entry.expect("readable").path()).collect();
    pages.sort();
    pages
}

#[test]
fn every_command_has_a_page() {
    let names: BTreeSet<String> =
        pages().iter().map(|page| page.file_name().expect("a file").to_string_lossy().into_owned()).collect();
    let mut commands = crate::common::commands(PROGRAM);
    commands.retain(|command| !command.is_empty());
    assert!(commands.len() >= 8, "{commands:?}");
    let expected: BTreeSet<String> = commands
        .into_iter()
        .map(|words| format!("iova-preflight-{}.1", words.join("-")))
        .chain(["iova-preflight.1".to_owned()])
        .collect();
    assert_eq!(names, expected);
}

/// Root writes them when a package is built, into a folder that may be anybody's.
#[test]
fn pages_are_not_written_through_links() {
    use std::os::unix::fs::{lchown, symlink};
    let folder = crate::common::work_dir("man-links");
    let (victim, theirs) = (folder.join("victim"), folder.join("theirs"));
    std::fs::create_dir_all(&theirs).expect("a folder");
    std::fs::write(&victim, "mine").expect("a file");
    let page = theirs.join("iova-preflight.1");
    for target in [&victim, &folder.join("new")] {
        let _ = std::fs::remove_file(&page);
        symlink(target, &page).expect("a link");
        ours(&["man", theirs.to_str().expect("UTF-8")]);
        assert!(std::fs::symlink_metadata(&page).expect("there").is_file(), "the page itself is there");
    }
    assert_eq!(std::fs::read_to_string(&victim).expect("there"), "mine");
    assert!(!folder.join("new").exists());

    // What is not a file, and a link to that, is left as it is: `/dev/null` would become a file for everybody.
    for target in ["/dev/null", "/dev/stdout", "/"] {
        std::fs::remove_file(&page).expect("removed");
        symlink(target, &page).expect("a link");
        let output = Command::new(PROGRAM).arg("man").arg(&theirs).output().expect("run man");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("iova-preflight.1: "), "{target}: {said}");
        assert!(std::fs::symlink_metadata(&page).expect("there").is_symlink(), "{target}");
    }

    // Nor is the folder a link of another user.
    let link = folder.join("link");
    symlink(folder.join("elsewhere"), &link).expect("a link");
    if lchown(&link, Some(1234), None).is_err() {
        return crate::common::skip("only root can give a link to another owner");
    }
    for there in [false, true] {
        if there {
            std::fs::create_dir(folder.join("elsewhere")).expect("a folder");
        }
        let output = Command::new(PROGRAM).arg("man").arg(&link).output().expect("run man");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("link is a symbolic link of user 1234"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.join("elsewhere")).expect("a folder").count(), 0);
}

#[test]
fn pages_are_the_same_every_time_and_the_first_is_printed() {
    let read = |pages: &[PathBuf]| -> Vec<Vec<u8>> {
        pages.iter().map(|page| std::fs::read(page).expect("readable")).collect()
    };
    let first = pages();
    let content = read(&first);
    assert_eq!(read(&pages()), content);
    let program = first.iter().position(|page| page.ends_with("iova-preflight.1")).expect("there");
    assert_eq!(ours(&["man"]).stdout, content[program]);
}

#[test]
fn man_shows_the_pages_without_a_warning() {
    if !is_there("man") {
        return;
    }
    for page in pages() {
        let mut man = Command::new("man");
        // In the POSIX locale there are no characters beyond ASCII, which man warns of.
        man.args(["--warnings", "-l"]).arg(&page).envs([("MANWIDTH", "80"), ("LC_ALL", "C.UTF-8")]);
        let output = run(&mut man);
        let (text, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == section), "{}: no {section}\n{text}", page.display());
        }
    }
}

#[test]
fn the_exit_status_has_its_section() {
    let folder = crate::common::work_dir("man-exit-status");
    ours(&["man", folder.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(folder.join("iova-preflight-check.1")).expect("made");
    let (_, section) = page.split_once(".SH \"EXIT STATUS\"\n").expect("a section EXIT STATUS");
    assert!(section.starts_with("0 every guest may start"), "{section}");
}

#[test]
fn mandoc_finds_nothing_but_the_missing_date() {
    if !is_there("mandoc") {
        return;
    }
    let output = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages()));
    let text = String::from_utf8_lossy(&output.stdout);
    // A date would be that of the build. The break between what an option does and its values is the generator's.
    let known = ["missing date, using \"\"", "skipping paragraph macro: br "];
    let others: Vec<&str> = text.lines().filter(|line| !known.iter().any(|known| line.contains(known))).collect();
    assert!(text.contains("missing date"), "mandoc looked at nothing: {text}");
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn every_shell_gets_a_script() {
    for (shell, start) in [
        ("bash", "_iova__preflight() {"),
        ("zsh", "#compdef iova-preflight"),
        ("fish", ""),
        ("elvish", ""),
        ("powershell", ""),
    ] {
        let script = String::from_utf8(ours(&["completions", shell]).stdout).expect("UTF-8");
        assert!(script.starts_with(start) && script.contains("in-place"), "{shell}: {script}");
    }
}

/// What a real bash offers once `words` have been typed, the last of them not to its end.
fn bash_offers(script: &Path, words: &[&str]) -> Vec<String> {
    let program = "source \"$1\" && shift && COMP_WORDS=(\"$@\") && COMP_CWORD=$(($# - 1)) && \
        function=$(complete -p iova-preflight | sed 's/.*-F \\([^ ]*\\).*/\\1/') && \
        \"$function\" \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\" && \
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = run(Command::new("bash").args(["-c", program, "bash"]).arg(script).args(words));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    if !is_there("bash") {
        return;
    }
    let script = crate::common::work_dir("completions").join("iova-preflight.bash");
    std::fs::write(&script, ours(&["completions", "bash"]).stdout).expect("written");
    let checked = run(Command::new("bash").arg("-n").arg(&script));
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    for (words, offers) in [
        (&["iova-preflight", "che"][..], &["check"][..]),
        (&["iova-preflight", "fix", "--in-"], &["--in-place"]),
        (&["iova-preflight", "check", "--inp"], &["--input"]),
        (&["iova-preflight", "hook", "un"], &["uninstall"]),
        (&["iova-preflight", "check", "--format", "hu"], &["human"]),
        (&["iova-preflight", "check", "--color", ""], &["auto", "always", "never"]),
    ] {
        assert_eq!(bash_offers(&script, words), offers, "{words:?}");
    }
}
