//! The suite: small workloads wholly, many random ones by samples.

use std::collections::HashSet;
use std::env;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use super::common::oracle::{Promise, Violation};
use super::enumerate::{Depth, Explorer};
use super::workloads::{Workload, run};

/// All states of this process, by the hash of the disk's content.
static STATES: LazyLock<Mutex<HashSet<u128>>> = LazyLock::new(Mutex::default);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn is_new(hash: u128) -> bool {
    STATES.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
}

const SAMPLED: Depth = Depth { exhaustive: 8, samples: 8, cuts: 2, crash_one_opening_of: 12, opening_crashes: 3 };

/// Explores random workloads until this test has found its share of all states.
fn sampled(promise: Promise, queues: usize, hundredths: u64, name: &str) {
    let share = number("MQLOG_CRASH_STATES", 100_000) * hundredths / 100;
    let seed = number("MQLOG_CRASH_SEED", 1) * 1_000_000 + queues as u64 * 100_000;
    let begun = Instant::now();
    let mut is_new = is_new;
    let mut explorer = Explorer::new(SAMPLED, seed, share, &mut is_new);
    for workload in 0.. {
        if explorer.counts.distinct >= share {
            break;
        }
        let workload = Workload::random(seed + workload, promise, queues);
        if let Err(Violation(text)) = explorer.explore(&run(&workload)) {
            panic!("{name}: {workload:?}: {text}");
        }
    }
    println!("{name}: {:?} in {:?}", explorer.counts, begun.elapsed());
    assert!(explorer.counts.distinct >= share);
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
