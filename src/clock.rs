//! Time, injected: store times come from a [`Clock`], so that a simulation decides what time it is.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A jump of the wall clock by more than this is counted.
const JUMP_MS: i64 = 60 * 60 * 1000;

/// A source of wall-clock time.
///
/// # Examples
/// ```
/// use mqlog::{Clock, Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicI64, Ordering};
///
/// #[derive(Debug, Default)]
/// struct Simulated(AtomicI64);
/// impl Clock for Simulated {
///     fn now_ms(&self) -> i64 {
///         self.0.load(Ordering::Relaxed)
///     }
/// }
///
/// let clock = Arc::new(Simulated::default());
/// let store = MessageStore::open(StoreOptions::new(dir.path()).clock(clock.clone()))?;
/// clock.0.store(1_000, Ordering::Relaxed);
/// let put = store.put(Message::new("orders"))?;
/// assert_eq!(store.read(put.log_offset)?.store_ms(), 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}

/// The operating system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Store times: the clock's, but never going back, with its jumps counted.
///
/// Whether the clock jumped or the store was idle is told by the time that passed since opening, which no clock sets.
#[derive(Debug)]
pub(crate) struct StoreClock {
    last_ms: AtomicI64,
    jumps: AtomicU64,
    opened: Instant,
    /// What the wall clock said when the store was opened, corrected by the jumps since.
    opened_ms: AtomicI64,
}

impl StoreClock {
    /// Starts at the store time of the last record, so that the log's times stay in order. That the clock is far behind
    /// it counts as a jump; that it is far ahead is what a store looks like that was closed for long.
    pub(crate) fn new(last_ms: i64, now_ms: i64) -> Self {
        let jumps = u64::from(last_ms.saturating_sub(now_ms) > JUMP_MS);
        Self {
            last_ms: AtomicI64::new(last_ms),
            jumps: AtomicU64::new(jumps),
            opened: Instant::now(),
            opened_ms: AtomicI64::new(now_ms),
        }
    }

    /// Returns `max(last, now)` and remembers it. Called by one thread at a time: whoever holds the log lock.
    pub(crate) fn stamp(&self, now_ms: i64) -> i64 {
        let last = self.last_ms.load(Ordering::Relaxed);
        if last.abs_diff(now_ms) > JUMP_MS as u64 {
            self.look_for_jump(now_ms);
        }
        let stamp = now_ms.max(last);
        self.last_ms.store(stamp, Ordering::Relaxed);
        stamp
    }

    #[cold]
    fn look_for_jump(&self, now_ms: i64) {
        let passed_ms = i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX);
        let opened_ms = now_ms.saturating_sub(passed_ms);
        if opened_ms.abs_diff(self.opened_ms.load(Ordering::Relaxed)) > JUMP_MS as u64 {
            self.opened_ms.store(opened_ms, Ordering::Relaxed);
            self.jumps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the last stamp given out.
    pub(crate) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    /// Returns how often the clock jumped by more than an hour, forward or back.
    pub(crate) fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_times_never_go_back() {
        let clock = StoreClock::new(1_000, 1_000);
        assert_eq!(clock.stamp(900), 1_000);
        assert_eq!(clock.stamp(1_001), 1_001);
        assert_eq!(clock.last_ms(), 1_001);
    }

    #[test]
    fn each_jump_of_more_than_an_hour_is_counted_once() {
        let clock = StoreClock::new(10 * JUMP_MS, 10 * JUMP_MS);
        for (now_ms, jumps) in [(8, 1), (8, 1), (10, 1), (50, 2), (50, 2)] {
            clock.stamp(now_ms * JUMP_MS + 1);
            assert_eq!(clock.jumps(), jumps, "after the clock said {now_ms} hours");
        }
        assert_eq!(clock.last_ms(), 50 * JUMP_MS + 1);
    }

    #[test]
    fn a_clock_far_behind_the_log_at_opening_is_a_jump_and_one_far_ahead_is_not() {
        assert_eq!(StoreClock::new(10 * JUMP_MS, 8 * JUMP_MS).jumps(), 1);
        let idle = StoreClock::new(0, 8 * JUMP_MS);
        idle.stamp(8 * JUMP_MS);
        assert_eq!(idle.jumps(), 0);
    }
}
