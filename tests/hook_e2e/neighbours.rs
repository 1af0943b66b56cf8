//! Hooks of others, and many guests at once.

use std::os::unix::fs::PermissionsExt;

use super::start::assert_stopped;
use super::world::World;
use crate::common::guest::Guest;
use crate::common::wait_for;

#[test]
fn hooks_of_others_keep_working() {
    let Some(world) = World::new("neighbours") else { return };
    let others = ["qemu", "10-first", "90-last"];
    world.add_recorder("qemu");
    world.add_recorder("qemu.d/10-first");
    world.add_recorder("qemu.d/90-last");

    world.define_and_start(&Guest::small("web")).expect_ok();
    world.virsh(&["destroy", "web"]).expect_ok();
    for other in others {
        let calls = world.calls(other, "web");
        let operations: Vec<&str> = calls.iter().map(|(operation, _)| operation.as_str()).collect();
        let expected = ["prepare begin", "start begin", "started begin", "stopped end", "release end"];
        assert_eq!(operations, expected, "{other}");
        assert!(calls.iter().all(|(_, size)| *size > 500), "{other} did not get the XML: {calls:?}");
    }

    // libvirt runs every hook, whatever the others return.
    assert_stopped(world.define_and_start(&Guest::huge("db", "pc-q35-6.2").with_hostdev()), "db", "prepare");
    for other in others {
        assert_eq!(world.operations(other, "db")[0], "prepare begin", "{other}");
    }

    // One of the others may stop a guest that we let pass.
    world.add_hook("qemu.d/20-never", "#!/bin/sh\necho 'never on a Sunday' >&2\nexit 1\n");
    let error = world.start("web").expect_error();
    assert!(error.contains("never on a Sunday") && !error.contains("iova-preflight: "), "{error}");
}

#[test]
fn a_running_guest_survives_a_chain_whose_program_is_gone() {
    let Some(world) = World::new("chain") else { return };
    let chain = include_str!("../../hooks/chain.sh");
    world.add_hook("qemu", &chain.replace("hook=/usr/bin/iova-preflight-hook", "hook=/run/iova-preflight-hook"));
    world.add_recorder("qemu.before");
    world.tool(&["hook", "uninstall"]).expect_ok();
    std::fs::copy(world.path("/etc/libvirt/hooks/iova-preflight-hook"), world.path("/run/iova-preflight-hook"))
        .expect("copied");

    // The control: with the program, the chain stops a guest.
    let bad = Guest::huge("bad", "pc-q35-6.2").with_hostdev();
    let error = world.define_and_start(&bad).expect_error();
    assert!(error.contains("iova-preflight: guest bad: "), "{error}");
    world.define_and_start(&Guest::small("web")).expect_ok();
    let qemu = world.qemu("web").expect("QEMU runs");
    let reconnects = || world.operations("qemu.before", "web").iter().filter(|o| *o == "reconnect begin").count();

    let program = world.path("/run/iova-preflight-hook");
    std::fs::remove_file(&program).expect("removed");
    for (restarts, broken) in [None, Some("#!/nonexistent\n"), Some("#!/bin/sh\nexit 1\n")].into_iter().enumerate() {
        if let Some(text) = broken {
            std::fs::write(&program, text).expect("written");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        world.restart_libvirtd();
        wait_for("libvirtd to find the guest", || reconnects() == restarts + 1);
        assert_eq!(world.state("web"), "paused", "{broken:?}");
        assert_eq!(world.qemu("web"), Some(qemu), "the guest is another one: {broken:?}");
    }
    std::fs::remove_file(&program).expect("removed");
    world.define_and_start(&Guest::small("mail")).expect_ok();
}

#[test]
fn a_rewrite_by_another_hook_goes_through_ours() {
    let Some(world) = World::new("rewrite") else { return };
    // The output of one hook is the input of the next, and that of the last counts; ours has none.
    let rewrite = "#!/bin/sh\nif [ \"$2\" = restore ]; then sed 's|<vcpu|<title>rewritten</title>&|'; fi\n";
    world.add_hook("qemu.d/10-rewrite", rewrite);
    world.define_and_start(&Guest::small("web")).expect_ok();
    world.virsh(&["managedsave", "web"]).expect_ok();
    world.start("web").expect_ok();
    let xml = world.virsh(&["dumpxml", "web"]).expect_ok();
    assert!(xml.contains("<title>rewritten</title>"), "{xml}");
}

#[test]
fn fifty_guests_start_at_the_same_time() {
    let Some(world) = World::new("fifty") else { return };
    let mut guests: Vec<(Guest, bool)> = (0..50).map(|i| (Guest::small(&format!("web{i}")), true)).collect();
    guests.extend((0..5).map(|i| (Guest::huge(&format!("db{i}"), "pc-q35-7.2").with_phys_bits(40), false)));
    for (guest, _) in &guests {
        world.define(guest);
    }
    std::thread::scope(|scope| {
        for (guest, starts) in &guests {
            let world = &world;
            scope.spawn(move || {
                let reply = world.start(&guest.name);
                if *starts {
                    reply.expect_ok();
                } else {
                    assert_stopped(reply, &guest.name, "prepare");
                }
            });
        }
    });
    for (guest, starts) in &guests {
        assert_eq!(world.qemu(&guest.name).is_some(), *starts, "{}", guest.name);
    }
}
