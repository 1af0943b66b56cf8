//! Proxmox VE: `qm set`.

use super::{Advice, Wanted, Width, no_setting};
use crate::command_line::Model;
use crate::domain::Owner;
use crate::fix::{Change, Fix};
use crate::guest::Subject;
use crate::machine::{Family, Resolved, resolve};
use crate::text::shell_word;

/// Options of `qm set` in qemu-server 9.2.6: `machine` and `cpu` are `src/PVE/QemuServer/Machine.pm` and `CPUConfig.pm`;
/// `args` is passed to QEMU as it is.
pub(super) fn advise(subject: Subject<'_>, fix: &Fix) -> Advice {
    let wanted = Wanted::by(fix);
    let id = number(subject).unwrap_or_else(|| "VMID".to_owned());
    let mut steps = Vec::new();
    if let Some(to) = wanted.machine {
        steps.push(format!("qm set {id} --machine {to}"));
    }
    let mut arguments = Vec::new();
    match wanted.width {
        None => {}
        Some(Width::Bits(bits)) => steps.push(format!("qm set {id} --cpu {},phys-bits={bits}", cpu_type(subject))),
        Some(Width::Host) => steps.push(format!("qm set {id} --cpu {},phys-bits=host", cpu_type(subject))),
        // `-global` of the base class counts for every model (measured with QEMU 7.2).
        Some(Width::HostUpTo(bits)) => {
            arguments.push("-global cpu.host-phys-bits=on".to_owned());
            arguments.push(format!("-global cpu.host-phys-bits-limit={bits}"));
        }
    }
    if let Some(bytes) = wanted.hole {
        let machine = wanted.machine.or(subject.machine());
        let bridge = match machine.map(resolve) {
            Some(Resolved::Known(machine)) if machine.family == Family::Q35 => "q35-pcihost",
            Some(Resolved::Unknown { family: Some(Family::Q35), .. }) => "q35-pcihost",
            _ => "i440FX-pcihost",
        };
        arguments.push(format!("-global {bridge}.pci-hole64-size={bytes}"));
    }
    if !arguments.is_empty() {
        steps.push(format!("qm set {id} --args '{}', added to its existing args", arguments.join(" ")));
    }
    let unset = Wanted::told(fix, |change| matches!(change, Change::DeviceAddress { .. } | Change::FreeAddress { .. }));
    steps.extend(no_setting(Owner::Proxmox, &unset));
    steps.push(format!("qm shutdown {id} && qm start {id}"));
    Advice { steps, later: Vec::new() }
}

/// The number of the guest: `config_to_command` in `src/PVE/QemuServer.pm` passes it as `-id`.
fn number(subject: Subject<'_>) -> Option<String> {
    let Subject::Launch(launch) = subject else { return None };
    let place = launch.arguments.iter().position(|argument| argument == "-id")?;
    let number = launch.arguments.get(place.checked_add(1)?)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.clone())
}

/// What the guest's `cpu` has to keep. Several types of Proxmox's own are qemu64 with flags, and its name does not tell
/// which one it is (`$builtin_models` in `CPUConfig.pm`).
fn cpu_type(subject: Subject<'_>) -> String {
    let model = match subject {
        Subject::Launch(launch) => launch.line.cpu.as_ref().map(|cpu| &cpu.model),
        Subject::Domain(_) => None,
    };
    match model {
        Some(Model::Host) => "host".to_owned(),
        Some(Model::Max) => "max".to_owned(),
        Some(Model::Named(name)) if name != "qemu64" => shell_word(name),
        _ => "TYPE".to_owned(),
    }
}
