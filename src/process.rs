//! A QEMU that runs, as the host's kernel shows it.

/// A process that runs QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuProcess {
    /// Its number, in the PID namespace that procfs shows.
    pub pid: u32,
    /// Its arguments, the program first, each with a NUL at its end (proc_pid_cmdline(5)).
    pub arguments: Vec<u8>,
    /// The program's path; `None` where only root or the user of the process can see it.
    pub program: Option<String>,
    /// How much memory it may lock, `RLIMIT_MEMLOCK`; `None` where that is unknown.
    pub lockable: Option<Lockable>,
    /// The passthrough devices that it has open, sorted; `None` where only root or the user of the process can see them.
    pub devices: Option<Vec<OpenDevice>>,
}

/// How much memory a process may lock. VFIO's type 1 counts what is mapped for DMA against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockable {
    /// So many bytes.
    Bytes(u64),
    /// All of it.
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
