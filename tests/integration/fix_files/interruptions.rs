//! Files while `fix` writes them, and after it was killed.

use super::{command, fixable, fixed, names, read, write};
use crate::common::{note, work_dir};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Runs that are killed, evenly spread over the time that one takes.
const KILLS: u32 = 150;

/// Files large enough that being written takes a while.
fn large(text: &str) -> String {
    text.replace("</name>\n", &format!("</name>\n  <!--{}-->\n", " padding".repeat(100_000)))
}

#[test]
fn whenever_it_is_killed_every_file_is_whole() {
    const FILES: [&str; 4] = ["a.xml", "b.xml", "c.xml", "d.xml"];
    let folder = work_dir("fix-killed");
    let (old, new) = (large(&fixable()), large(&fixed()));
    let reset = || FILES.map(|name| write(&folder, name, &old));
    let start = || {
        let mut command = command();
        command.args(["-q", "-i", "."]).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("run iova-preflight")
    };
    // The fastest of a few: later ones would mostly find a run that has ended.
    let mut whole_run = Duration::MAX;
    for _ in 0..3 {
        reset();
        let begin = Instant::now();
        assert!(start().wait().expect("wait for iova-preflight").success());
        whole_run = whole_run.min(begin.elapsed());
    }
    let (mut killed, mut partly, mut temporaries) = (0, 0, 0);
    for number in 0..KILLS {
        let paths = reset();
        let mut child = start();
        std::thread::sleep(whole_run * number / KILLS);
        child.kill().expect("kill it");
        killed += usize::from(child.wait().expect("wait for iova-preflight").code().is_none());
        let rewritten = paths.iter().filter(|path| is_new(path, &old, &new)).count();
        partly += usize::from(0 < rewritten && rewritten < FILES.len());
        for name in names(&folder).iter().filter(|name| !FILES.contains(&name.as_str())) {
            assert!(name.starts_with('.'), "{name} is left behind");
            assert!(!name.ends_with(".xml"), "{name} would be taken for a domain");
            temporaries += 1;
            std::fs::remove_file(folder.join(name)).expect("remove a temporary file");
        }
    }
    note(&format!(
        "fix: {KILLS} runs of {whole_run:?}, {killed} killed, {partly} with some files rewritten, \
         {temporaries} temporary files left"
    ));
    assert!(killed > 0 && partly > 0, "no run was killed at work: {killed} killed, {partly} with some files rewritten");
}

/// Whether a file is the new one; it has to be that or the old one, with the old one's mode.
fn is_new(path: &Path, old: &str, new: &str) -> bool {
    let now = read(path);
    assert!(now == old || now == new, "{} is neither the old nor the new file ({} bytes)", path.display(), now.len());
    now == new
}

#[test]
fn whoever_reads_meanwhile_sees_a_whole_file() {
    let folder = work_dir("fix-read");
    let (old, new) = (large(&fixable()), large(&fixed()));
    let (mut seen_old, mut seen_new) = (0, 0);
    for _ in 0..10 {
        let path = write(&folder, "a.xml", &old);
        let mut child = command().args(["-q", "-i", "a.xml"]).current_dir(&folder).spawn().expect("run iova-preflight");
        while child.try_wait().expect("ask for iova-preflight").is_none() {
            match is_new(&path, &old, &new) {
                true => seen_new += 1,
                false => seen_old += 1,
            }
        }
        assert!(is_new(&path, &old, &new));
    }
    note(&format!("fix: read the old file {seen_old} times and the new one {seen_new} times during 10 runs"));
    assert!(seen_old > 0);
}
