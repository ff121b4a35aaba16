//! Bytes that are no frames, and clients that do not behave: the broker goes on serving, and its memory stays bounded.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::{Client, Form, LIMIT, frame, pull_fields, request, send_fields};
use crate::{Scene, bodies, pull, send};

pub(crate) const MIB: u64 = 1 << 20;

/// A send is stored and can be pulled, soon.
pub(crate) fn assert_serves(scene: &Scene) {
    let begun = Instant::now();
    let mut client = scene.client();
    let sent = send(&mut client, "alive", "0", "", b"x");
    let place = sent.number("queueOffset").to_string();
    assert_eq!(bodies(&pull(&mut client, "alive", ("0", &place), "*")), [b"x"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
}

#[test]
fn a_bad_frame_closes_its_connection_and_nothing_else() {
    let scene = Scene::new(&[]);
    let mut other = scene.client();
    send(&mut other, "T", "0", "", b"x");
    let header = br#"{"code":105,"extFields":{"topic":"T"},"flag":0,"opaque":1}"#;
    let with_length = |length: i32| {
        let mut bytes = frame(0, header, b"");
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let with_mark = |mark: u32| {
        let mut bytes = frame(0, header, b"");
        bytes[4..8].copy_from_slice(&mark.to_be_bytes());
        bytes
    };
    let bad = [
        with_length(-1),
        with_length(i32::MIN),
        with_length(i32::MAX),
        with_length(0),
        with_length(3),
        with_length((16 << 20) + 1),
        with_mark(0x00FF_FFFF),
        with_mark(header.len() as u32 + 1),
        with_mark(header.len() as u32 - 1),
        with_mark(0x0100_0000 | header.len() as u32),
        with_mark(0x0200_0000 | header.len() as u32),
        frame(0, b"{\"code\":", b""),
        frame(0, b"", b""),
        frame(0, b"[]", b""),
        frame(0, b"{\"code\":\"x\"}", b""),
        frame(0, &[b'['; 100_000], b""),
        frame(0, &b"{\"x\":".repeat(50_000), b""),
        frame(1, &[0; 21], b"")[..20].to_vec(),
        vec![0x16, 3, 1, 0, 200, 1, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in bad {
        let mut client = scene.client();
        client.send_bytes(&bytes).unwrap();
        client.finish_writing();
        assert!(client.is_closed(Duration::from_secs(10)), "{:?}", &bytes[..bytes.len().min(40)]);
    }
    assert_eq!(other.call(105, &[("topic", "T")], b"").code, 0);
    // A frame that comes a byte at a time is a frame.
    for form in [Form::Json, Form::Binary] {
        let mut slow = scene.client();
        for byte in request(form, (105, 7, 0), &[("topic", "T")], b"") {
            slow.send_bytes(&[byte]).unwrap();
        }
        assert_eq!(slow.answer(7).code, 0);
    }
    scene.broker.stop_well();
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn valid_frames() -> Vec<Vec<u8>> {
    let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","subscriptionDataSet":[{"topic":"T","subString":"a||b","subVersion":1}]}]}"#;
    let offset = [("topic", "T"), ("queueId", "0"), ("consumerGroup", "g"), ("commitOffset", "1"), ("timestamp", "5")];
    let create = [("topic", "T"), ("readQueueNums", "4"), ("writeQueueNums", "4"), ("perm", "6")];
    let mut batch = Vec::new();
    for _ in 0..3 {
        let item = mqlog::format::batch::BatchItem { flag: 0, body: b"b", properties: b"K\x01v" };
        mqlog::format::batch::push_batch_item(&mut batch, &item);
    }
    let mut frames = Vec::new();
    for form in [Form::Json, Form::Binary] {
        let mut add =
            |code, fields: &[(&str, &str)], body: &[u8]| frames.push(request(form, (code, 1, 0), fields, body));
        add(310, &send_fields("T", "0", "TAGS\u{1}a\u{2}KEYS\u{1}k\u{2}"), b"body");
        add(320, &send_fields("T", "0", "UNIQ_KEY\u{1}U"), &batch);
        add(11, &pull_fields("T", ("0", "0"), "a || b", "1000"), b"");
        add(105, &[("topic", "T")], b"");
        add(34, &[], heartbeat);
        add(38, &[("consumerGroup", "g")], b"");
        add(35, &[("clientID", "c"), ("consumerGroup", "g")], b"");
        add(17, &create, b"");
        for code in [14, 15, 29, 30, 31, 32] {
            add(code, &offset, b"");
        }
    }
    frames
}

/// A code that nobody has.
const PROBE: i32 = 31_999;

/// Waits for the answer to the probe behind a frame; `false` if the connection was closed.
fn is_answered(client: &mut Client, opaque: i32) -> bool {
    loop {
        match client.receive(LIMIT) {
            Ok(Some(answer)) if answer.code == 3 && answer.opaque == i64::from(opaque) => return true,
            Ok(Some(_)) => {}
            Ok(None) => panic!("neither an answer nor an end, for frame {opaque}"),
            Err(_) => return false,
        }
    }
}

#[test]
fn mutated_frames_do_no_harm() {
    let scene = Scene::new(&["--max-topics", "200"]);
    assert_serves(&scene);
    let frames = valid_frames();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut client = scene.client();
    let mut connections = 1;
    for round in 0..100_000 {
        let mut bytes = frames[random.below(frames.len())].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.below(256) as u8),
            }
        }
        // Most get a length that fits, so that what is inside is looked at, and the next frame begins behind it.
        let fits = round % 4 != 0;
        if fits {
            let length = (bytes.len() - 4) as u32;
            bytes[..4].copy_from_slice(&length.to_be_bytes());
        }
        bytes.extend(request(Form::Json, (PROBE, round, 0), &[], b""));
        let is_sent = client.send_bytes(&bytes).is_ok();
        if !fits {
            client.finish_writing();
        }
        if !is_sent || !is_answered(&mut client, round) {
            client = scene.client();
            connections += 1;
        }
    }
    println!("{connections} connections, {} MiB", scene.broker.anonymous_bytes() / MIB);
    assert_serves(&scene);
    assert!(scene.broker.anonymous_bytes() < 128 * MIB);
    scene.broker.stop_well();
}

#[test]
fn idle_connections_cost_little() {
    let scene = Scene::new(&[]);
    assert_serves(&scene);
    let (bytes, threads) = (scene.broker.anonymous_bytes(), scene.broker.threads());
    let idle: Vec<TcpStream> = (0..2000).map_while(|_| TcpStream::connect(scene.broker.address).ok()).collect();
    println!("{} connections", idle.len());
    assert!(idle.len() >= 600);
    assert_serves(&scene);
    assert_eq!(scene.broker.threads(), threads);
    let grown = scene.broker.anonymous_bytes().saturating_sub(bytes);
    println!("{grown} bytes for {} connections", idle.len());
    assert!(grown < 16 * MIB);
}

#[test]
fn too_many_connections_are_closed_and_the_others_served() {
    let scene = Scene::new(&["--max-connections", "20"]);
    let mut first = scene.client();
    send(&mut first, "T", "0", "", b"x");
    let mut many: Vec<Client> = (0..30).map(|_| scene.client()).collect();
    assert!(many[29].is_closed(Duration::from_secs(20)));
    send(&mut first, "T", "0", "", b"x");
    many.clear();
    std::thread::sleep(Duration::from_millis(200));
    assert_serves(&scene);
}

#[test]
fn held_pulls_cost_memory_only_and_all_are_answered() {
    let scene = Scene::new(&[]);
    send(&mut scene.client(), "T", "0", "", b"x");
    let (bytes, threads) = (scene.broker.anonymous_bytes(), scene.broker.threads());
    let mut clients: Vec<Client> = (0..4).map(|_| scene.client()).collect();
    for client in &mut clients {
        for _ in 0..1000 {
            client.ask(11, &pull_fields("T", ("0", "1"), "*", "60000"), b"");
        }
        assert_eq!(client.call(105, &[("topic", "T")], b"").code, 0);
    }
    assert_eq!(scene.broker.threads(), threads);
    assert!(scene.broker.anonymous_bytes().saturating_sub(bytes) < 16 * MIB);
    let begun = Instant::now();
    send(&mut scene.client(), "T", "0", "", b"y");
    for client in &mut clients {
        for number in 1..=1000 {
            assert_eq!(bodies(&client.answer(number)), [b"y"]);
        }
    }
    println!("4000 held pulls answered in {:?}", begun.elapsed());
}

#[test]
fn what_is_wrong_is_told_in_short() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    for form in [Form::Json, Form::Binary] {
        client.form = form;
        let long = "\u{1}".repeat(1_000_000);
        let answer = client.call(30, &[("topic", "TBW102"), ("queueId", &long)], b"");
        assert!(answer.code == 1 && answer.remark.len() < 1100, "{}", answer.remark.len());
    }
}

#[test]
fn system_topics_and_permissions_that_are_none_are_refused() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    for (topic, permission, code) in [("TBW102", "0", 29), ("T", "99", 29), ("T", "-1", 29), ("T", "6", 0)] {
        let fields = [("topic", topic), ("readQueueNums", "4"), ("writeQueueNums", "4"), ("perm", permission)];
        assert_eq!(client.call(17, &fields, b"").code, code, "{topic} {permission}");
    }
}

#[test]
fn an_offset_behind_everything_leads_to_the_end() {
    let scene = Scene::new(&[]);
    let mut client = scene.client();
    send(&mut client, "T", "0", "", b"a");
    for (offset, next) in [("9223372036854775807", 1), ("9223372036854775806", 1), ("2", 1), ("-1", 0)] {
        let answer = client.call(11, &pull_fields("T", ("0", offset), "*", "0"), b"");
        assert_eq!((answer.code, answer.number("nextBeginOffset")), (21, next), "{offset}");
    }
}
