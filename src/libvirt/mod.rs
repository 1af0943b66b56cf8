//! What libvirt makes of a domain: the command line it writes for QEMU, sizes aligned and defaults filled in, and what
//! it refuses.

mod backend;
mod cpu;
#[cfg(feature = "cli")]
pub mod locked_memory;
mod memory;
mod models;
#[cfg(feature = "cli")]
mod pci;
mod validate;

use cpu::Circumstances;
pub(crate) use cpu::{LIMIT_SINCE, MAXPHYSADDR_SINCE};

#[cfg(feature = "cli")]
use crate::address::GIB;
#[cfg(feature = "cli")]
use crate::command_line::Memory;
use crate::command_line::{
    Accelerator, Argument, CommandLine, Device, Global, MDEV_FOLDER, Machine, Origin, Passthrough, Properties,
    Property, QemuTarget, Told,
};
use crate::domain::{DeviceChange, Domain, HostDevice, HostDeviceKind};
use crate::host::Host;
use crate::machine::{Family, Flavor, MachineType, Resolved, resolve};
use crate::xml::Span;

/// The machine type of a domain that names none (`virQEMUCapsGetPreferredMachine` in libvirt
/// `src/qemu/qemu_capabilities.c`: the default of QEMU's x86 programs).
const DEFAULT_MACHINE: &str = "pc";

/// libvirt refuses the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What libvirt objects to, in one line.
    pub message: String,
    /// Where it is.
    pub span: Span,
}

fn refuse<T>(span: Span, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), span })
}

/// What libvirt writes.
#[derive(Debug, Clone)]
pub struct Written {
    /// The command line; without the parts that libvirt refuses to write.
    pub line: CommandLine,
    /// What libvirt refuses. Requesting more physical address bits than the host has is not included: that is a finding
    /// of its own.
    pub refusals: Vec<Refusal>,
}

/// What the host's libvirt writes for a domain, with the raw QEMU arguments that the domain adds. A libvirt of unknown
/// version is treated as a new one that refuses only what every version refuses.
pub fn write(domain: &Domain, host: &Host) -> Written {
    let libvirt = host.libvirt;
    let machine = machine(domain, host);
    let mut refusals = validate::refusals(domain, machine.family, libvirt);
    let mut keep = |refusal: Refusal| refusals.push(refusal);
    let kvm = domain.hypervisor.as_ref().is_some_and(|hypervisor| hypervisor.value == "kvm");
    let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    let target = target(domain).map_err(&mut keep).unwrap_or_default();
    let rhel = machine.known.as_ref().is_some_and(|machine| machine.flavor == Flavor::Rhel);
    let circumstances = Circumstances { accelerator, target, host, rhel };
    let cpu = cpu::cpu(domain.cpu.as_ref(), &circumstances, domain.span).map_err(&mut keep).ok();
    let sizes = memory::sizes(domain, host).map_err(&mut keep).ok();
    let mut line = CommandLine {
        target,
        machine: Machine {
            kind: Some(match &domain.machine {
                Some(machine) => Told::in_xml(machine.value.clone(), machine.span),
                None => Told::in_xml(DEFAULT_MACHINE.to_owned(), domain.span),
            }),
            acpi: Some(domain.acpi),
            ..Machine::default()
        },
        accelerator: Some(accelerator),
        cpu,
        sockets: domain.sockets,
        memory: sizes.as_ref().map(|sizes| sizes.memory),
        globals: pci_hole64(domain).into_iter().collect(),
        ..CommandLine::default()
    };
    if let Some(sizes) = &sizes {
        backend::memory(domain, machine.known.as_ref(), sizes, libvirt, &mut line);
    }
    domain.passthrough.iter().for_each(|device| attach(device, &mut line));
    #[cfg(feature = "cli")]
    {
        firmware(domain, &mut line);
        if has_bars_that_count(domain, line.memory.as_ref()) {
            pci::write(domain, machine.family.unwrap_or(Family::I440fx), &mut line);
        }
    }
    domain.device_changes.iter().for_each(|change| change_device(change, &mut line));
    line.merge(raw_arguments(domain));
    Written { line, refusals }
}

/// RAM, memory devices plus 1 GiB per slot, in bytes, below which a guest is small: with the largest default PCI
/// hole, 32 GiB, its map ends far below the 512 GiB from which `mmio64` looks at guests without large devices.
#[cfg(feature = "cli")]
const LARGE: u64 = 256 * GIB;

/// Whether the places of 64-bit BARs can matter: most domains are small and have no device whose BAR could be large, so
/// computing them would waste time. What raw arguments and overrides change is unknown, so they count as large.
#[cfg(feature = "cli")]
fn has_bars_that_count(domain: &Domain, memory: Option<&Memory>) -> bool {
    let is_small = memory.is_some_and(|memory| {
        let slots = memory.slots().saturating_mul(GIB);
        let most = memory.maxmem.as_ref().map_or(memory.size.value, |most| most.value.max(memory.size.value));
        most.saturating_add(slots) < LARGE
    });
    let has_default_hole = domain.pci_hole64.is_none() && !domain.pci_hole64_is_endless;
    !(is_small
        && has_default_hole
        && domain.passthrough.is_empty()
        && domain.pci.listed.iter().all(|device| device.size.is_none())
        && domain.raw_args.is_empty()
        && domain.device_changes.is_empty())
}

/// `qemuBuildBootCommandLine`, `qemuBuildPflashBlockdevCommandLine` and `qemuBuildSysinfoCommandLine` of libvirt
/// `src/qemu/qemu_command.c`.
#[cfg(feature = "cli")]
fn firmware(domain: &Domain, line: &mut CommandLine) {
    let firmware = &mut line.firmware;
    if let Some(loader) = &domain.loader {
        let path = Told::in_xml(loader.path.value.clone(), loader.path.span);
        if loader.is_flash {
            firmware.flash = Some(path);
        } else {
            firmware.rom = Some(path);
        }
    }
    let uefi = domain.firmware.as_ref().filter(|firmware| firmware.value == "efi");
    firmware.uefi = uefi.map(|uefi| Origin::Xml(uefi.span));
    firmware.confidential = domain.launch_security.as_ref().map(|security| Origin::Xml(security.span));
    for (name, value, span) in &domain.fw_cfg {
        firmware.fw_cfg(name, value.as_deref(), Origin::Xml(*span));
    }
}

/// What libvirt knows of the machine type that the domain names.
struct MachineFacts {
    family: Option<Family>,
    /// The type, where its name tells all.
    known: Option<MachineType>,
}

fn machine(domain: &Domain, host: &Host) -> MachineFacts {
    let requested = domain.machine.as_ref().map_or("pc", |machine| machine.value.as_str());
    match resolve(host.canonical_machine(requested)) {
        Resolved::Known(machine) => MachineFacts { family: Some(machine.family), known: Some(machine) },
        Resolved::Unknown { family, .. } => MachineFacts { family, known: None },
        Resolved::NotPc(_) => MachineFacts { family: None, known: None },
    }
}

/// Which QEMU libvirt starts: what `<emulator>` names, or what the architecture has (`virQEMUCapsInitGuest` in libvirt
/// `src/qemu/qemu_capabilities.c`). A 64-bit one runs 32-bit guests, too.
fn target(domain: &Domain) -> Result<QemuTarget, Refusal> {
    let i686 = domain.arch.as_ref().is_some_and(|arch| arch.value == "i686");
    match &domain.emulator {
        Some(emulator) if emulator.value.ends_with("qemu-system-i386") => match i686 {
            true => Ok(QemuTarget::I386),
            false => refuse(emulator.span, "qemu-system-i386 runs guests of architecture i686 only"),
        },
        None if i686 => Ok(QemuTarget::I386),
        _ => Ok(QemuTarget::X86_64),
    }
}

/// The passthrough devices of a domain, with those that raw QEMU arguments add.
pub fn passthrough(domain: &Domain) -> Vec<Passthrough> {
    let mut line = CommandLine::default();
    domain.passthrough.iter().for_each(|device| attach(device, &mut line));
    line.merge(raw_arguments(domain));
    line.passthrough()
}

/// libvirt puts them after everything else (`qemuBuildCommandLine` in libvirt `src/qemu/qemu_command.c`).
fn raw_arguments(domain: &Domain) -> impl Iterator<Item = Argument<'_>> {
    domain.raw_args.iter().map(|argument| Argument::in_xml(&argument.value, argument.span))
}

/// `qemuBuildDeviceCommandlineHandleOverrides` of libvirt `src/qemu/qemu_command.c`.
fn change_device(change: &DeviceChange, line: &mut CommandLine) {
    for device in line.devices.iter_mut().filter(|device| device.id.as_ref() == Some(&change.alias)) {
        device.properties.remove(&change.name);
        if let Some(value) = &change.value {
            device.properties.set(change.name.clone(), value, Origin::Xml(change.span));
        }
    }
}

/// `qemuBuildGlobalControllerCommandLine` of libvirt `src/qemu/qemu_command.c`.
fn pci_hole64(domain: &Domain) -> Option<Global> {
    let hole = domain.pci_hole64?;
    let driver = if domain.pcie { "q35-pcihost" } else { "i440FX-pcihost" };
    let (value, origin) = (format!("{}K", hole.value), Origin::Xml(hole.span));
    Some(Global { driver: driver.into(), property: Property { name: "pci-hole64-size".into(), value, origin } })
}

/// `qemuBuildIOMMUCommandLine` of libvirt `src/qemu/qemu_command.c`: the device of `<iommu>`. It is not in
/// [`CommandLine::devices`] if it has no BAR that matters.
#[cfg(feature = "cli")]
pub(crate) fn virtual_iommu(domain: &Domain) -> Option<Device> {
    let iommu = domain.iommu.as_ref()?;
    let driver = match iommu.model.as_ref()?.value.as_str() {
        "intel" => "intel-iommu",
        "virtio" => "virtio-iommu-pci",
        "amd" => "amd-iommu",
        _ => return None,
    };
    let origin = Origin::Xml(iommu.span);
    let mut properties = Properties::new();
    for (name, told) in [("caching-mode", &iommu.caching_mode), ("aw-bits", &iommu.address_bits)] {
        if let Some(told) = told {
            properties.set(name, &told.value, origin);
        }
    }
    // libvirt 12.8 with QEMU 11.1; 11.3 does not know this model.
    if driver == "amd-iommu" {
        properties.set("pci-id", "iommu0", origin);
    }
    Some(Device { driver: driver.into(), id: None, properties, origin, settable: false })
}

/// `qemuBuildPCIHostdevDevProps` and its neighbours in libvirt `src/qemu/qemu_command.c`. Of the names of disks and
/// networks nothing depends here.
fn attach(device: &HostDevice, line: &mut CommandLine) {
    let origin = Origin::Xml(device.span);
    let (driver, property) = match device.kind {
        HostDeviceKind::Pci => ("vfio-pci", "host"),
        HostDeviceKind::Mdev => ("vfio-pci", "sysfsdev"),
        HostDeviceKind::Vdpa if device.network => ("vhost-vdpa", "vhostdev"),
        HostDeviceKind::Vdpa => ("virtio-blk-vhost-vdpa", "path"),
    };
    let mut properties = Properties::new();
    let value = match device.kind {
        HostDeviceKind::Mdev => format!("{MDEV_FOLDER}{}", device.device),
        _ => device.device.clone(),
    };
    properties.set(property, value, origin);
    #[cfg(feature = "cli")]
    if let Some(stays) = device.failover.as_ref().filter(|_| device.kind == HostDeviceKind::Pci) {
        properties.set("failover_pair_id", stays, origin);
    }
    let part = Device { driver: driver.into(), id: None, properties, origin, settable: false };
    match device.kind {
        HostDeviceKind::Vdpa => line.host_ends.push(part),
        HostDeviceKind::Pci | HostDeviceKind::Mdev => line.devices.push(part),
    }
}
