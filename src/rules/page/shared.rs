//! What several pages say in the same words.

use super::Block::{self, Output, Shell, Text, Xml};
use super::{ErrorText, Program};

/// What the range is.
pub(crate) const THE_RANGE: Block = Text(
    "An AMD host with an IOMMU reserves the guest-physical (and bus) addresses 0xfd_0000_0000 to 0xff_ffff_ffff, 12 \
     GiB just below 1 TiB, for HyperTransport (AMD I/O Virtualization Technology Specification, 48882, section \
     2.1.2). A DMA access of a device to them never reaches memory.",
);

/// The kernel's part.
pub(crate) const KERNEL: Block = Text(
    "Linux lists the range in `/sys/kernel/iommu_groups/*/reserved_regions` since 4.11. Up to 5.3, VFIO mapped guest \
     RAM there all the same: the guest started, and DMA to it failed at run time, with INVALID_DEVICE_REQUEST events \
     of the IOMMU in the host's log. Since 5.4 (commit 9b77e5c79840) VFIO knows which addresses are valid and refuses \
     the mapping, and QEMU does not start. Since 6.16 (commit 94a9921e2c25) the range is not listed on hosts whose \
     IOMMU says that it can be used (HTRangeIgnore); there nothing collides.",
);

/// QEMU's part.
pub(crate) const QEMU: Block = Text(
    "QEMU 7.1 (commits 8504f129450b and b3e6982b4154) starts RAM above 4 GiB at 1 TiB instead, if the memory map \
     would otherwise reach 1012 GiB. It does so only with a machine type of 7.1 or newer, because where RAM lies is a \
     part of the virtual hardware, and only for a vCPU of vendor AuthenticAMD. Older machine types keep the old map \
     for ever, in new versions of QEMU too. Distributions name their types differently: `pc-q35-rhel9.2.0` and \
     `pc-q35-lunar` are the first of RHEL and Ubuntu that move RAM.",
);

/// The check of phys-bits.
pub(crate) const PHYS_BITS_CHECK: Block = Text(
    "QEMU 7.1 (commit 1caab5cf86bd) checks that the vCPU's physical address bits reach the end of the memory map, \
     whatever the machine type and the vendor. Before, such a guest started. The map counts as used up to the end of \
     the 64-bit PCI hole, also if nothing is there.",
);

/// Where the number of bits comes from.
pub(crate) const DEFAULT_BITS: Block = Text(
    "The default is 40 bits, 1 TiB, for all CPU models but `host-passthrough` and `maximum` under KVM, which have the \
     host's. So 40 bits never suffice once RAM has moved above 1 TiB. libvirt asks for other bits with \
     `<maxphysaddr>`, since 8.7.",
);

/// What QEMU says of a BAR that VFIO does not map for DMA, before 10 and since.
pub(crate) const BAR_NOT_MAPPED: [ErrorText; 2] = [
    ErrorText {
        by: Program::Qemu,
        when: "a warning in the guest's log when the guest's firmware enables the BAR",
        text: "VFIO_MAP_DMA failed: Invalid argument",
    },
    ErrorText {
        by: Program::Qemu,
        when: "the same in QEMU 10, of the first BAR only",
        text: "0000:41:00.0: PCI peer-to-peer transactions on BARs are not supported.",
    },
];

/// What VFIO's refusal looks like.
pub(crate) const VFIO_MAP: ErrorText =
    ErrorText { by: Program::Qemu, when: "first of two lines", text: "VFIO_MAP_DMA failed: Invalid argument" };

/// What a newer QEMU prints in the place of `vfio_dma_map`.
pub(crate) const NEWER_WORDS: Block = Text(
    "Newer versions of QEMU print `vfio_container_dma_map` where 7.2 prints `vfio_dma_map`. The first number behind \
     it is the guest-physical address and the second the size: only if the two cover a part of 0xfd_0000_0000 to \
     0xff_ffff_ffff is it this range. What lies beyond the addresses that the IOMMU can translate at all is refused in \
     the same words: see ram-above-iommu-width and, of 0x380000000000 and the like, bar-above-iommu-width.",
);

/// The commands that fix a guest.
pub(crate) const FIX_IT: Block = Shell(
    "iova-preflight fix guest.xml                                # shows what would change\n\
     iova-preflight fix --in-place guest.xml                     # rewrites the file\n\
     iova-preflight fix --connect qemu:///system --domain NAME   # redefines the guest",
);

/// What a changed machine type means.
pub(crate) const NEW_MACHINE: Block = Text(
    "By hand: `virsh edit NAME`, and in `<os>` a machine type of 7.1 or newer that the host has. That is a new \
     revision of the virtual hardware: Windows may ask to be activated again, and saved state and snapshots with \
     memory no longer restore. It takes effect at the next cold start, a reboot inside the guest is not enough.",
);

/// What the host reserves.
pub(crate) const RESERVED: [Block; 3] = [
    Text("What the host reserves for the group of a device; both ends belong to the range:"),
    Shell(
        "cat /sys/bus/pci/devices/0000:41:00.0/iommu_group/reserved_regions\n\
         cat /sys/kernel/iommu_groups/*/reserved_regions | sort -u",
    ),
    Output(
        "0x00000000fee00000 0x00000000feefffff msi\n\
         0x000000fd00000000 0x000000ffffffffff reserved",
    ),
];

/// Where QEMU put RAM.
pub(crate) const MAP: [Block; 3] = [
    Text(
        "Where QEMU puts RAM, seen in the guest while it stands still. A guest that does not start because of its \
         devices does without them:",
    ),
    Shell(
        "virsh start --paused NAME\n\
         virsh qemu-monitor-command NAME --hmp 'info mtree -f' | grep 'ram)' | sort -u\n\
         virsh qemu-monitor-command NAME --hmp 'info memory-devices'",
    ),
    Text(
        "Ranges of RAM between 000000fd00000000 and 000000ffffffffff collide; RAM that has moved starts at \
         0000010000000000.",
    ),
];

/// The bits of guest and host.
pub(crate) const BITS: [Block; 2] = [
    Text(
        "The bits of the vCPU, in a guest that runs or stands still, and those of the host. With `vendor` instead of \
         `phys-bits` QEMU tells the vendor:",
    ),
    Shell(
        "virsh qemu-monitor-command NAME '{\"execute\":\"query-cpus-fast\"}'     # tells the qom-path\n\
         virsh qemu-monitor-command NAME \
         '{\"execute\":\"qom-get\",\"arguments\":{\"path\":\"/machine/unattached/device[0]\",\"property\":\"phys-bits\"}}'\n\
         grep -m1 'address sizes' /proc/cpuinfo",
    ),
];

/// What libvirt passes to QEMU.
pub(crate) const COMMAND_LINE: [Block; 2] = [
    Text("What libvirt passes to QEMU, without starting anything:"),
    Shell(
        "virsh domxml-to-native qemu-argv --domain NAME | tr ' ' '\\n\
         ' | grep -A1 -E '^-(machine|cpu|m|global)$'",
    ),
];

/// How a collision is seen.
pub(crate) const COLLISION: [Block; 7] = [NEWER_WORDS, RESERVED[0], RESERVED[1], RESERVED[2], MAP[0], MAP[1], MAP[2]];

/// What libvirt says of a QEMU that refuses.
pub(crate) const QEMU_EXITED: ErrorText = ErrorText {
    by: Program::Libvirt,
    when: "in front of it, from virsh start",
    text: "error: internal error: process exited while connecting to monitor",
};

/// Where firmware puts BARs.
pub(crate) const WINDOW: Block = Text(
    "Where BARs lie is decided by the guest's firmware. OVMF since 2022.11 and SeaBIOS since 1.16.3 use the top of the \
     vCPU's address space, OVMF its last eighth, if they believe the number of bits: 41 or more, 40 of an AMD vCPU, 36 or \
     39 of an Intel one. Otherwise, and in older versions, BARs come right after RAM. OVMF takes 40 bits for a vCPU \
     without pages of 1 GiB (`pdpe1gb`).",
);

/// The command that makes the fix of a warning.
pub(crate) const FIX_WARNINGS: Block = Shell(
    "iova-preflight fix --warnings guest.xml                                # shows what would change\n\
     iova-preflight fix --warnings --connect qemu:///system --domain NAME   # redefines the guest",
);

/// More bits by hand.
pub(crate) const MORE_BITS: Block = Xml("<cpu mode='host-model'>\n\
     \x20 <maxphysaddr mode='emulate' bits='42'/>\n\
     </cpu>");

/// What helps where firmware places BARs after RAM.
pub(crate) const RELOCATE: Block = Text(
    "With SeaBIOS up to 1.16.2 bits do not matter. There a `<pcihole64>` so large that QEMU moves RAM above 1 TiB moves the \
     BARs with it, with a machine type of 7.1 or newer; or fewer devices, or OVMF.",
);

/// Where BARs are.
pub(crate) const WHERE_BARS_ARE: [Block; 2] = [
    Text("Where the BARs are, seen from the host once the guest's firmware has run, and from inside the guest:"),
    Shell(
        "virsh qemu-monitor-command NAME --hmp 'info pci' | grep -E 'BAR|PCI device'\n\
         lspci -vv | grep 'Region .*64-bit'",
    ),
];
