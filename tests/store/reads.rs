//! Reading by queue, time, key and id.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mqlog::format::queue_entry::BatchEntry;
use mqlog::format::record::SysFlag;
use mqlog::{Error, GetLimits, GetStatus, LogOffset, Message, MessageStore, QueueOffset, TagFilter, TimeBound};

use crate::common::{check_store, fast_dir, inner_batch, small};
use crate::{HandClock, bodies, get, open, put_many};

#[test]
fn every_status_of_rocketmq() {
    let dir = fast_dir();
    let store = open(dir.path());
    let answer = |from, filter| {
        let got = get(&store, "t", 0, from, filter);
        (got.status, got.messages.len(), got.next.get(), got.range.start.get(), got.range.end.get())
    };
    assert_eq!(answer(5, "*"), (GetStatus::NoMatchedQueue, 0, 0, 0, 0));
    store.put(Message::new("t").sys_flag(SysFlag::PREPARED)).unwrap();
    assert_eq!(answer(5, "*"), (GetStatus::NoMessageInQueue, 0, 0, 0, 0));
    for number in 0..40 {
        store.put(Message::new("t").tags("a").owned_body(vec![b'x'; number])).unwrap();
    }
    // Queue files have 16 entries: RocketMQ would stop at 16.
    assert_eq!(answer(0, "*"), (GetStatus::Found, 32, 32, 0, 40));
    assert_eq!(answer(39, "a"), (GetStatus::Found, 1, 40, 0, 40));
    assert_eq!(answer(3, "b"), (GetStatus::NoMatchedMessage, 0, 40, 0, 40));
    assert_eq!(answer(40, "*"), (GetStatus::OffsetOverflowOne, 0, 40, 0, 40));
    assert_eq!(answer(41, "*"), (GetStatus::OffsetOverflowBadly, 0, 40, 0, 40));
    assert_eq!(get(&store, "t", 0, QueueOffset::MAX.get(), "*").status, GetStatus::OffsetOverflowBadly);
    for _ in 0..200 {
        store.put(Message::new("other").owned_body(vec![0; 400])).unwrap();
    }
    store.put(Message::new("t").tags("a")).unwrap();
    store.flush().unwrap();
    assert!(store.delete_before(LogOffset::new(3 * 16 * 1024)).unwrap() >= 2);
    store.topics().unwrap();
    assert_eq!(answer(0, "*"), (GetStatus::OffsetTooSmall, 0, 40, 40, 41));
    assert_eq!(answer(40, "*"), (GetStatus::Found, 1, 41, 40, 41));
    check_store(&store);
}

#[test]
fn limits_count_messages_and_bytes_and_the_first_message_always_comes() {
    let dir = fast_dir();
    let store = open(dir.path());
    for _ in 0..50 {
        store.put(Message::new("t").owned_body(vec![0; 1000])).unwrap();
    }
    let get = |max_messages, max_bytes| {
        let limits = GetLimits { max_messages, max_bytes };
        let got = store.get("t", 0, QueueOffset::ZERO, limits, &TagFilter::all()).unwrap();
        assert_eq!(got.next.get(), got.messages.len() as u64);
        got.messages.len()
    };
    assert_eq!(
        (get(7, 1 << 20), get(0, 0), get(1, 1), get(50, 1 << 20), get(usize::MAX, usize::MAX)),
        (7, 1, 1, 50, 50)
    );
    let record_bytes = store.read(LogOffset::ZERO).unwrap().record_bytes() as usize;
    assert_eq!((get(50, 3 * record_bytes), get(50, 3 * record_bytes - 1)), (3, 2));
}

#[test]
fn a_filter_compares_the_tag_and_not_only_its_hash() {
    let dir = fast_dir();
    let store = open(dir.path());
    // "Aa" and "BB" have one hash.
    for tags in ["Aa", "BB", "AaAa", "Aa"] {
        store.put(Message::new("t").tags(tags).body(tags)).unwrap();
    }
    store.put(Message::new("t").body("none")).unwrap();
    assert_eq!(bodies(&get(&store, "t", 0, 0, "Aa")), ["Aa", "Aa"]);
    assert_eq!(bodies(&get(&store, "t", 0, 0, " BB || AaAa ")), ["BB", "AaAa"]);
    assert_eq!(get(&store, "t", 0, 0, "*").messages.len(), 5);
    assert_eq!(get(&store, "t", 0, 0, "BBBB").status, GetStatus::NoMatchedMessage);
    // More than one piece of entries without a match, then one.
    for _ in 0..300 {
        store.put(Message::new("t").tags("no")).unwrap();
    }
    store.put(Message::new("t").tags("yes").body("yes")).unwrap();
    assert_eq!(bodies(&get(&store, "t", 0, 4, "yes")), ["yes"]);
}

#[test]
fn inner_batches_fill_batch_queues() {
    let dir = fast_dir();
    let store = open(dir.path());
    let put = |count| store.put(inner_batch("b", count, b"inner")).unwrap().queue_offset.get();
    let counts = [1, 3, 2, 5, 1, 1, 4, 2, 9, 3, 1, 7, 2, 2, 2, 1, 8, 3, 3];
    let mut next = 0;
    for count in counts {
        assert_eq!(put(count), next);
        next += count;
    }
    let answer = |got: &mqlog::GetResult| (got.status, got.messages.len(), got.next.get());
    // A batch counts as what it holds: of 32 messages there are 11 batches.
    assert_eq!(answer(&get(&store, "b", 0, 0, "*")), (GetStatus::Found, 11, 32));
    assert_eq!(answer(&get(&store, "b", 0, 32, "*")), (GetStatus::Found, counts.len() - 11, next));
    let inside = get(&store, "b", 0, 2, "*");
    assert_eq!((inside.messages.len(), inside.messages[0].queue_offset().get()), (10, 1));
    let one = GetLimits { max_messages: 1, ..GetLimits::default() };
    let got = store.get("b", 0, QueueOffset::new(1), one, &TagFilter::all()).unwrap();
    assert_eq!(answer(&got), (GetStatus::Found, 1, 4), "the first one always comes");
    assert_eq!(get(&store, "b", 0, next, "*").status, GetStatus::OffsetOverflowOne);
    assert!(store.put(Message::new("t")).is_ok());
    assert!(store.put(inner_batch("t", 1, b"")).is_err(), "the topic has an ordinary queue");
    check_store(&store);
    store.close().unwrap();
    check_store(&open(dir.path()));
}

/// A refused inner batch made its topic one of batch queues, which RocketMQ does not find.
#[test]
fn a_refused_inner_batch_decides_nothing_about_its_topic() {
    let dir = fast_dir();
    let store = open(dir.path());
    assert!(matches!(store.put(inner_batch("b", 1, &[1; 20_000])), Err(Error::TooLarge { .. })));
    store.put(Message::new("b")).unwrap();
    assert_eq!(get(&store, "b", 0, 0, "*").messages.len(), 1);
    assert!(dir.path().join("consumequeue/b/0").exists() && !dir.path().join("batchconsumequeue").exists());
}

/// Where entries of a batch queue had changed places, each of them right by itself, an iterator went back to the one
/// before again and again. Found by fuzzing.
#[test]
fn batches_out_of_order_are_put_right_by_who_reads_them() {
    let dir = fast_dir();
    let store = open(dir.path());
    for count in [1, 3, 2, 4] {
        store.put(inner_batch("b", count, b"")).unwrap();
    }
    assert_eq!(get(&store, "b", 0, 0, "*").messages.len(), 4);
    let path = dir.path().join("batchconsumequeue/b/0/00000000000000000000");
    let right = fs::read(&path).unwrap();
    let exchange = || {
        let mut bytes = right.clone();
        let (first, second) = bytes[BatchEntry::BYTES..3 * BatchEntry::BYTES].split_at_mut(BatchEntry::BYTES);
        first.swap_with_slice(second);
        fs::write(&path, bytes).unwrap();
    };
    exchange();
    let queue = store.queue("b", 0);
    let found = queue.iter_from(QueueOffset::ZERO).take(20).map(|message| message.unwrap().queue_offset().get());
    assert_eq!(found.collect::<Vec<_>>(), [0, 1, 4, 6]);
    exchange();
    let got = get(&store, "b", 0, 0, "*");
    assert_eq!((got.messages.len(), got.next.get()), (4, 10));
    assert_eq!(fs::read(&path).unwrap(), right);
}

#[test]
fn light_queues_delayed_and_transactional_messages() {
    let dir = fast_dir();
    let store = open(dir.path());
    for number in 0..20 {
        let message = Message::new("t").queue(3).property("INNER_MULTI_DISPATCH", "%LMQ%a,plain");
        store.put(message.owned_body(vec![b'0' + number])).unwrap();
    }
    assert_eq!(get(&store, "%LMQ%a", 0, 5, "*").messages.len(), 15);
    assert_eq!(get(&store, "plain", 3, 0, "*").messages[0].topic(), "t");
    assert_eq!(get(&store, "plain", 0, 0, "*").status, GetStatus::NoMatchedQueue);
    for (level, delay_ms) in [("1", 1_000), ("3", 10_000), ("18", 7_200_000), ("99", 7_200_000)] {
        let put = store.put(Message::new("SCHEDULE_TOPIC_XXXX").queue(1).property("DELAY", level).tags("x")).unwrap();
        let item = store.queue("SCHEDULE_TOPIC_XXXX", 1).entries(put.queue_offset, 1).unwrap()[0];
        assert_eq!(item.entry.tags_code, store.read(put.log_offset).unwrap().store_ms() + delay_ms, "level {level}");
    }
    assert_eq!(get(&store, "SCHEDULE_TOPIC_XXXX", 1, 0, "x").messages.len(), 4);
    for flag in [SysFlag::PREPARED, SysFlag::PREPARED | SysFlag::COMMIT] {
        let message = Message::new("tx").key("k").sys_flag(flag).property("INNER_MULTI_DISPATCH", "%LMQ%a");
        let put = store.put(message).unwrap();
        assert_eq!((put.queue_offset.get(), get(&store, "tx", 0, 0, "*").messages.len()), (0, 0));
    }
    // In no queue, they take no place in a light queue either.
    store.put(Message::new("t").queue(3).property("INNER_MULTI_DISPATCH", "%LMQ%a")).unwrap();
    let last = store.queue("%LMQ%a", 0).entries(QueueOffset::new(19), 9).unwrap();
    assert_eq!(last.iter().map(|item| item.queue_offset.get()).collect::<Vec<_>>(), [19, 20]);
    assert_eq!(store.query("tx", "k", ..).unwrap().count(), 1, "prepared, but not rolled back");
    store.put(Message::new("tx").key("k").sys_flag(SysFlag::COMMIT)).unwrap();
    assert_eq!(get(&store, "tx", 0, 0, "*").messages.len(), 1);
    check_store(&store);
}

/// It took a damaged message for one that is no longer there, and those before it with it.
#[test]
fn offset_by_time_passes_over_a_damaged_message() {
    let dir = fast_dir();
    let clock = HandClock(Arc::default());
    let open = || MessageStore::open(small(dir.path()).clock(Arc::new(clock.clone()))).unwrap();
    let store = open();
    let puts: Vec<_> = (0..9)
        .map(|number| {
            clock.0.store(100 * (number + 1), Ordering::SeqCst);
            store.put(Message::new("t").body(b"body")).unwrap()
        })
        .collect();
    store.close().unwrap();
    for damaged in [4, 0, 7] {
        let (path, put) = (dir.path().join("commitlog/00000000000000000000"), &puts[damaged]);
        let right = fs::read(&path).unwrap();
        let mut wrong = right.clone();
        wrong[usize::try_from(put.log_offset.get()).unwrap() + 88] ^= 1;
        fs::write(&path, &wrong).unwrap();
        let store = open();
        assert!(store.read(put.log_offset).is_err());
        let queue = store.queue("t", 0);
        for number in 0..9 {
            let ms = 100 * (number as i64 + 1);
            let lower = if number == damaged + 1 { damaged } else { number };
            assert_eq!(queue.offset_by_time(ms, TimeBound::Lower).unwrap().get(), lower as u64, "{damaged} {ms}");
            let upper = if number == damaged { number.saturating_sub(1) } else { number };
            assert_eq!(queue.offset_by_time(ms, TimeBound::Upper).unwrap().get(), upper as u64, "{damaged} {ms}");
        }
        store.close().unwrap();
        fs::write(&path, &right).unwrap();
    }
}

#[test]
fn offset_by_time_has_both_bounds() {
    let dir = fast_dir();
    let clock = HandClock(Arc::default());
    let store = MessageStore::open(small(dir.path()).clock(Arc::new(clock.clone()))).unwrap();
    let times = [100, 100, 200, 200, 200, 300, 500, 500, 900];
    for time in times {
        clock.0.store(time, Ordering::SeqCst);
        store.put(Message::new("t")).unwrap();
    }
    clock.0.store(50, Ordering::SeqCst);
    let late = store.put(Message::new("t")).unwrap();
    assert_eq!(store.read(late.log_offset).unwrap().store_ms(), 900, "store times never go back");
    let queue = store.queue("t", 0);
    for ms in [0, 99, 100, 101, 200, 250, 300, 499, 500, 501, 900, 901, i64::MAX] {
        let all = || times.iter().chain(&[900]);
        let lower = all().filter(|time| **time < ms).count() as u64;
        let upper = (all().filter(|time| **time <= ms).count() as u64).saturating_sub(1);
        assert_eq!(queue.offset_by_time(ms, TimeBound::Lower).unwrap().get(), lower, "{ms}");
        assert_eq!(queue.offset_by_time(ms, TimeBound::Upper).unwrap().get(), upper, "{ms}");
    }
    assert_eq!((store.earliest_ms().unwrap(), queue.earliest_ms().unwrap()), (Some(100), Some(100)));
    assert_eq!(store.queue("none", 0).offset_by_time(1, TimeBound::Lower).unwrap().get(), 0);
}

#[test]
fn a_query_has_bounds_in_ms_and_the_newest_first_over_many_files() {
    let dir = fast_dir();
    let clock = HandClock(Arc::new(AtomicI64::new(1_000)));
    let store = MessageStore::open(small(dir.path()).clock(Arc::new(clock.clone()))).unwrap();
    for number in 0..500 {
        clock.0.store(1_000 + number, Ordering::SeqCst);
        let key = ["Aa", "BB"][(number % 2) as usize];
        store.put(Message::new("t").key(key).key("all").property("UNIQ_KEY", format!("u{number}"))).unwrap();
    }
    store.topics().unwrap();
    assert!(fs::read_dir(dir.path().join("index")).unwrap().count() > 3);
    let times = |key: &str, range: std::ops::RangeInclusive<i64>| -> Vec<i64> {
        store.query("t", key, range).unwrap().map(|found| found.unwrap().store_ms()).collect()
    };
    let wanted = |from: i64, to: i64, step| (from..=to).rev().step_by(step).collect::<Vec<_>>();
    assert_eq!(times("all", 0..=9_999), wanted(1_000, 1_499, 1));
    assert_eq!(times("all", 1_100..=1_300), wanted(1_100, 1_300, 1));
    assert_eq!(times("Aa", 0..=9_999), wanted(1_000, 1_498, 2));
    assert_eq!(times("BB", 1_003..=1_003), [1_003]);
    assert_eq!(times("BB", 1_004..=1_004), [0; 0]);
    assert_eq!(times("u77", i64::MIN..=i64::MAX), [1_077]);
    assert_eq!(store.query("t", "all", ..1_001).unwrap().count(), 1);
    assert_eq!(store.query("t", "all", 1_499..).unwrap().count(), 1);
    assert_eq!(store.query("other", "all", ..).unwrap().count(), 0);
}

#[test]
fn a_message_is_read_by_its_id() {
    let dir = fast_dir();
    let store = open(dir.path());
    let put = store.put(Message::new("t").body("by id")).unwrap();
    let id = store.read(put.log_offset).unwrap().message_id();
    assert_eq!(store.read_by_id(&id).unwrap().body(), b"by id");
    assert!(store.read_by_id("nonsense").is_err() && store.read(put.log_offset + 1).is_err());
    assert!(store.read(put.end()).is_err());
}

#[test]
fn who_waits_is_woken_by_a_put() {
    let dir = fast_dir();
    let store = Arc::new(open(dir.path()));
    let begun = Instant::now();
    assert!(!store.wait("t", 0, QueueOffset::ZERO, Duration::from_millis(30)).unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let waiters: Vec<_> = (0..8)
        .map(|offset| {
            let store = Arc::clone(&store);
            thread::spawn(move || store.wait("t", 0, QueueOffset::new(offset), Duration::from_secs(20)).unwrap())
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    put_many(&store, "t", 8);
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn arrivals_are_told_by_queue_after_they_can_be_read() {
    let dir = fast_dir();
    let (sender, arrivals) = std::sync::mpsc::channel();
    let told = move |topic: &str, queue_id| drop(sender.send((topic.to_owned(), queue_id)));
    let store = MessageStore::open(small(dir.path()).on_arrival(told)).unwrap();
    for (topic, queue_id) in [("a", 0), ("b", 5), ("a", 0)] {
        let put = store.append(Message::new(topic).queue(queue_id)).unwrap();
        let arrived = std::iter::from_fn(|| arrivals.recv_timeout(Duration::from_secs(20)).ok());
        assert!(arrived.into_iter().any(|arrival| arrival == (topic.to_owned(), queue_id)));
        assert!(store.queue(topic, queue_id).range().unwrap().end > put.queue_offset);
    }
    store.put(inner_batch("c", 1, b"b")).unwrap();
    assert_eq!(arrivals.recv_timeout(Duration::from_secs(20)), Ok(("c".to_owned(), 0)));
}
