//! Causes about the guest's memory and BARs: addresses, widths, limits, mappings.

use super::*;

/// Their answers.
pub(super) static ANSWERS: &[Answer] = &[
    Answer {
        cause: Cause::RamInReservedRange,
        id: "ram-in-reserved-range",
        ours: true,
        headline: "guest RAM lies in the range that an AMD host's IOMMU reserves for HyperTransport",
        because: "A passthrough device may write to all of RAM, so QEMU maps all of it for DMA. AMD hosts do not \
                  accept DMA mappings at 0xfd00000000-0xffffffffff (1012–1024 GiB), and the kernel refuses a mapping \
                  that overlaps this range. A host with an Intel IOMMU does not reserve it; there, the IOMMU is too \
                  narrow for the addresses.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING, "a BAR: if that were refused, QEMU would only warn"],
        fix: &[
            Text(
                "Use a machine type of 7.1 or newer, and physical address bits that reach above 1 TiB. These commands \
                 find both:",
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
        because: "QEMU maps plugged memory (DIMM, NVDIMM, virtio-mem) for DMA, as it does RAM. AMD hosts do not \
                  accept DMA mappings at 0xfd00000000-0xffffffffff (1012–1024 GiB). If the memory was plugged into a \
                  running guest, QEMU has aborted.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING, "the guest's RAM: that was accepted"],
        fix: &[
            Text(
                "Move the memory device, with a machine type of 7.1 or newer, another address, or a smaller \
                 `<maxMemory>`:",
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
        because: "The guest's firmware has placed a BAR at 0xfd00000000-0xffffffffff (1012–1024 GiB), where AMD hosts \
                  do not accept DMA mappings. The guest runs and its CPUs reach the BAR; DMA from another passthrough \
                  device to it (peer-to-peer) fails. For memory that was just plugged the message is the same, but \
                  then QEMU ends.",
        is_not: &[
            "the guest's RAM: if that were refused, QEMU would not start",
            NOT_MEMLOCK,
            "iommufd, which cannot map BARs on older kernels: that is -14 (Bad address) at any address",
        ],
        fix: &[
            Text(
                "If no device has to reach another one directly, no action is needed. Otherwise give the guest a \
                 machine type of 7.1 or newer and 41 or more physical address bits, so that firmware places BARs \
                 above 1 TiB. SeaBIOS up to 1.16.2 (Debian 12) places them after RAM, whatever the number of bits: \
                 with it, use a `<pcihole64>` so large that QEMU moves RAM above 1 TiB, or use OVMF. These commands \
                 find what helps:",
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
        because: "The IOMMU stopped an access to 0xfd00000000-0xffffffffff (1012–1024 GiB), which never reaches \
                  memory. If the device is passed through, the guest has RAM there: kernels before 5.4 let such a \
                  guest start, and its DMA is lost. Data that the device should have written is missing in the guest.",
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
        headline: "guest memory lies above the addresses that the host's IOMMU can use",
        because: "QEMU maps all of the guest's memory for DMA, and the kernel refuses addresses above the IOMMU's \
                  width (39 bits, 512 GiB, on Intel client processors, and by default for QEMU's intel-iommu in \
                  nested guests). The kernel does not list this width in reserved_regions.",
        is_not: &["the HyperTransport range 1012–1024 GiB: none of these addresses is in it", NOT_MEMLOCK, NOT_PINNING],
        fix: &[
            Text(
                "Give the guest less memory, a smaller `<maxMemory>`, or a host with a wider IOMMU. If the host is \
                 virtual, give its intel-iommu 48 bits (`<driver aw_bits='48'/>`). The widths of the host:",
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
        because: "Firmware places 64-bit BARs at the top of the address space that the guest's CPU claims to have (56 \
                  TiB with 46 bits), but the host's IOMMU is narrower (39 bits on Intel client processors). The guest \
                  runs; DMA from another passthrough device to this BAR (peer-to-peer) fails. If memory of an \
                  emulated device is there, such as ivshmem or an option ROM, QEMU ends.",
        is_not: &[
            "the guest's RAM: that lies much lower",
            "the HyperTransport range 1012–1024 GiB of AMD hosts",
            NOT_MEMLOCK,
        ],
        fix: &[
            Text(
                "If the guest works, no action is needed. Otherwise give the guest no more bits than the IOMMU has \
                 (`limit` needs libvirt 9.3). On the host, these commands find how many:",
            ),
            FIX_BARS,
            LESS_BITS,
            Text("The widths of the host:"),
            WIDTH,
        ],
        rule: Some("bar-above-iommu-width"),
    },
    Answer {
        cause: Cause::AddressAboveIommuWidth,
        id: "address-above-iommu-width",
        ours: true,
        headline: "an address lies above what the host's IOMMU can use",
        because: "The Intel IOMMU driver refuses to map an address above its width. The address is that of guest \
                  memory or of a BAR; QEMU's own message says which.",
        is_not: &["the HyperTransport range of AMD hosts: this message comes from Intel's driver", NOT_MEMLOCK],
        fix: &[
            Text("Give the guest no more bits than the IOMMU has (`limit` needs libvirt 9.3), or less memory:"),
            LESS_BITS,
        ],
        rule: Some("ram-above-iommu-width"),
    },
    Answer {
        cause: Cause::ViommuAboveIommuWidth,
        id: "viommu-above-iommu-width",
        ours: true,
        headline: "the guest's virtual IOMMU is wider than the host's IOMMU",
        because: "The guest could choose addresses that the host's IOMMU cannot use, so QEMU 9.1 and newer refuse the \
                  device.",
        is_not: &[NOT_MEMLOCK, "the guest's phys-bits: those belong to the CPU"],
        fix: &[
            Text("Give the virtual IOMMU as many bits as the host has, according to the message:"),
            Xml("<iommu model='intel'>\n  <driver caching_mode='on' aw_bits='39'/>\n</iommu>"),
        ],
        rule: Some("viommu-above-iommu-width"),
    },
    Answer {
        cause: Cause::RamOutsideVdpaRange,
        id: "ram-outside-vdpa-range",
        ours: true,
        headline: "guest RAM lies outside the addresses that the vDPA device can use",
        because: "A vDPA device can use one range of addresses. QEMU does not map RAM outside of it: it skips that \
                  RAM, or refuses the device.",
        is_not: &[NOT_MEMLOCK, "a BAR"],
        fix: &[Text("Give the guest memory that ends within the range:"), CHECK],
        rule: None,
    },
    Answer {
        cause: Cause::LockedMemory,
        id: "locked-memory",
        ours: true,
        headline: "QEMU is not allowed to lock as much memory as the guest needs (RLIMIT_MEMLOCK)",
        because: "A DMA mapping pins its pages, and pinned pages count as locked memory of the process. A guest needs \
                  about 1 GiB more than its RAM; with vDPA devices or a virtual IOMMU its RAM counts once per device. \
                  The limit is lower than that.",
        is_not: &[NOT_ADDRESS, "too little memory in the host: with that, QEMU cannot even set up the guest's RAM"],
        fix: &[
            Text(
                "With libvirt, remove `<hard_limit>`, so that libvirt sets the limit, or raise it to the RAM plus \
                 several GiB. Without libvirt, raise the limit of the service, container or shell that starts QEMU:",
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
        headline: "libvirt is not allowed to raise the locked-memory limit that the guest needs",
        because: "For a guest with VFIO or vDPA devices, libvirt raises QEMU's RLIMIT_MEMLOCK. Above the hard limit \
                  this needs CAP_SYS_RESOURCE, which libvirt does not have in a container (KubeVirt) or as a session \
                  daemon.",
        is_not: &[NOT_ADDRESS, "too little memory in the host"],
        fix: &[
            Text(
                "Give libvirt the capability, or a hard limit that is high enough. In KubeVirt, request as much \
                 memory as the guest has (no overcommit), and use a release that sets the limit of virt-launcher. \
                 Elsewhere:",
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
        because: "QEMU 7.1 and newer refuse a guest whose memory map, including room for hot-plug and the 64-bit PCI \
                  hole, reaches beyond the physical address bits of its CPU (40 by default).",
        is_not: &["about passthrough devices: it happens without them, too", "too little memory in the host"],
        fix: &[
            Text(
                "Give the CPU more bits, or the guest a smaller `<maxMemory>` and fewer slots. These commands find \
                 how many bits:",
            ),
            FIX,
        ],
        rule: Some("phys-bits-too-low"),
    },
    Answer {
        cause: Cause::PhysBitsOutOfRange,
        id: "phys-bits-out-of-range",
        ours: true,
        headline: "QEMU does not accept this number of physical address bits",
        because: "QEMU accepts 32 to 52 bits (11.1: at least 32).",
        is_not: &["a number above the host's: that is compared later"],
        fix: &[Text("Correct `bits` of `<maxphysaddr>`, or `phys-bits` of `-cpu`:"), CHECK],
        rule: Some("phys-bits-out-of-range"),
    },
    Answer {
        cause: Cause::PhysBitsNotConfigurable,
        id: "phys-bits-not-configurable",
        ours: true,
        headline: "physical address bits are set for a 32-bit CPU",
        because: "QEMU accepts `phys-bits` only for CPU models with long mode.",
        is_not: &["a number that is too high or too low"],
        fix: &[Text("Use a 64-bit CPU model, or remove `<maxphysaddr>`:"), CHECK],
        rule: Some("phys-bits-not-configurable"),
    },
    Answer {
        cause: Cause::PhysBitsMismatch,
        id: "phys-bits-mismatch",
        ours: true,
        headline: "the guest's CPU has a different number of physical address bits than the host's",
        because: "This is a warning. With fewer bits than the host it is expected. With more bits, BARs and memory \
                  can lie where the host's CPU cannot reach them.",
        is_not: &["the reason why a guest does not start: look for the error after it"],
        fix: &[Text("If the guest has fewer bits than the host, no action is needed. If it has more:"), CHECK],
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
            Text("Give the guest no more bits than the host has:"),
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
        because: "A KVM memory slot has fewer than 2^31 pages (virt/kvm/kvm_main.c, KVM_MEM_MAX_NR_PAGES), and QEMU \
                  uses one slot for each memory backend.",
        is_not: &["an address that is too high", "too little memory in the host"],
        fix: &[Text("Split the memory into several NUMA cells of less than 8 TiB each:"), CHECK],
        rule: Some("memory-backend-refused"),
    },
    Answer {
        cause: Cause::BarInRam,
        id: "bar-in-ram",
        ours: true,
        headline: "firmware placed a BAR or a bridge window inside the guest's RAM",
        because: "The guest's kernel finds a BAR where RAM is, and moves it or gives up on the device. SeaBIOS 1.16.3 \
                  and newer and OVMF 2023.02 and newer cause this with 40 physical address bits and RAM that ends \
                  above 768 GiB.",
        is_not: &["the IOMMU: no address was refused", "a defective device"],
        fix: &[
            Text(
                "Give the guest 41 or more physical address bits, so that BARs are placed above its RAM. These \
                 commands find how many:",
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
        because: "The 64-bit window that firmware made is too small for the BARs of all devices, or lies where RAM \
                  is. The guest's driver finds a BAR of 0 bytes.",
        is_not: &[
            "a problem of the driver in the guest",
            "the IOMMU: nothing was mapped yet",
            "Above 4G Decoding of the host's BIOS, unless the host's own kernel says so",
        ],
        fix: &[
            Text("Give the guest more physical address bits. On its host, these commands find how many:"),
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
        because: "The kernel could not get at the pages of the guest's memory: there are too few huge pages, the \
                  memory is a file or device that cannot be pinned (DAX, /dev/kvmfr, SGX), or it is gone. Since Linux \
                  6.5, a shared file on a disk file system (ext4, XFS) cannot be pinned either: libvirt's `<source \
                  type='file'/>` with shared access, in /var/lib/libvirt/qemu/ram, or `memory-backend-file,share=on`. \
                  A memfd and files in tmpfs and hugetlbfs can be pinned.",
        is_not: &["the HyperTransport range or any other address: that is -22 (Invalid argument)", NOT_MEMLOCK],
        fix: &[
            Text(
                "Check that there are as many huge pages as the guest has memory, on every NUMA node that it uses. \
                 For vhost-user and virtiofs, use memfd or a file in hugetlbfs instead of one on a disk:",
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
        because: "A BAR is not memory that can be pinned (VM_PFNMAP), and iommufd refuses it with -14 (Bad address). \
                  QEMU continues, and only DMA from one device to another (peer-to-peer) does not work. Linux 6.19 \
                  and newer can map BARs as dma-buf.",
        is_not: &[
            "the address of the BAR: an address that is not accepted gives -22 (Invalid argument)",
            "the reason why a guest does not start: look for the error after it",
            NOT_MEMLOCK,
        ],
        fix: &[
            Text(
                "If you do not need peer-to-peer, no action is needed. Otherwise use VFIO without iommufd, or a newer \
                 kernel and QEMU:",
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
        because: "QEMU maps the BARs of passthrough devices, so that devices can reach each other. The line before \
                  this one has the address and the error: with -22 the address was refused, with -14 it was iommufd.",
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
        because: "-22 (Invalid argument) means that the address is wrong: reserved by the IOMMU (like the interrupt \
                  range 0xfee00000-0xfeefffff and the firmware's own regions), above its width, or not a multiple of \
                  the page size. Other errors are not about the address.",
        is_not: &[NOT_MEMLOCK, NOT_PINNING],
        fix: &[
            Text(
                "Compare the addresses with what the host reserves. If the text has no addresses, explain the whole \
                 log:",
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
        headline: "VFIO has no DMA mappings left: a container can have 65535",
        because: "Memory that is mapped in small pieces (virtio-mem with small blocks, a confidential guest's shared \
                  pages, a virtual IOMMU) uses up the mappings (drivers/vfio/vfio_iommu_type1.c, dma_entry_limit).",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK, "a full disk"],
        fix: &[
            Text("Use larger blocks for virtio-mem, or allow more mappings (until the next boot):"),
            Shell("echo 1000000 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::AddressMapped,
        id: "address-mapped",
        ours: false,
        headline: "something is already mapped at these addresses",
        because: "The virtual machine monitor maps the same addresses twice. This is a bug in it, not in the guest's \
                  definition.",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK, "a reserved range"],
        fix: &[Text(
            "Use a newer version of QEMU (Kata, Cloud Hypervisor), and report the bug there with the whole log.",
        )],
        rule: None,
    },
    Answer {
        cause: Cause::AddressInUse,
        id: "address-in-use",
        ours: true,
        headline: "the device's IOMMU reserves addresses where the guest's memory is already mapped",
        because: "The guest was running when the device was attached, with memory where this device's IOMMU does not \
                  accept DMA mappings.",
        is_not: &["a device that is in use: that is -16 (Device or resource busy)", NOT_MEMLOCK],
        fix: &[Text("Move the guest's memory, then start the guest with the device:"), RESERVED, CHECK],
        rule: Some("ram-in-reserved-range"),
    },
    Answer {
        cause: Cause::DiscardRefused,
        id: "discard-refused",
        ours: true,
        headline: "virtio-mem gives memory back to the host, but something else pins all of it",
        because: "A vDPA device pins all of the guest's memory, and so does locked memory, while virtio-mem gives \
                  parts of it back. QEMU refuses whichever comes second. VFIO and virtio-mem work together.",
        is_not: &[NOT_ADDRESS, NOT_MEMLOCK],
        fix: &[Text(
            "Use DIMMs instead of virtio-mem, use VFIO instead of vDPA, or remove `<locked/>` (`-overcommit \
                 mem-lock=on`).",
        )],
        rule: Some("virtio-mem-refused"),
    },
    Answer {
        cause: Cause::SlotRefused,
        id: "slot-refused",
        ours: false,
        headline: "KVM refuses a memory slot that overlaps another one or is not whole pages",
        because: "QEMU or a vfio-user server asks for a slot where there already is one. This is a bug there, not in \
                  the guest's definition.",
        is_not: &["the IOMMU", "the width of the host's CPU: the address is low", NOT_MEMLOCK],
        fix: &[Text(
            "Use newer versions of QEMU and of the vfio-user server, and report the bug there with the whole log.",
        )],
        rule: None,
    },
    Answer {
        cause: Cause::KvmRunFailed,
        id: "kvm-run-failed",
        ours: false,
        headline: "the guest accessed memory that KVM could not get from the host",
        because: "The host could not provide the page behind a guest address: the file behind the memory was \
                  truncated, huge pages ran out, the memory has a hardware error, or the device that the BAR belongs \
                  to is gone.",
        is_not: &[NOT_MAPPING, NOT_MEMLOCK],
        fix: &[
            Text("Check the huge pages, the file behind the memory and the kernel's log:"),
            Shell("grep -i huge /proc/meminfo\ndmesg | tail -n 30"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::UnmapFailed,
        id: "unmap-failed",
        ours: false,
        headline: "a DMA mapping could not be removed",
        because: "QEMU removes a mapping that the kernel does not have, or that has other bounds. This happens after \
                  a failed mapping, and when the guest's virtual IOMMU joins or splits mappings.",
        is_not: &["the reason why a guest does not start: look for the first error"],
        fix: &[
            Text("Look for the failed mapping before it:"),
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
        ],
        rule: None,
    },
];
