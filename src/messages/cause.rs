//! What is behind a message, and what to do about it.

use crate::rules::page::Block;
use Block::{Shell, Text, Xml};

/// What is behind a message, in the order in which answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is described by its answer")]
pub enum Cause {
    RamInReservedRange,
    MemoryDeviceInReservedRange,
    BarInReservedRange,
    DmaToReservedRange,
    RamAboveIommuWidth,
    BarAboveIommuWidth,
    AddressAboveIommuWidth,
    ViommuAboveIommuWidth,
    RamOutsideVdpaRange,
    LockedMemory,
    LockedMemoryNotRaised,
    PhysBitsTooLow,
    PhysBitsOutOfRange,
    PhysBitsNotConfigurable,
    PhysBitsMismatch,
    SlotAboveHostWidth,
    SlotTooLarge,
    BarInRam,
    BarNotPlaced,
    MemoryNotPinned,
    BarNotMappable,
    BarNotMapped,
    MappingRefused,
    MappingsExhausted,
    AddressMapped,
    AddressInUse,
    DiscardRefused,
    SlotRefused,
    KvmRunFailed,
    UnmapFailed,
    GroupNotViable,
    GroupInTwoSpaces,
    NoIommu,
    NoVfioDevice,
    NoIommufd,
    DeviceBusy,
    NoPermission,
    DeviceNotOpened,
    IommuNotSet,
    NoInterruptRemapping,
    FirmwareNeedsMapping,
    DeviceNotReset,
    DeviceAsleep,
    IommuTimeout,
    RomUnreadable,
    BarTaken,
    NoRoomForFunctions,
    InterruptTaken,
    NotBound,
    NotMigratable,
    ViommuNotPrepared,
    HostOutOfMemory,
    HugePagesMissing,
    KvmMissing,
    VgaMissing,
    GuestDriverFailed,
    DmaFault,
    RegionNotAligned,
    StoppedByPreflight,
    StoppedByHook,
    QemuExited,
}

/// All there is to say about a cause.
#[derive(Debug)]
pub struct Answer {
    /// The cause.
    pub cause: Cause,
    /// Its name: words with hyphens, the same for ever.
    pub id: &'static str,
    /// Whether it is about addresses, widths or limits, which `check` computes before the start.
    pub ours: bool,
    /// What goes wrong, in one line.
    pub headline: &'static str,
    /// Why.
    pub because: &'static str,
    /// What it is often taken for.
    pub is_not: &'static [&'static str],
    /// What to do.
    pub fix: &'static [Block],
    /// The rule that finds it before the start.
    pub rule: Option<&'static str>,
}

impl Cause {
    /// What there is to say about it.
    ///
    /// # Panics
    /// Never: a test looks every cause up.
    pub fn answer(self) -> &'static Answer {
        match ANSWERS.iter().find(|answer| answer.cause == self) {
            Some(answer) => answer,
            None => unreachable!("every cause has an answer"),
        }
    }
}

const CHECK: Block = Shell("iova-preflight check --connect qemu:///system --domain NAME");
const FIX: Block = Shell(
    "iova-preflight check --connect qemu:///system --domain NAME           # what collides\n\
     iova-preflight fix --connect qemu:///system --domain NAME --dry-run   # what would change",
);
/// What a BAR's warning needs: `fix` alone leaves a guest as it is that starts.
const FIX_BARS: Block = Shell(
    "iova-preflight check --connect qemu:///system --domain NAME                      # where BARs go\n\
     iova-preflight fix --warnings --connect qemu:///system --domain NAME --dry-run   # what would change",
);
const RESERVED: Block = Shell("cat /sys/bus/pci/devices/0000:41:00.0/iommu_group/reserved_regions");
const WIDTH: Block = Shell(
    "dmesg | grep -iE 'DMAR: Host address width|AMD-Vi'   # the width of the host's IOMMU\n\
     grep -m1 'address sizes' /proc/cpuinfo               # the width of the host's CPU",
);
const GROUP: Block = Shell(
    "ls -l /sys/bus/pci/devices/0000:41:00.0/iommu_group/devices/\n\
     lspci -nnks 41:00",
);
const LESS_BITS: Block = Xml("<cpu mode='host-passthrough'>\n\
     \x20 <maxphysaddr mode='passthrough' limit='39'/>\n\
     </cpu>");

/// -12 means something else.
const NOT_MEMLOCK: &str = "the locked-memory limit: that is -12 (Cannot allocate memory)";
/// -14 means something else.
const NOT_PINNING: &str = "memory that cannot be pinned: that is -14 (Bad address)";
/// -22 means something else.
const NOT_ADDRESS: &str = "an address that the IOMMU does not accept: that is -22 (Invalid argument)";
/// Of what comes before anything is mapped.
const NOT_MAPPING: &str = "an address, a width or a memory limit: QEMU has not mapped any memory yet";

/// What there is to say about each cause.
pub static ANSWERS: &[Answer] = &[
    Answer {
        cause: Cause::RamInReservedRange,
        id: "ram-in-reserved-range",
        ours: true,
        headline: "guest RAM lies in the range that an AMD host's IOMMU reserves for HyperTransport",
        because: "A passthrough device may write to all of RAM, so that QEMU maps all of it for DMA. AMD hosts do not accept \
                  DMA mappings at 0xfd00000000-0xffffffffff (1012–1024 GiB), and the kernel refuses a mapping that has a \
                  part there. On a host with an Intel IOMMU the range is not reserved; there the IOMMU is too narrow for \
                  the addresses.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING, "a BAR: of those, QEMU only warns"],
        fix: &[
            Text(
                "Use a machine type of 7.1 or newer, and physical address bits that reach above 1 TiB; this finds both:",
            ),
            FIX,
        ],
        rule: Some("ram-in-reserved-range"),
    },
    Answer {
        cause: Cause::MemoryDeviceInReservedRange,
        id: "memory-device-in-reserved-range",
        ours: true,
        headline: "a memory device lies in the range that an AMD host's IOMMU reserves for HyperTransport",
        because: "QEMU maps plugged memory (DIMM, NVDIMM, virtio-mem) for DMA as it does RAM. AMD hosts do not accept DMA \
                  mappings at 0xfd00000000-0xffffffffff (1012–1024 GiB). If the memory was plugged into a running guest, \
                  QEMU has ended.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING, "the guest's RAM, which is mapped"],
        fix: &[
            Text(
                "Move the memory device: a machine type of 7.1 or newer, another address, or a smaller `<maxMemory>`:",
            ),
            FIX,
        ],
        rule: Some("memory-device-in-reserved-range"),
    },
    Answer {
        cause: Cause::BarInReservedRange,
        id: "bar-in-reserved-range",
        ours: true,
        headline: "a BAR lies in the range that an AMD host's IOMMU reserves for HyperTransport",
        because: "The guest's firmware has placed a BAR at 0xfd00000000-0xffffffffff (1012–1024 GiB), where AMD hosts do not \
                  accept DMA mappings. The guest runs and its CPU reaches the BAR; DMA from another passthrough device to \
                  it (peer-to-peer) fails. Memory \
                  that was just plugged looks the same, but then QEMU ends.",
        is_not: &[
            "the guest's RAM: if that were refused, QEMU would not start",
            NOT_MEMLOCK,
            "iommufd, which cannot map BARs on older kernels: that is -14 (Bad address) at any address",
        ],
        fix: &[
            Text(
                "If no device has to reach another one directly, no action is needed. Otherwise give the guest a machine \
                 type of 7.1 or newer and 41 or more physical address bits, so that firmware places BARs above 1 TiB. \
                 SeaBIOS up to 1.16.2 (Debian 12) places them after RAM whatever the bits: there it takes a <pcihole64> \
                 so large that QEMU moves RAM above 1 TiB, or OVMF. This finds which:",
            ),
            FIX_BARS,
        ],
        rule: Some("bar-in-reserved-range"),
    },
    Answer {
        cause: Cause::DmaToReservedRange,
        id: "dma-to-reserved-range",
        ours: true,
        headline: "a device used an address in the range that an AMD host reserves for HyperTransport",
        because: "The IOMMU stopped an access to 0xfd00000000-0xffffffffff (1012–1024 GiB), which never reaches memory. If \
                  the device is passed through, the guest has RAM there: kernels before 5.4 let such a guest start, and \
                  its DMA is lost. Data that the device should have written is missing in the guest.",
        is_not: &["a defective device", "a mapping that was refused: the kernel accepted it"],
        fix: &[
            Text("Shut the guest down before it loses more data, and move its RAM:"),
            FIX,
            Text("If the device belongs to the host, ask the vendor for a newer firmware (BIOS)."),
        ],
        rule: Some("ram-in-reserved-range"),
    },
    Answer {
        cause: Cause::RamAboveIommuWidth,
        id: "ram-above-iommu-width",
        ours: true,
        headline: "guest memory reaches beyond the addresses that the host's IOMMU can use",
        because: "QEMU maps all of the guest's memory for DMA, and the kernel refuses what ends above the IOMMU's address \
                  width (39 bits are 512 GiB: Intel client processors, and the default of QEMU's intel-iommu in nested \
                  guests). Not every host tells this width in reserved_regions.",
        is_not: &[
            "the HyperTransport range 1012–1024 GiB, which none of these addresses is in",
            NOT_MEMLOCK,
            NOT_PINNING,
        ],
        fix: &[
            Text(
                "Give the guest less memory, a smaller `<maxMemory>`, or a host with a wider IOMMU. On a virtual host, give \
                 its intel-iommu 48 bits (`<driver aw_bits='48'/>`). What the host has:",
            ),
            WIDTH,
        ],
        rule: Some("ram-above-iommu-width"),
    },
    Answer {
        cause: Cause::BarAboveIommuWidth,
        id: "bar-above-iommu-width",
        ours: true,
        headline: "a BAR lies above the addresses that the host's IOMMU can use",
        because: "Firmware places 64-bit BARs at the top of the address space that the guest's CPU claims to have (56 TiB at \
                  46 bits), and the host's IOMMU is narrower (39 bits on Intel client processors). The guest runs; DMA from \
                  another passthrough device to this BAR (peer-to-peer) fails. Memory of an emulated device there, such as \
                  ivshmem or an option ROM, ends QEMU.",
        is_not: &[
            "the guest's RAM: that lies much lower",
            "the HyperTransport range 1012–1024 GiB of AMD hosts",
            NOT_MEMLOCK,
        ],
        fix: &[
            Text(
                "If the guest works, no action is needed. Otherwise claim no more bits than the IOMMU has (libvirt 9.3); on \
                 the host, this finds how many:",
            ),
            FIX_BARS,
            LESS_BITS,
            Text("What the host has:"),
            WIDTH,
        ],
        rule: Some("bar-above-iommu-width"),
    },
    Answer {
        cause: Cause::AddressAboveIommuWidth,
        id: "address-above-iommu-width",
        ours: true,
        headline: "an address lies above what the host's IOMMU can use",
        because: "The Intel IOMMU driver refuses to map an address beyond its address width. The address is that of guest \
                  memory or of a BAR; QEMU's own message says which.",
        is_not: &["the HyperTransport range of AMD hosts: this message comes from Intel's driver", NOT_MEMLOCK],
        fix: &[Text("Claim no more bits than the IOMMU has (libvirt 9.3), or give the guest less memory:"), LESS_BITS],
        rule: Some("ram-above-iommu-width"),
    },
    Answer {
        cause: Cause::ViommuAboveIommuWidth,
        id: "viommu-above-iommu-width",
        ours: true,
        headline: "the guest's virtual IOMMU is wider than the host's IOMMU",
        because: "The guest could hand out addresses that the host's IOMMU cannot use, so that QEMU 9.1 and newer refuse the \
                  device.",
        is_not: &[NOT_MEMLOCK, "the guest's phys-bits: those are of the CPU"],
        fix: &[
            Text("Set the virtual IOMMU to what the message says of the host:"),
            Xml("<iommu model='intel'>\n  <driver caching_mode='on' aw_bits='39'/>\n</iommu>"),
        ],
        rule: Some("viommu-above-iommu-width"),
    },
    Answer {
        cause: Cause::RamOutsideVdpaRange,
        id: "ram-outside-vdpa-range",
        ours: true,
        headline: "guest RAM lies outside the addresses that the vDPA device can use",
        because: "A vDPA device has one range of addresses. RAM outside is not mapped, and QEMU leaves it out or refuses the \
                  device.",
        is_not: &[NOT_MEMLOCK, "a BAR"],
        fix: &[Text("Give the guest memory that ends within the range:"), CHECK],
        rule: None,
    },
    Answer {
        cause: Cause::LockedMemory,
        id: "locked-memory",
        ours: true,
        headline: "QEMU may not lock as much memory as the guest has (RLIMIT_MEMLOCK)",
        because: "A DMA mapping pins its pages, and pinned pages count as locked memory of the process. The limit is smaller \
                  than the guest's RAM and what else is pinned: about 1 GiB more than the RAM, and with vDPA devices or a \
                  virtual IOMMU once for each device.",
        is_not: &[NOT_ADDRESS, "too little memory in the host: with that, QEMU cannot even set up the guest's RAM"],
        fix: &[
            Text(
                "With libvirt, leave the limit to it: remove `<hard_limit>`, or raise it to the RAM and several GiB. Without \
                 libvirt, raise it for the service, the container or the shell that starts QEMU:",
            ),
            Shell(
                "prlimit --memlock --pid $(pgrep -n qemu)    # the limit of a QEMU that runs\n\
                 systemctl edit UNIT                         # [Service] LimitMEMLOCK=infinity\n\
                 docker run --ulimit memlock=-1 --cap-add IPC_LOCK …\n\
                 ulimit -l unlimited                         # in the shell, as root",
            ),
        ],
        rule: Some("locked-memory-too-low"),
    },
    Answer {
        cause: Cause::LockedMemoryNotRaised,
        id: "locked-memory-not-raised",
        ours: true,
        headline: "libvirt may not raise the locked-memory limit that the guest needs",
        because: "For a guest with VFIO or vDPA devices libvirt raises RLIMIT_MEMLOCK of QEMU, which takes CAP_SYS_RESOURCE \
                  when the new limit is above the hard limit. In a container (KubeVirt) or as a session daemon it does not \
                  have it.",
        is_not: &[NOT_ADDRESS, "too little memory in the host"],
        fix: &[
            Text(
                "Give libvirt the capability or a hard limit that is high enough. In KubeVirt request as much memory as the \
                 guest has (no overcommit) and use a release that sets the limit of virt-launcher; elsewhere:",
            ),
            Shell("systemctl edit libvirtd    # or virtqemud: [Service] LimitMEMLOCK=infinity"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::PhysBitsTooLow,
        id: "phys-bits-too-low",
        ours: true,
        headline: "the guest's memory map needs more physical address bits than its CPU has",
        because: "QEMU 7.1 and newer refuse a guest whose memory map, room for hot-plug and 64-bit PCI hole included, reaches \
                  beyond the physical address bits of its CPU: 40, unless something else is asked for.",
        is_not: &["a matter of passthrough devices", "the memory of the host"],
        fix: &[
            Text("Give the CPU more bits, or the guest less `<maxMemory>` and fewer slots; this finds how many:"),
            FIX,
        ],
        rule: Some("phys-bits-too-low"),
    },
    Answer {
        cause: Cause::PhysBitsOutOfRange,
        id: "phys-bits-out-of-range",
        ours: true,
        headline: "the number of physical address bits is not one that QEMU takes",
        because: "QEMU takes 32 to 52 bits (11.1: at least 32).",
        is_not: &["the number of the host, which is compared later"],
        fix: &[Text("Correct `bits` of `<maxphysaddr>`, or `phys-bits` of `-cpu`:"), CHECK],
        rule: Some("phys-bits-out-of-range"),
    },
    Answer {
        cause: Cause::PhysBitsNotConfigurable,
        id: "phys-bits-not-configurable",
        ours: true,
        headline: "physical address bits are given for a 32-bit CPU",
        because: "QEMU takes `phys-bits` only for CPU models with long mode.",
        is_not: &["a number that is too high or too low"],
        fix: &[Text("Use a 64-bit CPU model, or leave `<maxphysaddr>` out:"), CHECK],
        rule: Some("phys-bits-not-configurable"),
    },
    Answer {
        cause: Cause::PhysBitsMismatch,
        id: "phys-bits-mismatch",
        ours: true,
        headline: "the guest's CPU has another number of physical address bits than the host's",
        because: "This is a warning, and with fewer bits than the host it is expected. With more, BARs and memory can lie \
                  where the host's CPU cannot reach them.",
        is_not: &["the reason why a guest does not start: look for the error after it"],
        fix: &[Text("Fewer bits than the host: no action is needed. More:"), CHECK],
        rule: Some("phys-bits-above-host"),
    },
    Answer {
        cause: Cause::SlotAboveHostWidth,
        id: "slot-above-host-width",
        ours: true,
        headline: "KVM refuses memory at an address that the host's CPU cannot use",
        because: "Memory or a BAR of the guest lies above the physical address width of the host's CPU. The guest's CPU \
                  claims more bits than the host has, and firmware places BARs at the top of them. QEMU ends.",
        is_not: &[NOT_MEMLOCK, "the IOMMU: this is KVM, and happens without passthrough devices too"],
        fix: &[
            Text("Claim as many bits as the host has:"),
            Xml("<cpu mode='host-passthrough'>\n  <maxphysaddr mode='passthrough'/>\n</cpu>"),
            WIDTH,
        ],
        rule: Some("bar-above-host-width"),
    },
    Answer {
        cause: Cause::SlotTooLarge,
        id: "slot-too-large",
        ours: true,
        headline: "KVM refuses a piece of memory of 8 TiB or more",
        because: "A memory slot of KVM has less than 2^31 pages (virt/kvm/kvm_main.c, KVM_MEM_MAX_NR_PAGES), and QEMU makes \
                  one slot of each memory backend.",
        is_not: &["an address that is too high", "the memory of the host"],
        fix: &[Text("Split the memory into several NUMA cells of less than 8 TiB each:"), CHECK],
        rule: Some("memory-backend-refused"),
    },
    Answer {
        cause: Cause::BarInRam,
        id: "bar-in-ram",
        ours: true,
        headline: "firmware placed a BAR or a bridge window over the guest's RAM",
        because: "The guest's kernel finds a BAR where RAM is and moves it or gives up on the device. SeaBIOS 1.16.3 and newer \
                  and OVMF 2023.02 and newer do so with 40 physical address bits and RAM that ends above 768 GiB.",
        is_not: &["the IOMMU: no address was refused", "a defective device"],
        fix: &[
            Text(
                "Give the guest 41 or more physical address bits, so that BARs are placed above its RAM; this finds how many:",
            ),
            FIX_BARS,
        ],
        rule: Some("bar-in-ram"),
    },
    Answer {
        cause: Cause::BarNotPlaced,
        id: "bar-not-placed",
        ours: true,
        headline: "a BAR has no address in the guest: there is no room for it",
        because: "The 64-bit window that firmware made is too small for the BARs of all devices, or lies where RAM is. The \
                  guest's driver finds a BAR of 0 bytes.",
        is_not: &[
            "the driver in the guest",
            "the IOMMU: nothing was mapped yet",
            "Above 4G Decoding of the host's BIOS, unless the host's own kernel says so",
        ],
        fix: &[
            Text("Give the guest more physical address bits; on its host, this finds how many:"),
            FIX_BARS,
            Text("Or ask OVMF for a larger window, in MiB: a power of two that holds all BARs:"),
            Shell("qemu-system-x86_64 … -fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=1048576"),
            Text("What the guest has:"),
            Shell("dmesg | grep -E 'BAR [0-9]|bridge window'    # in the guest"),
        ],
        rule: Some("bar-not-placed"),
    },
    Answer {
        cause: Cause::MemoryNotPinned,
        id: "memory-not-pinned",
        ours: true,
        headline: "guest memory cannot be pinned for DMA",
        because: "The kernel could not get at the pages of the guest's memory: too few huge pages, a file or device as memory \
                  (DAX, /dev/kvmfr, SGX) that cannot be pinned, or memory that is not there any more. Since Linux 6.5 a \
                  shared file on a disk file system (ext4, XFS) is one that cannot be pinned either: libvirt's `<source \
                  type='file'/>` with shared access, in /var/lib/libvirt/qemu/ram, or `memory-backend-file,share=on`. A \
                  memfd can, and so can files in tmpfs and hugetlbfs.",
        is_not: &["the HyperTransport range or any other address: that is -22 (Invalid argument)", NOT_MEMLOCK],
        fix: &[
            Text(
                "Look at what the memory is made of: as many huge pages as the guest has memory, on every NUMA node it uses; \
                 for vhost-user and virtiofs memfd or a file in hugetlbfs rather than one on a disk:",
            ),
            Shell(
                "grep -i huge /proc/meminfo\ncat /sys/devices/system/node/node*/hugepages/hugepages-*/free_hugepages",
            ),
            Xml("<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::BarNotMappable,
        id: "bar-not-mappable",
        ours: false,
        headline: "iommufd cannot map a BAR for DMA; this happens at any address",
        because: "A BAR is not memory that can be pinned (VM_PFNMAP), and iommufd refuses it with -14 (Bad address). QEMU \
                  goes on, and only DMA from one device to another (peer-to-peer) is missing. Linux 6.19 and newer can \
                  map BARs as dma-buf.",
        is_not: &[
            "the place of the BAR: an address that is not accepted gives -22 (Invalid argument)",
            "the reason why a guest does not start: look for the error after it",
            NOT_MEMLOCK,
        ],
        fix: &[
            Text(
                "Without peer-to-peer no action is needed. With it, use VFIO without iommufd, or a newer kernel and QEMU:",
            ),
            Shell("uname -r; qemu-system-x86_64 --version"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::BarNotMapped,
        id: "bar-not-mapped",
        ours: true,
        headline: "a BAR could not be mapped for DMA; the guest runs without peer-to-peer",
        because: "QEMU maps the BARs of passthrough devices, so that devices can reach each other. The line before this one \
                  has the address and the error: -22 is the address, -14 is iommufd.",
        is_not: &["the guest's RAM: if that were refused, QEMU would end", NOT_MEMLOCK],
        fix: &[
            Text(
                "If no device has to reach another one directly, no action is needed. Otherwise paste the line with \
                 `vfio_dma_map` or `vfio_container_dma_map`, or the whole log:",
            ),
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::MappingRefused,
        id: "mapping-refused",
        ours: true,
        headline: "a DMA mapping was refused",
        because: "With -22 (Invalid argument) the address is what is wrong: reserved by the IOMMU, as the interrupt range \
                  0xfee00000-0xfeefffff and the firmware's own regions are, above its width, or not a multiple of the page \
                  size. With other errors it is not the address.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING],
        fix: &[
            Text(
                "Compare the addresses with what the host reserves; the line with the addresses or the whole log says more:",
            ),
            RESERVED,
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
            CHECK,
        ],
        rule: None,
    },
    Answer {
        cause: Cause::MappingsExhausted,
        id: "mappings-exhausted",
        ours: false,
        headline: "there are no more DMA mappings: VFIO takes 65535 for each container",
        because: "Memory that is mapped in small pieces (virtio-mem with small blocks, a confidential guest's shared pages, a \
                  virtual IOMMU) uses up the mappings (drivers/vfio/vfio_iommu_type1.c, dma_entry_limit).",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK, "a full disk"],
        fix: &[
            Text("Larger blocks for virtio-mem, or more mappings, until the next boot:"),
            Shell("echo 1000000 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::AddressMapped,
        id: "address-mapped",
        ours: false,
        headline: "something is mapped at these addresses already",
        because: "The virtual machine monitor maps the same addresses twice. That is an error in it, not in the guest's \
                  definition.",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK, "a reserved range"],
        fix: &[Text("Use a newer version of QEMU (Kata, Cloud Hypervisor), and report it there with the whole log.")],
        rule: None,
    },
    Answer {
        cause: Cause::AddressInUse,
        id: "address-in-use",
        ours: true,
        headline: "the device's IOMMU reserves addresses at which the guest's memory is mapped already",
        because: "The guest was running when the device was attached, with memory where this device's IOMMU does not accept \
                  it.",
        is_not: &["a device that is in use: that is -16 (Device or resource busy)", NOT_MEMLOCK],
        fix: &[Text("Move the guest's memory, and start it with the device:"), RESERVED, CHECK],
        rule: Some("ram-in-reserved-range"),
    },
    Answer {
        cause: Cause::DiscardRefused,
        id: "discard-refused",
        ours: false,
        headline: "memory of this guest is given back to the host (virtio-mem), and a device that pins all of it is there too",
        because: "A vDPA device pins the guest's memory as a whole, and so does locked memory; virtio-mem gives parts of it back. QEMU refuses whichever comes second. VFIO and virtio-mem do go together.",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK],
        fix: &[Text(
            "Use DIMMs instead of virtio-mem, VFIO instead of vDPA, or leave `<locked/>` (`-overcommit mem-lock=on`) out.",
        )],
        rule: Some("virtio-mem-refused"),
    },
    Answer {
        cause: Cause::SlotRefused,
        id: "slot-refused",
        ours: false,
        headline: "KVM refuses a memory slot that overlaps another one or is not whole pages",
        because: "QEMU or a vfio-user server asks for a slot where there is one already. That is an error in it, not in the \
                  guest's definition.",
        is_not: &["the IOMMU", "the width of the host's CPU: the address is low", NOT_MEMLOCK],
        fix: &[Text("Use newer versions of QEMU and of the vfio-user server, and report it there with the whole log.")],
        rule: None,
    },
    Answer {
        cause: Cause::KvmRunFailed,
        id: "kvm-run-failed",
        ours: false,
        headline: "the guest touched memory that KVM could not get from the host",
        because: "The page behind a guest address could not be had when it was touched: a file behind the memory that was cut short, huge pages that ran out, memory with a hardware error, or a BAR of a device that went away.",
        is_not: &[NOT_MAPPING, NOT_MEMLOCK],
        fix: &[
            Text("Look at the huge pages, at the file behind the memory and at the kernel's log:"),
            Shell("grep -i huge /proc/meminfo\ndmesg | tail -n 30"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::UnmapFailed,
        id: "unmap-failed",
        ours: false,
        headline: "a DMA mapping could not be taken away",
        because: "QEMU takes a mapping away that the kernel does not have, or not with these ends. That happens after a mapping that failed, and when the guest's virtual IOMMU joins or splits mappings.",
        is_not: &["the reason why a guest does not start: look for the first error"],
        fix: &[
            Text("Look for the mapping that failed before it:"),
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::GroupNotViable,
        id: "group-not-viable",
        ours: false,
        headline: "another device of the same IOMMU group is not bound to vfio-pci",
        because: "All devices of an IOMMU group go to one guest, or to none. One of them still has a driver of the host.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text(
                "Bind all devices of the group but bridges to vfio-pci, pass them through together, or put the card into \
                 another slot:",
            ),
            GROUP,
        ],
        rule: None,
    },
    Answer {
        cause: Cause::GroupInTwoSpaces,
        id: "group-in-two-spaces",
        ours: false,
        headline: "devices of one IOMMU group are behind different virtual IOMMUs or ports",
        because: "Devices of one group share their mappings, so that the guest has to see them in one address space.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Put the devices on one virtual slot as functions, or leave one of them out:"), GROUP],
        rule: None,
    },
    Answer {
        cause: Cause::NoIommu,
        id: "no-iommu",
        ours: false,
        headline: "the host has no IOMMU that is in use, or VFIO is not loaded",
        because: "Without an IOMMU there are no IOMMU groups, and nothing can be passed through. It is switched off in the \
                  BIOS (VT-d, AMD-Vi, IOMMU), on the kernel's command line, or the modules vfio and vfio_iommu_type1 are \
                  missing.",
        is_not: &[NOT_MAPPING, "the IOMMU's width or what it reserves"],
        fix: &[
            Text("Switch it on in the BIOS, add `intel_iommu=on` on Intel, and load the modules:"),
            Shell(
                "ls /sys/kernel/iommu_groups | head\n\
                 dmesg | grep -iE 'DMAR|AMD-Vi|IOMMU'\n\
                 modprobe vfio-pci && modprobe vfio_iommu_type1\n\
                 virt-host-validate qemu",
            ),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NoVfioDevice,
        id: "no-vfio-device",
        ours: false,
        headline: "the device is not bound to vfio-pci",
        because: "/dev/vfio/N appears when a device of group N is bound to vfio-pci. The device has no driver or one of the \
                  host, or in a container the file was not passed in.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Bind it, or let libvirt do so with `managed='yes'`:"),
            Shell("ls -l /dev/vfio\nlspci -nnks 41:00\ndriverctl set-override 0000:41:00.0 vfio-pci"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NoIommufd,
        id: "no-iommufd",
        ours: false,
        headline: "the host's kernel has no iommufd, which this guest asks for",
        because: "`iommufd` needs Linux 6.6 or newer with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV, and the module has to be loaded.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Load it, or leave iommufd out (`<driver iommufd='no'/>`, no `-object iommufd`):"),
            Shell("modprobe iommufd; ls -l /dev/iommu /dev/vfio/devices/"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceBusy,
        id: "device-busy",
        ours: false,
        headline: "the device is in use: by another guest, or by a process",
        because: "A VFIO group or device can be open once. Another guest, a guest that has not quite ended, or another program \
                  (DPDK, SPDK) has it.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Find out who has it:"), Shell("lsof /dev/vfio/* 2>/dev/null\nvirsh list --all")],
        rule: None,
    },
    Answer {
        cause: Cause::NoPermission,
        id: "no-permission",
        ours: false,
        headline: "QEMU may not open the VFIO device file",
        because: "The owner or the mode of the file, the device cgroup, SELinux or AppArmor forbids it. With libvirt as root \
                  it sets all of them; without it, or in a container, somebody else has to.",
        is_not: &[NOT_MAPPING, "the locked-memory limit, which comes next"],
        fix: &[
            Text("Look at the file, and at what was denied:"),
            Shell("ls -lZ /dev/vfio\nausearch -m avc -ts recent; dmesg | grep -i apparmor"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceNotOpened,
        id: "device-not-opened",
        ours: false,
        headline: "VFIO does not give out the device of this group",
        because: "The device is not there any more, is not bound to VFIO, is in use, or its driver (vGPU, mdev) failed to \
                  start it. The kernel's log says which.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Look at the device and at the kernel's log:"), GROUP, Shell("dmesg | tail -n 30")],
        rule: None,
    },
    Answer {
        cause: Cause::IommuNotSet,
        id: "iommu-not-set",
        ours: false,
        headline: "the device cannot be attached to an IOMMU domain",
        because: "The kernel refused before any memory was mapped. With -1 (Operation not permitted) interrupt remapping is \
                  missing or the firmware keeps a mapping for the device (RMRR); the kernel's log says which.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("The line that says why:"),
            Shell("dmesg | grep -iE 'vfio|DMAR|AMD-Vi|remapping|RMRR' | tail -n 20"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NoInterruptRemapping,
        id: "no-interrupt-remapping",
        ours: false,
        headline: "the host has no interrupt remapping, and VFIO refuses to go without",
        because: "Without it a guest could send interrupts to the host. It is off in the BIOS, or the platform has none.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Switch it on (x2APIC, interrupt remapping) in the BIOS. Only if you trust the guests:"),
            Shell("echo 'options vfio_iommu_type1 allow_unsafe_interrupts=1' > /etc/modprobe.d/vfio.conf"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::FirmwareNeedsMapping,
        id: "firmware-needs-mapping",
        ours: false,
        headline: "the host's firmware needs a fixed mapping for the device (RMRR): it cannot be passed through",
        because: "The BIOS exchanges data with the device in memory that it reserves for it (common on HPE ProLiant). The \
                  kernel refuses to give the device to a guest.",
        is_not: &[NOT_MAPPING, "the HyperTransport range of AMD hosts"],
        fix: &[
            Text("Switch it off in the BIOS (HPE: Shared Memory Features, conrep), use another slot, or another card:"),
            Shell("dmesg | grep -i RMRR"),
            RESERVED,
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceNotReset,
        id: "device-not-reset",
        ours: false,
        headline: "the device cannot be reset",
        because: "The device has no function level reset that works, and shares its bus with devices that are not the guest's. \
                  The first start after a boot often works, and the next one does not.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text(
                "Pass through all functions of the card together, update its firmware, or see what resets the kernel has:",
            ),
            Shell("cat /sys/bus/pci/devices/0000:41:00.0/reset_method"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceAsleep,
        id: "device-asleep",
        ours: false,
        headline: "the device does not answer any more (power state or reset)",
        because: "The device did not come back from power saving or from a reset. Everything that is read from it is 0xff.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Cold-boot the host. If it comes back, keep the device from sleeping and update its firmware:"),
            Shell("echo 'options vfio-pci disable_idle_d3=1' > /etc/modprobe.d/vfio-pci.conf"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::IommuTimeout,
        id: "iommu-timeout",
        ours: false,
        headline: "the IOMMU waits for a device that does not answer",
        because: "The IOMMU asked a device to drop addresses from its cache (ATS), and got no answer. The device hangs, mostly after a reset that did not work; the host can hang with it.",
        is_not: &[
            NOT_MAPPING,
            "the HyperTransport range 1012–1024 GiB: the address here is that of the IOMMU's own command",
        ],
        fix: &[
            Text("Cold-boot the host, then look at how the device is reset, and at ATS:"),
            Shell("cat /sys/bus/pci/devices/0000:41:00.0/reset_method\n# on the kernel's command line: pci=noats"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::RomUnreadable,
        id: "rom-unreadable",
        ours: false,
        headline: "the device's option ROM cannot be read; most devices do not need it",
        because: "The ROM is not there (integrated graphics), or was shadowed when the host booted with the card as its \
                  first one. That alone stops no guest.",
        is_not: &[NOT_MAPPING, "the reason why a guest does not start: look for the error after it"],
        fix: &[Text("Leave it out, or give a file with the card's own ROM:"), Xml("<rom bar='off'/>")],
        rule: None,
    },
    Answer {
        cause: Cause::BarTaken,
        id: "bar-taken",
        ours: false,
        headline: "the host itself uses the device's BAR (-16)",
        because: "A console of the host (efifb, simplefb, vesafb) or another driver has the BAR. The guest starts, and its \
                  graphics stay black or are slow.",
        is_not: &["the place of the BAR in the guest", "the IOMMU", NOT_MEMLOCK],
        fix: &[
            Text("Find out who has it, and boot the host without a console on this card:"),
            Shell(
                "cat /proc/iomem | grep -B1 -A3 41:00.0\n# on the kernel's command line: initcall_blacklist=sysfb_init",
            ),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NoRoomForFunctions,
        id: "no-room-for-functions",
        ours: false,
        headline: "the host's firmware has left no room for the BARs of virtual functions",
        because: "The kernel of the host cannot place the BARs of the VFs that were asked for. No guest has anything to do with it.",
        is_not: &["a BAR in a guest", NOT_MEMLOCK],
        fix: &[
            Text("Switch Above 4G Decoding and SR-IOV on in the BIOS, or let the kernel place BARs:"),
            Shell("# on the kernel's command line: pci=realloc"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::InterruptTaken,
        id: "interrupt-taken",
        ours: false,
        headline: "the device's interrupt cannot be used (INTx is shared with another device)",
        because: "VFIO needs an INTx interrupt for itself if the device cannot mask it. Another device of the host is on the \
                  same line.",
        is_not: &["the IOMMU", NOT_MEMLOCK],
        fix: &[
            Text("Unbind the other device or use another slot; a device with MSI does not need INTx:"),
            Shell("grep -E 'vfio|IO-APIC' /proc/interrupts"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NotBound,
        id: "not-bound",
        ours: false,
        headline: "the device could not be given to vfio-pci, or is not given to it by libvirt",
        because: "With `managed='no'` somebody else has to bind the device before; with `managed='yes'` the host's driver did \
                  not let it go, or vfio-pci did not take it.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Detach it by hand, and read what the kernel says:"),
            Shell("virsh nodedev-detach pci_0000_41_00_0\ndmesg | tail -n 20"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NotMigratable,
        id: "not-migratable",
        ours: false,
        headline: "a guest with this device cannot be migrated, saved or have a snapshot with memory",
        because: "The device's driver (vfio-pci itself among them) has no support for migration.",
        is_not: &["a matter of addresses"],
        fix: &[Text("Detach the device before, or use a driver with support for migration (mlx5_vfio_pci, vGPU).")],
        rule: None,
    },
    Answer {
        cause: Cause::ViommuNotPrepared,
        id: "viommu-not-prepared",
        ours: true,
        headline: "the guest's virtual IOMMU does not work with passthrough devices as it is set up",
        because: "intel-iommu has to tell QEMU of every mapping (caching mode); amd-iommu of older QEMUs cannot.",
        is_not: &["the IOMMU of the host"],
        fix: &[
            Text("For intel-iommu; otherwise use it or virtio-iommu:"),
            Xml("<iommu model='intel'>\n  <driver intremap='on' caching_mode='on'/>\n</iommu>"),
        ],
        rule: Some("viommu-not-prepared"),
    },
    Answer {
        cause: Cause::HostOutOfMemory,
        id: "host-out-of-memory",
        ours: false,
        headline: "the host does not have the memory for the guest",
        because: "QEMU could not even reserve the guest's RAM: too little memory and swap, or a limit of the control group or \
                  of the address space (overcommit).",
        is_not: &[
            "the locked-memory limit: that comes later, as VFIO_MAP_DMA failed: Cannot allocate memory",
            "an address",
        ],
        fix: &[Text("Look at what is free, and at the limits:"), Shell("free -g\ncat /proc/sys/vm/overcommit_memory")],
        rule: None,
    },
    Answer {
        cause: Cause::HugePagesMissing,
        id: "huge-pages-missing",
        ours: false,
        headline: "there are not enough huge pages, or the file behind the guest's memory does not do",
        because: "QEMU maps the file or the huge pages for all of the guest's memory at once.",
        is_not: &["the locked-memory limit", "an address"],
        fix: &[
            Text("Reserve as many huge pages as the guest has memory, on every NUMA node that it uses:"),
            Shell("grep -i huge /proc/meminfo\nsysctl vm.nr_hugepages"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::KvmMissing,
        id: "kvm-missing",
        ours: false,
        headline: "KVM is not available",
        because: "Virtualization is switched off in the BIOS, the module kvm_amd or kvm_intel is missing, or /dev/kvm may not \
                  be opened.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Look at the device and at the kernel's log:"), Shell("ls -l /dev/kvm; dmesg | grep -i kvm")],
        rule: None,
    },
    Answer {
        cause: Cause::VgaMissing,
        id: "vga-missing",
        ours: false,
        headline: "the device has no legacy VGA region that QEMU could use",
        because: "`x-vga` and the legacy mode for Intel graphics need it, and the kernel has none for this device \
                  (disable_vga, or not a VGA device).",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Leave `x-vga` out and start the guest with UEFI.")],
        rule: None,
    },
    Answer {
        cause: Cause::GuestDriverFailed,
        id: "guest-driver-failed",
        ours: false,
        headline: "the driver cannot start the card",
        because: "NVIDIA's driver found the card and could not start it: a card that was not reset, a driver that does not fit, too little power, or a BAR that is not where the driver looks for it. Lines before it say more.",
        is_not: &["a DMA mapping that was refused: QEMU would say so"],
        fix: &[
            Text("Look at what comes before it, and whether the guest placed all BARs:"),
            Shell("dmesg | grep -iE 'NVRM|BAR' | head -n 20    # in the guest"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DmaFault,
        id: "dma-fault",
        ours: false,
        headline: "a device used an address that is not mapped for it (IOMMU page fault)",
        because: "The IOMMU stopped the access. Common reasons are a driver in the guest that is at fault, a device that still \
                  works while its guest restarts, and integrated graphics that reach memory of the firmware.",
        is_not: &[
            "a mapping that was refused: QEMU would say so",
            "the HyperTransport range 1012–1024 GiB, which the address is not in",
        ],
        fix: &[
            Text(
                "A few at the start or the end of a guest are harmless. Otherwise see whose device and whose address it is:",
            ),
            Shell("lspci -nnks 41:00\nvirsh qemu-monitor-command NAME --hmp 'info mtree -f'"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::RegionNotAligned,
        id: "region-not-aligned",
        ours: false,
        headline: "a piece of memory that is no whole page is not mapped for DMA; this is harmless",
        because: "Devices that QEMU emulates (a TPM, for one) have memory of less than a page. No device has to reach it, and QEMU leaves it out.",
        is_not: &["the reason why a guest does not start: look for the error after it"],
        fix: &[Text("No action is needed.")],
        rule: None,
    },
    Answer {
        cause: Cause::StoppedByPreflight,
        id: "stopped-by-iova-preflight",
        ours: true,
        headline: "iova-preflight's hook has stopped the guest before QEMU started",
        because: "The guest would not have started, or would have lost DMA. The words behind `iova-preflight:` say what collides and what to do.",
        is_not: &["an error of QEMU, which was not started"],
        fix: &[Text("See the whole answer, and what would change:"), FIX],
        rule: None,
    },
    Answer {
        cause: Cause::StoppedByHook,
        id: "stopped-by-hook",
        ours: false,
        headline: "a hook script of this host has stopped the guest",
        because: "libvirt runs /etc/libvirt/hooks/qemu, and the scripts in qemu.d, before a guest starts. One of them ended with a status other than 0, and the words behind the status are its own.",
        is_not: &["an error of QEMU, which was not started"],
        fix: &[
            Text("Look at which scripts there are:"),
            Shell("ls -l /etc/libvirt/hooks/qemu /etc/libvirt/hooks/qemu.d/\niova-preflight hook status"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::QemuExited,
        id: "qemu-exited",
        ours: false,
        headline: "the guest did not start, or QEMU ended; the reason is in another line",
        because: "libvirt and virsh put this in front of the reason, which is what QEMU printed last. The text has no other line that is known.",
        is_not: &["a cause: it says only that there was one"],
        fix: &[
            Text("Read the end of the guest's log, which has all that QEMU printed:"),
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
        ],
        rule: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// It places BARs after RAM (SeaBIOS 1.16.2, `pci_bios_map_devices` of `src/fw/pciinit.c`).
    #[test]
    fn more_bits_are_no_help_with_old_seabios() {
        let shown = format!("{:?}", Cause::BarInReservedRange.answer().fix);
        assert!(shown.contains("SeaBIOS up to 1.16.2") && shown.contains("<pcihole64>"), "{shown}");
    }

    #[test]
    fn every_cause_has_one_answer_in_its_place() {
        let causes: Vec<Cause> = ANSWERS.iter().map(|answer| answer.cause).collect();
        assert!(causes.is_sorted() && causes.windows(2).all(|pair| pair[0] < pair[1]), "{causes:?}");
        assert_eq!(causes.len(), Cause::QemuExited as usize + 1, "the last one closes the list");
        for answer in ANSWERS {
            assert_eq!(answer.cause.answer().id, answer.id);
            assert!(answer.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", answer.id);
            assert!(!answer.is_not.is_empty() && !answer.fix.is_empty(), "{}", answer.id);
            assert!(!answer.headline.ends_with('.') && answer.because.ends_with('.'), "{}", answer.id);
            let known = answer.rule.is_none_or(|rule| crate::rules::rule(rule).is_some());
            assert!(known, "{}: there is no rule {:?}", answer.id, answer.rule);
            // A guest with BARs in trouble starts: `fix` alone would leave it as it is.
            let fixes: Vec<&str> = answer
                .fix
                .iter()
                .filter_map(|block| match block {
                    Shell(text) if text.contains("iova-preflight fix") => Some(*text),
                    _ => None,
                })
                .collect();
            let about_bars = answer.rule.is_some_and(|rule| rule.starts_with("bar-"));
            assert!(fixes.iter().all(|fix| fix.contains("--warnings") == about_bars), "{}: {fixes:?}", answer.id);
        }
    }
}
