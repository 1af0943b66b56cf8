//! Causes about devices and how they are given to a guest, about the host, and what only accompanies another one.

use super::*;

/// Their answers.
pub(super) static ANSWERS: &[Answer] = &[
    Answer {
        cause: Cause::GroupNotViable,
        id: "group-not-viable",
        ours: false,
        headline: "another device of the same IOMMU group is not bound to vfio-pci",
        because: "All devices of an IOMMU group go to one guest, or to none. One of them is still bound to a driver \
                  of the host.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text(
                "Bind all devices of the group except bridges to vfio-pci, pass them through together, or put the \
                 card into another slot:",
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
        because: "Devices of one group share their mappings, so the guest has to see them in one address space.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Put the devices on one virtual slot as functions, or remove one of them:"), GROUP],
        rule: None,
    },
    Answer {
        cause: Cause::NoIommu,
        id: "no-iommu",
        ours: false,
        headline: "the host's IOMMU is not in use, or VFIO is not loaded",
        because: "Without an IOMMU there are no IOMMU groups, and nothing can be passed through. It is switched off \
                  in the BIOS (VT-d, AMD-Vi, IOMMU) or on the kernel's command line, or the modules vfio and \
                  vfio_iommu_type1 are missing.",
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
        because: "/dev/vfio/N appears when a device of group N is bound to vfio-pci. The device has no driver, or one \
                  of the host; or the file was not passed into the container.",
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
        because: "`iommufd` needs Linux 6.6 or newer with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV, and its module \
                  has to be loaded.",
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
        headline: "the device is in use by another guest or process",
        because: "A VFIO group or device can be open only once. Another guest, a guest that is still ending, or \
                  another program (DPDK, SPDK) has it.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Find out who uses it:"), Shell("lsof /dev/vfio/* 2>/dev/null\nvirsh list --all")],
        rule: None,
    },
    Answer {
        cause: Cause::NoPermission,
        id: "no-permission",
        ours: false,
        headline: "QEMU is not allowed to open the VFIO device file",
        because: "The owner or mode of the file, the device cgroup, SELinux or AppArmor forbids it. When it runs as \
                  root, libvirt sets all of them; without libvirt, or in a container, you have to.",
        is_not: &[NOT_MAPPING, "the locked-memory limit: that comes later"],
        fix: &[
            Text("Check the file, and what was denied:"),
            Shell("ls -lZ /dev/vfio\nausearch -m avc -ts recent; dmesg | grep -i apparmor"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceNotOpened,
        id: "device-not-opened",
        ours: false,
        headline: "VFIO could not open the device of this group",
        because: "The device is gone, is not bound to VFIO, is in use, or its driver (vGPU, mdev) failed to start it. \
                  The kernel's log says which.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Check the device and the kernel's log:"), GROUP, Shell("dmesg | tail -n 30")],
        rule: None,
    },
    Answer {
        cause: Cause::IommuNotSet,
        id: "iommu-not-set",
        ours: false,
        headline: "the device cannot be attached to an IOMMU domain",
        because: "The kernel refused before any memory was mapped. With -1 (Operation not permitted), interrupt \
                  remapping is missing or the firmware keeps a mapping for the device (RMRR); the kernel's log says \
                  which.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Find the line that says why:"),
            Shell("dmesg | grep -iE 'vfio|DMAR|AMD-Vi|remapping|RMRR' | tail -n 20"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NoInterruptRemapping,
        id: "no-interrupt-remapping",
        ours: false,
        headline: "the host has no interrupt remapping, and VFIO refuses to work without it",
        because: "Without it, a guest could send interrupts to the host. It is off in the BIOS, or the platform has \
                  none.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text(
                "Switch it on in the BIOS (x2APIC, interrupt remapping). Only if you trust the guests, allow it \
                 without:",
            ),
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
        because: "The device has no function level reset that works, and shares its bus with devices that are not the \
                  guest's. Often the first start after a boot works, and the next one does not.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text(
                "Pass through all functions of the card together, or update its firmware. The resets that the kernel \
                 can use:",
            ),
            Shell("cat /sys/bus/pci/devices/0000:41:00.0/reset_method"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DeviceAsleep,
        id: "device-asleep",
        ours: false,
        headline: "the device does not respond any more (power state or reset)",
        because: "The device did not come back from power saving or from a reset. Every read from it returns 0xff.",
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
        headline: "the IOMMU waits for a device that does not respond",
        because: "The IOMMU asked a device to drop addresses from its cache (ATS) and got no answer. The device \
                  hangs, mostly after a failed reset, and the host can hang with it.",
        is_not: &[
            NOT_MAPPING,
            "the HyperTransport range 1012–1024 GiB: the address here is that of the IOMMU's own command",
        ],
        fix: &[
            Text("Cold-boot the host, then check how the device is reset, or switch ATS off:"),
            Shell("cat /sys/bus/pci/devices/0000:41:00.0/reset_method\n# on the kernel's command line: pci=noats"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::RomUnreadable,
        id: "rom-unreadable",
        ours: false,
        headline: "the device's option ROM cannot be read; most devices do not need it",
        because: "There is no ROM (integrated graphics), or it was shadowed because the host booted with this card as \
                  its first one. This alone stops no guest.",
        is_not: &[NOT_MAPPING, "the reason why a guest does not start: look for the error after it"],
        fix: &[Text("Switch it off, or provide a file with the card's own ROM:"), Xml("<rom bar='off'/>")],
        rule: None,
    },
    Answer {
        cause: Cause::BarTaken,
        id: "bar-taken",
        ours: false,
        headline: "the host itself uses the device's BAR (-16)",
        because: "A console of the host (efifb, simplefb, vesafb) or another driver uses the BAR. The guest starts, \
                  but its graphics stay black or are slow.",
        is_not: &["the address of the BAR in the guest", "the IOMMU", NOT_MEMLOCK],
        fix: &[
            Text("Find out who uses it, and boot the host without a console on this card:"),
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
        headline: "the host's firmware left no room for the BARs of virtual functions",
        because: "The host's kernel cannot place the BARs of the VFs that were asked for. This has nothing to do with \
                  any guest.",
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
        because: "VFIO needs an INTx interrupt for itself if the device cannot mask it, and another device of the \
                  host is on the same line.",
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
        headline: "the device could not be bound to vfio-pci, or libvirt was told not to bind it",
        because: "With `managed='no'` you have to bind the device yourself first. With `managed='yes'` the host's \
                  driver did not release it, or vfio-pci did not accept it.",
        is_not: &[NOT_MAPPING],
        fix: &[
            Text("Detach it by hand, and read the kernel's log:"),
            Shell("virsh nodedev-detach pci_0000_41_00_0\ndmesg | tail -n 20"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::NotMigratable,
        id: "not-migratable",
        ours: false,
        headline: "a guest with this device cannot be migrated, saved or have a snapshot with memory",
        because: "The device's driver (vfio-pci itself, for example) does not support migration.",
        is_not: &["a problem with addresses"],
        fix: &[Text("Detach the device first, or use a driver that supports migration (mlx5_vfio_pci, vGPU).")],
        rule: None,
    },
    Answer {
        cause: Cause::ViommuNotPrepared,
        id: "viommu-not-prepared",
        ours: true,
        headline: "the guest's virtual IOMMU does not work with passthrough devices as it is set up",
        because: "QEMU has to learn of every mapping that the guest makes. An intel-iommu tells it only in caching \
                  mode; the amd-iommu of older QEMU versions cannot.",
        is_not: &["the IOMMU of the host"],
        fix: &[
            Text("Use an intel-iommu in caching mode, or a virtio-iommu:"),
            Xml("<iommu model='intel'>\n  <driver intremap='on' caching_mode='on'/>\n</iommu>"),
        ],
        rule: Some("viommu-not-prepared"),
    },
    Answer {
        cause: Cause::HostOutOfMemory,
        id: "host-out-of-memory",
        ours: false,
        headline: "the host does not have the memory for the guest",
        because: "QEMU could not even reserve the guest's RAM: there is too little memory and swap, or a limit of the \
                  control group or of the address space (overcommit) is in the way.",
        is_not: &[
            "the locked-memory limit: that comes later, as VFIO_MAP_DMA failed: Cannot allocate memory",
            "a problem with addresses",
        ],
        fix: &[Text("Check what is free, and the limits:"), Shell("free -g\ncat /proc/sys/vm/overcommit_memory")],
        rule: None,
    },
    Answer {
        cause: Cause::HugePagesMissing,
        id: "huge-pages-missing",
        ours: false,
        headline: "there are not enough huge pages, or the file behind the guest's memory is unsuitable",
        because: "QEMU maps the file or the huge pages for all of the guest's memory at once.",
        is_not: &["the locked-memory limit", "a problem with addresses"],
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
        because: "Virtualization is switched off in the BIOS, the module kvm_amd or kvm_intel is missing, or QEMU is \
                  not allowed to open /dev/kvm.",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Check the device and the kernel's log:"), Shell("ls -l /dev/kvm; dmesg | grep -i kvm")],
        rule: None,
    },
    Answer {
        cause: Cause::VgaMissing,
        id: "vga-missing",
        ours: false,
        headline: "the device has no legacy VGA region that QEMU could use",
        because: "`x-vga` and the legacy mode for Intel graphics need this region, and the kernel does not offer it \
                  for this device (disable_vga, or not a VGA device).",
        is_not: &[NOT_MAPPING],
        fix: &[Text("Remove `x-vga`, and start the guest with UEFI.")],
        rule: None,
    },
    Answer {
        cause: Cause::GuestDriverFailed,
        id: "guest-driver-failed",
        ours: false,
        headline: "the driver cannot initialize the card",
        because: "NVIDIA's driver found the card but could not initialize it: the card was not reset, the driver does \
                  not match, there is too little power, or a BAR is not where the driver expects it. Read the lines before this one.",
        is_not: &["a DMA mapping that was refused: QEMU would say so"],
        fix: &[
            Text("Read the lines before it, and check whether all BARs have an address in the guest:"),
            Shell("dmesg | grep -iE 'NVRM|BAR' | head -n 20    # in the guest"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::DmaFault,
        id: "dma-fault",
        ours: false,
        headline: "a device used an address that is not mapped for it (IOMMU page fault)",
        because: "The IOMMU stopped the access. Common reasons are a faulty driver in the guest, a device that keeps \
                  working while its guest restarts, and integrated graphics that use memory of the firmware.",
        is_not: &[
            "a mapping that was refused: QEMU would say so",
            "the HyperTransport range 1012–1024 GiB: the address is not in it",
        ],
        fix: &[
            Text(
                "A few when a guest starts or ends are harmless. Otherwise find out which device it is, and what is \
                 at the address:",
            ),
            Shell("lspci -nnks 41:00\nvirsh qemu-monitor-command NAME --hmp 'info mtree -f'"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::RegionNotAligned,
        id: "region-not-aligned",
        ours: false,
        headline: "memory of less than a whole page is not mapped for DMA; this is harmless",
        because: "Devices that QEMU emulates (a TPM, for example) have memory of less than a page. No device needs to \
                  reach it, and QEMU leaves it out.",
        is_not: &["the reason why a guest does not start: look for the error after it"],
        fix: &[Text("No action is needed.")],
        rule: None,
    },
    Answer {
        cause: Cause::StoppedByPreflight,
        id: "stopped-by-iova-preflight",
        ours: true,
        headline: "iova-preflight's hook has stopped the guest before QEMU started",
        because: "The guest would not have started, or its DMA would have been lost. The text after `iova-preflight:` \
                  says what collides and what to do.",
        is_not: &["an error of QEMU, which was not started"],
        fix: &[Text("Show the whole result, and what would change:"), FIX],
        rule: None,
    },
    Answer {
        cause: Cause::StoppedByHook,
        id: "stopped-by-hook",
        ours: false,
        headline: "a hook script of this host has stopped the guest",
        because: "libvirt runs /etc/libvirt/hooks/qemu, and the scripts in qemu.d, before a guest starts. One of them \
                  ended with a status other than 0; the text after the status is its own.",
        is_not: &["an error of QEMU, which was not started"],
        fix: &[
            Text("See which scripts there are:"),
            Shell("ls -l /etc/libvirt/hooks/qemu /etc/libvirt/hooks/qemu.d/\niova-preflight hook status"),
        ],
        rule: None,
    },
    Answer {
        cause: Cause::QemuExited,
        id: "qemu-exited",
        ours: false,
        headline: "the guest did not start, or QEMU ended; the reason is in another line",
        because: "libvirt and virsh print this before the reason, which is the last message of QEMU. The text has no \
                  other known message.",
        is_not: &["a cause: it only says that there is one"],
        fix: &[
            Text("Read the end of the guest's log, which has all that QEMU printed:"),
            Shell("iova-preflight explain - < /var/log/libvirt/qemu/NAME.log"),
        ],
        rule: None,
    },
];
