//! Stores with damage in the middle of their log.
//!
//! RocketMQ ends such a log at the damage and, when it opens the store, drops what follows. mqlog shows every whole
//! record on both sides, names what is damaged, and destroys nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use mqlog::{Error, Message, MessageStore, RecoveryMode, StoreOptions};
use serde_json::Value;

use crate::Counts;
use crate::compare::{check_keys, check_records};
use crate::content::{Content, check_readers, query, unsigned};
use crate::disk::{Copy, listing, log_bytes, log_files};
use crate::expected::{Golden, Keys, Queue, Queues, Store, keys_of};
use crate::opened::{check_more, put_more};

type LogFiles = BTreeMap<u64, Vec<u8>>;

/// What should be seen of a damaged store.
pub(crate) struct Whole {
    pub(crate) records: Vec<Value>,
    /// From the first damaged record to the next whole one.
    damage: Range<u64>,
    pub(crate) queues: Queues,
    pub(crate) keys: Keys,
}

impl Whole {
    /// Compares the store's log with the undamaged one: a record is whole if its bytes are the same in both.
    pub(crate) fn of(golden: &Golden, store: &Store, log: &LogFiles) -> Self {
        let undamaged = log_files(&Copy::unpack(golden.archives(), &store.undamaged_name()).path());
        let all = golden.undamaged_records(store);
        let is_whole = |record: &Value| {
            let (start, bytes) = (offset(record), record["record_bytes"].as_u64().expect("a record has a length"));
            log_bytes(&undamaged, start, bytes) == log_bytes(log, start, bytes)
        };
        let start = all.iter().find(|record| !is_whole(record)).map(offset).expect("a record is damaged");
        let behind = all.iter().find(|record| offset(record) > start && is_whole(record));
        let damage = start..behind.map(offset).expect("whole records follow");
        let records: Vec<Value> = all.into_iter().filter(is_whole).collect();
        let undamaged = golden.stores.iter().find(|other| other.name == store.undamaged_name());
        let undamaged = undamaged.expect("the folder holds the undamaged store too");
        let mut queues = golden.full_queues(undamaged).unwrap_or_else(|| golden.queues(undamaged));
        for queue in queues.values_mut() {
            queue.entries.retain(|entry| records.iter().any(|record| record["log_offset"] == entry[1]));
        }
        let keys = keys_of(&records);
        Self { records, damage, queues, keys }
    }
}

pub(crate) fn compare(golden: &Golden, store: &Store) -> Counts {
    let copy = Copy::unpack(golden.archives(), &store.name);
    let log = log_files(&copy.path());
    let whole = Whole::of(golden, store, &log);
    assert!(whole.records.len() > golden.records(store).len(), "RocketMQ shows less");

    let before = listing(&copy.path());
    let options = |mode| store.options(StoreOptions::new(copy.path())).recovery(mode);
    refused(&store.name, options(RecoveryMode::Refuse), &whole);
    assert!(listing(&copy.path()) == before, "{}: refusing changed the store's files", store.name);
    let read_only = StoreOptions::new(copy.path()).read_only(true);
    for options in [options(RecoveryMode::ReadOnly), read_only] {
        shown(&store.name, options, &whole);
        assert!(listing(&copy.path()) == before, "{}: reading changed the store's files", store.name);
    }
    salvaged(&store.name, || options(RecoveryMode::Salvage), &whole);
    for (base, file) in &log {
        let end = whole.records.last().map(|record| offset(record) + record["record_bytes"].as_u64().unwrap_or(0));
        let bytes = end.unwrap_or(0).saturating_sub(*base).min(file.len() as u64);
        let now = log_files(&copy.path());
        assert!(
            log_bytes(&now, *base, bytes) == log_bytes(&log, *base, bytes),
            "{}: salvaging changed bytes of the log",
            store.name
        );
    }
    let entries = whole.queues.values().map(|queue| queue.entries.len()).sum();
    Counts { stores: 1, records: whole.records.len(), entries, keys: whole.keys.len() }
}

fn refused(name: &str, options: StoreOptions, whole: &Whole) {
    match MessageStore::open(options) {
        Err(Error::Corrupt(damage)) => {
            assert_eq!(damage.range, whole.damage, "{name}: {damage}");
            assert!(damage.path.parent().is_some_and(|folder| folder.ends_with("commitlog")), "{name}: {damage}");
        }
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name}: the damage was not noticed"),
    }
}

fn shown(name: &str, options: StoreOptions, whole: &Whole) {
    let store = MessageStore::open(options).unwrap_or_else(|error| panic!("{name}: {error}"));
    check_named(name, &store, whole);
    let content = Content::read(&store);
    assert_eq!(content.damaged, std::slice::from_ref(&whole.damage), "{name}");
    check_records(name, &content.records, &whole.records);
    check_entries(name, &content.queues, &whole.queues);
    check_keys(name, &query(&store, &whole.keys), &whole.keys);
    let put = store.put(Message::new("T").body(b"no"));
    assert!(matches!(put, Err(Error::ReadOnly)), "{name}: {put:?}");
    store.close().unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn salvaged(name: &str, options: impl Fn() -> StoreOptions, whole: &Whole) {
    let open = || MessageStore::open(options()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let store = open();
    check_named(name, &store, whole);
    let content = Content::read(&store);
    assert_eq!(content.damaged, std::slice::from_ref(&whole.damage), "{name}");
    check_records(name, &content.records, &whole.records);
    check_entries(name, &content.queues, &whole.queues);
    check_readers(&store, &content);
    check_keys(name, &query(&store, &whole.keys), &whole.keys);
    let more = put_more(&store, &content);
    let content = check_more(name, &store, &content, &more);
    store.close().unwrap_or_else(|error| panic!("{name}: {error}"));

    let store = open();
    let mut again = Content::read(&store);
    for queue in again.queues.values_mut() {
        // The damage is met when it is read: nobody has looked there yet.
        queue.entries.retain(|entry| !whole.damage.contains(&unsigned(entry[1])));
    }
    assert!(again == content, "{name}: the second opening shows something else");
    check_keys(name, &query(&store, &whole.keys), &whole.keys);
    let damages = store.verify().expect("the store can be verified").damages;
    assert!(damages.iter().any(|damage| damage.range == whole.damage), "{name}: {damages:?}");
    store.close().unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn check_named(name: &str, store: &MessageStore, whole: &Whole) {
    let named = &store.recovery_report().corruptions;
    let ranges: Vec<_> = named.iter().map(|damage| damage.range.clone()).collect();
    assert_eq!(ranges, std::slice::from_ref(&whole.damage), "{name}: {named:?}");
}

/// Compares the entries of whole records; the end of a queue whose last record is damaged cannot be known.
fn check_entries(name: &str, ours: &Queues, theirs: &Queues) {
    let none = Queue::default();
    for key in ours.keys().chain(theirs.keys()) {
        let (ours, theirs) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
        let difference = ours.entries.iter().zip(&theirs.entries).find(|(ours, theirs)| ours != theirs);
        assert_eq!(difference, None, "{name}: entries of {key:?} differ");
        assert_eq!(ours.entries.len(), theirs.entries.len(), "{name}: the number of entries of {key:?} differs");
        assert!(
            ours.range.end <= theirs.range.end,
            "{name}: {key:?} ends at {} behind {}",
            ours.range.end,
            theirs.range.end
        );
    }
}

fn offset(record: &Value) -> u64 {
    record["log_offset"].as_u64().expect("a record has a log offset")
}
