//! `iova-preflight hook status`, in the manner of virt-host-validate.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use iova_preflight::policy::Mode;

use crate::Outcome;
use crate::commands::hook::{Place, Present, is_executable, is_safely_owned, libvirt_version, place, places, present};
use crate::input::evaluator::read_policy;

/// Folders from which libvirtd's AppArmor profile lets hooks run programs (`/usr/bin/* PUx` and the like in
/// `usr.sbin.libvirtd`).
const APPARMOR_FOLDERS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/lib/libvirt"];

/// The policy that the hook reads, below the root folder.
const POLICY: &str = "etc/iova-preflight/policy.toml";

/// How a daemon is told to look at its hooks again.
const RELOAD: &str = "systemctl try-reload-or-restart libvirtd virtqemud (or kill -HUP the daemon)";

/// The daemons that run QEMU guests.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// How one check ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Pass,
    Note,
    Fail,
}

/// Prints the checks; the outcome is `Stopped` when libvirt will not run the hook.
pub(crate) fn run(root: &Path, out: &mut impl Write) -> Result<Outcome> {
    let mut checks = Checks { out, failed: false };
    let version = libvirt_version(root);
    let place = place(root);
    let shown = place.link.display();
    let known = version.map_or_else(|| "libvirt's version is not known".to_owned(), |v| format!("libvirt {v}"));
    checks.line(Grade::Pass, &format!("{known}: hooks are read from {}", parent(&place).display()))?;
    let program = match present(&place.link)? {
        Present::Ours(program) => {
            checks.line(Grade::Pass, &format!("{shown} -> {}", program.display()))?;
            Some(program)
        }
        Present::Foreign => {
            checks.line(Grade::Fail, &format!("{shown} is not a link to iova-preflight-hook"))?;
            None
        }
        Present::Nothing => {
            checks.line(Grade::Fail, &format!("{shown} is not there; `iova-preflight hook install` makes it"))?;
            None
        }
    };
    if let Some(program) = program {
        checks.program(root, &program)?;
        checks.policy(root)?;
        checks.daemon(root, &place)?;
    }
    let failed = checks.failed;
    Ok(if failed { Outcome::Stopped } else { Outcome::Clean })
}

fn parent(place: &Place) -> &Path {
    place.link.parent().unwrap_or(&place.link)
}

struct Checks<'w, W: Write> {
    out: &'w mut W,
    failed: bool,
}

impl<W: Write> Checks<'_, W> {
    fn line(&mut self, mark: Grade, text: &str) -> Result<()> {
        let (word, style): (_, Style) = match mark {
            Grade::Pass => ("PASS", AnsiColor::Green.on_default()),
            Grade::Note => ("NOTE", AnsiColor::Yellow.on_default()),
            Grade::Fail => ("FAIL", AnsiColor::Red.on_default()),
        };
        self.failed |= mark == Grade::Fail;
        writeln!(self.out, "{style}{word}{style:#} {}", iova_preflight::text::printable(text))?;
        Ok(())
    }

    fn program(&mut self, root: &Path, program: &Path) -> Result<()> {
        let below_root = program.strip_prefix("/").map_or_else(|_| program.to_owned(), |relative| root.join(relative));
        let shown = program.display();
        if !is_executable(&below_root) {
            return self.line(Grade::Fail, &format!("{shown} is not an executable file"));
        }
        self.line(Grade::Pass, &format!("{shown} is executable"))?;
        if is_safely_owned(&below_root) {
            self.line(Grade::Pass, &format!("{shown} can be changed by root only"))?;
        } else {
            self.line(
                Grade::Fail,
                &format!("{shown} can be changed by others than root, and libvirt runs it as root"),
            )?;
        }
        if root.join("sys/kernel/security/apparmor/profiles").exists() {
            let allowed =
                program.parent().is_some_and(|folder| APPARMOR_FOLDERS.iter().any(|known| folder == Path::new(known)));
            let folders = APPARMOR_FOLDERS.join(", ");
            if allowed {
                self.line(Grade::Pass, "AppArmor: libvirtd's profile allows hooks to run it")?;
            } else {
                self.line(Grade::Fail, &format!("AppArmor: libvirtd's profile allows programs in {folders} only"))?;
            }
        }
        if root.join("sys/fs/selinux/enforce").exists() {
            self.line(Grade::Note, &format!("SELinux is on: `ls -Z {shown}` should show bin_t, as in /usr/bin"))?;
        }
        Ok(())
    }

    /// What the policy has the hook do. One that cannot be read is a failure of the hook's own at each start.
    fn policy(&mut self, root: &Path) -> Result<()> {
        let path = root.join(POLICY);
        if !path.exists() {
            return Ok(());
        }
        let shown = path.display();
        match read_policy(Some(&path)).map(|policy| policy.mode) {
            Ok(Mode::Enforce) => self.line(Grade::Pass, &format!("{shown}: guests that would fail are stopped")),
            Ok(Mode::Warn) => self.line(Grade::Note, &format!("{shown}: guests that would fail are logged and start")),
            Ok(Mode::Off) => self.line(Grade::Note, &format!("{shown}: the hook looks at no guest")),
            Err(error) => self.line(Grade::Fail, &format!("{error:#}")),
        }
    }

    fn daemon(&mut self, root: &Path, place: &Place) -> Result<()> {
        if daemons(root).is_empty() {
            return self.line(Grade::Note, "no libvirtd or virtqemud is running; the next one will know of the hook");
        }
        match reload_advice(root, place) {
            Some(advice) => self.line(Grade::Note, &advice),
            None => self.line(Grade::Pass, "the running daemon knows that there are hooks"),
        }
    }
}

/// What to do so that a running daemon runs the hook; `None` where there is nothing to do.
///
/// A daemon looks for hooks when it starts or is reloaded, and remembers only whether there are any (libvirt
/// `src/util/virhook.c`). Whether it was reloaded since cannot be seen from outside.
pub(crate) fn reload_advice(root: &Path, place: &Place) -> Option<String> {
    let daemons = daemons(root);
    let (name, started) = daemons.iter().min_by_key(|(_, started)| *started)?;
    let oldest =
        hooks(root, place).into_iter().filter_map(|hook| Some(std::fs::symlink_metadata(hook).ok()?.ctime())).min()?;
    (oldest >= *started).then(|| {
        format!("{name} was started before it had any hook for QEMU: unless it was reloaded since, run {RELOAD}")
    })
}

/// Every program that libvirt runs as a hook for QEMU.
fn hooks(root: &Path, place: &Place) -> Vec<PathBuf> {
    let [in_folder, sole] = places(root);
    let mut hooks = vec![sole.link];
    if !place.sole {
        let entries = std::fs::read_dir(parent(&in_folder)).into_iter().flatten().flatten();
        hooks.extend(entries.map(|entry| entry.path()));
    }
    hooks.retain(|hook| is_executable(hook));
    hooks
}

/// The daemons that run, with the second since 1970 in which each was started.
fn daemons(root: &Path) -> Vec<(String, i64)> {
    let boot = boot_time(root).unwrap_or(0);
    let processes = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let folder = process.path();
            let name = std::fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
            let stat = DAEMONS.contains(&name.as_str()).then(|| std::fs::read_to_string(folder.join("stat")).ok())?;
            Some((name, boot + seconds_after_boot(&stat?)?))
        })
        .collect()
}

/// `btime` of `/proc/stat` (proc_stat(5)).
fn boot_time(root: &Path) -> Option<i64> {
    let stat = std::fs::read_to_string(root.join("proc/stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// `starttime`, the 22nd field of `/proc/PID/stat` (proc_pid_stat(5)), in seconds.
fn seconds_after_boot(stat: &str) -> Option<i64> {
    /// Ticks a second in what the kernel tells user space (`USER_HZ`), on x86.
    const USER_HZ: i64 = 100;
    // The name in parentheses may hold anything; the third field follows the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: i64 = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(ticks / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1";
        assert_eq!(seconds_after_boot(stat), Some(123));
        assert_eq!(seconds_after_boot("nonsense"), None);
    }
}
