//! `not-modelled`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "not-modelled",
    summary: "raw QEMU arguments that are not modelled may change the result",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let raw = if guest.domain.is_some() { "raw " } else { "" };
    let not_modelled = guest.line.not_modelled.iter().map(|entry| (&entry.option, &entry.value, entry.origin));
    // Not all arguments that libvirt writes are known, and these may refer to one of them.
    let refused = guest.line.refused.iter().filter(|_| guest.domain.is_some());
    let refused = refused.map(|entry| (&entry.option, &entry.value, entry.origin));
    for (option, value, origin) in not_modelled.chain(refused) {
        let shown = format!("{} {}", quoted(option), quoted(value));
        let shown = shown.trim_start();
        let message = format!("the {raw}QEMU argument `{shown}` is not modelled: the verdict ignores it");
        findings.push(Finding::new(RULE.id, Severity::Warning, message, origin.span(), "not modelled"));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain passes raw arguments to QEMU (`<qemu:commandline>`) that are not modelled and may change \
             the memory map, the CPU or the machine. The guest is evaluated without them, so the result can be \
             wrong. Therefore everything that QEMU or VFIO would refuse is only a warning here, and the hook does \
             not stop the guest.",
    )],
    cause: &[Text(
        "libvirt puts raw arguments last, and QEMU merges them with libvirt's. `-cpu`, `-m`, `-machine`, \
             `-numa`, `-global`, `-object`, `-device` and `<qemu:override>` are read as QEMU reads them. Not \
             modelled are `-readconfig`, `-set` of a device that libvirt adds, accelerators other than KVM and \
             TCG, SGX and CXL memory, values that QEMU does not accept and, in the hook, options in JSON (`-device \
             {…}`).",
    )],
    history: &[Text(
        "Before libvirt 8.7 added `<maxphysaddr>`, only a raw `-cpu` could set physical address bits, and \
             domains of that time still have one.",
    )],
    errors: &[],
    fix: &[
        Text(
            "Use libvirt's own elements where there are any: `<maxphysaddr>` for phys-bits, `<pcihole64>` for the \
             hole, `<feature>` for CPU features, `<maxMemory>` and `<memory model='…'>` for memory. Then remove \
             the raw argument with `virsh edit NAME`.",
        ),
        Text("Check everything else by hand."),
    ],
    verify: &[
        Text("All arguments, the domain's own last:"),
        Shell("virsh domxml-to-native qemu-argv --domain NAME"),
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        shared::BITS[0],
        shared::BITS[1],
    ],
    background: &[Topic::Looking],
};
