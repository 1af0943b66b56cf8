//! `unknown-machine-type`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};

pub(crate) const RULE: Rule = Rule {
    id: "unknown-machine-type",
    summary: "the machine type is unknown, or is an alias for an unknown one",
    by: Refuser::Nobody,
    stops: false,
    // It reports before there is a guest to check: `crate::evaluate` has the flags of no machine type then.
    check: |_, _| {},
    #[cfg(feature = "cli")]
    page: &PAGE,
};

#[cfg(feature = "cli")]
const PAGE: Page = Page {
    severities: &[Severity::Warning, Severity::Note],
    meaning: &[Text(
        "The memory map depends on the machine type, and this one is unknown: it is newer than this program, \
             or no QEMU has it, or it is an alias such as `q35` and the host's aliases are unknown. The guest is \
             evaluated both as one with a machine type older than 7.1 and as one with a newer type; what holds for \
             both is reported. It is only a note if an alias leads to the same verdict either way.",
    )],
    cause: &[Text(
        "When a domain is defined, libvirt replaces an alias by the newest type of the host's QEMU. XML from a \
             repository, a template or an orchestrator still has the alias, which becomes another type on another \
             host, possibly with another memory map.",
    )],
    history: &[Text(
        "It is known which types move RAM above 1 TiB for QEMU up to 11.1 and for the types of RHEL, CentOS, \
             Ubuntu and Proxmox. All upstream types since 7.1 do.",
    )],
    errors: &[],
    fix: &[
        Text("Say which host the domain is for, with a profile that has the host's aliases:"),
        Output(
            "[qemu]\n\
             version = \"7.2\"\n\
             \n\
             [qemu.aliases]\n\
             q35 = \"pc-q35-7.2\"\n\
             pc = \"pc-i440fx-7.2\"",
        ),
        Shell("iova-preflight check --host host.toml guest.xml"),
        Text(
            "Or use the full name of the machine type in the domain. A guest that libvirt has defined has no alias \
             any more: `virsh dumpxml --inactive NAME` shows its type.",
        ),
        Text(
            "If there is no QEMU to ask, as in a container that checks guests for other hosts, and all of those \
             hosts have a new one, set `alias = \"newest\"` in the policy: an alias then means the newest type of its family, and this is a note.",
        ),
    ],
    verify: &[
        Text("Which types the aliases mean on a host:"),
        Shell(
            "virsh domcapabilities --machine q35 | grep '<machine>'\n\
             virsh domcapabilities --machine pc | grep '<machine>'\n\
             qemu-system-x86_64 -machine help | grep alias",
        ),
    ],
    background: &[Topic::Layout],
};

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::machine::NEWEST;

    #[test]
    fn the_page_names_the_newest_version_that_is_known() {
        let newest = format!("QEMU up to {}.{} ", NEWEST.major, NEWEST.minor);
        assert!(PAGE.history.iter().any(|block| matches!(block, Text(words) if words.contains(&newest))), "{newest}");
    }
}
