//! From XML to [`Domain`], element by element as libvirt's parser looks them up.

use super::units::{self, SizeError, parse_kib, parse_number};
use super::{
    CpuElement, CpuMode, Domain, Feature, HugePage, METADATA_NAMESPACE, MaxPhysAddr, MaxPhysAddrMode, MemoryBacking,
    MemoryDevice, MemoryModel, MemorySource, NodeSet, OtherDocument, Overrides, Sourced, devices, other_document,
    passthrough,
};
use crate::text::quoted;
use crate::xml::{Document, Element, Span};

/// Why a well-formed document is not a domain that libvirt would define.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What is wrong, in one line.
    pub message: String,
    /// Where it is.
    pub span: Span,
    /// What the document is instead, where it is libvirt's.
    pub other: Option<OtherDocument>,
}

pub(super) type Result<T> = std::result::Result<T, ReadError>;

fn error<T>(span: Span, message: impl Into<String>) -> Result<T> {
    Err(ReadError { message: message.into(), span, other: None })
}

/// Reads the domain in `document`.
///
/// # Errors
/// The document is not a `<domain>`, or it has a number, unit or keyword that libvirt does not parse.
pub fn read(document: &Document<'_>) -> Result<Domain> {
    let root = document.root();
    if root.name() != "domain" || root.namespace().is_some() {
        let other = root.namespace().is_none().then(|| other_document(root.name())).flatten();
        let message = match other {
            Some(OtherDocument { what, instead }) => format!("<{}> is {what}, not a domain; {instead}", root.name()),
            None => format!("not a libvirt domain: the outermost element is <{}>", quoted(root.name())),
        };
        return Err(ReadError { message, span: root.start_tag(), other });
    }
    let os_type = root.descend(&["os", "type"]);
    let cpu = root.child("cpu");
    let devices = root.child("devices");
    let name = root.child("name");
    let hole = pci_hole64(devices)?;
    Ok(Domain {
        name: name.map(short_text).transpose()?.map(|name| name.value).unwrap_or_default(),
        uuid: root.child("uuid").map(|e| e.text().trim().to_owned()),
        hypervisor: attribute(root, "type")?,
        os_type: os_type.map(short_text).transpose()?,
        arch: os_type.map_or(Ok(None), |e| attribute(e, "arch"))?,
        machine: os_type.map_or(Ok(None), |e| attribute(e, "machine"))?,
        emulator: root.descend(&["devices", "emulator"]).map(short_text).transpose()?,
        sockets: sockets(root),
        memory: memory_size(root.child("memory"))?,
        max_memory: memory_size(root.child("maxMemory"))?,
        slots: root.child("maxMemory").map_or(Ok(None), |e| number_attribute(e, "slots"))?,
        numa: cpu.and_then(|cpu| cpu.child("numa")).map(|numa| numa.start_tag()),
        has_memory_nodes: root.descend(&["numatune", "memnode"]).is_some()
            || root.descend(&["cpu", "numa", "interconnects"]).is_some(),
        cell_ids: cells(cpu).map(|cell| number_attribute(cell, "id")).collect::<Result<_>>()?,
        numa_cells: cells_in_order(cpu, cells(cpu).map(numa_cell).collect::<Result<_>>()?),
        cells_with_access: cells_in_order(cpu, cells(cpu).map(|cell| cell.value("memAccess").is_some()).collect()),
        backing: root.child("memoryBacking").map_or_else(|| Ok(MemoryBacking::default()), memory_backing)?,
        #[cfg(feature = "cli")]
        locked_memory: super::locked_memory::read(root)?,
        memory_devices: memory_devices(devices)?,
        cpu: cpu.map(read_cpu).transpose()?,
        pci_hole64: hole.map(|(hole, _)| hole),
        pci_hole64_is_endless: hole.is_some_and(|(_, is_endless)| is_endless),
        controllers: devices::controllers(devices)?,
        iommu: devices::iommu(devices)?,
        launch_security: devices::launch_security(root)?,
        firmware: root.child("os").map_or(Ok(None), |os| attribute(os, "firmware"))?,
        loader_secure: root.descend(&["os", "loader"]).and_then(|loader| loader.attribute("secure")).map(|a| a.span),
        #[cfg(feature = "cli")]
        loader: devices::loader(root)?,
        #[cfg(feature = "cli")]
        fw_cfg: devices::fw_cfg(root),
        #[cfg(feature = "cli")]
        pci: super::pci::pci_devices(devices),
        ioapic: root.descend(&["features", "ioapic"]).map_or(Ok(None), |ioapic| attribute(ioapic, "driver"))?,
        pcie: devices.and_then(root_controller).is_some_and(|root| root.value("model") == Some("pcie-root")),
        acpi: root.descend(&["features", "acpi"]).is_some(),
        passthrough: devices.map(passthrough::from_devices).unwrap_or_default(),
        hidden_dma: devices.map(passthrough::hidden_in_devices).unwrap_or_default(),
        windows: is_windows(root),
        raw_args: passthrough::raw_args(root),
        device_changes: passthrough::device_changes(root),
        overrides: overrides(root),
        #[cfg(feature = "cli")]
        ownership: super::owner::ownership(document),
        span: name.map_or(root.start_tag(), |e| e.span()),
    })
}

/// Whether the guest gets Hyper-V enlightenments (`<features><hyperv>`), or libosinfo's metadata name a system of
/// Microsoft's (`<libosinfo:os id="http://microsoft.com/win/11"/>`).
fn is_windows(root: Element<'_>) -> bool {
    let hyperv = root.descend(&["features", "hyperv"]);
    let enlightened = hyperv.is_some_and(|hyperv| {
        hyperv.value("mode") == Some("passthrough") || hyperv.children().any(|e| e.value("state") == Some("on"))
    });
    let named = || {
        let all = root.child("metadata").into_iter().flat_map(|metadata| metadata.children());
        all.filter(|element| element.local_name() == "libosinfo")
            .flat_map(|libosinfo| libosinfo.children())
            .any(|os| os.value("id").is_some_and(|id| id.starts_with("http://microsoft.com/win")))
    };
    enlightened || named()
}

/// The longest name, type or path that is read, in bytes; twice what any of them may have in libvirt or a file system.
const LONGEST: usize = 8192;

/// An attribute; libvirt takes an empty one for a missing one.
pub(super) fn attribute(element: Element<'_>, name: &str) -> Result<Option<Sourced<String>>> {
    let Some(attribute) = element.attribute(name).filter(|a| !a.value.is_empty()) else { return Ok(None) };
    if attribute.value.len() > LONGEST {
        return error(attribute.span, format!("{name} of <{}> is longer than {LONGEST} bytes", element.name()));
    }
    Ok(Some(Sourced { value: attribute.value.to_owned(), span: attribute.span }))
}

/// The text of an element that holds a name, a type or a path.
pub(super) fn short_text(element: Element<'_>) -> Result<Sourced<String>> {
    let (text, span) = element.text_with_span();
    if text.len() > LONGEST {
        return error(span, format!("<{}> is longer than {LONGEST} bytes", element.name()));
    }
    Ok(Sourced { value: text.into_owned(), span })
}

/// A number attribute; libvirt takes an empty one for a missing one.
pub(super) fn number_attribute(element: Element<'_>, name: &str) -> Result<Option<Sourced<u32>>> {
    let Some(attribute) = element.attribute(name).filter(|a| !a.value.is_empty()) else { return Ok(None) };
    match parse_number(attribute.value).ok().and_then(|n| u32::try_from(n).ok()) {
        Some(value) => Ok(Some(Sourced { value, span: attribute.span })),
        None => {
            let value = quoted(attribute.value);
            error(attribute.span, format!("{name}='{value}' of <{}> is not a number", element.name()))
        }
    }
}

/// An element whose text is a size and whose `unit` scales it, in KiB. An empty one counts as missing.
pub(super) fn memory_size(element: Option<Element<'_>>) -> Result<Option<Sourced<u64>>> {
    let Some(element) = element else { return Ok(None) };
    let (text, span) = element.text_with_span();
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Sourced { value: kib(element, &text, span)?, span }))
}

fn kib(element: Element<'_>, number: &str, number_span: Span) -> Result<u64> {
    parse_kib(number, element.value("unit")).or_else(|problem| {
        let unit = element.attribute("unit").filter(|_| matches!(problem, SizeError::UnknownUnit(_)));
        let span = unit.map_or(number_span, |unit| unit.span);
        error(span, format!("size of <{}>: {problem}", element.name()))
    })
}

/// The CPUs there are from the start over those of a socket (`qemuBuildSmpCommandLine` in libvirt
/// `src/qemu/qemu_command.c`, `smbios_get_tables` in QEMU `hw/smbios/smbios.c`); libvirt refuses anything but a number.
fn sockets(root: Element<'_>) -> u64 {
    let number = |text: &str| parse_number(text).ok().filter(|&number| number > 0);
    let vcpu = root.child("vcpu");
    let vcpus = vcpu.and_then(|vcpu| vcpu.value("current").and_then(number).or_else(|| number(&vcpu.text())));
    let topology = root.descend(&["cpu", "topology"]);
    let part = |name: &str| topology.and_then(|topology| topology.value(name)).and_then(number).unwrap_or(1);
    let per_socket =
        ["dies", "clusters", "cores", "threads"].iter().map(|name| part(name)).fold(1, u64::saturating_mul);
    vcpus.unwrap_or(1).div_ceil(per_socket)
}

fn cells<'d>(cpu: Option<Element<'d>>) -> impl Iterator<Item = Element<'d>> {
    cpu.and_then(|cpu| cpu.child("numa")).into_iter().flat_map(|numa| numa.children_named("cell"))
}

fn memory_backing(backing: Element<'_>) -> Result<MemoryBacking> {
    let source = match backing.child("source").and_then(|source| source.value("type")) {
        Some("file") => Some(MemorySource::File),
        Some("memfd") => Some(MemorySource::Memfd),
        _ => None,
    };
    let says = |element: &str, attribute: &str, value: &str| {
        let attribute = backing.child(element).and_then(|element| element.attribute(attribute));
        attribute.filter(|attribute| attribute.value == value).map(|attribute| attribute.span)
    };
    Ok(MemoryBacking {
        source,
        anonymous: says("source", "type", "anonymous"),
        on_demand: says("allocation", "mode", "ondemand"),
        has_access: backing.child("access").is_some(),
        huge_pages: huge_pages(backing)?,
    })
}

/// The most `<page>` elements, and the most parts of a nodeset, that are looked at: as many as QEMU has NUMA nodes
/// (`MAX_NODES` in QEMU `include/sysemu/numa.h`).
const MAX_NODES: usize = 128;

fn huge_pages(backing: Element<'_>) -> Result<Vec<HugePage>> {
    let Some(element) = backing.child("hugepages") else { return Ok(Vec::new()) };
    let pages = element.children_named("page").take(MAX_NODES).map(|page| {
        let size_kib = match page.attribute("size") {
            Some(size) => kib(page, size.value, size.span)?,
            None => 0,
        };
        Ok(HugePage { size_kib, cells: page.value("nodeset").map(node_set) })
    });
    let pages = pages.collect::<Result<Vec<_>>>()?;
    Ok(if pages.is_empty() { vec![HugePage { size_kib: 0, cells: None }] } else { pages })
}

/// Anything but a number is left out: libvirt refuses it, and nothing about memory depends on it.
fn node_set(text: &str) -> NodeSet {
    let part = |part: &str| {
        let part = part.trim();
        let (range, included) = part.strip_prefix('^').map_or((part, true), |rest| (rest, false));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?..=last.parse().ok()?, included))
    };
    NodeSet(text.split(',').take(MAX_NODES).filter_map(part).collect())
}

/// What each cell has, in the order of their ids where those are the numbers from 0 on; cells without an id are counted
/// (`virDomainNumaDefParseXML` in libvirt `src/conf/numa_conf.c`).
fn cells_in_order<T>(cpu: Option<Element<'_>>, values: Vec<T>) -> Vec<T> {
    let id = |(index, cell): (usize, Element<'_>)| match cell.value("id").filter(|id| !id.is_empty()) {
        Some(id) => parse_number(id).ok().and_then(|id| usize::try_from(id).ok()),
        None => Some(index),
    };
    let mut numbered: Vec<(Option<usize>, T)> = cells(cpu).enumerate().map(id).zip(values).collect();
    numbered.sort_by_key(|(id, _)| *id);
    numbered.into_iter().map(|(_, value)| value).collect()
}

fn numa_cell(cell: Element<'_>) -> Result<Sourced<u64>> {
    let Some(memory) = cell.attribute("memory").filter(|a| !a.value.is_empty()) else {
        return error(cell.start_tag(), "<cell> has no memory");
    };
    Ok(Sourced { value: kib(cell, memory.value, memory.span)?, span: memory.span })
}

fn memory_devices(devices: Option<Element<'_>>) -> Result<Vec<MemoryDevice>> {
    let Some(devices) = devices else { return Ok(Vec::new()) };
    devices.children_named("memory").map(memory_device).collect()
}

fn memory_device(device: Element<'_>) -> Result<MemoryDevice> {
    let model = match device.value("model") {
        Some("dimm") => MemoryModel::Dimm,
        Some("nvdimm") => MemoryModel::Nvdimm,
        Some("virtio-mem") => MemoryModel::VirtioMem,
        Some("virtio-pmem") => MemoryModel::VirtioPmem,
        Some("sgx-epc") => MemoryModel::SgxEpc,
        Some(other) => {
            return error(device.start_tag(), format!("<memory model='{}'> is unknown to libvirt", quoted(other)));
        }
        None => return error(device.start_tag(), "<memory> device without a model"),
    };
    let Some(size) = memory_size(device.descend(&["target", "size"]))? else {
        return error(device.start_tag(), "<memory> device without <target><size>");
    };
    let kib_of = |path: &[&'static str]| memory_size(device.descend(path)).map(|size| size.map(|s| s.value));
    let dimm = device.child("address").filter(|a| a.value("type") == Some("dimm"));
    let target = device.descend(&["target", "address"]);
    Ok(MemoryDevice {
        model,
        size,
        label_kib: kib_of(&["target", "label", "size"])?,
        block_kib: kib_of(&["target", "block"])?,
        node: device.descend(&["target", "node"]).map(node).transpose()?.flatten(),
        page_kib: kib_of(&["source", "pagesize"])?,
        align_kib: kib_of(&["source", "alignsize"])?,
        has_access: device.value("access").is_some(),
        is_shared: device.value("access") == Some("shared"),
        has_path: device.descend(&["source", "path"]).is_some_and(|path| !path.text().is_empty()),
        requested: memory_size(device.descend(&["target", "requested"]))?,
        dynamic_memslots: dynamic_memslots(device)?,
        address_type: device.child("address").map_or(Ok(None), |address| attribute(address, "type"))?,
        has_address: device.child("address").is_some(),
        address: match dimm.or(target) {
            Some(address) => base_address(address)?,
            None => None,
        },
        slot: dimm.map_or(Ok(None), |a| number_attribute(a, "slot"))?,
        alias: device
            .child("alias")
            .and_then(|alias| alias.value("name"))
            .filter(|name| name.starts_with("ua-") && name.len() <= LONGEST)
            .map(str::to_owned),
        span: device.span(),
    })
}

fn dynamic_memslots(device: Element<'_>) -> Result<Option<Sourced<bool>>> {
    let Some(target) = device.child("target") else { return Ok(None) };
    let Some(value) = attribute(target, "dynamicMemslots")? else { return Ok(None) };
    match value.value.as_str() {
        "yes" => Ok(Some(Sourced { value: true, span: value.span })),
        "no" => Ok(Some(Sourced { value: false, span: value.span })),
        other => error(value.span, format!("dynamicMemslots='{}' is neither yes nor no", quoted(other))),
    }
}

pub(super) fn node(element: Element<'_>) -> Result<Option<Sourced<u32>>> {
    let text = element.text();
    if text.is_empty() {
        return Ok(None);
    }
    match parse_number(&text).ok().and_then(|n| u32::try_from(n).ok()) {
        Some(value) => Ok(Some(Sourced { value, span: element.text_span() })),
        None => error(element.text_span(), format!("<node> {} is not a number", quoted(&text))),
    }
}

fn base_address(address: Element<'_>) -> Result<Option<Sourced<u64>>> {
    let Some(base) = address.attribute("base").filter(|a| !a.value.is_empty()) else { return Ok(None) };
    // libvirt reads hexadecimal digits, with the prefix or without (`virXMLPropULongLong` with base 16).
    let digits = base.value.strip_prefix("0x").or_else(|| base.value.strip_prefix("0X")).unwrap_or(base.value);
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal) {
        Some(value) => Ok(Some(Sourced { value, span: base.span })),
        None => error(base.span, format!("base='{}' is not an address", quoted(base.value))),
    }
}

fn read_cpu(cpu: Element<'_>) -> Result<CpuElement> {
    let mode = match cpu.value("mode") {
        None | Some("custom") => CpuMode::Custom,
        Some("host-model") => CpuMode::HostModel,
        Some("host-passthrough") => CpuMode::HostPassthrough,
        Some("maximum") => CpuMode::Maximum,
        Some(other) => {
            return error(cpu.start_tag(), format!("<cpu mode='{}'> is unknown to libvirt", quoted(other)));
        }
    };
    let model = cpu.child("model");
    let features = cpu.children_named("feature").map(feature).collect::<Result<Vec<_>>>()?;
    let vendor = cpu.child("vendor");
    Ok(CpuElement {
        mode,
        model: model.map(short_text).transpose()?.filter(|m| !m.value.is_empty()),
        vendor_id: model.map_or(Ok(None), |m| attribute(m, "vendor_id"))?,
        vendor: vendor.map(short_text).transpose()?,
        matching: attribute(cpu, "match")?,
        check: attribute(cpu, "check")?,
        fallback: model.map_or(Ok(None), |m| attribute(m, "fallback"))?,
        has_features: !features.is_empty(),
        features: features
            .into_iter()
            .filter(|f| matches!(f.name.as_str(), "lm" | "pae" | "pse36" | "pdpe1gb"))
            .collect(),
        maxphysaddr: cpu.child("maxphysaddr").map(maxphysaddr).transpose()?,
        span: cpu.start_tag(),
    })
}

fn feature(feature: Element<'_>) -> Result<Feature> {
    let enabled = match feature.value("policy") {
        None | Some("require" | "force") => Some(true),
        Some("disable" | "forbid") => Some(false),
        Some("optional") => None,
        Some(other) => {
            return error(feature.start_tag(), format!("<feature policy='{}'> is unknown to libvirt", quoted(other)));
        }
    };
    Ok(Feature { name: feature.value("name").unwrap_or_default().to_owned(), enabled, span: feature.start_tag() })
}

fn maxphysaddr(element: Element<'_>) -> Result<MaxPhysAddr> {
    let mode = match element.value("mode") {
        Some("passthrough") => MaxPhysAddrMode::Passthrough,
        Some("emulate") => MaxPhysAddrMode::Emulate,
        Some(other) => {
            return error(element.start_tag(), format!("<maxphysaddr mode='{}'> is unknown to libvirt", quoted(other)));
        }
        None => return error(element.start_tag(), "<maxphysaddr> without a mode"),
    };
    Ok(MaxPhysAddr {
        mode,
        bits: number_attribute(element, "bits")?,
        limit: number_attribute(element, "limit")?,
        span: element.span(),
    })
}

/// The `<pcihole64>` that counts.
pub(crate) fn pci_hole64_element(devices: Element<'_>) -> Option<Element<'_>> {
    root_controller(devices)?.child("pcihole64")
}

/// The controller of the root bus.
pub(crate) fn root_controller(devices: Element<'_>) -> Option<Element<'_>> {
    let mut controllers = devices.children_named("controller");
    controllers.find(|c| c.value("type") == Some("pci") && matches!(c.value("model"), Some("pci-root" | "pcie-root")))
}

/// `<pcihole64>` of the root controller; libvirt drops it silently from every other
/// (`virDomainControllerDefParseXML` in `src/conf/domain_conf.c`).
fn pci_hole64(devices: Option<Element<'_>>) -> Result<Option<(Sourced<u64>, bool)>> {
    let Some(hole) = devices.and_then(pci_hole64_element) else { return Ok(None) };
    let text = hole.text();
    if text.is_empty() {
        return Ok(None);
    }
    // The one size libvirt does not hold below `LLONG_MAX`: `virParseScaledValue` is called with the limit ULLONG_MAX.
    let scale = match hole.value("unit") {
        None | Some("") => Ok(1024),
        Some(unit) => units::bytes_per_unit(unit),
    };
    let bytes = parse_number(&text).and_then(|number| {
        let unit = hole.value("unit").unwrap_or_default();
        number.checked_mul(scale?).ok_or_else(|| SizeError::TooLarge(number, unit.to_owned()))
    });
    match bytes {
        Ok(bytes) => {
            // `VIR_DIV_UP` in libvirt `src/internal.h` adds before it divides, and past the end that gives 0.
            let kib = bytes.checked_add(1023).map(|bytes| bytes / 1024);
            Ok(Some((Sourced { value: kib.unwrap_or(0), span: hole.text_span() }, kib.is_none())))
        }
        Err(problem) => error(hole.text_span(), format!("size of <pcihole64>: {problem}")),
    }
}

fn overrides(root: Element<'_>) -> Overrides {
    let policy = root.child("metadata").and_then(|metadata| {
        metadata.children().find(|e| e.local_name() == "policy" && e.namespace() == Some(METADATA_NAMESPACE))
    });
    let passthrough = policy.and_then(|policy| policy.attribute("passthrough"));
    passthrough.map_or_else(Overrides::default, |asked| Overrides::from_passthrough(asked.value, asked.span))
}
