//! Files while `fix` writes them, and after it was killed.

use super::{command, fixable, fixed, names, read, write};
use crate::common::{note, work_dir};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Moments at which a run is killed, evenly spread over the time that one takes.
const MOMENTS: u32 = 150;

/// The step to the next moment: with it, every moment is tried.
const STRIDE: u32 = 67;

/// The number of runs killed at work that is enough.
const ENOUGH: usize = 50;

/// Files large enough that being written takes a while.
fn large(text: &str) -> String {
    text.replace("</name>\n", &format!("</name>\n  <!--{}-->\n", " padding".repeat(100_000)))
}

#[test]
fn a_killed_run_leaves_every_file_complete() {
    const FILES: [&str; 4] = ["a.xml", "b.xml", "c.xml", "d.xml"];
    let folder = work_dir("fix-killed");
    let (old, new) = (large(&fixable()), large(&fixed()));
    let reset = || FILES.map(|name| write(&folder, name, &old));
    let start = || {
        let mut command = command();
        command.args(["-q", "-i", "."]).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("run iova-preflight")
    };
    let time_of_a_run = || {
        reset();
        let begin = Instant::now();
        assert!(start().wait().expect("wait for iova-preflight").success());
        begin.elapsed()
    };
    let (mut killed, mut partly, mut temporaries) = (0, 0, 0);
    let mut whole_run = Duration::MAX;
    // On a busy machine it may take many before one is killed at work.
    for number in 0..100 * MOMENTS {
        if number % MOMENTS == 0 {
            if partly > 0 {
                break;
            }
            // The fastest of a few: later ones would mostly find a run that has ended.
            whole_run = (0..3).map(|_| time_of_a_run()).min().expect("three");
        }
        if partly >= ENOUGH {
            break;
        }
        let paths = reset();
        let mut child = start();
        std::thread::sleep(whole_run * (number * STRIDE % MOMENTS) / MOMENTS);
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
        "fix: runs of {whole_run:?}, {killed} killed, {partly} with some files rewritten, \
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
fn a_concurrent_reader_sees_a_complete_file() {
    let folder = work_dir("fix-read");
    let (old, new) = (large(&fixable()), large(&fixed()));
    let (mut seen_old, mut seen_new) = (0, 0);
    for run in 0..1000 {
        // On a busy machine a run may be over before anything is read.
        if run >= 10 && seen_old > 0 {
            break;
        }
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
