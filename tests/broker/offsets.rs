//! Offsets: asked for, committed, and by time.

use std::thread::sleep;
use std::time::Duration;

use crate::client::{Client, pull_fields};
use crate::{Scene, pull, records, send};

fn ask(client: &mut Client, code: i32, queue: &str, more: &[(&str, &str)]) -> Result<i64, i64> {
    let fields = [&[("topic", "T"), ("queueId", queue), ("consumerGroup", "g")], more].concat();
    let answer = client.call(code, &fields, b"");
    let name = if code == 32 { "timestamp" } else { "offset" };
    if answer.code == 0 { Ok(answer.number(name)) } else { Err(answer.code) }
}

#[test]
fn offsets_are_told_and_found_by_time() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    assert_eq!(ask(&mut client, 30, "0", &[]), Err(17));
    for _ in 0..3 {
        send(&mut client, "T", "0", "", b"x");
        sleep(Duration::from_millis(5));
    }
    assert_eq!((ask(&mut client, 30, "0", &[]), ask(&mut client, 31, "0", &[])), (Ok(3), Ok(0)));
    assert_eq!((ask(&mut client, 30, "1", &[]), ask(&mut client, 32, "1", &[])), (Ok(0), Ok(-1)));
    let answer = pull(&mut client, "T", ("0", "0"), "*");
    let times: Vec<String> = records(&answer).iter().map(|record| record.store_ms().to_string()).collect();
    assert_eq!(ask(&mut client, 32, "0", &[]), Ok(times[0].parse().unwrap()));
    let mut at = |time: &str, bound: &str| ask(&mut client, 29, "0", &[("timestamp", time), ("boundaryType", bound)]);
    assert_eq!((at(&times[1], "LOWER"), at(&times[1], "upper")), (Ok(1), Ok(1)));
    assert_eq!((at("0", "lower"), at("9999999999999", "LOWER")), (Ok(0), Ok(3)));
    assert_eq!(at("soon", "LOWER"), Err(1));
}

#[test]
fn a_group_goes_on_where_it_was() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    send(&mut client, "T", "0", "", b"x");
    assert_eq!(ask(&mut client, 14, "1", &[]), Err(22), "a queue without messages is not young, as in RocketMQ");
    assert_eq!(ask(&mut client, 14, "0", &[]), Ok(0), "a new group starts with the first message of a young queue");
    assert_eq!(ask(&mut client, 14, "0", &[("setZeroIfNotFound", "false")]), Err(22));
    client.one_way(15, &[("topic", "T"), ("queueId", "0"), ("consumerGroup", "g"), ("commitOffset", "1")], b"");
    assert_eq!(ask(&mut client, 14, "0", &[]), Ok(1));
    for (queue, offset) in [("9", "1"), ("0", "-1")] {
        let fields = [("topic", "T"), ("queueId", queue), ("consumerGroup", "g"), ("commitOffset", offset)];
        assert_eq!(client.call(15, &fields, b"").code, 29);
    }
    assert_eq!(
        client.call(15, &[("topic", "U"), ("queueId", "0"), ("consumerGroup", "g"), ("commitOffset", "1")], b"").code,
        17
    );
    // A pull commits by the way.
    let mut fields = pull_fields("T", ("0", "1"), "*", "0");
    fields[0].1 = "g";
    fields[5].1 = "5";
    fields[6].1 = "7";
    assert_eq!(client.call(11, &fields, b"").code, 19);
    assert_eq!(ask(&mut client, 14, "0", &[]), Ok(7));
}

#[test]
fn offsets_have_a_limit() {
    let scene = Scene::new(&["--max-offsets", "5"]);
    let mut client = scene.client();
    send(&mut client, "T", "0", "", b"x");
    let mut commit = |group: &str, queue: &str| {
        let fields = [("topic", "T"), ("queueId", queue), ("consumerGroup", group), ("commitOffset", "1")];
        client.call(15, &fields, b"").code
    };
    let places = [("g", "0"), ("g", "1"), ("g", "2"), ("g", "3"), ("h", "0"), ("h", "1"), ("i", "0"), ("g", "2")];
    assert_eq!(places.map(|(group, queue)| commit(group, queue)), [0, 0, 0, 0, 0, 1, 1, 0]);
}
