//! What the libvirt hook decides, without any I/O.
//!
//! libvirt calls a hook as `NAME OPERATION SUB-OPERATION EXTRA` with the domain XML on standard input, waits for it
//! without a time limit, and takes every exit status but 0 for a refusal (libvirt `docs/hooks.rst`,
//! `src/util/virhook.c`). On `reconnect` a refusal kills a running guest, so that nothing but a known list of
//! operations is ever looked at.

mod run;

pub use run::{BrokenPolicy, HookOutcome, Level, Outside, XmlProblem, run};

use crate::domain::{CpuMode, Domain};

use crate::address::AMD_HT_START;
use crate::finding::{Finding, Severity};
use crate::host::Host;
use crate::policy::{Mode, OnInternalError, Policy};
use crate::qemu::cpu::{DEFAULT_PHYS_BITS, MAX_PHYS_BITS, has_long_mode};
use crate::qemu::layout::Q35_PCI_HOLE64_SIZE;
use crate::rules;
use crate::text::{printable, shell_word};
use crate::verdict::{Evaluation, Verdict, evaluate};

/// The operations a guest can be stopped at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Before any resource of a starting guest is touched. Sizes are not rounded and host-model is not expanded yet.
    Prepare,
    /// Before QEMU is started; the XML is final.
    Start,
    /// An incoming migration, on the destination.
    Migrate,
    /// A managed or saved image is restored.
    Restore,
}

impl Operation {
    /// The operation in libvirt's second and third argument; `None` for every one at which a guest is never stopped.
    pub fn parse(operation: &str, sub_operation: &str) -> Option<Self> {
        match (operation, sub_operation) {
            ("prepare", "begin") => Some(Self::Prepare),
            ("start", "begin") => Some(Self::Start),
            ("migrate", "begin") => Some(Self::Migrate),
            ("restore", "begin") => Some(Self::Restore),
            _ => None,
        }
    }

    /// Whether the guest's ABI is fixed by what already ran, so that no rewrite of its XML helps.
    fn is_incoming(self) -> bool {
        matches!(self, Self::Migrate | Self::Restore)
    }
}

/// What the hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The guest starts; there may be something for the system log.
    Allow {
        /// A line for the log, at warning.
        log: Option<String>,
    },
    /// The guest is stopped with this line.
    Block {
        /// What collides and what fixes it, in one line.
        message: String,
    },
}

/// Whether the policy exempts a guest, by name or by UUID. What has the form of a UUID is one: a guest that is named
/// like the UUID of another is not exempt.
pub fn is_exempt(policy: &Policy, name: &str, uuid: Option<&str>) -> bool {
    policy.exempt.iter().any(|exempt| match uuid_digits(exempt) {
        Some(digits) => uuid.and_then(uuid_digits) == Some(digits),
        None => exempt == name,
    })
}

/// The 32 digits of a UUID, with hyphens anywhere or without, as `virUUIDParse` in libvirt's `src/util/viruuid.c`
/// takes it.
fn uuid_digits(text: &str) -> Option<[u8; 32]> {
    let mut digits = text.trim().bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_lowercase());
    let mut found = [0; 32];
    for digit in &mut found {
        *digit = digits.next().filter(u8::is_ascii_hexdigit)?;
    }
    digits.next().is_none().then_some(found)
}

/// Whether a guest is too small to reach the HyperTransport range or the end of 40 address bits, and has no device for
/// which the host may reserve anything else, whatever its machine type and its host. Such a guest is decided without
/// another look at the machine.
pub fn is_out_of_reach(domain: &Domain, policy: &Policy) -> bool {
    domain.passthrough.is_empty() && !policy.expects_passthrough(&domain.overrides) && is_small(domain)
}

/// Whether the memory map ends before the HyperTransport range and the end of 40 address bits.
pub(crate) fn is_small(domain: &Domain) -> bool {
    // A raw argument may change the machine in any way.
    if !domain.raw_args.is_empty() || !domain.device_changes.is_empty() {
        return false;
    }
    const KIB: u64 = 1024;
    const GIB_IN_KIB: u64 = 1 << 20;
    let cpu = domain.cpu.as_ref();
    let asks_for_odd_bits = cpu.is_some_and(|cpu| {
        let width = cpu.maxphysaddr.as_ref();
        let usual = DEFAULT_PHYS_BITS..=MAX_PHYS_BITS;
        let odd = |bits: Option<u32>| bits.is_some_and(|bits| bits != 0 && !usual.contains(&bits));
        width.is_some_and(|w| odd(w.bits.map(|bits| bits.value)) || odd(w.limit.map(|limit| limit.value)))
    });
    // A CPU without long mode ends far lower, and takes no phys-bits at all.
    let may_lack_long_mode = cpu.is_some_and(|cpu| {
        !cpu.features.is_empty() || cpu.model.as_ref().is_some_and(|model| !has_long_mode(&model.value))
    });
    // What raw QEMU arguments ask for is read later.
    let has_raw_arguments = !domain.raw_args.is_empty() || !domain.device_changes.is_empty();
    if asks_for_odd_bits || may_lack_long_mode || has_raw_arguments {
        return false;
    }
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0u64, u64::saturating_add);
    let memory = domain.memory.map_or(0, |memory| memory.value);
    let cells = sum(&mut domain.numa_cells.iter().map(|cell| cell.value));
    let devices = sum(&mut domain.memory_devices.iter().map(|device| device.size.value));
    let maximum = domain.max_memory.map_or(0, |maximum| maximum.value);
    let slots = domain.slots.map_or(0, |slots| u64::from(slots.value)).saturating_mul(GIB_IN_KIB);
    let hole = domain.pci_hole64.map_or(0, |hole| hole.value).max(Q35_PCI_HOLE64_SIZE / KIB);
    // Memory as libvirt may count it, 4 GiB for what lies below RAM above 4 GiB, and a GiB for each rounding.
    let parts = [memory.max(cells).saturating_add(devices).max(maximum), slots, hole, 8 * GIB_IN_KIB];
    sum(&mut parts.into_iter()) < AMD_HT_START / KIB
}

/// Decides about a guest that is not out of reach.
pub fn decide(operation: Operation, domain: &Domain, host: &Host, policy: &Policy) -> Decision {
    let evaluation = evaluate(domain, host, policy);
    let name = &shortened(&domain.name);
    let stopping: Vec<&Finding> = evaluation.findings.iter().filter(|finding| rules::stops(finding)).collect();
    // If both apply, memory that devices cannot reach matters more than missing address bits.
    let worst = stopping.iter().find(|finding| rules::is_collision(finding)).or(stopping.first());
    let Some(worst) = worst else {
        let log = warning(operation, name, &evaluation).or_else(|| uncertain(operation, name, domain, &evaluation));
        return Decision::Allow { log };
    };
    let unexpanded = domain.cpu.as_ref().is_some_and(|cpu| cpu.mode == CpuMode::HostModel);
    if operation == Operation::Prepare && unexpanded {
        // What libvirt makes of host-model is seen at `start`.
        return Decision::Allow { log: None };
    }
    let message = format!("guest {name}: {}; {}", worst.message(), advice(operation, name, &evaluation));
    let message = printable(&message).into_owned();
    if !evaluation.assumptions.is_empty() {
        let log = format!("{message} (allowed: this {})", evaluation.assumptions.join(" and "));
        return Decision::Allow { log: Some(log) };
    }
    if policy.mode == Mode::Warn {
        return Decision::Allow { log: Some(format!("{message} (allowed by policy)")) };
    }
    Decision::Block { message }
}

/// The owner is in `<metadata>`, which is not read here, and makes the definition anew at each start.
const OWNED: &str = "if an orchestrator owns the guest, change it there";

fn advice(operation: Operation, name: &str, evaluation: &Evaluation) -> String {
    let name = shell_word(name);
    match &evaluation.fix {
        _ if operation.is_incoming() => {
            format!(
                "a migrated or restored guest cannot be rewritten: edit the definition with `virsh edit {name}` and \
                 start it from scratch; {OWNED}"
            )
        }
        Some(fix) => {
            let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
            format!(
                "fix: {} with `iova-preflight fix --connect qemu:///system --domain {name}` or `virsh edit {name}`; {OWNED}",
                changes.join(", ")
            )
        }
        None => {
            let tried: Vec<&str> = evaluation.tried.iter().map(String::as_str).collect();
            format!("no automatic fix: {}", tried.join("; "))
        }
    }
}

/// Something latent is logged once, when the XML is final.
fn warning(operation: Operation, name: &str, evaluation: &Evaluation) -> Option<String> {
    if operation == Operation::Prepare || evaluation.verdict == Verdict::NotApplicable {
        return None;
    }
    let finding = evaluation.findings.iter().find(|finding| finding.severity > Severity::Note)?;
    let line = format!("guest {name}: {}: {}", finding.rule, finding.message());
    Some(printable(&line).into_owned())
}

/// What is not certain to start is logged once, too, if it is large enough for that to matter.
fn uncertain(operation: Operation, name: &str, domain: &Domain, evaluation: &Evaluation) -> Option<String> {
    if operation == Operation::Prepare || evaluation.assumptions.is_empty() || is_small(domain) {
        return None;
    }
    let line = format!("guest {name} is allowed, but whether it starts {}", evaluation.assumptions.join(" and "));
    Some(printable(&line).into_owned())
}

/// The name, cut to a readable length; the line goes to the terminal and to several logs.
pub(crate) fn shortened(name: &str) -> String {
    /// Characters; twice what OpenStack and Kubernetes make of a name.
    const LONGEST: usize = 200;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What a policy file says of internal errors, even if the rest of it cannot be read.
pub fn salvage_on_internal_error(policy: &[u8]) -> OnInternalError {
    let text = String::from_utf8_lossy(policy);
    let value = text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("on_internal_error")?.trim_start().strip_prefix('=')?;
        Some(value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned())
    });
    if value.as_deref() == Some("block") { OnInternalError::Block } else { OnInternalError::Allow }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;
    use crate::host::builtin;
    use crate::xml::Document;

    fn domain(name: &str, cpu: &str, machine: &str, memory: &str, devices: &str) -> Domain {
        let xml = format!(
            "<domain type='kvm'><name>{name}</name>{memory}<os><type arch='x86_64' machine='{machine}'>hvm</type></os>\
             {cpu}<devices>{devices}</devices></domain>"
        );
        domain::read(&Document::parse(xml.as_bytes()).expect("well-formed")).expect("a domain")
    }

    fn epyc() -> Host {
        let mut host = builtin("amd-epyc").expect("built in");
        host.qemu = "7.2".parse().ok();
        host
    }

    const HUGE: &str = "<memory unit='GiB'>1200</memory>";
    const HOSTDEV: &str = "<hostdev type='pci'><source><address bus='0x41'/></source></hostdev>";
    const ENOUGH_BITS: &str = "<cpu mode='host-passthrough'/>";

    #[test]
    fn only_four_operations_are_looked_at() {
        for operation in ["prepare", "start", "migrate", "restore"] {
            assert!(Operation::parse(operation, "begin").is_some());
            assert!(Operation::parse(operation, "end").is_none());
        }
        for operation in ["reconnect", "started", "stopped", "release", "attach", "future", ""] {
            assert!(Operation::parse(operation, "begin").is_none(), "{operation}");
        }
    }

    #[test]
    fn a_certain_failure_is_blocked_at_prepare_with_its_fix() {
        let domain = domain("db", ENOUGH_BITS, "pc-q35-6.2", HUGE, HOSTDEV);
        let Decision::Block { message } = decide(Operation::Prepare, &domain, &epyc(), &Policy::default()) else {
            panic!("not blocked")
        };
        for part in ["guest db", "HyperTransport", "machine pc-q35-6.2 → pc-q35-7.1", "virsh edit db", "orchestrator"]
        {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains('\n'));
    }

    #[test]
    fn memory_that_the_iommu_cannot_address_is_blocked() {
        let domain = domain("nested", ENOUGH_BITS, "pc-q35-7.2", "<memory unit='GiB'>600</memory>", HOSTDEV);
        let narrow = Host { iommu_bits: Some(39), ..builtin("intel-xeon").expect("built in") };
        let Decision::Block { message } = decide(Operation::Prepare, &domain, &narrow, &Policy::default()) else {
            panic!("not blocked")
        };
        assert!(message.contains("above the 39 bits") && message.contains("less memory"), "{message}");
        let unknown = Host { iommu_bits: None, ..narrow };
        let decision = decide(Operation::Prepare, &domain, &unknown, &Policy::default());
        assert_eq!(decision, Decision::Allow { log: None });
    }

    #[test]
    fn without_a_device_it_starts() {
        let domain = domain("db", ENOUGH_BITS, "pc-q35-6.2", HUGE, "");
        assert!(matches!(
            decide(Operation::Prepare, &domain, &epyc(), &Policy::default()),
            Decision::Allow { log: None }
        ));
        assert!(matches!(
            decide(Operation::Start, &domain, &epyc(), &Policy::default()),
            Decision::Allow { log: Some(_) }
        ));
    }

    #[test]
    fn host_model_is_decided_at_start() {
        let domain = domain("db", "<cpu mode='host-model'/>", "pc-q35-7.2", HUGE, HOSTDEV);
        assert_eq!(decide(Operation::Prepare, &domain, &epyc(), &Policy::default()), Decision::Allow { log: None });
        assert!(matches!(decide(Operation::Start, &domain, &epyc(), &Policy::default()), Decision::Block { .. }));
    }

    #[test]
    fn uncertain_guests_are_logged_and_allowed() {
        let domain = domain("db", ENOUGH_BITS, "pc-q35-6.2", HUGE, HOSTDEV);
        let unknown = Host { iommu: None, reserved: Vec::new(), ..epyc() };
        let Decision::Allow { log } = decide(Operation::Start, &domain, &unknown, &Policy::default()) else {
            panic!("stopped")
        };
        assert!(log.as_ref().is_some_and(|line| line.contains("guest db") && line.contains("depends on")), "{log:?}");
        let warn = Policy { mode: Mode::Warn, ..Policy::default() };
        assert!(matches!(decide(Operation::Start, &domain, &epyc(), &warn), Decision::Allow { log: Some(_) }));
    }

    #[test]
    fn an_incoming_guest_is_refused_without_a_rewrite() {
        let domain = domain("it's", ENOUGH_BITS, "pc-q35-6.2", HUGE, HOSTDEV);
        let Decision::Block { message } = decide(Operation::Migrate, &domain, &epyc(), &Policy::default()) else {
            panic!("not blocked")
        };
        assert!(message.contains("cannot be rewritten") && message.contains(r"virsh edit 'it'\''s'"), "{message}");
    }

    #[test]
    fn small_guests_are_out_of_reach_and_large_ones_are_not() {
        let reach = |cpu: &str, memory: &str, devices: &str| {
            is_out_of_reach(&domain("x", cpu, "pc", memory, devices), &Policy::default())
        };
        assert!(reach("", "<memory unit='GiB'>64</memory>", ""));
        assert!(reach("", "<memory unit='GiB'>900</memory>", ""));
        assert!(!reach("", "<memory unit='GiB'>900</memory>", HOSTDEV));
        assert!(!reach("", "<memory unit='GiB'>979</memory>", ""));
        assert!(!reach("", "<maxMemory slots='19' unit='GiB'>960</maxMemory><memory unit='GiB'>4</memory>", ""));
        assert!(!reach(
            "",
            "<memory unit='GiB'>900</memory>",
            "<controller type='pci' model='pcie-root'><pcihole64 unit='GiB'>128</pcihole64></controller>"
        ));
        let no_lm = "<cpu><model>EPYC</model><feature policy='disable' name='lm'/></cpu>";
        assert!(!reach(no_lm, "<memory unit='GiB'>500</memory>", ""));
        assert!(!reach("<cpu><model>pentium3</model></cpu>", "<memory unit='GiB'>500</memory>", ""));
        assert!(!reach("<cpu><maxphysaddr mode='emulate' bits='87'/></cpu>", "<memory unit='GiB'>64</memory>", ""));
        assert!(!reach("<cpu><maxphysaddr mode='emulate' bits='36'/></cpu>", "<memory unit='GiB'>64</memory>", ""));
        assert!(!reach(
            "<cpu><model>qemu32</model><maxphysaddr mode='emulate' bits='40'/></cpu>",
            "<memory unit='GiB'>1</memory>",
            ""
        ));
    }

    #[test]
    fn a_broken_policy_still_says_what_to_do_about_it() {
        assert_eq!(
            salvage_on_internal_error(b"mode = [\non_internal_error = 'block' # strict\n"),
            OnInternalError::Block
        );
        assert_eq!(salvage_on_internal_error(b"# on_internal_error = 'block'\nx"), OnInternalError::Allow);
        assert_eq!(salvage_on_internal_error(&[0xff, 0xfe]), OnInternalError::Allow);
    }

    #[test]
    fn exemption_is_by_name_or_uuid() {
        let policy =
            Policy { exempt: vec!["db".into(), "C7A5FDBD-0000-0000-0000-000000000000".into()], ..Policy::default() };
        assert!(is_exempt(&policy, "db", None));
        assert!(is_exempt(&policy, "x", Some("c7a5fdbd-0000-0000-0000-000000000000")));
        assert!(is_exempt(&policy, "x", Some("c7a5fdbd000000000000000000000000")));
        assert!(!is_exempt(&policy, "x", Some("y")));
        for name in ["c7a5fdbd-0000-0000-0000-000000000000", "C7A5FDBD-0000-0000-0000-000000000000"] {
            assert!(!is_exempt(&policy, name, Some("d7a5fdbd-0000-0000-0000-000000000000")), "{name}");
            assert!(!is_exempt(&policy, name, None), "{name}");
        }
        let plain = Policy { exempt: vec!["c7a5fdbd00000000000000000000000".into(), "-".into()], ..Policy::default() };
        assert!(is_exempt(&plain, "c7a5fdbd00000000000000000000000", None));
    }
}
