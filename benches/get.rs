//! What reading a message of 1 KiB costs, beside what reading its record costs alone.
//!
//! | row | measures |
//! |---|---|
//! | `in sequence` | [`QueueHandle::iter_from`](mqlog::QueueHandle::iter_from): entry, record, both checked |
//! | `limit L5, in sequence` | the records of a mapping whose pages are in memory, one after the other, each with its CRC checked |
//! | `32 in sequence`, `one at random` | [`MessageStore::get`](mqlog::MessageStore::get), a message |
//! | `limit L5, at random` | as above, but any record next |
//!
//! The store has 200,000 messages of one queue; everything was read once before.

mod bench;
#[path = "limits/mod.rs"]
mod limits;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use mqlog::{GetLimits, MessageStore, QueueOffset, TagFilter};

use crate::bench::{BODY_BYTES, filled, folder, group};
use crate::limits::{Budget, Order, Random, Reads, TOPIC, Template, body};

const MESSAGES: u64 = 200_000;

criterion_group!(benches, get);
criterion_main!(benches);

fn get(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "get, 1 KiB");
    let store = filled(&folder.path().join("store"), MESSAGES);
    in_sequence(&store, MESSAGES);
    let mut template = Template::new(&body(BODY_BYTES), true);
    let limit = Reads::new(folder.path(), &mut template, MESSAGES).expect("the limit's file can be made");
    let limit = |order, count| limit.run(order, Budget::of_messages(count)).expect("every record is right").took;

    group.bench_function("in sequence", |bencher| bencher.iter_custom(|count| in_sequence(&store, count)));
    group.bench_function("32 in sequence", |bencher| bencher.iter_custom(|count| get_32(&store, count)));
    group.bench_function("limit L5, in sequence", |bencher| {
        bencher.iter_custom(|count| limit(Order::Sequence, count));
    });
    let mut random = Random::new();
    group.bench_function("one at random", |bencher| {
        bencher.iter(|| get_some(&store, random.below(MESSAGES), 1));
    });
    group.bench_function("limit L5, at random", |bencher| {
        bencher.iter_custom(|count| limit(Order::Random, count));
    });
    group.finish();
    store.close().expect("the store closes");
}

fn in_sequence(store: &MessageStore, count: u64) -> Duration {
    let (start, mut left) = (Instant::now(), count);
    while left > 0 {
        for message in store.queue(TOPIC, 0).iter_from(QueueOffset::ZERO) {
            black_box(message.expect("the message is there").body());
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    start.elapsed()
}

fn get_32(store: &MessageStore, count: u64) -> Duration {
    let (start, mut read, mut from) = (Instant::now(), 0, 0);
    while read < count {
        let got = get_some(store, from, 32);
        read += got;
        from = if from + got < MESSAGES { from + got } else { 0 };
    }
    start.elapsed()
}

fn get_some(store: &MessageStore, from: u64, max_messages: usize) -> u64 {
    let limits = GetLimits { max_messages, max_bytes: usize::MAX };
    let got = store.get(TOPIC, 0, QueueOffset::new(from), limits, &TagFilter::all()).expect("the messages are there");
    assert!(!got.messages.is_empty(), "message {from} is there");
    black_box(got.messages.last().map(|message| message.body()));
    got.messages.len() as u64
}
