//! Findings that an operator should act on are shown without `-v`.

use std::path::Path;
use std::process::Command;

use crate::common::{samples_folder, work_dir};

/// What `check` prints of a domain without `-v`, and how it ends.
fn check(name: &str, domain: &str) -> (Option<i32>, String) {
    let file = work_dir(name).join("a.xml");
    std::fs::write(&file, domain).expect("write the domain");
    run(&file)
}

fn run(file: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_iova-preflight"))
        .args(["check", "--policy", "none", "--host", "amd-epyc"])
        .arg(file)
        .output()
        .expect("run iova-preflight");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

const HYPERV: &str = "<features><acpi/><hyperv><relaxed state='on'/></hyperv></features>";
const GPU: &str = "<hostdev type='pci'><source><address bus='0x41'/></source></hostdev>";
const NETWORK: &str = "<interface type='hostdev'><source><address type='pci' bus='0x41'/></source></interface>";

/// A guest of 64 GiB with room for `maximum` GiB.
fn guest(maximum: u64, features: &str, device: &str) -> String {
    format!(
        "<domain type='kvm'><name>a</name><maxMemory slots='16' unit='GiB'>{maximum}</maxMemory>\
         <memory unit='GiB'>64</memory><os><type machine='pc-q35-7.2'>hvm</type></os>{features}\
         <cpu mode='host-passthrough'><numa><cell id='0' cpus='0' memory='64' unit='GiB'/></numa></cpu>\
         <devices>{device}</devices></domain>"
    )
}

#[test]
fn moved_memory_of_a_windows_guest_with_a_gpu_is_a_warning() {
    let (status, said) = run(&samples_folder().join("windows-gpu-hotplug-slots.xml"));
    assert_eq!(status, Some(0));
    for words in ["warn ", "relocated-above-1t", "Code 43", "at most 962 GiB with 16 slots"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let libosinfo = "<features><acpi/></features><metadata><libosinfo:libosinfo \
        xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>\
        <libosinfo:os id='http://microsoft.com/win/11'/></libosinfo:libosinfo></metadata>";
    assert!(check("shown-libosinfo", &guest(1024, libosinfo, GPU)).1.contains("relocated-above-1t"));
    // RAM up to 66 GiB, room for the rest plus 1 GiB per slot, and the hole of 32 GiB make 1012 GiB.
    assert!(check("shown-at-the-limit", &guest(962, HYPERV, GPU)).1.contains("pass "));
    assert!(check("shown-beyond", &guest(963, HYPERV, GPU)).1.contains("relocated-above-1t"));
}

#[test]
fn moved_memory_of_other_guests_is_as_it_should_be() {
    let disabled = HYPERV.replace("on", "off");
    for (name, features, device) in [
        ("shown-linux", "<features><acpi/></features>", GPU),
        ("shown-off", disabled.as_str(), GPU),
        ("shown-network", HYPERV, NETWORK),
        ("shown-none", HYPERV, ""),
    ] {
        let (status, said) = check(name, &guest(1024, features, device));
        assert_eq!(status, Some(0));
        assert!(said.contains("pass ") && !said.contains("relocated-above-1t"), "{name}: {said}");
    }
}

#[test]
fn hyperv_is_said_to_be_qemu() {
    let domain = "<domain type='hyperv'><name>a</name><memory>1048576</memory><os><type>hvm</type></os></domain>";
    let (status, said) = check("shown-hyperv", domain);
    assert_eq!(status, Some(0));
    assert!(said.contains("not-applicable") && said.contains("QEMU with /dev/mshv since libvirt 11.10"), "{said}");
    assert!(!said.contains("not of QEMU"), "{said}");
}

/// Which devices may reach memory by DMA that the XML does not show. None of it matters where no memory is in the way.
#[test]
fn back_ends_that_may_hold_a_device_are_named() {
    let guest = |gib: u64, device: &str, raw: &str| {
        format!(
            "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>\
             <memory unit='GiB'>{gib}</memory><os><type machine='pc-q35-6.2'>hvm</type></os>\
             <cpu mode='host-passthrough'/><devices>{device}</devices>\
             <q:commandline><q:arg value='-netdev'/><q:arg value='{raw}'/></q:commandline></domain>"
        )
    };
    let disk = "<disk type='vhostuser' device='disk'><source type='unix' path='/run/a'/></disk>";
    let passt = "<interface type='vhostuser'><backend type='passt'/></interface>";
    let virtiofs = "<filesystem type='mount'><driver type='virtiofs'/></filesystem>";
    let bridge = "<interface type='network'><source network='a'/><actual type='bridge'/></interface>";
    for (name, device, raw, hidden) in [
        ("dma-disk", disk, "user", true),
        ("dma-raw", "", "vhost-user,id=a,chardev=b", true),
        ("dma-raw-type", "", "type=vhost-user,id=a,chardev=b", true),
        ("dma-passt", passt, "user", false),
        ("dma-virtiofs", virtiofs, "user", false),
        ("dma-bridge", bridge, "user", false),
    ] {
        let (status, said) = check(name, &guest(1200, device, raw));
        assert_eq!(status, Some(0));
        assert_eq!(said.contains("warning[dma-not-visible]"), hidden, "{name}: {said}");
        assert!(!check(name, &guest(64, device, raw)).1.contains("dma-not-visible"), "{name}");
    }
}
