//! Messages of QEMU.

use super::*;

/// The meaning of a message about the number of bits.
const PHYS_BITS: &str = "x86_cpu_realizefn, target/i386/cpu.c (QEMU 7.2 to 10.0); target/i386/host-cpu.c";

fn mapping(spot: &Spot<'_>) -> Option<Meaning> {
    call(spot).map(Meaning::Mapping)
}

fn slot(spot: &Spot<'_>) -> Option<Meaning> {
    /// KVM_MEM_MAX_NR_PAGES (virt/kvm/kvm_main.c) pages of 4 KiB.
    const LARGEST: u64 = 1 << 43;
    let (start, size) = (spot.hexadecimal("start=")?, spot.hexadecimal("size=")?);
    let range = GpaRange::with_size(start, size);
    let error = spot.error();
    let invalid = error == Some(-22);
    let cause = match range {
        _ if invalid && size >= LARGEST => Cause::SlotTooLarge,
        Some(range) if invalid && range.end >= NARROWEST_IOMMU => Cause::SlotAboveHostWidth,
        _ => Cause::SlotRefused,
    };
    Some(Meaning::Cause(cause, Clue { error, range, ..Clue::default() }))
}

fn phys_bits_too_low(spot: &Spot<'_>) -> Option<Meaning> {
    let before = find_back(spot, b"Address space limit 0x");
    let clue = before.map_or_else(Clue::default, |text| {
        let text = Spot { rest: text, ..*spot };
        Clue { last_address: text.hexadecimal("limit "), address: text.hexadecimal("< "), ..Clue::default() }
    });
    let bits = spot.number("(").and_then(|bits| u8::try_from(bits).ok());
    Some(Meaning::Cause(Cause::PhysBitsTooLow, Clue { bits, ..clue }))
}

/// The line from the last `words` on that come before the place.
fn find_back<'a>(spot: &Spot<'a>, words: &[u8]) -> Option<&'a [u8]> {
    let at = spot.line.windows(words.len()).rposition(|text| text == words)?;
    spot.line.get(at..)
}

fn opened(spot: &Spot<'_>) -> Option<Meaning> {
    let clue = Clue { device: spot.device(), error: spot.error(), ..Clue::default() };
    let cause = match clue.error? {
        -2 | -19 => Cause::NoVfioDevice,
        -16 => Cause::DeviceBusy,
        -1 | -13 => Cause::NoPermission,
        _ => Cause::DeviceNotOpened,
    };
    Some(Meaning::Cause(cause, clue))
}

fn attached(spot: &Spot<'_>) -> Option<Meaning> {
    let clue = Clue { device: spot.device(), error: spot.error(), ..Clue::default() };
    let in_use = clue.error == Some(-98);
    Some(Meaning::Cause(if in_use { Cause::AddressInUse } else { Cause::IommuNotSet }, clue))
}

fn device_of_group(spot: &Spot<'_>) -> Option<Meaning> {
    let clue = Clue { device: spot.device(), error: spot.error(), ..Clue::default() };
    let cause = if clue.error == Some(-16) { Cause::DeviceBusy } else { Cause::DeviceNotOpened };
    Some(Meaning::Cause(cause, clue))
}

fn outside_vdpa(spot: &Spot<'_>) -> Option<Meaning> {
    // QEMU prints the first address after the section.
    let after = spot.hexadecimal("end addr=").and_then(|end| end.checked_sub(1));
    let (last_address, address) = (spot.hexadecimal("max="), after.or_else(|| spot.hexadecimal("addr=")));
    Some(Meaning::Cause(Cause::RamOutsideVdpaRange, Clue { last_address, address, ..Clue::default() }))
}

/// Every one that is known.
pub(super) static WORDINGS: &[Wording] = &[
    Wording {
        words: "vfio_dma_map(",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio 0000:00:10.0: failed to setup container for group 3: memory listener initialization failed: Region \
             pc.ram: vfio_dma_map(0x55d33bf0d4e0, 0x100000000, 0x11280000000, 0x7e8991600000) = -22 (Invalid argument)",
            "kvm: vfio_dma_map(0x5e043daea2f0, 0x380000000000, 0x10000000, 0x771a38000000) = -22 (Invalid argument)",
        ],
        source: "vfio_listener_region_add, hw/vfio/common.c (QEMU up to 8.1)",
        read: mapping,
    },
    Wording {
        words: "vfio_container_dma_map",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio 0000:35:00.0: failed to setup container for group 75: memory listener initialization failed: Region \
             pc.ram: vfio_container_dma_map(0x5632ad2e1e80, 0x100000000, 0x11280000000, 0x7fdf48200000) = -22 (Invalid \
             argument)",
            "Region memdimm0: vfio_container_dma_map(0x5632ad2e1e80, 0xfd00000000, 0x8000000, 0x7fdf48200000) = -22 (Invalid \
             argument)",
            "warning: vfio_container_dma_map(0x57669e003370, 0xfe00000000, 0x100000000, 0x7d91da000000) = -22 (Invalid \
             argument)",
            "warning: vfio_container_dma_map(0x57669e003370, 0x380022000000, 0x108000, 0x7d91da000000) = -22 (Invalid \
             argument)",
            "Region pc.ram: vfio_container_dma_map(0x5632ad2e1e80, 0x100000000, 0x8000000000, 0x7fdf48200000) = -22 (Invalid \
             argument)",
            "Region pc.ram: vfio_container_dma_map(0x5632ad2e1e80, 0x0, 0x80000000, 0x7fdf48200000) = -12 (Cannot allocate \
             memory)",
            "Region pc.ram: vfio_container_dma_map(0x5632ad2e1e80, 0x100000000, 0x180000000, 0x7fdf48200000) = -14 (Bad \
             address)",
            "warning: vfio_container_dma_map(0x55558771a400, 0xfa800000, 0x4000, 0x7788e9d2c000) = -14 (Bad address)",
            "vfio_container_dma_map(0x55558771a400, 0x0, 0x80000000, 0x7788e9d2c000) = -17 (File exists)",
        ],
        source: "vfio_listener_region_add, hw/vfio/common.c (QEMU 8.2 to 10.0), hw/vfio/listener.c (10.1 to 11.1)",
        read: mapping,
    },
    Wording {
        words: "vhost_vdpa_dma_map(",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vhost_vdpa_dma_map(0x55d33bf0d4e0, 0x100000000, 0x11280000000, 0x7e8991600000) = -22 (Invalid argument)",
        ],
        source: "vhost_vdpa_dma_map's callers, hw/virtio/vhost-vdpa.c (QEMU 8.1 to 11.1)",
        read: mapping,
    },
    Wording {
        words: "VFIO_MAP_DMA failed",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "VFIO_MAP_DMA failed: Invalid argument",
            "VFIO_MAP_DMA failed: Cannot allocate memory",
            "VFIO_MAP_DMA failed: Bad address",
        ],
        source: "vfio_dma_map, hw/vfio/common.c; vfio_legacy_dma_map, hw/vfio/container.c (QEMU 7.2 to 11.1)",
        read: |spot| Some(Meaning::MappingError { error: spot.error(), iommufd: false }),
    },
    Wording {
        words: "IOMMU_IOAS_MAP failed",
        with: &[],
        by: Speaker::Qemu,
        forms: &["IOMMU_IOAS_MAP failed: Bad address, PCI BAR?", "IOMMU_IOAS_MAP failed: Invalid argument"],
        source: "iommufd_backend_map_dma, backends/iommufd.c (QEMU 9.0 to 11.1)",
        read: |spot| Some(Meaning::MappingError { error: spot.error(), iommufd: true }),
    },
    Wording {
        words: "IOMMU_IOAS_MAP_FILE failed",
        with: &[],
        by: Speaker::Qemu,
        forms: &["IOMMU_IOAS_MAP_FILE failed: Invalid argument, PCI BAR?"],
        source: "iommufd_backend_map_file_dma, backends/iommufd.c (QEMU 11.1)",
        read: |spot| Some(Meaning::MappingError { error: spot.error(), iommufd: true }),
    },
    Wording {
        words: "PCI peer-to-peer transactions on BARs are not supported",
        with: &[],
        by: Speaker::Qemu,
        forms: &["0000:00:02.1: PCI peer-to-peer transactions on BARs are not supported."],
        source: "vfio_device_error_append, hw/vfio/common.c (QEMU 10.0), hw/vfio/listener.c (10.1 to 11.1)",
        read: |_| Some(Meaning::WasBar),
    },
    Wording {
        words: "pci p2p may not work",
        with: &[],
        by: Speaker::Qemu,
        forms: &["failed to vfio_dma_map. pci p2p may not work"],
        source: "vfio_listener_region_add, hw/vfio/common.c (QEMU 7.2 to 9.2)",
        read: |_| Some(Meaning::WasBar),
    },
    Wording {
        words: "DMA mapping failed, unable to continue",
        with: &["vfio", "vhost-vdpa"],
        by: Speaker::Qemu,
        forms: &[
            "qemu: hardware error: vfio: DMA mapping failed, unable to continue",
            "qemu: hardware error: vhost-vdpa: DMA mapping failed, unable to continue",
        ],
        source: "vfio_listener_region_add, hw/vfio; vhost_vdpa_listener_region_add, hw/virtio/vhost-vdpa.c (7.2 to 11.1)",
        read: |_| Some(Meaning::WasFatal),
    },
    Wording {
        words: "RAM section out of device range (",
        with: &[],
        by: Speaker::Qemu,
        forms: &["RAM section out of device range (max=0xffffffffff, end addr=0x11380000000)"],
        source: "vhost_vdpa_listener_skipped_section, hw/virtio/vhost-vdpa.c (QEMU 7.2 to 11.1)",
        read: outside_vdpa,
    },
    Wording {
        words: "possibly running out of DMA mappings",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio_register_ram_discard_listener: possibly running out of DMA mappings. E.g., try increasing the \
             'block-size' of virtio-mem devies. Maximum possible DMA mappings: 65535, Maximum possible memslots: 32764"],
        source: "vfio_register_ram_discard_listener, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(MappingsExhausted),
    },
    Wording {
        words: "phys-bits too low (",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Address space limit 0xffffffffff < 0x2337fffffff phys-bits too low (40)"],
        source: "pc_memory_init, hw/i386/pc.c (QEMU 7.1 to 11.1)",
        read: phys_bits_too_low,
    },
    Wording {
        words: "phys-bits should be ",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "phys-bits should be between 32 and 52  (but is 31)",
            "phys-bits should be at least 32 (but is 31)",
            "guest-phys-bits should be between 32 and 48  (but is 52)",
        ],
        source: PHYS_BITS,
        read: says!(PhysBitsOutOfRange),
    },
    Wording {
        words: "phys-bits is not user-configurable in 32 bit",
        with: &[],
        by: Speaker::Qemu,
        forms: &["phys-bits is not user-configurable in 32 bit"],
        source: PHYS_BITS,
        read: says!(PhysBitsNotConfigurable),
    },
    Wording {
        words: ") does not match phys-bits property (",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Host physical bits (48) does not match phys-bits property (40)"],
        source: "host_cpu_adjust_phys_bits, target/i386/host-cpu.c (QEMU 7.2 to 11.1)",
        read: says!(PhysBitsMismatch),
    },
    Wording {
        words: "KVM_SET_USER_MEMORY_REGION",
        with: &["failed, slot="],
        by: Speaker::Qemu,
        forms: &[
            "kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION failed, slot=1, start=0x100000000, \
             size=0xbff80000000: Invalid argument",
            "kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=9, start=0x3ffc00000000, \
             size=0x400000000, flags=0x0, guest_memfd=-1, guest_memfd_offset=0x0: Invalid argument",
        ],
        source: "kvm_set_user_memory_region, accel/kvm/kvm-all.c (QEMU 7.2 to 11.1)",
        read: slot,
    },
    Wording {
        words: "error registering slot: ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["kvm_set_phys_mem: error registering slot: Invalid argument"],
        source: "kvm_set_phys_mem, accel/kvm/kvm-all.c (QEMU 7.2 to 11.1)",
        read: |_| Some(Meaning::Echo(Cause::SlotRefused)),
    },
    Wording {
        words: " > host aw-bits ",
        with: &["aw-bits "],
        by: Speaker::Qemu,
        forms: &["vfio 0000:41:00.0: aw-bits 48 > host aw-bits 39"],
        source: "vtd_check_legacy_hdev, hw/i386/intel_iommu.c (QEMU 9.1 to 11.1)",
        read: |spot| {
            let bits = spot.number("host aw-bits ").and_then(|bits| u8::try_from(bits).ok());
            Some(Meaning::Cause(Cause::ViommuAboveIommuWidth, Clue { bits, device: spot.device(), ..Clue::default() }))
        },
    },
    Wording {
        words: "caching-mode=on for ",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "We need to set caching-mode=on for intel-iommu to enable device assignment with IOMMU protection.",
            "Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.",
        ],
        source: "vtd_machine_done_notify_one and vtd_machine_done_hook, hw/i386/intel_iommu.c (QEMU 7.2 to 11.1)",
        read: says!(ViommuNotPrepared),
    },
    Wording {
        words: "requires iommu notifier which is not currently supported",
        with: &[],
        by: Speaker::Qemu,
        forms: &["device 00.02.0 requires iommu notifier which is not currently supported"],
        source: "amdvi_iommu_notify_flag_changed, hw/i386/amd_iommu.c (QEMU 7.2 to 10.0)",
        read: says!(ViommuNotPrepared),
    },
    Wording {
        words: " is not viable",
        with: &["group "],
        by: Speaker::Qemu,
        forms: &["vfio 0000:01:00.0: group 1 is not viable", "VFIO group is not viable"],
        source: "vfio_get_group, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(GroupNotViable),
    },
    Wording {
        words: "Please ensure all devices within the iommu_group are bound",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Please ensure all devices within the iommu_group are bound to their vfio bus driver."],
        source: "vfio_get_group, hw/vfio (QEMU 7.2 to 11.1)",
        read: |_| Some(Meaning::Echo(Cause::GroupNotViable)),
    },
    Wording {
        words: " used in multiple address spaces",
        with: &["group "],
        by: Speaker::Qemu,
        forms: &["vfio 0000:01:00.1: group 1 used in multiple address spaces"],
        source: "vfio_get_group, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(GroupInTwoSpaces),
    },
    Wording {
        words: "no iommu_group found",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio 0000:08:00.0: no iommu_group found: No such file or directory"],
        source: "vfio_device_groupid, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(NoIommu),
    },
    Wording {
        words: "No available IOMMU models",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio 0000:01:00.0: failed to setup container for group 1: No available IOMMU models"],
        source: "vfio_get_iommu_type, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(NoIommu),
    },
    Wording {
        words: "failed to open /dev/vfio/",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio 0000:44:00.0: failed to open /dev/vfio/47: No such file or directory",
            "vfio 0000:41:00.0: failed to open /dev/vfio/47: Device or resource busy",
            "vfio 0000:af:04.7: failed to setup container for group 106: failed to open /dev/vfio/vfio: Permission denied",
        ],
        source: "vfio_get_group and vfio_connect_container, hw/vfio (QEMU 7.2 to 11.1)",
        read: opened,
    },
    Wording {
        words: "Could not open '/dev/vfio/",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio 0000:41:00.0: Could not open '/dev/vfio/devices/vfio0': Permission denied"],
        source: "qemu_open_internal, util/osdep.c (QEMU 7.2 to 11.1)",
        read: opened,
    },
    Wording {
        words: "error getting device from group ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio 7ece9ff1-b292-474e-aaf4-58e863ae2053: error getting device from group 7: Input/output error"],
        source: "vfio_get_device, hw/vfio (QEMU 7.2 to 11.1)",
        read: device_of_group,
    },
    Wording {
        words: "Verify all devices in group ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Verify all devices in group 7 are bound to vfio-<bus> or pci-stub and not already in use"],
        source: "vfio_get_device, hw/vfio (QEMU 7.2 to 11.1)",
        read: |_| Some(Meaning::Echo(Cause::DeviceNotOpened)),
    },
    Wording {
        words: "] error attach ",
        with: &["[iommufd="],
        by: Speaker::Qemu,
        forms: &["vfio 0000:41:00.0: [iommufd=26] error attach 0000:41:00.0 (38) to id=2: Address already in use"],
        source: "iommufd_cdev_attach_ioas_hwpt, hw/vfio/iommufd.c (QEMU 9.0 to 11.1)",
        read: attached,
    },
    Wording {
        words: "Failed to set iommu for container",
        with: &[],
        by: Speaker::Qemu,
        forms: &["failed to setup container for group 11: Failed to set iommu for container: Operation not permitted"],
        source: "vfio_init_container, hw/vfio/common.c (QEMU up to 8.2)",
        read: says_with_error!(IommuNotSet),
    },
    Wording {
        words: "Failed to set VFIO IOMMU type",
        with: &[],
        by: Speaker::Qemu,
        forms: &["failed to setup container for group 11: Failed to set VFIO IOMMU type: Operation not permitted"],
        source: "vfio_set_iommu, hw/vfio/container.c (QEMU 9.0 to 11.1)",
        read: says_with_error!(IommuNotSet),
    },
    Wording {
        words: "vfio: Cannot reset device ",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio: Cannot reset device 0000:00:1f.3, no available reset mechanism.",
            "vfio: Cannot reset device 0000:01:00.0, depends on group 2 which is not owned.",
        ],
        source: "vfio_pci_hot_reset, hw/vfio/pci.c (QEMU 7.2 to 11.1)",
        read: says!(DeviceNotReset),
    },
    Wording {
        words: "Cannot read device rom at ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio-pci: Cannot read device rom at 0000:01:00.0"],
        source: "vfio_pci_load_rom, hw/vfio/pci.c (QEMU 7.2 to 11.1)",
        read: says!(RomUnreadable),
    },
    Wording {
        words: ". Performance may be slow",
        with: &["Failed to mmap "],
        by: Speaker::Qemu,
        forms: &["Failed to mmap 0000:01:00.0 BAR 3. Performance may be slow"],
        source: "vfio_bar_register, hw/vfio/pci.c (QEMU 7.2 to 11.1)",
        read: says!(BarTaken),
    },
    Wording {
        words: "VFIO_DEVICE_SET_IRQS failure",
        with: &["INTX"],
        by: Speaker::Qemu,
        forms: &[
            "vfio 0000:04:00.0: Failed to set up TRIGGER eventfd signaling for interrupt INTX-0: VFIO_DEVICE_SET_IRQS \
             failure: Device or resource busy",
        ],
        source: "vfio_set_irq_signaling, hw/vfio (QEMU 7.2 to 11.1)",
        read: says_with_error!(InterruptTaken),
    },
    Wording {
        words: "failed getting region info for VGA region index ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio 0000:00:02.0: failed getting region info for VGA region index 8: Invalid argument"],
        source: "vfio_populate_vga, hw/vfio/pci.c (QEMU 7.2 to 11.1)",
        read: says!(VgaMissing),
    },
    Wording {
        words: "VFIO device doesn't support migration",
        with: &[],
        by: Speaker::Qemu,
        forms: &["0000:41:00.0: VFIO device doesn't support migration"],
        source: "vfio_migration_probe, hw/vfio/migration.c (QEMU 7.2 to 8.0)",
        read: says!(NotMigratable),
    },
    Wording {
        words: "VFIO migration is not supported in kernel",
        with: &[],
        by: Speaker::Qemu,
        forms: &["0000:41:00.0: VFIO migration is not supported in kernel"],
        source: "vfio_migration_init, hw/vfio/migration.c (QEMU 8.1 to 11.1)",
        read: says!(NotMigratable),
    },
    Wording {
        words: "cannot set up guest memory '",
        with: &[],
        by: Speaker::Qemu,
        forms: &["cannot set up guest memory 'pc.ram': Cannot allocate memory"],
        source: "ram_block_add, system/physmem.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(HostOutOfMemory),
    },
    Wording {
        words: "unable to map backing store for guest RAM",
        with: &[],
        by: Speaker::Qemu,
        forms: &["unable to map backing store for guest RAM: Cannot allocate memory"],
        source: "file_ram_alloc, system/physmem.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(HugePagesMissing),
    },
    Wording {
        words: "Could not access KVM kernel module",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Could not access KVM kernel module: No such file or directory"],
        source: "kvm_init, accel/kvm/kvm-all.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(KvmMissing),
    },
    Wording {
        words: " received unaligned region",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio_listener_region_add received unaligned region tpm-crb-cmd iova=0xfed40080 offset_within_region=0x0 qemu_real_host_page_size=0x1000",
            "vhost_vdpa_listener_region_add received unaligned region",
        ],
        source: "vfio_listener_region_add, hw/vfio; vhost_vdpa_listener_region_add, hw/virtio/vhost-vdpa.c (QEMU 7.2 to 11.1)",
        read: says!(RegionNotAligned),
    },
    Wording {
        words: "vhost vdpa map fail!",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vhost vdpa map fail!"],
        source: "vhost_vdpa_listener_region_add, hw/virtio/vhost-vdpa.c (QEMU 7.2 to 11.1)",
        read: |_| Some(Meaning::MappingError { error: None, iommufd: false }),
    },
    Wording {
        words: "locking memory failed",
        with: &[],
        by: Speaker::Qemu,
        forms: &["locking memory failed"],
        source: "qemu_init, softmmu/vl.c and system/vl.c (QEMU 7.2 to 11.1)",
        read: |_| Some(Meaning::Echo(Cause::LockedMemory)),
    },
    Wording {
        words: "mlockall: ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["mlockall: Cannot allocate memory"],
        source: "os_mlock, os-posix.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(LockedMemory),
    },
    Wording {
        words: "/dev/iommu does not exist",
        with: &[],
        by: Speaker::Qemu,
        forms: &["/dev/iommu does not exist (is your kernel config missing CONFIG_IOMMUFD?)"],
        source: "iommufd_backend_connect, backends/iommufd.c (QEMU 10.1 to 11.1)",
        read: says!(NoIommufd),
    },
    Wording {
        words: "kernel config missing CONFIG_VFIO_DEVICE_CDEV",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "failed to load \"/sys/bus/pci/devices/0000:41:00.0/vfio-dev/vfio0/dev\" (is your kernel config missing CONFIG_VFIO_DEVICE_CDEV?)",
        ],
        source: "iommufd_cdev_getfd, hw/vfio/iommufd.c (QEMU 11.1)",
        read: says!(NoIommufd),
    },
    Wording {
        words: "Migration is currently not supported with vIOMMU enabled",
        with: &[],
        by: Speaker::Qemu,
        forms: &["0000:41:00.0: Migration is currently not supported with vIOMMU enabled"],
        source: "vfio_migration_realize, hw/vfio/migration.c (QEMU 8.1 to 11.1)",
        read: says!(NotMigratable),
    },
    Wording {
        words: "Discarding RAM is disabled",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Discarding RAM is disabled"],
        source: "virtio_mem_device_realize, hw/virtio/virtio-mem.c (QEMU 7.2 to 11.1)",
        read: says!(DiscardRefused),
    },
    Wording {
        words: "Cannot set discarding of RAM broken",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "vfio 0000:41:00.0: failed to setup container for group 3: Cannot set discarding of RAM broken: Device or resource busy",
        ],
        source: "vfio_connect_container, hw/vfio; vhost_vdpa_init, hw/virtio/vhost-vdpa.c (QEMU 7.2 to 11.1)",
        read: says!(DiscardRefused),
    },
    Wording {
        words: "Inconsistent setting of support for discarding RAM",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Inconsistent setting of support for discarding RAM (e.g., balloon) within group"],
        source: "vfio_get_device, hw/vfio (QEMU 7.2 to 11.1)",
        read: says!(DiscardRefused),
    },
    Wording {
        words: "Incompatible with mlock",
        with: &[],
        by: Speaker::Qemu,
        forms: &["Incompatible with mlock"],
        source: "virtio_mem_device_realize, hw/virtio/virtio-mem.c (QEMU 7.2 to 11.1)",
        read: says!(DiscardRefused),
    },
    Wording {
        words: "kvm run failed ",
        with: &[],
        by: Speaker::Qemu,
        forms: &["error: kvm run failed Bad address"],
        source: "kvm_cpu_exec, accel/kvm/kvm-all.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(KvmRunFailed),
    },
    Wording {
        words: "VFIO_UNMAP_DMA failed",
        with: &[],
        by: Speaker::Qemu,
        forms: &["VFIO_UNMAP_DMA failed: Invalid argument"],
        source: "vfio_dma_unmap, hw/vfio/common.c; vfio_legacy_dma_unmap, hw/vfio/container.c (QEMU 7.2 to 11.1)",
        read: says_with_error!(UnmapFailed),
    },
    Wording {
        words: "_dma_unmap(",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio_container_dma_unmap(0x57669e003370, 0xfe000000, 0x1000) = -22 (Invalid argument)"],
        source: "vfio_listener_region_del, hw/vfio (QEMU 7.2 to 11.1); vhost_vdpa_listener_region_del, hw/virtio/vhost-vdpa.c",
        read: says_with_error!(UnmapFailed),
    },
    Wording {
        words: "iommu has granularity incompatible with target AS",
        with: &[],
        by: Speaker::Qemu,
        forms: &["iommu has granularity incompatible with target AS"],
        source: "memory_get_xlat_addr, softmmu/memory.c and system/memory.c (QEMU 7.2 to 11.1)",
        read: says!(ViommuNotPrepared),
    },
    Wording {
        words: "virtio-iommu reports a page size mask ",
        with: &[],
        by: Speaker::Qemu,
        forms: &[
            "virtio-iommu reports a page size mask 0xfffffffffffff000 incompatible with currently supported mask 0x40201000",
        ],
        source: "virtio_iommu_set_page_size_mask, hw/virtio/virtio-iommu.c (QEMU 9.0 to 11.1)",
        read: says!(ViommuNotPrepared),
    },
    Wording {
        words: "vfio: Unable to power on device",
        with: &[],
        by: Speaker::Qemu,
        forms: &["vfio: Unable to power on device, stuck in D3"],
        source: "vfio_pci_pre_reset, hw/vfio/pci.c (QEMU 7.2 to 11.1)",
        read: says!(DeviceAsleep),
    },
];
