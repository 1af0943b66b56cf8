//! A guest's own XML cannot switch the check off.

use super::{HOOK, Place, doomed};
use crate::common::guest::Guest;

/// What a guest's owner can write into `<metadata>`, as libvirt prints it.
fn metadata() -> Vec<(&'static str, String)> {
    let elements = |count: usize| (0..count).map(|n| format!("<a{n} b='{n}'/>")).collect::<String>();
    let attributes: String = (0..70_000).map(|n| format!(" a{n}='{n}'")).collect();
    let namespaces: String = (0..70_000).map(|n| format!("<p{n}:a xmlns:p{n}='u{n}'/>")).collect();
    let policy = |asked: &str| format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' {asked}/>");
    // libvirt indents by two blanks, up to 60, and prints `>` as four bytes.
    let indented = format!("{}<a/>\n", " ".repeat(60)).repeat(700_000);
    vec![
        ("an override that is none", policy("passthrough='x'")),
        ("an override that is empty", policy("passthrough=''")),
        ("an override of an undefined entity", policy("passthrough='&undefined;'")),
        ("an override that loosens", policy("passthrough='present'")),
        ("two overrides", policy("passthrough='present'") + &policy("passthrough='x'")),
        ("70 000 elements", elements(70_000)),
        ("70 000 attributes", format!("<a{attributes}/>")),
        ("70 000 namespaces", namespaces),
        ("4 MiB of >", format!("<a>{}</a>", "&gt;".repeat(4 << 20))),
        ("44 MiB of indentation", indented),
        ("4 MiB of \"", format!("<a b='{}'/>", "&quot;".repeat(4 << 20))),
        ("10 000 levels", format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000))),
        ("an undefined entity", "&undefined;<a b='&undefined;'/>".to_owned()),
        ("a section", "<![CDATA[</metadata><name>x</name><memory>1</memory>]]>".to_owned()),
        ("a comment", "<!-- </metadata><memory>1</memory> -->".to_owned()),
        ("an instruction", "<?a </metadata><memory>1</memory>?>".to_owned()),
        ("metadata", "<metadata><memory>1</memory></metadata><domain><memory>1</memory></domain>".to_owned()),
    ]
}

/// What a network gives a guest is in the XML from `start` on: libvirt 9.0, 11.3 and 12.8 print the interface of the
/// domain at `prepare`, and then what it has become.
#[test]
fn a_function_that_a_network_gives_is_seen_at_start() {
    let Some((place, _)) = Place::own("network") else { return };
    let guest = |interface: &str| {
        let guest = Guest::huge("db", "pc-q35-6.2").xml();
        guest.replace("</devices>", &format!("{interface}</devices>")).into_bytes()
    };
    let network = guest("<interface type='network'><source network='pool'/></interface>");
    place.hook("db", "prepare", &network).assert_passed();
    let given = guest(
        "<interface type='hostdev' managed='yes'><source><address type='pci' domain='0x0000' bus='0x41' slot='0x10' \
         function='0x1'/></source></interface>",
    );
    let line = place.hook("db", "start", &given).assert_stopped();
    assert!(line.contains("RAM"), "{line}");
}

fn with_metadata(guest: &Guest, tag: &str, inside: &str) -> Vec<u8> {
    let xml = guest.xml();
    let at = xml.find("<memory").expect("a place");
    [&xml[..at], "<metadata", tag, ">", inside, "</metadata>\n  ", &xml[at..]].concat().into_bytes()
}

#[test]
fn a_guests_metadata_cannot_switch_the_check_off() {
    let Some((place, set_policy)) = Place::own("metadata") else { return };
    let log = place.namespace().system_log();
    let (doomed, fine) = (Guest::huge("db", "pc-q35-7.2").with_phys_bits(40), Guest::small("web"));
    set_policy("passthrough = 'assume'\non_internal_error = 'block'\n");
    for (what, inside) in metadata() {
        let line = place.hook("db", "prepare", &with_metadata(&doomed, "", &inside)).assert_stopped();
        assert!(line.contains("phys-bits"), "{what}: {line}");
        // Nor does it stop a guest.
        place.hook("web", "prepare", &with_metadata(&fine, "", &inside)).assert_passed();
        let lines = log.lines();
        assert!(lines.iter().all(|line| line.starts_with("<28>")), "{what}: {lines:?}");
        let ignored = lines.iter().filter(|line| line.contains("metadata") && line.contains("ignored"));
        assert_eq!(ignored.count(), if what.contains("override") { 2 } else { 0 }, "{what}: {lines:?}");
    }
    let attributes: String = (0..70_000).map(|n| format!(" a{n}='{n}'")).collect();
    place.hook("db", "prepare", &with_metadata(&doomed, &attributes, "")).assert_stopped();
}

#[test]
fn an_override_tightens_and_loosens_only_where_the_policy_says_so() {
    let Some((place, set_policy)) = Place::own("overrides") else { return };
    let in_hole = Guest::huge("db", "pc-q35-6.2");
    let call = |asked: &str| {
        let policy = format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{asked}'/>");
        place.hook("db", "prepare", &with_metadata(&in_hole, "", &policy))
    };
    for policy in ["", "overrides = 'tighten'\n", "overrides = 'honour'\n"] {
        set_policy(policy);
        call("assume").assert_stopped();
        call("present").assert_passed();
    }
    set_policy("overrides = 'ignore'\n");
    call("assume").assert_passed();
    for (policy, loosens) in [("", false), ("overrides = 'ignore'\n", false), ("overrides = 'honour'\n", true)] {
        set_policy(&format!("passthrough = 'assume'\n{policy}"));
        call("assume").assert_stopped();
        if loosens {
            call("present").assert_passed();
        } else {
            call("present").assert_stopped();
        }
    }
}

/// A text of a guest's own is as long as a definition may be, and six times that once it is printed.
#[test]
fn a_guests_title_cannot_switch_the_check_off() {
    let Some(place) = Place::any("title") else { return };
    // A program that is not optimised takes too long for all of it.
    let most = if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_some() { 4 << 20 } else { 200_000 };
    for text in ["&quot;".repeat(most), "&amp;x".repeat(most / 4)] {
        let xml = String::from_utf8(doomed()).expect("UTF-8");
        let xml = xml.replace("<memory", &format!("<title>{text}</title><memory"));
        place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
    }
    // Elements that libvirt keeps, as many as a definition can have.
    let tags = "<tag id='1'/>\n".repeat(most.min(300_000) / 4);
    let xml = String::from_utf8(doomed()).expect("UTF-8");
    let xml = xml.replace("</devices>", &format!("<interface type='user'><vlan>{tags}</vlan></interface></devices>"));
    place.hook("db", "prepare", xml.as_bytes()).assert_stopped();
}

/// As many raw QEMU arguments, or as long ones, as a definition may have.
#[test]
fn a_guests_raw_arguments_cannot_switch_the_check_off() {
    let Some(place) = Place::any("raw") else { return };
    let most = if std::env::var_os("IOVA_PREFLIGHT_HOOK").is_some() { 3 << 20 } else { 150_000 };
    let argument = |value: &str| format!("<q:arg value='{value}'/>");
    let numbered = |count: usize, option: &str, value: &dyn Fn(usize) -> String| {
        (0..count).map(|n| argument(option) + &argument(&value(n))).collect::<String>()
    };
    let count = most / 120;
    let devices = numbered(count, "-device", &|n| format!("e1000,id=x{n:06}"));
    let changes = numbered(count, "-set", &|n| format!("device.x{:06}.addr={n}", count - 1));
    for arguments in [
        argument("-machine") + &argument(&format!("q35{}", ",a=b".repeat(most / 4))),
        argument("-device") + &argument(&format!("e1000{}", ",a=b".repeat(most / 4))),
        devices + &changes,
    ] {
        place.hook("db", "prepare", &with_raw(&arguments)).assert_stopped();
    }
}

/// A guest starts because an argument is not modelled, not because the argument exhausts the hook.
#[test]
fn a_raw_argument_that_is_not_modelled_takes_no_more_than_its_own_memory() {
    let Some((place, set_policy)) = Place::own("raw-memory") else { return };
    set_policy("on_internal_error = 'block'\n");
    for (option, part) in [("-machine", ",cxl=on"), ("-m", ",a=b")] {
        let value = format!("1{}", part.repeat(200_000 / part.len()));
        let arguments = format!("<q:arg value='{option}'/><q:arg value='{value}'/>");
        // The hook raises this to what it takes.
        let mut command = place.command("prlimit");
        command.args(["--as=1073741824", &HOOK, "db", "prepare", "begin", "-"]);
        place.feed(&mut command, &with_raw(&arguments)).assert_passed();
    }
}

/// A doomed guest with raw QEMU arguments, whose namespace is called `q`.
fn with_raw(arguments: &str) -> Vec<u8> {
    let xml = String::from_utf8(doomed()).expect("UTF-8");
    xml.replace("<domain", "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'")
        .replace("</domain>", &format!("<q:commandline>{arguments}</q:commandline></domain>"))
        .into_bytes()
}

#[test]
fn a_guest_named_like_an_exempt_uuid_is_not_exempt() {
    let Some((place, set_policy)) = Place::own("named-like") else { return };
    let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
    for exempt in [uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', "")] {
        set_policy(&format!("exempt = ['{exempt}']\n"));
        for name in [uuid.to_owned(), exempt.clone()] {
            let xml = Guest::huge(&name, "pc-q35-7.2").with_phys_bits(40).xml();
            place.hook(&name, "prepare", xml.as_bytes()).assert_stopped();
        }
        let with_uuid = String::from_utf8(doomed()).expect("UTF-8");
        let with_uuid = with_uuid.replace("<memory", &format!("<uuid>{uuid}</uuid><memory"));
        place.hook("db", "prepare", with_uuid.as_bytes()).assert_passed();
    }
}
