//! A consumer that ends and comes back, with a broker that does so in between.

use std::fs;

use serde_json::{Value, json};

use crate::scene::{Scene, Site, numbered, producer, push, results, sorted, texts, until};

/// How many messages of the topic a group has consumed, as RocketMQ's file says.
fn stored(site: &Site, group: &str) -> i64 {
    let file = fs::read_to_string(site.store().join("config/consumerOffset.json")).unwrap_or_default();
    let Some((_, rest)) = file.split_once(&format!("\"{group}@{group}\":{{")) else { return 0 };
    let queues = rest.split('}').next().unwrap_or_default().split(',');
    queues.filter_map(|queue| queue.split_once(':')?.1.parse::<i64>().ok()).sum()
}

pub(crate) fn from_the_stored_offset(scene: &Scene) -> String {
    let (java, mut site) = (&scene.java, Site::new(&[]));
    let producer = producer(java, &site, "continuing", json!({}));
    let send = |messages: &[Value]| {
        let fields = json!({"client": producer, "how": "sync", "topic": "continuing", "messages": messages});
        assert!(results(java.call("send", fields)).iter().all(|result| result["status"] == "SEND_OK"));
    };
    let rounds = [("continuing-a", 100), ("continuing-b", 50), ("continuing-c", 30)];
    let mut total = 0;
    for (round, (client, count)) in rounds.into_iter().enumerate() {
        let sent = numbered(client, count);
        send(&sent);
        push(java, &site, client, "continuing", "continuing", json!({}));
        java.until(&format!("{count} messages at {client}"), &[client], |lines| {
            (texts(lines[0]).len() >= count).then_some(())
        });
        java.call("end_push", json!({"client": client}));
        let lines = java.unasked(client);
        assert_eq!(sorted(&lines), sorted(&sent), "round {round}");
        total += count;
        if round == 0 {
            site.stop();
            assert_eq!(stored(&site, "continuing"), 100);
        } else {
            until("the offsets in the file", || (stored(&site, "continuing") == total as i64).then_some(()));
            site.kill();
        }
        site.start();
    }
    format!("{total} sent in three rounds, each received once; broker stopped once, killed twice")
}
