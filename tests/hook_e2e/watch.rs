//! `watch` on a real libvirtd: guests defined while it runs, changes by others meanwhile, and a daemon that restarts.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::start::assert_stopped;
use super::watcher::{BACKUPS, Watcher};
use super::world::World;
use crate::common::guest::Guest;
use crate::common::wait_for;

const REWRITE: &str = "[watch]\nrewrite = true\n";

fn broken(name: &str) -> Guest {
    Guest::huge(name, "pc-q35-6.2").with_hostdev().with_uuid()
}

fn many(prefix: &str, count: usize) -> Vec<Guest> {
    (0..count).map(|n| broken(&format!("{prefix}{n:03}"))).collect()
}

/// How many defined guests have this in their definition.
fn count(world: &World, guests: &[Guest], wanted: &str) -> usize {
    let definition =
        |guest: &Guest| std::fs::read_to_string(world.path(&format!("/etc/libvirt/qemu/{}.xml", guest.name)));
    guests.iter().filter(|guest| definition(guest).is_ok_and(|xml| xml.contains(wanted))).count()
}

fn is_fixed(world: &World, guests: &[Guest]) -> bool {
    count(world, guests, "pc-q35-7.1") == guests.len()
}

/// How often each guest was replaced, by its name.
fn replaced(watcher: &Watcher<'_>) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for backup in watcher.backups() {
        let name = backup.split('-').next().expect("a name").to_owned();
        *count.entry(name).or_default() += 1;
    }
    count
}

#[test]
fn a_guest_fixed_by_watch_starts_at_the_first_attempt() {
    let Some(world) = World::new("watch-start") else { return };
    // The control: without the service the hook stops it.
    assert_stopped(world.define_and_start(&broken("before")), "before", "prepare");
    let watcher = Watcher::ready(&world, REWRITE);
    assert!(is_fixed(&world, &[broken("before")]), "what was defined before is fixed once the service is ready");
    world.define(&broken("after"));
    watcher.wait_until_said(&["<5>guest after is redefined"]);
    for guest in ["before", "after"] {
        // The hook, which runs first, lets it pass; libvirt then fails to attach the device without VFIO.
        let error = world.start(guest).expect_error();
        assert!(!error.contains("iova-preflight") && !error.contains("Hook script"), "{error}");
        assert!(error.contains("VFIO PCI passthrough"), "{error}");
        let prediction = world.check(guest);
        assert_eq!(
            (prediction["verdict"].as_str(), prediction["layout"]["relocated"].as_bool()),
            (Some("pass"), Some(true))
        );
    }
    let (_, status) = watcher.stop();
    assert_eq!(status, Some(0));
}

/// Nova would undo it at the next start.
#[test]
fn guests_of_an_orchestrator_are_left_to_it() {
    let Some(world) = World::new("watch-owned") else { return };
    let instance = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>";
    let owned = [broken("owned").with_metadata(instance)];
    let watcher = Watcher::ready(&world, REWRITE);
    world.define_all(&owned);
    // It is checked after the other one.
    world.define(&broken("free"));
    watcher.wait_until_said(&[
        "<4>guest owned: fixable",
        "Nova regenerates",
        "nova-manage libvirt update_machine_type c0ffee00-",
    ]);
    watcher.wait_until_said(&["<5>guest free is redefined"]);
    assert_eq!((count(&world, &owned, "pc-q35-6.2"), replaced(&watcher).len()), (1, 1));
    watcher.stop();

    let watcher = Watcher::ready(&world, &format!("owned = 'rewrite'\n{REWRITE}"));
    assert!(is_fixed(&world, &owned), "the policy says so");
    watcher.stop();
}

#[test]
fn hundreds_are_fixed_once_each_in_constant_memory() {
    /// Bytes. What is remembered of a guest is its UUID, a few fingerprints and times, below 512; the rest is what the
    /// allocator keeps for the next document.
    const GROWTH: u64 = 1024 * 1024;
    let Some(world) = World::new("watch-many") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let mut events = world
        .program("virsh")
        .args(["--quiet", "event", "--loop", "--event", "lifecycle"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("run virsh event");
    // Only a received event shows that virsh has begun to listen.
    let probe = world.path("/run/events");
    let mut heard = events.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = heard.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..len]));
            std::fs::write(&probe, &text).expect("written");
        }
        text
    });
    wait_for("virsh to listen", || {
        world.define(&Guest::small("probe").with_uuid());
        std::fs::metadata(world.path("/run/events")).is_ok_and(|file| file.len() > 0)
    });

    let (first, second) = (many("a", 200), many("b", 200));
    world.define_all(&first);
    wait_for("the first 200", || is_fixed(&world, &first));
    let before = watcher.resident();
    world.define_all(&second);
    wait_for("the second 200", || is_fixed(&world, &second));
    let after = watcher.resident();
    crate::common::note(&format!("watch: {before} bytes resident with 200 guests, {after} with 400"));
    assert!(after < before + GROWTH, "{before} → {after}");

    // Superfluous events would arrive now.
    std::thread::sleep(Duration::from_secs(2));
    let replaced = replaced(&watcher);
    assert!(replaced.len() == 400 && replaced.values().all(|&times| times == 1), "{replaced:?}");
    let pid = world.process(&["virsh\0", "--loop"]).expect("virsh event").to_string();
    world.program("kill").arg(pid).status().expect("run kill");
    let _ = events.wait();
    let heard = reader.join().expect("what virsh heard");
    for guest in first.iter().chain(&second) {
        let of_guest: Vec<&str> = heard.lines().filter(|line| line.contains(&format!("'{}'", guest.name))).collect();
        let detail = |detail: &str| of_guest.iter().filter(|line| line.ends_with(detail)).count();
        assert_eq!((of_guest.len(), detail("Defined Added"), detail("Defined Updated")), (2, 1, 1), "{of_guest:?}");
    }
    let (said, status) = watcher.stop();
    assert_eq!(status, Some(0));
    let redefined = said.iter().filter(|line| line.contains("is redefined")).count();
    assert_eq!(said.len(), redefined + 2, "one line each, the first and the last: {said:#?}");
}

#[test]
fn watch_reconnects_when_libvirtd_comes_back() {
    let Some(world) = World::without_hook("watch-restart") else { return };
    // The service starts before libvirtd.
    let watcher = Watcher::ready(&world, REWRITE);
    assert_eq!(watcher.count(&["<3>", "retrying until it answers"]), 1);
    world.start_daemons();
    let mut guests = Vec::new();
    // Until libvirtd is killed in the middle.
    for batch in 0.. {
        let new = many(&format!("a{batch}x"), 100);
        world.define_all(&new);
        wait_for("some", || count(&world, &new, "pc-q35-7.1") > 10);
        world.kill_libvirtd();
        let in_the_middle = !is_fixed(&world, &new);
        world.start_libvirtd();
        guests.extend(new);
        if in_the_middle {
            break;
        }
    }
    wait_for("the rest", || is_fixed(&world, &guests));
    let deaths = guests.len() / 100;
    world.restart_libvirtd();
    let new = many("b", 100);
    world.define_all(&new);
    wait_for("those of the new daemon", || is_fixed(&world, &new));
    guests.extend(new);
    watcher.wait_until_told(&format!("STATUS={} guests, 0 fixable, 0 blocked", guests.len()));
    let replaced = replaced(&watcher);
    // The definition being rewritten when the daemon died may have been kept twice.
    let times: usize = replaced.values().sum();
    assert!(replaced.len() == guests.len() && times <= guests.len() + deaths, "{replaced:?}");
    let (_, status) = watcher.stop();
    assert_eq!(status, Some(0));
}

#[test]
fn what_others_define_at_the_same_time_is_not_lost() {
    const GUESTS: usize = 20;
    /// As many as may be rewritten in quick succession.
    const EDITS: usize = 10;
    let Some(world) = World::new("watch-edits") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let guests = many("a", GUESTS);
    std::thread::scope(|scope| {
        for guest in &guests {
            let world = &world;
            scope.spawn(move || {
                for edit in 0..EDITS {
                    let file = world.files().join(format!("{}-{edit}.xml", guest.name));
                    let title = format!("<title>edit {edit}.</title>\n  <memory");
                    std::fs::write(&file, guest.xml().replacen("<memory", &title, 1)).expect("written");
                    world.virsh(&["define", file.to_str().expect("UTF-8")]).expect_ok();
                    // From edits in quick succession to occasional ones.
                    std::thread::sleep(Duration::from_millis(edit as u64 * 37 % 300));
                }
            });
        }
    });
    wait_for("the last edits", || is_fixed(&world, &guests));
    std::thread::sleep(Duration::from_secs(1));
    assert!(is_fixed(&world, &guests));
    let (said, _) = watcher.stop();
    let noticed: Vec<&String> = said.iter().filter(|line| line.contains("was also defined by someone else")).collect();
    crate::common::note(&format!(
        "watch: {} of {} edits came at the very moment of a rewrite",
        noticed.len(),
        GUESTS * EDITS
    ));
    let last = format!("<title>edit {}.</title>", EDITS - 1);
    for guest in &guests {
        // libvirt cannot define a guest conditionally, so an edit can be overwritten, but this is always logged.
        let was_noticed = noticed.iter().any(|line| line.contains(&format!("guest {} ", guest.name)));
        let is_there = count(&world, std::slice::from_ref(guest), &last) == 1;
        assert!(is_there || was_noticed, "the last edit of {} is lost:\n{}", guest.name, said.join("\n"));
    }
}

#[test]
fn a_definition_that_is_restored_each_time_is_left_in_the_end() {
    let Some(world) = World::new("watch-fight") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let guest = broken("db");
    for _ in 0..10 {
        world.define(&guest);
        wait_for("the rewrite", || is_fixed(&world, std::slice::from_ref(&guest)));
        std::thread::sleep(Duration::from_millis(250));
    }
    world.define(&guest);
    watcher.wait_until_said(&["not rewriting it again for some minutes"]);
    for _ in 0..2 {
        world.define(&guest);
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(!is_fixed(&world, &[guest]));
    let (said, _) = watcher.stop();
    let gives_up = said.iter().filter(|line| line.contains("not rewriting it again for some minutes")).count();
    let redefined = said.iter().filter(|line| line.contains("is redefined")).count();
    assert_eq!((redefined, gives_up), (10, 1), "{said:#?}");
}

/// Undefining a guest and defining it again is not a way to fill the disk with what was replaced.
#[test]
fn a_budget_survives_undefine() {
    /// Rewrites in quick succession.
    const BURST: usize = 10;
    let begin = Instant::now();
    let Some(world) = World::new("watch-undefine") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let guest = broken("db");
    for round in 0..30 {
        world.define(&guest);
        if round < BURST {
            wait_for("the rewrite", || watcher.count(&["is redefined"]) > round);
        } else {
            // Long enough for a rewrite that should not come.
            std::thread::sleep(Duration::from_millis(250));
        }
        world.virsh(&["undefine", &guest.name]).expect_ok();
    }
    world.define(&guest);
    watcher.wait_until_said(&["guest db: fixable", "not rewriting it again for some minutes"]);
    let kept = watcher.backups().len();
    let (said, ..) = watcher.stop();
    let redefined = said.iter().filter(|line| line.contains("is redefined")).count();
    // Plus those regained during the test: one per five minutes.
    let most = BURST + 1 + usize::try_from(begin.elapsed().as_secs() / 300).expect("a few");
    crate::common::note(&format!("watch: {redefined} of 30 definitions of one guest were rewritten, {kept} are kept"));
    assert!(kept == redefined && (BURST..=most).contains(&kept), "{kept} {redefined} {said:#?}");
}

/// If the folder is full, `watch` stops rewriting and says so; once there is space, it continues.
#[test]
fn backups_are_bounded() {
    /// Of `ROOM` in `watch/service.rs`.
    const FILES: usize = 4096;
    const BYTES: u64 = 256 * 1024 * 1024;
    let Some(world) = World::new("watch-full") else { return };
    let folder = world.path(BACKUPS);
    std::fs::create_dir_all(&folder).expect("made");
    let fill = |files: usize, bytes: u64| {
        for number in 0..files {
            std::fs::write(folder.join(format!("old-{number}.xml")), "").expect("written");
        }
        let large = std::fs::File::create(folder.join("old-large.xml")).expect("made");
        large.set_len(bytes).expect("without taking any room");
    };
    let empty = || {
        std::fs::read_dir(&folder).expect("listed").flatten().for_each(|file| {
            std::fs::remove_file(file.path()).expect("removed");
        })
    };
    for (name, files, bytes) in [("files", FILES - 1, 0), ("bytes", 0, BYTES)] {
        fill(files, bytes);
        let before = std::fs::read_dir(&folder).expect("listed").count();
        let watcher = Watcher::ready(&world, REWRITE);
        let (first, second) = (broken(&format!("{name}1")), broken(&format!("{name}2")));
        world.define_all(&[first.clone(), second.clone()]);
        for guest in [&first, &second] {
            watcher.wait_until_said(&[
                "<3>",
                &format!("guest {}: fixable", guest.name),
                "its definition is unchanged",
                "is full",
            ]);
        }
        assert_eq!(count(&world, &[first.clone(), second.clone()], "pc-q35-7.1"), 0);
        assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), before);
        empty();
        world.define(&first);
        watcher.wait_until_said(&[&format!("guest {} is redefined", first.name)]);
        let (_, status) = watcher.stop();
        assert_eq!(status, Some(0));
        empty();
    }
}

/// Names and UUIDs that change, definitions as large as libvirt takes them, a service that is killed and started again,
/// and a folder with pipes and links in it: neither files nor memory grow without limit, and the service keeps working.
#[test]
fn no_attack_takes_more_than_its_room() {
    /// Of `ROOM` in `watch/service.rs`.
    const FILES: usize = 4096;
    const BYTES: u64 = 256 * 1024 * 1024;
    /// Half of `MemoryMax=` in `packaging/systemd/iova-preflight-watch.service`.
    const MEMORY: u64 = 256 * 1024 * 1024;
    let Some(world) = World::new("watch-attack") else { return };
    let folder = world.path(BACKUPS);
    std::fs::create_dir_all(&folder).expect("made");
    let outside = world.path("/var/lib/libvirt/outside");
    std::fs::File::create(&outside).expect("made").set_len(BYTES).expect("without taking any room");
    std::os::unix::fs::symlink("../outside", folder.join("link.xml")).expect("a link");
    std::os::unix::fs::symlink("/dev/zero", folder.join("zero.xml")).expect("a link");
    let pipe = world.program("mkfifo").arg(format!("{BACKUPS}/pipe.xml")).status().expect("run mkfifo");
    assert!(pipe.success());
    for number in 3..FILES - 30 {
        std::fs::write(folder.join(format!("old-{number}.xml")), "").expect("written");
    }
    let kept = || std::fs::read_dir(&folder).expect("listed").flatten();
    let mut most = 0;
    for round in 0..3 {
        let watcher = Watcher::ready(&world, REWRITE);
        let guests: Vec<Guest> = (0..20)
            .map(|n| {
                // libvirt prints a `>` as four bytes, and sends at most 4 MiB (`VIR_NET_MESSAGE_STRING_MAX`).
                let metadata = if n == 0 { ">".repeat(1_000_000) } else { "x".repeat(1000 * n) };
                broken(&format!("{round}{n:02}")).with_metadata(&format!("<a:a xmlns:a='urn:a'>{metadata}</a:a>"))
            })
            .collect();
        world.define_all(&guests);
        let undefine: String = guests.iter().map(|guest| format!("undefine {}; ", guest.name)).collect();
        if round == 0 {
            wait_for("all rewrites", || watcher.count(&["is redefined"]) == guests.len());
        } else {
            watcher.wait_until_said(&["is unchanged", "is full"]);
        }
        most = most.max(watcher.peak());
        if round == 2 {
            world.virsh(&[&undefine]).expect_ok();
            assert_eq!(watcher.stop().1, Some(0));
        } else {
            watcher.kill();
            world.virsh(&[&undefine]).expect_ok();
        }
    }
    let (files, bytes) = (kept().count(), kept().map(|file| file.metadata().expect("there").len()).sum::<u64>());
    crate::common::note(&format!("watch: {files} files of {bytes} bytes are kept, {most} bytes of memory at most"));
    assert!(files <= FILES && bytes <= BYTES && most < MEMORY, "{files} {bytes} {most}");
    assert_eq!(std::fs::metadata(&outside).expect("there").len(), BYTES);
}

/// Users who may define guests must not be able to fill the log.
#[test]
fn an_override_that_is_ignored_is_said_once() {
    let Some(world) = World::new("watch-override") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let asks = |what: &str| {
        Guest::small("db")
            .with_uuid()
            .with_metadata(&format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{what}'/>"))
    };
    let ignored = ["<4>guest db: ", "is ignored", "passthrough='x'"];
    for _ in 0..4 {
        world.define(&asks("x"));
        watcher.wait_until_said(&ignored);
    }
    // After it was valid, an ignored override is reported again.
    world.define(&asks("assume"));
    world.define(&Guest::huge("last", "pc-q35-6.2").with_hostdev().with_uuid());
    watcher.wait_until_said(&["guest last is redefined"]);
    assert_eq!(watcher.count(&ignored), 1, "{:#?}", watcher.said());
    world.define(&asks("x"));
    wait_for("the second line", || watcher.count(&ignored) == 2);
    assert_eq!(watcher.stop().1, Some(0));
}

#[test]
fn without_rewrite_it_only_reports() {
    let Some(world) = World::new("watch-reports") else { return };
    let watcher = Watcher::ready(&world, "exempt = ['free']\n");
    world.define_all(&[broken("db"), broken("free"), Guest::small("web"), Guest::huge("dry", "pc-q35-6.2")]);
    let blocked = "machine_upgrade = 'never'";
    watcher.wait_until_said(&[
        "<4>guest db: fixable: ",
        "fix --connect qemu:///system --domain db",
        "pc-q35-6.2 → pc-q35-7.1",
    ]);
    watcher.wait_until_said(&["<6>guest dry: warn: "]);
    world.define(&broken("db"));
    watcher.wait_until_told("STATUS=4 guests, 1 fixable, 0 blocked");
    let (said, status) = watcher.stop();
    assert_eq!((status, said.len()), (Some(0), 4), "each is said once: {said:#?}");
    assert_eq!(count(&world, &[broken("db")], "pc-q35-6.2"), 1);

    let watcher = Watcher::ready(&world, &format!("{blocked}\n{REWRITE}"));
    assert_eq!(watcher.count(&["guest db: blocked: ", "the policy does not allow it"]), 1, "{:#?}", watcher.said());
    assert!(watcher.backups().is_empty());
}

#[test]
fn a_rewrite_that_would_lose_saved_state_is_not_made() {
    let Some(world) = World::new("watch-saved") else { return };
    world.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    world.virsh(&["managedsave", "db"]).expect_ok();
    // The service ignores guests without a definition.
    let file = world.files().join("transient.xml");
    std::fs::write(&file, Guest::huge("transient", "pc-q35-6.2").xml()).expect("written");
    world.virsh(&["create", "--paused", file.to_str().expect("UTF-8")]).expect_ok();
    let watcher = Watcher::ready(&world, &format!("passthrough = 'assume'\n{REWRITE}"));
    assert_eq!(watcher.count(&["guest db: fixable: ", "managed save image"]), 1, "{:#?}", watcher.said());
    watcher.wait_until_told("STATUS=1 guests, 1 fixable, 0 blocked");
    assert_eq!((watcher.count(&["transient"]), watcher.backups().len()), (0, 0));
}

#[test]
fn the_service_manager_is_told_the_state() {
    let Some(world) = World::new("watch-manager") else { return };
    let watcher = Watcher::ready(&world, REWRITE);
    let beats = |watcher: &Watcher<'_>| watcher.told().iter().filter(|line| *line == "WATCHDOG=1").count();
    let before = beats(&watcher);
    wait_for("signs of life", || beats(&watcher) >= before + 3);
    // A hung daemon keeps the service from checking guests, but not from ending.
    world.signal_daemon("STOP");
    watcher.wait_until_told("STATUS=0 guests, 0 fixable, 0 blocked");
    let (said, status) = watcher.stop();
    world.signal_daemon("CONT");
    assert_eq!(status, Some(0), "{said:#?}");
}

#[test]
fn a_policy_that_cannot_be_read_is_an_error_at_once() {
    let Some(world) = World::without_hook("watch-policy") else { return };
    world.set_policy("[watch]\nrewrites = true\n");
    let output = world.program(env!("CARGO_BIN_EXE_iova-preflight")).arg("watch").output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("policy.toml:2:1"), "{error}");
}
