//! `fix --connect` and a libvirt that stops answering.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use super::proxy::{Fault, Proxy};
use super::world::World;
use crate::common::guest::Guest;
use crate::common::wait_for;

/// Ample for a daemon that answers, in seconds.
const LIMIT: &str = "20";

/// What a run said on standard error, and the definitions that it saved.
struct Fixed {
    error: String,
    saved: Vec<PathBuf>,
}

/// Runs `fix --connect`, which has to end with an error.
fn fix(world: &World, uri: &str, guest: &str) -> Fixed {
    let backup = world.files().join(format!("backup-{guest}"));
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["fix", "--policy", "none", "--host", "amd-epyc", "--quiet", "--connect-timeout", LIMIT])
        .args(["--connect", uri, "--domain", guest, "--backup"])
        .arg(&backup)
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{guest}: {error}");
    let saved = std::fs::read_dir(backup).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
    Fixed { error, saved }
}

impl Fixed {
    /// The error names the file with the previous definition, and both commands, which are run.
    fn assert_open(&self, world: &World, uri: &str, guest: &str, words: &str) {
        let [file] = &self.saved[..] else { panic!("{guest}: {:?}: {}", self.saved, self.error) };
        let file = file.to_str().expect("UTF-8");
        let commands =
            [format!("virsh -c '{uri}' dumpxml --inactive {guest}"), format!("virsh -c '{uri}' define {file}")];
        for part in [words, &format!("no answer within {LIMIT} seconds"), &format!("is saved in {file}")] {
            assert!(self.error.contains(part), "{guest}: {part}: {}", self.error);
        }
        for command in &commands {
            assert!(self.error.contains(&format!("`{command}`")), "{command}: {}", self.error);
        }
        assert_eq!(self.error.lines().count(), 1, "{}", self.error);
        world.virsh(&["define", file]).expect_ok();
        assert_eq!(world.machine(guest), "pc-q35-6.2", "the previous definition is restored");
    }
}

#[test]
fn a_libvirt_that_stops_answering_leaves_nothing_unsaid() {
    let Some(world) = World::new("silent") else { return };
    let cases = [
        ("looked", Fault::SecondConnection),
        ("before", Fault::Define),
        ("after", Fault::AfterDefine),
        ("stopped", Fault::Nothing),
    ];
    world.define_all(&cases.map(|(guest, _)| Guest::huge(guest, "pc-q35-6.2").with_hostdev()));
    // Makes libvirt look at QEMU, where it did not yet.
    world.virsh(&["capabilities"]).expect_ok();
    let target = world.path("/run/libvirt/libvirt-sock");
    let [looked, before, after, stopped] = cases.map(|(guest, fault)| {
        let proxy = Proxy::start(&world.files().join(format!("{guest}.sock")), target.clone(), fault);
        (guest, proxy)
    });
    let world = &world;

    thread::scope(|scope| {
        let runs = [&looked, &before, &after].map(|(guest, proxy)| {
            let uri = proxy.uri();
            scope.spawn(move || fix(world, uri, guest))
        });
        let [first, second, third] = runs.map(|run| run.join().expect("no panic"));
        let error = format!("iova-preflight: {}: no answer within {LIMIT} seconds\n", looked.1.uri());
        assert_eq!((first.error, first.saved.len()), (error, 0));
        assert!(!looked.1.saw_define());

        assert_eq!(world.machine("before"), "pc-q35-6.2");
        second.assert_open(world, before.1.uri(), "before", "it is unknown which one is in place");
        assert_eq!(world.machine("after"), "pc-q35-7.1");
        third.assert_open(world, after.1.uri(), "after", "but it cannot be read back");
    });

    // The daemon itself stops, with the call in its socket.
    let fixed = thread::scope(|scope| {
        let (guest, uri) = (stopped.0, stopped.1.uri());
        let fixed = scope.spawn(move || fix(world, uri, guest));
        stopped.1.wait_for_define();
        world.signal_daemon("STOP");
        stopped.1.go();
        fixed.join().expect("no panic")
    });
    world.signal_daemon("CONT");
    wait_for("libvirtd to do what it was told", || world.machine("stopped") == "pc-q35-7.1");
    fixed.assert_open(world, stopped.1.uri(), "stopped", "it is unknown which one is in place");
}
