//! The document that `--format json` prints. Sizes and addresses are in bytes, ends are inclusive.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use crate::address::GpaRange;
use crate::advice::advise;
use crate::domain::Owner;
use crate::finding::Severity;
use crate::host::{Host, ReservedKind};
use crate::machine::Family;
use crate::mmio64::{Likelihood, Mmio64};
use crate::qemu::layout::Layout;
use crate::report::Unreadable;
use crate::report::migration::MigrationReport;
use crate::report::running::ProcessReport;
use crate::report::source::GuestSource;
use crate::text::is_hidden;
use crate::verdict::{Evaluation, Verdict};
use crate::xml::Location;

/// The version of this document's form.
pub const VERSION: u32 = 1;

/// A document as indented JSON, with everything escaped that a terminal would act on or not show: control characters
/// that JSON itself does not escape, text direction marks. It reads as the same document.
///
/// # Errors
/// The document cannot be serialized.
pub fn text(document: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(document).map(harmless)
}

/// The same on one line, without its end.
///
/// # Errors
/// The document cannot be serialized.
pub fn line(document: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(document).map(harmless)
}

/// JSON in which everything is escaped that a terminal would act on or not show.
fn harmless(plain: String) -> String {
    let acts = |c: char| c != '\n' && is_hidden(c);
    if !plain.contains(acts) {
        return plain;
    }
    let mut text = String::with_capacity(plain.len());
    for c in plain.chars() {
        // There are none outside of strings.
        if acts(c) {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

/// What `iova-preflight check --format json` prints.
///
/// Sizes and addresses are in bytes, and the ends of ranges are inclusive. Within a version of the form, keys may be
/// added and none is taken away or changes its meaning.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "iova-preflight check")]
pub struct Report<'a> {
    /// The version of this form.
    #[schemars(extend("const" = VERSION))]
    pub version: u32,
    /// The host the guests are evaluated for; of several, the first.
    pub host: HostReport<'a>,
    /// Of several hosts, all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostReport<'a>>,
    /// With `--from`, the host that the guests run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<HostReport<'a>>,
    /// The policy file, if what it says differs from the defaults in what counts here.
    pub policy: Option<&'a str>,
    /// How many files in folders were passed over, because they are XML of libvirt's and not domains.
    pub passed_over: usize,
    /// The guests in the order they were given; of several hosts, each once for each of its hosts, in the order of
    /// these.
    pub guests: Vec<GuestReport>,
}

/// The JSON schema of a [`Report`] (draft 2020-12). Objects are open: keys may be added within a version.
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Report<'_>>().to_value()
}

/// A host that guests are evaluated for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HostReport<'a> {
    /// What `guests` call it; only if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Where the facts come from: this host, a file, or a built-in profile.
    pub source: &'a str,
    /// Its CPU.
    pub cpu: HostCpuReport<'a>,
    /// What its IOMMU reserves.
    pub reserved: Vec<ReservedReport>,
}

/// The host's CPU.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HostCpu")]
pub struct HostCpuReport<'a> {
    /// CPUID vendor, for example `AuthenticAMD`; null if it is not known.
    pub vendor: Option<&'a str>,
    /// Physical address bits; null if they are not known.
    pub phys_bits: Option<u32>,
}

/// A reserved range.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReservedReport {
    /// The range.
    #[serde(flatten)]
    pub range: GpaRange,
    /// What it is set aside for.
    #[serde(rename = "type")]
    pub kind: ReservedKind,
}

impl<'a> HostReport<'a> {
    /// What is reported of `host`, whose facts come from `source`.
    pub fn new(host: &'a Host, source: &'a str) -> Self {
        Self {
            name: None,
            source,
            cpu: HostCpuReport { vendor: host.cpu_vendor.as_deref(), phys_bits: host.phys_bits },
            reserved: host.reserved.iter().map(|r| ReservedReport { range: r.range, kind: r.kind }).collect(),
        }
    }
}

/// A guest, or an input that could not be evaluated.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GuestReport {
    /// Where the XML or the command line comes from: a path, `-` for standard input, or the libvirt and the guest.
    source: String,
    /// `<name>`, or that of `-name`; null if the input is not a guest.
    name: Option<String>,
    /// The host that it was evaluated for, as `hosts` names it; only if there are several, and not of an input that
    /// could not be evaluated for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// Which of several it is, where the input holds more than one: the last start in libvirt's log of a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    /// The process that runs it, with `--running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessReport>,
    /// Who writes the definition or the command line anew at each start, so that a rewrite of it is lost: `nova`,
    /// `vdsm` (oVirt), `kubevirt`, `cloudstack`, `opennebula`, `proxmox`. More may be added.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'static str>,
    /// With `--from`: what becomes of it when it moves to `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<MigrationReport>,
    #[serde(flatten)]
    verdict: VerdictReport,
}

/// What becomes of it, and what is known of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum VerdictReport {
    /// The input could not be evaluated.
    Error {
        /// What is wrong with it, with line and column where it is a matter of the text.
        error: String,
    },
    /// Not an x86 `pc` or `q35` guest of QEMU.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// Starts, and no DMA mapping can fail.
    Pass(Box<Details>),
    /// Starts; something latent is named.
    Warn(Box<Details>),
    /// Would not start or would fail a DMA mapping, and a rewrite helps.
    Fixable(Box<Details>),
    /// Would not start or would fail a DMA mapping, and no rewrite that the policy allows fixes it.
    Blocked(Box<Details>),
}

/// What is known of a guest.
#[derive(Debug, Serialize, JsonSchema)]
struct Details {
    machine: MachineReport,
    cpu: CpuReport,
    memory: MemoryReport,
    /// The memory map that QEMU builds, or would build if it did not refuse; null if there is none, or where it
    /// depends on what is not known.
    layout: Option<LayoutReport>,
    /// The passthrough devices.
    passthrough: Vec<PassthroughReport>,
    /// What the verdict depends on that is not known, a sentence each; empty if it is certain.
    assumptions: Vec<String>,
    /// What the rules found.
    findings: Vec<FindingReport>,
    /// The rewrite that helps; null unless the verdict is `fixable`, or `warn` with a warning that `fix --warnings`
    /// removes.
    fix: Option<FixReport>,
    /// Why nothing helps, a sentence for each rewrite that was tried; empty unless the verdict is `blocked`, or `warn`
    /// with a warning that another rewrite may remove.
    tried: Vec<String>,
}

/// The machine type.
#[derive(Debug, Serialize, JsonSchema)]
struct MachineReport {
    /// As the guest has it; null if it has none.
    requested: Option<String>,
    /// With aliases resolved; null if that is not known.
    canonical: Option<String>,
    /// The chipset.
    family: Option<Family>,
    /// Whether QEMU moves RAM out of the HyperTransport range; null if the type is not known.
    enforces_amd_1tb_hole: Option<bool>,
}

/// The vCPU.
#[derive(Debug, Serialize, JsonSchema)]
struct CpuReport {
    /// CPUID vendor; null if it is not known.
    vendor: Option<String>,
    /// Physical address bits; null if QEMU makes no CPU.
    phys_bits: Option<u32>,
}

/// What is passed to `-m`.
#[derive(Debug, Serialize, JsonSchema)]
struct MemoryReport {
    /// The initial memory, bytes; null if libvirt refuses the domain.
    ram: Option<u64>,
    /// `maxmem`, bytes; null if it is not given.
    maxmem: Option<u64>,
    /// Slots for memory devices.
    slots: u32,
    /// `pci-hole64-size`, bytes; null if it is not given.
    pci_hole64_size: Option<u64>,
}

/// The memory map, and what is plugged into it.
#[derive(Debug, Serialize, JsonSchema)]
struct LayoutReport {
    #[serde(flatten)]
    layout: Layout,
    /// The memory devices, in the order of the domain.
    memory_devices: Vec<MemoryDeviceReport>,
    /// The window that the guest's firmware has for 64-bit BARs; only where all firmware that it may be has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    mmio64: Option<GpaRange>,
    /// The 64-bit BARs, as far as their sizes are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bars: Vec<BarReport>,
}

/// A 64-bit BAR, and where firmware puts it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Bar")]
struct BarReport {
    /// The PCI address of a passthrough device on the host, or what an emulated device is called.
    device: String,
    /// Which of its BARs, 0 to 5.
    index: u8,
    /// Bytes, a power of two.
    size: u64,
    /// The first address; null if firmware gives it none.
    address: Option<u64>,
    /// Whether all firmware that it may be puts it there; otherwise the likeliest does.
    certain: bool,
}

impl BarReport {
    /// The BARs that are placed by some firmware.
    fn all(mmio64: &Mmio64) -> Vec<Self> {
        let bars = mmio64.bars.iter().enumerate();
        let placed = bars.filter_map(|(nth, bar)| {
            let (place, likelihood) = mmio64.place(nth)?;
            Some(Self {
                device: bar.device.clone(),
                index: bar.index,
                size: bar.size,
                address: place.map(|place| place.start),
                certain: likelihood == Likelihood::Certain,
            })
        });
        placed.collect()
    }
}

/// A memory device.
#[derive(Debug, Serialize, JsonSchema)]
struct MemoryDeviceReport {
    /// The model, as libvirt names it: `dimm`, `nvdimm`, `virtio-mem`, `virtio-pmem`.
    kind: &'static str,
    #[serde(flatten)]
    range: GpaRange,
}

/// A passthrough device.
#[derive(Debug, Serialize, JsonSchema)]
struct PassthroughReport {
    /// What QEMU makes of it: `vfio-pci`, `vfio-mdev`, `vhost-vdpa`.
    kind: &'static str,
    /// Its PCI address, UUID or path.
    device: String,
}

/// What a rule found.
#[derive(Debug, Serialize, JsonSchema)]
struct FindingReport {
    /// The rule's name, the same for ever; for its meaning, run `iova-preflight explain RULE`. More may be added.
    #[schemars(regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)+$"))]
    rule: &'static str,
    severity: Severity,
    /// What is wrong, and why, in one line.
    message: String,
    /// The addresses it is about; null if it is about none.
    range: Option<GpaRange>,
    location: LocationReport,
}

/// The place in the XML or the command line that decides.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LocationReport {
    /// The line, from 1.
    #[schemars(range(min = 1))]
    line: usize,
    /// The column in characters, from 1.
    #[schemars(range(min = 1))]
    column: usize,
}

impl From<Location> for LocationReport {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

/// A rewrite.
#[derive(Debug, Serialize, JsonSchema)]
struct FixReport {
    /// Its parts, a line each.
    changes: Vec<String>,
    /// What changes for the guest, a sentence each.
    consequences: Vec<&'static str>,
    /// What to do so that it lasts, a command or a sentence each, in the words of the guest's owner or of `--advice`;
    /// first for this guest, then for those that are made later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
    /// The change of the XML or of the command line as a unified diff; of a command line that is one line or
    /// NUL-separated, with an option on each line.
    diff: String,
}

impl GuestReport {
    /// An input that could not be evaluated.
    pub fn unreadable(source: String, error: &Unreadable) -> Self {
        let verdict = VerdictReport::Error { error: error.to_string() };
        Self { source, name: None, host: None, input: None, process: None, owner: None, migration: None, verdict }
    }

    /// A guest that was evaluated, with its fix told in the words of this owner, if not in libvirt's.
    pub fn new(source: String, guest: GuestSource<'_>, evaluation: &Evaluation, words: Option<Owner>) -> Self {
        let details = || Box::new(Details::new(&source, guest, evaluation, words));
        let verdict = match evaluation.verdict {
            Verdict::NotApplicable => {
                VerdictReport::NotApplicable { reason: evaluation.not_applicable.clone().unwrap_or_default() }
            }
            Verdict::Pass => VerdictReport::Pass(details()),
            Verdict::Warn => VerdictReport::Warn(details()),
            Verdict::Fixable => VerdictReport::Fixable(details()),
            Verdict::Blocked => VerdictReport::Blocked(details()),
        };
        let (name, owner) = (Some(guest.name().to_owned()), guest.subject().owner().map(Owner::name));
        Self { source, name, host: None, input: guest.remark(), process: None, owner, migration: None, verdict }
    }

    /// The same, of one of several hosts.
    pub fn on_host(self, host: Option<&str>) -> Self {
        Self { host: host.map(str::to_owned), ..self }
    }

    /// The same, of a guest that is to move.
    pub fn of_migration(self, migration: Option<MigrationReport>) -> Self {
        Self { migration, ..self }
    }

    /// The same, of a guest that runs.
    pub fn of_process(self, process: Option<&ProcessReport>) -> Self {
        Self { process: process.cloned(), ..self }
    }
}

impl Details {
    fn new(source: &str, guest: GuestSource<'_>, evaluation: &Evaluation, words: Option<Owner>) -> Self {
        let facts = &evaluation.facts;
        Self {
            machine: MachineReport {
                requested: guest.machine().map(str::to_owned),
                canonical: facts.machine.clone(),
                family: facts.family,
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
                mmio64: facts.mmio64.as_ref().and_then(Mmio64::window),
                bars: facts.mmio64.as_ref().map(BarReport::all).unwrap_or_default(),
            }),
            passthrough: facts
                .passthrough
                .iter()
                .map(|p| PassthroughReport { kind: p.kind.name(), device: p.device.clone() })
                .collect(),
            assumptions: evaluation
                .assumptions
                .iter()
                .chain(evaluation.any_fix().and_then(|fix| fix.assumption.as_ref()))
                .cloned()
                .collect(),
            findings: evaluation
                .findings
                .iter()
                .map(|finding| FindingReport {
                    rule: finding.rule,
                    severity: finding.severity,
                    message: finding.message(),
                    range: finding.range,
                    location: guest.location(finding.primary.span.start).into(),
                })
                .collect(),
            fix: evaluation.any_fix().map(|fix| FixReport {
                changes: fix.changes.iter().map(ToString::to_string).collect(),
                consequences: fix.consequences(),
                advice: words
                    .map(|words| advise(words, guest.subject(), fix).lines().map(str::to_owned).collect())
                    .unwrap_or_default(),
                diff: guest.diff(source, fix).unwrap_or_default(),
            }),
            tried: evaluation.tried.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_holds_nothing_that_a_terminal_acts_on() {
        let hostile = "a\u{7f}\u{9b}31m\u{202e}\u{feff}\u{e0001}\u{1b}\n\"é仮";
        let json = text(&[hostile]).expect("JSON");
        assert!(!json.contains(|c: char| c != '\n' && is_hidden(c)), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("JSON"), [hostile]);
    }
}
