//! What mqlog says beside the log is from before: queues without records in the log are known by it alone.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mqlog::{
    Drive, Error, FlushPolicy, GetLimits, LogOffset, Message, MessageStore, QueueOffset, RecoveryMode, StoreOptions,
    TagFilter,
};

use crate::common::{check_content, copy_dir, copy_file, fast_dir, files_below};
use crate::stores::{self, put_inner_batch};

/// Nothing happens beside what a test does.
fn options(root: &Path) -> StoreOptions {
    stores::options(root).drive(Drive::Manual)
}

fn range(store: &MessageStore, topic: &str) -> Range<u64> {
    let range = store.queue(topic, 0).range().unwrap();
    range.start.get()..range.end.get()
}

fn offsets(store: &MessageStore, topic: &str) -> Vec<u64> {
    let messages = store.queue(topic, 0).iter_from(QueueOffset::ZERO);
    messages.map(|message| message.unwrap().queue_offset().get()).collect()
}

fn put(store: &MessageStore, topic: &str, count: u64, body: &[u8]) {
    for _ in 0..count {
        store.put(Message::new(topic).body(body)).unwrap();
    }
}

/// Fills log files, so that those before can go, and deletes them.
fn delete_what_is_there(store: &MessageStore) {
    put(store, "new", 300, &[1; 200]);
    assert!(store.delete_before(store.flush().unwrap()).unwrap() > 2);
}

/// A copy of an open store, as a kill leaves it.
fn killed(root: &Path, to: &Path) -> PathBuf {
    let killed = to.join("killed");
    copy_dir(root, &killed);
    killed
}

/// A session without record CRC followed one with it, and was killed. An older copy of either file that says since when
/// records have a CRC, or of both, made all that was put in it look torn.
#[test]
fn an_older_copy_does_not_ask_for_checksums_that_a_killed_session_did_not_write() {
    for names in [&["format"][..], &["watermark"], &["format", "watermark"]] {
        for policy in [FlushPolicy::Sync, FlushPolicy::Manual] {
            let dir = fast_dir();
            let root = dir.path().join("store");
            let open =
                |root: &Path, crc| MessageStore::open(options(root).flush(policy.clone()).record_crc(crc)).unwrap();
            let store = open(&root, true);
            put(&store, "t", 5, b"with");
            store.close().unwrap();
            names.iter().for_each(|name| copy_file(&root.join("mqlog").join(name), &dir.path().join(name)));
            let store = open(&root, false);
            put(&store, "t", 20, b"without");
            let killed = killed(&root, dir.path());
            names.iter().for_each(|name| copy_file(&dir.path().join(name), &killed.join("mqlog").join(name)));
            let again = open(&killed, true);
            assert_eq!(again.recovery_report().torn, None, "{names:?}");
            assert_eq!(offsets(&again, "t"), (0..25).collect::<Vec<_>>());
        }
    }
}

/// The end of a queue without records in the log was looked for in its files alone, although the last checkpoint knew it:
/// its offsets were given out again.
#[test]
fn a_queue_without_records_keeps_its_end_whatever_happens_to_its_file() {
    for count in [5, 16] {
        for harm in ["zeroed", "removed", "cut", "folder removed"] {
            let dir = fast_dir();
            let store = MessageStore::open(options(dir.path())).unwrap();
            put(&store, "old", count, b"");
            delete_what_is_there(&store);
            assert_eq!(range(&store, "old"), count..count);
            store.close().unwrap();
            let file = dir.path().join("consumequeue/old/0/00000000000000000000");
            let mut bytes = fs::read(&file).unwrap();
            match harm {
                "zeroed" => bytes.fill(0),
                _ => bytes.truncate(40),
            }
            match harm {
                "removed" => fs::remove_file(&file).unwrap(),
                "folder removed" => fs::remove_dir_all(dir.path().join("consumequeue/old")).unwrap(),
                _ => fs::write(&file, bytes).unwrap(),
            }
            for _ in 0..2 {
                let store = MessageStore::open(options(dir.path())).unwrap();
                assert_eq!(range(&store, "old"), count..count, "{harm}");
                store.close().unwrap();
            }
            // Its file says it too.
            fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
            let store = MessageStore::open(options(dir.path())).unwrap();
            assert_eq!(store.put(Message::new("old")).unwrap().queue_offset.get(), count, "{harm}");
        }
    }
}

/// The messages at a queue's end were damaged in the log, and its file was lost: the end that the checkpoint knew was kept,
/// and a reader at the lost messages was sent behind it, past the next message.
#[test]
fn a_reader_at_lost_messages_goes_on_at_the_end() {
    let dir = fast_dir();
    let store = MessageStore::open(options(dir.path())).unwrap();
    put(&store, "t", 4, b"");
    let lost: Vec<_> = (0..2).map(|_| store.put(Message::new("t")).unwrap()).collect();
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut log = fs::read(&path).unwrap();
    log[lost[0].log_offset.get() as usize + 4..][..4].fill(9);
    log[lost[1].log_offset.get() as usize + 4..][..4].fill(9);
    fs::write(path, log).unwrap();
    fs::remove_file(dir.path().join("consumequeue/t/0/00000000000000000000")).unwrap();
    let store = MessageStore::open(options(dir.path()).recovery(RecoveryMode::Salvage)).unwrap();
    let get = |from: QueueOffset| store.get("t", 0, from, GetLimits::default(), &TagFilter::all()).unwrap();
    assert_eq!(range(&store, "t"), 0..6);
    let next = get(QueueOffset::new(4)).next;
    put(&store, "t", 1, b"next");
    let got = get(next);
    assert_eq!((got.messages.len(), got.messages[0].queue_offset()), (1, QueueOffset::new(6)));
}

/// A killed store got an older copy of `derived`, from before messages that were deleted since: their queue went back to
/// where it was then.
#[test]
fn a_checkpoint_from_before_a_deletion_counts_as_missing() {
    let dir = fast_dir();
    let root = dir.path().join("store");
    let store = MessageStore::open(options(&root)).unwrap();
    put(&store, "old", 2, b"");
    store.close().unwrap();
    copy_file(&root.join("mqlog/derived"), &dir.path().join("derived"));
    let store = MessageStore::open(options(&root)).unwrap();
    store.put(Message::new("old")).unwrap();
    delete_what_is_there(&store);
    assert_eq!(range(&store, "old"), 3..3);
    let killed = killed(&root, dir.path());
    copy_file(&dir.path().join("derived"), &killed.join("mqlog/derived"));
    let again = MessageStore::open(options(&killed)).unwrap();
    assert_eq!(again.put(Message::new("old")).unwrap().queue_offset.get(), 3);
}

/// A repair numbers the entries of a batch queue anew where files are missing in front. The last checkpoint, which knew
/// other numbers, still counted if the store was killed before the next: the last batches were there twice.
#[test]
fn a_kill_after_a_repair_does_not_bring_the_old_checkpoint_back() {
    for cut in [0, 20, 46, 60] {
        let dir = fast_dir();
        let root = dir.path().join("store");
        let store = MessageStore::open(options(&root)).unwrap();
        for count in [2, 3] {
            put_inner_batch(&store, count);
        }
        put(&store, "fill", 300, &[1; 200]);
        for count in [2, 3] {
            put_inner_batch(&store, count);
        }
        assert!(store.delete_before(store.flush().unwrap()).unwrap() > 2);
        store.close().unwrap();
        let file = root.join("batchconsumequeue/batches/0/00000000000000000000");
        fs::File::options().write(true).open(file).unwrap().set_len(cut).unwrap();
        let store = MessageStore::open(options(&root)).unwrap();
        assert_eq!(offsets(&store, "batches"), [5, 7]);
        put_inner_batch(&store, 4);
        assert_eq!(offsets(&store, "batches"), [5, 7, 10]);
        let again = MessageStore::open(options(&killed(&root, dir.path()))).unwrap();
        assert_eq!(offsets(&again, "batches"), [5, 7, 10]);
        assert_eq!(again.verify().unwrap().damages, []);
    }
}

/// Whoever makes room by hand removes the first log files. After a clean stop queues still began where they did.
#[test]
fn queues_begin_with_the_log_when_its_first_file_was_removed() {
    let dir = fast_dir();
    let store = MessageStore::open(options(dir.path())).unwrap();
    put(&store, "t", 300, &[1; 200]);
    let range_before = store.log_range();
    store.close().unwrap();
    fs::remove_file(dir.path().join("commitlog/00000000000000000000")).unwrap();
    for _ in 0..2 {
        let store = MessageStore::open(options(dir.path())).unwrap();
        assert_eq!(store.log_range(), LogOffset::new(16 * 1024)..range_before.end);
        let range = range(&store, "t");
        assert!(range.start > 20 && range.end == 300, "{range:?}");
        assert_eq!(offsets(&store, "t"), range.collect::<Vec<_>>());
        store.close().unwrap();
    }
}

/// The checkpoint of a log that had lost its last file was not believed, but stayed on the disk: when the log had grown past
/// it and the store was killed, the next opening took it for its own.
#[test]
fn a_checkpoint_beyond_a_salvaged_log_does_not_come_back() {
    let dir = fast_dir();
    let root = dir.path().join("store");
    let salvage = |root: &Path| MessageStore::open(options(root).recovery(RecoveryMode::Salvage)).unwrap();
    let store = MessageStore::open(options(&root)).unwrap();
    put(&store, "t", 200, &[1; 150]);
    store.close().unwrap();
    let last = files_below(&root.join("commitlog")).pop().unwrap();
    fs::remove_file(last).unwrap();
    let store = salvage(&root);
    put(&store, "t", 150, &[2; 100]);
    put(&store, "new", 150, &[2; 100]);
    store.flush().unwrap();
    let content = check_content(&store);
    let again = salvage(&killed(&root, dir.path()));
    assert!(check_content(&again) == content);
}

/// A watermark from before the log lost its end named a place that later records, or an end-of-file blank, went across: those
/// were hidden as damage, or cut with all behind them. It is the watermark that is wrong there.
#[test]
fn an_older_watermark_hides_nothing_of_what_came_after_a_loss() {
    // The place is across records, at the border of two, or in an end-of-file blank.
    for (before, after) in
        [(60, 200), (10, 33), (77, 76)].into_iter().chain((30..260).step_by(7).map(|bytes| (100, bytes)))
    {
        let dir = fast_dir();
        let options = || StoreOptions::new(dir.path()).log_file_bytes(4096);
        let salvage = || MessageStore::open(options().recovery(RecoveryMode::Salvage)).unwrap();
        let put = |store: &MessageStore, bytes: usize| store.put(Message::new("t").body(&vec![7; bytes])).unwrap();
        let store = MessageStore::open(options()).unwrap();
        let last = (0..50).map(|_| put(&store, before)).fold(None, |_, put| Some(put)).unwrap();
        store.close().unwrap();
        let older = fs::read(dir.path().join("mqlog/watermark")).unwrap();
        fs::remove_file(dir.path().join(format!("commitlog/{:020}", last.log_offset.get() / 4096 * 4096))).unwrap();
        let store = salvage();
        let new: Vec<_> = (0..60).map(|_| put(&store, after)).collect();
        store.close().unwrap();
        fs::write(dir.path().join("mqlog/watermark"), older).unwrap();
        // The last frame of queues and index would say how far the log was durable.
        fs::remove_file(dir.path().join("mqlog/derived")).unwrap();
        let error = MessageStore::open(options()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{before} {after}: {error}");
        salvage().close().unwrap();
        let store = MessageStore::open(options()).unwrap();
        assert!(new.iter().all(|put| store.read(put.log_offset).is_ok()), "{before} {after}");
        assert_eq!(store.verify().unwrap().damages, [], "{before} {after}");
    }
}
