//! Many inputs at once.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// As many as the processors this process may use.
pub(crate) fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Items of a piece, at most: handing over one item at a time costs more than a small item does.
const LONGEST_PIECE: usize = 8;

/// Pieces per thread that are begun and not yet passed to `done`, at most.
const AHEAD: usize = 4;

/// Does `work` on every item, `jobs` at once, and passes the results to `done` in the order of the items. Few results
/// wait at any time, however many items there are.
///
/// The calling thread is one of the `jobs`, so that no thread has to be woken for a result. While it works on an item,
/// results of other threads wait.
///
/// # Errors
/// That of `done`, with which all ends; or no thread can be started.
pub(crate) fn in_order<I: Send, T: Send>(
    items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
    jobs: usize,
    work: impl Fn(I) -> T + Sync,
    mut done: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut items = items.into_iter();
    let jobs = jobs.min(items.len());
    if jobs < 2 {
        return items.try_for_each(|item| done(work(item)));
    }
    let queue = Queue::new(items, jobs);
    let (queue, work) = (&queue, &work);
    thread::scope(|scope| {
        // The other threads end with this one, even if it panics.
        let _over = OnDrop(|| queue.end());
        for _ in 1..jobs {
            let thread = move || {
                // The calling thread would wait forever for the piece of a thread that panicked.
                let _over = OnDrop(|| {
                    if thread::panicking() {
                        queue.end()
                    }
                });
                while let Some((number, piece)) = queue.wait_for_piece() {
                    queue.finish(number, piece.into_iter().map(work).collect());
                }
            };
            thread::Builder::new().spawn_scoped(scope, thread).context("cannot start a thread; try --jobs 1")?;
        }
        loop {
            match queue.next() {
                Turn::Done(results) => results.into_iter().try_for_each(&mut done)?,
                Turn::Piece(number, piece) => queue.finish(number, piece.into_iter().map(work).collect()),
                Turn::Over => return Ok(()),
            }
        }
    })
}

/// The remaining items, and the results that are not yet passed on.
struct Queue<S, T> {
    state: Mutex<Pieces<S, T>>,
    /// Signals that a piece may be begun, or that there are no more.
    room: Condvar,
    /// Signals that the piece that is due is finished.
    due: Condvar,
    jobs: usize,
}

struct Pieces<S, T> {
    items: S,
    /// The results of each piece that is begun, `None` until it is finished. The first one is due.
    pieces: VecDeque<Option<Vec<T>>>,
    /// The number of the piece that is due.
    first: usize,
    /// Threads that wait for room.
    waiting: usize,
    /// Whether the calling thread waits for the piece that is due.
    is_awaited: bool,
    is_over: bool,
}

/// What the calling thread does next.
enum Turn<I, T> {
    /// Passes these on.
    Done(Vec<T>),
    /// Works on these.
    Piece(usize, Vec<I>),
    /// Everything is done.
    Over,
}

impl<S: ExactSizeIterator, T> Queue<S, T> {
    fn new(items: S, jobs: usize) -> Self {
        let state = Pieces {
            items,
            pieces: VecDeque::with_capacity(jobs * AHEAD),
            first: 0,
            waiting: 0,
            is_awaited: false,
            is_over: false,
        };
        Self { state: Mutex::new(state), room: Condvar::new(), due: Condvar::new(), jobs }
    }

    /// Nothing panics while it is locked, except for the items' iterator, which leaves it intact.
    fn lock(&self) -> MutexGuard<'_, Pieces<S, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece and its number, if there is room for it.
    fn begin(&self, state: &mut Pieces<S, T>) -> Option<(usize, Vec<S::Item>)> {
        // The last ones are short, so that all threads end together.
        let length = (state.items.len() / (self.jobs * AHEAD)).clamp(1, LONGEST_PIECE);
        if state.pieces.len() >= self.jobs * AHEAD {
            return None;
        }
        let piece: Vec<S::Item> = state.items.by_ref().take(length).collect();
        if piece.is_empty() {
            return None;
        }
        state.pieces.push_back(None);
        Some((state.first + state.pieces.len() - 1, piece))
    }

    /// The next piece; `None` if there is nothing left to do.
    fn wait_for_piece(&self) -> Option<(usize, Vec<S::Item>)> {
        let mut state = self.lock();
        loop {
            if state.is_over || state.items.len() == 0 {
                return None;
            }
            if let Some(piece) = self.begin(&mut state) {
                return Some(piece);
            }
            state.waiting += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn finish(&self, number: usize, results: Vec<T>) {
        let mut state = self.lock();
        let place = number - state.first;
        state.pieces[place] = Some(results);
        if place == 0 && state.is_awaited {
            self.due.notify_one();
        }
    }

    /// What the calling thread does next: results that are due come before more work.
    fn next(&self) -> Turn<S::Item, T> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return Turn::Over;
            }
            if let Some(results) = state.pieces.front_mut().and_then(Option::take) {
                state.pieces.pop_front();
                state.first += 1;
                if state.waiting > 0 {
                    self.room.notify_one();
                }
                return Turn::Done(results);
            }
            if let Some((number, piece)) = self.begin(&mut state) {
                return Turn::Piece(number, piece);
            }
            if state.pieces.is_empty() {
                return Turn::Over;
            }
            state.is_awaited = true;
            state = self.due.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_awaited = false;
        }
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.room.notify_all();
        self.due.notify_all();
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
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
            let slow_first = |item: u32| {
                thread::sleep(std::time::Duration::from_micros(u64::from(100 - item) * 20));
                item
            };
            in_order(0..100, jobs, slow_first, |item| {
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
        let result = in_order(0..100_000, 4, count, |item| if item == 10 { bail!("enough") } else { Ok(()) });
        assert_eq!(result.expect_err("an error").to_string(), "enough");
        assert!(worked.load(Ordering::Relaxed) < 200, "{worked:?}");
    }

    #[test]
    fn as_many_as_wanted_work_and_little_waits_to_be_handed_over() {
        const JOBS: usize = 3;
        let threads = Mutex::new(std::collections::HashSet::new());
        let (begun, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |item: usize| {
            threads.lock().expect("no panic").insert(thread::current().id());
            let begun = begun.fetch_add(1, Ordering::SeqCst) + 1;
            // The others run ahead as far as they may.
            if item == 0 {
                thread::sleep(std::time::Duration::from_millis(100));
            }
            (item, begun)
        };
        let mut done = 0;
        in_order(0..10_000, JOBS, work, |(item, begun)| {
            assert_eq!(item, done);
            most.fetch_max(begun.saturating_sub(done), Ordering::SeqCst);
            done += 1;
            Ok(())
        })
        .expect("no error");
        assert_eq!(done, 10_000);
        assert!(threads.lock().expect("no panic").len() <= JOBS);
        assert!(most.into_inner() <= (JOBS * AHEAD + 1) * LONGEST_PIECE);
    }

    #[test]
    fn a_panic_is_handed_on() {
        for bad in [0, 500, 999] {
            let work = |item: usize| assert_ne!(item, bad, "on purpose");
            let run = || in_order(0..1000, 4, work, |()| Ok(()));
            assert!(std::panic::catch_unwind(run).is_err(), "{bad}");
        }
    }
}
