//! `check --connect` of many libvirts at once, one of which hangs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proxy::{Fault, Proxy};
use super::world::World;
use crate::common::guest::Guest;
use crate::common::note;

/// Of libvirt's test driver, which needs no daemon.
const TEST: &str = "test:///default";
const TESTS: usize = 47;

/// Ample for the daemons that answer, and what the test takes for the one that does not.
const LIMIT: Duration = Duration::from_secs(60);

/// What was printed of each guest, in its order, the exit status, and how long it took.
struct Checked {
    guests: Vec<Value>,
    errors: String,
    status: Option<i32>,
    took: Duration,
}

/// Of these libvirts.
fn check(uris: &[&str], format: &str) -> Checked {
    let limit = LIMIT.as_secs().to_string();
    let begin = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--host", "amd-epyc", "--format", format, "--connect-timeout", &limit])
        .args(uris.iter().flat_map(|uri| ["--connect", uri]))
        .stdin(Stdio::null())
        .output()
        .expect("run it");
    let took = begin.elapsed();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let guests = match format {
        "jsonl" => text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
        _ => serde_json::from_str::<Value>(&text).expect("JSON")["guests"].as_array().expect("guests").clone(),
    };
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    Checked { guests, errors, status: output.status.code(), took }
}

fn of<'a>(guests: &'a [Value], uri: &str) -> Vec<&'a Value> {
    let is_its = |guest: &&Value| {
        let source = guest["source"].as_str().expect("a source");
        source == uri || source.strip_prefix(uri).is_some_and(|rest| rest.starts_with(' '))
    };
    guests.iter().filter(is_its).collect()
}

#[test]
fn a_libvirt_that_hangs_stops_nobody_else() {
    let names = ["connect-a", "connect-b", "connect-c"];
    let worlds: Vec<World> = names.into_iter().map_while(World::new).collect();
    let [first, second, hangs] = &worlds[..] else { return };
    for world in &worlds {
        world.define_all(&[
            Guest::huge("broken", "pc-q35-6.2").with_hostdev().with_uuid(),
            Guest::small("small").with_uuid(),
        ]);
        // Makes libvirt look at QEMU, where it did not yet.
        world.virsh(&["capabilities"]).expect_ok();
    }
    // The one that will hang comes first, and once more in the middle: one limit is for both.
    let mut uris = vec![TEST; TESTS];
    uris.insert(30, second.uri());
    uris.insert(20, hangs.uri());
    uris.insert(10, first.uri());
    uris.insert(0, hangs.uri());

    let control = check(&uris, "jsonl");
    assert_eq!((control.status, control.errors.as_str()), (Some(1), ""));
    for world in [first, second] {
        let verdicts = of(&control.guests, world.uri());
        let verdicts: Vec<&str> = verdicts.iter().map(|guest| guest["verdict"].as_str().expect("text")).collect();
        assert_eq!(verdicts, ["fixable", "pass"]);
    }
    // Its guest "test" is defined, and runs.
    assert_eq!(of(&control.guests, TEST).len(), 2 * TESTS);

    hangs.signal_daemon("STOP");
    let silent = |guest: &Value| guest["verdict"] == "error";
    let checked = check(&uris, "json");
    note(&format!(
        "check --connect: {} libvirts in {:.1} s, with one that hangs in {:.1} s, of which {} s are its limit",
        uris.len(),
        control.took.as_secs_f64(),
        checked.took.as_secs_f64(),
        LIMIT.as_secs()
    ));
    assert_eq!(checked.status, Some(2));
    let hung = of(&checked.guests, hangs.uri());
    assert!(hung.len() == 2 && hung.iter().all(|guest| silent(guest)), "{hung:?}");
    assert_eq!(hung[0]["error"], "no answer within 60 seconds");
    let line = format!("{}: no answer within 60 seconds", hangs.uri());
    assert_eq!(checked.errors.lines().collect::<Vec<_>>(), [&line, &line]);
    // Each is where its URI is on the command line, and the others' are as they were.
    let places: Vec<usize> = (0..checked.guests.len()).filter(|&at| silent(&checked.guests[at])).collect();
    assert_eq!(places, [0, 1 + 2 * 10 + 2 + 2 * 10]);
    let others: Vec<&Value> = checked.guests.iter().filter(|guest| !silent(guest)).collect();
    let before: Vec<&Value> =
        control.guests.iter().filter(|guest| of(&[(*guest).clone()], hangs.uri()).is_empty()).collect();
    assert_eq!(others, before);
    assert!(checked.took >= LIMIT && checked.took < 2 * LIMIT, "{:?}", checked.took);
    hangs.signal_daemon("CONT");
}

/// A guest that is missing in a list is not noticed: it must not be left out.
#[test]
fn a_libvirt_that_goes_while_it_tells_of_its_guests_is_an_error() {
    let Some(world) = World::new("connect-breaks-off") else { return };
    world.define_all(&[Guest::small("one").with_uuid(), Guest::huge("two", "pc-q35-6.2").with_hostdev().with_uuid()]);
    let socket = world.files().join("breaking-off");
    let proxy = Proxy::start(&socket, world.path("/run/libvirt/libvirt-sock"), Fault::EndAtSecondXml);
    let uri = proxy.uri();
    let checked = check(&[uri, TEST], "jsonl");
    assert_eq!(checked.status, Some(2), "{}", checked.errors);
    let sources: Vec<&str> = checked.guests.iter().filter_map(|guest| guest["source"].as_str()).collect();
    assert_eq!(sources, [uri, "test:///default test", "test:///default test, running"]);
    assert_eq!(checked.guests[0]["verdict"], "error");
}

/// The map of a guest was made by the host that it runs on: the profile of another one says nothing about it.
#[test]
fn a_guest_that_is_to_move_runs_on_the_host_of_the_profile() {
    let Some(world) = World::new("connect-from") else { return };
    world.define_and_start(&Guest::small("runs")).expect_ok();
    world.define(&Guest::small("off"));
    let name = world.virsh(&["hostname"]).expect_ok();
    let profile = |file: &str, name: &str| {
        let path = world.files().join(file);
        std::fs::write(&path, format!("[host]\nname = \"{name}\"\n[cpu]\nvendor = \"AuthenticAMD\"\n"))
            .expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (its, another) = (profile("its.toml", name.trim()), profile("another.toml", "epyc-9"));
    let moved = |from: &str, to: &str, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
        command.args(["check", "--policy", "none", "--connect", world.uri(), "--from", from, "--to", to]);
        let output = command.args(options).stdin(Stdio::null()).output().expect("run it");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (status, printed, said) = moved(&its, &another, &[]);
    assert!(status == Some(0) && printed.starts_with("migrates "), "{printed}{said}");
    let (status, printed, said) = moved(&another, &its, &[]);
    let why = format!("its host is called {}, but the profile of --from is that of epyc-9", name.trim());
    assert!(status == Some(2) && said.contains(&why) && printed.is_empty(), "{printed}{said}");
    let (status, _, said) = moved(&its, &another, &["--domain", "off"]);
    assert!(status == Some(2) && said.contains("guest off does not run"), "{said}");
}
