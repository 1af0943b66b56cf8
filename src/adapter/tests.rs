use super::*;
use crate::domain;
use crate::host::builtin;
use crate::policy::OnInternalError;
use crate::xml::Document;
use std::ffi::OsString;

const ALL: [&Protocol; 6] = [&VDSM, &KUBEVIRT, &CLOUDSTACK_GROOVY, &CLOUDSTACK_SHELL, &OPENNEBULA, &PROXMOX];

fn guest(name: &str, machine: &str, gib: u64) -> String {
    format!(
        "<domain type='kvm'><name>{name}</name><memory unit='GiB'>{gib}</memory>\r\n\
         <os><type arch='x86_64' machine='{machine}'>hvm</type></os><cpu mode='host-passthrough'/><devices>\
         <hostdev type='pci'><source><address bus='0x41'/></source></hostdev></devices></domain>\n\n"
    )
}

fn epyc() -> Host {
    Host { qemu: "7.2".parse().ok(), ..builtin("amd-epyc").expect("built in") }
}

fn policy(text: &str) -> Policy {
    Policy::from_toml(text).expect("a policy")
}

fn reply_to(protocol: &Protocol, xml: &str, host: &Host, policy: &Policy) -> Reply {
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let outcome = decide(protocol, GuestSource::Xml(&document, &domain), host, policy);
    protocol.reply(Some(xml.as_bytes()), outcome, policy)
}

/// What every reply keeps to.
fn assert_sane(protocol: &Protocol, reply: &Reply) {
    assert_eq!(reply.stderr.is_none(), reply.status == 0, "{reply:?}");
    for line in reply.stderr.iter() {
        assert!(line.is_ascii() && !line.contains(char::is_control), "{line:?}");
        assert!(line.starts_with("iova-preflight: ") && !line.contains("host:"), "{line}");
    }
    assert!(protocol.returns == Returns::Printed || reply.stdout.is_empty(), "{reply:?}");
    assert!(protocol.returns == Returns::Edited || reply.file.is_none(), "{reply:?}");
}

#[test]
fn a_guest_that_starts_comes_back_byte_for_byte() {
    for xml in [guest("db", "pc-q35-6.2", 16), guest("db", "pc-q35-7.1", 1200), guest("größe", "pc-q35-7.2", 1200)] {
        for protocol in ALL {
            let reply = reply_to(protocol, &xml, &epyc(), &Policy::default());
            assert_sane(protocol, &reply);
            let expected = if protocol.returns == Returns::Printed { xml.as_bytes() } else { b"" };
            assert_eq!((reply.status, &reply.stdout[..], reply.file), (0, expected, None), "{protocol:?}");
        }
    }
}

#[test]
fn a_guest_that_a_rewrite_fixes_is_rewritten_or_stopped_with_the_fix() {
    let xml = guest("db", "pc-q35-6.2", 1200);
    let fixed = xml.replace("pc-q35-6.2", "pc-q35-7.1");
    for protocol in ALL {
        let reply = reply_to(protocol, &xml, &epyc(), &Policy::default());
        assert_sane(protocol, &reply);
        match protocol.returns {
            Returns::Printed => assert_eq!((reply.status, reply.stdout.as_slice()), (0, fixed.as_bytes())),
            Returns::Edited => assert_eq!((reply.status, reply.file.as_deref()), (0, Some(fixed.as_str()))),
            Returns::Nothing => {
                let line = reply.stderr.expect("a line");
                assert!(reply.status == 1 && line.contains("pc-q35-6.2") && line.contains("pc-q35-7.1"), "{line}");
            }
        }
        assert!(reply.log[0].1.contains("guest db"), "{:?}", reply.log);
    }
}

#[test]
fn a_guest_that_nothing_fixes_is_stopped_in_one_line_of_ascii() {
    let xml = guest("größe", "pc-q35-6.2", 1200);
    let never = policy("machine_upgrade = 'never'");
    for protocol in ALL {
        let reply = reply_to(protocol, &xml, &epyc(), &never);
        assert_sane(protocol, &reply);
        assert_eq!((reply.status, &reply.stdout[..], &reply.file), (protocol.stop, &b""[..], &None), "{protocol:?}");
        let line = reply.stderr.expect("a line");
        for part in ["guest gr\\u{f6}\\u{df}e: ", "HyperTransport", "no automatic fix"] {
            assert!(line.contains(part), "{line}");
        }
    }
}

#[test]
fn libvirt_can_be_made_to_say_why() {
    let xml = guest("a<b&'", "pc-q35-6.2", 1200).replace("a<b&'", "a&lt;b&amp;'");
    let in_domain = policy("machine_upgrade = 'never'\n[adapter]\nblock_in_domain = true");
    for protocol in ALL {
        let reply = reply_to(protocol, &xml, &epyc(), &in_domain);
        assert_sane(protocol, &reply);
        if !protocol.takes_refusal {
            assert_eq!(reply.status, protocol.stop);
            continue;
        }
        assert_eq!(reply.status, 0);
        let document = Document::parse(&reply.stdout).expect("well-formed");
        let reason = document.root().value("type").expect("a type");
        assert!(reason.starts_with("iova-preflight: guest a<b&': ") && reason.len() <= 910, "{reason}");
        assert!(reason.contains("no automatic fix"), "{reason}");
    }
}

#[test]
fn a_failure_stops_no_guest_unless_the_policy_says_so() {
    let failure = || AdapterOutcome::failure("domain XML:1:2: größe");
    for protocol in ALL {
        let reply = protocol.reply(Some(b"<a"), failure(), &Policy::default());
        assert_eq!(reply.status, protocol.failure);
        assert_eq!(reply.stderr.is_some(), protocol.failure != 0 || protocol.stderr_is_log, "{reply:?}");
        let echoed = protocol.returns == Returns::Printed && protocol.failure == 0;
        assert_eq!(reply.stdout, if echoed { &b"<a"[..] } else { b"" }, "{protocol:?}");
        assert!(matches!(&reply.log[..], [(Level::Error, line)] if line.contains("domain XML:1:2")), "{reply:?}");

        for (vm, text, named) in [
            (Some("42"), "", "; allowing VM 42 to start unchecked"),
            (Some("42"), "on_internal_error = 'block'", "; VM 42 is stopped (on_internal_error"),
            (Some(""), "", "; allowing the guest to start"),
            (None, "", "; allowing the guest to start"),
        ] {
            let reply = protocol.reply(Some(b"<a"), failure().of_vm(vm), &policy(text));
            assert!(matches!(&reply.log[..], [(Level::Error, line)] if line.contains(named)), "{reply:?}");
            assert!(reply.stderr.is_none_or(|line| line.contains(named)), "{vm:?}");
        }

        let unread = protocol.reply(None, failure(), &Policy::default());
        assert_eq!(unread.status == 0, protocol.returns != Returns::Printed, "{unread:?}");
        assert!(unread.stdout.is_empty());

        let reply = protocol.reply(Some(b"<a"), failure(), &policy("on_internal_error = 'block'"));
        assert_sane(protocol, &reply);
        assert_eq!((reply.status, reply.stdout.len()), (protocol.stop, 0));
        let text = "on_internal_error = 'block'\n[adapter]\nblock_in_domain = true";
        let reply = protocol.reply(Some(b"<a"), failure(), &policy(text));
        assert_eq!(reply.status == 0, protocol.takes_refusal);
    }
    assert_eq!(policy("on_internal_error = 'block'").on_internal_error, OnInternalError::Block);
}

#[test]
fn what_is_uncertain_exempt_or_allowed_passes() {
    let xml = guest("db", "pc-q35-6.2", 1200);
    let unknown = Host { iommu: None, reserved: Vec::new(), ..epyc() };
    for protocol in ALL {
        for (host, text, logged) in [
            (&unknown, "", "depends on"),
            (&epyc(), "mode = 'warn'", "allowed by policy"),
            (&epyc(), "mode = 'off'", ""),
            (&epyc(), "exempt = ['db']", ""),
        ] {
            let reply = reply_to(protocol, &xml, host, &policy(text));
            assert_sane(protocol, &reply);
            assert_eq!((reply.status, reply.file.as_ref()), (0, None), "{text}");
            let log = reply.log.first().map_or("", |(_, line)| line);
            assert!(log.contains(logged) && log.is_empty() == logged.is_empty(), "{text}: {log}");
        }
    }
}

/// A sidecar of KubeVirt sees the alias, and no QEMU.
#[test]
fn the_policy_decides_what_an_alias_means() {
    let xml = guest("default_db", "q35", 1200);
    let host = builtin("amd-epyc").expect("built in");
    for (text, logged) in [("", "guest default_db: unknown-machine-type"), ("alias = 'newest'", "")] {
        let reply = reply_to(&KUBEVIRT, &xml, &host, &policy(text));
        assert_eq!((reply.status, &reply.stdout[..]), (0, xml.as_bytes()));
        let log = reply.log.first().map_or("", |(_, line)| line);
        assert!(log.contains(logged) && log.is_empty() == logged.is_empty(), "{text}: {log}");
    }
}

#[test]
fn domains_too_large_for_the_shell_hook_are_not_handed_back() {
    let padding = format!("<!--{}-->", "x".repeat(66_000));
    for (machine, policy_text) in [("pc-q35-7.1", ""), ("pc-q35-6.2", "")] {
        let xml = guest("db", machine, 1200).replace("<os>", &format!("{padding}<os>"));
        let reply = reply_to(&CLOUDSTACK_SHELL, &xml, &epyc(), &policy(policy_text));
        assert_sane(&CLOUDSTACK_SHELL, &reply);
        assert!(reply.status != 0 && reply.stdout.is_empty(), "{machine}");
        let reply = reply_to(&CLOUDSTACK_GROOVY, &xml, &epyc(), &policy(policy_text));
        assert!(reply.status == 0 && reply.stdout.len() > 66_000, "{machine}");
    }
}

#[test]
fn calls_are_read_as_they_are_made() {
    let call = |name: &str, words: &[&str]| {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        read_call(name, &words).expect("an adapter")
    };
    assert_eq!(call("vdsm", &[]), (&VDSM, AdapterCall::File));
    let xml = || AdapterCall::Argument(b"<domain/>".to_vec());
    assert_eq!(call("kubevirt", &["--vmi", "{}", "--domain", "<domain/>"]), (&KUBEVIRT, xml()));
    let data = AdapterCall::Elsewhere(b"{\"a\":1}".to_vec());
    assert_eq!(call("kubevirt", &["--vmi", "{}", "--cloud-init", "{\"a\":1}"]), (&KUBEVIRT, data));
    assert_eq!(call("kubevirt", &[]), (&KUBEVIRT, AdapterCall::Elsewhere(Vec::new())));
    assert_eq!(call("cloudstack", &[]), (&CLOUDSTACK_GROOVY, AdapterCall::Stdin));
    assert_eq!(call("cloudstack", &["transform", "<domain/>"]), (&CLOUDSTACK_SHELL, xml()));
    for words in [&["transform", r"\<domain/\>"][..], &["transform"]] {
        assert!(matches!(call("cloudstack", words), (_, AdapterCall::Broken(_))), "{words:?}");
    }
    assert_eq!(call("opennebula", &["/tmp/deployment.0", "host", "1", "host"]), (&OPENNEBULA, AdapterCall::Stdin));
    assert_eq!(call("proxmox", &["100", "pre-start"]), (&PROXMOX, AdapterCall::Number("100".to_owned())));
    for phase in ["post-start", "pre-stop", "post-stop", "new"] {
        assert_eq!(call("proxmox", &["100", phase]), (&PROXMOX, AdapterCall::Elsewhere(Vec::new())));
    }
    for words in [&["x; y", "pre-start"][..], &["", "pre-start"], &[]] {
        assert!(matches!(call("proxmox", words), (_, AdapterCall::Broken(_))), "{words:?}");
    }
    assert_eq!(read_call("nova", &[]), None);
    for (name, words, vm) in [
        ("opennebula", &["/tmp/deployment.0", "host", "42", "host"][..], Some("42")),
        ("opennebula", &["/tmp/deployment.0"], None),
        ("proxmox", &["100", "pre-start"], Some("100")),
        ("cloudstack", &["transform", "<domain/>", "1"], None),
    ] {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert_eq!(vm_in(name, &words).as_deref(), vm, "{name}");
    }
}

/// On a host whose IOMMU has 39 bits, three rewrites are tried and none is enough.
#[test]
fn a_block_says_the_cause_and_the_last_reason_in_a_short_line() {
    let xml = guest("db", "pc-q35-7.1", 1200)
        .replace("<cpu mode='host-passthrough'/>", "<cpu mode='custom'><model>Skylake-Server</model></cpu>");
    let cpu = "[cpu]\nvendor = 'GenuineIntel'\nphys_bits = 46\n";
    let iommu = "[iommu]\nkind = 'intel'\naddress_bits = 39\n[[iommu.reserved]]\nstart = 0xfee00000\nend = 0xfeefffff\n\
                 type = 'msi'\n";
    let host = Host::from_profile(&format!("{cpu}{iommu}[kernel]\nversion = '6.12'\n[qemu]\nversion = '10.0.13'\n"))
        .expect("a profile");
    for protocol in ALL {
        let reply = reply_to(protocol, &xml, &host, &Policy::default());
        let line = reply.stderr.expect("a line");
        assert!(line.contains("39 bits") && line.contains("give the guest less memory"), "{line}");
        assert!(!line.contains("is not enough") && line.len() <= 500, "{}: {line}", line.len());
    }
}
