//! Causes about the guest's memory and BARs: addresses, widths, limits, mappings.

use super::*;

/// Their answers.
pub(super) static ANSWERS: &[Answer] = &[
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
        ours: true,
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
];
