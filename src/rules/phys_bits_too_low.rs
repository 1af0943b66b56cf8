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
        "QEMU refuses to start: the guest has {} phys-bits, its memory map needs {}{moved}",
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
        "QEMU refuses to start the guest: its memory map reaches further than its CPU can address. This needs no \
         passthrough device.",
    )],
    cause: &[
        shared::DEFAULT_BITS,
        Text(
            "What counts: RAM, the room of `<maxMemory>` with a GiB for each slot, and the 64-bit PCI hole behind it, \
             32 GiB on q35. If that reaches 1012 GiB and the vCPU's vendor is AuthenticAMD, all of it moves above 1 \
             TiB first. So slots and room that are never used can be what stops a small guest.",
        ),
        Text(
            "The first number of QEMU's message is the last address the vCPU reaches, the second the last one the map \
             needs.",
        ),
    ],
    history: &[shared::PHYS_BITS_CHECK, shared::QEMU],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "at start",
            text: "Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)",
        },
        shared::QEMU_EXITED,
    ],
    fix: &[
        Text(
            "More bits, as few as the map needs, so that the guest can still migrate to hosts that have fewer; or all \
             of the host's:",
        ),
        shared::FIX_IT,
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='emulate' bits='42'/>\n\
             </cpu>"),
        Xml("<cpu mode='host-model'>\n\
             \x20 <maxphysaddr mode='passthrough'/>\n\
             </cpu>"),
        Text(
            "`mode='emulate'` has no effect on `host-passthrough`, `maximum` and the machine types of RHEL, which \
             take the host's bits anyway. If the host itself has too few, less memory, fewer slots, a smaller \
             `<maxMemory>` or a smaller `<pcihole64>` helps.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("What the host has, and what a guest that runs was given:"),
        shared::BITS[1],
        Text("The refusal itself, without libvirt and without a TiB of memory:"),
        Shell(
            "qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine pc-q35-7.2 -cpu EPYC -m \
             size=1G,slots=1,maxmem=1200G",
        ),
    ],
};
