//! What the rules about memory that the host does not map for DMA have in common.

use crate::address::{AMD_HT_START, GpaRange};
use crate::command_line::PassthroughKind;
use crate::finding::{Finding, Severity};
use crate::guest::{Exposure, Guest};
use crate::host::{FIRST_KERNEL_TO_KNOW_WIDTHS, FIRST_KERNEL_TO_REFUSE_RESERVED, Reserved, Unmappable, Why};
use crate::machine::Flavor;
use crate::qemu::layout::FIRST_RELOCATING_QEMU;
use crate::text::{self, quoted};

/// Names a reserved range.
pub(super) fn reserved_name(reserved: Reserved) -> String {
    let range = text::range(reserved.range);
    match reserved.range.start {
        AMD_HT_START => format!("the reserved HyperTransport range, {range}"),
        _ => format!("a reserved range ({}), {range}", reserved.kind.name()),
    }
}

/// Where something lies that the host does not map, as in "it lies …".
pub(super) fn place(unmappable: Unmappable) -> String {
    match (unmappable.reserved(), unmappable.width()) {
        (Some(reserved), _) => format!("in {}", reserved_name(reserved)),
        (None, bits) => above_width(bits.unwrap_or_default()),
    }
}

/// Names what lies above the address bits of the host's IOMMU.
pub(super) fn above_width(bits: u32) -> String {
    format!("above the {bits} bits that the host's IOMMU can address")
}

/// How bad it is that DMA cannot reach a part of the guest's memory.
pub(super) fn severity(guest: &Guest<'_>) -> Severity {
    match guest.exposure {
        Exposure::Present | Exposure::Assumed if guest.hides_memory => Severity::Warning,
        Exposure::Present | Exposure::Assumed => Severity::Error,
        Exposure::None | Exposure::MediatedOnly => Severity::Warning,
    }
}

/// The consequence.
fn consequence(guest: &Guest<'_>, unmappable: Unmappable) -> String {
    let kernel = guest.setting.host.kernel;
    let devices = &guest.passthrough;
    // It came with Linux 5.7.
    let vdpa = !devices.is_empty() && devices.iter().all(|device| device.kind == PassthroughKind::VhostVdpa);
    let lost = kernel.filter(|_| !vdpa && is_lost(guest, unmappable)).map(|kernel| {
        format!(
            "Linux {kernel} accepts the mapping, but it has no effect (unless the distribution has backported the \
             check of 5.4): the guest starts, and DMA to it is lost without a message"
        )
    });
    let error = match unmappable.why {
        Why::Width(_) if kernel.is_some_and(|kernel| kernel < FIRST_KERNEL_TO_KNOW_WIDTHS) => "-14, Bad address",
        _ => "-22, Invalid argument",
    };
    let who = if vdpa { "vhost-vdpa" } else { "VFIO" };
    match guest.exposure {
        // Measured with QEMU 7.2, 10.0 and 11.1, which start then.
        Exposure::Present | Exposure::Assumed if guest.hides_memory => {
            "with boot-bypass=off it is not mapped at start; QEMU aborts if the guest lets devices bypass its virtual \
             IOMMU"
                .to_owned()
        }
        Exposure::Present => lost.unwrap_or_else(|| format!("{who} refuses to map it ({error})")),
        Exposure::Assumed => {
            let own = guest.domain.is_some_and(|domain| domain.overrides.assume_passthrough == Some(true));
            let says = if own { "its <metadata>" } else { "the policy" };
            match lost {
                Some(lost) => format!("{lost}, for the passthrough device that {says} assumes"),
                None => {
                    format!("{who} would refuse to map it ({error}) for the passthrough device that {says} assumes")
                }
            }
        }
        Exposure::MediatedOnly => match lost {
            Some(_) => "mediated devices are unaffected; DMA of a PCI device attached later will be lost".to_owned(),
            None => "mediated devices are unaffected; attaching a PCI device later will fail".to_owned(),
        },
        Exposure::None => "nothing fails until a passthrough device is attached".to_owned(),
    }
}

/// Whether the kernel is known to map what the IOMMU reserves, so that DMA to it gets lost instead of refused. What an
/// IOMMU cannot address, its driver has always refused.
fn is_lost(guest: &Guest<'_>, unmappable: Unmappable) -> bool {
    let old = guest.setting.host.kernel.is_some_and(|kernel| kernel < FIRST_KERNEL_TO_REFUSE_RESERVED);
    old && unmappable.reserved().is_some()
}

/// A collision of `what` with something that the host does not map, with its cause and the places that have to do with
/// it.
pub(super) fn finding(
    guest: &Guest<'_>,
    rule: &'static str,
    what: &str,
    (common, unmappable): (GpaRange, Unmappable),
    span: crate::xml::Span,
    label: String,
) -> Finding {
    let amount = common.size().map_or_else(|| "all".to_owned(), text::size);
    let title = format!("{amount} of {what} lies {}", place(unmappable));
    let consequence = consequence(guest, unmappable);
    let cause = match cause(guest, unmappable) {
        Some(cause) => format!("{consequence}; {cause}"),
        None => consequence,
    };
    let finding = Finding::new(rule, severity(guest), title, span, label).because(cause).about(common);
    labelled(guest, unmappable, finding)
}

/// That memory which is hot-plugged later can land if the host does not map it; `None` if there is no room for any.
pub(super) fn in_window(
    guest: &Guest<'_>,
    rule: &'static str,
    window: GpaRange,
    (common, unmappable): (GpaRange, Unmappable),
) -> Option<Finding> {
    let plugged = guest.plugged.as_deref().unwrap_or_default();
    if is_covered(common, plugged.iter().map(|device| device.range)) {
        return None;
    }
    let then = match is_lost(guest, unmappable) {
        true => "DMA to memory hot-plugged into it is lost without a message",
        false => "hot-plugging memory into it aborts the running guest",
    };
    let consequence = match guest.exposure {
        Exposure::Present | Exposure::Assumed => then.to_owned(),
        Exposure::None | Exposure::MediatedOnly => format!("once a passthrough device is attached, {then}"),
    };
    let reaches = match unmappable.reserved() {
        Some(reserved) => format!("into {}", reserved_name(reserved)),
        None => place(unmappable),
    };
    let title = format!("the window for memory hot-plug reaches {reaches}");
    let cause = cause(guest, unmappable).map_or(consequence.clone(), |cause| format!("{consequence}; {cause}"));
    let span = guest.maxmem_span().unwrap_or(guest.whole());
    let label = format!("the window takes up {}, including 1 GiB per slot", text::range(window));
    let finding = Finding::new(rule, Severity::Warning, title, span, label).because(cause).about(common);
    Some(labelled(guest, unmappable, finding))
}

/// Whether plugged devices take up all of `range`, so that nothing more can land there.
fn is_covered(range: GpaRange, plugged: impl Iterator<Item = GpaRange>) -> bool {
    let mut ranges: Vec<GpaRange> = plugged.collect();
    ranges.sort_unstable();
    let mut free_from = range.start;
    for taken in ranges {
        if taken.start > free_from {
            break;
        }
        if taken.end >= range.end {
            return true;
        }
        free_from = free_from.max(taken.end.saturating_add(1));
    }
    false
}

/// Why the memory is where it collides; `None` if QEMU had no choice.
pub(super) fn cause(guest: &Guest<'_>, unmappable: Unmappable) -> Option<String> {
    let layout = guest.layout()?;
    match (unmappable.why, layout.relocated) {
        (Why::Width(_), true) => return Some("QEMU has moved RAM above 1 TiB".to_owned()),
        (Why::Width(_), false) | (Why::Reserved(_), true) => return None,
        (Why::Reserved(_), false) => {}
    }
    let (machine, cpu) = (guest.setting.machine, guest.cpu()?);
    // A version that is only assumed is not a cause.
    if guest.setting.host.qemu.is_some_and(|qemu| qemu < FIRST_RELOCATING_QEMU) {
        Some(format!("QEMU {} never moves RAM out of the way; 7.1 is the first version that does", guest.setting.qemu))
    } else if !machine.enforces_amd_1tb_hole {
        let older = match machine.flavor {
            Flavor::Upstream | Flavor::Proxmox => "is older than 7.1".to_owned(),
            Flavor::Rhel | Flavor::Ubuntu => {
                format!("behaves like QEMU {}.{}, older than 7.1", machine.version.major, machine.version.minor)
            }
        };
        Some(format!("machine type {} {older}, so QEMU does not move RAM above 1 TiB", quoted(&machine.name)))
    } else if !cpu.is_amd() {
        let vendor = cpu.vendor.as_deref().unwrap_or("unknown");
        Some(format!("QEMU moves RAM above 1 TiB only if the guest's CPU vendor is AuthenticAMD, but it is {vendor}"))
    } else {
        None
    }
}

/// Points at what the cause is, and at the device that makes it fail.
pub(super) fn labelled(guest: &Guest<'_>, unmappable: Unmappable, mut finding: Finding) -> Finding {
    let machine = guest.setting.machine;
    if unmappable.reserved().is_none() {
        // It does not depend on whether QEMU moves RAM.
    } else if !machine.enforces_amd_1tb_hole {
        if let Some(kind) = guest.line.machine.kind.as_ref().filter(|kind| kind.origin.span() != guest.whole()) {
            finding = finding.with_label(kind.origin.span(), "does not move RAM above 1 TiB");
        }
    } else if guest.cpu().is_some_and(|cpu| !cpu.is_amd())
        && let Some(span) = guest.vendor_span()
    {
        finding = finding.with_label(span, "not AuthenticAMD");
    }
    // Mediated devices are unaffected; one of the others is enough to show.
    let device = guest.passthrough.iter().find(|device| device.kind != PassthroughKind::VfioMdev);
    if let Some(device) = device.filter(|_| finding.severity == Severity::Error) {
        finding = finding.with_label(device.origin.span(), "needs DMA to all of the guest's memory");
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gapless_row_of_devices_covers() {
        let range = GpaRange::inclusive(10, 29);
        let r = GpaRange::inclusive;
        assert!(is_covered(range, [r(20, 40), r(0, 19)].into_iter()));
        assert!(!is_covered(range, [r(21, 40), r(0, 19)].into_iter()));
        assert!(!is_covered(range, [r(0, 28)].into_iter()));
        assert!(!is_covered(range, std::iter::empty()));
    }
}
