//! The broker is stopped and killed in the middle of sending, and started again on the same store. Clients are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde_json::{Value, json};

use crate::scene::{Place, Scene, Site, place, producer, push, read, text, texts};

/// Acknowledgements that a round waits for.
const EACH: usize = 400;
const ROUNDS: usize = 4;
/// Sends in flight of each of the two producers.
const THREADS: u64 = 4;

pub(crate) fn no_acknowledged_message_is_lost(scene: &Scene) -> String {
    ["async", "sync"].map(|flush| killed_while_sending(scene, flush)).join("; ")
}

fn killed_while_sending(scene: &Scene, flush: &str) -> String {
    let (java, mut site) = (&scene.java, Site::new(&["--flush", flush]));
    let topic = format!("restarts-{flush}");
    let producers = ["a", "b"].map(|name| producer(java, &site, &format!("{topic}-{name}"), json!({})));
    java.call("create_topic", json!({"client": producers[0], "topic": topic, "queues": 4}));
    push(java, &site, &topic, &topic, &topic, json!({}));
    let clients = [producers[0].as_str(), producers[1].as_str()];
    let acknowledged = || clients.map(|client| java.unasked(client).len()).iter().sum::<usize>();
    let failures: i64 = thread::scope(|scope| {
        let floods: Vec<_> = (0..2 * THREADS)
            .map(|thread| {
                let client = &producers[(thread % 2) as usize];
                let fields = json!({"client": client, "topic": topic, "size": 500, "from": thread << 32});
                scope.spawn(|| java.call("flood", fields))
            })
            .collect();
        for round in 0..=ROUNDS {
            let wanted = acknowledged() + EACH;
            java.until(&format!("{wanted} acknowledgements, {flush}, round {round}"), &clients, |lines| {
                (lines[0].len() + lines[1].len() >= wanted).then_some(())
            });
            match round {
                ROUNDS => break,
                round if round % 2 == 0 => site.kill(),
                _ => site.stop(),
            }
            site.start();
        }
        for client in clients {
            java.call("end_flood", json!({"client": client}));
        }
        floods.into_iter().map(|flood| flood.join().unwrap()["failures"].as_i64().unwrap()).sum()
    });
    check(scene, &site, &topic, &clients, failures)
}

/// What was acknowledged stands where it was said, no offset was given twice, and the consumer got everything.
fn check(scene: &Scene, site: &Site, topic: &str, clients: &[&str], failures: i64) -> String {
    let java = &scene.java;
    let mut acknowledged: BTreeMap<Place, String> = BTreeMap::new();
    for result in clients.iter().flat_map(|client| java.unasked(client)) {
        let before = acknowledged.insert(place(&result), text(&result, "text").to_owned());
        assert_eq!(before, None, "an offset was given twice");
    }
    assert!(acknowledged.len() > ROUNDS * EACH, "{}", acknowledged.len());
    let stored = read(java, site, topic);
    for (place, number) in &acknowledged {
        let found = stored.get(place).map(|message| text(message, "text").split(' ').next());
        assert_eq!(found, Some(Some(number.as_str())), "{topic} at {place:?}");
    }
    // A send that failed is repeated by the client: what was stored without an acknowledgement is there twice.
    let numbers: BTreeSet<&str> = acknowledged.values().map(String::as_str).collect();
    let received = java.until("everything acknowledged at the consumer", &[topic], |lines: &[&[Value]]| {
        let texts = texts(lines[0]);
        let got: BTreeSet<&str> = texts.iter().filter_map(|text| text.split(' ').next()).collect();
        numbers.is_subset(&got).then_some(texts.len())
    });
    java.call("end_push", json!({"client": topic}));
    let counts = (acknowledged.len(), stored.len());
    format!(
        "{topic}: {ROUNDS} times, {failures} failed sends, {} acknowledged, {} stored, {received} received",
        counts.0, counts.1
    )
}
