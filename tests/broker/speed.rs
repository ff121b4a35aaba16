//! Many sends in flight, and how fast they go. `benches/rocketmq/broker` measures RocketMQ's broker beside this one.

use std::env;
use std::time::{Duration, Instant};

use crate::Scene;
use crate::pipeline::Pipeline;

const CONNECTIONS: u64 = 4;
/// From the start of the process to its ready line; several times as much as it takes on a machine that does other things as well.
const READY: Duration = Duration::from_secs(2);
const MAX_ANONYMOUS_BYTES: u64 = 40 << 20;

#[test]
fn many_sends_in_flight_are_all_acknowledged() {
    let count = env::var("MQLOG_BROKER_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    for flush in ["async", "sync"] {
        let scene = Scene::new(&["--flush", flush]);
        let address = scene.broker.address;
        let pipeline = Pipeline { address, topic: "speed", queues: 4, window: 64, body_bytes: 1024, until: None };
        let begun = Instant::now();
        let sent = pipeline.run_on(CONNECTIONS, 0, count);
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        assert_eq!((sent.acknowledged.len() as u64, sent.refused), (count, 0));
        let (ready, anonymous) = (scene.broker.ready_after, scene.broker.anonymous_bytes());
        println!("{flush}: ready after {ready:?}, {rate:.0} messages a second, {} KiB anonymous", anonymous / 1024);
        assert!(ready < READY && anonymous <= MAX_ANONYMOUS_BYTES, "{ready:?}, {anonymous} bytes");
        scene.broker.stop_well();
    }
}
