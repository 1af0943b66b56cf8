//! `host`: what is found on a host, and that the profile written of it evaluates as the host does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::namespace::Namespace;
use crate::common::{skip, work_dir};

use iova_preflight::domain;
use iova_preflight::host::{Described, Fact, FactOrigin, FirmwareKind, Iommu, Profile};
use iova_preflight::io::detect::detect;
use iova_preflight::policy::Policy;
use iova_preflight::report::host_facts::HostFacts;
use iova_preflight::report::json::GuestReport;
use iova_preflight::report::source::GuestSource;
use iova_preflight::verdict::evaluate;
use iova_preflight::xml::Document;
use serde_json::Value;
use snapbox::{Data, assert_data_eq};

const MSI: &str = "0x00000000fee00000 0x00000000feefffff msi\n";
const HT: &str = "0x000000fd00000000 0x000000ffffffffff reserved\n";
const CACHE: &str = "var/cache/libvirt/qemu/capabilities";

/// The root folder of a host that is not there.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = Self(crate::common::work_dir(&format!("host-{name}")));
        root.write("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n").folder("sys/class/iommu").write("dev/kvm", "");
        root
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("the folder");
        fs::write(path, text).expect("the file");
        self
    }

    fn folder(&self, path: &str) -> &Self {
        fs::create_dir_all(self.0.join(path)).expect("the folder");
        self
    }

    fn group(&self, number: u32, devices: &[&str], regions: &str) -> &Self {
        let group = format!("sys/kernel/iommu_groups/{number}");
        for device in devices {
            self.folder(&format!("{group}/devices/{device}"));
        }
        self.write(&format!("{group}/reserved_regions"), regions)
    }

    /// A PCI function: start, size and flags of its BARs, then of those of its virtual functions.
    fn function(
        &self,
        address: &str,
        class: &str,
        bars: &[(u64, u64, u64)],
        virtual_bars: &[(u64, u64, u64)],
    ) -> &Self {
        let line = |&(start, size, flags): &(u64, u64, u64)| {
            format!("{start:#018x} {:#018x} {flags:#018x}\n", start + size - 1)
        };
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let lines = |bars: &[(u64, u64, u64)], count: usize| {
            bars.iter().map(line).chain(std::iter::repeat_n(none.to_owned(), count - bars.len())).collect::<String>()
        };
        let folder = format!("sys/bus/pci/devices/{address}");
        let resource = lines(bars, 7) + &lines(virtual_bars, 6);
        self.write(&format!("{folder}/class"), &format!("{class}\n")).write(&format!("{folder}/resource"), &resource)
    }

    /// As libvirt writes its cache: version 9.0.0, and machine types of the two chipsets.
    fn qemu(&self, file: &str, path: &str, (major, minor): (u32, u32), machines: &[&str]) -> &Self {
        let types: String = ["pc-i440fx", "pc-q35"]
            .iter()
            .flat_map(|chipset| machines.iter().map(move |version| (chipset, version)))
            .map(|(chipset, version)| {
                let newest = version == machines.last().expect("one");
                let alias = if *chipset == "pc-q35" { "q35" } else { "pc" };
                let alias = if newest { format!(" alias='{alias}'") } else { String::new() };
                format!("  <machine type='kvm' name='{chipset}-{version}'{alias}/>\n")
            })
            .collect();
        let version = major * 1_000_000 + minor * 1000;
        let text = format!(
            "<qemuCaps>\n  <emulator>{path}</emulator>\n  <qemuctime>1</qemuctime>\n  <selfvers>9000000</selfvers>\n  \
             <version>{version}</version>\n  <arch>x86_64</arch>\n{types}</qemuCaps>\n"
        );
        self.write(&format!("{CACHE}/{file}.xml"), &text)
    }

    fn detect(&self) -> Described {
        detect(&self.0)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Another run empties it again if this fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An EPYC with two QEMUs, on which one device's group reserves something of its own and another's does not have the
/// HyperTransport range.
fn epyc(name: &str) -> Root {
    let root = Root::new(name);
    let both = format!("{MSI}{HT}");
    root.folder("sys/class/iommu/ivhd0").folder("sys/class/iommu/ivhd1");
    root.group(0, &["0000:41:10.1", "0000:41:10.2"], &both)
        .group(1, &["0000:00:14.0"], &format!("0x00000000000a0000 0x00000000000affff direct\n{both}"))
        .group(2, &["0000:c1:00.0"], MSI);
    root.qemu("0a1b", "/usr/bin/qemu-system-x86_64", (7, 2), &["6.2", "7.0", "7.1", "7.2"]).qemu(
        "2c3d",
        "/opt/qemu-6.2/bin/qemu-system-x86_64",
        (6, 2),
        &["6.0", "6.1", "6.2"],
    );
    root.write("proc/sys/kernel/hostname", "epyc-1\n")
        .write("proc/meminfo", "MemTotal:       1056681984 kB\nMemFree: 1 kB\n");
    root.function("0000:40:01.1", "0x060400", &[], &[])
        .function(
            "0000:41:00.0",
            "0x020000",
            &[(0x6_0000_0000, 1 << 20, 0x14_220c)],
            &[(0x6_1000_0000, 64 << 14, 0x14_220c)],
        )
        .function("0000:41:10.1", "0x020000", &[(0x6_1000_4000, 1 << 14, 0x14_220c)], &[])
        .function("0000:41:10.2", "0x020000", &[], &[])
        .function(
            "0000:c1:00.0",
            "0x030200",
            &[(0xb100_0000, 16 << 20, 0x4_0200), (0x3_8000_0000_0000, 128 << 30, 0x14_220c)],
            &[],
        );
    // A kernel that shows no BARs of virtual functions.
    let physical = root.0.join("sys/bus/pci/devices/0000:41:00.0");
    std::os::unix::fs::symlink(physical, root.0.join("sys/bus/pci/devices/0000:41:10.2/physfn")).expect("a link");
    root.write("sys/bus/pci/devices/0000:41:00.0/sriov_totalvfs", "64\n");
    root.write("usr/share/seabios/bios-256k.bin", "SeaBIOS (version %s)\n\u{0}1.16.2-debian-1.16.2-1\u{0}");
    root.write(
        "var/lib/dpkg/status",
        "Package: ovmf\nStatus: install ok installed\nVersion: 2022.11-6+deb12u2\n\nPackage: z\n",
    );
    root.write(
        "var/lib/dpkg/info/ovmf.list",
        "/.\n/usr/share/OVMF/OVMF_CODE_4M.fd\n/usr/share/OVMF/OVMF_VARS_4M.fd\n/usr/share/ovmf/OVMF.fd\n",
    );
    root
}

fn written(described: &Described) -> String {
    described.lines().iter().map(|line| format!("{line}\n")).collect()
}

/// All that `check` says of a domain on a host.
fn evaluated(xml: &[u8], profile: &Profile) -> Value {
    let document = Document::parse(xml).expect("well-formed");
    let domain = domain::read(&document).expect("a domain");
    let host = profile.host_for(domain.emulator.as_ref().map(|emulator| emulator.value.as_str()));
    let evaluation = evaluate(&domain, &host, &Policy::default());
    let report = GuestReport::new("a guest".to_owned(), GuestSource::Xml(&document, &domain), &evaluation, None);
    serde_json::to_value(report).expect("JSON")
}

/// Every sample as it is, with another emulator, and with an unknown emulator.
fn samples() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("xml-samples");
    let mut all = Vec::new();
    for file in crate::common::xml_files(&folder) {
        let text = fs::read_to_string(&file).expect("readable");
        for path in ["/opt/qemu-6.2/bin/qemu-system-x86_64", "/opt/unknown"] {
            if let Some((before, after)) = text.split_once("</devices>") {
                let emulator = format!("<emulator>{path}</emulator>");
                let before = match before.split_once("<emulator>") {
                    Some((start, rest)) => {
                        let (_, end) = rest.split_once("</emulator>").expect("its end");
                        format!("{start}{emulator}{end}")
                    }
                    None => format!("{before}{emulator}"),
                };
                all.push(format!("{before}</devices>{after}").into_bytes());
            }
        }
        all.push(text.into_bytes());
    }
    assert!(all.len() > 80, "{}", all.len());
    all
}

#[test]
fn the_written_profile_evaluates_as_the_host_does() {
    let other = |name: &str, class: Option<&str>, regions: &str| {
        let root = Root::new(name);
        if let Some(class) = class {
            root.folder(&format!("sys/class/iommu/{class}")).group(0, &["0000:41:10.1"], regions);
        }
        root
    };
    let roots = [
        epyc("same-epyc"),
        other("same-intel", Some("dmar0"), MSI),
        other("same-none", None, ""),
        other("same-turin", Some("ivhd0"), MSI),
        other("same-mute", Some("ivhd0"), "not what the kernel writes\n"),
    ];
    let samples = samples();
    let mut verdicts = Vec::new();
    for root in &roots {
        let described = root.detect();
        let read = Profile::from_toml(&written(&described)).expect("a profile");
        for sample in &samples {
            let on_the_host = evaluated(sample, &described.profile);
            assert_eq!(evaluated(sample, &read), on_the_host, "{}", root.0.display());
            verdicts.push(on_the_host["verdict"].as_str().expect("a verdict").to_owned());
        }
    }
    for verdict in ["pass", "warn", "fixable", "blocked", "not-applicable"] {
        assert!(verdicts.iter().any(|known| known == verdict), "no sample is {verdict}");
    }
}

/// A domain with a device, 1200 GiB and an old machine type collides where the device's group has the range.
#[test]
fn devices_and_emulators_keep_their_own_facts() {
    let root = epyc("own-facts");
    let read = Profile::from_toml(&written(&root.detect())).expect("a profile");
    let guest = |device: &str, machine: &str, emulator: &str| {
        let xml = format!(
            "<domain type='kvm'><name>g</name><memory unit='GiB'>1200</memory>\
             <os><type arch='x86_64' machine='{machine}'>hvm</type></os><cpu mode='host-passthrough'/>\
             <devices>{emulator}<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='{device}'/>\
             </source></hostdev></devices></domain>"
        );
        let xml = xml
            .replace("bus='41'", "bus='0x41' slot='0x10' function='1'")
            .replace("bus='c1'", "bus='0xc1' slot='0' function='0'");
        evaluated(xml.as_bytes(), &read)
    };
    let rules = |guest: &Value| -> Vec<String> {
        let findings = guest["findings"].as_array().expect("findings");
        findings.iter().map(|finding| finding["rule"].as_str().expect("a rule").to_owned()).collect()
    };
    let has = |guest: &Value, rule: &str| rules(guest).iter().any(|known| known == rule);
    assert!(has(&guest("41", "pc-q35-6.2", ""), "ram-in-reserved-range"));
    assert!(!has(&guest("c1", "pc-q35-6.2", ""), "ram-in-reserved-range"));
    let old = "<emulator>/opt/qemu-6.2/bin/qemu-system-x86_64</emulator>";
    assert!(has(&guest("41", "pc-q35-7.2", old), "machine-type-not-available"));
    assert!(!has(&guest("41", "pc-q35-7.2", ""), "machine-type-not-available"));
    assert_eq!(guest("41", "q35", old)["machine"]["canonical"], "pc-q35-6.2");
    assert_eq!(guest("41", "q35", "")["machine"]["canonical"], "pc-q35-7.2");
    assert_eq!(guest("41", "q35", "<emulator>/opt/unknown</emulator>")["machine"]["canonical"], Value::Null);
}

fn why(described: &Described, fact: Fact) -> (String, String) {
    match described.origin(fact) {
        Some(FactOrigin::Missing { why, remedy }) => (why.clone(), remedy.clone()),
        other => panic!("{fact:?}: {other:?}"),
    }
}

fn source(described: &Described, fact: Fact) -> &str {
    match described.origin(fact) {
        Some(FactOrigin::Found(source)) => source,
        other => panic!("{fact:?}: {other:?}"),
    }
}

#[test]
fn every_fact_says_where_it_came_from() {
    let root = epyc("sources");
    let found = root.detect();
    for (fact, expected) in [
        (Fact::Iommu, "/sys/class/iommu: ivhd0 and 1 more"),
        (Fact::Reserved, "/sys/kernel/iommu_groups/*/reserved_regions, 3 groups"),
        (Fact::Kernel, "/proc/sys/kernel/osrelease"),
        (Fact::Kvm, "/dev/kvm"),
        (Fact::Qemu, "/var/cache/libvirt/qemu/capabilities/0a1b.xml"),
        (Fact::Name, "/proc/sys/kernel/hostname"),
        (Fact::Memory, "/proc/meminfo"),
        (Fact::Pci, "/sys/bus/pci/devices/*/resource, 4 functions"),
        (Fact::Firmware, "files of SeaBIOS, dpkg"),
    ] {
        assert_eq!(source(&found, fact), expected);
    }
    assert_eq!(found.emulators, ["/var/cache/libvirt/qemu/capabilities/2c3d.xml"]);
    assert!(why(&found, Fact::IommuBits).1.contains("by hand"));
    let text = written(&found);
    for line in [
        "name = \"epyc-1\"                 # /proc/sys/kernel/hostname",
        "version = \"2022.11-6+deb12u2\"   # dpkg: ovmf 2022.11-6+deb12u2",
        "kind = \"amd\"                    # /sys/class/iommu: ivhd0 and 1 more",
        "[[iommu.reserved]]              # HyperTransport, 1012–1024 GiB",
        "version = \"6.1.0\"               # /proc/sys/kernel/osrelease",
        "# 5.4 or newer: VFIO refuses to map reserved ranges (-22, Invalid argument).",
        "aliases.q35 = \"pc-q35-7.2\"",
        "[[emulator]]                    # for guests that use it",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn unknown_facts_differ_from_absent_ones() {
    let none = Root::new("no-iommu");
    let found = none.detect();
    assert_eq!(found.profile.host.iommu, Some(Iommu::None));
    assert_eq!(source(&found, Fact::Iommu), "/sys/class/iommu is empty");
    assert!(written(&found).contains("No IOMMU is active"));
    let (reason, remedy) = why(&found, Fact::Qemu);
    assert!(reason.contains("does not exist") && remedy.contains("virsh"), "{reason} {remedy}");

    // libvirt was there, and found no QEMU for x86.
    none.write(&format!("{CACHE}/a.xml"), "<qemuCaps><arch>aarch64</arch></qemuCaps>");
    assert!(why(&none.detect(), Fact::Qemu).0.contains("no x86 QEMU"));
    // It found one that guests have to name.
    none.qemu("b", "/opt/qemu", (8, 2), &["8.2"]);
    let found = none.detect();
    assert!(why(&found, Fact::Qemu).0.contains("None of /usr/bin/qemu-system-x86_64"));
    assert_eq!(found.emulators.len(), 1);
    assert!(written(&found).contains("# [qemu], for guests without <emulator>, is missing:"));

    // A kernel before 4.11 has groups and does not tell what they reserve.
    let old = Root::new("old-kernel");
    old.folder("sys/class/iommu/ivhd0").folder("sys/kernel/iommu_groups/0/devices/0000:41:10.1");
    let found = old.detect();
    assert_eq!((found.profile.host.iommu, found.profile.host.knows_reserved()), (Some(Iommu::Amd), false));
    assert!(why(&found, Fact::Reserved).0.contains("since 4.11"));
    assert!(written(&found).contains("# The reserved ranges are missing: None of 1 groups"), "{}", written(&found));

    // No sysfs at all, as in a container or on another system.
    let bare = Root(crate::common::work_dir("host-bare"));
    let found = bare.detect();
    assert_eq!(found.profile.host.iommu, None);
    assert!(why(&found, Fact::Iommu).1.contains("not in a container"));
    assert_eq!(found.profile.host.kvm, Some(false));
    assert!(written(&found).contains("Guests of type kvm do not start on this host"));
}

#[test]
fn bars_are_as_large_as_sysfs_says() {
    let root = epyc("bars");
    let host = root.detect().profile.host;
    let sizes = |address: &str| -> Option<Vec<(u8, u64, bool)>> {
        host.bars(address).map(|bars| bars.iter().map(|bar| (bar.index, bar.size, bar.bits64)).collect())
    };
    assert_eq!(sizes("0000:C1:00.0"), Some(vec![(0, 16 << 20, false), (1, 128 << 30, true)]));
    assert_eq!(sizes("0000:41:10.1"), Some(vec![(0, 1 << 14, true)]));
    // As large as its physical function says, for 64 of them.
    assert_eq!(sizes("0000:41:10.2"), Some(vec![(0, 1 << 14, true)]));
    assert_eq!((sizes("0000:40:01.1"), sizes("0000:42:00.0")), (None, None));
    let paths = |kind| host.firmwares.iter().filter(move |file| file.kind == kind).map(|file| file.path.as_deref());
    assert_eq!(paths(FirmwareKind::SeaBios).collect::<Vec<_>>(), [None, Some("/usr/share/seabios/bios-256k.bin")]);
    assert_eq!(
        paths(FirmwareKind::Ovmf).collect::<Vec<_>>(),
        [Some("/usr/share/OVMF/OVMF_CODE_4M.fd"), Some("/usr/share/ovmf/OVMF.fd")]
    );
    assert_eq!(host.memory, Some(1_056_681_984 << 10));
}

/// The capability registers of two units, and one that does not tell; `devices` has what is behind each
/// (`Documentation/ABI/testing/sysfs-class-iommu`).
#[test]
fn the_unit_of_vt_d_that_a_device_is_behind_counts() {
    let root = Root::new("vt-d");
    let unit = |name: &str| format!("sys/class/iommu/{name}/intel-iommu/cap");
    root.write(&unit("dmar0"), "8d2078c106f0466\n").write(&unit("dmar1"), "d2008c40660462\n");
    root.folder("sys/class/iommu/dmar0/devices/0000:41:00.0").folder("sys/class/iommu/dmar1/devices/0000:00:02.0");
    let found = root.detect();
    assert_eq!(found.profile.host.iommu_bits, Some(48));
    assert_eq!(found.profile.host.iommu_bits_by_device, [("0000:00:02.0".to_owned(), 39)].into());
    assert_eq!(source(&found, Fact::IommuBits), "/sys/class/iommu/dmar*/intel-iommu/cap");
    let json = serde_json::to_value(HostFacts::new(&found)).expect("JSON");
    assert_eq!(json["iommu"]["address_bits_of_devices"]["0000:00:02.0"], 39);
    root.folder("sys/class/iommu/dmar2");
    assert_eq!(root.detect().profile.host.iommu_bits, None);
}

#[test]
fn an_amd_iommu_that_does_not_tell_leaves_the_verdict_open() {
    let root = Root::new("open");
    root.folder("sys/class/iommu/ivhd0");
    let xml = fs::read("xml-samples/old-machine-1200g-gpu.xml").expect("readable");
    let guest = evaluated(&xml, &root.detect().profile);
    let assumptions = guest["assumptions"].to_string();
    assert!(assumptions.contains("ranges the host's IOMMU reserves"), "{guest:#}");
}

#[test]
fn json_has_every_fact_with_its_source_or_why_it_is_missing() {
    let root = epyc("json");
    let json = serde_json::to_value(HostFacts::new(&root.detect())).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["iommu"]["kind"]["value"], "amd");
    assert_eq!(json["iommu"]["reserved"]["value"][2]["start"], 0xfd_0000_0000_u64);
    assert_eq!(json["iommu"]["devices"]["0000:c1:00.0"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["qemu"]["value"]["version"], "7.2.0");
    assert_eq!(json["qemu"]["source"], "/var/cache/libvirt/qemu/capabilities/0a1b.xml");
    assert_eq!(json["emulators"][0]["value"]["aliases"]["q35"], "pc-q35-6.2");
    assert_eq!(json["pci"]["value"]["0000:c1:00.0"][1]["size"], 128_u64 << 30);
    assert_eq!(json["firmware"]["value"][0]["version"], "1.16.2-debian-1.16.2-1");
    assert!(json["iommu"]["address_bits"]["missing"]["why"].is_string(), "{json:#}");
    let bare = Root(crate::common::work_dir("host-json-bare"));
    let json = serde_json::to_value(HostFacts::new(&bare.detect())).expect("JSON");
    for fact in
        [&json["iommu"]["kind"], &json["kernel"]["version"], &json["libvirt"]["version"], &json["qemu"], &json["pci"]]
    {
        assert_eq!(fact["value"], Value::Null);
        assert!(fact["missing"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{json:#}");
        assert!(fact["missing"]["assumption"].as_str().is_some_and(|text| !text.is_empty()), "{json:#}");
    }
}

/// With a CPU that is not this machine's.
fn on_a(vendor: &str, root: &Root) -> Described {
    let mut described = root.detect();
    described.profile.host.cpu_vendor = Some(vendor.to_owned());
    described.profile.host.phys_bits = Some(48);
    described.origins.insert(Fact::CpuVendor, FactOrigin::Found("CPUID leaf 0".to_owned()));
    described.origins.insert(Fact::PhysBits, FactOrigin::Found("CPUID leaf 0x80000008".to_owned()));
    described.profile.host.gb_pages = Some(true);
    described.origins.insert(Fact::GbPages, FactOrigin::Found("CPUID leaf 0x80000001".to_owned()));
    described
}

/// What `host` prints, compared with reviewed snapshots. `SNAPSHOTS=overwrite` writes it anew.
#[test]
fn printed_profiles_match_the_snapshots() {
    let snapshot = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
        Data::read_from(&path, None).raw()
    };
    let amd = epyc("snapshot-epyc");
    assert_data_eq!(written(&on_a("AuthenticAMD", &amd)), snapshot("host-epyc.toml"));
    let json = serde_json::to_string_pretty(&HostFacts::new(&on_a("AuthenticAMD", &amd))).expect("JSON");
    assert_data_eq!(json + "\n", snapshot("host-epyc-json.txt"));

    let intel = Root::new("snapshot-intel");
    intel.folder("sys/class/iommu/dmar0").group(0, &["0000:17:00.0"], MSI);
    intel.write("sys/class/iommu/dmar0/intel-iommu/cap", "8d2078c106f0466\n");
    assert_data_eq!(written(&on_a("GenuineIntel", &intel)), snapshot("host-intel.toml"));

    let none = Root::new("snapshot-none");
    none.qemu("b", "/opt/qemu", (8, 2), &["8.2"]);
    assert_data_eq!(written(&on_a("AuthenticAMD", &none)), snapshot("host-none.toml"));

    let turin = Root::new("snapshot-turin");
    turin.folder("sys/class/iommu/ivhd0").group(0, &["0000:c1:00.0"], MSI);
    turin.write("proc/sys/kernel/osrelease", "6.17.9+deb13-amd64\n");
    assert_data_eq!(written(&on_a("AuthenticAMD", &turin)), snapshot("host-turin.toml"));

    let old = Root::new("snapshot-old");
    old.folder("sys/class/iommu/ivhd0").folder("sys/kernel/iommu_groups/0/devices/0000:41:10.1");
    old.write("proc/sys/kernel/osrelease", "3.10.0-1160.el7.x86_64\n");
    assert_data_eq!(written(&on_a("AuthenticAMD", &old)), snapshot("host-old-kernel.toml"));
}

fn ours(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight")).args(arguments).output().expect("runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_program_prints_a_profile_that_it_reads() {
    let folder = crate::common::work_dir("host-profile");
    let file = folder.join("this.toml");
    fs::write(&file, ours(&["host"])).expect("written");
    ours(&["check", "--policy", "none", "--host", file.to_str().expect("UTF-8"), "xml-samples/gpu-attached-later.xml"]);
    let json: Value = serde_json::from_str(&ours(&["host", "--format", "json"])).expect("JSON");
    assert!(json["kernel"]["version"]["value"].is_string(), "{json:#}");
}

#[test]
fn the_list_names_every_built_in_profile() {
    let json: Value = serde_json::from_str(&ours(&["host", "--list", "--format", "json"])).expect("JSON");
    let text = ours(&["host", "--list"]);
    let profiles = json["profiles"].as_array().expect("a list");
    assert_eq!(profiles.len(), 3);
    for profile in profiles {
        let name = profile["name"].as_str().expect("a name");
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
    }
}

/// On a host with an IOMMU of any vendor, files are taken for its own guests.
#[test]
fn files_are_evaluated_for_this_host_if_it_has_an_iommu() {
    let namespace = match Namespace::new(&work_dir("host-namespace"), None) {
        Ok(namespace) => namespace,
        Err(why) => return skip(&format!("the host that files are evaluated for: {why}")),
    };
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("xml-samples/old-machine-1200g-gpu.xml");
    let shown = |rename: &str| {
        let script = format!("{rename}; exec \"$0\" check --policy none \"$1\"");
        let mut command = namespace.command("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_iova-preflight")]).arg(&sample);
        String::from_utf8(command.output().expect("runs").stdout).expect("UTF-8")
    };
    assert!(shown("true").starts_with("host: this host\n"));
    let intel = shown("mv /sys/class/iommu/ivhd0 /sys/class/iommu/dmar0");
    assert!(intel.starts_with("host: this host\n"), "{intel}");
    let none = shown("rmdir /sys/class/iommu/dmar0");
    assert!(none.starts_with("host: built-in profile amd-epyc, because no IOMMU is active on this host"), "{none}");
}
