//! `relocated-above-1t`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::layout::AMD_HT_START;
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "relocated-above-1t",
    summary: "QEMU moves RAM above 1 TiB",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(layout), Some(span)) = (guest.layout(), guest.ram_span()) else { return };
    let Some(ram) = layout.ram_above_4g.filter(|_| layout.relocated) else { return };
    let needless = guest.setting.host.knows_reserved()
        && !guest.unmappable.iter().any(|r| r.range.start <= AMD_HT_START && r.range.end >= AMD_HT_START);
    let title = format!("QEMU moves the RAM above 4 GiB to {}", text::range(ram));
    let mut cause = "some Windows GPU drivers do not work with RAM up there".to_owned();
    if needless {
        cause += "; this host reserves nothing there, but QEMU cannot tell";
    }
    let mut finding = Finding::new(RULE.id, Severity::Note, title, span, "moved above 1 TiB").because(cause).about(ram);
    if let Some(maximum) = guest.domain.max_memory.filter(|_| layout.device_memory.is_some()) {
        finding = finding.with_label(maximum.span, "counts, and a GiB for each slot");
    }
    findings.push(finding);
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Note],
    meaning: &[Text(
        "Good to know: QEMU moves all of the guest's RAM above 4 GiB to 1 TiB, so that nothing lies in the range that \
         AMD hosts reserve. This is what is meant to happen, and the guest is well.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU moves RAM if the end of its memory map, the 64-bit PCI hole included, would be 1012 GiB or more: a \
             q35 guest from 979 GiB of RAM on, an i440fx guest from 1010 GiB on. Room for hot-plug counts like RAM, \
             and each slot takes a GiB, so that `<maxMemory>` alone can move the memory of a small guest. Whether the \
             guest has a passthrough device, and whether the host reserves the range at all, makes no difference.",
        ),
    ],
    history: &[
        shared::QEMU,
        Text(
            "Two things have been seen to come of it. Addresses above 1 TiB need at least 41 physical address bits \
             (see phys-bits-too-low). And NVIDIA drivers in Windows guests have been reported to give up with Code 43 \
             when RAM lies up there.",
        ),
    ],
    errors: &[],
    fix: &[Text(
        "Nothing. If a driver in the guest does not bear it, keep the map below 1012 GiB: a smaller `<maxMemory>`, \
         fewer slots, or a smaller `<pcihole64>`. With `virsh edit NAME`; the guest picks it up at its next cold \
         start.",
    )],
    verify: &[
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        Text("In a Linux guest:"),
        Shell("sudo grep 'System RAM' /proc/iomem"),
    ],
};
