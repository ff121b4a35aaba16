//! How far the groups are in their queues, in memory and in RocketMQ's `config/consumerOffset.json`.
//!
//! The file is written every few seconds: after a kill a group may get again what it had consumed shortly before.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::answer::Escaped;
use crate::codes::say;
use crate::peer::lock;
use crate::request::Refusal;

/// RocketMQ has no limit; clients that make up names must not fill the memory.
const MAX_GROUPS: usize = 100_000;

/// The table of offsets.
#[derive(Debug)]
pub(crate) struct Offsets {
    table: Mutex<Table>,
    is_changed: AtomicBool,
    max_count: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// By `topic@group`.
    groups: HashMap<Arc<str>, Queues>,
    /// How many offsets there are in all.
    count: usize,
}

/// Queues and offsets of one group in one topic, sorted by queue.
#[derive(Debug, Clone, Default)]
struct Queues(Vec<(i32, i64)>);

/// The file; what else RocketMQ has in it is not needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OffsetsFile {
    offset_table: BTreeMap<String, Queues>,
}

impl Offsets {
    /// Starts with what the file has, even if that is more than there may be.
    pub(crate) fn new(file: OffsetsFile, max_count: usize) -> Self {
        let count = file.offset_table.values().map(|queues| queues.0.len()).sum();
        let groups = file.offset_table.into_iter().map(|(name, queues)| (name.into(), queues)).collect();
        Self { table: Mutex::new(Table { groups, count }), is_changed: AtomicBool::new(false), max_count }
    }

    pub(crate) fn get(&self, topic: &str, group: &str, queue_id: i32) -> Option<i64> {
        let table = lock(&self.table);
        let queues = &table.groups.get(&*key(topic, group))?.0;
        let at = queues.binary_search_by_key(&queue_id, |(queue, _)| *queue).ok()?;
        Some(queues[at].1)
    }

    /// Notes how far a group is, unless there is no room for it.
    pub(crate) fn commit(&self, topic: &str, group: &str, queue_id: i32, offset: i64) -> Result<(), Refusal> {
        let key = key(topic, group);
        let mut table = lock(&self.table);
        let Table { groups, count } = &mut *table;
        let full = |what| Err(Refusal::new(say::SYSTEM_ERROR, what));
        let group_count = groups.len();
        let queues = match groups.get_mut(&*key) {
            Some(queues) => queues,
            None if group_count >= MAX_GROUPS => return full(format!("there are {MAX_GROUPS} groups already")),
            None if *count >= self.max_count => return full(format!("there are {count} offsets already")),
            None => groups.entry(key.into()).or_default(),
        };
        match queues.0.binary_search_by_key(&queue_id, |(queue, _)| *queue) {
            Ok(at) if queues.0[at].1 == offset => return Ok(()),
            Ok(at) => queues.0[at].1 = offset,
            Err(_) if *count >= self.max_count => return full(format!("there are {count} offsets already")),
            Err(at) => {
                queues.0.insert(at, (queue_id, offset));
                *count += 1;
            }
        }
        self.is_changed.store(true, Ordering::Release);
        Ok(())
    }

    /// The content of the file, if it changed since it was taken last: queues without quotes, as RocketMQ writes them.
    pub(crate) fn take_changed(&self) -> Option<String> {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return None;
        }
        // Committing goes on while the text is made.
        let table = lock(&self.table);
        let mut groups: Vec<_> = table.groups.iter().map(|(key, queues)| (Arc::clone(key), queues.clone())).collect();
        drop(table);
        groups.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut text = String::from("{\"offsetTable\":{");
        for (index, (key, queues)) in groups.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}\n\"{}\":{{", Escaped(key));
            for (index, (queue, offset)) in queues.0.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{queue}:{offset}");
            }
            text.push('}');
        }
        text.push_str("\n}}\n");
        Some(text)
    }

    /// What was taken could not be written.
    pub(crate) fn put_back(&self) {
        self.is_changed.store(true, Ordering::Release);
    }
}

fn key(topic: &str, group: &str) -> String {
    format!("{topic}@{group}")
}

impl<'de> Deserialize<'de> for Queues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(QueuesVisitor)
    }
}

struct QueuesVisitor;

impl<'de> Visitor<'de> for QueuesVisitor {
    type Value = Queues;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of queues and offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut queues = Vec::new();
        while let Some(entry) = map.next_entry()? {
            queues.push(entry);
        }
        // Of a queue that is named twice the last offset counts, as in Java.
        queues.reverse();
        queues.sort_by_key(|(queue, _)| *queue);
        queues.dedup_by_key(|(queue, _)| *queue);
        queues.shrink_to_fit();
        Ok(Queues(queues))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_file_is_as_rocketmq_writes_it_and_comes_back() {
        let offsets = Offsets::new(OffsetsFile::default(), 100);
        assert!(offsets.take_changed().is_none());
        for (queue, offset) in [(10, 7), (0, 12)] {
            assert_eq!(offsets.commit("T", "g\"", queue, offset), Ok(()));
        }
        let text = offsets.take_changed().unwrap();
        assert!(text.contains(r#""T@g\"":{0:12,10:7}"#), "{text}");
        let again = Offsets::new(parse(&text).unwrap(), 100);
        assert_eq!((again.get("T", "g\"", 10), again.get("T", "g\"", 1)), (Some(7), None));
        assert_eq!(offsets.commit("T", "g\"", 0, 12), Ok(()));
        assert!(offsets.take_changed().is_none());
    }

    #[test]
    fn there_are_only_so_many() {
        let file = parse(r#"{"dataVersion":{"counter":1},"offsetTable":{"T@g":{2:1,1:5,1:6}}}"#).unwrap();
        let offsets = Offsets::new(file, 3);
        let committed = [("g", 1), ("h", 0), ("g", 3), ("i", 0), ("g", 2)]
            .map(|(group, queue)| offsets.commit("T", group, queue, 9).is_ok());
        assert_eq!(committed, [true, true, false, false, true]);
        assert_eq!((offsets.get("T", "g", 1), offsets.get("T", "i", 0)), (Some(9), None));
    }
}
