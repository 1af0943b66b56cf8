//! Memory devices, NUMA cells and what backs them.

use super::super::draw::{GIB, KIB, MIB, Rng, element, sized};
use super::Draft;
use std::fmt::Write as _;

/// Features and mistakes that need room for memory devices.
pub const DEVICES: &[&str] = &[
    "dimm-address",
    "dynamic-memslots",
    "mixed-memory-devices",
    "no-slots",
    "nvdimm",
    "requested-or-block",
    "virtio-mem",
    "virtio-pmem",
    "without-cells",
];

/// Decides whether huge pages back the guest; its RAM is then mostly of whole pages.
pub fn backing(rng: &mut Rng, draft: &mut Draft<'_>) {
    if !draft.take("huge-pages") {
        return;
    }
    let page = *rng.pick(&[2 * MIB, 2 * MIB, GIB]);
    draft.page = Some(page);
    if rng.percent(60) {
        draft.ram = draft.ram.next_multiple_of(page);
    }
}

/// `<memoryBacking>`.
pub fn backing_element(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let mut xml = String::new();
    if let Some(page) = draft.page {
        let nodeset = match draft.cells {
            0 | 1 => String::new(),
            cells if rng.percent(30) => format!(" nodeset='{}'", rng.below(cells)),
            _ => String::new(),
        };
        let named = match rng.below(4) {
            0 if page == 2 * MIB && nodeset.is_empty() => String::new(),
            1 => format!("<page size='{}'{nodeset}/>", page / KIB),
            2 if page >= GIB => format!("<page size='1' unit='G'{nodeset}/>"),
            _ => format!("<page size='{}' unit='MiB'{nodeset}/>", page / MIB),
        };
        let _ = write!(xml, "<hugepages>{named}</hugepages>");
    }
    if draft.take("memfd-or-file") {
        xml += rng.text(&[
            "<source type='memfd'/>",
            "<source type='memfd'/>",
            "<source type='file'/>",
            "<source type='anonymous'/>",
        ]);
        xml += rng.text(&["", "", "<access mode='shared'/>", "<access mode='private'/>"]);
        xml += rng.text(&["", "", "<allocation mode='immediate'/>", "<allocation mode='ondemand'/>"]);
        xml += rng.text(&["", "", "", "<discard/>"]);
    } else if rng.percent(8) {
        xml += rng.text(&["<access mode='shared'/>", "<access mode='private'/>", "<nosharepages/>"]);
    }
    if xml.is_empty() { xml } else { format!("<memoryBacking>{xml}</memoryBacking>") }
}

/// The memory devices of a domain.
pub fn devices(rng: &mut Rng, draft: &mut Draft<'_>) {
    let mut kinds = Vec::new();
    for (feature, kind) in
        [("nvdimm", "nvdimm"), ("virtio-mem", "virtio-mem"), ("virtio-pmem", "virtio-pmem"), ("sgx-epc", "sgx-epc")]
    {
        if draft.take(feature) {
            kinds.push(kind);
        }
    }
    if draft.wanted.contains("dynamic-memslots") || draft.wanted.contains("requested-or-block") {
        draft.has.insert("virtio-mem");
        kinds.push("virtio-mem");
    }
    if draft.take("mixed-memory-devices") {
        kinds.extend(["dimm", rng.text(&["nvdimm", "virtio-mem", "virtio-pmem"])]);
        draft.has.insert(match kinds[kinds.len() - 1] {
            "nvdimm" => "nvdimm",
            "virtio-mem" => "virtio-mem",
            _ => "virtio-pmem",
        });
    }
    if draft.wanted.contains("dimm-address") || rng.percent(30) {
        kinds.extend((0..rng.between(1, 3)).map(|_| "dimm"));
    }
    for kind in kinds {
        device(rng, draft, kind);
    }
}

fn device(rng: &mut Rng, draft: &mut Draft<'_>, kind: &str) {
    let size = match rng.below(4) {
        0 => rng.between(1, 64 * KIB) * KIB,
        1 => rng.between(1, 2048) * MIB,
        _ => rng.between(1, 32) * GIB,
    };
    let size = match draft.page {
        Some(page) if rng.percent(70) => size.next_multiple_of(page),
        _ => size,
    };
    let xml = match kind {
        "nvdimm" => nvdimm(rng, draft, size.min(8 * GIB)),
        "virtio-mem" => virtio_mem(rng, draft, size.max(2 * MIB)),
        "virtio-pmem" => virtio_pmem(rng, size.min(8 * GIB)),
        "sgx-epc" => format!("<memory model='sgx-epc'><target>{}</target></memory>", element(rng, "size", "", size)),
        _ => dimm(rng, draft, size),
    };
    draft.plugged += size.next_multiple_of(2 * MIB);
    draft.devices.push(xml);
}

fn node(rng: &mut Rng, draft: &Draft<'_>) -> String {
    match rng.below(100) {
        0 | 1 => "<node>7</node>".to_owned(),
        2 => String::new(),
        _ if draft.cells == 0 => {
            if rng.percent(70) {
                String::new()
            } else {
                "<node>0</node>".to_owned()
            }
        }
        _ => format!("<node>{}</node>", rng.below(draft.cells)),
    }
}

/// Where device memory begins if nothing moves it.
fn window(draft: &Draft<'_>) -> u64 {
    let low = if draft.q35() { 2 * GIB } else { 3 * GIB };
    (4 * GIB + draft.ram.saturating_sub(low)).next_multiple_of(GIB)
}

/// A fixed place: around where the window may begin, beside it, or somewhere it cannot be.
fn dimm_address(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    if draft.take("dimm-address") {
        let base = window(draft) + rng.below(16) * GIB;
        return (*rng.pick(&[
            format!("<address type='dimm' base='{base:#x}'/>"),
            format!("<address type='dimm' slot='' base='{base:#x}'/>"),
            format!("<address type='dimm' slot='x' base='{base:#x}'/>"),
            format!("<address type='dimm' slot='-1' base='{base:#x}'/>"),
            format!("<address slot='0' base='{base:#x}'/>"),
            "<address type='dimm'/>".to_owned(),
            format!("<address type='dimm' slot='0' base='{base}'/>"),
        ]))
        .clone();
    }
    if rng.percent(65) {
        return String::new();
    }
    let slot = if rng.percent(90) { draft.devices.len() as u64 } else { rng.below(20) };
    if rng.percent(15) {
        return format!("<address type='dimm' slot='{slot}'/>");
    }
    let base = match rng.below(10) {
        0..=5 => window(draft) + rng.below(64) * 128 * MIB,
        6 => window(draft) + rng.below(64) * 2 * MIB,
        7 => window(draft) + rng.below(64) * 4 * KIB,
        8 => (1 << 40) + draft.ram.next_multiple_of(GIB) + rng.below(16) * GIB,
        _ => *rng.pick(&[0x1000, GIB, 4 * GIB, 0xfd_0000_0000, 0x7fff_ffff_0000_0000]),
    };
    format!("<address type='dimm' slot='{slot}' base='{base:#x}'/>")
}

fn dimm(rng: &mut Rng, draft: &mut Draft<'_>, size: u64) -> String {
    let (size, node, address) = (element(rng, "size", "", size), node(rng, draft), dimm_address(rng, draft));
    let source = page_source(rng);
    let access = access(rng, draft, "access");
    format!("<memory model='dimm'{access}>{source}<target>{size}{node}</target>{address}</memory>")
}

/// `<source>` with a page of its own, now and then.
fn page_source(rng: &mut Rng) -> &'static str {
    match rng.below(40) {
        0 | 1 => "<source><pagesize unit='KiB'>4</pagesize></source>",
        2 | 3 => "<source><pagesize unit='MiB'>2</pagesize></source>",
        4 => "<source><pagesize unit='GiB'>1</pagesize></source>",
        _ => "",
    }
}

/// Any mode here, private too, backs the memory with a file.
fn access(rng: &mut Rng, draft: &mut Draft<'_>, attribute: &str) -> String {
    if !draft.take("access") {
        return String::new();
    }
    match rng.below(3) {
        0 => format!(" {attribute}='shared'"),
        1 => format!(" {attribute}='private'"),
        _ => String::new(),
    }
}

fn nvdimm(rng: &mut Rng, draft: &mut Draft<'_>, size: u64) -> String {
    let label = match rng.below(8) {
        0 => element(rng, "size", "", 128 * KIB),
        1 | 2 => format!("<size>{}</size>", rng.between(100, 4096)),
        3 => {
            let nearly_all = size.saturating_sub(rng.below(16) * KIB);
            element(rng, "size", "", nearly_all.max(128 * KIB))
        }
        _ => String::new(),
    };
    let label = if label.is_empty() { label } else { format!("<label>{label}</label>") };
    let align = match rng.below(6) {
        0 | 1 => format!("<alignsize unit='KiB'>{}</alignsize>", *rng.pick(&[4, 64, 2048, 4096, 1024 * 1024])),
        _ => String::new(),
    };
    let readonly = if rng.percent(15) { "<readonly/>" } else { "" };
    let (size, node, address) = (element(rng, "size", "", size), node(rng, draft), dimm_address(rng, draft));
    let access = access(rng, draft, "access");
    format!(
        "<memory model='nvdimm'{access}><source><path>/var/lib/nvdimm</path>{align}</source>\
         <target>{size}{node}{label}{readonly}</target>{address}</memory>"
    )
}

fn virtio_mem(rng: &mut Rng, draft: &mut Draft<'_>, size: u64) -> String {
    let mut block = *rng.pick(&[2, 2, 2, 4, 64, 1024]);
    let mut requested = if rng.percent(70) { 0 } else { block * MIB * rng.below(8) };
    let mut with_block = true;
    if draft.take("requested-or-block") {
        match rng.below(5) {
            0 => block = *rng.pick(&[1, 3, 0]),
            1 => with_block = false,
            2 => requested = size + rng.between(1, 4) * block * MIB,
            3 => requested = block * MIB + rng.between(1, block * KIB - 1) * KIB,
            _ => requested = block * MIB,
        }
    }
    // A device of whole blocks; the others QEMU refuses.
    let size = if block > 0 && rng.percent(85) { size.next_multiple_of(block * MIB) } else { size };
    let dynamic = if draft.take("dynamic-memslots") {
        rng.text(&[" dynamicMemslots='yes'", " dynamicMemslots='yes'", " dynamicMemslots='no'"])
    } else {
        ""
    };
    let address = match rng.below(10) {
        0 => format!("<address base='{:#x}'/>", window(draft) + rng.below(64) * 128 * MIB),
        _ => String::new(),
    };
    draft.plugged += size.next_multiple_of(2 * MIB);
    let (size, node) = (element(rng, "size", "", size), node(rng, draft));
    let source = page_source(rng);
    let block = if with_block { format!("<block unit='MiB'>{block}</block>") } else { String::new() };
    let requested = element(rng, "requested", "", requested);
    format!(
        "<memory model='virtio-mem'>{source}<target{dynamic}>{size}{node}{block}{requested}{address}</target></memory>"
    )
}

fn virtio_pmem(rng: &mut Rng, size: u64) -> String {
    let size = element(rng, "size", "", size);
    let access = rng.text(&[" access='shared'", " access='shared'", " access='shared'", " access='shared'", ""]);
    format!(
        "<memory model='virtio-pmem'{access}><source><path>/var/lib/pmem</path></source><target>{size}</target></memory>"
    )
}

/// RAM shared out over the NUMA cells, none of which has to be a whole MiB.
pub fn numa(rng: &mut Rng, draft: &mut Draft<'_>) -> String {
    let mistake = draft.take("cell-ids");
    if mistake && (draft.cells == 0 || rng.percent(25)) {
        draft.cells = draft.cells.max(1);
        return "<numa/>".to_owned();
    }
    if draft.cells == 0 {
        return String::new();
    }
    let mut ids: Vec<String> = (0..draft.cells).map(|id| format!(" id='{id}'")).collect();
    if mistake {
        match rng.below(5) {
            0 => ids[0] = " id='5'".to_owned(),
            1 => ids.iter_mut().for_each(String::clear),
            2 => ids.push(" id='0'".to_owned()),
            3 => ids.reverse(),
            _ => ids[0] = " id='x'".to_owned(),
        }
    }
    let mut xml = String::from("<numa>");
    let mut left = draft.ram;
    let count = ids.len() as u64;
    for (index, id) in (0..).zip(ids) {
        let share = match count - index {
            1 => left,
            more if rng.percent(50) => left / more,
            _ => rng.between(0, left / 2),
        };
        let share = match draft.page {
            Some(page) if rng.percent(70) => share.next_multiple_of(page),
            _ => share,
        };
        let share = share.max(KIB);
        left = left.saturating_sub(share);
        let (unit, number) = sized(rng, share);
        let access = access(rng, draft, "memAccess");
        let cpus = if mistake && rng.percent(30) { String::new() } else { format!(" cpus='{index}'") };
        let _ = write!(xml, "<cell{id}{cpus} memory='{number}'{unit}{access}/>");
    }
    xml + "</numa>"
}
