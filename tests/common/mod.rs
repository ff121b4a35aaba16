//! What the tests of whole stores share: small stores, the content that a log asks for, and the comparison with it.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod oracle;
pub(crate) mod parameter;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use mqlog::format::batch::{BatchItem, push_batch_item};
use mqlog::format::queue_entry::QueueEntry;
use mqlog::format::record::{SysFlag, Transaction};
use mqlog::{LogOffset, Message, MessageStore, MessageView, QueueOffset, ScanItem, StoreOptions};

/// Files so small that log, queues and index roll often.
pub(crate) fn small(root: &Path) -> StoreOptions {
    let options = StoreOptions::new(root).log_file_bytes(16 * 1024).queue_file_entries(16);
    options.batch_queue_file_entries(8).index_slots(32).index_entries(128)
}

/// An inner batch: one record that holds so many messages, all with this body.
pub(crate) fn inner_batch<'a>(topic: &'a str, count: u64, body: &[u8]) -> Message<'a> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        push_batch_item(&mut bodies, &BatchItem { flag: 0, body, properties: b"" });
    }
    let message = Message::new(topic).property("INNER_NUM", count.to_string()).owned_body(bodies);
    message.sys_flag(SysFlag::INNER_BATCH)
}

/// Numbers that look random and are the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An entry of a queue: queue offset, number of messages, log offset, length of the record.
pub(crate) type Entry = (u64, u32, u64, u32);

/// What a log says that queues and index hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Log offset and bytes of each record.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
    pub(crate) queues: BTreeMap<(String, i32), Vec<Entry>>,
    /// Log offsets by topic and key, newest first.
    pub(crate) keys: BTreeMap<(String, String), Vec<u64>>,
}

impl Content {
    /// Scans the log; damage is a failure.
    pub(crate) fn of_log(store: &MessageStore) -> Self {
        Self::read_log(store).unwrap()
    }

    /// Scans the log; damage is an error, and what cannot be read.
    pub(crate) fn read_log(store: &MessageStore) -> Result<Self, String> {
        let mut content = Self::default();
        for item in store.scan(LogOffset::ZERO) {
            match item.map_err(|error| format!("the log cannot be read: {error}"))? {
                ScanItem::Record(record) => content.add(&record),
                ScanItem::Blank(_) => {}
                ScanItem::Damaged(damage) => return Err(format!("the log is damaged: {damage}")),
            }
        }
        Ok(content)
    }

    fn add(&mut self, record: &MessageView) {
        let at = record.log_offset().get();
        self.records.push((at, record.bytes().to_vec()));
        let transaction = record.sys_flag().transaction();
        if transaction != Transaction::Rollback {
            let keys = record.unique_key().into_iter().chain(record.keys());
            for key in keys {
                let found = self.keys.entry((record.topic().into_owned(), key.into_owned())).or_default();
                if found.first() != Some(&at) {
                    found.insert(0, at);
                }
            }
        }
        if matches!(transaction, Transaction::Prepared | Transaction::Rollback) {
            return;
        }
        let text = |name| record.property(name).map(|value| value.into_owned()).unwrap_or_default();
        let is_batch = record.sys_flag().has(SysFlag::INNER_BATCH);
        let count = if is_batch { text("INNER_NUM").parse().unwrap() } else { 1 };
        let offset = if is_batch { text("INNER_BASE").parse().unwrap() } else { record.queue_offset().get() };
        let mut put = |topic: &str, id, offset, count| {
            self.queues.entry((topic.to_owned(), id)).or_default().push((offset, count, at, record.record_bytes()));
        };
        put(&record.topic(), record.queue_id(), offset, count);
        let (names, offsets) = (text("INNER_MULTI_DISPATCH"), text("INNER_MULTI_QUEUE_OFFSET"));
        for (name, offset) in names.split(',').zip(offsets.split(',')).filter(|(name, _)| !name.is_empty()) {
            let id = if name.starts_with("%LMQ%") { 0 } else { record.queue_id() };
            put(name, id, offset.parse().unwrap(), 1);
        }
    }

    /// Compares queues and index with what this log says; queue offsets must be dense.
    pub(crate) fn check(&self, store: &MessageStore) {
        self.compare(store).unwrap();
    }

    /// As [`check`](Self::check), and says what differs.
    pub(crate) fn compare(&self, store: &MessageStore) -> Result<(), String> {
        let named = store.queues().map_err(|error| error.to_string())?;
        for queue in self.queues.keys() {
            same(&named.contains(queue), &true, || format!("is there a queue {queue:?}"))?;
        }
        for (topic, id) in named {
            let wanted = self.queues.get(&(topic.clone(), id)).map(Vec::as_slice).unwrap_or_default();
            compare_queue(store, &topic, id, wanted)?;
        }
        // Each query looks into every index file: not all of a large store.
        for (topic, key) in self.keys.keys().step_by(1 + self.keys.len() / 100) {
            self.compare_key(store, topic, key)?;
        }
        Ok(())
    }

    pub(crate) fn check_key(&self, store: &MessageStore, topic: &str, key: &str) {
        self.compare_key(store, topic, key).unwrap();
    }

    fn compare_key(&self, store: &MessageStore, topic: &str, key: &str) -> Result<(), String> {
        let found = store.query(topic, key, ..).and_then(offsets);
        let found = found.map_err(|error| format!("key {key} of {topic}: {error}"))?;
        same(&found, &self.keys[&(topic.to_owned(), key.to_owned())], || format!("key {key} of {topic}"))
    }
}

/// The log offsets of messages.
fn offsets(messages: impl Iterator<Item = mqlog::Result<MessageView>>) -> mqlog::Result<Vec<u64>> {
    messages.map(|message| message.map(|message| message.log_offset().get())).collect()
}

/// Says what is not as it should be.
fn same<T: PartialEq + Debug>(found: &T, wanted: &T, what: impl FnOnce() -> String) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{}: {found:?}, and should be {wanted:?}", what())) }
}

fn compare_queue(store: &MessageStore, topic: &str, id: i32, wanted: &[Entry]) -> Result<(), String> {
    let failed = |error: mqlog::Error| format!("queue {topic}/{id}: {error}");
    let queue = store.queue(topic, id);
    let items = queue.entries(QueueOffset::ZERO, usize::MAX >> 8).map_err(failed)?;
    let found: Vec<Entry> = items
        .iter()
        .map(|item| (item.queue_offset.get(), item.count, item.entry.log_offset, item.entry.record_bytes))
        .collect();
    same(&&found[..], &wanted, || format!("entries of queue {topic}/{id}"))?;
    let range = queue.range().map_err(failed)?;
    let range = (range.start.get(), range.end.get());
    match (wanted.first(), wanted.last()) {
        (Some(first), Some(last)) => {
            same(&range, &(first.0, last.0 + u64::from(last.1)), || format!("range of queue {topic}/{id}"))?;
        }
        _ => same(&range.0, &range.1, || format!("range of the empty queue {topic}/{id}"))?,
    }
    let is_dense = wanted.windows(2).all(|pair| pair[0].0 + u64::from(pair[0].1) == pair[1].0);
    same(&is_dense, &true, || format!("do the offsets of queue {topic}/{id} follow each other, {wanted:?}"))?;
    let read = offsets(queue.iter_from(QueueOffset::ZERO)).map_err(failed)?;
    let wanted: Vec<u64> = wanted.iter().map(|entry| entry.2).collect();
    same(&read, &wanted, || format!("messages of queue {topic}/{id}"))
}

/// Checks a store against its own log, and with `verify`; returns what the log says.
pub(crate) fn check_store(store: &MessageStore) -> Content {
    let content = check_content(store);
    let verified = store.verify().unwrap();
    assert_eq!(verified.damages, []);
    assert_eq!(verified.records, content.records.len() as u64);
    assert_eq!(store.stats().refused_entries, 0);
    content
}

/// Checks a store against its own log; returns what the log says.
pub(crate) fn check_content(store: &MessageStore) -> Content {
    let content = Content::of_log(store);
    content.check(store);
    content
}

/// What a plain queue's files hold, up to the first entry that is none.
fn raw_entries(root: &Path, topic: &str) -> Vec<QueueEntry> {
    let files = files_below(&root.join(format!("consumequeue/{topic}/0")));
    let bytes: Vec<u8> = files.iter().flat_map(|file| fs::read(file).unwrap()).collect();
    bytes.chunks_exact(QueueEntry::BYTES).map_while(|entry| QueueEntry::decode(entry).ok().flatten()).collect()
}

fn end_of(entry: &QueueEntry) -> u64 {
    entry.log_offset + u64::from(entry.record_bytes)
}

/// Up to where RocketMQ takes the log for dispatched when it has read a queue: each message of the queue below is ignored, and by
/// 4.9 each of the store. It believes the last entry before the first one that is none.
pub(crate) fn dispatched_by_rocketmq(root: &Path, topic: &str) -> u64 {
    raw_entries(root, topic).last().map_or(0, end_of)
}

/// The log offsets that RocketMQ gives a consumer that asks for all messages of a queue in a log of 16 KiB files that begins at 0:
/// behind an entry that it cannot read, it leaves out what lies before the end of the file in which that one begins.
pub(crate) fn read_by_rocketmq(root: &Path, topic: &str, log_end: u64) -> Vec<u64> {
    let (mut given, mut skip_to) = (Vec::new(), 0);
    for entry in raw_entries(root, topic) {
        let file_end = entry.log_offset / 16_384 * 16_384 + 16_384;
        if entry.log_offset < skip_to {
            continue;
        }
        if end_of(&entry) <= file_end.min(log_end) {
            given.push(entry.log_offset);
        } else {
            skip_to = file_end;
        }
    }
    given
}

/// Nothing in a queue makes RocketMQ take a message in front of it for deleted: entries have their records' order.
pub(crate) fn check_order_for_rocketmq(root: &Path, topic: &str) {
    let entries = raw_entries(root, topic);
    assert!(entries.is_sorted_by_key(|entry| entry.log_offset), "{entries:?}");
}

/// A folder in memory where there is one: what a kill leaves does not depend on the disk.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Copies a folder with its files' times.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target);
        }
    }
}

/// Copies a file with its time.
pub(crate) fn copy_file(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    let modified = fs::metadata(from).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(to).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
}

/// All files below a folder, in order.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return files };
    for entry in entries {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}
