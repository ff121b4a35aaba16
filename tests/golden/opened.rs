//! Stores that open without a question: they end cleanly, were killed, or are torn at their end.

use std::collections::BTreeMap;
use std::path::Path;

use mqlog::{GetLimits, Message, MessageStore, QueueOffset, StoreOptions, TagFilter};

use crate::Counts;
use crate::compare::{check_keys, check_queues, check_records};
use crate::content::{Content, check_readers, query};
use crate::disk::{Copy, files, files_by_offset, log_files};
use crate::expected::{Golden, Keys, Store, text};

/// How many messages are put into a store after it was compared.
const MORE: usize = 20;

/// Opens a copy, compares everything, opens it again, puts more, and opens it once more.
pub(crate) fn compare(golden: &Golden, store: &Store, options: impl Fn(StoreOptions) -> StoreOptions) -> Counts {
    let name = &store.name;
    let copy = Copy::unpack(golden.archives(), name);
    let open = || {
        let opened = MessageStore::open(options(StoreOptions::new(copy.path())));
        opened.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let before = log_files(&copy.path());
    let lengths = lengths(store, &copy.path());

    let opened = open();
    let report = opened.recovery_report();
    assert!(report.foreign_writer, "{name}: RocketMQ was here");
    assert_eq!(report.corruptions, [], "{name}");
    assert_eq!(report.torn.is_some(), store.is_torn(), "{name}: {:?}", report.torn);
    if let Some(torn) = &report.torn {
        check_kept(name, &copy.path(), &before, torn.start.get());
    }
    let content = Content::read(&opened);
    assert_eq!(content.log, store.log_range(), "{name}: the range of the log differs");
    assert_eq!(content.damaged, [], "{name}");
    check_records(name, &content.records, &golden.records(store));
    check_queues(name, &content.queues, &golden.queues(store), golden.full_queues(store));
    check_readers(&opened, &content);
    let keys = golden.keys(store);
    check_keys(name, &query(&opened, &keys), &keys);
    opened.close().unwrap_or_else(|error| panic!("{name}: {error}"));

    let opened = open();
    check_clean(name, &opened);
    assert!(Content::read(&opened) == content, "{name}: the second opening shows something else");
    check_keys(name, &query(&opened, &keys), &keys);
    let more = put_more(&opened, &content);
    let content = check_more(name, &opened, &content, &more);
    opened.close().unwrap_or_else(|error| panic!("{name}: {error}"));
    check_lengths(name, &copy.path(), &lengths);

    let opened = open();
    check_clean(name, &opened);
    assert!(Content::read(&opened) == content, "{name}: opening after more was put shows something else");
    check_keys(name, &query(&opened, &keys), &keys);
    let damages = opened.verify().expect("the store can be verified").damages;
    assert!(damages.is_empty(), "{name}: {damages:?}");
    opened.close().unwrap_or_else(|error| panic!("{name}: {error}"));

    let entries = golden.full_queues(store).unwrap_or_else(|| golden.queues(store));
    let entries = entries.values().map(|queue| queue.entries.len()).sum();
    Counts { stores: 1, records: golden.records(store).len(), entries, keys: keys.len() }
}

/// What was cut from the log is in `mqlog/cut`, in files named by log offset; only zeros need not be kept.
fn check_kept(name: &str, store: &Path, before: &BTreeMap<u64, Vec<u8>>, cut_from: u64) {
    let kept: BTreeMap<u64, Vec<u8>> = files_by_offset(&store.join("mqlog/cut"));
    assert!(!kept.is_empty(), "{name}: nothing is kept of what was cut");
    for (base, file) in before {
        let bytes = file.iter().enumerate().map(|(at, byte)| (base + at as u64, *byte));
        for (offset, byte) in bytes.filter(|(offset, byte)| *offset >= cut_from && *byte != 0) {
            let piece = kept.range(..=offset).next_back();
            let found = piece.and_then(|(start, piece)| piece.get(usize::try_from(offset - start).ok()?));
            assert_eq!(found, Some(&byte), "{name}: byte {offset} of the log is not kept");
        }
    }
}

fn check_clean(name: &str, store: &MessageStore) {
    let report = store.recovery_report();
    assert!(report.clean && !report.foreign_writer, "{name}: {report:?}");
    assert_eq!(report.corruptions, [], "{name}");
    assert!(report.torn.is_none() && report.repaired_blanks.is_empty(), "{name}: {report:?}");
    let is_untouched = report.queues_compared == 0 && report.queues_repaired.is_empty() && !report.index_rebuilt;
    assert!(is_untouched, "{name}: {report:?}");
}

/// A message that was put, and where it should stand in its queue.
pub(crate) struct More {
    topic: String,
    queue_id: i32,
    queue_offset: QueueOffset,
    key: String,
    log_offset: u64,
}

/// Puts messages into topics that the store has and into a new one, and checks the queue offsets they get.
pub(crate) fn put_more(store: &MessageStore, content: &Content) -> Vec<More> {
    // Not into topics that mean something to a broker, and not into those whose names only long records can hold.
    let is_plain = |topic: &String| {
        let reserved = ["%", "SCHEDULE_TOPIC", "RMQ_SYS", "rmq_sys"];
        topic.len() <= 127 && !reserved.iter().any(|start| topic.starts_with(start))
    };
    let mut topics: Vec<String> = content.records.iter().map(|record| text(&record["topic"])).collect();
    topics.retain(is_plain);
    topics.push("put-by-mqlog".to_owned());
    topics.sort();
    topics.dedup();
    let mut more: Vec<More> = Vec::new();
    for (number, topic) in topics.iter().cycle().take(MORE).enumerate() {
        let (queue_id, key) = (i32::from(number % 3 == 0), format!("more-{number}"));
        let ours = more.iter().filter(|one| one.topic == *topic && one.queue_id == queue_id).count() as u64;
        let end = content.queues.get(&(topic.clone(), queue_id)).map_or(0, |queue| queue.range.end);
        let message = Message::new(topic.as_str()).queue(queue_id).tags("more").key(&key).body(&key);
        let put = store.put(&message).unwrap_or_else(|error| panic!("{topic}/{queue_id}: {error}"));
        assert_eq!(put.queue_offset.get(), end + ours, "the next offset of {topic}/{queue_id}");
        let log_offset = put.log_offset.get();
        more.push(More { topic: topic.clone(), queue_id, queue_offset: put.queue_offset, key, log_offset });
    }
    more
}

/// Reads everything that was put back in every way, and checks that nothing else changed.
pub(crate) fn check_more(name: &str, store: &MessageStore, old: &Content, more: &[More]) -> Content {
    let content = Content::read(store);
    let (first, rest) = content.records.split_at(old.records.len());
    check_records(name, first, &old.records);
    assert_eq!(rest.len(), more.len(), "{name}: the number of new records");
    for (key, queue) in &old.queues {
        let first = &content.queues[key].entries[..queue.entries.len()];
        assert!(first == queue.entries, "{name}: putting changed the old entries of {key:?}");
    }
    let old_entries = old.entry_count();
    assert_eq!(content.entry_count(), old_entries + more.len(), "{name}: the number of entries");
    check_readers(store, &content);
    for (record, one) in rest.iter().zip(more) {
        assert_eq!(record["log_offset"], one.log_offset, "{name}");
        assert_eq!(text(&record["properties"]["KEYS"]), one.key, "{name}");
        let limits = GetLimits { max_messages: 1, max_bytes: 1 << 20 };
        let answer = store.get(&one.topic, one.queue_id, one.queue_offset, limits, &TagFilter::all());
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.messages[0].body(), one.key.as_bytes(), "{name}");
        let keys = Keys::from([((one.topic.clone(), one.key.clone()), vec![one.log_offset])]);
        check_keys(name, &query(store, &keys), &keys);
    }
    content
}

/// The lengths that files should have: those of the store, where it has files of the kind to tell.
fn lengths(store: &Store, root: &Path) -> Vec<(&'static str, u64)> {
    let slots_and_entries = store.size("--index-slots") * 4 + store.size("--index-entries") * 20;
    let lengths = [
        ("commitlog", store.size("--commit-log-file-bytes")),
        ("consumequeue", store.size("--queue-file-entries") * 20),
        ("index", 40 + slots_and_entries),
    ];
    let has_files = |folder: &str| root.join(folder).exists() && !files(&root.join(folder)).is_empty();
    lengths.into_iter().filter(|(folder, _)| has_files(folder)).collect()
}

/// Files that mqlog made are as long as those that were there.
fn check_lengths(name: &str, root: &Path, lengths: &[(&str, u64)]) {
    for (folder, bytes) in lengths {
        for (path, found) in files(&root.join(folder)) {
            assert_eq!(found, *bytes, "{name}: the length of {}", path.display());
        }
    }
}
