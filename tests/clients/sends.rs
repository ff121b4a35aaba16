//! Everything a producer can do; what it sent is read back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scene::{Place, Scene, number, numbered, place, results, sorted, text, until};

/// RocketMQ's limit, and the store's.
const LIMIT_BYTES: usize = 4 << 20;

/// The body that the Java program makes of a text and a size.
fn body(text: &str, size: usize) -> Vec<u8> {
    let mut body = text.as_bytes().to_vec();
    let mut state = size.max(body.len()) as u64;
    while body.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.push((state >> 56) as u8);
    }
    body
}

/// A message that was read is the one that was sent.
fn check(sent: &Value, read: &Value) {
    let size = sent["size"].as_u64().unwrap_or(0) as usize;
    let body = body(text(sent, "text"), size);
    assert_eq!(read["size"], body.len(), "{sent}");
    assert_eq!(read["crc"], crc32fast::hash(&body), "{sent}");
    assert_eq!(read["flag"], sent.get("flag").cloned().unwrap_or(0.into()), "{sent}");
    for name in ["tags", "keys"] {
        assert_eq!(read.get(name), sent.get(name), "{name} of {sent}");
    }
    for (name, value) in sent["properties"].as_object().into_iter().flatten() {
        assert_eq!(&read["properties"][name], value, "{name} of {sent}");
    }
}

/// Each message that was acknowledged stands where its result says, and there is nothing else.
fn check_all(sent: &[Value], results: &[Value], read: &BTreeMap<Place, Value>) {
    assert_eq!((results.len(), read.len()), (sent.len(), sent.len()));
    for (sent, result) in sent.iter().zip(results) {
        let found = read.get(&place(result)).unwrap_or_else(|| panic!("nothing at {result}"));
        check(sent, found);
        assert_eq!(found["msg_id"], result["msg_id"]);
    }
}

fn acknowledged(scene: &Scene, how: &str, count: usize) -> String {
    let producer = scene.producer(how, json!({}));
    let sent = numbered(how, count);
    let results = scene.send(&producer, how, how, &sent);
    let read = scene.read(how);
    check_all(&sent, &results, &read);
    // The second form of an id is the address of the broker and the place in its log.
    assert!(results.iter().all(|result| text(result, "offset_msg_id").starts_with("7F000001")), "{}", results[0]);
    format!("{count} sent, {} acknowledged, {} read", results.len(), read.len())
}

pub(crate) fn sync(scene: &Scene) -> String {
    acknowledged(scene, "sync", 200)
}

pub(crate) fn asynchronous(scene: &Scene) -> String {
    acknowledged(scene, "async", 500)
}

/// Nobody acknowledges them: they are there soon.
pub(crate) fn one_way(scene: &Scene) -> String {
    let producer = scene.producer("oneway", json!({}));
    let sent = numbered("oneway", 200);
    let mut results = scene.send(&producer, "sync", "oneway", &sent[..1]);
    results.extend(scene.send(&producer, "oneway", "oneway", &sent[1..]));
    assert!(results[1..].iter().all(Value::is_null), "{results:?}");
    let read = until("one-way messages", || Some(scene.read("oneway")).filter(|read| read.len() >= sent.len()));
    assert_eq!(sorted(read.values()), sorted(&sent));
    format!("{} sent, {} read", sent.len(), read.len())
}

/// A batch goes to one queue, at consecutive offsets.
pub(crate) fn batches(scene: &Scene) -> String {
    let producer = scene.producer("batch", json!({}));
    let mut sent = Vec::new();
    let mut all = Vec::new();
    for count in [1, 50, 500] {
        let mut batch = numbered(&format!("batch{count}"), count);
        batch[0]["tags"] = "first".into();
        batch[0]["properties"] = json!({"p": "é"});
        let result = scene.java.call("send_batch", json!({"client": producer, "topic": "batch", "messages": batch}));
        let (queue, first) = place(&result);
        assert_eq!(text(&result, "offset_msg_id").split(',').count(), count, "{result}");
        sent.extend((first..).zip(batch.iter().cloned()).map(|(offset, message)| ((queue, offset), message)));
        all.extend(batch);
    }
    let read = scene.read("batch");
    assert_eq!(read.len(), sent.len());
    for (place, sent) in &sent {
        check(sent, &read[place]);
    }
    format!("3 batches with {} messages sent, {} read", sent.len(), read.len())
}

/// To each queue of a topic that was made with six of them, in each way.
pub(crate) fn to_a_chosen_queue(scene: &Scene) -> String {
    let producer = scene.producer("chosen", json!({}));
    scene.java.call("create_topic", json!({"client": producer, "topic": "chosen", "queues": 6}));
    let queues = scene.java.call("publish_queues", json!({"client": producer, "topic": "chosen"}));
    assert_eq!(queues["count"], 6);
    for queue in 0..6 {
        for how in ["sync", "async", "oneway"] {
            let messages = numbered(&format!("{queue}-{how}"), 10);
            let fields =
                json!({"client": producer, "how": how, "topic": "chosen", "queue": queue, "messages": messages});
            let results = results(scene.java.call("send", fields));
            assert!(how == "oneway" || results.iter().all(|result| place(result).0 == queue), "{results:?}");
        }
    }
    let read = until("messages in chosen queues", || Some(scene.read("chosen")).filter(|read| read.len() >= 180));
    assert!(read.iter().all(|((queue, _), message)| text(message, "text").starts_with(&format!("{queue}-"))));
    for queue in 0..6 {
        assert_eq!(read.keys().filter(|place| place.0 == queue).count(), 30);
    }
    format!("180 sent to 6 queues, {} read from them", read.len())
}

pub(crate) fn everything_comes_back(scene: &Scene) -> String {
    let producer = scene.producer("fields", json!({}));
    let long = "x".repeat(30_000);
    let sent = [
        json!({"text": "plain"}),
        json!({"text": "tags", "tags": "TagA"}),
        json!({"text": "keys", "keys": "k-1 k-2 k-3", "tags": "t"}),
        json!({"text": "größe 大小 😀", "tags": "größe", "keys": "大小", "properties": {"sinn": "Größe 😀", "a b": "c=d"}}),
        json!({"text": "flag", "flag": -7}),
        json!({"text": "long", "properties": {"long": long}}),
        json!({"text": "many", "properties": (0..100).map(|n| (format!("p{n}"), n.to_string().into())).collect::<serde_json::Map<_, _>>()}),
    ];
    let mut results = scene.send(&producer, "sync", "fields", &sent);
    results.extend(scene.send(&producer, "async", "fields", &sent));
    let read = scene.read("fields");
    check_all(&[&sent[..], &sent[..]].concat(), &results, &read);
    for message in read.values() {
        assert_eq!(message["properties"]["CLUSTER"], "DefaultCluster");
        assert_eq!(message["properties"]["UNIQ_KEY"], message["msg_id"]);
    }
    format!("{} sent, {} read", results.len(), read.len())
}

/// Are the stored bytes others than those that came out? The client's own flag is gone then.
fn is_compressed(message: &Value) -> bool {
    number(message, "stored_crc") != number(message, "crc") & 0x7FFF_FFFF
}

/// As they are, and compressed by the client.
pub(crate) fn body_sizes(scene: &Scene) -> String {
    let sizes = [1, 2, 3, 100, 1023, 1024, 4095, 4096, 4097, 65_535, 65_536, 1 << 20, LIMIT_BYTES - 1, LIMIT_BYTES];
    let sent = sizes.map(|size| json!({"text": "s", "size": size}));
    let plain = scene.producer("sizes", json!({"compress_over": i32::MAX}));
    let results = scene.send(&plain, "sync", "sizes", &sent);
    let read = scene.read("sizes");
    check_all(&sent, &results, &read);
    assert!(!read.values().any(is_compressed));
    let smaller = scene.producer("compressed", json!({}));
    let results = scene.send(&smaller, "sync", "compressed", &sent[..12]);
    let read = scene.read("compressed");
    check_all(&sent[..12], &results, &read);
    let compressed = read.values().filter(|message| is_compressed(message)).count();
    assert_eq!(compressed, 5, "bodies of 4096 bytes and more");
    format!(
        "{} bodies of 1 to {LIMIT_BYTES} bytes, and 12 of which {compressed} compressed, sent and read",
        sizes.len()
    )
}

/// The client lets them through; the broker does not, and goes on.
pub(crate) fn too_large(scene: &Scene) -> String {
    let producer = scene.producer("large", json!({"max_bytes": 2 * LIMIT_BYTES, "compress_over": i32::MAX}));
    let sent = [
        json!({"text": "body", "size": LIMIT_BYTES + 1}),
        json!({"text": "properties", "properties": {"long": "x".repeat(33_000)}}),
        json!({"text": "good"}),
    ];
    let results = scene.send(&producer, "sync", "large", &sent);
    for refused in &results[..2] {
        assert_eq!((&refused["code"], &refused["by"]), (&13.into(), &"broker".into()), "{refused}");
    }
    let half = json!({"text": "half", "size": LIMIT_BYTES / 2 + 1000});
    let batch = json!({"client": producer, "topic": "large", "messages": [half, half]});
    let refused = scene.java.ask("send_batch", batch);
    assert_eq!((&refused["code"], &refused["by"]), (&1.into(), &"broker".into()), "{refused}");
    let read = scene.read("large");
    assert_eq!(sorted(read.values()), ["good"]);
    place(&results[2]);
    format!("3 refused, 1 acknowledged, {} read", read.len())
}
