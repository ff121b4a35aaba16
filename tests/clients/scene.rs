//! A broker with Java clients, and what the cases do with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::java::{Java, LIMIT};
use crate::maven::Version;

/// Queue and offset of a message.
pub(crate) type Place = (i64, i64);

/// A broker on a store of its own, and a process with clients of one version.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) java: Java,
    pub(crate) site: Site,
}

/// A broker on a store of its own.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    /// None while it is stopped.
    broker: Option<Broker>,
    /// Where it is every time.
    ports: [String; 4],
    options: Vec<String>,
}

impl Site {
    pub(crate) fn new(options: &[&str]) -> Self {
        Self::prepared(options, |_| ())
    }

    /// On a store that was made before.
    pub(crate) fn prepared(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = folder.path().join("store");
        prepare(&store);
        let broker = Broker::start(&store, options);
        let ports = [("--namesrv", broker.namesrv), ("--broker", broker.address)];
        let ports = ports.map(|(name, address)| [name.to_owned(), address.to_string()]).concat().try_into().unwrap();
        let options = options.iter().map(ToString::to_string).collect();
        Self { folder, broker: Some(broker), ports, options }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn namesrv(&self) -> String {
        self.ports[1].clone()
    }

    /// Stops the broker with SIGTERM.
    pub(crate) fn stop(&mut self) {
        self.broker.take().unwrap().stop_well();
    }

    /// Kills the broker with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.broker.take().unwrap().kill();
    }

    /// Starts the broker again, on the same store and at the same addresses.
    pub(crate) fn start(&mut self) {
        let options: Vec<&str> = self.options.iter().chain(&self.ports).map(String::as_str).collect();
        self.broker = Some(Broker::start(&self.store(), &options));
    }
}

impl Scene {
    pub(crate) fn new(version: Version, flags: &[&str]) -> Self {
        let site = Site::new(&[]);
        let java = Java::start(version, flags, site.folder.path());
        Self { java, site }
    }

    /// Stops the broker, which must still be well.
    pub(crate) fn end(mut self) {
        self.site.stop();
    }

    /// Starts a producer, and returns its name, which `of` makes unique.
    pub(crate) fn producer(&self, of: &str, options: Value) -> String {
        producer(&self.java, &self.site, of, options)
    }

    /// Starts a push consumer of everything in a topic, from its first message.
    pub(crate) fn push(&self, client: &str, group: &str, topic: &str, options: Value) {
        push(&self.java, &self.site, client, group, topic, options);
    }

    /// Sends messages in a way, and returns the results.
    pub(crate) fn send(&self, producer: &str, how: &str, topic: &str, messages: &[Value]) -> Vec<Value> {
        let fields = json!({"client": producer, "how": how, "topic": topic, "messages": messages});
        results(self.java.call("send", fields))
    }

    /// All messages of a topic.
    pub(crate) fn read(&self, topic: &str) -> BTreeMap<Place, Value> {
        read(&self.java, &self.site, topic)
    }
}

/// The results in the answer to a send.
pub(crate) fn results(mut answer: Value) -> Vec<Value> {
    answer["results"].as_array_mut().map(std::mem::take).unwrap()
}

pub(crate) fn producer(java: &Java, site: &Site, of: &str, options: Value) -> String {
    // It is the name of a group as well.
    let name = format!("producer-{}", of.replace('.', "-"));
    java.call("producer", with(json!({"client": name, "namesrv": site.namesrv()}), options));
    name
}

pub(crate) fn push(java: &Java, site: &Site, client: &str, group: &str, topic: &str, options: Value) {
    let fields = json!({"client": client, "namesrv": site.namesrv(), "group": group, "topic": topic, "tags": "*",
        "start": "FIRST_OFFSET"});
    java.call("push", with(fields, options));
}

/// All messages of a topic, through the older pull API; the offsets of each queue follow each other.
pub(crate) fn read(java: &Java, site: &Site, topic: &str) -> BTreeMap<Place, Value> {
    let reader = format!("reader-{topic}-{:?}", Instant::now());
    let about = json!({"client": reader, "namesrv": site.namesrv(), "group": "readers", "topic": topic});
    java.call("pull", about.clone());
    let queues = java.call("pull_queues", about.clone());
    let mut found = BTreeMap::new();
    for queue in queues["queues"].as_array().unwrap() {
        let mut place = with(about.clone(), json!({"queue": queue, "tags": "*"}));
        let range = java.call("pull_offsets", place.clone());
        let mut next = number(&range, "min");
        while next < number(&range, "max") {
            place["offset"] = next.into();
            let mut got = java.call("pull_read", place.clone());
            assert_eq!(got["status"], "FOUND", "{topic}: {got}");
            for message in got["messages"].as_array_mut().map(std::mem::take).unwrap() {
                assert_eq!((number(&message, "offset"), &message["queue"]), (next, queue), "{topic}: offsets follow");
                found.insert((queue.as_i64().unwrap(), next), message);
                next += 1;
            }
            assert_eq!(number(&got, "next"), next, "{topic}");
        }
    }
    java.call("pull_end", about);
    found
}

/// The fields of both objects.
pub(crate) fn with(mut fields: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
        fields.extend(more);
    }
    fields
}

pub(crate) fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

pub(crate) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// Messages whose texts are a word and a number.
pub(crate) fn numbered(word: &str, count: usize) -> Vec<Value> {
    (0..count).map(|number| json!({"text": format!("{word}-{number}")})).collect()
}

/// The place that a send's result names; the message was stored.
pub(crate) fn place(result: &Value) -> Place {
    assert_eq!(result["status"], "SEND_OK", "{result}");
    (number(result, "queue"), number(result, "offset"))
}

/// The texts of messages that consumers got, in the order in which they came.
pub(crate) fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.get("text")?.as_str()).collect()
}

/// The texts of messages, sorted.
pub(crate) fn sorted<'v>(messages: impl IntoIterator<Item = &'v Value>) -> Vec<&'v str> {
    let mut texts: Vec<&str> = messages.into_iter().filter_map(|message| message.get("text")?.as_str()).collect();
    texts.sort_unstable();
    texts
}

/// The queues that a consumer was given last, if it knew of `members`.
pub(crate) fn queues(lines: &[Value], members: usize) -> Option<Vec<i64>> {
    let last = lines.iter().rev().find(|line| line.get("queues").is_some())?;
    let is_known = last["members"] == members;
    is_known.then(|| last["queues"].as_array().unwrap().iter().filter_map(Value::as_i64).collect())
}

/// Tries again until there is a result.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
