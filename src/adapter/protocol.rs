//! How a decision is handed to each orchestrator.

use super::{AdapterDecision, AdapterOutcome, Reason};
use crate::decision::Level;
use crate::domain::Owner;
use crate::policy::{OnInternalError, Policy};
use crate::text::ascii;
use crate::xml::edit::escape;

/// How a guest goes back to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// On standard output, rewritten or as it came.
    Printed,
    /// In the file that it came in, if it is rewritten.
    Edited,
    /// Not at all: the caller takes a yes or a no.
    Nothing,
}

/// What an orchestrator's hook protocol asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The orchestrator.
    pub owner: Owner,
    /// How a guest goes back.
    pub returns: Returns,
    /// The exit status that stops a guest.
    pub stop: u8,
    /// The exit status if the adapter itself fails. If it is not 0, the caller continues with the original.
    pub failure: u8,
    /// The most bytes that the caller takes from standard output.
    pub most: Option<usize>,
    /// Whether a guest can be stopped with a domain that libvirt refuses, too.
    pub takes_refusal: bool,
    /// Whether standard error is the only log, so that a failure is reported there with status 0.
    pub stderr_is_log: bool,
    /// How long to wait, in milliseconds, before exiting: the caller may lose lines that were written just before the
    /// exit.
    pub linger: u64,
    /// The time limit for a decision in seconds: well below that of the caller.
    pub patience: u64,
}

/// oVirt's VDSM 4.5, hooks `before_vm_start` (`_runHooksDir` in `lib/vdsm/common/hooks.py`): the file that
/// `_hook_domxml` names is edited; 2 stops the guest and the hooks after this one.
pub const VDSM: Protocol = Protocol {
    owner: Owner::Vdsm,
    returns: Returns::Edited,
    stop: 2,
    failure: 0,
    most: None,
    takes_refusal: false,
    stderr_is_log: false,
    linger: 0,
    patience: 20,
};

/// KubeVirt 1.9, `onDefineDomain` (`runOnDefineDomain` in `cmd/sidecars/sidecar_shim.go`). It closes the pipe that is
/// standard error as soon as the program ends: of lines written just before that, 17 to 26 percent were lost, and of
/// 500 written 2 ms before it, none. A call may take a minute (`pkg/hooks/manager.go`). There is no system log in a
/// container.
pub const KUBEVIRT: Protocol = Protocol {
    owner: Owner::Kubevirt,
    returns: Returns::Printed,
    stop: 1,
    failure: 0,
    most: None,
    takes_refusal: true,
    stderr_is_log: true,
    linger: 20,
    patience: 20,
};

/// CloudStack 4.21 through our own Groovy script (`performXmlTransformHook` in `LibvirtKvmAgentHook.java`), which goes
/// on with the original unless the status is 0.
pub const CLOUDSTACK_GROOVY: Protocol = Protocol {
    owner: Owner::Cloudstack,
    returns: Returns::Printed,
    stop: 1,
    failure: 2,
    most: None,
    takes_refusal: true,
    stderr_is_log: false,
    linger: 0,
    patience: 20,
};

/// CloudStack 4.21's shell hook (`Script.java`, `OutputInterpreter.AllLinesParser`): standard error counts as output,
/// nothing of it is read before the program ends, so that more than a pipe holds (65,536 bytes) hangs for 30 seconds,
/// and every status but 0 makes it go on with the original.
pub const CLOUDSTACK_SHELL: Protocol = Protocol { most: Some(65_000), ..CLOUDSTACK_GROOVY };

/// OpenNebula 7.4, in front of `vmm/kvm/deploy`.
pub const OPENNEBULA: Protocol = Protocol {
    owner: Owner::Opennebula,
    returns: Returns::Printed,
    stop: 1,
    failure: 0,
    most: None,
    takes_refusal: false,
    stderr_is_log: false,
    linger: 0,
    patience: 20,
};

/// Proxmox VE 9, phase `pre-start` of a hookscript (`vm_start_nolock` in `QemuServer.pm`): any status but 0 stops the
/// guest, whose configuration was already read. `qm showcmd` may have to activate the guest's volumes, which can take
/// long.
pub const PROXMOX: Protocol = Protocol {
    owner: Owner::Proxmox,
    returns: Returns::Nothing,
    stop: 1,
    failure: 0,
    most: None,
    takes_refusal: false,
    stderr_is_log: false,
    linger: 0,
    patience: 60,
};

/// What the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// For standard output.
    pub stdout: Vec<u8>,
    /// What the file is to hold, if it is to be changed.
    pub file: Option<String>,
    /// A line for standard error, ASCII.
    pub stderr: Option<String>,
    /// The exit status.
    pub status: u8,
    /// Lines for the system log.
    pub log: Vec<(Level, String)>,
}

/// The exit status if the guest cannot be handed back because its input was never read completely.
const UNREAD: u8 = 2;

/// Bytes of a reason that libvirt still quotes whole: its messages are cut at 1,024 (`VIR_ERROR_MAX_LENGTH` in
/// `src/util/virerror.c`).
const MOST_QUOTED: usize = 900;

impl Protocol {
    /// The reply to a caller. `input` is what it passed, `None` if that could not be read.
    pub fn reply(&self, input: Option<&[u8]>, outcome: AdapterOutcome, policy: &Policy) -> Reply {
        let AdapterOutcome { decision, mut log, vm } = outcome;
        let mut reply = match decision {
            AdapterDecision::Pass => self.unchanged(input),
            AdapterDecision::Rewrite(text) => self.rewritten(text),
            AdapterDecision::Stop(reason) => self.stopped(&reason, policy),
            AdapterDecision::Failure(problem) => {
                let reason = Reason::of_failure(&problem, vm.as_deref(), policy.on_internal_error);
                log.push((Level::Error, ascii(&format!("adapter {}: {}", self.owner.name(), reason.line))));
                match policy.on_internal_error {
                    OnInternalError::Block => self.stopped(&reason, policy),
                    OnInternalError::Allow => self.failed(input, &reason),
                }
            }
        };
        reply.log = log;
        reply
    }

    /// A failure that lets the guest start.
    fn failed(&self, input: Option<&[u8]>, reason: &Reason) -> Reply {
        if self.failure != 0 {
            return self.declined(&reason.line);
        }
        let stderr = self.stderr_is_log.then(|| line(&reason.line));
        Reply { stderr, ..self.unchanged(input) }
    }

    fn unchanged(&self, input: Option<&[u8]>) -> Reply {
        match (self.returns, input) {
            (Returns::Printed, Some(input)) => self.printed(input.to_vec()),
            // An empty output would be taken for the domain.
            (Returns::Printed, None) => Reply { status: UNREAD, ..Reply::silent() },
            (Returns::Edited | Returns::Nothing, _) => Reply::silent(),
        }
    }

    fn rewritten(&self, text: String) -> Reply {
        match self.returns {
            Returns::Printed => self.printed(text.into_bytes()),
            Returns::Edited => Reply { file: Some(text), ..Reply::silent() },
            Returns::Nothing => Reply::silent(),
        }
    }

    fn printed(&self, text: Vec<u8>) -> Reply {
        match self.most.filter(|&most| text.len() > most) {
            Some(most) => self.declined(&format!(
                "{} bytes of XML are more than this hook can return ({most}); {} uses its own XML",
                text.len(),
                self.owner.title()
            )),
            None => Reply { stdout: text, ..Reply::silent() },
        }
    }

    /// The caller continues with the original, and logs why.
    fn declined(&self, why: &str) -> Reply {
        Reply { stderr: Some(line(why)), status: self.failure, ..Reply::silent() }
    }

    fn stopped(&self, reason: &Reason, policy: &Policy) -> Reply {
        if self.takes_refusal && policy.adapter.block_in_domain {
            return Reply { stdout: refusal(reason).into_bytes(), ..Reply::silent() };
        }
        Reply { stderr: Some(line(&reason.line)), status: self.stop, ..Reply::silent() }
    }
}

impl Reply {
    /// Status 0 without output.
    pub fn silent() -> Self {
        Self { stdout: Vec::new(), file: None, stderr: None, status: 0, log: Vec::new() }
    }
}

/// A line for standard error.
fn line(text: &str) -> String {
    ascii(&format!("iova-preflight: {text}"))
}

/// A domain that libvirt refuses with the reason: `unsupported configuration: invalid domain type …`
/// (`virDomainDefParseXML` in `src/conf/domain_conf.c`).
fn refusal(reason: &Reason) -> String {
    let whole = line(&reason.line);
    let mut text = if whole.len() > MOST_QUOTED { line(&reason.brief) } else { whole };
    // It is ASCII: every byte is a character.
    if text.len() > MOST_QUOTED {
        text.truncate(MOST_QUOTED);
        text.push_str("...");
    }
    format!("<domain type='{}'><name>{}</name></domain>\n", escape(&text), escape(&reason.name))
}
