//! Rewriting a definition that others can change at any time.

use anyhow::{Context, Result, bail};

/// Where one definition is kept.
pub(crate) trait Definitions {
    /// The definition as it is now.
    fn read(&mut self) -> Result<String>;
    /// Replaces it.
    fn define(&mut self, xml: &str) -> Result<()>;
}

/// Replaces `old` by `new`, unless the definition is no longer `old`; reads it back, and puts `old` back if `accepted`
/// finds that the change did not take.
///
/// # Errors
/// What went wrong, and in which state the definition is.
pub(crate) fn redefine(
    definitions: &mut impl Definitions,
    old: &str,
    new: &str,
    accepted: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    if definitions.read()? != old {
        bail!("the definition was changed meanwhile and is left as it is; try again");
    }
    definitions.define(new).context("libvirt refuses the rewritten definition; the old one is still in place")?;
    let Err(reason) = definitions.read().and_then(|now| accepted(&now)) else { return Ok(()) };
    match definitions.define(old) {
        Ok(()) => Err(reason.context("the change did not take; the old definition is back in place")),
        Err(error) => {
            Err(error
                .context(format!("the change did not take ({reason}), and the old definition could not be put back")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    /// A libvirt that others change, and that drops what it does not know.
    struct Fake {
        now: String,
        defined: Vec<String>,
        drops: bool,
        refuses: bool,
    }

    impl Fake {
        fn new(now: &str) -> Self {
            Self { now: now.to_owned(), defined: Vec::new(), drops: false, refuses: false }
        }
    }

    impl Definitions for Fake {
        fn read(&mut self) -> Result<String> {
            Ok(self.now.clone())
        }

        fn define(&mut self, xml: &str) -> Result<()> {
            if self.refuses {
                bail!("refused");
            }
            self.defined.push(xml.to_owned());
            if !self.drops {
                self.now = xml.to_owned();
            }
            Ok(())
        }
    }

    fn is_new(xml: &str) -> Result<()> {
        if xml == "new" { Ok(()) } else { Err(anyhow!("still {xml}")) }
    }

    #[test]
    fn replaces_and_reads_back() {
        let mut fake = Fake::new("old");
        redefine(&mut fake, "old", "new", is_new).expect("redefined");
        assert_eq!(fake.now, "new");
    }

    #[test]
    fn what_somebody_else_changed_is_not_overwritten() {
        let mut fake = Fake::new("theirs");
        let error = redefine(&mut fake, "old", "new", is_new).expect_err("changed meanwhile");
        assert!(error.to_string().contains("changed meanwhile"));
        assert_eq!((fake.now.as_str(), fake.defined.len()), ("theirs", 0));
    }

    #[test]
    fn a_change_that_is_dropped_is_taken_back() {
        let mut fake = Fake { drops: true, ..Fake::new("old") };
        let error = redefine(&mut fake, "old", "new", is_new).expect_err("dropped");
        assert!(format!("{error:#}").contains("still old"), "{error:#}");
        assert_eq!(fake.defined, ["new", "old"]);
    }

    #[test]
    fn a_refusal_leaves_the_old_definition() {
        let mut fake = Fake { refuses: true, ..Fake::new("old") };
        assert!(redefine(&mut fake, "old", "new", is_new).is_err());
        assert_eq!(fake.now, "old");
    }
}
