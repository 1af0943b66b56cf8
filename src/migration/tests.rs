use super::*;
use crate::argv::Call;
use crate::decision::{Decision, Operation, decide};
use crate::domain;
use crate::host::builtin;
use crate::xml::Document;

/// An EPYC host with this QEMU and libvirt.
fn epyc(qemu: &str, libvirt: &str) -> Host {
    let aliases = [("q35".to_owned(), format!("pc-q35-{qemu}"))];
    Host {
        qemu: qemu.parse().ok(),
        libvirt: libvirt.parse().ok(),
        aliases: aliases.into(),
        ..builtin("amd-epyc").expect("built in")
    }
}

/// The same without the HyperTransport range, and with 52 bits.
fn turin(qemu: &str, libvirt: &str) -> Host {
    let facts = builtin("amd-turin-ht-ignore").expect("built in");
    Host { reserved: facts.reserved, phys_bits: Some(52), ..epyc(qemu, libvirt) }
}

fn xeon(qemu: &str, libvirt: &str) -> Host {
    let facts = builtin("intel-xeon").expect("built in");
    Host { qemu: qemu.parse().ok(), libvirt: libvirt.parse().ok(), ..facts }
}

fn guest(machine: &str, gib: u64, cpu: &str, devices: &str) -> Domain {
    let xml = format!(
        "<domain type='kvm'><name>a</name><memory unit='GiB'>{gib}</memory>\
         <os><type arch='x86_64' machine='{machine}'>hvm</type></os>{cpu}<devices>{devices}</devices></domain>"
    );
    domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain")
}

/// QEMU with KVM, without libvirt.
fn launch(options: &str) -> Launch {
    let text = format!("qemu-system-x86_64 -accel kvm {options}");
    Launch::read(&Call::read(text.as_bytes()).expect("a call"))
}

/// What becomes of it between two such hosts.
fn outcome_of(launch: &Launch, host: &Host) -> (MoveOutcome, Option<&'static str>) {
    let journey = Journey { running: launch.into(), definition: launch.into(), from: host, to: host };
    told(&migrate(journey, &Policy::default()))
}

fn moved_to(guest: &Domain, from: &Host, to: &Host) -> Migration {
    migrate(Journey { running: guest.into(), definition: guest.into(), from, to }, &Policy::default())
}

/// The outcome, and the rule of the first obstacle, or the side if there is none.
fn told(migration: &Migration) -> (MoveOutcome, Option<&'static str>) {
    let first = migration.obstacles.first();
    (migration.outcome, first.map(|obstacle| obstacle.rule.unwrap_or(obstacle.side.name())))
}

const PASSTHROUGH: &str = "<cpu mode='host-passthrough'/>";
const PLAIN: &str = "<cpu mode='custom' check='none'><model>EPYC</model></cpu>";
const BITS_42: &str =
    "<cpu mode='custom' check='none'><model>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>";
const CARD: &str = "<hostdev type='pci'><source><address bus='0x41'/></source></hostdev>";
const TEAMED: &str = "<interface type='hostdev'><source><address type='pci' bus='0x41'/></source>\
                      <teaming type='transient' persistent='ua-net0'/></interface>";
const VGPU: &str =
    "<hostdev type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>";
const VDPA: &str = "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>";
const VDPA_DISK: &str = "<disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/></disk>";

/// By version of QEMU and libvirt on the source: libvirt 9.0 and 11.3, `qemuMigrationSrcIsAllowed`; QEMU 7.2 and 10.0,
/// `hw/vfio/migration.c` and `hw/virtio/vhost.c`.
#[test]
fn which_devices_migrate_depends_on_qemu_and_libvirt_on_the_source() {
    for (devices, qemu, libvirt, migrates, depends) in [
        ("", "7.2", "9.0", true, false),
        (CARD, "7.2", "9.0", false, false),
        (CARD, "8.0", "11.3", false, false),
        (CARD, "8.1", "8.5", false, false),
        (CARD, "8.1", "8.6", true, true),
        (CARD, "10.0", "11.3", true, true),
        (VGPU, "7.2", "9.0", false, false),
        (VGPU, "10.0", "11.3", true, true),
        (TEAMED, "7.2", "9.0", true, false),
        (TEAMED, "6.2", "8.0", true, false),
        (VDPA, "7.2", "9.0", false, false),
        (VDPA, "8.0", "8.5", false, false),
        (VDPA, "8.0", "9.0", true, true),
        (VDPA_DISK, "8.2", "9.8", true, false),
    ] {
        let (from, to) = (turin(qemu, libvirt), turin(qemu, libvirt));
        let migration = moved_to(&guest("pc-q35-6.2", 4, PASSTHROUGH, devices), &from, &to);
        let expected = if migrates { (MoveOutcome::Migrates, None) } else { (MoveOutcome::Refused, Some("source")) };
        assert_eq!(told(&migration), expected, "{devices} on QEMU {qemu} and libvirt {libvirt}: {migration:#?}");
        let says = migration.notes.iter().any(|note| note.contains("the driver can"));
        assert_eq!(says, depends, "{devices} on QEMU {qemu} and libvirt {libvirt}: {:?}", migration.notes);
    }
}

#[test]
fn a_map_that_collides_there_is_refused_there_only() {
    let (narrow, wide) = (epyc("8.2", "9.8"), turin("8.2", "9.8"));
    let large = guest("pc-q35-6.2", 1200, PASSTHROUGH, VDPA_DISK);
    assert_eq!(told(&moved_to(&large, &wide, &narrow)), (MoveOutcome::Refused, Some("ram-in-reserved-range")));
    let back = moved_to(&large, &narrow, &wide);
    assert_eq!(told(&back).0, MoveOutcome::Migrates);
    assert!(back.notes.iter().any(|note| note.contains("the source would not start it")), "{:?}", back.notes);
    let short = Host { iommu_bits: Some(39), ..wide.clone() };
    let end = moved_to(&guest("pc-q35-7.2", 600, PASSTHROUGH, VDPA_DISK), &wide, &short);
    assert_eq!(told(&end), (MoveOutcome::Refused, Some("ram-above-iommu-width")));
}

#[test]
fn the_destination_needs_the_machine_type_that_the_guest_runs_with() {
    let (old, new) = (epyc("7.2", "9.0"), epyc("10.0", "11.3"));
    for (machine, from, to, expected) in [
        ("pc-q35-10.0", &new, &old, Some("machine-type-not-available")),
        ("pc-q35-7.2", &new, &old, None),
        ("q35", &new, &old, Some("machine-type-not-available")),
        ("q35", &old, &new, None),
    ] {
        let migration = moved_to(&guest(machine, 4, PLAIN, ""), from, to);
        assert_eq!(told(&migration).1, expected, "{machine}: {migration:#?}");
    }
}

/// libvirt records what an alias means when the guest is defined, and QEMU on its own reads it at each start: as
/// pc-q35-6.2 the map ends at 1019 GiB, which 40 bits reach; pc-q35-7.2 moves the part above 4 GiB to 1 TiB. Seen with
/// libvirt 9.0: after `virsh define` of `machine='q35'`, `virsh dumpxml --inactive` has `pc-q35-7.2`.
#[test]
fn an_alias_means_another_machine_there_only_without_libvirt() {
    let (old, new) = (epyc("6.2", "8.7"), epyc("7.2", "9.0"));
    let migration = moved_to(&guest("q35", 985, PLAIN, ""), &old, &new);
    assert_eq!(told(&migration), (MoveOutcome::Migrates, None), "{migration:#?}");
    let launch = launch("-M q35 -cpu EPYC -m 985G");
    let journey = Journey { running: (&launch).into(), definition: (&launch).into(), from: &old, to: &new };
    let migration = migrate(journey, &Policy::default());
    assert_eq!(told(&migration), (MoveOutcome::CannotStart, None), "{migration:#?}");
    assert!(migration.start.findings.iter().any(|finding| finding.rule == "phys-bits-too-low"));
}

#[test]
fn a_guest_that_migrates_and_could_not_be_started_there_is_told_apart() {
    let new = epyc("7.2", "9.0");
    // More memory from the next start on, for which 40 bits are too few.
    let (runs, defined) = (guest("pc-q35-6.2", 4, PLAIN, ""), guest("pc-q35-6.2", 1200, PLAIN, ""));
    let journey = Journey { running: (&runs).into(), definition: (&defined).into(), from: &new, to: &new };
    let migration = migrate(journey, &Policy::default());
    assert_eq!(told(&migration), (MoveOutcome::CannotStart, None), "{migration:#?}");
    assert!(migration.start.findings.iter().any(|finding| finding.rule == "phys-bits-too-low"));
    // The device that it had to give back is still in its definition.
    let (runs, defined) = (guest("pc-q35-6.2", 1200, BITS_42, ""), guest("pc-q35-6.2", 1200, BITS_42, CARD));
    let journey = Journey { running: (&runs).into(), definition: (&defined).into(), from: &new, to: &new };
    let migration = migrate(journey, &Policy::default());
    assert_eq!(told(&migration), (MoveOutcome::CannotStart, None), "{migration:#?}");
}

#[test]
fn another_vendor_is_refused_where_the_domain_demands_it_and_breaks_the_guest_otherwise() {
    let (amd, intel) = (epyc("10.0", "11.3"), xeon("10.0", "11.3"));
    let demands = "<cpu><model>EPYC</model><vendor>AMD</vendor></cpu>";
    let unchecked = "<cpu check='none'><model>EPYC</model><vendor>AMD</vendor></cpu>";
    let fixed = "<cpu><model vendor_id='AuthenticAMD'>EPYC</model></cpu>";
    for (cpu, outcome) in [
        ("<cpu mode='host-model'/>", MoveOutcome::Refused),
        (demands, MoveOutcome::Refused),
        (unchecked, MoveOutcome::Breaks),
        (PASSTHROUGH, MoveOutcome::Breaks),
        (PLAIN, MoveOutcome::Breaks),
        (fixed, MoveOutcome::Migrates),
    ] {
        for (from, to) in [(&amd, &intel), (&intel, &amd)] {
            let migration = moved_to(&guest("pc-q35-7.2", 4, cpu, ""), from, to);
            assert_eq!(migration.outcome, outcome, "{cpu}: {migration:#?}");
        }
        assert_eq!(moved_to(&guest("pc-q35-7.2", 4, cpu, ""), &amd, &amd).outcome, MoveOutcome::Migrates, "{cpu}");
    }
}

/// Seen with QEMU 7.2: `-M pc-q35-7.1 -m 4G,maxmem=1100G,slots=1 -cpu qemu64,phys-bits=42,vendor=V` on both sides, Intel's
/// on one and AMD's on the other: "completed", and RAM that was at 4 GiB is at 1 TiB.
#[test]
fn a_map_that_is_another_one_there_breaks_the_guest() {
    let (amd, intel) = (epyc("7.2", "9.0"), xeon("7.2", "9.0"));
    let migration = moved_to(&guest("pc-q35-7.1", 1200, BITS_42, ""), &intel, &amd);
    assert_eq!(migration.outcome, MoveOutcome::Breaks);
    let text: Vec<String> = migration.obstacles.iter().map(Obstacle::message).collect();
    assert!(
        text.iter().any(|line| line.contains("RAM above 4 GiB is 4–1202 GiB on the source and 1024–2222 GiB")),
        "{text:?}"
    );
}

#[test]
fn bits_of_the_host_may_grow_and_not_shrink() {
    let (wide, narrow) = (turin("10.0", "11.3"), epyc("10.0", "11.3"));
    let guest_with = |cpu: &str| guest("pc-q35-7.2", 4, cpu, "");
    assert_eq!(moved_to(&guest_with(PASSTHROUGH), &wide, &narrow).outcome, MoveOutcome::Breaks);
    let grown = moved_to(&guest_with(PASSTHROUGH), &narrow, &wide);
    assert!(
        grown.outcome == MoveOutcome::Migrates && grown.notes.iter().any(|note| note.contains("48 physical")),
        "{grown:?}"
    );
    let asks = "<cpu mode='host-passthrough'><maxphysaddr mode='emulate' bits='50'/></cpu>";
    assert_eq!(
        told(&moved_to(&guest_with(asks), &wide, &narrow)),
        (MoveOutcome::Refused, Some("phys-bits-above-host"))
    );
    let limited = "<cpu mode='host-passthrough'><maxphysaddr mode='passthrough' limit='46'/></cpu>";
    assert_eq!(told(&moved_to(&guest_with(limited), &wide, &narrow)), (MoveOutcome::Migrates, None));
}

/// What the hook stops on the destination is refused here, and it lets go what is not.
#[test]
fn the_hook_on_the_destination_agrees() {
    let hosts = [epyc("8.2", "9.8"), turin("8.2", "9.8"), xeon("8.2", "9.8")];
    let (mut stopped, mut let_go) = (0, 0);
    for machine in ["pc-q35-6.2", "pc-q35-7.2"] {
        for (gib, cpu) in [(4, PLAIN), (980, PLAIN), (1200, PLAIN), (1200, BITS_42), (1200, PASSTHROUGH)] {
            for devices in ["", VDPA_DISK] {
                let guest = guest(machine, gib, cpu, devices);
                for (from, to) in hosts.iter().flat_map(|from| hosts.iter().map(move |to| (from, to))) {
                    let migration = moved_to(&guest, from, to);
                    let decision = decide(Operation::Migrate, &guest, to, &Policy::default());
                    let blocks = matches!(decision, Decision::Block { .. });
                    let refuses = migration.outcome == MoveOutcome::Refused;
                    assert!(!blocks || refuses, "{machine} {gib} {cpu} {devices}: {decision:?}");
                    let by_hook = migration
                        .obstacles
                        .iter()
                        .any(|obstacle| obstacle.rule.and_then(rules::rule).is_some_and(|rule| rule.stops));
                    assert_eq!(blocks, by_hook, "{machine} {gib} {cpu} {devices}: {decision:?} {migration:#?}");
                    stopped += usize::from(blocks);
                    let_go += usize::from(!blocks);
                }
            }
        }
    }
    assert!(stopped > 20 && let_go > 20, "{stopped} {let_go}");
}

/// QEMU 10.0 `vfio_migration_realize` has no way around it; 11.1 refuses only some devices.
#[test]
fn vfio_devices_behind_a_virtual_iommu_stay_up_to_qemu_10_0() {
    const INTEL: &str = "<iommu model='intel'><driver caching_mode='on'/></iommu>";
    const VIRTIO: &str = "<iommu model='virtio'/>";
    for (devices, qemu, migrates) in [
        (format!("{CARD}{INTEL}"), "8.1", false),
        (format!("{CARD}{VIRTIO}"), "10.0.13", false),
        (format!("{VGPU}{INTEL}"), "10.0", false),
        (format!("{CARD}{INTEL}"), "11.1", true),
        (format!("{VDPA}{INTEL}"), "10.0", true),
        (format!("{TEAMED}{INTEL}"), "10.0", true),
        (INTEL.to_owned(), "10.0", true),
    ] {
        let host = turin(qemu, "12.8");
        let migration = moved_to(&guest("pc-q35-8.1", 4, PASSTHROUGH, &devices), &host, &host);
        let expected = if migrates { (MoveOutcome::Migrates, None) } else { (MoveOutcome::Refused, Some("source")) };
        assert_eq!(told(&migration), expected, "{devices} on QEMU {qemu}: {migration:#?}");
        let depends = migration.notes.iter().any(|note| note.contains("behind a virtual IOMMU"));
        assert_eq!(depends, qemu == "11.1", "{:?}", migration.notes);
    }
    let bypassed =
        launch("-M q35,default_bus_bypass_iommu=on -device intel-iommu,caching-mode=on -device vfio-pci,host=41:00.0");
    assert_eq!(outcome_of(&bypassed, &turin("10.0", "11.3")).0, MoveOutcome::Migrates);
}

/// Seen between two QEMUs each of 7.2, 10.0 and 11.1, without a passthrough device: "State blocked by non-migratable
/// device 'amd-iommu'", and "completed" with `-device AMDVI-PCI,id=p -device amd-iommu,pci-id=p` of 11.1. libvirt 12.8
/// writes these two for `<iommu model='amd'/>`.
#[test]
fn an_amd_iommu_migrates_only_with_pci_id() {
    for (options, qemu, outcome) in [
        ("-M pc-q35-7.1 -device amd-iommu", "7.2", MoveOutcome::Refused),
        ("-M pc-q35-7.1 -device amd-iommu", "10.0", MoveOutcome::Refused),
        ("-M pc-q35-7.1 -device amd-iommu", "11.1", MoveOutcome::Refused),
        ("-M pc-q35-7.1 -device AMDVI-PCI,id=p -device amd-iommu,pci-id=p", "11.1", MoveOutcome::Migrates),
        ("-M pc-q35-7.1 -device intel-iommu,intremap=on", "7.2", MoveOutcome::Migrates),
        ("-M pc-q35-7.1 -device virtio-iommu-pci", "7.2", MoveOutcome::Migrates),
    ] {
        let told = outcome_of(&launch(options), &turin(qemu, "12.8"));
        assert_eq!(told.0, outcome, "{options} on QEMU {qemu}: {told:?}");
    }
    let domain = guest("pc-q35-7.1", 4, PASSTHROUGH, "<iommu model='amd'/>");
    for (qemu, outcome) in [("10.0", MoveOutcome::Refused), ("11.1", MoveOutcome::Migrates)] {
        let host = turin(qemu, "12.8");
        assert_eq!(moved_to(&domain, &host, &host).outcome, outcome, "QEMU {qemu}");
    }
}

/// QEMU `hw/vfio/pci.c`: `x-enable-migration`, off, from 5.2 to 8.0; `enable-migration`, auto, since.
#[test]
fn a_device_can_be_told_whether_to_migrate() {
    for (options, qemu, outcome) in [
        ("-device vfio-pci,host=41:00.0", "10.0", MoveOutcome::Migrates),
        ("-device vfio-pci,host=41:00.0,enable-migration=off", "10.0", MoveOutcome::Refused),
        ("-device vfio-pci,host=41:00.0 -global vfio-pci.enable-migration=off", "10.0", MoveOutcome::Refused),
        ("-device vfio-pci,host=41:00.0,enable-migration=on", "10.0", MoveOutcome::Migrates),
        ("-device vfio-pci,host=41:00.0", "7.2", MoveOutcome::Refused),
        ("-device vfio-pci,host=41:00.0,x-enable-migration=on", "7.2", MoveOutcome::Migrates),
    ] {
        let told = outcome_of(&launch(&format!("-M pc-q35-6.2 -cpu host {options}")), &turin(qemu, "11.3"));
        assert_eq!(told.0, outcome, "{options} on QEMU {qemu}: {told:?}");
    }
}

#[test]
fn facts_that_a_host_does_not_tell_are_not_compared() {
    let intel = Host { cpu_vendor: Some("GenuineIntel".to_owned()), ..Host::default() };
    let (unknown, known) = (Host::default(), xeon("10.0", "11.3"));
    let (vendor, bits) = ("CPU vendor of the", "physical address bits of the");
    for (cpu, from, to, notes) in [
        (PASSTHROUGH, &known, &unknown, &[vendor, bits][..]),
        (PASSTHROUGH, &unknown, &known, &[vendor, bits]),
        (PASSTHROUGH, &known, &intel, &[bits]),
        (PASSTHROUGH, &intel, &unknown, &[vendor, bits, bits]),
        ("<cpu mode='host-model'/>", &known, &unknown, &[vendor]),
        (BITS_42, &known, &unknown, &[vendor]),
        ("<cpu><model vendor_id='AuthenticAMD'>EPYC</model></cpu>", &known, &unknown, &[]),
    ] {
        let migration = moved_to(&guest("pc-q35-7.2", 4, cpu, ""), from, to);
        assert_eq!(told(&migration), (MoveOutcome::Migrates, None), "{cpu}: {migration:#?}");
        let depends = |what: &str| migration.notes.iter().filter(|note| note.contains(what)).count();
        for what in [vendor, bits] {
            let expected = notes.iter().filter(|note| **note == what).count();
            assert_eq!(depends(what), expected, "{cpu} {what}: {:?}", migration.notes);
        }
    }
    // Its map is another one with the vendor.
    let large = guest("pc-q35-7.1", 1200, BITS_42, "");
    assert_eq!(told(&moved_to(&large, &known, &unknown)), (MoveOutcome::Migrates, None));
    let amd = Host { cpu_vendor: Some("AuthenticAMD".to_owned()), ..Host::default() };
    assert_eq!(moved_to(&large, &known, &amd).outcome, MoveOutcome::Breaks);
}
