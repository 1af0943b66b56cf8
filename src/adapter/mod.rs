//! What orchestrators are told about a guest that they start, in the protocol of each one's hook, without any I/O.
//!
//! One decision is made for all of them: a guest passes unchanged, is rewritten, or is stopped; a failure of the
//! adapter itself lets it pass unless the policy says otherwise. Protocols differ in how that is said ([`Protocol`],
//! [`Reply`]).

mod call;
mod protocol;

pub use call::{AdapterCall, read_call, vm_in};
pub use protocol::{
    CLOUDSTACK_GROOVY, CLOUDSTACK_SHELL, KUBEVIRT, OPENNEBULA, PROXMOX, Protocol, Reply, Returns, VDSM,
};

use crate::advice;
use crate::decision::{Level, is_exempt, is_small, shortened};
use crate::finding::{Finding, Severity};
use crate::host::Host;
use crate::policy::{Mode, OnInternalError, Policy};
use crate::report::source::GuestSource;
use crate::rules;
use crate::text::printable;
use crate::verdict::{Evaluation, Verdict, evaluate};

/// What becomes of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterDecision {
    /// It starts as it is.
    Pass,
    /// It starts with this text.
    Rewrite(String),
    /// It is stopped.
    Stop(Reason),
    /// The check itself failed, for this reason.
    Failure(String),
}

/// Why a guest is stopped, without the name of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The guest, and in one line what goes wrong, why, and what to do.
    pub line: String,
    /// The same without the cause, where space is short.
    pub brief: String,
    /// The guest's name.
    pub name: String,
}

/// A decision, and what is logged with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterOutcome {
    /// The decision.
    pub decision: AdapterDecision,
    /// Lines for the system log. Each names the guest.
    pub log: Vec<(Level, String)>,
    /// The guest's name in the call, for a failure before the domain's name is read.
    pub vm: Option<String>,
}

impl AdapterOutcome {
    /// A guest that starts as it is.
    pub fn pass() -> Self {
        Self { decision: AdapterDecision::Pass, log: Vec::new(), vm: None }
    }

    /// A failure of the adapter itself.
    pub fn failure(problem: impl Into<String>) -> Self {
        Self { decision: AdapterDecision::Failure(problem.into()), log: Vec::new(), vm: None }
    }

    /// The same, for the guest with this name in the call.
    pub fn of_vm(self, vm: Option<&str>) -> Self {
        Self { vm: vm.filter(|vm| !vm.is_empty()).map(shortened), ..self }
    }

    fn logged(decision: AdapterDecision, level: Level, line: String) -> Self {
        Self { decision, log: vec![(level, printable(&line).into_owned())], vm: None }
    }
}

/// Decides about a guest. It starts unchanged unless it is certain to fail: another check may know more.
pub fn decide(protocol: &Protocol, guest: GuestSource<'_>, host: &Host, policy: &Policy) -> AdapterOutcome {
    let uuid = guest.domain().and_then(|domain| domain.uuid.as_deref());
    if policy.mode == Mode::Off || is_exempt(policy, guest.name(), uuid) {
        return AdapterOutcome::pass();
    }
    let name = shortened(guest.name());
    let evaluation = evaluate(guest.subject(), host, policy);
    let mut outcome = if evaluation.verdict.stops() {
        stopped(protocol, guest, &name, &evaluation, policy)
    } else {
        passed(guest, &name, &evaluation)
    };
    if let Some(refused) = guest.domain().and_then(|domain| policy.refused_override(&domain.overrides)) {
        outcome.log.insert(0, (Level::Warning, printable(&format!("guest {name}: {refused}")).into_owned()));
    }
    outcome
}

/// A guest that starts as it is. What is latent or uncertain is logged, if it is large enough for that to matter.
fn passed(guest: GuestSource<'_>, name: &str, evaluation: &Evaluation) -> AdapterOutcome {
    let finding = evaluation.findings.iter().find(|finding| finding.severity > Severity::Note);
    let line = match finding.filter(|_| evaluation.verdict == Verdict::Warn) {
        Some(finding) => format!("guest {name}: {}: {}", finding.rule, finding.message()),
        None if evaluation.assumptions.is_empty() || guest.domain().is_some_and(is_small) => {
            return AdapterOutcome::pass();
        }
        None => format!("guest {name} is allowed, but whether it starts {}", evaluation.assumptions.join(" and ")),
    };
    AdapterOutcome::logged(AdapterDecision::Pass, Level::Warning, line)
}

/// A guest that would not start as it is.
fn stopped(
    protocol: &Protocol,
    guest: GuestSource<'_>,
    name: &str,
    evaluation: &Evaluation,
    policy: &Policy,
) -> AdapterOutcome {
    let errors = || evaluation.findings.iter().filter(|finding| finding.severity == Severity::Error);
    // If both apply, memory that devices cannot reach matters more than missing address bits.
    let certain = || errors().filter(|finding| rules::stops(finding) || rules::by_policy(finding));
    let worst = certain().find(|finding| rules::is_collision(finding)).or_else(|| certain().next());
    let Some(shown) = worst.or_else(|| errors().next()) else { return passed(guest, name, evaluation) };
    let reason = Reason::new(name, shown, &remedy(protocol, guest, evaluation));
    let allowed = |why: &str| {
        let line = format!("{} (allowed{why})", reason.line);
        AdapterOutcome::logged(AdapterDecision::Pass, Level::Warning, line)
    };
    if !evaluation.assumptions.is_empty() {
        return allowed(&format!(": this {}", evaluation.assumptions.join(" and ")));
    }
    if policy.mode == Mode::Warn {
        return allowed(" by policy");
    }
    if let Some(fix) = evaluation.fix.as_ref().filter(|_| protocol.returns != Returns::Nothing) {
        return match guest.rewritten(fix) {
            Ok(text) => {
                let changes: Vec<String> = fix.changes.iter().map(ToString::to_string).collect();
                let mut line = format!("guest {name} is rewritten: {}", changes.join(", "));
                if let Some(assumption) = &fix.assumption {
                    line = format!("{line} ({assumption})");
                }
                AdapterOutcome::logged(AdapterDecision::Rewrite(text), Level::Warning, line)
            }
            Err(error) => AdapterOutcome::failure(error.to_string()),
        };
    }
    if worst.is_none() {
        return allowed(": see the error of whoever refuses it");
    }
    let line = format!("stopped: {}", reason.line);
    AdapterOutcome::logged(AdapterDecision::Stop(reason), Level::Warning, line)
}

/// What to do, in the words of the orchestrator.
fn remedy(protocol: &Protocol, guest: GuestSource<'_>, evaluation: &Evaluation) -> String {
    match evaluation.fix.as_ref().filter(|_| protocol.returns == Returns::Nothing) {
        Some(fix) => {
            let mut steps = advice::advise(protocol.owner, guest.subject(), fix).steps;
            // The last is to stop and start the guest, which is what somebody was about to do.
            steps.pop();
            format!("{}; then start it again", steps.join("; "))
        }
        None => advice::remedy(protocol.owner, guest.subject(), evaluation),
    }
}

impl Reason {
    fn new(name: &str, finding: &Finding, remedy: &str) -> Self {
        Self {
            line: format!("guest {name}: {}; {remedy}", finding.message()),
            brief: format!("guest {name}: {}; {remedy}", finding.title),
            name: name.to_owned(),
        }
    }

    /// The message for a failure of the adapter itself.
    fn of_failure(problem: &str, vm: Option<&str>, choice: OnInternalError) -> Self {
        let guest = vm.map_or_else(|| "the guest".to_owned(), |vm| format!("VM {vm}"));
        let end = match choice {
            OnInternalError::Allow => format!("allowing {guest} to start unchecked"),
            OnInternalError::Block => format!("{guest} is stopped (on_internal_error = \"block\")"),
        };
        let line = format!("internal error: {problem}; {end}");
        Self { brief: line.clone(), line, name: "unknown".to_owned() }
    }
}

#[cfg(test)]
mod tests;
