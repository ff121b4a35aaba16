//! Opening twice, closing with readers, pumping by hand, deleting.

use std::env;
use std::process::Command;
use std::time::Duration;

use mqlog::{Drive, Error, FlushPolicy, GetStatus, LogOffset, Message, MessageStore, QueueOffset};

use crate::common::{check_store, fast_dir, small};
use crate::{get, open, put_many};

const ROOT: &str = "MQLOG_LOCK_ROOT";

/// Does nothing unless it is started by a test as a process of its own: then it fails if the store is not locked.
#[test]
fn another_process_finds_the_lock() {
    let Some(root) = env::var_os(ROOT) else { return };
    match MessageStore::open(small(root.as_ref())) {
        Err(Error::Locked { .. }) => {}
        other => panic!("{:?}", other.map(drop)),
    }
}

fn is_locked_for_others(root: &std::path::Path) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "lifecycle::another_process_finds_the_lock"]).env(ROOT, root);
    command.output().unwrap().status.success()
}

#[test]
fn a_store_is_open_once_for_writing() {
    let dir = fast_dir();
    let store = open(dir.path());
    put_many(&store, "t", 100);
    assert!(is_locked_for_others(dir.path()));
    assert!(matches!(MessageStore::open(small(dir.path())), Err(Error::Locked { .. })));
    assert!(is_locked_for_others(dir.path()), "a refused opening dropped the lock");
    let reader = MessageStore::open(small(dir.path()).read_only(true)).unwrap();
    assert_eq!(check_store(&reader).records.len(), 100);
    assert!(matches!(reader.put(Message::new("t")), Err(Error::ReadOnly)));
    assert!(matches!(reader.delete_before(LogOffset::MAX), Err(Error::ReadOnly)));
    drop(reader);
    assert!(is_locked_for_others(dir.path()), "a read-only opening dropped the lock");
    put_many(&store, "t", 1);
    store.close().unwrap();
    assert!(!is_locked_for_others(dir.path()));
    assert_eq!(check_store(&open(dir.path())).records.len(), 101);
}

#[test]
fn a_closed_store_can_still_be_read_through_its_handles() {
    let dir = fast_dir();
    let store = open(dir.path());
    put_many(&store, "t", 100);
    let message = store.read(LogOffset::ZERO).unwrap();
    let (queue, mut iter) = (store.queue("t", 0), store.queue("t", 0).iter_from(QueueOffset::ZERO));
    iter.next().unwrap().unwrap();
    let mut query = store.query("t", "none", ..).unwrap();
    store.close().unwrap();
    // The directory belongs to somebody else now, who may delete files.
    let other = open(dir.path());
    put_many(&other, "t", 300);
    other.flush().unwrap();
    assert!(other.delete_before(other.log_range().end).unwrap() > 0);
    assert_eq!(message.body(), b"0");
    assert_eq!(iter.next().unwrap().unwrap().body(), b"1");
    assert!(queue.range().unwrap().end.get() >= 100 && query.next().is_none());
    check_store(&other);
}

#[test]
fn a_store_without_threads_is_pumped() {
    let dir = fast_dir();
    for flush in [FlushPolicy::Sync, FlushPolicy::async_default(), FlushPolicy::Manual] {
        let options = small(dir.path()).flush(flush.clone()).drive(Drive::Manual).checkpoint_bytes(1);
        let store = MessageStore::open(options).unwrap();
        put_many(&store, "t", 200);
        let appended = store.append(Message::new("t")).unwrap();
        assert!(store.durable_offset() < appended.end());
        store.pump().unwrap();
        assert_eq!(store.durable_offset() >= appended.end(), flush != FlushPolicy::Manual);
        assert!(flush == FlushPolicy::Manual || store.stats().dispatched >= appended.end());
        store.flush().unwrap();
        store.pump().unwrap();
        check_store(&store);
        store.close().unwrap();
    }
    assert_eq!(check_store(&open(dir.path())).records.len(), 603);
}

#[test]
fn old_files_go_and_their_messages_with_them() {
    let dir = fast_dir();
    let store = open(dir.path());
    for number in 0..600_u64 {
        store.put(Message::new("t").queue((number % 3) as i32).key("k").owned_body(vec![0; 200])).unwrap();
    }
    put_many(&store, "other", 1);
    let held = store.read(LogOffset::ZERO).unwrap();
    assert_eq!(store.delete_before(LogOffset::ZERO).unwrap(), 0);
    store.flush().unwrap();
    assert_eq!(store.delete_before(LogOffset::new(16 * 1024 - 1)).unwrap(), 0, "the file has more than that");
    assert_eq!(store.delete_before(LogOffset::new(3 * 16 * 1024 + 5)).unwrap(), 3);
    assert_eq!(store.log_range().start.get(), 3 * 16 * 1024);
    assert_eq!((held.body().len(), store.stats().pinned_bytes), (200, 16 * 1024));
    drop(held);
    assert_eq!(store.stats().pinned_bytes, 0);
    let content = check_store(&store);
    assert!(content.records.len() < 600);
    assert!(store.read(LogOffset::ZERO).is_err());
    assert_eq!(get(&store, "t", 0, 0, "*").status, GetStatus::OffsetTooSmall);
    assert_eq!(store.delete_older_than(Duration::from_secs(3600)).unwrap(), 0);
    std::thread::sleep(Duration::from_millis(5));
    put_many(&store, "other", 1);
    store.flush().unwrap();
    assert!(store.delete_older_than(Duration::from_millis(1)).unwrap() > 0);
    check_store(&store);
    let ends: Vec<_> = (0..3).map(|queue| store.queue("t", queue).range().unwrap().end).collect();
    store.close().unwrap();
    let store = open(dir.path());
    check_store(&store);
    for (queue, end) in ends.into_iter().enumerate() {
        let put = store.put(Message::new("t").queue(queue as i32)).unwrap();
        assert_eq!(put.queue_offset, end, "no queue offset comes back");
    }
    check_store(&store);
}
