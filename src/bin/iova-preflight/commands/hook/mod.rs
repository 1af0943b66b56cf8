//! `iova-preflight hook`: puts the libvirt hook in place, takes it away, and says whether libvirt will run it.

pub(crate) mod status;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use iova_preflight::io::capability_cache;
use iova_preflight::version::Version;

use crate::Outcome;
use crate::args::{HookArgs, HookCommand};

/// The name of the hook program.
pub(crate) const PROGRAM: &str = "iova-preflight-hook";

/// Where packages put it. libvirtd's AppArmor profile lets hooks run programs from here.
const DEFAULT_PROGRAM: &str = "/usr/bin/iova-preflight-hook";

/// libvirt's folder for hooks.
const HOOKS: &str = "etc/libvirt/hooks";

/// The first libvirt that runs every program in `qemu.d`.
const QEMU_D_SINCE: Version = Version::new(6, 5);

/// Where the hook goes, below a root folder.
#[derive(Debug)]
pub(crate) struct Place {
    /// The link.
    pub link: PathBuf,
    /// Whether it is libvirt's only hook for QEMU, as before 6.5.
    pub sole: bool,
}

/// What stands at the place of the link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Nothing.
    Nothing,
    /// A link to a program called [`PROGRAM`].
    Ours(PathBuf),
    /// Something that is not ours.
    Foreign,
}

pub(crate) fn run(args: &HookArgs) -> Result<Outcome> {
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let mut out = anstream::stdout().lock();
    match &args.command {
        HookCommand::Install { program } => {
            let program = match program {
                Some(program) => program.clone(),
                None => default_program(),
            };
            install(root, &program, &mut out)
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

fn install(root: &Path, program: &Path, out: &mut impl Write) -> Result<Outcome> {
    if !program.is_absolute() {
        bail!("{}: the path of the hook program must be absolute, libvirt runs it from /", program.display());
    }
    if program.file_name().is_none_or(|name| name != PROGRAM) {
        bail!("{}: not {PROGRAM}", program.display());
    }
    if root == Path::new("/") && !is_executable(program) {
        bail!("{}: not an executable file", program.display());
    }
    let place = place(root);
    let link = place.link.display();
    match present(&place.link)? {
        Present::Foreign if place.sole => bail!(
            "{link} is another program's hook and is left as it is; this libvirt runs only one. To run both, let it \
             keep its standard input and call\n  {} \"$@\"\nwith a copy of it, and exit with its status if that is not 0",
            program.display()
        ),
        Present::Foreign => bail!("{link} is not a link to {PROGRAM} and is left as it is; move it away first"),
        Present::Ours(target) if target == program => {
            writeln!(out, "{link} is in place already")?;
        }
        Present::Ours(_) | Present::Nothing => {
            replace_link(&place.link, program)?;
            writeln!(out, "{link} -> {}", program.display())?;
        }
    }
    if root == Path::new("/")
        && let Some(advice) = status::reload_advice(root, &place)
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
    Ok(Outcome::Clean)
}

/// Both places a hook can be, the one in `qemu.d` first.
pub(crate) fn places(root: &Path) -> [Place; 2] {
    let hooks = root.join(HOOKS);
    [
        Place { link: hooks.join("qemu.d/50-iova-preflight"), sole: false },
        Place { link: hooks.join("qemu"), sole: true },
    ]
}

/// The place that this libvirt reads.
pub(crate) fn place(root: &Path) -> Place {
    let [in_folder, sole] = places(root);
    if libvirt_version(root).is_some_and(|version| version < QEMU_D_SINCE) { sole } else { in_folder }
}

/// The version of libvirt's daemon, from itself or from its capability cache; below another root, only from the cache.
pub(crate) fn libvirt_version(root: &Path) -> Option<Version> {
    let asked = ["/usr/sbin/virtqemud", "/usr/sbin/libvirtd"].iter().find_map(|daemon| {
        let output = Command::new(daemon).arg("--version").env("LC_ALL", "C").output().ok()?;
        // "/usr/sbin/libvirtd (libvirt) 9.0.0"
        String::from_utf8(output.stdout).ok()?.split_whitespace().last()?.parse().ok()
    });
    let cached = || {
        let qemus = capability_cache::read_all(&root.join("var/cache/libvirt/qemu/capabilities"));
        qemus.unwrap_or_default().into_iter().filter_map(|(_, qemu)| qemu.libvirt).max()
    };
    asked.filter(|_| root == Path::new("/")).or_else(cached)
}

pub(crate) fn present(link: &Path) -> Result<Present> {
    let metadata = match std::fs::symlink_metadata(link) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Present::Nothing),
        Err(error) => return Err(error).with_context(|| link.display().to_string()),
    };
    if !metadata.is_symlink() {
        return Ok(Present::Foreign);
    }
    let target = std::fs::read_link(link).with_context(|| link.display().to_string())?;
    let ours = target.file_name().is_some_and(|name| name == PROGRAM);
    Ok(if ours { Present::Ours(target) } else { Present::Foreign })
}

/// Makes the link, or points it elsewhere, in one step: libvirt never sees it missing.
fn replace_link(link: &Path, program: &Path) -> Result<()> {
    let folder = link.parent().context("the hook has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // Not in `qemu.d` under a name that libvirt would run; it runs every name, but only of executable files.
    let temporary = folder.join(format!(".iova-preflight-{}", std::process::id()));
    let result = std::os::unix::fs::symlink(program, &temporary).and_then(|()| std::fs::rename(&temporary, link));
    if result.is_err() {
        // Whether this works or not, the error worth telling is the first.
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| link.display().to_string())
}

pub(crate) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether only root can change the file, as libvirt runs it as root.
pub(crate) fn is_safely_owned(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.permissions().mode() & 0o022 == 0)
}
