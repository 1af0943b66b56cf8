//! How much memory libvirt lets QEMU lock: the `RLIMIT_MEMLOCK` that it starts QEMU with.
//!
//! Source: `qemuDomainGetMemLockLimitBytes` in `src/qemu/qemu_domain.c` of libvirt 7.0, 9.0 and 11.3; 12.8 by what its
//! machine code computes. Between those, `NEWS.rst` says when it changed. iommufd makes no difference to it.

use super::memory;
use crate::domain::{Domain, HostDeviceKind};
use crate::host::Host;
use crate::version::Version;
use crate::xml::Span;

/// What libvirt adds to the guest's memory, in bytes: once, regardless of the number of devices.
pub const MARGIN: u64 = 1 << 30;

/// The first libvirt that counts vDPA devices (`NEWS.rst`, v7.2.0).
const VDPA_COUNTS: Version = Version::new(7, 2);

/// The first libvirt that counts the memory once for each vDPA device, and with a virtual IOMMU for each VFIO device
/// (`NEWS.rst`, v8.7.0; commit 8d5704e2c4).
const EACH_COUNTS: Version = Version::new(8, 7);

/// The first libvirt that counts the memory once for each NVMe disk (`NEWS.rst`, v9.3.0).
const NVME_COUNTS: Version = Version::new(9, 3);

/// A limit for locked memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockLimit {
    /// `<hard_limit>`, which libvirt prefers to everything else.
    Hard(u64, Span),
    /// None: `<memoryBacking><locked/>`.
    Unlimited,
    /// What libvirt computes.
    Computed(u64),
    /// libvirt's own limit: it sets none for this guest.
    Inherited,
}

/// What the host's libvirt sets for a domain; `None` if its memory is refused. A libvirt of unknown version is taken
/// for a new one.
pub fn limit(domain: &Domain, host: &Host) -> Option<LockLimit> {
    let locked = &domain.locked_memory;
    if let Some(limit) = locked.hard_limit {
        return Some(LockLimit::Hard(limit.value.checked_mul(1024)?, limit.span));
    }
    if locked.locked {
        return Some(LockLimit::Unlimited);
    }
    computed(domain, host).map(|bytes| bytes.map_or(LockLimit::Inherited, LockLimit::Computed))
}

/// What it computes for a domain without `<hard_limit>` and `<locked/>`, in bytes; 0 for one without devices that lock
/// memory.
pub fn computed(domain: &Domain, host: &Host) -> Option<Option<u64>> {
    let sizes = memory::sizes(domain, host).ok()?;
    let total = sizes.devices.iter().try_fold(sizes.memory.size.value, |sum, &size| sum.checked_add(size))?;
    let times = times(domain, host.libvirt);
    if times == 0 {
        return Some(None);
    }
    Some(Some(total.checked_mul(times)?.checked_add(MARGIN)?))
}

/// How often the guest's memory counts.
fn times(domain: &Domain, libvirt: Option<Version>) -> u64 {
    let since = |version: Version| libvirt.is_none_or(|libvirt| libvirt >= version);
    let number = |wanted: fn(HostDeviceKind) -> bool| {
        let devices = domain.passthrough.iter().filter(|device| wanted(device.kind));
        u64::try_from(devices.count()).unwrap_or(u64::MAX)
    };
    let vfio = number(|kind| kind != HostDeviceKind::Vdpa);
    let vdpa = if since(VDPA_COUNTS) { number(|kind| kind == HostDeviceKind::Vdpa) } else { 0 };
    let nvme = domain.locked_memory.nvme_disks;
    if !since(EACH_COUNTS) {
        return u64::from(vfio > 0 || vdpa > 0 || nvme > 0);
    }
    // NVMe disks were VFIO devices like others at first.
    let (vfio, nvme) = if since(NVME_COUNTS) { (vfio, nvme) } else { (vfio.saturating_add(nvme), 0) };
    let vfio = if domain.iommu.is_some() { vfio } else { vfio.min(1) };
    vdpa.saturating_add(nvme).saturating_add(vfio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Document;

    const GIB: u64 = 1 << 30;

    /// What libvirt of this version sets for a guest of 1 GiB.
    fn limit_of(version: &str, beside: &str, devices: &str) -> LockLimit {
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>1</memory>{beside}<os><type machine='q35'>hvm</type></os>\
             <devices>{devices}</devices></domain>"
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = crate::domain::read(&document).expect("a domain");
        let host = Host { libvirt: Some(version.parse().expect("a version")), ..Host::default() };
        let limit = limit(&domain, &host).expect("a limit");
        if let LockLimit::Hard(_, span) = limit {
            assert_eq!(&xml[span.start..span.end], "2097152");
        }
        limit
    }

    const PCI: &str = "<hostdev type='pci'><source><address bus='1'/></source></hostdev>";
    const MDEV: &str = "<hostdev type='mdev'><source><address uuid='a'/></source></hostdev>";
    const VDPA: &str = "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>";
    const NVME: &str = "<disk type='nvme'><target dev='vda'/></disk>";
    const IOMMU: &str = "<iommu model='intel'/>";

    /// `tests/qemumemlocktest.c` of libvirt 11.3, and of 7.0 and 9.0 where they have the case.
    #[test]
    fn the_limit_is_that_of_libvirts_own_test() {
        const HARD: &str = "<memtune><hard_limit>2097152</hard_limit></memtune>";
        const LOCKED: &str = "<memoryBacking><locked/></memoryBacking>";
        let both = format!("{HARD}{LOCKED}");
        let hard = |beside: &str, devices: &str| match limit_of("11.3", beside, devices) {
            LockLimit::Hard(bytes, _) => bytes,
            other => panic!("{other:?}"),
        };
        for version in ["7.0", "9.0", "11.3"] {
            assert_eq!(limit_of(version, "", ""), LockLimit::Inherited);
            assert_eq!(limit_of(version, LOCKED, ""), LockLimit::Unlimited);
            assert_eq!(limit_of(version, LOCKED, PCI), LockLimit::Unlimited);
            assert_eq!(limit_of(version, "", PCI), LockLimit::Computed(2_147_483_648));
        }
        assert_eq!(limit_of("11.3", "", &format!("{PCI}{NVME}")), LockLimit::Computed(3_221_225_472));
        for (beside, devices) in [(HARD, ""), (HARD, PCI), (both.as_str(), ""), (both.as_str(), PCI)] {
            assert_eq!(hard(beside, devices), 2_147_483_648);
        }
    }

    #[test]
    fn the_memory_counts_as_often_as_in_that_version() {
        let devices = |list: &[&str]| list.concat();
        for (list, expected) in [
            // 7.0, 7.2, 8.6, 8.7, 9.2, 9.3
            (vec![VDPA], [0, 1, 1, 1, 1, 1]),
            (vec![VDPA, VDPA], [0, 1, 1, 2, 2, 2]),
            (vec![VDPA, PCI, PCI], [1, 1, 1, 2, 2, 2]),
            (vec![PCI, MDEV], [1, 1, 1, 1, 1, 1]),
            (vec![PCI, MDEV, IOMMU], [1, 1, 1, 2, 2, 2]),
            (vec![NVME], [1, 1, 1, 1, 1, 1]),
            (vec![NVME, NVME], [1, 1, 1, 1, 1, 2]),
            (vec![NVME, NVME, IOMMU], [1, 1, 1, 2, 2, 2]),
            (vec![PCI, NVME, NVME, VDPA], [1, 1, 1, 2, 2, 4]),
        ] {
            for (version, times) in ["7.0", "7.2", "8.6", "8.7", "9.2", "9.3"].iter().zip(expected) {
                let limit = limit_of(version, "", &devices(&list));
                let expected = if times == 0 { LockLimit::Inherited } else { LockLimit::Computed((times + 1) * GIB) };
                assert_eq!(limit, expected, "{version}: {list:?}");
            }
        }
    }

    #[test]
    fn a_limit_that_libvirt_takes_for_none_is_none() {
        let hard = |kib: u64| format!("<memtune><hard_limit>{kib}</hard_limit></memtune>");
        assert_eq!(limit_of("9.0", &hard(9_007_199_254_740_991), PCI), LockLimit::Computed(2 * GIB));
        let nested = "<disk type='file'><backingStore type='file'><backingStore type='nvme'/></backingStore></disk>";
        assert_eq!(limit_of("11.3", "", nested), LockLimit::Computed(2 * GIB));
    }
}
