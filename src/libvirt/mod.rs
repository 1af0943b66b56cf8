//! What libvirt makes of a domain: the command line it writes for QEMU, sizes aligned and defaults filled in, and what
//! it refuses.

mod backend;
mod cpu;
mod memory;
mod models;
mod validate;

use cpu::Circumstances;
pub(crate) use cpu::{LIMIT_SINCE, MAXPHYSADDR_SINCE};

use crate::command_line::{Accelerator, CommandLine, Device, Global, Machine, Origin, Properties, Target, Told};
use crate::domain::{Domain, Passthrough, PassthroughKind};
use crate::host::Host;
use crate::machine::{Family, Flavor, MachineType};
use crate::xml::Span;

/// libvirt refuses the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What libvirt objects to, in one line.
    pub message: String,
    /// Where it stands.
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
    /// What libvirt refuses. Asking for more physical address bits than the host has is not among it: that is a finding
    /// of its own.
    pub refusals: Vec<Refusal>,
}

/// What the host's libvirt writes for a domain on a machine of that type; one whose version is not known is taken for a
/// new one, and refuses nothing that another might take.
pub fn write(domain: &Domain, machine: &MachineType, host: &Host) -> Written {
    let libvirt = host.libvirt;
    let mut refusals = validate::refusals(domain, machine.family, libvirt);
    let mut keep = |refusal: Refusal| refusals.push(refusal);
    let kvm = domain.hypervisor.as_ref().is_some_and(|hypervisor| hypervisor.value == "kvm");
    let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    let target = target(domain).map_err(&mut keep).unwrap_or_default();
    let rhel = machine.flavor == Flavor::Rhel;
    let circumstances = Circumstances { accelerator, target, libvirt, qemu: host.qemu, rhel };
    let cpu = cpu::cpu(domain.cpu.as_ref(), &circumstances, domain.span).map_err(&mut keep).ok();
    let sizes = memory::sizes(domain, host).map_err(&mut keep).ok();
    let mut line = CommandLine {
        target,
        machine: Machine {
            kind: domain.machine.as_ref().map(|machine| Told::in_xml(machine.value.clone(), machine.span)),
            acpi: Some(domain.acpi),
            memory_backend: None,
        },
        accelerator,
        cpu,
        sockets: domain.sockets,
        memory: sizes.as_ref().map(|sizes| sizes.memory),
        globals: pci_hole64(domain, machine.family).into_iter().collect(),
        ..CommandLine::default()
    };
    if let Some(sizes) = &sizes {
        backend::memory(domain, machine, sizes, libvirt, &mut line);
    }
    domain.passthrough.iter().for_each(|device| passthrough(device, &mut line));
    Written { line, refusals }
}

/// Which QEMU libvirt starts: what `<emulator>` names, or what the architecture has (`virQEMUCapsInitGuest` in libvirt
/// `src/qemu/qemu_capabilities.c`). A 64-bit one runs 32-bit guests, too.
fn target(domain: &Domain) -> Result<Target, Refusal> {
    let i686 = domain.arch.as_ref().is_some_and(|arch| arch.value == "i686");
    match &domain.emulator {
        Some(emulator) if emulator.value.ends_with("qemu-system-i386") => match i686 {
            true => Ok(Target::I386),
            false => refuse(emulator.span, "qemu-system-i386 runs guests of architecture i686 only"),
        },
        None if i686 => Ok(Target::I386),
        _ => Ok(Target::X86_64),
    }
}

/// `qemuBuildGlobalControllerCommandLine` of libvirt `src/qemu/qemu_command.c`.
fn pci_hole64(domain: &Domain, family: Family) -> Option<Global> {
    let hole = domain.pci_hole64?;
    let driver = match family {
        Family::Q35 => "q35-pcihost",
        Family::I440fx => "i440FX-pcihost",
    };
    let value = format!("{}K", hole.value);
    Some(Global { driver: driver.into(), property: "pci-hole64-size".into(), value, origin: Origin::Xml(hole.span) })
}

/// `qemuBuildPCIHostdevDevProps` and its neighbours in libvirt `src/qemu/qemu_command.c`. Of the names of disks and
/// networks nothing depends here.
fn passthrough(device: &Passthrough, line: &mut CommandLine) {
    let origin = Origin::Xml(device.span);
    let (driver, property) = match device.kind {
        PassthroughKind::VfioPci => ("vfio-pci", "host"),
        PassthroughKind::VfioMdev => ("vfio-pci", "sysfsdev"),
        PassthroughKind::VhostVdpa => ("vhost-vdpa", "vhostdev"),
    };
    let mut properties = Properties::new();
    let value = match device.kind {
        PassthroughKind::VfioMdev => format!("/sys/bus/mdev/devices/{}", device.device),
        _ => device.device.clone(),
    };
    properties.set(property, value, origin);
    let part = Device { driver: driver.into(), id: None, properties, origin };
    match device.kind {
        PassthroughKind::VhostVdpa => line.host_ends.push(part),
        PassthroughKind::VfioPci | PassthroughKind::VfioMdev => line.devices.push(part),
    }
}
