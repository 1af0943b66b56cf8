//! `unknown-machine-type`.

#[cfg(feature = "cli")]
use super::page::*;
use super::{Refuser, Rule};

pub(crate) const RULE: Rule = Rule {
    id: "unknown-machine-type",
    summary: "the machine type is unknown, or an alias of an unknown one",
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
        "What the memory map looks like depends on the machine type, and this one is unknown: it is an alias, such \
         as `q35`, and the host's aliases are unknown, or it is newer than this program, or no QEMU has it. The guest is \
         evaluated as one with a type older than 7.1 and as one with a newer type, and what holds for both is said. It is \
         a note where an alias leads to the same verdict either way; a name that nobody knows may lead nowhere.",
    )],
    cause: &[Text(
        "libvirt replaces an alias by the newest type of the host's QEMU when a domain is defined. XML that comes \
         from a repository, a template or an orchestrator still has the alias, and on another host it becomes another \
         type, perhaps with another memory map.",
    )],
    history: &[Text(
        "Which types move RAM above 1 TiB is written down for QEMU up to 11.1 and for the types of RHEL, CentOS, \
         Ubuntu and Proxmox. All upstream types since 7.1 do.",
    )],
    errors: &[],
    fix: &[
        Text(
            "Tell which host it is for: a profile with the aliases of that host, or the type by its full name in the \
             domain.",
        ),
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
            "Where QEMU is never seen, as in a container that checks guests for others, and all of them run a new one, \
             `alias = \"newest\"` in the policy takes an alias for the newest type of its family; it is then a note.",
        ),
        Text("A guest that libvirt has defined has no alias any more: `virsh dumpxml --inactive NAME` shows its type."),
    ],
    verify: &[
        Text("What the aliases stand for on a host:"),
        Shell(
            "virsh domcapabilities --machine q35 | grep '<machine>'\n\
             virsh domcapabilities --machine pc | grep '<machine>'\n\
             qemu-system-x86_64 -machine help | grep alias",
        ),
    ],
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
