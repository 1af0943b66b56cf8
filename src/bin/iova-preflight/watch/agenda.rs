//! Which guest is looked at when, and whether it may be rewritten. Pure: the time comes in, decisions go out.
//!
//! A guest is checked when it was defined, also after a rewrite by this program; the decision depends on its definition
//! alone, so that nothing is missed and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use iova_preflight::report::metrics::{LeftAlone, Tally};
use iova_preflight::verdict::Verdict;

/// The time between two rewrites of any guests: the daemon has other clients to serve.
const SPACING: Duration = Duration::from_millis(20);

/// How long a guest is left alone after it was defined: a program that defines it in several steps takes a few
/// milliseconds for each. A person who defines it and starts it takes longer.
const QUIET: Duration = Duration::from_millis(20);

/// How long a guest is left alone that is defined again and again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Events of a rewrite come within this time.
const ECHO: Duration = Duration::from_secs(2);

/// How many rewrites a guest gets in quick succession. After that, a program that restores the old definition each
/// time, from a template for example, wins.
const BURST: u32 = 10;

/// How long it takes until a guest gets one more.
const REFILL: Duration = Duration::from_secs(300);

/// How many guests are remembered that have no definition any more and were rewritten lately. libvirt defines fewer
/// than that in the time after which they are forgotten, unless somebody fills it on purpose.
const REMEMBERED: usize = 10_000;

/// A hash of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of `text`.
    pub fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Look at the guest with this UUID.
    Look(String),
    /// Nothing until then.
    WaitUntil(Instant),
    /// Nothing until something happens.
    Idle,
}

/// Whether a guest may be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Now.
    Granted,
    /// The rewrite of this definition was tried and failed.
    Hopeless,
    /// It was rewritten so often that something must be restoring it. It is checked again much later.
    Exhausted,
}

/// What is remembered of a guest.
#[derive(Debug)]
struct Entry {
    /// Whether it has a definition. Otherwise only its budget counts: undefining a guest and defining it again does not
    /// renew it.
    is_there: bool,
    /// When it is looked at.
    due: Option<Instant>,
    /// When it was defined first since it was looked at.
    defined: Option<Instant>,
    /// A definition whose rewrite failed.
    hopeless: Option<Fingerprint>,
    /// The last rewrite.
    rewrite: Option<Rewrite>,
    /// How many rewrites are left to it, and since when.
    budget: (u32, Instant),
    /// The last message about it.
    said: Option<Fingerprint>,
    /// The last message about an ignored override in it.
    ignored: Option<Fingerprint>,
    /// How its last evaluation ended.
    standing: Option<Standing>,
    /// Why it is not rewritten, if it should be.
    left_alone: Option<LeftAlone>,
}

/// How an evaluation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Found(Verdict),
    /// It could not be read or evaluated.
    Error,
}

#[derive(Debug)]
struct Rewrite {
    /// When it was begun.
    begun: Instant,
    /// What libvirt made of it.
    result: Option<Fingerprint>,
    /// How often the guest was defined since.
    events: u32,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            is_there: true,
            due: None,
            defined: None,
            hopeless: None,
            rewrite: None,
            budget: (BURST, now),
            said: None,
            ignored: None,
            standing: None,
            left_alone: None,
        }
    }

    /// Its definition is gone.
    fn leave(&mut self) {
        (self.is_there, self.due, self.defined, self.rewrite) = (false, None, None, None);
        self.set_state(None, None);
    }

    fn set_state(&mut self, standing: Option<Standing>, left_alone: Option<LeftAlone>) {
        (self.standing, self.left_alone) = (standing, left_alone);
    }

    /// Whether it has to be remembered.
    fn matters(&mut self, now: Instant) -> bool {
        self.is_there || !self.has_budget(now) || self.budget.0 < BURST
    }

    fn has_budget(&mut self, now: Instant) -> bool {
        let (left, since) = self.budget;
        let periods = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        let more = u32::try_from(periods).unwrap_or(u32::MAX);
        if left.saturating_add(more) >= BURST {
            self.budget = (BURST, now);
        } else if more > 0 {
            self.budget = (left + more, since + REFILL * more);
        }
        self.budget.0 > 0
    }
}

/// The guests of one libvirt, by UUID.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    guests: BTreeMap<String, Entry>,
    rest_until: Option<Instant>,
}

impl Agenda {
    /// A guest was defined.
    pub fn defined(&mut self, uuid: &str, now: Instant) {
        let guest = self.guests.entry(uuid.to_owned()).or_insert_with(|| Entry::new(now));
        guest.is_there = true;
        let first = *guest.defined.get_or_insert(now);
        guest.due = Some((now + QUIET).min(first + PATIENCE));
        if let Some(rewrite) = &mut guest.rewrite {
            rewrite.events += 1;
        }
    }

    /// A guest has no definition any more.
    pub fn gone(&mut self, uuid: &str, now: Instant) {
        let Some(guest) = self.guests.get_mut(uuid) else { return };
        guest.leave();
        if !guest.matters(now) {
            self.guests.remove(uuid);
        }
        if self.guests.len() > REMEMBERED {
            let remembered = self.guests.iter().filter(|(_, guest)| !guest.is_there);
            if remembered.clone().count() > REMEMBERED {
                let oldest = remembered.min_by_key(|(_, guest)| guest.budget.1).map(|(uuid, _)| uuid.clone());
                oldest.and_then(|uuid| self.guests.remove(&uuid));
            }
        }
    }

    /// These are all guests; each is put on the agenda.
    pub fn all(&mut self, uuids: Vec<String>, now: Instant) {
        let uuids: BTreeSet<String> = uuids.into_iter().collect();
        self.guests.retain(|uuid, guest| {
            if !uuids.contains(uuid) {
                guest.leave();
            }
            guest.matters(now)
        });
        for uuid in uuids {
            let guest = self.guests.entry(uuid).or_insert_with(|| Entry::new(now));
            guest.is_there = true;
            guest.due.get_or_insert(now);
        }
    }

    /// What to do next; a guest that is named is no longer due.
    pub fn next(&mut self, now: Instant) -> Next {
        let due = self.guests.iter_mut().filter_map(|(uuid, guest)| Some((guest.due?, uuid, guest)));
        let Some((due, uuid, guest)) = due.min_by_key(|(due, ..)| *due) else { return Next::Idle };
        let due = self.rest_until.map_or(due, |rest| due.max(rest));
        if due > now {
            return Next::WaitUntil(due);
        }
        (guest.due, guest.defined) = (None, None);
        Next::Look(uuid.clone())
    }

    /// A guest has this verdict. True if its last rewrite overwrote a definition that somebody else made meanwhile.
    pub fn found(&mut self, uuid: &str, definition: Fingerprint, verdict: Verdict, now: Instant) -> bool {
        let Some(guest) = self.guests.get_mut(uuid) else { return false };
        guest.set_state(Some(Standing::Found(verdict)), None);
        // Two definitions since the rewrite began, one of them its own, and the current one is its own: the other one
        // was first. If the other one had been later, it would be the current one.
        let overwrote = guest.rewrite.as_ref().is_some_and(|rewrite| {
            rewrite.result == Some(definition)
                && rewrite.events > 1
                && now.saturating_duration_since(rewrite.begun) < ECHO
        });
        guest.rewrite.take_if(|rewrite| overwrote || now.saturating_duration_since(rewrite.begun) >= ECHO);
        overwrote
    }

    /// A guest is not evaluated, because the policy exempts it.
    pub fn exempt(&mut self, uuid: &str) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.set_state(None, Some(LeftAlone::Exempt));
        }
    }

    /// A guest could not be read or evaluated.
    pub fn failed(&mut self, uuid: &str) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.set_state(Some(Standing::Error), None);
        }
    }

    /// A guest that should be rewritten is not, and why.
    pub fn left_alone(&mut self, uuid: &str, reason: LeftAlone) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.left_alone = Some(reason);
        }
    }

    /// Whether a guest may be rewritten that has this definition. If so, the rewrite counts as begun.
    pub fn may_rewrite(&mut self, uuid: &str, definition: Fingerprint, now: Instant) -> Permission {
        let Some(guest) = self.guests.get_mut(uuid) else { return Permission::Hopeless };
        if guest.hopeless == Some(definition) {
            guest.left_alone = Some(LeftAlone::Failed);
            return Permission::Hopeless;
        }
        if !guest.has_budget(now) {
            guest.due = Some(guest.budget.1 + REFILL);
            guest.left_alone = Some(LeftAlone::Repeated);
            return Permission::Exhausted;
        }
        guest.budget.0 -= 1;
        guest.rewrite = Some(Rewrite { begun: now, result: None, events: 0 });
        self.rest_until = Some(now + SPACING);
        Permission::Granted
    }

    /// The guest was not rewritten after all, for a reason that has nothing to do with it.
    pub fn not_rewritten(&mut self, uuid: &str) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.budget.0 = (guest.budget.0 + 1).min(BURST);
            guest.rewrite = None;
        }
    }

    /// A guest was rewritten, and this is its definition now.
    pub fn rewritten(&mut self, uuid: &str, definition: Fingerprint) {
        if let Some(rewrite) = self.guests.get_mut(uuid).and_then(|guest| guest.rewrite.as_mut()) {
            rewrite.result = Some(definition);
        }
    }

    /// Rewriting this definition of a guest failed, and will fail again.
    pub fn hopeless(&mut self, uuid: &str, definition: Fingerprint) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.hopeless = Some(definition);
        }
    }

    /// Whether `text` differs from the last message about a guest.
    pub fn is_news(&mut self, uuid: &str, text: &str) -> bool {
        let Some(guest) = self.guests.get_mut(uuid) else { return false };
        let text = Some(Fingerprint::of(text));
        std::mem::replace(&mut guest.said, text) != text
    }

    /// Whether it has to be said that an override in a guest is ignored, and why: not where that was the last such
    /// thing said of it. None if nothing is ignored; after that it is news again.
    pub fn is_newly_ignored(&mut self, uuid: &str, why: Option<&str>) -> bool {
        let Some(guest) = self.guests.get_mut(uuid) else { return false };
        let why = why.map(Fingerprint::of);
        let before = std::mem::replace(&mut guest.ignored, why);
        why.is_some() && why != before
    }

    /// There is nothing to say of a guest; what was said before is news when it is said again.
    pub fn is_well(&mut self, uuid: &str) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.said = None;
        }
    }

    /// How many guests there are of each kind.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for guest in self.guests.values().filter(|guest| guest.is_there) {
            tally.guests += 1;
            match guest.standing {
                Some(Standing::Found(verdict)) => *tally.verdicts.entry(verdict).or_default() += 1,
                Some(Standing::Error) => tally.errors += 1,
                None => {}
            }
            if let Some(reason) = guest.left_alone {
                *tally.left_alone.entry(reason).or_default() += 1;
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old";
    const NEW: &str = "new";

    /// An agenda with one guest that was just defined and is looked at now.
    fn one(now: Instant) -> Agenda {
        let mut agenda = Agenda::default();
        agenda.all(vec!["a".to_owned()], now);
        assert_eq!(agenda.next(now), Next::Look("a".to_owned()));
        agenda
    }

    fn may(agenda: &mut Agenda, definition: &str, now: Instant) -> Permission {
        agenda.may_rewrite("a", Fingerprint::of(definition), now)
    }

    fn found(agenda: &mut Agenda, definition: &str, verdict: Verdict, now: Instant) -> bool {
        agenda.found("a", Fingerprint::of(definition), verdict, now)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn every_guest_is_looked_at_once_and_in_the_order_they_were_left_alone() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.defined("b", now);
        agenda.defined("a", now + ms(1));
        agenda.defined("b", now + ms(2));
        assert_eq!(agenda.next(now + ms(3)), Next::WaitUntil(now + ms(1) + QUIET));
        let then = now + ms(3) + QUIET;
        assert_eq!(agenda.next(then), Next::Look("a".to_owned()));
        assert_eq!(agenda.next(then), Next::Look("b".to_owned()));
        assert_eq!(agenda.next(then), Next::Idle);
        agenda.all(vec!["c".to_owned(), "a".to_owned()], then);
        assert_eq!(agenda.tally().guests, 2);
        assert_eq!(agenda.next(then), Next::Look("a".to_owned()));
        agenda.gone("c", then);
        assert_eq!(agenda.next(then), Next::Idle);
    }

    #[test]
    fn a_rewritten_guest_is_checked_again() {
        let now = Instant::now();
        let mut agenda = one(now);
        assert_eq!(may(&mut agenda, OLD, now), Permission::Granted);
        agenda.rewritten("a", Fingerprint::of(NEW));
        agenda.defined("a", now + ms(5));
        let then = now + ms(5) + QUIET;
        assert_eq!(agenda.next(now + ms(5)), Next::WaitUntil(then));
        assert_eq!(agenda.next(then), Next::Look("a".to_owned()));
        assert!(!found(&mut agenda, NEW, Verdict::Warn, then));
        assert_eq!(agenda.next(then), Next::Idle);
    }

    #[test]
    fn rewrites_are_spaced_so_that_libvirt_serves_others() {
        let now = Instant::now();
        let mut agenda = one(now);
        agenda.all(vec!["a".to_owned(), "b".to_owned()], now);
        assert_eq!(agenda.next(now), Next::Look("a".to_owned()));
        assert_eq!(may(&mut agenda, OLD, now), Permission::Granted);
        assert_eq!(agenda.next(now), Next::WaitUntil(now + SPACING));
        assert_eq!(agenda.next(now + SPACING), Next::Look("b".to_owned()));
    }

    #[test]
    fn a_failed_rewrite_is_not_repeated() {
        let now = Instant::now();
        let mut agenda = one(now);
        assert_eq!(may(&mut agenda, OLD, now), Permission::Granted);
        agenda.hopeless("a", Fingerprint::of(OLD));
        // The events of the attempt and of taking it back.
        agenda.defined("a", now + ms(5));
        agenda.defined("a", now + ms(9));
        for minutes in [1, 60, 60 * 24] {
            let then = now + ms(minutes * 60_000);
            assert_eq!(agenda.next(then), if minutes == 1 { Next::Look("a".to_owned()) } else { Next::Idle });
            assert_eq!(may(&mut agenda, OLD, then), Permission::Hopeless);
        }
        // Another definition is another matter.
        assert_eq!(may(&mut agenda, "edited", now + ms(86_500_000)), Permission::Granted);
    }

    #[test]
    fn a_guest_that_is_being_edited_is_left_alone_for_a_bounded_time() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.defined("a", now);
        agenda.defined("a", now + ms(15));
        assert_eq!(agenda.next(now + QUIET), Next::WaitUntil(now + ms(15) + QUIET));
        for step in 1..100 {
            agenda.defined("a", now + ms(step * 15));
        }
        assert_eq!(agenda.next(now + ms(999)), Next::WaitUntil(now + PATIENCE));
        assert_eq!(agenda.next(now + PATIENCE), Next::Look("a".to_owned()));
        // From then on it counts anew.
        agenda.defined("a", now + PATIENCE);
        assert_eq!(agenda.next(now + PATIENCE), Next::WaitUntil(now + PATIENCE + QUIET));
    }

    #[test]
    fn a_program_that_restores_the_definition_wins_in_the_end() {
        let now = Instant::now();
        let mut agenda = one(now);
        let mut granted = 0;
        for minute in 1..=60 {
            let then = now + ms(minute * 60_000);
            agenda.defined("a", then);
            match may(&mut agenda, OLD, then) {
                Permission::Granted => granted += 1,
                other => assert_eq!(other, Permission::Exhausted),
            }
        }
        // Ten at once, and then one more for each of eleven times five minutes.
        assert_eq!(granted, 10 + 11);
    }

    #[test]
    fn undefining_a_guest_does_not_renew_its_budget() {
        let now = Instant::now();
        let mut agenda = one(now);
        let mut granted = 0;
        for round in 0..50 {
            let then = now + ms(round * 100);
            match may(&mut agenda, OLD, then) {
                Permission::Granted => granted += 1,
                other => assert_eq!(other, Permission::Exhausted),
            }
            // Heard as an event, or found out after libvirt was away.
            if round % 2 == 0 {
                agenda.gone("a", then);
            } else {
                agenda.all(Vec::new(), then);
            }
            assert_eq!(agenda.tally(), Tally::default());
            assert_eq!(agenda.next(then + ms(60)), Next::Idle);
            agenda.defined("a", then + ms(60));
            assert_eq!(agenda.next(then + ms(90)), Next::Look("a".to_owned()));
        }
        assert_eq!(granted, BURST);
        // Once there is nothing to remember, nothing is.
        agenda.gone("a", now + REFILL * (BURST + 1));
        assert!(agenda.guests.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for number in 0..=REMEMBERED as u64 {
            let (uuid, then) = (number.to_string(), now + ms(number));
            agenda.defined(&uuid, then);
            assert_eq!(agenda.may_rewrite(&uuid, Fingerprint::of(OLD), then), Permission::Granted);
            agenda.gone(&uuid, then);
        }
        assert_eq!(agenda.guests.len(), REMEMBERED);
        assert!(!agenda.guests.contains_key("0"), "the one that was rewritten first is forgotten first");
    }

    #[test]
    fn a_guest_that_was_left_alone_for_long_has_its_whole_budget_again() {
        let now = Instant::now();
        let mut agenda = one(now);
        let day = ms(24 * 3_600_000);
        for round in 0..2 {
            for _ in 0..BURST {
                assert_eq!(may(&mut agenda, OLD, now + day * round), Permission::Granted);
            }
            assert_eq!(may(&mut agenda, OLD, now + day * round), Permission::Exhausted);
        }
    }

    #[test]
    fn a_definition_that_was_overwritten_is_noticed() {
        let now = Instant::now();
        let rewritten = |events: u64| {
            let mut agenda = one(now);
            assert_eq!(may(&mut agenda, OLD, now), Permission::Granted);
            agenda.rewritten("a", Fingerprint::of(NEW));
            (0..events).for_each(|n| agenda.defined("a", now + ms(n)));
            agenda
        };
        assert!(!found(&mut rewritten(1), NEW, Verdict::Pass, now + ms(10)));
        let mut agenda = rewritten(2);
        assert!(found(&mut agenda, NEW, Verdict::Pass, now + ms(10)));
        assert!(!found(&mut agenda, NEW, Verdict::Pass, now + ms(11)), "it is said once");
        // The other definition came second, and is the current one.
        assert!(!found(&mut rewritten(2), "theirs", Verdict::Pass, now + ms(10)));
        // Somebody defined the same once more, much later.
        assert!(!found(&mut rewritten(2), NEW, Verdict::Pass, now + ECHO));
    }

    #[test]
    fn every_guest_is_counted_by_its_state() {
        let now = Instant::now();
        let mut agenda = one(now);
        agenda.all(["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), now);
        assert_eq!(agenda.tally(), Tally { guests: 5, ..Tally::default() });
        found(&mut agenda, OLD, Verdict::Fixable, now);
        agenda.left_alone("a", LeftAlone::Owner);
        agenda.found("b", Fingerprint::of(OLD), Verdict::Pass, now);
        agenda.exempt("c");
        agenda.failed("d");
        let mut expected = Tally {
            guests: 5,
            verdicts: BTreeMap::from([(Verdict::Pass, 1), (Verdict::Fixable, 1)]),
            errors: 1,
            left_alone: BTreeMap::from([(LeftAlone::Exempt, 1), (LeftAlone::Owner, 1)]),
        };
        assert_eq!(agenda.tally(), expected);
        // It is evaluated once more, and nothing is left of what was.
        found(&mut agenda, NEW, Verdict::Pass, now);
        expected.verdicts = BTreeMap::from([(Verdict::Pass, 2)]);
        expected.left_alone.remove(&LeftAlone::Owner);
        assert_eq!(agenda.tally(), expected);
        for uuid in ["a", "b", "c", "d", "e"] {
            agenda.gone(uuid, now);
        }
        assert_eq!(agenda.tally(), Tally::default());
    }

    #[test]
    fn a_guest_that_may_not_be_rewritten_is_left_alone_for_a_reason() {
        let now = Instant::now();
        let mut agenda = one(now);
        let reasons = |agenda: &Agenda| agenda.tally().left_alone.into_keys().collect::<Vec<_>>();
        for _ in 0..BURST {
            assert_eq!(may(&mut agenda, OLD, now), Permission::Granted);
        }
        assert_eq!(reasons(&agenda), []);
        assert_eq!(may(&mut agenda, OLD, now), Permission::Exhausted);
        assert_eq!(reasons(&agenda), [LeftAlone::Repeated]);
        agenda.hopeless("a", Fingerprint::of(OLD));
        assert_eq!(may(&mut agenda, OLD, now), Permission::Hopeless);
        assert_eq!(reasons(&agenda), [LeftAlone::Failed]);
    }

    #[test]
    fn a_repeated_message_is_logged_once() {
        let mut agenda = one(Instant::now());
        assert!(agenda.is_news("a", "fixable"));
        assert!(!agenda.is_news("a", "fixable"));
        assert!(agenda.is_news("a", "blocked"));
        agenda.is_well("a");
        assert!(agenda.is_news("a", "blocked"));
        assert!(!agenda.is_news("nobody", "blocked"));
    }
}
