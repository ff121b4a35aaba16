//! What is done to a store while its disk keeps every state.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use mqlog::{Appended, Clock, Drive, FlushPolicy, LogOffset, MessageStore, QueueOffset, StoreOptions};

use super::common::Random;
use super::common::oracle::{Oracle, Promise, Sent};
use crate::disk::simulated::SimulatedDisk;
use crate::disk::simulated_crash::Moment;

/// Stores in one process need names of their own, since a store is open once.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// Time that goes on by a millisecond whenever somebody looks.
#[derive(Debug)]
struct Ticks(AtomicI64);

impl Clock for Ticks {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Sizes of a store's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) log_file_bytes: u64,
    pub(super) queue_file_entries: u32,
    pub(super) index_slots: u32,
    pub(super) index_entries: u32,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A message for a queue, with a body of this length.
    Put(usize, usize),
    /// A batch of this many messages.
    Batch(usize, usize),
    Flush,
    /// Reads all of a queue, and so dispatches.
    Read(usize),
    /// Does the background work: dispatch, checkpoint, watermark, preparing.
    Pump,
    /// Deletes what lies below this many hundredths of the log.
    Delete(u64),
    /// Closes the store and opens it again.
    Reopen,
}

/// What is done, to what kind of store.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) seed: u64,
    pub(super) promise: Promise,
    pub(super) shape: Shape,
    pub(super) steps: Vec<Step>,
}

/// Queues by number: all names have one length, so that records have.
pub(super) const QUEUES: [(&str, i32); 5] = [("alpha", 0), ("alpha", 1), ("gamma", 0), ("delta", 0), ("delta", 7)];

/// A message whose body begins with its number.
pub(super) fn sent(number: u64, queue: usize, body_bytes: usize) -> Sent {
    let (topic, queue_id) = QUEUES[queue % QUEUES.len()];
    let mut body = format!("{number:08}").into_bytes();
    let mut random = Random(number);
    body.resize_with(body_bytes.max(8), || random.next() as u8);
    let keys = vec![format!("k{:03}", number % 1000), format!("all{}", number % 2)];
    Sent { topic: topic.to_owned(), queue_id, tags: Some("t".to_owned()), keys, body }
}

impl Workload {
    /// A random workload over a number of queues.
    pub(super) fn random(seed: u64, promise: Promise, queues: usize) -> Self {
        let mut random = Random(seed);
        let mut pick = |from: &[u64]| from[random.below(from.len() as u64) as usize];
        let shape = Shape {
            log_file_bytes: pick(&[1024, 1024, 2048]),
            queue_file_entries: pick(&[1, 2, 4]) as u32,
            index_slots: pick(&[2, 4, 130]) as u32,
            index_entries: pick(&[3, 6, 16]) as u32,
        };
        let body = pick(&[8, 30, 100, 380]) as usize;
        let count = 5 + random.below(10);
        let steps = (0..count).map(|_| {
            let queue = random.below(queues as u64) as usize;
            match random.below(20) {
                0..9 => Step::Put(queue, if random.below(4) == 0 { body + 50 } else { body }),
                9..11 => Step::Batch(queue, 2 + random.below(2) as usize),
                11..13 => Step::Flush,
                13..15 => Step::Read(queue),
                15..18 => Step::Pump,
                18 => Step::Delete(30 + random.below(70)),
                _ => Step::Reopen,
            }
        });
        Self { seed, promise, shape, steps: steps.collect() }
    }
}

/// A store's place: its folder, and how it is opened.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) promise: Promise,
    pub(super) shape: Shape,
}

impl Place {
    pub(super) fn new(promise: Promise, shape: Shape) -> Self {
        let root = PathBuf::from(format!("/simulated-{}", NAMES.fetch_add(1, Ordering::Relaxed)));
        Self { root, promise, shape }
    }

    /// Opens the store on a disk; each session of one store is at a later time.
    pub(super) fn open(&self, disk: &SimulatedDisk, session: i64) -> mqlog::Result<MessageStore> {
        let flush = match self.promise {
            Promise::Sync => FlushPolicy::Sync,
            Promise::Async => FlushPolicy::Manual,
        };
        let clock = Arc::new(Ticks(AtomicI64::new(1_700_000_000_000 + session * 1_000_000)));
        let Shape { log_file_bytes, queue_file_entries, index_slots, index_entries } = self.shape;
        let options = StoreOptions::new(&self.root).log_file_bytes(log_file_bytes);
        let options = options.queue_file_entries(queue_file_entries).index_slots(index_slots);
        let options = options.index_entries(index_entries).flush(flush).drive(Drive::Manual).clock(clock);
        // A checkpoint comes whenever the store is pumped, and never by time.
        let options = options.checkpoint_bytes(1).checkpoint_interval(Duration::from_secs(1 << 20));
        MessageStore::open(options.disk(Arc::new(disk.clone())))
    }
}

/// What a run left: the disk's states, and what the caller knew when.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) place: Place,
    pub(super) moments: Vec<Moment>,
    /// From which moment on the oracle knew this.
    pub(super) known: Vec<(usize, Oracle)>,
    /// The number of the next message.
    pub(super) next: u64,
}

struct Runner {
    disk: SimulatedDisk,
    place: Place,
    store: Option<MessageStore>,
    oracle: Oracle,
    known: Vec<(usize, Oracle)>,
    next: u64,
    sessions: i64,
}

/// Runs a workload on a new disk.
pub(super) fn run(workload: &Workload) -> Run {
    let place = Place::new(workload.promise, workload.shape);
    let disk = SimulatedDisk::default();
    disk.record();
    let store = place.open(&disk, 0).expect("a new store opens");
    let oracle = Oracle::new(workload.promise);
    let known = vec![(0, oracle.clone())];
    let mut runner = Runner { disk, place, store: Some(store), oracle, known, next: 0, sessions: 1 };
    for step in &workload.steps {
        runner.step(step);
        runner.learn();
    }
    let moments = runner.disk.take_moments();
    runner.disk.switch_off();
    drop(runner.store);
    assert_eq!(runner.disk.broken_rules(), [""; 0], "{workload:?}");
    Run { place: runner.place, moments, known: runner.known, next: runner.next }
}

impl Runner {
    fn store(&self) -> &MessageStore {
        self.store.as_ref().expect("the store is open between two steps")
    }

    /// What the oracle knows now holds from the last moment on.
    fn learn(&mut self) {
        self.known.push((self.disk.moment_count() - 1, self.oracle.clone()));
    }

    fn put(&mut self, messages: Vec<Sent>) {
        self.next += messages.len() as u64;
        let put = self.oracle.starts(0, messages.iter().cloned());
        self.learn();
        let appended: Vec<Appended> = match &messages[..] {
            [message] => vec![self.store().put(message.message()).expect("nothing fails here")],
            batch => {
                let batch: Vec<_> = batch.iter().map(Sent::message).collect();
                self.store().put_batch(&batch).expect("nothing fails here")
            }
        };
        self.oracle.acknowledges(&put, &appended);
        let read = |place: &Appended| self.store().read(place.log_offset).expect("it was put").bytes().to_vec();
        let records: Vec<_> = appended.iter().map(read).collect();
        self.oracle.saw_bytes(&put, records);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(queue, body_bytes) => self.put(vec![sent(self.next, queue, body_bytes)]),
            Step::Batch(queue, count) => {
                let numbers = self.next..self.next + count as u64;
                self.put(numbers.map(|number| sent(number, queue, 8)).collect());
            }
            Step::Flush => drop(self.store().flush().expect("nothing fails here")),
            Step::Read(queue) => {
                let (topic, queue_id) = QUEUES[queue % QUEUES.len()];
                let read = self.store().queue(topic, queue_id).iter_from(QueueOffset::ZERO);
                read.for_each(|message| drop(message.expect("nothing fails here")));
            }
            Step::Pump => {
                self.store().pump().expect("nothing fails here");
                crate::planted::catch_up();
            }
            Step::Delete(hundredths) => {
                let range = self.store().log_range();
                let below = range.start.get() + (range.end.get() - range.start.get()) * hundredths / 100;
                self.oracle.deletes_before(LogOffset::new(below));
                self.learn();
                self.store().delete_before(LogOffset::new(below)).expect("nothing fails here");
                self.oracle.deleted(self.store().log_range().start);
            }
            Step::Reopen => {
                let store = self.store.take().expect("the store is open between two steps");
                let end = store.log_range().end;
                store.close().expect("nothing fails here");
                self.oracle.saw_durable(end);
                self.learn();
                self.store = Some(self.place.open(&self.disk, self.sessions).expect("it opens again"));
                self.sessions += 1;
            }
        }
        self.oracle.saw_durable(self.store().durable_offset());
    }
}
