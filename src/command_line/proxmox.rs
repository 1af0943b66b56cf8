//! The files that Proxmox names in `-readconfig`. They hold devices alone, the same in every release.

use super::words::Argument;
use super::{Device, Properties};

/// The folder of the package.
const FOLDER: &str = "/usr/share/qemu-server/";

/// Driver, id, bus and address.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// The ports and bridges of a q35 guest (`pve-q35.cfg` and `pve-q35-4.0.cfg` of qemu-server 5.0 to 9.2); the ports of the
/// former are of type `ioh3420`. USB and sound have no 64-bit BARs and are left out.
const Q35: [Row; 9] = [
    ("pcie-root-port", "ich9-pcie-port-1", "pcie.0", "1c.0"),
    ("pcie-root-port", "ich9-pcie-port-2", "pcie.0", "1c.1"),
    ("pcie-root-port", "ich9-pcie-port-3", "pcie.0", "1c.2"),
    ("pcie-root-port", "ich9-pcie-port-4", "pcie.0", "1c.3"),
    ("i82801b11-bridge", "pcidmi", "pcie.0", "1e.0"),
    ("pci-bridge", "pci.0", "pcidmi", "1.0"),
    ("pci-bridge", "pci.1", "pcidmi", "2.0"),
    ("pci-bridge", "pci.2", "pcidmi", "3.0"),
    ("pci-bridge", "pci.3", "pcidmi", "4.0"),
];

/// Whether the file is one of them.
pub(super) fn is_known(path: &str) -> bool {
    let name = path.strip_prefix(FOLDER);
    name.is_some_and(|name| matches!(name, "pve-q35-4.0.cfg" | "pve-q35.cfg" | "pve-usb.cfg"))
}

/// The devices in the file that an argument names.
pub(super) fn devices(argument: &Argument<'_>) -> impl Iterator<Item = Device> {
    let origin = argument.origin;
    let (rows, port) = match argument.text.strip_prefix(FOLDER) {
        Some("pve-q35-4.0.cfg") => (&Q35[..], "pcie-root-port"),
        Some("pve-q35.cfg") => (&Q35[..], "ioh3420"),
        _ => (&[][..], ""),
    };
    rows.iter().map(move |&(driver, id, bus, address)| {
        let driver = if driver == "pcie-root-port" { port } else { driver };
        let mut properties = Properties::new();
        properties.set("bus", bus, origin);
        properties.set("addr", address, origin);
        Device { driver: driver.into(), id: Some(id.to_owned()), properties, origin, settable: true }
    })
}

#[cfg(test)]
mod tests {
    use super::super::CommandLine;
    use super::*;

    #[test]
    fn the_files_of_proxmox_hold_devices_alone() {
        for (path, first, not_modelled) in [
            ("/usr/share/qemu-server/pve-q35-4.0.cfg", Some("pcie-root-port"), 0),
            ("/usr/share/qemu-server/pve-q35.cfg", Some("ioh3420"), 0),
            ("/usr/share/qemu-server/pve-usb.cfg", None, 0),
            ("/root/pve-q35-4.0.cfg", None, 1),
            ("/usr/share/qemu-server/other.cfg", None, 1),
        ] {
            let mut line = CommandLine::default();
            line.merge(["-readconfig", path].iter().enumerate().map(|(n, text)| Argument::numbered(n, text)));
            assert_eq!(line.devices.first().map(|device| device.driver.as_ref()), first, "{path}");
            assert_eq!(line.not_modelled.len(), not_modelled, "{path}");
        }
    }
}
