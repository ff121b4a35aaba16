//! How fast the Java client 5.3.3 sends: bodies of 1 KiB, 1 and 16 producing threads on one client,
//! both flush modes. Only with `MQLOG_CLIENTS_SPEED=1`.

use std::env;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::java::Java;
use crate::maven::Version;
use crate::parameter::parameter;
use crate::scene::{Site, number, producer};
use crate::{say, turn};

/// The cases start faster with the first compiler alone; this is about what comes after the start.
const FLAGS: [&str; 1] = ["-XX:TieredStopAtLevel=4"];

#[test]
fn the_java_client_is_measured() {
    let test = "the rate of the Java client";
    let Some(_turn) = turn(test) else { return };
    if env::var_os("MQLOG_CLIENTS_SPEED").is_none_or(|value| value != "1") {
        return say(&format!("skipped {test}: MQLOG_CLIENTS_SPEED=1 is not set"));
    }
    let milliseconds = parameter("MQLOG_CLIENTS_SPEED_MS", 10_000);
    for flush in ["async", "sync"] {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let site = Site::new(&["--flush", flush]);
        let java = Java::start(Version::V533, &FLAGS, folder.path());
        let producer = producer(&java, &site, "speed", json!({"compress_over": i32::MAX}));
        java.call("create_topic", json!({"client": producer, "topic": "speed", "queues": 4}));
        let measure = |how: &str, producers: i64, ms: u64| -> Value {
            let fields = json!({"client": producer, "topic": "speed", "size": 1024, "how": how, "window": 64,
                "producers": producers, "ms": ms});
            java.call("speed", fields)
        };
        // Both sides get warm.
        measure("sync", 16, milliseconds / 2);
        for (how, producers) in [("sync", 1), ("sync", 16), ("async", 1), ("async", 16)] {
            let measured = measure(how, producers, milliseconds);
            let (count, rate) = (number(&measured, "acknowledged"), measured["per_second"].as_f64().unwrap());
            assert!(count > 0 && measured["failed"] == 0, "{measured}");
            say(&format!(
                "Java 5.3.3, --flush {flush}, {producers} producers, {how} sends of 1 KiB: {rate:.0} a second ({count} acknowledged)"
            ));
        }
    }
}
