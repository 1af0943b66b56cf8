//! Messages of the kernel, that of the host and that of the guest.

use super::*;

fn locked(spot: &Spot<'_>) -> Option<Meaning> {
    let bytes = Some(spot.number("(")?);
    Some(Meaning::Cause(Cause::LockedMemory, Clue { bytes, ..Clue::default() }))
}

fn too_narrow(spot: &Spot<'_>) -> Option<Meaning> {
    let bits = spot.number("(").and_then(|bits| u8::try_from(bits).ok());
    let clue = Clue { bits, address: spot.hexadecimal("mapped address ("), ..Clue::default() };
    Some(Meaning::Cause(Cause::AddressAboveIommuWidth, clue))
}

fn amd_event(spot: &Spot<'_>) -> Option<Meaning> {
    let address = spot.hexadecimal("address=")?;
    let clue = Clue { range: GpaRange::with_size(address, 1), device: spot.device(), ..Clue::default() };
    let reserved = (HYPERTRANSPORT.start..=HYPERTRANSPORT.end).contains(&address);
    Some(Meaning::Cause(if reserved { Cause::DmaToReservedRange } else { Cause::DmaFault }, clue))
}

fn intel_event(spot: &Spot<'_>) -> Option<Meaning> {
    let range = GpaRange::with_size(spot.hexadecimal("fault addr ")?, 1);
    let clue = Clue { range, device: spot.device(), ..Clue::default() };
    Some(Meaning::Cause(Cause::DmaFault, clue))
}

/// Every one that is known.
pub(super) static WORDINGS: &[Wording] = &[
    Wording {
        words: "RLIMIT_MEMLOCK (",
        with: &[") exceeded"],
        by: Speaker::HostKernel,
        forms: &[
            "vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded",
            "vfio_pin_page_external: Task qemu-system-x86 (2296) RLIMIT_MEMLOCK (65536) exceeded",
        ],
        source: "vfio_pin_pages_remote and vfio_pin_page_external, drivers/vfio/vfio_iommu_type1.c",
        read: locked,
    },
    Wording {
        words: "iommu width (",
        with: &[") is not sufficient"],
        by: Speaker::HostKernel,
        forms: &["intel_iommu_map: iommu width (39) is not sufficient for the mapped address (8800001000)"],
        source: "intel_iommu_map, drivers/iommu/intel/iommu.c",
        read: too_narrow,
    },
    Wording {
        words: "INVALID_DEVICE_REQUEST",
        with: &["address="],
        by: Speaker::HostKernel,
        forms: &[
            "AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:00:10.0 pasid=0x00000 address=0xfdf8000020 flags=0x0a00]",
        ],
        source: "iommu_print_event, drivers/iommu/amd/iommu.c",
        read: amd_event,
    },
    Wording {
        words: "IO_PAGE_FAULT ",
        with: &["address="],
        by: Speaker::HostKernel,
        forms: &[
            "vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0xcfd51ad0 flags=0x0070]",
        ],
        source: "amd_iommu_report_page_fault, drivers/iommu/amd/iommu.c",
        read: amd_event,
    },
    Wording {
        words: "] fault addr ",
        with: &["[DMA ", "INTR-REMAP"],
        by: Speaker::HostKernel,
        forms: &[
            "DMAR: [DMA Read NO_PASID] Request device [00:02.0] fault addr 0x7cd80000 [fault reason 0x06] PTE Read access is \
             not set",
        ],
        source: "dmar_fault_do_one, drivers/iommu/intel/dmar.c (Linux 5.13 and newer)",
        read: intel_event,
    },
    Wording {
        words: " fault addr ",
        with: &["PASID ffffffff"],
        by: Speaker::HostKernel,
        forms: &[
            "DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 9c000000 [fault reason 06] PTE Read access \
             is not set",
        ],
        source: "dmar_fault_do_one, drivers/iommu/dmar.c (Linux up to 5.12)",
        read: intel_event,
    },
    Wording {
        words: "due to platform RMRR requirement",
        with: &[],
        by: Speaker::HostKernel,
        forms: &[
            "vfio-pci 0000:04:00.1: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.  \
             Contact your platform vendor.",
        ],
        source: "intel_iommu_attach_device, drivers/iommu/intel/iommu.c (up to 6.6)",
        read: says!(FirmwareNeedsMapping),
    },
    Wording {
        words: "Firmware has requested this device have a 1:1 IOMMU mapping",
        with: &[],
        by: Speaker::HostKernel,
        forms: &[
            "Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the device without a 1:1 \
             mapping. Contact your platform vendor.",
        ],
        source: "the callers of `__iommu_group_set_domain_internal`, drivers/iommu/iommu.c (6.6 and newer)",
        read: says!(FirmwareNeedsMapping),
    },
    Wording {
        words: "No interrupt remapping support",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param \
             \"allow_unsafe_interrupts\" to enable VFIO IOMMU support on this platform"],
        source: "vfio_iommu_type1_attach_group, drivers/vfio/vfio_iommu_type1.c",
        read: says!(NoInterruptRemapping),
    },
    Wording {
        words: "Unable to change power state from ",
        with: &["device inaccessible"],
        by: Speaker::HostKernel,
        forms: &["vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible"],
        source: "pci_power_up, drivers/pci/pci.c",
        read: says!(DeviceAsleep),
    },
    Wording {
        words: "; giving up",
        with: &["not ready "],
        by: Speaker::HostKernel,
        forms: &["vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up"],
        source: "pci_dev_wait, drivers/pci/pci.c",
        read: says!(DeviceAsleep),
    },
    Wording {
        words: "Invalid PCI ROM header signature",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["vfio-pci 0000:00:02.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0x0000"],
        source: "pci_get_rom_size, drivers/pci/rom.c",
        read: says!(RomUnreadable),
    },
    Wording {
        words: ": can't reserve [mem ",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["vfio-pci 0000:05:00.0: BAR 0: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]"],
        source: "`__pci_request_region`, drivers/pci/pci.c",
        read: says!(BarTaken),
    },
    Wording {
        words: " failed with error -",
        with: &["vfio-pci: probe", "probe with driver vfio-pci"],
        by: Speaker::HostKernel,
        forms: &["vfio-pci: probe of 0000:41:00.0 failed with error -22"],
        source: "really_probe, drivers/base/dd.c",
        read: says!(NotBound),
    },
    Wording {
        words: "address conflict with System RAM",
        with: &["can't claim"],
        by: Speaker::GuestKernel,
        forms: &[
            "pci 0000:00:02.0: bridge window [mem 0x2000000000-0x3fffffffff]: can't claim; address conflict with System RAM \
             [mem 0x100000000-0x227fffffff]",
            "pci 0000:00:00.0: can't claim BAR 4 [mem 0xd0000000-0xd0003fff 64bit pref]: address conflict with System RAM \
             [mem 0x00100000-0xf9ffffff]",
        ],
        source: "pci_claim_resource, drivers/pci/setup-res.c",
        read: says!(BarInRam),
    },
    Wording {
        words: ": no space for [mem ",
        with: &["64bit"],
        by: Speaker::GuestKernel,
        forms: &["pci 0000:01:00.0: BAR 2: no space for [mem size 0x2000000000 64bit pref]"],
        source: "pci_assign_resource, drivers/pci/setup-res.c (up to 6.9)",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: "]: can't assign; no space",
        with: &["64bit"],
        by: Speaker::GuestKernel,
        forms: &["pci 0000:01:00.0: BAR 2 [mem size 0x2000000000 64bit pref]: can't assign; no space"],
        source: "pci_assign_resource, drivers/pci/setup-res.c (6.10 and newer)",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: "failed to assign",
        with: &["64bit pref"],
        by: Speaker::GuestKernel,
        forms: &[
            "pci 0000:01:00.0: BAR 2: failed to assign [mem size 0x2000000000 64bit pref]",
            "pci 0000:01:00.0: BAR 2 [mem size 0x2000000000 64bit pref]: failed to assign",
        ],
        source: "pci_assign_resource, drivers/pci/setup-res.c",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: "This PCI I/O region assigned to your NVIDIA device is invalid",
        with: &[],
        by: Speaker::GuestKernel,
        forms: &[
            "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\nNVRM: BAR1 is 0M @ 0x0 (PCI:0000:14:00.0)",
        ],
        source: "nv_pci_probe, kernel-open/nvidia/nv-pci.c of NVIDIA's driver",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: " is 0M @ 0x0 (PCI",
        with: &["NVRM: BAR"],
        by: Speaker::GuestKernel,
        forms: &["NVRM: BAR0 is 0M @ 0x0 (PCI:0000:14:00.0)"],
        source: "nv_pci_probe, kernel-open/nvidia/nv-pci.c of NVIDIA's driver",
        read: |_| Some(Meaning::Echo(Cause::BarNotPlaced)),
    },
    Wording {
        words: "Completion-Wait loop timed out",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["AMD-Vi: Completion-Wait loop timed out"],
        source: "wait_on_sem, drivers/iommu/amd/iommu.c",
        read: says!(IommuTimeout),
    },
    Wording {
        words: "IOTLB_INV_TIMEOUT ",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:0b:00.0 address=0x1002147e0]"],
        source: "iommu_print_event, drivers/iommu/amd/iommu.c",
        read: says!(IommuTimeout),
    },
    Wording {
        words: "not enough MMIO resources for SR-IOV",
        with: &[],
        by: Speaker::HostKernel,
        forms: &["i915 0000:00:02.0: not enough MMIO resources for SR-IOV"],
        source: "sriov_enable, drivers/pci/iov.c",
        read: says!(NoRoomForFunctions),
    },
    Wording {
        words: "no compatible bridge window",
        with: &["64bit"],
        by: Speaker::GuestKernel,
        forms: &[
            "pci 0000:01:00.0: can't claim BAR 0 [mem 0xf8000000000-0xf80ffffffff 64bit pref]: no compatible bridge window",
            "pci 0000:01:00.0: BAR 0 [mem 0xf8000000000-0xf80ffffffff 64bit pref]: can't claim; no compatible bridge window",
        ],
        source: "pci_claim_resource, drivers/pci/setup-res.c",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: "cannot find enough free resources that it can use",
        with: &[],
        by: Speaker::GuestKernel,
        forms: &["The device cannot find enough free resources that it can use. (Code 12)"],
        source: "CM_PROB_NORMAL_CONFLICT, Windows' Device Manager",
        read: says!(BarNotPlaced),
    },
    Wording {
        words: "RmInitAdapter failed!",
        with: &[],
        by: Speaker::GuestKernel,
        forms: &["NVRM: GPU 0000:98:00.0: RmInitAdapter failed! (0x62:0x65:1792)"],
        source: "RmInitAdapter's caller, in NVIDIA's driver",
        read: says!(GuestDriverFailed),
    },
];
