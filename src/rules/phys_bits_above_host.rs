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
    summary: "the guest is to have more physical address bits than the host",
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
            "the memory map reaches {:#x}, which the guest's {} physical address bits cover and the host's {host_bits} do not: \
             accesses up there fail in the running guest",
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
            "An error where the domain asks for more physical address bits than the host has, with `<maxphysaddr \
             mode='emulate' bits='…'/>`: libvirt refuses to start it.",
        ),
        Text(
            "A warning where the guest has more bits than the host by default and its memory map makes use of them: \
             it starts, and accesses to the memory that the host cannot address fail in the running guest.",
        ),
    ],
    cause: &[Text(
        "A domain that was made for another host, or bits that were guessed too high. A CPU with memory encryption \
         switched on (AMD SME, Intel TME) can have fewer bits left than its data sheet says. The warning is about \
         hosts of 36 or 39 bits, as of some desktop and laptop processors: QEMU gives the guest 40 all the same.",
    )],
    history: &[Text(
        "libvirt reads `<maxphysaddr>` since 8.7 and compares it with the host, whose bits it knows once somebody has \
         asked it for its capabilities; a guest that is started before that is not refused. QEMU alone does not \
         refuse: it warns that the bits of host and guest differ.",
    )],
    errors: &[
        ErrorText {
            by: Program::Libvirt,
            when: "at start",
            text: "The number of virtual CPU address bits cannot exceed the number supported by the host CPU",
        },
        ErrorText {
            by: Program::Qemu,
            when: "a warning in the guest's log",
            text: "Host physical bits (48) does not match phys-bits property (52)",
        },
    ],
    fix: &[
        Text("The bits the memory map needs, if the host has them, or those of the host:"),
        shared::FIX_IT,
        Xml("<maxphysaddr mode='passthrough'/>"),
        Text("If the map needs more than the host has, only less memory helps."),
    ],
    verify: &[shared::BITS[0], shared::BITS[1]],
};
