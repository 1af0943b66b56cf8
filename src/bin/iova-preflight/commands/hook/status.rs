//! `iova-preflight hook status`, in the manner of virt-host-validate.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use iova_preflight::io::policy;
use iova_preflight::policy::Mode;

use crate::hook::chain;
use crate::hook::daemons::{is_running, libvirt_version, reload_advice};
use crate::hook::owners::{APPARMOR_FOLDERS, Loader, apparmor_refuses, below, changeable, is_executable, loader};
use crate::hook::places::{HookPlace, Present, place, present};
use crate::input::policy::operators_policy;
use crate::outcome::Outcome;
use crate::output::grades::{Checks, Grade};

/// Prints the checks; the outcome is `Stopped` when libvirt will not run the hook.
pub(crate) fn run(root: &Path, out: &mut impl Write) -> Result<Outcome> {
    let mut checks = Checks::new(out);
    let version = libvirt_version(root);
    let place = place(root);
    let shown = place.link.display();
    let known = version.map_or_else(|| "libvirt's version is unknown".to_owned(), |v| format!("libvirt {v}"));
    checks.line(Grade::Pass, &format!("{known}: hooks are read from {}", place.folder().display()))?;
    let program = match present(&place.link)? {
        Present::Ours(program) => {
            checks.line(Grade::Pass, &format!("{shown} -> {}", program.display()))?;
            Some(program)
        }
        Present::Foreign => match chain::program(&place.link).filter(|_| place.sole) {
            Some(program) => {
                let text = format!("{shown} runs {}, and then qemu.before", program.display());
                checks.line(Grade::Pass, &text)?;
                Some(program)
            }
            None => {
                checks.line(Grade::Fail, &format!("{shown} is not a link to iova-preflight-hook"))?;
                None
            }
        },
        Present::Nothing => {
            checks.line(
                Grade::Fail,
                &format!(
                    "{shown} does not exist; to install it, run `iova-preflight hook \
                                               install`"
                ),
            )?;
            None
        }
    };
    if let Some(program) = program {
        checks.program(root, &place, &program)?;
        checks.policy(root)?;
        checks.daemon(root, &place)?;
    }
    let failed = checks.failed;
    Ok(if failed { Outcome::Stopped } else { Outcome::Clean })
}

impl<W: Write> Checks<'_, W> {
    fn program(&mut self, root: &Path, place: &HookPlace, program: &Path) -> Result<()> {
        let shown = program.display();
        if !is_executable(&below(root, program)) {
            return self.line(Grade::Fail, &format!("{shown} is not an executable file"));
        }
        self.line(Grade::Pass, &format!("{shown} is executable"))?;
        // By way of the link, which belongs to what libvirt follows.
        let link = Path::new("/").join(place.link.strip_prefix(root).unwrap_or(&place.link));
        match changeable(root, &link)?.or(changeable(root, program)?) {
            None => {
                self.line(Grade::Pass, &format!("{shown}, the link and their folders can only be changed by root"))?
            }
            Some(why) => self.line(Grade::Fail, &why)?,
        }
        let (grade, linked) = match loader(root, program)? {
            Loader::Kernel => (Grade::Pass, "is statically linked"),
            Loader::Dynamic => (Grade::Fail, "is dynamically linked: a missing library would stop every guest"),
            Loader::Interpreter => (Grade::Note, "is not an ELF program: a missing interpreter would stop every guest"),
        };
        self.line(grade, &format!("{shown} {linked}"))?;
        match apparmor_refuses(root, program) {
            None => {}
            Some(false) => self.line(Grade::Pass, "AppArmor: libvirtd's profile allows hooks to run it")?,
            Some(true) => {
                let folders = APPARMOR_FOLDERS.join(", ");
                self.line(Grade::Fail, &format!("AppArmor: libvirtd's profile only allows programs in {folders}"))?;
            }
        }
        if root.join("sys/fs/selinux/enforce").exists() {
            self.line(Grade::Note, &format!("SELinux is on: `ls -Z {shown}` should show bin_t, as in /usr/bin"))?;
        }
        Ok(())
    }

    /// What the policy has the hook do. One that cannot be read is a failure of the hook's own at each start.
    fn policy(&mut self, root: &Path) -> Result<()> {
        let Some(policy) = operators_policy(root).transpose() else { return Ok(()) };
        let path = policy::path_below(root);
        let shown = path.display();
        match policy.map(|policy| policy.mode) {
            Ok(Mode::Enforce) => self.line(Grade::Pass, &format!("{shown}: guests that would fail are stopped")),
            Ok(Mode::Warn) => self.line(Grade::Note, &format!("{shown}: guests that would fail are logged and start")),
            Ok(Mode::Off) => self.line(Grade::Note, &format!("{shown}: the hook is off")),
            Err(error) => self.line(Grade::Fail, &format!("{error:#}")),
        }
    }

    fn daemon(&mut self, root: &Path, place: &HookPlace) -> Result<()> {
        if !is_running(root) {
            return self.line(Grade::Note, "no libvirtd or virtqemud is running; the next one will use the hook");
        }
        match reload_advice(root, place) {
            Some(advice) => self.line(Grade::Note, &advice),
            None => self.line(Grade::Pass, "the running daemon uses hooks"),
        }
    }
}
