//! `refused-by-qemu`.

use super::page::*;
use super::{Refuser, Rule};
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::text::quoted;

pub(crate) const RULE: Rule = Rule {
    id: "refused-by-qemu",
    summary: "QEMU refuses to start: it does not accept an argument of its command line",
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
            "" => format!("QEMU refuses to start: `{}` has no value", quoted(&argument.option)),
            value => {
                let shown = format!("{} {}", quoted(&argument.option), quoted(value));
                format!("QEMU refuses to start: it rejects `{shown}`")
            }
        };
        findings.push(Finding::new(RULE.id, Severity::Error, message, argument.origin.span(), "not taken"));
    }
}

const PAGE: Page = Page {
    severities: &[Severity::Error],
    meaning: &[Text("QEMU does not accept an argument, says which one, and ends before there is a guest.")],
    cause: &[
        Text("One of these:"),
        Output(
            "size          no number, or an unknown unit (known: B K M G T P E, so not 4GiB)\n\
             option        a key that the option does not have, or a switch that is neither on nor off\n\
             last option   its value is missing\n\
             JSON          incomplete, or a number in quotes\n\
             id            does not begin with a letter, or is used twice\n\
             -object       a memory backend without an id or a size\n\
             -device       a memory device whose backend is already in use, or an NVDIMM without -machine nvdimm=on\n\
             -set          a device that does not come before it\n\
             -numa         a node that is there twice\n\
             -accel        none of the accelerators is one that QEMU has",
        ),
    ],
    history: &[],
    errors: &[
        ErrorText::qemu("a key that `-m` does not have", "Invalid parameter 'foo'"),
        ErrorText::qemu("the last option has no value", "requires an argument"),
        ErrorText::qemu("`id=5`", "Parameter 'id' expects an identifier"),
        ErrorText::qemu("an id that is used twice", "Duplicate ID 'mem0' for object"),
        ErrorText::qemu("the only `-accel`; QEMU tries the next one if there is another", "invalid accelerator nosuch"),
        ErrorText::qemu(
            "`max-ram-below-4g`",
            "Machine option 'max-ram-below-4g=5368709120' expects size less than or equal to 4G",
        ),
    ],
    fix: &[Text(
        "Correct the argument that the finding points at. `iova-preflight fix` does not guess what was meant.",
    )],
    verify: &[
        Text("QEMU's own message, without starting a guest:"),
        Shell("qemu-system-x86_64 -display none -S -m 4G,foo=1"),
    ],
    background: &[],
};
