//! From a guest, a host and a policy to a verdict: what is wrong with the guest, and whether a fix helps.

use serde::Serialize;

use crate::evaluate::{Diagnosis, Facts, Fate, diagnose};
use crate::finding::Finding;
use crate::fix::{self, Fix};
use crate::guest::Subject;
use crate::host::Host;
use crate::policy::Policy;

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

/// The result for a guest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// What the rules found, in the order of the rules.
    pub findings: Vec<Finding>,
    /// Why the verdict is [`Verdict::NotApplicable`].
    pub not_applicable: Option<String>,
    /// What the verdict depends on that is not known, a sentence each; empty if it is certain.
    pub assumptions: Vec<String>,
    /// What QEMU is asked for and builds.
    pub facts: Facts,
    /// Where that depends on a machine type that is not known: each possibility, and what QEMU builds then.
    pub hypotheses: Vec<(String, Facts)>,
    /// The rewrite that helps, where the verdict is [`Verdict::Fixable`].
    pub fix: Option<Fix>,
    /// The rewrite that removes a warning, if the verdict is [`Verdict::Warn`]: making it is optional.
    #[cfg(feature = "cli")]
    pub warning_fix: Option<Fix>,
    /// Why nothing helps, a sentence for each rewrite that was tried, where it is [`Verdict::Blocked`], or if there is
    /// a warning that a rewrite may remove.
    pub tried: Vec<String>,
}

#[cfg(feature = "cli")]
impl Evaluation {
    /// The rewrite that helps, whether or not something stops the guest without it.
    pub fn any_fix(&self) -> Option<&Fix> {
        self.fix.as_ref().or(self.warning_fix.as_ref())
    }
}

/// Evaluates a guest, and looks for a fix where it would not start.
pub fn evaluate<'a>(subject: impl Into<Subject<'a>>, host: &Host, policy: &Policy) -> Evaluation {
    let subject = subject.into();
    let diagnosis = diagnose(subject, host, policy);
    let (verdict, fix, tried) = match diagnosis.fate {
        Fate::NotApplicable => (Verdict::NotApplicable, None, Vec::new()),
        Fate::Pass => (Verdict::Pass, None, Vec::new()),
        Fate::Warn => (Verdict::Warn, None, Vec::new()),
        Fate::Stopped => match fix::plan(subject, host, policy, &diagnosis) {
            Ok(fix) => (Verdict::Fixable, Some(fix), Vec::new()),
            Err(tried) => (Verdict::Blocked, None, tried),
        },
    };
    #[cfg(feature = "cli")]
    let relief = match verdict {
        Verdict::Warn => fix::relieve(subject, host, policy, &diagnosis),
        _ => None,
    };
    #[cfg(feature = "cli")]
    let (warning_fix, tried) = match relief {
        Some(Ok(fix)) => (Some(fix), tried),
        Some(Err(sentences)) => (None, sentences),
        None => (None, tried),
    };
    let Diagnosis { findings, not_applicable, assumptions, facts, hypotheses, .. } = diagnosis;
    Evaluation {
        verdict,
        findings,
        not_applicable,
        assumptions,
        facts,
        hypotheses,
        fix,
        #[cfg(feature = "cli")]
        warning_fix,
        tried,
    }
}

/// Evaluates a guest for several hosts, each with its name: the worst verdict on any of them, and the one fix after
/// which it starts on all. If there is none, [`Evaluation::tried`] says which host is in the way. Without hosts, it is
/// evaluated for one about which nothing is known.
#[cfg(feature = "cli")]
pub fn evaluate_for_all<'a>(subject: impl Into<Subject<'a>>, hosts: &[(&str, &Host)], policy: &Policy) -> Evaluation {
    let subject = subject.into();
    let mut unknown: Vec<String> = Vec::new();
    let evaluations = hosts.iter().map(|(_, host)| evaluate(subject, host, policy)).inspect(|evaluation| {
        let new = evaluation.assumptions.iter().filter(|sentence| !unknown.contains(sentence));
        let new: Vec<String> = new.cloned().collect();
        unknown.extend(new);
    });
    let worst = evaluations.max_by_key(|evaluation| evaluation.verdict);
    let mut worst = worst.unwrap_or_else(|| evaluate(subject, &Host::default(), policy));
    if hosts.len() < 2 {
        return worst;
    }
    worst.assumptions = unknown;
    if worst.verdict.stops() {
        (worst.verdict, worst.fix, worst.tried) = match fix::plan_for_all(subject, hosts, policy) {
            Ok(fix) => (Verdict::Fixable, Some(fix), Vec::new()),
            Err(tried) => (Verdict::Blocked, None, tried),
        };
    } else if let Some(fix) = &worst.warning_fix
        && let Some((name, why)) = fix::stops_on(subject, hosts, policy, &fix.changes)
    {
        worst.tried.push(format!("the fix for the warning would stop the guest on {name}: {why}"));
        worst.warning_fix = None;
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::host::{Iommu, builtin};
    use crate::qemu::cpu::AMD;
    use crate::version::Version;
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

    /// A host whose QEMU is unknown may not have the type that a fix needs; it is still certain that the guest is
    /// stopped without the fix.
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

    /// libvirt's cache lists the CPU models of any QEMU; without it, a table lists those of the versions it was made
    /// from.
    #[cfg(feature = "cli")]
    #[test]
    fn the_cache_tells_which_cpu_models_qemu_has() {
        let refused = |qemu: Version, models: &[&str], model: &str| {
            let cpu_models = models.iter().map(|&model| model.to_owned()).collect();
            let host = Host { qemu: Some(qemu), cpu_models, ..builtin("amd-epyc").expect("built in") };
            let xml = format!(
                "<domain type='kvm'><name>a</name><memory unit='GiB'>4</memory><os><type machine='q35'>hvm</type></os>\
                 <cpu mode='custom'><model fallback='forbid'>{model}</model></cpu></domain>"
            );
            let document = Document::parse(xml.as_bytes()).expect("well-formed");
            let evaluation = evaluate(&domain::read(&document).expect("a domain"), &host, &Policy::default());
            evaluation.findings.iter().any(|finding| finding.message().contains("no CPU model"))
        };
        let (known, unknown) = (Version::new(7, 2), Version::new(99, 0));
        for (qemu, models, model, expected) in [
            (known, &[][..], "EPYC", false),
            (known, &[], "Icelake-Client", true),
            (known, &["EPYC"], "EPYC", false),
            (known, &["EPYC", "Icelake-Client"], "Icelake-Client", false),
            (known, &["qemu64"], "EPYC", true),
            (unknown, &[], "Icelake-Client", false),
            (unknown, &["EPYC"], "Icelake-Client", true),
        ] {
            assert_eq!(refused(qemu, models, model), expected, "QEMU {qemu} with {models:?}: {model}");
        }
    }

    /// It matters only for guests that would start; what QEMU refuses is refused anywhere.
    #[test]
    fn a_device_needs_an_iommu() {
        let host = Host { iommu: Some(Iommu::None), ..Host::default() };
        let says = |host: &Host, machine: &str, devices: &str| {
            let host = Host { cpu_vendor: Some(AMD.to_owned()), phys_bits: Some(48), ..host.clone() };
            let evaluation = evaluated(&host, machine, devices);
            evaluation.assumptions.iter().any(|assumption| assumption.contains("IOMMU, and none is active"))
        };
        assert!(says(&host, "pc-q35-7.2", CARD));
        assert!(!says(&host, "pc-q35-7.2", VGPU) && !says(&host, "pc-q35-7.2", ""));
        // 3 TiB need 42 bits, and 42 are not enough.
        let large =
            format!("{CARD}<controller type='pci' model='pcie-root'><pcihole64 unit='TiB'>3</pcihole64></controller>");
        let known = Host { cpu_vendor: Some(AMD.to_owned()), phys_bits: Some(48), ..host.clone() };
        let stopped = evaluated(&known, "pc-q35-7.2", &large);
        assert!(stopped.verdict.stops() && stopped.assumptions.is_empty(), "{stopped:?}");
        // An IOMMU of a kind that is unknown, and that shows what it reserves.
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
    fn a_missing_machine_type_comes_with_advice() {
        let host = Host { machines: vec!["pc-q35-6.2".to_owned()], ..builtin("amd-epyc").expect("built in") };
        for machine in ["pc-q35-7.2", "pc-q35-99.9"] {
            let evaluation = evaluated(&host, machine, CARD);
            assert_eq!(evaluation.verdict, Verdict::Blocked);
            assert_eq!(evaluation.tried, ["choose one of the machine types that the host's QEMU has"], "{machine}");
        }
    }

    /// QEMU compares the end of the map with the phys-bits whether or not there is an IOMMU (`pc_memory_init`).
    #[test]
    fn what_qemu_refuses_does_not_depend_on_the_iommu() {
        let unknown = Host { iommu: None, reserved: Vec::new(), ..builtin("amd-epyc").expect("built in") };
        let host = Host { qemu: Some(Version::new(7, 2)), ..unknown };
        let evaluation = |bits: u32, devices: &str| {
            let xml = format!(
                "<domain type='qemu'><name>a</name><memory unit='GiB'>1200</memory><os><type machine='pc-q35-7.2'>hvm</type></os>\
                 <cpu><maxphysaddr mode='emulate' bits='{bits}'/></cpu><devices>{devices}</devices></domain>"
            );
            let document = Document::parse(xml.as_bytes()).expect("well-formed");
            evaluate(&domain::read(&document).expect("a domain"), &host, &Policy::default())
        };
        for devices in ["", CARD] {
            let refused = evaluation(40, devices);
            assert!(refused.verdict.stops() && refused.assumptions.is_empty(), "{refused:?}");
            assert!(!evaluation(42, devices).assumptions.is_empty());
        }
    }
}
