//! Where `fix` writes, and which files it does not touch.

use super::{blocked, code, command, fine, fix, fixable, fixed, names, read, run, stderr, stdout, write};
use crate::common::{skip, work_dir};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

#[test]
fn exit_codes() {
    let folder = work_dir("fix-exit");
    let reset = || {
        for (name, text) in [("a.xml", fixable()), ("b.xml", blocked()), ("c.xml", fine())] {
            write(&folder, name, &text);
        }
        write(&folder, "d.xml", "<domain><name>");
    };
    std::fs::create_dir(folder.join("empty")).expect("create a folder");
    for (arguments, expected, written) in [
        (vec!["c.xml"], 0, false),
        (vec!["-i", "c.xml"], 0, false),
        (vec!["a.xml"], 1, false),
        (vec!["--diff", "a.xml", "c.xml"], 1, false),
        (vec!["-i", "a.xml"], 0, true),
        (vec!["--in-place", "c.xml", "a.xml"], 0, true),
        (vec!["b.xml"], 1, false),
        (vec!["-i", "b.xml"], 1, false),
        (vec!["-i", "b.xml", "a.xml"], 1, true),
        (vec!["d.xml"], 2, false),
        (vec!["-i", "d.xml", "b.xml", "a.xml"], 2, true),
        (vec!["-i", "missing.xml", "a.xml"], 2, true),
        (vec!["-i", "empty", "a.xml"], 2, true),
        (vec!["-i", "."], 2, true),
        (vec!["-i", "--diff", "a.xml"], 2, false),
        (vec![], 2, false),
    ] {
        reset();
        let output = run(&folder, &arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", stderr(&output));
        let now = read(&folder.join("a.xml"));
        assert_eq!(now, if written { fixed() } else { fixable() }, "{arguments:?}");
        assert_eq!(read(&folder.join("b.xml")), blocked(), "{arguments:?}");
        assert_eq!(read(&folder.join("c.xml")), fine(), "{arguments:?}");
    }
}

#[test]
fn standard_input() {
    for (input, expected, printed) in [
        (fine(), 0, fine()),
        (fixable(), 0, fixed()),
        (blocked(), 1, String::new()),
        ("<domain>".to_owned(), 2, String::new()),
        ("<network><name>a</name></network>".to_owned(), 2, String::new()),
        (String::new(), 2, String::new()),
    ] {
        let output = fix(&input);
        assert_eq!((code(&output), stdout(&output)), (expected, printed), "{}", stderr(&output));
        assert_eq!(stderr(&output).is_empty(), input == fine(), "{}", stderr(&output));
    }
    assert!(stderr(&fix(&fixable())).contains("pc-q35-6.2 → pc-q35-7.1"));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let folder = work_dir("fix-full");
    for (name, text) in [("lines.xml", fixable()), ("line.xml", fixable().replace('\n', "")), ("fine.xml", fine())] {
        let path = write(&folder, name, &text);
        for argument in ["-", name] {
            if name == "fine.xml" && argument != "-" {
                continue;
            }
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
            let input = std::fs::File::open(&path).expect("open the domain");
            let mut command = command();
            command.arg(argument).current_dir(&folder).stdin(input).stdout(full);
            let output = command.output().expect("run iova-preflight");
            assert_eq!(code(&output), 2, "{name} as {argument}: {}", stderr(&output));
            assert!(!output.stderr.is_empty(), "{name} as {argument}");
        }
    }
}

#[test]
fn in_place_takes_every_xml_file_of_a_folder_and_no_other() {
    let folder = work_dir("fix-folder");
    for name in ["a.xml", "b/b.xml", "b/c/c.xml", "b/notes.txt", "b/old.xml.bak"] {
        write(&folder, name, &fixable());
    }
    write(&folder, "b/fine.xml", &fine());
    let output = run(&folder, &["-i", "."]);
    assert_eq!((code(&output), stdout(&output)), (0, String::new()), "{}", stderr(&output));
    for name in ["a.xml", "b/b.xml", "b/c/c.xml"] {
        assert_eq!(read(&folder.join(name)), fixed(), "{name}");
        assert!(stderr(&output).contains(name), "{name} is not named: {}", stderr(&output));
    }
    for name in ["b/notes.txt", "b/old.xml.bak"] {
        assert_eq!(read(&folder.join(name)), fixable(), "{name}");
    }
    assert_eq!(names(&folder), ["a.xml", "b"]);
    assert_eq!(names(&folder.join("b")), ["b.xml", "c", "fine.xml", "notes.txt", "old.xml.bak"]);
    let quiet = run(&folder, &["-q", "-i", "."]);
    assert_eq!((code(&quiet), stdout(&quiet), stderr(&quiet)), (0, String::new(), String::new()));
}

#[test]
fn one_that_cannot_be_replaced_does_not_keep_the_others_from_it() {
    let folder = work_dir("fix-irreplaceable");
    write(&folder, "a.xml", &fixable());
    // A pipe can be read, but not replaced.
    let mut command = command();
    command.args(["-i", "/dev/stdin", "a.xml"]).current_dir(&folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run iova-preflight");
    // It is not read, and may be closed by now.
    let _ = child.stdin.take().expect("a pipe").write_all(fixable().as_bytes());
    let output = child.wait_with_output().expect("wait for iova-preflight");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("/dev/stdin: a pipe, not a regular file"), "{}", stderr(&output));
    assert_eq!(read(&folder.join("a.xml")), fixed(), "{}", stderr(&output));
}

#[test]
fn in_place_keeps_the_mode() {
    let folder = work_dir("fix-mode");
    for mode in [0o600, 0o640, 0o644, 0o444, 0o664, 0o755, 0o2640] {
        let path = write(&folder, &format!("{mode:o}.xml"), &fixable());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set the mode");
        let output = run(&folder, &["-i", &format!("{mode:o}.xml")]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let now = std::fs::metadata(&path).expect("the file is there").mode() & 0o7777;
        assert_eq!(format!("{now:o}"), format!("{mode:o}"));
        assert_eq!(read(&path), fixed());
    }
}

#[test]
fn in_place_keeps_the_owner() {
    let folder = work_dir("fix-owner");
    let path = write(&folder, "a.xml", &fixable());
    if std::fs::metadata(&path).expect("the file is there").uid() != 0 {
        return skip("only root can give a file to another owner");
    }
    for mode in [0o640, 0o6750] {
        write(&folder, "a.xml", &fixable());
        chown(&path, Some(1234), Some(4321)).expect("change the owner");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set the mode");
        let output = run(&folder, &["-i", "a.xml"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let now = std::fs::metadata(&path).expect("the file is there");
        assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (1234, 4321, mode));
        assert_eq!(read(&path), fixed());
        std::fs::remove_file(&path).expect("remove the file");
    }
}

#[test]
fn a_link_stays_a_link() {
    let folder = work_dir("fix-link");
    let target = write(&folder, "real/a.xml", &fixable());
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).expect("set the mode");
    std::fs::create_dir(folder.join("links")).expect("create a folder");
    let (link, chain) = (folder.join("links/a.xml"), folder.join("links/chain.xml"));
    symlink("../real/a.xml", &link).expect("link");
    symlink("a.xml", &chain).expect("link");
    let output = run(&folder, &["-i", "links/chain.xml"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read_link(&chain).expect("still a link"), Path::new("a.xml"));
    assert_eq!(std::fs::read_link(&link).expect("still a link"), Path::new("../real/a.xml"));
    let now = std::fs::symlink_metadata(&target).expect("the file is there");
    assert!(now.is_file());
    assert_eq!(now.mode() & 0o7777, 0o640);
    assert_eq!(read(&target), fixed());
    assert_eq!(names(&folder.join("real")), ["a.xml"]);
    assert_eq!(names(&folder.join("links")), ["a.xml", "chain.xml"]);
}

#[test]
fn what_needs_no_change_is_not_touched() {
    let folder = work_dir("fix-untouched");
    let path = write(&folder, "a.xml", &fixable());
    for (name, text) in [("b.xml", blocked()), ("c.xml", fine())] {
        write(&folder, name, &text);
    }
    assert_eq!(code(&run(&folder, &["-i", "."])), 1);
    let identity = |path: &Path| {
        let now = std::fs::metadata(path).expect("the file is there");
        (now.ino(), now.mtime(), now.mtime_nsec(), now.ctime(), now.ctime_nsec())
    };
    let all = || ["a.xml", "b.xml", "c.xml"].map(|name| identity(&folder.join(name)));
    let before = all();
    let output = run(&folder, &["-i", "."]);
    assert_eq!((code(&output), stdout(&output)), (1, String::new()), "{}", stderr(&output));
    assert_eq!(code(&run(&folder, &["."])), 1);
    assert_eq!(all(), before);
    assert_eq!(read(&path), fixed());
}
