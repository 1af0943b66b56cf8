//! Which calls can stop a guest, and calls that are wrong.

use super::{DECIDING, HOOK, Place, doomed, fine};
use crate::common::guest::Guest;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

#[test]
fn only_four_operations_can_stop_a_guest() {
    let Some(place) = Place::any("operations") else { return };
    for operation in DECIDING {
        let line = place.hook("db", operation, &doomed()).assert_stopped();
        assert!(line.starts_with("iova-preflight: guest db: ") && line.contains("virsh edit db"), "{line}");
        place.hook("web", operation, &fine()).assert_passed();
        for sub_operation in ["end", "", "Begin", "begin "] {
            let mut command = place.command(&HOOK);
            place.feed(command.args(["db", operation, sub_operation, "-"]), &doomed()).assert_passed();
        }
    }
    for operation in ["reconnect", "attach", "started", "stopped", "release", "future", "Prepare", ""] {
        place.hook("db", operation, &doomed()).assert_passed();
    }
}

#[test]
fn a_running_guest_is_never_stopped_even_by_mistake() {
    let Some((place, set_policy)) = Place::own("running") else { return };
    set_policy("on_internal_error = 'block'\nbroken");
    for operation in ["reconnect", "attach", "started", "stopped", "release"] {
        for input in [doomed(), b"\xff<".to_vec(), Vec::new()] {
            place.hook("db", operation, &input).assert_passed();
        }
    }
}

#[test]
fn any_arguments_are_survived() {
    let Some(place) = Place::any("arguments") else { return };
    let long = "x".repeat(100_000);
    let junk = || OsString::from_vec(vec![0xff, 0xfe, b'\n', 0x1b, b'[']);
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let calls = [
        words(&[]),
        words(&["--help"]),
        words(&["--version"]),
        words(&["db"]),
        words(&["db", "prepare"]),
        words(&["", "", "", ""]),
        words(&[&long, &long, "begin"]),
        words(&["--", "-x", "--", "-"]),
        vec![junk(), junk(), junk(), junk()],
        vec![junk(), "prepare".into(), junk(), "-".into()],
    ];
    for args in &calls {
        assert!(place.feed(place.command(&HOOK).args(args), &doomed()).assert_sane(), "{args:?}");
    }
    // These are calls of libvirt's, as far as can be seen.
    for (name, extra) in [(OsString::from(&long), vec![]), (junk(), vec![]), ("db".into(), words(&["-", "-", "more"]))]
    {
        let args: Vec<&OsStr> = [&name, OsStr::new("prepare"), OsStr::new("begin")]
            .into_iter()
            .chain(extra.iter().map(|e| e.as_os_str()))
            .collect();
        place.feed(place.command(&HOOK).args(&args), &doomed()).assert_stopped();
        place.feed(place.command(&HOOK).args(&args), &fine()).assert_passed();
    }
}

#[test]
fn names_cannot_do_anything_to_a_terminal() {
    let Some((place, set_policy)) = Place::own("names") else { return };
    for name in ["a&#10;b", "&#x9b;31m", "a\u{202e}b", "$(reboot)", "'; reboot; '", "-x", "ü"] {
        let xml = Guest::huge(name, "pc-q35-7.2").with_phys_bits(40).xml();
        place.hook(name, "prepare", xml.as_bytes()).assert_stopped();
    }
    // The reason names the machine type and the vendor.
    let cpu = "<cpu><model vendor_id='GenuineInte\u{7f}'>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>";
    for machine in ["pc-q35-6.\u{9b}31m2", "pc-i440fx-\u{7f}", "pc-q35-7.2"] {
        let xml = Guest::huge("db", machine).with_cpu(cpu).with_hostdev().xml();
        place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
    }
    set_policy("on_internal_error = 'block'\n");
    for name in ["a\nb", "\u{1b}[31m", "\u{202e}"] {
        let line = place.hook(name, "prepare", b"<a\n\x1b[31m").assert_stopped();
        assert!(!line.contains(name), "{line:?}");
    }
}

/// Inputs that are not a domain, each with the reason that is logged.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let filled = |start: &str, byte: u8| {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(64 << 20, byte);
        bytes
    };
    let utf16: Vec<u8> = "<domain type='kvm'/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let laughs = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]><domain type='kvm'>&b;</domain>";
    vec![
        ("empty", Vec::new()),
        ("not XML", b"a policy file, perhaps".to_vec()),
        ("another document", b"<network/>".to_vec()),
        ("bytes that are not text", vec![0xff; 4096]),
        ("zeros", vec![0; 1 << 20]),
        ("Latin-1", b"<domain type='kvm'><name>\xe9</name></domain>".to_vec()),
        ("UTF-16", utf16),
        ("two roots", b"<domain type='kvm'/><domain type='kvm'/>".to_vec()),
        ("entities", laughs.as_bytes().to_vec()),
        ("nested without end", b"<a>".repeat(1 << 20)),
        ("64 MiB of a comment", filled("<domain type='kvm'><!--", b'x')),
        ("64 MiB of white space", filled("", b' ')),
        ("64 MiB of an attribute", filled("<domain type='", b'k')),
        ("64 MiB of zeros", filled("", 0)),
    ]
}

#[test]
fn input_other_than_a_domain_is_allowed_and_logged() {
    let Some((place, _)) = Place::own("garbage-allow") else { return };
    let log = place.namespace().system_log();
    for (what, input) in garbage() {
        place.hook("db", "prepare", &input).assert_passed();
        let lines = log.lines();
        let [line] = &lines[..] else { panic!("{what}: {lines:?}") };
        assert!(line.starts_with("<27>iova-preflight-hook["), "{what}: {line}");
        assert!(line.contains("internal error: domain XML:") && line.contains("guest db"), "{what}: {line}");
        assert!(!line.contains(char::is_control), "{what}: {line:?}");
    }
}

#[test]
fn input_other_than_a_domain_is_stopped_if_the_policy_says_so() {
    let Some((place, set_policy)) = Place::own("garbage-block") else { return };
    set_policy("on_internal_error = 'block'\n");
    for (what, input) in garbage() {
        let line = place.hook("db", "prepare", &input).assert_stopped();
        assert!(line.contains("domain XML:") && line.contains("on_internal_error"), "{what}: {line}");
    }
}

#[test]
fn every_truncation_is_an_error_of_our_own() {
    let Some((place, set_policy)) = Place::own("truncated") else { return };
    let whole = doomed();
    let whole = whole.trim_ascii_end();
    let cuts = || (0..whole.len()).step_by(23);
    for cut in cuts() {
        place.hook("db", "prepare", &whole[..cut]).assert_passed();
    }
    set_policy("on_internal_error = 'block'\n");
    for cut in cuts() {
        let line = place.hook("db", "prepare", &whole[..cut]).assert_stopped();
        assert!(line.contains("internal error"), "cut at {cut}: {line}");
    }
}

#[test]
fn a_domain_as_large_as_libvirt_takes_is_decided() {
    let Some(place) = Place::any("large") else { return };
    let mut xml = String::from_utf8(doomed()).expect("UTF-8");
    let comment = format!("<!--{}-->", "x".repeat((4 << 20) - xml.len() - 7));
    xml.insert_str(xml.find("<memory").expect("a place"), &comment);
    assert_eq!(xml.len(), 4 << 20);
    place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
}

#[test]
fn closed_and_useless_descriptors_do_not_matter() {
    let Some(place) = Place::any("descriptors") else { return };
    let shell = |redirections: &str, input: &[u8]| {
        let script = format!("exec \"$0\" db prepare begin - {redirections}");
        place.feed(place.command("sh").args(["-c", &script, &HOOK]), input)
    };
    shell("<&-", &[]).assert_passed();
    shell("< /", &[]).assert_passed();
    shell("< /dev/null", &[]).assert_passed();
    shell("<&- >&- 2>&-", &[]).assert_passed();
    // It is stopped, although the reason cannot be written.
    for nowhere in ["2>&-", "2> /dev/full", ">&- 2>&-"] {
        let run = shell(nowhere, &doomed());
        assert_eq!((run.assert_sane(), run.stderr().as_str()), (false, ""), "{nowhere}");
    }
    shell("> /dev/full", &doomed()).assert_stopped();
}
