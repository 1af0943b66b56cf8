//! `machine-type-not-available`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::machine::Flavor;
use crate::text::quoted;
use crate::version::Version;

pub(crate) const RULE: Rule = Rule {
    id: "machine-type-not-available",
    summary: "the host's QEMU does not have the machine type",
    by: Refuser::Libvirt,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (host, machine) = (guest.setting.host, guest.setting.machine);
    // The list of a host that is known decides. If there is none, no upstream type is newer than its QEMU, and none is
    // there that has been removed.
    let release = |version: Version| (version.major, version.minor);
    let unlisted = || {
        let qemu = host.qemu?;
        if machine.newest_qemu().is_some_and(|newest| release(qemu) > release(newest)) {
            return Some(format!("QEMU {qemu} no longer has it"));
        }
        let upstream = matches!(machine.flavor, Flavor::Upstream | Flavor::Proxmox);
        (upstream && release(qemu) < release(machine.version)).then(|| format!("newer than QEMU {qemu}"))
    };
    let label = match host.machines.is_empty() {
        true => unlisted(),
        false => (!host.machines.contains(&machine.name)).then(|| "the host's QEMU has no such type".to_owned()),
    };
    let Some(label) = label else { return };
    let span = guest.machine_span();
    let refuser = guest.subject.refuser();
    let message = format!("{refuser}: the host's QEMU does not have machine type {}", quoted(&machine.name));
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, label));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "The host's QEMU does not have the machine type that the domain asks for, and libvirt does not start \
             the guest.",
    )],
    cause: &[Text(
        "The domain comes from a host with a newer QEMU, or from another distribution: RHEL, CentOS and Ubuntu \
             have machine types of their own. Or the host's QEMU was upgraded and no longer has the type: QEMU \
             removes machine types after about six years. This is checked only if the host's machine types, or at \
             least its QEMU version, are known.",
    )],
    history: &[Text(
        "When a domain is defined, libvirt replaces an alias such as `q35` by the newest machine type, and keeps that type. So the virtual hardware stays the same, and with it the memory map.",
    )],
    errors: &[
        ErrorText::libvirt(
            "when the domain is defined or started",
            "Emulator '/usr/bin/qemu-system-x86_64' does not support machine type 'pc-q35-99.0'",
        ),
        ErrorText::qemu("without libvirt", "unsupported machine type"),
        ErrorText::qemu("the same in QEMU 10", "unsupported machine type: \"pc-q35-99.0\""),
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`, set a machine type that the host has. For a guest with a passthrough device \
             and about 1 TiB of memory, or of room for it, choose one of 7.1 or newer:",
        ),
        Shell(
            "virsh capabilities | grep -o '>pc-[^<]*' | sort -uV\n\
             qemu-system-x86_64 -machine help",
        ),
        Text("Or install a newer QEMU on the host."),
        Text(
            "With a machine type of 7.1 or newer, a guest with an AMD CPU of 40 physical address bits and memory \
             that ends above 768 GiB needs 41 bits, and `iova-preflight fix` adds them: with 40, current firmware \
             puts BARs inside the guest's RAM or gives them no address.",
        ),
    ],
    verify: &[
        Text("Whether the host has the type, and which type an alias means:"),
        Shell(
            "virsh domcapabilities --machine pc-q35-6.2 | grep '<machine>'\n\
             virsh domcapabilities --machine q35 | grep '<machine>'",
        ),
    ],
    background: &[Topic::Layout],
};
