//! `locked-memory-too-low`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::locked_memory::{LockLimit, MARGIN};
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "locked-memory-too-low",
    summary: "QEMU may not lock as much memory as the guest's devices need (RLIMIT_MEMLOCK)",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(limit) = guest.lock_limit else { return };
    let (pinned, needs) = (guest.pinned, guest.pinned.needs());
    let version = guest.setting.host.libvirt.map(|version| version.to_string()).unwrap_or_default();
    let (bytes, span, label, why) = match limit {
        LockLimit::Unlimited => return,
        LockLimit::Hard(bytes, span) => {
            let why = match guest.computed_lock_limit {
                Some(own) if own >= needs => {
                    format!("set it to {0} or more, or remove it: libvirt then sets {0}", text::size(own))
                }
                _ => format!("set it to {} or more", text::size(needs.saturating_add(MARGIN))),
            };
            (
                bytes,
                span,
                "the limit for locked memory",
                format!("libvirt makes it the limit for locked memory of QEMU; {why}"),
            )
        }
        LockLimit::Computed(bytes) => {
            let why = format!(
                "libvirt {version} sets the limit for locked memory to {} for this guest; set <hard_limit> to {} or more",
                text::size(bytes),
                text::size(needs.saturating_add(MARGIN))
            );
            (bytes, guest.whole(), "without <hard_limit>", why)
        }
        LockLimit::Inherited => {
            let why = format!(
                "libvirt {version} does not raise the limit for locked memory for this guest; set <hard_limit> to {} or more",
                text::size(needs.saturating_add(MARGIN))
            );
            (0, guest.whole(), "without <hard_limit>", why)
        }
    };
    let (severity, title) = if bytes < pinned.at_start {
        let title = format!(
            "QEMU refuses to start: VFIO locks {} of guest memory, and QEMU may lock {}",
            text::size(pinned.at_start),
            text::size(bytes)
        );
        (Severity::Error, title)
    } else if bytes < needs {
        let devices = if pinned.vfio >= pinned.vdpa { "VFIO" } else { "vhost-vdpa" };
        let may = if limit == LockLimit::Inherited { "less".to_owned() } else { text::size(bytes) };
        let title =
            format!("DMA mappings may fail: {devices} locks up to {}, and QEMU may lock {may}", text::size(needs));
        (Severity::Warning, title)
    } else {
        return;
    };
    let mut finding = Finding::new(RULE.id, severity, title, span, label).because(why);
    if let Some(device) = guest.passthrough.first() {
        finding = finding.with_label(device.origin.span(), "locks the guest's memory");
    }
    findings.push(finding);
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "A device can reach guest memory by DMA only while that memory is pinned, and the kernel counts pinned memory as \
         locked by QEMU. QEMU may lock less (RLIMIT_MEMLOCK) than the guest's devices need: it does not start, or it ends, or \
         a device does not work, when the limit is reached.",
    )],
    cause: &[
        Text(
            "VFIO pins all of the guest's RAM before the guest runs. An error says that the limit is less than the RAM and the \
             memory devices that are plugged from the start; a warning that it is less than what may be pinned in all:",
        ),
        Output(
            "what                                  counts\n\
             VFIO devices                          once for all, with a virtual IOMMU (<iommu>) once for each\n\
             mediated devices (vGPU)               what the driver pins as it needs it\n\
             NVMe disks (<disk type='nvme'>)       once for each\n\
             vDPA devices in hardware              once for each, in a count of its own\n\
             vDPA devices in software              nothing",
        ),
        Text(
            "Each of them pins RAM, memory devices, and memory that emulated devices have in BARs (`<shmem>`). Memory on huge \
             pages counts as any other; the passthrough devices' own BARs do not. libvirt computes a limit from the same: guest \
             memory as often as it counts, and 1 GiB once. With `<memoryBacking><locked/>` it sets no limit. But a \
             `<memtune><hard_limit>` is taken for the limit, whatever it is; it is the limit of the guest's memory cgroup, too.",
        ),
        Text(
            "QEMU that runs with CAP_IPC_LOCK has no limit for VFIO. libvirt takes that away from QEMU, with `user = \"root\"` \
             too.",
        ),
    ],
    history: &[Text(
        "libvirt counts vDPA devices since 7.2, guest memory once for each of them (and for each VFIO device where there is a \
         virtual IOMMU) since 8.7, and NVMe disks since 9.3. Before, it added 1 GiB to the guest's memory, and that was all. An \
         iommufd (`<driver iommufd='yes'/>`) counts like VFIO; of one that is opened without libvirt, the kernel counts what all \
         processes of the same user pin.",
    )],
    errors: &[
        ErrorText {
            by: Program::Qemu,
            when: "first of two lines",
            text: "VFIO_MAP_DMA failed: Cannot allocate memory",
        },
        ErrorText {
            by: Program::Qemu,
            when: "second line",
            text: "vfio 0000:07:00.0: failed to setup container for group 49: memory listener initialization failed: Region \
                   pc.ram: vfio_dma_map(0x648f08f946c0, 0x0, 0x80000000, 0x715dc0000000) = -12 (Cannot allocate memory)",
        },
        shared::QEMU_EXITED,
        ErrorText {
            by: Program::Libvirt,
            when: "libvirt itself may not raise the limit, as in a container",
            text: "cannot limit locked memory of process 8494 to 1342177280: Operation not permitted",
        },
    ],
    fix: &[
        Text(
            "Remove `<hard_limit>`, which leaves the limit to libvirt, or raise it to the number in the finding. `iova-preflight \
             fix` does neither: the element also keeps the guest from taking the host's memory, and how much there is to spare \
             is for the operator to decide.",
        ),
        Xml("<memtune>\n\
             \x20 <hard_limit unit='GiB'>17</hard_limit>   <!-- 16 GiB of memory, and 1 GiB -->\n\
             </memtune>"),
        Text("Where libvirt itself computes too little, the same element raises the limit. Without libvirt:"),
        Shell(
            "systemctl edit UNIT                                  # [Service] LimitMEMLOCK=infinity\n\
             podman run --ulimit memlock=-1 --cap-add IPC_LOCK …\n\
             ulimit -l unlimited                                  # in the shell, as root",
        ),
    ],
    verify: &[
        Text("The limit of a QEMU that runs, what VFIO has pinned of it (VmLck), and what vhost-vdpa has (VmPin):"),
        Shell(
            "grep 'locked memory' /proc/PID/limits\n\
             grep -E 'VmLck|VmPin|CapEff' /proc/PID/status",
        ),
        Text("What the kernel says when the limit is reached:"),
        Shell("dmesg | grep RLIMIT_MEMLOCK"),
    ],
};
