//! The document that `--format json` prints. Sizes and addresses are in bytes, ends are inclusive.

use serde::Serialize;

use crate::check::{Evaluation, Verdict};
use crate::domain::Domain;
use crate::finding::Severity;
use crate::host::Host;
use crate::map::GpaRange;
use crate::qemu::layout::Layout;
use crate::qemu::machine::Family;
use crate::report::diff::unified_diff;
use crate::rewrite::rewrite;
use crate::xml::{Document, Location};

/// The version of this document's form.
pub const VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// [`VERSION`].
    pub version: u32,
    /// The host the guests are judged for.
    pub host: HostReport<'a>,
    /// The guests in the order they were given.
    pub guests: Vec<GuestReport>,
}

/// The host.
#[derive(Debug, Serialize)]
pub struct HostReport<'a> {
    /// Where the facts come from: this host, a file, or a built-in profile.
    pub source: &'a str,
    /// Its CPU.
    pub cpu: HostCpu<'a>,
    /// What its IOMMU reserves.
    pub reserved: Vec<ReservedReport>,
}

/// The host's CPU.
#[derive(Debug, Serialize)]
pub struct HostCpu<'a> {
    /// CPUID vendor.
    pub vendor: Option<&'a str>,
    /// Physical address bits.
    pub phys_bits: Option<u32>,
}

/// A reserved range.
#[derive(Debug, Serialize)]
pub struct ReservedReport {
    /// The range.
    #[serde(flatten)]
    pub range: GpaRange,
    /// `reserved`, `msi`, `direct` or `direct-relaxable`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl<'a> HostReport<'a> {
    /// What is reported of `host`, whose facts come from `source`.
    pub fn new(host: &'a Host, source: &'a str) -> Self {
        Self {
            source,
            cpu: HostCpu { vendor: host.cpu_vendor.as_deref(), phys_bits: host.phys_bits },
            reserved: host.reserved.iter().map(|r| ReservedReport { range: r.range, kind: r.kind.name() }).collect(),
        }
    }
}

/// A guest, or an input that is none.
#[derive(Debug, Serialize)]
pub struct GuestReport {
    /// Where the XML comes from; `-` for standard input.
    pub source: String,
    /// `<name>`.
    pub name: Option<String>,
    /// A [`Verdict`], or `error`.
    pub verdict: &'static str,
    /// What is wrong with the input, with line and column, where the verdict is `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the verdict is `not-applicable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The guest, unless the verdict is `error` or `not-applicable`.
    #[serde(flatten)]
    pub details: Option<Details>,
}

/// What is known of a guest.
#[derive(Debug, Serialize)]
pub struct Details {
    machine: MachineReport,
    cpu: CpuReport,
    memory: MemoryReport,
    layout: Option<LayoutReport>,
    passthrough: Vec<PassthroughReport>,
    /// What the verdict depends on that is not known.
    assumptions: Vec<String>,
    findings: Vec<FindingReport>,
    fix: Option<FixReport>,
    /// Why nothing helps, for each rewrite tried.
    tried: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MachineReport {
    requested: Option<String>,
    canonical: Option<String>,
    family: Option<&'static str>,
    enforces_amd_1tb_hole: Option<bool>,
}

#[derive(Debug, Serialize)]
struct CpuReport {
    vendor: Option<String>,
    phys_bits: Option<u32>,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    ram: Option<u64>,
    maxmem: Option<u64>,
    slots: u32,
    pci_hole64_size: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LayoutReport {
    #[serde(flatten)]
    layout: Layout,
    memory_devices: Vec<MemoryDeviceReport>,
}

#[derive(Debug, Serialize)]
struct MemoryDeviceReport {
    kind: &'static str,
    #[serde(flatten)]
    range: GpaRange,
}

#[derive(Debug, Serialize)]
struct PassthroughReport {
    kind: &'static str,
    device: String,
}

#[derive(Debug, Serialize)]
struct FindingReport {
    rule: &'static str,
    severity: Severity,
    message: String,
    range: Option<GpaRange>,
    location: LocationReport,
}

#[derive(Debug, Serialize)]
struct LocationReport {
    line: usize,
    column: usize,
}

impl From<Location> for LocationReport {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

#[derive(Debug, Serialize)]
struct FixReport {
    changes: Vec<String>,
    /// What changes for the guest.
    consequences: Vec<&'static str>,
    /// The change of the XML as a unified diff.
    diff: String,
}

impl GuestReport {
    /// An input that could not be judged; `error` names line and column.
    pub fn unreadable(source: String, error: String) -> Self {
        Self { source, name: None, verdict: "error", error: Some(error), reason: None, details: None }
    }

    /// A guest that was judged.
    pub fn new(source: String, document: &Document<'_>, domain: &Domain, evaluation: &Evaluation) -> Self {
        let details =
            (evaluation.verdict != Verdict::NotApplicable).then(|| Details::new(&source, document, domain, evaluation));
        Self {
            source,
            name: Some(domain.name.clone()),
            verdict: evaluation.verdict.name(),
            error: None,
            reason: evaluation.not_applicable.clone(),
            details,
        }
    }
}

impl Details {
    fn new(source: &str, document: &Document<'_>, domain: &Domain, evaluation: &Evaluation) -> Self {
        let facts = &evaluation.facts;
        Self {
            machine: MachineReport {
                requested: domain.machine.as_ref().map(|machine| machine.value.clone()),
                canonical: facts.machine.clone(),
                family: facts.family.map(Family::name),
                enforces_amd_1tb_hole: facts.enforces_amd_1tb_hole,
            },
            cpu: CpuReport { vendor: facts.cpu_vendor.clone(), phys_bits: facts.phys_bits },
            memory: MemoryReport {
                ram: facts.ram,
                maxmem: facts.maxmem,
                slots: facts.slots,
                pci_hole64_size: facts.pci_hole64_size,
            },
            layout: facts.layout.clone().map(|layout| LayoutReport {
                layout,
                memory_devices: facts
                    .memory_devices
                    .iter()
                    .map(|&(kind, range)| MemoryDeviceReport { kind, range })
                    .collect(),
            }),
            passthrough: domain
                .passthrough
                .iter()
                .map(|p| PassthroughReport { kind: p.kind.name(), device: p.device.clone() })
                .collect(),
            assumptions: evaluation.assumptions.clone(),
            findings: evaluation
                .findings
                .iter()
                .map(|finding| FindingReport {
                    rule: finding.rule,
                    severity: finding.severity,
                    message: finding.message(),
                    range: finding.range,
                    location: document.location(finding.primary.span.start).into(),
                })
                .collect(),
            fix: evaluation.fix.as_ref().map(|fix| FixReport {
                changes: fix.changes.iter().map(ToString::to_string).collect(),
                consequences: fix.consequences(),
                diff: rewrite(document, fix)
                    .map(|after| unified_diff(source, document.source(), &after))
                    .unwrap_or_default(),
            }),
            tried: evaluation.tried.clone(),
        }
    }
}
