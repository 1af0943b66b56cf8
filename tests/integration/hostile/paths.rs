//! Paths that cannot be read, and what folders give.

use super::{GOOD, check, make_pipe, run};
use crate::common::{skip, work_dir};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn unreadable_paths_are_named_and_the_rest_is_evaluated() {
    let folder = work_dir("hostile-paths");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    let missing = folder.join("missing.xml");
    let broken_link = folder.join("broken-link.xml");
    symlink(folder.join("nowhere"), &broken_link).expect("make a link");
    let loop_link = folder.join("loop.xml");
    symlink(&loop_link, &loop_link).expect("make a link");
    let below_file = good.join("x.xml");
    let long = folder.join("x".repeat(300));
    let run = check(&[&missing, &broken_link, &loop_link, &below_file, &long, &good]);
    assert_eq!(run.code(), Some(2));
    for (path, words) in [
        (&missing, "No such file"),
        (&broken_link, "No such file"),
        (&loop_link, "symbolic link"),
        (&below_file, "Not a directory"),
        (&long, "too long"),
    ] {
        run.assert_message(path, words);
    }
    assert_eq!(run.stderr.lines().count(), 5, "{}", run.stderr);
    run.assert_passes(&good);
}

#[test]
fn unreadable_files_are_named() {
    let folder = work_dir("hostile-permissions");
    let (good, secret, closed) = (folder.join("good.xml"), folder.join("secret.xml"), folder.join("closed"));
    std::fs::write(&good, GOOD).expect("write a file");
    std::fs::write(&secret, GOOD).expect("write a file");
    std::fs::create_dir(&closed).expect("create a folder");
    std::fs::write(closed.join("inside.xml"), GOOD).expect("write a file");
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    mode(&secret, 0o000);
    mode(&closed, 0o000);
    let Some(mut command) = unprivileged() else {
        return skip("this is root, and setpriv cannot run the program as somebody else");
    };
    let run = run(command.args(["check", "--policy", "none", "--host", "amd-epyc"]).arg(&folder), b"");
    mode(&closed, 0o755);
    assert_eq!(run.code(), Some(2), "{}", run.stderr);
    run.assert_message(&secret, "Permission denied");
    run.assert_message(&closed, "Permission denied");
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    run.assert_passes(&good);
}

/// The program, run by somebody for whom permissions count.
fn unprivileged() -> Option<Command> {
    let program = env!("CARGO_BIN_EXE_iova-preflight");
    let command = || {
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program]);
        command
    };
    let works = command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    works.is_ok_and(|status| status.success()).then(command)
}

/// Whatever a user names, opening it does not wait: an input, a profile, a policy, a file to be fixed.
#[test]
fn a_pipe_that_no_program_writes_to_is_an_error() {
    let folder = work_dir("hostile-no-writer");
    let (pipe, good) = (folder.join("pipe"), folder.join("good.xml"));
    make_pipe(&pipe);
    std::fs::write(&good, GOOD).expect("write a file");
    let (pipe, good) = (pipe.to_str().expect("UTF-8"), good.to_str().expect("UTF-8"));
    const NO_WRITER: &str = "an empty pipe: no program writes to it";
    for (arguments, words) in [
        (&["check", "--policy", "none", pipe, good][..], NO_WRITER),
        (&["check", "--policy", "none", "--host", pipe, good], NO_WRITER),
        (&["check", "--policy", "none", "--from", "amd-epyc", "--to", pipe, good], NO_WRITER),
        (&["check", "--policy", pipe, good], NO_WRITER),
        (&["map", "--policy", "none", pipe], NO_WRITER),
        (&["fix", "--policy", "none", pipe], "a pipe, not a regular file"),
        (&["fix", "--policy", "none", "--in-place", pipe], "a pipe, not a regular file"),
        (&["check", "--policy", "none", "/proc/kmsg"], if is_root() { "not a file with an end" } else { "" }),
    ] {
        let run = run(Command::new(env!("CARGO_BIN_EXE_iova-preflight")).args(arguments), b"");
        assert_eq!(run.code(), Some(2), "{arguments:?}: {}", run.stderr);
        let last = run.stderr.lines().last().unwrap_or_default();
        let named = arguments.iter().any(|argument| argument.starts_with('/') && last.contains(argument));
        assert!(named && last.contains(words), "{arguments:?}: {}", run.stderr);
        // The rest is evaluated.
        let inputs = arguments.ends_with(&["none", pipe, good]);
        assert_eq!(run.stdout.contains("good.xml (good)"), inputs, "{arguments:?}: {}", run.stdout);
    }
}

/// `<(…)` of a shell is such a pipe.
#[test]
fn a_pipe_is_read_to_its_end() {
    let folder = work_dir("hostile-writer");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    let line = format!(
        "{0} check --policy <(true) --host <(sleep 0.1; {0} host) <(sleep 0.1; cat {1}) /dev/stdin < <(cat {1})",
        env!("CARGO_BIN_EXE_iova-preflight"),
        good.display()
    );
    let run = run(Command::new("bash").args(["-c", &line]), b"");
    assert!(run.code() == Some(0) && run.stdout.matches("(good)").count() == 2, "{}{}", run.stdout, run.stderr);
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[test]
fn folders_give_their_regular_files_only() {
    let folder = work_dir("hostile-folder");
    let good = folder.join("b.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    std::fs::write(folder.join("a.txt"), "not XML").expect("write a file");
    std::fs::write(folder.join("xml"), "not XML").expect("write a file");
    let inside = folder.join("folder.xml");
    std::fs::create_dir(&inside).expect("create a folder");
    std::fs::write(inside.join("c.xml"), GOOD.replace(">good<", ">inner<")).expect("write a file");
    symlink(&folder, folder.join("circle")).expect("make a link");
    symlink(folder.join("nowhere"), folder.join("broken.xml")).expect("make a link");
    symlink("/dev/zero", folder.join("zero.xml")).expect("make a link");
    make_pipe(&folder.join("pipe.xml"));
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("s.xml")).expect("make a socket");
    for path in [&folder, &folder.join("circle/")] {
        let run = check(&[path]);
        assert_eq!((run.code(), run.stderr.as_str()), (Some(0), ""));
        let evaluated = run.stdout.lines().filter(|line| line.starts_with("pass")).count();
        assert_eq!(evaluated, 2, "{}", run.stdout);
        assert!(
            run.stdout.contains("b.xml (good)") && run.stdout.contains("folder.xml/c.xml (inner)"),
            "{}",
            run.stdout
        );
    }
    let run = check(&[&inside]);
    assert_eq!(run.code(), Some(0), "a folder named like a file: {}", run.stderr);
}
