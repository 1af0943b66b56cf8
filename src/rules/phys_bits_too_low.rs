//! `phys-bits-too-low`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::address::last_address;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::layout::{FIRST_RELOCATING_QEMU, LayoutError};

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-too-low",
    summary: "QEMU refuses to start: the memory map needs more physical address bits than the CPU has",
    by: Refuser::Qemu,
    stops: true,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    if let (Some(Err(LayoutError::Overflow)), Some(span)) = (&guest.layout, guest.ram_span()) {
        let message = "QEMU refuses to start: the memory map does not fit 64-bit addresses";
        findings.push(Finding::new(RULE.id, Severity::Error, message, span, "too large"));
    }
    let (Some(layout), Some(cpu)) = (guest.layout(), guest.cpu()) else { return };
    let limit = last_address(cpu.phys_bits);
    // `pc_memory_init` of QEMU `hw/i386/pc.c`, 7.1 and newer.
    if layout.max_gpa <= limit || guest.setting.qemu < FIRST_RELOCATING_QEMU {
        return;
    }
    let moved = if layout.relocated { ", with RAM moved above 1 TiB" } else { "" };
    let title = format!(
        "QEMU refuses to start: the guest has {} phys-bits, but its memory map needs {}{moved}",
        cpu.phys_bits, layout.phys_bits_needed
    );
    // In QEMU's words, so that a search for them finds this.
    let cause = format!("Address space limit {limit:#x} < {:#x} phys-bits too low ({})", layout.max_gpa, cpu.phys_bits);
    let gives = || format!("gives {} bits", cpu.phys_bits);
    let defaults = |what: &str| format!("defaults to {} bits; set {what} for more", cpu.phys_bits);
    let bare = guest.domain.is_none();
    let (span, label) = match (guest.raw_width_span(), guest.cpu_element()) {
        (Some(argument), _) if bare && !guest.is_width_told() => (argument, defaults("phys-bits")),
        (Some(argument), _) => (argument, gives()),
        (None, Some(written)) => match &written.maxphysaddr {
            Some(width) => (width.span, gives()),
            None => (written.span, defaults("<maxphysaddr>")),
        },
        (None, None) => {
            let element = if bare { "-cpu" } else { "<cpu>" };
            (guest.whole(), format!("without {element} there are {} bits", cpu.phys_bits))
        }
    };
    let mut finding = Finding::new(RULE.id, Severity::Error, title, span, label).because(cause);
    if let Some(maximum) = guest.maxmem_span().filter(|_| layout.device_memory.is_some()) {
        finding = finding.with_label(maximum, "counted in full, plus 1 GiB per slot");
    }
    if let Some(hole) = guest.pci_hole64_size {
        finding = finding.with_label(hole.origin.span(), "the 64-bit PCI hole counts too");
    }
    findings.push(finding);
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "QEMU refuses to start the guest: its memory map reaches beyond what its CPU can address. This happens \
             without passthrough devices, too.",
    )],
    cause: &[
        shared::DEFAULT_BITS,
        Text(
            "RAM counts, and so do the room of `<maxMemory>` plus 1 GiB per slot, and the 64-bit PCI hole after it \
             (32 GiB on q35). If all of that reaches 1012 GiB and the vCPU's vendor is AuthenticAMD, QEMU first \
             moves it above 1 TiB. So slots and room that are never used can stop a small guest.",
        ),
        Text(
            "In QEMU's message, the first number is the last address that the vCPU can reach, and the second is \
             the last address that the map needs.",
        ),
    ],
    history: &[Text(
        "QEMU has checked this since 7.1 (commit 1caab5cf86bd), for all machine types and vendors. Older \
             versions start such a guest.",
    )],
    errors: &[
        ErrorText::qemu("at start", "Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)"),
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "Give the guest as many bits as the map needs, so that it can still migrate to hosts with fewer bits, \
             or all of the host's:",
        ),
        shared::FIX_IT,
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='emulate' bits='42'/>\n\
             </cpu>"),
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='passthrough'/>\n\
             </cpu>"),
        Text(
            "`mode='emulate'` has no effect with `host-passthrough`, `maximum` or the machine types of RHEL, which \
             use the host's bits anyway. If the host has too few bits, reduce memory, slots, `<maxMemory>` or \
             `<pcihole64>`.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        shared::BITS[0],
        shared::BITS[1],
        Text("The refusal itself, without libvirt and without 1 TiB of memory:"),
        Shell(
            "qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine pc-q35-7.2 -cpu EPYC -m size=1G,slots=1,maxmem=1200G",
        ),
    ],
    background: &[Topic::PhysBits, Topic::Layout, Topic::Looking],
};
