//! `bar-in-ram`.

use super::bars::{self, Hit};
use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::host::FirmwareKind;
use crate::mmio64::{Mmio64, Possible};

pub(crate) const RULE: Rule = Rule {
    id: "bar-in-ram",
    summary: "firmware puts a device's BAR inside the guest's RAM",
    by: Refuser::Nobody,
    stops: false,
    check,
    page: &PAGE,
};

/// The BARs that RAM hides.
pub(super) fn hits(guest: &Guest<'_>, mmio64: &Mmio64, possible: &Possible) -> Vec<Hit> {
    let in_memory = |place| bars::in_memory(guest, place).is_some();
    let inside = mmio64.placed(possible).filter(|(_, place)| place.is_some_and(in_memory));
    let mut hits: Vec<Hit> = inside.map(|(bar, place)| Hit::bar(bar, place)).collect();
    // OVMF leaves BARs without an address there.
    if possible.kind == FirmwareKind::SeaBios && possible.window.is_some_and(in_memory) {
        let devices = mmio64.unsized_devices.iter();
        hits.extend(devices.map(|device| Hit::device(device, "64-bit BAR", possible.window)));
    }
    hits
}

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(mmio64) = &guest.mmio64 else { return };
    let Some(trouble) = bars::trouble(mmio64, |possible| hits(guest, mmio64, possible)) else { return };
    let in_memory = trouble.first_place().and_then(|place| bars::in_memory(guest, place));
    let is_room = in_memory.is_some_and(|part| bars::in_ram(guest, part).is_none());
    let (what, hides) =
        if is_room { ("the window for memory hot-plug", "RAM plugged there") } else { ("the guest's RAM", "RAM") };
    let title = trouble.title(&format!("lies in {what}"), &format!("lie in {what}"), &format!("may lie in {what}"));
    let cause = format!("{hides} hides the BAR, so the guest cannot use the device; {}", trouble.place());
    let finding = trouble.finding(RULE.id, Severity::Warning, title, cause);
    findings.push(Finding { range: in_memory, ..finding });
}

const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "QEMU starts, but the guest's firmware puts 64-bit BARs at addresses where the guest has RAM or room \
             for memory hot-plug. RAM hides them, so the guest cannot reach the device. This affects emulated \
             devices as well: a guest that loses a virtio disk does not boot. Linux in the guest moves some of \
             these BARs, and prints `can't claim; address conflict with System RAM` for others.",
    )],
    cause: &[
        shared::WINDOW,
        Text(
            "For a guest with an AMD vCPU, 40 bits and a machine type of 7.1 or newer, QEMU marks 1012–1024 GiB as \
             reserved in the guest's E820 map. SeaBIOS 1.16.3 and newer move their window down by its own size if \
             it touches that range, without checking for RAM. With more than 766 GiB of RAM (q35), or with more \
             than 384 GiB of BARs, there is RAM.",
        ),
    ],
    history: &[Text(
        "Measured with SeaBIOS 1.16.3 and 1.17.0 (QEMU 10.0 and 11.1), under TCG and KVM. SeaBIOS up to 1.16.2 \
             places BARs after RAM.",
    )],
    errors: &[],
    fix: &[
        Text("Give the guest at least 41 physical address bits. Its BARs then go above 1 TiB:"),
        shared::FIX_WARNINGS,
        shared::MORE_BITS,
        Text(
            "Changing to OVMF does not help with 766 to 862 GiB of RAM: OVMF gives such BARs no address (see \
             bar-not-placed).",
        ),
    ],
    verify: &[shared::WHERE_BARS_ARE[0], shared::WHERE_BARS_ARE[1], shared::MAP[0], shared::MAP[1]],
    background: &[Topic::Bars, Topic::Looking],
};

#[cfg(test)]
mod tests {
    use super::super::bars::tests::{BarCase, found};
    use super::*;

    /// SeaBIOS 1.16.3, 800 GiB, AMD, 40 bits, machine 7.2: measured at 768.
    #[test]
    fn a_bar_in_ram_is_a_warning() {
        let placed = [("SeaBIOS 1.16.3", Some((768, 896)), &[Some(768)][..])];
        let case = BarCase { ram: 800, bars: &[16], placed: &placed, ..BarCase::default() };
        let findings = found(&RULE, &case);
        let [(severity, title, cause)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(*severity, Severity::Warning);
        assert_eq!(title, "BAR 1 of 0000:41:00.0 (16 GiB) lies in the guest's RAM");
        assert!(cause.ends_with("with SeaBIOS 1.16.3 it lies at 768–784 GiB"), "{cause}");
        assert!(found(&RULE, &BarCase { ram: 700, ..case }).is_empty());
    }

    #[test]
    fn any_bar_of_unknown_size_is_hidden_where_the_window_is() {
        let old = ("SeaBIOS 1.16.2", Some((802, 803)), &[][..]);
        let placed = [("SeaBIOS 1.16.3", Some((768, 896)), &[][..]), old];
        let findings = found(&RULE, &BarCase { ram: 800, bars: &[], placed: &placed[..1], ..BarCase::default() });
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].1, "every 64-bit BAR of 0000:41:00.0 lies in the guest's RAM");
        let may = found(&RULE, &BarCase { ram: 800, bars: &[], placed: &placed, ..BarCase::default() });
        assert!(may[0].1.contains(" may lie in "), "{may:?}");
    }
}
