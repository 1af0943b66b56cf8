//! `not-modelled`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "not-modelled",
    summary: "raw QEMU arguments that are not modelled may change what is computed here",
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
        let message =
            format!("the {raw}QEMU argument `{shown}` is not modelled: what is said of this guest leaves it out");
        findings.push(Finding::new(RULE.id, Severity::Warning, message, origin.span(), "not modelled"));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The domain passes raw arguments to QEMU (`<qemu:commandline>`) that may change the memory map, the CPU or the \
         machine, and that are not modelled. What is said of the guest leaves them out and can be wrong, so that all \
         that QEMU or VFIO would refuse is a warning here and no error, and the hook does not stop the guest for it.",
    )],
    cause: &[Text(
        "libvirt puts raw arguments last, and QEMU merges them with what libvirt says. `-cpu`, `-m`, `-machine`, \
         `-numa`, `-global`, `-object`, `-device` and `<qemu:override>` are read as QEMU reads them. Left out are \
         `-readconfig`, `-set` of a device that libvirt writes, other accelerators than KVM and TCG, SGX and CXL memory, \
         values that QEMU does not take, and in the hook options as JSON (`-device {…}`).",
    )],
    history: &[Text(
        "Before libvirt 8.7 had `<maxphysaddr>`, a raw `-cpu` was the only way to physical address bits, and domains \
         from that time still have one.",
    )],
    errors: &[],
    fix: &[
        Text(
            "Say it in libvirt's own words where there are any: `<maxphysaddr>` for phys-bits, `<pcihole64>` for the \
             hole, `<feature>` for a CPU's features, `<maxMemory>` and `<memory model='…'>` for memory. `virsh edit \
             NAME`, and remove the raw argument.",
        ),
        Text("Whatever has no such words has to be checked by hand."),
    ],
    verify: &[
        Text("All arguments, those of the domain last:"),
        Shell("virsh domxml-to-native qemu-argv --domain NAME"),
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        shared::BITS[0],
        shared::BITS[1],
    ],
};
