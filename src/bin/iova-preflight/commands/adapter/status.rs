//! `iova-preflight adapter NAME status`.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use iova_preflight::io::detect::detect_for_any_guest;
use iova_preflight::io::policy;
use iova_preflight::io::trust::changeable_by_others;
use iova_preflight::policy::Mode;

use super::{decides, deploy, pve};
use crate::adapter::scripts::{Found, OPENNEBULA, PROXMOX, Script, VDSM};
use crate::hook::owners::{below, is_executable};
use crate::input::policy::operators_policy;
use crate::outcome::Outcome;
use crate::output::grades::{Checks, Grade};

/// Prints the checks; the outcome is `Stopped` if the hook is not in place.
pub(super) fn run(name: &str, scripts: &[&Script], root: &Path, out: &mut impl Write) -> Result<Outcome> {
    let mut checks = Checks::new(out);
    let mut programs = Vec::new();
    for script in scripts {
        let place = script.place(root);
        let shown = place.display();
        match script.found(root)? {
            Found::Ours { program, current } => {
                checks.line(Grade::Pass, &format!("{shown} runs {}", program.display()))?;
                if !is_executable(&place) && !script.path.ends_with(".groovy") {
                    checks.line(Grade::Fail, &format!("{shown} is not executable"))?;
                }
                if script.path == VDSM.path {
                    for path in place.parent().into_iter().chain([place.as_path()]) {
                        if !vdsm_may_run(path) {
                            let text =
                                format!("{} cannot be read by VDSM (user 36); its mode should be 0755", path.display());
                            checks.line(Grade::Fail, &text)?;
                        }
                    }
                }
                if !current {
                    let install = script.command;
                    checks.line(
                        Grade::Note,
                        &format!(
                            "{shown} is from another version; to replace it, run `{install} \
                                                     install`"
                        ),
                    )?;
                }
                programs.push(program);
            }
            Found::Foreign if script.path != OPENNEBULA.path => {
                checks.line(Grade::Note, &format!("{shown} is not our script"))?;
            }
            Found::Foreign | Found::Nothing => {}
        }
        if script.path == PROXMOX.path && programs.is_empty() {
            let vms: Vec<String> = pve::named_by(root)?.keys().map(u64::to_string).collect();
            if !vms.is_empty() {
                let text = format!("these VMs use {shown} and do not start without it: {}", vms.join(", "));
                checks.line(Grade::Fail, &text)?;
            }
        }
        if script.path == OPENNEBULA.path && !programs.is_empty() {
            let original = deploy::original(&place);
            let (grade, is) = if is_executable(&original) { (Grade::Pass, "is") } else { (Grade::Fail, "is not") };
            checks.line(grade, &format!("{} {is} there, which the script runs", original.display()))?;
        }
    }
    if programs.is_empty() {
        let text = format!("the hook is not installed; run `iova-preflight adapter {name} install`");
        checks.line(Grade::Fail, &text)?;
    }
    for program in programs {
        let shown = program.display();
        let (grade, is) = match is_executable(&below(root, &program)) {
            true => (Grade::Pass, "is"),
            // The front-end of OpenNebula runs no guests.
            false if name == "opennebula" => (Grade::Note, "is needed on the hosts, and here it is not"),
            false => (Grade::Fail, "is not"),
        };
        checks.line(grade, &format!("{shown} {is} an executable file"))?;
        if let Ok(Some(changeable)) = changeable_by_others(root, &program) {
            checks.line(Grade::Fail, &decides(&changeable))?;
        }
    }
    match operators_policy(root).transpose().map(|policy| policy.map(|policy| policy.mode)) {
        None => {}
        Some(Ok(mode)) => {
            let shown = policy::path_below(root);
            let (grade, text) = match mode {
                Mode::Enforce => (Grade::Pass, "guests that would fail are rewritten or stopped"),
                Mode::Warn => (Grade::Note, "guests that would fail are logged and start"),
                Mode::Off => (Grade::Note, "the adapter is off"),
            };
            checks.line(grade, &format!("{}: {text}", shown.display()))?;
        }
        Some(Err(error)) => checks.line(Grade::Fail, &format!("{error:#}"))?,
    }
    // The image of a sidecar is not a host, and the front-end of OpenNebula runs no guests.
    let is_host = !["kubevirt", "opennebula"].contains(&name);
    if is_host && !detect_for_any_guest(root).profile.host.knows_reserved() {
        let text = "no IOMMU is active on this host: guests are stopped only if QEMU or libvirt would refuse them";
        checks.line(Grade::Note, text)?;
    }
    Ok(if checks.failed { Outcome::Stopped } else { Outcome::Clean })
}

/// Whether VDSM may list this folder and go through it, or read and run this script: it is user 36 (`useradd` in
/// oVirt's `vdsm.spec.in`) of the group kvm, which is 36, too (`uidgid` in Red Hat's package setup).
fn vdsm_may_run(path: &Path) -> bool {
    const VDSM: u32 = 36;
    path.metadata().is_ok_and(|metadata| {
        let mode = match metadata.mode() {
            mode if metadata.uid() == VDSM => mode >> 6,
            mode if metadata.gid() == VDSM => mode >> 3,
            mode => mode,
        };
        mode & 0o5 == 0o5
    })
}
