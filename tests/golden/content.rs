//! Everything that is in a store, read through the API, in the form of the expected files.

use std::ops::Range;

use mqlog::format::record::Version;
use mqlog::{Error, GetLimits, GetStatus, LogOffset, MessageStore, MessageView, QueueOffset, ScanItem, TagFilter};
use serde_json::{Map, Value, json};

use crate::expected::{Keys, Queue, Queues};

/// Records and queues; keys are asked for one by one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) log: Range<u64>,
    pub(crate) records: Vec<Value>,
    pub(crate) damaged: Vec<Range<u64>>,
    pub(crate) queues: Queues,
}

impl Content {
    pub(crate) fn read(store: &MessageStore) -> Self {
        let log = store.log_range();
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for item in store.scan(log.start) {
            match item.expect("the log can be read") {
                ScanItem::Record(view) => records.push(record(&view)),
                ScanItem::Blank(_) => {}
                ScanItem::Damaged(damage) => damaged.push(damage.range),
            }
        }
        let queues = store.queues().expect("the queues can be listed").into_iter().map(|(topic, id)| {
            let queue = queue(store, &topic, id);
            ((topic, id), queue)
        });
        Self { log: log.start.get()..log.end.get(), damaged, queues: queues.collect(), records }
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.queues.values().map(|queue| queue.entries.len()).sum()
    }
}

/// A queue, without entries whose records were deleted with their log file.
fn queue(store: &MessageStore, topic: &str, id: i32) -> Queue {
    let handle = store.queue(topic, id);
    let range = handle.range().expect("the queue has a range");
    let mut queue = Queue { range: range.start.get()..range.end.get(), entries: Vec::new() };
    let mut from = range.start;
    loop {
        // An odd number, so that runs end inside of files.
        let items = handle.entries(from, 7).expect("the queue can be read");
        let Some(last) = items.last() else { break };
        assert!(last.queue_offset >= from, "{topic}/{id}: reading from {from} goes back to {}", last.queue_offset);
        from = last.queue_offset + u64::from(last.count);
        for item in items {
            let entry = [
                signed(item.queue_offset.get()),
                signed(item.entry.log_offset),
                i64::from(item.entry.record_bytes),
                item.entry.tags_code,
            ];
            if LogOffset::new(item.entry.log_offset) >= store.log_range().start {
                queue.entries.push(entry);
            }
        }
    }
    queue
}

/// A message whose entry is there although its record is damaged is an error that names the damage, which opening knew.
fn check_damage(store: &MessageStore, error: &Error) {
    let Error::Corrupt(damage) = error else { panic!("the queue can be read: {error}") };
    let known = store.recovery_report().corruptions.iter().find(|known| known.range.contains(&damage.range.start));
    assert!(known.is_some_and(|known| damage.range.end <= known.range.end), "{damage}");
}

/// Checks that iterating a queue and getting it in pieces give the records of its entries.
pub(crate) fn check_readers(store: &MessageStore, content: &Content) {
    for ((topic, id), queue) in &content.queues {
        let expected: Vec<u64> = queue.entries.iter().map(|entry| unsigned(entry[1])).collect();
        let from = QueueOffset::new(queue.range.start);
        let iterated = store.queue(topic, *id).iter_from(from);
        let whole = |view: mqlog::Result<MessageView>| view.map_err(|error| check_damage(store, &error)).ok();
        let iterated: Vec<u64> = iterated.filter_map(whole).map(|view| offset(&view)).collect();
        assert_eq!(iterated, expected, "iterating {topic}/{id}");

        let (mut got, mut next) = (Vec::new(), from);
        let limits = GetLimits { max_messages: 5, max_bytes: 1 << 20 };
        for _ in 0..=queue.range.end - queue.range.start {
            let answer = match store.get(topic, *id, next, limits, &TagFilter::all()) {
                Ok(answer) => answer,
                Err(error) => {
                    check_damage(store, &error);
                    next = next + 1;
                    continue;
                }
            };
            assert_eq!(answer.range.start.get()..answer.range.end.get(), queue.range, "getting {topic}/{id}");
            if answer.status != GetStatus::Found {
                break;
            }
            got.extend(answer.messages.iter().map(offset));
            next = answer.next;
        }
        assert_eq!(got, expected, "getting {topic}/{id}");
    }
}

/// What a query of each of these keys finds.
pub(crate) fn query(store: &MessageStore, keys: &Keys) -> Keys {
    let found = keys.keys().map(|(topic, key)| {
        let views = store.query(topic, key, ..).expect("the index can be queried");
        let offsets = views.map(|view| offset(&view.expect("a record with the key can be read"))).collect();
        ((topic.clone(), key.clone()), offsets)
    });
    found.collect()
}

pub(crate) fn record(view: &MessageView) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let properties = view.properties();
    let properties: Map<String, Value> =
        properties.iter().map(|(name, value)| (text(name), Value::from(text(value)))).collect();
    let body: String = view.body().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "log_offset": view.log_offset().get(),
        "record_bytes": view.record_bytes(),
        "magic": match view.version() { Version::V1 => "v1", Version::V2 => "v2" },
        "body_crc": view.body_crc(),
        "queue_id": view.queue_id(),
        "flag": view.flag(),
        "queue_offset": view.queue_offset().get(),
        "sys_flag": view.sys_flag().0,
        "born_ms": view.born_ms(),
        "born_host": view.born_host().to_string(),
        "store_ms": view.store_ms(),
        "store_host": view.store_host().to_string(),
        "reconsume_times": view.reconsume_times(),
        "prepared_transaction_offset": view.prepared_transaction_offset(),
        "body_hex": body,
        "topic": view.topic(),
        "properties": properties,
        "message_id": view.message_id(),
    })
}

fn offset(view: &MessageView) -> u64 {
    view.log_offset().get()
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).expect("offsets have 63 bits")
}

pub(crate) fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).expect("offsets are not negative")
}
