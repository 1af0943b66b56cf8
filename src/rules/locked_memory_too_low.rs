//! `locked-memory-too-low`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::libvirt::locked_memory::{LockLimit, MARGIN};
use crate::qemu::pinned::{Pinned, ROMS};
use crate::text;
use crate::xml::Span;

pub(crate) const RULE: Rule = Rule {
    id: "locked-memory-too-low",
    summary: "QEMU is not allowed to lock as much memory as the guest's devices need (RLIMIT_MEMLOCK)",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(limit) = limit(guest) else { return };
    let Pinned { at_start, vfio, vdpa } = match limit.vfio_exempt {
        true => Pinned { at_start: 0, vfio: 0, ..guest.pinned },
        false => guest.pinned,
    };
    let (most, devices) = if vfio >= vdpa { (vfio, "VFIO") } else { (vdpa, "vhost-vdpa") };
    let bytes = limit.bytes.unwrap_or(0);
    let roms = if vfio > 0 { ROMS } else { 0 };
    if bytes >= most.saturating_add(roms) {
        return;
    }
    let may = limit.bytes.map_or("less".to_owned(), |bytes| format!("only {}", text::size(bytes)));
    let (severity, title) = if bytes < at_start {
        let refused = limit.refused;
        let locked = text::size(at_start);
        (Severity::Error, format!("{refused}: VFIO locks {locked} of guest memory, but QEMU may lock {may}"))
    } else {
        let locked = text::size(most);
        let roms = if bytes >= most { " and ROMs" } else { "" };
        let title = format!("DMA mappings may fail: {devices} locks up to {locked}{roms}, but QEMU may lock {may}");
        (Severity::Warning, title)
    };
    let why = (limit.why)(most);
    let mut finding = Finding::new(RULE.id, severity, title, limit.span, limit.label).because(why);
    if let Some(device) = guest.passthrough.first() {
        finding = finding.with_label(device.origin.span(), "locks the guest's memory");
    }
    findings.push(finding);
}

/// A limit for locked memory.
struct Limit<'a> {
    /// Bytes, if they are known.
    bytes: Option<u64>,
    /// Whether VFIO may map more than that.
    vfio_exempt: bool,
    /// The place that decides about it, and what to say there.
    span: Span,
    label: &'static str,
    /// The message for a guest that does not start because of it.
    refused: &'static str,
    /// Where it comes from, and what to do if this many bytes are needed.
    why: Box<dyn Fn(u64) -> String + 'a>,
}

fn limit<'a>(guest: &'a Guest<'_>) -> Option<Limit<'a>> {
    if let Some(limit) = guest.process_limit {
        let exempt = limit.vfio_exempt;
        return Some(Limit {
            bytes: Some(limit.bytes),
            vfio_exempt: exempt,
            span: guest.ram_span().unwrap_or(guest.whole()),
            label: "the guest's memory",
            refused: "QEMU would not start again",
            why: Box::new(move |most| {
                let without = if exempt { "" } else { ", and it has no CAP_IPC_LOCK" };
                format!(
                    "that is the limit of the process (RLIMIT_MEMLOCK){without}; raise it to {} or more for the service, \
                     container or shell that starts QEMU",
                    roomy(most)
                )
            }),
        });
    }
    let version = guest.setting.host.libvirt.map_or("libvirt".to_owned(), |version| format!("libvirt {version}"));
    let (bytes, span, label, why): (_, _, _, Box<dyn Fn(u64) -> String>) = match guest.lock_limit? {
        LockLimit::Unlimited => return None,
        LockLimit::Hard(bytes, span) => {
            let why = |most: u64| match guest.computed_lock_limit.filter(|&own| own >= most) {
                Some(own) => format!("set it to {0} or more, or remove it: libvirt then sets {0}", text::size(own)),
                None => format!("set it to {} or more", roomy(most)),
            };
            let why = move |most| format!("libvirt also uses it as QEMU's locked-memory limit; {}", why(most));
            (Some(bytes), span, "the locked-memory limit", Box::new(why))
        }
        LockLimit::Computed(bytes) => {
            let sets = format!("{version} sets the locked-memory limit to {} for this guest", text::size(bytes));
            let why = move |most| format!("{sets}; set <hard_limit> to {} or more", roomy(most));
            (Some(bytes), guest.whole(), "without <hard_limit>", Box::new(why))
        }
        LockLimit::Inherited => {
            let sets = format!("{version} does not raise the locked-memory limit for this guest");
            let why = move |most| format!("{sets}; set <hard_limit> to {} or more", roomy(most));
            (None, guest.whole(), "without <hard_limit>", Box::new(why))
        }
    };
    Some(Limit { bytes, vfio_exempt: false, span, label, refused: "QEMU refuses to start", why })
}

/// This many bytes plus libvirt's allowance for the rest, in words.
fn roomy(bytes: u64) -> String {
    text::size(bytes.saturating_add(MARGIN))
}

const PAGE: Page = Page {
    severities: &[Severity::Error, Severity::Warning],
    meaning: &[Text(
        "QEMU is not allowed to lock as much memory as the guest's devices need (RLIMIT_MEMLOCK). When it \
             reaches the limit, the guest does not start, QEMU ends, or a device does not work.",
    )],
    cause: &[
        Text(
            "For DMA, guest memory must be pinned, and the kernel counts pinned memory as locked by QEMU. VFIO \
             pins all of the guest's RAM before the guest runs. It is an error if the limit is less than the RAM \
             plus the memory devices present from the start, and a warning if it is less than what may be pinned \
             in all:",
        ),
        Output(
            "what                                  counts\n\
             VFIO devices                          once in all; with a virtual IOMMU (<iommu>) once per device\n\
             mediated devices (vGPU)               what the driver pins as it needs it\n\
             NVMe disks (<disk type='nvme'>)       once per disk\n\
             vDPA devices in hardware              once per device, in a separate count\n\
             vDPA devices in software              nothing",
        ),
        Text(
            "libvirt computes a limit from the guest's memory, as often as it counts, plus 1 GiB. A \
             `<memtune><hard_limit>` replaces this limit, whatever its value (it also limits the guest's memory \
             cgroup), and with `<memoryBacking><locked/>` libvirt sets none. Without libvirt, the limit is that of \
             the service, container or shell that starts QEMU, often 8 MiB; `check --running` reads it from the \
             process.",
        ),
        Text(
            "Memory on huge pages counts like any other. So do BARs of emulated devices that are memory \
             (`<shmem>`, and a display's, 16 MiB by default), but not the passthrough devices' own BARs. A QEMU \
             with CAP_IPC_LOCK, which root has outside of containers, has no limit for VFIO but has one for vDPA; \
             libvirt takes this capability away, even with `user = \"root\"`.",
        ),
    ],
    history: &[Text(
        "libvirt has counted vDPA devices since 7.2, guest memory once for each of them (and for each VFIO \
             device behind a virtual IOMMU) since 8.7, and NVMe disks since 9.3. Before, the limit was the guest's \
             memory plus 1 GiB. An iommufd (`<driver iommufd='yes'/>`) counts like VFIO; if it is opened without \
             libvirt, the kernel counts what all processes of the same user pin.",
    )],
    errors: &[
        ErrorText::qemu("first of two lines", "VFIO_MAP_DMA failed: Cannot allocate memory"),
        ErrorText::qemu(
            "second line",
            "vfio 0000:07:00.0: failed to setup container for group 49: memory listener \
             initialization failed: Region pc.ram: vfio_dma_map(0x648f08f946c0, 0x0, \
             0x80000000, 0x715dc0000000) = -12 (Cannot allocate memory)",
        ),
        shared::QEMU_EXITED,
        ErrorText::libvirt(
            "libvirt itself may not raise the limit, as in a container",
            "cannot limit locked memory of process 8494 to 1342177280: Operation not permitted",
        ),
    ],
    fix: &[
        Text(
            "Remove `<hard_limit>`, so that libvirt sets the limit, or raise it to the number that `iova-preflight \
             check` names: the guest's memory, as often as it counts, plus several GiB. It is the limit of the \
             guest's cgroup, too: the kernel kills a QEMU that reaches it. `iova-preflight fix` does neither: \
             `<hard_limit>` also protects the host's memory, and only the operator knows how much there is to spare.",
        ),
        Xml("<memtune>\n\
             \x20 <hard_limit unit='GiB'>20</hard_limit>   <!-- 16 GiB of memory, and room for QEMU itself -->\n\
             </memtune>"),
        Text("If there is no `<hard_limit>` and libvirt computes too little, add one. Without libvirt:"),
        Shell(
            "systemctl edit UNIT                                  # [Service] LimitMEMLOCK=infinity\n\
             podman run --ulimit memlock=-1 --cap-add IPC_LOCK …\n\
             ulimit -l unlimited                                  # in the shell, as root",
        ),
    ],
    verify: &[
        Text("The limit of a running QEMU, what VFIO has pinned (VmLck), and what vhost-vdpa has pinned (VmPin):"),
        Shell(
            "prlimit --memlock --pid PID\n\
             cat /proc/PID/status           # VmLck, VmPin, CapEff",
        ),
        Text("What the kernel says when the limit is reached:"),
        Shell("dmesg | grep RLIMIT_MEMLOCK"),
    ],
    background: &[Topic::LockedMemory, Topic::Looking],
};
