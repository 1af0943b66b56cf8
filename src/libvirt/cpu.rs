//! `-cpu`.
//!
//! Sources: libvirt 9.0 and 11.3, `qemuBuildCpuCommandLine` and `qemuBuildCpuModelArgStr`
//! (`src/qemu/qemu_command.c`), `qemuValidateDomainDefCpu` (`src/qemu/qemu_validate.c`), `virCPUDefParseXML`
//! (`src/conf/cpu_conf.c`), `qemuProcessUpdateGuestCPU` (`src/qemu/qemu_process.c`), `virCPUx86Update` and
//! `virCPUx86Translate` (`src/cpu/cpu_x86.c`).

use super::{Refusal, models, refuse};
use crate::command_line::{Accelerator, Cpu, Model, Origin, Properties, QemuTarget, default_model};
use crate::domain::{CpuElement, CpuMode, MaxPhysAddr, MaxPhysAddrMode, Sourced};
use crate::host::Host;
use crate::text::quoted;
use crate::version::Version;
use crate::xml::Span;

/// Characters in a CPUID vendor (`VIR_CPU_VENDOR_ID_LENGTH`).
const VENDOR_ID_LENGTH: usize = 12;

/// The first libvirt with `<maxphysaddr limit>`; older ones drop it silently.
pub(crate) const LIMIT_SINCE: Version = Version::new(9, 3);

/// The first libvirt with `<maxphysaddr mode='emulate'>` without bits.
const BITS_OPTIONAL_SINCE: Version = Version::new(9, 2);

/// The first libvirt with `<maxphysaddr>`; older ones drop it silently.
pub(crate) const MAXPHYSADDR_SINCE: Version = Version::new(8, 7);

/// What decides the CPU apart from `<cpu>`.
pub(super) struct Circumstances<'a> {
    pub accelerator: Accelerator,
    pub target: QemuTarget,
    pub host: &'a Host,
    /// Whether the QEMU is one of RHEL, which has models of its own.
    pub rhel: bool,
}

impl Circumstances<'_> {
    /// Whether QEMU has a CPU model; `None` if that is unknown.
    fn qemu_has(&self, model: &str) -> Option<bool> {
        #[cfg(feature = "cli")]
        if !self.host.cpu_models.is_empty() {
            return Some(self.host.cpu_models.iter().any(|has| has == model));
        }
        if self.rhel {
            return Some(true);
        }
        models::qemu_has(model, self.host.qemu?)
    }
}

/// The `-cpu` that libvirt writes for a domain with this `<cpu>`; `span` is the domain's.
pub(super) fn cpu(cpu: Option<&CpuElement>, circumstances: &Circumstances<'_>, span: Span) -> Result<Cpu, Refusal> {
    let Some(cpu) = cpu else {
        let model = default_model(circumstances.target);
        return Ok(Cpu { model, properties: Properties::new(), origin: Origin::Xml(span) });
    };
    keywords(cpu)?;
    let libvirt = circumstances.host.libvirt;
    let model = model(cpu, circumstances)?;
    let mut properties = Properties::new();
    if let (CpuMode::Custom | CpuMode::HostModel, Some(vendor)) = (cpu.mode, &cpu.vendor_id) {
        properties.set("vendor", vendor_id(vendor)?, Origin::Xml(vendor.span));
    }
    for feature in &cpu.features {
        if properties.get(&feature.name).is_some() {
            return refuse(feature.span, format!("CPU feature {} is given twice", feature.name));
        }
        // Features that libvirt leaves to the host are on: every host that runs KVM has these three.
        let value = if feature.enabled.unwrap_or(true) { "on" } else { "off" };
        properties.set(feature.name.clone(), value, Origin::Xml(feature.span));
    }
    if let Some(width) = cpu.maxphysaddr.as_ref().filter(|_| libvirt.is_none_or(|version| version >= MAXPHYSADDR_SINCE))
    {
        maxphysaddr(width, &mut properties, libvirt)?;
    }
    Ok(Cpu { model, properties, origin: Origin::Xml(cpu.span) })
}

/// The attributes that take one of a few words (`virCPUDefParseXML`).
fn keywords(cpu: &CpuElement) -> Result<(), Refusal> {
    let of_a_model = matches!(cpu.mode, CpuMode::Custom | CpuMode::HostModel);
    let fallback = cpu.fallback.as_ref().filter(|_| of_a_model);
    let all = [
        ("match", cpu.matching.as_ref(), ["minimum", "exact", "strict"].as_slice()),
        ("check", cpu.check.as_ref(), &["none", "partial", "full"]),
        ("fallback", fallback, &["allow", "forbid"]),
    ];
    for (name, value, words) in all {
        if let Some(value) = value.filter(|value| !words.contains(&value.value.as_str())) {
            return refuse(value.span, format!("{name}='{}' is not one of {}", quoted(&value.value), words.join(", ")));
        }
    }
    match (&cpu.vendor, &cpu.model) {
        (Some(vendor), None) => refuse(vendor.span, "<vendor> needs a <model>"),
        _ => Ok(()),
    }
}

fn model(cpu: &CpuElement, circumstances: &Circumstances<'_>) -> Result<Model, Refusal> {
    let model = match cpu.mode {
        CpuMode::HostPassthrough if circumstances.accelerator == Accelerator::Tcg => {
            return refuse(cpu.span, "CPU mode host-passthrough needs KVM");
        }
        CpuMode::HostPassthrough => return Ok(Model::Host),
        CpuMode::Maximum => return Ok(Model::Max),
        CpuMode::HostModel => return compared(cpu, circumstances).map(|()| Model::HostModel),
        CpuMode::Custom => match &cpu.model {
            Some(model) => model,
            None if cpu.has_features => return refuse(cpu.span, "CPU features need a CPU model"),
            None => return Ok(default_model(circumstances.target)),
        },
    };
    // The host's CPU takes the place of the model (`x86UpdateHostModel`).
    if cpu.matching.as_ref().is_some_and(|matching| matching.value == "minimum") {
        return compared(cpu, circumstances).map(|()| Model::HostModel);
    }
    known(model, circumstances)?;
    let name = model.value.as_str();
    let has = circumstances.qemu_has(name);
    if has == Some(true) {
        return Ok(Model::Named(name.to_owned()));
    }
    let lacking = has == Some(false);
    if let Some(fallback) = cpu.fallback.as_ref().filter(|fallback| lacking && fallback.value == "forbid") {
        return refuse(
            fallback.span,
            format!("QEMU has no CPU model {} and the domain forbids a fallback", quoted(name)),
        );
    }
    Ok(Model::Named(models::replacement(name).to_owned()))
}

/// A model that the host's CPU replaces is compared with it first, unless `check` says otherwise (the default is
/// partial; none for a custom model without KVM: `qemuDomainDefCPUPostParse` in `src/qemu/qemu_postparse.c`).
fn compared(cpu: &CpuElement, circumstances: &Circumstances<'_>) -> Result<(), Refusal> {
    let by_default = cpu.mode == CpuMode::HostModel || circumstances.accelerator == Accelerator::Kvm;
    let partial = cpu.check.as_ref().map_or(by_default, |check| check.value == "partial");
    match cpu.model.as_ref().filter(|_| partial) {
        Some(model) => known(model, circumstances),
        None => Ok(()),
    }
}

fn known(model: &Sourced<String>, circumstances: &Circumstances<'_>) -> Result<(), Refusal> {
    let knows = circumstances.host.libvirt.and_then(|libvirt| models::libvirt_knows(&model.value, libvirt));
    match knows {
        Some(false) => refuse(model.span, format!("CPU model {} is unknown to this libvirt", quoted(&model.value))),
        Some(true) | None => Ok(()),
    }
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
            return refuse(limit.span, "<maxphysaddr limit> needs mode='passthrough'");
        }
        properties.set("host-phys-bits-limit", limit.value, Origin::Xml(limit.span));
    }
    Ok(())
}
