//! Which rewrite of a domain helps, found by trying it on the facts and judging again.

use crate::check::{Evaluation, judge};
use crate::domain::{Cpu, CpuMode, Domain, MaxPhysAddr, MaxPhysAddrMode, Sourced};
use crate::finding::Severity;
use crate::host::Host;
use crate::libvirt::MAXPHYSADDR_SINCE;
use crate::policy::{MachineUpgrade, PhysBitsPolicy, Policy};
use crate::qemu::machine::{self, MachineType, Resolved};
use crate::text;
use crate::xml::Span;

/// A rewrite that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// Its parts, in the order they were tried.
    pub changes: Vec<Change>,
}

impl Fix {
    /// What changes for the guest, a sentence each.
    pub fn consequences(&self) -> Vec<&'static str> {
        let mut sentences = Vec::new();
        let has = |wanted: fn(&Change) -> bool| self.changes.iter().any(wanted);
        if has(|change| matches!(change, Change::Machine { .. })) {
            sentences.push(
                "a new machine type is a new revision of the virtual hardware: Windows may ask to be activated again",
            );
            sentences.push("saved state and internal snapshots taken before no longer restore");
            sentences.push("RAM moves above 1 TiB, which some Windows GPU drivers do not work with");
        }
        if has(|change| matches!(change, Change::EmulateBits(_) | Change::PassHostBits)) {
            sentences.push("the guest sees a wider CPU: hosts it migrates to need as many physical address bits");
        }
        if has(|change| matches!(change, Change::PciHole64(_))) {
            sentences.push("devices with BARs larger than the new 64-bit PCI hole no longer fit");
        }
        sentences.push("a running guest picks it up at its next cold start");
        sentences
    }
}

/// A part of a rewrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another `<os><type machine>`.
    Machine {
        /// The type the domain has.
        from: String,
        /// The type it gets.
        to: String,
    },
    /// `<maxphysaddr mode='emulate' bits=…>`.
    EmulateBits(u32),
    /// `<maxphysaddr mode='passthrough'/>`.
    PassHostBits,
    /// A smaller `<pcihole64>`, in KiB.
    PciHole64(u64),
    /// Another fixed address of a memory device, because the device memory region moves.
    DeviceAddress {
        /// Its index among the memory devices.
        device: usize,
        /// The address it has.
        from: u64,
        /// The address it gets.
        to: u64,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine { from, to } => write!(f, "machine {from} → {to}"),
            Self::EmulateBits(bits) => write!(f, "maxphysaddr emulate {bits}"),
            Self::PassHostBits => write!(f, "maxphysaddr passthrough"),
            Self::PciHole64(kib) => write!(f, "pcihole64 {}", text::size(kib.saturating_mul(1024))),
            Self::DeviceAddress { from, to, .. } => write!(f, "memory device {from:#x} → {to:#x}"),
        }
    }
}

impl Change {
    fn apply(&self, domain: &mut Domain) {
        match self {
            Self::Machine { to, .. } => {
                let span = domain.machine.as_ref().map_or(domain.span, |machine| machine.span);
                domain.machine = Some(Sourced { value: to.clone(), span });
            }
            Self::EmulateBits(bits) => set_width(domain, MaxPhysAddrMode::Emulate, Some(*bits)),
            Self::PassHostBits => set_width(domain, MaxPhysAddrMode::Passthrough, None),
            Self::PciHole64(kib) => {
                let span = domain.pci_hole64.map_or(domain.span, |hole| hole.span);
                domain.pci_hole64 = Some(Sourced { value: *kib, span });
            }
            Self::DeviceAddress { device, to, .. } => {
                if let Some(address) = domain.memory_devices.get_mut(*device).and_then(|device| device.address.as_mut())
                {
                    address.value = *to;
                }
            }
        }
    }
}

fn set_width(domain: &mut Domain, mode: MaxPhysAddrMode, bits: Option<u32>) {
    let span = domain.span;
    let cpu = domain.cpu.get_or_insert_with(|| bare_cpu(span));
    let bits = bits.map(|value| Sourced { value, span: cpu.span });
    cpu.maxphysaddr = Some(MaxPhysAddr { mode, bits, limit: None, span: cpu.span });
}

/// `<cpu/>`: libvirt's default model.
fn bare_cpu(span: Span) -> Cpu {
    Cpu {
        mode: CpuMode::Custom,
        model: None,
        vendor_id: None,
        vendor: None,
        features: Vec::new(),
        has_features: false,
        maxphysaddr: None,
        span,
    }
}

/// The least invasive rewrite after which the guest starts and no mapping fails.
///
/// # Errors
/// A sentence for each rewrite that was tried and does not help, or that the policy does not allow.
pub(crate) fn plan(domain: &Domain, host: &Host, policy: &Policy, broken: &Evaluation) -> Result<Fix, Vec<String>> {
    let mut search = Search { domain, host, policy, tried: Vec::new() };
    // From the guest's side, more address bits are less of a change than a smaller hole, and that less than another
    // machine type.
    if let Some(fix) = search.widen(Vec::new(), broken).or_else(|| search.shrink_hole(broken)) {
        return Ok(fix);
    }
    if let Some(machine) = search.newer_machine(broken) {
        let mut changes = vec![machine];
        let mut moved = search.judge(&changes);
        let follow = search.follow_window(broken, &moved);
        if !follow.is_empty() {
            changes.extend(follow);
            moved = search.judge(&changes);
        }
        if let Some(fix) = search.accept(changes.clone(), &moved) {
            return Ok(fix);
        }
        if let Some(fix) = search.widen(changes, &moved) {
            return Ok(fix);
        }
    }
    if search.tried.is_empty() {
        search
            .tried
            .push("no other machine type, width of addresses or size of the PCI hole would change that".to_owned());
    }
    Err(search.tried)
}

struct Search<'a> {
    domain: &'a Domain,
    host: &'a Host,
    policy: &'a Policy,
    tried: Vec<String>,
}

impl Search<'_> {
    fn judge(&self, changes: &[Change]) -> Evaluation {
        let mut domain = self.domain.clone();
        for change in changes {
            change.apply(&mut domain);
        }
        judge(&domain, self.host, self.policy)
    }

    /// The rewrite, if it helps; otherwise remembers why not.
    fn accept(&mut self, changes: Vec<Change>, after: &Evaluation) -> Option<Fix> {
        if !after.verdict.stops() {
            return Some(Fix { changes });
        }
        let names: Vec<String> = changes.iter().map(Change::to_string).collect();
        let why = after.findings.iter().find(|finding| finding.severity == Severity::Error);
        self.tried.push(format!(
            "{} is not enough: {}",
            names.join(" and "),
            why.map_or("", |finding| &finding.message)
        ));
        None
    }

    /// Adds phys-bits to `changes`, where `before`, the guest with those changes, lacks them.
    fn widen(&mut self, mut changes: Vec<Change>, before: &Evaluation) -> Option<Fix> {
        let lacking = before
            .findings
            .iter()
            .any(|finding| finding.rule == "phys-bits-too-low" || finding.rule == "phys-bits-above-host");
        let (true, Some(needed)) = (lacking, before.facts.phys_bits_needed) else { return None };
        if self.policy.phys_bits == PhysBitsPolicy::Never {
            self.tried.push(format!(
                "{needed} physical address bits are needed, and the policy does not allow to change them"
            ));
            return None;
        }
        if let Some(version) = self.host.libvirt.filter(|&version| version < MAXPHYSADDR_SINCE) {
            self.tried
                .push(format!("{needed} physical address bits are needed, and libvirt {version} has no <maxphysaddr>"));
            return None;
        }
        if let Some(bits) = self.host.phys_bits.filter(|&bits| bits < needed) {
            self.tried.push(format!("{needed} physical address bits are needed, and the host has {bits}"));
            return None;
        }
        let emulate = Change::EmulateBits(needed);
        let widths = match self.policy.phys_bits {
            PhysBitsPolicy::Host => [Change::PassHostBits, emulate],
            _ => [emulate, Change::PassHostBits],
        };
        for width in widths {
            changes.push(width);
            let after = self.judge(&changes);
            if let Some(fix) = self.accept(changes.clone(), &after) {
                return Some(fix);
            }
            changes.pop();
        }
        None
    }

    /// The default hole instead of a larger one.
    fn shrink_hole(&mut self, before: &Evaluation) -> Option<Fix> {
        let (Some(hole), Some(family)) = (self.domain.pci_hole64, before.facts.family) else { return None };
        let default = match family {
            machine::Family::Q35 => crate::qemu::layout::Q35_PCI_HOLE64_SIZE,
            machine::Family::I440fx => crate::qemu::layout::I440FX_PCI_HOLE64_SIZE,
        };
        if hole.value <= default / 1024 {
            return None;
        }
        let changes = vec![Change::PciHole64(default / 1024)];
        let after = self.judge(&changes);
        self.accept(changes, &after)
    }

    /// The fixed addresses that memory devices need to keep their places in a device memory region that moved.
    fn follow_window(&self, before: &Evaluation, after: &Evaluation) -> Vec<Change> {
        let window = |evaluation: &Evaluation| evaluation.facts.layout.as_ref().and_then(|layout| layout.device_memory);
        let (Some(old), Some(new)) = (window(before), window(after)) else { return Vec::new() };
        if old.start == new.start {
            return Vec::new();
        }
        let devices = self.domain.memory_devices.iter().enumerate();
        let moved = devices.filter_map(|(device, memory)| {
            let from = memory.address?.value;
            let to = from.checked_sub(old.start)?.checked_add(new.start)?;
            Some(Change::DeviceAddress { device, from, to })
        });
        moved.collect()
    }

    /// A machine type that moves RAM, where the guest's does not.
    fn newer_machine(&mut self, before: &Evaluation) -> Option<Change> {
        if before.facts.enforces_amd_1tb_hole != Some(false) {
            return None;
        }
        let name = before.facts.machine.as_deref()?;
        let Resolved::Known(current) = machine::resolve(name) else { return None };
        let target = match self.policy.machine_upgrade {
            MachineUpgrade::Never => {
                self.tried.push("a newer machine type may help, and the policy does not allow it".to_owned());
                return None;
            }
            MachineUpgrade::Minimum => machine::oldest_enforcing(&current, &self.host.machines),
            MachineUpgrade::Latest => self.latest(&current),
        };
        match target {
            Some(target) => Some(Change::Machine { from: name.to_owned(), to: target.name }),
            None => {
                self.tried.push(format!("there is no newer machine type for {name} that moves RAM above 1 TiB"));
                None
            }
        }
    }

    fn latest(&self, current: &MachineType) -> Option<MachineType> {
        machine::newest_enforcing(current, &self.host.machines)
    }
}
