//! Failing calls: each call of a workload fails once, in each way that fits it.
//!
//! A workload is run once to see its calls, then again on a new disk for each call and each fault. Whatever fails, each
//! operation returns a typed error that carries the disk's answer; nothing panics and nothing hangs. After a failed
//! sync of a log file every append is refused as poisoned until the store is opened again, and the file is not synced
//! before that; after a full disk appends go on. Then the store is closed or crashed, opened, and judged by the oracle.
//!
//! `MQLOG_FAULTS_SEED` chooses other random workloads.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mqlog::{Appended, Error, LogOffset, MessageStore, QueueOffset};

use super::common::Random;
use super::common::oracle::{Crash, Oracle, Promise, Sent, Violation};
use super::common::parameter::parameter;
use super::enumerate::{Left, caught, judge, sample};
use super::workloads::{Place, QUEUES, Shape, Step, Workload, sent};
use crate::disk::simulated::{Call, Fault, SimulatedDisk};
use crate::disk::simulated_crash::Moment;
use crate::planted::{self, Planted};

/// Nothing takes as long as this; what does hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    FailedSync,
    Io,
    Full,
    TooManyFiles,
    ShortWrite(usize),
    /// The next call fails too, which is the second try where there is one.
    IoTwice,
    FullTwice,
}

impl Kind {
    /// In which ways an operation can fail.
    fn of(operation: &str) -> &'static [Self] {
        match operation {
            "sync" | "flush" => &[Self::FailedSync, Self::Full],
            "sync_dir" => &[Self::FailedSync, Self::Full, Self::TooManyFiles],
            "open" => &[Self::Io, Self::Full, Self::TooManyFiles],
            "list" => &[Self::Io, Self::TooManyFiles],
            "write" => {
                &[Self::Io, Self::Full, Self::ShortWrite(1), Self::ShortWrite(100), Self::IoTwice, Self::FullTwice]
            }
            "create" | "set_len" | "allocate" | "rename" => &[Self::Io, Self::Full],
            _ => &[Self::Io],
        }
    }

    fn faults(self) -> Vec<Fault> {
        match self {
            Self::FailedSync | Self::Io => vec![Fault::Error(EIO)],
            Self::Full => vec![Fault::Error(ENOSPC)],
            Self::TooManyFiles => vec![Fault::Error(EMFILE)],
            Self::ShortWrite(bytes) => vec![Fault::ShortWrite(bytes)],
            Self::IoTwice => vec![Fault::Error(EIO); 2],
            Self::FullTwice => vec![Fault::Error(ENOSPC); 2],
        }
    }

    fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::ShortWrite(_) | Self::FullTwice)
    }

    /// Short writes are counted together.
    fn counted(self) -> Self {
        if matches!(self, Self::ShortWrite(_)) { Self::ShortWrite(0) } else { self }
    }
}

/// What happens before calls fail: nothing, or steps that end in a crash.
#[derive(Debug, Clone)]
struct Scene {
    before: Vec<Step>,
    crash: Crash,
    workload: Workload,
}

/// Where a run of a scene begins.
#[derive(Debug)]
struct Start {
    place: Place,
    moment: Moment,
    oracle: Oracle,
    next: u64,
}

/// The fault of a run: its first call, and what fails there.
#[derive(Debug, Clone, Copy)]
struct Injected {
    call: u64,
    kind: Kind,
}

/// A run with a fault, or with none.
struct Runner<'a> {
    start: &'a Start,
    disk: SimulatedDisk,
    fault: Option<Injected>,
    store: Option<MessageStore>,
    oracle: Oracle,
    next: u64,
    sessions: i64,
    /// The first call of this session behind its opening.
    opened_at: u64,
    /// An append of this session was refused as poisoned.
    is_poisoned: bool,
    /// The sync of a log file failed in this session, at this call.
    failed_sync: Option<Call>,
    trace: Vec<Call>,
    placed: Vec<(Appended, Vec<u8>)>,
    /// The disk right after the operation that was hit, and what was known then.
    hit: Option<(Moment, Oracle, u64)>,
}

type Verdict<T = ()> = Result<T, Violation>;

fn violation<T>(text: impl Into<String>) -> Verdict<T> {
    Err(Violation(text.into()))
}

impl Start {
    fn of(scene: &Scene) -> Self {
        let place = Place::new(scene.workload.promise, scene.workload.shape);
        let oracle = Oracle::new(scene.workload.promise).with_failing_disk();
        let moment = SimulatedDisk::default().moment();
        let empty = Self { place, moment, oracle, next: 0 };
        if scene.before.is_empty() {
            return empty;
        }
        let mut runner = Runner::new(&empty, None);
        runner.run(&scene.before).expect("nothing fails here");
        let (disk, oracle, next) = runner.end();
        let (moment, crash) = (disk.moment(), scene.crash);
        let moment = if crash == Crash::Kill { moment.kill(0) } else { nothing_unsynced(&moment) };
        let mut oracle = oracle;
        let disk = moment.disk();
        let store = empty.place.open(&disk, 50).expect("it opens after a crash");
        oracle.check_opened(&store, crash).expect("the promise holds without faults");
        disk.switch_off();
        drop(store);
        Self { place: empty.place, moment, oracle, next }
    }
}

fn nothing_unsynced(moment: &Moment) -> Moment {
    let chances = moment.chances();
    moment.power_loss(&chances, &vec![0; chances.options.len()])
}

impl<'a> Runner<'a> {
    fn new(start: &'a Start, fault: Option<Injected>) -> Self {
        let disk = start.moment.disk();
        disk.trace();
        if let Some(Injected { call, kind }) = fault {
            kind.faults().into_iter().zip(call..).for_each(|(fault, call)| disk.fail(call, fault));
        }
        Self {
            start,
            disk,
            fault,
            store: None,
            oracle: start.oracle.clone(),
            next: start.next,
            sessions: 60,
            opened_at: 0,
            is_poisoned: false,
            failed_sync: None,
            trace: Vec::new(),
            placed: Vec::new(),
            hit: None,
        }
    }

    fn store(&self) -> &MessageStore {
        self.store.as_ref().expect("the store is open between two steps")
    }

    fn run(&mut self, steps: &[Step]) -> Verdict {
        self.open()?;
        for step in steps {
            self.step(step).map_err(|Violation(text)| Violation(format!("{step:?}: {text}")))?;
        }
        Ok(())
    }

    /// Ends the process.
    fn end(self) -> (SimulatedDisk, Oracle, u64) {
        self.disk.switch_off();
        drop(self.store);
        (self.disk, self.oracle, self.next)
    }

    /// Was the fault's first call among those that were made since the disk had this many?
    fn is_hit_since(&self, calls: u64) -> bool {
        self.fault.is_some_and(|fault| (calls..self.disk.calls()).contains(&fault.call))
    }

    /// Was any of its calls?
    fn is_any_hit_since(&self, calls: u64) -> bool {
        let made = calls..self.disk.calls();
        self.fault.is_some_and(|fault| (fault.call..).take(fault.kind.faults().len()).any(|call| made.contains(&call)))
    }

    /// Opens the store, once more if the fault hits that, and judges it.
    fn open(&mut self) -> Verdict {
        let calls = self.disk.calls();
        (self.is_poisoned, self.failed_sync) = (false, None);
        // The second call of a fault may hit the second try.
        let mut tries = 0;
        let store = loop {
            self.sessions += 1;
            match self.start.place.open(&self.disk, self.sessions) {
                Ok(store) => break store,
                Err(error) if tries < 2 && self.is_any_hit_since(calls) => self.check_error(&error)?,
                Err(error) => return violation(format!("it does not open: {error}")),
            }
            tries += 1;
        };
        let (known, before) = (self.oracle.clone(), self.disk.calls());
        let judged = self.oracle.check_opened(&store, Crash::Kill);
        if judged.is_err() && self.is_any_hit_since(before) {
            // The judge himself was hit, and what failed may not be tried again before the store is opened again.
            self.disk.mend();
            drop(store);
            self.oracle = known;
            return self.open();
        }
        judged.map_err(|Violation(text)| Violation(format!("opened again: {text}")))?;
        self.store = Some(store);
        self.opened_at = self.disk.calls();
        if self.is_hit_since(calls) { self.note_hit() } else { Ok(()) }
    }

    /// An error is of a kind that a caller can deal with, and carries what the disk said.
    fn check_error(&self, error: &Error) -> Verdict {
        let source = match error {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => source,
            Error::Poisoned { source } | Error::TaskFailed { source, .. } => return self.check_error(source),
            other => return violation(format!("not an error of the disk: {other:?}")),
        };
        let Some(Injected { kind, .. }) = self.fault else { return violation(format!("without a fault: {error:?}")) };
        let is_same = kind.faults().iter().any(|fault| match fault {
            Fault::Error(number) => source.raw_os_error() == Some(*number),
            Fault::ShortWrite(_) => source.kind() == ErrorKind::StorageFull,
        });
        if !is_same || error.is_disk_full() != kind.is_full() {
            return violation(format!("{kind:?} became {error:?}"));
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Verdict {
        let (calls, tail) = (self.disk.calls(), self.store().stats().tail);
        let done = self.act(step)?;
        if let Err(error) = &done {
            self.check_error(error)?;
        }
        if matches!(step, Step::Put(..) | Step::Batch(..)) {
            let is_refused = matches!(done, Err(Error::Poisoned { .. }));
            if self.is_poisoned && !is_refused {
                return violation(format!("appended to a poisoned log: {done:?}"));
            }
            if matches!(done, Err(Error::DiskFull { .. })) && self.store().stats().tail != tail {
                return violation("a full disk, and yet something was appended");
            }
        }
        self.is_poisoned |= matches!(done, Err(Error::Poisoned { .. })) && !matches!(step, Step::Reopen);
        self.oracle.saw_durable(self.store().durable_offset());
        if self.is_hit_since(calls) && !matches!(step, Step::Reopen) { self.note_hit() } else { Ok(()) }
    }

    /// Does a step. What it put counts as put if the put returned, whatever came after it.
    fn act(&mut self, step: &Step) -> Verdict<mqlog::Result<()>> {
        Ok(match *step {
            Step::Put(queue, body_bytes) => self.put(vec![sent(self.next, queue, body_bytes)]),
            Step::Batch(queue, count) => {
                let numbers = self.next..self.next + count as u64;
                self.put(numbers.map(|number| sent(number, queue, 8)).collect())
            }
            Step::Flush => self.store().flush().map(drop),
            Step::Read(queue) => {
                let (topic, queue_id) = QUEUES[queue % QUEUES.len()];
                let mut read = self.store().queue(topic, queue_id).iter_from(QueueOffset::ZERO);
                read.try_for_each(|message| message.map(drop))
            }
            Step::Pump => self.store().pump(),
            Step::Delete(hundredths) => {
                let range = self.store().log_range();
                let below = range.start.get() + (range.end.get() - range.start.get()) * hundredths / 100;
                self.oracle.deletes_before(LogOffset::new(below));
                let deleted = self.store().delete_before(LogOffset::new(below));
                if deleted.is_ok() {
                    self.oracle.deleted(self.store().log_range().start);
                }
                deleted.map(drop)
            }
            Step::Reopen => {
                let calls = self.disk.calls();
                let store = self.store.take().expect("the store is open between two steps");
                let end = store.log_range().end;
                let closed = store.close();
                if closed.is_ok() {
                    self.oracle.saw_durable(end);
                }
                let is_hit = self.is_hit_since(calls);
                if is_hit {
                    self.note_failed_sync()?;
                }
                self.check_syncs()?;
                self.open()?;
                if is_hit {
                    self.note_hit()?;
                }
                closed
            }
        })
    }

    fn put(&mut self, messages: Vec<Sent>) -> mqlog::Result<()> {
        self.next += messages.len() as u64;
        let put = self.oracle.starts(0, messages.iter().cloned());
        let appended: Vec<Appended> = match &messages[..] {
            [message] => vec![self.store().put(message.message())?],
            batch => self.store().put_batch(&batch.iter().map(Sent::message).collect::<Vec<_>>())?,
        };
        self.oracle.acknowledges(&put, &appended);
        let read = |place: &Appended| self.store().read(place.log_offset).map(|record| record.bytes().to_vec());
        let records: Vec<_> = appended.iter().map(read).collect::<mqlog::Result<_>>()?;
        self.placed.extend(appended.into_iter().zip(records.iter().cloned()));
        self.oracle.saw_bytes(&put, records);
        Ok(())
    }

    /// The fault has happened: what must hold from now on.
    fn note_hit(&mut self) -> Verdict {
        let Some(Injected { call, kind }) = self.fault else { return Ok(()) };
        // A second fault is for the second try of the same operation.
        self.disk.mend();
        let failed = self.note_failed_sync()?;
        let is_sync = matches!(failed.operation, "sync" | "flush" | "sync_dir");
        self.hit = Some((self.disk.moment(), self.oracle.clone(), self.next));
        self.check_readable()?;
        // A write of the log that fails twice stops it.
        let stops = kind == Kind::FullTwice && is_log_file(&failed.path);
        if call >= self.opened_at && kind.is_full() && !is_sync && !stops { self.check_goes_on() } else { Ok(()) }
    }

    fn fetch_trace(&mut self) {
        self.trace.extend(self.disk.take_trace());
        self.disk.trace();
    }

    /// The call that failed; what it means if it was the sync of a log file in this session.
    fn note_failed_sync(&mut self) -> Verdict<Call> {
        self.fetch_trace();
        let failed = self.trace.iter().find(|done| self.fault.is_some_and(|fault| fault.call == done.number));
        let Some(failed) = failed.cloned() else { return violation("the call that failed was not made") };
        if failed.number >= self.opened_at && is_sync_of_log_file(&failed) {
            self.failed_sync = Some(failed.clone());
            self.is_poisoned = true;
        }
        Ok(failed)
    }

    /// What was acknowledged can be read, whatever else has stopped.
    fn check_readable(&self) -> Verdict {
        let start = self.store().log_range().start;
        for (place, bytes) in self.placed.iter().filter(|(place, _)| place.log_offset >= start) {
            match self.store().read(place.log_offset) {
                Ok(record) if record.bytes()[..] == bytes[..] => {}
                other => return violation(format!("the message at {} reads as {other:?}", place.log_offset)),
            }
        }
        Ok(())
    }

    /// After a full disk the store goes on by itself.
    fn check_goes_on(&mut self) -> Verdict {
        let pumped = self.store().pump();
        let put = pumped.and_then(|()| self.put(vec![sent(self.next, 0, 8)]));
        put.map_err(|error| Violation(format!("after a full disk appends do not resume: {error}")))
    }

    /// A log file whose sync failed was not synced again by this session.
    fn check_syncs(&mut self) -> Verdict {
        let Some(failed) = self.failed_sync.take() else { return Ok(()) };
        self.fetch_trace();
        let mut later = self.trace.iter().filter(|call| call.number > failed.number && call.path == failed.path);
        let again = later.find(|call| is_sync_of_log_file(call));
        again.map_or(Ok(()), |call| violation(format!("synced again after a failed sync: {call:?}")))
    }
}

fn is_log_file(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("commitlog"))
}

fn is_sync_of_log_file(call: &Call) -> bool {
    matches!(call.operation, "sync" | "flush") && is_log_file(&call.path)
}

/// What was injected and judged.
#[derive(Debug, Default)]
struct Counts {
    scenes: u64,
    injections: BTreeMap<Kind, u64>,
    /// Syncs of log files that failed.
    log_syncs: u64,
    judged: u64,
}

impl Counts {
    fn all(&self) -> u64 {
        self.injections.values().sum()
    }
}

/// Runs a scene with one fault, and judges what it left.
fn inject(scene: &Scene, start: &Start, fault: Injected, counts: &mut Counts) -> Verdict {
    let mut runner = Runner::new(start, Some(fault));
    runner.run(&scene.workload.steps)?;
    let mut left = Vec::new();
    let turn = fault.call + fault.kind.faults().len() as u64;
    if let Some((moment, oracle, next)) = runner.hit.take() {
        let crash = if turn.is_multiple_of(2) { Crash::Kill } else { Crash::PowerLoss };
        left.push((moment, oracle, next, crash));
    }
    let end = (runner.disk.moment(), runner.oracle.clone(), runner.next);
    let mut random = Random(fault.call);
    let chances = end.0.chances();
    let sampled = end.0.power_loss(&chances, &sample(&chances, 3 + fault.call as usize % 8, &mut random));
    left.push((sampled, end.1.clone(), end.2, Crash::PowerLoss));
    left.push((nothing_unsynced(&end.0), end.1.clone(), end.2, Crash::PowerLoss));
    left.push((end.0.kill(0), end.1, end.2, Crash::Kill));
    if runner.store().health().is_err() {
        // Closed as well as it can be, and opened by the same system, which believes that it has synced everything.
        runner.step(&Step::Reopen)?;
        let message = sent(runner.next, 0, 30);
        runner.oracle.put_and_get(runner.store.as_ref().expect("it was opened"), 0, message)?;
        runner.next += 1;
        runner.oracle.saw_durable(runner.store().durable_offset());
        left.push((nothing_unsynced(&runner.disk.moment()), runner.oracle.clone(), runner.next, Crash::PowerLoss));
    }
    runner.fetch_trace();
    let failed = runner.trace.iter().find(|call| call.number == fault.call).cloned();
    let broken = runner.disk.broken_rules();
    runner.check_syncs()?;
    drop(runner.end());
    if !broken.is_empty() {
        return violation(broken.join(", "));
    }
    let Some(failed) = failed else { return violation("the call was never made") };
    counts.log_syncs += u64::from(is_sync_of_log_file(&failed));
    *counts.injections.entry(fault.kind.counted()).or_default() += 1;
    for (index, (mut moment, oracle, next, crash)) in left.into_iter().enumerate() {
        if crash == Crash::PowerLoss && index == 0 {
            moment = nothing_unsynced(&moment);
        }
        counts.judged += 1;
        let left = Left { place: &start.place, moment: moment.kill(0), oracle: &oracle, version: 0, crash, next };
        // What is put then has to survive a power loss, or a kill now and then.
        judge(&left, if turn.is_multiple_of(4) { turn } else { turn | 2 }, false)
            .map_err(|Violation(text)| Violation(format!("state {index}, {crash:?}: {text}")))?;
    }
    Ok(())
}

/// Injects every fault into every call of a scene. `says` gets what is about to happen.
fn explore(scene: &Scene, counts: &mut Counts, says: &dyn Fn(String)) -> Verdict {
    says(format!("{scene:?}"));
    counts.scenes += 1;
    let start = Start::of(scene);
    let mut runner = Runner::new(&start, None);
    runner.run(&scene.workload.steps)?;
    runner.fetch_trace();
    let calls = std::mem::take(&mut runner.trace);
    drop(runner.end());
    for call in calls {
        for kind in Kind::of(call.operation) {
            let fault = Injected { call: call.number, kind: *kind };
            says(format!("{scene:?}: {kind:?} at {call:?}"));
            caught(|| inject(scene, &start, fault, counts))
                .map_err(|Violation(text)| Violation(format!("{scene:?}: {kind:?} at {call:?}: {text}")))?;
        }
    }
    Ok(())
}

/// Does something in a thread of its own, which has to tell something from time to time.
fn watched<T: Send + 'static>(work: impl FnOnce(&dyn Fn(String)) -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(move || work(&|text| drop(sender.send(text))));
    let mut last = String::new();
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(text) => last = text,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs: {last}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

const SHAPE: Shape = Shape { log_file_bytes: 1024, queue_file_entries: 2, index_slots: 4, index_entries: 4 };

/// The scenes that everybody would think of.
fn fixed(promise: Promise, queues: usize) -> Vec<Scene> {
    use Step::{Batch, Delete, Flush, Pump, Put, Read, Reopen};
    let last = queues - 1;
    let all: [(&[Step], Crash, &[Step]); 7] = [
        (&[], Crash::Kill, &[Put(0, 30), Pump, Put(last, 30), Flush, Batch(0, 3), Pump, Read(0)]),
        (&[], Crash::Kill, &[Put(0, 380), Put(last, 380), Pump, Put(0, 380), Put(0, 30), Pump, Put(last, 30)]),
        (&[Put(0, 380), Put(last, 380)], Crash::Kill, &[Put(0, 380), Pump, Delete(100), Put(0, 30), Pump]),
        (&[Put(0, 30), Pump, Put(last, 30)], Crash::Kill, &[Put(0, 30), Read(last), Pump, Put(0, 30)]),
        (&[Batch(0, 3), Flush, Put(last, 100)], Crash::PowerLoss, &[Batch(0, 2), Pump, Flush, Put(last, 30)]),
        (&[], Crash::Kill, &[Put(0, 30), Reopen, Put(last, 30)]),
        (&[Put(0, 30), Put(0, 30), Pump], Crash::Kill, &[Put(last, 380), Pump, Reopen]),
    ];
    let scene = |(before, crash, steps): (&[Step], Crash, &[Step])| {
        let workload = Workload { seed: 0, promise, shape: SHAPE, steps: steps.to_vec() };
        Scene { before: before.to_vec(), crash, workload }
    };
    all.into_iter().map(scene).collect()
}

/// A random scene; it closes its store before the faults at most, since a clean close takes its time.
fn random(seed: u64, promise: Promise, queues: usize) -> Scene {
    let mut workload = Workload::random(seed, promise, queues);
    let before = workload.steps.drain(..seed as usize % 4).collect();
    workload.steps.retain(|step| *step != Step::Reopen);
    workload.steps.truncate(8);
    Scene { before, crash: if seed.is_multiple_of(3) { Crash::PowerLoss } else { Crash::Kill }, workload }
}

/// At least so many injections for each test, a part of them failed syncs of the log.
const LEAST: u64 = 5_000;

fn injected(promise: Promise, queues: usize, name: &'static str) {
    let counts = watched(move |says| {
        let (mut counts, begun) = (Counts::default(), Instant::now());
        let seed = parameter("MQLOG_FAULTS_SEED", 1) * 1_000_000 + queues as u64 * 100_000;
        let scenes = fixed(promise, queues).into_iter().chain((seed..).map(|seed| random(seed, promise, queues)));
        for (index, scene) in scenes.enumerate() {
            if index >= 7 && counts.all() >= LEAST {
                break;
            }
            if let Err(Violation(text)) = explore(&scene, &mut counts, says) {
                panic!("{name}: {text}");
            }
        }
        println!("{name}: {} injections, {counts:?} in {:?}", counts.all(), begun.elapsed());
        counts
    });
    let of = |kind| counts.injections.get(&kind).copied().unwrap_or(0);
    let floors = [(Kind::FailedSync, 400), (Kind::Io, 1_000), (Kind::Full, 1_000), (Kind::TooManyFiles, 300)];
    for (kind, least) in floors.into_iter().chain([(Kind::ShortWrite(0), 400), (Kind::IoTwice, 200)]) {
        assert!(of(kind) >= least, "{name}: {kind:?}: {} of {least}", of(kind));
    }
    assert!(counts.all() >= LEAST && counts.log_syncs > 40, "{name}: {counts:?}");
}

#[test]
fn whatever_fails_a_sync_store_of_one_queue_keeps_its_promise() {
    injected(Promise::Sync, 1, "faults, sync, one queue");
}

#[test]
fn whatever_fails_a_sync_store_of_several_queues_keeps_its_promise() {
    injected(Promise::Sync, 5, "faults, sync, several queues");
}

#[test]
fn whatever_fails_an_async_store_of_one_queue_keeps_its_promise() {
    injected(Promise::Async, 1, "faults, async, one queue");
}

#[test]
fn whatever_fails_an_async_store_of_several_queues_keeps_its_promise() {
    injected(Promise::Async, 5, "faults, async, several queues");
}

/// The suite sees a bug, and nothing without it.
fn is_found(bug: Planted, promise: Promise) {
    let explored = move |bug| {
        watched(move |says| {
            let mut counts = Counts::default();
            let scene = fixed(promise, 1).swap_remove(0);
            planted::with(bug, || explore(&scene, &mut counts, says))
        })
    };
    assert_eq!(explored(None), Ok(()), "{bug:?}: without the bug");
    let found = explored(Some(bug));
    println!("planted {bug:?}: {found:?}");
    assert!(found.is_err(), "{bug:?} was not found");
}

#[test]
fn a_failed_sync_that_is_taken_for_done_is_found() {
    is_found(Planted::FailedSyncIgnored, Promise::Sync);
    is_found(Planted::FailedSyncIgnored, Promise::Async);
}

#[test]
fn a_failed_sync_that_is_tried_again_is_found() {
    is_found(Planted::FailedSyncRetried, Promise::Sync);
    is_found(Planted::FailedSyncRetried, Promise::Async);
}
