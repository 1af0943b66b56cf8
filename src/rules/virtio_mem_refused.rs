//! `virtio-mem-refused`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::discard::Pinning;

pub(crate) const RULE: Rule = Rule {
    id: "virtio-mem-refused",
    summary: "QEMU refuses to start: virtio-mem does not go together with vDPA or locked memory",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (device, title, cause, other) = match guest.discard_refused {
        Some((device, Pinning::Vdpa(vdpa))) => (
            device,
            "QEMU refuses to start: virtio-mem does not go together with a vDPA device",
            "vhost-vdpa pins all of the guest's memory, and QEMU then lets no device give memory back to the host",
            Some((vdpa.span(), "pins all memory")),
        ),
        Some((device, Pinning::Locked)) => (
            device,
            "QEMU refuses to start: virtio-mem does not go together with locked memory",
            "<memoryBacking><locked/> keeps all of the guest's memory on the host, and virtio-mem gives memory back to it",
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
        "QEMU refuses to start the guest: a virtio-mem device gives memory back to the host, and something else in the guest \
         needs all of its memory to stay.",
    )],
    cause: &[
        Text(
            "vhost-vdpa pins the guest's memory for the device, and does not learn what virtio-mem plugs and unplugs. QEMU \
             refuses whichever of the two comes second. It is the same whether the vDPA device is one in hardware or in \
             software.",
        ),
        Text("So does `<memoryBacking><locked/>`, `-overcommit mem-lock=on`, which locks all of QEMU's memory."),
        Text(
            "VFIO and virtio-mem do go together: what is plugged is mapped, and what is unplugged is not. A memory balloon is \
             not refused beside either, and does nothing.",
        ),
    ],
    history: &[],
    errors: &[
        ErrorText { by: Program::Qemu, when: "virtio-mem beside vDPA", text: "Discarding RAM is disabled" },
        ErrorText {
            by: Program::Qemu,
            when: "`-device vhost-vdpa-device-pci` after virtio-mem",
            text: "Cannot set discarding of RAM broken",
        },
        ErrorText { by: Program::Qemu, when: "virtio-mem and locked memory", text: "Incompatible with mlock" },
    ],
    fix: &[
        Text(
            "Use DIMMs in the place of virtio-mem, or VFIO in the place of vDPA, or leave `<locked/>` out. `iova-preflight fix` \
             does not choose.",
        ),
        Xml("<memory model='dimm'>\n\
             \x20 <target>\n\
             \x20   <size unit='GiB'>16</size>\n\
             \x20   <node>0</node>\n\
             \x20 </target>\n\
             </memory>"),
    ],
    verify: &[
        Text("QEMU says it in the guest's log, of the device that comes second:"),
        Shell("tail -n 5 /var/log/libvirt/qemu/NAME.log"),
    ],
};
