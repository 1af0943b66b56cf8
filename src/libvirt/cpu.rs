//! `-cpu`.
//!
//! Sources: libvirt 9.0 and 11.3, `qemuBuildCpuCommandLine` and `qemuBuildCpuModelArgStr`
//! (`src/qemu/qemu_command.c`), `qemuValidateDomainDefCpu` (`src/qemu/qemu_validate.c`), `virCPUDefParseXML`
//! (`src/conf/cpu_conf.c`).

use super::{Refusal, refuse};
use crate::command_line::{Accelerator, Cpu, Model, Origin, Properties};
use crate::domain::{CpuElement, CpuMode, MaxPhysAddr, MaxPhysAddrMode, Sourced};
use crate::version::Version;
use crate::xml::Span;

/// The model of a guest whose domain names none.
const DEFAULT_MODEL: &str = "qemu64";

/// Characters in a CPUID vendor (`VIR_CPU_VENDOR_ID_LENGTH`).
const VENDOR_ID_LENGTH: usize = 12;

/// The first libvirt with `<maxphysaddr limit>`; older ones drop it silently.
pub(crate) const LIMIT_SINCE: Version = Version::new(9, 3);

/// The first libvirt with `<maxphysaddr mode='emulate'>` without bits.
const BITS_OPTIONAL_SINCE: Version = Version::new(9, 2);

/// The first libvirt with `<maxphysaddr>`; older ones drop it silently.
pub(crate) const MAXPHYSADDR_SINCE: Version = Version::new(8, 7);

/// The `-cpu` that libvirt writes for a domain with this `<cpu>`; `span` is the domain's.
pub(super) fn cpu(
    cpu: Option<&CpuElement>,
    accelerator: Accelerator,
    libvirt: Option<Version>,
    span: Span,
) -> Result<Cpu, Refusal> {
    let default = || Model::Named(DEFAULT_MODEL.to_owned());
    let Some(cpu) = cpu else {
        return Ok(Cpu { model: default(), properties: Properties::new(), origin: Origin::Xml(span) });
    };
    let model = match cpu.mode {
        CpuMode::HostPassthrough if accelerator == Accelerator::Tcg => {
            return refuse(cpu.span, "CPU mode host-passthrough needs KVM");
        }
        CpuMode::HostPassthrough => Model::Host,
        CpuMode::Maximum => Model::Max,
        CpuMode::HostModel => Model::HostModel,
        CpuMode::Custom => match &cpu.model {
            Some(model) => Model::Named(model.value.clone()),
            None if cpu.has_features => return refuse(cpu.span, "CPU features need a CPU model"),
            None => default(),
        },
    };
    let mut properties = Properties::new();
    if let (CpuMode::Custom | CpuMode::HostModel, Some(vendor)) = (cpu.mode, &cpu.vendor_id) {
        properties.set("vendor", vendor_id(vendor)?, Origin::Xml(vendor.span));
    }
    for feature in &cpu.features {
        if properties.get(&feature.name).is_some() {
            return refuse(feature.span, format!("CPU feature {} is given twice", feature.name));
        }
        // What libvirt leaves to the host is on: every host that runs KVM has these three.
        let value = if feature.enabled.unwrap_or(true) { "on" } else { "off" };
        properties.set(feature.name.clone(), value, Origin::Xml(feature.span));
    }
    if let Some(width) = cpu.maxphysaddr.as_ref().filter(|_| libvirt.is_none_or(|version| version >= MAXPHYSADDR_SINCE))
    {
        maxphysaddr(width, &mut properties, libvirt)?;
    }
    Ok(Cpu { model, properties, origin: Origin::Xml(cpu.span) })
}

fn vendor_id(vendor: &Sourced<String>) -> Result<&str, Refusal> {
    if vendor.value.len() != VENDOR_ID_LENGTH {
        return refuse(vendor.span, format!("vendor_id must be exactly {VENDOR_ID_LENGTH} characters long"));
    }
    if vendor.value.contains(',') {
        return refuse(vendor.span, "vendor_id must not contain a comma");
    }
    Ok(&vendor.value)
}

fn maxphysaddr(width: &MaxPhysAddr, properties: &mut Properties, libvirt: Option<Version>) -> Result<(), Refusal> {
    let origin = Origin::Xml(width.span);
    match (width.mode, width.bits) {
        (MaxPhysAddrMode::Passthrough, Some(bits)) => {
            return refuse(bits.span, "<maxphysaddr mode='passthrough'> takes no bits");
        }
        (MaxPhysAddrMode::Passthrough, None) => properties.set("host-phys-bits", "on", origin),
        (MaxPhysAddrMode::Emulate, Some(bits)) => properties.set("phys-bits", bits.value, Origin::Xml(bits.span)),
        (MaxPhysAddrMode::Emulate, None) if libvirt.is_some_and(|version| version < BITS_OPTIONAL_SINCE) => {
            return refuse(width.span, "<maxphysaddr mode='emulate'> needs bits");
        }
        (MaxPhysAddrMode::Emulate, None) => properties.set("host-phys-bits", "off", origin),
    }
    if let Some(limit) = width.limit.filter(|_| libvirt.is_none_or(|version| version >= LIMIT_SINCE)) {
        if width.mode == MaxPhysAddrMode::Emulate {
            return refuse(limit.span, "<maxphysaddr limit> goes with mode='passthrough' only");
        }
        properties.set("host-phys-bits-limit", limit.value, Origin::Xml(limit.span));
    }
    Ok(())
}
