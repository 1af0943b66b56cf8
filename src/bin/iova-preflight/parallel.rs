//! Many inputs at once.

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

/// As many as the processors this process may use.
pub(crate) fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Does `work` on every item, `jobs` at once, and passes the results to `done` in the order of the items. Few results
/// wait at any time, however many items there are.
///
/// # Errors
/// That of `done`, with which all ends; or no thread can be started.
pub(crate) fn in_order<I: Send, T: Send>(
    items: Vec<I>,
    jobs: usize,
    work: impl Fn(I) -> T + Sync,
    mut done: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    /// How many pieces a thread may be ahead.
    const AHEAD: usize = 2;
    /// Items of a piece, at most: passing on one result alone costs more than a small item does.
    const LONGEST_PIECE: usize = 8;
    let total = items.len();
    let jobs = jobs.min(total);
    if jobs < 2 {
        return items.into_iter().try_for_each(|item| done(work(item)));
    }
    let piece = (total / jobs / AHEAD).clamp(1, LONGEST_PIECE);
    let pieces = total.div_ceil(piece);
    // The pieces go to the threads in turn, so that it is known whose result comes next.
    let mut shares: Vec<Vec<I>> = (0..jobs).map(|_| Vec::with_capacity(total.div_ceil(jobs))).collect();
    for (number, item) in items.into_iter().enumerate() {
        shares[number / piece % jobs].push(item);
    }
    let work = &work;
    thread::scope(|scope| {
        let mut results = Vec::new();
        for share in shares {
            let (sender, receiver) = mpsc::sync_channel(AHEAD);
            let thread = move || {
                let mut share = share.into_iter();
                loop {
                    let results: Vec<T> = share.by_ref().take(piece).map(work).collect();
                    // The receiver is gone if `done` had an error.
                    if results.is_empty() || sender.send(results).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, thread).context("no thread can be started; try --jobs 1")?;
            results.push(receiver);
        }
        // A thread that panics takes the process with it at the end of the scope.
        (0..pieces).map_while(|number| results[number % jobs].recv().ok()).flatten().try_for_each(&mut done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_whatever_takes_how_long() {
        for jobs in [0, 1, 2, 3, 7, 200] {
            let mut results = Vec::new();
            let slow_first = |item: u64| {
                thread::sleep(std::time::Duration::from_micros((100 - item) * 20));
                item
            };
            in_order((0..100).collect(), jobs, slow_first, |item| {
                results.push(item);
                Ok(())
            })
            .expect("no error");
            assert_eq!(results, (0..100).collect::<Vec<_>>(), "{jobs} jobs");
        }
    }

    #[test]
    fn an_error_ends_it_and_little_is_done_ahead() {
        let worked = AtomicUsize::new(0);
        let count = |item: usize| {
            worked.fetch_add(1, Ordering::Relaxed);
            item
        };
        let result =
            in_order((0..100_000).collect(), 4, count, |item| if item == 10 { bail!("enough") } else { Ok(()) });
        assert_eq!(result.expect_err("an error").to_string(), "enough");
        assert!(worked.load(Ordering::Relaxed) < 200, "{worked:?}");
    }
}
