//! What several pages say in the same words. What takes more than a few sentences is in docs/background.md, for all of
//! them.

use super::Block::{self, Shell, Text, Xml};
use super::ErrorText;

/// What the range is.
pub(crate) const THE_RANGE: Block = Text(
    "AMD hosts with an IOMMU reserve the addresses `0xfd00000000` to `0xffffffffff`, 1012–1024 GiB, for HyperTransport. \
     A device's DMA to them never reaches memory, so Linux 5.4 and newer refuse to map them.",
);

/// Where the number of bits comes from.
pub(crate) const DEFAULT_BITS: Block = Text(
    "A CPU model has 40 bits (1 TiB) by default; only `host-passthrough` and `maximum` under KVM have the host's. So 40 \
     bits never suffice once RAM has moved above 1 TiB. libvirt 8.7 and newer set other bits with `<maxphysaddr>`.",
);

/// What QEMU says of a BAR that VFIO does not map for DMA, before 10 and since.
pub(crate) const BAR_NOT_MAPPED: [ErrorText; 2] = [
    ErrorText::qemu(
        "a warning in the guest's log when the guest's firmware enables the BAR",
        "VFIO_MAP_DMA failed: Invalid argument",
    ),
    ErrorText::qemu(
        "the same in QEMU 10, for the first BAR only",
        "0000:41:00.0: PCI peer-to-peer transactions on BARs are not supported.",
    ),
];

/// What VFIO's refusal looks like.
pub(crate) const VFIO_MAP: ErrorText = ErrorText::qemu("first of two lines", "VFIO_MAP_DMA failed: Invalid argument");

/// What libvirt says of a QEMU that refuses.
pub(crate) const QEMU_EXITED: ErrorText = ErrorText::libvirt(
    "from virsh start, before QEMU's message",
    "error: internal error: process exited while connecting to monitor",
);

/// Which refused mapping is one in the range. The arguments are those of `vfio_container_dma_map` (hw/vfio/container.c).
pub(crate) const REFUSED_ADDRESS: Block = Text(
    "In the error, the second number in the parentheses is the guest-physical address and the third is the size. The \
     cause is this range only if the two overlap `0xfd00000000` to `0xffffffffff`; for other addresses see \
     ram-above-iommu-width, or bar-above-iommu-width for `0x380000000000` and the like. QEMU 8.2 and newer print \
     `vfio_container_dma_map` instead of `vfio_dma_map`.",
);

/// The commands that fix a guest.
pub(crate) const FIX_IT: Block = Shell(
    "iova-preflight fix guest.xml                                # shows what would change\n\
     iova-preflight fix --in-place guest.xml                     # rewrites the file\n\
     iova-preflight fix --connect qemu:///system --domain NAME   # redefines the guest",
);

/// What a changed machine type means.
pub(crate) const NEW_MACHINE: Block = Text(
    "By hand: run `virsh edit NAME` and set, in `<os>`, a machine type of 7.1 or newer that the host's QEMU has. It \
     is a new revision of the virtual hardware: Windows may ask to be activated again, and saved states and snapshots \
     with memory can no longer be restored. It takes effect at the next cold start; a reboot inside the guest is not \
     enough.",
);

/// What the host reserves.
pub(crate) const RESERVED: [Block; 2] = [
    Text(
        "What the host reserves for the device, and for all devices. The HyperTransport range is the line \
         `0x000000fd00000000 0x000000ffffffffff reserved`; both ends are part of it:",
    ),
    Shell(
        "cat /sys/bus/pci/devices/0000:41:00.0/iommu_group/reserved_regions\n\
         cat /sys/kernel/iommu_groups/*/reserved_regions | sort -u",
    ),
];

/// Where QEMU put RAM.
pub(crate) const MAP: [Block; 3] = [
    Text(
        "Where QEMU puts RAM, in a guest that is started but does not run yet. If the guest does not start because of \
         its devices, look at a copy without them (`virsh dumpxml --inactive NAME > copy.xml`, remove every \
         `<hostdev>`, `virsh create copy.xml --paused`):",
    ),
    Shell(
        "virsh start --paused NAME\n\
         virsh qemu-monitor-command NAME --hmp 'info mtree -f' | grep 'ram)' | sort -u\n\
         virsh qemu-monitor-command NAME --hmp 'info memory-devices'",
    ),
    Text(
        "RAM between `000000fd00000000` and `000000ffffffffff` lies in the range; RAM that QEMU has moved starts at \
         `0000010000000000`.",
    ),
];

/// The bits of guest and host.
pub(crate) const BITS: [Block; 2] = [
    Text(
        "The bits of the vCPU, in a guest that is running or paused, and those of the host. With `vendor` instead of \
         `phys-bits`, QEMU prints the vendor:",
    ),
    Shell(
        "virsh qemu-monitor-command NAME '{\"execute\":\"query-cpus-fast\"}'     # prints the qom-path\n\
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

/// Where firmware puts BARs.
pub(crate) const WINDOW: Block = Text(
    "The guest's firmware decides where BARs go. OVMF 2022.11 and newer and SeaBIOS 1.16.3 and newer use the top of \
     the vCPU's address space (OVMF its last eighth) if they trust the number of bits: 41 or more, 40 with an AMD \
     vCPU, 36 or 39 with an Intel one. Otherwise, and in older versions, BARs go right after RAM.",
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
    "SeaBIOS up to 1.16.2 ignores the number of bits. With it, use a `<pcihole64>` so large that QEMU moves RAM, and the \
     BARs after it, above 1 TiB (machine type 7.1 or newer), or use fewer devices, or OVMF.",
);

/// Where BARs are.
pub(crate) const WHERE_BARS_ARE: [Block; 2] = [
    Text("Where the BARs are, on the host once the guest's firmware has run, and inside the guest:"),
    Shell(
        "virsh qemu-monitor-command NAME --hmp 'info pci' | grep -E 'BAR|PCI device'\n\
         lspci -vv | grep 'Region .*64-bit'",
    ),
];
