//! Where a new group starts.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mqlog::{LogOffset, Message, MessageStore, StoreOptions};
use serde_json::{Value, json};

use crate::scene::{Scene, Site, number, numbered, producer, push, read, results, sorted, texts};

const FILE_BYTES: u64 = 1 << 20;

/// A queue whose first messages are gone. A broker starts new groups of a queue that still has all its messages with the first one,
/// whatever they ask for; so does RocketMQ's.
fn old_queue(store: &Path) {
    let store = MessageStore::open(StoreOptions::new(store).log_file_bytes(FILE_BYTES)).unwrap();
    for number in 0..30 {
        let body = format!("old-{number} {}", " ".repeat(100_000));
        store.put(Message::new("old").queue(0).body(body.as_bytes())).unwrap();
    }
    store.flush().unwrap();
    assert_eq!(store.delete_before(LogOffset::new(FILE_BYTES)).unwrap(), 1);
    assert!(store.queue("old", 0).range().unwrap().start.get() > 0);
    store.close().unwrap();
}

/// The time, after a full second has begun: a client says where to start in seconds.
fn next_second_ms() -> i64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let next = now().as_secs() + 1;
    while now().as_secs() < next {
        thread::sleep(Duration::from_millis(5));
    }
    next as i64 * 1000
}

pub(crate) fn first_last_and_a_timestamp(scene: &Scene) -> String {
    let (java, site) = (&scene.java, Site::prepared(&[], old_queue));
    let producer = producer(java, &site, "starts", json!({}));
    let send = |messages: &[Value]| {
        let fields = json!({"client": producer, "how": "sync", "topic": "old", "queue": 0, "messages": messages});
        results(java.call("send", fields));
    };
    send(&numbered("early", 20));
    let then_ms = next_second_ms();
    send(&numbered("late", 20));
    let all: Vec<_> = read(java, &site, "old").into_values().collect();
    assert!((60..70).contains(&all.len()), "{}", all.len());

    let timestamp = json!({"start": "TIMESTAMP", "start_ms": then_ms});
    let clients = ["starts-first", "starts-time", "starts-last", "starts-last-broadcast"];
    push(java, &site, clients[0], "starts-first", "old", json!({}));
    push(java, &site, clients[1], "starts-time", "old", timestamp);
    push(java, &site, clients[2], "starts-last", "old", json!({"start": "LAST_OFFSET"}));
    push(java, &site, clients[3], "starts-broadcast", "old", json!({"start": "LAST_OFFSET", "broadcast": true}));
    // Whoever starts with the last message sees none of the earlier ones, but all from some moment on.
    let mut probes = 0;
    let has_some = |client: &str| !texts(&java.unasked(client)).is_empty();
    while probes < 500 && !clients[2..].iter().all(|client| has_some(client)) {
        send(&[json!({"text": format!("probe-{probes:03}")})]);
        probes += 1;
        thread::sleep(Duration::from_millis(50));
    }
    let expected: Vec<String> = (0..probes).map(|probe| format!("probe-{probe:03}")).collect();
    // A client works on several messages at once, so the last one may be told before others.
    let from_some_on = |lines: &[Value]| {
        let got = sorted(lines);
        !got.is_empty() && got.len() <= probes && expected[probes - got.len()..] == got[..]
    };
    java.until("all from some probe on", &clients[2..], |lines| {
        lines.iter().all(|lines| from_some_on(lines)).then_some(())
    });
    java.until("everything from the timestamp on", &clients[1..2], |lines| {
        (texts(lines[0]).len() >= 20 + probes).then_some(())
    });
    let seen: Vec<usize> = clients[2..].iter().map(|client| texts(&java.unasked(client)).len()).collect();
    let late = java.unasked(clients[1]).into_iter().filter(|line| line.get("text").is_some()).collect::<Vec<_>>();
    assert!(late.iter().all(|message| number(message, "stored") >= then_ms));
    assert_eq!(late.len(), 20 + probes);
    // The first offset is 0 for the client. The broker corrects it, and the client waits some time before it believes that.
    java.until("everything from the first message on", &clients[..1], |lines| {
        (texts(lines[0]).len() >= all.len() + probes).then_some(())
    });
    let lines = java.unasked(clients[0]);
    let mut wanted = sorted(&all);
    wanted.extend(expected.iter().map(String::as_str));
    wanted.sort_unstable();
    assert_eq!(sorted(&lines), wanted);
    for client in clients {
        java.call("end_push", json!({"client": client}));
    }
    format!(
        "{} stored, then {probes}: {} from the first, {} from a timestamp, {} and {} from the last on",
        all.len(),
        wanted.len(),
        late.len(),
        seen[0],
        seen[1]
    )
}
