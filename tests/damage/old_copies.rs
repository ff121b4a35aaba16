//! What mqlog says beside the log is from before: queues without records in the log are known by it alone.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mqlog::format::queue_entry::QueueEntry;
use mqlog::{
    Appended, Drive, Error, FlushPolicy, GetLimits, LogOffset, Message, MessageStore, MessageView, QueueOffset,
    RecoveryMode, ScanItem, StoreOptions, TagFilter,
};

use crate::common::{
    Content, check_content, check_order_for_rocketmq, check_store, copy_dir, copy_file, dispatched_by_rocketmq,
    fast_dir, files_below, read_by_rocketmq,
};
use crate::stores::{self, End, put_inner_batch};
use crate::{flip, shorten};

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
/// its offsets were given out again. Then its file was filled up in a way that made RocketMQ ignore all that came in the
/// first 2 GiB of the log.
#[test]
fn a_queue_without_records_keeps_its_end_whatever_happens_to_its_file() {
    for count in [5, 16, 18] {
        for harm in ["zeroed", "removed", "cut", "folder removed", "last length flipped", "last offset flipped"] {
            let dir = fast_dir();
            let store = MessageStore::open(options(dir.path())).unwrap();
            put(&store, "old", count, b"");
            delete_what_is_there(&store);
            assert_eq!(range(&store, "old"), count..count);
            store.close().unwrap();
            let file = files_below(&dir.path().join("consumequeue/old/0")).pop().unwrap();
            let mut bytes = fs::read(&file).unwrap();
            let last = 20 * ((count as usize - 1) % 16);
            match harm {
                "zeroed" => bytes.fill(0),
                "last length flipped" => bytes[last + 8] ^= 0x40,
                "last offset flipped" => bytes[last + 3] ^= 1,
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
                let end = store.log_range().end.get();
                store.close().unwrap();
                assert!(dispatched_by_rocketmq(dir.path(), "old") <= end, "{count} {harm}");
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

/// A queue's end whose messages are damaged and whose entries were lost was filled up, which made RocketMQ ignore new messages.
#[test]
fn what_keeps_the_end_of_a_queue_hides_nothing_from_rocketmq() {
    for (has_two_files, whole) in [(false, 4), (true, 4), (false, 0), (true, 0)] {
        let dir = fast_dir();
        let open = |recovery| MessageStore::open(options(dir.path()).recovery(recovery)).unwrap();
        let store = open(RecoveryMode::Refuse);
        put(&store, "t", whole, b"");
        let lost: Vec<_> = (0..3).map(|_| store.put(Message::new("t")).unwrap()).collect();
        put(&store, "fill", if has_two_files { 20 } else { 1 }, &[7; 1000]);
        let end = store.log_range().end.get();
        store.close().unwrap();
        lost.iter().for_each(|lost| flip(&first_file(dir.path()), lost.log_offset.get() + 4));
        fs::remove_file(dir.path().join("consumequeue/t/0/00000000000000000000")).unwrap();
        for recovery in [RecoveryMode::Salvage, RecoveryMode::Refuse, RecoveryMode::ReadOnly] {
            let store = open(recovery);
            assert_eq!(store.recovery_report().queues_compared > 0, recovery == RecoveryMode::Salvage);
            assert_eq!(range(&store, "t"), if whole > 0 { 0 } else { 3 }..whole + 3, "{recovery:?}");
            store.close().unwrap();
            assert!(dispatched_by_rocketmq(dir.path(), "t") <= end);
        }
        let store = open(RecoveryMode::Refuse);
        put(&store, "t", 1, b"next");
        assert_eq!(offsets(&store, "t"), (0..whole).chain([whole + 3]).collect::<Vec<_>>());
        store.close().unwrap();
        let store = open(RecoveryMode::Refuse);
        assert_eq!(store.recovery_report().queues_compared, 0);
        assert_eq!(offsets(&store, "t"), (0..whole).chain([whole + 3]).collect::<Vec<_>>());
        assert_eq!(store.verify().unwrap().damages.len(), 1);
    }
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
        shorten(&file, cut);
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

/// The log file that has the places up to the length of a file.
fn first_file(root: &Path) -> PathBuf {
    root.join("commitlog/00000000000000000000")
}

fn records(store: &MessageStore) -> Vec<MessageView> {
    let items = store.scan(LogOffset::ZERO).filter_map(|item| match item.unwrap() {
        ScanItem::Record(record) => Some(record),
        ScanItem::Blank(_) => None,
        ScanItem::Damaged(damage) => panic!("{damage}"),
    });
    items.collect()
}

/// An older watermark was believed when it said that there is nothing behind a place in the log's file. Of what was cut
/// before that place all behind it stayed: it was not kept aside, and came back when the log had grown up to it.
#[test]
fn what_was_cut_does_not_come_back_behind_the_blocks_of_an_older_watermark() {
    let dir = fast_dir();
    let open = || MessageStore::open(options(dir.path()).log_file_bytes(4 << 20)).unwrap();
    let put = |store: &MessageStore, body: &[u8]| store.put(Message::new("t").body(&body.repeat(1000))).unwrap();
    let store = open();
    let mut puts: Vec<_> = (0..100).map(|_| put(&store, b"old ")).collect();
    store.flush().unwrap();
    let older = fs::read(dir.path().join("mqlog/watermark")).unwrap();
    puts.extend((100..600).map(|_| put(&store, b"old ")));
    store.close().unwrap();
    fs::write(dir.path().join("mqlog/watermark"), older).unwrap();
    // The last frame of queues and index would say how far the log was durable.
    fs::remove_file(dir.path().join("mqlog/derived")).unwrap();
    flip(&first_file(dir.path()), puts[150].log_offset.get() + 200);

    let store = open();
    assert_eq!(records(&store).len(), 150);
    assert_eq!(store.recovery_report().torn, Some(puts[150].log_offset..puts[599].end()));
    let kept: u64 =
        files_below(&dir.path().join("mqlog/cut")).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(kept, puts[599].end() - puts[150].log_offset);
    // Up to where the blocks of the older watermark ended, and beyond.
    (0..300).for_each(|_| _ = put(&store, b"new "));
    store.close().unwrap();
    let store = open();
    let found = records(&store);
    assert_eq!(found.len(), 450);
    assert!(found[150..].iter().all(|record| record.body().starts_with(b"new ")));
    assert_eq!(store.verify().unwrap().damages, []);
}

/// A backup was restored and the store went on differently, when `derived` of its first life came back. It was believed
/// wherever the log reached as far: messages of the second life were in no queue, the queues had entries for messages
/// that were never there, and offsets were given out again. Now a frame names the last record below it.
#[test]
fn a_checkpoint_of_another_life_of_the_store_counts_as_missing() {
    for end in [End::Closed, End::Killed] {
        let dir = fast_dir();
        let root = dir.path().join("store");
        let open = |root: &Path| MessageStore::open(options(root)).unwrap();
        let put = |store: &MessageStore, queue: i32, count: u64| {
            for number in 0..count {
                let body = format!("queue {queue}, message {number}").into_bytes();
                store.put(Message::new("t").queue(queue).key("k").owned_body(body)).unwrap();
            }
        };
        let store = open(&root);
        put(&store, 0, 10);
        put(&store, 1, 1);
        store.close().unwrap();
        copy_dir(&root, &dir.path().join("backup"));
        let store = open(&root);
        put(&store, 1, 10);
        store.close().unwrap();
        copy_file(&root.join("mqlog/derived"), &dir.path().join("derived"));

        fs::remove_dir_all(&root).unwrap();
        copy_dir(&dir.path().join("backup"), &root);
        let store = open(&root);
        put(&store, 0, 10);
        let mut content = check_content(&store);
        store.flush().unwrap();
        let patient = killed(&root, dir.path());
        if end == End::Closed {
            store.close().unwrap();
            fs::remove_dir_all(&patient).unwrap();
            copy_dir(&root, &patient);
        }
        copy_file(&dir.path().join("derived"), &patient.join("mqlog/derived"));
        for _ in 0..2 {
            let store = open(&patient);
            assert!(check_store(&store) == content, "{end:?}");
            assert_eq!(store.put(Message::new("t")).unwrap().queue_offset, QueueOffset::new(content_end(&content)));
            content = check_content(&store);
            store.close().unwrap();
        }
    }
}

/// The end of queue 0 of topic `t`.
fn content_end(content: &Content) -> u64 {
    content.queues[&("t".to_owned(), 0)].last().map_or(0, |last| last.0 + u64::from(last.1))
}

/// Where the watermark was lost, `format` alone decided since when records have a CRC. An older copy of it made what a
/// session without CRC had written look torn, and it was cut; where another session followed, the store was refused.
#[test]
fn an_older_format_asks_for_no_checksums_where_the_watermark_is_lost() {
    for harm in ["removed", "emptied", "zeroed"] {
        for sessions in [&[false][..], &[false, true]] {
            let dir = fast_dir();
            let open = |crc| MessageStore::open(options(dir.path()).record_crc(crc)).unwrap();
            let session = |crc| {
                let store = open(crc);
                put(&store, "t", 10, b"body");
                store.close().unwrap();
            };
            session(true);
            let older = fs::read(dir.path().join("mqlog/format")).unwrap();
            sessions.iter().for_each(|crc| session(*crc));
            let count = 10 + 10 * sessions.len() as u64;
            fs::write(dir.path().join("mqlog/format"), older).unwrap();
            let watermark = dir.path().join("mqlog/watermark");
            match harm {
                "removed" => fs::remove_file(watermark).unwrap(),
                "emptied" => fs::write(watermark, "").unwrap(),
                _ => fs::write(&watermark, vec![0; fs::read(&watermark).unwrap().len()]).unwrap(),
            }
            for crc in [false, true] {
                let store = open(crc);
                assert_eq!(store.recovery_report().torn, None, "{harm} {sessions:?}");
                assert_eq!(offsets(&store, "t"), (0..count).collect::<Vec<_>>(), "{harm} {sessions:?}");
                assert_eq!(store.verify().unwrap().damages, [], "{harm} {sessions:?}");
                store.close().unwrap();
            }
        }
    }
}

/// A copy of the watermark from the first of two sessions, put into the store that the second one closed.
fn with_older_watermark(root: &Path) -> Vec<Appended> {
    let session = |count| -> Vec<Appended> {
        let store = MessageStore::open(options(root)).unwrap();
        let puts = (0..count).map(|_| store.put(Message::new("t").key("k").body(&[7; 100])).unwrap()).collect();
        store.close().unwrap();
        puts
    };
    let first = session(5);
    let older = fs::read(root.join("mqlog/watermark")).unwrap();
    let puts = [first, session(50)].concat();
    fs::write(root.join("mqlog/watermark"), older).unwrap();
    puts
}

#[test]
fn an_older_watermark_alone_takes_nothing_away() {
    let dir = fast_dir();
    with_older_watermark(dir.path());
    for _ in 0..2 {
        let store = MessageStore::open(options(dir.path())).unwrap();
        assert_eq!(store.recovery_report().torn, None);
        assert_eq!(check_store(&store).records.len(), 55);
        store.close().unwrap();
    }
}

/// A watermark from before the last session was believed against the checkpoint, which knew that the log had been durable
/// much further. One damaged record between the two had all behind it cut, if it was the last one even after that.
#[test]
fn behind_an_older_watermark_one_damaged_record_costs_no_other() {
    (0..55).skip(10).step_by(11).for_each(behind_an_older_watermark_a_damaged_record_costs_no_other);
}

fn behind_an_older_watermark_a_damaged_record_costs_no_other(index: usize) {
    let dir = fast_dir();
    let puts = with_older_watermark(dir.path());
    flip(&first_file(dir.path()), puts[index].log_offset.get() + 100);
    let damaged = puts[index].log_offset.get()..puts[index].end().get();
    let check = |store: &MessageStore| {
        assert_eq!(store.recovery_report().torn, None);
        let items: Vec<_> = store.scan(LogOffset::ZERO).map(Result::unwrap).collect();
        assert_eq!(items.len(), 55);
        assert!(matches!(&items[index], ScanItem::Damaged(damage) if damage.range == damaged), "{:?}", items[index]);
        assert!([&items[..index], &items[index + 1..]].concat().iter().all(|item| matches!(item, ScanItem::Record(_))));
        assert_eq!(files_below(&dir.path().join("mqlog/cut")), [] as [PathBuf; 0]);
    };
    for recovery in [RecoveryMode::ReadOnly, RecoveryMode::Salvage] {
        let store = MessageStore::open(options(dir.path()).recovery(recovery)).unwrap();
        check(&store);
        store.close().unwrap();
    }
    check(&MessageStore::open(options(dir.path())).unwrap());
}

/// A log file that was deleted and then copied back was in the log again, but its messages were in no queue, and `verify`
/// called that damage at each opening.
#[test]
fn a_deleted_log_file_that_is_put_back_is_in_the_queues_again() {
    for end in [End::Closed, End::Killed] {
        let dir = fast_dir();
        let mut root = dir.path().join("store");
        let store = MessageStore::open(options(&root)).unwrap();
        for _ in 0..100 {
            store.put(Message::new("t").key("k").body(&[7; 400])).unwrap();
            put_inner_batch(&store, 2);
        }
        let content = check_content(&store);
        store.flush().unwrap();
        let first = fs::read(root.join("commitlog/00000000000000000000")).unwrap();
        assert!(store.delete_before(LogOffset::new(16 * 1024)).unwrap() == 1);
        assert!(range(&store, "t").start > 0);
        match end {
            End::Closed => store.close().unwrap(),
            End::Killed => root = killed(&root, dir.path()),
        }
        fs::write(root.join("commitlog/00000000000000000000"), first).unwrap();
        for _ in 0..2 {
            let store = MessageStore::open(options(&root)).unwrap();
            assert!(check_store(&store) == content, "{end:?}");
            store.close().unwrap();
        }
        assert_eq!(MessageStore::open(options(&root)).unwrap().recovery_report().queues_compared, 0);
    }
}

/// The last frame of queues and index said more than an older watermark, which was raised to it: what lay between, written by
/// a session without record CRC, was damage for every reader, since the older copies ask for one.
#[test]
fn a_watermark_that_a_frame_raises_asks_for_no_checksums_that_are_not_there() {
    for with_format in [false, true] {
        let dir = fast_dir();
        let root = dir.path().join("store");
        let session = |crc: bool, count| {
            let store = MessageStore::open(options(&root).record_crc(crc)).unwrap();
            put(&store, "t", count, b"body");
            store.close().unwrap();
        };
        session(true, 5);
        copy_dir(&root.join("mqlog"), &dir.path().join("older"));
        session(false, 10);
        session(true, 5);
        let harmed: &[&str] = if with_format { &["watermark", "format"] } else { &["watermark"] };
        harmed.iter().for_each(|name| copy_file(&dir.path().join("older").join(name), &root.join("mqlog").join(name)));
        for _ in 0..2 {
            let store = MessageStore::open(options(&root)).unwrap();
            assert_eq!(records(&store).len(), 20);
            check_store(&store);
            store.close().unwrap();
        }
    }
}

/// `format`, watermark and last frame were of a life of the store that was not this one. A salvage found that of the
/// watermark, and believed the frame because the watermark describes the same record.
#[test]
fn a_frame_is_not_believed_for_a_watermark_of_the_same_other_life() {
    let dir = fast_dir();
    let root = dir.path().join("store");
    let salvage = || MessageStore::open(options(&root).recovery(RecoveryMode::Salvage)).unwrap();
    let store = salvage();
    put(&store, "t", 10, b"");
    store.close().unwrap();
    copy_dir(&root, &dir.path().join("backup"));
    let store = salvage();
    put(&store, "other", 10, b"longer");
    store.close().unwrap();
    copy_dir(&root.join("mqlog"), &dir.path().join("notes"));
    fs::remove_dir_all(&root).unwrap();
    copy_dir(&dir.path().join("backup"), &root);
    let store = salvage();
    put(&store, "t", 20, b"");
    let content = check_content(&store);
    store.close().unwrap();
    fs::remove_dir_all(root.join("mqlog")).unwrap();
    copy_dir(&dir.path().join("notes"), &root.join("mqlog"));
    assert!(matches!(MessageStore::open(options(&root)), Err(Error::Corrupt(_))));
    let store = salvage();
    assert!(check_content(&store) == content);
    assert_eq!(store.put(Message::new("t")).unwrap().queue_offset, QueueOffset::new(30));
}

/// The record that the last frame names was damaged in a killed store: the frame was taken for one of another log, which
/// was then scanned as a whole, and refused, and the end of the record's queue was forgotten.
#[test]
fn a_damaged_record_that_a_frame_names_costs_only_itself() {
    for crc in [true, false] {
        a_damaged_record_that_a_frame_names(crc);
    }
}

fn a_damaged_record_that_a_frame_names(crc: bool) {
    let dir = fast_dir();
    let root = dir.path().join("store");
    let options = |root: &Path| options(root).record_crc(crc);
    let store = MessageStore::open(options(&root)).unwrap();
    put(&store, "a", 30, b"");
    put(&store, "b", 3, b"");
    let last = records(&store).last().map(|record| record.log_offset().get()).unwrap();
    store.close().unwrap();
    let store = MessageStore::open(options(&root)).unwrap();
    put(&store, "a", 30, b"");
    store.flush().unwrap();
    let patient = killed(&root, dir.path());
    // Without record CRC nothing but the queue knows that the record had another queue offset.
    flip(&first_file(&patient), last + 27);
    let store = MessageStore::open(options(&patient)).unwrap();
    assert_eq!(store.recovery_report().queues_compared, 0);
    let read: Vec<_> = store.queue("b", 0).iter_from(QueueOffset::ZERO).map(|message| message.is_ok()).collect();
    assert_eq!(read.iter().filter(|is_ok| **is_ok).count(), if crc { 2 } else { 3 });
    assert_eq!((range(&store, "a"), range(&store, "b").end >= 3), (0..60, true));
    assert!(store.put(Message::new("b")).unwrap().queue_offset.get() >= 3);
}

/// A queue without a message in the log, whose entries are the only ones to say where it ends: it ends behind the last one
/// that was deleted, or is damaged in the log for good, whatever stands before.
#[test]
fn the_last_message_that_was_deleted_or_is_damaged_decides_where_a_queue_ends() {
    for damaged_log in [false, true] {
        let dir = fast_dir();
        let open = || {
            let options = options(dir.path()).log_file_bytes(4096).recovery(RecoveryMode::Salvage);
            MessageStore::open(options).unwrap()
        };
        let store = open();
        put(&store, "a", 5, b"");
        put(&store, "b", 10, b"");
        let places: Vec<_> = store.queue("b", 0).entries(QueueOffset::ZERO, 10).unwrap();
        put(&store, "a", 5, b"");
        if !damaged_log {
            put(&store, "a", 100, b"");
            assert!(store.delete_before(store.flush().unwrap()).unwrap() > 0);
        }
        store.close().unwrap();
        fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
        if damaged_log {
            places.iter().for_each(|item| flip(&first_file(dir.path()), item.entry.log_offset + 70));
        } else {
            let path = dir.path().join("consumequeue/b/0/00000000000000000000");
            let mut bytes = fs::read(&path).unwrap();
            bytes[5 * 20 + 4] ^= 1;
            fs::write(path, bytes).unwrap();
        }
        let store = open();
        assert_eq!(store.put(Message::new("b")).unwrap().queue_offset.get(), 10, "{damaged_log}");
    }
}

/// A damaged message got a filler when its queue was compared with the log. RocketMQ then left out all messages behind it that lie
/// in the log's first file; and mqlog, which had named the damage before, passed over it.
#[test]
fn a_comparison_hides_neither_a_damaged_message_nor_those_behind_it() {
    for lost in [0..1, 1..2, 0..3, 2..4, 4..6, 6..7, 5..7] {
        for is_file_lost in [false, true] {
            let dir = fast_dir();
            let store = MessageStore::open(options(dir.path())).unwrap();
            let mut puts: Vec<_> = (0..6).map(|_| store.put(Message::new("t")).unwrap()).collect();
            put(&store, "fill", 20, &[7; 1000]);
            puts.push(store.put(Message::new("t")).unwrap());
            put(&store, "fill", 1, b"");
            store.close().unwrap();
            for at in puts[lost.clone()].iter().map(|put| put.log_offset.get()) {
                let file = dir.path().join(format!("commitlog/{:020}", at / 16_384 * 16_384));
                flip(&file, at % 16_384 + 4);
            }
            let queue = dir.path().join("consumequeue/t/0/00000000000000000000");
            if is_file_lost {
                fs::remove_file(&queue).unwrap();
            } else {
                // As a copy of the folder has it.
                fs::write(&queue, fs::read(&queue).unwrap()).unwrap();
            }
            let store = MessageStore::open(options(dir.path())).unwrap();
            let (report, end) = (store.recovery_report(), store.log_range().end.get());
            for lost in &puts[lost.clone()] {
                let at = lost.log_offset.get();
                assert!(report.corruptions.iter().any(|damage| damage.range.contains(&at)), "{:?}", report.corruptions);
            }
            let found: Vec<_> = store.queue("t", 0).iter_from(QueueOffset::ZERO).map(|found| found.is_ok()).collect();
            if !is_file_lost && lost.start > 0 && lost.end < 7 {
                assert_eq!(found, (0..7).map(|number| !lost.contains(&number)).collect::<Vec<_>>(), "{lost:?}");
            }
            assert_eq!(found.iter().filter(|is_ok| **is_ok).count(), 7 - lost.len(), "{lost:?}");
            assert_eq!(range(&store, "t").end, 7);
            store.close().unwrap();
            let given = read_by_rocketmq(dir.path(), "t", end);
            let whole =
                puts.iter().enumerate().filter(|(number, _)| !lost.contains(number)).map(|(_, put)| put.log_offset);
            for whole in whole {
                assert!(given.contains(&whole.get()), "{lost:?} {is_file_lost}: {whole} of {given:?}");
            }
            assert!(dispatched_by_rocketmq(dir.path(), "t") <= end);
            check_order_for_rocketmq(dir.path(), "t");
        }
    }
}

/// A flipped bit in a filler of mqlog's own: it still looked like one, and RocketMQ ended the queue there.
#[test]
fn a_damaged_filler_is_written_anew() {
    let dir = fast_dir();
    let open = || MessageStore::open(options(dir.path())).unwrap();
    let store = open();
    put(&store, "t", 5, b"");
    delete_what_is_there(&store);
    store.close().unwrap();
    let queue = dir.path().join("consumequeue/t/0/00000000000000000000");
    fs::remove_file(&queue).unwrap();
    let store = open();
    put(&store, "t", 3, b"");
    store.close().unwrap();
    let whole = fs::read(&queue).unwrap();
    for at in (0..5 * 20).filter(|at| at % 20 < 12) {
        for bit in 0..8 {
            flip_bit(&queue, at, bit);
            let store = open();
            let end = store.log_range().end.get();
            assert_eq!((range(&store, "t"), offsets(&store, "t")), (5..8, vec![5, 6, 7]), "byte {at} bit {bit}");
            store.close().unwrap();
            for entry in fs::read(&queue).unwrap()[..100].chunks(20) {
                let entry = QueueEntry::decode(entry).unwrap().unwrap();
                let is_rocketmqs = entry.encode() == QueueEntry::FILLER;
                assert!(
                    is_rocketmqs || entry.log_offset + u64::from(entry.record_bytes) <= end,
                    "{at} {bit} {entry:?}"
                );
            }
            fs::write(&queue, &whole).unwrap();
        }
    }
}

fn flip_bit(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// The front of a queue was fillers, and an older checkpoint of a killed store said that it begins there.
#[test]
fn a_queue_begins_with_a_message_whatever_an_older_checkpoint_says() {
    let dir = fast_dir();
    let options = || options(dir.path()).drive(Drive::Manual);
    let store = MessageStore::open(options()).unwrap();
    put(&store, "t", 5, b"");
    store.close().unwrap();
    let older = fs::read(dir.path().join("mqlog/derived")).unwrap();
    let store = MessageStore::open(options()).unwrap();
    delete_what_is_there(&store);
    store.close().unwrap();
    fs::remove_file(dir.path().join("consumequeue/t/0/00000000000000000000")).unwrap();
    let store = MessageStore::open(options()).unwrap();
    put(&store, "t", 3, b"");
    store.flush().unwrap();
    store.topics().unwrap();
    let copy = fast_dir();
    let root = killed(dir.path(), copy.path());
    fs::write(root.join("mqlog/derived"), older).unwrap();
    let store = MessageStore::open(stores::options(&root)).unwrap();
    assert_eq!((range(&store, "t"), offsets(&store, "t")), (5..8, vec![5, 6, 7]));
}

/// What stood for lost messages at a queue's end was cleared when nothing but its file knew of them.
#[test]
fn fillers_at_the_end_of_a_queue_say_where_it_ends() {
    let dir = fast_dir();
    let open = |recovery| MessageStore::open(options(dir.path()).recovery(recovery)).unwrap();
    let store = open(RecoveryMode::Refuse);
    let puts: Vec<_> = (0..8).map(|_| store.put(Message::new("t")).unwrap()).collect();
    put(&store, "other", 1, b"");
    store.close().unwrap();
    puts[6..].iter().for_each(|put| flip(&first_file(dir.path()), put.log_offset.get() + 4));
    fs::remove_file(dir.path().join("consumequeue/t/0/00000000000000000000")).unwrap();
    open(RecoveryMode::Salvage).close().unwrap();
    for lost in ["mqlog/derived", "mqlog/format", "mqlog"] {
        let lost = dir.path().join(lost);
        let removed = if lost.is_dir() { fs::remove_dir_all(lost) } else { fs::remove_file(lost) };
        removed.unwrap();
        let store = open(RecoveryMode::Salvage);
        assert_eq!((range(&store, "t"), offsets(&store, "t")), (0..8, (0..6).collect()));
        store.close().unwrap();
    }
}

/// All messages of a queue were damaged, in a log of one file, and the queue's last file lost: it was compared at each opening.
#[test]
fn a_queue_of_damaged_messages_alone_is_compared_once() {
    let dir = fast_dir();
    let open = || MessageStore::open(options(dir.path())).unwrap();
    let store = open();
    let puts: Vec<_> = (0..20).map(|_| store.put(Message::new("t")).unwrap()).collect();
    put(&store, "other", 1, b"");
    store.close().unwrap();
    puts.iter().for_each(|put| flip(&first_file(dir.path()), put.log_offset.get() + 4));
    fs::remove_file(files_below(&dir.path().join("consumequeue/t/0")).pop().unwrap()).unwrap();
    for compared in [1, 0] {
        let store = open();
        assert_eq!((range(&store, "t"), store.recovery_report().queues_compared), (20..20, compared));
        let end = store.log_range().end.get();
        store.close().unwrap();
        assert!(dispatched_by_rocketmq(dir.path(), "t") <= end);
    }
    assert_eq!(open().put(Message::new("t")).unwrap().queue_offset.get(), 20);
}
