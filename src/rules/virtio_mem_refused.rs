//! `virtio-mem-refused`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::discard::Pinning;

pub(crate) const RULE: Rule = Rule {
    id: "virtio-mem-refused",
    summary: "QEMU refuses to start: virtio-mem cannot be combined with vDPA or locked memory",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (device, title, cause, other) = match guest.discard_refused {
        Some((device, Pinning::Vdpa(vdpa))) => (
            device,
            "QEMU refuses to start: virtio-mem cannot be combined with a vDPA device",
            "vhost-vdpa pins all of the guest's memory, so QEMU lets no device give memory back to the host",
            Some((vdpa.span(), "pins all memory")),
        ),
        Some((device, Pinning::Locked)) => (
            device,
            "QEMU refuses to start: virtio-mem cannot be combined with locked memory",
            "<memoryBacking><locked/> locks all of the guest's memory, but virtio-mem gives memory back to the host",
            None,
        ),
        None => return,
    };
    let finding = Finding::new(RULE.id, Severity::Error, title, device.span(), "refused").because(cause);
    findings.push(match other {
        Some((span, words)) => finding.with_label(span, words),
        None => finding,
    });
}

const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: a virtio-mem device gives memory back to the host, but something \
             else in the guest needs all of its memory to stay.",
    )],
    cause: &[
        Text(
            "vhost-vdpa pins the guest's memory for the device, and does not learn what virtio-mem plugs and \
             unplugs. QEMU refuses whichever of the two comes second, no matter whether the vDPA device is \
             implemented in hardware or in software.",
        ),
        Text("`<memoryBacking><locked/>` (`-overcommit mem-lock=on`) needs all of QEMU's memory to stay, too."),
        Text(
            "virtio-mem works together with VFIO, which maps what is plugged and nothing else. A memory balloon is \
             not refused beside any of these, but does nothing.",
        ),
    ],
    history: &[],
    errors: &[
        ErrorText::qemu("virtio-mem beside vDPA", "Discarding RAM is disabled"),
        ErrorText::qemu("`-device vhost-vdpa-device-pci` after virtio-mem", "Cannot set discarding of RAM broken"),
        ErrorText::qemu("virtio-mem and locked memory", "Incompatible with mlock"),
    ],
    fix: &[
        Text(
            "Use DIMMs instead of virtio-mem, use VFIO instead of vDPA, or remove `<locked/>`. `iova-preflight \
             fix` does not choose.",
        ),
        Xml("<memory model='dimm'>\n\
             \x20 <target>\n\
             \x20   <size unit='GiB'>16</size>\n\
             \x20   <node>0</node>\n\
             \x20 </target>\n\
             </memory>"),
    ],
    verify: &[
        Text("QEMU says so in the guest's log, for the device that comes second:"),
        Shell("tail -n 5 /var/log/libvirt/qemu/NAME.log"),
    ],
    background: &[Topic::LockedMemory],
};
