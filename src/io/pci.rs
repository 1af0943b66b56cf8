//! The BARs of the host's PCI functions, from sysfs.
//!
//! Source: Linux `drivers/pci/pci-sysfs.c` (`resource_show`) and `drivers/pci/iov.c` (`pci_iov_add_virtfn`,
//! `sriov_totalvfs_show`).

use std::collections::BTreeMap;
use std::path::Path;

use super::file::read_word;
use crate::host::PciBar;

/// Where the kernel shows PCI functions (`Documentation/ABI/testing/sysfs-bus-pci`).
pub(super) const DEVICES: &str = "sys/bus/pci/devices";

/// `IORESOURCE_MEM` of Linux `include/linux/ioport.h`: memory, not I/O ports.
const MEMORY: u64 = 0x200;

/// `IORESOURCE_PREFETCH`.
const PREFETCHABLE: u64 = 0x2000;

/// `IORESOURCE_MEM_64`.
const BITS64: u64 = 0x10_0000;

/// The class of bridges, the first byte of the class code; vfio-pci passes none on (`vfio_pci_core_register_device`
/// takes headers of type 0 only).
const BRIDGE: &str = "0x06";

/// The line of a function's `resource` that has the BARs 0 of its virtual functions (`PCI_IOV_RESOURCES` of Linux
/// `include/linux/pci.h`): after six BARs and the expansion ROM.
const VIRTUAL_FUNCTIONS: usize = 7;

/// The number of BARs of a function.
const BARS: u8 = 6;

/// The memory BARs of every function that can be passed on. Functions that do not show them are left out.
pub fn functions(root: &Path) -> BTreeMap<String, Vec<PciBar>> {
    let entries = std::fs::read_dir(root.join(DEVICES)).into_iter().flatten().flatten();
    let functions = entries.filter_map(|entry| {
        let address = entry.file_name().into_string().ok()?;
        let is_bridge = read_word(&entry.path().join("class"))?.starts_with(BRIDGE);
        let bars = if is_bridge { None } else { function(root, &address) };
        Some((address, bars?))
    });
    functions.collect()
}

/// The memory BARs of the function at `address`, as sysfs spells it; `None` if it is unknown.
///
/// A virtual function has its own in sysfs. If it does not, its physical function has the sizes for all that it can
/// have.
pub fn function(root: &Path, address: &str) -> Option<Vec<PciBar>> {
    let is_address = !address.is_empty() && !address.contains('/');
    let folder = is_address.then(|| root.join(DEVICES).join(address))?;
    let own = bars(&read_word(&folder.join("resource"))?, 0, 1)?;
    if !own.is_empty() {
        return Some(own);
    }
    let parent = folder.join("physfn");
    let number = || read_word(&parent.join("sriov_totalvfs"))?.parse::<u64>().ok().filter(|&number| number > 0);
    match number() {
        Some(number) => bars(&read_word(&parent.join("resource"))?, VIRTUAL_FUNCTIONS, number),
        None => Some(own),
    }
}

/// The memory BARs in six lines of `resource`, each with its own for this many functions; `None` if the lines are not
/// as the kernel writes them.
fn bars(resource: &str, first: usize, functions: u64) -> Option<Vec<PciBar>> {
    let mut bars = Vec::new();
    for (index, line) in (0..BARS).zip(resource.lines().skip(first)) {
        let mut words = line.split_ascii_whitespace().map(number);
        let (start, end, flags) = (words.next()??, words.next()??, words.next()??);
        if flags & MEMORY == 0 {
            continue;
        }
        let size = end.checked_sub(start)?.checked_add(1)?.checked_div(functions)?;
        let bar = PciBar { index, size, prefetchable: flags & PREFETCHABLE != 0, bits64: flags & BITS64 != 0 };
        bars.push(Some(bar).filter(|bar| bar.mistake().is_none())?);
    }
    Some(bars)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";

    /// The lines of `resource` of an A30, its virtual functions' BARs after the ROM's, and of a network card's
    /// function.
    fn a30() -> String {
        let own = "0x00000000b1000000 0x00000000b1ffffff 0x0000000000040200\n\
             0x0000382800000000 0x0000382fffffffff 0x000000000014220c\n";
        let second = "0x0000383000000000 0x0000383001ffffff 0x000000000014220c\n";
        let virtual_functions = "0x00000000b2000000 0x00000000b22fffff 0x0000000000040200\n\
             0x0000383800000000 0x0000384fffffffff 0x000000000014220c\n";
        format!("{own}{NONE}{second}{NONE}{NONE}{NONE}{virtual_functions}{NONE}{NONE}{NONE}{NONE}")
    }

    fn bar(index: u8, size: u64, prefetchable: bool) -> PciBar {
        PciBar { index, size, prefetchable, bits64: prefetchable }
    }

    #[test]
    fn a_resource_file_tells_index_size_and_kind() {
        let own = [bar(0, 16 << 20, false), bar(1, 32 << 30, true), bar(3, 32 << 20, true)];
        assert_eq!(bars(&a30(), 0, 1).as_deref(), Some(&own[..]));
        // 96 GiB are three of 32 GiB, and not four of 24 GiB.
        let three = Some(vec![bar(0, 1 << 20, false), bar(1, 32 << 30, true)]);
        assert_eq!((bars(&a30(), VIRTUAL_FUNCTIONS, 3), bars(&a30(), VIRTUAL_FUNCTIONS, 4)), (three, None));
        // I/O ports, and a BAR that the host has not placed (`IORESOURCE_UNSET`).
        let ports = "0x000000000000e000 0x000000000000e07f 0x0000000000040101\n";
        let unset = "0x0000000000000000 0x00000000ffffffff 0x0000000020140204\n";
        let both = bars(&format!("{ports}{unset}{NONE}"), 0, 1);
        assert_eq!(both, Some(vec![PciBar { index: 1, size: 4 << 30, prefetchable: false, bits64: true }]));
        for broken in ["0x0 0x1", "a b c", "0x2 0x0 0x200", "0x0 0xffffffffffffffff 0x200"] {
            assert_eq!(bars(broken, 0, 1), None, "{broken}");
        }
    }
}
