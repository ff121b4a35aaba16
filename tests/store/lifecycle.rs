//! Opening twice, closing with readers, pumping by hand, deleting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs, thread};

use mqlog::format::record::seal;
use mqlog::{
    CommitLog, Drive, Error, FlushPolicy, GetStatus, LogOffset, Message, MessageStore, QueueOffset, ReadMode, ScanItem,
    StoreOptions,
};

use crate::common::{check_store, fast_dir, files_below, inner_batch, small};
use crate::{HandClock, get, open, put_many};

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

fn is_locked_for_others(root: &Path) -> bool {
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

/// For reading only, a file was opened as a store without messages.
#[test]
fn a_file_is_no_store() {
    let dir = fast_dir();
    let file = dir.path().join("file");
    fs::write(&file, "no store").unwrap();
    for path in [file.as_path(), "/dev/null".as_ref()] {
        for read_only in [true, false] {
            let error = MessageStore::open(small(path).read_only(read_only)).map(drop).unwrap_err();
            assert!(matches!(&error, Error::Io { .. }), "{error}");
            assert!(error.to_string().contains("irectory"), "{error}");
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"no store");
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

/// The handle of a closed store once found entries that did not fit any more, and built the queue anew: over the files of
/// a store that had taken the place of its own, without a lock.
#[test]
fn the_handles_of_a_closed_store_write_nothing() {
    let dir = fast_dir();
    let (root, aside) = (dir.path().join("store"), dir.path().join("aside"));
    let store = MessageStore::open(small(&root).max_open_files(1)).unwrap();
    for number in 0..400 {
        store.put(Message::new("t").queue(number / 100 % 2).body(b"old")).unwrap();
    }
    let (queue, mut begun) = (store.queue("t", 0), store.queue("t", 0).iter_from(QueueOffset::ZERO));
    begun.next().unwrap().unwrap();
    store.close().unwrap();
    fs::rename(&root, &aside).unwrap();
    let other = MessageStore::open(small(&root)).unwrap();
    for _ in 0..5 {
        other.put(Message::new("t").body(b"new, and longer")).unwrap();
    }
    other.close().unwrap();
    let before = files(&root);
    for iter in [begun, queue.iter_from(QueueOffset::ZERO)] {
        let items: Vec<_> = iter.take(1000).collect();
        assert!(items.len() < 1000, "it ends");
        assert!(items.iter().flatten().all(|message| message.body() == b"old"));
    }
    assert!(files(&root) == before, "something was written");
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Whoever opened only the log of a broker's folder once fixed the sizes of queue and index files without a look at
/// them: the store that came next made them all anew, of lengths that the broker does not accept.
#[test]
fn a_log_opened_alone_keeps_the_sizes_of_queues_and_index() {
    let dir = fast_dir();
    let store = open(dir.path());
    (0..300).for_each(|_| drop(store.put(Message::new("t").key("k"))));
    store.close().unwrap();
    let lengths = |root: &Path| files(root).into_values().map(|bytes| bytes.len()).collect::<Vec<_>>();
    let before: Vec<_> = ["consumequeue", "index"].iter().flat_map(|name| lengths(&dir.path().join(name))).collect();
    fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
    fs::write(dir.path().join("lock"), b"else").unwrap();
    CommitLog::open(dir.path(), 64 * 1024).unwrap().close().unwrap();
    let store = MessageStore::open(StoreOptions::new(dir.path())).unwrap();
    assert_eq!(store.recovery_report().queues_repaired, []);
    check_store(&store);
    store.close().unwrap();
    let after: Vec<_> = ["consumequeue", "index"].iter().flat_map(|name| lengths(&dir.path().join(name))).collect();
    assert_eq!(after, before);
}

/// A scan whose files were deleted in front of it once ended as if the log did.
#[test]
fn a_scan_that_a_deletion_overtakes_goes_on_behind_it() {
    let dir = fast_dir();
    for mode in [ReadMode::Mapped, ReadMode::Copy] {
        let root = dir.path().join(format!("{mode:?}"));
        let store = MessageStore::open(small(&root).read_mode(mode)).unwrap();
        put_many(&store, "t", 1000);
        let (end, mut scan) = (store.flush().unwrap(), store.scan(LogOffset::ZERO));
        let first = scan.next().unwrap().unwrap();
        assert!(store.delete_before(LogOffset::new(3 * 16 * 1024)).unwrap() >= 3);
        let start = store.log_range().start;
        let of = |items: &mut dyn Iterator<Item = mqlog::Result<ScanItem>>| {
            let records = items.filter_map(|item| match item.unwrap() {
                ScanItem::Record(record) => Some(record.log_offset()),
                ScanItem::Blank(_) => None,
                ScanItem::Damaged(damage) => panic!("{damage}"),
            });
            records.filter(|at| *at >= start).collect::<Vec<_>>()
        };
        let (overtaken, whole) = (of(&mut scan), of(&mut store.scan(LogOffset::ZERO)));
        assert!(overtaken == whole && !whole.is_empty() && start < end, "{overtaken:?}");
        assert!(matches!(first, ScanItem::Record(record) if record.log_offset() == LogOffset::ZERO));
    }
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
    thread::sleep(Duration::from_millis(5));
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

/// It counted the records of a file and then missed their entries, when the file had been deleted meanwhile.
/// Queue files that another process deleted were damage to one that only reads.
#[test]
fn verify_names_no_damage_of_what_another_process_deletes() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path())).unwrap();
    for _ in 0..100 {
        store.put(Message::new("t").body(&[7; 500])).unwrap();
        store.put(inner_batch("batches", 2, b"")).unwrap();
    }
    store.close().unwrap();
    let store = MessageStore::open(small(dir.path()).read_only(true)).unwrap();
    for folder in ["consumequeue/t/0", "batchconsumequeue/batches/0"] {
        let files = files_below(&dir.path().join(folder));
        files[..3].iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    fs::remove_file(dir.path().join("commitlog/00000000000000000000")).unwrap();
    for _ in 0..2 {
        let report = store.verify().unwrap();
        assert_eq!((report.damages, report.records), (Vec::new(), 200));
        assert!((1..200).contains(&report.queue_entries));
    }
    let last = files_below(&dir.path().join("consumequeue/t/0")).pop().unwrap();
    fs::write(&last, vec![0; fs::read(&last).unwrap().len()]).unwrap();
    assert_ne!(store.verify().unwrap().damages, [], "another process does not do that");
}

#[test]
fn verify_names_no_damage_while_others_put_and_delete() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).log_file_bytes(16 * 1024)).unwrap();
    let (is_over, deleted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (verified, put) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut put = 0;
            while !is_over.load(Ordering::Relaxed) {
                store.put(Message::new("t").key(put.to_string()).body(&[0; 512])).unwrap();
                put += 1;
                if put % 20 == 0 {
                    deleted.fetch_add(store.delete_before(store.flush().unwrap()).unwrap(), Ordering::Relaxed);
                }
            }
            put
        });
        let mut verified = Vec::new();
        while deleted.load(Ordering::Relaxed) < 20 && !writer.is_finished() {
            verified.push(store.verify());
        }
        is_over.store(true, Ordering::Relaxed);
        (verified, writer.join().unwrap())
    });
    println!("{} verified beside {put} puts", verified.len());
    assert!(verified.len() > 1);
    for report in verified {
        assert_eq!(report.unwrap().damages, []);
    }
}

/// How many descriptors this process has for log files of a store.
#[cfg(target_os = "linux")]
fn open_log_files(root: &Path) -> usize {
    let dir = root.join("commitlog");
    let targets = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    targets.filter(|target| target.parent() == Some(&dir)).count()
}

/// Each file took one for as long as the store was open, and at the limit of the process nothing went on.
#[test]
#[cfg(target_os = "linux")]
fn full_log_files_take_no_descriptor() {
    let dir = fast_dir();
    for flush in [FlushPolicy::Sync, FlushPolicy::async_default()] {
        let options = || small(dir.path()).log_file_bytes(16 * 1024).flush(flush.clone());
        let store = MessageStore::open(options()).unwrap();
        let from = store.log_range().end;
        for _ in 0..500 {
            store.put(Message::new("t").body(&[7; 500])).unwrap();
        }
        store.flush().unwrap();
        assert!(store.log_range().end - from > 10 * 16 * 1024, "there are many files");
        assert!(open_log_files(dir.path()) <= 3, "{} are open", open_log_files(dir.path()));
        store.close().unwrap();
        for mode in [ReadMode::Mapped, ReadMode::Copy] {
            let again = MessageStore::open(options().read_mode(mode)).unwrap();
            assert!(open_log_files(dir.path()) <= 3, "{} are open", open_log_files(dir.path()));
            check_store(&again);
        }
        fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
        check_store(&MessageStore::open(options()).unwrap());
    }
}

#[test]
fn what_a_reader_beside_the_writer_opened_stays_readable_when_that_deletes() {
    let dir = fast_dir();
    let options = || small(dir.path()).log_file_bytes(4096);
    let store = MessageStore::open(options()).unwrap();
    put_many(&store, "t", 500);
    let end = store.flush().unwrap();
    let reader = MessageStore::open(options().read_only(true)).unwrap();
    assert!(store.delete_before(end).unwrap() > 10);
    let shown = reader.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_))));
    assert_eq!(shown.count(), 500);
    assert_eq!(reader.queue("t", 0).iter_from(QueueOffset::ZERO).map(Result::unwrap).count(), 500);
}

/// `verify` and deletions told of arrivals while they held what keeps deletions out: who deleted then waited for ever.
#[test]
fn who_is_told_of_an_arrival_may_delete() {
    let dir = fast_dir();
    let (cell, told) = (Arc::new(OnceLock::<MessageStore>::new()), Arc::new(AtomicU64::new(0)));
    let (known, count) = (Arc::clone(&cell), Arc::clone(&told));
    let options = small(dir.path()).drive(Drive::Manual).on_arrival(move |_, _| {
        if let Some(store) = known.get() {
            store.delete_before(LogOffset::ZERO).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let store = cell.get_or_init(|| MessageStore::open(options).unwrap());
    store.put(Message::new("t")).unwrap();
    assert_eq!(store.verify().unwrap().damages, []);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    store.put(Message::new("t")).unwrap();
    store.delete_before(LogOffset::ZERO).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 2);
}

#[test]
fn jumps_of_the_clock_are_counted() {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    let dir = fast_dir();
    let clock = HandClock(Arc::new(AtomicI64::new(10 * HOUR_MS)));
    let store = MessageStore::open(small(dir.path()).clock(Arc::new(clock.clone()))).unwrap();
    for (now_ms, jumps) in [(10 * HOUR_MS, 0), (10 * HOUR_MS + 5, 0), (12 * HOUR_MS, 1), (12 * HOUR_MS + 5, 1)] {
        clock.0.store(now_ms, Ordering::Relaxed);
        store.put(Message::new("t")).unwrap();
        assert_eq!(store.stats().clock_jumps, jumps, "at {now_ms}");
    }
    clock.0.store(2 * HOUR_MS, Ordering::Relaxed);
    store.put(Message::new("t")).unwrap();
    assert_eq!(store.stats().clock_jumps, 2, "back");
}

/// RocketMQ does not look at names: what would be a folder elsewhere gets no queue.
#[test]
fn a_record_whose_topic_is_no_folder_is_counted_and_gets_no_queue() {
    let dir = fast_dir();
    let store = open(dir.path());
    let puts = ["xx", "t", "xx"].map(|topic| store.put(Message::new(topic).key("k")).unwrap());
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut log = fs::read(&path).unwrap();
    for put in [puts[0], puts[2]] {
        let record = &mut log[put.log_offset.get() as usize..][..put.record_bytes as usize];
        let topic = record.windows(3).position(|bytes| bytes == b"\x02xx").unwrap() + 1;
        record[topic..topic + 2].copy_from_slice(b"..");
        seal(record);
    }
    fs::write(path, log).unwrap();
    for name in ["consumequeue", "index", "mqlog"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    let store = open(dir.path());
    assert_eq!((store.recovery_report().refused_entries, store.stats().refused_entries), (2, 2));
    assert_eq!(store.queues().unwrap(), [("t".to_owned(), 0)]);
    assert_eq!(store.read(puts[2].log_offset).unwrap().topic(), "..");
}

#[test]
fn damage_that_dispatch_meets_is_named() {
    let dir = fast_dir();
    let store = MessageStore::open(small(dir.path()).drive(Drive::Manual)).unwrap();
    let puts = [(); 5].map(|()| store.put(Message::new("t")).unwrap());
    assert_eq!(store.stats().damages, []);
    let path = dir.path().join("commitlog/00000000000000000000");
    let log = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&log, &[9; 4], puts[2].log_offset.get() + 4).unwrap();
    store.topics().unwrap();
    let damages = store.stats().damages;
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].range, puts[2].log_offset.get()..puts[3].log_offset.get());
}
