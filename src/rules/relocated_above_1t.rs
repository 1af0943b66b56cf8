//! `relocated-above-1t`.

use super::Rule;
use crate::finding::{Finding, Severity};
use crate::guest::Guest;
use crate::qemu::layout::AMD_HT_START;
use crate::text;

pub(super) const RULE: Rule = Rule { id: "relocated-above-1t", summary: "QEMU moves RAM above 1 TiB", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(layout), Some(span)) = (guest.layout(), guest.ram_span()) else { return };
    let Some(ram) = layout.ram_above_4g.filter(|_| layout.relocated) else { return };
    let needless = guest.setting.host.knows_reserved()
        && !guest.unmappable.iter().any(|r| r.range.start <= AMD_HT_START && r.range.end >= AMD_HT_START);
    let title = format!("QEMU moves the RAM above 4 GiB to {}", text::range(ram));
    let mut cause = "some Windows GPU drivers do not work with RAM up there".to_owned();
    if needless {
        cause += "; this host reserves nothing there, but QEMU cannot tell";
    }
    let mut finding = Finding::new(RULE.id, Severity::Note, title, span, "moved above 1 TiB").because(cause).about(ram);
    if let Some(maximum) = guest.domain.max_memory.filter(|_| layout.device_memory.is_some()) {
        finding = finding.with_label(maximum.span, "counts, and a GiB for each slot");
    }
    findings.push(finding);
}
