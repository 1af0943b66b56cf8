//! How long to wait before libvirt is asked again.

use std::time::Duration;

/// The first wait. A daemon that is restarted answers within a second or two.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A connection that lasts this long counts as stable.
const GOOD: Duration = Duration::from_secs(30);

/// Waits that double until a connection lasts.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// How long to wait after a connection that lasted `lasted`, zero if there was none.
    pub fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD {
            self.0 = FIRST;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn only_a_connection_that_lasts_resets_them() {
        let mut backoff = Backoff::new();
        backoff.after(Duration::ZERO);
        // A daemon that dies at once, again and again, is not asked four times a second.
        assert_eq!(backoff.after(Duration::from_secs(1)), FIRST * 2);
        assert_eq!(backoff.after(GOOD), FIRST);
    }
}
