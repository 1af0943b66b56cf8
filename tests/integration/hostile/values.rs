//! Values that libvirt refuses.

use super::{Case, GOOD, assert_all, case, check};
use crate::common::work_dir;

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
