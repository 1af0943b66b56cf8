//! The hook's time limits.

use super::{AT_LAST, HOOK, Place, Run, doomed, spawn};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is written to the hook's standard input, and when.
enum Input {
    /// Nothing, and it stays open.
    Nothing,
    /// A byte every two seconds.
    Trickle(Vec<u8>),
    /// Half of it, and the rest after this time.
    Pause(Vec<u8>, Duration),
    /// A domain whose `<metadata>` does not end.
    Endless,
}

/// Calls the hook through a command that ends in it.
fn wait_for(command: &mut Command, input: &Input) -> Run {
    let start = Instant::now();
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let wait = move |time| matches!(ended.recv_timeout(time), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        scope.spawn(move || match input {
            Input::Nothing => {
                wait(AT_LAST);
                drop(stdin);
            }
            Input::Trickle(bytes) => {
                let mut bytes = bytes.iter();
                while bytes.next().is_some_and(|byte| stdin.write_all(&[*byte]).is_ok()) && wait(Duration::from_secs(2))
                {
                }
            }
            Input::Pause(bytes, time) => {
                let (first, rest) = bytes.split_at(bytes.len() / 2);
                let _ = stdin.write_all(first).and_then(|()| {
                    wait(*time);
                    stdin.write_all(rest)
                });
            }
            Input::Endless => {
                let piece = b"<a>x</a>".repeat(8192);
                let _ = stdin.write_all(b"<domain type='kvm'><name>db</name><metadata>");
                while stdin.write_all(&piece).is_ok() {}
            }
        });
        let output = child.wait_with_output().expect("wait for the hook");
        drop(end);
        output
    });
    Run { output, took: start.elapsed() }
}

/// By the clock it waits 30 seconds for a byte, and 120 for everything; time that a busy machine takes does not count
/// as its own. All of these wait at the same time.
#[test]
fn it_waits_for_its_input_but_not_for_ever() {
    let Some((allow, _)) = Place::own("hung-allow") else { return };
    let Some((block, set_policy)) = Place::own("hung-block") else { return };
    set_policy("on_internal_error = 'block'\n");
    let (allow_log, block_log) = (allow.namespace().system_log(), block.namespace().system_log());
    let call = |place: &Place, name: &str, input: Input| {
        wait_for(place.command(&HOOK).args([name, "prepare", "begin", "-"]), &input)
    };
    let signals = |name: &str, option: &str| {
        let words = [option, &HOOK, name, "prepare", "begin", "-"];
        wait_for(allow.command("env").args(words), &Input::Nothing)
    };
    let waited = |run: &Run, seconds: u64| {
        // It may be late on a busy machine, but never early.
        assert!(run.took > Duration::from_millis(seconds * 1000 - 100), "gave up after {:?}", run.took);
    };
    std::thread::scope(|scope| {
        for (name, option) in [
            ("g1", "--block-signal=ALRM"),
            ("g2", "--ignore-signal=ALRM"),
            ("g3", "--block-signal"),
            ("g4", "--ignore-signal"),
        ] {
            scope.spawn(move || {
                let run = signals(name, option);
                run.assert_passed();
                waited(&run, 30);
            });
        }
        scope.spawn(|| {
            let run = call(&allow, "g5", Input::Nothing);
            run.assert_passed();
            waited(&run, 30);
        });
        scope.spawn(|| {
            let run = call(&block, "g6", Input::Nothing);
            let line = run.assert_stopped();
            assert!(line.contains("internal error") && line.contains("no decision") && line.contains("g6"), "{line}");
            waited(&run, 30);
        });
        scope.spawn(|| {
            let run = call(&allow, "g7", Input::Trickle(doomed()));
            run.assert_passed();
            waited(&run, 120);
        });
        scope.spawn(|| {
            let run = call(&block, "g8", Input::Trickle(doomed()));
            assert!(run.assert_stopped().contains("no decision"));
            waited(&run, 120);
        });
        scope.spawn(|| {
            call(&allow, "db", Input::Pause(doomed(), Duration::from_secs(12))).assert_stopped();
        });
        // At operations that cannot stop a guest there is nothing to wait for.
        scope.spawn(|| {
            let run = wait_for(allow.command(&HOOK).args(["g9", "reconnect", "begin", "-"]), &Input::Nothing);
            run.assert_passed();
            assert!(run.took < Duration::from_secs(30), "waited {:?}", run.took);
        });
    });
    let named = |lines: Vec<String>, names: &[&str]| {
        for name in names {
            let of_this = |line: &&String| line.contains(&format!("guest {name} "));
            let found: Vec<&String> = lines.iter().filter(of_this).collect();
            assert!(found.len() == 1 && found[0].starts_with("<27>") && found[0].contains("no decision"), "{lines:?}");
        }
    };
    named(allow_log.lines(), &["g1", "g2", "g3", "g4", "g5", "g7"]);
    named(block_log.lines(), &["g6", "g8"]);
}

#[test]
fn it_takes_two_seconds_of_the_cpu_and_no_more() {
    let Some((place, set_policy)) = Place::own("cpu-time") else { return };
    let log = place.namespace().system_log();
    let call = || wait_for(place.command(&HOOK).args(["db", "prepare", "begin", "-"]), &Input::Endless);
    call().assert_passed();
    let lines = log.lines();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("<27>") && line.contains("guest db ") && line.contains("2 seconds of CPU time"), "{line}");
    set_policy("on_internal_error = 'block'\n");
    assert!(call().assert_stopped().contains("guest db is stopped"));
}

#[test]
fn the_hook_does_not_wait_for_the_system_log() {
    let Some((place, _)) = Place::own("full-log") else { return };
    let _log = place.namespace().system_log();
    // The kernel keeps a few datagrams for a slow reader, then a sender waits.
    for _ in 0..30 {
        let run = place.hook("db", "prepare", &doomed());
        run.assert_stopped();
        assert!(run.took < Duration::from_secs(30), "waited {:?}", run.took);
    }
}
