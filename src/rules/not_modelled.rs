//! `not-modelled`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(super) const RULE: Rule =
    Rule { id: "not-modelled", summary: "raw QEMU arguments change what is computed here", check };

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
