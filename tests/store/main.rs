//! What a store promises its user: answers of RocketMQ, limits, order, waiting, deletion, failures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod failures;
mod lifecycle;
mod puts;
mod reads;
#[path = "../common/watched_disk.rs"]
#[allow(dead_code, reason = "the unit tests need more of it")]
mod watched_disk;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mqlog::{Clock, GetLimits, GetResult, Message, MessageStore, QueueOffset, TagFilter};

/// A clock that stands until it is set.
#[derive(Debug, Clone)]
struct HandClock(Arc<AtomicI64>);

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn open(root: &Path) -> MessageStore {
    MessageStore::open(common::small(root)).unwrap()
}

fn get(store: &MessageStore, topic: &str, queue_id: i32, from: u64, filter: &str) -> GetResult {
    store.get(topic, queue_id, QueueOffset::new(from), GetLimits::default(), &TagFilter::parse(filter)).unwrap()
}

fn put_many(store: &MessageStore, topic: &str, count: u64) {
    for number in 0..count {
        store.put(Message::new(topic).owned_body(number.to_string().into_bytes())).unwrap();
    }
}

fn bodies(result: &GetResult) -> Vec<String> {
    result.messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect()
}
