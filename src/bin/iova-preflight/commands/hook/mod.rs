//! `iova-preflight hook`: installs or removes the libvirt hook, and says whether libvirt will run it.

mod status;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::{HookArgs, HookCommand};
use crate::hook::chain;
use crate::hook::daemons::reload_advice;
use crate::hook::owners::{APPARMOR_FOLDERS, Loader, apparmor_refuses, below, changeable, is_executable, loader};
use crate::hook::places::{PROGRAM, Present, place, places, present};
use crate::outcome::Outcome;
use crate::stderr;

/// Where packages put it. libvirtd's AppArmor profile lets hooks run programs from here.
const DEFAULT_PROGRAM: &str = "/usr/bin/iova-preflight-hook";

/// Does what the arguments ask for.
pub(crate) fn run(args: &HookArgs) -> Result<Outcome> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let mut out = anstream::stdout().lock();
    match &args.command {
        HookCommand::Install { program, force } => {
            let program = match program {
                Some(program) => program.clone(),
                None => default_program(),
            };
            install(root, &program, *force, &mut out)
        }
        HookCommand::Uninstall => uninstall(root, &mut out),
        HookCommand::Status => status::run(root, &mut out),
    }
}

/// The hook next to this program, if it is there, so that a build or an unpacked archive can be tried out.
fn default_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name(PROGRAM))
        .filter(|program| program.is_file())
        .unwrap_or_else(|| PathBuf::from(DEFAULT_PROGRAM))
}

fn install(root: &Path, program: &Path, force: bool, out: &mut impl Write) -> Result<Outcome> {
    if !program.is_absolute() {
        bail!("{}: the path of the hook program must be absolute: libvirt runs it from /", program.display());
    }
    if program.file_name().is_none_or(|name| name != PROGRAM) {
        bail!("{}: not {PROGRAM}", program.display());
    }
    if root == Path::new("/") && !is_executable(program) {
        bail!("{}: not an executable file", program.display());
    }
    const FORCE: &str = "; use --force to install it anyway";
    if !force && apparmor_refuses(root, program) == Some(true) {
        bail!(
            "{}: libvirtd's AppArmor profile only allows programs in {}; a hook that cannot run stops every guest, \
             and kills running ones when libvirtd restarts{FORCE}",
            program.display(),
            APPARMOR_FOLDERS.join(", ")
        );
    }
    // Below another folder it may come later: packages are unpacked in any order.
    if !force && below(root, program).exists() {
        if let Some(why) = changeable(root, program)? {
            bail!("{why}{FORCE}");
        }
        if loader(root, program)? == Loader::Dynamic {
            bail!("{} is dynamically linked: a missing library would stop every guest{FORCE}", program.display());
        }
    }
    let place = place(root);
    let link = place.link.display();
    match present(&place.link)? {
        Present::Foreign if place.sole && chain::program(&place.link).as_deref() == Some(program) => {
            writeln!(out, "{link} already runs it, before qemu.before")?;
        }
        Present::Foreign if place.sole && chain::mentions(root).contains(&place.link) => {
            write!(out, "{}", chain::script(program))?;
            bail!(
                "{link} runs {PROGRAM} and is not changed. If it is an older version of the script on standard \
                 output, replace it with that script (owner root, mode 0755) and leave qemu.before alone"
            )
        }
        Present::Foreign if place.sole => {
            write!(out, "{}", chain::script(program))?;
            bail!(
                "{link} is another program's hook and is not changed; this libvirt runs only one hook. To run both, \
                 rename it to qemu.before and save the script on standard output in its place (owner root, mode 0755)"
            )
        }
        Present::Foreign => bail!(
            "{link} is not a link to {PROGRAM} and is not changed; move it out of that folder first: libvirt runs \
             every program in it"
        ),
        Present::Ours(target) if target == program => {
            writeln!(out, "{link} is already installed")?;
        }
        Present::Ours(_) | Present::Nothing => {
            replace_link(&place.link, program)?;
            writeln!(out, "{link} -> {}", program.display())?;
        }
    }
    if root == Path::new("/")
        && let Some(advice) = reload_advice(root, &place)
    {
        writeln!(out, "{advice}")?;
    }
    Ok(Outcome::Clean)
}

fn uninstall(root: &Path, out: &mut impl Write) -> Result<Outcome> {
    let mut removed = false;
    // libvirt may have been upgraded since the hook was installed, so that it is looked for in both places.
    for place in places(root) {
        if let Present::Ours(_) = present(&place.link)? {
            std::fs::remove_file(&place.link).with_context(|| place.link.display().to_string())?;
            writeln!(out, "removed {}", place.link.display())?;
            removed = true;
            let folder = place.link.parent().filter(|_| !place.sole);
            // The folder goes with the last hook in it; one that is not empty stays.
            if let Some(folder) = folder
                && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
            {
                std::fs::remove_dir(folder).with_context(|| folder.display().to_string())?;
            }
        }
    }
    if !removed {
        writeln!(out, "the hook is not installed")?;
    }
    for hook in chain::mentions(root) {
        stderr::line(&format!(
            "iova-preflight: warning: {} mentions {PROGRAM}; make sure that it lets guests start without it",
            hook.display()
        ));
    }
    Ok(Outcome::Clean)
}

/// Makes the link, or points it elsewhere, in one step: libvirt never sees it missing.
fn replace_link(link: &Path, program: &Path) -> Result<()> {
    let folder = link.parent().context("the hook has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // A name in `qemu.d` that libvirt does not run: it runs files with any name, but only executable ones.
    let temporary = folder.join(format!(".iova-preflight-{}", std::process::id()));
    let result = std::os::unix::fs::symlink(program, &temporary).and_then(|()| std::fs::rename(&temporary, link));
    if result.is_err() {
        // Whether this works or not, the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| link.display().to_string())
}
