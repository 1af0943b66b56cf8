//! The QEMU processes of this host, as procfs shows them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{open_regular, read_limited};
use crate::process::{Lockable, OpenDevice, QemuProcess};

/// The QEMU processes of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processes {
    /// The processes that run QEMU, by their numbers.
    pub found: Vec<QemuProcess>,
    /// Whether procfs hides the processes of other users (`hidepid=` in proc(5)).
    pub hidden: bool,
}

/// The longest command line that is read, in bytes: what Linux takes for one with the largest stack limit that counts
/// (`bprm_stack_limits` in Linux `fs/exec.c`).
const MAX_ARGUMENTS: usize = 6 << 20;

/// The QEMU processes that `/proc` below `root` shows, whatever user, PID or mount namespace they are in. A process
/// that ends meanwhile is not among them.
///
/// # Errors
/// There is no procfs.
pub fn qemu_processes(root: &Path) -> io::Result<Processes> {
    let proc = root.join("proc");
    // A folder without processes is not procfs.
    fs::metadata(proc.join("self"))?;
    // The first process is always there, unless it is hidden.
    let hidden = fs::metadata(proc.join("1")).is_err();
    let mut processes = Processes { hidden, ..Processes::default() };
    for entry in fs::read_dir(&proc)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match look(root, &entry.path(), pid) {
            Ok(Some(process)) => processes.found.push(process),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => processes.hidden = true,
            // It has ended.
            Err(_) => {}
        }
    }
    processes.found.sort_by_key(|process| process.pid);
    Ok(processes)
}

fn look(root: &Path, folder: &Path, pid: u32) -> io::Result<Option<QemuProcess>> {
    let started = start_time(&read(&folder.join("stat"))?);
    let arguments = read(&folder.join("cmdline"))?;
    let program = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
    // A program that was replaced while it ran is shown with that word after its path.
    let executable = fs::read_link(folder.join("exe")).ok().and_then(|path| path.into_os_string().into_string().ok());
    let executable = executable.map(|path| path.strip_suffix(" (deleted)").map_or(path.clone(), str::to_owned));
    let is_one = is_qemu(executable.as_deref().unwrap_or(&String::from_utf8_lossy(program)));
    if !is_one || arguments.is_empty() {
        return Ok(None);
    }
    let lockable = read(&folder.join("limits")).ok().and_then(|limits| lockable(&limits));
    let status = read(&folder.join("status")).ok();
    let may_lock = status.and_then(|status| may_lock(&status, &read(&folder.join("uid_map")).unwrap_or_default()));
    let devices = match devices(root, &folder.join("fd")) {
        Ok(devices) => Some(devices),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(error),
    };
    // The PID may belong to another process by now.
    let same = start_time(&read(&folder.join("stat"))?) == started;
    Ok(same.then_some(QemuProcess {
        pid,
        arguments,
        program: executable,
        lockable,
        locks_without_limit: may_lock,
        devices,
    }))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(open_regular(path, 0)?, MAX_ARGUMENTS)
}

/// Whether a program is a QEMU that runs machines.
fn is_qemu(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with("qemu-system-") || matches!(name, "qemu-kvm" | "kvm")
}

/// When a process started, in ticks since the boot: the 22nd field of proc_pid_stat(5). The second one is its name, in
/// parentheses, with anything in it.
fn start_time(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The soft limit in proc_pid_limits(5): `Max locked memory         8388608              8388608              bytes`.
fn lockable(limits: &[u8]) -> Option<Lockable> {
    let text = std::str::from_utf8(limits).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(Lockable::Unlimited),
        bytes => bytes.parse().ok().map(Lockable::Bytes),
    }
}

/// Whether a process with this status (proc_pid_status(5)) and these users (user_namespaces(7)) has CAP_IPC_LOCK as
/// `capable` in Linux `kernel/capability.c` looks for it: outside of user namespaces.
fn may_lock(status: &[u8], uid_map: &[u8]) -> Option<bool> {
    /// Its bit (`include/uapi/linux/capability.h`).
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::str::from_utf8(status).ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let has = u64::from_str_radix(effective.trim(), 16).ok()? & CAP_IPC_LOCK != 0;
    // The identity mapping: the initial user namespace.
    let outside = uid_map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    Some(has && outside.eq([&b"0"[..], b"0", b"4294967295"]))
}

/// The passthrough devices that a process has open.
fn devices(root: &Path, folder: &Path) -> io::Result<Vec<OpenDevice>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(folder)? {
        // A file that was closed meanwhile is not open.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        devices.extend(target.to_str().map(|target| devices_of(root, target)).unwrap_or_default());
    }
    devices.sort_unstable();
    devices.dedup();
    Ok(devices)
}

/// What an open file means: a VFIO group, a VFIO device of iommufd (Linux `drivers/vfio/device_cdev.c`), or a vDPA
/// device (`drivers/vhost/vdpa.c`).
fn devices_of(root: &Path, target: &str) -> Vec<OpenDevice> {
    if let Some(device) = target.strip_prefix("/dev/vfio/devices/") {
        let link = root.join("sys/class/vfio-dev").join(device).join("device");
        return name_of_link(&link).map(OpenDevice::Vfio).into_iter().collect();
    }
    if let Some(group) = target.strip_prefix("/dev/vfio/").filter(|group| group.bytes().all(|b| b.is_ascii_digit())) {
        let members = root.join("sys/kernel/iommu_groups").join(group).join("devices");
        let members = fs::read_dir(members).into_iter().flatten().flatten();
        // Bridges and functions that the host keeps are in groups, too.
        let given = members.filter(|member| driver(&member.path()).is_none_or(|driver| driver.starts_with("vfio")));
        return given.filter_map(|member| Some(OpenDevice::Vfio(member.file_name().into_string().ok()?))).collect();
    }
    let vdpa = target.strip_prefix("/dev/vhost-vdpa-").is_some();
    vdpa.then(|| OpenDevice::VhostVdpa(target.to_owned())).into_iter().collect()
}

fn driver(device: &Path) -> Option<String> {
    name_of_link(&device.join("driver"))
}

fn name_of_link(link: &Path) -> Option<String> {
    let target: PathBuf = fs::read_link(link).ok()?;
    target.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_after_any_name() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("4321 (qemu) S 1 2 (kvm) S {}\n", fields.join(" "));
        assert_eq!(start_time(stat.as_bytes()), Some(22));
        assert_eq!(start_time(b"4321 (qemu"), None);
        assert_eq!(start_time(b""), None);
    }

    #[test]
    fn the_limit_is_the_soft_one() {
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max processes             95942                95942                processes \n\
                 Max locked memory         {soft:<20} unlimited            bytes     \n"
            )
        };
        assert_eq!(lockable(limits("8388608").as_bytes()), Some(Lockable::Bytes(8 << 20)));
        assert_eq!(lockable(limits("unlimited").as_bytes()), Some(Lockable::Unlimited));
        assert_eq!(lockable(b"Max locked memory"), None);
        assert!(lockable(&read(Path::new("/proc/self/limits")).expect("procfs")).is_some());
    }

    #[test]
    fn a_capability_counts_outside_of_user_namespaces() {
        const ALL: &[u8] = b"         0          0 4294967295\n";
        // Of QEMU started by root, by libvirt, and by root in a container of a user's.
        let status = |effective: &str| format!("Name:\tqemu\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\n");
        for (effective, uid_map, expected) in [
            ("000001ffffffffff", ALL, Some(true)),
            ("000001fffeffbfff", ALL, Some(false)),
            ("0000000000000000", ALL, Some(false)),
            ("0000000000004000", ALL, Some(true)),
            ("000001ffffffffff", b"         0       1000          1\n", Some(false)),
            ("", ALL, None),
        ] {
            assert_eq!(may_lock(status(effective).as_bytes(), uid_map), expected, "{effective}");
        }
        assert_eq!(may_lock(b"Name:\tqemu\n", ALL), None);
        let own = |file: &str| read(&Path::new("/proc/self").join(file)).expect("procfs");
        assert!(may_lock(&own("status"), &own("uid_map")).is_some());
    }

    #[test]
    fn the_kernel_shows_this_process() {
        let stat = read(Path::new("/proc/self/stat")).expect("procfs");
        assert!(start_time(&stat).is_some_and(|ticks| ticks > 0));
        let processes = qemu_processes(Path::new("/")).expect("procfs");
        assert!(processes.found.iter().all(|process| process.pid != std::process::id()));
        assert!(qemu_processes(Path::new("/nonexistent")).is_err());
    }

    /// As Linux 6.1 shows a guest with a function of group 12, whose bridge is in it as well.
    #[test]
    fn an_open_group_counts_as_its_functions() {
        let root = std::env::temp_dir().join(format!("iova-preflight-processes-{}", std::process::id()));
        let device = |name: &str, driver: &str| {
            let folder = root.join("sys/kernel/iommu_groups/12/devices").join(name);
            fs::create_dir_all(&folder).expect("a folder");
            std::os::unix::fs::symlink(format!("/sys/bus/pci/drivers/{driver}"), folder.join("driver"))
                .expect("a link");
        };
        device("0000:41:10.1", "vfio-pci");
        device("0000:40:01.0", "pcieport");
        let class = root.join("sys/class/vfio-dev/vfio3");
        fs::create_dir_all(&class).expect("a folder");
        std::os::unix::fs::symlink("../../0000:61:00.0", class.join("device")).expect("a link");
        let vfio = |address: &str| vec![OpenDevice::Vfio(address.to_owned())];
        assert_eq!(devices_of(&root, "/dev/vfio/12"), vfio("0000:41:10.1"));
        assert_eq!(devices_of(&root, "/dev/vfio/devices/vfio3"), vfio("0000:61:00.0"));
        let vdpa = "/dev/vhost-vdpa-0";
        assert_eq!(devices_of(&root, vdpa), [OpenDevice::VhostVdpa(vdpa.to_owned())]);
        for other in ["/dev/vfio/vfio", "/dev/kvm", "/dev/vfio/13", "anon_inode:kvm-vm"] {
            assert_eq!(devices_of(&root, other), [], "{other}");
        }
        fs::remove_dir_all(root).expect("removed");
    }
}
