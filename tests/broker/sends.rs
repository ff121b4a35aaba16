//! Routes, topics and sends.

use std::time::{Duration, Instant};

use mqlog::format::batch::{BatchItem, push_batch_item};
use serde_json::{Value, json};

use crate::client::{Client, Form, request, send_fields};
use crate::{Scene, bodies, pull, records, send};

fn route(client: &mut Client, topic: &str) -> Result<Value, i64> {
    let answer = client.call(105, &[("topic", topic)], b"");
    if answer.code == 0 { Ok(answer.json()) } else { Err(answer.code) }
}

fn queues(client: &mut Client, topic: &str) -> Option<(i64, i64, i64)> {
    let route = route(client, topic).ok()?;
    let queue = &route["queueDatas"][0];
    Some((queue["readQueueNums"].as_i64()?, queue["writeQueueNums"].as_i64()?, queue["perm"].as_i64()?))
}

#[test]
fn the_ready_line_is_all_it_prints_and_a_signal_stops_it() {
    let scene = Scene::new(&[]);
    println!("ready after {:?}", scene.broker.ready_after);
    assert!(scene.broker.ready_after < Duration::from_secs(20));
    for address in [scene.broker.namesrv, scene.broker.address] {
        assert!(route(&mut Client::connect(address), "TBW102").is_ok());
    }
    scene.broker.stop_well();
}

#[test]
fn routes_lead_to_the_broker() {
    let scene = Scene::new(&["--advertise", "localhost:4711"]);
    let mut client = Client::connect(scene.broker.namesrv);
    let found = route(&mut client, "TBW102").unwrap();
    assert_eq!(found["brokerDatas"][0]["brokerAddrs"], json!({"0": "localhost:4711"}));
    assert_eq!(queues(&mut client, "TBW102"), Some((8, 8, 7)));
    assert_eq!(queues(&mut client, "%RETRY%group"), Some((1, 1, 6)));
    assert_eq!(route(&mut client, "nothing"), Err(17));
    assert_eq!(client.call(105, &[], b"").code, 1);
    assert!(queues(&mut client, "DefaultCluster").is_some());
}

#[test]
fn a_topic_is_made_by_a_send_or_by_asking() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    let answer = send(&mut client, "first", "3", "", b"x");
    // The id names the broker and the record's place.
    assert!(answer.fields["msgId"].starts_with("7F000001") && answer.fields["msgId"].ends_with(&"0".repeat(16)));
    assert_eq!(queues(&mut client, "first"), Some((4, 4, 6)));
    let create =
        [("topic", "made"), ("defaultTopic", "TBW102"), ("readQueueNums", "3"), ("writeQueueNums", "2"), ("perm", "6")];
    assert_eq!(client.call(17, &create, b"").code, 0);
    assert_eq!(queues(&mut client, "made"), Some((3, 2, 6)));
    let file: Value =
        serde_json::from_slice(&std::fs::read(scene.store().join("config/topics.json")).unwrap()).unwrap();
    assert_eq!(file["topicConfigTable"]["made"]["readQueueNums"], 3);
    let mut wrong = create;
    wrong[0].1 = "no/name";
    assert_eq!(client.call(17, &wrong, b"").code, 29);
    assert_eq!(client.call(17, &create[..2], b"").code, 1);
}

#[test]
fn every_form_of_a_send_is_stored_as_it_was_sent() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    let long = [
        ("producerGroup", "p"),
        ("topic", "T"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "0"),
        ("sysFlag", "1"),
        ("bornTimestamp", "1720000000001"),
        ("flag", "-7"),
        ("properties", "KEYS\u{1}k1 k2\u{2}TAGS\u{1}A\u{2}UNIQ_KEY\u{1}U1\u{2}POP_CK\u{1}x"),
        ("reconsumeTimes", "2"),
        ("unitMode", "false"),
        ("batch", "0"),
    ];
    for form in [Form::Json, Form::Binary] {
        client.form = form;
        let answer = client.call(10, &long, b"long");
        assert_eq!((answer.code, answer.fields["transactionId"].as_str()), (0, "U1"));
        assert_eq!(
            (answer.fields["MSG_REGION"].as_str(), answer.fields["TRACE_ON"].as_str()),
            ("DefaultRegion", "true")
        );
        send(&mut client, "T", "0", "", b"short");
        client.one_way(310, &send_fields("T", "0", ""), b"one way");
    }
    let answer = loop {
        let answer = pull(&mut client, "T", ("0", "0"), "*");
        if answer.number("nextBeginOffset") == 6 {
            break answer;
        }
    };
    let found = records(&answer);
    let expected: [&[u8]; 3] = [b"long", b"short", b"one way"];
    for (index, record) in found.iter().enumerate() {
        assert_eq!((record.queue_offset(), record.body()), (index as u64, expected[index % 3]));
        assert_eq!(record.properties().get_str("CLUSTER").as_deref(), Some("DefaultCluster"));
    }
    let first = &found[0];
    assert_eq!((first.flag(), first.sys_flag().0, first.reconsume_times()), (-7, 1, 2));
    assert_eq!((first.born_ms(), first.tags().as_deref()), (1_720_000_000_001, Some("A")));
    assert_eq!(first.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!(first.unique_key().as_deref(), Some("U1"));
    assert_eq!(first.properties().get("POP_CK"), None);
    assert!(first.born_host().ip().is_loopback());
    assert_eq!(first.store_host(), scene.broker.address);
    assert_eq!(found[1].unique_key().map(|key| key.len()), Some(32));
}

#[test]
fn a_batch_has_offsets_in_a_row() {
    for options in [&[][..], &["--flush", "sync"]] {
        let scene = Scene::new(options);
        let mut client = scene.client();
        send(&mut client, "T", "1", "", b"before");
        let mut body = Vec::new();
        for number in 0..3 {
            let properties = format!("TAGS\u{1}t{number}\u{2}UNIQ_KEY\u{1}U{number}");
            let item = BatchItem { flag: number, body: &[number as u8; 10], properties: properties.as_bytes() };
            push_batch_item(&mut body, &item);
        }
        let answer = client.call(320, &send_fields("T", "1", ""), &body);
        assert_eq!(
            (answer.code, answer.number("queueOffset"), answer.number("queueId")),
            (0, 1, 1),
            "{}",
            answer.remark
        );
        assert_eq!(answer.fields["msgId"].split(',').count(), 3);
        let mut old = send_fields("T", "1", "");
        old[11].1 = "true";
        assert_eq!(client.call(310, &old, &body).number("queueOffset"), 4);
        let answer = pull(&mut client, "T", ("1", "1"), "t1 || t2");
        assert_eq!(bodies(&answer), [[1; 10], [2; 10], [1; 10], [2; 10]]);
        assert_eq!(client.call(320, &send_fields("T", "1", ""), b"no batch").code, 13);
        assert_eq!(client.call(320, &send_fields("T", "1", ""), b"").code, 13);
        assert_eq!(client.call(320, &send_fields("T", "1", ""), &vec![0; (4 << 20) + 1]).code, 1);
        assert_eq!(client.call(320, &send_fields("%RETRY%g", "0", ""), &body).code, 13);
    }
}

#[test]
fn what_is_wrong_gets_the_codes_of_rocketmq() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    let mut code = |topic: &str, queue: &str, properties: &str, body: &[u8]| {
        client.call(310, &send_fields(topic, queue, properties), body).code
    };
    assert_eq!(code("T", "0", "", &vec![b'x'; 4 << 20]), 0);
    assert_eq!(code("T", "0", "", &vec![b'x'; (4 << 20) + 1]), 13);
    assert_eq!(code("T", "0", &format!("a\u{1}{}", "x".repeat(30_000)), b"x"), 0);
    assert_eq!(code("T", "0", &format!("a\u{1}{}", "x".repeat(33_000)), b"x"), 13);
    assert_eq!(code("T", "4", "", b"x"), 29);
    assert_eq!(code("T", "-1", "", b"x"), 0);
    assert_eq!(code("T", "zero", "", b"x"), 1);
    assert_eq!(code("a b", "0", "", b"x"), 29);
    assert_eq!(code(&"t".repeat(128), "0", "", b"x"), 29);
    assert_eq!(code(&"t".repeat(127), "0", "", b"x"), 0);
    assert_eq!(code("..", "0", "", b"x"), 29);
    assert_eq!(code("SCHEDULE_TOPIC_XXXX", "0", "", b"x"), 16);
    assert_eq!(code("T", "0", "DELAY\u{1}3\u{2}", b"x"), 1);
    assert_eq!(code("T", "0", "TRAN_MSG\u{1}true\u{2}", b"x"), 1);
    assert_eq!(code("T", "0", "TRAN_MSG\u{1}True\u{2}", b"x"), 1);
    let mut unknown = send_fields("U", "0", "");
    unknown[2].1 = "nothing";
    assert_eq!(client.call(310, &unknown, b"x").code, 17);
    let answer = client.call(12345, &[], b"");
    assert_eq!((answer.code, answer.remark.as_str()), (3, " request type 12345 not supported"));
    client.one_way(12345, &[], b"");
    assert_eq!(client.call(105, &[("topic", "T")], b"").code, 0);
}

/// A send for which the log has no room right now is waited for by a thread of its own, or every connection of its event
/// loop would stand still until the disk is done. Sends of its connection behind it must not overtake it.
#[test]
fn sends_keep_their_order_when_they_wait_for_the_disk() {
    for flush in ["async", "sync"] {
        let scene = Scene::new(&["--flush", flush]);
        let (mut client, mut other) = (scene.client(), scene.client());
        let sends: Vec<(i32, i32, Vec<u8>)> = (1..91)
            .map(|number| match number % 3 {
                0 => (number, 2, vec![number as u8; 10]),
                1 => (number, 0, vec![number as u8; 10]),
                _ => (number, 0, vec![number as u8; 700_000]),
            })
            .collect();
        let sending = std::thread::spawn(move || {
            for (number, flag, body) in &sends {
                let frame = request(Form::Json, (310, *number, *flag), &send_fields("T", "0", ""), body);
                client.send_bytes(&frame).unwrap();
            }
            (client, sends)
        });
        while !sending.is_finished() {
            assert_eq!(other.call(105, &[("topic", "TBW102")], b"").code, 0);
        }
        let (mut client, sends) = sending.join().unwrap();
        for (place, (number, flag, _)) in (0..).zip(&sends) {
            if *flag == 0 {
                assert_eq!(client.answer(i64::from(*number)).number("queueOffset"), place);
            }
        }
        let answer = pull(&mut client, "T", ("0", "87"), "*");
        let found: Vec<u8> = bodies(&answer).iter().map(|body| body[0]).collect();
        assert_eq!(found, [88]);
        // The last one was sent one-way, and a pull does not wait for it.
        let start = Instant::now();
        let mut last = Vec::new();
        while last.is_empty() && start.elapsed().as_secs() < 20 {
            last = bodies(&pull(&mut client, "T", ("0", "89"), "*"));
        }
        assert_eq!(last, [[90; 10]]);
        scene.broker.stop_well();
    }
}
