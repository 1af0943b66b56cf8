//! libvirt's daemons: their version, and whether the running ones know the hook.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use iova_preflight::Version;
use iova_preflight::io::capability_cache;

use super::places::{HookPlace, programs};

/// The command that makes a daemon look at its hooks again.
const RELOAD: &str = "systemctl try-reload-or-restart libvirtd virtqemud (or kill -HUP the daemon)";

/// The daemons that run QEMU guests.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

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

/// What to do so that a running daemon runs the hook; `None` if there is nothing to do.
///
/// A daemon looks for hooks when it starts or is reloaded, and remembers only whether there are any (libvirt
/// `src/util/virhook.c`). Whether it was reloaded since cannot be seen from outside.
pub(crate) fn reload_advice(root: &Path, place: &HookPlace) -> Option<String> {
    let daemons = daemons(root);
    let (name, started) = daemons.iter().min_by_key(|(_, started)| *started)?;
    let oldest = programs(root, place)
        .into_iter()
        .filter_map(|hook| Some(std::fs::symlink_metadata(hook).ok()?.ctime()))
        .min()?;
    (oldest >= *started).then(|| {
        format!(
            "{name} was started before any QEMU hook was installed; unless you have reloaded it since, run \
                 {RELOAD}"
        )
    })
}

/// Whether a daemon runs.
pub(crate) fn is_running(root: &Path) -> bool {
    !daemons(root).is_empty()
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
    fn the_start_time_is_found_after_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 1";
        assert_eq!(seconds_after_boot(stat), Some(123));
        assert_eq!(seconds_after_boot("nonsense"), None);
    }
}
