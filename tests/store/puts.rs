//! What a put accepts, and what it promises when it has returned.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mqlog::format::record::SysFlag;
use mqlog::{Error, FlushPolicy, LogOffset, Message, MessageStore, QueueOffset, StoreOptions};

use crate::common::{check_store, fast_dir, small};
use crate::{bodies, get, open, put_many};

#[test]
fn each_limit_names_field_value_and_limit_and_nothing_is_written() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).log_file_bytes(1 << 20).max_body_bytes(1000)).unwrap();
    let before = (store.log_range(), store.stats());
    let text = "a".repeat(40_000);
    let too_large = |message: Message<'_>, field, value, limit| match store.put(message) {
        Err(Error::TooLarge { field: named, value: found, limit: allowed }) => {
            assert_eq!((named, found, allowed), (field, value, limit));
        }
        other => panic!("{field}: {other:?}"),
    };
    too_large(Message::new(&text[..128]), "topic", 128, 127);
    too_large(Message::new("t").owned_body(vec![0; 1001]), "body", 1001, 1000);
    too_large(Message::new("t").property("n", &text[..32_745]), "properties", 32_768, 32_767);
    for name in ["", ".", "..", "a/b", "a\0"] {
        for message in [Message::new(name), Message::new("t").property("INNER_MULTI_DISPATCH", format!("a,{name}"))] {
            assert!(matches!(store.put(message), Err(Error::InvalidMessage { .. })), "{name:?}");
        }
    }
    assert!(matches!(store.put(Message::new("t").queue(-1)), Err(Error::InvalidMessage { field: "queue id", .. })));
    assert_eq!((store.log_range(), store.stats().tail), (before.0, before.1.tail));
    store.put(Message::new(&text[..127]).owned_body(vec![0; 1000])).unwrap();
    store.put(Message::new("t").property("n", &text[..32_744])).unwrap();
    check_store(&store);
}

#[test]
fn properties_have_all_of_their_limit_where_the_store_adds_no_crc() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).log_file_bytes(1 << 20).record_crc(false)).unwrap();
    let text = "a".repeat(32_765);
    let put = store.put(Message::new("t").property("n", &text[..32_764])).unwrap();
    assert_eq!(store.read(put.log_offset).unwrap().record().properties().as_bytes().len(), 32_767);
    let refused = store.put(Message::new("t").property("n", &*text));
    assert!(matches!(refused, Err(Error::TooLarge { field: "properties", value: 32_768, .. })), "{refused:?}");
    check_store(&store);
}

#[test]
fn a_record_must_fit_a_file_with_8_bytes_to_spare() {
    let dir = fast_dir();
    let store = open(dir.path());
    let empty = store.put(Message::new("t")).unwrap().record_bytes as usize;
    let most = 16 * 1024 - 8 - empty;
    match store.put(Message::new("t").owned_body(vec![0; most + 1])) {
        Err(Error::TooLarge { field: "record", value, limit }) => {
            assert_eq!((value, limit), (16 * 1024 - 7, 16 * 1024 - 8));
        }
        other => panic!("{other:?}"),
    }
    store.put(Message::new("t").owned_body(vec![1; most])).unwrap();
    store.put(Message::new("t").owned_body(vec![2; most])).unwrap();
    assert_eq!(get(&store, "t", 0, 0, "*").messages.len(), 3);
    check_store(&store);
}

#[test]
fn long_topics_are_an_option() {
    let dir = fast_dir();
    let name = "l".repeat(255);
    let store = MessageStore::open(small(dir.path()).long_topics(true)).unwrap();
    store.put(Message::new(name.as_str()).key("k")).unwrap();
    assert_eq!(store.query(&name, "k", ..).unwrap().count(), 1);
    assert!(matches!(
        store.put(Message::new("l".repeat(256))),
        Err(Error::TooLarge { field: "topic", value: 256, limit: 255 })
    ));
    check_store(&store);
}

#[test]
fn a_batch_is_of_one_queue_and_of_plain_messages() {
    let dir = fast_dir();
    let store = open(dir.path());
    let plain = || Message::new("t");
    let refused = [
        Message::new("u"),
        plain().queue(1),
        plain().sys_flag(SysFlag::PREPARED),
        plain().property("INNER_MULTI_DISPATCH", "a"),
        plain().property("DELAY", "1"),
        plain().owned_body(vec![0; 5 << 20]),
    ];
    for message in refused {
        assert!(store.put_batch(&[plain(), message.clone()]).is_err(), "{}", message.topic());
    }
    assert_eq!(store.stats().tail, LogOffset::ZERO);
    assert_eq!(store.put_batch(&[]).unwrap(), []);
    for round in 0..30 {
        let batch: Vec<_> = (0..7).map(|number| plain().owned_body(vec![number; 300])).collect();
        let acks = store.put_batch(&batch).unwrap();
        let file = |offset: LogOffset| offset.get() / (16 * 1024);
        assert_eq!(file(acks[0].log_offset), file(acks[6].log_offset), "a batch never spans files");
        assert!(acks.windows(2).all(|pair| pair[0].end() == pair[1].log_offset));
        assert_eq!(acks[0].queue_offset.get(), round * 7);
    }
    let many: Vec<_> = (0..100).map(|_| plain().owned_body(vec![0; 300])).collect();
    assert!(matches!(store.put_batch(&many), Err(Error::TooLarge { .. })));
    check_store(&store);
}

#[test]
fn all_fields_come_back() {
    let dir = fast_dir();
    let store = open(dir.path());
    let v6 = "[2001:db8::1]:9876".parse().unwrap();
    let message = Message::new("t").queue(7).body("body").tags("tag").key("k1").key("k2").property("p", "v");
    let message = message.flag(-5).sys_flag(SysFlag::COMMIT).born_ms(12_345).born_host(v6).store_host(v6);
    let put = store.put(message.reconsume_times(3).prepared_transaction_offset(99)).unwrap();
    let got = store.read(put.log_offset).unwrap();
    assert_eq!((got.topic().as_ref(), got.queue_id(), got.body(), got.flag()), ("t", 7, &b"body"[..], -5));
    assert_eq!((got.tags().as_deref(), got.property("p").as_deref()), (Some("tag"), Some("v")));
    assert_eq!(got.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!((got.born_ms(), got.born_host(), got.store_host()), (12_345, v6, v6));
    assert_eq!((got.reconsume_times(), got.prepared_transaction_offset()), (3, 99));
    assert!(got.sys_flag().has(SysFlag::COMMIT));
    check_store(&store);
}

/// An IPv4 address in an IPv6 one is stored as IPv4, but the id that the put returned had the address as it was given: no
/// message has that id.
#[test]
fn the_id_that_a_put_returns_is_the_messages() {
    let dir = fast_dir();
    let store = open(dir.path());
    for host in ["[::ffff:1.2.3.4]:80", "[2001:db8::1]:80", "1.2.3.4:80"] {
        let host = host.parse().unwrap();
        let message = || Message::new("t").born_host(host).store_host(host);
        let batch = store.put_batch(&[message(), message()]).unwrap();
        for put in [vec![store.put(message()).unwrap()], batch].concat() {
            let read = store.read(put.log_offset).unwrap();
            assert_eq!(put.message_id(), read.message_id());
            assert_eq!(store.read_by_id(&put.message_id()).unwrap().log_offset(), put.log_offset);
        }
    }
    check_store(&store);
}

#[test]
fn producers_read_their_writes_and_keep_their_order() {
    for flush in [FlushPolicy::Sync, FlushPolicy::async_default()] {
        let dir = fast_dir();
        let store = Arc::new(MessageStore::open(small(dir.path()).flush(flush)).unwrap());
        let producers = (0..4_u8).map(|producer| {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                for number in 0..150_u8 {
                    let (topic, key) = (["x", "y"][usize::from(number % 2)], format!("{producer}-{number}"));
                    let message = Message::new(topic).key(key.as_str()).owned_body(vec![producer, number]);
                    let put = store.put(message).unwrap();
                    let got = get(&store, topic, 0, put.queue_offset.get(), "*");
                    assert_eq!(got.messages[0].body(), [producer, number]);
                    assert_eq!(store.query(topic, &key, ..).unwrap().count(), 1);
                }
            })
        });
        producers.collect::<Vec<_>>().into_iter().for_each(|producer| producer.join().unwrap());
        for topic in ["x", "y"] {
            let mut last = [-1_i32; 4];
            for message in store.queue(topic, 0).iter_from(QueueOffset::ZERO) {
                let message = message.unwrap();
                let [producer, number] = *message.body() else { panic!() };
                assert!(i32::from(number) > std::mem::replace(&mut last[usize::from(producer)], number.into()));
            }
        }
        check_store(&store);
    }
}

#[test]
fn a_sync_put_is_durable_and_an_async_one_within_the_interval() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).flush(FlushPolicy::Sync)).unwrap();
    for _ in 0..20 {
        let put = store.put(Message::new("t")).unwrap();
        assert!(store.durable_offset() >= put.end());
    }
    assert!(store.stats().syncs >= 20);
    store.close().unwrap();
    let interval = Duration::from_millis(20);
    let flush = FlushPolicy::Async { interval, unflushed_bytes: 1 << 30, max_unflushed_bytes: 1 << 30 };
    let store = MessageStore::open(small(dir.path()).flush(flush)).unwrap();
    let put = store.put(Message::new("t")).unwrap();
    let begun = Instant::now();
    while store.durable_offset() < put.end() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(1));
    }
    store.close().unwrap();
    let store = MessageStore::open(small(dir.path()).flush(FlushPolicy::Manual)).unwrap();
    let put = store.put(Message::new("t")).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert!(store.durable_offset() < put.end());
    store.wait_durable(put.end()).unwrap();
    assert!(store.durable_offset() >= put.end() && store.flush().unwrap() >= put.end());
}

#[test]
fn a_callback_may_put() {
    let dir = fast_dir();
    let store = Arc::new(MessageStore::open(small(dir.path()).flush(FlushPolicy::Sync)).unwrap());
    let (sender, receiver) = mpsc::channel();
    for _ in 0..10 {
        let appended = store.append(Message::new("t")).unwrap();
        let (other, sender) = (Arc::clone(&store), sender.clone());
        store.on_durable(appended.end(), move |done| {
            let put = done.and_then(|()| other.put(Message::new("from callback")));
            // The store must not be dropped last in here.
            drop(other);
            sender.send(put.map(|put| put.queue_offset.get())).unwrap();
        });
    }
    let mut offsets: Vec<_> =
        (0..10).map(|_| receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    put_many(&store, "t", 3);
    check_store(&store);
}

#[test]
fn a_batch_can_be_appended_without_a_wait() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).flush(FlushPolicy::Sync)).unwrap();
    let batch: Vec<_> = (0..3).map(|number| Message::new("t").owned_body(number.to_string().into_bytes())).collect();
    let appended = store.append_batch(&batch).unwrap();
    assert_eq!(appended.iter().map(|record| record.queue_offset.get()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((appended[0].end(), appended[1].end()), (appended[1].log_offset, appended[2].log_offset));
    store.wait_durable(appended[2].end()).unwrap();
    assert_eq!(bodies(&get(&store, "t", 0, 0, "*")), ["0", "1", "2"]);
    let mixed = [Message::new("t"), Message::new("u")];
    assert!(matches!(store.append_batch(&mixed), Err(Error::InvalidMessage { field: "batch", .. })));
}

/// The path of a store was joined with names, so that an empty one meant the working directory, until a sync of it failed.
#[test]
fn an_empty_path_is_refused() {
    let error = MessageStore::open(StoreOptions::new("")).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "root", .. }), "{error}");
}

/// The time to deliver overflowed where levels are longer than time itself: dispatch panicked for good.
#[test]
fn a_delay_longer_than_time_itself_harms_nobody() {
    let dir = fast_dir();
    let options = || small(dir.path()).delay_levels("106751991167d");
    for session in 0..2 {
        let store = MessageStore::open(options()).unwrap();
        let put = store.put(Message::new("SCHEDULE_TOPIC_XXXX").property("DELAY", "1")).unwrap();
        assert_eq!(put.queue_offset.get(), session);
        assert_eq!(store.queue("SCHEDULE_TOPIC_XXXX", 0).iter_from(QueueOffset::ZERO).count() as u64, session + 1);
        store.close().unwrap();
    }
}
