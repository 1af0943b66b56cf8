//! `pci-hole-in-reserved-range`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "pci-hole-in-reserved-range",
    summary: "the 64-bit PCI hole reaches into a range reserved by the host's IOMMU",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(hole) = guest.layout().and_then(|layout| layout.pci_hole64) else { return };
    for (common, unmappable) in guest.in_reserved(hole) {
        let Some(reserved) = unmappable.reserved() else { continue };
        let title = format!("the 64-bit PCI hole reaches into {}", collision::reserved_name(reserved));
        let consequence = "peer-to-peer DMA to BARs that the guest's kernel places there fails";
        let cause = collision::cause(guest, unmappable)
            .map_or(consequence.to_owned(), |cause| format!("{consequence}; {cause}"));
        let takes = format!("the hole takes up {}", text::range(hole));
        let told = guest.pci_hole64_size.map(|size| size.origin.span());
        let span = told.or(guest.ram_span()).unwrap_or(guest.whole());
        let finding = Finding::new(RULE.id, Severity::Warning, title, span, takes).because(cause).about(common);
        findings.push(collision::labelled(guest, unmappable, finding));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The guest starts. QEMU's 64-bit PCI hole overlaps a range that the host's IOMMU reserves, and the \
             guest's kernel, which learns of the hole through ACPI, may place the BAR of a device plugged later \
             there. The guest's CPUs reach such a BAR; other passthrough devices do not (peer-to-peer DMA, as \
             between GPUs). Firmware does not know of the hole; for where it places BARs see \
             bar-in-reserved-range.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "The hole comes after RAM and the window for memory devices. It is 32 GiB on q35 and 2 GiB on i440fx, \
             unless `<pcihole64>` sets another size. If firmware has placed 64-bit BARs elsewhere, ACPI describes \
             the hole from the lowest BAR on. QEMU would have moved RAM and the hole, but did not for the reason \
             that the finding names.",
        ),
    ],
    history: &[Text(
        "With machine types of 7.1 or newer, QEMU also marks the range as reserved in the guest's E820 map; \
             with older ones it does not.",
    )],
    errors: &[
        ErrorText::qemu(
            "a warning in the guest's log when the BAR is mapped",
            "failed to vfio_dma_map. pci p2p may not work",
        ),
        ErrorText::qemu(
            "the same in QEMU 10",
            "0000:00:10.0: PCI peer-to-peer transactions on BARs are not supported.",
        ),
    ],
    fix: &[
        Text(
            "If no device talks to another one, no action is needed. Otherwise use a machine type of 7.1 or newer, \
             or a smaller hole if the BARs still fit into it:",
        ),
        Xml("<controller type='pci' index='0' model='pcie-root'>\n\
             \x20 <pcihole64 unit='GiB'>16</pcihole64>\n\
             </controller>"),
        shared::NEW_MACHINE,
    ],
    verify: &[shared::RESERVED[0], shared::RESERVED[1], shared::WHERE_BARS_ARE[0], shared::WHERE_BARS_ARE[1]],
    background: &[Topic::HyperTransport, Topic::Layout, Topic::Bars, Topic::Looking],
};
