//! A guest that moves from one libvirtd to another.

use super::real_map;
use super::start::assert_stopped;
use super::world::{Reply, World};
use crate::common::guest::Guest;

/// Moves the guest; virsh talks to both sides, and QEMU to QEMU through a socket file that both see.
fn migrate(name: &str, from: &World, to: &World) -> Reply {
    let socket = to.files().join("migration");
    let _ = std::fs::remove_file(&socket);
    from.virsh(&["migrate", "--live", "--persistent", name, to.uri(), &format!("unix://{}", socket.display())])
}

#[test]
fn the_destination_decides() {
    let Some(source) = World::new("source") else { return };
    let Some(destination) = World::new("destination") else { return };
    destination.add_recorder("qemu.d/10-recorder");
    source.define_and_start(&Guest::with_dimm_in_hole("db")).expect_ok();
    let qemu = source.qemu("db").expect("QEMU runs");

    destination.set_policy("passthrough = 'assume'\n");
    let error = assert_stopped(migrate("db", &source, &destination), "db", "migrate");
    assert!(error.contains("what already ran cannot be changed"), "{error}");
    assert_eq!(source.state("db"), "paused");
    assert_eq!(source.qemu("db"), Some(qemu), "the guest is not the one that was to move");
    assert_eq!(destination.qemu("db"), None);

    destination.set_policy("");
    migrate("db", &source, &destination).expect_ok();
    assert_eq!(source.qemu("db"), None);
    assert_eq!(destination.state("db"), "paused");
    real_map::assert_dimm_at(&destination, "db", 0xfd_0000_0000);
    let operations = destination.operations("10-recorder", "db");
    assert_eq!(operations.iter().filter(|operation| *operation == "migrate begin").count(), 2, "{operations:?}");
}
