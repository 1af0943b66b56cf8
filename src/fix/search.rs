//! The search for the least invasive rewrite that helps.

use super::draft::{Draft, Fixed};
use super::{Change, Fix};
use crate::evaluate::Diagnosis;
use crate::finding::{Finding, Severity};
use crate::guest::Subject;
use crate::host::Host;
use crate::machine::{self, Flavor, MachineType, Resolved};
use crate::policy::{MachineUpgrade, PhysBitsPolicy, Policy};
use crate::qemu::cpu::{AMD, DEFAULT_PHYS_BITS};
use crate::qemu::layout::FIRST_RELOCATING_QEMU;
use crate::rules::{
    self, machine_type_not_available, memory_backend_refused, memory_device_does_not_fit, memory_map_refused,
    phys_bits_above_host, phys_bits_out_of_range, phys_bits_too_low,
};
use crate::text::{self, quoted};

/// The least invasive rewrite after which the guest starts and no mapping fails.
///
/// # Errors
/// A sentence for each rewrite that was tried and does not help, or that the policy does not allow.
pub(crate) fn plan(subject: Subject<'_>, host: &Host, policy: &Policy, broken: &Diagnosis) -> Result<Fix, Vec<String>> {
    let mut search = FixSearch::new(subject, host, policy, broken);
    // From the guest's side, more address bits are less of a change than a smaller hole, and that less than another
    // machine type.
    let found = search
        .widen(Vec::new(), broken)
        .or_else(|| search.shrink_hole(broken))
        .or_else(|| search.free_address(broken))
        .or_else(|| search.newer_machine(broken));
    #[cfg(feature = "cli")]
    let found = found.or_else(|| search.make_room_too(&[], broken));
    if let Some(fix) = found {
        return Ok(fix);
    }
    search.advise(broken);
    if search.tried.is_empty() {
        search.note("no other machine type, phys-bits or PCI hole size would change that".to_owned());
    }
    Err(search.tried)
}

pub(super) struct FixSearch<'a> {
    pub(super) draft: Draft<'a>,
    pub(super) host: &'a Host,
    pub(super) policy: &'a Policy,
    /// What is wrong with the guest as it is.
    broken: &'a Diagnosis,
    pub(super) tried: Vec<String>,
}

/// Whether QEMU moves RAM above 1 TiB.
fn is_relocated(evaluation: &Diagnosis) -> bool {
    evaluation.facts.layout.as_ref().is_some_and(|layout| layout.relocated)
}

/// What a guest that does not start gets more phys-bits for than its memory map needs as it is.
fn spare_bits(changes: &[Change], before: &Diagnosis, after: &Diagnosis) -> Option<String> {
    let bits = changes.iter().find_map(Change::bits)?;
    let needed = before.facts.phys_bits_needed.filter(|&needed| needed < bits && before.stops())?;
    if after.facts.phys_bits_needed != Some(bits) {
        return Some(format!(
            "the memory map needs {needed} phys-bits; with {bits}, firmware has room for 64-bit BARs"
        ));
    }
    let moved = if is_relocated(after) && !is_relocated(before) { "RAM moved above 1 TiB" } else { "these changes" };
    Some(format!("the memory map needs {needed} phys-bits as it is, and {bits} with {moved}"))
}

/// Whether firmware puts BARs where they are lost, unless the guest has [`BITS_THAT_CLEAR_THE_WINDOW`]: with 40 bits
/// the window for them is the top eighth of the address space, 896–1024 GiB. A machine type of 7.1 or newer reserves
/// 1012–1024 GiB there for an AMD CPU, and the firmware then takes the eighth below, 768–896 GiB, without a look at RAM
/// (`pciinit.c` of SeaBIOS 1.16.3 to 1.17.0, `MemDetect.c` of edk2 since 2023.02). Measured with RAM up to 768, 800 and
/// 960 GiB: BARs lie in RAM with SeaBIOS, and have no address with OVMF.
fn loses_bars(evaluation: &Diagnosis) -> bool {
    /// Where that window begins.
    const WINDOW_START: u64 = 768 << 30;
    let facts = &evaluation.facts;
    let Some(layout) = facts.layout.as_ref().filter(|layout| !layout.relocated) else { return false };
    let ends = [layout.ram_above_4g, layout.device_memory].into_iter().flatten().map(|range| range.end);
    facts.enforces_amd_1tb_hole == Some(true)
        && facts.cpu_vendor.as_deref() == Some(AMD)
        && facts.phys_bits.is_some_and(|bits| bits < BITS_THAT_CLEAR_THE_WINDOW)
        && ends.max().is_some_and(|end| end >= WINDOW_START)
}

/// Whether QEMU refuses memory in a way that may be the machine type's.
fn refuses_memory(evaluation: &Diagnosis) -> bool {
    let rules = [memory_backend_refused::RULE, memory_map_refused::RULE];
    evaluation.findings.iter().any(|finding| rules.iter().any(|rule| rule.found(finding)))
}

/// `to` in place of the machine type called `name`.
fn upgrade(name: &str, to: &MachineType) -> Change {
    Change::Machine { from: name.to_owned(), to: to.name.clone() }
}

/// The fewest phys-bits with which the firmware's window for BARs lies above 1 TiB.
const BITS_THAT_CLEAR_THE_WINDOW: u32 = 41;

impl<'a> FixSearch<'a> {
    /// For a guest that is broken as it is.
    pub(super) fn new(subject: Subject<'a>, host: &'a Host, policy: &'a Policy, broken: &'a Diagnosis) -> Self {
        Self { draft: Draft::new(subject, host, policy), host, policy, broken, tried: Vec::new() }
    }

    /// The rewrite, with what there is to say of it; `after` is the guest with it.
    pub(super) fn fix(&self, changes: Vec<Change>, after: &Diagnosis) -> Fix {
        Fix {
            assumption: self.assumption(&changes),
            spare_bits: spare_bits(&changes, self.broken, after),
            moves_ram: is_relocated(after) && !is_relocated(self.broken),
            changes,
        }
    }

    /// Remembers a sentence for the reader, once.
    pub(super) fn note(&mut self, sentence: String) {
        if !self.tried.contains(&sentence) {
            self.tried.push(sentence);
        }
    }

    /// The rewrite, if it helps; otherwise remembers why not.
    fn accept(&mut self, changes: Vec<Change>, after: &Diagnosis) -> Option<Fix> {
        #[cfg(feature = "cli")]
        if let Some(fix) = self.make_room_too(&changes, after) {
            return Some(fix);
        }
        if !after.stops() {
            return Some(self.fix(changes, after));
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
                "the fix needs a QEMU that has machine type {to}; the version of this host's QEMU is unknown"
            )),
            _ => None,
        })
    }

    /// Adds phys-bits to `changes`, where `before`, the guest with those changes, lacks them.
    fn widen(&mut self, changes: Vec<Change>, before: &Diagnosis) -> Option<Fix> {
        // What another `<maxphysaddr>` may fix.
        let rules = [phys_bits_too_low::RULE, phys_bits_above_host::RULE, phys_bits_out_of_range::RULE];
        if !before.findings.iter().any(|finding| rules.iter().any(|rule| rule.found(finding))) {
            return None;
        }
        // Where QEMU refuses the width itself there is no map yet that would tell what it needs.
        let needed = before.facts.phys_bits_needed.unwrap_or(DEFAULT_PHYS_BITS);
        self.widen_to(needed, "", changes)
    }

    /// Adds at least `needed` phys-bits to `changes`; `reason` says what for, if it is not the size of the map.
    fn widen_to(&mut self, needed: u32, reason: &str, mut changes: Vec<Change>) -> Option<Fix> {
        let obstacle = match (self.draft.fixed_width(), self.host.phys_bits) {
            _ if self.policy.phys_bits == PhysBitsPolicy::Never => {
                Some("the policy does not allow changing them".to_owned())
            }
            (Some(reason), _) => Some(reason),
            (_, Some(bits)) if bits < needed => Some(format!("the host has {bits}")),
            _ => None,
        };
        if let Some(obstacle) = obstacle {
            self.note(format!("{needed} physical address bits are needed{reason}, but {obstacle}"));
            return None;
        }
        for width in self.draft.widths(needed) {
            changes.push(width);
            let after = self.draft.with(&changes);
            let trap = self.trap(&changes, &after);
            match trap {
                Some(reason) if needed < BITS_THAT_CLEAR_THE_WINDOW => {
                    changes.pop();
                    return self.widen_to(BITS_THAT_CLEAR_THE_WINDOW, &reason, changes);
                }
                // The width has no effect on this CPU.
                Some(reason) => self.note(format!("{needed} physical address bits are needed{reason}")),
                None => {
                    if let Some(fix) = self.accept(changes.clone(), &after) {
                        return Some(fix);
                    }
                }
            }
            changes.pop();
        }
        None
    }

    /// What more phys-bits are needed for, where another machine type among `changes` makes the firmware lose BARs.
    fn trap(&self, changes: &[Change], after: &Diagnosis) -> Option<String> {
        let machine = changes.iter().find_map(|change| match change {
            Change::Machine { to, .. } => Some(to),
            _ => None,
        })?;
        loses_bars(after).then(|| format!(" with machine type {machine} (with fewer, firmware loses devices' BARs)"))
    }

    /// The default hole instead of a larger one.
    fn shrink_hole(&mut self, before: &Diagnosis) -> Option<Fix> {
        let hole = self.draft.hole();
        let (Some(hole), Some(family)) = (hole, before.facts.family) else { return None };
        let default = match family {
            machine::Family::Q35 => crate::qemu::layout::Q35_PCI_HOLE64_SIZE,
            machine::Family::I440fx => crate::qemu::layout::I440FX_PCI_HOLE64_SIZE,
        };
        if hole <= default {
            return None;
        }
        let changes = vec![self.draft.hole_of(default)];
        let after = self.draft.with(&changes);
        self.accept(changes, &after)
    }

    /// The fixed addresses that memory devices need to keep their places in a device memory region that moved.
    fn follow_window(&self, before: &Diagnosis, after: &Diagnosis) -> Vec<Change> {
        let window = |diagnosis: &Diagnosis| diagnosis.facts.layout.as_ref().and_then(|layout| layout.device_memory);
        let (Some(old), Some(new)) = (window(before), window(after)) else { return Vec::new() };
        if old.start == new.start {
            return Vec::new();
        }
        let devices = self.draft.fixed().into_iter();
        let moved = devices.filter_map(|Fixed { device, address: from, .. }| {
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
        let movable = self.draft.fixed().into_iter().filter(|fixed| fixed.can_move);
        let changes: Vec<Change> =
            movable.map(|Fixed { device, address, .. }| Change::FreeAddress { device, from: address }).collect();
        if changes.is_empty() {
            return None;
        }
        let after = self.draft.with(&changes);
        self.accept(changes, &after)
    }

    /// A machine type that moves RAM, where the guest's does not or is not there, or one that takes memory that the
    /// guest's refuses.
    fn newer_machine(&mut self, before: &Diagnosis) -> Option<Fix> {
        let missing = before.findings.iter().any(|finding| machine_type_not_available::RULE.found(finding));
        let collides = before.findings.iter().any(|f| f.severity == Severity::Error && rules::is_in_reserved(f));
        let stays = collides && before.facts.enforces_amd_1tb_hole == Some(false);
        let name = before.facts.machine.as_deref()?;
        let needed = missing || stays || refuses_memory(before) && self.takes_newer_type(name);
        if !needed {
            return None;
        }
        let targets = match self.allowed_types(name) {
            Ok(targets) => targets,
            // For a type that does not exist, it does not matter how others place RAM.
            Err(_) if missing => {
                self.note("choose one of the machine types that the host's QEMU has".to_owned());
                return None;
            }
            Err(sentence) => {
                self.note(sentence);
                return None;
            }
        };
        let with = |target: &MachineType| {
            let changes = vec![upgrade(name, target)];
            let moved = self.draft.with(&changes);
            (changes, moved)
        };
        let (preferred, others) = targets.split_first()?;
        let (mut changes, mut moved) = with(preferred);
        if refuses_memory(&moved)
            && let Some(better) = others.iter().map(with).find(|(_, moved)| !refuses_memory(moved))
        {
            (changes, moved) = better;
        }
        let follow = self.follow_window(before, &moved);
        if !follow.is_empty() {
            changes.extend(follow);
            moved = self.draft.with(&changes);
        }
        if let Some(reason) = self.trap(&changes, &moved).filter(|_| !moved.stops()) {
            return self.widen_to(BITS_THAT_CLEAR_THE_WINDOW, &reason, changes);
        }
        self.accept(changes.clone(), &moved).or_else(|| self.widen(changes, &moved))
    }

    /// The newer machine types that move RAM and may take the place of `current`; with those of QEMU for one of
    /// Proxmox's.
    fn newer_types(&self, current: &MachineType) -> Vec<MachineType> {
        let upstream = MachineType { flavor: Flavor::Upstream, ..current.clone() };
        let like = if self.is_revised(current) { &upstream } else { current };
        machine::enforcing(like, &self.host.machines, self.host.qemu)
            .filter(|candidate| candidate.version > current.version)
            .collect()
    }

    /// QEMU as Proxmox builds it takes any upstream type with any revision, and revision 0 is in every version.
    fn is_revised(&self, current: &MachineType) -> bool {
        current.flavor == Flavor::Proxmox && self.draft.is_bare()
    }

    /// The machine types that move RAM and that the policy allows in place of the one called `name`, the one that it
    /// prefers first, or why there is none.
    fn allowed_types(&self, name: &str) -> Result<Vec<MachineType>, String> {
        if let Some(qemu) = self.host.qemu.filter(|&qemu| qemu < FIRST_RELOCATING_QEMU) {
            return Err(format!("no machine type of QEMU {qemu} moves RAM; 7.1 is the first version that does"));
        }
        let Resolved::Known(current) = machine::resolve(name) else {
            return Err(format!("it is unknown which machine types are newer than {}", quoted(name)));
        };
        let mut candidates = self.newer_types(&current);
        candidates.sort_by_key(|candidate| candidate.version);
        let newest = candidates.last().cloned();
        match &self.policy.machine_upgrade {
            MachineUpgrade::Never => {
                return Err("a newer machine type may help, but the policy does not allow it".to_owned());
            }
            // One that QEMU will remove is better than none.
            MachineUpgrade::Minimum => {
                candidates.retain(|candidate| !self.host.deprecates(candidate));
                if candidates.is_empty() {
                    candidates.extend(newest);
                }
            }
            MachineUpgrade::Latest => candidates = newest.into_iter().collect(),
            MachineUpgrade::Named(named) => candidates.retain(|candidate| candidate == named),
        }
        if candidates.is_empty() {
            let kind = match current.flavor {
                Flavor::Upstream => "",
                Flavor::Proxmox => "; choose one without +pve yourself",
                Flavor::Rhel => " among Red Hat's",
                Flavor::Ubuntu => " among Ubuntu's",
            };
            return Err(format!("there is no newer machine type for {} that moves RAM{kind}", quoted(name)));
        }
        if self.is_revised(&current) {
            candidates.iter_mut().for_each(|candidate| candidate.name.push_str("+pve0"));
        }
        Ok(candidates)
    }

    /// Whether QEMU refuses the memory with the machine type called `name`, and not with the newest one.
    fn takes_newer_type(&self, name: &str) -> bool {
        let Resolved::Known(current) = machine::resolve(name) else { return false };
        let newest = self.newer_types(&current).into_iter().max_by_key(|candidate| candidate.version);
        // Most of what QEMU refuses of memory it refuses with every type.
        newest.is_some_and(|newest| !refuses_memory(&self.draft.with(&[upgrade(name, &newest)])))
    }

    /// Names fixes that only the operator can decide on.
    fn advise(&mut self, broken: &Diagnosis) {
        if broken.findings.iter().any(|finding| memory_backend_refused::RULE.found(finding)) {
            self.note("choose the memory's size, page size, NUMA cells or dynamicMemslots yourself".to_owned());
        }
        #[cfg(feature = "cli")]
        if broken.findings.iter().any(|finding| rules::locked_memory_too_low::RULE.found(finding)) {
            self.note("<hard_limit> also caps the guest's memory use, so choose the value yourself".to_owned());
        }
        #[cfg(feature = "cli")]
        self.advise_viommu(broken);
        if let Some(slots) = self.fewer_slots() {
            let has = broken.facts.slots;
            self.note(format!(
                "with {slots} slots instead of {has} it would start; choose the number of slots yourself"
            ));
        }
        self.advise_less_memory(broken);
        let moved = |diagnosis: &Diagnosis| {
            !diagnosis.findings.iter().any(|f| f.severity == Severity::Error && rules::is_in_reserved(f))
        };
        if moved(broken) {
            return;
        }
        if let Some((advice, amd)) = self.draft.with_amd_cpu()
            && moved(&amd)
        {
            self.note(format!("{advice} QEMU would move the RAM; choose the CPU model yourself"));
        }
    }

    /// Says how a virtual IOMMU works with the guest's devices.
    #[cfg(feature = "cli")]
    fn advise_viommu(&mut self, broken: &Diagnosis) {
        let has = |rule: &rules::Rule| {
            broken.findings.iter().any(|finding| finding.severity == Severity::Error && rule.found(finding))
        };
        if has(&rules::viommu_not_prepared::RULE) {
            self.note("set up an intel-iommu with caching mode, or a virtio-iommu, yourself".to_owned());
        }
        if has(&rules::viommu_above_iommu_width::RULE) {
            // QEMU takes 39 and 48 (`vtd_decide_config` in `hw/i386/intel_iommu.c`).
            let host = broken.facts.unmappable.iter().find_map(|unmappable| unmappable.width());
            let bits = if host.is_some_and(|bits| bits >= 48) { 48 } else { 39 };
            let setting = match self.draft.is_bare() {
                true => format!("aw-bits={bits}"),
                false => format!("<driver aw_bits='{bits}'/>"),
            };
            self.note(format!("give the intel-iommu {bits} address bits yourself: {setting}"));
        }
    }

    /// Says how much memory the IOMMU can address, if the guest has more.
    fn advise_less_memory(&mut self, broken: &Diagnosis) {
        let too_wide = |finding: &Finding| {
            finding.severity == Severity::Error && rules::ram_above_iommu_width::RULE.found(finding)
        };
        let width = broken.facts.unmappable.iter().find_map(|unmappable| unmappable.width());
        let (Some(bits), Some(layout)) = (width, &broken.facts.layout) else { return };
        if !broken.findings.iter().any(too_wide) {
            return;
        }
        if layout.relocated {
            self.note(
                "RAM that QEMU moves above 1 TiB is out of reach of this host's IOMMU; a smaller <maxMemory>, fewer \
                 slots or a \
                 smaller <pcihole64> may keep it below"
                    .to_owned(),
            );
        }
        let most = layout
            .ram_below_4g
            .size()
            .zip(1_u64.checked_shl(bits))
            .and_then(|(low, end)| end.checked_sub(crate::address::ABOVE_4G_START)?.checked_add(low));
        let most = most.map(|most| format!(" (it reaches {} of RAM)", text::size(most))).unwrap_or_default();
        self.note(format!("give the guest less memory, or use a host whose IOMMU has more than {bits} bits{most}"));
    }

    /// The most slots with which the guest starts, where it does with fewer than it has.
    fn fewer_slots(&self) -> Option<u32> {
        let (has, fewest) = self.draft.slots()?;
        let starts = |slots: u32| !self.draft.with_slots(slots).stops();
        if fewest >= has || !starts(fewest) {
            return None;
        }
        let (mut good, mut bad) = (fewest, has);
        while bad.saturating_sub(good) > 1 {
            let middle = good.midpoint(bad);
            if starts(middle) { good = middle } else { bad = middle }
        }
        Some(good)
    }
}
