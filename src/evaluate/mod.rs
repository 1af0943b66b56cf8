//! From a domain, a host and a policy to a verdict.
//!
//! Where a fact about the host is not known, the likeliest value is taken, and the others are tried too: if one of them
//! changes whether the guest starts, the verdict says that it depends on that fact.

mod unknown_machine;

use serde::Serialize;

use crate::domain::{Domain, PassthroughKind};
use crate::finding::{Finding, Severity};
use crate::fix::{self, Fix};
use crate::guest::{Guest, Setting};
use crate::host::{Host, Iommu, Reserved};
use crate::machine::{Family, Flavor, MachineType, Resolved, resolve};
use crate::policy::Policy;
use crate::qemu::cpu::{AMD, CpuOptions, HostCpu};
use crate::qemu::layout::Layout;
use crate::rules::{self, machine_type_not_available, not_modelled};
use crate::text::quoted;
use crate::version::Version;

/// What becomes of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Not an x86 `pc` or `q35` guest of QEMU.
    NotApplicable,
    /// Starts, and no DMA mapping can fail.
    Pass,
    /// Starts; something latent is named.
    Warn,
    /// Would not start or would fail a DMA mapping, and a rewrite helps.
    Fixable,
    /// Would not start or would fail a DMA mapping, and no rewrite that the policy allows helps.
    Blocked,
}

impl Verdict {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplicable => "not-applicable",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fixable => "fixable",
            Self::Blocked => "blocked",
        }
    }

    /// Whether the guest is stopped as it is.
    pub fn stops(self) -> bool {
        matches!(self, Self::Fixable | Self::Blocked)
    }
}

/// All there is to say about a guest.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// What the rules found, worst first within the order of the rules.
    pub findings: Vec<Finding>,
    /// Why the verdict is [`Verdict::NotApplicable`].
    pub not_applicable: Option<String>,
    /// What the verdict depends on that is not known, a sentence each; empty where it is certain.
    pub assumptions: Vec<String>,
    /// What QEMU is asked for and builds.
    pub facts: Facts,
    /// Where that depends on a machine type that is not known: each possibility, and what QEMU builds then.
    pub hypotheses: Vec<(String, Facts)>,
    /// The rewrite that helps, where the verdict is [`Verdict::Fixable`].
    pub fix: Option<Fix>,
    /// Why nothing helps, a sentence for each rewrite that was tried, where it is [`Verdict::Blocked`].
    pub tried: Vec<String>,
}

/// What QEMU is asked for and builds. Unknown facts are `None`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The machine type after aliases are resolved.
    pub machine: Option<String>,
    /// The chipset.
    pub family: Option<Family>,
    /// `enforce_amd_1tb_hole`.
    pub enforces_amd_1tb_hole: Option<bool>,
    /// `-cpu`.
    pub cpu_options: Option<CpuOptions>,
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
    /// The ranges in which the host maps nothing for this guest's devices.
    pub unmappable: Vec<Reserved>,
}

/// The newest QEMU whose behaviour is known; what an unknown QEMU is taken for.
const NEWEST_QEMU: Version = Version::new(11, 1);

/// QEMU versions between which behaviour changes.
const QEMU_GENERATIONS: [Version; 3] = [Version::new(6, 2), Version::new(7, 2), NEWEST_QEMU];

/// phys-bits that AMD and Intel hosts have; the first is what an unknown host is taken for.
const HOST_PHYS_BITS: [u32; 3] = [48, 52, 40];

/// Evaluates a domain.
pub fn evaluate(domain: &Domain, host: &Host, policy: &Policy) -> Evaluation {
    let mut evaluation = diagnose(domain, host, policy);
    if evaluation.verdict.stops() {
        match fix::plan(domain, host, policy, &evaluation) {
            Ok(fix) => {
                evaluation.verdict = Verdict::Fixable;
                evaluation.fix = Some(fix);
            }
            Err(tried) => evaluation.tried = tried,
        }
    }
    evaluation
}

/// Evaluates a domain without looking for a rewrite; what would stop it is [`Verdict::Blocked`].
pub(crate) fn diagnose(domain: &Domain, host: &Host, policy: &Policy) -> Evaluation {
    if let Some(reason) = foreign(domain) {
        return not_applicable(reason);
    }
    let requested = domain.machine.as_ref().map_or("pc", |machine| machine.value.as_str());
    let canonical = host.canonical_machine(requested);
    match resolve(canonical) {
        Resolved::NotPc(name) => not_applicable(format!("machine type {name} is neither pc nor q35")),
        Resolved::Known(machine) => known_machine(domain, host, policy, &machine),
        Resolved::Unknown { family, name, alias } => {
            unknown_machine::diagnose(domain, host, policy, &unknown_machine::Unknown { family, name, alias })
        }
    }
}

/// Why a domain is none of this tool's business.
fn foreign(domain: &Domain) -> Option<String> {
    let hypervisor = domain.hypervisor.as_ref().map(|h| h.value.as_str()).unwrap_or_default();
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

fn not_applicable(reason: String) -> Evaluation {
    Evaluation { not_applicable: Some(reason), ..nothing_known(Verdict::NotApplicable) }
}

/// An evaluation that says nothing but the verdict.
fn nothing_known(verdict: Verdict) -> Evaluation {
    Evaluation {
        verdict,
        findings: Vec::new(),
        not_applicable: None,
        assumptions: Vec::new(),
        facts: Facts::default(),
        hypotheses: Vec::new(),
        fix: None,
        tried: Vec::new(),
    }
}

fn known_machine(domain: &Domain, host: &Host, policy: &Policy, machine: &MachineType) -> Evaluation {
    let vendor = host.cpu_vendor.as_deref().unwrap_or(AMD);
    let cpu = HostCpu { vendor, phys_bits: host.phys_bits.unwrap_or(HOST_PHYS_BITS[0]) };
    let qemu = host.qemu.unwrap_or(NEWEST_QEMU);
    let main = Setting { host, cpu, qemu, machine };
    let mut evaluation = run(domain, main, policy);
    let stops = evaluation.verdict.stops();

    let mut alternatives: Vec<(&str, Setting<'_>)> = Vec::new();
    if host.qemu.is_none() {
        // No QEMU has machine types of the future, but downstream ones carry their own numbers.
        let possible = |&&version: &&Version| version >= machine.version || machine.flavor == Flavor::Rhel;
        let others = QEMU_GENERATIONS.iter().filter(possible);
        alternatives.extend(others.map(|&qemu| ("the QEMU version", Setting { qemu, ..main })));
    }
    if host.cpu_vendor.is_none() {
        let other = HostCpu { vendor: "GenuineIntel", ..cpu };
        alternatives.push(("the host's CPU vendor", Setting { cpu: other, ..main }));
    }
    if host.phys_bits.is_none() {
        let others = HOST_PHYS_BITS[1..].iter().map(|&phys_bits| HostCpu { phys_bits, ..cpu });
        alternatives.extend(others.map(|cpu| ("the host's physical address bits", Setting { cpu, ..main })));
    }
    for (fact, setting) in alternatives {
        let other = run(domain, setting, policy).verdict.stops();
        let sentence =
            format!("depends on {fact}, which {} not known here", if fact.ends_with("bits") { "are" } else { "is" });
        if other != stops && !evaluation.assumptions.contains(&sentence) {
            evaluation.assumptions.push(sentence);
        }
    }
    // `virHostdevHostSupportsPassthroughVFIO` of libvirt `src/hypervisor/virhostdev.c` wants an IOMMU group. Mediated
    // devices and vDPA have other ways to memory, and what is stopped without a device is stopped with one.
    let groupless = host.iommu == Some(Iommu::None) && host.reserved.is_empty();
    let pci = domain.passthrough.iter().any(|device| device.kind == PassthroughKind::VfioPci);
    if groupless && pci && !stops {
        let sentence =
            "depends on an IOMMU, and this host has none at work: libvirt refuses to pass a PCI device through";
        evaluation.assumptions.push(sentence.to_owned());
    }
    if !host.knows_reserved() {
        evaluation
            .assumptions
            .push("depends on the ranges the host's IOMMU reserves, which are not known here".to_owned());
    }
    evaluation
}

/// Evaluates a domain once every fact is settled.
fn run(domain: &Domain, setting: Setting<'_>, policy: &Policy) -> Evaluation {
    let guest = Guest::new(domain, setting, policy);
    let mut findings = rules::check(&guest);
    let mut assumptions = Vec::new();
    if let Some(missing) = findings.iter().position(|finding| machine_type_not_available::RULE.found(finding)) {
        // What the machine would build is of no interest where there is none.
        findings = vec![findings.swap_remove(missing)];
    }
    if findings.iter().any(|finding| not_modelled::RULE.found(finding)) {
        // A raw argument may well be there to fix what is found here; it fixes nothing that libvirt refuses.
        let by_qemu = |finding: &&mut Finding| finding.severity == Severity::Error && !rules::by_libvirt(finding);
        for finding in findings.iter_mut().filter(by_qemu) {
            finding.severity = Severity::Warning;
            finding.title = format!("unless raw QEMU arguments change it: {}", finding.title);
        }
        assumptions.push("depends on raw QEMU arguments, which are not modelled".to_owned());
    }
    let verdict = match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Verdict::Blocked,
        Some(Severity::Warning) => Verdict::Warn,
        Some(Severity::Note) | None => Verdict::Pass,
    };
    Evaluation { findings, assumptions, facts: facts(&guest), ..nothing_known(verdict) }
}

fn facts(guest: &Guest<'_>) -> Facts {
    let memory = guest.memory.as_ref().ok();
    let machine = guest.setting.machine;
    Facts {
        machine: Some(machine.name.clone()),
        family: Some(machine.family),
        enforces_amd_1tb_hole: Some(machine.enforces_amd_1tb_hole),
        cpu_options: guest.cpu_options.as_ref().ok().cloned(),
        cpu_vendor: guest.cpu().and_then(|cpu| cpu.vendor.clone()),
        phys_bits: guest.cpu().map(|cpu| cpu.phys_bits),
        ram: memory.map(|memory| memory.ram),
        maxmem: memory.and_then(|memory| memory.maxmem),
        slots: memory.map_or(0, |memory| memory.slots),
        pci_hole64_size: guest.pci_hole64_size,
        layout: guest.layout().cloned(),
        phys_bits_needed: guest.layout().map(|layout| layout.phys_bits_needed),
        memory_devices: guest.plugged.iter().flatten().map(|&(model, range)| (model.name(), range)).collect(),
        unmappable: guest.unmappable.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::host::builtin;
    use crate::xml::Document;

    fn evaluated(host: &Host, machine: &str, devices: &str) -> Evaluation {
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>1200</memory><os><type machine='{machine}'>hvm</type></os>\
             <cpu><maxphysaddr mode='emulate' bits='42'/></cpu><devices>{devices}</devices></domain>"
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        evaluate(&domain::read(&document).expect("a domain"), host, &Policy::default())
    }

    const CARD: &str = "<hostdev type='pci'><source><address bus='1'/></source></hostdev>";
    const VGPU: &str =
        "<hostdev type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>";

    /// A host without a word on its QEMU may not have the type that a fix needs; that the guest is stopped without the fix
    /// is certain all the same.
    #[test]
    fn a_fix_that_needs_an_unknown_qemu_says_so() {
        let mut host = builtin("amd-epyc").expect("built in");
        let evaluation = evaluated(&host, "pc-q35-6.2", CARD);
        let assumption = evaluation.fix.as_ref().and_then(|fix| fix.assumption.as_deref()).unwrap_or_default();
        assert!(assumption.contains("pc-q35-7.1"), "{evaluation:?}");
        assert!(evaluation.assumptions.is_empty(), "{:?}", evaluation.assumptions);
        host.qemu = Some(Version::new(7, 2));
        let evaluation = evaluated(&host, "pc-q35-6.2", CARD);
        assert_eq!(evaluation.fix.map(|fix| fix.assumption), Some(None));
    }

    /// Only what would start depends on it; what QEMU refuses is refused anywhere.
    #[test]
    fn a_device_needs_an_iommu() {
        let host = Host { iommu: Some(Iommu::None), ..Host::default() };
        let says = |host: &Host, machine: &str, devices: &str| {
            let host = Host { cpu_vendor: Some(AMD.to_owned()), phys_bits: Some(48), ..host.clone() };
            let evaluation = evaluated(&host, machine, devices);
            evaluation.assumptions.iter().any(|assumption| assumption.contains("IOMMU, and this host has none"))
        };
        assert!(says(&host, "pc-q35-7.2", CARD));
        assert!(!says(&host, "pc-q35-7.2", VGPU) && !says(&host, "pc-q35-7.2", ""));
        // 3 TiB need 42 bits, and 42 do not do.
        let large =
            format!("{CARD}<controller type='pci' model='pcie-root'><pcihole64 unit='TiB'>3</pcihole64></controller>");
        let known = Host { cpu_vendor: Some(AMD.to_owned()), phys_bits: Some(48), ..host.clone() };
        let stopped = evaluated(&known, "pc-q35-7.2", &large);
        assert!(stopped.verdict.stops() && stopped.assumptions.is_empty(), "{stopped:?}");
        // An IOMMU of a kind that is not known here, and that tells what it reserves.
        let other = Host { reserved: builtin("amd-epyc").expect("built in").reserved, ..host };
        assert!(!says(&other, "pc-q35-7.2", CARD));
        assert!(evaluated(&other, "pc-q35-6.2", CARD).verdict.stops());
    }

    /// libvirt's cache, a profile or capabilities may hold anything; QEMU has no alias that is called like a type.
    #[test]
    fn an_alias_never_overrides_a_versioned_type() {
        let mut host = Host { qemu: Some(Version::new(7, 2)), ..builtin("amd-epyc").expect("built in") };
        for alias in ["pc-q35-6.2", "pc-q35-7.0+pve1", "q35"] {
            host.aliases.insert(alias.to_owned(), "pc-q35-7.2".to_owned());
        }
        assert_eq!(evaluated(&host, "pc-q35-6.2", CARD).verdict, Verdict::Fixable);
        assert!(evaluated(&host, "pc-q35-7.0+pve1", CARD).verdict.stops());
        assert_eq!(evaluated(&host, "q35", CARD).verdict, Verdict::Pass);
    }

    #[test]
    fn of_a_type_that_is_not_there_it_is_said_what_to_do() {
        let host = Host { machines: vec!["pc-q35-6.2".to_owned()], ..builtin("amd-epyc").expect("built in") };
        for machine in ["pc-q35-7.2", "pc-q35-99.9"] {
            let evaluation = evaluated(&host, machine, CARD);
            assert_eq!(evaluation.verdict, Verdict::Blocked);
            assert_eq!(
                evaluation.tried,
                ["another machine type, of those that the host's QEMU has, is yours to choose"],
                "{machine}"
            );
        }
    }
}
