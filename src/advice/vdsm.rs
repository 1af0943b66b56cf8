//! oVirt: the engine knows the machine type; the rest is VDSM's hook.

use super::{Advice, Wanted};
use crate::fix::{Change, Fix};

/// The types of the cluster levels of oVirt 4.5 (`ClusterEmulatedMachines` in ovirt-engine
/// `packaging/dbscripts/upgrade/pre_upgrade/0000_config.sql`): 4.7 has pc-q35-rhel8.6.0, 4.8 pc-q35-rhel9.6.0.
const LEVEL_4_8: &str = "4.8 (pc-q35-rhel9.6.0)";

pub(super) fn advise(fix: &Fix) -> Advice {
    let wanted = Wanted::by(fix);
    let mut steps = Vec::new();
    if let Some(to) = wanted.machine {
        let level = if to.starts_with("pc-q35-rhel9.") {
            format!("; a cluster of compatibility level {LEVEL_4_8} does it for all of its virtual machines")
        } else {
            String::new()
        };
        steps.push(format!(
            "in the engine, Edit Virtual Machine > System > Advanced Parameters > Custom Emulated Machine: {to}{level}"
        ));
    }
    let rest = Wanted::told(fix, |change| !matches!(change, Change::Machine { .. }));
    if !rest.is_empty() {
        steps.push(format!(
            "the engine has no setting for this; VDSM's hook does it at each start: {rest}; `iova-preflight adapter \
             vdsm \
             install` on every host of the cluster"
        ));
    }
    steps.push("shut the virtual machine down and run it again; a reboot changes nothing".to_owned());
    Advice { steps, later: Vec::new() }
}
