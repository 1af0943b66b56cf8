//! `phys-bits-not-configurable`.

use super::Block::{Shell, Text};
use super::{ErrorText, Page, Program, shared};
use crate::finding::Severity;

pub(super) const PAGE: Page = Page {
    rule: "phys-bits-not-configurable",
    severities: &[Severity::Error],
    meaning: &[Text(
        "QEMU refuses to start the guest: the domain gives a number of physical address bits to a CPU without long \
         mode, whose width is fixed.",
    )],
    cause: &[Text(
        "A 32-bit CPU has 32 bits, or 36 with PAE or PSE36. The model is one without long mode (`qemu32`, `kvm32`, \
         `pentium3`, `coreduo` and older ones), or `<feature policy='disable' name='lm'/>` takes it away.",
    )],
    history: &[Text(
        "All versions of QEMU that were measured, 7.2 to 11.1, refuse it. libvirt can ask for phys-bits since 8.7 and \
         does so for any model.",
    )],
    errors: &[ErrorText { by: Program::Qemu, when: "at start", text: "phys-bits is not user-configurable in 32 bit" }],
    fix: &[
        Text("Remove `<maxphysaddr>` with `virsh edit NAME`, or choose a 64-bit CPU model:"),
        Shell("virsh domcapabilities --virttype kvm --arch x86_64 | grep \"usable='yes'\""),
        Text(
            "A guest with more memory than 36 bits reach needs a 64-bit CPU. `iova-preflight fix` does not choose one.",
        ),
    ],
    verify: &[
        shared::COMMAND_LINE[0],
        shared::COMMAND_LINE[1],
        Text("The refusal itself:"),
        Shell("qemu-system-x86_64 -accel tcg -nodefaults -display none -S -machine q35 -cpu pentium3,phys-bits=40"),
    ],
};
