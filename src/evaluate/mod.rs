//! From a guest, a host and a policy to what is wrong with it.
//!
//! Where a fact about the host is not known, the likeliest value is taken, and the others are tried too: if one of them
//! changes whether the guest starts, the diagnosis says that it depends on that fact.

mod unknown_machine;

use std::borrow::Cow;

#[cfg(feature = "cli")]
use crate::command_line::Launch;
use crate::command_line::{CommandLine, Passthrough, PassthroughKind};
use crate::domain::{Domain, HiddenDma, HostDevice, HostDeviceKind, Unseen};
use crate::finding::{Finding, Severity};
use crate::guest::{Guest, Setting, Subject};
use crate::host::{Host, Iommu, Unmappable};
use crate::libvirt::{self, Refusal};
use crate::machine::{Family, Flavor, MachineType, NEWEST, Resolved, resolve};
#[cfg(feature = "cli")]
use crate::mmio64::Mmio64;
#[cfg(feature = "cli")]
use crate::policy::PeerToPeer;
use crate::policy::{AliasPolicy, Policy};
use crate::qemu::cpu::{AMD, HostCpu, INTEL};
use crate::qemu::layout::Layout;
#[cfg(feature = "cli")]
use crate::qemu::viommu::Viommu;
use crate::rules::{self, machine_type_not_available, not_modelled};
use crate::text::quoted;
use crate::version::Version;

/// What becomes of a guest as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not an x86 `pc` or `q35` guest of QEMU.
    NotApplicable,
    /// Starts, and no DMA mapping can fail.
    Pass,
    /// Starts; something latent is named.
    Warn,
    /// Would not start or would fail a DMA mapping.
    Stopped,
}

/// What is wrong with a guest, apart from how it can be fixed.
#[derive(Debug, Clone)]
pub(crate) struct Diagnosis {
    /// What becomes of it.
    pub fate: Fate,
    /// What the rules found, in the order of the rules.
    pub findings: Vec<Finding>,
    /// Why its fate is [`Fate::NotApplicable`].
    pub not_applicable: Option<String>,
    /// What its fate depends on that is not known, a sentence each; empty if it is certain.
    pub assumptions: Vec<String>,
    /// What QEMU is asked for and builds.
    pub facts: Facts,
    /// Where that depends on a machine type that is not known: each possibility, and what QEMU builds then.
    pub hypotheses: Vec<(String, Facts)>,
    /// How many kinds of trouble there are with BARs, over all firmware that it may be.
    #[cfg(feature = "cli")]
    pub bar_troubles: usize,
}

impl Diagnosis {
    /// Whether the guest is stopped.
    pub fn stops(&self) -> bool {
        self.fate == Fate::Stopped
    }
}

/// What QEMU is asked for and builds. Unknown facts are `None`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The machine type after aliases are resolved.
    pub machine: Option<String>,
    /// The chipset.
    pub family: Option<Family>,
    /// `enforce_amd_1tb_hole`.
    pub enforces_amd_1tb_hole: Option<bool>,
    /// Vendor of the vCPU.
    pub cpu_vendor: Option<String>,
    /// phys-bits of the vCPU.
    pub phys_bits: Option<u32>,
    /// `-m size`, bytes.
    pub ram: Option<u64>,
    /// `-m maxmem`, bytes.
    pub maxmem: Option<u64>,
    /// `-m slots`.
    pub slots: u32,
    /// `pci-hole64-size`, bytes, where libvirt passes it.
    pub pci_hole64_size: Option<u64>,
    /// The map.
    pub layout: Option<Layout>,
    /// The fewest phys-bits that reach the end of the map; known even where only some of several possible maps is.
    pub phys_bits_needed: Option<u32>,
    /// Where memory devices land, in document order: model and range.
    pub memory_devices: Vec<(&'static str, crate::address::GpaRange)>,
    /// The passthrough devices, those that a network hands out included.
    pub passthrough: Vec<Passthrough>,
    /// What the host does not map for this guest's devices.
    pub unmappable: Vec<Unmappable>,
    /// The virtual IOMMU.
    #[cfg(feature = "cli")]
    pub viommu: Option<Viommu>,
    /// Where 64-bit BARs may be.
    #[cfg(feature = "cli")]
    pub mmio64: Option<Mmio64>,
}

/// QEMU versions between which behaviour changes; an unknown QEMU is taken for the last.
const QEMU_GENERATIONS: [Version; 3] = [Version::new(6, 2), Version::new(7, 2), NEWEST];

/// What a verdict may depend on, as its sentence names it: the vendor of the host's CPU.
pub(crate) const HOST_VENDOR: &str = "the host's CPU vendor";

/// The same for the width of the host's addresses.
pub(crate) const HOST_BITS: &str = "the host's physical address bits";

/// phys-bits that AMD and Intel hosts have; the first is what an unknown host is taken for.
pub(crate) const HOST_PHYS_BITS: [u32; 3] = [48, 52, 40];

/// Says what becomes of a guest as it is, and why.
pub(crate) fn diagnose<'a>(subject: impl Into<Subject<'a>>, host: &Host, policy: &Policy) -> Diagnosis {
    match subject.into() {
        Subject::Domain(domain) => diagnose_domain(domain, host, policy),
        #[cfg(feature = "cli")]
        Subject::Launch(launch) => diagnose_launch(launch, host, policy),
    }
}

fn diagnose_domain(domain: &Domain, host: &Host, policy: &Policy) -> Diagnosis {
    if let Some(reason) = foreign(domain) {
        return not_applicable(reason);
    }
    let domain = &*with_pool_functions(domain, host);
    let written = libvirt::write(domain, host);
    let (line, refusals) = (&written.line, &written.refusals);
    answer(Question { subject: domain.into(), line, refusals, host, policy })
}

#[cfg(feature = "cli")]
fn diagnose_launch(launch: &Launch, host: &Host, policy: &Policy) -> Diagnosis {
    match launch.other_target() {
        Some(target) => not_applicable(format!("a QEMU for {}, not x86", quoted(target))),
        None => answer(Question { subject: launch.into(), line: &launch.line, refusals: &[], host, policy }),
    }
}

fn answer(question: Question<'_>) -> Diagnosis {
    let Question { line, host, policy, .. } = question;
    // The default of QEMU's x86 programs is an alias, too.
    let requested = line.machine.kind.as_ref().map_or("pc", |kind| kind.value.as_str());
    let mut diagnosis = match resolve(host.canonical_machine(requested)) {
        Resolved::NotPc(name) => not_applicable(format!("machine type {name} is neither pc nor q35")),
        Resolved::Known(machine) => known_machine(question, &machine),
        Resolved::Unknown { family: Some(family), alias: true, .. } if policy.alias == AliasPolicy::Newest => {
            unknown_machine::diagnose_newest(question, family, requested)
        }
        Resolved::Unknown { family, name, alias } => {
            unknown_machine::diagnose(question, &unknown_machine::Unknown { family, name, alias })
        }
    };
    diagnosis.facts.passthrough = line.passthrough();
    diagnosis
}

/// The domain with a passthrough device for each interface to a network that hands out PCI functions, and without those
/// to networks that do not.
fn with_pool_functions<'a>(domain: &'a Domain, host: &Host) -> Cow<'a, Domain> {
    let hands_out = |hidden: &HiddenDma| match &hidden.unseen {
        Unseen::Network(name) => host.networks.get(name).copied(),
        Unseen::Process(_) => None,
    };
    if domain.hidden_dma.iter().all(|hidden| hands_out(hidden).is_none()) {
        return Cow::Borrowed(domain);
    }
    let mut domain = domain.clone();
    let (seen, unseen): (Vec<_>, Vec<_>) =
        std::mem::take(&mut domain.hidden_dma).into_iter().partition(|hidden| hands_out(hidden).is_some());
    domain.hidden_dma = unseen;
    let functions = seen.iter().filter(|hidden| hands_out(hidden) == Some(true)).map(|hidden| HostDevice {
        kind: HostDeviceKind::Pci,
        device: String::new(),
        network: true,
        #[cfg(feature = "cli")]
        failover: hidden.failover.clone(),
        span: hidden.span,
    });
    domain.passthrough.extend(functions);
    Cow::Owned(domain)
}

/// Why a domain is not applicable.
fn foreign(domain: &Domain) -> Option<String> {
    // libvirt refuses a domain without a type, whatever else it is.
    let hypervisor = domain.hypervisor.as_ref().map_or("qemu", |hypervisor| hypervisor.value.as_str());
    if hypervisor == "hyperv" {
        // `VIR_DOMAIN_VIRT_HYPERV` is QEMU's accelerator mshv since libvirt 11.10; before, and on other drivers, a
        // guest of Microsoft's hypervisor on Windows.
        return Some(
            "a domain of type hyperv, which is QEMU with /dev/mshv since libvirt 11.10; not modelled".to_owned(),
        );
    }
    if !matches!(hypervisor, "kvm" | "qemu") {
        return Some(format!("a domain of type {}, not of QEMU", quoted(hypervisor)));
    }
    if let Some(os_type) = domain.os_type.as_ref().filter(|os_type| os_type.value != "hvm") {
        return Some(format!("an OS of type {}, not hvm", quoted(&os_type.value)));
    }
    domain
        .arch
        .as_ref()
        .filter(|arch| !matches!(arch.value.as_str(), "x86_64" | "i686"))
        .map(|arch| format!("architecture {}, not x86", quoted(&arch.value)))
}

fn not_applicable(reason: String) -> Diagnosis {
    Diagnosis { not_applicable: Some(reason), ..nothing_known(Fate::NotApplicable) }
}

/// A diagnosis without findings.
fn nothing_known(fate: Fate) -> Diagnosis {
    Diagnosis {
        fate,
        findings: Vec::new(),
        not_applicable: None,
        assumptions: Vec::new(),
        facts: Facts::default(),
        hypotheses: Vec::new(),
        #[cfg(feature = "cli")]
        bar_troubles: 0,
    }
}

/// What to diagnose.
#[derive(Clone, Copy)]
struct Question<'a> {
    subject: Subject<'a>,
    line: &'a CommandLine,
    refusals: &'a [Refusal],
    host: &'a Host,
    policy: &'a Policy,
}

fn known_machine(question: Question<'_>, machine: &MachineType) -> Diagnosis {
    let host = question.host;
    let vendor = host.cpu_vendor.as_deref().unwrap_or(AMD);
    let cpu = HostCpu { vendor, phys_bits: host.phys_bits.unwrap_or(HOST_PHYS_BITS[0]) };
    let newest = machine.newest_qemu().unwrap_or(NEWEST);
    let qemu = host.qemu.unwrap_or(newest);
    let main = Setting { host, cpu, qemu, machine };
    let mut diagnosis = run(question, main);
    let stops = diagnosis.stops();

    let mut alternatives: Vec<(&str, Setting<'_>)> = Vec::new();
    if host.qemu.is_none() {
        // No QEMU has machine types of the future, but downstream ones carry their own numbers.
        let possible =
            |&&version: &&Version| version <= newest && (version >= machine.version || machine.flavor == Flavor::Rhel);
        let others = QEMU_GENERATIONS.iter().filter(possible).filter(|&&version| version != qemu);
        alternatives.extend(others.map(|&qemu| ("the QEMU version", Setting { qemu, ..main })));
    }
    if host.cpu_vendor.is_none() {
        let other = HostCpu { vendor: INTEL, ..cpu };
        alternatives.push((HOST_VENDOR, Setting { cpu: other, ..main }));
    }
    if host.phys_bits.is_none() {
        let others = HOST_PHYS_BITS[1..].iter().map(|&phys_bits| HostCpu { phys_bits, ..cpu });
        alternatives.extend(others.map(|cpu| (HOST_BITS, Setting { cpu, ..main })));
    }
    for (fact, setting) in alternatives {
        if would_stop(question, setting) == stops {
            continue;
        }
        let verb = if fact.ends_with("bits") { "are" } else { "is" };
        let sentence = format!("depends on {fact}, which {verb} unknown");
        if !diagnosis.assumptions.contains(&sentence) {
            diagnosis.assumptions.push(sentence);
        }
    }
    // `virHostdevHostSupportsPassthroughVFIO` of libvirt `src/hypervisor/virhostdev.c` wants an IOMMU group. Mediated
    // devices and vDPA have other ways to memory, and what is stopped without a device is stopped with one.
    let groupless = host.iommu == Some(Iommu::None) && host.reserved.is_empty();
    let pci = question.line.passthrough().iter().any(|device| device.kind == PassthroughKind::VfioPci);
    if groupless && pci && !stops {
        let sentence = "depends on an IOMMU, and none is active on this host: PCI devices cannot be passed through";
        diagnosis.assumptions.push(sentence.to_owned());
    }
    // Reserved ranges change neither what QEMU refuses nor what the IOMMU can address.
    let certain = |finding: &Finding| finding.severity == Severity::Error && !rules::is_in_reserved(finding);
    let refused = diagnosis.findings.iter().any(certain);
    if !host.knows_reserved() && !refused {
        diagnosis.assumptions.push("depends on the ranges the host's IOMMU reserves, which are unknown".to_owned());
    }
    diagnosis
}

/// Evaluates a guest once every fact is settled.
fn run(question: Question<'_>, setting: Setting<'_>) -> Diagnosis {
    let guest = Guest::new(question.subject, question.line, question.refusals, setting, question.policy);
    let (findings, assumptions) = found(question.subject, &guest);
    let fate = match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Fate::Stopped,
        Some(Severity::Warning) => Fate::Warn,
        Some(Severity::Note) | None => Fate::Pass,
    };
    Diagnosis {
        findings,
        assumptions,
        facts: facts(&guest),
        #[cfg(feature = "cli")]
        bar_troubles: rules::bars::count(&guest),
        ..nothing_known(fate)
    }
}

/// Whether a guest is stopped once every fact is settled.
fn would_stop(question: Question<'_>, setting: Setting<'_>) -> bool {
    let Question { subject, line, refusals, policy, .. } = question;
    // Placing BARs takes longer than all the rest, and hardly ever stops a guest.
    #[cfg(feature = "cli")]
    let guest = match policy.peer_to_peer {
        PeerToPeer::Required => Guest::new(subject, line, refusals, setting, policy),
        PeerToPeer::Optional => Guest::without_bars(subject, line, refusals, setting, policy),
    };
    #[cfg(not(feature = "cli"))]
    let guest = Guest::new(subject, line, refusals, setting, policy);
    let (findings, _) = found(subject, &guest);
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// What the rules find, and what that depends on.
fn found(subject: Subject<'_>, guest: &Guest<'_>) -> (Vec<Finding>, Vec<String>) {
    let mut findings = rules::check(guest);
    let mut assumptions = Vec::new();
    if let Some(missing) = findings.iter().position(|finding| machine_type_not_available::RULE.found(finding)) {
        // Findings about a machine that does not exist help nobody.
        findings = vec![findings.swap_remove(missing)];
    }
    if findings.iter().any(|finding| not_modelled::RULE.found(finding)) {
        // A raw argument may well be there to fix what is found here; it fixes nothing that libvirt refuses.
        let by_qemu = |finding: &&mut Finding| finding.severity == Severity::Error && !rules::by_libvirt(finding);
        let (unless, depends) = match subject.domain() {
            Some(_) => ("raw QEMU arguments change it", "raw QEMU arguments, which are not modelled"),
            None => ("arguments that are not modelled change it", "QEMU arguments that are not modelled"),
        };
        for finding in findings.iter_mut().filter(by_qemu) {
            finding.severity = Severity::Warning;
            finding.title = format!("unless {unless}: {}", finding.title);
        }
        assumptions.push(format!("depends on {depends}"));
    }
    (findings, assumptions)
}

fn facts(guest: &Guest<'_>) -> Facts {
    let memory = guest.memory();
    let machine = guest.setting.machine;
    Facts {
        machine: Some(machine.name.clone()),
        family: Some(machine.family),
        enforces_amd_1tb_hole: Some(machine.enforces_amd_1tb_hole),
        cpu_vendor: guest.cpu().and_then(|cpu| cpu.vendor.clone()),
        phys_bits: guest.cpu().map(|cpu| cpu.phys_bits),
        ram: (memory.is_some() || guest.domain.is_none()).then_some(guest.ram),
        maxmem: memory.and_then(|memory| memory.maxmem).map(|maxmem| maxmem.value),
        slots: memory.map_or(0, |memory| u32::try_from(memory.slots()).unwrap_or(u32::MAX)),
        pci_hole64_size: guest.pci_hole64_size.map(|size| size.value),
        layout: guest.layout().cloned(),
        phys_bits_needed: guest.layout().map(|layout| layout.phys_bits_needed),
        memory_devices: guest.plugged.iter().flatten().map(|device| (device.kind.name(), device.range)).collect(),
        passthrough: Vec::new(),
        unmappable: guest.unmappable.clone(),
        #[cfg(feature = "cli")]
        viommu: guest.viommu.clone(),
        #[cfg(feature = "cli")]
        mmio64: guest.mmio64.clone(),
    }
}
