//! `bar-above-host-width`.

use super::bars::{self, Hit};
use super::page::*;
use super::{Refuser, Rule};
use crate::command_line::Accelerator;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::mmio64::{Mmio64, Possible};

pub(crate) const RULE: Rule = Rule {
    id: "bar-above-host-width",
    summary: "firmware puts a device's BAR above what the host's CPU can address",
    by: Refuser::Nobody,
    stops: false,
    check,
    page: &PAGE,
};

/// The BARs above it.
pub(super) fn hits(guest: &Guest<'_>, mmio64: &Mmio64, possible: &Possible) -> Vec<Hit> {
    match guest.setting.host.phys_bits {
        Some(bits) if guest.accelerator() == Accelerator::Kvm => bars::above(mmio64, possible, bits),
        _ => Vec::new(),
    }
}

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(mmio64), Some(bits)) = (&guest.mmio64, guest.setting.host.phys_bits) else { return };
    let Some(trouble) = bars::trouble(mmio64, |possible| hits(guest, mmio64, possible)) else { return };
    let what = format!("above the {bits} bits that the host's CPU can address");
    let title = trouble.title(&format!("lies {what}"), &format!("lie {what}"), &format!("may lie {what}"));
    let cause = format!("KVM may refuse to map it for the guest, and QEMU then aborts; {}", trouble.place());
    let finding = trouble.finding(RULE.id, Severity::Warning, title, cause);
    findings.push(Finding { range: trouble.first_place(), ..finding });
}

const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The guest starts, and its firmware puts a 64-bit BAR of a passthrough device at an address with more \
             bits than the host's CPU has. KVM maps such a BAR as guest memory and may refuse the address; QEMU \
             then aborts, a few seconds after the start.",
    )],
    cause: &[
        Text(
            "The guest's CPU claims more physical address bits than the host's CPU has, and firmware relies on \
             them. KVM accepts no memory above the host's own bits (`kvm_arch_prepare_memory_region`, \
             arch/x86/kvm/x86.c).",
        ),
        shared::WINDOW,
    ],
    history: &[],
    errors: &[],
    fix: &[
        Text("Give the guest no more bits than the host has:"),
        shared::FIX_WARNINGS,
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='passthrough'/>\n\
             </cpu>"),
    ],
    verify: &[shared::BITS[0], shared::BITS[1], shared::WHERE_BARS_ARE[0], shared::WHERE_BARS_ARE[1]],
    background: &[Topic::Bars, Topic::PhysBits, Topic::Looking],
};

#[cfg(test)]
mod tests {
    use super::super::bars::tests::{BarCase, found};
    use super::*;

    #[test]
    fn a_bar_beyond_the_hosts_bits_is_a_warning() {
        let at = |gib| {
            let placed = [("OVMF 2022.11", None, &[Some(gib)][..])];
            found(&RULE, &BarCase { bits: 48, bars: &[32], placed: &placed, ..BarCase::default() })
        };
        assert!(at(1 << 17).is_empty());
        let findings = at(1 << 18);
        let [(severity, title, _)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Warning);
        assert!(title.ends_with("above the 48 bits that the host's CPU can address"), "{title}");
    }
}
