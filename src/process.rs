//! A running QEMU, as the host's kernel shows it.

use crate::command_line::ProcessLimit;

/// A process that runs QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuProcess {
    /// Its number, in the PID namespace that procfs shows.
    pub pid: u32,
    /// Its arguments, the program first, each with a NUL at its end (proc_pid_cmdline(5)).
    pub arguments: Vec<u8>,
    /// The program's path; `None` if only root or the user of the process can see it.
    pub program: Option<String>,
    /// How much memory it may lock, `RLIMIT_MEMLOCK`; `None` if that is unknown.
    pub lockable: Option<Lockable>,
    /// Whether that limit does not apply to VFIO: the process has CAP_IPC_LOCK outside of user namespaces, where the
    /// kernel looks for it; `None` if that is unknown.
    pub locks_without_limit: Option<bool>,
    /// The passthrough devices that it has open, sorted; `None` if only root or the user of the process can see them.
    pub devices: Option<Vec<OpenDevice>>,
}

impl QemuProcess {
    /// Its limit for locked memory, if it has one. If it is unknown whether the limit applies to VFIO, it is taken not
    /// to.
    pub fn lock_limit(&self) -> Option<ProcessLimit> {
        match self.lockable? {
            Lockable::Bytes(bytes) => {
                Some(ProcessLimit { bytes, vfio_exempt: self.locks_without_limit != Some(false) })
            }
            Lockable::Unlimited => None,
        }
    }
}

/// How much memory a process may lock. VFIO's type 1 counts what is mapped for DMA against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockable {
    /// A number of bytes.
    Bytes(u64),
    /// Unlimited.
    Unlimited,
}

/// A passthrough device that a process has open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenDevice {
    /// A PCI function, by its address (`0000:41:10.1`), or what else is in a VFIO group.
    Vfio(String),
    /// A character device of vhost-vdpa, by its path.
    VhostVdpa(String),
}
