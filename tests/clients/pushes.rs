//! Push consumers that share, that each get everything, that filter, and that wait.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::scene::{Scene, number, numbered, queues, sorted, texts};

/// So long nothing may come where nothing is wanted.
const SILENCE: Duration = Duration::from_secs(1);

/// Waits until consumers have the given number of messages between them, and a moment more; returns what each got.
fn received(scene: &Scene, clients: &[&str], count: usize) -> Vec<Vec<Value>> {
    let what = format!("{count} messages at {clients:?}");
    scene.java.until(&what, clients, |lines| {
        (lines.iter().map(|lines| texts(lines).len()).sum::<usize>() >= count).then_some(())
    });
    // That no more comes can only be waited for.
    thread::sleep(SILENCE);
    let messages =
        |client: &&str| scene.java.unasked(client).into_iter().filter(|line| line.get("text").is_some()).collect();
    clients.iter().map(messages).collect()
}

/// Waits until members of a group know of each other, and share the queues as they must.
fn shared_by(scene: &Scene, clients: &[&str], queue_count: i64) {
    scene.java.until(&format!("{clients:?} share the queues"), clients, |lines| {
        let given: Option<Vec<Vec<i64>>> = lines.iter().map(|lines| queues(lines, clients.len())).collect();
        let mut given = given?.concat();
        given.sort_unstable();
        (given == (0..queue_count).collect::<Vec<_>>()).then_some(())
    });
}

pub(crate) fn two_consumers_share_the_queues(scene: &Scene) -> String {
    let producer = scene.producer("shared", json!({}));
    scene.java.call("create_topic", json!({"client": producer, "topic": "shared", "queues": 4}));
    let clients = ["shared-a", "shared-b"];
    for client in clients {
        scene.push(client, "sharing", "shared", json!({}));
    }
    shared_by(scene, &clients, 4);
    let sent = numbered("both", 400);
    scene.send(&producer, "async", "shared", &sent);
    let got = received(scene, &clients, sent.len());
    assert_eq!(sorted(got.iter().flatten()), sorted(&sent), "each message once");
    assert!(got.iter().all(|got| got.len() >= 100), "{} and {}", got[0].len(), got[1].len());
    // One leaves: the other one gets its queues, and nothing twice.
    scene.java.call("end_push", json!({"client": clients[0]}));
    shared_by(scene, &clients[1..], 4);
    let more = numbered("one", 100);
    scene.send(&producer, "async", "shared", &more);
    let last = received(scene, &clients[1..], got[1].len() + more.len());
    assert_eq!(sorted(&last[0][got[1].len()..]), sorted(&more));
    scene.java.call("end_push", json!({"client": clients[1]}));
    let counts = (got[0].len(), got[1].len());
    format!(
        "400 sent, {} and {} received; 100 sent, {} received by the one that stayed",
        counts.0,
        counts.1,
        more.len()
    )
}

/// Each consumer gets everything, and remembers by itself how far it is.
pub(crate) fn broadcasting(scene: &Scene) -> String {
    let producer = scene.producer("broadcast", json!({}));
    let clients = ["broadcast-a", "broadcast-b"];
    let mut sent = numbered("before", 50);
    scene.send(&producer, "sync", "broadcast", &sent);
    for client in clients {
        scene.push(client, "broadcast", "broadcast", json!({"broadcast": true}));
    }
    let after = numbered("after", 50);
    scene.send(&producer, "sync", "broadcast", &after);
    sent.extend(after);
    let got = received(scene, &clients, 2 * sent.len());
    assert!(got.iter().all(|got| sorted(got) == sorted(&sent)), "{} and {}", got[0].len(), got[1].len());
    scene.java.call("end_push", json!({"client": clients[0]}));
    scene.push(clients[0], "broadcast", "broadcast", json!({"broadcast": true}));
    let more = numbered("more", 20);
    scene.send(&producer, "sync", "broadcast", &more);
    let all = received(scene, &clients, 2 * (sent.len() + more.len()));
    assert!(all.iter().all(|all| sorted(&all[sent.len()..]) == sorted(&more)), "a restarted one continues");
    for client in clients {
        scene.java.call("end_push", json!({"client": client}));
    }
    format!("120 sent, {} and {} received", all[0].len(), all[1].len())
}

/// The broker filters by hash, the client by text: "Aa" and "BB" have the same hash.
pub(crate) fn tag_filters(scene: &Scene) -> String {
    let producer = scene.producer("tags", json!({}));
    let tags = ["red", "green", "blue", "Aa", "BB", ""];
    let sent: Vec<Value> = (0..240)
        .map(|number| match tags[number % tags.len()] {
            "" => json!({"text": format!("none-{number}")}),
            tag => json!({"text": format!("{tag}-{number}"), "tags": tag}),
        })
        .collect();
    let filters =
        [("tags-one", "red", 40), ("tags-two", "green || blue", 80), ("tags-hash", "Aa", 40), ("tags-all", "*", 240)];
    scene.send(&producer, "async", "tags", &sent[..60]);
    for (client, tags, _) in filters {
        scene.push(client, client, "tags", json!({"tags": tags}));
    }
    scene.send(&producer, "async", "tags", &sent[60..]);
    let got = received(scene, &filters.map(|filter| filter.0), 400);
    for ((client, tags, count), got) in filters.iter().zip(&got) {
        let fits = |text: &&str| *tags == "*" || tags.split(" || ").any(|tag| text.starts_with(&format!("{tag}-")));
        let wanted: Vec<&str> = sorted(&sent).into_iter().filter(fits).collect();
        assert_eq!((sorted(got), got.len()), (wanted, *count), "{client}");
        scene.java.call("end_push", json!({"client": client}));
    }
    format!(
        "240 sent; {} received by 4 filters",
        got.iter().map(Vec::len).map(|count| count.to_string()).collect::<Vec<_>>().join(", ")
    )
}

/// A held pull is answered when its message comes, not when somebody looks again.
pub(crate) fn an_idle_consumer_has_a_message_soon(scene: &Scene) -> String {
    const WARM_UP: usize = 5;
    let producer = scene.producer("idle", json!({}));
    scene.java.call("create_topic", json!({"client": producer, "topic": "idle", "queues": 4}));
    scene.push("idle", "idle", "idle", json!({}));
    shared_by(scene, &["idle"], 4);
    let mut late = Vec::new();
    for round in 0..WARM_UP + 20 {
        // Nobody can see from outside that all its pulls are held again; this is long enough for it.
        thread::sleep(Duration::from_millis(200));
        let sent = json!({"text": round.to_string()});
        scene.send(&producer, "sync", "idle", std::slice::from_ref(&sent));
        let message = scene.java.until("the message", &["idle"], |lines| {
            lines[0].iter().find(|line| line["text"] == sent["text"]).cloned()
        });
        late.push(number(&message, "at") - number(&message, "born"));
    }
    // The first ones also load the classes of both sides.
    let longest = late.split_off(WARM_UP).into_iter().max().unwrap();
    assert!(longest <= 200, "{longest} ms");
    scene.java.call("end_push", json!({"client": "idle"}));
    format!("20 sent and received, the latest after {longest} ms")
}
