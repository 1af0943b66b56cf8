//! The hook follows the policy.

use super::{Place, doomed, fine};
use crate::common::guest::Guest;

#[test]
fn what_the_policy_says_is_done() {
    let Some((place, set_policy)) = Place::own("policy") else { return };
    let log = place.namespace().system_log();
    let logged = |priority: &str, part: &str| {
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].starts_with(priority) && lines[0].contains(part), "{lines:?}");
    };
    place.hook("db", "prepare", &doomed()).assert_stopped();
    logged("<28>", "guest db");

    set_policy("mode = 'off'\n");
    place.hook("db", "prepare", &doomed()).assert_passed();
    assert_eq!(log.lines(), [""; 0]);

    set_policy("mode = 'warn'\n");
    place.hook("db", "prepare", &doomed()).assert_passed();
    logged("<28>", "allowed by policy");

    let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
    let with_uuid =
        String::from_utf8(doomed()).expect("UTF-8").replace("<memory", &format!("<uuid>{uuid}</uuid><memory"));
    for exempt in ["db", uuid] {
        set_policy(&format!("exempt = ['other', '{exempt}']\n"));
        place.hook("db", "prepare", with_uuid.as_bytes()).assert_passed();
        assert_eq!(log.lines(), [""; 0]);
    }
    set_policy("exempt = ['d', 'db2', 'DB', '*']\n");
    place.hook("db", "prepare", &doomed()).assert_stopped();
    log.lines();

    // Without a device, its memory does no harm; with the assumption, it does.
    let in_hole = Guest::huge("db", "pc-q35-6.2").xml();
    set_policy("");
    place.hook("db", "prepare", in_hole.as_bytes()).assert_passed();
    set_policy("passthrough = 'assume'\n");
    place.hook("db", "prepare", in_hole.as_bytes()).assert_stopped();
    set_policy("");
    place.hook("db", "prepare", Guest::huge("db", "pc-q35-6.2").with_hostdev().xml().as_bytes()).assert_stopped();
}

#[test]
fn a_policy_that_cannot_be_read_is_an_error_of_our_own() {
    let Some((place, set_policy)) = Place::own("broken-policy") else { return };
    let log = place.namespace().system_log();
    let error = |part: &str| {
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].starts_with("<27>") && lines[0].contains(part), "{lines:?}");
    };
    for text in ["mode = 'perhaps'", "modes = 'off'", "mode = [", "exempt = 'db'", "\u{0}", "[watch]\nrewrit = true"] {
        set_policy(text);
        place.hook("db", "prepare", &doomed()).assert_passed();
        error("policy.toml:");
        for line in ["on_internal_error = 'block'", "on_internal_error=\"block\" # strict"] {
            set_policy(&format!("{line}\n{text}\n"));
            let line = place.hook("web", "prepare", &fine()).assert_stopped();
            assert!(line.contains("policy.toml:"), "{line}");
            log.lines();
        }
    }
    set_policy(&"# a long policy\n".repeat(100_000));
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("longer than 1 MiB");

    let policy = place.namespace().path("/etc/iova-preflight/policy.toml");
    std::fs::write(&policy, b"mode = '\xff'").expect("write the policy");
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("UTF-8");

    std::fs::remove_file(&policy).expect("remove the policy");
    std::fs::create_dir(&policy).expect("a folder instead");
    place.hook("db", "prepare", &doomed()).assert_passed();
    error("policy.toml");
    std::fs::remove_dir(&policy).expect("remove the folder");
}
