//! Group commit: one thread at a time leads, the others wait in slots of their own.
//!
//! ```text
//! wait(end)   durable? done.  nobody leads? lead.  else stand in the queue and park
//! lead        target.flush(), alone and without a lock; under the lock take out of the queue who is done, hand the lead
//!             to the first of the others or give it up; then wake the new leader, wake exactly who is done, callbacks
//! ```
//! The lead is never given up while a thread stands in the queue: whoever parks is either done, or will lead. A
//! callback alone does not keep the lead: under [`FlushPolicy::Sync`] the flush thread takes over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::{FlushPolicy, FlushTarget};
use crate::drive::{Pumped, Waker, panicked};
use crate::error::{Error, Result};
use crate::offset::LogOffset;
use crate::progress::{Poison, lock};

type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// Says to [`Group::wait_unless`] what a closed group means to the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnClosed {
    Refuse,
    FlushAnyway,
}

/// The state of a group commit.
pub(super) struct Group {
    pub(super) target: Arc<dyn FlushTarget>,
    pub(super) policy: FlushPolicy,
    pub(super) poison: Poison,
    durable: AtomicU64,
    syncs: AtomicU64,
    /// Does somebody lead? Written under the queue's lock.
    leading: AtomicBool,
    /// Is there something that nobody waits for, but that should become durable soon? Taken back by every sync.
    asked: AtomicBool,
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
    pub(super) fn new(target: Arc<dyn FlushTarget>, policy: FlushPolicy) -> Self {
        let durable = target.durable().get();
        Self {
            target,
            policy,
            poison: Poison::default(),
            durable: AtomicU64::new(durable),
            syncs: AtomicU64::new(0),
            leading: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            flusher: OnceLock::new(),
            queue: Mutex::default(),
        }
    }

    /// Names the flush thread, which is woken when nobody leads and something is to be flushed.
    pub(super) fn set_flusher(&self, waker: Arc<Waker>) {
        self.flusher.get_or_init(|| waker);
    }

    pub(super) fn durable(&self) -> LogOffset {
        LogOffset::new(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Returns how many threads stand in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        lock(&self.queue).threads.len()
    }

    /// Returns how many bytes of the log are not durable.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.target.tail().get().saturating_sub(self.durable().get())
    }

    /// Waits until everything below `end` is durable, leading if nobody does.
    pub(super) fn wait(&self, end: LogOffset) -> Result<()> {
        self.wait_unless(end, OnClosed::Refuse)
    }

    fn wait_unless(&self, end: LogOffset, on_closed: OnClosed) -> Result<()> {
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
        if queue.closed && on_closed == OnClosed::Refuse {
            return Err(Error::Closed);
        }
        if !self.leading.load(Ordering::Relaxed) {
            self.leading.store(true, Ordering::Relaxed);
            drop(queue);
            return self.lead(end);
        }
        let slot = Slot::of_this_thread();
        queue.threads.push((end, Arc::clone(&slot)));
        drop(queue);
        match slot.wait() {
            Turn::Lead => self.lead(end),
            Turn::Done => self.outcome(end).expect("only a durable offset or the poison ends a wait"),
        }
    }

    /// Runs the callback once everything below `end` is durable, or never will be.
    pub(super) fn call_when_durable(&self, end: LogOffset, callback: Callback) {
        let mut queue = lock(&self.queue);
        let closed = queue.closed.then_some(Err(Error::Closed));
        if let Some(outcome) = self.outcome(end).or(closed) {
            drop(queue);
            return run(callback, outcome);
        }
        queue.callbacks.push((end, callback));
        drop(queue);
        if self.policy == FlushPolicy::Sync {
            self.ask();
        }
    }

    /// Has the flush thread make durable what was appended so far, unless whoever leads does.
    ///
    /// The fence stands against the one in [`Group::call_flusher`]: either this sees that the lead is free, or who gave
    /// it up sees what is asked for.
    pub(super) fn ask(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        if !self.leading.load(Ordering::Relaxed) {
            self.wake_flusher();
        }
    }

    /// Wakes the flush thread if it sleeps.
    pub(super) fn wake_flusher(&self) {
        if let Some(flusher) = self.flusher.get() {
            flusher.wake();
        }
    }

    /// The flush thread's pump under [`FlushPolicy::Sync`].
    pub(super) fn pump_asked(&self) -> Result<Pumped> {
        let idle = !self.asked.load(Ordering::Acquire) || self.leading.load(Ordering::Relaxed);
        if idle || self.unflushed_bytes() == 0 || lock(&self.queue).closed {
            return Ok(Pumped::Idle(None));
        }
        self.wait(self.target.tail())?;
        Ok(Pumped::Again)
    }

    /// The flush thread's pump under [`FlushPolicy::Async`].
    pub(super) fn pump_interval(&self, due: &mut Instant, interval: Duration, unflushed_bytes: u64) -> Result<Pumped> {
        if lock(&self.queue).closed {
            return Ok(Pumped::Idle(None));
        }
        let now = Instant::now();
        if now >= *due || self.unflushed_bytes() > unflushed_bytes {
            *due = now + interval;
            self.wait(self.target.tail())?;
        }
        Ok(Pumped::Idle(Some(due.saturating_duration_since(Instant::now()))))
    }

    /// Flushes what there is and refuses later waits; what was appended before this call ends well even if its wait
    /// comes late.
    pub(super) fn close(&self) -> Result<()> {
        let flushed = self.wait(self.target.tail());
        self.refuse();
        flushed.and_then(|()| self.wait_unless(self.target.tail(), OnClosed::FlushAnyway))
    }

    /// Refuses later waits and callbacks.
    pub(super) fn refuse(&self) {
        lock(&self.queue).closed = true;
    }

    /// Ends the callbacks for which nothing will come any more.
    pub(super) fn end_callbacks(&self) {
        let callbacks = std::mem::take(&mut lock(&self.queue).callbacks);
        for (end, callback) in callbacks {
            run(callback, self.outcome(end).unwrap_or(Err(Error::Closed)));
        }
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
            let go_on = end > known;
            let next = if go_on || queue.threads.is_empty() { None } else { Some(queue.threads.remove(0).1) };
            let free = !go_on && next.is_none();
            if free {
                self.leading.store(false, Ordering::Relaxed);
            }
            drop(queue);
            if let Some(next) = next {
                next.end_wait(Turn::Lead);
            }
            for (_, slot) in done {
                slot.end_wait(Turn::Done);
            }
            if free {
                self.call_flusher();
            }
            if !go_on {
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
        if self.flusher.get().is_none() || self.policy != FlushPolicy::Sync {
            return;
        }
        fence(Ordering::SeqCst);
        if self.asked.load(Ordering::Relaxed) && self.unflushed_bytes() > 0 {
            self.wake_flusher();
        }
    }

    /// Has the target flush once. The first failure is the last call.
    fn sync(&self) {
        debug_assert!(!self.poison.is_set(), "nothing is flushed after a failure");
        if self.asked.load(Ordering::Relaxed) {
            // What was asked for before this exchange was appended before it, so the target sees it.
            self.asked.swap(false, Ordering::AcqRel);
        }
        let before = self.durable();
        let flushed = catch_unwind(AssertUnwindSafe(|| self.target.flush()));
        match flushed.unwrap_or_else(|panic| Err(panicked(&*panic))) {
            Ok(reached) if reached > before => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.durable.store(reached.get(), Ordering::Release);
            }
            Ok(_) => {
                let reason = format!("it returned without an error and without getting further than {before}");
                self.poison.set(Error::Unsupported { what: "the flush target", reason });
            }
            Err(error) => {
                self.poison.set(error);
            }
        }
    }
}

/// Runs a callback; its panic is its own affair and must not hit whoever happens to lead.
fn run(callback: Callback, outcome: Result<()>) {
    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
}

/// How a wait in the queue ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Lead,
    Done,
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

    /// Returns this thread's slot, waiting. A thread waits at one place at a time, so it needs only one.
    fn of_this_thread() -> Arc<Self> {
        fn new() -> Arc<Slot> {
            Arc::new(Slot { thread: thread::current(), turn: AtomicU8::new(Slot::WAITING) })
        }
        thread_local!(static SLOT: Arc<Slot> = new());
        // A thread that is ending may have lost its slot already.
        let slot = SLOT.try_with(Arc::clone).unwrap_or_else(|_| new());
        slot.turn.store(Self::WAITING, Ordering::Relaxed);
        slot
    }

    fn wait(&self) -> Turn {
        loop {
            match self.turn.load(Ordering::Acquire) {
                Self::LEAD => return Turn::Lead,
                Self::DONE => return Turn::Done,
                _ => thread::park(),
            }
        }
    }

    fn end_wait(&self, turn: Turn) {
        let turn = if turn == Turn::Lead { Self::LEAD } else { Self::DONE };
        self.turn.store(turn, Ordering::Release);
        self.thread.unpark();
    }
}
