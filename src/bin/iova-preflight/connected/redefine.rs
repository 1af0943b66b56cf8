//! Rewriting a definition that others can change at any time.

use std::collections::BTreeSet;

use anyhow::Result;

/// Where one definition is kept.
pub(crate) trait Definitions {
    /// The definition as it is now.
    fn read(&mut self) -> Result<String>;
    /// Replaces it.
    ///
    /// # Errors
    /// It is not replaced, or that is unknown.
    fn define(&mut self, xml: &str) -> Result<(), NotDefined>;
}

/// Why a definition was not replaced.
#[derive(Debug)]
pub(crate) enum NotDefined {
    /// libvirt does not take the new one.
    Refused(anyhow::Error),
    /// libvirt did not answer, and may have replaced it.
    Unanswered(anyhow::Error),
}

/// Why a definition was not rewritten, and in which state it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A state saved with the old definition would be lost.
    #[error("its definition is unchanged: {0}")]
    Obstacle(&'static str),
    /// There is no room to keep the old definition, and why.
    #[error("its definition is unchanged: {0}")]
    Full(String),
    /// There is no place to keep the old definition.
    #[error("its definition is unchanged: the previous one cannot be saved")]
    NotKept(#[source] anyhow::Error),
    /// It could not be read.
    #[error("its definition cannot be read")]
    Unreadable(#[source] anyhow::Error),
    /// Somebody else changed it first.
    #[error("the definition was changed at the same time and is not rewritten; try again")]
    ChangedMeanwhile,
    /// libvirt does not take the new one.
    #[error("libvirt refuses the rewritten definition; the previous one is still in place")]
    Refused(#[source] anyhow::Error),
    /// libvirt did not answer when it was given a definition, and may still take it.
    #[error("libvirt did not say whether it accepted the rewritten definition; it is unknown which one is in place")]
    Unanswered(#[source] anyhow::Error),
    /// libvirt took the new one and cannot be asked for it.
    #[error("libvirt accepted the rewritten definition, but it cannot be read back")]
    NotReadBack(#[source] anyhow::Error),
    /// Somebody else changed it right after.
    #[error("the definition was changed right after it was rewritten; the new change is kept")]
    Overtaken,
    /// libvirt left the change out.
    #[error("the change had no effect; the previous definition is restored")]
    NotTaken(#[source] anyhow::Error),
    /// libvirt left out a part of the change, and does not take the old definition either.
    #[error("the change had no effect ({reason}), and the previous definition could not be restored")]
    NotPutBack {
        /// What is wrong with what libvirt has now.
        reason: String,
        /// Why it does not take the old one.
        source: anyhow::Error,
    },
}

impl Failure {
    /// Whether nothing was written.
    pub fn wrote_nothing(&self) -> bool {
        !matches!(self, Self::Overtaken | Self::NotTaken(_)) && !self.leaves_open()
    }

    /// Whether somebody has to look which definition is in place.
    pub fn leaves_open(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::NotReadBack(_) | Self::NotPutBack { .. })
    }

    /// Whether the same rewrite of the same definition would fail again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotTaken(_) | Self::NotPutBack { .. })
    }
}

/// Replaces `old` by `new`, unless the definition is no longer `old`, and returns what libvirt made of it. Puts `old`
/// back if `accepted` finds that the change did not take.
///
/// libvirt cannot define a guest on the condition that its definition is still the same: what somebody else defines in
/// the few milliseconds between the last look and the rewrite is overwritten.
///
/// # Errors
/// What went wrong, and in which state the definition is.
pub(crate) fn redefine(
    definitions: &mut impl Definitions,
    old: &str,
    new: &str,
    accepted: impl Fn(&str) -> Result<()>,
) -> Result<String, Failure> {
    if definitions.read().map_err(Failure::Unreadable)? != old {
        return Err(Failure::ChangedMeanwhile);
    }
    definitions.define(new).map_err(|why| match why {
        NotDefined::Refused(source) => Failure::Refused(source),
        NotDefined::Unanswered(source) => Failure::Unanswered(source),
    })?;
    let now = definitions.read().map_err(Failure::NotReadBack)?;
    let Err(reason) = accepted(&now) else { return Ok(now) };
    if now == old {
        return Err(Failure::NotTaken(reason));
    }
    if !is_mixture(old, &now, new) {
        return Err(Failure::Overtaken);
    }
    match definitions.define(old) {
        Ok(()) => Err(Failure::NotTaken(reason)),
        Err(NotDefined::Refused(source)) => Err(Failure::NotPutBack { reason: reason.to_string(), source }),
        Err(NotDefined::Unanswered(source)) => Err(Failure::Unanswered(source)),
    }
}

/// Whether `now` is what libvirt made of `new` by leaving out parts of the change from `old`, and not what somebody
/// else wrote: it has every line that both have, and none that neither has.
fn is_mixture(old: &str, now: &str, new: &str) -> bool {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let (old, now, new) = (lines(old), lines(now), lines(new));
    old.intersection(&new).all(|line| now.contains(line))
        && now.iter().all(|line| old.contains(line) || new.contains(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    /// A libvirt that others change, and that drops what it does not know.
    struct Fake {
        now: String,
        defined: Vec<String>,
        makes: fn(&str) -> String,
        refuses: bool,
        /// The number of the definition that it does not answer.
        hangs_at: Option<usize>,
    }

    impl Fake {
        fn new(now: &str) -> Self {
            Self { now: now.to_owned(), defined: Vec::new(), makes: str::to_owned, refuses: false, hangs_at: None }
        }
    }

    impl Definitions for Fake {
        fn read(&mut self) -> Result<String> {
            Ok(self.now.clone())
        }

        fn define(&mut self, xml: &str) -> Result<(), NotDefined> {
            if self.refuses {
                return Err(NotDefined::Refused(anyhow!("refused")));
            }
            if self.hangs_at == Some(self.defined.len()) {
                return Err(NotDefined::Unanswered(anyhow!("no answer")));
            }
            self.defined.push(xml.to_owned());
            self.now = (self.makes)(xml);
            Ok(())
        }
    }

    const OLD: &str = "<a>\nold 1\nold 2\n</a>";
    const NEW: &str = "<a>\nnew 1\nnew 2\n</a>";

    fn is_new(xml: &str) -> Result<()> {
        if xml == "new" { Ok(()) } else { Err(anyhow!("still {xml}")) }
    }

    #[test]
    fn replaces_and_reads_back() {
        let mut fake = Fake::new("old");
        assert_eq!(redefine(&mut fake, "old", "new", is_new).expect("redefined"), "new");
        assert_eq!(fake.now, "new");
    }

    #[test]
    fn what_somebody_else_changed_is_not_overwritten() {
        let mut fake = Fake::new("theirs");
        let error = redefine(&mut fake, "old", "new", is_new).expect_err("changed meanwhile");
        assert!(error.to_string().contains("changed at the same time"));
        assert_eq!((fake.now.as_str(), fake.defined.len()), ("theirs", 0));
    }

    #[test]
    fn a_change_that_is_dropped_needs_no_second_definition() {
        let mut fake = Fake { makes: |_| "old".to_owned(), ..Fake::new("old") };
        let error = redefine(&mut fake, "old", "new", is_new).expect_err("dropped");
        assert!(matches!(&error, Failure::NotTaken(reason) if reason.to_string() == "still old"), "{error:?}");
        assert_eq!(fake.defined, ["new"]);
        assert!(error.is_final() && !error.wrote_nothing());
    }

    #[test]
    fn a_change_that_half_takes_is_taken_back() {
        let half = |xml: &str| if xml == OLD { OLD.to_owned() } else { "<a>\nnew 1\nold 2\n</a>".to_owned() };
        let mut fake = Fake { makes: half, ..Fake::new(OLD) };
        let error = redefine(&mut fake, OLD, NEW, |xml| if xml == NEW { Ok(()) } else { Err(anyhow!("no")) });
        assert!(matches!(error, Err(Failure::NotTaken(_))), "{error:?}");
        assert_eq!((fake.defined.len(), fake.now.as_str()), (2, OLD));
    }

    #[test]
    fn what_somebody_else_writes_right_after_stays() {
        for theirs in ["<a>\nold 1\nold 2\ntheirs\n</a>", "<a>\nold 1\nold 2\n"] {
            let mut fake = Fake::new(OLD);
            fake.makes = if theirs.contains("theirs") {
                |_| "<a>\nold 1\nold 2\ntheirs\n</a>".to_owned()
            } else {
                |_| "<a>\nold 1\nold 2\n".to_owned()
            };
            let error = redefine(&mut fake, OLD, NEW, |_| Err(anyhow!("no")));
            assert!(matches!(error, Err(Failure::Overtaken)), "{error:?}");
            assert_eq!((fake.defined.len(), fake.now.as_str()), (1, theirs));
        }
    }

    #[test]
    fn a_refusal_leaves_the_old_definition() {
        let mut fake = Fake { refuses: true, ..Fake::new("old") };
        let error = redefine(&mut fake, "old", "new", is_new).expect_err("refused");
        assert!(error.is_final() && error.wrote_nothing());
        assert_eq!(fake.now, "old");
    }

    #[test]
    fn without_an_answer_it_is_unknown_which_definition_is_in_place() {
        let half = |xml: &str| if xml == OLD { OLD.to_owned() } else { "<a>\nnew 1\nold 2\n</a>".to_owned() };
        for hangs_at in [0, 1] {
            let mut fake = Fake { makes: half, hangs_at: Some(hangs_at), ..Fake::new(OLD) };
            let error = redefine(&mut fake, OLD, NEW, |_| Err(anyhow!("no"))).expect_err("no answer");
            assert!(matches!(error, Failure::Unanswered(_)), "{error:?}");
            assert!(error.leaves_open() && !error.wrote_nothing() && !error.is_final());
        }
    }
}
