//! What of a guest is a guess, as a fact about a host is unknown that it gets from there.

use super::Side;
use crate::evaluate::{Facts, HOST_BITS, HOST_PHYS_BITS, HOST_VENDOR, diagnose};
use crate::guest::Subject;
use crate::host::Host;
use crate::policy::Policy;
use crate::qemu::cpu::INTEL;

/// What is not certain, and so cannot be compared.
#[derive(Debug, Default)]
pub(super) struct Guess {
    /// The CPU's vendor.
    pub vendor: bool,
    /// Its physical address bits.
    pub bits: bool,
    /// The memory map.
    pub map: bool,
    /// The facts that this follows from.
    unknown: Vec<String>,
}

impl Guess {
    /// That of a guest on a host, which [`diagnose`] has told to have these facts: with another vendor or other bits of
    /// the host's, they would be other ones.
    pub fn of(subject: Subject<'_>, side: Side, host: &Host, facts: &Facts, policy: &Policy) -> Self {
        let mut guess = Self::default();
        let told = |host: Host| diagnose(subject, &host, policy).facts;
        if host.cpu_vendor.is_none() {
            let other = told(Host { cpu_vendor: Some(INTEL.to_owned()), ..host.clone() });
            guess.vendor = other.cpu_vendor != facts.cpu_vendor;
            guess.map = has_moved(&other, facts);
        }
        if host.phys_bits.is_none() {
            for bits in &HOST_PHYS_BITS[1..] {
                let other = told(Host { phys_bits: Some(*bits), ..host.clone() });
                guess.bits |= other.phys_bits != facts.phys_bits;
                guess.map |= has_moved(&other, facts);
            }
        }
        let host = side.name();
        if guess.vendor {
            guess.unknown.push(format!("depends on the CPU vendor of the {host}, which is unknown"));
        }
        if guess.bits {
            guess.unknown.push(format!("depends on the physical address bits of the {host}, which are unknown"));
        }
        guess
    }

    /// What is a guess here or there.
    pub fn or(mut self, other: Self) -> Self {
        self.unknown.extend(other.unknown);
        Self {
            vendor: self.vendor || other.vendor,
            bits: self.bits || other.bits,
            map: self.map || other.map,
            unknown: self.unknown,
        }
    }

    /// Whether its notes say what an assumption about the destination says, too.
    pub fn covers(&self, assumption: &str) -> bool {
        let is_about = |fact: &str| assumption.strip_prefix("depends on ").is_some_and(|rest| rest.starts_with(fact));
        (self.vendor && is_about(HOST_VENDOR)) || (self.bits && is_about(HOST_BITS))
    }

    /// What that depends on, a sentence each.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.unknown.iter().cloned()
    }
}

/// Whether there are two maps, and they are not the same.
fn has_moved(one: &Facts, other: &Facts) -> bool {
    let both = one.layout.is_some() && other.layout.is_some();
    both && (one.layout != other.layout || one.memory_devices != other.memory_devices)
}
