//! Raw QEMU arguments and overrides, which libvirt passes on unseen: what the real QEMU makes of them and what we say.

use super::{ALONE, OUTSIDE, Overcommit, host_cpu};
use crate::common::{Differences, check, expect, note, skip, work_dir, xml_files};
use crate::integration::differential::oracle::Oracle;
use std::path::{Path, PathBuf};

/// A guest without memory devices: TCG, so that nothing depends on the host's CPU.
const PLAIN: &str = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>NAME</name>\
    <memory unit='GiB'>1100</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\
    <features><acpi/></features><cpu mode='custom' match='exact' check='none'><model>EPYC</model>\
    <maxphysaddr mode='emulate' bits='42'/></cpu><devices><memballoon model='none'/></devices>RAW</domain>";

/// One with a DIMM, a virtio-mem device and room for more.
const DIMM: &str = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>NAME</name>\
    <maxMemory slots='8' unit='GiB'>64</maxMemory><memory unit='GiB'>7</memory><vcpu>2</vcpu>\
    <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><features><acpi/></features>\
    <cpu><numa><cell id='0' cpus='0-1' memory='4' unit='GiB'/></numa></cpu><devices>\
    <memory model='dimm'><target><size unit='GiB'>1</size><node>0</node></target>\
    <address type='dimm' slot='0' base='0x140000000'/></memory>\
    <memory model='virtio-mem'><target><size unit='GiB'>2</size><node>0</node><block unit='MiB'>2</block>\
    <requested unit='KiB'>0</requested></target></memory>\
    <memballoon model='none'/></devices>RAW</domain>";

/// What is added to one of them, each word an argument.
const ARGUMENTS: [(&str, &[&str]); 40] = [
    (PLAIN, &["-cpu", "EPYC,phys-bits=45"]),
    (PLAIN, &["-cpu", "EPYC,phys_bits=0x2d,vendor=GenuineIntel"]),
    (PLAIN, &["-cpu", "EPYC"]),
    (PLAIN, &["-cpu", "Skylake-Server,phys-bits=42"]),
    (PLAIN, &["-cpu", "EPYC,-lm"]),
    (PLAIN, &["-cpu", "EPYC,+lm,-lm,lm=on"]),
    (PLAIN, &["-cpu", "qemu32,+lm,phys-bits=42"]),
    (PLAIN, &["-cpu", "pentium3", "-cpu", "max,phys-bits=44"]),
    (PLAIN, &["-cpu", "EPYC,phys-bits=20"]),
    (PLAIN, &["-global", "cpu.phys-bits=45"]),
    (PLAIN, &["-global", "driver=EPYC-x86_64-cpu,property=vendor,value=GenuineIntel"]),
    (PLAIN, &["-global", "value=HygonGenuine,property=vendor,driver=cpu"]),
    (PLAIN, &["-global", "Skylake-Server-x86_64-cpu.vendor=GenuineIntel"]),
    (PLAIN, &["-global", "x86_64-cpu.vendor=GenuineIntel", "--global", "EPYC-x86_64-cpu.vendor=AuthenticAMD"]),
    (PLAIN, &["-cpu", "EPYC", "-global", "cpu.phys-bits=43"]),
    (PLAIN, &["-machine", "pc-q35-6.2"]),
    (PLAIN, &["-M", "type=pc-q35-6.2", "-machine", "hpet=off", "-machine", "pc-q35-7.1"]),
    (PLAIN, &["-machine", "max-ram-below-4g=1G"]),
    (PLAIN, &["-M", "pc-q35-7.2,max-ram-below-4g=0x60000000"]),
    (DIMM, &["-M", "type=pc-i440fx-6.2,max-ram-below-4g=3.25G"]),
    (DIMM, &["-M", "max-ram-below-4g=2G"]),
    (PLAIN, &["-m", "8G"]),
    (PLAIN, &["-m", "slots=4,maxmem=1200G"]),
    (PLAIN, &["-m", "maxmem=1099G"]),
    (PLAIN, &["-m", "slots=4"]),
    (PLAIN, &["-global", "q35-pcihost.pci-hole64-size=2T"]),
    (PLAIN, &["-global", "q35-pcihost.pci-hole64-size=2T", "-global", "pcie-host-bridge.pci-hole64-size=1.5T"]),
    (PLAIN, &["-global", "i440FX-pcihost.pci-hole64-size=8T"]),
    (PLAIN, &["-accel", "kvm"]),
    (PLAIN, &["-device", "pcie-root-port,id=x,chassis=9", "-numa", "node,mem=1"]),
    (DIMM, &["-object", "memory-backend-ram,id=m,size=1G", "-device", "pc-dimm,memdev=m,id=d,slot=3"]),
    (DIMM, &["-object", "memory-backend-ram,id=m,size=1G", "-device", "pc-dimm,memdev=m"]),
    (
        DIMM,
        &[
            "-object",
            "size=1024M,id=m,qom-type=memory-backend-ram",
            "-device",
            "addr=0x200000000,memdev=m,driver=pc-dimm,slot=0x5",
        ],
    ),
    (
        DIMM,
        &[
            "-object",
            r#"{"qom-type":"memory-backend-ram","id":"m","size":1073741824}"#,
            "-device",
            r#"{"driver":"pc-dimm","memdev":"m","id":"d","addr":8589934592}"#,
        ],
    ),
    (
        DIMM,
        &[
            "-object",
            "memory-backend-ram,id=m,size=1G",
            "-device",
            "pc-dimm,memdev=m,id=d,slot=2",
            "-set",
            "device.d.addr=12884901888",
        ],
    ),
    (DIMM, &["-object", "memory-backend-ram,id=m,size=1G", "-device", "pc-dimm,memdev=m,slot=9,addr=0x140000000"]),
    (DIMM, &["-object", "memory-backend-ram,id=m,size=80G", "-device", "pc-dimm,memdev=m"]),
    (
        DIMM,
        &[
            "-object",
            "memory-backend-ram,id=m,size=1G",
            "-device",
            "pc-dimm,memdev=m,slot=1",
            "-global",
            "pc-dimm.addr=0x340000000",
        ],
    ),
    (DIMM, &["-machine", "acpi=off"]),
    (DIMM, &["-m", "5G"]),
];

/// What `<qemu:override>` says of a device of [`DIMM`]: alias, property, type and value.
const OVERRIDES: [(&str, &str, &str, &str); 4] = [
    ("dimm0", "addr", "unsigned", "17179869184"),
    ("dimm0", "addr", "remove", ""),
    ("virtiomem0", "block-size", "unsigned", "1073741824"),
    ("virtiomem0", "memaddr", "unsigned", "34359738368"),
];

#[test]
fn raw_arguments_are_merged_as_qemu_merges_them() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let work = work_dir("raw-arguments");
    let oracle = match Oracle::start(Path::new("/"), &work) {
        Ok(oracle) => oracle,
        Err(why) => return skip(&format!("no real libvirt and QEMU to compare with: {why}")),
    };
    let _overcommit = match Overcommit::allow() {
        Ok(guard) => guard,
        Err(why) => return skip(&format!("guests larger than this machine cannot be started: {why}")),
    };
    let files = domains(&work);
    let (vendor, phys_bits) = host_cpu();
    let profile = work.join("host.toml");
    oracle.profile(vendor, phys_bits, true).write(&profile);
    let guests = check(&profile, &files);
    let mut diffs = Differences::default();
    for file in &files {
        let name = file.file_name().expect("a file").to_string_lossy();
        let guest = &guests[name.as_ref()];
        let line = oracle.command_line(file).unwrap_or_else(|why| panic!("libvirt refuses {name}: {why}"));
        let built = oracle.layout(&line);
        let error = built["error"].as_str().unwrap_or_default();
        if OUTSIDE.iter().any(|part| error.contains(part)) {
            note(&format!("raw arguments: {name} does not run on this host: {error}"));
            continue;
        }
        expect::qemu(&mut diffs, (&name, "now"), &built, guest);
        // The sentence about sizes is given as QEMU says it.
        if error.starts_with("invalid value of maxmem: maximum memory size") {
            let said = guest["findings"].to_string();
            diffs.expect((&name, "now"), "sentence", said.contains(error), error, &said);
        }
    }
    diffs.assert_none(&format!("differences from QEMU {}; the domains are in {}", oracle.qemu_version, work.display()));
    note(&format!("raw arguments: {} domains, {} facts match", files.len(), diffs.compared));
}

fn domains(work: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut write = |name: String, template: &str, raw: &str| {
        let path = work.join(format!("{name}.xml"));
        let xml = template.replace("NAME", &name).replace("RAW", raw);
        std::fs::write(&path, xml).expect("write a domain");
        files.push(path);
    };
    for (number, (template, arguments)) in ARGUMENTS.iter().enumerate() {
        let argument = |text: &&str| format!("<qemu:arg value='{text}'/>");
        let arguments: String = arguments.iter().map(argument).collect();
        write(format!("raw{number:02}"), template, &format!("<qemu:commandline>{arguments}</qemu:commandline>"));
    }
    for (number, (alias, name, kind, value)) in OVERRIDES.iter().enumerate() {
        let value = if *kind == "remove" { String::new() } else { format!(" value='{value}'") };
        let property = format!("<qemu:property name='{name}' type='{kind}'{value}/>");
        let device = format!("<qemu:device alias='{alias}'><qemu:frontend>{property}</qemu:frontend></qemu:device>");
        write(format!("override{number:02}"), DIMM, &format!("<qemu:override>{device}</qemu:override>"));
    }
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    for file in ["raw-arguments", "rounding"].iter().flat_map(|folder| xml_files(&recorded.join(folder))) {
        let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
        write(name, &without_the_host(&std::fs::read_to_string(&file).expect("read a domain")), "");
    }
    files
}

/// A recorded domain without what only its own host has: firmware, a newer machine type, passthrough devices.
fn without_the_host(xml: &str) -> String {
    let mut text = xml.replace(" firmware='efi'", "").replace("pc-q35-8.2", "pc-q35-7.2");
    while let Some((before, rest)) = text.split_once("<hostdev") {
        let after = rest.split_once("</hostdev>").map_or("", |(_, after)| after);
        text = format!("{before}{after}");
    }
    text
}
