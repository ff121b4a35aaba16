//! An opening that finds damage is killed before the damage is mended.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqlog::disk::OpenMode;
use mqlog::format::checkpoint::Checkpoint;
use mqlog::{CommitLog, Drive, LogOffset, Message, MessageStore, ScanItem, StoreOptions};

use crate::common::{check_content, copy_dir, fast_dir};
use crate::stores::{Base, End, options};
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};
use crate::{Harm, shorten};

/// A disk on which nothing changes any more after so many changes.
#[derive(Debug)]
struct Ends {
    left: AtomicUsize,
}

impl Watch for Ends {
    fn answer(&self, call: &Call<'_>, _path: &Path) -> Answer {
        let changes = match call {
            Call::Open(mode) => *mode == OpenMode::Create,
            Call::Rename | Call::RemoveFile | Call::SetLen | Call::Allocate(_) | Call::WriteAt(_) => true,
            _ => false,
        };
        let may = |left: usize| left.checked_sub(1);
        if changes && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_err() {
            return Answer::Fail(io::Error::other("the process has ended"));
        }
        Answer::Go
    }
}

/// The opening said that the store was in use before it looked at the files: what it would have found, the next one, after
/// a kill, took for right.
#[test]
fn the_opening_after_one_that_was_killed_finds_the_same_damage() {
    let base = Base::make(End::Closed);
    let index = base.files("index").pop().unwrap();
    for name in [Path::new("consumequeue/orders/0/00000000000000000000"), &index] {
        let mut killed = 0;
        for changes in 0.. {
            let patient = base.patient();
            assert!(Harm::Flipped(1).apply(&base, &patient, name));
            let ends = Arc::new(Ends { left: AtomicUsize::new(changes) });
            let opened = MessageStore::open(options(&patient.root).disk(Arc::new(WatchedDisk(Arc::clone(&ends)))));
            if opened.is_ok() {
                break;
            }
            killed += 1;
            let store = patient.open();
            assert!(check_content(&store) == base.content, "{} after {changes} changes", name.display());
            patient.check_after(store, &base.content);
        }
        println!("{}: {killed} openings killed", name.display());
        assert!(killed > 5);
    }
}

/// Opens a store whose process ends after so many changes; `false` if it needed no more.
fn is_killed_after(changes: usize, options: StoreOptions) -> bool {
    let ends = Arc::new(Ends { left: AtomicUsize::new(changes) });
    MessageStore::open(options.disk(Arc::new(WatchedDisk(ends)))).is_err()
}

/// A record without record CRC was torn within its last property, with the file. Opening gave the file its length, in zeros,
/// and then cut the record; the one after an opening that was killed between the two found it whole.
#[test]
fn a_torn_record_does_not_become_whole_by_an_opening_that_is_killed() {
    let dir = fast_dir();
    let without_crc = |root: &Path| options(root).record_crc(false).drive(Drive::Manual);
    let (root, killed) = (dir.path().join("store"), dir.path().join("killed"));
    let store = MessageStore::open(without_crc(&root)).unwrap();
    let put = |_| store.put(Message::new("t").property("amount", "1000000").body(&[7; 100])).unwrap();
    let puts: Vec<_> = (0..20).map(put).collect();
    copy_dir(&root, &killed);
    shorten(&killed.join("commitlog/00000000000000000000"), puts[19].end().get() - 5);
    let patient = dir.path().join("patient");
    let mut killings = 0;
    for changes in 0.. {
        copy_dir(&killed, &patient);
        if !is_killed_after(changes, without_crc(&patient)) {
            break;
        }
        killings += 1;
        let store = MessageStore::open(without_crc(&patient)).unwrap();
        let found: Vec<_> = store.scan(LogOffset::ZERO).map(Result::unwrap).collect();
        let is_right = |item: &ScanItem| match item {
            ScanItem::Record(record) => record.property("amount").as_deref() == Some("1000000"),
            _ => false,
        };
        assert!(found.len() == 19 && found.iter().all(is_right), "after {changes} changes: {:?}", found.last());
        store.close().unwrap();
        fs::remove_dir_all(&patient).unwrap();
    }
    println!("{killings} openings killed");
    assert!(killings > 5);
}

/// Where RocketMQ finds `abort`, it drops the index files above the checkpoint's third stamp, and puts their keys back only
/// from the other two stamps on. Of a store that RocketMQ had closed an opening made `abort`, and lowered those two later:
/// was it killed in between, RocketMQ lost keys.
#[test]
fn where_rocketmq_finds_that_an_opening_was_killed_it_loses_no_keys() {
    let base = Base::make(End::Closed);
    let mut killings = 0;
    for changes in 0.. {
        let patient = base.patient();
        fs::write(patient.path("lock"), "lock").unwrap();
        // As RocketMQ leaves it: no index file is full.
        let stamps = Checkpoint { log_ms: 1_700_000_000_000, queue_ms: 1_700_000_000_000, ..Checkpoint::default() };
        let mut bytes = stamps.encode().to_vec();
        bytes.resize(Checkpoint::FILE_BYTES, 0);
        fs::write(patient.path("checkpoint"), bytes).unwrap();
        if !is_killed_after(changes, options(&patient.root)) {
            break;
        }
        killings += 1;
        let is = Checkpoint::decode(&fs::read(patient.path("checkpoint")).unwrap()[..40]).unwrap();
        let is_low = is.log_ms.max(is.queue_ms) <= is.index_ms;
        assert!(is_low || is == stamps && !patient.path("abort").exists(), "after {changes} changes: {is:?}");
        let store = patient.open();
        assert!(check_content(&store) == base.content, "after {changes} changes");
        patient.check_after(store, &base.content);
    }
    println!("{killings} openings killed");
    assert!(killings > 5);
}

/// A log that is opened alone took the clean stop back, and nobody had looked at queues and index.
#[test]
fn after_a_log_was_opened_alone_everything_is_looked_at() {
    let base = Base::make(End::Closed);
    let index = base.files("index").pop().unwrap();
    for name in [Path::new("consumequeue/orders/0/00000000000000000000"), &index] {
        let patient = base.patient();
        assert!(Harm::Flipped(1).apply(&base, &patient, name));
        drop(CommitLog::open(&patient.root, 64 * 1024).unwrap());
        let store = patient.open();
        assert!(check_content(&store) == base.content, "{}", name.display());
        patient.check_after(store, &base.content);
    }
}
