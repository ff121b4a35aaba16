//! Both versions at once, with the binary form of headers.

use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::java::Java;
use crate::maven::Version;
use crate::scene::{Site, number, numbered, producer, push, queues, results, sorted, texts};
use crate::{say, turn};

const TOPIC: &str = "both";

struct Side {
    java: Java,
    name: &'static str,
    producer: String,
}

impl Side {
    fn new(version: Version, site: &Site, folder: &TempDir) -> Self {
        let java = Java::start(version, &["-Drocketmq.serialize.type=ROCKETMQ"], folder.path());
        let producer = producer(&java, site, version.name(), json!({}));
        Self { java, name: version.name(), producer }
    }

    fn send(&self, word: &str, count: usize) -> Vec<Value> {
        let messages = numbered(&format!("{word}-{}", self.name), count);
        let fields = json!({"client": self.producer, "how": "async", "topic": TOPIC, "messages": messages});
        assert!(results(self.java.call("send", fields)).iter().all(|result| result["status"] == "SEND_OK"));
        messages
    }

    fn consume(&self, site: &Site) {
        push(&self.java, site, self.name, "both", TOPIC, json!({}));
    }

    fn queues(&self, members: usize, count: usize) -> Vec<i64> {
        self.java.until(&format!("{count} queues at {}", self.name), &[self.name], |lines| {
            queues(lines[0], members).filter(|queues| queues.len() == count)
        })
    }

    fn received(&self) -> Vec<Value> {
        self.java.unasked(self.name).into_iter().filter(|line| line.get("text").is_some()).collect()
    }

    /// Waits until it has at least so many messages of each queue that it was given.
    fn wait(&self, word: &str, count: usize) {
        self.java.until(&format!("{count} of {word} at {}", self.name), &[self.name], |lines| {
            (texts(lines[0]).iter().filter(|text| text.starts_with(word)).count() >= count).then_some(())
        });
    }
}

#[test]
fn both_versions_work_at_once() {
    let Some(_turn) = turn("both versions at once") else { return };
    let (site, folder) = (Site::new(&[]), TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let sides = thread::scope(|scope| {
        let starting = [Version::V498, Version::V533].map(|version| {
            let (site, folder) = (&site, &folder);
            scope.spawn(move || Side::new(version, site, folder))
        });
        starting.map(|side| side.join().unwrap())
    });
    let [older, newer] = &sides;
    older.java.call("create_topic", json!({"client": older.producer, "topic": TOPIC, "queues": 4}));
    sides.iter().for_each(|side| side.consume(&site));
    let (mut shared, of_newer) = (older.queues(2, 2), newer.queues(2, 2));
    shared.extend(&of_newer);
    shared.sort_unstable();
    assert_eq!(shared, [0, 1, 2, 3]);

    let sent = thread::scope(|scope| {
        let sending = sides.each_ref().map(|side| scope.spawn(move || side.send("together", 300)));
        sending.map(|messages| messages.join().unwrap()).concat()
    });
    // Which queues the messages went to is the producers' choice: those of a consumer's queues are its own.
    let stored = crate::scene::read(&newer.java, &site, TOPIC);
    let of_newer = stored.keys().filter(|place| of_newer.contains(&place.0)).count();
    newer.wait("together", of_newer);
    older.wait("together", stored.len() - of_newer);
    let got = sides.each_ref().map(Side::received);
    assert_eq!(sorted(got.iter().flatten()), sorted(&sent), "each message once");
    for (side, got) in sides.iter().zip(&got) {
        let from = |name: &str| texts(got).iter().filter(|text| text.contains(name)).count();
        assert!(from("4.9.8") > 0 && from("5.3.3") > 0, "{} has messages of both", side.name);
    }

    // The older one is killed: the newer one takes its queues over.
    older.java.kill();
    newer.queues(1, 4);
    let more = newer.send("alone", 100);
    newer.wait("alone", more.len());
    let all = newer.received();
    let alone: Vec<&Value> =
        all.iter().filter(|message| message["text"].as_str().unwrap().starts_with("alone")).collect();
    assert_eq!(sorted(alone.iter().copied()), sorted(&more));
    // What a killed consumer had not told comes again, and nothing else does.
    let again = all.len() - got[1].len() - more.len();
    assert!(again <= got[0].len());
    assert!(alone.iter().any(|message| shared.contains(&number(message, "queue"))));
    say(&format!(
        "both versions at once: {} sent, {} received by 4.9.8 and {} by 5.3.3; 4.9.8 killed, {} sent, {} received by 5.3.3, {again} again",
        sent.len(),
        got[0].len(),
        got[1].len(),
        more.len(),
        alone.len(),
    ));
    newer.java.call("end_push", json!({"client": newer.name}));
}
