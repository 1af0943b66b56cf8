//! Inputs that are wrong, hostile or unreadable: each gives exit status 2 and one message with its place, in bounded
//! time and memory, and the other inputs of the same call are evaluated all the same.

mod common;

use common::{skip, work_dir};
use iova_preflight::xml::MAX_NODES;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a call may take before it counts as hung. Not a measure of speed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest message, its path not counted: quoted values are cut.
const LONGEST_MESSAGE: usize = 400;

/// A guest that starts anywhere.
const GOOD: &str = "<domain type='kvm'>\n  <name>good</name>\n  <memory unit='GiB'>4</memory>\n  \
                    <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>\n</domain>\n";

/// A guest that is stopped, with a finding on most lines.
const REALISTIC: &str = "<?xml version='1.0' encoding='UTF-8'?>
<!-- written by hand -->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>db-1</name>
  <uuid>6f8f3c4e-6c0c-4b9b-9a0e-0d5b6f0e7a11</uuid>
  <title>R&amp;D</title>
  <memory unit='GiB'>1200</memory>
  <vcpu placement='static'>64</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-6.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough' check='none'>
    <maxphysaddr mode='passthrough'/>
  </cpu>
  <description><![CDATA[a b]]></description>
  <?keep this?>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source>
        <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/>
      </source>
    </hostdev>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-no-hpet'/>
  </qemu:commandline>
</domain>
";

#[test]
fn a_domain_cut_off_anywhere_is_named_with_its_place() {
    let folder = work_dir("hostile-cut");
    let whole = REALISTIC.trim_end();
    let files: Vec<(PathBuf, String)> = (0..whole.len())
        .map(|length| {
            let path = folder.join(format!("{length:04}.xml"));
            std::fs::write(&path, &whole[..length]).expect("write a file");
            (path, place_of_cut(&whole[..length]))
        })
        .collect();
    std::fs::write(folder.join("9999.xml"), whole).expect("write a file");
    // Worked out by hand, as a check of `place_of_cut`.
    for (length, place) in [
        (0, "1:1"),
        (30, "1:1"),
        (39, "2:1"),
        (70, "3:1"),
        (140, "3:1"),
        (148, "4:3"),
        (whole.find("amp;").expect("in it") + 2, "6:11"),
        (whole.find("4</vcpu").expect("in it"), "8:3"),
        (whole.len() - 1, "30:1"),
    ] {
        assert_eq!(files[length].1, place, "{length}: {:?}", &whole[..length]);
    }
    let run = check(&[folder.as_path()]);
    assert_eq!(run.code(), Some(2));
    for (path, place) in &files {
        run.assert_complaint(path, place, "");
    }
    assert_eq!(run.stderr.lines().count(), files.len(), "a message for the whole domain:\n{}", run.stderr);
    assert!(run.stdout.contains("9999.xml (db-1)"), "the whole domain is not evaluated:\n{}", run.stdout);
}

/// Where the parser has to point to in a domain that is cut off: to the markup or the reference that is cut, otherwise to
/// the element that is left open, and where there is none to the end.
fn place_of_cut(text: &str) -> String {
    let mut open = Vec::new();
    let mut at = 0;
    let offset = loop {
        let Some(start) = text[at..].find(['<', '&']).map(|found| at + found) else {
            break open.last().copied().unwrap_or(text.len());
        };
        let markup = &text[start..];
        let end = match markup {
            _ if markup.starts_with('&') => ";",
            _ if markup.starts_with("<![") => "]]>",
            _ if markup.starts_with("<!--") => "-->",
            _ if markup.starts_with("<?") => "?>",
            _ => ">",
        };
        let Some(length) = markup.find(end).map(|found| found + end.len()) else { break start };
        match markup {
            _ if markup.starts_with("</") => drop(open.pop()),
            _ if markup.starts_with(['&']) || markup.starts_with("<!") || markup.starts_with("<?") => {}
            _ if markup[..length].ends_with("/>") => {}
            _ => open.push(start),
        }
        at = start + length;
    };
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    format!("{}:{}", before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What is wrong, the document, the place to be named, and words of the message.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn case(name: &'static str, document: impl AsRef<[u8]>, place: &'static str, words: &'static str) -> Case {
    (name, document.as_ref().to_vec(), place, words)
}

#[test]
fn what_is_not_xml_is_named_with_its_place() {
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    assert_all(&[
        case("empty", "", "1:1", "empty"),
        case("blank", "  \n\n \t", "3:3", "empty"),
        case("word", "domain", "1:1", "not XML"),
        case("word-behind-blanks", "\n  domain", "2:3", "not XML"),
        case("elf", elf, "1:5", "U+0002"),
        case("json", "{\"domain\": {\"name\": \"a\"}}\n", "1:1", "not XML"),
        case("yaml", "---\nkind: VirtualMachine\n", "1:1", "not XML"),
        case("gzip", b"\x1f\x8b\x08\0", "1:2", "not UTF-8"),
        case("network", "<?xml version='1.0'?>\n<network>\n</network>\n", "2:1", "<network>"),
        case("foreign-namespace", "<!-- --><domain xmlns='urn:x'/>", "1:9", "<domain>"),
        case("prefixed", "<x:domain xmlns:x='urn:x'/>", "1:1", "<x:domain>"),
        case("two-roots", "<domain/>\n<domain/>\n", "2:1", "more than one"),
        case("trailing-text", "<domain/>\n  junk\n", "2:3", "behind"),
        case("trailing-reference", "<domain/>&amp;", "1:10", "outside"),
        case("trailing-cdata", "<domain/>\n<![CDATA[]]>", "2:1", "outside"),
        case("trailing-nul", "<domain/>\n\0", "2:1", "U+0000"),
        case("wrong-end-tag", "<domain>\n  <name>\n  </nam>\n</domain>", "3:3", "</nam>"),
        case("end-tag-only", "</domain>", "1:1", "</domain>"),
        case("end-tag-too-many", "<domain>\n</domain></domain>", "2:10", "</domain>"),
        case("crossed", "<domain><a><b></a></b></domain>", "1:15", "</a>"),
        case("double-bracket", "<domain>\n<<name/></domain>", "2:1", ""),
        case("space-in-tag", "<domain>\n < name/></domain>", "2:2", ""),
        case("number-as-name", "<domain>\n<1/></domain>", "2:1", "name"),
        case("no-name", "<domain><></></domain>", "1:9", ""),
        case("unquoted", "<domain type=kvm/>", "1:14", "quoted"),
        case("no-value", "<domain\n  type/>", "2:3", "no value"),
        case("no-space", "<domain a='1'b='2'/>", "1:14", "white space"),
        case("twice", "<domain a='1'\n  a='2'/>", "2:3", "twice"),
        case("bracket-in-value", "<domain type='a<b'/>", "1:16", "`<`"),
        case("open-value", "<domain type='kvm>\n</domain>\n", "1:1", "not closed"),
        case("bare-ampersand", "<domain>a & b</domain>", "1:11", ""),
        case("bare-ampersand-in-value", "<domain a='b & c'/>", "1:14", ""),
        case("undefined-entity", "<domain>\n<name>&nope;</name></domain>", "2:7", "nope"),
        case("undefined-entity-in-value", "<domain type='&nope;'/>", "1:15", "nope"),
        case("reference-to-nul", "<domain>&#0;</domain>", "1:9", "reference"),
        case("reference-to-escape", "<domain a='&#27;[31m'/>", "1:12", "reference"),
        case("reference-to-surrogate", "<domain>&#xD800;</domain>", "1:9", "reference"),
        case("reference-overflow", "<domain>&#99999999999999999999;</domain>", "1:9", "reference"),
        case("section-end-in-text", "<domain>a ]]> b</domain>", "1:11", "]]>"),
        case("open-comment", "<domain>\n <!-- a </domain>", "2:2", "comment"),
        case("dashes-in-comment", "<domain>\n <!-- a -- b --></domain>", "2:9", "--"),
        case("open-section", "<domain>\n <![CDATA[ </domain>", "2:2", "CDATA"),
        case("open-instruction", "<domain>\n <?a </domain>", "2:2", "instruction"),
        case("late-declaration", "\n<?xml version='1.0'?>\n<domain/>", "2:1", "declaration"),
        case("second-declaration", "<?xml version='1.0'?><?xml version='1.0'?><domain/>", "1:22", "declaration"),
        case("version-2", "<?xml version='2.0'?><domain/>", "1:7", "declaration"),
        case("nul", "<domain>\0</domain>", "1:9", "U+0000"),
        case("bell-in-value", "<domain type='\u{7}'/>", "1:15", "U+0007"),
        case("escape", "<domain>\n\u{1b}]0;x\u{7}</domain>", "2:1", "U+001B"),
        case("noncharacter", "<domain>\u{fffe}</domain>", "1:9", "U+FFFE"),
        case("latin-1", b"<domain>\n<name>caf\xe9</name>\n</domain>", "2:10", "not UTF-8"),
        case(
            "latin-1-declared",
            b"<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain>\xe9</domain>",
            "2:9",
            "not UTF-8",
        ),
        case("overlong", b"<domain>\xc0\x80</domain>", "1:9", "not UTF-8"),
        case("surrogate", b"<domain>\xed\xa0\x80</domain>", "1:9", "not UTF-8"),
        case("cut-in-character", b"<domain>\xc3", "1:9", "not UTF-8"),
        case("declared-utf-16", "<?xml version='1.0' encoding='UTF-16'?>\n<domain/>", "1:31", "UTF-16"),
        case("declared-latin-1", "<?xml version='1.0' encoding='ISO-8859-1'?>\n<domain/>", "1:31", "ISO-8859-1"),
        case("declared-nonsense", "<?xml version='1.0' encoding='\u{9b}x'?>\n<domain/>", "1:31", "\\u{9b}x"),
        case("utf-16-le", utf16("\u{feff}<domain/>", u16::to_le_bytes), "1:1", "UTF-16"),
        case("utf-16-be", utf16("\u{feff}<domain/>", u16::to_be_bytes), "1:1", "UTF-16"),
        case("utf-16-le-unmarked", utf16("<domain/>", u16::to_le_bytes), "1:1", "UTF-16"),
        case("utf-16-be-unmarked", utf16("<domain/>", u16::to_be_bytes), "1:1", "UTF-16"),
        case("two-byte-order-marks", "\u{feff}\u{feff}<domain/>", "1:1", ""),
        case("place-behind-byte-order-mark", "\u{feff}<domain><a></domain>", "1:12", "</domain>"),
        case("place-behind-wide-characters", "<domain>\n<!-- ä\u{1f600} --><a></domain>", "2:15", "</domain>"),
        case("place-behind-carriage-returns", "<domain>\r\n\t<a></domain>", "2:5", "</domain>"),
    ]);
}

#[test]
fn entities_are_not_even_looked_at() {
    let bomb = {
        let mut text = "<?xml version='1.0'?>\n<!DOCTYPE domain [\n<!ENTITY e0 'ha'>\n".to_owned();
        for level in 1..=30 {
            let inner = format!("&e{};", level - 1).repeat(10);
            text += &format!("<!ENTITY e{level} '{inner}'>\n");
        }
        text + "]>\n<domain>&e30;</domain>"
    };
    let external = "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>";
    let file = "\n\n<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>";
    assert_all(&[
        case("bomb", bomb, "2:1", "document type"),
        case("external-subset", external, "1:1", "document type"),
        case("external-entity", file, "3:1", "document type"),
        case("plain", "<!DOCTYPE domain>\n<domain/>", "1:1", "document type"),
        case("inside", "<domain>\n<!DOCTYPE domain></domain>", "2:1", "document type"),
        case("open", "<!DOCTYPE domain [", "1:1", ""),
        case("parameter", "<!DOCTYPE a [<!ENTITY % p '<!ENTITY x \"y\">'> %p; ]><domain/>", "1:1", "document type"),
    ]);
}

#[test]
fn nesting_stops_where_libxml2_stops() {
    let nested = |depth: usize| "<domain>\n".repeat(depth);
    assert_all(&[
        case("deep-258", nested(258) + &"</domain>\n".repeat(258), "258:1", "257"),
        case("deep-100000", nested(100_000), "258:1", "257"),
    ]);
    let folder = work_dir("hostile-nested");
    let path = folder.join("257.xml");
    std::fs::write(&path, nested(257) + &"</domain>\n".repeat(257)).expect("write a file");
    assert_eq!(check(&[&path]).stderr, "", "257 elements deep");
}

#[test]
fn wrong_numbers_are_named_with_their_place() {
    let size = |number: &str| format!("<domain type='kvm'>\n  <memory unit='KiB'>{number}</memory>\n</domain>\n");
    let unit = |unit: &str| format!("<domain type='kvm'>\n  <memory unit='{unit}'>1</memory>\n</domain>\n");
    let inside = |xml: &str| format!("<domain type='kvm'>\n  {xml}\n</domain>\n");
    let device = |xml: &str| inside(&format!("<devices>\n<memory model='dimm'>{xml}</memory></devices>"));
    let target = "<target><size unit='MiB'>64</size></target>";
    assert_all(
        &[
            case("overflow", size("99999999999999999999"), "2:22", "not a whole number"),
            case("overflow-scaled", size("18446744073709551615"), "2:22", "more than libvirt accepts"),
            case("overflow-signed", size("9007199254740992"), "2:22", "more than libvirt accepts"),
            case("negative", size("-1"), "2:22", "not a whole number"),
            case("hexadecimal", size("0x100000"), "2:22", "not a whole number"),
            case("scientific", size("1e9"), "2:22", "not a whole number"),
            case("fraction", size("1.5"), "2:22", "not a whole number"),
            case("thousands", size("1,000"), "2:22", "not a whole number"),
            case("space-behind", size("4 "), "2:22", "not a whole number"),
            case("space-only", size(" "), "2:22", "not a whole number"),
            case("sign-only", size("+"), "2:22", "not a whole number"),
            case("other-digits", size("\u{661}\u{662}"), "2:22", "not a whole number"),
            case("nested-text", size("4<x>4</x>x"), "2:22", "not a whole number"),
            case("unit-unknown", unit("XiB"), "2:17", "unknown unit"),
            case("unit-space", unit(" KiB"), "2:17", "unknown unit"),
            case("unit-longer", unit("KiBB"), "2:17", "unknown unit"),
            case("unit-half", unit("Ki"), "2:17", "unknown unit"),
            case("unit-direction", unit("\u{202e}BiK"), "2:17", "\\u{202e}BiK"),
            case("unit-prefix", unit("Z"), "2:17", "unknown unit"),
            case("current", inside("<currentMemory>x</currentMemory>"), "2:18", "not a whole number"),
            case("maximum", inside("<maxMemory slots='1'>x</maxMemory>"), "2:24", "not a whole number"),
            case("slots-word", inside("<maxMemory slots='x'>1</maxMemory>"), "2:21", "not a number"),
            case("slots-negative", inside("<maxMemory slots='-1'>1</maxMemory>"), "2:21", "not a number"),
            case("slots-overflow", inside("<maxMemory slots='4294967296'>1</maxMemory>"), "2:21", "not a number"),
            case("cell", inside("<cpu><numa><cell memory='x'/></numa></cpu>"), "2:28", "not a whole number"),
            case("cell-unit", inside("<cpu><numa><cell memory='1' unit='x'/></numa></cpu>"), "2:37", "unknown unit"),
            case("bits", inside("<cpu><maxphysaddr mode='emulate' bits='0x30'/></cpu>"), "2:42", "not a number"),
            case("width-mode", inside("<cpu><maxphysaddr mode='x'/></cpu>"), "2:8", "mode='x'"),
            case("width-without-mode", inside("<cpu><maxphysaddr bits='48'/></cpu>"), "2:8", "mode"),
            case("cpu-mode", inside("<cpu mode='x'/>"), "2:3", "mode='x'"),
            case(
                "page",
                inside("<memoryBacking><hugepages><page size='x'/></hugepages></memoryBacking>"),
                "2:41",
                "whole",
            ),
            case("no-size", device(""), "3:1", "size"),
            case("size-empty", device("<target><size/></target>"), "3:1", "size"),
            case("size-word", device("<target><size>x</size></target>"), "3:36", "not a whole number"),
            case("node", device("<target><size>1</size><node>x</node></target>"), "3:50", "not a number"),
            case("address", device(&format!("{target}<address type='dimm' base='0xg'/>")), "3:92", "not an address"),
            case(
                "address-long",
                device(&format!("{target}<address type='dimm' base='0x10000000000000000'/>")),
                "3:92",
                "base",
            ),
            case("model", inside("<devices><memory model='x'/></devices>"), "2:12", "model='x'"),
            case(
                "hole",
                inside(
                    "<devices><controller type='pci' model='pcie-root'><pcihole64>x</pcihole64></controller></devices>",
                ),
                "2:64",
                "not a whole number",
            ),
        ]
        .into_iter()
        .filter(|case| !case.2.is_empty())
        .collect::<Vec<Case>>(),
    );
}

#[test]
fn a_guest_without_memory_is_refused_as_by_libvirt() {
    let folder = work_dir("hostile-no-memory");
    for (name, memory) in [
        ("none", ""),
        ("empty", "<memory/>"),
        ("zero", "<memory>0</memory>"),
        ("rounds", "<memory unit='b'>0</memory>"),
    ] {
        let path = folder.join(format!("{name}.xml"));
        std::fs::write(&path, GOOD.replace("<memory unit='GiB'>4</memory>", memory)).expect("write a file");
        let run = check(&[&path]);
        assert_eq!((run.code(), run.stderr.as_str()), (Some(1), ""), "{name}");
        assert!(run.stdout.contains("blocked") && run.stdout.contains("memory size"), "{name}:\n{}", run.stdout);
    }
}

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
type Large = (&'static str, String, bool);

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
        ("references", filled("&lt;", most), true),
        ("references-too-many", filled("&lt;", 1_048_000), false),
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

/// Peak memory is read while the program waits for the input behind the large one, a pipe.
#[test]
#[cfg(target_os = "linux")]
fn large_documents_take_little_memory_and_give_short_messages() {
    // The unoptimised program itself takes 4 MiB more, and libvirt and the libraries it brings 10.
    const UNOPTIMISED: u64 = if cfg!(debug_assertions) { 4 } else { 0 };
    const LIBVIRT: u64 = if cfg!(feature = "libvirt") { 10 } else { 0 };
    const LIMIT_KIB: u64 = (20 + UNOPTIMISED + LIBVIRT) * 1024;
    let folder = work_dir("hostile-large");
    let pipe = folder.join("pipe");
    make_pipe(&pipe);
    let mut greedy = Vec::new();
    for (name, document, evaluated) in large() {
        assert!(document.len() <= 4 << 20, "{name}: {} bytes, more than is read", document.len());
        let path = folder.join(format!("{name}.xml"));
        std::fs::write(&path, &document).expect("write a file");
        let mut child = Running::start(check_command().args([&path, &pipe]));
        let mut writer = child.wait_until_it_opens(&pipe);
        let peak = child.peak_kib();
        writer.write_all(GOOD.as_bytes()).expect("write the last input");
        drop(writer);
        let run = child.end(b"");
        if peak > LIMIT_KIB {
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
    assert!(greedy.is_empty(), "more than {LIMIT_KIB} KiB of memory at the peak:\n{}", greedy.join("\n"));
}

#[test]
fn unreadable_paths_are_named_and_the_rest_is_evaluated() {
    let folder = work_dir("hostile-paths");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    let missing = folder.join("missing.xml");
    let broken_link = folder.join("broken-link.xml");
    symlink(folder.join("nowhere"), &broken_link).expect("make a link");
    let loop_link = folder.join("loop.xml");
    symlink(&loop_link, &loop_link).expect("make a link");
    let below_file = good.join("x.xml");
    let long = folder.join("x".repeat(300));
    let run = check(&[&missing, &broken_link, &loop_link, &below_file, &long, &good]);
    assert_eq!(run.code(), Some(2));
    for (path, words) in [
        (&missing, "No such file"),
        (&broken_link, "No such file"),
        (&loop_link, "symbolic link"),
        (&below_file, "Not a directory"),
        (&long, "too long"),
    ] {
        run.assert_message(path, words);
    }
    assert_eq!(run.stderr.lines().count(), 5, "{}", run.stderr);
    run.assert_passes(&good);
}

#[test]
fn what_may_not_be_read_is_named() {
    let folder = work_dir("hostile-permissions");
    let (good, secret, closed) = (folder.join("good.xml"), folder.join("secret.xml"), folder.join("closed"));
    std::fs::write(&good, GOOD).expect("write a file");
    std::fs::write(&secret, GOOD).expect("write a file");
    std::fs::create_dir(&closed).expect("create a folder");
    std::fs::write(closed.join("inside.xml"), GOOD).expect("write a file");
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    mode(&secret, 0o000);
    mode(&closed, 0o000);
    let Some(mut command) = unprivileged() else {
        return skip("this is root, and setpriv cannot run the program as somebody else");
    };
    let run = run(command.args(["check", "--host", "amd-epyc"]).arg(&folder), b"");
    mode(&closed, 0o755);
    assert_eq!(run.code(), Some(2), "{}", run.stderr);
    run.assert_message(&secret, "Permission denied");
    run.assert_message(&closed, "Permission denied");
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    run.assert_passes(&good);
}

/// The program, run by somebody for whom permissions count.
fn unprivileged() -> Option<Command> {
    let program = env!("CARGO_BIN_EXE_iova-preflight");
    let command = || {
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program]);
        command
    };
    let works = command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    works.is_ok_and(|status| status.success()).then(command)
}

#[test]
fn folders_give_their_regular_files_only() {
    let folder = work_dir("hostile-folder");
    let good = folder.join("b.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    std::fs::write(folder.join("a.txt"), "not XML").expect("write a file");
    std::fs::write(folder.join("xml"), "not XML").expect("write a file");
    let inside = folder.join("folder.xml");
    std::fs::create_dir(&inside).expect("create a folder");
    std::fs::write(inside.join("c.xml"), GOOD.replace(">good<", ">inner<")).expect("write a file");
    symlink(&folder, folder.join("circle")).expect("make a link");
    symlink(folder.join("nowhere"), folder.join("broken.xml")).expect("make a link");
    symlink("/dev/zero", folder.join("zero.xml")).expect("make a link");
    make_pipe(&folder.join("pipe.xml"));
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("s.xml")).expect("make a socket");
    for path in [&folder, &folder.join("circle/")] {
        let run = check(&[path]);
        assert_eq!((run.code(), run.stderr.as_str()), (Some(0), ""));
        let evaluated = run.stdout.lines().filter(|line| line.starts_with("pass")).count();
        assert_eq!(evaluated, 2, "{}", run.stdout);
        assert!(
            run.stdout.contains("b.xml (good)") && run.stdout.contains("folder.xml/c.xml (inner)"),
            "{}",
            run.stdout
        );
    }
    let run = check(&[&inside]);
    assert_eq!(run.code(), Some(0), "a folder named like a file: {}", run.stderr);
}

#[test]
fn nothing_in_a_document_or_a_path_commands_the_terminal() {
    // CSI and OSC as single characters, text direction, and a separator that some terminals act on. ESC itself is no
    // character of XML.
    const EVIL: &str = "\u{9b}31m\u{9d}0;title\u{9c}\u{202e}\u{2066}\u{200f}\u{85}\u{2028}";
    let folder = work_dir("hostile-terminal");
    let everywhere = REALISTIC
        .replace("<name>db-1", &format!("<name>{EVIL}"))
        .replace("'pc-q35-6.2'>", &format!("'pc-q35-6.2' x='{EVIL}'><!-- {EVIL} -->"))
        .replace("GiB'>1200</memory>", &format!("GiB'>1200</memory>{EVIL}"))
        .replace("<cpu mode", &format!("{EVIL}<cpu x='{EVIL}' mode"))
        .replace("bus='0x41'", &format!("bus='0x41' x='{EVIL}'"))
        .replace("-no-hpet", EVIL);
    let mut documents = vec![everywhere];
    let inside = |xml: String| GOOD.replace("</domain>", &format!("{xml}\n</domain>"));
    documents.push(GOOD.replace("'kvm'", &format!("'{EVIL}'")));
    documents.push(GOOD.replace("x86_64", EVIL));
    documents.push(GOOD.replace("hvm", EVIL));
    documents.push(GOOD.replace("pc-q35-7.2", EVIL));
    documents.push(GOOD.replace("pc-q35-7.2", &format!("pc-q35-{EVIL}")));
    documents.push(GOOD.replace("GiB", EVIL));
    documents.push(GOOD.replace(">4<", &format!(">{EVIL}<")));
    documents.push(inside(format!("<maxMemory slots='{EVIL}'>1</maxMemory>")));
    documents.push(inside(format!("<cpu mode='{EVIL}'/>")));
    documents.push(inside(format!("<cpu><feature policy='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<cpu><model vendor_id='{EVIL}'>{EVIL}</model><vendor>{EVIL}</vendor></cpu>")));
    documents.push(inside(format!("<cpu><maxphysaddr mode='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<cpu><maxphysaddr mode='emulate' bits='{EVIL}'/></cpu>")));
    documents.push(inside(format!("<devices><memory model='{EVIL}'/></devices>")));
    documents.push(inside(format!("<devices><iommu model='{EVIL}'/><emulator>{EVIL}</emulator></devices>")));
    documents.push(inside(format!("<launchSecurity type='{EVIL}'/>")));
    documents.push(inside(format!("&{EVIL};")));
    documents.push(inside(format!("</{EVIL}>")));
    documents.push(inside(format!("<{EVIL}/>")));
    documents.push(inside(format!("<a {EVIL}='1'/>")));
    documents.push(inside(format!(
        "<metadata><p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{EVIL}'/></metadata>"
    )));
    documents.push(format!("<?xml version='1.0' encoding='{EVIL}'?><domain/>"));
    documents.push(format!("<?xml version='1.0' {EVIL}=''?><domain/>"));
    documents.push(format!("{EVIL}<domain/>"));
    documents.push("<domain>\u{1b}[31m</domain>".to_owned());
    let mut paths = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let path = folder.join(format!("{number}.xml"));
        std::fs::write(&path, document).expect("write a file");
        paths.push(path);
    }
    for name in ["\u{1b}[31mred.xml", "two\nlines.xml", "\u{202e}lmx.xml", "\u{9b}31m.xml", "missing\u{1b}]0;x\u{7}"] {
        let path = folder.join(name);
        if !name.starts_with("missing") {
            std::fs::write(&path, REALISTIC).expect("write a file");
        }
        paths.push(path);
    }
    let not_utf8 = folder.join(OsStr::from_bytes(b"caf\xe9.xml"));
    std::fs::write(&not_utf8, GOOD).expect("write a file");
    paths.push(not_utf8);
    for arguments in [&[][..], &["--verbose"], &["--quiet"]] {
        let run = run(check_command().args(arguments).args(&paths), b"");
        assert_eq!(run.code(), Some(2));
        for text in [&run.stdout, &run.stderr] {
            let raw = |c: char| (c.is_control() && c != '\n') || EVIL.contains(c) && !c.is_ascii();
            let bad: Vec<String> =
                text.lines().filter(|line| line.contains(raw)).map(str::escape_debug).map(|l| l.to_string()).collect();
            assert!(bad.is_empty(), "{arguments:?}: reaches the terminal:\n{}", bad.join("\n"));
        }
        assert_eq!(run.stdout.is_empty(), arguments == ["--quiet"], "{}", run.stdout);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = work_dir("hostile-closed");
    for number in 0..200 {
        std::fs::write(folder.join(format!("{number}.xml")), REALISTIC).expect("write a file");
    }
    for format in ["human", "json"] {
        let mut child = check_command()
            .args(["--format", format])
            .arg(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run iova-preflight");
        let mut first = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::with_capacity(64, stdout).read_line(&mut first).expect("a line");
        assert!(!first.is_empty(), "{format}: nothing on stdout");
        let status = wait(&mut child);
        let mut stderr = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("read stderr");
        assert!(matches!(status.code(), Some(0 | 1)), "{format}: {status:?}, {stderr}");
        assert_eq!(stderr, "", "{format}");
    }
}

/// Nobody reads what is wrong, but the exit status still says it.
#[test]
fn a_closed_standard_error_changes_nothing_else() {
    let folder = work_dir("hostile-closed-stderr");
    let (wrong, good) = (folder.join("a.xml"), folder.join("b.xml"));
    std::fs::write(&wrong, "x").expect("write a file");
    std::fs::write(&good, GOOD).expect("write a file");
    for arguments in [&[][..], &["--quiet"], &["--format", "json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = check_command().args(arguments).args([&wrong, &good]).stderr(writer).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("b.xml") || arguments == ["--quiet"],
            "{arguments:?}: the rest is not evaluated:\n{text}"
        );
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return skip("/dev/full is not there");
    };
    let folder = work_dir("hostile-full");
    let good = folder.join("good.xml");
    std::fs::write(&good, GOOD).expect("write a file");
    for format in ["human", "json"] {
        let stdout = full.try_clone().expect("the same file again");
        let output = check_command().args(["--format", format]).arg(&good).stdout(stdout).output().expect("run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{format}: {stderr}");
        assert!(stderr.contains("No space left") && stderr.lines().count() == 1, "{format}: {stderr}");
    }
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
}

/// Evaluates every document in one call, between two guests that pass, and each one alone on standard input.
fn assert_all(cases: &[Case]) {
    let folder = work_dir(&format!("hostile-{}", cases[0].0));
    let (first, last) = (folder.join("-first.xml"), folder.join("-last.xml"));
    std::fs::write(&first, GOOD).expect("write a file");
    std::fs::write(&last, GOOD).expect("write a file");
    let mut paths = vec![first.clone()];
    for (name, document, ..) in cases {
        let path = folder.join(format!("{name}.xml"));
        std::fs::write(&path, document).expect("write a file");
        paths.push(path);
    }
    paths.push(last.clone());
    let mut wrong = Vec::new();
    let together = run(check_command().args(&paths), b"");
    for ((name, document, place, words), path) in cases.iter().zip(&paths[1..]) {
        let alone = run(check_command().arg("-"), document);
        let complaints = [together.complaint(path, place, words), alone.complaint(Path::new("-"), place, words)]
            .into_iter()
            .flatten();
        wrong.extend(complaints.map(|what| format!("{name}: {what}")));
        if alone.code() != Some(2) || alone.stderr.lines().count() != 1 {
            wrong.push(format!("{name} on standard input: {:?}, stderr:\n{}", alone.status, alone.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(together.code(), Some(2));
    assert_eq!(together.stderr.lines().count(), cases.len(), "one message each:\n{}", together.stderr);
    together.assert_passes(&first);
    together.assert_passes(&last);
}

/// What a call gave.
struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Run {
    fn code(&self) -> Option<i32> {
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.status.code()
    }

    /// What is wrong with the one message `path:place: …words…`.
    fn complaint(&self, path: &Path, place: &str, words: &str) -> Option<String> {
        let start = format!("{}:", path.display());
        let mut messages = self.stderr.lines().filter_map(|line| line.strip_prefix(&start));
        let message = messages.next().unwrap_or("no message");
        let place = if place.ends_with(':') { place.to_owned() } else { format!("{place}: ") };
        let good = message.starts_with(&place)
            && message.contains(words)
            && message.len() <= LONGEST_MESSAGE
            && messages.next().is_none();
        (!good).then(|| format!("expected `{place}…{words}…`, got `{message:.500}`"))
    }

    fn assert_complaint(&self, path: &Path, place: &str, words: &str) {
        assert_eq!(self.complaint(path, place, words), None, "{}", path.display());
    }

    /// A message without a place, for what could not be read at all.
    fn assert_message(&self, path: &Path, words: &str) {
        let start = format!("{}: ", path.display());
        let messages: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with(&start)).collect();
        assert!(messages.len() == 1 && messages[0].contains(words), "expected `{start}…{words}`:\n{}", self.stderr);
    }

    fn assert_passes(&self, path: &Path) {
        let path = path.display().to_string();
        let passes = |line: &str| line.split_whitespace().take(2).eq(["pass", path.as_str()]);
        assert!(self.stdout.lines().any(passes), "{path} does not pass:\n{}", self.stdout);
    }
}

fn check_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iova-preflight"));
    command.args(["check", "--host", "amd-epyc", "--color", "never"]);
    command
}

fn check(paths: &[impl AsRef<OsStr>]) -> Run {
    run(check_command().args(paths), b"")
}

fn run(command: &mut Command, input: &[u8]) -> Run {
    Running::start(command).end(input)
}

/// A running program with pipes on all three ends.
struct Running {
    child: Child,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run iova-preflight");
        let stdout = Collector::start(child.stdout.take().expect("a pipe"));
        let stderr = Collector::start(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Waits until the program reads from a named pipe, so until it is done with the inputs before.
    fn wait_until_it_opens(&mut self, pipe: &Path) -> std::fs::File {
        let (sender, receiver) = std::sync::mpsc::channel();
        let pipe = pipe.to_owned();
        // Opening blocks, for ever if the program never does its part.
        std::thread::spawn(move || sender.send(std::fs::OpenOptions::new().write(true).open(pipe)));
        wait_until(&mut self.child, |_| receiver.try_recv().ok()).expect("open the pipe")
    }

    /// The most memory that was resident at any time so far, in KiB.
    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).expect("the program is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak in it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Gives it `input` to the end, and waits for its own.
    fn end(mut self, input: &[u8]) -> Run {
        let mut stdin = self.child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // It may stop reading before the end.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let status = wait(&mut self.child);
        writer.join().expect("the writer does not panic");
        Run { status, stdout: self.stdout.end(), stderr: self.stderr.end() }
    }
}

/// Waits for the end of a program that must not hang.
fn wait(child: &mut Child) -> ExitStatus {
    wait_until(child, |child| child.try_wait().expect("wait for the program"))
}

fn wait_until<T>(child: &mut Child, mut done: impl FnMut(&mut Child) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = done(child) {
            return result;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("hung: not done after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads one end of a pipe, so that the other never blocks.
struct Collector(JoinHandle<Vec<u8>>);

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        Self(std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("read what the program prints");
            bytes
        }))
    }

    fn end(self) -> String {
        String::from_utf8_lossy(&self.0.join().expect("the reader does not panic")).into_owned()
    }
}
