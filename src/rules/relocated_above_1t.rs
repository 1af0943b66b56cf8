//! `relocated-above-1t`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::address::{AMD_HT_START, GIB, total};
use crate::command_line::{Memory, Origin, Passthrough, PassthroughKind};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
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
    let Some(layout) = guest.layout() else { return };
    let Some(ram) = layout.ram_above_4g.filter(|_| layout.relocated) else { return };
    let range = text::range(ram);
    let device = guest.passthrough.iter().find(|device| is_maybe_gpu(guest, device));
    let (severity, title) = match device.filter(|_| guest.is_windows()) {
        Some(_) => (Severity::Warning, format!("a GPU driver in this Windows guest may fail: RAM is moved to {range}")),
        None => (Severity::Note, format!("QEMU moves the RAM above 4 GiB to {range}")),
    };
    // The largest `<maxMemory>` that keeps it below.
    let maximum = guest.maxmem_span().filter(|_| layout.device_memory.is_some());
    let slots = guest.memory().map_or(0, Memory::slots);
    let sizes = guest.plugged.iter().flatten().filter_map(|device| device.range.size());
    let plugged = total(sizes);
    let stays = layout.maxmem_that_stays(guest.ram, slots).filter(|&most| most >= guest.ram.saturating_add(plugged));
    let reason = match (maximum, stays) {
        (Some(_), Some(most)) if most >= guest.ram.saturating_add(GIB) => {
            let slots = if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") };
            let most = text::size(most & !(GIB - 1));
            let element = if guest.domain.is_some() { "a <maxMemory>" } else { "maxmem" };
            format!(
                "because of memory hot-plug alone; {element} of at most {most} with {slots} would keep it below 1 \
                     TiB"
            )
        }
        (Some(_), Some(_)) => "because of memory hot-plug alone; without it, or with fewer slots, RAM would stay \
                               below 1 TiB"
            .to_owned(),
        _ => "so that none of it lies just below 1 TiB".to_owned(),
    };
    let mut cause = match severity {
        Severity::Note => format!("some Windows GPU drivers do not work with RAM up there; QEMU moves it {reason}"),
        _ => format!("NVIDIA drivers report Code 43 with RAM up there; QEMU moves it {reason}"),
    };
    let needless = guest.setting.host.knows_reserved()
        && !guest.unmappable.iter().any(|r| r.range.start <= AMD_HT_START && r.range.end >= AMD_HT_START);
    if needless {
        cause += "; this host reserves nothing there, but QEMU cannot tell";
    }
    let span = guest.ram_span().unwrap_or(guest.whole());
    let mut finding = Finding::new(RULE.id, severity, title, span, "moved above 1 TiB").because(cause).about(ram);
    if let Some(maximum) = maximum {
        finding = finding.with_label(maximum, "counted in full, plus 1 GiB per slot");
    }
    findings.push(finding);
}

/// Whether a passthrough device may be a GPU; not a network interface, nor a virtio device over vDPA.
fn is_maybe_gpu(guest: &Guest<'_>, device: &Passthrough) -> bool {
    let written = guest.domain.map(|domain| domain.passthrough.as_slice()).unwrap_or_default();
    let mut networks = written.iter().filter(|device| device.network);
    let is_network = networks.any(|network| Origin::Xml(network.span) == device.origin);
    !is_network && device.kind != PassthroughKind::VhostVdpa
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning, Severity::Note],
    meaning: &[Text(
        "QEMU moves all of the guest's RAM above 4 GiB to 1 TiB, so that none of it lies in the range that AMD \
             hosts reserve. This is expected; usually no action is needed. It is a warning for a Windows guest \
             with a device that may be a GPU: NVIDIA's drivers are reported to fail with Code 43 then.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "QEMU moves RAM if the end of the memory map, including the 64-bit PCI hole, would be above 1012 GiB: \
             from 979 GiB of RAM on with q35, from 1010 GiB on with i440fx. Room for hot-plug counts like RAM, plus 1 \
             GiB per slot, so `<maxMemory>` alone can move the memory of a small guest. It makes no difference \
             whether the guest has a passthrough device, or whether the host reserves the range at all.",
        ),
    ],
    history: &[Text(
        "Two problems are known. Addresses above 1 TiB need at least 41 physical address bits (see \
             phys-bits-too-low). And NVIDIA's drivers in Windows guests are reported to fail with Code 43 when RAM \
             is above 1 TiB (RHEL-98247). A guest counts as Windows if it has Hyper-V enlightenments \
             (`<features><hyperv>`) or if libosinfo's metadata say so.",
    )],
    errors: &[],
    fix: &[Text(
        "Nothing, unless a driver in the guest fails. If one does, keep the map below 1012 GiB: set a smaller \
             `<maxMemory>`, fewer slots or a smaller `<pcihole64>` with `virsh edit NAME`. The guest picks it up \
             at its next cold start.",
    )],
    verify: &[
        shared::MAP[0],
        shared::MAP[1],
        shared::MAP[2],
        Text("In a Linux guest:"),
        Shell("sudo grep 'System RAM' /proc/iomem"),
    ],
    background: &[Topic::HyperTransport, Topic::Layout, Topic::Looking],
};
