//! Starts with virtual IOMMUs and with a narrow IOMMU of the host, as they were measured, compared with the
//! predictions.

use iova_preflight::finding::Severity;
use iova_preflight::host::Profile;
use iova_preflight::policy::Policy;
use iova_preflight::verdict::{Evaluation, evaluate};
use iova_preflight::{Call, Launch};

/// The record; tests/data/README.md says what is in it.
const RECORD: &str = include_str!("../data/viommu.txt");

/// A host of the record with one of its QEMUs.
fn profile(host: &str, qemu: &str) -> String {
    let minor: Vec<&str> = qemu.split('.').take(2).collect();
    let qemu = format!("[qemu]\nversion = '{qemu}'\naliases = {{ q35 = 'pc-q35-{}' }}\n", minor.join("."));
    let kernel = "[kernel]\nversion = '6.1'\n[cpu]\nphys_bits = 48\n";
    match host {
        "intel-39" => format!(
            "{kernel}vendor = 'GenuineIntel'\n{qemu}[iommu]\nkind = 'intel'\naddress_bits = 39\n\
             reserved = [{{ start = 0xfee00000, end = 0xfeefffff, type = 'msi' }}]\n"
        ),
        "amd" => format!(
            "{kernel}vendor = 'AuthenticAMD'\n{qemu}[iommu]\nkind = 'amd'\n\
             reserved = [{{ start = 0xfd00000000, end = 0xffffffffff, type = 'reserved' }}]\n"
        ),
        other => panic!("{other}"),
    }
}

fn evaluated(host: &str, qemu: &str, options: &str) -> Evaluation {
    let line = format!("qemu-system-x86_64 -accel tcg {options} -device vfio-pci,host=0000:00:10.0,addr=0x10");
    let launch = Launch::read(&Call::read(line.as_bytes()).expect("a command line"));
    let profile = Profile::from_toml(&profile(host, qemu)).expect("a profile");
    let host = profile.host_for(None);
    evaluate(&launch, &host, &Policy::default())
}

/// The rules whose errors are what QEMU says.
fn rules(said: &str) -> &'static [&'static str] {
    match said {
        "starts" => &[],
        said if said.contains("= -22") => &["ram-above-iommu-width", "ram-in-reserved-range"],
        said if said.contains("aw-bits") => &["viommu-above-iommu-width"],
        said if said.contains("caching-mode") || said.contains("iommu notifier") => &["viommu-not-prepared"],
        other => panic!("{other}"),
    }
}

#[test]
fn starts_are_predicted_as_they_were_measured() {
    let mut rows = 0;
    for row in RECORD.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = row.split(" | ").collect();
        let [qemu, host, options, said] = columns[..] else { panic!("{row}") };
        // A refusal of an option that this QEMU lacks shows nothing about devices.
        if said.contains("not found") {
            continue;
        }
        let evaluation = evaluated(host, qemu, options);
        let errors: Vec<&str> = evaluation
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.rule)
            .collect();
        let expected = rules(said);
        assert_eq!(evaluation.verdict.stops(), !expected.is_empty(), "{row}\n{:?}", evaluation.findings);
        assert!(errors.iter().all(|rule| expected.contains(rule)), "{row}: {errors:?}");
        assert!(evaluation.assumptions.is_empty(), "{row}: {:?}", evaluation.assumptions);
        rows += 1;
    }
    assert!(rows > 50, "{rows} rows");
}

/// What the guest itself may map behind an intel-iommu of 48 bits, and not with 39; a virtio-iommu tells it.
#[test]
fn addresses_that_the_guest_may_choose_are_a_warning() {
    let warns = |host: &str, viommu: &str, qemu: &str, rule: &str| {
        let options = format!("-machine pc-q35-7.2 -cpu EPYC,phys-bits=48 -m 512M -device {viommu}");
        let evaluation = evaluated(host, qemu, &options);
        assert!(!evaluation.verdict.stops(), "{viommu}: {evaluation:?}");
        evaluation.findings.iter().any(|finding| finding.rule == rule && finding.severity == Severity::Warning)
    };
    let reserved = "viommu-in-reserved-range";
    assert!(warns("amd", "intel-iommu,caching-mode=on,aw-bits=48", "10.0.13", reserved));
    assert!(!warns("amd", "intel-iommu,caching-mode=on", "10.0.13", reserved), "39 with a machine type of 7.2");
    assert!(!warns("amd", "virtio-iommu-pci", "10.0.13", reserved));
    assert!(!warns("intel-39", "intel-iommu,caching-mode=on,aw-bits=48", "7.2.22", reserved));
    let width = "viommu-above-iommu-width";
    assert!(warns("intel-39", "intel-iommu,caching-mode=on,aw-bits=48", "7.2.22", width));
    assert!(!warns("intel-39", "intel-iommu,caching-mode=on", "7.2.22", width));
    assert!(!warns("amd", "intel-iommu,caching-mode=on,aw-bits=48", "7.2.22", width), "the host's width is unknown");
}

/// QEMU takes no other numbers than 39 and 48.
#[test]
fn the_number_of_address_bits_is_told() {
    let options = "-machine pc-q35-7.2 -cpu EPYC,phys-bits=48 -m 512M -device intel-iommu,caching-mode=on,aw-bits=48";
    let evaluation = evaluated("intel-39", "10.0.13", options);
    assert_eq!(evaluation.tried, ["give the intel-iommu 39 address bits yourself: aw-bits=39"]);
}

/// Nothing of a guest's RAM is mapped at start for a virtio-iommu without boot-bypass; RAM in the range is a warning then.
#[test]
fn a_virtio_iommu_without_bypass_makes_ram_in_the_range_a_warning() {
    let options = "-machine pc-q35-7.0 -cpu EPYC,phys-bits=48 -m 1100G -device virtio-iommu-pci,boot-bypass=off";
    let evaluation = evaluated("amd", "7.2.22", options);
    let finding = evaluation.findings.iter().find(|finding| finding.rule == "ram-in-reserved-range").expect("found");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.message().contains("boot-bypass=off"), "{}", finding.message());
}

/// `pci_bus_bypass_iommu` in QEMU `hw/pci/pci.c`: devices of such a bus see all of memory, whatever the virtual IOMMU does.
#[test]
fn devices_that_bypass_the_virtual_iommu_are_as_without_one() {
    const PAST: [&str; 4] = [
        "-machine default-bus-bypass-iommu=on",
        "-machine default_bus_bypass_iommu=on",
        "-device pxb-pcie,id=p,bus_nr=32,bypass_iommu=on",
        "-device pxb-pcie,id=p,bus_nr=32 -global pxb-pcie.bypass_iommu=on",
    ];
    const BEHIND: [&str; 3] =
        ["", "-machine default-bus-bypass-iommu=off", "-device pxb-pcie,id=p,bus_nr=32,bypass_iommu=off"];
    let errors = |host: &str, qemu: &str, options: &str| -> Vec<&'static str> {
        let findings = evaluated(host, qemu, options).findings;
        findings.iter().filter(|finding| finding.severity == Severity::Error).map(|finding| finding.rule).collect()
    };
    let old = "-machine pc-q35-7.0 -cpu EPYC,phys-bits=48";
    for (host, qemu, options, past, behind) in [
        ("amd", "7.2.22", "-m 1100G -device virtio-iommu-pci,boot-bypass=off", Some("ram-in-reserved-range"), None),
        ("amd", "7.2.22", "-m 512M -device amd-iommu", None, Some("viommu-not-prepared")),
        (
            "intel-39",
            "10.0.13",
            "-m 512M -device intel-iommu,caching-mode=on,aw-bits=48",
            None,
            Some("viommu-above-iommu-width"),
        ),
        // 7.2 and 10.0 look at all vfio-pci devices, 11.1 only at those behind it.
        ("amd", "7.2.22", "-m 512M -device intel-iommu", Some("viommu-not-prepared"), Some("viommu-not-prepared")),
        ("amd", "11.1.3", "-m 512M -device intel-iommu", None, Some("viommu-not-prepared")),
    ] {
        for (ways, expected) in [(&PAST[..], past), (&BEHIND[..], behind)] {
            for way in ways {
                let found = errors(host, qemu, &format!("{old} {options} {way}"));
                assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{qemu}: {options} {way}");
            }
        }
    }
}

/// vhost-vdpa maps the guest's memory by itself, whatever a virtio-iommu says (`vhost_vdpa_listener_region_add` in QEMU 7.2
/// `hw/virtio/vhost-vdpa.c`, which listens to all of memory).
#[test]
fn vdpa_reaches_hidden_memory() {
    let options = "-machine pc-q35-7.0 -cpu EPYC,phys-bits=48 -m 1100G -device virtio-iommu-pci,boot-bypass=off \
                   -netdev vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0 -device virtio-net-pci,netdev=n";
    let evaluation = evaluated("amd", "7.2.22", options);
    let finding = evaluation.findings.iter().find(|finding| finding.rule == "ram-in-reserved-range").expect("found");
    assert_eq!(finding.severity, Severity::Error);
}

/// `amdvi_iommu_notify_flag_changed` of QEMU 11.1 wants `dma-remap`, which is off by default.
#[test]
fn an_amd_iommu_that_does_not_remap_is_a_warning() {
    let warns = |amd: &str| {
        let options = format!("-machine pc-q35-7.2 -cpu EPYC,phys-bits=48 -m 512M {amd}");
        let evaluation = evaluated("amd", "11.1.3", &options);
        assert!(!evaluation.verdict.stops(), "{amd}: {evaluation:?}");
        evaluation.findings.iter().any(|finding| finding.rule == "viommu-not-prepared")
    };
    assert!(warns("-device amd-iommu"));
    assert!(warns("-device amd-iommu,dma-remap=off"));
    assert!(!warns("-device amd-iommu,dma-remap=on"));
    assert!(!warns("-device amd-iommu -global amd-iommu.dma-remap=on"));
    assert!(!warns("-device amd-iommu -machine default-bus-bypass-iommu=on"));
}

/// `vfio_realize` in QEMU `hw/vfio/pci.c` asks for the address space once, when the device is made.
#[test]
fn a_device_made_before_the_virtual_iommu_is_not_behind_it() {
    let evaluated = |device: &str| {
        let options = "-machine pc-q35-7.0 -cpu EPYC,phys-bits=48 -m 1100G";
        let line = format!("qemu-system-x86_64 -accel tcg {options} {device} -device virtio-iommu-pci,boot-bypass=off");
        let launch = Launch::read(&Call::read(line.as_bytes()).expect("a command line"));
        let profile = Profile::from_toml(&profile("amd", "7.2.22")).expect("a profile");
        evaluate(&launch, &profile.host_for(None), &Policy::default()).verdict.stops()
    };
    assert!(evaluated("-device vfio-pci,host=0000:00:10.0"));
    // JSON is made last.
    assert!(!evaluated(r#"-device '{"driver":"vfio-pci","host":"0000:00:10.0"}'"#));
}
