//! Topics: which there are, how many queues they have, and what may be done with them.
//!
//! Kept in RocketMQ's `config/topics.json`, which is the truth about the topics it knows. One that the store has and the
//! file has not, because a kill came between, is added when the broker starts.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::broker::{BROKER_NAME, Broker, CLUSTER_NAME, Call, Outcome, Reply, now_ms};
use crate::codes::say;
use crate::peer::lock;
use crate::request::Refusal;

/// Bits of a permission.
pub(crate) const READ: i32 = 4;
pub(crate) const WRITE: i32 = 2;
const INHERIT: i32 = 1;

/// The topic whose route stands for topics that do not exist yet.
pub(crate) const AUTO_CREATE: &str = "TBW102";
pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
const DLQ_PREFIX: &str = "%DLQ%";
/// A topic gets at least so many queues if nobody says how many.
const DEFAULT_QUEUES: i32 = 4;
/// RocketMQ has no limit; a topic's queues are files.
const MAX_QUEUES: i32 = 1024;
const MAX_NAME_BYTES: usize = 127;

/// RocketMQ's clients allow so much for a group, and the topic of its retries is named after it.
const MAX_RETRY_NAME_BYTES: usize = RETRY_PREFIX.len() + 255;

/// One topic, with the names that the file has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Topic {
    #[serde(rename = "readQueueNums")]
    pub(crate) read_queues: i32,
    #[serde(rename = "writeQueueNums")]
    pub(crate) write_queues: i32,
    #[serde(rename = "perm")]
    pub(crate) permission: i32,
    #[serde(rename = "topicSysFlag", default)]
    pub(crate) sys_flag: i32,
    #[serde(rename = "order", default)]
    is_ordered: bool,
    /// Handed on, as all that follows.
    #[serde(rename = "topicFilterType", default = "single_tag")]
    filter_type: String,
    #[serde(default)]
    attributes: Map<String, Value>,
    /// How many queues the file knows, where that may be less.
    #[serde(skip)]
    durable_queues: Option<i32>,
}

fn single_tag() -> String {
    "SINGLE_TAG".to_owned()
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TopicsFile {
    topic_config_table: BTreeMap<String, Topic>,
    data_version: DataVersion,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DataVersion {
    counter: u64,
}

impl Topic {
    fn new(queues: i32, permission: i32) -> Self {
        Self {
            read_queues: queues,
            write_queues: queues,
            permission,
            sys_flag: 0,
            is_ordered: false,
            filter_type: single_tag(),
            attributes: Map::new(),
            durable_queues: None,
        }
    }

    pub(crate) fn may_read(&self) -> bool {
        self.permission & READ != 0
    }

    /// The number of queues that can be named in a send: of a topic that got more, those that the file has.
    pub(crate) fn queues(&self) -> i32 {
        self.durable_queues.map_or(self.all_queues(), |durable| self.all_queues().min(durable))
    }

    /// One of the queues for a send that names none; `None` if there is none to write to.
    pub(crate) fn any_queue(&self, number: u32) -> Option<i32> {
        let any = i32::try_from(number >> 1).unwrap_or(0);
        any.checked_rem(self.write_queues.min(self.queues()))
    }

    fn all_queues(&self) -> i32 {
        self.read_queues.max(self.write_queues)
    }

    fn to_json(&self, name: &str) -> Value {
        json!({
            "attributes": self.attributes, "order": self.is_ordered, "perm": self.permission,
            "readQueueNums": self.read_queues, "topicFilterType": self.filter_type, "topicName": name,
            "topicSysFlag": self.sys_flag, "writeQueueNums": self.write_queues,
        })
    }
}

/// The table of topics.
#[derive(Debug)]
pub(crate) struct Topics {
    table: RwLock<BTreeMap<String, Topic>>,
    /// Counts changes, as RocketMQ's data version does.
    changes: AtomicU64,
    is_changed: AtomicBool,
    /// How many queues each topic has in the text that was taken last.
    taken: Mutex<Vec<(String, i32)>>,
    max_count: usize,
}

impl Topics {
    /// Starts with the topics that RocketMQ has from the beginning.
    pub(crate) fn new(max_count: usize) -> Self {
        let mut table = BTreeMap::new();
        let mut add = |name: &str, queues, permission| table.insert(name.to_owned(), Topic::new(queues, permission));
        add(AUTO_CREATE, 8, READ | WRITE | INHERIT);
        add(CLUSTER_NAME, 16, READ | WRITE | INHERIT);
        add(BROKER_NAME, 1, READ | WRITE | INHERIT);
        for name in ["DefaultCluster_REPLY_TOPIC", "RMQ_SYS_TRACE_TOPIC", "SELF_TEST_TOPIC"] {
            add(name, 1, READ | WRITE);
        }
        let (changes, is_changed) = (AtomicU64::new(0), AtomicBool::new(true));
        Self { table: RwLock::new(table), changes, is_changed, taken: Mutex::default(), max_count }
    }

    /// Adds what the file has, and the queues that the store has of topics that are not in the file.
    pub(crate) fn load(&self, file: TopicsFile, stored: Vec<(String, i32)>) {
        let known: HashSet<String> = file.topic_config_table.keys().cloned().collect();
        let mut table = self.write();
        table.extend(file.topic_config_table);
        for (name, queue_id) in stored.into_iter().filter(|(name, _)| !known.contains(name)) {
            let is_single = name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX);
            let made = || Topic::new(if is_single { 1 } else { DEFAULT_QUEUES }, READ | WRITE);
            let topic = table.entry(name).or_insert_with(made);
            topic.read_queues = topic.read_queues.max(queue_id.saturating_add(1));
        }
        self.changes.store(file.data_version.counter, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Topic> {
        self.read().get(name).cloned()
    }

    /// Calls with the topic, without a copy.
    pub(crate) fn with<T>(&self, name: &str, look: impl FnOnce(&Topic) -> T) -> Option<T> {
        self.read().get(name).map(look)
    }

    /// The topic that a send goes to; made like its default topic on the first one. Says whether it was made.
    pub(crate) fn for_send(&self, name: &str, default: Option<&str>, queues: i32) -> Result<(Topic, bool), Refusal> {
        if let Some(topic) = self.get(name) {
            return Ok((topic, false));
        }
        let pattern = if name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX) {
            Topic::new(1, READ | WRITE)
        } else {
            let pattern = default.and_then(|default| self.get(default));
            let pattern = pattern.filter(|pattern| pattern.permission & INHERIT != 0).ok_or_else(|| missing(name))?;
            let queues = queues.clamp(1, pattern.write_queues.max(1));
            Topic::new(queues, pattern.permission & !INHERIT)
        };
        check_name(name)?;
        self.add(name, pattern.clone())?;
        Ok((pattern, true))
    }

    /// Makes the topic of a group's retries, if it is not there. Says whether it was made.
    pub(crate) fn ensure_retry(&self, name: &str) -> Result<bool, Refusal> {
        if self.with(name, |_| ()).is_some() {
            return Ok(false);
        }
        check(name, MAX_RETRY_NAME_BYTES)?;
        self.add(name, Topic::new(1, READ | WRITE)).map(|()| true)
    }

    /// Adds or changes a topic.
    fn add(&self, name: &str, topic: Topic) -> Result<(), Refusal> {
        let mut table = self.write();
        if table.len() >= self.max_count && !table.contains_key(name) {
            return Err(Refusal::new(say::SYSTEM_ERROR, format!("there are {} topics already", self.max_count)));
        }
        // A topic that is not in the file gets its queues from the store; one that is there has those of the file after a
        // kill, and what is in others could not be pulled.
        let durable_queues = table.get(name).map(Topic::queues);
        table.insert(name.to_owned(), Topic { durable_queues, ..topic });
        drop(table);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.is_changed.store(true, Ordering::Release);
        Ok(())
    }

    /// The content of the file, if it changed since it was taken last.
    pub(crate) fn take_changed(&self) -> Option<String> {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return None;
        }
        let table = self.read();
        let topics: Map<String, Value> =
            table.iter().map(|(name, topic)| (name.clone(), topic.to_json(name))).collect();
        let changed = table.iter().filter(|(_, topic)| topic.durable_queues.is_some());
        *lock(&self.taken) = changed.map(|(name, topic)| (name.clone(), topic.all_queues())).collect();
        drop(table);
        let counter = self.changes.load(Ordering::Relaxed);
        let version = json!({"counter": counter, "stateVersion": 0, "timestamp": now_ms()});
        Some(format!("{:#}", json!({"dataVersion": version, "topicConfigTable": topics})))
    }

    /// What was taken is written: the queues in it can be used.
    pub(crate) fn saved(&self) {
        let mut table = self.write();
        for (name, queues) in std::mem::take(&mut *lock(&self.taken)) {
            if let Some(topic) = table.get_mut(&name) {
                topic.durable_queues = Some(queues);
            }
        }
    }

    /// What was taken could not be written.
    pub(crate) fn put_back(&self) {
        self.is_changed.store(true, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Topic>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Topic>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RocketMQ's rule for names of topics that get messages.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    check(name, MAX_NAME_BYTES)
}

fn check(name: &str, most: usize) -> Result<(), Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte);
    if name.is_empty() || name.len() > most || !name.bytes().all(is_allowed) {
        let reason = format!("is not 1 to {most} characters of ^[%|a-zA-Z0-9_-]+$");
        return Err(Refusal::new(say::INVALID_PARAMETER, format!("The specified topic {reason}.")));
    }
    Ok(())
}

/// What RocketMQ says of a topic that is not there.
pub(crate) fn missing(name: &str) -> Refusal {
    let hint = "see https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    Refusal::new(say::TOPIC_NOT_EXIST, format!("topic[{name}] not exist, apply first please! {hint}"))
}

impl Broker {
    /// Makes or changes a topic; answered when the file is written.
    pub(crate) fn create_topic(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let name = fields.required("topic")?;
        let (read_queues, write_queues) = (fields.number("readQueueNums")?, fields.number("writeQueueNums")?);
        if !(0..=MAX_QUEUES).contains(&read_queues) || !(0..=MAX_QUEUES).contains(&write_queues) {
            let reason = format!("a topic has at most {MAX_QUEUES} queues, not {read_queues} and {write_queues}");
            return Err(Refusal::new(say::INVALID_PARAMETER, reason));
        }
        let permission = fields.number("perm")?;
        if name == AUTO_CREATE || !(0..=READ | WRITE | INHERIT).contains(&permission) {
            let reason = format!("the topic[{name}] is a system topic, or its permission {permission} is none");
            return Err(Refusal::new(say::INVALID_PARAMETER, reason));
        }
        check_name(name)?;
        let present = self.topics.get(name).unwrap_or_else(|| Topic::new(1, permission));
        let topic = Topic {
            read_queues,
            write_queues,
            permission,
            sys_flag: fields.number_or("topicSysFlag", 0)?,
            is_ordered: fields.is_true("order"),
            ..present
        };
        self.topics.add(name, topic)?;
        self.saver.save_then_answer(call);
        Ok(Reply::Later)
    }

    /// Tells where a topic is.
    pub(crate) fn route(&self, call: Call<'_>) -> Outcome {
        let name = call.request.fields.required("topic")?;
        if name.starts_with(RETRY_PREFIX) && self.topics.ensure_retry(name)? {
            // Before its first heartbeat a consumer asks for it; told now, it need not wait for its next question.
            self.saver.save_soon();
        }
        let topic = self.topics.get(name).ok_or_else(|| {
            let remark = format!("No topic route info in name server for the topic: {name}");
            Refusal::new(say::TOPIC_NOT_EXIST, remark)
        })?;
        let route = json!({
            "brokerDatas": [{
                "brokerAddrs": {"0": self.advertised}, "brokerName": BROKER_NAME, "cluster": CLUSTER_NAME,
                "enableActingMaster": false,
            }],
            "filterServerTable": {},
            "queueDatas": [{
                "brokerName": BROKER_NAME, "perm": topic.permission, "readQueueNums": topic.read_queues,
                "topicSysFlag": topic.sys_flag, "writeQueueNums": topic.write_queues,
            }],
        });
        Ok(Answer::ok().body(crate::answer::Body::Bytes(route.to_string().into_bytes())).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_first_send_makes_a_topic_like_its_default() {
        let topics = Topics::new(100);
        let made = |name: &str, default, queues| {
            topics.for_send(name, default, queues).map(|(topic, new)| (topic.queues(), topic.permission, new))
        };
        assert_eq!(made("a", Some(AUTO_CREATE), 4), Ok((4, 6, true)));
        assert_eq!(made("a", Some(AUTO_CREATE), 8), Ok((4, 6, false)));
        assert_eq!(made("b", Some(AUTO_CREATE), 100), Ok((8, 6, true)));
        assert_eq!(made("%RETRY%g", None, 4), Ok((1, 6, true)));
        assert_eq!(made("c", Some("a"), 4).unwrap_err().code, say::TOPIC_NOT_EXIST);
        assert_eq!(made("a/b", Some(AUTO_CREATE), 4).unwrap_err().code, say::INVALID_PARAMETER);
    }

    #[test]
    fn the_file_comes_back_and_the_store_adds_what_it_does_not_know() {
        let topics = Topics::new(100);
        topics.for_send("a", Some(AUTO_CREATE), 4).unwrap();
        let file = topics.take_changed().unwrap();
        assert!(topics.take_changed().is_none());
        let again = Topics::new(100);
        let stored = [("a", 5), ("found", 1), ("large", 3), ("large", 9)].map(|(name, queue)| (name.to_owned(), queue));
        again.load(parse(&file).unwrap(), stored.into());
        assert_eq!(again.get("a"), topics.get("a"));
        assert_eq!(again.get("found").map(|topic| topic.queues()), Some(4));
        assert_eq!(again.get("large").map(|topic| (topic.read_queues, topic.write_queues)), Some((10, 4)));
    }

    /// A message in a queue that the file did not know yet could not be pulled after a kill.
    #[test]
    fn new_queues_of_a_topic_are_there_when_the_file_has_them() {
        let topics = Topics::new(100);
        topics.for_send("a", Some(AUTO_CREATE), 4).unwrap();
        let queues = || {
            let topic = topics.get("a").unwrap();
            let chosen = (0..100).map(|number| topic.any_queue(number)).max();
            assert_eq!(chosen, Some(Some(topic.queues() - 1)));
            topic.queues()
        };
        for (count, before) in [(8, 4), (2, 2), (6, 2)] {
            topics.add("a", Topic::new(count, READ | WRITE)).unwrap();
            assert_eq!(queues(), before);
            topics.take_changed().unwrap();
            assert_eq!(queues(), before);
            topics.saved();
            assert_eq!(queues(), count);
        }
    }

    #[test]
    fn what_rocketmq_keeps_of_a_topic_is_handed_on() {
        let file = r#"{"dataVersion":{"counter":7,"stateVersion":0,"timestamp":1},"topicConfigTable":{"T":{
            "attributes":{"message.type":"NORMAL"},"multiTopic":false,"order":true,"perm":6,"readQueueNums":3,
            "topicFilterType":"MULTI_TAG","topicName":"T","topicSysFlag":1,"writeQueueNums":2}}}"#;
        let topics = Topics::new(100);
        topics.load(parse(file).unwrap(), Vec::new());
        let written: Value = parse(&topics.take_changed().unwrap()).unwrap();
        let topic = &written["topicConfigTable"]["T"];
        assert_eq!((topic["topicFilterType"].as_str(), topic["order"].as_bool()), (Some("MULTI_TAG"), Some(true)));
        assert_eq!(topic["attributes"], json!({"message.type": "NORMAL"}));
        for (wrong, place) in
            [("[]", "array"), (r#"{"topicConfigTable":{"T":{"perm":"6"}}}"#, "topicConfigTable.T.perm")]
        {
            let error = parse::<TopicsFile>(wrong).unwrap_err().to_string();
            assert!(error.contains(place), "{error}");
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let topics = Topics::new(8);
        let made: Vec<bool> =
            (0..5).map(|number| topics.for_send(&format!("t{number}"), Some(AUTO_CREATE), 1).is_ok()).collect();
        assert_eq!(made, [true, true, false, false, false]);
    }
}
