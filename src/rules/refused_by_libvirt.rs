//! `refused-by-libvirt`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "refused-by-libvirt",
    summary: "libvirt refuses the domain for its memory, CPU, controllers or PCI addresses",
    by: Refuser::Libvirt,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    for refusal in guest.refusals {
        let message = format!("libvirt refuses the guest: {}", refusal.message);
        findings.push(Finding::new(RULE.id, Severity::Error, message, refusal.span, "refused"));
    }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "libvirt refuses the domain when it is defined or started. QEMU is never started, so there is no memory map to \
         evaluate.",
    )],
    cause: &[Text(
        "Each message below has its own cause; the finding names it and points at the place. Only memory, the CPU's width, \
         controllers, the virtual IOMMU and PCI addresses are checked. libvirt refuses domains for many other reasons.",
    )],
    history: &[Text(
        "Memory is plugged into a NUMA cell, so `<maxMemory>` and memory devices need one; libvirt 9.6 and newer add it \
         themselves. Slots may be omitted since 9.5, and only DIMMs and NVDIMMs need one. `<maxphysaddr>` came with 8.7. If \
         the version of libvirt is unknown, only what every version refuses is reported.",
    )],
    errors: &[
        ErrorText::libvirt("two devices have one PCI address", "Attempted double use of PCI Address 0000:01:00.0"),
        ErrorText::libvirt(
            "maxMemory without NUMA cells, before libvirt 9.6",
            "At least one numa node has to be configured when enabling memory hotplug",
        ),
        ErrorText::libvirt(
            "a memory device without maxMemory",
            "cannot use/hotplug a memory device when domain 'maxMemory' is not defined",
        ),
        ErrorText::libvirt(
            "maxMemory without slots or without a size, before libvirt 9.5",
            "both maximum memory size and memory slot count must be specified",
        ),
        ErrorText::libvirt(
            "slots without a size, since libvirt 9.5",
            "maximum memory size must be specified when specifying number of memory slots",
        ),
        ErrorText::libvirt(
            "maxMemory is too small",
            "maximum memory size must be equal or greater than the actual memory size",
        ),
        ErrorText::libvirt(
            "neither memory nor NUMA cells",
            "Memory size must be specified via <memory> or in the <numa> configuration",
        ),
        ErrorText::libvirt(
            "the devices are larger than the memory",
            "Total size of memory devices exceeds the total memory size",
        ),
        ErrorText::libvirt("more devices than slots, libvirt 9.0", "memory device count '3' exceeds slots count '2'"),
        ErrorText::libvirt(
            "more devices than slots, libvirt 11.3",
            "count of memory devices requiring memory slots '3' exceeds slots count '2'",
        ),
        ErrorText::libvirt(
            "a slot number beyond the number of slots",
            "memory device slot '4' exceeds slots count '4'",
        ),
        ErrorText::libvirt(
            "two devices in one slot",
            "memory device slot '1' is already being used by another memory device",
        ),
        ErrorText::libvirt("an address without a slot", "Missing required attribute 'slot' in element 'address'"),
        ErrorText::libvirt(
            "an address of another type for a DIMM",
            "only 'dimm' addresses are supported for the pc-dimm device",
        ),
        ErrorText::libvirt(
            "an address of another type for virtio-mem",
            "only 'pci' and 'ccw' addresses are supported for the virtio-mem device",
        ),
        ErrorText::libvirt("the same, libvirt 9.0", "only 'pci' addresses are supported for the virtio-mem device"),
        ErrorText::libvirt(
            "an address of another type for virtio-pmem",
            "only 'pci' addresses are supported for the virtio-pmem device",
        ),
        ErrorText::libvirt(
            "two devices at one address, libvirt 9.0",
            "memory device base '0x100000000' is already being used by another memory device",
        ),
        ErrorText::libvirt(
            "two devices at one address, libvirt 11.3",
            "memory device address [0x140000000:0x40000000] overlaps with other memory device (0x140000000)",
        ),
        ErrorText::libvirt(
            "an address of virtio-mem that is not a multiple of its block",
            "memory device address must be aligned to blocksize",
        ),
        ErrorText::libvirt(
            "a memory device in a NUMA cell that does not exist",
            "can't add memory backend for guest node '2' as the guest has only '1' NUMA nodes configured",
        ),
        ErrorText::libvirt(
            "a memory device without a NUMA cell",
            "target NUMA node needs to be specified for memory device",
        ),
        ErrorText::libvirt("virtio-pmem with a NUMA cell", "virtio-pmem does not support NUMA nodes"),
        ErrorText::libvirt("a memory device without a model", "Missing required attribute 'model' in element 'memory'"),
        ErrorText::libvirt("an NVDIMM or virtio-pmem without a file", "path is required for model 'nvdimm'"),
        ErrorText::libvirt("an NVDIMM with a label that is too small", "nvdimm label must be at least 128KiB"),
        ErrorText::libvirt("a label larger than the NVDIMM", "label size must be smaller than NVDIMM size"),
        ErrorText::libvirt(
            "a block size of virtio-mem that is not a power of two",
            "block size must be a power of two",
        ),
        ErrorText::libvirt(
            "a block size of virtio-mem that is too small",
            "block size too small, must be at least 2048KiB",
        ),
        ErrorText::libvirt(
            "virtio-mem with a requested size larger than its size",
            "requested size must be smaller than or equal to @size (1048576KiB)",
        ),
        ErrorText::libvirt(
            "virtio-mem with a requested size that is not whole blocks",
            "requested size must be an integer multiple of block size",
        ),
        ErrorText::libvirt("dynamicMemslots with a QEMU before 8.2", "virtio-mem does not support dynamicMemslots"),
        ErrorText::libvirt("virtio-pmem without shared access", "shared access mode required for virtio-pmem device"),
        ErrorText::libvirt("a `<numa>` without cells", "NUMA topology defined without NUMA cells"),
        ErrorText::libvirt(
            "NUMA cells whose numbers have gaps",
            "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from 0 are not allowed",
        ),
        ErrorText::libvirt("two NUMA cells with one number", "Duplicate NUMA cell info for cell id '0'"),
        ErrorText::libvirt(
            "a PCI root with an index other than 0",
            "pci-root and pcie-root controllers should have index 0",
        ),
        ErrorText::libvirt(
            "a PCI root of another machine type",
            "The PCI controller with index='0' must be model='pcie-root' for this machine type, but model='pci-root' was found instead",
        ),
        ErrorText::libvirt("two PCI controllers with one index", "Multiple 'pci' controllers with index '1'"),
        ErrorText::libvirt(
            "an expander bus on q35",
            "pci-expander-bus controllers are only supported on 440fx-based machinetypes",
        ),
        ErrorText::libvirt(
            "a PCI Express expander bus on i440fx",
            "pcie-expander-bus controllers are not supported with this machine type",
        ),
        ErrorText::libvirt(
            "an Intel or AMD virtual IOMMU on i440fx",
            "IOMMU device: 'intel' is only supported with Q35 machines",
        ),
        ErrorText::libvirt(
            "a virtio-iommu on i440fx",
            "IOMMU device: 'virtio' is only supported with Q35 and ARM Virt machines",
        ),
        ErrorText::libvirt("a virtio-iommu without ACPI", "IOMMU device: 'virtio' requires ACPI"),
        ErrorText::libvirt(
            "interrupt remapping without a split I/O APIC",
            "IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')",
        ),
        ErrorText::libvirt("eim without interrupt remapping", "IOMMU eim requires interrupt remapping to be enabled"),
        ErrorText::libvirt("launch security of a newer libvirt", "unsupported launch security type 'tdx'"),
        ErrorText::libvirt("launch security without a policy", "failed to get launch security policy"),
        ErrorText::libvirt("an `<os>` without a type", "an os <type> must be specified"),
        ErrorText::libvirt(
            "host-passthrough without KVM",
            "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
        ),
        ErrorText::libvirt("a CPU model of a newer libvirt", "Unknown CPU model EPYC-Turin"),
        ErrorText::libvirt(
            "a CPU model that QEMU does not have, without fallback",
            "CPU model EPYC-Turin is not supported by hypervisor",
        ),
        ErrorText::libvirt("a vendor_id of another length", "vendor_id must be exactly 12 characters long"),
        ErrorText::libvirt("a vendor_id with a comma", "vendor id is invalid"),
        ErrorText::libvirt("a CPU vendor without a model", "CPU vendor specified without CPU model"),
        ErrorText::libvirt("CPU features without a model", "Non-empty feature list specified without CPU model"),
        ErrorText::libvirt("a CPU feature that is listed twice", "CPU feature 'lm' specified more than once"),
        ErrorText::libvirt(
            "bits with maxphysaddr mode 'passthrough'",
            "CPU maximum physical address bits number specification cannot be used with mode='passthrough'",
        ),
        ErrorText::libvirt(
            "a limit with maxphysaddr mode 'emulate'",
            "attribute 'limit' is only supported for maxphysaddr mode 'passthrough'",
        ),
        ErrorText::libvirt(
            "a model that QEMU lacks, and no fallback",
            "CPU model 'cpu64-rhel5' is not supported by hypervisor",
        ),
        ErrorText::libvirt("a fallback other than allow and forbid", "Invalid fallback attribute"),
        ErrorText::libvirt(
            "an emulator for another architecture",
            "Emulator '/usr/bin/qemu-system-i386' does not support arch 'x86_64'",
        ),
        ErrorText::libvirt(
            "huge pages with anonymous memory",
            "hugepages are not allowed with anonymous memory source",
        ),
        ErrorText::libvirt("a domain without a type", "missing domain type attribute"),
    ],
    fix: &[
        Text(
            "With `virsh edit NAME`, change what the message names. `iova-preflight fix` does not, because there is more \
             than one way to fix each. For the most common one, memory hot-plug without a NUMA cell, add one cell with all \
             CPUs and all memory:",
        ),
        Xml("<cpu mode='host-model'>\n\
             \x20 <numa>\n\
             \x20   <cell id='0' cpus='0-11' memory='64' unit='GiB'/>\n\
             \x20 </numa>\n\
             </cpu>"),
    ],
    verify: &[
        Text("Define the domain under another name and without its UUID to see whether libvirt accepts it:"),
        Shell(
            "sed -e '/<uuid>/d' -e 's,<name>.*</name>,<name>try</name>,' guest.xml > try.xml\n\
             virsh define try.xml && virsh undefine --nvram try",
        ),
        Text("libvirt checks some of it only at start. This runs those checks without starting anything:"),
        Shell("virsh domxml-to-native qemu-argv try.xml"),
    ],
    background: &[Topic::Layout],
};
