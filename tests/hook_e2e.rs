//! The hook in a real libvirtd with a real QEMU, from `virsh start` to what `virsh` prints and which guests run.
//!
//! Each test has its own libvirtd in its own namespaces, where `/sys` shows an AMD IOMMU. They do not disturb a
//! libvirtd of this machine, and leave nothing behind.
#![cfg_attr(not(feature = "libvirt"), allow(dead_code, reason = "the tests that talk to libvirt use all of it"))]

mod common;

mod hook_e2e {
    #[cfg(feature = "libvirt")]
    mod connect;
    mod host;
    mod lifecycle;
    #[cfg(feature = "libvirt")]
    mod metrics;
    mod migration;
    mod neighbours;
    mod pages;
    #[cfg(feature = "libvirt")]
    mod proxy;
    mod real_map;
    #[cfg(feature = "libvirt")]
    mod redefine;
    #[cfg(feature = "libvirt")]
    mod silent;
    mod start;
    #[cfg(feature = "libvirt")]
    mod watch;
    #[cfg(feature = "libvirt")]
    mod watcher;
    mod world;
}
