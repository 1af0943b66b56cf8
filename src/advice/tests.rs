//! What each owner is told.

use super::*;
use crate::command_line::Launch;
use crate::host::{Host, builtin};
use crate::policy::Policy;
use crate::verdict::evaluate;
use crate::xml::Document;
use crate::{argv::Call, domain};

const NOVA: &str = "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
    <nova:package version='34.0.0'/><nova:flavor name='gpu.1t'/><nova:root type='image' uuid='155d'/></nova:instance></metadata>";

fn host() -> Host {
    Host { qemu: "10.0".parse().ok(), ..builtin("amd-epyc").expect("built in") }
}

/// The advice to the owner of a guest of 1200 GiB with a device and with this in its XML, whole and in one line.
fn told(owner: Owner, name: &str, machine: &str, inside: &str) -> (Vec<String>, String) {
    let xml = format!(
        "<domain type='kvm'><name>{name}</name><uuid>c7a5fdbd</uuid><memory unit='GiB'>1200</memory>\
         <os><type arch='x86_64' machine='{machine}'>hvm</type></os>{inside}\
         <devices><hostdev type='pci'><source><address bus='1'/></source></hostdev></devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    said(owner, (&domain).into(), &Policy::default())
}

fn said(owner: Owner, subject: Subject<'_>, policy: &Policy) -> (Vec<String>, String) {
    let evaluation = evaluate(subject, &host(), policy);
    let advice = evaluation.fix.as_ref().map(|fix| advise(owner, subject, fix)).unwrap_or_default();
    (advice.lines().map(str::to_owned).collect(), remedy(owner, subject, &evaluation))
}

fn lines(owner: Owner, name: &str, machine: &str, inside: &str) -> Vec<String> {
    told(owner, name, machine, inside).0
}

#[test]
fn nova_gets_commands_for_the_instance_then_for_later_ones() {
    let cpu = "<cpu><model>EPYC</model></cpu>";
    assert_eq!(
        lines(Owner::Nova, "instance-1", "pc-q35-6.2", &format!("{NOVA}{cpu}")),
        [
            "openstack server stop c7a5fdbd",
            "nova-manage libvirt update_machine_type c7a5fdbd pc-q35-7.1",
            "nova-manage image_property set c7a5fdbd --property hw_maxphysaddr_mode=emulate --property hw_maxphysaddr_bits=42",
            "openstack server start c7a5fdbd",
            "openstack image set --property hw_machine_type=pc-q35-7.1 --property hw_maxphysaddr_mode=emulate --property \
             hw_maxphysaddr_bits=42 155d",
            "openstack --os-compute-api-version 2.85 flavor set --property hw:maxphysaddr_mode=emulate --property \
             hw:maxphysaddr_bits=42 gpu.1t",
        ]
    );
    // Without metadata there are no names.
    let unnamed = lines(Owner::Nova, "a", "pc-q35-7.1", cpu).join("\n");
    assert!(unnamed.contains(" IMAGE\n") && unnamed.ends_with(" FLAVOR"), "{unnamed}");
    // Before an instance is made there is only what it is made of.
    let xml =
        "<domain type='kvm'><memory unit='GiB'>1200</memory><os><type machine='pc-q35-7.1'>hvm</type></os></domain>";
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let (before, refusal) = said(Owner::Nova, (&domain).into(), &Policy::default());
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before[0].starts_with("openstack image set") && refusal.ends_with(&before[1]), "{refusal}");
    // Before 29 there is no such property.
    let old = lines(Owner::Nova, "a", "pc-q35-7.1", &format!("{}{cpu}", NOVA.replace("34.0.0", "28.3.0")));
    assert!(old[1].starts_with("Nova 28 has no property") && old.len() == 3, "{old:?}");
}

#[test]
fn nova_takes_some_types_only_by_force() {
    for (from, to, expected) in [
        (Some("pc-q35-6.2"), "pc-q35-7.1", false),
        (Some("pc-i440fx-5.2"), "pc-i440fx-10.0", false),
        (Some("pc-q35-rhel8.6.0"), "pc-q35-rhel9.2.0", false),
        (Some("pc-q35-rhel9.6.0"), "pc-q35-rhel10.0.0", true),
        (Some("pc-q35-jammy"), "pc-q35-noble", true),
        (Some("q35"), "pc-q35-7.1", true),
        (Some("pc"), "pc-i440fx-7.1", true),
        (None, "pc-i440fx-7.1", false),
    ] {
        assert_eq!(nova::needs_force(from, to), expected, "{from:?} {to}");
    }
}

#[test]
fn ovirt_is_told_of_the_engine() {
    let [machine, restart] = &lines(Owner::Vdsm, "vdi", "pc-q35-rhel8.6.0", "<cpu mode='host-passthrough'/>")[..]
    else {
        panic!("two lines")
    };
    assert!(
        machine.contains("Custom Emulated Machine: pc-q35-rhel9.2.0; a cluster of compatibility level 4.8"),
        "{machine}"
    );
    assert!(restart.contains("shut the virtual machine down"));
    let upstream = lines(Owner::Vdsm, "vdi", "pc-q35-6.2", "").join("\n");
    assert!(!upstream.contains("level") && upstream.contains("adapter vdsm install"), "{upstream}");
}

#[test]
fn kubevirt_is_told_of_the_virtual_machine() {
    assert_eq!(
        lines(Owner::Kubevirt, "ml-team_notebook", "pc-q35-6.2", "<cpu mode='host-passthrough'/>"),
        [
            "kubectl -n ml-team patch vm notebook --type merge -p \
             '{\"spec\":{\"template\":{\"spec\":{\"domain\":{\"machine\":{\"type\":\"pc-q35-7.1\"}}}}}}'",
            "virtctl -n ml-team restart notebook",
        ]
    );
    let width = lines(Owner::Kubevirt, "odd", "pc-q35-7.1", "");
    assert!(
        width[0].contains("maxphysaddr emulate 42") && width[1] == "virtctl -n NAMESPACE restart NAME",
        "{width:?}"
    );
}

#[test]
fn opennebula_takes_raw_only_without_a_cpu() {
    let bare = lines(Owner::Opennebula, "one-42", "pc-q35-6.2", "");
    assert_eq!(bare[0], "onevm poweroff 42");
    assert!(
        bare[1].ends_with(
            "OS = [ MACHINE = \"pc-q35-7.1\" ] RAW = [ TYPE = \"kvm\", DATA = \"<cpu><maxphysaddr mode='emulate' bits='42'/></cpu>\" ]"
        ),
        "{bare:?}"
    );
    let with_model = lines(Owner::Opennebula, "one-42", "pc-q35-7.1", "<cpu><model>EPYC</model></cpu>");
    assert!(with_model[0].contains("adapter opennebula install") && with_model.len() == 3, "{with_model:?}");
}

#[test]
fn cloudstack_is_told_of_its_transformer() {
    let told = lines(Owner::Cloudstack, "i-2-3-VM", "pc-i440fx-6.2", "");
    assert!(told[0].contains("machine pc-i440fx-6.2 → pc-i440fx-7.1, maxphysaddr emulate 42"), "{told:?}");
    assert_eq!(told.len(), 2);
}

/// The call of `qm showcmd`, as those in qemu-server's `src/test/cfg2cmd` are written.
#[test]
fn proxmox_gets_qm_set() {
    let proxmox = |machine: &str, cpu: &str| {
        let text = format!(
            "/usr/bin/kvm -id 104 -name 'db,debug-threads=on' -cpu {cpu} -m 1228800 -device vfio-pci,host=0000:41:00.0 \
             -machine 'type={machine}'"
        );
        let call = Call::read(text.as_bytes()).expect("a call");
        let launch = Launch::read(&call);
        assert_eq!(Subject::from(&launch).owner(), Some(Owner::Proxmox));
        said(Owner::Proxmox, (&launch).into(), &Policy::default()).0
    };
    assert_eq!(
        proxmox("pc-q35-6.2+pve0", "EPYC-Milan,+aes"),
        [
            "qm set 104 --machine pc-q35-7.1+pve0",
            "qm set 104 --cpu EPYC-Milan,phys-bits=42",
            "qm shutdown 104 && qm start 104",
        ]
    );
    let own = proxmox("pc-q35-7.1+pve0", "qemu64,+aes,+pni");
    assert_eq!(own[0], "qm set 104 --cpu TYPE,phys-bits=42");
}

#[test]
fn a_remedy_is_one_line() {
    for owner in Owner::ALL {
        for (machine, cpu) in
            [("pc-q35-6.2", ""), ("pc-q35-6.2", "<cpu><model vendor_id='GenuineIntel'>EPYC</model></cpu>")]
        {
            let (lines, remedy) = told(owner, "größe_→", machine, cpu);
            let expected = if lines.is_empty() { place(owner) } else { &lines[0] };
            assert!(remedy.contains(expected) && !remedy.contains('\n'), "{remedy}");
        }
    }
}
