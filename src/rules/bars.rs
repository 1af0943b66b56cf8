//! What the rules about BARs have in common.

use super::{bar_above_host_width, bar_above_iommu_width, bar_in_ram, bar_in_reserved_range, bar_not_placed};
use crate::address::GpaRange;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::mmio64::{Bar, Likelihood, Mmio64, Possible, UnsizedDevice};
use crate::text;
use crate::xml::Span;

/// A BAR, or all of a device whose BARs are unknown, in trouble.
pub(crate) struct Hit {
    /// What it is called.
    name: String,
    /// Where its device is written.
    span: Span,
    /// Where it lies, if it has an address.
    place: Option<GpaRange>,
}

impl Hit {
    /// A BAR at `place`.
    pub fn bar(bar: &Bar, place: Option<GpaRange>) -> Self {
        Self { name: format!("{} ({})", bar.name(), text::size(bar.size)), span: bar.origin.span(), place }
    }

    /// The BARs of a device whose sizes are unknown, in a window for them.
    pub fn device(device: &UnsizedDevice, which: &str, window: Option<GpaRange>) -> Self {
        let name = format!("every {which} of {}", text::quoted(&device.device));
        Self { name, span: device.origin.span(), place: window }
    }
}

/// The BARs that are in trouble.
pub(super) struct Trouble<'m> {
    /// Whether all firmware that it may be makes some.
    pub likelihood: Likelihood,
    /// The likeliest that does.
    pub firmware: &'m Possible,
    /// What is in trouble with that one; not empty.
    hits: Vec<Hit>,
}

/// The trouble that `hits` finds with the firmware that it may be.
pub(super) fn trouble<'m>(mmio64: &'m Mmio64, hits: impl Fn(&'m Possible) -> Vec<Hit>) -> Option<Trouble<'m>> {
    let mut found = mmio64.possible.iter().map(|possible| (possible, hits(possible)));
    let all = mmio64.possible.iter().all(|possible| possible.exact && !hits(possible).is_empty());
    let likelihood = if all { Likelihood::Certain } else { Likelihood::Possible };
    let (firmware, hits) = found.find(|(_, hits)| !hits.is_empty())?;
    Some(Trouble { likelihood, firmware, hits })
}

impl Trouble<'_> {
    /// A sentence about what is in trouble: `one` of one, `more` of several, `may` if it is not certain.
    pub fn title(&self, one: &str, more: &str, may: &str) -> String {
        let first = self.hits.first().map_or("", |hit| hit.name.as_str());
        let others = self.hits.len().saturating_sub(1);
        let verb = match (self.likelihood, others) {
            (Likelihood::Possible, _) => may,
            (Likelihood::Certain, 0) => one,
            (Likelihood::Certain, _) => more,
        };
        if others > 0 { format!("{first} and {others} more {verb}") } else { format!("{first} {verb}") }
    }

    /// Where the first lies.
    pub fn first_place(&self) -> Option<GpaRange> {
        self.hits.first()?.place
    }

    /// Where the first lies, and with which firmware.
    pub fn place(&self) -> String {
        let firmware = &self.firmware.firmware;
        match self.hits.first().and_then(|hit| hit.place) {
            Some(place) => format!("with {firmware} it lies at {}", text::range(place)),
            None => format!("{firmware} gives it none"),
        }
    }

    /// How bad it is that other devices cannot reach them.
    pub fn peer_to_peer_severity(&self, guest: &Guest<'_>) -> Severity {
        match self.likelihood {
            Likelihood::Certain if guest.needs_peer_to_peer => Severity::Error,
            _ => Severity::Warning,
        }
    }

    /// The finding, which points at every device.
    pub fn finding(&self, rule: &'static str, severity: Severity, title: String, cause: String) -> Finding {
        /// Places that are shown; more would hide the others.
        const MOST: usize = 8;
        let label = |hit: &Hit| match hit.place {
            Some(place) => format!("at {}", text::range(place)),
            None => "no address".to_owned(),
        };
        let mut hits = self.hits.iter();
        let first = hits.next();
        let span = first.map_or(Span { start: 0, end: 0 }, |hit| hit.span);
        let mut finding =
            Finding::new(rule, severity, title, span, first.map(label).unwrap_or_default()).because(cause);
        let mut seen = vec![span];
        for hit in hits {
            if seen.len() < MOST && !seen.contains(&hit.span) {
                seen.push(hit.span);
                finding = finding.with_label(hit.span, label(hit));
            }
        }
        finding
    }
}

/// How many kinds of trouble there are, over all firmware that it may be.
pub(crate) fn count(guest: &Guest<'_>) -> usize {
    let Some(mmio64) = &guest.mmio64 else { return 0 };
    let kinds = [
        bar_in_reserved_range::hits,
        bar_above_iommu_width::hits,
        bar_not_placed::hits,
        bar_in_ram::hits,
        bar_above_host_width::hits,
    ];
    let of = |possible: &Possible| kinds.iter().filter(|hits| !hits(guest, mmio64, possible).is_empty()).count();
    mmio64.possible.iter().map(of).sum()
}

/// The BARs of passthrough devices that reach above what `bits` address bits reach.
pub(super) fn above(mmio64: &Mmio64, possible: &Possible, bits: u32) -> Vec<Hit> {
    let beyond = |place: GpaRange| place.end.checked_shr(bits).is_some_and(|rest| rest > 0);
    let passed = mmio64.placed(possible).filter(|(bar, place)| bar.passed && place.is_some_and(beyond));
    passed.map(|(bar, place)| Hit::bar(bar, place)).collect()
}

/// The part of the guest's memory in `range`, room for memory hot-plug included.
pub(super) fn in_memory(guest: &Guest<'_>, range: GpaRange) -> Option<GpaRange> {
    in_ram(guest, range).or_else(|| guest.layout()?.device_memory?.intersection(range))
}

/// The part of the guest's RAM in `range`, plugged memory devices included.
pub(super) fn in_ram(guest: &Guest<'_>, range: GpaRange) -> Option<GpaRange> {
    let plugged = guest.plugged.iter().flatten().map(|device| device.range);
    guest.layout()?.ram().chain(plugged).find_map(|memory| memory.intersection(range))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::address::GIB;
    use crate::command_line::Origin;
    use crate::domain;
    use crate::guest::Setting;
    use crate::host::{FirmwareKind, Host, builtin};
    use crate::machine::{NEWEST, Resolved, resolve};
    use crate::policy::{PeerToPeer, Policy};
    use crate::qemu::cpu::HostCpu;
    use crate::xml::Document;

    /// What one firmware makes of BARs: its name, its window, and the address of each; all in GiB.
    pub(crate) type Placed<'a> = (&'a str, Option<(u64, u64)>, &'a [Option<u64>]);

    /// A guest to place BARs in.
    pub(crate) struct BarCase<'a> {
        pub machine: &'a str,
        pub bits: u32,
        pub ram: u64,
        pub peer_to_peer: bool,
        pub iommu_bits: Option<u32>,
        /// Sizes in GiB of the passthrough device's BARs; none if they are unknown.
        pub bars: &'a [u64],
        pub placed: &'a [Placed<'a>],
    }

    impl Default for BarCase<'_> {
        fn default() -> Self {
            Self {
                machine: "pc-q35-7.2",
                bits: 40,
                ram: 64,
                peer_to_peer: false,
                iommu_bits: None,
                bars: &[128],
                placed: &[],
            }
        }
    }

    fn mmio64(case: &BarCase<'_>, origin: Origin) -> Mmio64 {
        let device = || "0000:41:00.0".to_owned();
        let bar = |&size: &u64| Bar { device: device(), index: 1, size: size * GIB, passed: true, origin };
        let possible = |&(firmware, window, addresses): &Placed<'_>| Possible {
            firmware: firmware.to_owned(),
            kind: if firmware.starts_with("OVMF") { FirmwareKind::Ovmf } else { FirmwareKind::SeaBios },
            window: window.and_then(|(start, end)| GpaRange::with_size(start * GIB, (end - start) * GIB)),
            addresses: addresses.iter().map(|at| at.map(|at| at * GIB)).collect(),
            exact: true,
            has_spare_port: true,
        };
        Mmio64 {
            bars: case.bars.iter().map(bar).collect(),
            unsized_devices: if case.bars.is_empty() {
                vec![UnsizedDevice { device: device(), origin }]
            } else {
                Vec::new()
            },
            possible: case.placed.iter().map(possible).collect(),
        }
    }

    /// What a rule finds: severity, title, cause.
    pub(crate) fn found(rule: &super::super::Rule, case: &BarCase<'_>) -> Vec<(Severity, String, String)> {
        let xml = format!(
            "<domain type='kvm'><name>a</name><memory unit='GiB'>{}</memory><os><type machine='{}'>hvm</type></os>\
             <cpu><maxphysaddr mode='emulate' bits='{}'/></cpu><devices><hostdev type='pci'><source>\
             <address bus='0x41'/></source></hostdev></devices></domain>",
            case.ram, case.machine, case.bits
        );
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let domain = domain::read(&document).expect("a domain");
        let host = Host { iommu_bits: case.iommu_bits, ..builtin("amd-epyc").expect("built in") };
        let Resolved::Known(machine) = resolve(case.machine) else { panic!("{}", case.machine) };
        let cpu = HostCpu { vendor: "AuthenticAMD", phys_bits: 48 };
        let setting = Setting { host: &host, cpu, qemu: NEWEST, machine: &machine };
        let written = crate::libvirt::write(&domain, &host);
        let peer_to_peer = if case.peer_to_peer { PeerToPeer::Required } else { PeerToPeer::Optional };
        let policy = Policy { peer_to_peer, ..Policy::default() };
        let mut guest = Guest::new((&domain).into(), &written.line, &written.refusals, setting, &policy);
        guest.mmio64 = Some(mmio64(case, guest.passthrough[0].origin));
        let mut findings = Vec::new();
        (rule.check)(&guest, &mut findings);
        findings.into_iter().map(|found| (found.severity, found.title, found.cause.unwrap_or_default())).collect()
    }
}
