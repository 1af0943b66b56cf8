//! What reaches the terminal, and streams that are closed or full.

use super::{GOOD, REALISTIC, check_command, run};
use crate::common::{end_of, skip, work_dir};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

#[test]
fn nothing_in_a_document_or_a_path_commands_the_terminal() {
    // CSI and OSC as single characters, text direction, and a separator that some terminals act on. ESC itself is not
    // allowed in XML.
    const EVIL: &str = "\u{9b}31m\u{9d}0;title\u{9c}\u{202e}\u{2066}\u{200f}\u{85}\u{2028}";
    let folder = work_dir("hostile-terminal");
    let everywhere = REALISTIC
        .replace("<name>db-1", &format!("<name>{EVIL}"))
        .replace("'pc-q35-6.2'>", &format!("'pc-q35-6.2' x='{EVIL}'><!-- {EVIL} -->"))
        .replace("GiB'>1200</memory>", &format!("GiB'>1200</memory>{EVIL}"))
        .replace("<cpu mode", &format!("{EVIL}<cpu x='{EVIL}' mode"))
        .replace("bus='0x41'", &format!("bus='0x41' x='{EVIL}'"))
        .replace("-no-hpet", EVIL);
    let mut documents = vec![everywhere];
    let inside = |xml: String| GOOD.replace("</domain>", &format!("{xml}\n</domain>"));
    documents.push(GOOD.replace("'kvm'", &format!("'{EVIL}'")));
    documents.push(GOOD.replace("x86_64", EVIL));
    documents.push(GOOD.replace("hvm", EVIL));
    documents.push(GOOD.replace("pc-q35-7.2", EVIL));
    documents.push(GOOD.replace("pc-q35-7.2", &format!("pc-q35-{EVIL}")));
    documents.push(GOOD.replace("GiB", EVIL));
    documents.push(GOOD.replace(">4<", &format!(">{EVIL}<")));
    documents.push(inside(format!("<maxMemory slots='{EVIL}'>1</maxMemory>")));
    documents.push(inside(format!("<cpu mode='{EVIL}'/>")));
    documents.push(inside(format!("<cpu><feature policy='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<cpu><model vendor_id='{EVIL}'>{EVIL}</model><vendor>{EVIL}</vendor></cpu>")));
    documents.push(inside(format!("<cpu><maxphysaddr mode='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<cpu><maxphysaddr mode='emulate' bits='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<devices><memory model='{EVIL}'/></devices>")));
    documents.push(inside(format!("<devices><iommu model='{EVIL}'/><emulator>{EVIL}</emulator></devices>")));
    documents.push(inside(format!("<launchSecurity type='{EVIL}'/>")));
    documents.push(inside(format!("&{EVIL};")));
    documents.push(inside(format!("</{EVIL}>")));
    documents.push(inside(format!("<{EVIL}/>")));
    documents.push(inside(format!("<a {EVIL}='1'/>")));
    documents.push(inside(format!(
        "<metadata><p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{EVIL}'/></metadata>"
    )));
    documents.push(format!("<?xml version='1.0' encoding='{EVIL}'?><domain/>"));
    documents.push(format!("<?xml version='1.0' {EVIL}=''?><domain/>"));
    documents.push(format!("{EVIL}<domain/>"));
    documents.push("<domain>\u{1b}[31m</domain>".to_owned());
    let mut paths = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let path = folder.join(format!("{number}.xml"));
        std::fs::write(&path, document).expect("write a file");
        paths.push(path);
    }
    for name in ["\u{1b}[31mred.xml", "two\nlines.xml", "\u{202e}lmx.xml", "\u{9b}31m.xml", "missing\u{1b}]0;x\u{7}"] {
        let path = folder.join(name);
        if !name.starts_with("missing") {
            std::fs::write(&path, REALISTIC).expect("write a file");
        }
        paths.push(path);
    }
    let not_utf8 = folder.join(OsStr::from_bytes(b"caf\xe9.xml"));
    std::fs::write(&not_utf8, GOOD).expect("write a file");
    paths.push(not_utf8);
    for arguments in [&[][..], &["--verbose"], &["--quiet"]] {
        let run = run(check_command().args(arguments).args(&paths), b"");
        assert_eq!(run.code(), Some(2));
        for text in [&run.stdout, &run.stderr] {
            let raw = |c: char| (c.is_control() && c != '\n') || EVIL.contains(c) && !c.is_ascii();
            let bad: Vec<String> =
                text.lines().filter(|line| line.contains(raw)).map(str::escape_debug).map(|l| l.to_string()).collect();
            assert!(bad.is_empty(), "{arguments:?}: reaches the terminal:\n{}", bad.join("\n"));
        }
        assert_eq!(run.stdout.is_empty(), arguments == ["--quiet"], "{}", run.stdout);
    }
}

#[test]
fn a_reader_that_leaves_is_not_complained_about() {
    let folder = work_dir("hostile-closed");
    for number in 0..200 {
        std::fs::write(folder.join(format!("{number}.xml")), REALISTIC).expect("write a file");
    }
    for format in ["human", "json"] {
        let mut child = check_command()
            .args(["--format", format])
            .arg(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run iova-preflight");
        let mut first = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::with_capacity(64, stdout).read_line(&mut first).expect("a line");
        assert!(!first.is_empty(), "{format}: nothing on stdout");
        let status = end_of(&mut child);
        let mut stderr = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("read stderr");
        // These guests do not start. Whether the rest fits into the pipe before its end is closed is a matter of time.
        assert!(status.code() == Some(1) || status.signal() == Some(13), "{format}: {status:?}, {stderr}");
        assert_eq!(stderr, "", "{format}");
    }
}

/// The errors are not read, but the exit status still tells.
#[test]
fn a_closed_standard_error_changes_nothing_else() {
    let folder = work_dir("hostile-closed-stderr");
    let (wrong, good) = (folder.join("a.xml"), folder.join("b.xml"));
    std::fs::write(&wrong, "x").expect("write a file");
    std::fs::write(&good, GOOD).expect("write a file");
    for arguments in [&[][..], &["--quiet"], &["--format", "json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = check_command().args(arguments).args([&wrong, &good]).stderr(writer).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("b.xml") || arguments == ["--quiet"],
            "{arguments:?}: the rest is not evaluated:\n{text}"
        );
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return skip("/dev/full is not there");
    };
    let folder = work_dir("hostile-full");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    for format in ["human", "json"] {
        let stdout = full.try_clone().expect("the same file again");
        let output = check_command().args(["--format", format]).arg(&good).stdout(stdout).output().expect("run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{format}: {stderr}");
        assert!(stderr.contains("No space left") && stderr.lines().count() == 1, "{format}: {stderr}");
    }
}
