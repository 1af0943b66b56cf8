//! `memory-map-refused`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::tables::TableError;

pub(crate) const RULE: Rule = Rule {
    id: "memory-map-refused",
    summary: "QEMU gives up: it cannot describe the guest's memory map to the firmware",
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
        "The guest does not start: QEMU lays out its memory, but cannot describe the result to the guest's \
             firmware.",
    )],
    cause: &[
        Text(
            "Either `<pcihole64>` is so large that the hole would end beyond 64-bit addresses. QEMU does not \
             notice this when it checks the address bits, and fails an assertion when it writes the ACPI tables.",
        ),
        Text(
            "Or there is too much RAM for the machine type. Up to 8.0, a type has room for 64 KiB of SMBIOS \
             tables, which describe RAM in pieces of 16 GiB and are full at 18 TiB, earlier with many CPU sockets. \
             Up to 9.0, a type cannot number the pieces of 60 TiB or more.",
        ),
    ],
    history: &[Text(
        "Machine types of QEMU 8.1 and newer have a 64-bit SMBIOS entry point without this limit; those of 9.1 \
             and newer also use larger pieces.",
    )],
    errors: &[
        ErrorText::qemu(
            "the hole is too large",
            "range_invariant: Assertion `range->lob <= range->upb || range->lob == range->upb \
             + 1' failed.",
        ),
        ErrorText::qemu("too much RAM for the machine type", "SMBIOS 2.1 table length 66822 exceeds 65535"),
    ],
    fix: &[Text(
        "`iova-preflight fix` resets the hole to its default size, or sets a machine type that is new enough \
             for that much RAM. If the host's QEMU has none, give the guest less RAM with `virsh edit NAME`.",
    )],
    verify: &[shared::COMMAND_LINE[0], shared::COMMAND_LINE[1]],
    background: &[Topic::Layout, Topic::Looking],
};
