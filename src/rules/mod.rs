//! The rules, one file each: what it checks, whether that may stop a guest, and its page. A rule looks at a `Guest` and
//! reports [`Finding`]s; it does no arithmetic of its own.

#[cfg(feature = "cli")]
pub(crate) mod bar_above_host_width;
#[cfg(feature = "cli")]
pub(crate) mod bar_above_iommu_width;
#[cfg(feature = "cli")]
pub(crate) mod bar_in_ram;
#[cfg(feature = "cli")]
pub(crate) mod bar_in_reserved_range;
#[cfg(feature = "cli")]
pub(crate) mod bar_not_placed;
#[cfg(feature = "cli")]
pub(crate) mod bars;
mod collision;
pub(crate) mod dma_not_visible;
pub(crate) mod hotplug_window_in_reserved_range;
#[cfg(feature = "cli")]
pub(crate) mod locked_memory_too_low;
pub(crate) mod machine_type_not_available;
pub(crate) mod memory_backend_refused;
pub(crate) mod memory_device_does_not_fit;
pub(crate) mod memory_device_in_reserved_range;
pub(crate) mod memory_hotplug_refused;
pub(crate) mod memory_map_refused;
pub(crate) mod not_modelled;
#[cfg(feature = "cli")]
pub mod page;
pub(crate) mod pci_hole_in_reserved_range;
pub(crate) mod phys_bits_above_host;
pub(crate) mod phys_bits_ignored;
pub(crate) mod phys_bits_not_configurable;
pub(crate) mod phys_bits_out_of_range;
pub(crate) mod phys_bits_too_low;
pub(crate) mod ram_above_iommu_width;
pub(crate) mod ram_in_reserved_range;
pub(crate) mod refused_by_libvirt;
#[cfg(feature = "cli")]
pub(crate) mod refused_by_qemu;
pub(crate) mod relocated_above_1t;
pub(crate) mod unknown_machine_type;
#[cfg(feature = "cli")]
mod viommu;
#[cfg(feature = "cli")]
pub(crate) mod viommu_above_iommu_width;
#[cfg(feature = "cli")]
pub(crate) mod viommu_in_reserved_range;
#[cfg(feature = "cli")]
pub(crate) mod viommu_not_prepared;
#[cfg(feature = "cli")]
pub(crate) mod virtio_mem_refused;

use crate::finding::{Finding, Severity};
use crate::guest::Guest;

/// Who refuses what a rule finds as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuser {
    /// libvirt, before there is a QEMU. The hook leaves it to libvirt.
    Libvirt,
    /// QEMU, before there is a guest.
    Qemu,
    /// VFIO or vhost-vdpa: DMA cannot reach the guest's memory.
    Vfio,
    /// The operator, whose policy says that devices have to reach one another.
    #[cfg(feature = "cli")]
    Policy,
    /// Nothing refuses it: it is not an error.
    Nobody,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, the same for ever.
    pub id: &'static str,
    /// What it finds, in one line.
    pub summary: &'static str,
    /// Who refuses the guest for it.
    pub(crate) by: Refuser,
    /// Whether its errors are certain enough that the hook stops a guest for them.
    pub(crate) stops: bool,
    check: fn(&Guest<'_>, &mut Vec<Finding>),
    /// Its page.
    #[cfg(feature = "cli")]
    pub page: &'static page::Page,
}

impl Rule {
    /// Whether it found this.
    pub fn found(&self, finding: &Finding) -> bool {
        finding.rule == self.id
    }
}

/// All rules in the order their findings are reported: what stops a guest first, what is good to know last.
pub static RULES: &[Rule] = &[
    unknown_machine_type::RULE,
    refused_by_libvirt::RULE,
    #[cfg(feature = "cli")]
    refused_by_qemu::RULE,
    machine_type_not_available::RULE,
    memory_hotplug_refused::RULE,
    memory_backend_refused::RULE,
    memory_map_refused::RULE,
    #[cfg(feature = "cli")]
    virtio_mem_refused::RULE,
    phys_bits_not_configurable::RULE,
    phys_bits_out_of_range::RULE,
    phys_bits_above_host::RULE,
    phys_bits_too_low::RULE,
    memory_device_does_not_fit::RULE,
    #[cfg(feature = "cli")]
    viommu_not_prepared::RULE,
    #[cfg(feature = "cli")]
    viommu_above_iommu_width::RULE,
    ram_in_reserved_range::RULE,
    memory_device_in_reserved_range::RULE,
    ram_above_iommu_width::RULE,
    #[cfg(feature = "cli")]
    locked_memory_too_low::RULE,
    #[cfg(feature = "cli")]
    bar_in_reserved_range::RULE,
    #[cfg(feature = "cli")]
    bar_above_iommu_width::RULE,
    #[cfg(feature = "cli")]
    bar_not_placed::RULE,
    #[cfg(feature = "cli")]
    bar_in_ram::RULE,
    #[cfg(feature = "cli")]
    bar_above_host_width::RULE,
    dma_not_visible::RULE,
    hotplug_window_in_reserved_range::RULE,
    #[cfg(feature = "cli")]
    viommu_in_reserved_range::RULE,
    pci_hole_in_reserved_range::RULE,
    phys_bits_ignored::RULE,
    not_modelled::RULE,
    relocated_above_1t::RULE,
];

/// The most findings of one rule that are reported one by one.
const MAX_PER_RULE: usize = 16;

/// The rule that reports before there is a `Guest`: the flags of the machine type are unknown.
pub const UNKNOWN_MACHINE_TYPE: &str = unknown_machine_type::RULE.id;

/// The rule of this name.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// Who refuses the guest for what was found.
fn refuser(finding: &Finding) -> Refuser {
    rule(finding.rule).map_or(Refuser::Nobody, |rule| rule.by)
}

/// Whether it is libvirt that refuses the guest, before there is any QEMU.
pub(crate) fn by_libvirt(finding: &Finding) -> bool {
    refuser(finding) == Refuser::Libvirt
}

/// Whether memory lies where DMA cannot reach it.
pub(crate) fn is_collision(finding: &Finding) -> bool {
    refuser(finding) == Refuser::Vfio
}

/// Whether memory lies in a range that the IOMMU reserves, so that it may help to move it.
pub(crate) fn is_in_reserved(finding: &Finding) -> bool {
    ram_in_reserved_range::RULE.found(finding) || memory_device_in_reserved_range::RULE.found(finding)
}

/// Whether it is an error because the operator's policy says so.
#[cfg(feature = "cli")]
pub(crate) fn by_policy(finding: &Finding) -> bool {
    finding.severity == Severity::Error && refuser(finding) == Refuser::Policy
}

/// Whether it is about where firmware puts BARs.
#[cfg(feature = "cli")]
pub(crate) fn is_about_bars(finding: &Finding) -> bool {
    let rules = [
        bar_in_reserved_range::RULE,
        bar_above_iommu_width::RULE,
        bar_not_placed::RULE,
        bar_in_ram::RULE,
        bar_above_host_width::RULE,
    ];
    rules.iter().any(|rule| rule.found(finding))
}

/// Whether it is certain enough for the hook to stop a guest.
pub(crate) fn stops(finding: &Finding) -> bool {
    finding.severity == Severity::Error && rule(finding.rule).is_some_and(|rule| rule.stops)
}

/// What all rules find, in order.
pub fn check(guest: &Guest<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        let before = findings.len();
        (rule.check)(guest, &mut findings);
        let more = findings.len().saturating_sub(before).saturating_sub(1);
        if more >= MAX_PER_RULE {
            findings.truncate(before.saturating_add(MAX_PER_RULE));
            if let Some(first) = findings.get_mut(before) {
                first.title.push_str(&format!(" (and {more} more like it)"));
            }
        }
    }
    findings
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::page::Block;
    use super::*;

    #[test]
    fn no_page_leaves_out_what_it_has_to_say() {
        for Rule { id, page, .. } in RULES {
            for (what, blocks) in
                [("meaning", page.meaning), ("cause", page.cause), ("fix", page.fix), ("verify", page.verify)]
            {
                assert!(!blocks.is_empty(), "{id}: no {what}");
            }
            assert!(!page.severities.is_empty() && page.severities.is_sorted_by(|a, b| a > b), "{id}");
            assert!(page.verify.iter().any(|block| matches!(block, Block::Shell(_))), "{id}: no command");
        }
    }

    #[test]
    fn every_rule_has_a_name_of_its_own_and_only_errors_stop_a_guest() {
        for (index, one) in RULES.iter().enumerate() {
            assert!(RULES[..index].iter().all(|other| other.id != one.id), "{} twice", one.id);
            let refused = one.by != Refuser::Nobody;
            assert_eq!(refused, one.page.severities.contains(&Severity::Error), "{}", one.id);
            assert!(!one.stops || matches!(one.by, Refuser::Qemu | Refuser::Vfio), "{} stops a guest", one.id);
        }
    }
}
