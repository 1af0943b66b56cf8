//! What the rules about reserved ranges have in common.

use crate::address::{AMD_HT_START, GpaRange};
use crate::command_line::PassthroughKind;
use crate::finding::{Finding, Severity};
use crate::guest::{Exposure, Guest};
use crate::host::Reserved;
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

/// How bad it is that DMA cannot reach a part of the guest's memory.
pub(super) fn severity(guest: &Guest<'_>) -> Severity {
    match guest.exposure {
        Exposure::Present | Exposure::Assumed => Severity::Error,
        Exposure::None | Exposure::MediatedOnly => Severity::Warning,
    }
}

/// What comes of it.
fn consequence(guest: &Guest<'_>) -> String {
    let devices = &guest.passthrough;
    let vdpa = !devices.is_empty() && devices.iter().all(|device| device.kind == PassthroughKind::VhostVdpa);
    let who = if vdpa { "vhost-vdpa" } else { "VFIO" };
    match guest.exposure {
        Exposure::Present => format!("{who} refuses to map it (-22, Invalid argument)"),
        Exposure::Assumed => {
            let own = guest.domain.is_some_and(|domain| domain.overrides.assume_passthrough == Some(true));
            let says = if own { "its <metadata>" } else { "the policy" };
            format!(
                "{who} would refuse to map it (-22, Invalid argument) for the passthrough device that {says} assumes"
            )
        }
        Exposure::MediatedOnly => "mediated devices are unaffected; attaching a PCI device later will fail".to_owned(),
        Exposure::None => "nothing fails until a passthrough device is attached".to_owned(),
    }
}

/// A collision of `what` with a reserved range, with its cause and the places that have to do with it.
pub(super) fn finding(
    guest: &Guest<'_>,
    rule: &'static str,
    what: &str,
    (common, reserved): (GpaRange, Reserved),
    span: crate::xml::Span,
    label: String,
) -> Finding {
    let amount = common.size().map_or_else(|| "all".to_owned(), text::size);
    let title = format!("{amount} of {what} lies in {}", reserved_name(reserved));
    let cause = match cause(guest) {
        Some(cause) => format!("{}; {cause}", consequence(guest)),
        None => consequence(guest),
    };
    let finding = Finding::new(rule, severity(guest), title, span, label).because(cause).about(common);
    labelled(guest, finding)
}

/// Why QEMU left the memory where it collides; `None` where it is no matter of the HyperTransport range.
pub(super) fn cause(guest: &Guest<'_>) -> Option<String> {
    let layout = guest.layout()?;
    if layout.relocated {
        return None;
    }
    let (machine, cpu) = (guest.setting.machine, guest.cpu()?);
    // A version that is only assumed is no cause.
    if guest.setting.host.qemu.is_some_and(|qemu| qemu < FIRST_RELOCATING_QEMU) {
        Some(format!("QEMU {} never moves RAM out of the way, 7.1 is the first that does", guest.setting.qemu))
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
        Some(format!("QEMU moves RAM above 1 TiB for AuthenticAMD only, and the guest's CPU vendor is {vendor}"))
    } else {
        None
    }
}

/// Points at what the cause is, and at the device that makes it fail.
pub(super) fn labelled(guest: &Guest<'_>, mut finding: Finding) -> Finding {
    let machine = guest.setting.machine;
    if !machine.enforces_amd_1tb_hole {
        if let Some(kind) = guest.line.machine.kind.as_ref().filter(|kind| kind.origin.span() != guest.whole()) {
            finding = finding.with_label(kind.origin.span(), "does not move RAM above 1 TiB");
        }
    } else if guest.cpu().is_some_and(|cpu| !cpu.is_amd())
        && let Some(span) = guest.vendor_span()
    {
        finding = finding.with_label(span, "not AuthenticAMD");
    }
    // A mediated device does not need it; of the others, one is enough to show.
    let device = guest.passthrough.iter().find(|device| device.kind != PassthroughKind::VfioMdev);
    if let Some(device) = device.filter(|_| finding.severity == Severity::Error) {
        finding = finding.with_label(device.origin.span(), "needs DMA to all of the guest's memory");
    }
    finding
}
