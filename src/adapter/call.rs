//! How the adapters are called.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{CLOUDSTACK_GROOVY, CLOUDSTACK_SHELL, KUBEVIRT, OPENNEBULA, PROXMOX, Protocol, VDSM};

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterCall {
    /// The domain XML in an argument.
    Argument(Vec<u8>),
    /// The domain XML on standard input.
    Stdin,
    /// The domain XML in the file that an environment variable names.
    File,
    /// The command line of the guest with this number.
    Number(String),
    /// No decision is asked for; the caller expects this text on standard output.
    Elsewhere(Vec<u8>),
    /// Not a call that the orchestrator makes.
    Broken(String),
}

/// The protocol and what the call is about, from the orchestrator's name and the arguments.
pub fn read_call(name: &str, arguments: &[OsString]) -> Option<(&'static Protocol, AdapterCall)> {
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    Some(match (name, arguments) {
        ("vdsm", _) => (&VDSM, AdapterCall::File),
        ("kubevirt", _) => (&KUBEVIRT, kubevirt(arguments)),
        ("cloudstack", []) => (&CLOUDSTACK_GROOVY, AdapterCall::Stdin),
        ("cloudstack", [_, xml]) => (&CLOUDSTACK_SHELL, cloudstack(bytes(xml))),
        ("cloudstack", _) => {
            let problem = "called without a method and domain XML".to_owned();
            (&CLOUDSTACK_SHELL, AdapterCall::Broken(problem))
        }
        // What kvm/deploy is called with: a file to write, a host, and what is logged.
        ("opennebula", _) => (&OPENNEBULA, AdapterCall::Stdin),
        ("proxmox", [number, phase]) if phase == "pre-start" => (&PROXMOX, proxmox(number)),
        ("proxmox", [_, _]) => (&PROXMOX, AdapterCall::Elsewhere(Vec::new())),
        ("proxmox", _) => {
            let problem = "called without a VMID and a phase".to_owned();
            (&PROXMOX, AdapterCall::Broken(problem))
        }
        _ => return None,
    })
}

/// The guest's name in a call that has it as an argument: OpenNebula's third, Proxmox VE's first.
pub fn vm_in(name: &str, arguments: &[OsString]) -> Option<String> {
    match (name, arguments) {
        ("opennebula", [_, _, vm, ..]) | ("proxmox", [vm, ..]) => Some(vm.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// `onDefineDomain --vmi JSON --domain XML`; `preCloudInitIso --vmi JSON --cloud-init JSON` gets its data back.
fn kubevirt(arguments: &[OsString]) -> AdapterCall {
    let value = |option: &str| {
        let at = arguments.iter().position(|argument| argument == option)?;
        Some(arguments.get(at.checked_add(1)?)?.as_bytes().to_vec())
    };
    match (value("--domain"), value("--cloud-init")) {
        (Some(xml), _) => AdapterCall::Argument(xml),
        (None, data) => AdapterCall::Elsewhere(data.unwrap_or_default()),
    }
}

/// A build that calls `sanitizeBashCommandArgument` of `LibvirtKvmAgentHook.java` would escape what a shell acts on:
/// undoing that would be a guess, which could change the domain.
fn cloudstack(xml: Vec<u8>) -> AdapterCall {
    match xml.starts_with(b"\\<") {
        true => AdapterCall::Broken("the domain XML is escaped for a shell".to_owned()),
        false => AdapterCall::Argument(xml),
    }
}

/// A VMID is a number; anything else is not handed on to another program.
fn proxmox(number: &OsStr) -> AdapterCall {
    match number.to_str().filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(number) => AdapterCall::Number(number.to_owned()),
        None => AdapterCall::Broken("the VMID is not a number".to_owned()),
    }
}
