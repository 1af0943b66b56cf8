//! OpenNebula: attributes of the virtual machine.

use super::{Advice, Wanted, Width};
use crate::fix::{Change, Fix};
use crate::guest::Subject;

/// `OS` and `RAW` are among what a powered-off machine can get (`VirtualMachineTemplate::UPDATECONF_ATTRS` in OpenNebula
/// 7.4.0 `src/vm/VirtualMachineTemplate.cc`). `RAW` ends up after everything else in the definition, and libvirt reads
/// only the first `<cpu>` (`deployment_description_kvm` in `src/vmm/LibVirtDriverKVM.cc`).
pub(super) fn advise(subject: Subject<'_>, fix: &Fix) -> Advice {
    let wanted = Wanted::by(fix);
    let number = subject.name().strip_prefix("one-").filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
    let id = number.filter(|id| !id.is_empty()).unwrap_or("ID");
    let mut attributes = Vec::new();
    if let Some(to) = wanted.machine {
        attributes.push(format!("OS = [ MACHINE = \"{to}\" ]"));
    }
    let has_cpu = subject.domain().is_none_or(|domain| domain.cpu.is_some());
    let width = wanted.width.filter(|_| !has_cpu).map(|width| match width {
        Width::Bits(bits) => format!("mode='emulate' bits='{bits}'"),
        Width::Host => "mode='passthrough'".to_owned(),
        Width::HostUpTo(bits) => format!("mode='passthrough' limit='{bits}'"),
    });
    if let Some(width) = &width {
        attributes.push(format!("RAW = [ TYPE = \"kvm\", DATA = \"<cpu><maxphysaddr {width}/></cpu>\" ]"));
    }
    let mut steps = Vec::new();
    if !attributes.is_empty() {
        steps.push(format!("onevm poweroff {id}"));
        steps.push(format!("onevm updateconf --append {id} FILE, with this in FILE: {}", attributes.join(" ")));
    }
    let is_told = |change: &Change| matches!(change, Change::Machine { .. }) || (width.is_some() && change.is_width());
    let rest = Wanted::told(fix, |change| !is_told(change));
    if !rest.is_empty() {
        steps.push(format!(
            "no attribute sets this; the wrapper around its deploy script does it at each start: {rest}; \
             `iova-preflight \
             adapter opennebula install` on the front-end, then `onehost sync --force`"
        ));
    }
    if attributes.is_empty() {
        steps.push(format!("onevm poweroff {id}"));
    }
    steps.push(format!("onevm resume {id}"));
    let later = attributes.iter().map(|attribute| format!("in the template, with onetemplate update: {attribute}"));
    Advice { steps, later: later.collect() }
}
