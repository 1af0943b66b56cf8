use super::{Change, plan};
use crate::evaluate::{Diagnosis, diagnose};
use crate::host::Host;
use crate::policy::Policy;
use crate::rules::machine_type_not_available;
use crate::xml::Document;

const EPYC: &str = "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n[iommu]\nkind = 'amd'\n\
    [[iommu.reserved]]\nstart = 0xfd00000000\nend = 0xffffffffff\ntype = 'reserved'\n";

/// What is wrong with a guest with a passthrough device, and what helps.
fn planned(
    machine: &str,
    gib: u64,
    cpu: &str,
    host: &str,
    policy: &str,
) -> (Diagnosis, Result<Vec<String>, Vec<String>>) {
    let host = Host::from_profile(&format!("{EPYC}{host}")).expect("a profile");
    planned_on(&host, machine, gib, cpu, policy)
}

fn planned_on(
    host: &Host,
    machine: &str,
    gib: u64,
    cpu: &str,
    policy: &str,
) -> (Diagnosis, Result<Vec<String>, Vec<String>>) {
    let xml = format!(
        "<domain type='kvm'><name>a</name><memory unit='GiB'>{gib}</memory>\
         <os><type machine='{machine}'>hvm</type></os>{cpu}\
         <devices><hostdev type='pci'><source><address bus='1'/></source></hostdev></devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = crate::domain::read(&document).expect("a domain");
    let policy = Policy::from_toml(policy).expect("a policy");
    let diagnosis = diagnose(&domain, host, &policy);
    let fix = plan((&domain).into(), host, &policy, &diagnosis);
    (diagnosis, fix.map(|fix| fix.changes.iter().map(Change::to_string).collect()))
}

/// What helps a guest of the type 6.2 with dynamic memory slots, in this kind of memory.
fn with_slots(gib: u64, backing: &str, host: &str, policy: &str) -> Result<Vec<String>, Vec<String>> {
    let host = Host::from_profile(&format!("{EPYC}[libvirt]\nversion = '12.8'\n[qemu]\n{host}")).expect("a profile");
    let xml = format!(
        "<domain type='kvm'><name>a</name><maxMemory slots='4' unit='GiB'>2048</maxMemory><memory unit='GiB'>{gib}</memory>\
         {backing}<os><type machine='pc-q35-6.2'>hvm</type></os><cpu mode='host-passthrough'><numa><cell id='0' cpus='0' \
         memory='{}' unit='GiB'/></numa></cpu><devices><hostdev type='pci'><source><address bus='1'/></source></hostdev>\
         <memory model='virtio-mem'><target dynamicMemslots='yes'><size unit='GiB'>1</size><node>0</node>\
         <block unit='MiB'>2</block><requested>0</requested></target></memory></devices></domain>",
        gib - 1
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = crate::domain::read(&document).expect("a domain");
    let policy = Policy::from_toml(policy).expect("a policy");
    let diagnosis = diagnose(&domain, &host, &policy);
    let fix = plan((&domain).into(), &host, &policy, &diagnosis);
    fix.map(|fix| fix.changes.iter().map(Change::to_string).collect())
}

/// QEMU 10.0 and 11.1 refuse them with types up to 8.0 where memory is anonymous, up to 6.2 otherwise.
#[test]
fn dynamic_memory_slots_get_a_type_that_has_them() {
    const MEMFD: &str = "<memoryBacking><source type='memfd'/></memoryBacking>";
    let machine = |to: &str| Ok(vec![format!("machine pc-q35-6.2 → {to}")]);
    for gib in [4, 1200] {
        assert_eq!(with_slots(gib, "", "version = '10.0.13'", ""), machine("pc-q35-8.1"), "{gib} GiB");
        assert_eq!(with_slots(gib, "", "version = '11.1.3'", ""), machine("pc-q35-8.2"), "{gib} GiB");
        assert_eq!(with_slots(gib, MEMFD, "version = '10.0.13'", ""), machine("pc-q35-7.1"), "{gib} GiB");
        let latest = with_slots(gib, "", "version = '10.0.13'", "machine_upgrade = 'latest'");
        assert_eq!(latest, machine("pc-q35-10.0"), "{gib} GiB");
        for (host, policy, why) in [
            ("version = '10.0.13'", "machine_upgrade = 'never'", "the policy does not allow it"),
            ("version = '10.0.13'", "machine_upgrade = 'pc-q35-7.2'", "pc-q35-7.2 is not enough: QEMU refuses"),
        ] {
            let tried = with_slots(gib, "", host, policy).expect_err("blocked");
            assert!(tried.iter().any(|tried| tried.contains(why)), "{gib} GiB, {policy}: {tried:?}");
        }
    }
    // The oldest types are gone, and none that is left is new enough.
    let listed = "version = '10.0.13'\nmachines = ['pc-q35-6.2', 'pc-q35-7.1']";
    let tried = with_slots(4, "", listed, "").expect_err("blocked");
    assert!(tried.iter().any(|tried| tried.contains("dynamicMemslots")), "{tried:?}");
}

/// `SMBIOS 2.1 table length … exceeds 65535` of QEMU 7.2 to 11.1 with machine types up to 8.0.
#[test]
fn more_ram_than_an_old_type_can_describe_gets_a_newer_one() {
    let cells = (0..4).map(|id| format!("<cell id='{id}' cpus='{id}' memory='5' unit='TiB'/>")).collect::<String>();
    let cpu = format!("<cpu mode='host-passthrough'><numa>{cells}</numa></cpu>");
    let after = |version: &str| planned("pc-q35-7.1", 20 << 10, &cpu, &format!("[qemu]\nversion = '{version}'"), "").1;
    assert_eq!(after("10.0.13"), Ok(vec!["machine pc-q35-7.1 → pc-q35-8.1".to_owned()]));
    assert_eq!(after("11.1.3"), Ok(vec!["machine pc-q35-7.1 → pc-q35-8.2".to_owned()]));
    // Its newest type does not help.
    assert_eq!(after("7.2.22").map_err(|tried| tried.len()), Err(1));
}

fn machine_after(machine: &str, host: &str, policy: &str) -> String {
    planned(machine, 1200, "<cpu mode='host-passthrough'/>", host, policy).1.expect("a fix").join(", ")
}

#[test]
fn a_fix_leads_to_a_type_that_is_not_deprecated() {
    let listed = |deprecated: &str| {
        format!(
            "[qemu]\nversion = '11.1'\nmachines = ['pc-q35-6.2', 'pc-q35-7.1', 'pc-q35-8.1', 'pc-q35-8.2', \
             'pc-q35-11.1']\n{deprecated}"
        )
    };
    let some = listed("deprecated = ['pc-q35-6.2', 'pc-q35-7.1', 'pc-q35-8.1']");
    assert_eq!(machine_after("pc-q35-6.2", &some, ""), "machine pc-q35-6.2 → pc-q35-8.2");
    // Unknown: upstream's rule, which `-machine help` of QEMU 10.0 and 11.1 agrees with.
    assert_eq!(machine_after("pc-q35-6.2", &listed(""), ""), "machine pc-q35-6.2 → pc-q35-8.2");
    let by_version = |version| machine_after("pc-q35-6.2", &format!("[qemu]\nversion = '{version}'"), "");
    assert_eq!(by_version("11.1.3"), "machine pc-q35-6.2 → pc-q35-8.2");
    assert_eq!(by_version("10.0.13"), "machine pc-q35-6.2 → pc-q35-7.1");
    // Known to be none.
    assert_eq!(machine_after("pc-q35-6.2", &listed("deprecated = []"), ""), "machine pc-q35-6.2 → pc-q35-7.1");
    // One that will be removed is better than none, and one that the policy names is the operator's choice.
    let all = listed("deprecated = ['pc-q35-7.1', 'pc-q35-8.1', 'pc-q35-8.2', 'pc-q35-11.1']");
    assert_eq!(machine_after("pc-q35-6.2", &all, ""), "machine pc-q35-6.2 → pc-q35-11.1");
    let named = machine_after("pc-q35-6.2", &some, "machine_upgrade = 'pc-q35-7.1'");
    assert_eq!(named, "machine pc-q35-6.2 → pc-q35-7.1");
}

#[test]
fn an_old_name_is_an_old_type() {
    for name in ["pc-0.13", "pc-1.3", "pc-i440fx-1.4"] {
        let (diagnosis, fix) = planned(name, 1200, "<cpu mode='host-passthrough'/>", "", "");
        assert_eq!(diagnosis.facts.enforces_amd_1tb_hole, Some(false), "{name}");
        assert_eq!(fix, Ok(vec![format!("machine {name} → pc-i440fx-7.1")]), "{name}");
        assert!(diagnosis.assumptions.is_empty(), "{name}: {:?}", diagnosis.assumptions);
    }
    let (removed, _) = planned("pc-0.13", 4, "", "[qemu]\nversion = '7.2.22'", "");
    assert!(removed.findings.iter().any(|finding| machine_type_not_available::RULE.found(finding)), "{removed:?}");
}

/// What helps a guest whose type QEMU 11.1 has removed.
fn upgraded(gib: u64, cpu: &str, host: &str, policy: &str) -> Result<Vec<String>, Vec<String>> {
    let host = format!("[qemu]\nversion = '11.1.3'\n{host}");
    planned("pc-q35-4.2", gib, cpu, &host, policy).1
}

/// The window for BARs begins at 768 GiB; up to 766 GiB of RAM a q35 guest ends below it.
#[test]
fn a_new_machine_type_does_not_make_firmware_lose_bars() {
    let alone = Ok(vec!["machine pc-q35-4.2 → pc-q35-8.2".to_owned()]);
    let with = |bits: &str| Ok(vec!["machine pc-q35-4.2 → pc-q35-8.2".to_owned(), format!("maxphysaddr {bits}")]);
    let epyc = "<cpu><model>EPYC</model></cpu>";
    assert_eq!(upgraded(766, epyc, "", ""), alone);
    for gib in [767, 800, 960] {
        assert_eq!(upgraded(gib, epyc, "", ""), with("emulate 41"), "{gib} GiB");
    }
    assert_eq!(upgraded(800, epyc, "", "phys_bits = 'host'"), with("passthrough"));
    // These have the host's bits, or enough.
    assert_eq!(upgraded(800, "<cpu mode='host-passthrough'/>", "", ""), alone);
    let wide = "<cpu><model>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>";
    assert_eq!(upgraded(800, wide, "", ""), alone);
    // KVM shows the host's vendor, whatever the model; QEMU reserves nothing for another.
    let model = |vendor| format!("<cpu><model{vendor}>Skylake-Server</model></cpu>");
    assert_eq!(upgraded(800, &model(""), "", ""), with("emulate 41"));
    assert_eq!(upgraded(800, &model(" vendor_id='GenuineIntel'"), "", ""), alone);
    for (host, policy, why) in [
        ("", "phys_bits = 'never'", "the policy does not allow"),
        ("[libvirt]\nversion = '8.0'", "", "libvirt 8.0.0 has no <maxphysaddr>"),
    ] {
        let tried = upgraded(800, epyc, host, policy).expect_err("blocked");
        let says = |words: &str| tried.iter().any(|tried| tried.contains(words));
        assert!(says(why) && says("firmware loses devices' BARs"), "{tried:?}");
    }
}

/// The guest cannot get one bit more than the host has, and without it would lose its devices' BARs.
#[test]
fn a_host_of_few_bits_keeps_a_guest_from_a_new_machine_type() {
    let profile = format!("{EPYC}[qemu]\nversion = '11.1.3'");
    let narrow = |bits| Host { phys_bits: Some(bits), ..Host::from_profile(&profile).expect("a profile") };
    for cpu in ["<cpu><model>EPYC</model></cpu>", "<cpu mode='host-passthrough'/>"] {
        let after = |bits, gib| planned_on(&narrow(bits), "pc-q35-4.2", gib, cpu, "").1;
        let tried = after(40, 800).expect_err("blocked");
        assert_eq!(
            tried,
            ["41 physical address bits are needed with machine type pc-q35-8.2 (with fewer, firmware loses \
                 devices' BARs), but the host has 40"],
            "{cpu}"
        );
        assert_eq!(after(40, 700), Ok(vec!["machine pc-q35-4.2 → pc-q35-8.2".to_owned()]), "{cpu}");
        assert!(after(41, 800).is_ok(), "{cpu}");
    }
}
