//! A disk that is full, and one that fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use mqlog::{Error, FlushPolicy, LogOffset, Message, MessageStore, QueueOffset};

use crate::common::{check_store, fast_dir, small};
use crate::disk::Faults;
use crate::watched_disk::WatchedDisk;
use crate::{get, open};

#[test]
fn appends_resume_when_space_returns() {
    for flush in [FlushPolicy::Sync, FlushPolicy::async_default()] {
        for part in ["mqlog/new", "commitlog", "consumequeue", "index", "mqlog/derived"] {
            let dir = fast_dir();
            let disk = WatchedDisk::<Faults>::default();
            let options = small(dir.path()).flush(flush.clone()).disk(Arc::new(WatchedDisk(Arc::clone(&disk.0))));
            let store = MessageStore::open(options.checkpoint_interval(Duration::from_millis(5))).unwrap();
            let put = || store.put(Message::new("t").key("k").owned_body(vec![7; 500]));
            for _ in 0..50 {
                put().unwrap();
            }
            store.topics().unwrap();
            *disk.0.full.lock().unwrap() = Some(part);
            let mut acknowledged = 50;
            let begun = Instant::now();
            let refused = loop {
                match put() {
                    Ok(_) => acknowledged += 1,
                    Err(error) => break Some(error),
                }
                // Some files are only written now and then.
                if begun.elapsed() > Duration::from_millis(500) || acknowledged > 300 {
                    break None;
                }
            };
            println!("{flush:?} {part}: {acknowledged}, {refused:?}");
            if let Some(error) = refused {
                assert!(error.is_disk_full(), "{part}: {error:?}");
                let reads = get(&store, "t", 0, 0, "*").messages.len();
                assert_eq!(reads, 32, "reads go on");
                assert!(store.query("t", "k", ..).unwrap().count() >= 50 && store.topics().is_ok());
                assert_eq!(store.queue("t", 0).iter_from(QueueOffset::ZERO).take(50).filter(Result::is_err).count(), 0);
            }
            *disk.0.full.lock().unwrap() = None;
            let begun = Instant::now();
            while put().is_err() {
                assert!(begun.elapsed() < Duration::from_secs(10), "{part}: appends do not resume");
                thread::sleep(Duration::from_millis(5));
            }
            let content = check_store(&store);
            assert!(content.records.len() > acknowledged, "{part}");
            store.close().unwrap();
            assert_eq!(check_store(&open(dir.path())).records.len(), content.records.len());
        }
    }
}

#[test]
fn a_failed_sync_stops_the_store() {
    for flush in [FlushPolicy::Sync, FlushPolicy::Manual] {
        let dir = fast_dir();
        let disk = WatchedDisk::<Faults>::default();
        let store =
            MessageStore::open(small(dir.path()).flush(flush.clone()).disk(Arc::new(WatchedDisk(Arc::clone(&disk.0)))))
                .unwrap();
        for _ in 0..40 {
            store.put(Message::new("t").body("durable")).unwrap();
        }
        let durable = store.flush().unwrap();
        disk.0.no_sync.store(true, Ordering::SeqCst);
        let first = match flush {
            FlushPolicy::Sync => store.put(Message::new("t")).unwrap_err(),
            _ => store.put(Message::new("t")).and_then(|_| store.flush()).unwrap_err(),
        };
        assert!(matches!(first, Error::Poisoned { .. }), "{first:?}");
        let failed = disk.0.failed.load(Ordering::SeqCst);
        disk.0.no_sync.store(false, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(store.put(Message::new("t")).unwrap_err().to_string(), first.to_string());
            assert_eq!(store.flush().unwrap_err().to_string(), first.to_string());
            assert_eq!(store.health().unwrap_err().to_string(), first.to_string());
        }
        assert_eq!((failed, store.durable_offset()), (1, durable), "what failed is not synced again");
        assert_eq!(get(&store, "t", 0, 0, "*").messages.len(), 32);
        assert_eq!(store.read(LogOffset::ZERO).unwrap().body(), b"durable");
        assert!(store.close().is_err());
        let again = open(dir.path());
        assert!(!again.recovery_report().clean);
        assert!(check_store(&again).records.len() >= 40);
    }
}
