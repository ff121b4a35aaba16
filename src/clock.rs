//! Time, injected: store times come from a [`Clock`], so that a simulation decides what time it is.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A step back of the wall clock by more than this is counted.
const JUMP_MS: i64 = 60 * 60 * 1000;

/// A source of wall-clock time.
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

/// Store times: the clock's, but never going back, with large steps back counted.
#[derive(Debug)]
pub(crate) struct StoreClock {
    last_ms: AtomicI64,
    jumps: AtomicU64,
}

impl StoreClock {
    /// Starts at the store time of the last record, so that the log's times stay in order.
    pub(crate) fn new(last_ms: i64) -> Self {
        Self { last_ms: AtomicI64::new(last_ms), jumps: AtomicU64::new(0) }
    }

    /// Returns `max(last, now)` and remembers it. Called by one thread at a time: whoever holds the log lock.
    pub(crate) fn stamp(&self, now_ms: i64) -> i64 {
        let last = self.last_ms.load(Ordering::Relaxed);
        if last - now_ms > JUMP_MS {
            self.jumps.fetch_add(1, Ordering::Relaxed);
        }
        let stamp = now_ms.max(last);
        self.last_ms.store(stamp, Ordering::Relaxed);
        stamp
    }

    /// Returns the last stamp given out.
    pub(crate) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    /// Returns how often the clock was found more than an hour behind the last store time. (A step forward looks like
    /// an idle store and does no harm.)
    pub(crate) fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_times_never_go_back() {
        let clock = StoreClock::new(1_000);
        assert_eq!(clock.stamp(900), 1_000);
        assert_eq!(clock.stamp(1_001), 1_001);
        assert_eq!(clock.last_ms(), 1_001);
    }

    #[test]
    fn a_step_back_of_more_than_an_hour_is_counted() {
        let clock = StoreClock::new(10 * JUMP_MS);
        clock.stamp(8 * JUMP_MS);
        assert_eq!((clock.stamp(10 * JUMP_MS + 1), clock.jumps()), (10 * JUMP_MS + 1, 1));
    }
}
