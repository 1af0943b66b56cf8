//! `ram-in-reserved-range`.

use super::{Rule, collision};
use crate::finding::Finding;
use crate::guest::Guest;
use crate::text;

pub(super) const RULE: Rule =
    Rule { id: "ram-in-reserved-range", summary: "guest RAM lies where the host's IOMMU maps nothing", check };

fn check(guest: &Guest<'_>, findings: &mut Vec<Finding>) {
    let (Some(layout), Some(span)) = (guest.layout(), guest.ram_span()) else { return };
    for ram in layout.ram() {
        for hit in guest.collisions(ram) {
            let cells = guest.domain.numa_cells.len();
            let all = if cells > 1 { format!("the RAM of {cells} cells") } else { "RAM".to_owned() };
            let label = format!("{all} takes up {}", text::range(ram));
            findings.push(collision::finding(guest, RULE.id, "guest RAM", hit, span, label));
        }
    }
}
