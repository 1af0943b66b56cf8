//! A domain's settings for locked memory.

use super::Sourced;
use super::read::{Result, memory_size};
use crate::xml::Element;

/// What decides how much memory libvirt lets QEMU lock, apart from the size of the guest and its passthrough devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockedMemory {
    /// `<memtune><hard_limit>`, in KiB, if it is one.
    pub hard_limit: Option<Sourced<u64>>,
    /// Whether there is a `<memoryBacking><locked/>`.
    pub locked: bool,
    /// Disks with an NVMe device of the host's in their chain, which QEMU drives itself through VFIO.
    pub nvme_disks: u64,
}

/// The limit from which on libvirt takes it for none, in KiB (`VIR_DOMAIN_MEMORY_PARAM_UNLIMITED` in libvirt
/// `include/libvirt/libvirt-domain.h`, `virMemoryLimitIsSet` in `src/util/virutil.c`).
const UNLIMITED: u64 = 9_007_199_254_740_991;

/// Reads them from the domain.
pub(super) fn read(root: Element<'_>) -> Result<LockedMemory> {
    let hard_limit = memory_size(root.descend(&["memtune", "hard_limit"]))?;
    let disks = root.child("devices").into_iter().flat_map(|devices| devices.children_named("disk"));
    Ok(LockedMemory {
        hard_limit: hard_limit.filter(|limit| limit.value < UNLIMITED),
        locked: root.descend(&["memoryBacking", "locked"]).is_some(),
        nvme_disks: u64::try_from(disks.filter(|disk| has_nvme(*disk)).count()).unwrap_or(u64::MAX),
    })
}

/// `virStorageSourceChainHasNVMe` of libvirt `src/conf/storage_source_conf.c`.
fn has_nvme(disk: Element<'_>) -> bool {
    let mut chain = std::iter::successors(Some(disk), |layer| layer.child("backingStore"));
    chain.any(|layer| layer.value("type") == Some("nvme"))
}
