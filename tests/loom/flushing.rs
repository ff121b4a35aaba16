//! Group commit, against a target that is nothing but a length.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use super::{Plain, Signal};
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::flush::{FlushPolicy, FlushService, FlushTarget};
use crate::offset::LogOffset;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{lock, thread};

/// Counts what was appended and what is durable.
#[derive(Debug)]
struct Target {
    tail: AtomicU64,
    synced: AtomicU64,
    /// Whoever flushes is alone, and comes after who did before.
    turn: Plain,
    calls: AtomicUsize,
    /// The number of the call that fails; there must be none after it.
    fails_at: usize,
    /// How far it is synced, for those who can sleep until it is.
    reached: Mutex<u64>,
    moved: Condvar,
}

impl Target {
    fn new(fails_at: usize) -> Arc<Self> {
        Arc::new(Self {
            tail: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            turn: Plain::default(),
            calls: AtomicUsize::new(0),
            fails_at,
            reached: Mutex::new(0),
            moved: Condvar::new(),
        })
    }

    fn append(&self) -> LogOffset {
        LogOffset::new(self.tail.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn wait_until_synced(&self, end: LogOffset) {
        let mut reached = lock(&self.reached);
        while *reached < end.get() {
            reached = self.moved.wait(reached).expect("loom has no poisoned locks");
        }
    }
}

impl FlushTarget for Target {
    fn tail(&self) -> LogOffset {
        LogOffset::new(self.tail.load(Ordering::Acquire))
    }

    fn flush(&self) -> Result<LogOffset> {
        let tail = self.tail();
        self.turn.change();
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(self.fails_at == 0 || call <= self.fails_at, "no call comes after a failure");
        if call == self.fails_at {
            return Err(Error::ReadOnly);
        }
        self.synced.store(tail.get(), Ordering::Relaxed);
        *lock(&self.reached) = tail.get();
        self.moved.notify_all();
        Ok(tail)
    }
}

fn start(target: &Arc<Target>, policy: FlushPolicy) -> Arc<FlushService> {
    Arc::new(FlushService::start(Arc::clone(target) as _, policy, Drive::Threads).unwrap())
}

/// Appends and waits.
fn commit(target: &Target, service: &FlushService) -> Result<()> {
    let end = target.append();
    committed(target, service, end)
}

/// Waits for what was appended; what was said to be durable is.
fn committed(target: &Target, service: &FlushService, end: LogOffset) -> Result<()> {
    let outcome = service.wait_durable(end);
    match &outcome {
        Ok(()) => {
            assert!(target.synced.load(Ordering::Relaxed) >= end.get(), "durable is what a flush covered");
            assert!(service.durable_offset() >= end);
        }
        Err(error) => assert!(matches!(error, Error::Poisoned { .. } | Error::Closed), "{error}"),
    }
    outcome
}

fn committing(target: &Arc<Target>, service: &Arc<FlushService>) -> thread::JoinHandle<Result<()>> {
    let (target, service) = (Arc::clone(target), Arc::clone(service));
    thread::spawn(move || commit(&target, &service))
}

/// Two commit at once: each is served by itself or by the other.
pub(super) fn group_commit() {
    let target = Target::new(0);
    let service = start(&target, FlushPolicy::Manual);
    let other = committing(&target, &service);
    commit(&target, &service).unwrap();
    other.join().unwrap().unwrap();
    assert!((1..=2).contains(&service.syncs()));
}

/// A flush fails: it is the last, who was durable before stays so, and everybody else hears the same.
pub(super) fn group_commit_with_poison() {
    for fails_at in [1, 2] {
        let target = Target::new(fails_at);
        let service = start(&target, FlushPolicy::Manual);
        let other = committing(&target, &service);
        let outcomes = [commit(&target, &service), other.join().unwrap()];
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert_eq!(failed > 0, service.check().is_err());
        assert!(if fails_at == 1 { failed == 2 } else { failed < 2 });
    }
}

/// Three commit at once: the lead goes on to who was not served.
pub(super) fn group_commit_of_three() {
    let target = Target::new(0);
    let service = start(&target, FlushPolicy::Manual);
    let others = [committing(&target, &service), committing(&target, &service)];
    commit(&target, &service).unwrap();
    others.into_iter().for_each(|other| other.join().unwrap().unwrap());
    assert!((1..=3).contains(&service.syncs()));
}

/// What was appended without a wait becomes durable soon, whoever leads meanwhile.
pub(super) fn nobody_waits_for_an_append() {
    let target = Target::new(0);
    let service = start(&target, FlushPolicy::Sync);
    let other = committing(&target, &service);
    let end = target.append();
    service.appended();
    target.wait_until_synced(end);
    other.join().unwrap().unwrap();
    service.close().unwrap();
}

/// The service closes while a thread commits: what it appended before that is durable, however late it waits; or it
/// hears that it came too late.
pub(super) fn flush_against_close() {
    let target = Target::new(0);
    let service = start(&target, FlushPolicy::Manual);
    let early = target.append();
    let other = thread::spawn({
        let (target, service) = (Arc::clone(&target), Arc::clone(&service));
        move || {
            let end = target.append();
            // A note that is no part of the model: std's, so that it costs no orders.
            let refused = Arc::new(std::sync::atomic::AtomicBool::new(false));
            service.on_durable(end, {
                let refused = Arc::clone(&refused);
                move |outcome| refused.store(outcome.is_err(), Ordering::Relaxed)
            });
            // A callback that is not refused at once was taken before the service was closed, so the append came before.
            let is_late = refused.load(Ordering::Relaxed);
            let outcome = committed(&target, &service, end);
            (end, is_late, outcome.is_ok(), refused)
        }
    });
    service.close().unwrap();
    service.wait_durable(early).unwrap();
    let (end, is_late, is_durable, refused) = other.join().unwrap();
    assert_eq!(refused.load(Ordering::Relaxed), is_late, "a callback that was taken hears that its append is durable");
    let after = service.wait_durable(end);
    assert!(is_late || after.is_ok(), "what was appended before the service was closed is durable");
    assert!(!is_durable || after.is_ok());
    assert!(matches!(service.wait_durable(target.append()), Err(Error::Closed)));
}

/// A callback is called once, though the service closes; with a thread that flushes for it.
pub(super) fn a_callback_against_close() {
    let target = Target::new(0);
    let service = start(&target, FlushPolicy::Sync);
    let (called, calls) = (Arc::new(Signal::default()), Arc::new(AtomicUsize::new(0)));
    let other = thread::spawn({
        let (target, service) = (Arc::clone(&target), Arc::clone(&service));
        let (called, calls) = (Arc::clone(&called), Arc::clone(&calls));
        move || {
            let end = target.append();
            service.on_durable(end, move |outcome| {
                let is_durable = target.synced.load(Ordering::Relaxed) >= end.get();
                assert!(is_durable || matches!(outcome, Err(Error::Closed)));
                calls.fetch_add(1, Ordering::Relaxed);
                called.give();
            });
        }
    });
    service.close().unwrap();
    other.join().unwrap();
    called.wait();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
