//! Making appended bytes durable, for many waiters at once: group commit over a small trait.
//!
//! A [`FlushService`] knows nothing of files: whatever has a tail and can be flushed is a [`FlushTarget`]. What holds:
//!
//! - `target.flush` has one caller at a time, holding no lock of this module, and none after the first that failed.
//! - A wait returns `Ok` only when a flush that began after its bytes were appended has succeeded.
//! - Every callback runs once, with no lock held and by a thread that does not lead.

mod service;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::error::{Error, Result};
use crate::offset::LogOffset;
pub use service::FlushService;

/// When appended bytes are made durable.
///
/// Under every policy [`FlushService::wait_durable`] makes it happen at once.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mqlog::FlushPolicy;
/// let FlushPolicy::Async { interval, .. } = FlushPolicy::default() else { unreachable!() };
/// assert_eq!(interval, Duration::from_millis(500));
/// ```
///
/// # Source
/// RocketMQ's `flushDiskType` and `flushIntervalCommitLog`; there the background flush waits for a number of pages,
/// here a number of bytes makes it come early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlushPolicy {
    /// A put returns when its message is durable.
    #[doc(alias = "SYNC_FLUSH")]
    Sync,
    /// A put returns at once; the log is flushed in the background.
    #[doc(alias = "ASYNC_FLUSH")]
    Async {
        /// Time between two flushes. Default 500 ms; not zero. More than a year is as good as a year.
        interval: Duration,
        /// Above this many bytes that are not durable the flush comes early. Default 32 MiB.
        unflushed_bytes: u64,
        /// Above this many, appends wait. Default 256 MiB; not below `unflushed_bytes`.
        max_unflushed_bytes: u64,
    },
    /// Nothing is flushed but by the caller.
    Manual,
}

impl FlushPolicy {
    /// Returns [`FlushPolicy::Async`] with its defaults.
    #[must_use]
    pub const fn async_default() -> Self {
        Self::Async { interval: Duration::from_millis(500), unflushed_bytes: 32 << 20, max_unflushed_bytes: 256 << 20 }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let reason = match self {
            Self::Async { interval, .. } if interval.is_zero() => "the interval must not be zero",
            Self::Async { unflushed_bytes, max_unflushed_bytes, .. } if max_unflushed_bytes < unflushed_bytes => {
                "max_unflushed_bytes must not be below unflushed_bytes"
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidOption { option: "flush", reason: reason.to_owned() })
    }
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self::async_default()
    }
}

/// What a [`FlushService`] flushes: something that grows at its end.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use mqlog::{FlushTarget, LogOffset, Result};
///
/// /// Counts bytes; there is no disk behind it.
/// struct Counter(AtomicU64);
///
/// impl FlushTarget for Counter {
///     fn tail(&self) -> LogOffset {
///         LogOffset::new(self.0.load(Ordering::Acquire))
///     }
///     fn flush(&self) -> Result<LogOffset> {
///         Ok(self.tail()) // read the tail first, then sync
///     }
/// }
/// assert_eq!(Counter(AtomicU64::new(7)).flush().unwrap(), LogOffset::new(7));
/// ```
pub trait FlushTarget: Send + Sync + 'static {
    /// Returns the end of what was appended. It is asked often, so it should cost no more than a load.
    fn tail(&self) -> LogOffset;

    /// Makes everything below the tail seen at its start durable, or more, and returns the end of that.
    ///
    /// Called by one thread at a time and only if the tail is above what is durable. It must not call the service.
    ///
    /// # Errors
    /// Whatever the disk says. The first error, or panic, is final: the service answers with it from then on and does
    /// not call again.
    fn flush(&self) -> Result<LogOffset>;

    /// Returns the end of what is known to be durable when the service starts; asked once.
    fn durable(&self) -> LogOffset {
        LogOffset::ZERO
    }
}
