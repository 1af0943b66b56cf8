//! The causes of messages, and what to do about them.

mod device;
mod memory;

use crate::rules::page::Block;
use Block::{Shell, Text, Xml};

/// The causes of messages, in the order in which answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is described by its answer")]
pub enum Cause {
    RamInReservedRange,
    MemoryDeviceInReservedRange,
    BarInReservedRange,
    DmaToReservedRange,
    RamAboveIommuWidth,
    BarAboveIommuWidth,
    AddressAboveIommuWidth,
    ViommuAboveIommuWidth,
    RamOutsideVdpaRange,
    LockedMemory,
    LockedMemoryNotRaised,
    PhysBitsTooLow,
    PhysBitsOutOfRange,
    PhysBitsNotConfigurable,
    PhysBitsMismatch,
    SlotAboveHostWidth,
    SlotTooLarge,
    BarInRam,
    BarNotPlaced,
    MemoryNotPinned,
    BarNotMappable,
    BarNotMapped,
    MappingRefused,
    MappingsExhausted,
    AddressMapped,
    AddressInUse,
    DiscardRefused,
    SlotRefused,
    KvmRunFailed,
    UnmapFailed,
    GroupNotViable,
    GroupInTwoSpaces,
    NoIommu,
    NoVfioDevice,
    NoIommufd,
    DeviceBusy,
    NoPermission,
    DeviceNotOpened,
    IommuNotSet,
    NoInterruptRemapping,
    FirmwareNeedsMapping,
    DeviceNotReset,
    DeviceAsleep,
    IommuTimeout,
    RomUnreadable,
    BarTaken,
    NoRoomForFunctions,
    InterruptTaken,
    NotBound,
    NotMigratable,
    ViommuNotPrepared,
    HostOutOfMemory,
    HugePagesMissing,
    KvmMissing,
    VgaMissing,
    GuestDriverFailed,
    DmaFault,
    RegionNotAligned,
    StoppedByPreflight,
    StoppedByHook,
    QemuExited,
}

/// The answer for a cause.
#[derive(Debug)]
pub struct Answer {
    /// The cause.
    pub cause: Cause,
    /// Its name: words with hyphens, the same for ever.
    pub id: &'static str,
    /// Whether it is about addresses, widths or limits, which `check` computes before the start.
    pub ours: bool,
    /// What goes wrong, in one line.
    pub headline: &'static str,
    /// Why.
    pub because: &'static str,
    /// What it is often taken for.
    pub is_not: &'static [&'static str],
    /// What to do.
    pub fix: &'static [Block],
    /// The rule that finds it before the start.
    pub rule: Option<&'static str>,
}

impl Cause {
    /// Its answer.
    ///
    /// # Panics
    /// Never: a test looks every cause up.
    pub fn answer(self) -> &'static Answer {
        match answers().find(|answer| answer.cause == self) {
            Some(answer) => answer,
            None => unreachable!("every cause has an answer"),
        }
    }
}

const CHECK: Block = Shell("iova-preflight check --connect qemu:///system --domain NAME");
const FIX: Block = Shell(
    "iova-preflight check --connect qemu:///system --domain NAME           # what collides\n\
     iova-preflight fix --connect qemu:///system --domain NAME --dry-run   # what would change",
);
/// The command for a warning about a BAR: `fix` alone does not change a guest that starts.
const FIX_BARS: Block = Shell(
    "iova-preflight check --connect qemu:///system --domain NAME                      # where BARs go\n\
     iova-preflight fix --warnings --connect qemu:///system --domain NAME --dry-run   # what would change",
);
const RESERVED: Block = Shell("cat /sys/bus/pci/devices/0000:41:00.0/iommu_group/reserved_regions");
const WIDTH: Block = Shell(
    "iova-preflight host | grep address_bits                                        # the width of the host's IOMMU\n\
     echo $(( (0x$(cat /sys/class/iommu/dmar0/intel-iommu/cap) >> 16 & 63) + 1 ))   # the same by hand, Intel\n\
     grep -m1 'address sizes' /proc/cpuinfo                                         # the width of the host's CPU",
);
const GROUP: Block = Shell(
    "ls -l /sys/bus/pci/devices/0000:41:00.0/iommu_group/devices/\n\
     lspci -nnks 41:00",
);
const LESS_BITS: Block = Xml("<cpu mode='host-passthrough'>\n\
     \x20 <maxphysaddr mode='passthrough' limit='39'/>\n\
     </cpu>");

/// -12 means something else.
const NOT_MEMLOCK: &str = "the locked-memory limit: that is -12 (Cannot allocate memory)";
/// -14 means something else.
const NOT_PINNING: &str = "memory that cannot be pinned: that is -14 (Bad address)";
/// -22 means something else.
const NOT_ADDRESS: &str = "an address that the IOMMU does not accept: that is -22 (Invalid argument)";
/// For failures before anything is mapped.
const NOT_MAPPING: &str = "an address, a width or a memory limit: QEMU has not mapped any memory yet";

/// The answer for each cause, in the order of [`Cause`].
pub fn answers() -> impl Iterator<Item = &'static Answer> {
    memory::ANSWERS.iter().chain(device::ANSWERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It places BARs after RAM (SeaBIOS 1.16.2, `pci_bios_map_devices` of `src/fw/pciinit.c`).
    #[test]
    fn more_bits_do_not_help_with_old_seabios() {
        let shown = format!("{:?}", Cause::BarInReservedRange.answer().fix);
        assert!(shown.contains("SeaBIOS up to 1.16.2") && shown.contains("<pcihole64>"), "{shown}");
    }

    #[test]
    fn every_cause_has_one_answer_in_its_place() {
        let causes: Vec<Cause> = answers().map(|answer| answer.cause).collect();
        assert!(causes.is_sorted() && causes.windows(2).all(|pair| pair[0] < pair[1]), "{causes:?}");
        assert_eq!(causes.len(), Cause::QemuExited as usize + 1, "the last one closes the list");
        for answer in answers() {
            assert_eq!(answer.cause.answer().id, answer.id);
            assert!(answer.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", answer.id);
            assert!(!answer.is_not.is_empty() && !answer.fix.is_empty(), "{}", answer.id);
            assert!(!answer.headline.ends_with('.') && answer.because.ends_with('.'), "{}", answer.id);
            let known = answer.rule.is_none_or(|rule| crate::rules::rule(rule).is_some());
            assert!(known, "{}: there is no rule {:?}", answer.id, answer.rule);
            assert!(answer.ours || answer.rule.is_none(), "{}: `check` does look for it", answer.id);
            // A guest with BARs in trouble starts: `fix` alone would leave it as it is.
            let fixes: Vec<&str> = answer
                .fix
                .iter()
                .filter_map(|block| match block {
                    Shell(text) if text.contains("iova-preflight fix") => Some(*text),
                    _ => None,
                })
                .collect();
            let about_bars = answer.rule.is_some_and(|rule| rule.starts_with("bar-"));
            assert!(fixes.iter().all(|fix| fix.contains("--warnings") == about_bars), "{}: {fixes:?}", answer.id);
        }
    }
}
