//! `dma-not-visible`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule, collision};
use crate::domain::Unseen;
use crate::finding::{Finding, Severity};
use crate::guest::{Exposure, Guest};
use crate::text::{self, quoted};

pub(crate) const RULE: Rule = Rule {
    id: "dma-not-visible",
    summary: "a device may use DMA to guest memory, but the domain does not show whether it does",
    by: Refuser::Nobody,
    stops: false,
    check,
    #[cfg(feature = "cli")]
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    // Where DMA has to reach all memory, the other rules say what is wrong.
    if matches!(guest.exposure, Exposure::Present | Exposure::Assumed) {
        return;
    }
    let plugged = guest.plugged.iter().flatten().map(|device| device.range);
    let memory = guest.layout().into_iter().flat_map(|layout| layout.ram()).chain(plugged);
    let Some((common, unmappable)) = memory.flat_map(|range| guest.collisions(range).collect::<Vec<_>>()).next() else {
        return;
    };
    let place = match unmappable.reserved() {
        Some(reserved) => format!("in a reserved range, {}", text::range(reserved.range)),
        None => collision::place(unmappable),
    };
    for hidden in &guest.hidden_dma {
        let (title, cause, label) = match &hidden.unseen {
            Unseen::Process(protocol) => (
                format!("DMA through this {protocol} device may fail: guest memory lies {place}"),
                format!(
                    "the process at the other end of the socket may map guest memory for a device of its own; if it \
                     does, as DPDK's vDPA drivers do, set passthrough = \"{ASSUME}\" in the policy"
                ),
                format!("the process that serves the {protocol} socket is unknown"),
            ),
            Unseen::Network(name) => (
                format!("the guest may fail to start: network {} may assign it a PCI device", quoted(name)),
                format!(
                    "guest memory lies {place}, and the network was not found (--connect looks it \
                     up in libvirt). If its forward mode is hostdev, set passthrough = \"{ASSUME}\" in the policy"
                ),
                "not found among libvirt's networks".to_owned(),
            ),
        };
        let finding = Finding::new(RULE.id, Severity::Warning, title, hidden.span, label);
        findings.push(finding.because(cause).about(common));
    }
}

/// The value of `passthrough` in the policy for guests whose devices are not seen.
const ASSUME: &str = "assume";

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning],
    meaning: &[Text(
        "The guest has memory where the host's IOMMU does not accept DMA mappings. It has no passthrough \
             device, but one that may behave like a passthrough device; that depends on a process or a network \
             that the domain only names. If it does, the guest does not start, or the device does not work.",
    )],
    cause: &[
        shared::THE_RANGE,
        Text(
            "A vhost-user back end maps the guest's memory, and may give a device of its own access to it through \
             VFIO. DPDK's vDPA drivers do so, at guest-physical addresses; Open vSwitch and other back ends \
             without such a device do not. QEMU is not involved: the guest starts, its device does not work, and \
             the error is in the back end's log.",
        ),
        Text(
            "An `<interface type='network'>` whose network has `<forward mode='hostdev'>` gets a virtual function \
             of a network card each time the guest starts, which is a passthrough device like any other. The tool \
             looks for the network in the libvirt of `--connect`, in `/etc/libvirt/qemu/networks` of this host \
             (unless `--host` names a profile in a file), and in the folder `networks` beside the domain's file. \
             It reports only networks that it does not find. The hook does not look for networks: at `start`, \
             libvirt shows it the function itself.",
        ),
    ],
    history: &[],
    errors: &[],
    fix: &[
        Text(
            "Find out what the device is. If VFIO is behind it, say that guests have passthrough devices, in \
             `/etc/iova-preflight/policy.toml`:",
        ),
        Shell("passthrough = \"assume\""),
        Text("Or for one guest, in its domain:"),
        Xml("<metadata>\n\
             \x20 <policy xmlns='urn:iova-preflight:policy:1' passthrough='assume'/>\n\
             </metadata>"),
        Text("`iova-preflight fix` then treats the guest as one with a passthrough device."),
    ],
    verify: &[
        Text("Whether a network hands out PCI functions:"),
        Shell("virsh net-dumpxml NETWORK | grep '<forward'"),
        Text("Which processes hold VFIO devices; one of them may serve the socket:"),
        Shell("sudo lsof /dev/vfio/*"),
    ],
    background: &[Topic::HyperTransport, Topic::Looking],
};
