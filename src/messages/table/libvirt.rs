//! Messages of libvirt.

use super::*;

fn not_raised(spot: &Spot<'_>) -> Option<Meaning> {
    let clue = Clue { bytes: spot.number(" to "), error: spot.error(), ..Clue::default() };
    Some(Meaning::Cause(Cause::LockedMemoryNotRaised, clue))
}

fn stopped_by_hook(spot: &Spot<'_>) -> Option<Meaning> {
    let cause = if spot.has("iova-preflight: ") { Cause::StoppedByPreflight } else { Cause::StoppedByHook };
    Some(Meaning::Cause(cause, Clue::default()))
}

/// Every one that is known.
pub(super) static WORDINGS: &[Wording] = &[
    Wording {
        words: "cannot limit locked memory of process ",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["cannot limit locked memory of process 171 to 35433480192: Operation not permitted"],
        source: "virProcessSetMaxMemLock, src/util/virprocess.c (libvirt 9.0 to 12.8)",
        read: not_raised,
    },
    Wording {
        words: "host doesn't support passthrough of host PCI devices",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["unsupported configuration: host doesn't support passthrough of host PCI devices"],
        source: "qemuHostdevPreparePCIDevicesCheckSupport, src/qemu/qemu_hostdev.c (libvirt 9.0 to 12.8)",
        read: says!(NoIommu),
    },
    Wording {
        words: "pci backend driver 'default' is not supported",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["unsupported configuration: pci backend driver 'default' is not supported"],
        source: "virHostdevGetPCIHostDevice, src/hypervisor/virhostdev.c (libvirt 8.5 to 10.1)",
        read: says!(NoIommu),
    },
    Wording {
        words: " is in use by driver ",
        with: &["PCI device ", "mediated device "],
        by: Speaker::Libvirt,
        forms: &["Requested operation is not valid: PCI device 0000:41:00.0 is in use by driver QEMU, domain web-1"],
        source: "virHostdevPreparePCIDevicesImpl, src/hypervisor/virhostdev.c (libvirt 9.0 to 12.8)",
        read: says!(DeviceBusy),
    },
    Wording {
        words: " must be manually detached from the host",
        with: &[],
        by: Speaker::Libvirt,
        forms: &[
            "Requested operation is not valid: Unmanaged PCI device 0000:c3:1b.1 must be manually detached from the host",
        ],
        source: "virHostdevPreparePCIDevicesImpl, src/hypervisor/virhostdev.c (libvirt 9.0 to 12.8)",
        read: says!(NotBound),
    },
    Wording {
        words: "Failed to unbind PCI device '",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["Failed to unbind PCI device '0000:41:00.0' from nvidia: Device or resource busy"],
        source: "virPCIDeviceUnbind, src/util/virpci.c (libvirt 9.0 to 12.8)",
        read: says!(NotBound),
    },
    Wording {
        words: " is not assignable",
        with: &["PCI device "],
        by: Speaker::Libvirt,
        forms: &["PCI device 0000:41:00.0 is not assignable"],
        source: "virHostdevPreparePCIDevicesImpl, src/hypervisor/virhostdev.c (libvirt 9.0 to 12.8)",
        read: says!(DeviceNotReset),
    },
    Wording {
        words: "unexpectedly closed the monitor",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["internal error: QEMU unexpectedly closed the monitor (vm='web-1')"],
        source: "qemuProcessReportLogError, src/qemu/qemu_process.c (libvirt 9.0 to 12.8)",
        read: |_| Some(Meaning::Echo(Cause::QemuExited)),
    },
    Wording {
        words: "process exited while connecting to monitor",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["internal error: process exited while connecting to monitor"],
        source: "qemuProcessReportLogError, src/qemu/qemu_process.c (libvirt 9.0 to 12.8)",
        read: |_| Some(Meaning::Echo(Cause::QemuExited)),
    },
    Wording {
        words: "Hook script execution failed",
        with: &[],
        by: Speaker::Libvirt,
        forms: &[
            "Hook script execution failed: internal error: Child process (LC_ALL=C PATH=/usr/sbin:/usr/bin /etc/libvirt/hooks/qemu db start begin -) unexpected exit status 1: backup is running",
            "Hook script execution failed: internal error: Child process (LC_ALL=C PATH=/usr/sbin:/usr/bin /etc/libvirt/hooks/qemu db prepare begin -) unexpected exit status 1: iova-preflight: db: guest RAM lies in a reserved range",
        ],
        source: "virRunScript, src/util/virhook.c (libvirt 9.0 to 12.8)",
        read: stopped_by_hook,
    },
    Wording {
        words: "Failed to adjust locked memory limit",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["Failed to adjust locked memory limit"],
        source: "qemuDomainAttachMemory, src/qemu/qemu_hotplug.c (libvirt 9.0 to 12.8)",
        read: says!(LockedMemoryNotRaised),
    },
    Wording {
        words: "Unable to change max memlock limit",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["Unable to change max memlock limit"],
        source: "qemuDomainSetMemoryParameters, src/qemu/qemu_driver.c (libvirt 9.0 to 12.8)",
        read: says!(LockedMemoryNotRaised),
    },
    Wording {
        words: "Failed to start domain ",
        with: &[],
        by: Speaker::Libvirt,
        forms: &["error: Failed to start domain 'web-1'"],
        source: "cmdStart, tools/virsh-domain.c (libvirt 9.0 to 12.8)",
        read: |_| Some(Meaning::Echo(Cause::QemuExited)),
    },
];
