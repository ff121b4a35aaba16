//! Stops and kills in the middle of sending: what was acknowledged is there, offsets go on.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use mqlog::{QueueOffset, StoreOptions};
use serde_json::Value;

use crate::pipeline::{Pipeline, Sent};
use crate::process::Broker;
use crate::{pull, records, send};

const QUEUES: u32 = 4;

/// Sends from two connections until the broker is gone.
fn send_until_gone(broker: Broker, round: u64, is_kill: bool) -> Vec<Sent> {
    let address = broker.address;
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            thread::spawn(move || {
                let pipeline =
                    Pipeline { address, topic: "T", queues: QUEUES, window: 64, body_bytes: 200, until: None };
                pipeline.run((round * 2 + sender) << 32, 1 << 30)
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(150 + 40 * round));
    if is_kill {
        broker.kill();
    } else {
        broker.stop_well();
    }
    senders.into_iter().map(|sender| sender.join().unwrap()).collect()
}

#[test]
fn no_acknowledged_message_is_lost() {
    for flush in ["async", "sync"] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let mut acknowledged: BTreeMap<(i64, i64), u64> = BTreeMap::new();
        for round in 0..6 {
            let broker = Broker::start(&store, &["--flush", flush]);
            for sent in send_until_gone(broker, round, round % 2 == 0) {
                assert_eq!(sent.refused, 0);
                for (number, queue, offset) in sent.acknowledged {
                    let before = acknowledged.insert((queue, offset), number);
                    assert_eq!(before, None, "an offset was given twice");
                }
            }
        }
        println!("{flush}: {} acknowledged in 6 rounds", acknowledged.len());
        assert!(acknowledged.len() > 600);
        let broker = Broker::start(&store, &["--flush", flush]);
        let mut client = broker.client();
        let mut found = BTreeMap::new();
        for queue in 0..QUEUES {
            let mut next = 0;
            loop {
                let answer = pull(&mut client, "T", (&queue.to_string(), &next.to_string()), "*");
                for record in records(&answer) {
                    let number = u64::from_be_bytes(record.body()[..8].try_into().unwrap());
                    found.insert((i64::from(queue), record.queue_offset().cast_signed()), number);
                }
                if answer.code != 0 {
                    assert_eq!(answer.code, 19, "{}", answer.remark);
                    break;
                }
                next = answer.number("nextBeginOffset");
            }
        }
        for (place, number) in &acknowledged {
            assert_eq!(found.get(place), Some(number), "queue and offset {place:?}");
        }
        broker.stop_well();
    }
}

#[test]
fn groups_and_topics_survive_and_are_in_rocketmqs_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let commit = [("topic", "T"), ("queueId", "0"), ("consumerGroup", "g"), ("commitOffset", "1")];
    let asked = [("topic", "T"), ("queueId", "0"), ("consumerGroup", "g")];
    let broker = Broker::start(&store, &[]);
    let mut client = broker.client();
    send(&mut client, "T", "3", "", b"x");
    assert_eq!(client.call(15, &commit, b"").code, 0);
    broker.stop_well();
    let offsets = fs::read_to_string(store.join("config/consumerOffset.json")).unwrap();
    assert!(offsets.contains("\"T@g\":{0:1}"), "{offsets}");
    let topics: Value = serde_json::from_slice(&fs::read(store.join("config/topics.json")).unwrap()).unwrap();
    assert_eq!(topics["topicConfigTable"]["T"]["perm"], 6);

    let broker = Broker::start(&store, &[]);
    let mut client = broker.client();
    assert_eq!(client.call(14, &asked, b"").number("offset"), 1);
    let mut later = commit;
    later[3].1 = "2";
    assert_eq!(client.call(15, &later, b"").code, 0);
    thread::sleep(Duration::from_millis(5500));
    broker.kill();
    // A topic that only the store knows, as after a kill before the file was written.
    fs::remove_file(store.join("config/topics.json")).unwrap();
    let broker = Broker::start(&store, &[]);
    let mut client = broker.client();
    assert_eq!(client.call(14, &asked, b"").number("offset"), 2);
    assert_eq!(records(&pull(&mut client, "T", ("3", "0"), "*")).len(), 1);
    assert_eq!(send(&mut client, "T", "3", "", b"y").number("queueOffset"), 1);
    broker.kill();
    for (text, place) in [("{", "EOF"), ("[]", "array"), (r#"{"offsetTable":{"T@g":{"0":"5"}}}"#, "offsetTable.T@g.0")]
    {
        fs::write(store.join("config/consumerOffset.json"), text).unwrap();
        let refused = std::panic::catch_unwind(|| Broker::start(&store, &[]));
        let told = refused.expect_err("starting without the offsets would lose them");
        let told = told.downcast_ref::<String>().unwrap();
        assert!(told.contains("consumerOffset.json") && told.contains(place), "{told}");
    }
}

/// A topic's number of queues was made smaller, and queues with messages came back with the next start: the store was
/// believed, not the file.
#[test]
fn fewer_queues_stay_fewer_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let broker = Broker::start(&store, &[]);
    let mut client = broker.client();
    for queues in ["8", "4"] {
        let fields = [("topic", "T"), ("readQueueNums", queues), ("writeQueueNums", queues), ("perm", "6")];
        assert_eq!(client.call(17, &fields, b"").code, 0);
        if queues == "8" {
            send(&mut client, "T", "7", "", b"x");
        }
    }
    broker.stop_well();
    let broker = Broker::start(&store, &[]);
    let route = broker.client().call(105, &[("topic", "T")], b"").json();
    let queues = &route["queueDatas"][0];
    assert_eq!((queues["readQueueNums"].as_i64(), queues["writeQueueNums"].as_i64()), (Some(4), Some(4)));
}

#[test]
fn the_store_is_one_that_others_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let broker = Broker::start(&store, &[]);
    send(&mut broker.client(), "T", "0", "", b"x");
    broker.stop_well();
    let store = mqlog::MessageStore::open(StoreOptions::new(&store)).unwrap();
    assert!(store.recovery_report().clean);
    let bodies: Vec<_> =
        store.queue("T", 0).iter_from(QueueOffset::ZERO).map(|message| message.unwrap().body().to_vec()).collect();
    assert_eq!(bodies, [b"x"]);
}
