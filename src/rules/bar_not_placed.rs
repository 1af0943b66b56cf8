//! `bar-not-placed`.

use super::bars::{self, Hit};
use super::page::*;
use super::{Refuser, Rule};
use crate::address::GIB;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::host::FirmwareKind;
use crate::mmio64::{Mmio64, Possible};
use crate::text;

pub(crate) const RULE: Rule = Rule {
    id: "bar-not-placed",
    summary: "firmware has no room for a device's BAR",
    by: Refuser::Nobody,
    stops: false,
    check,
    page: &PAGE,
};

/// BARs below this size, in bytes, find room below 4 GiB (`PciBusDxe` of edk2); measured with virtio's.
const SMALL: u64 = GIB;

/// The BARs without an address.
pub(super) fn hits(guest: &Guest<'_>, mmio64: &Mmio64, possible: &Possible) -> Vec<Hit> {
    let lost = mmio64.placed(possible).filter(|(bar, place)| place.is_none() && bar.size >= SMALL);
    let mut hits: Vec<Hit> = lost.map(|(bar, place)| Hit::bar(bar, place)).collect();
    // If its window lies in RAM, OVMF has none at all.
    if possible.kind == FirmwareKind::Ovmf
        && possible.window.is_some_and(|window| bars::in_memory(guest, window).is_some())
    {
        hits.extend(mmio64.unsized_devices.iter().map(|device| Hit::device(device, "large BAR", None)));
    }
    hits
}

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let Some(mmio64) = &guest.mmio64 else { return };
    let Some(trouble) = bars::trouble(mmio64, |possible| hits(guest, mmio64, possible)) else { return };
    let title = trouble.title("gets no address", "get no address", "may get no address");
    let firmware = &trouble.firmware.firmware;
    let window = match trouble.firmware.window {
        Some(window) if bars::in_memory(guest, window).is_some() => {
            format!("the window of {firmware} for 64-bit BARs, {}, lies in RAM", text::range(window))
        }
        Some(window) => {
            format!("the window of {firmware} for 64-bit BARs, {}, has no room for it", text::range(window))
        }
        None => format!("{firmware} has no room for it"),
    };
    let unknown = match mmio64.possible.len() {
        0 | 1 => "",
        _ => "; the guest's firmware version is unknown, and other versions may have room",
    };
    let cause = format!("the guest starts, but cannot use the device's memory: {window}{unknown}");
    findings.push(trouble.finding(RULE.id, Severity::Warning, title, cause));
}

const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "QEMU starts, but the guest's firmware has no room for a 64-bit BAR. The guest sees the device without \
             its memory, and the driver fails with messages such as `BAR1 is 0M @ 0x0` or `This PCI I/O region \
             assigned to your NVIDIA device is invalid`. Typically three of four GPUs work, or none does.",
    )],
    cause: &[
        shared::WINDOW,
        Text(
            "OVMF places every BAR at a multiple of its size, and keeps at least a 256th of the window for each \
             hot-plug port. If all of that does not fit, it leaves out the largest device first: four BARs of 128 \
             GiB need 42 bits, eight need 43, and 44 with one more port. If RAM reaches into the window, OVMF has \
             no window at all: this happens with an AMD vCPU, 40 bits, a machine type of 7.1 or newer and 766 to \
             862 GiB of RAM (q35).",
        ),
        Text(
            "The fw_cfg entry `opt/ovmf/X-PciMmio64Mb` sets the size of the window in MiB. OVMF treats it as a \
             minimum; 2025.05 and newer, and 2025.02 of Debian 13, use exactly this size, which may make the \
             window smaller.",
        ),
    ],
    history: &[],
    errors: &[],
    fix: &[
        Text(
            "Give the guest enough physical address bits. The top eighth of its addresses is 256 GiB with 41 bits, \
             512 GiB with 42, 1 TiB with 43, 2 TiB with 44 and 8 TiB with 46:",
        ),
        shared::FIX_WARNINGS,
        shared::MORE_BITS,
        Text(
            "Or set a larger window with `X-PciMmio64Mb`, a power of two that holds all BARs. With at least 41 \
             bits, 1048576 puts the window at 1 TiB. Do not use 524288 in a guest with less than 512 GiB of RAM: \
             that window reaches the range that AMD hosts reserve below 1 TiB.",
        ),
        Xml("<sysinfo type='fwcfg'>\n\
             \x20 <entry name='opt/ovmf/X-PciMmio64Mb'>1048576</entry>\n\
             </sysinfo>"),
    ],
    verify: &[
        shared::WHERE_BARS_ARE[0],
        shared::WHERE_BARS_ARE[1],
        Text("A BAR without an address is missing from that list, or lspci says `<unassigned>`."),
    ],
    background: &[Topic::Bars, Topic::Looking],
};

#[cfg(test)]
mod tests {
    use super::super::bars::tests::{BarCase, found};
    use super::*;

    /// Three of four GPUs under X-PciMmio64Mb=524288, OVMF 2025.02: 512, 640, 768, none.
    #[test]
    fn a_bar_without_an_address_is_a_warning() {
        let placed = [("OVMF 2025.02", Some((512, 1024)), &[Some(512), Some(640), Some(768), None][..])];
        let findings = found(&RULE, &BarCase { bars: &[128; 4], placed: &placed, ..BarCase::default() });
        let [(severity, title, cause)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((*severity, title.as_str()), (Severity::Warning, "BAR 1 of 0000:41:00.0 (128 GiB) gets no address"));
        assert!(cause.contains("512–1024 GiB, has no room"), "{cause}");
        let none = [("OVMF 2025.02", Some((896, 1024)), &[None; 4][..])];
        let findings = found(&RULE, &BarCase { bars: &[128; 4], placed: &none, ..BarCase::default() });
        assert!(findings[0].1.ends_with("and 3 more get no address"), "{findings:?}");
    }

    #[test]
    fn unknown_firmware_is_called_unknown() {
        let placed =
            [("OVMF 2026.08", Some((896, 1024)), &[Some(896)][..]), ("OVMF 2022.08", Some((64, 96)), &[None][..])];
        let findings = found(&RULE, &BarCase { bars: &[128], placed: &placed, ..BarCase::default() });
        assert!(findings[0].1.ends_with("may get no address"), "{findings:?}");
        assert!(findings[0].2.contains("the window of OVMF 2022.08"), "{findings:?}");
        assert!(
            findings[0].2.ends_with("firmware version is unknown, and other versions may have room"),
            "{findings:?}"
        );
    }

    /// OVMF 2025.02 with 800 GiB: no 64-bit BAR has an address.
    #[test]
    fn a_window_in_ram_is_none() {
        let placed = [("OVMF 2025.02", Some((768, 896)), &[][..])];
        let case = BarCase { ram: 800, bars: &[], placed: &placed, ..BarCase::default() };
        let findings = found(&RULE, &case);
        assert_eq!(findings[0].1, "every large BAR of 0000:41:00.0 gets no address");
        assert!(findings[0].2.contains("768–896 GiB, lies in RAM"), "{findings:?}");
        assert!(found(&RULE, &BarCase { ram: 700, ..case }).is_empty());
    }
}
