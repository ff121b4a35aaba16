//! How fast the broker takes messages. `MQLOG_BROKER_SPEED=HOST:PORT` measures another broker that runs already, such as
//! RocketMQ's, instead.

use std::env;
use std::net::ToSocketAddrs;
use std::thread;
use std::time::Instant;

use crate::Scene;
use crate::client::Pipeline;

const CONNECTIONS: u64 = 4;
const WINDOW: u64 = 64;
const BODY_BYTES: usize = 1024;

/// Sends `count` messages from four connections; returns how many a second were acknowledged.
fn measure(address: std::net::SocketAddr, count: u64) -> f64 {
    let pipeline = Pipeline { address, topic: "speed", queues: 4, window: WINDOW, body_bytes: BODY_BYTES };
    // The first send makes the topic.
    assert_eq!(pipeline.run(0, 1).acknowledged.len(), 1);
    let begun = Instant::now();
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let pipeline = &pipeline;
            scope.spawn(move || {
                let each = count / CONNECTIONS;
                let sent = pipeline.run(connection * each, each);
                assert_eq!((sent.acknowledged.len() as u64, sent.refused), (each, 0));
            });
        }
    });
    count as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn many_sends_in_flight_are_all_acknowledged() {
    let number = |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let count = number("MQLOG_BROKER_MESSAGES", 20_000);
    if let Ok(address) = env::var("MQLOG_BROKER_SPEED") {
        let address = address.to_socket_addrs().unwrap().next().unwrap();
        println!("{address}: {:.0} messages a second", measure(address, count));
        return;
    }
    for flush in ["async", "sync"] {
        let scene = Scene::new(&["--flush", flush]);
        println!("{flush}: ready after {:?}", scene.broker.ready_after);
        println!("{flush}: {:.0} messages a second", measure(scene.broker.address, count));
        println!("{flush}: {} KiB of anonymous memory", scene.broker.anonymous_bytes() / 1024);
        scene.broker.stop_well();
    }
}
