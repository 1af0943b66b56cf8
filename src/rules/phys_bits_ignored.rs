//! `phys-bits-ignored`.

use super::Rule;
use crate::command_line::{Accelerator, Model};
use crate::domain::MaxPhysAddrMode;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::{LIMIT_SINCE, MAXPHYSADDR_SINCE};

pub(super) const RULE: Rule = Rule { id: "phys-bits-ignored", summary: "<maxphysaddr> has no effect", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(width) = guest.domain.cpu.as_ref().and_then(|cpu| cpu.maxphysaddr.as_ref()) else { return };
    let (Some(cpu), Some(options)) = (guest.cpu(), &guest.line.cpu) else { return };
    let kvm = guest.accelerator() == Accelerator::Kvm;
    let libvirt = guest.setting.host.libvirt;
    let mut report = |span, why: String| {
        let message =
            format!("<maxphysaddr> has no effect, the guest has {} physical address bits: {why}", cpu.phys_bits);
        findings.push(Finding::new(RULE.id, Severity::Warning, message, span, "ignored"));
    };
    if let Some(version) = libvirt.filter(|&version| version < MAXPHYSADDR_SINCE) {
        report(width.span, format!("libvirt {version} drops it, 8.7 is the first that reads it"));
        return;
    }
    match (width.mode, width.bits) {
        (MaxPhysAddrMode::Emulate, Some(bits))
            if kvm && cpu.long_mode && bits.value != 0 && cpu.phys_bits != bits.value =>
        {
            let why = match options.model {
                Model::Host => "CPU mode host-passthrough takes the host's bits".to_owned(),
                Model::Max => "CPU mode maximum takes the host's bits".to_owned(),
                _ => format!("machine type {} gives every CPU the host's bits", guest.setting.machine.name),
            };
            report(bits.span, why);
        }
        (MaxPhysAddrMode::Passthrough, _) if !kvm => {
            report(width.span, "without KVM there are no host bits to pass on".to_owned())
        }
        (MaxPhysAddrMode::Passthrough, _) if !cpu.long_mode => {
            report(width.span, "a CPU without long mode has a fixed width".to_owned());
        }
        _ => {
            if let (Some(limit), Some(version)) = (width.limit, libvirt.filter(|&version| version < LIMIT_SINCE)) {
                report(limit.span, format!("libvirt {version} drops the limit, 9.3 is the first that reads it"));
            }
        }
    }
}
