//! `iova-preflight adapter NAME install|uninstall|status`: installs or removes an orchestrator's hook, and says whether
//! it is in place.

mod deploy;
mod pve;
mod status;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use iova_preflight::io::trust::changeable_by_others;

use crate::adapter::scripts::{
    CLOUDSTACK_GROOVY, CLOUDSTACK_SHELL, DEFAULT_PROGRAM, Found, KUBEVIRT, OPENNEBULA, PROXMOX, Script, VDSM,
};
use crate::args::{AdapterArgs, AdapterCommand};
use crate::hook::owners::{below, is_executable};
use crate::outcome::Outcome;
use crate::place::Folder;

/// Does what the arguments ask for.
pub(crate) fn run(args: &AdapterArgs) -> Result<Outcome> {
    let (name, args) = args.orchestrator.parts();
    let mut out = anstream::stdout().lock();
    match &args.command {
        Some(AdapterCommand::Install { at, program, shell }) => {
            let (script, other) = match (name, shell) {
                ("cloudstack", false) => (&CLOUDSTACK_GROOVY, Some(&CLOUDSTACK_SHELL)),
                ("cloudstack", true) => (&CLOUDSTACK_SHELL, Some(&CLOUDSTACK_GROOVY)),
                (_, true) => bail!("--shell: only cloudstack has a shell script"),
                (name, false) => (scripts(name)[0], None),
            };
            let program = program.clone().unwrap_or_else(|| default_program(&at.root));
            install(script, &at.root, &program, &mut out)?;
            // The agent would run both scripts.
            if let Some(other) = other
                && matches!(other.found(&at.root)?, Found::Ours { .. })
            {
                uninstall(other, &at.root, &mut out)?;
            }
            writeln!(out, "{}", next_step(name))?;
            Ok(Outcome::Clean)
        }
        Some(AdapterCommand::Uninstall { at }) => {
            let mut removed = false;
            for script in scripts(name) {
                removed |= uninstall(script, &at.root, &mut out)?;
            }
            if !removed {
                writeln!(out, "the hook is not installed")?;
            } else if let Some(next) = next_step_after_removal(name) {
                writeln!(out, "{next}")?;
            }
            Ok(Outcome::Clean)
        }
        Some(AdapterCommand::Status { at }) => status::run(name, scripts(name), &at.root, &mut out),
        None => Ok(Outcome::Clean),
    }
}

/// The scripts of an orchestrator, the preferred one first.
fn scripts(name: &str) -> &'static [&'static Script] {
    match name {
        "vdsm" => &[&VDSM],
        "kubevirt" => &[&KUBEVIRT],
        "cloudstack" => &[&CLOUDSTACK_GROOVY, &CLOUDSTACK_SHELL],
        "opennebula" => &[&OPENNEBULA],
        _ => &[&PROXMOX],
    }
}

/// What is left to do once the script is in place.
fn next_step(name: &str) -> &'static str {
    match name {
        "vdsm" => "VDSM runs it when a VM starts; no restart is needed",
        "kubevirt" => "copy it and iova-preflight into an image made from KubeVirt's sidecar-shim",
        "cloudstack" => "the agent reads it when it starts; run `systemctl restart cloudstack-agent`",
        "opennebula" => {
            "to copy it to the hosts, run `onehost sync --force` as oneadmin; each host needs iova-preflight. After \
             an upgrade of OpenNebula, run both commands again"
        }
        _ => {
            "on every node, and then for each VM: `qm set VMID --hookscript local:snippets/iova-preflight` (the storage local \
             has to allow snippets); such a VM does not start on a node without the script"
        }
    }
}

/// What is left to do once the script is gone.
fn next_step_after_removal(name: &str) -> Option<&'static str> {
    match name {
        "cloudstack" => Some("the agent runs it until it is restarted; run `systemctl restart cloudstack-agent`"),
        "opennebula" => {
            Some("to remove it from the hosts, run `onehost sync --force` as oneadmin; they run the script until then")
        }
        _ => None,
    }
}

/// This program, where the script will find it.
fn default_program(root: &Path) -> PathBuf {
    let this = std::env::current_exe().ok().filter(|_| root == Path::new("/"));
    this.unwrap_or_else(|| PathBuf::from(DEFAULT_PROGRAM))
}

/// Why a program should not be run for guests.
fn decides(changeable: &Path) -> String {
    format!(
        "{} can be changed by users other than root, who could then decide which guests start",
        changeable.display()
    )
}

fn install(script: &Script, root: &Path, program: &Path, out: &mut impl Write) -> Result<()> {
    if !program.is_absolute() {
        bail!("{}: the path of the program must be absolute", program.display());
    }
    if root == Path::new("/") && !is_executable(program) {
        bail!("{}: not an executable file", program.display());
    }
    if let Some(needs) = script.needs.map(|needs| root.join(needs)).filter(|needs| !needs.is_dir()) {
        bail!("{} does not exist: nothing on this host would run the hook", needs.display());
    }
    // Below another root it may come later.
    if below(root, program).exists()
        && let Some(changeable) = changeable_by_others(root, program)?
    {
        bail!("{}: {}", program.display(), decides(&changeable));
    }
    let (place, text) = (script.place(root), script.text(program)?);
    let shown = place.display();
    let found = script.found(root)?;
    let like = match found {
        _ if script.path == OPENNEBULA.path => Some(deploy::keep_original(&place, &found)?),
        Found::Foreign => bail!("{shown} is not our script and is not changed"),
        Found::Nothing | Found::Ours { .. } => None,
    };
    if found == (Found::Ours { program: program.to_owned(), current: true }) {
        writeln!(out, "{shown} is already installed")?;
        return Ok(());
    }
    let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { bail!("{shown}: not a file") };
    Folder::made_for_everybody(folder)
        .and_then(|folder| folder.write_program(name, text.as_bytes(), like.as_ref()))
        .with_context(|| shown.to_string())?;
    writeln!(out, "{shown} runs {}", program.display())?;
    Ok(())
}

/// Removes the script, if it is there; `false` if it is not.
fn uninstall(script: &Script, root: &Path, out: &mut impl Write) -> Result<bool> {
    let place = script.place(root);
    let shown = place.display();
    match script.found(root)? {
        Found::Nothing => return Ok(false),
        Found::Foreign if script.path == OPENNEBULA.path => return Ok(false),
        Found::Foreign => {
            writeln!(out, "{shown} is not our script and is not changed")?;
            return Ok(false);
        }
        Found::Ours { .. } if script.path == OPENNEBULA.path => {
            deploy::put_original_back(&place)?;
            writeln!(out, "{shown} is OpenNebula's own script again")?;
            return Ok(true);
        }
        Found::Ours { .. } if script.path == PROXMOX.path => keep_while_named(&place, root, out)?,
        Found::Ours { .. } => {}
    }
    std::fs::remove_file(&place).with_context(|| shown.to_string())?;
    writeln!(out, "removed {shown}")?;
    Ok(true)
}

/// Fails while there are VMs that would not start any more without the hookscript, and prints the command for each.
fn keep_while_named(place: &Path, root: &Path, out: &mut impl Write) -> Result<()> {
    let vms = pve::named_by(root)?;
    for (number, node) in &vms {
        let node = node.as_ref().map(|node| format!("on {node}: ")).unwrap_or_default();
        writeln!(out, "{node}qm set {number} --delete hookscript")?;
    }
    if !vms.is_empty() {
        out.flush()?;
        bail!("{} is not removed: the VMs above use it and would not start without it", place.display());
    }
    Ok(())
}
