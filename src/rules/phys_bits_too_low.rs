//! `phys-bits-too-low`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::layout::{FIRST_RELOCATING_QEMU, LayoutError};

pub(super) const RULE: Rule = Rule {
    id: "phys-bits-too-low",
    summary: "QEMU refuses to start: the memory map needs more physical address bits than the CPU has",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    if let (Some(Err(LayoutError::Overflow)), Some(span)) = (&guest.layout, guest.ram_span()) {
        let message = "QEMU refuses to start: the memory map does not fit 64-bit addresses";
        findings.push(Finding::new(RULE.id, Severity::Error, message, span, "too large"));
    }
    let (Some(layout), Some(cpu)) = (guest.layout(), guest.cpu()) else { return };
    let limit = (1 << cpu.phys_bits) - 1;
    // `pc_memory_init` of QEMU `hw/i386/pc.c`, 7.1 and newer.
    if layout.max_gpa <= limit || guest.setting.qemu < FIRST_RELOCATING_QEMU {
        return;
    }
    let moved = if layout.relocated { ", with RAM moved above 1 TiB" } else { "" };
    let title = format!(
        "QEMU refuses to start: the guest has {} phys-bits, its memory map needs {}{moved}",
        cpu.phys_bits, layout.phys_bits_needed
    );
    // As QEMU puts it, so that whoever searches for it comes here.
    let cause = format!("Address space limit {limit:#x} < {:#x} phys-bits too low ({})", layout.max_gpa, cpu.phys_bits);
    let domain = guest.domain;
    let (span, label) = match &domain.cpu {
        Some(written) => match &written.maxphysaddr {
            Some(width) => (width.span, format!("gives {} bits", cpu.phys_bits)),
            None => (written.span, format!("gives {} bits, no <maxphysaddr> asks for more", cpu.phys_bits)),
        },
        None => (domain.span, format!("without <cpu> there are {} bits", cpu.phys_bits)),
    };
    let mut finding = Finding::new(RULE.id, Severity::Error, title, span, label).because(cause);
    if let Some(maximum) = domain.max_memory.filter(|_| layout.device_memory.is_some()) {
        finding = finding.with_label(maximum.span, "counts, and a GiB for each slot");
    }
    if let Some(hole) = domain.pci_hole64 {
        finding = finding.with_label(hole.span, "the 64-bit PCI hole counts too");
    }
    findings.push(finding);
}
