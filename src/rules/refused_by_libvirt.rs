//! `refused-by-libvirt`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;

pub(crate) const RULE: Rule = Rule {
    id: "refused-by-libvirt",
    summary: "libvirt refuses the domain for its memory, CPU or controllers",
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
         what has to do with memory and the CPU's width is looked at; a domain can be refused for much else.",
    )],
    history: &[Text(
        "`<maxMemory>` and memory devices need NUMA cells because it is a cell that memory is plugged into; libvirt \
         asked for one from the start, and since 9.6 adds one to a domain that has none. Slots may be left out since \
         9.5, and only DIMMs and NVDIMMs take one. `<maxphysaddr>` came with libvirt 8.7. Where the version of libvirt \
         is not known, nothing is reported that some version takes.",
    )],
    errors: &[
        libvirt(
            "maxMemory without NUMA cells",
            "At least one numa node has to be configured when enabling memory hotplug",
        ),
        libvirt(
            "a memory device without maxMemory",
            "cannot use/hotplug a memory device when domain 'maxMemory' is not defined",
        ),
        libvirt("slots or the size are missing", "both maximum memory size and memory slot count must be specified"),
        libvirt("maxMemory is too small", "maximum memory size must be equal or greater than the actual memory size"),
        libvirt("the devices are larger than the memory", "Total size of memory devices exceeds the total memory size"),
        libvirt("more devices than slots", "memory device count '3' exceeds slots count '2'"),
        libvirt("a slot that is not there", "memory device slot '4' exceeds slots count '4'"),
        libvirt("a slot twice", "memory device slot '1' is already being used by another memory device"),
        libvirt("an address twice", "memory device base '0x100000000' is already being used by another memory device"),
        libvirt(
            "a cell that is not there",
            "can't add memory backend for guest node '2' as the guest has only '1' NUMA nodes configured",
        ),
        libvirt("an NVDIMM's label", "nvdimm label must be at least 128KiB"),
        libvirt("virtio-mem", "block size must be a power of two"),
        libvirt(
            "host-passthrough without KVM",
            "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
        ),
        libvirt("a made-up vendor", "vendor_id must be exactly 12 characters long"),
        libvirt("a feature twice", "CPU feature 'lm' specified more than once"),
        libvirt(
            "bits in the wrong mode",
            "CPU maximum physical address bits number specification cannot be used with mode='passthrough'",
        ),
        libvirt("a model that libvirt does not know", "Unknown CPU model EPYC-Turin"),
        libvirt("a model that QEMU lacks, and no fallback", "CPU model 'cpu64-rhel5' is not supported by hypervisor"),
        libvirt("a word that is none", "Invalid fallback attribute"),
        libvirt("the wrong emulator", "Emulator '/usr/bin/qemu-system-i386' does not support arch 'x86_64'"),
        libvirt("huge pages of anonymous memory", "hugepages are not allowed with anonymous memory source"),
        libvirt("no NUMA cell", "NUMA topology defined without NUMA cells"),
        libvirt(
            "NUMA cells with a gap",
            "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from \
             0 are not allowed",
        ),
        libvirt("a NUMA cell twice", "Duplicate NUMA cell info for cell id '0'"),
        libvirt("a memory device without a node", "target NUMA node needs to be specified for memory device"),
        libvirt("a DIMM's address", "Missing required attribute 'slot' in element 'address'"),
        libvirt("more requested than there is", "requested size must be smaller than or equal to @size (1048576KiB)"),
        libvirt("less than a block requested", "requested size must be an integer multiple of block size"),
        libvirt("a root with an index", "pci-root and pcie-root controllers should have index 0"),
        libvirt(
            "a root of the other kind",
            "The PCI controller with index='0' must be model='pcie-root' for this machine type, but model='pci-root' \
             was found instead",
        ),
        libvirt("a controller twice", "Multiple 'pci' controllers with index '0'"),
        libvirt("a virtual IOMMU on i440fx", "IOMMU device: 'intel' is only supported with Q35 machines"),
        libvirt("interrupt remapping", "IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')"),
        libvirt("a domain without a type", "missing domain type attribute"),
        libvirt("an OS without a type", "an os <type> must be specified"),
        libvirt(
            "a controller or launch security without a type",
            "Missing required attribute 'type' in element 'launchSecurity'",
        ),
        libvirt("launch security without a policy", "failed to get launch security policy"),
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
