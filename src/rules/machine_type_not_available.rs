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
        "The host's QEMU does not have the machine type that the domain asks for: libvirt does not start it.",
    )],
    cause: &[Text(
        "The domain comes from a host with a newer QEMU, or from another distribution: RHEL, CentOS and Ubuntu have \
         types of their own. Or the host's QEMU has been upgraded so far that it dropped the type: QEMU removes types \
         that are older than about six years. The rule speaks only if the host's types, or at least the version of \
         its QEMU, are known.",
    )],
    history: &[Text(
        "Aliases such as `q35` are replaced by a versioned type when a domain is defined, and stay there for the \
         domain's life. That keeps the virtual hardware as it is, with the memory map it has.",
    )],
    errors: &[
        ErrorText {
            by: Program::Libvirt,
            when: "when the domain is defined or started",
            text: "Emulator '/usr/bin/qemu-system-x86_64' does not support machine type 'pc-q35-99.0'",
        },
        ErrorText { by: Program::Qemu, when: "asked without libvirt", text: "unsupported machine type" },
        ErrorText { by: Program::Qemu, when: "the same in QEMU 10", text: "unsupported machine type: \"pc-q35-99.0\"" },
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`, a type that the host has. Choose one of 7.1 or newer for a guest with a \
             passthrough device and about a TiB of memory or of room for it.",
        ),
        Shell(
            "virsh capabilities | grep -o '>pc-[^<]*' | sort -uV\n\
             qemu-system-x86_64 -machine help",
        ),
        Text("Or a newer QEMU on the host."),
        Text(
            "A guest with an AMD CPU of 40 physical address bits whose memory ends above 768 GiB needs 41 bits with a \
             type of 7.1 or newer, and `iova-preflight fix` adds them: with 40, current firmware puts the devices' BARs \
             into the guest's RAM, or gives them no address.",
        ),
    ],
    verify: &[
        Text("Whether the host has the type, and what an alias stands for:"),
        Shell(
            "virsh domcapabilities --machine pc-q35-6.2 | grep '<machine>'\n\
             virsh domcapabilities --machine q35 | grep '<machine>'",
        ),
    ],
};
