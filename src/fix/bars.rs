//! What makes room for 64-bit BARs.

use super::search::FixSearch;
use super::{Change, Fix};
use crate::address::{AMD_HT_START, GIB};
use crate::command_line::PCI_MMIO64_MB;
use crate::evaluate::Diagnosis;
use crate::finding::{Finding, Severity};
use crate::guest::Subject;
use crate::host::{FirmwareKind, Host};
use crate::policy::{PhysBitsPolicy, Policy};
use crate::qemu::cpu::{AMD, DEFAULT_PHYS_BITS};
use crate::rules;

/// The windows that OVMF can be told of, as powers of two in MiB: its default of 32 GiB to the most that it takes, 16
/// TiB (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`, `PlatformGetFirstNonAddress`).
const WINDOWS_MIB: std::ops::RangeInclusive<u32> = 15..=24;

/// phys-bits of a host of which they are unknown.
const USUAL_PHYS_BITS: u32 = 48;

/// The rewrite after which firmware puts every BAR where it works, of a guest that starts as it is; `None` if there is
/// nothing to be done about BARs.
///
/// # Errors
/// A sentence for each rewrite that was tried and does not help, or that the policy does not allow.
pub(crate) fn relieve(
    subject: Subject<'_>,
    host: &Host,
    policy: &Policy,
    before: &Diagnosis,
) -> Option<Result<Fix, Vec<String>>> {
    if !in_trouble(before) {
        return None;
    }
    let mut search = FixSearch::new(subject, host, policy, before);
    let fix = search.make_room(&[], before);
    Some(fix.ok_or(search.tried))
}

fn is_about_bars(finding: &&Finding) -> bool {
    finding.severity >= Severity::Warning && rules::is_about_bars(finding)
}

/// Whether firmware loses a BAR or puts it where something does not reach it.
fn in_trouble(diagnosis: &Diagnosis) -> bool {
    diagnosis.findings.iter().any(|finding| is_about_bars(&finding))
}

/// Whether a device is lost that only other devices do not reach before.
fn loses_what_works(before: &Diagnosis, after: &Diagnosis) -> bool {
    let loses = |diagnosis: &Diagnosis| {
        let lost = |finding: &Finding| matches!(finding.rule, "bar-not-placed" | "bar-in-ram");
        diagnosis.findings.iter().any(|finding| finding.severity >= Severity::Warning && lost(finding))
    };
    loses(after) && !loses(before)
}

/// Whether that, and nothing else, stops the guest.
fn stops_for_bars(diagnosis: &Diagnosis) -> bool {
    let mut errors = diagnosis.findings.iter().filter(|finding| finding.severity == Severity::Error);
    diagnosis.stops() && errors.all(|finding| is_about_bars(&finding))
}

/// Whether every BAR also has its place if the guest gets another hot-plug port.
fn has_spare_port(diagnosis: &Diagnosis) -> bool {
    let mut possible = diagnosis.facts.mmio64.iter().flat_map(|mmio64| &mmio64.possible);
    possible.all(|possible| possible.has_spare_port)
}

impl FixSearch<'_> {
    /// Makes room in a guest that `changes` make start by another CPU width, or that is stopped for its BARs only.
    pub(super) fn make_room_too(&mut self, changes: &[Change], after: &Diagnosis) -> Option<Fix> {
        let widens = changes.iter().any(Change::is_width);
        if stops_for_bars(after) || (widens && !after.stops() && in_trouble(after)) {
            return self.make_room(changes, after);
        }
        None
    }

    /// The width of addresses, in place of that among `changes`, with which no BAR is in trouble, or as few as can be
    /// with all firmware that it may be; if that is not enough, with a 64-bit PCI hole for which QEMU moves RAM, and
    /// SeaBIOS up to 1.16.2 the BARs with it.
    pub(super) fn make_room(&mut self, changes: &[Change], before: &Diagnosis) -> Option<Fix> {
        if self.policy.phys_bits == PhysBitsPolicy::Never {
            self.note(
                "a different number of physical address bits may make room for BARs, but the policy does not allow \
                 it"
                .to_owned(),
            );
            self.advise_window(before, &[]);
            return None;
        }
        if let Some(reason) = self.draft.fixed_width() {
            self.note(format!("a different number of physical address bits may make room for BARs, but {reason}"));
            self.advise_window(before, &[]);
            return None;
        }
        let others: Vec<Change> = changes.iter().filter(|change| !change.is_width()).cloned().collect();
        let mut found = self.wider(&others, before);
        if found.as_ref().is_none_or(|(_, after)| in_trouble(after))
            && let Some(hole) = hole_that_moves_ram(before)
        {
            let mut moved = others.clone();
            moved.push(self.draft.hole_of(hole));
            let after = self.draft.with(&moved);
            let wider = self.wider(&moved, &after);
            let alone = (!after.stops() && !in_trouble(&after)).then_some((moved, after));
            let clear = alone.or(wider.filter(|(_, after)| !in_trouble(after)));
            found = clear.or(found);
        }
        let Some((changes, after)) = found.filter(|(_, after)| after.bar_troubles < before.bar_troubles) else {
            let most = self.most_bits(before);
            if stays_for_its_type(before) {
                self.note(
                    "with machine types 7.1 and newer, a larger <pcihole64> moves RAM, and BARs with it".to_owned(),
                );
            }
            self.note(format!(
                "no number of physical address bits makes room for all BARs; the host and its IOMMU allow up to {most}"
            ));
            self.advise_window(before, &self.possible_bits(before));
            return None;
        };
        Some(self.fix(changes, &after))
    }

    /// The fewest phys-bits beside `changes` with which the least firmware loses BARs; of those, with room for
    /// another hot-plug port if there can be.
    fn wider(&self, changes: &[Change], before: &Diagnosis) -> Option<(Vec<Change>, Diagnosis)> {
        let mut best: Option<(usize, bool, Vec<Change>, Diagnosis)> = None;
        for bits in self.possible_bits(before) {
            for width in self.draft.exact_widths(bits) {
                let changes: Vec<Change> = changes.iter().cloned().chain([width]).collect();
                let after = self.draft.with(&changes);
                // A CPU that has the host's bits does not have others.
                if after.facts.phys_bits != Some(bits) || after.stops() || loses_what_works(before, &after) {
                    continue;
                }
                let (troubles, is_full) = (after.bar_troubles, !has_spare_port(&after));
                if best.as_ref().is_none_or(|(least, full, ..)| (troubles, is_full) < (*least, *full)) {
                    best = Some((troubles, is_full, changes, after));
                }
                if (troubles, is_full) == (0, false) {
                    return best.map(|(_, _, changes, after)| (changes, after));
                }
                // Another way to the same width leaves firmware where it is.
                break;
            }
        }
        best.map(|(_, _, changes, after)| (changes, after))
    }

    /// Says which window OVMF could be told of: the smallest with the fewest phys-bits, those that the guest has or
    /// `bits`.
    fn advise_window(&mut self, before: &Diagnosis, bits: &[u32]) {
        let mut possible = before.facts.mmio64.iter().flat_map(|mmio64| &mmio64.possible);
        if !possible.any(|possible| possible.kind == FirmwareKind::Ovmf) {
            return;
        }
        let least = least_window(before);
        let widths = bits.iter().filter_map(|&bits| Some((bits, self.draft.exact_widths(bits).into_iter().next()?)));
        for (bits, width) in std::iter::once(None).chain(widths.map(Some)).map(Option::unzip) {
            let changes = Vec::from_iter(width);
            for mib in WINDOWS_MIB.map(|log| 1_u64 << log).filter(|&mib| mib >= least) {
                let after = self.draft.with_window(&changes, mib);
                let has = bits.is_none_or(|bits| after.facts.phys_bits == Some(bits));
                if has && !after.stops() && !in_trouble(&after) {
                    let bits = bits.map(|bits| format!(", with {bits} physical address bits")).unwrap_or_default();
                    self.note(format!("set {PCI_MMIO64_MB} to {mib} by hand{bits}; then every BAR fits"));
                    return;
                }
            }
        }
    }

    /// The most phys-bits with which BARs stay in reach.
    fn most_bits(&self, before: &Diagnosis) -> u32 {
        let host = self.host.phys_bits.unwrap_or(USUAL_PHYS_BITS);
        let iommu = before.facts.unmappable.iter().find_map(|unmappable| unmappable.width());
        iommu.map_or(host, |bits| bits.min(host))
    }

    /// The phys-bits to try, the best first: no more than that, and enough for the map.
    fn possible_bits(&self, before: &Diagnosis) -> Vec<u32> {
        let most = self.most_bits(before);
        let has = before.facts.phys_bits.unwrap_or(DEFAULT_PHYS_BITS);
        let needed = before.facts.phys_bits_needed.unwrap_or(DEFAULT_PHYS_BITS);
        let more = needed.max(has.saturating_add(1))..=most;
        match self.policy.phys_bits {
            // Too many: as many as may be.
            _ if has > most => (needed..=most).rev().collect(),
            PhysBitsPolicy::Host => more.rev().collect(),
            _ => more.collect(),
        }
    }
}

/// MiB of all BARs together. A window of less is either too small or, where OVMF takes it for a minimum, no change.
fn least_window(diagnosis: &Diagnosis) -> u64 {
    let bars = diagnosis.facts.mmio64.iter().flat_map(|mmio64| &mmio64.bars);
    bars.fold(0_u64, |sum, bar| sum.saturating_add(bar.size)) >> 20
}

/// Whether the BARs follow RAM, and only the machine type keeps that below 1 TiB.
fn stays_for_its_type(diagnosis: &Diagnosis) -> bool {
    let facts = &diagnosis.facts;
    facts.enforces_amd_1tb_hole == Some(false) && facts.cpu_vendor.as_deref() == Some(AMD) && follows_ram(diagnosis)
}

/// Whether the firmware is known to be SeaBIOS. Up to 1.16.2 it places BARs after RAM.
fn follows_ram(diagnosis: &Diagnosis) -> bool {
    let possible = diagnosis.facts.mmio64.iter().flat_map(|mmio64| &mmio64.possible);
    let kinds: Vec<FirmwareKind> = possible.map(|possible| possible.kind).collect();
    kinds == [FirmwareKind::SeaBios]
}

/// The least 64-bit PCI hole in whole GiB, in bytes, for which QEMU moves RAM above 1 TiB; `None` if none does, or
/// if it is not known that BARs follow RAM. QEMU moves it if the map, hole included, reaches 1012 GiB
/// (`pc_memory_init` of `hw/i386/pc.c`).
fn hole_that_moves_ram(before: &Diagnosis) -> Option<u64> {
    let facts = &before.facts;
    let layout = facts.layout.as_ref().filter(|layout| !layout.relocated)?;
    let can_move = facts.enforces_amd_1tb_hole == Some(true) && facts.cpu_vendor.as_deref() == Some(AMD);
    let missing = AMD_HT_START.checked_sub(layout.pci_hole64_start).filter(|_| can_move && follows_ram(before))?;
    missing.checked_div(GIB)?.checked_add(1)?.checked_mul(GIB)
}
