//! RocketMQ's own clients, unmodified, against `examples/mini_broker` as a process: the Java clients 5.3.3 and 4.9.8, fetched by Maven
//! and driven by the program in `java/`, and the Go client.
//!
//! Run it with `MQLOG_CLIENTS=1 cargo test --release --test clients -- --nocapture`; it needs Maven and a JDK of at least 11. Without that
//! variable it says that it was skipped. With `MQLOG_CLIENTS_SPEED=1` it also measures. The Java program does what it is told and tells
//! what comes: who starts and kills brokers, and what must be true, is decided here.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure, with what led to it, is what a test is for")]

mod both;
#[path = "../broker/process.rs"]
#[allow(dead_code, reason = "the broker's own suite measures it, too")]
mod broker;
mod continuing;
#[path = "../common/example.rs"]
mod example;
mod go;
mod java;
#[path = "../common/maven.rs"]
mod maven;
#[path = "../common/parameter.rs"]
mod parameter;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "each suite uses a part")]
mod program;
mod pulls;
mod pushes;
mod restarts;
mod scene;
mod sends;
mod speed;
mod starts;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use maven::Version;
use scene::Scene;

/// A case: does what its name says, and tells what was counted.
type Case = (&'static str, fn(&Scene) -> String);

/// Runs before the others, since it looks at the clock.
const ALONE: Case = ("an idle consumer has a message within 200 ms", pushes::an_idle_consumer_has_a_message_soon);
const CASES: [Case; 17] = [
    ("sync sends", sends::sync),
    ("async sends", sends::asynchronous),
    ("one-way sends", sends::one_way),
    ("batches", sends::batches),
    ("sends to a chosen queue", sends::to_a_chosen_queue),
    ("tags, keys, properties, flags", sends::everything_comes_back),
    ("body sizes from 1 to the limit", sends::body_sizes),
    ("what is too large is refused", sends::too_large),
    ("two consumers share the queues", pushes::two_consumers_share_the_queues),
    ("broadcasting", pushes::broadcasting),
    ("tag filters", pushes::tag_filters),
    ("starting from first, last, a timestamp", starts::first_last_and_a_timestamp),
    ("lite pull, subscribed", pulls::lite_subscribed),
    ("lite pull, assigned", pulls::lite_assigned),
    ("the older pull API", pulls::older),
    ("a consumer continues from its stored offset", continuing::from_the_stored_offset),
    ("stopped and killed while sending", restarts::no_acknowledged_message_is_lost),
];

fn say(line: &str) {
    maven::say("clients", line);
}

/// Whether a test is to run. The tests run one after the other: each keeps two cores busy, and some look at the clock.
fn turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    maven::enabled("clients", "MQLOG_CLIENTS", test).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs a case and says what it counted, or that it failed.
fn run(version: Version, scene: &Scene, (name, case): Case) -> Result<(), &'static str> {
    let begun = Instant::now();
    let counted = thread::scope(|scope| {
        thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || case(scene)).unwrap().join()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let version = version.name();
    match counted {
        Ok(ref counts) => say(&format!("Java {version}, {name}: {counts}; {seconds:.1} s")),
        Err(_) => say(&format!("Java {version}, {name}: FAILED after {seconds:.1} s")),
    }
    counted.map(drop).map_err(|_| name)
}

fn java_client(version: Version) {
    let Some(_turn) = turn(&format!("the Java client {}", version.name())) else { return };
    let scene = Scene::new(version, &[]);
    let mut failed: Vec<&str> = run(version, &scene, ALONE).err().into_iter().collect();
    thread::scope(|scope| {
        let running: Vec<_> = CASES
            .map(|case| {
                scope.spawn({
                    let scene = &scene;
                    move || run(version, scene, case)
                })
            })
            .into_iter()
            .collect();
        failed.extend(running.into_iter().filter_map(|case| case.join().unwrap().err()));
    });
    assert!(failed.is_empty(), "Java {}: {failed:?} failed", version.name());
    scene.end();
}

#[test]
fn the_java_client_5_3_3_sends_and_consumes() {
    java_client(Version::V533);
}

#[test]
fn the_java_client_4_9_8_sends_and_consumes() {
    java_client(Version::V498);
}
