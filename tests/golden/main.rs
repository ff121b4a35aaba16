//! Stores that the real RocketMQ 4.9.8 and 5.3.3 wrote, compared with what RocketMQ itself read from them.
//!
//! Plain `cargo test` compares the selection in `tests/golden/data`; with `MQLOG_GOLDEN_DIR` set, every store of that
//! folder. `cargo test --test golden -- --nocapture` shows how much was compared.

mod compare;
mod content;
mod disk;
#[path = "../common/example.rs"]
mod example;
mod expected;
mod inside;
mod inspect;
mod opened;

use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mqlog::{MessageStore, StoreOptions};

use crate::compare::{check_keys, check_queues, check_records};
use crate::content::{Content, check_readers, query};
use crate::disk::{Copy, listing};
use crate::expected::{Golden, Store};

/// How much was compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    stores: usize,
    records: usize,
    entries: usize,
    keys: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.stores += other.stores;
        self.records += other.records;
        self.entries += other.entries;
        self.keys += other.keys;
    }
}

/// Compares each store that `is_meant`, and fails in the end if one differed, or if less was compared than there is.
fn compare_each(is_meant: fn(&Store) -> bool, compare: impl Fn(&Golden, &Store) -> Counts) -> Counts {
    compare_at_least(is_meant, all_there_is, compare)
}

/// Everything that RocketMQ shows of a store.
fn all_there_is(golden: &Golden, store: &Store) -> Counts {
    // Of entries whose records are gone, which RocketMQ 4.9 keeps in its queues, the full queues hold none.
    let full = golden.full_queues(store).map(|queues| queues.values().map(|queue| queue.entries.len()).sum());
    Counts {
        stores: 1,
        records: store.count("/expected_from/records"),
        entries: full.unwrap_or_else(|| store.count("/expected_from/queue_entries")),
        keys: store.count("/expected_from/keys"),
    }
}

fn compare_at_least(
    is_meant: fn(&Store) -> bool,
    should_be: fn(&Golden, &Store) -> Counts,
    compare: impl Fn(&Golden, &Store) -> Counts,
) -> Counts {
    let golden = Golden::open();
    let (mut counts, mut least, mut differ) = (Counts::default(), Counts::default(), Vec::new());
    for store in golden.stores.iter().filter(|store| is_meant(store)) {
        match catch_unwind(AssertUnwindSafe(|| compare(&golden, store))) {
            Ok(compared) => counts += compared,
            Err(_) => differ.push(store.name.as_str()),
        }
        least += should_be(&golden, store);
    }
    assert!(differ.is_empty(), "these stores differ (each is told above): {differ:?}");
    let is_complete = counts.stores >= least.stores
        && counts.records >= least.records
        && counts.entries >= least.entries
        && counts.keys >= least.keys;
    assert!(is_complete, "compared were {counts:?}, but the folder holds {least:?}");
    assert!(counts.stores > 0, "the folder holds no such store");
    counts
}

#[test]
fn an_opened_store_holds_what_rocketmq_wrote() {
    let counts = compare_each(
        |store| !store.is_damaged_inside(),
        |golden, store| opened::compare(golden, store, |options| store.options(options)),
    );
    println!("opened with the store's options: {counts:?}");
}

#[test]
fn sizes_are_found_in_the_files() {
    let counts = compare_each(
        |store| !store.is_damaged_inside(),
        |golden, store| opened::compare(golden, store, |options| options),
    );
    println!("opened with no option but the folder: {counts:?}");
}

#[test]
fn records_behind_damage_stay_readable_and_nothing_is_destroyed() {
    let counts = compare_each(Store::is_damaged_inside, inside::compare);
    println!("damaged inside, opened in every mode: {counts:?}");
}

#[test]
fn a_read_only_open_shows_the_store_and_changes_nothing() {
    let counts = compare_each(
        |store| !store.is_damaged_inside(),
        |golden, store| {
            let copy = Copy::unpack(golden.archives(), &store.name);
            let before = listing(&copy.path());
            let opened = MessageStore::open(StoreOptions::new(copy.path()).read_only(true));
            let opened = opened.unwrap_or_else(|error| panic!("{}: {error}", store.name));
            let content = Content::read(&opened);
            assert_eq!(content.damaged, [], "{}", store.name);
            check_records(&store.name, &content.records, &golden.records(store));
            check_queues(&store.name, &content.queues, &golden.queues(store), golden.full_queues(store));
            check_readers(&opened, &content);
            let keys = golden.keys(store);
            check_keys(&store.name, &query(&opened, &keys), &keys);
            opened.close().expect("a read-only store closes");
            assert!(listing(&copy.path()) == before, "{}: reading changed the store's files", store.name);
            Counts { stores: 1, records: content.records.len(), entries: content.entry_count(), keys: keys.len() }
        },
    );
    println!("read before anything opened it: {counts:?}");
}

#[test]
fn inspect_shows_a_store_that_nobody_opened() {
    // The log is compared as a whole, of queues and keys a sample.
    let records = |_: &Golden, store: &Store| {
        let records = store.count("/expected_from/records");
        Counts { stores: 1, records, entries: 1, keys: 1 }
    };
    let counts = compare_at_least(|_| true, records, inspect::compare);
    println!("inspected before anything opened it: {counts:?}");
}
