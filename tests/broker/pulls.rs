//! Pulls: what they answer, and how long they wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::client::{Client, pull_fields};
use crate::{Scene, bodies, pull, send};

const WAIT: &str = "15000";

/// Asks for what is not there yet.
fn ask(client: &mut Client, place: (&str, &str), subscription: &str, wait_ms: &str) -> i64 {
    client.ask(11, &pull_fields("T", place, subscription, wait_ms), b"")
}

/// What a connection asked before has been looked at: connections are served in no order among each other.
fn is_held(client: &mut Client) {
    assert_eq!(client.call(105, &[("topic", "T")], b"").code, 0);
}

#[test]
fn every_situation_has_its_answer() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    for number in 0..40 {
        send(&mut client, "T", "0", &format!("TAGS\u{1}{}", if number % 2 == 0 { "even" } else { "odd" }), &[number]);
    }
    let mut answer = |place: (&str, &str), subscription: &str| {
        let answer = pull(&mut client, "T", place, subscription);
        if matches!(answer.code, 0 | 19 | 20 | 21) {
            let number = |name| answer.number(name);
            assert_eq!(number("suggestWhichBrokerId"), 0);
            let range = (number("minOffset"), number("maxOffset"));
            assert_eq!(range, if place.0 == "0" { (0, 40) } else { (0, 0) });
            (answer.code, number("nextBeginOffset"), bodies(&answer).concat())
        } else {
            (answer.code, -1, Vec::new())
        }
    };
    assert_eq!(answer(("0", "0"), "*"), (0, 32, (0..32).collect()));
    assert_eq!(answer(("0", "32"), ""), (0, 40, (32..40).collect()));
    assert_eq!(answer(("0", "36"), " odd || none"), (0, 40, vec![37, 39]));
    assert_eq!(answer(("0", "36"), "none"), (20, 40, vec![]));
    assert_eq!(answer(("0", "40"), "*"), (19, 40, vec![]));
    assert_eq!(answer(("0", "41"), "*"), (21, 40, vec![]));
    assert_eq!(answer(("0", "-1"), "*"), (21, 0, vec![]));
    assert_eq!(answer(("1", "0"), "*"), (19, 0, vec![]));
    assert_eq!(answer(("1", "5"), "*"), (21, 0, vec![]));
    assert_eq!(answer(("4", "0"), "*").0, 29);
    assert_eq!(answer(("-1", "0"), "*").0, 29);
    assert_eq!(pull(&mut client, "nothing", ("0", "0"), "*").code, 17);
    let mut fields = pull_fields("T", ("0", "0"), "a > 1", "0");
    fields.push(("expressionType", "SQL92"));
    assert_eq!(client.call(11, &fields, b"").code, 1);
    assert!(!client.call(361, &pull_fields("T", ("0", "39"), "*", "0"), b"").body.is_empty());
    let create = [("topic", "closed"), ("readQueueNums", "1"), ("writeQueueNums", "1"), ("perm", "2")];
    assert_eq!(client.call(17, &create, b"").code, 0);
    assert_eq!(pull(&mut client, "closed", ("0", "0"), "*").code, 16);
    assert_eq!(client.call(11, &[("topic", "T")], b"").code, 1);
}

#[test]
fn a_message_answers_a_held_pull_at_once() {
    for options in [&[][..], &["--flush", "sync"]] {
        let scene = Scene::new(options);
        let (mut consumer, mut producer) = (scene.client(), scene.client());
        send(&mut producer, "T", "2", "", b"other");
        for number in 0..20 {
            let held = ask(&mut consumer, ("0", &number.to_string()), "*", WAIT);
            // The connection is served meanwhile, and messages of other queues are none of its business.
            assert_eq!(consumer.call(30, &[("topic", "T"), ("queueId", "2")], b"").number("offset"), 1);
            send(&mut producer, "T", "1", "", b"other");
            let sent = Instant::now();
            send(&mut producer, "T", "0", "", b"it");
            let answer = consumer.answer(held);
            let waited = sent.elapsed();
            assert!(waited < Duration::from_secs(5), "it took {waited:?}: a wait, not an arrival");
            assert_eq!((answer.code, bodies(&answer)), (0, vec![b"it".to_vec()]));
        }
    }
}

#[test]
fn a_held_pull_waits_for_its_tags_and_no_longer_than_it_says() {
    let scene = Scene::new(&[]);
    let (mut consumer, mut producer) = (scene.client(), scene.client());
    send(&mut producer, "T", "0", "TAGS\u{1}b", b"0");
    let begun = Instant::now();
    let empty = ask(&mut consumer, ("0", "1"), "*", "300");
    let answer = consumer.answer(empty);
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (19, 1));
    assert!((300..10_000).contains(&begun.elapsed().as_millis()));

    let filtered = ask(&mut consumer, ("0", "1"), "a", "1000");
    is_held(&mut consumer);
    send(&mut producer, "T", "0", "TAGS\u{1}b", b"1");
    let answer = consumer.answer(filtered);
    assert_eq!((answer.code, answer.number("nextBeginOffset")), (20, 2), "it need not be looked at again");

    let filtered = ask(&mut consumer, ("0", "2"), "a", WAIT);
    is_held(&mut consumer);
    for tag in ["b", "c", "a"] {
        send(&mut producer, "T", "0", &format!("TAGS\u{1}{tag}"), tag.as_bytes());
        sleep(Duration::from_millis(20));
    }
    let answer = consumer.answer(filtered);
    assert_eq!((answer.code, bodies(&answer), answer.number("nextBeginOffset")), (0, vec![b"a".to_vec()], 5));
}

#[test]
fn no_arrival_is_missed() {
    let scene = Scene::new(&[]);
    let address = scene.broker.address;
    let (count, mut producer) = (3000, scene.client());
    send(&mut producer, "T", "1", "", b"");
    let consuming = thread::spawn(move || {
        let mut consumer = Client::connect(address);
        let mut next = 0;
        while next < count {
            let place = next.to_string();
            let held = ask(&mut consumer, ("0", &place), "*", "10000");
            let answer = consumer.answer(held);
            assert_eq!(answer.code, 0, "nothing came for 10 seconds, at {next}");
            next = answer.number("nextBeginOffset");
        }
    });
    for _ in 0..count {
        send(&mut producer, "T", "0", "", b"x");
    }
    consuming.join().unwrap();
}

#[test]
fn held_pulls_have_limits() {
    let scene = Scene::new(&["--max-held", "5", "--max-held-each", "3"]);
    let mut clients = [scene.client(), scene.client()];
    send(&mut clients[0], "T", "0", "", b"x");
    let mut asked: Vec<Vec<i64>> = Vec::new();
    for client in &mut clients {
        asked.push((0..4).map(|_| ask(client, ("0", "1"), "*", WAIT)).collect());
        is_held(client);
    }
    assert_eq!(clients[0].answer(asked[0][3]).code, 2);
    assert_eq!(clients[1].answer(asked[1][2]).code, 2);
    // A connection that goes takes its pulls along.
    clients[0] = scene.client();
    sleep(Duration::from_millis(200));
    let again = ask(&mut clients[0], ("0", "1"), "*", WAIT);
    send(&mut clients[1], "T", "0", "", b"y");
    assert_eq!(bodies(&clients[0].answer(again)), [b"y"]);
    for held in &asked[1][..2] {
        assert_eq!(bodies(&clients[1].answer(*held)), [b"y"]);
    }
}

/// All pulls of a queue were looked at before those of the next one, each with its filter read anew: thousands with long
/// filters, and messages that none of them wants, kept everybody else waiting for seconds.
#[test]
fn pulls_with_long_filters_do_not_delay_other_topics() {
    let scene = Scene::new(&[]);
    let (mut consumer, mut producer) = (scene.client(), scene.client());
    send(&mut producer, "X", "0", "", b"x");
    send(&mut producer, "T", "0", "", b"x");
    let tags: Vec<String> = (0..900).map(|tag| tag.to_string()).collect();
    let mut filter = tags.join("||");
    filter.truncate(4090);
    let mut holding: Vec<Client> = (0..4).map(|_| scene.client()).collect();
    for client in &mut holding {
        for _ in 0..1000 {
            client.ask(11, &pull_fields("X", ("0", "1"), &filter, "60000"), b"");
        }
        is_held(client);
    }
    let address = scene.broker.address;
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut producer = Client::connect(address);
            while !is_over.load(Ordering::Relaxed) {
                send(&mut producer, "X", "0", "TAGS\u{1}other", b"x");
                sleep(Duration::from_millis(5));
            }
        });
        let mut waits: Vec<Duration> = Vec::new();
        for place in 1..11 {
            let held = ask(&mut consumer, ("0", &place.to_string()), "*", WAIT);
            is_held(&mut consumer);
            let sent = Instant::now();
            send(&mut producer, "T", "0", "", b"y");
            assert_eq!(bodies(&consumer.answer(held)), [b"y"]);
            waits.push(sent.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        waits.sort_unstable();
        println!("answered after {:?} to {:?}", waits[0], waits[9]);
        assert!(waits[5] < Duration::from_millis(500), "{waits:?}");
    });
    send(&mut producer, "X", "0", "TAGS\u{1}17", b"it");
    for client in &mut holding {
        assert_eq!(bodies(&client.answer(1)), [b"it"]);
    }
}
