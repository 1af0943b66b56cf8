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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::builtin;
    use crate::policy::Policy;
    use crate::verdict::{Verdict, evaluate};
    use crate::xml::Document;

    /// What is said of a guest of 16 GiB with these parts and devices, on a host with this libvirt.
    fn said(libvirt: &str, parts: &str, devices: &str) -> (Verdict, Vec<(Severity, String)>) {
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>16</memory>{parts}\
             <os><type machine='pc-q35-7.2'>hvm</type></os><cpu mode='host-passthrough'/><devices>{devices}</devices></domain>"
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = crate::domain::read(&document).expect("a domain");
        let mut host = builtin("amd-epyc").expect("built in");
        host.libvirt = Some(libvirt.parse().expect("a version"));
        let evaluation = evaluate(&domain, &host, &Policy::default());
        let found = evaluation.findings.iter().filter(|finding| RULE.found(finding));
        (evaluation.verdict, found.map(|finding| (finding.severity, finding.message())).collect())
    }

    const PCI: &str = "<hostdev type='pci'><source><address bus='1'/></source></hostdev>";
    const MDEV: &str = "<hostdev type='mdev'><source><address uuid='a'/></source></hostdev>";
    const VDPA: &str = "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>";
    const NVME: &str = "<disk type='nvme'><target dev='vda'/></disk>";
    const SHARED: &str = "<shmem name='s'><model type='ivshmem-plain'/><size unit='GiB'>2</size></shmem>";

    fn hard(gib: u64) -> String {
        format!("<memtune><hard_limit unit='GiB'>{gib}</hard_limit></memtune>")
    }

    /// 16 GiB are pinned for each device that counts.
    #[test]
    fn a_hard_limit_has_to_hold_what_is_pinned() {
        for (devices, gib, expected) in [
            ("".to_owned(), 1, None),
            (PCI.to_owned(), 15, Some(Severity::Error)),
            (PCI.to_owned(), 16, None),
            (format!("{PCI}{PCI}"), 16, None),
            (format!("{PCI}{PCI}<iommu model='intel'/>"), 15, Some(Severity::Error)),
            (format!("{PCI}{PCI}<iommu model='intel'/>"), 31, Some(Severity::Warning)),
            (format!("{PCI}{PCI}<iommu model='intel'/>"), 32, None),
            (format!("{PCI}{NVME}"), 31, Some(Severity::Warning)),
            (format!("{PCI}{SHARED}"), 17, Some(Severity::Warning)),
            (format!("{PCI}{SHARED}"), 18, None),
            // They pin as they need, or may be made of software.
            (MDEV.to_owned(), 15, Some(Severity::Warning)),
            (VDPA.to_owned(), 15, Some(Severity::Warning)),
            (format!("{VDPA}{VDPA}"), 31, Some(Severity::Warning)),
            // Of two counts, each is below the limit.
            (format!("{VDPA}{PCI}"), 16, None),
        ] {
            let (verdict, found) = said("11.3", &hard(gib), &devices);
            let severities: Vec<Severity> = found.iter().map(|(severity, _)| *severity).collect();
            assert_eq!(severities, expected.into_iter().collect::<Vec<_>>(), "{gib} GiB: {devices}");
            let stops = expected == Some(Severity::Error);
            assert_eq!(verdict == Verdict::Blocked, stops, "{gib} GiB: {devices}");
        }
    }

    #[test]
    fn an_old_libvirt_computes_too_little() {
        let two = format!("{VDPA}{VDPA}");
        let behind_iommu = format!("{PCI}{PCI}<iommu model='intel'/>");
        let disks = format!("{NVME}{NVME}");
        for (devices, version, expected) in [
            (VDPA, "7.1", Some("does not raise the limit")),
            (VDPA, "7.2", None),
            (two.as_str(), "8.6", Some("to 17 GiB for this guest; set <hard_limit> to 33 GiB or more")),
            (&two, "8.7", None),
            (&behind_iommu, "8.6", Some("to 17 GiB for this guest")),
            (&behind_iommu, "8.7", None),
            (&disks, "9.2", Some("to 17 GiB for this guest")),
            (&disks, "9.3", None),
            (&format!("{PCI}{SHARED}"), "12.8", Some("to 17 GiB for this guest")),
        ] {
            let (_, found) = said(version, "", devices);
            match (found.as_slice(), expected) {
                ([], None) => {}
                ([(Severity::Warning, message)], Some(words)) => assert!(message.contains(words), "{message}"),
                other => panic!("{version}, {devices}: {other:?}"),
            }
            let locked = said(version, "<memoryBacking><locked/></memoryBacking>", devices);
            assert!(locked.1.is_empty(), "{version}, {devices}: {locked:?}");
        }
    }

    #[test]
    fn what_to_set_is_said() {
        let says = |devices: &str, words: &str| {
            let (_, found) = said("11.3", &hard(8), devices);
            assert!(found[0].1.contains(words), "{}", found[0].1);
        };
        says(PCI, "VFIO locks 16 GiB of guest memory, and QEMU may lock 8 GiB");
        says(PCI, "set it to 17 GiB or more, or remove it: libvirt then sets 17 GiB");
        says(&format!("{PCI}{SHARED}"), "set it to 19 GiB or more");
    }
}
