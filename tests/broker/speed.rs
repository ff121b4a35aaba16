//! Many sends in flight, and how fast they go. `benches/rocketmq/broker` measures RocketMQ's broker beside this one.

use std::time::Instant;

use serde_json::Value;

use crate::Scene;
use crate::example::example;
use crate::parameter::parameter;
use crate::pipeline::Pipeline;

const CONNECTIONS: u64 = 4;
const MAX_ANONYMOUS_BYTES: u64 = 40 << 20;

#[test]
fn many_sends_in_flight_are_all_acknowledged() {
    let count = parameter("MQLOG_BROKER_MESSAGES", 20_000);
    for flush in ["async", "sync"] {
        let scene = Scene::new(&["--flush", flush]);
        let address = scene.broker.address;
        let pipeline = Pipeline { address, topic: "speed", queues: 4, window: 64, body_bytes: 1024, until: None };
        let begun = Instant::now();
        let sent = pipeline.run_on(CONNECTIONS, 0, count);
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        assert_eq!((sent.acknowledged.len() as u64, sent.refused, sent.is_lost), (count, 0, false));
        let (ready, anonymous) = (scene.broker.ready_after, scene.broker.anonymous_bytes());
        println!("{flush}: ready after {ready:?}, {rate:.0} messages a second, {} KiB anonymous", anonymous / 1024);
        assert!(anonymous <= MAX_ANONYMOUS_BYTES, "{anonymous} bytes of anonymous memory");
        scene.broker.stop_well();
    }
}

#[test]
fn broker_load_counts_what_was_acknowledged() {
    let scene = Scene::new(&[]);
    let load = |arguments: &[&str]| {
        let output = example("broker_load").args(arguments).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), report["messages"].as_u64(), report["refused"].as_u64())
    };
    let address = scene.broker.address.to_string();
    assert_eq!(load(&[&address, "--messages", "501", "--window", "7", "--body", "9"]), (Some(0), Some(501), Some(0)));
    let max_offset = |queue| {
        let answer = scene.client().call(30, &[("topic", "load"), ("queueId", queue)], b"");
        answer.number("offset")
    };
    // One more made the topic.
    assert_eq!(["0", "1", "2", "3"].map(max_offset).iter().sum::<i64>(), 502);
    assert!(matches!(load(&[&address, "--seconds", "1"]), (Some(0), Some(1..), Some(0))));
    assert_eq!(
        load(&[&address, "--body", "5000000"]),
        (Some(1), None, None),
        "nothing is measured where nothing is taken"
    );
    assert_eq!(load(&[&address, "--window", "0"]), (Some(2), None, None));
    scene.broker.stop_well();
}
