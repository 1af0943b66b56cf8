//! From a [`Fix`] to edits of the text, and the text with nothing else changed.

#[cfg(feature = "cli")]
use crate::argv::Call;
#[cfg(feature = "cli")]
use crate::command_line::Launch;
use crate::domain::{MemoryModel, pci_hole64_element};
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
    let edits = arguments::edits(launch, &fix.changes).into_iter().map(|edit| {
        let written = match &edit {
            ArgumentEdit::Part { number, part, text } => call.replacement(*number, part.clone(), text),
            ArgumentEdit::First(words) => call.insertion(words),
        };
        written.map(|(span, text)| Edit { span, text }).ok_or(EditError(call.span().start))
    });
    edits.collect()
}

fn change_edits(document: &Document<'_>, change: &Change) -> Vec<Edit> {
    let root = document.root();
    match change {
        Change::Machine { to, .. } => {
            let os_type = root.descend(&["os", "type"]);
            os_type.map(|os_type| edit::set_attribute(document, os_type, "machine", to)).into_iter().collect()
        }
        Change::EmulateBits(bits) => width_edits(document, "emulate", Some(*bits)),
        Change::PassHostBits => width_edits(document, "passthrough", None),
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
        Change::PhysBits(_) | Change::HostPhysBits | Change::HoleSize(_) => Vec::new(),
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

fn width_edits(document: &Document<'_>, mode: &str, bits: Option<u32>) -> Vec<Edit> {
    let root = document.root();
    let bits = bits.map(|bits| bits.to_string());
    let cpu = root.child("cpu");
    if let Some(width) = cpu.and_then(|cpu| cpu.child("maxphysaddr")) {
        let mut edits = vec![edit::set_attribute(document, width, "mode", mode)];
        match &bits {
            Some(bits) => edits.push(edit::set_attribute(document, width, "bits", bits)),
            None => edits.extend(edit::remove_attribute(document, width, "bits")),
        }
        edits.extend(edit::remove_attribute(document, width, "limit"));
        return edits;
    }
    let bits = bits.map_or(String::new(), |bits| format!(" bits='{bits}'"));
    let markup = format!("<maxphysaddr mode='{mode}'{bits}/>");
    if let Some(cpu) = cpu {
        return vec![edit::insert_first_child(document, cpu, &markup)];
    }
    // libvirt writes <cpu> behind <features>, and that behind <os>.
    let sibling = ["features", "os", "vcpu", "memory"].iter().find_map(|name| root.child(name));
    let lines = [(0, "<cpu>"), (1, markup.as_str()), (0, "</cpu>")];
    sibling.map(|sibling| edit::insert_after(document, sibling, &lines)).into_iter().collect()
}

/// The size in the unit the element has, where it comes out even, and in KiB otherwise.
fn hole_edits(document: &Document<'_>, kib: u64) -> Vec<Edit> {
    let Some(hole) = document.root().child("devices").and_then(pci_hole64_element) else { return Vec::new() };
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
