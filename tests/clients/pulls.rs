//! Consumers that ask by themselves.

use serde_json::{Value, json};

use crate::scene::{Scene, number, numbered, place, results, sorted, until, with};

/// Polls until there are so many messages.
fn poll(scene: &Scene, client: &str, count: usize) -> Vec<Value> {
    let mut got = Vec::new();
    until(&format!("{count} messages at {client}"), || {
        let mut answer = scene.java.call("lite_poll", json!({"client": client, "ms": 200}));
        got.append(answer["messages"].as_array_mut().unwrap());
        (got.len() >= count).then_some(())
    });
    let rest = scene.java.call("lite_poll", json!({"client": client, "ms": 500}));
    assert_eq!(rest["messages"], json!([]), "{client} got more than {count}");
    got
}

/// Consumes, commits, ends, and goes on where it was.
pub(crate) fn lite_subscribed(scene: &Scene) -> String {
    let producer = scene.producer("lite", json!({}));
    let mut sent = numbered("first", 100);
    for message in &mut sent[50..] {
        message["tags"] = "other".into();
    }
    scene.send(&producer, "sync", "lite", &sent);
    let fields = json!({"namesrv": scene.site.namesrv(), "group": "lite", "topic": "lite", "tags": "*"});
    let start = |client: &str, more: Value| {
        scene.java.call("lite", with(with(fields.clone(), json!({"client": client})), more));
    };
    start("lite-a", json!({}));
    start("lite-other", json!({"group": "lite-other", "tags": "other"}));
    assert_eq!(sorted(&poll(scene, "lite-a", 100)), sorted(&sent));
    assert_eq!(sorted(&poll(scene, "lite-other", 50)), sorted(&sent[50..]));
    for client in ["lite-a", "lite-other"] {
        scene.java.call("lite_commit", json!({"client": client}));
        scene.java.call("lite_end", json!({"client": client}));
    }
    let more = numbered("second", 30);
    scene.send(&producer, "sync", "lite", &more);
    start("lite-b", json!({}));
    assert_eq!(sorted(&poll(scene, "lite-b", 30)), sorted(&more));
    scene.java.call("lite_end", json!({"client": "lite-b"}));
    "130 sent, 100 and 30 received, 50 of them by tag".to_owned()
}

/// Seeks to the beginning, to an offset, to the end, and to a time.
pub(crate) fn lite_assigned(scene: &Scene) -> String {
    let producer = scene.producer("seek", json!({}));
    let send = |messages: &[Value]| {
        let fields = json!({"client": producer, "how": "sync", "topic": "seek", "queue": 0, "messages": messages});
        results(scene.java.call("send", fields))
    };
    scene.java.call("create_topic", json!({"client": producer, "topic": "seek", "queues": 1}));
    let sent = numbered("m", 40);
    assert_eq!(
        send(&sent).iter().map(place).collect::<Vec<_>>(),
        (0..40).map(|offset| (0, offset)).collect::<Vec<_>>()
    );
    let about =
        json!({"client": "seek", "topic": "seek", "queue": 0, "namesrv": scene.site.namesrv(), "group": "seek"});
    let run = |command: &str, more: Value| scene.java.call(command, with(about.clone(), more));
    run("lite", json!({}));
    // The client pulls as soon as it has the queue. It keeps what a pull that is under way brings behind a seek, so the
    // seeks come when nothing is.
    run("lite_assign", json!({}));
    assert_eq!(sorted(&poll(scene, "seek", 40)), sorted(&sent));
    run("lite_seek", json!({"to": "begin"}));
    assert_eq!(sorted(&poll(scene, "seek", 40)), sorted(&sent));
    run("lite_seek", json!({"offset": 25}));
    assert_eq!(sorted(&poll(scene, "seek", 15)), sorted(&sent[25..]));
    run("lite_commit", json!({}));
    assert_eq!(run("lite_committed", json!({}))["offset"], 40);
    run("lite_seek", json!({"to": "end"}));
    let more = numbered("n", 5);
    send(&more);
    assert_eq!(sorted(&poll(scene, "seek", 5)), sorted(&more));
    let read = scene.read("seek");
    let time = number(&read[&(0, 30)], "stored");
    let by_time = run("lite_by_time", json!({"ms": time}));
    let first = read.iter().find(|(_, message)| number(message, "stored") >= time).unwrap().0.1;
    assert_eq!(number(&by_time, "offset"), first);
    run("lite_end", json!({}));
    "45 sent, 40 received, again from the beginning, 15 from an offset, 5 from the end on".to_owned()
}

/// Each status of a pull, offsets, times, and a pull that waits.
pub(crate) fn older(scene: &Scene) -> String {
    let producer = scene.producer("older", json!({}));
    scene.java.call("create_topic", json!({"client": producer, "topic": "older", "queues": 1}));
    let about =
        json!({"client": "older", "topic": "older", "queue": 0, "namesrv": scene.site.namesrv(), "group": "older"});
    let run = |command: &str, more: Value| scene.java.call(command, with(about.clone(), more));
    let pull = |offset: i64, tags: &str| run("pull_read", json!({"offset": offset, "tags": tags}));
    run("pull", json!({}));
    assert_eq!(pull(0, "*")["status"], "NO_NEW_MSG");
    let sent: Vec<Value> =
        (0..40).map(|n| json!({"text": format!("m{n}"), "tags": if n < 38 { "a" } else { "b" }})).collect();
    scene.send(&producer, "sync", "older", &sent);

    let range = run("pull_offsets", json!({}));
    assert_eq!((number(&range, "min"), number(&range, "max")), (0, 40));
    let got = pull(0, "*");
    assert_eq!((&got["status"], number(&got, "next")), (&"FOUND".into(), 32));
    assert_eq!(sorted(got["messages"].as_array().unwrap()), sorted(&sent[..32]));
    let got = pull(32, "b");
    assert_eq!((&got["status"], number(&got, "next")), (&"FOUND".into(), 40));
    assert_eq!(sorted(got["messages"].as_array().unwrap()), sorted(&sent[38..]));
    let got = pull(0, "none");
    assert_eq!((&got["status"], number(&got, "next")), (&"NO_MATCHED_MSG".into(), 40));
    assert_eq!(pull(40, "*")["status"], "NO_NEW_MSG");
    let got = pull(41, "*");
    assert_eq!((&got["status"], number(&got, "next")), (&"OFFSET_ILLEGAL".into(), 40));

    run("pull_store", json!({"offset": 17}));
    until("the stored offset", || (run("pull_offsets", json!({}))["stored"] == 17).then_some(()));
    let read = scene.read("older");
    let time = number(&read[&(0, 20)], "stored");
    let first = read.iter().find(|(_, message)| number(message, "stored") >= time).unwrap().0.1;
    assert_eq!(number(&run("pull_by_time", json!({"ms": time})), "offset"), first);

    // A pull that waits is answered by the next message.
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run("pull_read", json!({"offset": 40, "tags": "*", "wait": true})));
        scene.send(&producer, "sync", "older", &[json!({"text": "awaited"})]);
        waiting.join().unwrap()
    });
    assert_eq!(sorted(waited["messages"].as_array().unwrap()), ["awaited"]);
    run("pull_end", json!({}));
    format!("41 sent, {} read, each status of a pull seen", read.len() + 1)
}
