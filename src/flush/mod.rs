//! Making appended bytes durable, for many waiters at once: group commit over a small trait.
//!
//! A [`FlushService`] knows nothing of files: whatever has a tail and can be flushed is a [`FlushTarget`]. What holds:
//!
//! - `target.flush` has one caller at a time, holding no lock of this module, and none after the first that failed.
//! - A wait returns `Ok` only when a flush that began after its bytes were appended has succeeded.
//! - Every callback runs once, with no lock held and by a thread that does not lead.

mod group;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::drive::{Drive, Task};
use crate::error::{Error, Result};
use crate::offset::LogOffset;
use group::Group;

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
        /// Time between two flushes. Default 500 ms; not zero.
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

    fn check(&self) -> Result<()> {
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

/// Makes what was appended durable: by whoever waits for it, with one flush for all who wait, or in the background.
///
/// One waiting thread leads: it calls [`FlushTarget::flush`] for everybody who has appended so far. Who comes meanwhile
/// waits; when the flush is done, exactly those it covers are woken, and one of the others leads next.
///
/// After the first failure the log has stopped: everybody who waits, and every later wait for what is not durable, gets
/// the same [`Error::Poisoned`], since what the disk holds is no longer known.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use mqlog::{Drive, FlushPolicy, FlushService, FlushTarget, LogOffset, Result};
///
/// struct Counter(AtomicU64);
///
/// impl FlushTarget for Counter {
///     fn tail(&self) -> LogOffset {
///         LogOffset::new(self.0.load(Ordering::Acquire))
///     }
///     fn flush(&self) -> Result<LogOffset> {
///         Ok(self.tail())
///     }
/// }
///
/// let log = Arc::new(Counter(AtomicU64::new(0)));
/// let service = FlushService::start(log.clone(), FlushPolicy::Sync, Drive::Threads)?;
/// let end = LogOffset::new(log.0.fetch_add(100, Ordering::AcqRel) + 100);
/// service.wait_durable(end)?;
/// assert_eq!(service.durable_offset(), end);
/// assert_eq!(service.syncs(), 1);
/// service.close()?;
/// # Ok::<(), mqlog::Error>(())
/// ```
///
/// # Source
/// RocketMQ's `CommitLog.GroupCommitService`, which has a thread of its own commit for all; here a waiter leads, which
/// saves two switches between threads a commit.
#[doc(alias = "GroupCommitService")]
#[doc(alias = "FlushRealTimeService")]
pub struct FlushService {
    group: Arc<Group>,
    task: Option<Task>,
}

impl FlushService {
    /// Starts a service. With [`Drive::Manual`], or [`FlushPolicy::Manual`], it has no thread.
    ///
    /// # Errors
    /// - [`Error::InvalidOption`] if the policy's numbers are outside of their limits
    /// - [`Error::Io`] if the thread cannot be started
    pub fn start(target: Arc<dyn FlushTarget>, policy: FlushPolicy, drive: Drive) -> Result<Self> {
        policy.check()?;
        let group = Arc::new(Group::new(target, policy));
        let task = match (drive, group.policy.clone()) {
            (Drive::Manual, _) | (_, FlushPolicy::Manual) => None,
            (_, FlushPolicy::Sync) => {
                let group = Arc::clone(&group);
                Some(Task::start("flush", drive, move || group.pump_asked())?)
            }
            (_, FlushPolicy::Async { interval, unflushed_bytes, .. }) => {
                let group = Arc::clone(&group);
                let mut due = Instant::now() + interval;
                Some(Task::start("flush", drive, move || group.pump_interval(&mut due, interval, unflushed_bytes))?)
            }
        };
        if let Some(task) = &task {
            group.set_flusher(task.waker());
        }
        Ok(Self { group, task })
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &FlushPolicy {
        &self.group.policy
    }

    /// Returns the end of what is durable.
    #[doc(alias = "flushedWhere")]
    #[must_use]
    pub fn durable_offset(&self) -> LogOffset {
        self.group.durable()
    }

    /// Returns how often the target was flushed with success.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.group.syncs()
    }

    /// Waits until everything below `end` is durable, under every policy as soon as the disk can.
    ///
    /// # Errors
    /// - [`Error::OutOfRange`] if `end` is above the tail
    /// - [`Error::Poisoned`] if a flush failed
    /// - [`Error::Closed`] if the service was closed before
    pub fn wait_durable(&self, end: LogOffset) -> Result<()> {
        self.group.wait(end)
    }

    /// Calls `callback` once: with `Ok` when everything below `end` is durable, with the error if that cannot be.
    ///
    /// If it is so already, this thread calls at once; otherwise whoever completes the flush calls, with no lock held,
    /// so a callback may append, wait and register others. While it runs its thread does nothing else: keep it short.
    /// A panic in it is caught and dropped. With [`FlushPolicy::Sync`] the flush begins at once, with
    /// [`FlushPolicy::Async`] at its time, without a thread when somebody else waits or pumps.
    ///
    /// # Errors
    /// The callback gets [`Error::Poisoned`] if a flush failed, [`Error::Closed`] if the service was closed before.
    pub fn on_durable(&self, end: LogOffset, callback: impl FnOnce(Result<()>) + Send + 'static) {
        self.group.call_when_durable(end, Box::new(callback));
    }

    /// Says that something was appended for which nobody waits.
    ///
    /// The flush thread is woken if it sleeps and is needed: under [`FlushPolicy::Sync`] if nobody leads, under
    /// [`FlushPolicy::Async`] if too much is not durable. Who waits anyway need not call this.
    pub fn appended(&self) {
        match self.group.policy {
            FlushPolicy::Sync => self.group.ask(),
            FlushPolicy::Async { unflushed_bytes, .. } if self.group.unflushed_bytes() > unflushed_bytes => {
                self.group.wake_flusher();
            }
            FlushPolicy::Async { .. } | FlushPolicy::Manual => {}
        }
    }

    /// Waits while more than [`FlushPolicy::Async`]'s `max_unflushed_bytes` are not durable; to be called before an
    /// append.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a flush failed, [`Error::Closed`] if the service was closed and there is no room.
    pub fn wait_for_room(&self) -> Result<()> {
        match self.group.policy {
            FlushPolicy::Async { max_unflushed_bytes, .. } if self.group.unflushed_bytes() > max_unflushed_bytes => {
                self.flush().map(drop)
            }
            _ => self.check(),
        }
    }

    /// Makes everything appended so far durable and returns the end of what is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a flush failed, [`Error::Closed`] if the service was closed and there is something to do.
    pub fn flush(&self) -> Result<LogOffset> {
        self.group.wait(self.group.target.tail())?;
        Ok(self.group.durable())
    }

    /// Does by hand what the thread would do when its time has come: a flush, unless the policy is
    /// [`FlushPolicy::Manual`].
    ///
    /// # Errors
    /// As [`FlushService::flush`].
    pub fn pump(&self) -> Result<()> {
        if self.group.policy == FlushPolicy::Manual { self.check() } else { self.flush().map(drop) }
    }

    /// Returns the failure that stopped the log, if there was one.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a flush failed.
    pub fn check(&self) -> Result<()> {
        self.group.poison.check()
    }

    /// Flushes a last time and stops the thread. Later waits are refused unless what they wait for is durable.
    ///
    /// Dropping the service stops it without flushing. Either way no callback is forgotten.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if this or an earlier flush failed; the service is closed nevertheless.
    pub fn close(&self) -> Result<()> {
        let flushed = self.group.close();
        self.end();
        flushed.and_then(|()| self.check())
    }

    fn end(&self) {
        self.group.refuse();
        if let Some(task) = &self.task {
            task.stop();
        }
        self.group.end_callbacks();
    }
}

impl Drop for FlushService {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FlushService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("FlushService");
        fields.field("policy", self.policy()).field("durable_offset", &self.durable_offset());
        fields.field("syncs", &self.syncs()).finish_non_exhaustive()
    }
}
