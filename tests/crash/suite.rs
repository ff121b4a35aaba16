//! The suite: small workloads wholly, many random ones by samples.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use super::common::oracle::{Promise, Violation};
use super::common::parameter::parameter;
use super::enumerate::{Depth, Explorer};
use super::workloads::{Shape, Step, Workload, run};

/// All states of this process, by the hash of the disk's content.
static STATES: LazyLock<Mutex<HashSet<u128>>> = LazyLock::new(Mutex::default);

fn is_new(hash: u128) -> bool {
    STATES.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
}

const SAMPLED: Depth =
    Depth { exhaustive: 8, samples: 8, cuts: 2, crash_one_opening_of: 12, opening_crashes: 3, ways_on: 1 };

/// Explores random workloads until this test has found its share of all states.
fn sampled(promise: Promise, queues: usize, hundredths: u64, name: &str) {
    let share = (parameter("MQLOG_CRASH_STATES", 100_000) * hundredths / 100).max(1);
    let seed = parameter("MQLOG_CRASH_SEED", 1) * 1_000_000 + queues as u64 * 100_000;
    let begun = Instant::now();
    let mut is_new = is_new;
    let mut explorer = Explorer::new(SAMPLED, seed, share, &mut is_new);
    for workload in 0.. {
        if explorer.counts.distinct >= share {
            break;
        }
        let workload = Workload::random(seed + workload, promise, queues);
        if let Err(Violation(text)) = explorer.explore(&run(&workload)) {
            panic!("{name}: seed {}, {workload:?}: {text}", workload.seed);
        }
    }
    println!("{name}: {:?} in {:?}", explorer.counts, begun.elapsed());
    assert!(explorer.counts.distinct >= share);
}

/// Explores small workloads, and as good as every outcome of every crash.
fn exhausted(promise: Promise, name: &str) {
    use Step::{Batch, Delete, Flush, Pump, Put, Read, Reopen};
    const SHAPE: Shape = Shape { log_file_bytes: 1024, queue_file_entries: 2, index_slots: 130, index_entries: 4 };
    let all: [&[Step]; 8] = [
        &[Put(0, 30), Put(1, 30), Put(2, 30)],
        &[Batch(0, 3), Put(0, 8)],
        &[Put(0, 30), Flush, Put(1, 30), Flush],
        &[Put(0, 30), Pump, Put(1, 30), Pump],
        &[Put(0, 380), Put(0, 380), Put(0, 380)],
        &[Put(0, 30), Read(0), Reopen, Put(0, 30)],
        &[Put(0, 380), Put(1, 380), Put(0, 380), Pump, Delete(100)],
        &[Put(0, 30), Reopen, Put(0, 30), Read(0), Reopen],
    ];
    let depth = Depth { exhaustive: 2_000, samples: 40, cuts: 16, ways_on: 2, ..SAMPLED };
    let (begun, mut is_new) = (Instant::now(), is_new);
    let mut explorer = Explorer::new(depth, parameter("MQLOG_CRASH_SEED", 1), u64::MAX, &mut is_new);
    for steps in all {
        let workload = Workload { seed: 0, promise, shape: SHAPE, steps: steps.to_vec() };
        if let Err(Violation(text)) = explorer.explore(&run(&workload)) {
            panic!("{name}: {workload:?}: {text}");
        }
    }
    let counts = explorer.counts;
    println!("{name}: {counts:?} in {:?}", begun.elapsed());
    assert!(counts.distinct > 1_000 && counts.exhausted * 10 >= counts.moments * 8, "{counts:?}");
}

#[test]
fn a_small_sync_store_keeps_its_promise_whatever_a_crash_leaves() {
    exhausted(Promise::Sync, "sync, exhausted");
}

#[test]
fn a_small_async_store_keeps_its_promise_whatever_a_crash_leaves() {
    exhausted(Promise::Async, "async, exhausted");
}

#[test]
fn a_sync_store_of_one_queue_keeps_its_promise() {
    sampled(Promise::Sync, 1, 25, "sync, one queue");
}

#[test]
fn a_sync_store_of_several_queues_keeps_its_promise() {
    sampled(Promise::Sync, 5, 25, "sync, several queues");
}

#[test]
fn an_async_store_of_one_queue_keeps_its_promise() {
    sampled(Promise::Async, 1, 25, "async, one queue");
}

#[test]
fn an_async_store_of_several_queues_keeps_its_promise() {
    sampled(Promise::Async, 5, 25, "async, several queues");
}
