//! `phys-bits-above-host`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::command_line::Accelerator;
use crate::domain::MaxPhysAddrMode;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::MAXPHYSADDR_SINCE;

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-above-host",
    summary: "the guest asks for or has more physical address bits than the host",
    by: Refuser::Libvirt,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let host_bits = guest.setting.cpu.phys_bits;
    let asked = guest.maxphysaddr();
    let libvirt_reads_it = guest.setting.host.libvirt.is_none_or(|version| version >= MAXPHYSADDR_SINCE);
    let bits = asked
        .filter(|width| width.mode == MaxPhysAddrMode::Emulate && libvirt_reads_it)
        .and_then(|width| width.bits)
        .filter(|bits| bits.value > host_bits);
    if let Some(bits) = bits {
        // `qemuValidateDomainDefCpu` of libvirt `src/qemu/qemu_validate.c`, with either accelerator, once the driver knows
        // the host's CPU (`virQEMUDriverGetHostCPU`), which `virsh capabilities` is enough for.
        let message = format!(
            "libvirt refuses the guest: it asks for {} physical address bits, the host has {host_bits}",
            bits.value
        );
        findings.push(Finding::new(RULE.id, Severity::Error, message, bits.span, "more than the host has"));
        return;
    }
    let (Some(layout), Some(cpu)) = (guest.layout(), guest.cpu()) else { return };
    let out_of_reach = layout.max_gpa >> host_bits.min(63) != 0;
    if guest.accelerator() == Accelerator::Kvm && cpu.phys_bits > host_bits && out_of_reach {
        let message = format!(
            "the memory map reaches {:#x}, within the guest's {} physical address bits but beyond the host's \
             {host_bits}: accesses up there fail in the running guest",
            layout.max_gpa, cpu.phys_bits
        );
        let written = guest.cpu_element().map(|cpu| cpu.span);
        let span = guest.raw_width_span().or(written).unwrap_or(guest.whole());
        findings.push(Finding::new(RULE.id, Severity::Warning, message, span, format!("gives {} bits", cpu.phys_bits)));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[
        Text(
            "Error: the domain asks for more physical address bits than the host has (`<maxphysaddr mode='emulate' \
             bits='…'/>`), and libvirt refuses to start it.",
        ),
        Text(
            "Warning: the guest has more bits than the host by default, and its memory map uses them. It starts, \
             but accesses to memory that the host cannot address fail in the running guest.",
        ),
    ],
    cause: &[Text(
        "The domain was made for another host, or the number was guessed too high. A CPU with memory \
             encryption enabled (AMD SME, Intel TME) can have fewer bits than its data sheet says. The warning is \
             about hosts with 36 or 39 bits, such as some desktop and laptop CPUs: QEMU gives the guest 40 there, \
             too.",
    )],
    history: &[Text(
        "libvirt has read `<maxphysaddr>` since 8.7. It compares the number with the host's, which it knows \
             only after somebody has asked for its capabilities; a guest started before that is not refused. QEMU \
             does not refuse: it warns that host and guest differ.",
    )],
    errors: &[
        ErrorText::libvirt(
            "at start",
            "The number of virtual CPU address bits cannot exceed the number supported by the \
             host CPU",
        ),
        ErrorText::qemu(
            "a warning in the guest's log",
            "Host physical bits (48) does not match phys-bits property (52)",
        ),
    ],
    fix: &[
        Text("Set the bits that the memory map needs, if the host has them, or the host's bits:"),
        shared::FIX_IT,
        Xml("<maxphysaddr mode='passthrough'/>"),
        Text("If the map needs more bits than the host has, only less memory helps."),
    ],
    verify: &[shared::BITS[0], shared::BITS[1]],
    background: &[Topic::PhysBits, Topic::Looking],
};
