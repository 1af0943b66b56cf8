//! Devices that reach guest memory through the host's IOMMU.

#[cfg(feature = "cli")]
use super::boolean;
use super::{CommandLine, Device, Origin};

/// A device whose DMA goes through VFIO or vDPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// How it is attached.
    pub kind: PassthroughKind,
    /// A PCI address `0000:41:10.1`, an mdev UUID, or a device path; empty if only libvirt will know it.
    pub device: String,
    /// What becomes of its state when the guest migrates.
    #[cfg(feature = "cli")]
    pub mobility: Mobility,
    /// Where it is.
    pub origin: Origin,
}

/// What becomes of a device's state when the guest migrates.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mobility {
    /// The device itself has to hand it over.
    OfDevice,
    /// The same, with `x-enable-migration=on`, which QEMU 5.2 to 8.0 has and wants (`hw/vfio/pci.c`).
    Experimental,
    /// It stays: `enable-migration=off` (`hw/vfio/pci.c`, since 8.1).
    Disabled,
    /// QEMU has all of it: the guest sees a virtio-blk device of QEMU's, of which only the back end is passed through.
    OfQemu,
    /// There is none to move: the guest gives the device back before, as `failover_pair_id` says (QEMU
    /// `hw/net/virtio-net.c`), and QEMU plugs one in again afterwards.
    Unplugged,
}

/// How a passthrough device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassthroughKind {
    /// A PCI function through vfio-pci.
    VfioPci,
    /// A mediated device. Without an IOMMU-backed parent its list of valid IOVAs is empty, which allows everything.
    VfioMdev,
    /// A vDPA network device or disk.
    VhostVdpa,
}

impl PassthroughKind {
    /// The name of the QEMU device.
    pub fn name(self) -> &'static str {
        match self {
            Self::VfioPci => "vfio-pci",
            Self::VfioMdev => "vfio-mdev",
            Self::VhostVdpa => "vhost-vdpa",
        }
    }
}

/// The drivers of VFIO's PCI devices.
const VFIO_PCI: [&str; 2] = ["vfio-pci", "vfio-pci-nohotplug"];

/// Where the host keeps mediated devices.
pub(crate) const MDEV_FOLDER: &str = "/sys/bus/mdev/devices/";

impl CommandLine {
    /// The passthrough devices, in the order of the places they come from.
    pub fn passthrough(&self) -> Vec<Passthrough> {
        let ends = self.host_ends.iter().filter_map(host_end);
        let mut devices: Vec<Passthrough> = self.devices.iter().filter_map(device).chain(ends).collect();
        #[cfg(feature = "cli")]
        for device in devices.iter_mut().filter(|device| device.mobility == Mobility::OfDevice) {
            let switch = |name: &str| self.global(&VFIO_PCI, name).map(|property| property.value.as_str());
            if matches!(device.kind, PassthroughKind::VfioPci | PassthroughKind::VfioMdev) {
                device.mobility = switched(switch);
            }
        }
        devices.sort_by_key(|device| device.origin);
        devices
    }

    /// The devices that another process serves, each with its protocol. What else speaks
    /// vhost-user is served by programs without devices of their own.
    pub(crate) fn foreign_processes(&self) -> impl Iterator<Item = (&'static str, Origin)> {
        self.devices.iter().chain(&self.host_ends).filter_map(|device| {
            let protocol = match device.driver.as_ref() {
                "vfio-user-pci" => "vfio-user",
                "vhost-user" => "vhost-user",
                name if name.starts_with("vhost-user-blk") || name.starts_with("vhost-user-scsi") => "vhost-user",
                _ => return None,
            };
            Some((protocol, device.origin))
        })
    }
}

#[cfg(feature = "cli")]
impl Passthrough {
    /// What a `-device` passes through, if it does.
    pub(crate) fn of(part: &Device) -> Option<Self> {
        device(part)
    }
}

/// What the properties of a VFIO device say of its migration.
#[cfg(feature = "cli")]
fn switched<'v>(value: impl Fn(&str) -> Option<&'v str>) -> Mobility {
    let is = |name: &str, wanted: bool| value(name).and_then(boolean) == Some(wanted);
    if is("enable-migration", false) {
        Mobility::Disabled
    } else if is("x-enable-migration", true) {
        Mobility::Experimental
    } else {
        Mobility::OfDevice
    }
}

/// QEMU `hw/vfio/pci.c`, `hw/virtio/vdpa-dev-pci.c`.
fn device(device: &Device) -> Option<Passthrough> {
    let value = |name: &str| device.properties.value(name);
    #[cfg(feature = "cli")]
    let mobility = match value("failover_pair_id") {
        Some(_) => Mobility::Unplugged,
        None => switched(value),
    };
    let found = |kind, device_name: String| {
        Some(Passthrough {
            kind,
            device: device_name,
            #[cfg(feature = "cli")]
            mobility,
            origin: device.origin,
        })
    };
    match device.driver.as_ref() {
        driver if VFIO_PCI.contains(&driver) => {
            let path = value("sysfsdev").unwrap_or_default();
            let last = path.rsplit('/').next().unwrap_or_default();
            match value("host") {
                // Wherever in sysfs it is, a mediated device is called by its UUID, and a PCI function by its address.
                None if path.starts_with(MDEV_FOLDER) || !(last.is_empty() || last.contains(':')) => {
                    found(PassthroughKind::VfioMdev, last.to_owned())
                }
                host => found(PassthroughKind::VfioPci, whole_address(host.unwrap_or(last))),
            }
        }
        driver if driver.starts_with("vhost-vdpa-device") => {
            found(PassthroughKind::VhostVdpa, value("vhostdev").unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

/// A `-netdev` of vDPA, or a `-blockdev` with one somewhere inside.
fn host_end(end: &Device) -> Option<Passthrough> {
    const DISK: &str = "virtio-blk-vhost-vdpa";
    let value = |name: &str| end.properties.value(name).map(str::to_owned);
    let device = match end.driver.as_ref() {
        "vhost-vdpa" => value("vhostdev"),
        DISK => value("path"),
        _ => {
            let mut inside = end.properties.iter().filter(|property| property.value == DISK);
            let parent = inside.find_map(|property| property.name.strip_suffix(".driver"))?;
            value(&format!("{parent}.path"))
        }
    };
    Some(Passthrough {
        kind: PassthroughKind::VhostVdpa,
        device: device.unwrap_or_default(),
        #[cfg(feature = "cli")]
        mobility: if end.driver == "vhost-vdpa" { Mobility::OfDevice } else { Mobility::OfQemu },
        origin: end.origin,
    })
}

/// A PCI address with its domain, which QEMU takes for 0 if it is left out.
fn whole_address(address: &str) -> String {
    if address.matches(':').count() == 1 { format!("0000:{address}") } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::Argument;
    use super::*;

    #[test]
    fn a_device_is_called_by_its_address_or_uuid() {
        use PassthroughKind::{VfioMdev, VfioPci, VhostVdpa};
        const UUID: &str = "a297db4a-f4c2-11e6-90f6-d3b88d6c9525";
        for (option, value, kind, device) in [
            ("-device", "vfio-pci,host=0000:41:00.0".to_owned(), VfioPci, "0000:41:00.0"),
            ("-device", "vfio-pci-nohotplug,host=41:00.0".to_owned(), VfioPci, "0000:41:00.0"),
            ("-device", "vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:41:00.0".to_owned(), VfioPci, "0000:41:00.0"),
            ("-device", format!("vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}"), VfioMdev, UUID),
            ("-device", format!("sysfsdev=/sys/bus/pci/devices/0000:00:02.0/{UUID},driver=vfio-pci"), VfioMdev, UUID),
            ("-device", format!("vfio-pci,sysfsdev=/sys/class/mdev_bus/0000:00:02.0/{UUID}"), VfioMdev, UUID),
            ("-device", "vfio-pci,fd=5".to_owned(), VfioPci, ""),
            ("-device", "vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0".to_owned(), VhostVdpa, "/dev/vhost-vdpa-0"),
            ("-netdev", "vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-1".to_owned(), VhostVdpa, "/dev/vhost-vdpa-1"),
            ("-netdev", "type=vhost-vdpa,vhostdev=/dev/vhost-vdpa-1,id=n".to_owned(), VhostVdpa, "/dev/vhost-vdpa-1"),
        ] {
            let mut line = CommandLine::default();
            line.merge([option, &value].iter().enumerate().map(|(number, text)| Argument::numbered(number, text)));
            let found: Vec<_> = line.passthrough().into_iter().map(|device| (device.kind, device.device)).collect();
            assert_eq!(found, [(kind, device.to_owned())], "{value}");
        }
    }
}
