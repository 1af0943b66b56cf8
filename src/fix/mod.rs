//! Which rewrite of a domain helps, found by trying it on the facts and evaluating again.

pub mod rewrite;

use crate::domain::{CpuElement, CpuMode, Domain, MaxPhysAddr, MaxPhysAddrMode, MemoryModel, Sourced};
use crate::evaluate::{Diagnosis, diagnose};
use crate::finding::Severity;
use crate::host::Host;
use crate::libvirt::MAXPHYSADDR_SINCE;
use crate::machine::{self, Flavor, MachineType, Resolved};
use crate::policy::{MachineUpgrade, PhysBitsPolicy, Policy};
use crate::qemu::cpu::DEFAULT_PHYS_BITS;
use crate::qemu::layout::FIRST_RELOCATING_QEMU;
use crate::rules::{
    self, machine_type_not_available, memory_device_does_not_fit, phys_bits_above_host, phys_bits_out_of_range,
    phys_bits_too_low,
};
use crate::text::{self, quoted};
use crate::xml::Span;

/// A rewrite that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// Its parts, in the order they were tried.
    pub changes: Vec<Change>,
    /// What it depends on that is not known, if anything. That the guest is stopped without it does not depend on it.
    pub assumption: Option<String>,
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
    /// No fixed address for a memory device.
    FreeAddress {
        /// Its index among the memory devices.
        device: usize,
        /// The address it has.
        from: u64,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine { from, to } => write!(f, "machine {from} → {to}"),
            Self::EmulateBits(bits) => write!(f, "maxphysaddr emulate {bits}"),
            Self::PassHostBits => write!(f, "maxphysaddr passthrough"),
            Self::PciHole64(kib) => write!(f, "pcihole64 {}", text::size(kib.saturating_mul(1024))),
            Self::FreeAddress { from, .. } => write!(f, "memory device {from:#x} → any address"),
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
            Self::FreeAddress { device, .. } => {
                if let Some(device) = domain.memory_devices.get_mut(*device) {
                    device.address = None;
                }
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
fn bare_cpu(span: Span) -> CpuElement {
    CpuElement {
        mode: CpuMode::Custom,
        model: None,
        vendor_id: None,
        vendor: None,
        matching: None,
        check: None,
        fallback: None,
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
pub(crate) fn plan(domain: &Domain, host: &Host, policy: &Policy, broken: &Diagnosis) -> Result<Fix, Vec<String>> {
    let mut search = Search { domain, host, policy, tried: Vec::new() };
    // From the guest's side, more address bits are less of a change than a smaller hole, and that less than another
    // machine type.
    let found = search
        .widen(Vec::new(), broken)
        .or_else(|| search.shrink_hole(broken))
        .or_else(|| search.free_address(broken))
        .or_else(|| search.newer_machine(broken));
    if let Some(fix) = found {
        return Ok(fix);
    }
    search.advise(broken);
    if search.tried.is_empty() {
        search.note("no other machine type, width of addresses or size of the PCI hole would change that".to_owned());
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
    /// Remembers a sentence for the reader, once.
    fn note(&mut self, sentence: String) {
        if !self.tried.contains(&sentence) {
            self.tried.push(sentence);
        }
    }

    fn diagnose(&self, changes: &[Change]) -> Diagnosis {
        let mut domain = self.domain.clone();
        for change in changes {
            change.apply(&mut domain);
        }
        diagnose(&domain, self.host, self.policy)
    }

    /// The rewrite, if it helps; otherwise remembers why not.
    fn accept(&mut self, changes: Vec<Change>, after: &Diagnosis) -> Option<Fix> {
        if !after.stops() {
            return Some(Fix { assumption: self.assumption(&changes), changes });
        }
        let names: Vec<String> = changes.iter().map(Change::to_string).collect();
        let why = after.findings.iter().find(|finding| finding.severity == Severity::Error);
        self.note(format!("{} is not enough: {}", names.join(" and "), why.map_or("", |finding| &finding.title)));
        None
    }

    /// A host of which neither QEMU nor its machine types are known may not have the type a guest gets.
    fn assumption(&self, changes: &[Change]) -> Option<String> {
        let known = !self.host.machines.is_empty() || self.host.qemu.is_some();
        changes.iter().filter(|_| !known).find_map(|change| match change {
            Change::Machine { to, .. } => Some(format!(
                "the fix needs a QEMU that has machine type {to}, and what this host has is not known here"
            )),
            _ => None,
        })
    }

    /// Adds phys-bits to `changes`, where `before`, the guest with those changes, lacks them.
    fn widen(&mut self, mut changes: Vec<Change>, before: &Diagnosis) -> Option<Fix> {
        // What another `<maxphysaddr>` may fix.
        let rules = [phys_bits_too_low::RULE, phys_bits_above_host::RULE, phys_bits_out_of_range::RULE];
        if !before.findings.iter().any(|finding| rules.iter().any(|rule| rule.found(finding))) {
            return None;
        }
        // Where QEMU refuses the width itself there is no map yet that would tell what it needs.
        let needed = before.facts.phys_bits_needed.unwrap_or(DEFAULT_PHYS_BITS);
        if self.policy.phys_bits == PhysBitsPolicy::Never {
            self.note(format!(
                "{needed} physical address bits are needed, and the policy does not allow to change them"
            ));
            return None;
        }
        if let Some(version) = self.host.libvirt.filter(|&version| version < MAXPHYSADDR_SINCE) {
            self.note(format!("{needed} physical address bits are needed, and libvirt {version} has no <maxphysaddr>"));
            return None;
        }
        if let Some(bits) = self.host.phys_bits.filter(|&bits| bits < needed) {
            self.note(format!("{needed} physical address bits are needed, and the host has {bits}"));
            return None;
        }
        let emulate = Change::EmulateBits(needed);
        let widths = match self.policy.phys_bits {
            PhysBitsPolicy::Host => [Change::PassHostBits, emulate],
            _ => [emulate, Change::PassHostBits],
        };
        for width in widths {
            changes.push(width);
            let after = self.diagnose(&changes);
            if let Some(fix) = self.accept(changes.clone(), &after) {
                return Some(fix);
            }
            changes.pop();
        }
        None
    }

    /// The default hole instead of a larger one.
    fn shrink_hole(&mut self, before: &Diagnosis) -> Option<Fix> {
        let (Some(hole), Some(family)) = (self.domain.pci_hole64, before.facts.family) else { return None };
        let default = match family {
            machine::Family::Q35 => crate::qemu::layout::Q35_PCI_HOLE64_SIZE,
            machine::Family::I440fx => crate::qemu::layout::I440FX_PCI_HOLE64_SIZE,
        };
        if hole.value <= default / 1024 {
            return None;
        }
        let changes = vec![Change::PciHole64(default / 1024)];
        let after = self.diagnose(&changes);
        self.accept(changes, &after)
    }

    /// The fixed addresses that memory devices need to keep their places in a device memory region that moved.
    fn follow_window(&self, before: &Diagnosis, after: &Diagnosis) -> Vec<Change> {
        let window = |diagnosis: &Diagnosis| diagnosis.facts.layout.as_ref().and_then(|layout| layout.device_memory);
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

    /// No fixed address for the memory device that does not fit at its own, so that QEMU finds a place for it.
    fn free_address(&mut self, before: &Diagnosis) -> Option<Fix> {
        if !before.findings.iter().any(|finding| memory_device_does_not_fit::RULE.found(finding)) {
            return None;
        }
        let dimms = self.domain.memory_devices.iter().enumerate();
        let fixed = dimms.filter(|(_, device)| matches!(device.model, MemoryModel::Dimm | MemoryModel::Nvdimm));
        let changes: Vec<Change> = fixed
            .filter_map(|(device, memory)| Some(Change::FreeAddress { device, from: memory.address?.value }))
            .collect();
        if changes.is_empty() {
            return None;
        }
        let after = self.diagnose(&changes);
        self.accept(changes, &after)
    }

    /// A machine type that moves RAM, where the guest's does not or is not there.
    fn newer_machine(&mut self, before: &Diagnosis) -> Option<Fix> {
        let missing = before.findings.iter().any(|finding| machine_type_not_available::RULE.found(finding));
        let collides = before.findings.iter().any(|f| f.severity == Severity::Error && rules::is_collision(f));
        let stays = collides && before.facts.enforces_amd_1tb_hole == Some(false);
        if !missing && !stays {
            return None;
        }
        let name = before.facts.machine.as_deref()?;
        let target = match self.newer_type(name) {
            Ok(target) => target,
            // Of a type that is not there, it does not matter what others do with RAM.
            Err(_) if missing => {
                self.note("another machine type, of those that the host's QEMU has, is yours to choose".to_owned());
                return None;
            }
            Err(sentence) => {
                self.note(sentence);
                return None;
            }
        };
        let mut changes = vec![Change::Machine { from: name.to_owned(), to: target.name }];
        let mut moved = self.diagnose(&changes);
        let follow = self.follow_window(before, &moved);
        if !follow.is_empty() {
            changes.extend(follow);
            moved = self.diagnose(&changes);
        }
        self.accept(changes.clone(), &moved).or_else(|| self.widen(changes, &moved))
    }

    /// The machine type that moves RAM and takes the place of the one called `name`, or why there is none.
    fn newer_type(&self, name: &str) -> Result<MachineType, String> {
        if let Some(qemu) = self.host.qemu.filter(|&qemu| qemu < FIRST_RELOCATING_QEMU) {
            return Err(format!("no machine type of QEMU {qemu} moves RAM; 7.1 is the first that does"));
        }
        let Resolved::Known(current) = machine::resolve(name) else {
            return Err(format!("which machine types are newer than {} is not known", quoted(name)));
        };
        let mut candidates = machine::enforcing(&current, &self.host.machines, self.host.qemu)
            .filter(|candidate| candidate.version > current.version);
        let target = match &self.policy.machine_upgrade {
            MachineUpgrade::Never => {
                return Err("a newer machine type may help, and the policy does not allow it".to_owned());
            }
            MachineUpgrade::Minimum => candidates.min_by_key(|candidate| candidate.version),
            MachineUpgrade::Latest => candidates.max_by_key(|candidate| candidate.version),
            MachineUpgrade::Named(named) => candidates.find(|candidate| candidate == named),
        };
        target.ok_or_else(|| {
            let kind = match current.flavor {
                Flavor::Upstream => "",
                Flavor::Proxmox => ", and one without +pve is yours to choose",
                Flavor::Rhel => " among Red Hat's",
                Flavor::Ubuntu => " among Ubuntu's",
            };
            format!("there is no newer machine type for {} that moves RAM{kind}", quoted(name))
        })
    }

    /// Says what would help and is not for a program to decide.
    fn advise(&mut self, broken: &Diagnosis) {
        if let Some(slots) = self.fewer_slots() {
            let has = broken.facts.slots;
            self.note(format!(
                "with {slots} slots instead of {has} it would start; how many there are is yours to say"
            ));
        }
        let moved = |diagnosis: &Diagnosis| {
            !diagnosis.findings.iter().any(|f| f.severity == Severity::Error && rules::is_collision(f))
        };
        let Some(cpu) = self.domain.cpu.as_ref().filter(|_| !moved(broken)) else { return };
        let mut amd = self.domain.clone();
        let (change, advice) = if let Some(vendor) = &cpu.vendor_id {
            (cpu.model.clone(), format!("without vendor_id='{}'", quoted(&vendor.value)))
        } else {
            let span = cpu.span;
            (Some(Sourced { value: "EPYC".to_owned(), span }), "with an AMD CPU model such as EPYC".to_owned())
        };
        if let Some(cpu) = &mut amd.cpu {
            cpu.vendor_id = None;
            cpu.model = change;
        }
        if moved(&diagnose(&amd, self.host, self.policy)) {
            self.note(format!("{advice} QEMU would move the RAM; which CPU the guest sees is yours to say"));
        }
    }

    /// The most slots with which the guest starts, where it does with fewer than it has.
    fn fewer_slots(&self) -> Option<u32> {
        let has = self.domain.slots?;
        let starts = |slots: u32| {
            let mut domain = self.domain.clone();
            domain.slots = Some(Sourced { value: slots, span: has.span });
            !diagnose(&domain, self.host, self.policy).stops()
        };
        let fewest = u32::try_from(self.domain.memory_devices.len()).ok()?.max(1);
        if fewest >= has.value || !starts(fewest) {
            return None;
        }
        let (mut good, mut bad) = (fewest, has.value);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if starts(middle) { good = middle } else { bad = middle }
        }
        Some(good)
    }
}
