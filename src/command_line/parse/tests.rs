use super::*;

fn read(arguments: &[&str]) -> CommandLine {
    let mut line = CommandLine::default();
    line.merge_all(arguments.iter().enumerate().map(|(number, text)| Argument::numbered(number, text)));
    line
}

/// Each entry has all of the argument: one for each part would be memory without end.
#[test]
fn an_argument_is_listed_once_whatever_is_in_it() {
    for arguments in [["-machine", "q35,cxl=on,cxl-fmw.0.size=1,sgx-epc.0.memdev=a"], ["-m", "1G,a=b,c=d,slots=x"]] {
        let line = read(&arguments);
        let not_modelled = line.not_modelled.into_iter().map(|entry| entry.value);
        let listed: Vec<String> = not_modelled.chain(line.refused.into_iter().map(|entry| entry.value)).collect();
        assert_eq!(listed, [arguments[1]]);
    }
}

#[test]
fn set_changes_the_first_earlier_device_with_that_id() {
    let change = ["-set", "device.a.addr=1"];
    let line = read(&["-device", "x,id=b", "-set", "device.b.addr=2", "-device", "x,id=a", "-device", "y,id=a"]);
    assert_eq!(
        line.devices.iter().map(|device| device.properties.value("addr")).collect::<Vec<_>>(),
        [Some("2"), None, None]
    );
    let mut line = line;
    line.merge(change.into_iter().enumerate().map(|(number, text)| Argument::numbered(number, text)));
    assert_eq!(
        line.devices.iter().map(|device| device.properties.value("addr")).collect::<Vec<_>>(),
        [Some("2"), Some("1"), None]
    );
    assert_eq!(read(&[change[0], change[1], "-device", "x,id=a"]).refused.len(), 1);
}

/// Expected values: `info mtree` and the refusals of QEMU 7.2.22, 10.0.13 and 11.1.3.
#[test]
fn a_size_that_ends_with_a_hexadecimal_letter_is_bytes() {
    for (text, bytes, from) in [
        ("1000", 1000 << 20, None),
        ("0x39a", 0x39a, None),
        ("size=0x1b", 0x1b, None),
        ("4.5g", 4608 << 20, None),
        ("0x400", 1 << 30, Some(Version::new(8, 0))),
    ] {
        let line = read(&["-m", text]);
        assert_eq!(line.memory.map(|memory| memory.size.value), Some(bytes), "{text}");
        let refused: Vec<_> = line.refused.iter().map(|entry| entry.from).collect();
        assert_eq!(refused, from.map(Some).into_iter().collect::<Vec<_>>(), "{text}");
    }
}

/// Expected values: `info kvm` of QEMU 7.2.22, 10.0.13 and 11.1.3; `None` if QEMU exits.
#[test]
fn the_first_accelerator_that_qemu_has_counts() {
    use Accelerator::{Kvm, Tcg};
    for (arguments, expected) in [
        (&["-accel", "tcg", "-accel", "nosuch"][..], Some(Tcg)),
        (&["-accel", "nosuch", "-accel", "kvm", "-accel", "tcg"], Some(Kvm)),
        (&["-accel", "hvf", "-accel", "kvm"], Some(Kvm)),
        (&["-accel", "KVM", "-accel", "tcg"], Some(Tcg)),
        (&["-accel", "tcg,accel=kvm"], Some(Kvm)),
        (&["-accel", "kvm:tcg", "-accel", "tcg"], Some(Tcg)),
        (&["-accel", "kvm:tcg"], None),
        (&["-accel", "nosuch", "-accel", "whpx"], None),
        (&["-accel", ""], None),
        (&["-accel", "thread=single", "-accel", "tcg"], None),
        (&["-accel", "tcg", "-accel", "help"], None),
        (&["-machine", "accel=nosuch:kvm:tcg"], Some(Kvm)),
        (&["-machine", "accel=tcg:nosuch"], Some(Tcg)),
        (&["-machine", "accel=:tcg"], Some(Tcg)),
        (&["-machine", "accel=kvm,accel=tcg"], Some(Tcg)),
        (&["-machine", "accel=nosuch", "-enable-kvm"], Some(Kvm)),
        (&["-machine", "accel=nosuch", "-machine", "accel=kvm"], Some(Kvm)),
        (&["-enable-kvm", "-machine", "accel=tcg"], Some(Tcg)),
        (&["-enable-kvm", "-machine", "accel=nosuch"], None),
        (&["-machine", "accel="], None),
    ] {
        let line = read(arguments);
        let found = line.refused.is_empty().then(|| line.accelerator());
        assert_eq!((found, line.not_modelled), (expected, Vec::new()), "{arguments:?}");
    }
}

/// Whether a QEMU has these depends on how it was built.
#[test]
fn an_accelerator_of_some_builds_is_not_modelled() {
    for (arguments, expected) in [
        (&["-accel", "xen", "-accel", "kvm"][..], 1),
        (&["-accel", "kvm", "-accel", "xen"], 0),
        (&["-machine", "accel=nosuch:xen:kvm"], 1),
        (&["-machine", "accel=kvm:xen"], 0),
    ] {
        let line = read(arguments);
        assert_eq!((line.not_modelled.len(), line.refused.len()), (expected, 0), "{arguments:?}");
    }
}

/// Each is refused by QEMU 7.2.22, 10.0.13 and 11.1.3.
#[test]
fn arguments_that_qemu_refuses_are_refused() {
    for arguments in [
        &["-m", "4Q"][..],
        &["-m", "4G,foo=1"],
        &["-m", "-4G"],
        &["-cpu", "EPYC,phys-bits=x"],
        &["-cpu", "EPYC,lm=maybe"],
        &["-cpu", "EPYC,vendor=AMD"],
        &["-global", "nosuch"],
        &["-global", "driver=cpu,property=lm"],
        &["-machine", "max-ram-below-4g=x"],
        &["-machine", "max-ram-below-4g=5G"],
        &["-machine", "acpi=maybe"],
        &["-numa", "node,mem=x"],
        &["-numa", "nosuch"],
        &["-object", "memory-backend-ram,id=x"],
        &["-object", "memory-backend-ram,size=1G"],
        &["-object", "memory-backend-ram,id=x,size=1Q"],
        &["-object", "{\"qom-type\":\"memory-backend-ram\""],
        &["-device", "{\"driver\":"],
        &["-set", "device.nosuch.addr=1"],
        &["-set", "machine.a.hpet=off"],
        &["-accel", "nosuch"],
        &["-S", "-m"],
        &["-m", "1.5"],
        &["-numa", "node,nodeid=128"],
        &["-numa", "node,foo=1"],
        &["-numa", "node,memdev=a,mem=1G"],
        &["-numa", "node", "-numa", "node,nodeid=0"],
        &["-numa", "node,memdev=a", "-numa", "node,mem=1G"],
        &["-object", "memory-backend-ram,size=1G,id=5"],
        &["-object", "memory-backend-ram,size=1G,id=a/b"],
        &["-object", "memory-backend-ram,size=1G,id=a", "-object", "rng-random,id=a"],
        &["-device", "virtio-rng-pci,id=a b"],
        &["-object", "memory-backend-ram,size=1G,id=a", "-device", "pc-dimm,memdev=a", "-device", "pc-dimm,memdev=a"],
        &["-machine", "memory-backend=a", "-device", "pc-dimm,memdev=a"],
        &["-numa", "node,memdev=a", "-device", "pc-dimm,memdev=a"],
        &["-device", "pc-dimm,memdev=a,node=1"],
        &["-machine", "nvdimm=off", "-device", "nvdimm,memdev=a"],
        &["-machine", "nvdimm=maybe"],
        &["-device", "virtio-rng-pci,id=a", "-device", "{'driver':'virtio-rng-pci','id':'a'}"],
    ] {
        let line = read(arguments);
        assert_eq!((line.refused.len(), line.not_modelled.len()), (1, 0), "{arguments:?}");
    }
    let taken = [
        "-device",
        "{'driver':'virtio-rng-pci','id':'5'}",
        "-machine",
        "acpi=auto",
        "-numa",
        "dist,src=0,dst=0,val=10",
        "-perfmap",
        "-jitdump",
        "-m",
        "4G",
    ];
    assert_eq!(read(&taken).refused, []);
}
