//! A whole run of the hook, with its whole environment as input: arguments, policy, libvirt's cache, sysfs, XML.
//!
//! The oracle does not use the program's own verdict. It writes guests that QEMU refuses to start or whose memory the
//! kernel refuses to map, adds the fuzzed parts, and checks the hook's promise: a guest that certainly fails is
//! stopped, or the system log names it; a guest that works starts.
//!
//! The input is a list of parts separated by lines of `%%`: how it is called, policy, cache, reserved regions, what is in
//! `<metadata>`, what comes after the devices, or a whole domain.

#![no_main]

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use iova_preflight::decision::{
    BrokenPolicy, HookOutcome, Level, Operation, Outside, XmlProblem, run, salvage_on_internal_error,
};
use iova_preflight::domain::{self, Domain, TooLong};
use iova_preflight::finding::Severity;
use iova_preflight::host::Host;
use iova_preflight::io::detect::host_for_domain;
use iova_preflight::io::policy;
use iova_preflight::policy::{Mode, OnInternalError, Policy};
use iova_preflight::qemu::layout::FIRST_RELOCATING_QEMU;
use iova_preflight::text::printable;
use iova_preflight::verdict::evaluate;
use iova_preflight::xml::Document;
use libfuzzer_sys::fuzz_target;

/// What an AMD host shows of the group of a device (Linux `drivers/iommu/amd/iommu.c`, `amd_iommu_get_resv_regions`).
const HYPER_TRANSPORT: &[u8] =
    b"0x00000000fee00000 0x00000000feefffff msi\n0x000000fd00000000 0x000000ffffffffff reserved\n";

const DEVICE: &str = "0000:41:10.1";

/// Findings for which the hook stops a guest, as its documentation lists them.
const STOPPING: [&str; 5] = [
    "phys-bits-too-low",
    "phys-bits-not-configurable",
    "phys-bits-out-of-range",
    "ram-in-reserved-range",
    "memory-device-in-reserved-range",
];

/// A kind of guest, and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// QEMU: "phys-bits too low (40)" (`pc_memory_init` in `hw/i386/pc.c`).
    TooFewBits,
    /// VFIO: -22 for RAM in the reserved range (`vfio_iommu_iova_dma_valid` in Linux
    /// `drivers/vfio/vfio_iommu_type1.c`), as types before 7.1 do not move it.
    InHole,
    /// The same for a DIMM.
    DimmInHole,
    /// 16 GiB reach nothing.
    Fine,
    /// Any domain, from the last part.
    Any,
}

impl Kind {
    fn xml(self, metadata: &[u8], tail: &[u8]) -> Vec<u8> {
        let (hypervisor, machine, memory, cpu, devices) = match self {
            Self::TooFewBits => (
                "qemu",
                "pc-q35-7.2",
                "<memory unit='GiB'>1200</memory>",
                "<cpu><model>EPYC</model><maxphysaddr mode='emulate' bits='40'/></cpu>",
                "",
            ),
            Self::InHole => (
                "qemu",
                "pc-q35-6.2",
                "<memory unit='GiB'>1200</memory>",
                "<cpu><model>EPYC</model><maxphysaddr mode='emulate' bits='42'/></cpu>",
                HOSTDEV,
            ),
            Self::DimmInHole => (
                "qemu",
                "pc-q35-6.2",
                "<memory unit='MiB'>256</memory><maxMemory slots='2' unit='GiB'>1100</maxMemory>",
                "<cpu><model>EPYC</model><maxphysaddr mode='emulate' bits='42'/>\
                 <numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>",
                DIMM,
            ),
            Self::Fine | Self::Any => ("kvm", "pc-q35-6.2", "<memory unit='GiB'>16</memory>", "", ""),
        };
        let start = format!(
            "<domain type='{hypervisor}'>\n  <name>db</name>\n  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>\n  {memory}\n  \
             <os><type arch='x86_64' machine='{machine}'>hvm</type></os>\n  <features><acpi/></features>\n  {cpu}\n  \
             <devices>{devices}</devices>\n  <metadata>"
        );
        [start.as_bytes(), metadata, b"</metadata>\n", tail, b"</domain>\n"].concat()
    }
}

const HOSTDEV: &str = "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/><source>\
                       <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/></source></hostdev>";
const DIMM: &str = "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/><source>\
                    <address domain='0x0000' bus='0x41' slot='0x10' function='0x1'/></source></hostdev>\
                    <memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target>\
                    <address type='dimm' slot='0' base='0xfd00000000'/></memory>";

/// The hook's environment in this run.
struct World<'w> {
    policy: &'w [u8],
    xml: &'w [u8],
    /// The size of the pieces of input, in bytes.
    piece: usize,
    /// After how many pieces reading fails.
    fails_after: Option<usize>,
    root: &'w Path,
    told: OnInternalError,
}

impl Outside for World<'_> {
    fn policy(&mut self) -> Result<Policy, BrokenPolicy> {
        let on_internal_error = salvage_on_internal_error(self.policy);
        policy::parse(self.policy)
            .map_err(|error| BrokenPolicy { problem: format!("{}:{error}", policy::PATH), on_internal_error })
    }

    fn on_internal_error(&mut self, choice: OnInternalError) {
        self.told = choice;
    }

    fn xml(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), TooLong>) -> Result<(), XmlProblem> {
        for (number, piece) in self.xml.chunks(self.piece).enumerate() {
            if self.fails_after == Some(number) {
                return Err(XmlProblem::Input("Input/output error (os error 5)".to_owned()));
            }
            take(piece)?;
        }
        Ok(())
    }

    fn host(&mut self, domain: &Domain) -> Host {
        host_for_domain(self.root, domain)
    }
}

/// A folder that looks like `/` of an AMD host, in memory; written again only where it changes.
struct Root {
    path: PathBuf,
    cache: Vec<u8>,
    reserved: Vec<u8>,
}

impl Root {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/iova-preflight-fuzz-{}", std::process::id()));
        let device = path.join("sys/bus/pci/devices").join(DEVICE).join("iommu_group");
        let folders = [device, path.join("sys/class/iommu/ivhd0"), path.join("var/cache/libvirt/qemu/capabilities")];
        for folder in folders {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let mut root = Self { path, cache: vec![0], reserved: vec![0] };
        root.set(b"", HYPER_TRANSPORT);
        root
    }

    fn set(&mut self, cache: &[u8], reserved: &[u8]) {
        let write = |known: &mut Vec<u8>, new: &[u8], path: &str| {
            if known != new {
                std::fs::write(self.path.join(path), new).expect("write a file");
                new.clone_into(known);
            }
        };
        write(&mut self.cache, cache, "var/cache/libvirt/qemu/capabilities/a.xml");
        write(&mut self.reserved, reserved, "sys/bus/pci/devices/0000:41:10.1/iommu_group/reserved_regions");
    }
}

thread_local! {
    static ROOT: RefCell<Root> = RefCell::new(Root::new());
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = parts(bytes);
    parts.resize(6, b"");
    let &[call, policy, cache, reserved, metadata, tail] = &parts[..6] else { unreachable!("six parts") };
    let call = Call::parse(call);
    let xml = if call.kind == Kind::Any { tail.to_vec() } else { call.kind.xml(metadata, tail) };
    let reserved = if reserved.is_empty() { HYPER_TRANSPORT } else { reserved };
    ROOT.with_borrow_mut(|root| {
        root.set(cache, reserved);
        // A start calls the hook twice; either call may report the guest.
        let outcomes = call.operations.map(|operation| {
            let mut world = World {
                policy,
                xml: &xml,
                piece: call.piece,
                fails_after: call.fails_after,
                root: &root.path,
                told: OnInternalError::Allow,
            };
            let outcome = run(operation, &call.name, &mut world);
            check_outcome(&outcome, &call, world.told);
            outcome
        });
        check_promise(&outcomes, &call, policy, reserved, metadata, tail, &xml, &root.path);
    });
});

fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(4).position(|window| window == b"\n%%\n") {
        parts.push(&rest[..at]);
        rest = &rest[at + 4..];
    }
    parts.push(rest);
    parts
}

/// How the hook is called: `KIND NAME PIECE FAILS-AFTER`, each with a default.
struct Call {
    kind: Kind,
    operations: [Operation; 2],
    name: String,
    piece: usize,
    fails_after: Option<usize>,
}

impl Call {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        let operations = match kind.get(1..) {
            Some("m") => [Operation::Migrate, Operation::Start],
            Some("r") => [Operation::Restore, Operation::Start],
            _ => [Operation::Prepare, Operation::Start],
        };
        let kind = match kind.get(..1) {
            Some("b") => Kind::TooFewBits,
            Some("h") => Kind::InHole,
            Some("d") => Kind::DimmInHole,
            Some("f") => Kind::Fine,
            _ => Kind::Any,
        };
        let name = words.next().filter(|name| !name.is_empty()).unwrap_or("db").to_owned();
        let piece = words.next().and_then(|word| word.parse().ok()).unwrap_or(65536).clamp(1, 65536);
        let fails_after = words.next().and_then(|word| word.parse().ok());
        Self { kind, operations, name, piece, fails_after }
    }
}

/// Properties of every outcome.
fn check_outcome(outcome: &HookOutcome, call: &Call, told: OnInternalError) {
    assert_eq!(outcome.blocked, outcome.message.is_some(), "{outcome:?}");
    for line in outcome.log.iter().map(|(_, line)| line).chain(&outcome.message) {
        assert!(!line.is_empty() && line.len() < 16 * 1024 && !line.contains(char::is_control), "{line:?}");
    }
    if let Some(message) = &outcome.message {
        assert!(message.starts_with("iova-preflight: "), "{message}");
        assert!(!outcome.log.is_empty(), "stopped, and the log does not know");
    }
    for (level, line) in &outcome.log {
        if *level == Level::Error {
            assert!(line.contains(shown(&call.name).as_str()), "{line} does not name {:?}", call.name);
            assert_eq!(outcome.blocked, told == OnInternalError::Block, "{outcome:?}");
        }
    }
}

/// Whether the host's QEMU can be one that looks at phys-bits: an older one than the guest's type has other reasons.
fn checks_phys_bits(xml: &[u8], root: &Path) -> bool {
    let Ok(document) = Document::parse(xml) else { return true };
    let Ok(domain) = domain::read(&document) else { return true };
    host_for_domain(root, &domain).qemu.is_none_or(|qemu| qemu >= FIRST_RELOCATING_QEMU)
}

/// A name as a line shows it, as far as any line does.
fn shown(name: &str) -> String {
    printable(&name.chars().take(200).collect::<String>()).into_owned()
}

fn is_named(outcomes: &[HookOutcome], call: &Call, name: &str) -> bool {
    let names = [shown(&call.name), shown(name)];
    outcomes.iter().flat_map(|outcome| &outcome.log).any(|(_, line)| names.iter().any(|name| line.contains(name)))
}

/// Whether the operator exempts it. Names that look like a UUID are not asserted.
fn is_left_alone(policy: &Policy, call: &Call, name: &str) -> bool {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_hexdigit).count() == 32;
    policy.mode == Mode::Off
        || policy.exempt.iter().any(|exempt| exempt == &call.name || exempt == name || digits(exempt))
}

#[allow(clippy::too_many_arguments, reason = "one for each part of the input")]
fn check_promise(
    outcomes: &[HookOutcome],
    call: &Call,
    policy: &[u8],
    reserved: &[u8],
    metadata: &[u8],
    tail: &[u8],
    xml: &[u8],
    root: &Path,
) {
    let blocked = outcomes.iter().any(|outcome| outcome.blocked);
    let Ok(policy) = policy::parse(policy) else {
        assert!(is_named(outcomes, call, "db"), "a broken policy, and nobody is told: {outcomes:?}");
        return;
    };
    if call.kind == Kind::Any {
        return check_against_the_whole(outcomes, call, &policy, xml, root);
    }
    if is_left_alone(&policy, call, "db") {
        return;
    }
    if policy.mode == Mode::Warn && policy.on_internal_error == OnInternalError::Allow {
        assert!(!blocked, "{outcomes:?}");
    }
    let lost = match call.kind {
        Kind::TooFewBits => checks_phys_bits(xml, root),
        Kind::InHole | Kind::DimmInHole => reserved == HYPER_TRANSPORT,
        Kind::Fine | Kind::Any => false,
    };
    if lost {
        assert!(blocked || is_named(outcomes, call, "db"), "let go, and nobody is told: {outcomes:?}");
    }
    let whole = [b"<metadata>", metadata, b"</metadata>"].concat();
    let as_libvirt_prints = Document::parse(&whole).is_ok();
    if as_libvirt_prints && tail.is_empty() && call.fails_after.is_none() {
        // Nothing that the guest's owner writes changes the outcome.
        if lost && policy.mode == Mode::Enforce {
            assert!(blocked, "metadata frees it: {outcomes:?}");
        }
        if call.kind == Kind::Fine {
            assert!(!blocked, "metadata stops it: {outcomes:?}");
            let errors = outcomes.iter().flat_map(|outcome| &outcome.log).filter(|(level, _)| *level == Level::Error);
            assert_eq!(errors.count(), 0, "{outcomes:?}");
        }
    }
}

/// The hook decides as an evaluation of the whole document with every fact does, although it skips parts.
fn check_against_the_whole(outcomes: &[HookOutcome], call: &Call, policy: &Policy, xml: &[u8], root: &Path) {
    let Ok(document) = Document::parse(xml) else { return };
    let Ok(domain) = domain::read(&document) else { return };
    if call.fails_after.is_some() || is_left_alone(policy, call, &domain.name) {
        return;
    }
    let evaluation = evaluate(&domain, &host_for_domain(root, &domain), policy);
    let lost = evaluation
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Error && STOPPING.contains(&finding.rule));
    let blocked = outcomes.iter().any(|outcome| outcome.blocked);
    if lost {
        assert!(blocked || is_named(outcomes, call, &domain.name), "let go, and nobody is told: {evaluation:?}");
    }
    if lost && evaluation.assumptions.is_empty() && policy.mode == Mode::Enforce {
        assert!(blocked, "certain, and let go: {outcomes:?} {evaluation:?}");
    }
    if !lost {
        assert!(!blocked, "stopped for nothing: {outcomes:?} {evaluation:?}");
    }
}
