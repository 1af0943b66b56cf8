//! What the numbers of a host can be. A profile with others is refused, and others that a machine shows are unknown.

use std::ops::RangeInclusive;

/// Physical address bits of a CPU. The architecture has at most 52 (AMD64 Architecture Programmer's Manual, volume 2, page
/// translation; Intel Software Developer's Manual, volume 3A, enumeration of paging features by CPUID), and QEMU gives a
/// nested host at least 32 (`x86_cpu_realizefn` in `target/i386/cpu.c`, 7.2).
pub(crate) const PHYS_BITS: RangeInclusive<u32> = 32..=52;

/// Address bits of an IOMMU. The shallowest page tables of VT-d translate 30 (SAGAW, bit 8 of the capability register:
/// `agaw_to_width` in Linux `drivers/iommu/intel/iommu.c`), the deepest of AMD's 64 (`HATS` in the
/// Extended Feature Register, AMD I/O Virtualization Technology Specification, 48882).
pub(crate) const IOMMU_BITS: RangeInclusive<u32> = 30..=64;

/// RAM in bytes: as much as the most physical address bits reach.
#[cfg(feature = "cli")]
pub(crate) const MEMORY: RangeInclusive<u64> = 1..=1 << *PHYS_BITS.end();

/// The length of a CPU vendor in bytes: three registers of CPUID leaf 0.
pub(crate) const VENDOR_LENGTH: usize = 12;
