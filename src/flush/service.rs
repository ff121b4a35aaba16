//! Group commit: one thread at a time leads, the others wait in slots of their own.
//!
//! ```text
//! wait(end)   durable? done.  nobody leads? lead.  else stand in the queue and park
//! lead        target.flush(), alone and without a lock; under the lock take out of the queue who is done, hand the lead
//!             to the first of the others or give it up; then wake the new leader, wake exactly who is done, callbacks
//! ```
//! The lead is never given up while a thread stands in the queue: whoever parks is either done, or will lead. A
//! callback alone does not keep the lead: under [`FlushPolicy::Sync`] the flush thread takes over.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{FlushPolicy, FlushTarget};
use crate::drive::{Drive, Pumped, Task, Waker, catch_panic};
use crate::error::{Error, Result};
use crate::offset::LogOffset;
use crate::progress::{Poison, lock};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, OnceLock};

/// Added to any time this is one that the clock can show.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

type Callback = Box<dyn FnOnce(Result<()>) + Send>;

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
        let group = Arc::new(Group {
            durable: AtomicU64::new(target.durable().get()),
            target,
            policy,
            poison: Poison::default(),
            syncs: AtomicU64::default(),
            leading: AtomicBool::default(),
            asked: AtomicBool::default(),
            flusher: OnceLock::new(),
            queue: Mutex::default(),
        });
        let mut task = None;
        if drive == Drive::Threads && group.policy != FlushPolicy::Manual {
            let (pumped, mut due) = (Arc::clone(&group), None);
            let started = Task::start("flush", drive, move || pumped.pump(&mut due))?;
            group.flusher.get_or_init(|| started.waker());
            task = Some(started);
        }
        Ok(Self { group, task })
    }

    /// Returns the end of what is durable.
    #[doc(alias = "flushedWhere")]
    pub fn durable_offset(&self) -> LogOffset {
        self.group.durable()
    }

    /// Returns how often the target was flushed with success.
    pub fn syncs(&self) -> u64 {
        self.group.syncs.load(Ordering::Relaxed)
    }

    /// Waits until everything below `end` is durable, under every policy as soon as the disk can.
    ///
    /// # Errors
    /// - [`Error::OutOfRange`] if `end` is above the tail
    /// - [`Error::Poisoned`] if a flush failed
    /// - [`Error::Closed`] if the service was closed before
    pub fn wait_durable(&self, end: LogOffset) -> Result<()> {
        self.group.wait(end, false)
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
        let group = &*self.group;
        let mut queue = lock(&group.queue);
        if let Some(outcome) = group.outcome(end).or(queue.closed.then_some(Err(Error::Closed))) {
            drop(queue);
            return run(callback, outcome);
        }
        queue.callbacks.push((end, Box::new(callback)));
        drop(queue);
        if group.policy == FlushPolicy::Sync {
            group.ask();
        }
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
        if self.has_room() { self.check() } else { self.flush().map(drop) }
    }

    /// Would [`wait_for_room`](Self::wait_for_room) return at once?
    pub fn has_room(&self) -> bool {
        match self.group.policy {
            FlushPolicy::Async { max_unflushed_bytes: most, .. } => self.group.unflushed_bytes() <= most,
            _ => true,
        }
    }

    /// Makes everything appended so far durable and returns the end of what is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a flush failed, [`Error::Closed`] if the service was closed and there is something to do.
    pub fn flush(&self) -> Result<LogOffset> {
        self.group.flush(false)?;
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
    /// [`Error::Poisoned`] if a flush failed, [`Error::TaskFailed`] if the flush thread ended.
    pub fn check(&self) -> Result<()> {
        self.group.poison.check()?;
        self.task.as_ref().map_or(Ok(()), Task::health)
    }

    /// Flushes a last time and stops the thread. Later waits are refused unless what they wait for is durable.
    ///
    /// Dropping the service stops it without flushing. Either way no callback is forgotten.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if this or an earlier flush failed; the service is closed nevertheless. [`Error::Closed`] if it was
    /// closed before, and more was appended since.
    pub fn close(&self) -> Result<()> {
        let flushed = self.group.flush(false);
        lock(&self.group.queue).closed = true;
        // What was appended before the line above is durable when this has returned; a callback that was taken hears so.
        let flushed = flushed.and_then(|()| self.group.flush(true));
        self.end();
        flushed.and_then(|()| self.check())
    }

    /// Returns how many threads stand in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        lock(&self.group.queue).threads.len()
    }

    fn end(&self) {
        lock(&self.group.queue).closed = true;
        if let Some(task) = &self.task {
            task.stop();
        }
        let callbacks = std::mem::take(&mut lock(&self.group.queue).callbacks);
        for (end, callback) in callbacks {
            run(callback, self.group.outcome(end).unwrap_or(Err(Error::Closed)));
        }
    }
}

impl Drop for FlushService {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FlushService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (durable, syncs) = (self.durable_offset(), self.syncs());
        write!(formatter, "FlushService({:?}, {durable} durable, {syncs} syncs)", self.group.policy)
    }
}

/// The state of a group commit.
struct Group {
    target: Arc<dyn FlushTarget>,
    policy: FlushPolicy,
    poison: Poison,
    durable: AtomicU64,
    syncs: AtomicU64,
    /// Does somebody lead? Written under the queue's lock.
    leading: AtomicBool,
    /// Is there something that nobody waits for, but that should become durable soon? Taken back by every sync.
    asked: AtomicBool,
    /// Wakes the flush thread, if there is one: when nobody leads and something is to be flushed.
    flusher: OnceLock<Arc<Waker>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    threads: Vec<(LogOffset, Arc<Slot>)>,
    callbacks: Vec<(LogOffset, Callback)>,
    closed: bool,
}

impl Group {
    fn durable(&self) -> LogOffset {
        LogOffset::new(self.durable.load(Ordering::Acquire))
    }

    /// Returns how many bytes of the log are not durable.
    fn unflushed_bytes(&self) -> u64 {
        self.target.tail().get().saturating_sub(self.durable().get())
    }

    /// Makes everything appended so far durable.
    fn flush(&self, even_closed: bool) -> Result<()> {
        self.wait(self.target.tail(), even_closed)
    }

    /// Waits until everything below `end` is durable, leading if nobody does; a closed group refuses unless told not to.
    fn wait(&self, end: LogOffset, even_closed: bool) -> Result<()> {
        if self.durable() >= end {
            return Ok(());
        }
        let tail = self.target.tail();
        if end > tail {
            self.poison.check()?;
            return Err(Error::OutOfRange { offset: end.get(), available: self.durable().get()..tail.get() });
        }
        let mut queue = lock(&self.queue);
        if let Some(outcome) = self.outcome(end) {
            return outcome;
        }
        if queue.closed && !even_closed {
            return Err(Error::Closed);
        }
        if !self.leading.swap(true, Ordering::Relaxed) {
            drop(queue);
            return self.lead(end);
        }
        let slot = Arc::new(Slot { thread: thread::current(), turn: AtomicU8::new(Slot::WAITING) });
        queue.threads.push((end, Arc::clone(&slot)));
        drop(queue);
        if slot.wait() {
            return self.lead(end);
        }
        self.outcome(end).expect("only a durable offset or the poison ends a wait")
    }

    /// Has the flush thread make durable what was appended so far, unless whoever leads does.
    ///
    /// The fence stands against the one in [`Group::call_flusher`]: either this sees that the lead is free, or who gave
    /// it up sees what is asked for.
    fn ask(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        if !self.leading.load(Ordering::Relaxed) {
            self.wake_flusher();
        }
    }

    /// Wakes the flush thread if it sleeps.
    fn wake_flusher(&self) {
        self.flusher.get().into_iter().for_each(|flusher| flusher.wake());
    }

    /// The flush thread's pump; `due` is when it flushes next under [`FlushPolicy::Async`].
    fn pump(&self, due: &mut Option<Instant>) -> Result<Pumped> {
        match self.flush_if_due(due) {
            // The thread is about to be stopped, which is no failure of its own.
            Err(Error::Closed) => Ok(Pumped::Idle(None)),
            pumped => pumped,
        }
    }

    fn flush_if_due(&self, due: &mut Option<Instant>) -> Result<Pumped> {
        if lock(&self.queue).closed {
            return Ok(Pumped::Idle(None));
        }
        let FlushPolicy::Async { interval, unflushed_bytes, .. } = self.policy else {
            let is_asked = self.asked.load(Ordering::Acquire) && !self.leading.load(Ordering::Relaxed);
            let has_work = is_asked && self.unflushed_bytes() > 0;
            return if has_work { self.flush(false).map(|()| Pumped::Again) } else { Ok(Pumped::Idle(None)) };
        };
        let (now, interval) = (Instant::now(), interval.min(LONGEST_INTERVAL));
        let due = due.get_or_insert(now + interval);
        if now >= *due || self.unflushed_bytes() > unflushed_bytes {
            *due = now + interval;
            // One sync, however far it gets: what it leaves out is that much younger.
            self.wait(self.durable() + u64::from(self.unflushed_bytes() > 0), false)?;
        }
        Ok(Pumped::Idle(Some(due.saturating_duration_since(Instant::now()))))
    }

    /// Tells what is known of everything below `end`: durable, lost, or `None` while that is open.
    fn outcome(&self, end: LogOffset) -> Option<Result<()>> {
        if self.durable() >= end { Some(Ok(())) } else { self.poison.check().err().map(Err) }
    }

    /// Leads until everything below `end` is durable or the log has stopped; the caller has the lead.
    fn lead(&self, end: LogOffset) -> Result<()> {
        // Callbacks may wait for a flush themselves, so they run when this thread no longer leads.
        let mut callbacks = Vec::new();
        loop {
            self.sync();
            let mut queue = lock(&self.queue);
            let known = if self.poison.is_set() { LogOffset::MAX } else { self.durable() };
            let done: Vec<_> = queue.threads.extract_if(.., |(end, _)| *end <= known).collect();
            callbacks.extend(queue.callbacks.extract_if(.., |(end, _)| *end <= known));
            let ends = end <= known;
            let next = (ends && !queue.threads.is_empty()).then(|| queue.threads.remove(0).1);
            let leads = !ends || next.is_some();
            self.leading.store(leads, Ordering::Relaxed);
            drop(queue);
            next.iter().for_each(|slot| slot.end_wait(Slot::LEAD));
            done.iter().for_each(|(_, slot)| slot.end_wait(Slot::DONE));
            if !leads && self.policy == FlushPolicy::Sync {
                self.call_flusher();
            }
            if ends {
                break;
            }
        }
        for (end, callback) in callbacks {
            run(callback, self.outcome(end).expect("a callback is taken when its outcome is known"));
        }
        self.outcome(end).expect("a leader goes on until its outcome is known")
    }

    /// Wakes the flush thread for what was asked for while this thread led, and that its last sync did not cover.
    fn call_flusher(&self) {
        fence(Ordering::SeqCst);
        if self.asked.load(Ordering::Relaxed) && self.unflushed_bytes() > 0 {
            self.wake_flusher();
        }
    }

    /// Has the target flush once. The first failure is the last call.
    fn sync(&self) {
        debug_assert!(!self.poison.is_set(), "nothing is flushed after a failure");
        // What was asked for before this exchange was appended before it, so the target sees it.
        self.asked.swap(false, Ordering::AcqRel);
        let before = self.durable();
        match catch_panic(|| self.target.flush()) {
            Ok(reached) if reached > before => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.durable.store(reached.get(), Ordering::Release);
            }
            failed => {
                let reason = format!("it returned without an error and without getting further than {before}");
                self.poison.set(failed.err().unwrap_or(Error::Unsupported { what: "the flush target", reason }));
            }
        }
    }
}

/// Runs a callback; its panic is its own affair and must not hit whoever happens to lead.
fn run(callback: impl FnOnce(Result<()>), outcome: Result<()>) {
    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
}

/// The place where one thread waits.
struct Slot {
    thread: Thread,
    turn: AtomicU8,
}

impl Slot {
    const WAITING: u8 = 0;
    const LEAD: u8 = 1;
    const DONE: u8 = 2;

    /// Waits for the turn; `true` to lead, `false` when the outcome is known.
    fn wait(&self) -> bool {
        while self.turn.load(Ordering::Acquire) == Self::WAITING {
            thread::park();
        }
        self.turn.load(Ordering::Relaxed) == Self::LEAD
    }

    fn end_wait(&self, turn: u8) {
        self.turn.store(turn, Ordering::Release);
        self.thread.unpark();
    }
}
