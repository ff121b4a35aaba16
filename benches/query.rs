//! What finding one message of 1 KiB by its key costs, beside the same in memory.
//!
//! | row | measures |
//! |---|---|
//! | `query` | [`MessageStore::query`](mqlog::MessageStore::query) for a key that one message has |
//! | `limit` | slot and entries of an index of the same size in memory, and a checked read of the record, whose key is compared |
//!
//! The store has 60,000 messages, a key each, in one index file of 16,384 slots.

mod bench;
#[path = "limits/mod.rs"]
mod limits;

use criterion::{Criterion, criterion_group, criterion_main};

use crate::bench::{BODY_BYTES, filled, folder, group};
use crate::limits::{KEY_BYTES, Keyed, Random, TOPIC, Template, body, write_key};

const MESSAGES: u32 = 60_000;
const SLOTS: u32 = 16_384;

criterion_group!(benches, query);
criterion_main!(benches);

fn query(criterion: &mut Criterion) {
    let folder = folder();
    let mut group = group(criterion, "query by key, 1 KiB");
    let store = filled(&folder.path().join("store"), u64::from(MESSAGES));
    let mut random = Random::new();
    group.bench_function("query", |bencher| {
        let mut key = [0; KEY_BYTES];
        bencher.iter(|| {
            write_key(&mut key, random.below(u64::from(MESSAGES)));
            let key = std::str::from_utf8(&key).expect("hex digits are text");
            let found = store.query(TOPIC, key, ..).expect("the index can be read");
            assert_eq!(found.filter(Result::is_ok).count(), 1);
        });
    });
    store.close().expect("the store closes");

    let mut template = Template::new(&body(BODY_BYTES), true);
    let limit = Keyed::new(folder.path(), &mut template, MESSAGES, SLOTS).expect("the limit's file can be made");
    group.bench_function("limit: index in memory, one checked read", |bencher| {
        bencher.iter(|| {
            let found = limit.find(random.below(u64::from(MESSAGES))).expect("every record is right");
            assert_eq!(found, 1);
        });
    });
    group.finish();
}
