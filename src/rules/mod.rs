//! The rules, one file each. A rule looks at a [`Guest`] and reports [`Finding`]s; it does no arithmetic of its own.

mod collision;
mod hotplug_window_in_reserved_range;
mod machine_type_not_available;
mod memory_device_does_not_fit;
mod memory_device_in_reserved_range;
mod memory_hotplug_refused;
mod not_modelled;
mod pci_hole_in_reserved_range;
mod phys_bits_above_host;
mod phys_bits_ignored;
mod phys_bits_not_configurable;
mod phys_bits_out_of_range;
mod phys_bits_too_low;
mod ram_in_reserved_range;
mod refused_by_libvirt;
mod relocated_above_1t;

use crate::finding::Finding;
use crate::guest::Guest;

/// A rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, the same for ever.
    pub id: &'static str,
    /// What it finds, in one line.
    pub summary: &'static str,
    check: fn(&Guest<'_>, &mut Vec<Finding>),
}

/// All rules in the order their findings are reported: what stops a guest first, what is good to know last.
pub const RULES: [Rule; 15] = [
    refused_by_libvirt::RULE,
    machine_type_not_available::RULE,
    memory_hotplug_refused::RULE,
    phys_bits_not_configurable::RULE,
    phys_bits_out_of_range::RULE,
    phys_bits_above_host::RULE,
    phys_bits_too_low::RULE,
    memory_device_does_not_fit::RULE,
    ram_in_reserved_range::RULE,
    memory_device_in_reserved_range::RULE,
    hotplug_window_in_reserved_range::RULE,
    pci_hole_in_reserved_range::RULE,
    phys_bits_ignored::RULE,
    not_modelled::RULE,
    relocated_above_1t::RULE,
];

/// The most findings of one rule that are reported one by one.
const MAX_PER_RULE: usize = 16;

/// The rule that speaks before there is a [`Guest`]: the flags of the machine type are not known.
pub const UNKNOWN_MACHINE_TYPE: &str = "unknown-machine-type";

/// The rule whose finding makes all others pointless.
pub(crate) const MACHINE_TYPE_NOT_AVAILABLE: &str = machine_type_not_available::RULE.id;

/// The rule whose finding makes those of others uncertain.
pub(crate) const NOT_MODELLED: &str = not_modelled::RULE.id;

/// Whether it is libvirt that refuses the guest, before there is any QEMU.
pub(crate) fn by_libvirt(finding: &Finding) -> bool {
    [refused_by_libvirt::RULE.id, machine_type_not_available::RULE.id, phys_bits_above_host::RULE.id]
        .contains(&finding.rule)
}

/// Whether memory lies where DMA cannot reach it.
pub(crate) fn is_collision(finding: &Finding) -> bool {
    [ram_in_reserved_range::RULE.id, memory_device_in_reserved_range::RULE.id].contains(&finding.rule)
}

/// What all rules find, in order.
pub fn check(guest: &Guest<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        let before = findings.len();
        (rule.check)(guest, &mut findings);
        let all = findings.len() - before;
        if all > MAX_PER_RULE {
            findings.truncate(before + MAX_PER_RULE);
            findings[before].title += &format!(" (and {} more like it)", all - 1);
        }
    }
    findings
}
