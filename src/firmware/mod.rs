//! Where guest firmware puts 64-bit BARs: OVMF (edk2 2022.08 to 2026.08) and SeaBIOS (1.16.2 to 1.17.0).
//!
//! Only their sources say so: each module names the function, the file and the version that it follows.

mod build;
mod ovmf;
mod platform;
mod seabios;

pub use build::{Build, possible_builds};
pub use platform::{BarRequest, Node, Placement, Platform, Port, Vendor};

use crate::host::FirmwareKind;

/// Where `build` puts the BARs of `platform`.
pub fn place(build: Build, platform: &Platform) -> Placement {
    let mut placement = match build.kind {
        FirmwareKind::Ovmf => ovmf::place(build, platform),
        FirmwareKind::SeaBios => seabios::place(build.version, platform),
    };
    let is_window_known = build.has_fixed_window.is_some() || platform.x_pci_mmio64_mb.is_none();
    placement.exact &= build.is_known() && is_window_known && !platform.has_nested_ports();
    placement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{GIB, GpaRange};
    use crate::machine::Family;

    /// 4 GiB of RAM and one BAR behind a port of q35, AMD with 40 bits, below the HyperTransport range.
    fn platform(size: u64) -> Platform {
        let bars = vec![BarRequest { id: 0, size, prefetchable: true }];
        Platform {
            vendor: Vendor::Amd,
            phys_bits: 40,
            long_mode: true,
            gb_pages: true,
            guest_phys_bits: None,
            family: Family::Q35,
            ram_below_4g_end: 2 * GIB - 1,
            ram_above_4g_end: Some(6 * GIB - 1),
            reserved_memory_end: None,
            ht_entry: true,
            x_pci_mmio64_mb: None,
            root: vec![Node::Port(Port {
                express: true,
                hotplug: true,
                pref64_reserve: None,
                children: vec![Node::Function { usb: false, bars }],
            })],
        }
    }

    fn ovmf(year: u32, month: u32) -> Build {
        let [build] = possible_builds(Some(FirmwareKind::Ovmf), Some(&format!("{year}.{month:02}")))[..] else {
            panic!("{year}.{month}: not one build")
        };
        build
    }

    /// The window and the first BAR, in GiB.
    fn placed(build: Build, platform: &Platform) -> (Option<(u64, u64)>, Option<u64>) {
        let Placement { window, addresses, .. } = place(build, platform);
        (window.map(|GpaRange { start, end }| (start / GIB, (end + 1) / GIB)), addresses[0].map(|at| at / GIB))
    }

    #[test]
    fn each_ovmf_has_its_window() {
        let guest = platform(16 * GIB);
        for (build, window) in [
            (ovmf(2022, 8), (32, 64)),
            (ovmf(2022, 11), (896, 1024)),
            (ovmf(2023, 2), (768, 896)),
            (ovmf(2026, 8), (768, 896)),
        ] {
            assert_eq!(placed(build, &guest), (Some(window), Some(window.0)), "{build}");
        }
    }

    #[test]
    fn a_window_of_ovmf_ends_at_the_reserved_range() {
        let guest = Platform { x_pci_mmio64_mb: Some(512 << 10), ..platform(64 * GIB) };
        assert_eq!(placed(ovmf(2025, 2), &guest), (Some((512, 1012)), Some(512)));
        assert_eq!(placed(ovmf(2022, 11), &guest), (Some((512, 1024)), Some(512)));
    }

    #[test]
    fn guest_phys_bits_make_ovmf_believe_a_width_from_2024_08_on() {
        let guest = Platform { vendor: Vendor::Intel, guest_phys_bits: Some(39), ..platform(16 * GIB) };
        assert_eq!(placed(ovmf(2024, 5), &guest), (Some((32, 64)), Some(32)));
        assert_eq!(placed(ovmf(2024, 8), &guest), (Some((448, 512)), Some(448)));
    }

    #[test]
    fn ovmf_uses_46_or_47_bits_at_most_and_40_without_large_pages() {
        let guest = Platform { phys_bits: 52, ..platform(16 * GIB) };
        assert_eq!(placed(ovmf(2023, 5), &guest).1, Some(112 * 1024));
        assert_eq!(placed(ovmf(2023, 8), &guest).1, Some(56 * 1024));
        assert_eq!(placed(ovmf(2023, 8), &Platform { gb_pages: false, ..guest }).1, Some(768));
    }

    #[test]
    fn the_size_that_is_asked_for_counts_alone_from_2025_05_on() {
        let guest = Platform { phys_bits: 42, x_pci_mmio64_mb: Some(64 << 10), ..platform(32 * GIB) };
        assert_eq!(placed(ovmf(2025, 2), &guest), (Some((3584, 4096)), Some(3584)));
        assert_eq!(placed(ovmf(2025, 5), &guest), (Some((64, 128)), Some(64)));
        let none = Platform { x_pci_mmio64_mb: Some(0), ..guest };
        assert_eq!(placed(ovmf(2025, 2), &none), (Some((3584, 4096)), Some(3584)));
        assert_eq!(placed(ovmf(2025, 5), &none), (None, None));
    }

    #[test]
    fn only_ovmf_2026_02_takes_other_memory_through_a_port_above_4_gib() {
        let mut guest = platform(16 << 10);
        let Some(Node::Port(Port { children, .. })) = guest.root.first_mut() else { panic!("a port") };
        let bars = vec![BarRequest { id: 0, size: 16 << 10, prefetchable: false }];
        *children = vec![Node::Function { usb: false, bars }];
        let low = |build| placed(build, &guest).1.is_some_and(|at| at < 4);
        assert_eq!([ovmf(2025, 11), ovmf(2026, 2), ovmf(2026, 5)].map(low), [true, false, true]);
    }

    #[test]
    fn releases_that_were_not_read_are_guesses() {
        let guest = platform(16 * GIB);
        assert!(place(ovmf(2026, 8), &guest).exact);
        assert!(!place(ovmf(2026, 11), &guest).exact);
        // Of a quarter of the address space nothing remains below the HyperTransport range but 512 to 768 GiB.
        assert_eq!(placed(ovmf(2026, 11), &guest).1, Some(512));
    }

    /// OVMF 2022.11 was seen to put the BAR at 3600 GiB, behind the padding of eight ports: its function has an I/O BAR.
    #[test]
    fn ports_of_old_ovmf_lose_their_padding_for_want_of_io_ports() {
        let mut guest = Platform { phys_bits: 42, ..platform(GIB) };
        let Some(Node::Port(port)) = guest.root.first().cloned() else { panic!("a port") };
        guest.root.extend((1..14).map(|_| Node::Port(Port { children: Vec::new(), ..port.clone() })));
        let old = place(ovmf(2022, 11), &guest);
        assert_eq!((old.addresses[0], old.exact), (Some(3602 * GIB), false));
        assert_eq!(super::ovmf::place_with(ovmf(2022, 11), &guest, true).addresses[0], Some(3600 * GIB));
        let new = place(ovmf(2023, 8), &guest);
        assert_eq!((new.addresses[0], new.exact), (Some(3584 * GIB), true));
    }

    #[test]
    fn no_tree_takes_long() {
        let functions = |port: usize, number: usize| {
            let bar = |id: usize| BarRequest { id, size: 512 * GIB, prefetchable: true };
            let function = |nth: usize| Node::Function { usb: false, bars: vec![bar(port * number + nth)] };
            (0..number).map(function).collect()
        };
        let guest = |ports: usize, number: usize| {
            let port = |port| {
                let children = functions(port, number);
                Node::Port(Port { express: true, hotplug: true, pref64_reserve: None, children })
            };
            Platform { root: (0..ports).map(port).collect(), ..platform(GIB) }
        };
        for build in [ovmf(2022, 11), ovmf(2025, 2)] {
            let (one, several) = (place(build, &guest(80, 1)), place(build, &guest(255, 16)));
            assert_eq!(one.addresses.iter().flatten().count(), 0, "{build}");
            assert_eq!((one.exact, several.exact), (true, false), "{build}");
            assert_eq!(several.addresses, [None; 255 * 16], "{build}");
        }
    }

    #[test]
    fn small_bars_stay_below_4_gib_in_old_seabios() {
        let placed = |version| {
            let builds = possible_builds(Some(FirmwareKind::SeaBios), Some(version));
            place(builds[0], &platform(256 << 20)).addresses[0]
        };
        assert!(placed("1.16.2").is_some_and(|at| at < 4 * GIB));
        assert_eq!(placed("1.16.3"), Some(768 * GIB));
    }
}
