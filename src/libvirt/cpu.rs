//! `-cpu`.
//!
//! Sources: libvirt 9.0 and 11.3, `qemuBuildCpuCommandLine` and `qemuBuildCpuModelArgStr`
//! (`src/qemu/qemu_command.c`), `qemuValidateDomainDefCpu` (`src/qemu/qemu_validate.c`), `virCPUDefParseXML`
//! (`src/conf/cpu_conf.c`).

use super::{Refusal, refuse};
use crate::domain::{CpuElement, CpuMode, MaxPhysAddr, MaxPhysAddrMode, Sourced};
use crate::qemu::cpu::{Accelerator, CpuOptions, Model};
use crate::version::Version;

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

/// What libvirt passes to QEMU.
///
/// # Errors
/// What libvirt refuses. Asking for more bits than the host has is not among it: that is a finding of its own.
pub fn cpu_options(
    cpu: Option<&CpuElement>,
    accelerator: Accelerator,
    libvirt: Option<Version>,
) -> Result<CpuOptions, Refusal> {
    let mut options = CpuOptions {
        model: Model::Named(DEFAULT_MODEL.to_owned()),
        vendor: None,
        lm: None,
        pae: None,
        pse36: None,
        phys_bits: 0,
        host_phys_bits: None,
        host_phys_bits_limit: None,
    };
    let Some(cpu) = cpu else { return Ok(options) };
    options.model = match cpu.mode {
        CpuMode::HostPassthrough if accelerator == Accelerator::Tcg => {
            return refuse(cpu.span, "CPU mode host-passthrough needs KVM");
        }
        CpuMode::HostPassthrough => Model::Host,
        CpuMode::Maximum => Model::Max,
        CpuMode::HostModel => Model::HostModel,
        CpuMode::Custom => match &cpu.model {
            Some(model) => Model::Named(model.value.clone()),
            None if cpu.has_features => return refuse(cpu.span, "CPU features need a CPU model"),
            None => options.model,
        },
    };
    if matches!(cpu.mode, CpuMode::Custom | CpuMode::HostModel) {
        options.vendor = cpu.vendor_id.as_ref().map(vendor_id).transpose()?;
    }
    for feature in &cpu.features {
        let flag = match feature.name.as_str() {
            "lm" => &mut options.lm,
            "pae" => &mut options.pae,
            _ => &mut options.pse36,
        };
        // What libvirt leaves to the host is on: every host that runs KVM has these three.
        if flag.replace(feature.enabled.unwrap_or(true)).is_some() {
            return refuse(feature.span, format!("CPU feature {} is given twice", feature.name));
        }
    }
    if let Some(width) = cpu.maxphysaddr.as_ref().filter(|_| libvirt.is_none_or(|version| version >= MAXPHYSADDR_SINCE))
    {
        maxphysaddr(width, &mut options, libvirt)?;
    }
    Ok(options)
}

fn vendor_id(vendor: &Sourced<String>) -> Result<String, Refusal> {
    if vendor.value.len() != VENDOR_ID_LENGTH {
        return refuse(vendor.span, format!("vendor_id must be exactly {VENDOR_ID_LENGTH} characters long"));
    }
    if vendor.value.contains(',') {
        return refuse(vendor.span, "vendor_id must not contain a comma");
    }
    Ok(vendor.value.clone())
}

fn maxphysaddr(width: &MaxPhysAddr, options: &mut CpuOptions, libvirt: Option<Version>) -> Result<(), Refusal> {
    match (width.mode, width.bits) {
        (MaxPhysAddrMode::Passthrough, Some(bits)) => {
            return refuse(bits.span, "<maxphysaddr mode='passthrough'> takes no bits");
        }
        (MaxPhysAddrMode::Passthrough, None) => options.host_phys_bits = Some(true),
        (MaxPhysAddrMode::Emulate, Some(bits)) => options.phys_bits = bits.value,
        (MaxPhysAddrMode::Emulate, None) if libvirt.is_some_and(|version| version < BITS_OPTIONAL_SINCE) => {
            return refuse(width.span, "<maxphysaddr mode='emulate'> needs bits");
        }
        (MaxPhysAddrMode::Emulate, None) => options.host_phys_bits = Some(false),
    }
    if let Some(limit) = width.limit.filter(|_| libvirt.is_none_or(|version| version >= LIMIT_SINCE)) {
        if width.mode == MaxPhysAddrMode::Emulate {
            return refuse(limit.span, "<maxphysaddr limit> goes with mode='passthrough' only");
        }
        options.host_phys_bits_limit = Some(limit.value);
    }
    Ok(())
}
