//! CloudStack: the agent's transformer rewrites the XML.

use super::{Advice, Wanted, Width};
use crate::fix::Fix;

pub(super) fn advise(fix: &Fix) -> Advice {
    let mut steps = vec![format!(
        "the agent's XML transformer does this at each start: {}; `iova-preflight adapter cloudstack install` on every host \
         of the cluster, then restart cloudstack-agent",
        Wanted::told(fix, |_| true)
    )];
    if Wanted::by(fix).width == Some(Width::Host) {
        // `AgentProperties.GUEST_CPU_MODE`.
        steps.push(
            "instead of the address bits, guest.cpu.mode=host-passthrough in /etc/cloudstack/agent/agent.properties gives all \
             instances of the host its own"
                .to_owned(),
        );
    }
    steps.push("stop the instance in CloudStack and start it again".to_owned());
    Advice { steps, later: Vec::new() }
}
