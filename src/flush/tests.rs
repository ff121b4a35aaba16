//! Group commit against a target without a disk, which counts its flushes and can be held, fail and panic.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use super::{FlushPolicy, FlushService, FlushTarget};
use crate::drive::Drive;
use crate::error::{Error, Result};
use crate::offset::LogOffset;

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Ending {
    #[default]
    Success,
    Failure,
    Panic,
    NoProgress,
}

/// A log of nothing but a length.
#[derive(Default)]
struct Fake {
    tail: AtomicU64,
    calls: AtomicU64,
    inside: AtomicUsize,
    ending: Mutex<Ending>,
    /// While it is `true` a flush that has read the tail goes no further.
    held: Mutex<bool>,
    released: Condvar,
    /// At most this many bytes a flush, if not zero.
    most: u64,
}

impl Fake {
    fn append(&self, bytes: u64) -> LogOffset {
        LogOffset::new(self.tail.fetch_add(bytes, Ordering::AcqRel) + bytes)
    }

    fn end_with(&self, ending: Ending) {
        *self.ending.lock().unwrap() = ending;
    }

    fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    fn wait_for_call(&self, number: u64) {
        spin_until(|| self.calls() >= number);
    }
}

impl FlushTarget for Fake {
    fn tail(&self) -> LogOffset {
        LogOffset::new(self.tail.load(Ordering::Acquire))
    }

    fn flush(&self) -> Result<LogOffset> {
        assert_eq!(self.inside.fetch_add(1, Ordering::AcqRel), 0, "one caller at a time");
        let tail = self.tail();
        self.calls.fetch_add(1, Ordering::AcqRel);
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.released.wait(held).unwrap();
        }
        drop(held);
        let ending = *self.ending.lock().unwrap();
        self.inside.fetch_sub(1, Ordering::AcqRel);
        match ending {
            Ending::Success if self.most > 0 => Ok(LogOffset::new(tail.get().min(self.calls() * self.most))),
            Ending::Success => Ok(tail),
            Ending::Failure => Err(Error::ReadOnly),
            Ending::Panic => panic!("the disk is gone"),
            Ending::NoProgress => Ok(LogOffset::ZERO),
        }
    }
}

fn spin_until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::yield_now();
    }
}

fn start(policy: FlushPolicy, drive: Drive) -> (Arc<Fake>, Arc<FlushService>) {
    start_with(Fake::default(), policy, drive)
}

fn start_with(fake: Fake, policy: FlushPolicy, drive: Drive) -> (Arc<Fake>, Arc<FlushService>) {
    let fake = Arc::new(fake);
    let service = FlushService::start(Arc::clone(&fake) as Arc<dyn FlushTarget>, policy, drive).unwrap();
    (fake, Arc::new(service))
}

fn far_off() -> FlushPolicy {
    FlushPolicy::Async { interval: Duration::from_secs(3600), unflushed_bytes: 1000, max_unflushed_bytes: 2000 }
}

/// Waits until this many threads stand in the queue.
fn wait_for_queue(service: &FlushService, threads: usize) {
    spin_until(|| service.queued() == threads);
}

#[test]
fn a_wait_flushes_once_and_a_durable_offset_needs_none() {
    for policy in [FlushPolicy::Sync, FlushPolicy::Manual, far_off()] {
        for drive in [Drive::Threads, Drive::Manual] {
            let (fake, service) = start(policy.clone(), drive);
            let end = fake.append(10);
            service.wait_durable(end).unwrap();
            service.wait_durable(end).unwrap();
            service.wait_durable(LogOffset::new(3)).unwrap();
            assert_eq!(service.flush().unwrap(), end);
            assert_eq!((service.durable_offset(), service.syncs(), fake.calls()), (end, 1, 1));
        }
    }
}

#[test]
fn who_comes_during_a_flush_shares_the_next_one() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    fake.hold();
    thread::scope(|scope| {
        let first = fake.append(1);
        let waiting = &service;
        scope.spawn(move || waiting.wait_durable(first).unwrap());
        fake.wait_for_call(1);
        for _ in 0..8 {
            scope.spawn(|| service.wait_durable(fake.append(1)).unwrap());
        }
        wait_for_queue(&service, 8);
        fake.release();
    });
    assert_eq!((service.durable_offset().get(), fake.calls(), service.syncs()), (9, 2, 2));
}

#[test]
fn a_leader_goes_on_until_its_own_bytes_are_durable() {
    let (fake, service) = start_with(Fake { most: 4, ..Fake::default() }, FlushPolicy::Sync, Drive::Threads);
    service.wait_durable(fake.append(10)).unwrap();
    assert_eq!((service.durable_offset().get(), service.syncs()), (10, 3));
}

#[test]
fn an_offset_above_the_tail_is_refused() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    fake.append(5);
    assert!(matches!(service.wait_durable(LogOffset::new(6)), Err(Error::OutOfRange { offset: 6, .. })));
    assert_eq!(fake.calls(), 0);
}

#[test]
fn no_wake_up_is_lost_among_many_threads() {
    const THREADS: u64 = 16;
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 3_000 };
    for drive in [Drive::Threads, Drive::Manual] {
        let (fake, service) = start(FlushPolicy::Sync, drive);
        let called = Arc::new(AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (fake, service, called) = (&fake, &service, &called);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let end = fake.append(1);
                        if (round + thread) % 8 == 0 {
                            let called = Arc::clone(called);
                            service.on_durable(end, move |outcome| {
                                outcome.unwrap();
                                called.fetch_add(1, Ordering::Relaxed);
                            });
                        } else {
                            service.wait_durable(end).unwrap();
                            assert!(service.durable_offset() >= end);
                        }
                    }
                });
            }
        });
        service.flush().unwrap();
        // The flush above may find everything durable while the last leader has yet to run its callbacks.
        spin_until(|| called.load(Ordering::Relaxed) == THREADS * ROUNDS / 8);
        assert_eq!(service.durable_offset().get(), THREADS * ROUNDS);
        assert_eq!(service.syncs(), fake.calls());
        assert!(fake.calls() <= THREADS * ROUNDS);
    }
}

#[test]
fn what_is_only_appended_is_flushed_by_the_thread() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    for _ in 0..if cfg!(miri) { 50 } else { 5_000 } {
        let end = fake.append(1);
        service.appended();
        spin_until(|| service.durable_offset() >= end);
    }
    assert!(fake.calls() <= 5_000);
}

#[test]
fn what_is_appended_while_another_leads_is_flushed_when_it_ends() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    fake.hold();
    thread::scope(|scope| {
        let first = fake.append(1);
        let waiting = &service;
        scope.spawn(move || waiting.wait_durable(first).unwrap());
        fake.wait_for_call(1);
        let end = fake.append(1);
        service.appended();
        fake.release();
        spin_until(|| service.durable_offset() >= end);
    });
    assert_eq!(service.syncs(), 2);
}

#[test]
fn async_flushes_at_its_interval_and_early_above_its_bytes() {
    let policy =
        FlushPolicy::Async { interval: Duration::from_millis(2), unflushed_bytes: 1, max_unflushed_bytes: 1 << 40 };
    let (fake, service) = start(policy, Drive::Threads);
    let end = fake.append(1);
    spin_until(|| service.durable_offset() == end);

    let (fake, service) = start(far_off(), Drive::Threads);
    fake.append(1000);
    service.appended();
    assert_eq!(service.durable_offset(), LogOffset::ZERO);
    let end = fake.append(1);
    service.appended();
    spin_until(|| service.durable_offset() == end);
    assert_eq!(fake.calls(), 1);
}

#[test]
fn appends_wait_for_room_above_the_largest_number_of_unflushed_bytes() {
    let (fake, service) = start(far_off(), Drive::Manual);
    fake.append(2000);
    service.wait_for_room().unwrap();
    assert_eq!(fake.calls(), 0);
    let end = fake.append(1);
    service.wait_for_room().unwrap();
    assert_eq!((service.durable_offset(), fake.calls()), (end, 1));
}

#[test]
fn without_a_thread_only_a_pump_or_a_wait_flushes() {
    for policy in [FlushPolicy::Sync, far_off()] {
        let (fake, service) = start(policy, Drive::Manual);
        let called = Arc::new(AtomicBool::new(false));
        let end = fake.append(5_000);
        service.appended();
        let seen = Arc::clone(&called);
        service.on_durable(end, move |outcome| seen.store(outcome.is_ok(), Ordering::Release));
        assert_eq!((fake.calls(), called.load(Ordering::Acquire)), (0, false));
        service.pump().unwrap();
        service.pump().unwrap();
        assert_eq!((fake.calls(), called.load(Ordering::Acquire)), (1, true));
    }
    let (fake, service) = start(FlushPolicy::Manual, Drive::Manual);
    let end = fake.append(1);
    service.pump().unwrap();
    assert_eq!(fake.calls(), 0);
    assert_eq!(service.flush().unwrap(), end);
}

#[test]
fn the_first_failure_reaches_everybody_and_is_the_last_flush() {
    for (ending, text) in [
        (Ending::Failure, "the log stopped after a failure: the store is open for reading only"),
        (Ending::Panic, "the log stopped after a failure: panicked: the disk is gone"),
        (
            Ending::NoProgress,
            "the log stopped after a failure: the flush target is not supported: \
             it returned without an error and without getting further than 3",
        ),
    ] {
        let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
        let durable = fake.append(3);
        service.wait_durable(durable).unwrap();
        fake.end_with(ending);
        fake.hold();
        let (answers, answered) = channel();
        thread::scope(|scope| {
            let wait = |end| {
                let (answers, service) = (answers.clone(), &service);
                scope.spawn(move || answers.send(service.wait_durable(end)).unwrap());
            };
            wait(fake.append(1));
            fake.wait_for_call(2);
            (0..4).for_each(|_| wait(fake.append(1)));
            wait_for_queue(&service, 4);
            for end in [fake.append(1), LogOffset::new(1_000)] {
                let answers = answers.clone();
                service.on_durable(end, move |outcome| answers.send(outcome).unwrap());
            }
            fake.release();
        });
        let later = answers.clone();
        service.on_durable(fake.append(1), move |outcome| later.send(outcome).unwrap());
        service.on_durable(durable, |outcome| outcome.unwrap());
        answers.send(service.flush().map(drop)).unwrap();
        answers.send(service.wait_durable(LogOffset::new(1_000))).unwrap();
        answers.send(service.pump()).unwrap();
        answers.send(service.check()).unwrap();
        answers.send(service.wait_for_room()).unwrap();
        answers.send(service.close()).unwrap();
        drop(answers);
        let errors: Vec<_> = answered.iter().map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 14);
        for error in errors {
            assert!(matches!(error, Error::Poisoned { .. }));
            assert_eq!(error.to_string(), text);
        }
        service.wait_durable(durable).unwrap();
        assert_eq!((fake.calls(), service.syncs(), service.durable_offset()), (2, 1, durable));
    }
}

#[test]
fn a_failure_in_the_background_shows() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    fake.end_with(Ending::Failure);
    fake.append(1);
    service.appended();
    spin_until(|| service.check().is_err());
    fake.append(1);
    service.appended();
    assert!(matches!(service.flush(), Err(Error::Poisoned { .. })));
    assert_eq!(fake.calls(), 1);
}

#[test]
fn callbacks_run_once_in_order_and_at_once_if_durable() {
    let (fake, service) = start(FlushPolicy::Manual, Drive::Threads);
    let (order, ordered) = channel();
    let ends: Vec<_> = (0..5).map(|_| fake.append(1)).collect();
    for end in ends {
        let order = order.clone();
        service.on_durable(end, move |outcome| order.send(outcome.map(|()| end.get()).unwrap()).unwrap());
    }
    let end = service.flush().unwrap();
    service.on_durable(end, move |outcome| order.send(outcome.map(|()| 9).unwrap()).unwrap());
    assert_eq!(ordered.iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 9]);
}

/// Appends, registers itself again and, every other time, waits: all from within a callback.
fn put_again(fake: Arc<Fake>, service: Arc<FlushService>, left: u64, done: std::sync::mpsc::SyncSender<()>) {
    if left == 0 {
        return done.send(()).unwrap();
    }
    let end = fake.append(1);
    let target = Arc::clone(&service);
    target.on_durable(end, move |outcome| {
        outcome.unwrap();
        if left.is_multiple_of(2) {
            service.wait_durable(fake.append(1)).unwrap();
            service.pump().unwrap();
        }
        put_again(fake, service, left - 1, done);
    });
}

#[test]
fn a_callback_may_append_wait_and_register_another() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    let (done, all_done) = sync_channel(1);
    put_again(Arc::clone(&fake), Arc::clone(&service), 100, done);
    all_done.recv().unwrap();
    assert_eq!(fake.tail().get(), 150);
}

#[test]
fn a_panic_in_a_callback_hits_nobody_else() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Manual);
    let end = fake.append(1);
    let called = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&called);
    service.on_durable(end, |_| panic!("on purpose"));
    service.on_durable(end, move |_| seen.store(true, Ordering::Release));
    service.wait_durable(end).unwrap();
    assert!(called.load(Ordering::Acquire));
    service.wait_durable(fake.append(1)).unwrap();
}

#[test]
fn close_flushes_the_rest_and_refuses_what_comes_later() {
    for policy in [FlushPolicy::Sync, FlushPolicy::Manual, far_off()] {
        let (fake, service) = start(policy, Drive::Threads);
        let end = fake.append(7);
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let note = |end: u64| {
            let outcomes = Arc::clone(&outcomes);
            service
                .on_durable(LogOffset::new(end), move |outcome| outcomes.lock().unwrap().push((end, outcome.is_ok())));
        };
        note(7);
        note(8);
        service.close().unwrap();
        note(6);
        note(9);
        outcomes.lock().unwrap().sort_unstable();
        assert_eq!(*outcomes.lock().unwrap(), [(6, true), (7, true), (8, false), (9, false)]);
        service.wait_durable(end).unwrap();
        service.close().unwrap();
        assert_eq!((service.durable_offset(), fake.calls()), (end, 1));
        let late = fake.append(1);
        service.appended();
        assert!(matches!(service.wait_durable(late), Err(Error::Closed)));
        assert!(matches!(service.flush(), Err(Error::Closed)));
        assert_eq!(fake.calls(), 1);
    }
}

#[test]
fn a_flush_against_close_ends_durable_or_refused() {
    for _ in 0..if cfg!(miri) { 10 } else { 300 } {
        let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
        let calls_at_close = OnceLock::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let end = fake.append(1);
                        service.appended();
                        match service.wait_durable(end) {
                            Ok(()) => assert!(service.durable_offset() >= end),
                            Err(Error::Closed) => return,
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            fake.wait_for_call(5);
            let before = fake.append(1);
            service.close().unwrap();
            calls_at_close.set(fake.calls()).unwrap();
            service.wait_durable(before).unwrap();
        });
        assert_eq!(Some(&fake.calls()), calls_at_close.get(), "nothing is flushed after close");
    }
}

#[test]
fn a_callback_may_close_the_service() {
    let (fake, service) = start(FlushPolicy::Sync, Drive::Threads);
    let (done, all_done) = sync_channel(1);
    let inner = Arc::clone(&service);
    service.on_durable(fake.append(1), move |_| done.send(inner.close().is_ok()).unwrap());
    assert!(all_done.recv().unwrap());
    assert!(matches!(service.wait_durable(fake.append(1)), Err(Error::Closed)));
}

#[test]
fn dropping_the_service_ends_its_callbacks() {
    let (fake, service) = start(far_off(), Drive::Threads);
    let (done, all_done) = sync_channel(1);
    service.on_durable(fake.append(1), move |outcome| done.send(outcome).unwrap());
    drop(service);
    assert!(matches!(all_done.recv().unwrap(), Err(Error::Closed)));
    assert_eq!(fake.calls(), 0);
}

#[test]
fn what_was_durable_before_needs_no_flush() {
    struct Old;
    impl FlushTarget for Old {
        fn tail(&self) -> LogOffset {
            LogOffset::new(9)
        }
        fn flush(&self) -> Result<LogOffset> {
            Err(Error::ReadOnly)
        }
        fn durable(&self) -> LogOffset {
            LogOffset::new(9)
        }
    }
    let service = FlushService::start(Arc::new(Old), FlushPolicy::Sync, Drive::Threads).unwrap();
    assert_eq!(service.flush().unwrap().get(), 9);
    service.close().unwrap();
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let async_with = |ms, unflushed_bytes, max_unflushed_bytes| FlushPolicy::Async {
        interval: Duration::from_millis(ms),
        unflushed_bytes,
        max_unflushed_bytes,
    };
    for policy in [async_with(0, 1, 2), async_with(1, 3, 2)] {
        let started = FlushService::start(Arc::new(Fake::default()), policy, Drive::Manual);
        assert!(matches!(started, Err(Error::InvalidOption { option: "flush", .. })));
    }
}

/// "By bytes only" was once an interval that no clock can show: the flush thread ended with a panic, nothing was flushed
/// any more, and nothing told so.
#[test]
fn an_interval_without_end_flushes_by_bytes() {
    let target = Arc::new(Fake::default());
    let policy = FlushPolicy::Async { interval: Duration::MAX, unflushed_bytes: 10, max_unflushed_bytes: 1 << 20 };
    let service = FlushService::start(target.clone(), policy, Drive::Threads).unwrap();
    let (sender, receiver) = channel();
    let end = target.append(11);
    service.on_durable(end, move |outcome| sender.send(outcome).unwrap());
    service.appended();
    receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    service.check().unwrap();
    service.close().unwrap();
}

#[test]
fn a_flush_thread_that_ended_is_no_secret() {
    struct Panicking;
    impl FlushTarget for Panicking {
        fn tail(&self) -> LogOffset {
            panic!("no tail")
        }
        fn flush(&self) -> Result<LogOffset> {
            Ok(LogOffset::ZERO)
        }
    }
    let policy = FlushPolicy::Async { interval: Duration::from_millis(1), unflushed_bytes: 1, max_unflushed_bytes: 1 };
    let service = FlushService::start(Arc::new(Panicking), policy, Drive::Threads).unwrap();
    spin_until(|| service.check().is_err());
    assert!(matches!(service.check(), Err(Error::TaskFailed { task: "flush", .. })));
}
