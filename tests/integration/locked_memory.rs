//! How much memory QEMU may lock, and how much the guest's devices need.

use iova_preflight::{Document, Policy, Severity, Verdict, builtin_host, evaluate, read_domain};

/// The findings for a guest of 16 GiB with these parts and devices, on a host with this libvirt.
fn said(libvirt: &str, parts: &str, devices: &str) -> (Verdict, Vec<(Severity, String)>) {
    let xml = format!(
        "<domain type='kvm'><name>a</name><memory unit='GiB'>16</memory>{parts}\
         <os><type machine='pc-q35-7.2'>hvm</type></os><cpu mode='host-passthrough'/><devices>{devices}</devices></domain>"
    );
    let document = Document::parse(xml.as_bytes()).expect("well-formed");
    let domain = read_domain(&document).expect("a domain");
    let mut host = builtin_host("amd-epyc").expect("built in");
    host.libvirt = Some(libvirt.parse().expect("a version"));
    let evaluation = evaluate(&domain, &host, &Policy::default());
    let found = evaluation.findings.iter().filter(|finding| finding.rule == "locked-memory-too-low");
    (evaluation.verdict, found.map(|finding| (finding.severity, finding.message())).collect())
}

const PCI: &str = "<hostdev type='pci'><source><address bus='1'/></source></hostdev>";
const MDEV: &str = "<hostdev type='mdev'><source><address uuid='a'/></source></hostdev>";
const VDPA: &str = "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>";
const NVME: &str = "<disk type='nvme'><target dev='vda'/></disk>";
const IOMMU: &str = "<iommu model='intel'><driver caching_mode='on'/></iommu>";
const SHARED: &str = "<shmem name='s'><model type='ivshmem-plain'/><size unit='GiB'>2</size></shmem>";

fn hard(gib: u64) -> String {
    format!("<memtune><hard_limit unit='GiB'>{gib}</hard_limit></memtune>")
}

/// 16 GiB are pinned for each device that counts.
#[test]
fn a_hard_limit_has_to_hold_what_is_pinned() {
    for (devices, gib, expected) in [
        ("".to_owned(), 1, None),
        (PCI.to_owned(), 15, Some(Severity::Error)),
        (PCI.to_owned(), 16, Some(Severity::Warning)),
        (PCI.to_owned(), 17, None),
        (format!("{PCI}{PCI}"), 17, None),
        (format!("{PCI}{PCI}{IOMMU}"), 15, Some(Severity::Error)),
        (format!("{PCI}{PCI}{IOMMU}"), 31, Some(Severity::Warning)),
        (format!("{PCI}{PCI}{IOMMU}"), 33, None),
        (format!("{PCI}{NVME}"), 31, Some(Severity::Warning)),
        (format!("{PCI}{SHARED}"), 17, Some(Severity::Warning)),
        (format!("{PCI}{SHARED}"), 18, Some(Severity::Warning)),
        (format!("{PCI}{SHARED}"), 19, None),
        // They pin memory as needed, or may be software devices.
        (MDEV.to_owned(), 15, Some(Severity::Warning)),
        (VDPA.to_owned(), 15, Some(Severity::Warning)),
        (format!("{VDPA}{VDPA}"), 31, Some(Severity::Warning)),
        // Of two counts, each is below the limit.
        (format!("{VDPA}{PCI}"), 17, None),
    ] {
        let (verdict, found) = said("11.3", &hard(gib), &devices);
        let severities: Vec<Severity> = found.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, expected.into_iter().collect::<Vec<_>>(), "{gib} GiB: {devices}");
        let stops = expected == Some(Severity::Error);
        assert_eq!(verdict == Verdict::Blocked, stops, "{gib} GiB: {devices}");
    }
}

/// Behind a virtio-iommu with boot-bypass=off nothing is mapped before the guest asks for it, unless a bus bypasses it.
#[test]
fn hidden_memory_may_be_locked_later() {
    let said_of = |arguments: &[&str]| {
        let arguments: String = arguments.iter().map(|argument| format!("<qemu:arg value='{argument}'/>")).collect();
        let namespace = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
        let arguments = format!("<qemu:commandline {namespace}>{arguments}</qemu:commandline>");
        let (verdict, found) = said("11.3", &format!("{}{arguments}", hard(8)), PCI);
        let [(severity, message)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(verdict == Verdict::Blocked, *severity == Severity::Error);
        (*severity, message.clone())
    };
    let hidden = ["-device", "virtio-iommu-pci,boot-bypass=off"];
    let (severity, message) = said_of(&hidden);
    assert_eq!(severity, Severity::Warning);
    assert!(message.contains("locks up to 16 GiB"), "{message}");
    let bypassed = [&hidden[..], &["-machine", "default-bus-bypass-iommu=on"]].concat();
    assert_eq!(said_of(&bypassed).0, Severity::Error);
    assert_eq!(said_of(&["-device", "virtio-iommu-pci"]).0, Severity::Error);
}

#[test]
fn an_old_libvirt_computes_too_little() {
    let two = format!("{VDPA}{VDPA}");
    let behind_iommu = format!("{PCI}{PCI}{IOMMU}");
    let disks = format!("{NVME}{NVME}");
    for (devices, version, expected) in [
        (VDPA, "7.1", Some("does not raise the locked-memory limit")),
        (VDPA, "7.2", None),
        (two.as_str(), "8.6", Some("to 17 GiB for this guest; set <hard_limit> to 33 GiB or more")),
        (&two, "8.7", None),
        (&behind_iommu, "8.6", Some("to 17 GiB for this guest")),
        (&behind_iommu, "8.7", None),
        (&disks, "9.2", Some("to 17 GiB for this guest")),
        (&disks, "9.3", None),
        (&format!("{PCI}{SHARED}"), "12.8", Some("to 17 GiB for this guest")),
    ] {
        let (_, found) = said(version, "", devices);
        match (found.as_slice(), expected) {
            ([], None) => {}
            ([(Severity::Warning, message)], Some(words)) => assert!(message.contains(words), "{message}"),
            other => panic!("{version}, {devices}: {other:?}"),
        }
        let locked = said(version, "<memoryBacking><locked/></memoryBacking>", devices);
        assert!(locked.1.is_empty(), "{version}, {devices}: {locked:?}");
    }
}

#[test]
fn the_finding_says_what_to_set() {
    let says = |devices: &str, words: &str| {
        let (_, found) = said("11.3", &hard(8), devices);
        assert!(found[0].1.contains(words), "{}", found[0].1);
    };
    says(PCI, "VFIO locks 16 GiB of guest memory, but QEMU may lock only 8 GiB");
    says(PCI, "set it to 17 GiB or more, or remove it: libvirt then sets 17 GiB");
    says(&format!("{PCI}{SHARED}"), "set it to 19 GiB or more");
}
