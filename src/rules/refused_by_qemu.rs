//! `refused-by-qemu`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "refused-by-qemu",
    summary: "QEMU refuses to start: it does not take an argument of its command line",
    by: Refuser::Qemu,
    stops: false,
    check,
    page: &PAGE,
};

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let by_this =
        guest.line.refused.iter().filter(|argument| argument.from.is_none_or(|from| guest.setting.qemu >= from));
    for argument in by_this.filter(|_| guest.domain.is_none()) {
        let message = match argument.value.as_str() {
            "" => format!("QEMU refuses to start: `{}` misses its value", quoted(&argument.option)),
            value => {
                let shown = format!("{} {}", quoted(&argument.option), quoted(value));
                format!("QEMU refuses to start: it does not take `{shown}`")
            }
        };
        findings.push(Finding::new(RULE.id, Severity::Error, message, argument.origin.span(), "not taken"));
    }
}

const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text("QEMU does not take an argument, says which, and ends before there is a guest.")],
    cause: &[Text(
        "A size has no number or a unit that QEMU does not know (it knows B, K, M, G, T, P and E, so `4GiB` is none), an \
         option has a key that it does not have, a switch is neither on nor off, JSON is incomplete or has a number in \
         quotes, a memory backend has no id or no size, an id does not begin with a letter or is there twice, `-set` names \
         a device that does not come before it, a NUMA node is there twice, a memory device has a backend that is used \
         already or is an NVDIMM without `-machine nvdimm=on`, no accelerator that is named is one that QEMU has, or the \
         last option misses its value.",
    )],
    history: &[],
    errors: &[
        ErrorText { by: Program::Qemu, when: "a key that `-m` does not have", text: "Invalid parameter 'foo'" },
        ErrorText { by: Program::Qemu, when: "the last option misses its value", text: "requires an argument" },
        ErrorText { by: Program::Qemu, when: "`id=5`", text: "Parameter 'id' expects an identifier" },
        ErrorText { by: Program::Qemu, when: "an id that is there twice", text: "Duplicate ID 'mem0' for object" },
        ErrorText {
            by: Program::Qemu,
            when: "the only `-accel`; with another one, QEMU goes on with that",
            text: "invalid accelerator nosuch",
        },
        ErrorText {
            by: Program::Qemu,
            when: "`max-ram-below-4g`",
            text: "Machine option 'max-ram-below-4g=5368709120' expects size less than or equal to 4G",
        },
    ],
    fix: &[Text("`iova-preflight fix` does not guess what was meant. The finding points at the argument.")],
    verify: &[
        Text("QEMU's own words, without a guest that runs:"),
        Shell("qemu-system-x86_64 -display none -S -m 4G,foo=1"),
    ],
};
