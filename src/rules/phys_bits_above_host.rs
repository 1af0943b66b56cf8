//! `phys-bits-above-host`.

use super::Rule;
use crate::command_line::Accelerator;
use crate::domain::MaxPhysAddrMode;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::MAXPHYSADDR_SINCE;

pub(super) const RULE: Rule = Rule {
    id: "phys-bits-above-host",
    summary: "the guest is to have more physical address bits than the host",
    check,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let host_bits = guest.setting.cpu.phys_bits;
    let asked = guest.domain.cpu.as_ref().and_then(|cpu| cpu.maxphysaddr.as_ref());
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
        let span = guest.domain.cpu.as_ref().map_or(guest.domain.span, |cpu| cpu.span);
        findings.push(Finding::new(RULE.id, Severity::Warning, message, span, format!("gives {} bits", cpu.phys_bits)));
    }
}
