//! What the machine lacks, and how the guest fares.

use super::{HOOK, Place, doomed, fine};
use crate::common::guest::Guest;
use crate::common::skip;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// The hook does not wait for a reader, and the decision holds.
#[test]
fn a_blocked_standard_error_changes_nothing() {
    let Some((place, set_policy)) = Place::own("blocked-stderr") else { return };
    let _log = place.namespace().system_log();
    let full_pipe = || {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // What a pipe holds (pipe(7)).
        writer.write_all(&[0; 65_536]).expect("it is empty");
        (OwnedFd::from(reader), OwnedFd::from(writer))
    };
    let full_socket = || {
        let (reader, mut writer) = std::os::unix::net::UnixStream::pair().expect("a socket");
        writer.set_nonblocking(true).expect("for now");
        while writer.write(&[0; 4096]).is_ok() {}
        writer.set_nonblocking(false).expect("as it was");
        (OwnedFd::from(reader), OwnedFd::from(writer))
    };
    let closed_pipe = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        (OwnedFd::from(writer.try_clone().expect("another")), OwnedFd::from(writer))
    };
    for policy in ["", "on_internal_error = 'block'\n"] {
        set_policy(policy);
        for full in [&full_pipe as &dyn Fn() -> (OwnedFd, OwnedFd), &full_socket, &closed_pipe] {
            for (input, stopped) in [(doomed(), true), (b"<a".to_vec(), !policy.is_empty()), (fine(), false)] {
                let (_reader, writer) = full();
                let mut command = place.command(&HOOK);
                command.args(["db", "prepare", "begin", "-"]).stdin(Stdio::piped()).stderr(Stdio::from(writer));
                let mut child = command.stdout(Stdio::piped()).spawn().expect("run the hook");
                child.stdin.take().expect("a pipe").write_all(&input).expect("it is read");
                let output = child.wait_with_output().expect("wait for the hook");
                assert_eq!(output.status.code(), Some(i32::from(stopped)), "{policy}");
            }
        }
    }
}

/// Signals that were sent before the hook was, and while it waits: none of them is the clock.
#[test]
fn no_signal_lets_a_doomed_guest_start() {
    let Some(place) = Place::any("stray-signals") else { return };
    let signals = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM XCPU XFSZ VTALRM PROF IO PWR TSTP TTIN TTOU";
    let shell = |script: &str| place.feed(place.command("sh").args(["-c", script, &HOOK, signals]), &doomed());
    let blocked = "for s in $1; do kill -s $s $$; done; exec \"$0\" db prepare begin -";
    let option = "--block-signal";
    place.feed(place.command("env").args([option, "sh", "-c", blocked, &HOOK, signals]), &doomed()).assert_stopped();
    // It blocks signals once it is ready for them.
    shell(
        "exec 3<&0; (sleep 1; cat <&3) | \"$0\" db prepare begin - & hook=$!; \
         until grep -q '^SigBlk:.*[1-9a-f]' /proc/$hook/status; do :; done; \
         for s in $1; do kill -s $s $hook; done; kill -s CONT $hook; wait $hook",
    )
    .assert_stopped();
}

/// The program alone, as it is shipped: what a dynamic one needs before it begins is not for this test.
#[test]
fn any_shortage_ends_in_a_decision_or_a_log_line() {
    let Some((place, set_policy)) = Place::own("limits") else { return };
    if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_none() {
        return skip("hook_protocol limits: IOVA_PREFLIGHT_HOOK names no static hook; hooks/build makes one");
    }
    let log = place.namespace().system_log();
    // A privileged user raises limits, so the test runs as an unprivileged one.
    let limited = |limits: &str, input: &[u8]| {
        let mut words = vec!["--bounding-set=-sys_resource", "prlimit"];
        words.extend(limits.split(' '));
        words.extend(["--", &HOOK, "db", "prepare", "begin", "-"]);
        place.feed(place.command("setpriv").args(words), input)
    };
    for limits in [
        "--as=4194304",
        "--data=1000000",
        "--stack=65536",
        // The kernel begins the stack up to 8 KiB lower, at random: what is nearer to what the hook needs fails at
        // times.
        "--stack=49152",
        "--nofile=4",
        "--nofile=3",
        "--nofile=2",
        "--cpu=1",
        "--fsize=0",
        "--sigpending=0",
        "--nproc=0",
        "--memlock=0",
        "--as=4194304 --stack=65536 --nofile=3 --cpu=1 --fsize=0 --sigpending=0",
    ] {
        limited(limits, &doomed()).assert_stopped();
        limited(limits, &fine()).assert_passed();
    }
    log.lines();
    let title = format!("<title>{}</title><memory", "x".repeat(4 << 20));
    let large = String::from_utf8(doomed()).expect("UTF-8").replace("<memory", &title).into_bytes();
    for (limits, input) in [("--as=4194304", &large), ("--data=2000000", &large), ("--stack=16384", &doomed())] {
        set_policy("");
        let run = limited(limits, input);
        let (passed, lines) = (run.assert_sane(), log.lines());
        assert!(lines.len() == 1 && lines[0].contains("guest db"), "{limits}: {lines:?}");
        assert!(!passed || lines[0].contains("internal error"), "{limits}: {lines:?}");
        set_policy("on_internal_error = 'block'\n");
        limited(limits, input).assert_stopped();
        log.lines();
    }
    // No descriptor is left for the policy, but the input's can be reused for the log line.
    set_policy("");
    limited("--nofile=1", &doomed()).assert_passed();
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("guest db") && lines[0].contains("policy.toml"), "{lines:?}");
    // Nothing is left.
    limited("--nofile=0", &doomed()).assert_passed();
    assert_eq!(log.lines(), [""; 0]);
}

/// libvirt takes a signal for a refusal.
#[test]
fn uncatchable_signals_stop_the_guest() {
    let Some((place, _)) = Place::own("uncaught") else { return };
    if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_none() {
        return skip("hook_protocol uncaught: IOVA_PREFLIGHT_HOOK names no static hook; hooks/build makes one");
    }
    // The C library needs memory before the program's first instruction.
    let words = ["--bounding-set=-sys_resource", "prlimit", "--data=0", "--", &HOOK, "db", "prepare", "begin", "-"];
    let run = place.feed(place.command("setpriv").args(words), &doomed());
    // nsenter ends as its child does.
    assert!(run.output.status.signal().is_some(), "{run:?}");
}

/// Facts that cannot be read are unknown; a guest that depends on them is uncertain, and the log says so.
#[test]
fn unreadable_facts_let_a_guest_start_and_are_logged() {
    let Some((place, set_policy)) = Place::own("no-facts") else { return };
    let log = place.namespace().system_log();
    // Opening a pipe would wait for a writer, who never comes.
    let make_pipe = |inside: &str| {
        let path = place.namespace().path(inside);
        std::fs::remove_file(&path).expect("remove the file");
        assert!(Command::new("mkfifo").arg(&path).status().expect("run mkfifo").success());
    };
    make_pipe("/sys/kernel/iommu_groups/0/reserved_regions");
    set_policy("on_internal_error = 'block'\n");
    let in_hole = Guest::huge("db", "pc-q35-6.2").with_hostdev().xml();
    // It is logged once, when the XML is final.
    place.hook("db", "prepare", in_hole.as_bytes()).assert_passed();
    place.hook("db", "start", in_hole.as_bytes()).assert_passed();
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("guest db") && line.contains("depends on")), "{lines:?}");
    // What QEMU refuses is refused on any host.
    place.hook("db", "prepare", &doomed()).assert_stopped();
    log.lines();

    // A policy has to be a regular file: anything else is an error at once.
    make_pipe("/etc/iova-preflight/policy.toml");
    place.hook("db", "prepare", &doomed()).assert_passed();
    let lines = log.lines();
    assert!(matches!(&lines[..], [line] if line.contains("policy.toml: a pipe, not a regular file")), "{lines:?}");
}
