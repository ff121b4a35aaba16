//! How far the log is: its four watermarks, whether it has stopped for good, and who waits for messages to arrive.
//!
//! ```text
//! flushed <= written <= tail        dispatched <= written
//! ```
//! Each watermark has one writer at a time and never goes back while the log is open. Whoever reads one may use what
//! lies below it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::offset::LogOffset;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, OnceLock};

/// Takes a lock that a panic cannot leave in disorder: what it guards is whole between any two statements.
#[cfg(not(loom))]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(loom)]
pub(crate) use crate::sync::lock;

/// The first failure, kept for everybody who comes later.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<Error>);

impl Poison {
    /// Keeps the first failure and returns it, as [`Error::Poisoned`].
    pub(crate) fn set(&self, error: Error) -> Error {
        self.0.get_or_init(|| error.poisoned()).clone()
    }

    /// Has something failed?
    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// Returns the first failure, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// A watermark on a cache line of its own: each has another writer.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Watermark(AtomicU64);

impl Watermark {
    fn get(&self) -> LogOffset {
        LogOffset::new(self.0.load(Ordering::Acquire))
    }

    fn raise(&self, to: LogOffset) {
        debug_assert!(to >= self.get(), "a watermark never goes back: {to} after {}", self.get());
        self.0.store(to.get(), Ordering::Release);
    }
}

/// The watermarks of one log, its poison, and the threads that wait for dispatch.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    tail: Watermark,
    written: Watermark,
    flushed: Watermark,
    dispatched: Watermark,
    poison: Poison,
    /// How many threads wait; an arrival that finds none does not touch the lock.
    waiting: AtomicUsize,
    /// Counts the arrivals that found somebody waiting.
    arrivals: Mutex<u64>,
    arrived: Condvar,
}

impl Progress {
    /// Starts with all four watermarks at `start`.
    pub(crate) fn new(start: LogOffset) -> Self {
        let new = Self::default();
        for watermark in [&new.tail, &new.written, &new.flushed, &new.dispatched] {
            watermark.raise(start);
        }
        new
    }

    /// Returns the end of what has a place in the log.
    pub(crate) fn tail(&self) -> LogOffset {
        self.tail.get()
    }

    /// Returns the end of what can be read.
    pub(crate) fn written(&self) -> LogOffset {
        self.written.get()
    }

    /// Returns the end of what is durable.
    pub(crate) fn flushed(&self) -> LogOffset {
        self.flushed.get()
    }

    /// Returns the end of what is in queues and index.
    pub(crate) fn dispatched(&self) -> LogOffset {
        self.dispatched.get()
    }

    /// Moves the tail.
    pub(crate) fn set_tail(&self, to: LogOffset) {
        self.tail.raise(to);
    }

    /// Publishes what lies below `to` to readers.
    pub(crate) fn set_written(&self, to: LogOffset) {
        debug_assert!(to <= self.tail(), "written {to} is above the tail {}", self.tail());
        self.written.raise(to);
    }

    /// Declares what lies below `to` durable.
    pub(crate) fn set_flushed(&self, to: LogOffset) {
        debug_assert!(to <= self.written(), "flushed {to} is above what is written, {}", self.written());
        self.flushed.raise(to);
    }

    /// Says where dispatch begins: at or below the other watermarks. Before anybody appends or waits.
    pub(crate) fn begin_dispatched(&self, at: LogOffset) {
        self.dispatched.0.store(at.get(), Ordering::Release);
    }

    /// Declares what lies below `to` dispatched, and wakes who waits for it. The same value again wakes them too.
    pub(crate) fn set_dispatched(&self, to: LogOffset) {
        debug_assert!(to <= self.written(), "dispatched {to} is above what is written, {}", self.written());
        self.dispatched.raise(to);
        self.notify();
    }

    /// Stops the log: the first error given wins and is returned, to this caller and all later ones.
    pub(crate) fn poison(&self, error: Error) -> Error {
        let first = self.poison.set(error);
        self.notify();
        first
    }

    /// Returns the error that stopped the log, if one did.
    pub(crate) fn check(&self) -> Result<()> {
        self.poison.check()
    }

    /// Waits for dispatch until `until` says so, asking it again after every arrival, with no lock held.
    ///
    /// Returns the last answer: `false` if the deadline passed, or the log stopped, before it was `true`.
    pub(crate) fn wait_dispatched(&self, mut until: impl FnMut() -> bool, deadline: Option<Instant>) -> bool {
        if until() {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        fence(Ordering::SeqCst);
        loop {
            let seen = *lock(&self.arrivals);
            let stopped = self.poison.is_set();
            if until() {
                return true;
            }
            if stopped || !self.wait_arrival(seen, deadline) {
                return until();
            }
        }
    }

    /// Waits for an arrival after the one seen; `false` if the deadline passed.
    fn wait_arrival(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let waited = self.arrived.wait_timeout_while(lock(&self.arrivals), left, |arrivals| *arrivals == seen);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Wakes the waiting threads. The fence stands against the one in [`Progress::wait_dispatched`]: either the waiting
    /// thread sees what was published before, or it is seen here.
    fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            *lock(&self.arrivals) += 1;
            self.arrived.notify_all();
        }
    }
}

/// Takes a waiting thread out of the count, also when it panics.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn watermarks_start_together_and_move_alone() {
        let progress = Progress::new(LogOffset::new(10));
        progress.set_tail(LogOffset::new(40));
        progress.set_written(LogOffset::new(30));
        progress.set_flushed(LogOffset::new(20));
        assert_eq!(progress.tail().get(), 40);
        assert_eq!(progress.written().get(), 30);
        assert_eq!(progress.flushed().get(), 20);
        assert_eq!(progress.dispatched().get(), 10);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "above the tail")]
    fn written_never_passes_the_tail() {
        Progress::new(LogOffset::ZERO).set_written(LogOffset::new(1));
    }

    #[test]
    fn the_first_poison_wins() {
        let progress = Progress::new(LogOffset::ZERO);
        assert!(progress.check().is_ok());
        let first = progress.poison(Error::ReadOnly).to_string();
        assert_eq!(progress.poison(Error::Closed).to_string(), first);
        assert_eq!(progress.check().unwrap_err().to_string(), first);
        assert!(matches!(progress.check(), Err(Error::Poisoned { source }) if matches!(*source, Error::ReadOnly)));
    }

    #[test]
    fn no_arrival_is_missed() {
        const STEPS: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let progress = Arc::new(Progress::new(LogOffset::ZERO));
        progress.set_tail(LogOffset::new(STEPS));
        progress.set_written(LogOffset::new(STEPS));
        let echo = Arc::new(AtomicU64::new(0));
        let waiter = thread::spawn({
            let (progress, echo) = (Arc::clone(&progress), Arc::clone(&echo));
            move || {
                for step in 1..=STEPS {
                    assert!(progress.wait_dispatched(|| progress.dispatched().get() >= step, None));
                    echo.store(step, Ordering::Release);
                }
            }
        });
        for step in 1..=STEPS {
            progress.set_dispatched(LogOffset::new(step));
            // Only with the waiter right behind is each arrival needed: a lost one hangs here.
            while echo.load(Ordering::Acquire) < step {
                thread::yield_now();
            }
        }
        waiter.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_when_the_log_stops() {
        let progress = Arc::new(Progress::new(LogOffset::ZERO));
        assert!(!progress.wait_dispatched(|| false, Some(Instant::now() + Duration::from_millis(5))));
        let waiter = thread::spawn({
            let progress = Arc::clone(&progress);
            move || progress.wait_dispatched(|| false, None)
        });
        progress.poison(Error::ReadOnly);
        assert!(!waiter.join().unwrap());
        assert_eq!(progress.waiting.load(Ordering::Relaxed), 0);
    }
}
