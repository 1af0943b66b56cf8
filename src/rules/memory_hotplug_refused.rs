//! `memory-hotplug-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "memory-hotplug-refused",
    summary: "QEMU refuses to start: slots and maxMemory contradict each other, or the machine has no hot-plug",
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
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "memory hot-plug is requested here"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: `<maxMemory>` and its slots contradict each other, or the machine \
             does not support memory hot-plug.",
    )],
    cause: &[Text(
        "One of these: there are slots, but `<maxMemory>` is no more than the initial memory (this is left \
             when a guest was grown to its maximum); there are more than 256 slots; the machine type is too old \
             for memory hot-plug (`pc-i440fx-2.0` and older); or there is a DIMM in a guest without ACPI, which \
             would announce it.",
    )],
    history: &[Text("libvirt accepts all of these; QEMU checks them when the guest starts.")],
    errors: &[
        ErrorText::qemu(
            "slots without room",
            "invalid value of maxmem: memory slots were specified but maximum memory size \
             (0x40000000) is equal to the initial memory size (0x40000000)",
        ),
        ErrorText::qemu(
            "maxMemory is less than all NUMA cells, each rounded up to 1 MiB",
            "invalid value of maxmem: maximum memory size (0x100000) must be at least the \
             initial memory size (0x200000)",
        ),
        ErrorText::qemu(
            "the machine type has no hot-plug",
            "\"-memory 'slots|maxmem'\" is not supported by: pc-i440fx-2.0",
        ),
        ErrorText::qemu("too many slots", "unsupported amount of memory slots: 300"),
        ErrorText::qemu("a DIMM without ACPI", "memory hotplug is not enabled: missing acpi device or acpi disabled"),
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`, remove `<maxMemory>` or make it larger than the memory that the guest starts \
             with:",
        ),
        Xml("<maxMemory slots='16' unit='GiB'>512</maxMemory>\n\
             <memory unit='GiB'>256</memory>"),
        Text("`iova-preflight fix` does not do this: only you know how far the guest should be able to grow."),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -m size=1G,slots=4,maxmem=1G"),
    ],
    background: &[Topic::Layout, Topic::Looking],
};
