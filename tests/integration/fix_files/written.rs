//! What `fix` writes.

use super::{
    HOSTDEV, NEW_TYPE, OLD_TYPE, Way, becomes, blocked, code, elaborate, fine, fix, fixable, fixed, guest, program,
    read, run, stderr, stdout, write,
};
use crate::common::{note, work_dir};
use std::process::Command;

#[test]
fn everything_else_survives() {
    let before = elaborate("pc-q35-6.2", "");
    let after = elaborate("pc-q35-7.1", "\n  <cpu>\n    <maxphysaddr mode='emulate' bits='42'/>\n  </cpu>");
    let ways: [(&str, Way); 7] = [
        ("as it is", str::to_owned),
        ("CRLF", |text| text.replace('\n', "\r\n")),
        ("byte order mark", |text| format!("\u{feff}{text}")),
        ("byte order mark and CRLF", |text| format!("\u{feff}{}", text.replace('\n', "\r\n"))),
        ("tabs", |text| text.replace("  ", "\t")),
        ("no line break at the end", |text| text.trim_end().to_owned()),
        ("CR in a comment", |text| text.replace("<!-- behind", "<!-- be\rhind")),
    ];
    for (what, way) in ways {
        note(&format!("everything else survives: {what}"));
        becomes(&way(&before), &way(&after));
    }
}

/// Standard output is for the text alone, as a pipe reads it.
#[test]
fn fix_says_that_there_is_nothing_to_fix() {
    let folder = work_dir("fix-nothing");
    write(&folder, "fine.xml", &fine());
    write(&folder, "broken.xml", &fixable());
    write(&folder, "lost.xml", &blocked());
    let nothing = "nothing to fix\n";
    for (arguments, said) in [
        (&["fine.xml"][..], true),
        (&["--in-place", "fine.xml"], true),
        (&["fine.xml", "fine.xml"], true),
        (&["-q", "fine.xml"], false),
        (&["fine.xml", "broken.xml"], false),
        (&["--in-place", "fine.xml", "lost.xml"], false),
        (&["fine.xml", "missing.xml"], false),
        (&["--in-place", "broken.xml"], false),
        (&["--in-place", "broken.xml"], true),
    ] {
        let output = run(&folder, arguments);
        let stderr = stderr(&output);
        assert_eq!(stderr.ends_with(nothing), said, "{arguments:?}: {stderr}");
        assert!(!said || stderr == nothing, "{arguments:?}: {stderr}");
        assert!(!said || stdout(&output).is_empty(), "{arguments:?}: {}", stdout(&output));
    }
    let filtered = fix(&fine());
    assert_eq!((stdout(&filtered), stderr(&filtered)), (fine(), String::new()));
}

#[test]
fn a_document_on_one_line_stays_on_one_line() {
    let line = |text: String| text.lines().map(str::trim_start).collect::<String>();
    let after = guest(1200, NEW_TYPE, "", "");
    let cpu = "</os><cpu><maxphysaddr mode='emulate' bits='42'/></cpu>";
    becomes(&line(guest(1200, OLD_TYPE, "", "")), &line(after).replace("</os>", cpu));
    becomes(&line(fixable()), &line(fixed()));
}

#[test]
fn the_machine_type_is_replaced_in_place() {
    for (before, after) in [
        ("<type machine='pc-q35-6.2'>hvm</type>", "<type machine='pc-q35-7.1'>hvm</type>"),
        (
            "<type\n machine\t=\n\"pc-q35-6.2\"\n arch=\"x86_64\"\n>hvm</type>",
            "<type\n machine\t=\n\"pc-q35-7.1\"\n arch=\"x86_64\"\n>hvm</type>",
        ),
        ("<type machine='pc&#45;q35-6.2'>hvm</type>", "<type machine='pc-q35-7.1'>hvm</type>"),
        ("<type machine='pc-i440fx-2.10'>hvm</type>", "<type machine='pc-i440fx-7.1'>hvm</type>"),
        // Names in a namespace are not libvirt's, and of several it reads the first.
        (
            "<x:type xmlns:x='urn:x' machine='pc-q35-2.4'/><type machine='pc-q35-6.2'>hvm</type>",
            "<x:type xmlns:x='urn:x' machine='pc-q35-2.4'/><type machine='pc-q35-7.1'>hvm</type>",
        ),
        (
            "<type machine='pc-q35-6.2'>hvm</type><type machine='pc-q35-6.1'>hvm</type>",
            "<type machine='pc-q35-7.1'>hvm</type><type machine='pc-q35-6.1'>hvm</type>",
        ),
        (
            "<!-- <type machine='pc-q35-6.2'/> --><type machine='pc-q35-6.2'><![CDATA[hvm]]></type>",
            "<!-- <type machine='pc-q35-6.2'/> --><type machine='pc-q35-7.1'><![CDATA[hvm]]></type>",
        ),
    ] {
        let cpu = "  <cpu mode='host-passthrough'/>\n";
        becomes(&guest(1200, before, cpu, ""), &guest(1200, after, cpu, ""));
    }
}

#[test]
fn the_cpu_is_found_as_libvirt_finds_it_and_written_as_the_file_is() {
    const BITS: &str = "<maxphysaddr mode='emulate' bits='42'/>";
    let inside = |open: &str, rest: &str| format!("  {open}\n    {BITS}\n{rest}  </cpu>\n");
    let cases = [
        // Missing: after <features>, or else after <os>, and a comment stays with what it follows.
        (String::new(), inside("<cpu>", "")),
        (
            "  <features><acpi/></features>\n".to_owned(),
            format!("  <features><acpi/></features>\n{}", inside("<cpu>", "")),
        ),
        (
            "  <features/> <!-- none -->\n  <clock/>\n".to_owned(),
            format!("  <features/> <!-- none -->\n{}  <clock/>\n", inside("<cpu>", "")),
        ),
        // Self-closed, or empty in another way.
        ("  <cpu/>\n".to_owned(), inside("<cpu>", "")),
        ("  <cpu check='none' />\n".to_owned(), inside("<cpu check='none'>", "")),
        ("  <cpu></cpu>\n".to_owned(), inside("<cpu>", "")),
        ("  <cpu>\n  </cpu>\n".to_owned(), inside("<cpu>", "")),
        // With children, in front of the first.
        (
            "  <cpu>\n    <topology sockets='1' cores='1' threads='1'/>\n  </cpu>\n".to_owned(),
            inside("<cpu>", "    <topology sockets='1' cores='1' threads='1'/>\n"),
        ),
        (
            "  <cpu><topology sockets='1' cores='1' threads='1'/></cpu>\n".to_owned(),
            format!("  <cpu>{BITS}<topology sockets='1' cores='1' threads='1'/></cpu>\n"),
        ),
        // Twice: the first counts, whatever is in the second.
        (
            "  <cpu/>\n  <cpu mode='host-passthrough'/>\n".to_owned(),
            inside("<cpu>", "") + "  <cpu mode='host-passthrough'/>\n",
        ),
        (
            "  <cpu mode='host-passthrough'/>\n  <cpu><maxphysaddr mode='emulate' bits='36'/></cpu>\n".to_owned(),
            "  <cpu mode='host-passthrough'/>\n  <cpu><maxphysaddr mode='emulate' bits='36'/></cpu>\n".to_owned(),
        ),
        // A width that is there is replaced, in its own quotes and order.
        ("  <cpu><maxphysaddr mode='emulate' bits='39'/></cpu>\n".to_owned(), format!("  <cpu>{BITS}</cpu>\n")),
        (
            "  <cpu><maxphysaddr bits = \"39\"\n mode=\"emulate\"></maxphysaddr></cpu>\n".to_owned(),
            "  <cpu><maxphysaddr bits = \"42\"\n mode=\"emulate\"></maxphysaddr></cpu>\n".to_owned(),
        ),
        // One that belongs to something else is not there.
        (
            "  <cpu><x:maxphysaddr xmlns:x='urn:x' bits='1'/></cpu>\n".to_owned(),
            format!("  <cpu>{BITS}<x:maxphysaddr xmlns:x='urn:x' bits='1'/></cpu>\n"),
        ),
    ];
    for (before, after) in cases {
        becomes(&guest(1200, OLD_TYPE, &before, ""), &guest(1200, NEW_TYPE, &after, ""));
        let crlf = |text: String| text.replace('\n', "\r\n");
        becomes(&crlf(guest(1200, OLD_TYPE, &before, "")), &crlf(guest(1200, NEW_TYPE, &after, "")));
    }
}

#[test]
fn no_blank_line_is_added_beside_one() {
    const MODEL: &str = "\n    <model>EPYC</model>\n";
    let cpu = |inside: &str| format!("  <cpu mode='custom' match='exact'>\n{inside}  </cpu>\n");
    let before = guest(1200, OLD_TYPE, &cpu(MODEL), "");
    let output = fix(&before);
    let blank = |text: &str| text.lines().filter(|line| line.trim().is_empty()).count();
    assert_eq!(blank(&stdout(&output)), blank(&before), "{}", stdout(&output));
    // Above the blank line or below it, either is fine.
    let width = "    <maxphysaddr mode='emulate' bits='42'/>\n";
    let above = guest(1200, NEW_TYPE, &cpu(&format!("{width}{MODEL}")), "");
    let below = guest(1200, NEW_TYPE, &cpu(&format!("\n{width}{}", MODEL.trim_start_matches('\n'))), "");
    assert!([above, below].contains(&stdout(&output)), "{}", stdout(&output));
}

/// A hole of 600 TiB fits no 48 bits; that of q35 is 32 GiB, that of pc 2 GiB by default.
#[test]
fn the_pci_hole_of_the_root_is_made_smaller_in_its_own_unit() {
    let devices = |model: &str, hole: &str| {
        format!(
            "    <controller type='pci' index='3' model='pci-bridge'><pcihole64 unit='GiB'>64</pcihole64>\
             </controller>\n    <controller type='pci' index='0' model='{model}'>{hole}</controller>\n"
        )
    };
    for (machine, model, before, after) in [
        ("pc-q35-6.2", "pcie-root", "<pcihole64>644245094400</pcihole64>", "<pcihole64>33554432</pcihole64>"),
        (
            "pc-q35-6.2",
            "pcie-root",
            "<pcihole64 unit=\"GiB\" >614400</pcihole64>",
            "<pcihole64 unit=\"GiB\" >32</pcihole64>",
        ),
        (
            "pc-q35-6.2",
            "pcie-root",
            "<pcihole64 unit='MiB'>&#54;29145600</pcihole64>",
            "<pcihole64 unit='MiB'>32768</pcihole64>",
        ),
        (
            "pc-i440fx-6.2",
            "pci-root",
            "<pcihole64 unit='TiB'>600</pcihole64>",
            "<pcihole64 unit='KiB'>2097152</pcihole64>",
        ),
    ] {
        let os = format!("<type arch='x86_64' machine='{machine}'>hvm</type>");
        let made = |hole: &str| guest(4, &os, "  <cpu mode='host-passthrough'/>\n", &devices(model, hole));
        becomes(&made(before), &made(after));
    }
}

#[test]
fn a_size_in_pieces_is_replaced_whole() {
    let Some(_) = program("xmllint") else { return };
    let folder = work_dir("fix-pieces");
    for hole in
        ["60<![CDATA[0]]>", "<![CDATA[60]]>0", "<![CDATA[600]]>", "6<!-- c -->00", "<!-- c -->&#54;0<!-- d -->0"]
    {
        let controller = format!(
            "    <controller type='pci' index='0' model='pcie-root'><pcihole64 unit='TiB'>{hole}</pcihole64></controller>\n"
        );
        let output = fix(&guest(4, OLD_TYPE, "  <cpu mode='host-passthrough'/>\n", &controller));
        assert_eq!(code(&output), 0, "{hole}: {}", stderr(&output));
        let path = write(&folder, "fixed.xml", &stdout(&output));
        let value = |expression: &str| {
            let output =
                Command::new("xmllint").args(["--xpath", expression]).arg(&path).output().expect("run xmllint");
            assert!(output.status.success(), "{hole} became {}: {}", read(&path), stderr(&output));
            stdout(&output).trim().to_owned()
        };
        assert_eq!(value("string(//pcihole64)"), "33554432", "{hole}");
        assert_eq!(value("string(//pcihole64/@unit)"), "KiB", "{hole}");
    }
}

/// The window begins at the next GiB after RAM: 1202 GiB, or 1 TiB + 1198 GiB once RAM has moved.
/// The device is 12 GiB into it, and has to be there afterwards.
#[test]
fn a_memory_device_keeps_its_place_in_the_window() {
    let made = |machine: &str, cpu: &str, base: &str| {
        format!(
            "<domain type='kvm'>\n  <name>a</name>\n  <maxMemory slots='2' unit='GiB'>1300</maxMemory>\n  \
             <memory unit='GiB'>1201</memory>\n  <vcpu>1</vcpu>\n  <os>\n    <type machine='{machine}'>hvm</type>\n  \
             </os>\n  <features><acpi/></features>\n  <cpu mode='host-passthrough'>\n    {cpu}<numa>\n      <cell id='0' cpus='0' memory='1200' \
             unit='GiB'/>\n    </numa>\n  </cpu>\n  <devices>\n    {HOSTDEV}\n    <memory model='dimm'>\n      \
             <target>\n        <size unit='GiB'>1</size>\n        <node>0</node>\n      </target>\n      \
             <address slot=\"0\" base=\"{base}\" type=\"dimm\"/>\n    </memory>\n  </devices>\n</domain>\n"
        )
    };
    becomes(&made("pc-q35-6.2", "", "0x12f80000000"), &made("pc-q35-7.1", "", "0x22e80000000"));
}
