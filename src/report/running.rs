//! What is reported about a running guest.

use serde::Serialize;

use schemars::JsonSchema;

use crate::finding::Severity;
use crate::host::{FIRST_KERNEL_TO_REFUSE_RESERVED, Host};
use crate::process::{Lockable, OpenDevice, QemuProcess};
use crate::rules;
use crate::text;
use crate::verdict::Evaluation;

/// A guest's process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Process")]
pub struct ProcessReport {
    /// Its number.
    pub pid: u32,
    /// How many bytes it may lock (`RLIMIT_MEMLOCK`): a number, or `unlimited`; null if that is unknown.
    pub locked_memory_limit: Option<LockedMemoryLimit>,
    /// The VFIO and vDPA devices that it has open; null if only root can see them.
    pub open_devices: Option<Vec<String>>,
    /// Remarks about the running process, a sentence each.
    pub notes: Vec<String>,
}

/// How many bytes a process may lock.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum LockedMemoryLimit {
    /// A number of bytes.
    Bytes(u64),
    /// `unlimited`.
    Word(Unlimited),
}

/// No limit.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// No limit.
    Unlimited,
}

impl ProcessReport {
    /// What is reported of a process whose guest was evaluated for `host`.
    pub fn new(process: &QemuProcess, evaluation: &Evaluation, host: &Host) -> Self {
        Self {
            pid: process.pid,
            locked_memory_limit: process.lockable.map(|limit| match limit {
                Lockable::Bytes(bytes) => LockedMemoryLimit::Bytes(bytes),
                Lockable::Unlimited => LockedMemoryLimit::Word(Unlimited::Unlimited),
            }),
            open_devices: process.devices.as_ref().map(|devices| devices.iter().map(name).collect()),
            notes: notes(process, evaluation, host),
        }
    }

    /// The process in one line.
    pub fn line(&self) -> String {
        let devices = match self.open_devices.as_deref() {
            None => "only root can see its open VFIO devices".to_owned(),
            Some([]) => "no VFIO device open".to_owned(),
            Some(devices) => format!("open: {}", devices.join(", ")),
        };
        let limit = match self.locked_memory_limit {
            None => "an unknown amount of memory".to_owned(),
            Some(LockedMemoryLimit::Bytes(bytes)) => text::size(bytes),
            Some(LockedMemoryLimit::Word(_)) => "any amount of memory".to_owned(),
        };
        format!("{} | {devices} | may lock {limit}", self.pid)
    }
}

fn name(device: &OpenDevice) -> String {
    match device {
        OpenDevice::Vfio(name) | OpenDevice::VhostVdpa(name) => name.clone(),
    }
}

fn notes(process: &QemuProcess, evaluation: &Evaluation, host: &Host) -> Vec<String> {
    let mut notes = Vec::new();
    if evaluation.verdict.stops() {
        notes.push("it is running, but would not start again".to_owned());
    }
    let open = process.devices.as_deref().unwrap_or_default();
    let errors = || evaluation.findings.iter().filter(|finding| finding.severity == Severity::Error);
    if !open.is_empty() && errors().any(rules::is_collision) {
        notes.push(match host.kernel {
            Some(kernel) if kernel < FIRST_KERNEL_TO_REFUSE_RESERVED => format!(
                "Linux {kernel} accepts mappings in reserved ranges, but they have no effect (5.4 is the first \
                 version that refuses them): DMA to that part of the guest's memory is being lost without a message"
            ),
            _ => "QEMU has the device anyway: its IOMMU group may reserve less than this program knows".to_owned(),
        });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argv::Call;
    use crate::command_line::Launch;
    use crate::host::builtin;
    use crate::policy::Policy;
    use crate::verdict::{Verdict, evaluate};
    use crate::version::Version;

    /// A guest with RAM in the reserved range that has this device open, on this kernel and with this limit.
    fn report(kernel: Option<Version>, lockable: Lockable, device: Option<&str>) -> (Verdict, ProcessReport) {
        let arguments = b"qemu-system-x86_64\0-machine\0pc-q35-6.2\0-accel\0kvm\0-cpu\0host\0-m\x001200G\0".to_vec();
        let devices = device.map(|name| OpenDevice::Vfio(name.to_owned())).into_iter().collect();
        let process = QemuProcess {
            pid: 1,
            arguments,
            program: None,
            lockable: Some(lockable),
            locks_without_limit: None,
            devices: Some(devices),
        };
        let call = Call::of_process(&process.arguments).expect("a command line");
        let mut launch = Launch::read(&call);
        device.iter().for_each(|name| launch.attach_vfio(name));
        let mut host = builtin("amd-epyc").expect("built in");
        host.kernel = kernel;
        let evaluation = evaluate(&launch, &host, &Policy::default());
        (evaluation.verdict, ProcessReport::new(&process, &evaluation, &host))
    }

    #[test]
    fn a_device_that_came_later_counts() {
        let (verdict, process) = report(None, Lockable::Unlimited, None);
        assert_eq!((verdict, process.notes.len()), (Verdict::Warn, 0));
        let (verdict, process) = report(None, Lockable::Unlimited, Some("0000:41:10.1"));
        assert_eq!(verdict, Verdict::Fixable);
        assert!(process.notes[1].contains("may reserve less"), "{:?}", process.notes);
        assert_eq!(process.line(), "1 | open: 0000:41:10.1 | may lock any amount of memory");
    }

    /// Linux 5.4 is the first that refuses (`vfio_iommu_iova_dma_valid`).
    #[test]
    fn before_5_4_dma_is_lost_in_silence() {
        let silent = |version| {
            let (_, process) = report(Some(version), Lockable::Unlimited, Some("0000:41:10.1"));
            process.notes.iter().any(|note| note.contains("lost without a message"))
        };
        assert!(silent(Version::new(5, 3)) && silent(Version::new(4, 18)));
        assert!(!silent(Version::new(5, 4)) && !silent(Version::new(6, 1)));
    }
}
