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
        let consequence = "a BAR that the guest's kernel places there has no peer-to-peer DMA";
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
        "The guest starts. The 64-bit PCI hole that QEMU counts with reaches into a range that the host's IOMMU \
         reserves. Nothing has to lie there: firmware does not know of the hole (for where it puts BARs see \
         bar-in-reserved-range). The guest's own kernel does, through ACPI, and may place the BAR of a device that is \
         plugged later there. Such a BAR works for the guest's CPUs; other passthrough devices cannot reach it \
         (peer-to-peer DMA, as GPUs use among one another).",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "The hole lies behind RAM and the window for memory devices; it has 32 GiB on q35 and 2 GiB on i440fx, \
             unless `<pcihole64>` says otherwise. Once firmware has placed 64-bit BARs elsewhere, ACPI describes it from \
             the lowest of them on. QEMU would have moved RAM, and the hole with it, but for the reason the finding \
             names.",
        ),
    ],
    history: &[
        shared::KERNEL,
        shared::QEMU,
        Text(
            "With those machine types QEMU also marks the range as reserved in the guest's E820 map; with older ones it \
             does not.",
        ),
    ],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "a warning in the guest's log, when the BAR is mapped",
            text: "failed to vfio_dma_map. pci p2p may not work",
        },
        ErrorText {
            by: Program::Qemu,
            when: "the same in QEMU 10",
            text: "0000:00:10.0: PCI peer-to-peer transactions on BARs are not supported.",
        },
    ],
    fix: &[
        Text(
            "A machine type of 7.1 or newer, or a smaller hole, if the devices' BARs fit into it. Nothing has to be \
             done if no device talks to another one.",
        ),
        Xml("<controller type='pci' index='0' model='pcie-root'>\n\
             \x20 <pcihole64 unit='GiB'>16</pcihole64>\n\
             </controller>"),
        shared::NEW_MACHINE,
    ],
    verify: &[
        shared::RESERVED[0],
        shared::RESERVED[1],
        shared::RESERVED[2],
        shared::WHERE_BARS_ARE[0],
        shared::WHERE_BARS_ARE[1],
    ],
};
