//! Guests of hosts whose IOMMU addresses less than all of a guest's memory.

use iova_preflight::domain;
use iova_preflight::finding::Severity;
use iova_preflight::host::Profile;
use iova_preflight::policy::Policy;
use iova_preflight::verdict::{Evaluation, Verdict, evaluate};
use iova_preflight::xml::Document;

const CARD: &str = "<hostdev type='pci'><source><address bus='1'/></source></hostdev>";
const VGPU: &str =
    "<hostdev type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>";

/// An Intel host with this many address bits.
fn intel(bits: &str, kernel: &str) -> String {
    format!(
        "[cpu]\nvendor = 'GenuineIntel'\nphys_bits = 46\n[kernel]\nversion = '{kernel}'\n[qemu]\nversion = '7.2'\n\
         [iommu]\nkind = 'intel'\n{bits}\nreserved = [{{ start = 0xfee00000, end = 0xfeefffff, type = 'msi' }}]\n"
    )
}

/// An AMD host whose IOMMU has 40 bits; a profile may say so.
fn amd_of_40_bits(kernel: &str) -> String {
    format!(
        "[cpu]\nvendor = 'AuthenticAMD'\nphys_bits = 48\n[kernel]\nversion = '{kernel}'\n[qemu]\nversion = '7.2'\n\
         [iommu]\nkind = 'amd'\naddress_bits = 40\n\
         reserved = [{{ start = 0xfd00000000, end = 0xffffffffff, type = 'reserved' }}]\n"
    )
}

fn evaluated(profile: &str, machine: &str, memory: &str, devices: &str) -> Evaluation {
    let cells = if memory.contains("maxMemory") { "<numa><cell cpus='0' memory='4' unit='GiB'/></numa>" } else { "" };
    let xml = format!(
        "<domain type='kvm'><name>a</name>{memory}<os><type machine='{machine}'>hvm</type></os>\
         <cpu mode='host-passthrough'>{cells}</cpu><devices>{devices}</devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let profile = Profile::from_toml(profile).expect("a profile");
    let host = profile.host_for(None);
    evaluate(&domain::read(&document).expect("a domain"), &host, &Policy::default())
}

fn narrow() -> String {
    intel("address_bits = 39", "6.1")
}

fn ram(gib: u64) -> String {
    format!("<memory unit='GiB'>{gib}</memory>")
}

fn found(evaluation: &Evaluation, rule: &str) -> Vec<(Severity, String)> {
    let own = evaluation.findings.iter().filter(|finding| finding.rule == rule);
    own.map(|finding| (finding.severity, finding.message())).collect()
}

const RULE: &str = "ram-above-iommu-width";

/// 2 GiB of q35's RAM lie below 4 GiB, so that 510 GiB end at 512.
#[test]
fn ram_above_the_width_stops_a_guest_with_a_device() {
    assert_eq!(evaluated(&narrow(), "pc-q35-7.2", &ram(510), CARD).verdict, Verdict::Pass);
    let evaluation = evaluated(&narrow(), "pc-q35-7.2", &ram(511), CARD);
    assert_eq!(evaluation.verdict, Verdict::Blocked);
    let [(Severity::Error, message)] = &found(&evaluation, RULE)[..] else { panic!("{evaluation:?}") };
    assert!(message.starts_with("1 GiB of guest RAM lies above the 39 bits"), "{message}");
    assert!(message.contains("VFIO refuses to map it (-22"), "{message}");
    let advice = "give the guest less memory, or use a host whose IOMMU has more than 39 bits (it reaches 510 GiB of \
                  RAM)";
    assert_eq!(evaluation.tried, [advice]);
    assert!(evaluation.assumptions.is_empty());
    for devices in ["", VGPU] {
        let evaluation = evaluated(&narrow(), "pc-q35-7.2", &ram(511), devices);
        assert_eq!(evaluation.verdict, Verdict::Warn, "{devices}");
        assert!(matches!(&found(&evaluation, RULE)[..], [(Severity::Warning, _)]), "{devices}");
    }
}

#[test]
fn an_unknown_width_and_wide_ones_find_nothing() {
    for bits in ["", "address_bits = 64", "address_bits = 48"] {
        let evaluation = evaluated(&intel(bits, "6.1"), "pc-q35-7.2", &ram(1200), CARD);
        assert_eq!(evaluation.verdict, Verdict::Pass, "{bits}");
    }
}

/// `[[iommu.group]]` with `address_bits` is about the devices that it names.
#[test]
fn the_width_of_a_devices_own_unit_counts() {
    let group = |device: &str| {
        let own = format!("devices = ['{device}'], reserved = [], address_bits = 39");
        intel(&format!("address_bits = 48\ngroup = [{{ {own} }}]"), "6.1")
    };
    assert_eq!(evaluated(&group("0000:01:00.0"), "pc-q35-7.2", &ram(511), CARD).verdict, Verdict::Blocked);
    assert_eq!(evaluated(&group("0000:02:00.0"), "pc-q35-7.2", &ram(511), CARD).verdict, Verdict::Pass);
}

/// Before 5.11 the IOMMU's driver itself refuses, with -EFAULT (`intel_iommu_map`): it does so on a kernel too that maps
/// what is reserved.
#[test]
fn older_kernels_refuse_a_width_too() {
    for (kernel, error) in [("5.11", "-22"), ("5.10", "-14, Bad address"), ("4.19", "-14, Bad address")] {
        let evaluation = evaluated(&intel("address_bits = 39", kernel), "pc-q35-7.2", &ram(511), CARD);
        let [(Severity::Error, message)] = &found(&evaluation, RULE)[..] else { panic!("{evaluation:?}") };
        assert!(message.contains(error), "{kernel}: {message}");
    }
}

/// VFIO knows reserved ranges since 5.4 (commit 9b77e5c79840).
#[test]
fn older_kernels_lose_dma_in_reserved_ranges() {
    for (kernel, refuses) in [("4.19", false), ("5.3", false), ("5.4", true), ("6.1", true)] {
        let profile = amd_of_40_bits(kernel).replace("address_bits = 40\n", "");
        let evaluation = evaluated(&profile, "pc-q35-7.0", &ram(1020), CARD);
        assert_eq!(evaluation.verdict, Verdict::Fixable, "{kernel}");
        let [(Severity::Error, message)] = &found(&evaluation, "ram-in-reserved-range")[..] else {
            panic!("{evaluation:?}")
        };
        assert_eq!(message.contains("VFIO refuses to map it (-22"), refuses, "{kernel}: {message}");
        assert_eq!(message.contains("the guest starts, and DMA to it is lost"), !refuses, "{kernel}: {message}");
        let memory = "<maxMemory slots='4' unit='GiB'>1100</maxMemory><memory unit='GiB'>4</memory>";
        let evaluation = evaluated(&profile, "pc-q35-7.0", memory, CARD);
        let [(Severity::Warning, message)] = &found(&evaluation, "hotplug-window-in-reserved-range")[..] else {
            panic!("{evaluation:?}")
        };
        assert_eq!(message.contains("aborts the running guest"), refuses, "{kernel}: {message}");
        assert_eq!(message.contains("hot-plugged into it is lost"), !refuses, "{kernel}: {message}");
    }
}

#[test]
fn the_hot_plug_window_is_a_warning_and_a_dimm_in_it_an_error() {
    let memory = "<maxMemory slots='4' unit='GiB'>600</maxMemory><memory unit='GiB'>4</memory>";
    let evaluation = evaluated(&narrow(), "pc-q35-7.2", memory, CARD);
    let [(Severity::Warning, message)] = &found(&evaluation, RULE)[..] else { panic!("{evaluation:?}") };
    assert!(message.contains("hot-plugging memory into it aborts the running guest"), "{message}");
    let dimm = "<memory model='dimm'><target><size unit='GiB'>1</size><node>0</node></target>\
                <address type='dimm' slot='0' base='0x8000000000'/></memory>";
    let memory = "<maxMemory slots='4' unit='GiB'>600</maxMemory><memory unit='GiB'>5</memory>";
    let evaluation = evaluated(&narrow(), "pc-q35-7.2", memory, &format!("{CARD}{dimm}"));
    let [(Severity::Error, message), (Severity::Warning, _)] = &found(&evaluation, RULE)[..] else {
        panic!("{evaluation:?}")
    };
    assert!(message.starts_with("1 GiB of the dimm at 0x8000000000 lies above the 39 bits"), "{message}");
}

/// RAM for an AMD vCPU is above 1 TiB where maxmem and slots make the map reach 1012 GiB: 19 slots do, 18 do not (measured).
#[test]
fn a_finding_about_moved_ram_says_what_keeps_it_in_reach() {
    let memory = "<maxMemory slots='19' unit='GiB'>960</maxMemory><memory unit='GiB'>4</memory>";
    let evaluation = evaluated(&amd_of_40_bits("6.1"), "pc-q35-7.2", memory, CARD);
    assert_eq!(evaluation.verdict, Verdict::Blocked);
    let messages = found(&evaluation, RULE);
    let Some((Severity::Error, message)) = messages.first() else { panic!("{evaluation:?}") };
    assert!(message.ends_with("QEMU has moved RAM above 1 TiB"), "{message}");
    let says = |words: &str| evaluation.tried.iter().any(|tried| tried.contains(words));
    assert!(says("with 18 slots instead of 19 it would start") && says("smaller <pcihole64>"), "{evaluation:?}");
    // 111 GiB of hole move 900 GiB of RAM, and the default of 32 does not (measured).
    let hole = "<controller type='pci' index='0' model='pcie-root'><pcihole64 unit='GiB'>111</pcihole64></controller>";
    let evaluation = evaluated(&amd_of_40_bits("6.1"), "pc-q35-7.2", &ram(900), &format!("{CARD}{hole}"));
    let changes = evaluation.fix.map(|fix| fix.changes.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(changes, Some(vec!["pcihole64 32 GiB".to_owned()]));
}

/// The machine type that moves RAM out of the reserved range moves it out of reach of 40 bits.
#[test]
fn no_fix_moves_ram_above_the_width() {
    let evaluation = evaluated(&amd_of_40_bits("6.1"), "pc-q35-6.2", &ram(1020), CARD);
    assert_eq!(evaluation.verdict, Verdict::Blocked, "{evaluation:?}");
    let says = |words: &str| evaluation.tried.iter().any(|tried| tried.contains(words));
    assert!(says("is not enough") && says("above the 40 bits"), "{evaluation:?}");
}
