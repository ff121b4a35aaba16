//! The process that is killed.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mqlog::{FlushPolicy, LogOffset, Message, MessageStore};

use crate::common::{Random, small};

pub(crate) const ROOT: &str = "MQLOG_KILL_ROOT";
pub(crate) const ROUND: &str = "MQLOG_KILL_ROUND";
pub(crate) const ONLY_OPEN: &str = "MQLOG_KILL_ONLY_OPEN";
pub(crate) const PRODUCERS: u64 = 4;

/// Numbers in a row that have one queue, so that they can be a batch.
const BLOCK: u64 = 6;
const TOPICS: [&str; 3] = ["orders", "payments", "%RETRY%group"];

/// What the message of a producer with a number looks like.
pub(crate) struct Wanted {
    pub(crate) topic: &'static str,
    pub(crate) queue_id: i32,
    pub(crate) key: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn message_of(producer: u64, number: u64) -> Wanted {
    let mut block = Random((producer << 32) | (number / BLOCK));
    let (topic, queue_id) = (TOPICS[block.below(3) as usize], block.below(3) as i32);
    let mut random = Random((producer << 33) | number);
    let longest = if random.below(20) == 0 { 3_000 } else { 300 };
    let mut body = format!("{producer} {number} ").into_bytes();
    let end = body.len() as u64 + random.below(longest);
    body.resize_with(end as usize, || random.next() as u8);
    Wanted { topic, queue_id, key: format!("{producer}-{number}"), body }
}

/// Producer and number, as a body says.
pub(crate) fn name_in(body: &[u8]) -> (u64, u64) {
    let mut words = body.splitn(3, |byte| *byte == b' ').map(|word| str::from_utf8(word).unwrap().parse().unwrap());
    let producer = words.next().unwrap();
    (producer, words.next().unwrap())
}

/// A line that says that a message was put.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) producer: u64,
    pub(crate) number: u64,
    pub(crate) queue_offset: u64,
    pub(crate) log_offset: u64,
}

impl Ack {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("ack ")?.split(' ').map(|word| word.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Some(Self { producer: next(), number: next(), queue_offset: next(), log_offset: next() })
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
        if round % 5 == 4 && store.delete_before(LogOffset::new((range.start.get() + range.end.get()) / 2)).unwrap() > 0
        {
            println!("deleted");
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
        let messages: Vec<_> = (number..number + count).map(|number| build(producer, number)).collect();
        let acks = match &messages[..] {
            [single] => vec![store.put(single).unwrap()],
            batch => store.put_batch(batch).unwrap(),
        };
        for (number, ack) in (number..).zip(acks) {
            println!("ack {producer} {number} {} {}", ack.queue_offset.get(), ack.log_offset.get());
        }
        number += count;
        put.fetch_add(count, Ordering::Relaxed);
    }
}

fn build(producer: u64, number: u64) -> Message<'static> {
    let Wanted { topic, queue_id, key, body } = message_of(producer, number);
    Message::new(topic).queue(queue_id).key(key).key(format!("all-{}", number % 5)).tags("tag").owned_body(body)
}
