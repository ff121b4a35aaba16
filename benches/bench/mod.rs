//! What the benches share: how long they run, and stores to measure.
#![allow(dead_code, reason = "each bench takes what it needs")]

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use mqlog::{FlushPolicy, Message, MessageStore, StoreOptions};

use crate::limits::{KEY_BYTES, TOPIC, Template, body, write_key};

pub(crate) const BODY_BYTES: usize = 1024;
pub(crate) const FILE_BYTES: u64 = 64 << 20;

pub(crate) fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// A folder on the disk that the build is on: a temporary folder of the system may be memory.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder can be made")
}

pub(crate) fn open(folder: &Path, policy: FlushPolicy) -> MessageStore {
    let options = StoreOptions::new(folder).log_file_bytes(FILE_BYTES).flush(policy);
    MessageStore::open(options).expect("the store opens")
}

/// A store with `count` messages in one queue, whose keys are their numbers.
pub(crate) fn filled(folder: &Path, count: u64) -> MessageStore {
    let (store, body) = (open(folder, FlushPolicy::async_default()), body(BODY_BYTES));
    let mut key = [0; KEY_BYTES];
    for number in 0..count {
        write_key(&mut key, number);
        let key = std::str::from_utf8(&key).expect("hex digits are text");
        store.put(Message::new(TOPIC).body(&body).key(key)).expect("the message is stored");
    }
    store.flush().expect("the log is flushed");
    store.queue(TOPIC, 0).range().expect("everything is dispatched");
    store
}

/// A store and the threads that put into it.
pub(crate) struct Producers {
    store: MessageStore,
    body: Vec<u8>,
    producers: u64,
}

impl Producers {
    pub(crate) fn open(folder: &Path, policy: FlushPolicy, producers: u64) -> Self {
        Self { store: open(folder, policy), body: body(BODY_BYTES), producers }
    }

    /// Fills a log file and a little of the next: the first one gets its blocks while it is used, the others ahead.
    pub(crate) fn fill_first_file(&self) {
        let end = self.store.log_range().start + FILE_BYTES;
        while self.store.flush().expect("the log is flushed") <= end {
            for _ in 0..1000 {
                self.store.append(Message::new(TOPIC).body(&self.body)).expect("the message is appended");
            }
        }
    }

    /// Puts `count` messages; after each file's worth the older files go, off the clock.
    pub(crate) fn put(&self, count: u64) -> Duration {
        let batch = FILE_BYTES / Template::new(&self.body, false).record_bytes();
        let mut took = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            took += self.put_batch(left.min(batch));
            left -= left.min(batch);
            let end = self.store.flush().expect("the log is flushed");
            self.store.queue(TOPIC, 0).range().expect("the queue is there");
            self.store.delete_before(end).expect("old files go");
        }
        took
    }

    fn put_batch(&self, count: u64) -> Duration {
        let barrier = Barrier::new(usize::try_from(self.producers).expect("few producers") + 1);
        let start = thread::scope(|scope| {
            for number in 0..self.producers {
                let share = count / self.producers + u64::from(number < count % self.producers);
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..share {
                        self.store.put(Message::new(TOPIC).body(&self.body)).expect("the message is stored");
                    }
                });
            }
            barrier.wait();
            Instant::now()
        });
        start.elapsed()
    }

    pub(crate) fn close(self) {
        self.store.close().expect("the store closes");
    }
}
