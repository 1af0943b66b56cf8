//! One run of the hook, from its call to its output, without the machine around it.

use super::{Decision, Operation, decide, is_exempt, is_out_of_reach, shortened};
use crate::domain::{self, Domain, MAX_PRINTED_BYTES, PrintedDomain, TooLong};
use crate::host::Host;
use crate::policy::{Mode, OnInternalError, Policy};
use crate::text::printable;
use crate::xml::{Document, Limits};

/// How much of a domain is read, what is in its `<metadata>` not counted. 4 MiB of the shortest elements that libvirt
/// keeps (`<tag id='1'/>`) are a million elements, attributes and texts: no definition is too large to be checked.
const LIMITS: Limits = Limits { bytes: MAX_PRINTED_BYTES, nodes: 1 << 20 };

/// The hook's environment. Each part is used at most once, when it is needed, in this order.
pub trait Outside {
    /// The operator's policy.
    ///
    /// # Errors
    /// It cannot be read.
    fn policy(&mut self) -> Result<Policy, BrokenPolicy>;

    /// Called before anything else can fail: what a failure leads to from now on.
    fn on_internal_error(&mut self, choice: OnInternalError);

    /// Hands over the domain XML in pieces, until it ends or one of them is too much.
    ///
    /// # Errors
    /// It cannot be read.
    fn xml(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), TooLong>) -> Result<(), XmlProblem>;

    /// The facts about the host, as far as this domain needs them.
    fn host(&mut self, domain: &Domain) -> Host;
}

/// Why there is no policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenPolicy {
    /// In one line, with the file and where in it.
    pub problem: String,
    /// Its setting for internal errors, which may still be readable.
    pub on_internal_error: OnInternalError,
}

/// Why there is no domain XML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlProblem {
    /// It could not be read.
    #[error("standard input: {0}")]
    Input(String),
    /// There is too much of it.
    #[error("domain XML: {0}")]
    TooLong(#[from] TooLong),
}

/// How important a line of the log is: a priority of RFC 3164.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A failure of the hook itself.
    Error = 3,
    /// Something about a guest.
    Warning = 4,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookOutcome {
    /// Whether the guest is stopped.
    pub blocked: bool,
    /// The line for standard error, which `virsh start` shows.
    pub message: Option<String>,
    /// Lines for the system log. Each names the guest.
    pub log: Vec<(Level, String)>,
}

impl HookOutcome {
    fn silent() -> Self {
        Self { blocked: false, message: None, log: Vec::new() }
    }

    /// The result if the hook itself fails.
    pub fn of_failure(name: &str, problem: &str, choice: OnInternalError) -> Self {
        let guest = printable(&shortened(name)).into_owned();
        let (problem, blocked) = (printable(problem), choice == OnInternalError::Block);
        let line = if blocked {
            format!("internal error: {problem}; guest {guest} is stopped (on_internal_error = \"block\")")
        } else {
            format!("internal error: {problem}; allowing guest {guest} to start unchecked")
        };
        let message = blocked.then(|| format!("iova-preflight: {line}"));
        Self { blocked, message, log: vec![(Level::Error, line)] }
    }
}

/// Decides about the guest `name`, as libvirt calls it.
pub fn run(operation: Operation, name: &str, outside: &mut dyn Outside) -> HookOutcome {
    let policy = match outside.policy() {
        Ok(policy) => policy,
        Err(BrokenPolicy { problem, on_internal_error }) => {
            outside.on_internal_error(on_internal_error);
            return HookOutcome::of_failure(name, &problem, on_internal_error);
        }
    };
    outside.on_internal_error(policy.on_internal_error);
    if policy.mode == Mode::Off || is_exempt(&policy, name, None) {
        return HookOutcome::silent();
    }
    look(operation, outside, &policy)
        .unwrap_or_else(|problem| HookOutcome::of_failure(name, &problem, policy.on_internal_error))
}

fn look(operation: Operation, outside: &mut dyn Outside, policy: &Policy) -> Result<HookOutcome, String> {
    let mut printed = PrintedDomain::default();
    outside.xml(&mut |piece| printed.push(piece)).map_err(|problem| problem.to_string())?;
    let document = Document::parse_within(printed.kept(), LIMITS)
        .map_err(|error| format!("domain XML:{}: {}", printed.place(error.location), error.message))?;
    let mut domain = domain::read(&document)
        .map_err(|error| format!("domain XML:{}: {error}", printed.place(document.location(error.span.start))))?;
    domain.overrides = printed.overrides().clone();
    if is_exempt(policy, &domain.name, domain.uuid.as_deref()) {
        return Ok(HookOutcome::silent());
    }
    let mut outcome = HookOutcome::silent();
    if let Some(refused) = policy.refused_override(&domain.overrides) {
        let line = format!("guest {}: {refused}", printable(&shortened(&domain.name)));
        outcome.log.push((Level::Warning, line));
    }
    if is_out_of_reach(&domain, policy) {
        return Ok(outcome);
    }
    let host = outside.host(&domain);
    match decide(operation, &domain, &host, policy) {
        Decision::Allow { log } => outcome.log.extend(log.map(|line| (Level::Warning, line))),
        Decision::Block { message } => {
            outcome.log.push((Level::Warning, format!("stopped: {message}")));
            outcome.message = Some(format!("iova-preflight: {message}"));
            outcome.blocked = true;
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::builtin;

    /// An AMD host with QEMU 7.2, and how often each part was asked for.
    struct World<'w> {
        policy: &'w str,
        xml: String,
        asked: [usize; 3],
    }

    impl Outside for World<'_> {
        fn policy(&mut self) -> Result<Policy, BrokenPolicy> {
            self.asked[0] += 1;
            let choice = OnInternalError::Block;
            Policy::from_toml(self.policy)
                .map_err(|error| BrokenPolicy { problem: error.to_string(), on_internal_error: choice })
        }

        fn on_internal_error(&mut self, _: OnInternalError) {}

        fn xml(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), TooLong>) -> Result<(), XmlProblem> {
            self.asked[1] += 1;
            self.xml.as_bytes().chunks(1000).try_for_each(|piece| Ok(take(piece)?))
        }

        fn host(&mut self, _: &Domain) -> Host {
            self.asked[2] += 1;
            Host { qemu: "7.2".parse().ok(), ..builtin("amd-epyc").expect("built in") }
        }
    }

    fn guest(memory: u64, metadata: &str, devices: &str) -> String {
        format!(
            "<domain type='kvm'><name>db</name><metadata>{metadata}</metadata><memory unit='GiB'>{memory}</memory>\
             <os><type machine='pc-q35-6.2'>hvm</type></os><cpu mode='host-passthrough'/><devices>{devices}</devices></domain>"
        )
    }

    const HOSTDEV: &str = "<hostdev type='pci'><source><address bus='0x41'/></source></hostdev>";

    fn run_with(policy: &str, xml: String) -> (HookOutcome, [usize; 3]) {
        let mut world = World { policy, xml, asked: [0; 3] };
        let outcome = run(Operation::Prepare, "db", &mut world);
        (outcome, world.asked)
    }

    #[test]
    fn facts_are_read_only_when_they_are_needed() {
        assert_eq!(run_with("mode = 'off'", String::new()), (HookOutcome::silent(), [1, 0, 0]));
        assert_eq!(run_with("exempt = ['db']", String::new()), (HookOutcome::silent(), [1, 0, 0]));
        assert_eq!(run_with("", guest(16, "", "")), (HookOutcome::silent(), [1, 1, 0]));
        let (outcome, asked) = run_with("", guest(1200, "", HOSTDEV));
        assert_eq!((outcome.blocked, asked), (true, [1, 1, 1]));
    }

    #[test]
    fn metadata_cannot_hide_a_guest() {
        let elements = "<a/>".repeat(300_000);
        let deep = format!("{}{}", "<a>".repeat(1000), "</a>".repeat(1000));
        for metadata in ["&undefined;", &elements, &deep, &">".repeat(5_000_000)] {
            assert!(run_with("", guest(1200, metadata, HOSTDEV)).0.blocked, "{metadata:.40}");
        }
    }

    #[test]
    fn an_override_tightens_and_is_never_a_way_out() {
        let policy = |asked: &str| format!("<p:policy xmlns:p='urn:iova-preflight:policy:1' passthrough='{asked}'/>");
        assert!(run_with("", guest(1200, &policy("assume"), "")).0.blocked);
        for asked in ["x", "", "present", "&undefined;"] {
            let (outcome, _) = run_with("passthrough = 'assume'", guest(1200, &policy(asked), ""));
            assert!(outcome.blocked, "{asked}");
            let [(Level::Warning, refused), _] = &outcome.log[..] else { panic!("{outcome:?}") };
            assert!(refused.starts_with("guest db: ") && refused.contains("is ignored"), "{refused}");
        }
        let (outcome, _) =
            run_with("passthrough = 'assume'\noverrides = 'honour'", guest(1200, &policy("present"), ""));
        assert_eq!(outcome, HookOutcome::silent());
        let (outcome, _) = run_with("overrides = 'ignore'", guest(1200, &policy("assume"), ""));
        assert!(!outcome.blocked && outcome.log.len() == 1, "{outcome:?}");
    }

    #[test]
    fn a_failure_names_the_guest_in_the_log() {
        for (policy, xml) in [("", "<domain>".to_owned()), ("modes", guest(16, "", "")), ("", guest(16, "<a>", ""))] {
            let (outcome, _) = run_with(policy, xml);
            let [(Level::Error, line)] = &outcome.log[..] else { panic!("{outcome:?}") };
            assert!(line.starts_with("internal error: ") && line.contains("guest db "), "{line}");
            assert_eq!(outcome.blocked, policy == "modes");
        }
    }
}
