//! A fix in the words of the guest's owner, which regenerates the definition at each start: where to change it so that
//! it lasts.

mod cloudstack;
mod kubevirt;
mod nova;
mod opennebula;
mod proxmox;
mod vdsm;

use crate::domain::Owner;
use crate::fix::{Change, Fix};
use crate::guest::Subject;
use crate::verdict::Evaluation;

/// What to do, a command or a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// For this guest, in this order.
    pub steps: Vec<String>,
    /// For guests that are made later.
    pub later: Vec<String>,
}

impl Advice {
    /// All of it, a line each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().chain(&self.later).map(String::as_str)
    }
}

/// The programs of [`Advice`] that is a command.
const PROGRAMS: [&str; 6] = ["nova-manage", "openstack", "qm", "kubectl", "virtctl", "onevm"];

/// Whether a line of [`Advice`] is a command, which is to stay on one line: the others are sentences.
pub fn is_command(line: &str) -> bool {
    line.split(' ').next().is_some_and(|program| PROGRAMS.contains(&program))
}

/// How wide the CPU's addresses are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// This many bits.
    Bits(u32),
    /// The host's.
    Host,
    /// The host's, but no more than this many bits.
    HostUpTo(u32),
}

/// What a fix changes, as owners tell it apart.
#[derive(Debug, Default)]
struct Wanted<'a> {
    machine: Option<&'a str>,
    width: Option<Width>,
    /// Bytes.
    hole: Option<u64>,
    /// A change for which no owner has a setting.
    others: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn by(fix: &'a Fix) -> Self {
        let mut wanted = Self::default();
        for change in &fix.changes {
            match change {
                Change::Machine { to, .. } => wanted.machine = Some(to),
                Change::EmulateBits(bits) | Change::PhysBits(bits) => wanted.width = Some(Width::Bits(*bits)),
                Change::PassHostBits | Change::HostPhysBits => wanted.width = Some(Width::Host),
                Change::PassHostBitsUpTo(bits) | Change::HostPhysBitsUpTo(bits) => {
                    wanted.width = Some(Width::HostUpTo(*bits));
                }
                Change::PciHole64(kib) => wanted.hole = Some(kib.saturating_mul(1024)),
                Change::HoleSize(bytes) => wanted.hole = Some(*bytes),
                Change::DeviceAddress { .. } | Change::FreeAddress { .. } => wanted.others.push(change.to_string()),
            }
        }
        wanted
    }

    /// The changes of the kinds that `is_one` picks, as the fix tells them.
    fn told(fix: &Fix, is_one: impl Fn(&Change) -> bool) -> String {
        let changes: Vec<String> =
            fix.changes.iter().filter(|change| is_one(change)).map(ToString::to_string).collect();
        changes.join(", ")
    }
}

/// What to do in `owner` so that `fix` lasts.
pub fn advise(owner: Owner, subject: Subject<'_>, fix: &Fix) -> Advice {
    match owner {
        Owner::Nova => nova::advise(subject, fix),
        Owner::Vdsm => vdsm::advise(fix),
        Owner::Kubevirt => kubevirt::advise(subject, fix),
        Owner::Cloudstack => cloudstack::advise(fix),
        Owner::Opennebula => opennebula::advise(subject, fix),
        Owner::Proxmox => proxmox::advise(subject, fix),
    }
}

/// Where a guest of `owner` is changed, in one sentence.
pub fn place(owner: Owner) -> &'static str {
    match owner {
        Owner::Nova => "Nova regenerates this definition at each start; change its flavor, its image or nova.conf",
        Owner::Vdsm => {
            "oVirt regenerates this definition at each start; change it in the engine: Edit Virtual Machine > System"
        }
        Owner::Kubevirt => "KubeVirt regenerates this definition at each start; change the VirtualMachine",
        Owner::Cloudstack => {
            "CloudStack regenerates this definition at each start; change the instance's service offering (memory, \
             host tags), or what its adapter rewrites"
        }
        Owner::Opennebula => "OpenNebula regenerates this definition at each start; change the virtual machine there",
        Owner::Proxmox => "Proxmox VE regenerates this command line at each start; change it with `qm set`",
    }
}

/// What to do in `owner` about a guest that does not start, in one line: the steps of its fix, or why there is none and
/// where the guest is changed. Of the reasons, the last is reported: the attempts before it were not enough.
pub fn remedy(owner: Owner, subject: Subject<'_>, evaluation: &Evaluation) -> String {
    match &evaluation.fix {
        Some(fix) => advise(owner, subject, fix).steps.join("; "),
        None => {
            let why = evaluation.tried.last().map_or("", String::as_str);
            format!("no automatic fix: {why}; {}", place(owner))
        }
    }
}

/// A sentence that the owner has no setting for `what`; `None` if that is empty.
fn no_setting(owner: Owner, what: &str) -> Option<String> {
    (!what.is_empty()).then(|| format!("{} has no setting for this: {what}", owner.title()))
}

#[cfg(test)]
mod tests;
