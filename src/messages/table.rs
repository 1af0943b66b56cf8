//! The messages that are known: what is searched for, where it comes from, and how it is read.

use super::cause::Cause;
use super::clue::{Clue, HYPERTRANSPORT, INTERRUPTS, MappedMemory, NARROWEST_IOMMU, Spot, call};
use crate::address::GpaRange;

/// Who prints a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// QEMU.
    Qemu,
    /// libvirt.
    Libvirt,
    /// The kernel of the host.
    HostKernel,
    /// The kernel of the guest, or NVIDIA's driver in it.
    GuestKernel,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

impl Speaker {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Libvirt => "libvirt",
            Self::HostKernel => "the host's kernel",
            Self::GuestKernel => "the guest's kernel",
            Self::CloudHypervisor => "Cloud Hypervisor",
        }
    }
}

/// A message that is known.
#[derive(Debug)]
pub struct Wording {
    /// The words that are searched for.
    pub words: &'static str,
    /// Words of which one has to be on the same line; empty where none has to.
    pub with: &'static [&'static str],
    /// Who prints it.
    pub by: Speaker,
    /// As it is printed, in the forms it has had, with the numbers of an example.
    pub forms: &'static [&'static str],
    /// Where it comes from: function, file and versions.
    pub source: &'static str,
    /// What it says; `None` if it only looks like the message.
    pub(super) read: fn(&Spot<'_>) -> Option<Meaning>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A cause.
    Cause(Cause, Clue),
    /// A DMA mapping that failed, with its addresses.
    Mapping(Clue),
    /// The error of a DMA mapping, which a line with the addresses follows, and whether iommufd gave it.
    MappingError { error: Option<i32>, iommufd: bool },
    /// The mapping before was that of a BAR.
    WasBar,
    /// QEMU ends because of the mapping before: it was not that of a BAR.
    WasFatal,
    /// Something that is said in other words beside it.
    Echo(Cause),
}

/// What a message means whatever its numbers are.
macro_rules! says {
    ($cause:ident) => {
        |spot| Some(Meaning::Cause(Cause::$cause, Clue { device: spot.device(), ..Clue::default() }))
    };
}

/// What a message means whose error tells.
macro_rules! says_with_error {
    ($cause:ident) => {
        |spot| {
            let clue = Clue { device: spot.device(), error: spot.error(), ..Clue::default() };
            Some(Meaning::Cause(Cause::$cause, clue))
        }
    };
}

/// What is behind the failed mapping of `range`.
pub(super) fn cause_of_mapping(clue: &Clue) -> Cause {
    let bar = clue.memory == Some(MappedMemory::Bar);
    match (clue.error, clue.range) {
        (Some(-12), _) => Cause::LockedMemory,
        (Some(-14), _) if bar => Cause::BarNotMappable,
        (Some(-14), _) => Cause::MemoryNotPinned,
        (Some(-17), _) => Cause::AddressMapped,
        (Some(-28), _) => Cause::MappingsExhausted,
        (Some(-98), _) => Cause::AddressInUse,
        (Some(-22), Some(range)) => refused_address(range, clue.memory),
        _ => Cause::MappingRefused,
    }
}

/// Why the kernel does not accept the addresses: vfio_iommu_iova_dma_valid in drivers/vfio/vfio_iommu_type1.c and
/// iopt_check_iova in drivers/iommu/iommufd/io_pagetable.c refuse what is not wholly inside the IOMMU's aperture or
/// touches a reserved region.
fn refused_address(range: GpaRange, memory: Option<MappedMemory>) -> Cause {
    if range.overlaps(HYPERTRANSPORT) {
        match memory {
            Some(MappedMemory::Ram) => Cause::RamInReservedRange,
            Some(MappedMemory::Device) => Cause::MemoryDeviceInReservedRange,
            Some(MappedMemory::Bar) | None => Cause::BarInReservedRange,
        }
    } else if range.overlaps(INTERRUPTS) || range.end < NARROWEST_IOMMU {
        Cause::MappingRefused
    } else if memory == Some(MappedMemory::Bar) || range.start > HYPERTRANSPORT.end && memory != Some(MappedMemory::Ram)
    {
        Cause::BarAboveIommuWidth
    } else {
        Cause::RamAboveIommuWidth
    }
}

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

fn locked(spot: &Spot<'_>) -> Option<Meaning> {
    let bytes = Some(spot.number("(")?);
    Some(Meaning::Cause(Cause::LockedMemory, Clue { bytes, ..Clue::default() }))
}

fn not_raised(spot: &Spot<'_>) -> Option<Meaning> {
    let clue = Clue { bytes: spot.number(" to "), error: spot.error(), ..Clue::default() };
    Some(Meaning::Cause(Cause::LockedMemoryNotRaised, clue))
}

fn too_narrow(spot: &Spot<'_>) -> Option<Meaning> {
    let bits = spot.number("(").and_then(|bits| u8::try_from(bits).ok());
    let clue = Clue { bits, address: spot.hexadecimal("mapped address ("), ..Clue::default() };
    Some(Meaning::Cause(Cause::AddressAboveIommuWidth, clue))
}

fn outside_vdpa(spot: &Spot<'_>) -> Option<Meaning> {
    // QEMU prints the first address after the section.
    let after = spot.hexadecimal("end addr=").and_then(|end| end.checked_sub(1));
    let (last_address, address) = (spot.hexadecimal("max="), after.or_else(|| spot.hexadecimal("addr=")));
    Some(Meaning::Cause(Cause::RamOutsideVdpaRange, Clue { last_address, address, ..Clue::default() }))
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

fn error_number(spot: &Spot<'_>) -> Option<Meaning> {
    let error = i32::try_from(spot.number("(Error(")?).ok()?.checked_neg();
    Some(Meaning::MappingError { error, iommufd: false })
}

/// What is said of the number of bits.
const PHYS_BITS: &str = "x86_cpu_realizefn, target/i386/cpu.c (QEMU 7.2 to 10.0); target/i386/host-cpu.c";

/// Every message that is known.
pub static WORDINGS: &[Wording] = &[
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
        source: "__iommu_group_set_domain_internal's callers, drivers/iommu/iommu.c (6.6 and newer)",
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
        source: "__pci_request_region, drivers/pci/pci.c",
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
        words: "IommuDmaMap(Error(",
        with: &[],
        by: Speaker::CloudHypervisor,
        forms: &["Error booting VM: VmBoot(DeviceManager(VfioDmaMap(IommuDmaMap(Error(22)))))"],
        source: "VfioContainer::vfio_dma_map, crates/vfio-ioctls of rust-vmm",
        read: error_number,
    },
    Wording {
        words: "failed to map an IOVA range to the IOAS",
        with: &[],
        by: Speaker::CloudHypervisor,
        forms: &["Failed to DMA map: failed to map an IOVA range to the IOAS: Bad address (os error 14)"],
        source: "crates/iommufd-ioctls of rust-vmm",
        read: |spot| Some(Meaning::MappingError { error: spot.error(), iommufd: true }),
    },
];
