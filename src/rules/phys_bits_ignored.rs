//! `phys-bits-ignored`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::command_line::{Accelerator, Model};
use crate::domain::MaxPhysAddrMode;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::{LIMIT_SINCE, MAXPHYSADDR_SINCE};

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-ignored",
    summary: "<maxphysaddr> has no effect",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

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
    if let Some(bits) = width.bits.filter(|_| guest.raw_width_span().is_some()) {
        if bits.value != cpu.phys_bits {
            report(bits.span, "a raw QEMU argument says otherwise".to_owned());
        }
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

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain asks for a number of physical address bits with `<maxphysaddr>`, and the guest gets another one. \
         It starts; the setting is not what whoever wrote it believes.",
    )],
    cause: &[
        Text(
            "`mode='emulate' bits='…'` becomes QEMU's `phys-bits`. With `host-phys-bits=on` QEMU overrides that by \
             the host's number, and it is on for CPU mode `host-passthrough` and `maximum` under KVM and for every \
             CPU with the machine types of RHEL and CentOS and with Ubuntu's types that end in `-hpb`.",
        ),
        Text(
            "`mode='passthrough'` needs KVM: without it there are no bits of the host to pass on. A CPU without long \
             mode has a fixed width. A libvirt older than 8.7 drops the element, and one older than 9.3 drops \
             `limit`.",
        ),
    ],
    history: &[Text(
        "`<maxphysaddr>` came with libvirt 8.7, its attribute `limit` with 9.3. libvirt passes `phys-bits` on \
         whatever the CPU mode, and QEMU, which has two properties that contradict each other then, takes the host's \
         and warns.",
    )],
    errors: &[ErrorText {
        by: Program::Qemu,
        when: "a warning in the guest's log",
        text: "Host physical bits (48) does not match phys-bits property (40)",
    }],
    fix: &[
        Text("For fewer bits than the host's with `host-passthrough`, say `limit` (libvirt 9.3):"),
        Xml("<cpu mode='host-passthrough'>\n\
             \x20 <maxphysaddr mode='passthrough' limit='42'/>\n\
             </cpu>"),
        Text(
            "or take CPU mode `host-model`, where `emulate` counts. Or leave the element out: what the guest has is \
             what the finding says.",
        ),
    ],
    verify: &[shared::COMMAND_LINE[0], shared::COMMAND_LINE[1], shared::BITS[0], shared::BITS[1]],
};
