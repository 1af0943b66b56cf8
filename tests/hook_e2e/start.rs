//! What `virsh start` does.

use super::real_map;
use super::world::{Reply, World};
use crate::common::guest::Guest;

/// Fails unless virsh says that the hook stopped the guest at `operation`, and shows the hook's line.
#[track_caller]
pub fn assert_stopped(reply: Reply, guest: &str, operation: &str) -> String {
    let error = reply.expect_error();
    let call = format!("50-iova-preflight {guest} {operation} begin -)");
    assert!(error.contains("Hook script execution failed") && error.contains(&call), "{error}");
    let line = format!("iova-preflight: guest {guest}: ");
    assert_eq!(error.matches(&line).count(), 1, "{error}");
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn a_small_guest_starts() {
    let Some(world) = World::new("small") else { return };
    let log = world.system_log();
    world.define_and_start(&Guest::small("web")).expect_ok();
    assert_eq!(world.state("web"), "paused");
    assert!(world.qemu("web").is_some());
    assert_eq!(log.lines(), [""; 0]);
}

#[test]
fn a_device_and_ram_in_the_hole_are_stopped_before_qemu() {
    let Some(world) = World::new("hostdev") else { return };
    let reply = world.define_and_start(&Guest::huge("db", "pc-q35-6.2").with_hostdev());
    let error = assert_stopped(reply, "db", "prepare");
    for part in ["HyperTransport", "pc-q35-7.1", "virsh edit db"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    world.assert_never_started("db");
    assert_eq!(world.check("db")["verdict"], "fixable");
}

#[test]
fn a_device_alone_is_left_to_libvirt() {
    let Some(world) = World::new("small-hostdev") else { return };
    let error = world.define_and_start(&Guest::small("web").with_hostdev()).expect_error();
    assert!(!error.contains("iova-preflight") && !error.contains("ook"), "{error}");
}

#[test]
fn ram_in_the_hole_without_a_device_starts_and_is_logged() {
    let Some(world) = World::new("no-hostdev") else { return };
    let log = world.system_log();
    world.define_and_start(&Guest::huge("db", "pc-q35-6.2")).expect_ok();
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("<28>iova-preflight-hook[") && lines[0].contains("guest db: "), "{lines:?}");
    let prediction = world.check("db");
    assert_eq!(prediction["verdict"], "warn");
    assert_eq!(prediction["layout"]["relocated"], false);
    real_map::assert_matches(&world, "db", &prediction);

    // The command line that libvirt wrote gives the same result.
    let running = |world: &World| -> serde_json::Value {
        let printed = world.tool(&["check", "--running", "--format", "json"]).stdout;
        serde_json::from_str(&printed).expect("JSON")
    };
    let seen = running(&world);
    assert_eq!(seen["guests"].as_array().map(Vec::len), Some(1), "{seen}");
    let guest = &seen["guests"][0];
    assert_eq!((&guest["name"], &guest["verdict"]), (&"db".into(), &"warn".into()), "{guest}");
    assert_eq!(guest["layout"], prediction["layout"]);
    assert_eq!(guest["process"]["pid"].as_u64().map(|pid| pid as u32), world.qemu("db"));
    world.set_policy("passthrough = 'assume'\n");
    let guest = &running(&world)["guests"][0];
    assert_eq!(guest["verdict"], "fixable", "{guest}");
    assert_eq!(guest["process"]["notes"], serde_json::json!(["it is running, but would not start again"]));
}

#[test]
fn too_few_phys_bits_are_stopped_before_qemu() {
    let Some(world) = World::new("phys-bits-40") else { return };
    let reply = world.define_and_start(&Guest::huge("db", "pc-q35-7.2").with_phys_bits(40));
    let error = assert_stopped(reply, "db", "prepare");
    assert!(error.contains("phys-bits") && error.contains("42"), "{error}");
    world.assert_never_started("db");
}

/// The control: QEMU refuses the guests that were stopped above, for the predicted reason.
#[test]
fn qemu_itself_refuses_what_is_stopped() {
    let Some(world) = World::new("control") else { return };
    world.set_policy("mode = 'warn'\n");
    let log = world.system_log();
    let error = world.define_and_start(&Guest::huge("db", "pc-q35-7.2").with_phys_bits(40)).expect_error();
    assert!(error.contains("phys-bits too low (40)") && !error.contains("iova-preflight"), "{error}");
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.starts_with("<28>") && line.contains("allowed by policy")), "{lines:?}");
}

#[test]
fn enough_phys_bits_start_with_the_map_that_was_predicted() {
    let Some(world) = World::new("phys-bits-42") else { return };
    world.define_and_start(&Guest::huge("db", "pc-q35-7.2")).expect_ok();
    let prediction = world.check("db");
    assert_eq!(prediction["verdict"], "pass");
    assert_eq!(prediction["layout"]["relocated"], true);
    real_map::assert_matches(&world, "db", &prediction);
}

/// The hook gets `<metadata>` as libvirt prints it: longer than 32 MiB, with entities that it does not declare.
#[test]
fn metadata_does_not_free_a_guest() {
    let Some(world) = World::new("metadata") else { return };
    world.set_policy("passthrough = 'assume'\non_internal_error = 'block'\n");
    world.add_recorder("qemu.d/10-recorder");
    let ours = |inside: &str| format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' {inside}/>");
    let nested = format!("{}{}{}", "<a>".repeat(40), "<a/>".repeat(900_000), "</a>".repeat(40));
    let kinds = [
        ("word", ours("passthrough='x'")),
        ("present", ours("passthrough='present'")),
        ("elements", format!("<a xmlns='u'>{}</a>", "<b/>".repeat(70_000))),
        ("text", format!("<a xmlns='u'>{}</a>", ">".repeat(4_000_000))),
        ("indented", format!("<a xmlns='u'>{nested}</a>")),
        ("attribute", format!("<a xmlns='u' b='{}'/>", "\"".repeat(4_000_000))),
        ("section", "<a xmlns='u'><![CDATA[</a></metadata><memory>1</memory>]]></a>".to_owned()),
    ];
    for (name, inside) in &kinds {
        let guest = Guest::huge(name, "pc-q35-7.2").with_phys_bits(40).with_metadata(inside);
        assert_stopped(world.define_and_start(&guest), name, "prepare");
        world.assert_never_started(name);
        // A guest that is fine is not stopped by it either.
        let fine = Guest::small(&format!("{name}-fine")).with_metadata(inside);
        world.define_and_start(&fine).expect_ok();
        world.virsh(&["destroy", &fine.name]).expect_ok();
    }
    let size = |name: &str| world.calls("10-recorder", name)[0].1;
    assert!(size("text") > 16_000_000, "{}", size("text"));
    assert!(size("indented") > 40_000_000, "{}", size("indented"));
}

#[test]
fn host_model_is_decided_when_it_is_known() {
    let Some(world) = World::new("host-model") else { return };
    world.add_recorder("qemu.d/10-recorder");
    let host_model = |name: &str, inside: &str| {
        Guest::huge(name, "pc-q35-7.2").with_cpu(&format!("<cpu mode='host-model'>{inside}</cpu>"))
    };
    let error = assert_stopped(world.define_and_start(&host_model("db", "")), "db", "start");
    assert!(error.contains("phys-bits"), "{error}");
    world.assert_never_started("db");
    let operations = world.operations("10-recorder", "db");
    assert_eq!(operations[..2], ["prepare begin", "start begin"]);
    assert!(!operations.contains(&"started begin".to_owned()), "{operations:?}");

    world.define_and_start(&host_model("db2", "<maxphysaddr mode='emulate' bits='42'/>")).expect_ok();
    real_map::assert_matches(&world, "db2", &world.check("db2"));
}

#[test]
fn a_broken_policy_stops_nobody() {
    let Some(world) = World::new("policy-allow") else { return };
    world.set_policy("mode = 'enforce'\nmodes = 'enforce'\n");
    let log = world.system_log();
    world.define_and_start(&Guest::small("web")).expect_ok();
    let lines = log.lines();
    assert!(!lines.is_empty(), "nothing in the log");
    for line in lines {
        assert!(line.starts_with("<27>iova-preflight-hook[") && line.contains("policy.toml:2:1"), "{line}");
    }
}

#[test]
fn a_broken_policy_stops_everybody_if_it_says_so() {
    let Some(world) = World::new("policy-block") else { return };
    world.set_policy("on_internal_error = \"block\"\nmodes = 'enforce'\n");
    let error = world.define_and_start(&Guest::small("web")).expect_error();
    assert!(error.contains("iova-preflight: internal error: /etc/iova-preflight/policy.toml:2:1"), "{error}");
    world.assert_never_started("web");
    // Once fixed, it takes effect at once.
    world.set_policy("on_internal_error = \"block\"\n");
    world.start("web").expect_ok();
}

#[test]
fn a_hook_installed_later_is_run_after_a_reload() {
    let Some(world) = World::without_hook("installed-later") else { return };
    world.start_daemons();
    let guest = Guest::huge("db", "pc-q35-6.2").with_hostdev();
    let error = world.define_and_start(&guest).expect_error();
    assert!(!error.contains("iova-preflight"), "{error}");
    world.install_hook();
    world.reload_libvirtd();
    // libvirtd does not show when the reload is complete.
    crate::common::wait_for("the hook to be run", || world.start("db").stderr.contains("50-iova-preflight db"));
    assert_stopped(world.start("db"), "db", "prepare");
}
