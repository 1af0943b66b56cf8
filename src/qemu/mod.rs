//! What QEMU builds: the vCPU's vendor and phys-bits, and the guest-physical memory map.
//!
//! Formulas follow QEMU's source; each names the function and version it comes from.

pub mod cpu;
pub mod layout;
pub mod memory_device;
