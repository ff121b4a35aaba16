//! Clients that read late or never: what is done for them waits, and nothing is refused that can wait.

use std::time::Duration;

use crate::client::{Client, Form, pull_fields, request, send_fields};
use crate::hostile::{MIB, assert_serves};
use crate::{Scene, bodies, send};

#[test]
fn a_slow_reader_is_not_read_from() {
    let scene = Scene::new(&["--max-queued-bytes", "1000000"]);
    let mut producer = scene.client();
    for _ in 0..8 {
        send(&mut producer, "T", "0", "", &vec![b'x'; 200_000]);
    }
    let bytes = scene.broker.anonymous_bytes();
    let pulls = request(Form::Json, (11, 1, 0), &pull_fields("T", ("0", "0"), "*", "0"), b"").repeat(1000);
    let mut slow: Vec<Client> = (0..20).map(|_| scene.client()).collect();
    let mut stopped = 0;
    for client in &mut slow {
        for _ in 0..40 {
            if !client.try_send(&pulls, Duration::from_millis(50)) {
                stopped += 1;
                break;
            }
        }
    }
    let grown = scene.broker.anonymous_bytes().saturating_sub(bytes);
    println!("{stopped} of 20 were stopped, {grown} bytes");
    assert!(stopped > 0 && grown < 64 * MIB);
    assert_serves(&scene);
    // Who begins to read gets answers.
    assert!(matches!(slow[0].receive(Duration::from_secs(20)), Ok(Some(answer)) if answer.code == 0));
    scene.broker.stop_well();
}

/// Requests behind answers that exceed what a connection may have queued were refused as if the client were slow, and
/// one-way commits among them dropped, although it read everything at once. They wait until it has read.
#[test]
fn a_client_that_reads_gets_everything_in_order() {
    for options in [["--max-queued-bytes", "100000"], ["--max-all-queued-bytes", "400000"]] {
        let scene = Scene::new(&options);
        let mut client = scene.client();
        for number in 0..12 {
            send(&mut client, "T", "0", "", &vec![number; 80_000]);
        }
        let mut bytes = Vec::new();
        let mut ask = |code, opaque, flag, fields: &[(&str, &str)], body: &[u8]| {
            bytes.extend(request(Form::Json, (code, opaque, flag), fields, body));
        };
        let places: Vec<String> = (0..12).map(|place| place.to_string()).collect();
        for (opaque, place) in (1001..).zip(&places) {
            ask(11, opaque, 0, &pull_fields("T", ("0", place), "*", "15000"), b"");
        }
        for opaque in 2001..2006 {
            ask(310, opaque, 0, &send_fields("T", "1", ""), &[opaque as u8; 10]);
        }
        let group = [("topic", "T"), ("queueId", "0"), ("consumerGroup", "g"), ("commitOffset", "3")];
        ask(15, 2006, 2, &group, b"");
        ask(14, 2007, 0, &group, b"");
        client.send_bytes(&bytes).unwrap();
        for (opaque, place) in (1001..).zip(0..) {
            if opaque > 1012 {
                break;
            }
            let answer = client.answer(opaque);
            assert_eq!((answer.code, bodies(&answer)[0][0]), (0, place), "{}", answer.remark);
        }
        for (opaque, place) in (2001..2006).zip(0..) {
            assert_eq!(client.answer(opaque).number("queueOffset"), place);
        }
        assert_eq!(client.answer(2007).number("offset"), 3);
        scene.broker.stop_well();
    }
}

/// One message answers many held pulls of a connection at once, more than may be queued.
#[test]
fn held_pulls_of_a_slow_reader_wait_until_it_reads() {
    let scene = Scene::new(&["--max-queued-bytes", "100000"]);
    let (mut client, mut producer) = (scene.client(), scene.client());
    send(&mut producer, "T", "0", "", b"x");
    let held: Vec<i64> = (0..200).map(|_| client.ask(11, &pull_fields("T", ("0", "1"), "*", "60000"), b"")).collect();
    assert_eq!(client.call(105, &[("topic", "T")], b"").code, 0);
    let before = scene.broker.anonymous_bytes();
    send(&mut producer, "T", "0", "", &vec![b'y'; 100_000]);
    std::thread::sleep(Duration::from_millis(300));
    assert_serves(&scene);
    assert!(scene.broker.anonymous_bytes().saturating_sub(before) < 8 * MIB);
    for opaque in held {
        let answer = client.answer(opaque);
        assert_eq!((answer.code, answer.body.len() > 100_000), (0, true), "{}", answer.remark);
    }
    scene.broker.stop_well();
}
