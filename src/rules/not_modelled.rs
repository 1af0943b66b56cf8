//! `not-modelled`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "not-modelled",
    summary: "raw QEMU arguments change what is computed here",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

/// Options that change the memory map, the CPU or the machine (QEMU `qemu-options.hx`).
const OPTIONS: [&str; 8] = ["-cpu", "-m", "-machine", "-M", "-numa", "-accel", "-enable-kvm", "-readconfig"];

/// Devices that take a place in the device memory region.
const MEMORY_DEVICES: [&str; 5] = ["pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci", "cxl-type3"];

/// Words in `-global` and `-set` that change the memory map.
const PROPERTIES: [&str; 4] = ["pci-hole64-size", "phys-bits", "below-4g-mem-size", "-cpu."];

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let args = &guest.domain.raw_args;
    for (index, arg) in args.iter().enumerate() {
        // Both dashes mean the same to QEMU.
        let option = if arg.value.starts_with("--") { &arg.value[1..] } else { &arg.value };
        let value = args.get(index + 1).map_or("", |next| next.value.as_str());
        let matters = match option {
            "-global" | "-set" => PROPERTIES.iter().any(|word| value.contains(word)),
            "-device" => MEMORY_DEVICES
                .iter()
                .any(|device| value.starts_with(device) || value.contains(&format!("\"{device}\""))),
            _ => OPTIONS.contains(&option),
        };
        if matters {
            let message = format!(
                "the raw QEMU argument `{option} {}` is not modelled: what is said of this guest leaves it out",
                quoted(value)
            );
            findings.push(Finding::new(RULE.id, Severity::Warning, message, arg.span, "not modelled"));
        }
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain passes raw arguments to QEMU (`<qemu:commandline>`) that change the memory map, the CPU or the \
         machine. What is said of the guest leaves them out and can be wrong, so that all that QEMU or VFIO would \
         refuse is a warning here and no error, and the hook does not stop the guest for it.",
    )],
    cause: &[Text(
        "QEMU takes the last of two options that say the same, and libvirt puts raw arguments last. So `-cpu`, `-m`, \
         `-machine`, `-accel`, `-numa`, `-readconfig`, a `-global` or `-set` of phys-bits or pci-hole64-size, or a \
         memory device, win over what the domain says.",
    )],
    history: &[Text(
        "Before libvirt 8.7 had `<maxphysaddr>`, a raw `-cpu` was the only way to physical address bits, and domains \
         from that time still have one.",
    )],
    errors: &[],
    fix: &[
        Text(
            "Say it in libvirt's own words where there are any: `<maxphysaddr>` for phys-bits, `<pcihole64>` for the \
             hole, `<feature>` for a CPU's features, `<maxMemory>` and `<memory model='…'>` for memory. `virsh edit \
             NAME`, and remove the raw argument.",
        ),
        Text("Whatever has no such words has to be checked by hand."),
    ],
    verify: &[
        Text("All arguments, those of the domain last:"),
        Shell("virsh domxml-to-native qemu-argv --domain NAME"),
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        shared::BITS[0],
        shared::BITS[1],
    ],
};
