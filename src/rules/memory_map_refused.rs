//! `memory-map-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::tables::TableError;

pub(crate) const RULE: Rule = Rule {
    id: "memory-map-refused",
    summary: "QEMU gives up on the memory map: it cannot describe it to the firmware",
    by: Refuser::Qemu,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(error) = guest.table_refusal else { return };
    let hole = guest.pci_hole64_size.map(|hole| hole.origin.span()).filter(|_| error == TableError::HoleWraps);
    let span = hole.or(guest.ram_span()).unwrap_or(guest.whole());
    let message = format!("QEMU refuses to start: {error}");
    findings.push(Finding::new(RULE.id, Severity::Error, message, span, "too large"));
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU lays the guest's memory out and then gives up: it cannot describe the result to the guest's firmware.",
    )],
    cause: &[
        Text(
            "`<pcihole64>` is so large that the hole would end beyond 64-bit addresses. QEMU does not notice when it \
             counts the address bits, and ends with a failed assertion when it writes the ACPI tables.",
        ),
        Text(
            "Machine types up to 8.0 have room for 64 KiB of SMBIOS tables. RAM is described there in pieces of 16 GiB, \
             which fill them at 18 TiB, earlier with many CPU sockets. Types up to 9.0 have no numbers for the pieces \
             of 60 TiB or more.",
        ),
    ],
    history: &[Text(
        "Since QEMU 8.1 new machine types have a 64-bit SMBIOS entry point without that limit, since 9.1 larger pieces.",
    )],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "the hole",
            text: "range_invariant: Assertion `range->lob <= range->upb || range->lob == range->upb + 1' failed.",
        },
        ErrorText { by: Program::Qemu, when: "RAM", text: "SMBIOS 2.1 table length 66822 exceeds 65535" },
    ],
    fix: &[Text(
        "`iova-preflight fix` makes the hole as large as it is by default, and finds a machine type that is new enough \
             for that much RAM. Where the host's QEMU has none, choose less RAM with `virsh edit NAME`.",
    )],
    verify: &[shared::COMMAND_LINE[0], shared::COMMAND_LINE[1]],
};
