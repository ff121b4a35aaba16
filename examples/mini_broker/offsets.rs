//! How far the groups are in their queues, and what is asked about offsets.
//!
//! Kept in RocketMQ's `config/consumerOffset.json`, written every few seconds: after a kill a group may get again what it
//! had consumed shortly before.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mqlog::{QueueHandle, QueueOffset, TimeBound};
use serde_json::Value;

use crate::answer::{Answer, Escaped};
use crate::broker::{Broker, Call, Outcome};
use crate::codes::say;
use crate::peer::lock;
use crate::request::Refusal;
use crate::topics::missing;

/// RocketMQ has no limit; clients that make up names must not fill the memory.
const MAX_GROUPS: usize = 100_000;
/// As long as a queue's first message is within this much of the log's end, a group that is new starts with it. RocketMQ
/// takes two fifths of the machine's memory.
const YOUNG_BYTES: u64 = 1 << 30;

/// The table: `topic@group`, queue, offset.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    table: Mutex<HashMap<String, BTreeMap<i32, i64>>>,
    is_changed: AtomicBool,
}

impl Offsets {
    /// Adds what the file has.
    pub(crate) fn load(&self, file: &Value) {
        let groups = file.get("offsetTable").and_then(Value::as_object);
        let mut table = lock(&self.table);
        for (name, queues) in groups.into_iter().flatten() {
            let queues = queues.as_object().into_iter().flatten();
            let offsets = queues.filter_map(|(queue, offset)| Some((queue.parse().ok()?, offset.as_i64()?)));
            table.insert(name.clone(), offsets.collect());
        }
    }

    pub(crate) fn get(&self, topic: &str, group: &str, queue_id: i32) -> Option<i64> {
        lock(&self.table).get(&key(topic, group))?.get(&queue_id).copied()
    }

    /// Notes how far a group is. Says whether there was room for it.
    pub(crate) fn commit(&self, topic: &str, group: &str, queue_id: i32, offset: i64) -> bool {
        let mut table = lock(&self.table);
        let key = key(topic, group);
        if table.len() >= MAX_GROUPS && !table.contains_key(&key) {
            return false;
        }
        if table.entry(key).or_default().insert(queue_id, offset) != Some(offset) {
            self.is_changed.store(true, Ordering::Release);
        }
        true
    }

    /// The content of the file, if it changed since it was taken last: queues without quotes, as RocketMQ writes them.
    pub(crate) fn take_changed(&self) -> Option<String> {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return None;
        }
        let table = lock(&self.table);
        let sorted: BTreeMap<&String, &BTreeMap<i32, i64>> = table.iter().collect();
        let mut text = String::from("{\"offsetTable\":{");
        for (index, (name, queues)) in sorted.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let queues: Vec<String> = queues.iter().map(|(queue, offset)| format!("{queue}:{offset}")).collect();
            // Writing to a string cannot fail.
            let _ = write!(text, "{comma}\n\"{}\":{{{}}}", Escaped(name), queues.join(","));
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

fn offset_answer(offset: impl std::fmt::Display) -> Outcome {
    Ok(Answer::ok().field("offset", offset).into())
}

impl Broker {
    /// The queue that a call names, of a topic that there is.
    fn queue_of(&self, call: Call<'_>) -> Result<QueueHandle, Refusal> {
        let fields = &call.request.fields;
        let topic = fields.required("topic")?;
        self.topics.with(topic, |_| ()).ok_or_else(|| missing(topic))?;
        Ok(self.store.queue(topic, fields.number("queueId")?))
    }

    /// How far is a group? A new one begins with the first message of a young queue; where to begin in another one is up
    /// to the client.
    pub(crate) fn query_offset(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let (topic, group) = (fields.required("topic")?, fields.group()?);
        if let Some(offset) = self.offsets.get(topic, group, fields.number("queueId")?) {
            return offset_answer(offset);
        }
        let may_be_zero = fields.text("setZeroIfNotFound") != Some("false");
        if may_be_zero && self.is_young(&self.queue_of(call)?)? {
            return offset_answer(0);
        }
        Err(Refusal::new(say::QUERY_NOT_FOUND, "Not found, maybe this group consumer boot first"))
    }

    fn is_young(&self, queue: &QueueHandle) -> Result<bool, Refusal> {
        if queue.range()?.start > QueueOffset::ZERO {
            return Ok(false);
        }
        let first = queue.entries(QueueOffset::ZERO, 1)?;
        let tail = self.store.log_range().end.get();
        Ok(first.first().is_none_or(|first| tail.saturating_sub(first.entry.log_offset) < YOUNG_BYTES))
    }

    pub(crate) fn update_offset(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let (topic, group) = (fields.required("topic")?, fields.group()?);
        let (queue_id, offset) = (fields.number("queueId")?, fields.number("commitOffset")?);
        self.commit_offset(topic, group, queue_id, offset)?;
        Ok(Answer::ok().into())
    }

    /// Notes how far a group is in a queue that its topic has.
    pub(crate) fn commit_offset(&self, topic: &str, group: &str, queue_id: i32, offset: i64) -> Result<(), Refusal> {
        let queues = self.topics.with(topic, |topic| topic.queues()).ok_or_else(|| missing(topic))?;
        if !(0..queues).contains(&queue_id) || offset < 0 {
            let remark = format!("there is no offset {offset} in queue {queue_id} of {topic}");
            return Err(Refusal::new(say::INVALID_PARAMETER, remark));
        }
        if !self.offsets.commit(topic, group, queue_id, offset) {
            return Err(Refusal::new(say::SYSTEM_ERROR, format!("there are {MAX_GROUPS} groups already")));
        }
        Ok(())
    }

    pub(crate) fn max_offset(&self, call: Call<'_>) -> Outcome {
        offset_answer(self.queue_of(call)?.range()?.end)
    }

    pub(crate) fn min_offset(&self, call: Call<'_>) -> Outcome {
        offset_answer(self.queue_of(call)?.range()?.start)
    }

    pub(crate) fn offset_by_time(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let is_upper = fields.text("boundaryType").is_some_and(|bound| bound.eq_ignore_ascii_case("upper"));
        let bound = if is_upper { TimeBound::Upper } else { TimeBound::Lower };
        offset_answer(self.queue_of(call)?.offset_by_time(fields.number("timestamp")?, bound)?)
    }

    pub(crate) fn earliest_time(&self, call: Call<'_>) -> Outcome {
        let earliest = self.queue_of(call)?.earliest_ms()?.unwrap_or(-1);
        Ok(Answer::ok().field("timestamp", earliest).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_file_is_as_rocketmq_writes_it_and_comes_back() {
        let offsets = Offsets::default();
        assert!(offsets.take_changed().is_none());
        for (queue, offset) in [(0, 12), (10, 7)] {
            assert!(offsets.commit("T", "g\"", queue, offset));
        }
        let text = offsets.take_changed().unwrap();
        assert!(text.contains(r#""T@g\"":{0:12,10:7}"#), "{text}");
        let again = Offsets::default();
        again.load(&parse(&text).unwrap());
        assert_eq!((again.get("T", "g\"", 10), again.get("T", "g\"", 1)), (Some(7), None));
        assert!(offsets.commit("T", "g\"", 0, 12) && offsets.take_changed().is_none());
    }
}
