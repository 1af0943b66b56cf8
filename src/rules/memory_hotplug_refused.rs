//! `memory-hotplug-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "memory-hotplug-refused",
    summary: "QEMU refuses to start: slots and maxmem do not go together, or not with the machine",
    by: Refuser::Qemu,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(why) = &guest.memory_refusal else { return };
    let span = guest.maxmem_span().or(guest.ram_span()).unwrap_or(guest.whole());
    let message = format!("QEMU refuses to start: {why}");
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "memory hot-plug is asked for here"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: `<maxMemory>` and its slots do not go together, or not with the machine \
         type.",
    )],
    cause: &[Text(
        "There are slots but `<maxMemory>` is no more than the initial memory, which is what is left when a guest was \
         grown up to its maximum; or more than 256 slots; or a machine type so old that it has no memory hot-plug \
         (`pc-i440fx-2.0` and older); or a DIMM in a guest without ACPI, through which it would be announced.",
    )],
    history: &[Text("libvirt passes all of these on, and only QEMU looks at them, when the guest starts.")],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "slots without room",
            text: "invalid value of maxmem: memory slots were specified but maximum memory size (0x40000000) is equal \
                   to the initial memory size (0x40000000)",
        },
        ErrorText {
            by: Program::Qemu,
            when: "maxMemory below the cells, each rounded up to a MiB",
            text: "invalid value of maxmem: maximum memory size (0x100000) must be at least the initial memory size \
                   (0x200000)",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the machine type has no hot-plug",
            text: "\"-memory 'slots|maxmem'\" is not supported by: pc-i440fx-2.0",
        },
        ErrorText { by: Program::Qemu, when: "too many slots", text: "unsupported amount of memory slots: 300" },
        ErrorText {
            by: Program::Qemu,
            when: "a DIMM without ACPI",
            text: "memory hotplug is not enabled: missing acpi device or acpi disabled",
        },
    ],
    fix: &[
        Text("With `virsh edit NAME`: remove `<maxMemory>`, or make it larger than the memory the guest starts with."),
        Xml("<maxMemory slots='16' unit='GiB'>512</maxMemory>\n\
             <memory unit='GiB'>256</memory>"),
        Text("`iova-preflight fix` does not choose: how far a guest may grow is not for a program to say."),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -m size=1G,slots=4,maxmem=1G"),
    ],
};
