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
const fn libvirt(when: &'static str, text: &'static str) -> ErrorText {
    ErrorText { by: Program::Libvirt, when, text }
}

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text(
        "libvirt refuses the domain for what it says of memory or CPU, when it is defined or when it is started. QEMU \
         is never asked, and there is no memory map to evaluate.",
    )],
    cause: &[Text(
        "Each message below is one cause. The finding says in its own words which it is and points at the place. Only \
         what has to do with memory, the CPU's width and the places of PCI devices is looked at; a domain can be \
         refused for much else.",
    )],
    history: &[Text(
        "`<maxMemory>` and memory devices need NUMA cells because it is a cell that memory is plugged into; libvirt \
         asked for one from the start, and since 9.6 adds one to a domain that has none. Slots may be left out since \
         9.5, and only DIMMs and NVDIMMs take one. `<maxphysaddr>` came with libvirt 8.7. Where the version of libvirt \
         is not known, nothing is reported that some version takes.",
    )],
    errors: &[
        libvirt("two devices have one PCI address", "Attempted double use of PCI Address 0000:01:00.0"),
        libvirt(
            "maxMemory without NUMA cells, before libvirt 9.6",
            "At least one numa node has to be configured when enabling memory hotplug",
        ),
        libvirt(
            "a memory device without maxMemory",
            "cannot use/hotplug a memory device when domain 'maxMemory' is not defined",
        ),
        libvirt(
            "slots or the size are missing, before libvirt 9.5",
            "both maximum memory size and memory slot count must be specified",
        ),
        libvirt(
            "slots without a size, since libvirt 9.5",
            "maximum memory size must be specified when specifying number of memory slots",
        ),
        libvirt("maxMemory is too small", "maximum memory size must be equal or greater than the actual memory size"),
        libvirt("no memory at all", "Memory size must be specified via <memory> or in the <numa> configuration"),
        libvirt("the devices are larger than the memory", "Total size of memory devices exceeds the total memory size"),
        libvirt("more devices than slots, libvirt 9.0", "memory device count '3' exceeds slots count '2'"),
        libvirt(
            "more devices than slots, libvirt 11.3",
            "count of memory devices requiring memory slots '3' exceeds slots count '2'",
        ),
        libvirt("a slot that is not there", "memory device slot '4' exceeds slots count '4'"),
        libvirt("a slot twice", "memory device slot '1' is already being used by another memory device"),
        libvirt("an address without a slot", "Missing required attribute 'slot' in element 'address'"),
        libvirt("an address of another kind, for a DIMM", "only 'dimm' addresses are supported for the pc-dimm device"),
        libvirt(
            "an address of another kind, for virtio-mem",
            "only 'pci' and 'ccw' addresses are supported for the virtio-mem device",
        ),
        libvirt("the same, libvirt 9.0", "only 'pci' addresses are supported for the virtio-mem device"),
        libvirt(
            "an address of another kind, for virtio-pmem",
            "only 'pci' addresses are supported for the virtio-pmem device",
        ),
        libvirt(
            "an address twice, libvirt 9.0",
            "memory device base '0x100000000' is already being used by another memory device",
        ),
        libvirt(
            "an address twice, libvirt 11.3",
            "memory device address [0x140000000:0x40000000] overlaps with other memory device (0x140000000)",
        ),
        libvirt("an address of virtio-mem between two blocks", "memory device address must be aligned to blocksize"),
        libvirt(
            "a cell that is not there",
            "can't add memory backend for guest node '2' as the guest has only '1' NUMA nodes configured",
        ),
        libvirt("a memory device without a cell", "target NUMA node needs to be specified for memory device"),
        libvirt("virtio-pmem with a cell", "virtio-pmem does not support NUMA nodes"),
        libvirt("a memory device without a model", "Missing required attribute 'model' in element 'memory'"),
        libvirt("an NVDIMM or virtio-pmem without a file", "path is required for model 'nvdimm'"),
        libvirt("an NVDIMM's label", "nvdimm label must be at least 128KiB"),
        libvirt("a label larger than the NVDIMM", "label size must be smaller than NVDIMM size"),
        libvirt("the block of virtio-mem", "block size must be a power of two"),
        libvirt("a block of virtio-mem that is too small", "block size too small, must be at least 2048KiB"),
        libvirt(
            "the size requested of virtio-mem",
            "requested size must be smaller than or equal to @size (1048576KiB)",
        ),
        libvirt(
            "a requested size of less than whole blocks",
            "requested size must be an integer multiple of block size",
        ),
        libvirt("dynamicMemslots with a QEMU before 8.2", "virtio-mem does not support dynamicMemslots"),
        libvirt("the access of virtio-pmem", "shared access mode required for virtio-pmem device"),
        libvirt("a <numa> without cells", "NUMA topology defined without NUMA cells"),
        libvirt(
            "cells with gaps",
            "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from 0 are not allowed",
        ),
        libvirt("a cell twice", "Duplicate NUMA cell info for cell id '0'"),
        libvirt("a PCI root with another index", "pci-root and pcie-root controllers should have index 0"),
        libvirt(
            "the PCI root of another machine type",
            "The PCI controller with index='0' must be model='pcie-root' for this machine type, but model='pci-root' was found instead",
        ),
        libvirt("a PCI controller twice", "Multiple 'pci' controllers with index '1'"),
        libvirt(
            "an expander bus on q35",
            "pci-expander-bus controllers are only supported on 440fx-based machinetypes",
        ),
        libvirt(
            "a PCI Express expander bus on i440fx",
            "pcie-expander-bus controllers are not supported with this machine type",
        ),
        libvirt(
            "a virtual IOMMU of Intel's or AMD's on i440fx",
            "IOMMU device: 'intel' is only supported with Q35 machines",
        ),
        libvirt("a virtio IOMMU on i440fx", "IOMMU device: 'virtio' is only supported with Q35 and ARM Virt machines"),
        libvirt("a virtio IOMMU without ACPI", "IOMMU device: 'virtio' requires ACPI"),
        libvirt("interrupt remapping", "IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')"),
        libvirt("eim without interrupt remapping", "IOMMU eim requires interrupt remapping to be enabled"),
        libvirt("launch security that this libvirt does not have", "unsupported launch security type 'tdx'"),
        libvirt("launch security without a policy", "failed to get launch security policy"),
        libvirt("an <os> without a type", "an os <type> must be specified"),
        libvirt(
            "host-passthrough without KVM",
            "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
        ),
        libvirt("a CPU model of a newer libvirt", "Unknown CPU model EPYC-Turin"),
        libvirt(
            "a CPU model that QEMU does not have, without fallback",
            "CPU model EPYC-Turin is not supported by hypervisor",
        ),
        libvirt("a made-up vendor", "vendor_id must be exactly 12 characters long"),
        libvirt("a vendor with a comma", "vendor id is invalid"),
        libvirt("a vendor without a model", "CPU vendor specified without CPU model"),
        libvirt("features without a model", "Non-empty feature list specified without CPU model"),
        libvirt("a feature twice", "CPU feature 'lm' specified more than once"),
        libvirt(
            "bits in the wrong mode",
            "CPU maximum physical address bits number specification cannot be used with mode='passthrough'",
        ),
        libvirt("a limit in the wrong mode", "attribute 'limit' is only supported for maxphysaddr mode 'passthrough'"),
        libvirt("a model that QEMU lacks, and no fallback", "CPU model 'cpu64-rhel5' is not supported by hypervisor"),
        libvirt("a word that is none", "Invalid fallback attribute"),
        libvirt("the wrong emulator", "Emulator '/usr/bin/qemu-system-i386' does not support arch 'x86_64'"),
        libvirt("huge pages of anonymous memory", "hugepages are not allowed with anonymous memory source"),
        libvirt("a domain without a type", "missing domain type attribute"),
    ],
    fix: &[
        Text(
            "Change what the message names, with `virsh edit NAME`. There is more than one way to fix each, so \
             `iova-preflight fix` does not. For the commonest, memory hot-plug without a NUMA cell, one cell that has \
             everything:",
        ),
        Xml("<cpu mode='host-model'>\n\
             \x20 <numa>\n\
             \x20   <cell id='0' cpus='0-11' memory='64' unit='GiB'/>\n\
             \x20 </numa>\n\
             </cpu>"),
    ],
    verify: &[
        Text(
            "Defining a domain under another name and without its UUID says whether libvirt takes it, and changes \
             nothing else:",
        ),
        Shell(
            "sed -e '/<uuid>/d' -e 's,<name>.*</name>,<name>try</name>,' guest.xml > try.xml\n\
             virsh define try.xml && virsh undefine --nvram try",
        ),
        Text("Part of it is looked at only at start; this shows that too, and starts nothing:"),
        Shell("virsh domxml-to-native qemu-argv try.xml"),
    ],
};
