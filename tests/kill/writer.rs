//! The process that is killed.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mqlog::{FlushPolicy, LogOffset, MessageStore};

use crate::common::oracle::Sent;
use crate::common::{Random, small};

pub(crate) const ROOT: &str = "MQLOG_KILL_ROOT";
pub(crate) const ROUND: &str = "MQLOG_KILL_ROUND";
pub(crate) const ONLY_OPEN: &str = "MQLOG_KILL_ONLY_OPEN";
pub(crate) const PRODUCERS: u64 = 4;

/// Numbers in a row that have one queue, so that they can be a batch.
const BLOCK: u64 = 6;
const TOPICS: [&str; 3] = ["orders", "payments", "%RETRY%group"];

/// The message of a producer with a number.
pub(crate) fn message_of(producer: u64, number: u64) -> Sent {
    let mut block = Random((producer << 32) | (number / BLOCK));
    let (topic, queue_id) = (TOPICS[block.below(3) as usize].to_owned(), block.below(3) as i32);
    let mut random = Random((producer << 33) | number);
    let longest = if random.below(20) == 0 { 3_000 } else { 300 };
    let mut body = format!("{producer} {number} ").into_bytes();
    let end = body.len() as u64 + random.below(longest);
    body.resize_with(end as usize, || random.next() as u8);
    let keys = vec![format!("{producer}-{number}"), format!("all-{}", number % 5)];
    Sent { topic, queue_id, tags: Some("tag".to_owned()), keys, body }
}

/// What the writer tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// A put of this many messages of a producer, from a number on, begins.
    Put { producer: u64, number: u64, count: u64 },
    /// A message was put: its place in the log, and its number in its queue.
    Ack { producer: u64, number: u64, place: (u64, u64, u64) },
    /// The log below an offset is about to be deleted.
    Delete(u64),
    /// The log begins here now.
    Deleted(u64),
}

impl Told {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, numbers) = line.split_once(' ')?;
        let numbers: Option<Vec<u64>> = numbers.split(' ').map(|word| word.parse().ok()).collect();
        match (word, &numbers?[..]) {
            ("put", &[producer, number, count]) => Some(Self::Put { producer, number, count }),
            ("ack", &[producer, number, at, end, queue_offset]) => {
                Some(Self::Ack { producer, number, place: (at, end, queue_offset) })
            }
            ("delete", &[offset]) => Some(Self::Delete(offset)),
            ("deleted", &[start]) => Some(Self::Deleted(start)),
            _ => None,
        }
    }
}

/// Does nothing unless it is started by the test as a process of its own.
#[test]
fn writes_until_it_is_killed() {
    let Some(root) = env::var_os(ROOT) else { return };
    let round: u64 = env::var(ROUND).unwrap().parse().unwrap();
    let only_open = env::var(ONLY_OPEN).unwrap() == "1";
    let interval = Duration::from_millis(2);
    let flush = match round % 2 {
        0 => FlushPolicy::Sync,
        _ => FlushPolicy::Async { interval, unflushed_bytes: 1 << 20, max_unflushed_bytes: 1 << 21 },
    };
    println!("\nopening");
    let options = small(&PathBuf::from(root)).flush(flush).checkpoint_interval(interval);
    let store = Arc::new(MessageStore::open(options).unwrap());
    println!("opened");
    if only_open {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
    let put = Arc::new(AtomicU64::new(0));
    for producer in round * PRODUCERS..(round + 1) * PRODUCERS {
        let (store, put) = (Arc::clone(&store), Arc::clone(&put));
        thread::spawn(move || produce(&store, producer, &put));
    }
    loop {
        thread::sleep(Duration::from_millis(2));
        let range = store.log_range();
        let middle = (range.start.get() + range.end.get()) / 2;
        if round % 5 == 4 {
            println!("delete {middle}");
            if store.delete_before(LogOffset::new(middle)).unwrap() > 0 {
                println!("deleted {}", store.log_range().start);
            }
        }
    }
}

fn produce(store: &MessageStore, producer: u64, put: &AtomicU64) {
    let mut random = Random(producer);
    let mut number = 0;
    // Enough for a round; more would only make the looking long.
    while put.load(Ordering::Relaxed) < 300 {
        let left = BLOCK - number % BLOCK;
        let count = if random.below(4) == 0 { 1 + random.below(left) } else { 1 };
        let sent: Vec<Sent> = (number..number + count).map(|number| message_of(producer, number)).collect();
        let messages: Vec<_> = sent.iter().map(Sent::message).collect();
        // Said first: a line that was written is there whatever happens to the process.
        println!("put {producer} {number} {count}");
        let acks = match &messages[..] {
            [single] => vec![store.put(single).unwrap()],
            batch => store.put_batch(batch).unwrap(),
        };
        for (number, ack) in (number..).zip(acks) {
            println!("ack {producer} {number} {} {} {}", ack.log_offset, ack.end(), ack.queue_offset);
        }
        number += count;
        put.fetch_add(count, Ordering::Relaxed);
    }
}
