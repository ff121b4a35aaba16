//! What everybody shares, memory and descriptors, has limits that nobody gets around and nobody else pays for.

use std::time::Duration;

use crate::client::{Client, Form, LIMIT, frame, request, send_fields};
use crate::consumers::heartbeat_of;
use crate::hostile::{MIB, assert_serves};
use crate::process::Broker;
use crate::{Scene, send};

#[test]
fn unfinished_frames_share_a_limit() {
    let scene = Scene::new(&["--max-unfinished-bytes", "20000000"]);
    assert_serves(&scene);
    let mut clients: Vec<Client> = (0..8).map(|_| scene.client()).collect();
    let mut begun = frame(0, b"{}", &vec![0; 12 << 20]);
    begun.truncate(8 << 20);
    let closed = clients.iter_mut().map(|client| client.send_bytes(&begun).is_err()).filter(|is_lost| *is_lost).count();
    println!("{closed} of 8 were closed, {} MiB", scene.broker.anonymous_bytes() / MIB);
    assert!(scene.broker.anonymous_bytes() < 96 * MIB);
    drop(clients);
    std::thread::sleep(Duration::from_millis(200));
    assert_serves(&scene);
}

/// Where the memory for unfinished frames was used up, the newest was closed: who held it all stayed, and for others only
/// frames that came in one piece got through.
#[test]
fn who_sends_on_is_not_closed_for_the_unfinished_frames_of_others() {
    let scene = Scene::new(&["--max-unfinished-bytes", "20000000"]);
    send(&mut scene.client(), "T", "0", "", b"x");
    let mut begun = frame(0, b"{}", &vec![0; 12 << 20]);
    begun.truncate(9 << 20);
    let mut hoarders: Vec<Client> = (0..4).map(|_| scene.client()).collect();
    for hoarder in &mut hoarders {
        // It may be closed before it has sent all.
        let _ = hoarder.send_bytes(&begun);
    }
    let mut client = scene.client();
    let long = request(Form::Json, (310, 1, 0), &send_fields("T", "0", ""), &vec![b'x'; 3 << 20]);
    for piece in long.chunks(1 << 20) {
        client.send_bytes(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.answer(1).code, 0);
    let sends =
        (2..502).flat_map(|opaque| request(Form::Json, (310, opaque, 0), &send_fields("T", "0", ""), &[b'x'; 1000]));
    client.send_bytes(&sends.collect::<Vec<u8>>()).unwrap();
    for opaque in 2..502 {
        assert_eq!(client.answer(opaque).code, 0);
    }
    assert!(hoarders[0].is_closed(Duration::from_secs(10)), "its frame began first");
}

/// A single answer of any length was made for each connection, however much was queued for all.
#[test]
fn answers_that_nobody_reads_share_a_limit() {
    let scene = Scene::new(&["--max-all-queued-bytes", "4000000"]);
    let mut member = scene.client();
    for number in 0..2000 {
        assert_eq!(member.call(34, &[], &heartbeat_of(&format!("{number:0>250}"), &["g"], &[], 1)).code, 0);
    }
    let list = request(Form::Json, (38, 1, 0), &[("consumerGroup", "g")], b"").repeat(30);
    let before = scene.broker.anonymous_bytes();
    let mut slow: Vec<Client> = (0..40).map(|_| scene.client()).collect();
    for client in &mut slow {
        client.send_bytes(&list).unwrap();
        assert_serves(&scene);
    }
    let grown = scene.broker.anonymous_bytes().saturating_sub(before);
    println!("{} KiB for 40 connections that do not read", grown >> 10);
    assert!(grown < 9 * MIB);
    for client in slow.iter_mut().step_by(39) {
        for _ in 0..30 {
            let answer = client.receive(LIMIT).unwrap().expect("every request has its answer");
            assert!([0, 2].contains(&answer.code), "{}", answer.remark);
        }
    }
    drop(slow);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.client().call(38, &[("consumerGroup", "g")], b"").code, 0);
}

/// Idle connections took every descriptor; the store could open no file, stopped for good, and every send was refused
/// until the next start.
#[test]
fn connections_leave_descriptors_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start_with_descriptors(256, &folder.path().join("store"), &[]);
    let mut client = broker.client();
    let idle: Vec<Client> = (0..400).map(|_| broker.client()).collect();
    for topic in 0..20 {
        send(&mut client, &format!("T{topic}"), "0", "", b"x");
    }
    drop(idle);
    let (status, told) = broker.stop();
    assert!(status.success(), "{status}: {told}");
    assert!(told.lines().count() == 1 && told.contains("connections, not 4096"), "{told}");
}

#[test]
fn a_number_of_connections_that_no_system_has_is_what_there_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&folder.path().join("store"), &["--max-connections", "18446744073709551615"]);
    send(&mut broker.client(), "T", "0", "", b"x");
    let (status, told) = broker.stop();
    assert!(status.success() && told.contains("the limit of open files"), "{status}: {told}");
}
