//! Guests that already run, and guests that are restored.

use super::real_map;
use super::start::assert_stopped;
use super::world::World;
use crate::common::guest::Guest;

/// With this policy, a guest with memory in the reserved range is stopped with or without a device.
const STRICT: &str = "passthrough = 'assume'\n";

/// Start of the HyperTransport range.
const HOLE: u64 = 0xfd_0000_0000;

#[test]
fn a_running_guest_survives_every_restart_of_libvirtd() {
    let Some(world) = World::new("reconnect") else { return };
    world.add_recorder("qemu.d/10-recorder");
    world.define_and_start(&Guest::huge("db", "pc-q35-6.2")).expect_ok();
    let qemu = world.qemu("db").expect("QEMU runs");
    let broken = "on_internal_error = 'block'\nmodes = 'enforce'\n";
    for (restarts, policy) in [STRICT, broken].into_iter().enumerate() {
        world.set_policy(policy);
        world.restart_libvirtd();
        let reconnects = || world.operations("10-recorder", "db").iter().filter(|o| *o == "reconnect begin").count();
        crate::common::wait_for("libvirtd to find the guest", || reconnects() == restarts + 1);
        assert_eq!(world.state("db"), "paused");
        assert_eq!(world.qemu("db"), Some(qemu), "the guest is another one");
        // libvirtd talks to it.
        assert!(world.monitor("db", "info status").contains("paused"));
    }
    world.set_policy(STRICT);
    world.virsh(&["destroy", "db"]).expect_ok();
    assert_stopped(world.start("db"), "db", "prepare");
}

#[test]
fn a_managed_save_is_restored() {
    let Some(world) = World::new("managed-save") else { return };
    world.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    real_map::assert_dimm_at(&world, "db", HOLE);
    world.virsh(&["managedsave", "db"]).expect_ok();
    assert_eq!((world.state("db").as_str(), world.qemu("db")), ("shut off", None));

    // Refused, it is not lost.
    world.set_policy(STRICT);
    let error = assert_stopped(world.start("db"), "db", "restore");
    assert!(error.contains("a migrated or restored guest cannot be rewritten"), "{error}");
    assert_eq!((world.state("db").as_str(), world.qemu("db")), ("shut off", None));
    assert!(world.path("/var/lib/libvirt/qemu/save/db.save").exists(), "the image is gone");

    world.set_policy("");
    world.start("db").expect_ok();
    real_map::assert_dimm_at(&world, "db", HOLE);
    assert!(!world.path("/var/lib/libvirt/qemu/save/db.save").exists(), "it did not start from its image");
}

#[test]
fn a_saved_guest_is_restored_from_its_file() {
    let Some(world) = World::new("save") else { return };
    world.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    let image = "/var/lib/libvirt/qemu/save/image";
    world.virsh(&["save", "db", image]).expect_ok();

    world.set_policy(STRICT);
    assert_stopped(world.virsh(&["restore", image]), "db", "restore");
    assert_eq!((world.state("db").as_str(), world.qemu("db")), ("shut off", None));

    world.set_policy("");
    world.virsh(&["restore", image]).expect_ok();
    assert_eq!(world.state("db"), "paused");
    real_map::assert_dimm_at(&world, "db", HOLE);
}

#[test]
fn an_exempt_guest_starts_whatever_it_looks_like() {
    let Some(world) = World::new("exempt") else { return };
    world.set_policy(&format!("{STRICT}exempt = ['db']\n"));
    world.define_and_start(&Guest::huge("db", "pc-q35-6.2")).expect_ok();
    let reply = world.define_and_start(&Guest::huge("db2", "pc-q35-6.2"));
    assert_stopped(reply, "db2", "prepare");
}
