//! From a [`Fix`] to edits of the text, and the text with nothing else changed.

#[cfg(feature = "cli")]
use std::collections::BTreeMap;
#[cfg(feature = "cli")]
use std::ops::Range;

#[cfg(feature = "cli")]
use crate::argv::Call;
#[cfg(feature = "cli")]
use crate::command_line::Launch;
use crate::domain::{MemoryModel, pci_hole64_element, root_controller};
#[cfg(feature = "cli")]
use crate::fix::arguments::{self, ArgumentEdit};
use crate::fix::{Change, Fix};
use crate::xml::edit::{self, Edit, EditError};
use crate::xml::{Document, Element};

/// The document with `fix` made.
///
/// # Errors
/// The fix does not fit the document; it was planned for another one.
pub fn rewrite(document: &Document<'_>, fix: &Fix) -> Result<String, EditError> {
    edit::apply(document.source(), &edits(document, fix))
}

/// The edits that `fix` takes.
pub fn edits(document: &Document<'_>, fix: &Fix) -> Vec<Edit> {
    fix.changes.iter().flat_map(|change| change_edits(document, change)).collect()
}

/// The text of a call with `fix` made; quotes, blanks and line ends are kept.
///
/// # Errors
/// The fix does not fit the call; it was planned for another one.
#[cfg(feature = "cli")]
pub fn rewrite_call(call: &Call<'_>, launch: &Launch, fix: &Fix) -> Result<String, EditError> {
    edit::apply(call.source(), &call_edits(call, launch, fix)?)
}

/// The edits that `fix` takes in the text of a call.
///
/// # Errors
/// The fix does not fit the call; it was planned for another one.
#[cfg(feature = "cli")]
pub fn call_edits(call: &Call<'_>, launch: &Launch, fix: &Fix) -> Result<Vec<Edit>, EditError> {
    let mut parts: BTreeMap<usize, Vec<(Range<usize>, &str)>> = BTreeMap::new();
    let mut written = Vec::new();
    let edits = arguments::edits(launch, &fix.changes);
    for edit in &edits {
        match edit {
            ArgumentEdit::Part { number, part, text } => parts.entry(*number).or_default().push((part.clone(), text)),
            ArgumentEdit::First(words) => written.push(call.insertion(words).map(|inserted| vec![inserted])),
        }
    }
    written.extend(parts.into_iter().map(|(number, parts)| call.replacements(number, &parts)));
    let written: Option<Vec<_>> = written.into_iter().collect();
    let written = written.ok_or(EditError(call.span().start))?;
    Ok(written.into_iter().flatten().map(|(span, text)| Edit { span, text }).collect())
}

fn change_edits(document: &Document<'_>, change: &Change) -> Vec<Edit> {
    let root = document.root();
    match change {
        Change::Machine { to, .. } => {
            let os_type = root.descend(&["os", "type"]);
            os_type.map(|os_type| edit::set_attribute(document, os_type, "machine", to)).into_iter().collect()
        }
        Change::EmulateBits(bits) => width_edits(document, "emulate", [Some(*bits), None]),
        Change::PassHostBits => width_edits(document, "passthrough", [None, None]),
        #[cfg(feature = "cli")]
        Change::PassHostBitsUpTo(limit) => width_edits(document, "passthrough", [None, Some(*limit)]),
        Change::PciHole64(kib) => hole_edits(document, *kib),
        Change::FreeAddress { device, .. } => {
            let address = memory_device(root, *device).and_then(address_of);
            address.and_then(|address| edit::remove_attribute(document, address, "base")).into_iter().collect()
        }
        Change::DeviceAddress { device, to, .. } => memory_device(root, *device)
            .and_then(address_of)
            .map(|address| edit::set_attribute(document, address, "base", &format!("{to:#x}")))
            .into_iter()
            .collect(),
        // Those of a command line.
        #[cfg(feature = "cli")]
        Change::PhysBits(_) | Change::HostPhysBits | Change::HostPhysBitsUpTo(_) | Change::HoleSize(_) => Vec::new(),
    }
}

/// The memory device with this index.
fn memory_device<'d>(root: Element<'d>, index: usize) -> Option<Element<'d>> {
    root.child("devices").and_then(|devices| devices.children_named("memory").nth(index))
}

/// The element whose `base` is the guest-physical address of a memory device.
fn address_of(memory: Element<'_>) -> Option<Element<'_>> {
    let virtio = [MemoryModel::VirtioMem, MemoryModel::VirtioPmem]
        .iter()
        .any(|model| memory.value("model") == Some(model.name()));
    if virtio { memory.descend(&["target", "address"]) } else { memory.child("address") }
}

/// Sets `<maxphysaddr>` with these values of `bits` and `limit`.
fn width_edits(document: &Document<'_>, mode: &str, values: [Option<u32>; 2]) -> Vec<Edit> {
    let root = document.root();
    let told = ["bits", "limit"].into_iter().zip(values.map(|value| value.map(|value| value.to_string())));
    let cpu = root.child("cpu");
    if let Some(width) = cpu.and_then(|cpu| cpu.child("maxphysaddr")) {
        let mut edits = vec![edit::set_attribute(document, width, "mode", mode)];
        edits.extend(told.filter_map(|(name, value)| match value {
            Some(value) => Some(edit::set_attribute(document, width, name, &value)),
            None => edit::remove_attribute(document, width, name),
        }));
        return edits;
    }
    let told: String = told.filter_map(|(name, value)| Some(format!(" {name}='{}'", value?))).collect();
    let markup = format!("<maxphysaddr mode='{mode}'{told}/>");
    if let Some(cpu) = cpu {
        return vec![edit::insert_first_child(document, cpu, &markup)];
    }
    // libvirt writes <cpu> after <features>, and that after <os>.
    let sibling = ["features", "os", "vcpu", "memory"].iter().find_map(|name| root.child(name));
    let lines = [(0, "<cpu>"), (1, markup.as_str()), (0, "</cpu>")];
    sibling.map(|sibling| edit::insert_after(document, sibling, &lines)).into_iter().collect()
}

/// The size in the unit the element has, where it comes out even, and in KiB otherwise.
fn hole_edits(document: &Document<'_>, kib: u64) -> Vec<Edit> {
    let Some(hole) = document.root().child("devices").and_then(pci_hole64_element) else {
        return new_hole_edits(document, kib);
    };
    let unit_kib = match hole.value("unit").unwrap_or("KiB") {
        "KiB" => Some(1),
        "MiB" => Some(1 << 10),
        "GiB" => Some(1 << 20),
        _ => None,
    };
    let even = unit_kib.filter(|&unit| kib.is_multiple_of(unit));
    let number = even.and_then(|unit| kib.checked_div(unit)).unwrap_or(kib);
    let mut edits = vec![Edit { span: edit::value_span(document, hole), text: number.to_string() }];
    if even.is_none() {
        edits.push(edit::set_attribute(document, hole, "unit", "KiB"));
    }
    edits
}

/// A size for the root controller that has none; libvirt makes that controller if there is none.
fn new_hole_edits(document: &Document<'_>, kib: u64) -> Vec<Edit> {
    let Some(devices) = document.root().child("devices") else { return Vec::new() };
    let markup = match kib.checked_div(1 << 20).filter(|_| kib.is_multiple_of(1 << 20)) {
        Some(gib) => format!("<pcihole64 unit='GiB'>{gib}</pcihole64>"),
        None => format!("<pcihole64 unit='KiB'>{kib}</pcihole64>"),
    };
    if let Some(root) = root_controller(devices) {
        return vec![edit::insert_first_child(document, root, &markup)];
    }
    let machine = document.root().descend(&["os", "type"]).and_then(|os_type| os_type.value("machine"));
    let model = if root_is_pcie(machine) { "pcie-root" } else { "pci-root" };
    let (start, end) = (format!("<controller type='pci' index='0' model='{model}'>"), "</controller>");
    if let Some(emulator) = devices.child("emulator") {
        let lines = [(0, start.as_str()), (1, &markup), (0, end)];
        return vec![edit::insert_after(document, emulator, &lines)];
    }
    vec![edit::insert_first_child(document, devices, &format!("{start}{markup}{end}"))]
}

/// Whether the root bus of this machine type is PCI Express, if the domain does not say so itself.
pub(super) fn root_is_pcie(machine: Option<&str>) -> bool {
    machine.is_some_and(|machine| machine.contains("q35"))
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    fn after(xml: &str, change: Change) -> String {
        let document = Document::parse(xml.as_bytes()).expect("well-formed");
        let fix = Fix { changes: vec![change], assumption: None, spare_bits: None, moves_ram: false };
        rewrite(&document, &fix).expect("it fits")
    }

    #[test]
    fn a_limit_takes_the_place_of_bits() {
        let limit = || Change::PassHostBitsUpTo(39);
        assert_eq!(
            after("<domain><cpu><maxphysaddr mode='emulate' bits='46'/></cpu></domain>", limit()),
            "<domain><cpu><maxphysaddr mode='passthrough' limit='39'/></cpu></domain>"
        );
        assert_eq!(
            after("<domain><cpu mode='host-passthrough'/></domain>", limit()),
            "<domain><cpu mode='host-passthrough'><maxphysaddr mode='passthrough' limit='39'/></cpu></domain>"
        );
        assert_eq!(
            after("<domain><cpu><maxphysaddr mode='passthrough' limit='39'/></cpu></domain>", Change::EmulateBits(41)),
            "<domain><cpu><maxphysaddr mode='emulate' bits='41'/></cpu></domain>"
        );
    }

    #[test]
    fn a_missing_hole_is_added() {
        let hole = || Change::PciHole64(640 << 20);
        let with = |devices: &str| format!("<domain><os><type machine='q35'>hvm</type></os>{devices}</domain>");
        let added = "<pcihole64 unit='GiB'>640</pcihole64>";
        assert_eq!(
            after(&with("<devices><controller type='pci' model='pcie-root'/></devices>"), hole()),
            with(&format!("<devices><controller type='pci' model='pcie-root'>{added}</controller></devices>"))
        );
        assert_eq!(
            after(&with("<devices><emulator>a</emulator></devices>"), hole()),
            with(&format!(
                "<devices><emulator>a</emulator><controller type='pci' index='0' model='pcie-root'>{added}</controller></devices>"
            ))
        );
    }
}
