//! `phys-bits-ignored`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::command_line::{Accelerator, Model};
use crate::domain::MaxPhysAddrMode;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::{LIMIT_SINCE, MAXPHYSADDR_SINCE};
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "phys-bits-ignored",
    summary: "`<maxphysaddr>` has no effect",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    #[cfg(feature = "cli")]
    if guest.domain.is_none() {
        return check_options(guest, findings);
    }
    check_domain(guest, findings);
}

/// The width that QEMU is given and ignores.
#[cfg(feature = "cli")]
fn check_options(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(cpu) = guest.cpu() else { return };
    let options = guest.line.cpu_options();
    let kvm = guest.accelerator() == Accelerator::Kvm;
    let ignored = |name: &str| {
        let told = guest.line.cpu_property(name)?;
        match name {
            "phys-bits" => {
                let bits = told.number().filter(|&bits| bits != 0 && bits != u64::from(cpu.phys_bits));
                bits.filter(|_| kvm && cpu.long_mode)
                    .map(|_| (told, host_bits(guest, &options.model, "-cpu host", "-cpu max")))
            }
            _ if options.host_phys_bits != Some(true) => None,
            _ if !kvm => Some((told, NO_HOST_BITS.to_owned())),
            _ => (!cpu.long_mode).then(|| (told, FIXED_WIDTH.to_owned())),
        }
    };
    for name in ["phys-bits", "host-phys-bits"] {
        if let Some((told, why)) = ignored(name) {
            let message = format!("{name} has no effect; the guest has {} physical address bits: {why}", cpu.phys_bits);
            findings.push(Finding::new(RULE.id, Severity::Warning, message, told.origin.span(), "ignored"));
        }
    }
}

/// Why the guest has the host's bits and no others.
fn host_bits(guest: &Guest<'_>, model: &Model, host: &str, max: &str) -> String {
    match model {
        Model::Host => format!("{host} uses the host's bits"),
        Model::Max => format!("{max} uses the host's bits"),
        _ if guest.line.cpu_options().host_phys_bits == Some(true) => "host-phys-bits uses the host's bits".to_owned(),
        _ => format!("machine type {} gives every CPU the host's bits", quoted(&guest.setting.machine.name)),
    }
}

const NO_HOST_BITS: &str = "without KVM, the host's bits are not passed on";

const FIXED_WIDTH: &str = "a CPU without long mode has a fixed width";

fn check_domain(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(width) = guest.maxphysaddr() else { return };
    let (Some(cpu), Some(options)) = (guest.cpu(), &guest.line.cpu) else { return };
    let kvm = guest.accelerator() == Accelerator::Kvm;
    let libvirt = guest.setting.host.libvirt;
    let mut report = |span, why: String| {
        let message =
            format!("<maxphysaddr> has no effect; the guest has {} physical address bits: {why}", cpu.phys_bits);
        findings.push(Finding::new(RULE.id, Severity::Warning, message, span, "ignored"));
    };
    if let Some(version) = libvirt.filter(|&version| version < MAXPHYSADDR_SINCE) {
        report(width.span, format!("libvirt {version} ignores it; 8.7 is the first version that supports it"));
        return;
    }
    if let Some(bits) = width.bits.filter(|_| guest.raw_width_span().is_some()) {
        if bits.value != cpu.phys_bits {
            report(bits.span, "a raw QEMU argument overrides it".to_owned());
        }
        return;
    }
    match (width.mode, width.bits) {
        (MaxPhysAddrMode::Emulate, Some(bits))
            if kvm && cpu.long_mode && bits.value != 0 && cpu.phys_bits != bits.value =>
        {
            report(bits.span, host_bits(guest, &options.model, "CPU mode host-passthrough", "CPU mode maximum"));
        }
        (MaxPhysAddrMode::Passthrough, _) if !kvm => report(width.span, NO_HOST_BITS.to_owned()),
        (MaxPhysAddrMode::Passthrough, _) if !cpu.long_mode => {
            report(width.span, FIXED_WIDTH.to_owned());
        }
        _ => {
            if let (Some(limit), Some(version)) = (width.limit, libvirt.filter(|&version| version < LIMIT_SINCE)) {
                report(
                    limit.span,
                    format!(
                        "libvirt {version} ignores the limit; 9.3 is the first version that \
                                            supports it"
                    ),
                );
            }
        }
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain sets a number of physical address bits with `<maxphysaddr>`, but the guest gets a \
             different one. The guest starts.",
    )],
    cause: &[
        Text(
            "`mode='emulate' bits='…'` becomes QEMU's `phys-bits`, and `host-phys-bits=on` overrides it by the \
             host's number. That is on for the CPU modes `host-passthrough` and `maximum` under KVM, and for every \
             CPU with the machine types of RHEL and CentOS and with Ubuntu's types that end in `-hpb`.",
        ),
        Text(
            "`mode='passthrough'` needs KVM; without it there are no host bits to pass on. A CPU without long mode \
             has a fixed width. libvirt before 8.7 drops the element, and libvirt before 9.3 drops `limit`.",
        ),
    ],
    history: &[Text(
        "`<maxphysaddr>` came with libvirt 8.7, its attribute `limit` with 9.3. libvirt passes `phys-bits` in \
             every CPU mode. If it contradicts `host-phys-bits`, QEMU uses the host's number and warns.",
    )],
    errors: &[ErrorText::qemu(
        "a warning in the guest's log",
        "Host physical bits (48) does not match phys-bits property (40)",
    )],
    fix: &[
        Text("To get fewer bits than the host with `host-passthrough`, use `limit` (libvirt 9.3 or newer):"),
        Xml("<cpu mode='host-passthrough'>\n\
             \x20 <maxphysaddr mode='passthrough' limit='42'/>\n\
             </cpu>"),
        Text(
            "Or use CPU mode `host-model`, with which `emulate` has an effect. Or remove the element: the finding \
             says how many bits the guest has anyway.",
        ),
    ],
    verify: &[shared::COMMAND_LINE[0], shared::COMMAND_LINE[1], shared::BITS[0], shared::BITS[1]],
    background: &[Topic::PhysBits, Topic::Looking],
};
