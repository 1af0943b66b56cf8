//! Documents that are too large, or as large as is read.

use super::{GOOD, Running, check, check_command, make_pipe, run};
use crate::common::{open_when_read, work_dir, writer_of};
use iova_preflight::xml::MAX_NODES;
use std::io::Write;
use std::path::Path;

#[test]
fn a_file_of_100_mib_is_refused_for_its_size() {
    let folder = work_dir("hostile-100-mib");
    let (sparse, text) = (folder.join("sparse.xml"), folder.join("text.xml"));
    let file = std::fs::File::create(&sparse).expect("create a file");
    file.set_len(100 << 20).expect("make the file long");
    let mut file = std::fs::File::create(&text).expect("create a file");
    let line = [vec![b' '; (1 << 20) - 1], b"\n".to_vec()].concat();
    file.write_all(b"<domain>").expect("write");
    for _ in 0..100 {
        file.write_all(&line).expect("write");
    }
    file.write_all(b"</domain>").expect("write");
    let run = check(&[&sparse, &text]);
    assert_eq!(run.code(), Some(2));
    run.assert_complaint(&sparse, "1:4194305", "4 MiB");
    // The byte that is too many is the 4 194 305th: 8 bytes and three lines of a MiB come before its line.
    run.assert_complaint(&text, "4:1048569", "4 MiB");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn endless_input_is_refused_for_its_size() {
    let mut endless = b"<domain>".to_vec();
    endless.resize(100 << 20, b' ');
    let run = run(check_command().arg("-"), &endless);
    assert_eq!(run.code(), Some(2));
    run.assert_complaint(Path::new("-"), "1:4194305", "4 MiB");
}

/// The name, the document, and whether there is a verdict.
pub type Large = (&'static str, String, bool);

/// Documents with as much as is read of one thing, or more: bytes, or elements, attributes and texts.
fn large() -> Vec<Large> {
    let numbered = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    let guest = |inside: String| {
        format!(
            "<domain type='kvm'><name>n</name><memory unit='GiB'>1200</memory><maxMemory unit='GiB' slots='99999'>4000\
             </maxMemory><os><type machine='pc-q35-6.2'>hvm</type></os><features><acpi/></features>\
             <cpu mode='host-passthrough'/><devices><hostdev type='pci'/>{inside}</devices></domain>"
        )
    };
    let attributes = |count| format!("<domain type='kvm' {}/>", numbered(count, &|n| format!("a{n}='' ")));
    let namespaces = |count| {
        let declarations = numbered(count, &|n| format!("xmlns:p{n}='u' "));
        format!("<domain type='kvm' {declarations}>{}</domain>", numbered(count, &|n| format!("<p{n}:a/>")))
    };
    let filled = |part: &str, count| format!("<domain type='kvm'>{}</domain>", part.repeat(count));
    let dimm = "<memory model='dimm'><target><size unit='MiB'>2</size><node>0</node></target></memory>";
    let placed = |n: usize| {
        let base = 0x100_0000_0000_u64 - (n as u64 + 1) * 0x20_0000;
        let address = format!("<address type='dimm' base='{base:#x}'/>");
        format!("<memory model='dimm'><target><size unit='MiB'>2</size></target>{address}</memory>")
    };
    let hostdev = |n| format!("<hostdev type='pci'><source><address domain='{n}'/></source></hostdev>");
    let cells = |count| {
        let numa = format!("<cpu><numa>{}</numa></cpu>", "<cell memory='16777216'/>".repeat(count));
        guest(String::new()).replace("<cpu mode='host-passthrough'/>", &numa)
    };
    let arguments = |count| {
        let arguments = "<q:arg value='-device'/><q:arg value='vfio-pci'/>".repeat(count);
        guest(String::new())
            .replace("<domain", "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'")
            .replace("</domain>", &format!("<q:commandline>{arguments}</q:commandline></domain>"))
    };
    let megabytes = |part: &str| part.repeat(3_000_000 / part.len());
    // What the guest around takes of it, generously.
    let most = MAX_NODES - 64;
    vec![
        ("attributes", attributes(most), true),
        ("attributes-too-many", attributes(200_000), false),
        ("attributes-twice", attributes(most).replace("/>", "a0=''/>"), false),
        ("namespaces", namespaces(most / 2), true),
        ("namespaces-too-many", namespaces(100_000), false),
        ("elements", filled("<a/>", most), true),
        ("elements-too-many", filled("<a/>", 1_048_000), false),
        ("texts", filled("<a>x</a>", most / 2), true),
        ("texts-too-many", filled("<a>x</a>", 524_000), false),
        ("references", filled("&lt;", 1_048_000), true),
        ("comments", filled("<!---->", 598_000), true),
        ("memory-devices", guest(dimm.repeat(most / 8)), true),
        ("memory-devices-in-place", guest(numbered(most / 9, &placed)), true),
        ("passthrough-devices", guest(numbered(most / 5, &hostdev)), true),
        ("cells", cells(most / 2), true),
        ("arguments", arguments(most / 4), true),
        ("long-line", guest(megabytes(" ")), true),
        ("many-lines", guest(megabytes("\n")), true),
        ("long-number", guest(String::new()).replace("1200", &format!("{}1200", megabytes("\n"))), true),
        ("long-tag", guest(String::new()).replace("type='pci'/>", &format!("type='pci'{}/>", megabytes("\n"))), true),
        ("long-name", guest(String::new()).replace(">n<", &format!(">{}<", "n".repeat(8192))), true),
        ("longer-name", guest(String::new()).replace(">n<", &format!(">{}<", megabytes("n"))), false),
        ("long-machine", guest(String::new()).replace("-6.2", &format!("-6.2{}", "x".repeat(8180))), true),
        ("longer-machine", guest(String::new()).replace("-6.2", &format!("-6.2{}", megabytes("x"))), false),
        ("long-hypervisor", guest(String::new()).replace("'kvm'", &format!("'{}'", "x".repeat(8192))), true),
        ("longer-hypervisor", guest(String::new()).replace("'kvm'", &format!("'{}'", megabytes("x"))), false),
        ("wrong-unit", guest(String::new()).replace("'GiB'>1200", &format!("'{}'>1", megabytes("x"))), false),
        ("wrong-number", guest(String::new()).replace("1200", &megabytes("9")), false),
        ("wrong-slots", guest(String::new()).replace("99999", &megabytes("9")), false),
        ("wrong-cpu-mode", guest(String::new()).replace("host-passthrough", &megabytes("x")), false),
        ("wrong-model", guest(format!("<memory model='{}'/>", megabytes("x"))), false),
        ("wrong-root", format!("<{}/>", "r".repeat(50_000)), false),
        ("wrong-end", format!("<domain></{}>", megabytes("r")), false),
        ("wrong-entity", format!("<domain>&{};</domain>", megabytes("x")), false),
        ("ampersands", format!("<domain a='{}'/>", megabytes("&")), false),
        ("ampersands-with-names", format!("<domain a='{}'/>", megabytes("&amp")), false),
        ("open-tags", megabytes("<"), false),
        ("open-end-tags", megabytes("</"), false),
        ("open-instructions", megabytes("<?"), false),
        ("open-declarations", megabytes("<!"), false),
        ("open-value", format!("<domain a={}", megabytes("'")), false),
        ("open-comment", format!("<domain><!--{}", megabytes(" -")), false),
        ("open-section", format!("<domain><![CDATA[{}", megabytes("]")), false),
        ("open-document-type", format!("<!DOCTYPE a [{}", megabytes("<!ENTITY ")), false),
    ]
}

#[test]
#[cfg(target_os = "linux")]
fn large_documents_take_little_memory_and_give_short_messages() {
    assert_little_memory("xml", 36, large());
}

/// Peak memory is read while the program waits for the next input, a pipe: it opens a pipe when it is done with the large
/// one.
#[cfg(target_os = "linux")]
pub fn assert_little_memory(extension: &str, most_mib: u64, documents: Vec<Large>) {
    // The unoptimised program itself takes 4 MiB more, and libvirt and the libraries it brings 10.
    const UNOPTIMISED: u64 = if cfg!(debug_assertions) { 4 } else { 0 };
    const LIBVIRT: u64 = if cfg!(feature = "libvirt") { 10 } else { 0 };
    let limit_kib = (most_mib + UNOPTIMISED + LIBVIRT) * 1024;
    let folder = work_dir(&format!("hostile-large-{extension}"));
    let pipe = folder.join("pipe");
    make_pipe(&pipe);
    let mut greedy = Vec::new();
    for (name, document, evaluated) in documents {
        assert!(document.len() <= 4 << 20, "{name}: {} bytes, more than is read", document.len());
        let path = folder.join(format!("{name}.{extension}"));
        std::fs::write(&path, &document).expect("write a file");
        let held = writer_of(&pipe);
        let child = Running::start(check_command().args([&path, &pipe]));
        let mut writer = open_when_read(&pipe);
        drop(held);
        let peak = child.peak_kib();
        writer.write_all(GOOD.as_bytes()).expect("write the last input");
        drop(writer);
        let run = child.end(b"");
        if peak > limit_kib {
            greedy.push(format!("{name}: {peak} KiB"));
        }
        let _ = std::fs::remove_file(&path);
        assert_eq!(run.stderr.is_empty(), evaluated, "{name}:\n{:.2000}", run.stderr);
        assert!(matches!(run.code(), Some(0 | 1)) == evaluated, "{name}: {:?}", run.status);
        if !evaluated {
            run.assert_complaint(&path, "1:", "");
        }
        run.assert_passes(&pipe);
        let longest = run.stdout.lines().map(str::len).max().unwrap_or(0);
        assert!(longest < 4000, "{name}: a line of {longest} bytes on stdout");
    }
    assert!(greedy.is_empty(), "more than {limit_kib} KiB of memory at the peak:\n{}", greedy.join("\n"));
}
