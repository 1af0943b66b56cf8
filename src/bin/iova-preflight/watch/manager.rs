//! The service manager: sd_notify(3), `WATCHDOG_USEC` of sd_watchdog_enabled(3), and the signals it ends a service
//! with.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::connected::live::events;

/// How long the event loop may be stuck before it counts as dead.
const LOOP_PATIENCE: Duration = Duration::from_secs(15);

/// Reports the state to the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    interval: Option<Duration>,
    beaten: Option<Instant>,
    turns: u64,
    turned: Instant,
    ready: bool,
    status: String,
}

impl Manager {
    pub fn new() -> Self {
        // A service without a sign of life for the whole interval is killed; half of it leaves a margin.
        let interval = sd_notify::watchdog_enabled().map(|time| time / 2);
        Self { interval, beaten: None, turns: 0, turned: Instant::now(), ready: false, status: String::new() }
    }

    /// How often [`Self::beat`] has to be called.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Says that the service is alive, if it is time to and if libvirt's event loop is alive as well.
    pub fn beat(&mut self) {
        let Some(interval) = self.interval else { return };
        let now = Instant::now();
        let turns = events::turns();
        if turns != self.turns {
            (self.turns, self.turned) = (turns, now);
        }
        let is_due = self.beaten.is_none_or(|beaten| now.duration_since(beaten) >= interval / 2);
        if is_due && now.duration_since(self.turned) < LOOP_PATIENCE {
            notify(&[NotifyState::Watchdog]);
            self.beaten = Some(now);
        }
    }

    /// Says that the service has started, once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            notify(&[NotifyState::Ready]);
        }
    }

    /// Says how things are, where that has changed.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Says that the service ends.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // A manager that does not listen notices by itself.
    let _ = sd_notify::notify(state);
}

/// Calls `stop` when the process is asked to end, and ends it if that takes too long: a call of libvirt's waits for a
/// daemon that hangs.
///
/// # Errors
/// The system allows no handlers or threads.
pub(super) fn on_stop(stop: impl Fn() + Send + 'static) -> Result<()> {
    /// How long ending may take.
    const GRACE: Duration = Duration::from_secs(5);
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            stop();
            thread::sleep(GRACE);
            std::process::exit(0);
        }
    })?;
    Ok(())
}
