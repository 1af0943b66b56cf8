//! XML of libvirt's that is not a domain: what it is, and where the domain is that somebody may have meant.

/// A kind of document that libvirt writes or prints, or that `virsh` reads, other than a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherDocument {
    /// What it describes, with its article.
    pub what: &'static str,
    /// What to do instead of naming it.
    pub instead: &'static str,
}

const DOMAIN: &str = "check a domain instead, as `virsh dumpxml --inactive NAME` prints it";
const RUNNING: &str = "check the domain itself instead, as `virsh dumpxml NAME` prints it";
const OWNER: &str = "check the domain it belongs to instead, as `virsh dumpxml --inactive NAME` prints it";
const SAVED: &str = "check the domain in the image instead, as `virsh save-image-dumpxml FILE` prints it";
const HOST: &str = "check a domain instead; facts about a host go into a profile (`iova-preflight host`) for --host";

/// The one list of them, by the name of the outermost element.
///
/// Sources, libvirt 9.0 to 12.8: the schemas in `src/conf/schemas`; what is written below `/etc/libvirt`,
/// `/var/lib/libvirt`, `/run/libvirt` and `/var/cache/libvirt` (callers of `virXMLSaveFile` and of
/// `virFileCacheNew`: `virDomainObjFormat`, `virNetworkObjFormat`, `virNetworkPortDefSaveStatus`,
/// `virNWFilterBindingObjFormat`, `virStoragePoolSaveState`, `virQEMUCapsFormatCache`, `virNbdkitCapsFormatCache`,
/// `virSaveCookieFormatBuf`); what `virsh` prints (`tools/virsh-*.c`); the CPU map in `/usr/share/libvirt`; the devices
/// that `virsh attach-device` reads (`virDomainDeviceDefParse`).
const OTHERS: [(&[&str], &str, &str); 31] = [
    (&["network"], "a virtual network", DOMAIN),
    (&["networkstatus", "networkCheckpoint"], "the state of a virtual network", DOMAIN),
    (&["networkport"], "a port of a virtual network", OWNER),
    (&["pool"], "a storage pool", DOMAIN),
    (&["poolstate"], "the state of a storage pool", DOMAIN),
    (&["storagepoolCapabilities"], "the storage pools that libvirt supports", DOMAIN),
    (&["sources"], "the sources of storage pools", DOMAIN),
    (&["volume"], "a storage volume", DOMAIN),
    (&["secret"], "a secret", DOMAIN),
    (&["filter"], "a network filter", DOMAIN),
    (&["filterbinding"], "a network filter bound to an interface", OWNER),
    (&["filterbindingstatus"], "the state of a bound network filter", OWNER),
    (&["interface"], "a network interface", OWNER),
    (&["device"], "a device of the host", DOMAIN),
    (&["domainsnapshot"], "a snapshot of a domain", OWNER),
    (&["domaincheckpoint"], "a checkpoint of a domain", OWNER),
    (&["domainbackup"], "a backup of a domain", OWNER),
    (&["domstatus"], "the state of a running domain", RUNNING),
    (&["domstats"], "the statistics of a domain", OWNER),
    (&["cookie"], "the cookie of a save image", SAVED),
    (&["capabilities"], "the capabilities of a host", HOST),
    (&["domainCapabilities"], "the domain capabilities of a host", HOST),
    (&["qemuCaps"], "libvirt's cache of what a QEMU can do", HOST),
    (&["nbdkitCaps"], "libvirt's cache of what nbdkit can do", DOMAIN),
    (&["cpu", "cpudata"], "a CPU", HOST),
    (&["cpus"], "libvirt's list of CPU models", DOMAIN),
    (&["sysinfo"], "the system information of a host", HOST),
    (&["memory"], "a memory device", OWNER),
    (&["hostdev"], "a passthrough device", OWNER),
    (&["disk"], "a disk", OWNER),
    (
        &[
            "audio",
            "channel",
            "console",
            "controller",
            "crypto",
            "filesystem",
            "graphics",
            "hub",
            "input",
            "iommu",
            "lease",
            "memballoon",
            "nvram",
            "panic",
            "parallel",
            "pstore",
            "redirdev",
            "rng",
            "serial",
            "shmem",
            "smartcard",
            "sound",
            "tpm",
            "video",
            "vsock",
            "watchdog",
        ],
        "a device of a domain",
        OWNER,
    ),
];

/// What a document is whose outermost element, in no namespace, is called `root`.
pub fn other_document(root: &str) -> Option<OtherDocument> {
    let (_, what, instead) = OTHERS.iter().find(|(roots, ..)| roots.contains(&root))?;
    Some(OtherDocument { what, instead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_root_is_listed_once_and_a_domain_not_at_all() {
        let mut roots: Vec<&str> = OTHERS.iter().flat_map(|(roots, ..)| roots.iter().copied()).collect();
        let all = roots.len();
        roots.sort_unstable();
        roots.dedup();
        assert_eq!(roots.len(), all);
        assert!(other_document("domain").is_none() && other_document("svg").is_none());
    }
}
