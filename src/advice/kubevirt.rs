//! KubeVirt: the VirtualMachine names the machine type; the rest is the hook sidecar's.

use super::{Advice, Wanted};
use crate::fix::{Change, Fix};
use crate::guest::Subject;
use crate::text::shell_word;

pub(super) fn advise(subject: Subject<'_>, fix: &Fix) -> Advice {
    let wanted = Wanted::by(fix);
    // `VMINamespaceKeyFunc` in KubeVirt `pkg/virt-launcher/virtwrap/util`: neither part may have an underscore.
    let named = subject.name().split_once('_');
    let (namespace, name) = named.map_or(("NAMESPACE".to_owned(), "NAME".to_owned()), |(namespace, name)| {
        (shell_word(namespace), shell_word(name))
    });
    let mut steps = Vec::new();
    if let Some(to) = wanted.machine {
        steps.push(format!(
            "kubectl -n {namespace} patch vm {name} --type merge -p \
             '{{\"spec\":{{\"template\":{{\"spec\":{{\"domain\":{{\"machine\":{{\"type\":\"{to}\"}}}}}}}}}}}}'"
        ));
    }
    let rest = Wanted::told(fix, |change| !matches!(change, Change::Machine { .. }));
    if !rest.is_empty() {
        steps.push(format!(
            "a VirtualMachine has no field for this; the hook sidecar does it at each start: {rest}; annotation \
             hooks.kubevirt.io/hookSidecars, see `iova-preflight adapter kubevirt`"
        ));
    }
    steps.push(format!("virtctl -n {namespace} restart {name}"));
    Advice { steps, later: Vec::new() }
}
