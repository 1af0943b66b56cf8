//! What each rule means, where it comes from, and what to do: the page that `iova-preflight explain` prints and that
//! `docs/rules` holds.

mod hotplug_window_in_reserved_range;
mod machine_type_not_available;
mod markdown;
mod memory_device_does_not_fit;
mod memory_device_in_reserved_range;
mod memory_hotplug_refused;
mod not_modelled;
mod pci_hole_in_reserved_range;
mod phys_bits_above_host;
mod phys_bits_ignored;
mod phys_bits_not_configurable;
mod phys_bits_out_of_range;
mod phys_bits_too_low;
mod ram_in_reserved_range;
mod refused_by_libvirt;
mod relocated_above_1t;
mod shared;
mod unknown_machine_type;

pub use markdown::{help, index, markdown};

use crate::finding::Severity;
use crate::rules::RULES;

/// All there is to say about a rule.
#[derive(Debug)]
pub struct Page {
    /// The rule's name.
    pub rule: &'static str,
    /// How bad its findings can be, the worst first.
    pub severities: &'static [Severity],
    /// What a finding says.
    pub meaning: &'static [Block],
    /// Why it is so.
    pub cause: &'static [Block],
    /// Since when, and how it came about.
    pub history: &'static [Block],
    /// What is printed by the programs that refuse, warn or abort.
    pub errors: &'static [ErrorText],
    /// What to do about it.
    pub fix: &'static [Block],
    /// How to see by hand that it is so.
    pub verify: &'static [Block],
}

/// A piece of a page.
#[derive(Debug, Clone, Copy)]
pub enum Block {
    /// A paragraph; what is between backquotes is code.
    Text(&'static str),
    /// Commands for a shell, one a line.
    Shell(&'static str),
    /// A part of a domain.
    Xml(&'static str),
    /// What a program prints or a file holds.
    Output(&'static str),
}

/// What a program prints.
#[derive(Debug, Clone, Copy)]
pub struct ErrorText {
    /// Who prints it.
    pub by: Program,
    /// When.
    pub when: &'static str,
    /// The text as it is printed, with numbers and names of an example.
    pub text: &'static str,
}

/// Who prints an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// QEMU; the text is in the guest's log and in what `virsh start` prints.
    Qemu,
    /// libvirt.
    Libvirt,
}

impl Program {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Libvirt => "libvirt",
        }
    }
}

/// A heading and what stands below it.
#[derive(Debug)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// What stands below.
    pub content: Content,
}

/// What stands below a heading.
#[derive(Debug)]
pub enum Content {
    /// Text and code.
    Blocks(&'static [Block]),
    /// What programs print.
    Errors(&'static [ErrorText]),
}

impl Page {
    /// The sections that are not empty, in order.
    pub fn sections(&self) -> impl Iterator<Item = Section> + '_ {
        let blocks = |title, blocks: &'static [Block]| {
            (!blocks.is_empty()).then_some(Section { title, content: Content::Blocks(blocks) })
        };
        let errors = (!self.errors.is_empty())
            .then_some(Section { title: "What is printed", content: Content::Errors(self.errors) });
        [
            blocks("What it means", self.meaning),
            blocks("Cause", self.cause),
            blocks("History", self.history),
            errors,
            blocks("What to do", self.fix),
            blocks("How to verify", self.verify),
        ]
        .into_iter()
        .flatten()
    }

    /// The severities in words: `error, warning`.
    pub fn severity_words(&self) -> String {
        let names: Vec<&str> = self.severities.iter().map(|severity| severity.name()).collect();
        names.join(", ")
    }

    /// What the rule finds, in one line.
    pub fn summary(&self) -> &'static str {
        RULES.iter().find(|rule| rule.id == self.rule).map_or(UNKNOWN_MACHINE_TYPE_SUMMARY, |rule| rule.summary)
    }
}

/// [`UNKNOWN_MACHINE_TYPE`](crate::rules::UNKNOWN_MACHINE_TYPE) is no rule that looks at a guest: it speaks before there is one.
const UNKNOWN_MACHINE_TYPE_SUMMARY: &str = "the machine type is not known, or is an alias of one that is not";

/// The page of each rule, in the order findings are reported.
pub const PAGES: [&Page; RULES.len() + 1] = [
    &unknown_machine_type::PAGE,
    &refused_by_libvirt::PAGE,
    &machine_type_not_available::PAGE,
    &memory_hotplug_refused::PAGE,
    &phys_bits_not_configurable::PAGE,
    &phys_bits_out_of_range::PAGE,
    &phys_bits_above_host::PAGE,
    &phys_bits_too_low::PAGE,
    &memory_device_does_not_fit::PAGE,
    &ram_in_reserved_range::PAGE,
    &memory_device_in_reserved_range::PAGE,
    &hotplug_window_in_reserved_range::PAGE,
    &pci_hole_in_reserved_range::PAGE,
    &phys_bits_ignored::PAGE,
    &not_modelled::PAGE,
    &relocated_above_1t::PAGE,
];

/// The page of a rule.
pub fn page(rule: &str) -> Option<&'static Page> {
    PAGES.into_iter().find(|page| page.rule == rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::UNKNOWN_MACHINE_TYPE;

    #[test]
    fn every_rule_has_a_page_in_the_order_of_the_rules() {
        let pages: Vec<&str> = PAGES.iter().map(|page| page.rule).collect();
        let rules: Vec<&str> = std::iter::once(UNKNOWN_MACHINE_TYPE).chain(RULES.iter().map(|rule| rule.id)).collect();
        assert_eq!(pages, rules);
    }

    #[test]
    fn no_page_leaves_out_what_it_has_to_say() {
        for page in PAGES {
            for (what, blocks) in
                [("meaning", page.meaning), ("cause", page.cause), ("fix", page.fix), ("verify", page.verify)]
            {
                assert!(!blocks.is_empty(), "{}: no {what}", page.rule);
            }
            assert!(!page.severities.is_empty() && page.severities.is_sorted_by(|a, b| a > b), "{}", page.rule);
            assert!(page.verify.iter().any(|block| matches!(block, Block::Shell(_))), "{}: no command", page.rule);
        }
    }
}
