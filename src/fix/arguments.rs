//! From changes to edits of QEMU's arguments, in whatever option and spelling each of them is.

use std::collections::HashMap;
use std::ops::Range;

use super::Change;
use crate::command_line::{Device, Launch, Model, Origin, Property};
use crate::machine::{Family, Resolved, resolve};
use crate::qemu::memory_device::MemoryDeviceKind;

/// An edit of the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentEdit {
    /// Other text in the place of bytes of an argument.
    Part {
        /// Which argument.
        number: usize,
        /// Its bytes.
        part: Range<usize>,
        /// The text.
        text: String,
    },
    /// New arguments before all others.
    First(Vec<String>),
}

/// The QEMU that is started after these changes.
pub(super) fn changed(launch: &Launch, changes: &[Change]) -> Launch {
    launch.with_arguments(applied(&launch.arguments, &edits(launch, changes)))
}

/// The memory devices, in order.
type Memory<'a> = Vec<(MemoryDeviceKind, &'a Device)>;

/// The edits that these changes take.
pub(crate) fn edits(launch: &Launch, changes: &[Change]) -> Vec<ArgumentEdit> {
    // Each part then comes from bytes of its argument, whatever the text is that the arguments are in.
    let launch = launch.with_arguments(launch.arguments.clone());
    let devices = launch.line.devices.iter();
    let memory: Memory<'_> = devices.filter_map(|device| Some((MemoryDeviceKind::of(device)?, device))).collect();
    changes.iter().flat_map(|change| change_edits(&launch, &memory, change)).collect()
}

/// The arguments after these edits.
fn applied(arguments: &[String], edits: &[ArgumentEdit]) -> Vec<String> {
    let mut result = Vec::with_capacity(arguments.len());
    let mut by_argument: HashMap<usize, Vec<(&Range<usize>, &str)>> = HashMap::new();
    for edit in edits {
        match edit {
            ArgumentEdit::First(words) => result.extend(words.iter().cloned()),
            ArgumentEdit::Part { number, part, text } => by_argument.entry(*number).or_default().push((part, text)),
        }
    }
    for (index, argument) in arguments.iter().enumerate() {
        let mut parts = by_argument.remove(&index).unwrap_or_default();
        parts.sort_by_key(|(part, _)| (part.start, part.end));
        let mut changed = String::with_capacity(argument.len());
        let mut copied = 0;
        for (part, text) in parts {
            changed.push_str(argument.get(copied..part.start).unwrap_or_default());
            changed.push_str(text);
            copied = part.end;
        }
        changed.push_str(argument.get(copied..).unwrap_or_default());
        result.push(changed);
    }
    result
}

fn change_edits(launch: &Launch, memory: &Memory<'_>, change: &Change) -> Vec<ArgumentEdit> {
    match change {
        Change::Machine { to, .. } => match &launch.line.machine.kind {
            Some(kind) => place(launch, kind.origin).and_then(|place| place.set("type", to)).into_iter().collect(),
            None => vec![ArgumentEdit::First(vec!["-machine".to_owned(), to.clone()])],
        },
        Change::PhysBits(bits) => {
            let mut told = vec![("phys-bits", bits.to_string())];
            if has_host_bits(launch) {
                told.push(("host-phys-bits", "off".to_owned()));
            }
            cpu_edits(launch, &told)
        }
        Change::HostPhysBits => {
            let mut told = vec![("host-phys-bits", "on".to_owned())];
            if launch.line.cpu_options().host_phys_bits_limit.is_some_and(|limit| limit != 0) {
                told.push(("host-phys-bits-limit", "0".to_owned()));
            }
            cpu_edits(launch, &told)
        }
        Change::HostPhysBitsUpTo(limit) => {
            cpu_edits(launch, &[("host-phys-bits", "on".to_owned()), ("host-phys-bits-limit", limit.to_string())])
        }
        Change::HoleSize(bytes) => hole_edits(launch, *bytes),
        Change::DeviceAddress { device, to, .. } => address(launch, memory, *device)
            .and_then(|(place, name)| place.set_address(name, *to))
            .into_iter()
            .collect(),
        Change::FreeAddress { device, .. } => {
            address(launch, memory, *device).and_then(|(place, name)| place.remove(name)).into_iter().collect()
        }
        // Those of a domain.
        Change::EmulateBits(_) | Change::PassHostBits | Change::PassHostBitsUpTo(_) | Change::PciHole64(_) => {
            Vec::new()
        }
    }
}

/// Another size of the 64-bit PCI hole: in place of those that are larger, or otherwise of all.
fn hole_edits(launch: &Launch, bytes: u64) -> Vec<ArgumentEdit> {
    let holes = launch.line.globals.iter().map(|global| &global.property);
    let holes: Vec<&Property> = holes.filter(|property| property.name == "pci-hole64-size").collect();
    if holes.is_empty() {
        let kind = launch.line.machine.kind.as_ref().map(|kind| resolve(&kind.value));
        let bridge = match kind {
            Some(Resolved::Known(machine)) if machine.family == Family::Q35 => "q35-pcihost",
            Some(Resolved::Unknown { family: Some(Family::Q35), .. }) => "q35-pcihost",
            _ => "i440FX-pcihost",
        };
        return vec![ArgumentEdit::First(vec![
            "-global".to_owned(),
            format!("{bridge}.pci-hole64-size={}", size(bytes)),
        ])];
    }
    let is_larger = |property: &&Property| property.size().is_some_and(|size| size > bytes);
    let shrinks = holes.iter().any(is_larger);
    let holes = holes.into_iter().filter(|hole| !shrinks || is_larger(hole));
    holes.filter_map(|property| place(launch, property.origin)?.set("value", &size(bytes))).collect()
}

/// A size as QEMU reads it, in the largest unit in which it comes out even.
fn size(bytes: u64) -> String {
    let units = [("G", 30_u32), ("M", 20), ("K", 10)];
    let even = units.iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    even.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// Whether the CPU has the host's phys-bits under KVM: it is told so, or its model or the machine type says so.
fn has_host_bits(launch: &Launch) -> bool {
    let options = launch.line.cpu_options();
    let of_machine = || {
        let kind = launch.line.machine.kind.as_ref().map(|kind| resolve(&kind.value));
        matches!(kind, Some(Resolved::Known(machine)) if machine.host_phys_bits_limit.is_some())
    };
    let default = || matches!(options.model, Model::Host | Model::Max) || of_machine();
    options.host_phys_bits.unwrap_or_else(default)
}

/// Sets properties of the CPU, each where QEMU is told of it last, and otherwise in `-cpu`.
fn cpu_edits(launch: &Launch, told: &[(&str, String)]) -> Vec<ArgumentEdit> {
    let mut edits = Vec::new();
    let mut added = String::new();
    for (name, value) in told {
        let known = launch.line.cpu_property(name);
        match known.and_then(|property| place(launch, property.origin)?.set_feature(name, value)) {
            Some(edit) => edits.push(edit),
            None => added.push_str(&format!(",{name}={value}")),
        }
    }
    if added.is_empty() {
        return edits;
    }
    let written = launch.line.cpu.as_ref().and_then(|cpu| place(launch, cpu.origin));
    edits.push(match written {
        Some(ToldPart { number, argument, .. }) => {
            let end = argument.len();
            let text = if argument.ends_with(',') { added.split_off(1) } else { added };
            ArgumentEdit::Part { number, part: end..end, text }
        }
        None => {
            let model = match launch.line.cpu_options().model {
                Model::Named(name) => name,
                Model::Host | Model::HostModel => "host".to_owned(),
                Model::Max => "max".to_owned(),
            };
            ArgumentEdit::First(vec!["-cpu".to_owned(), format!("{model}{added}")])
        }
    });
    edits
}

/// Where the fixed address of a memory device is told, and what it is called there.
fn address<'a>(launch: &'a Launch, memory: &Memory<'a>, device: usize) -> Option<(ToldPart<'a>, &'static str)> {
    let (kind, told) = *memory.get(device)?;
    let name = kind.address_property();
    let property: &Property = told.properties.get(name)?;
    Some((place(launch, property.origin)?, name))
}

/// A part of an argument that tells QEMU something.
#[derive(Debug, Clone)]
struct ToldPart<'a> {
    /// Which argument.
    number: usize,
    /// The argument.
    argument: &'a str,
    /// The option before it.
    option: &'a str,
    /// The bytes that tell it; all of them, where no more is known.
    part: Range<usize>,
}

fn place(launch: &Launch, origin: Origin) -> Option<ToldPart<'_>> {
    let Origin::Argument { number, span } = origin else { return None };
    let argument = launch.arguments.get(number)?;
    let option = number.checked_sub(1).and_then(|before| launch.arguments.get(before)).map_or("", String::as_str);
    let option = option.strip_prefix('-').unwrap_or(option);
    let option = option.strip_prefix('-').unwrap_or(option);
    argument.get(span.start..span.end)?;
    Some(ToldPart { number, argument, option, part: span.start..span.end })
}

impl ToldPart<'_> {
    fn edit(&self, part: Range<usize>, text: &str) -> Option<ArgumentEdit> {
        Some(ArgumentEdit::Part { number: self.number, part, text: text.to_owned() })
    }

    fn is_json(&self) -> bool {
        self.argument.starts_with('{')
    }

    /// Sets the value, which is called `key` where it has a name.
    fn set(&self, key: &str, value: &str) -> Option<ArgumentEdit> {
        self.edit(self.value(key)?, value)
    }

    /// Where the value is.
    fn value(&self, key: &str) -> Option<Range<usize>> {
        if self.is_json() {
            return Some(member(self.argument, key)?.value);
        }
        // `driver.property=value`, or `driver=…,property=…,value=…`; `-set group.id.name=value`.
        let (from, text) = match self.option {
            "global" if !is_short_global(self.argument) => {
                let at = self.argument.rfind("value=")?;
                let rest = self.argument.get(at..)?;
                (at, rest.split(',').next()?)
            }
            "global" | "set" => (0, self.argument),
            _ => (self.part.start, self.argument.get(self.part.clone())?),
        };
        let value = text.find('=').map_or(0, |sign| sign.saturating_add(1));
        Some(from.checked_add(value)?..from.checked_add(text.len())?)
    }

    /// Sets a property of the CPU; `+name` and `name` become `name=value`.
    fn set_feature(&self, name: &str, value: &str) -> Option<ArgumentEdit> {
        let text = self.argument.get(self.part.clone())?;
        match self.option {
            "global" | "set" => self.set("value", value),
            _ if text.contains('=') => self.set(name, value),
            _ => self.edit(self.part.clone(), &format!("{name}={value}")),
        }
    }

    /// Sets an address, in hexadecimal if the old one is.
    fn set_address(&self, key: &str, address: u64) -> Option<ArgumentEdit> {
        let value = self.value(key)?;
        let hexadecimal = self.argument.get(value.clone())?.starts_with("0x");
        self.edit(value, &if hexadecimal { format!("{address:#x}") } else { address.to_string() })
    }

    /// Removes a part with its comma. A part that cannot be removed becomes 0, which means none.
    fn remove(&self, key: &str) -> Option<ArgumentEdit> {
        let part = match self.option {
            "global" | "set" => return self.set(key, "0"),
            _ if self.is_json() => member(self.argument, key)?.whole,
            _ => self.part.clone(),
        };
        let before = self.argument.get(..part.start)?;
        let after = self.argument.get(part.end..)?;
        let blank = |text: &str| text.trim_ascii_start().len();
        if before.trim_ascii_end().ends_with(',') {
            let comma = before.trim_ascii_end().len().checked_sub(1)?;
            return self.edit(comma..part.end, "");
        }
        let comma = after.len().checked_sub(blank(after))?;
        let more = after.trim_ascii_start().starts_with(',');
        let end = if more { part.end.checked_add(comma)?.checked_add(1)? } else { part.end };
        self.edit(part.start..end, "")
    }
}

/// Whether a `-global` is `driver.property=value`.
fn is_short_global(argument: &str) -> bool {
    argument.split_once('=').is_some_and(|(name, _)| name.contains('.'))
}

/// A member of an object.
struct Member {
    /// From its name to the end of its value.
    whole: Range<usize>,
    /// The value, without quotes around it.
    value: Range<usize>,
}

/// The member called `key` of an object in JSON, which is known to be well-formed; none of one inside.
fn member(json: &str, key: &str) -> Option<Member> {
    let bytes = json.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0_usize;
    let mut name: Option<Range<usize>> = None;
    while let Some(&byte) = bytes.get(at) {
        let next = at.checked_add(1)?;
        match byte {
            b'{' | b'[' => depth = depth.checked_add(1)?,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 1 => name = None,
            b'"' => {
                let end = string_end(bytes, next)?;
                if depth == 1 && name.is_none() {
                    name = Some(next..end);
                } else if depth == 1 && name.clone().and_then(|name| json.get(name)) == Some(key) {
                    let start = name?.start.checked_sub(1)?;
                    return Some(Member { whole: start..end.checked_add(1)?, value: next..end });
                }
                at = end.checked_add(1)?;
                continue;
            }
            b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ if depth == 1 && name.clone().and_then(|name| json.get(name)) == Some(key) => {
                let rest = json.get(at..)?;
                let length = rest.find([',', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                let end = at.checked_add(length)?;
                return Some(Member { whole: name?.start.checked_sub(1)?..end, value: at..end });
            }
            _ => {}
        }
        at = next;
    }
    None
}

/// The offset of the quote that ends the string whose first byte is at `from`.
fn string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at = at.checked_add(2)?,
            _ => at = at.checked_add(1)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::Argument;
    use crate::xml::Span;

    fn after(arguments: &[&str], change: &Change) -> Vec<String> {
        let numbered = arguments.iter().enumerate().map(|(number, text)| Argument::numbered(number, text));
        let launch = Launch::new(Some("qemu-system-x86_64"), Span::new(0, 0), numbered);
        changed(&launch, std::slice::from_ref(change)).arguments
    }

    #[test]
    fn a_machine_type_changes_wherever_it_is_written() {
        let change = Change::Machine { from: "pc-q35-6.2".to_owned(), to: "pc-q35-7.1".to_owned() };
        for (before, expected) in [
            (["-machine", "pc-q35-6.2,accel=kvm"], ["-machine", "pc-q35-7.1,accel=kvm"]),
            (["-M", "accel=kvm,type=pc-q35-6.2"], ["-M", "accel=kvm,type=pc-q35-7.1"]),
            (["--machine", "type=pc-q35-6.2"], ["--machine", "type=pc-q35-7.1"]),
        ] {
            assert_eq!(after(&before, &change), expected);
        }
        let last = ["-M", "pc-q35-6.1", "-machine", "type=pc-q35-6.2", "-machine", "accel=kvm"];
        assert_eq!(after(&last, &change), ["-M", "pc-q35-6.1", "-machine", "type=pc-q35-7.1", "-machine", "accel=kvm"]);
        assert_eq!(after(&["-S"], &change), ["-machine", "pc-q35-7.1", "-S"]);
    }

    #[test]
    fn phys_bits_change_where_qemu_is_told_of_them() {
        let bits = Change::PhysBits(42);
        for (before, expected) in [
            (vec!["-cpu", "EPYC"], vec!["-cpu", "EPYC,phys-bits=42"]),
            (vec!["-cpu", "EPYC,phys_bits=40,+x2apic"], vec!["-cpu", "EPYC,phys_bits=42,+x2apic"]),
            (vec!["-cpu", "host"], vec!["-cpu", "host,phys-bits=42,host-phys-bits=off"]),
            (vec!["-cpu", "EPYC,host-phys-bits=on"], vec!["-cpu", "EPYC,host-phys-bits=off,phys-bits=42"]),
            (vec!["-cpu", "EPYC,+host-phys-bits"], vec!["-cpu", "EPYC,host-phys-bits=off,phys-bits=42"]),
            (vec!["-cpu", "EPYC", "-global", "cpu.phys-bits=40"], vec!["-cpu", "EPYC", "-global", "cpu.phys-bits=42"]),
            (
                vec!["-cpu", "EPYC", "-global", "driver=cpu,property=phys-bits,value=40"],
                vec!["-cpu", "EPYC", "-global", "driver=cpu,property=phys-bits,value=42"],
            ),
            (vec!["-S"], vec!["-cpu", "qemu64,phys-bits=42", "-S"]),
            (
                vec!["-M", "pc-q35-rhel8.6.0", "-cpu", "EPYC"],
                vec!["-M", "pc-q35-rhel8.6.0", "-cpu", "EPYC,phys-bits=42,host-phys-bits=off"],
            ),
        ] {
            assert_eq!(after(&before, &bits), expected);
        }
        let limited = Change::HostPhysBitsUpTo(39);
        assert_eq!(after(&["-cpu", "host"], &limited), ["-cpu", "host,host-phys-bits=on,host-phys-bits-limit=39"]);
        let host = Change::HostPhysBits;
        assert_eq!(after(&["-cpu", "EPYC"], &host), ["-cpu", "EPYC,host-phys-bits=on"]);
        assert_eq!(
            after(&["-cpu", "EPYC,host-phys-bits=off,host-phys-bits-limit=39"], &host),
            ["-cpu", "EPYC,host-phys-bits=on,host-phys-bits-limit=0"]
        );
    }

    #[test]
    fn a_hole_and_addresses_change_in_every_spelling() {
        let hole = Change::HoleSize(32 << 30);
        assert_eq!(
            after(&["-global", "q35-pcihost.pci-hole64-size=2048G"], &hole),
            ["-global", "q35-pcihost.pci-hole64-size=32G"]
        );
        let larger = Change::HoleSize(640 << 30);
        assert_eq!(
            after(&["-global", "q35-pcihost.pci-hole64-size=32G"], &larger),
            ["-global", "q35-pcihost.pci-hole64-size=640G"]
        );
        assert_eq!(after(&["-M", "q35"], &larger), ["-global", "q35-pcihost.pci-hole64-size=640G", "-M", "q35"]);
        assert_eq!(
            after(&["-M", "pc-i440fx-7.2"], &larger),
            ["-global", "i440FX-pcihost.pci-hole64-size=640G", "-M", "pc-i440fx-7.2"]
        );
        let to = |to| Change::DeviceAddress { device: 0, from: 4 << 30, to };
        let free = Change::FreeAddress { device: 0, from: 4 << 30 };
        for (before, moved, freed) in [
            ("pc-dimm,memdev=a,addr=0x100000000", "pc-dimm,memdev=a,addr=0x140000000", "pc-dimm,memdev=a"),
            (
                "addr=4294967296,driver=pc-dimm,memdev=a",
                "addr=5368709120,driver=pc-dimm,memdev=a",
                "driver=pc-dimm,memdev=a",
            ),
            (
                "{\"driver\":\"pc-dimm\",\"addr\":4294967296,\"memdev\":\"a\"}",
                "{\"driver\":\"pc-dimm\",\"addr\":5368709120,\"memdev\":\"a\"}",
                "{\"driver\":\"pc-dimm\",\"memdev\":\"a\"}",
            ),
            (
                "{ \"addr\" : 4294967296 , \"driver\":\"pc-dimm\" }",
                "{ \"addr\" : 5368709120 , \"driver\":\"pc-dimm\" }",
                "{  \"driver\":\"pc-dimm\" }",
            ),
        ] {
            assert_eq!(after(&["-device", before], &to(5 << 30)), ["-device", moved]);
            assert_eq!(after(&["-device", before], &free), ["-device", freed]);
        }
        assert_eq!(
            after(&["-device", "pc-dimm,id=a", "-set", "device.a.addr=0x100000000"], &free),
            ["-device", "pc-dimm,id=a", "-set", "device.a.addr=0"]
        );
    }
}
