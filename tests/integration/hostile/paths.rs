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
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program]);
        command
    };
    let works = command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    works.is_ok_and(|status| status.success()).then(command)
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
