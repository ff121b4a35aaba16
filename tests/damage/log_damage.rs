//! Damage of the log that is met when a message is read.
//!
//! A reader that met a damaged record once took the queue's entry for the wrong one: the queue was built anew without
//! it, and the message was skipped without a word. Now the scan of the record's file decides which of the two is wrong.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mqlog::format::record::{RecordView, place, seal};
use mqlog::{
    Appended, Clock, CommitLog, Drive, Error, GetLimits, LogOffset, Message, MessageStore, MessageView, QueueOffset,
    RecoveryMode, ScanItem, StoreOptions, TagFilter, TimeBound,
};

use crate::common::{copy_dir, fast_dir};
use crate::stores::options;
use crate::{flip, shorten};

#[test]
fn a_damaged_record_is_an_error_for_its_message_and_for_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(64 * 1024);
    let store = MessageStore::open(options()).unwrap();
    let puts: Vec<_> = (0..10).map(|n| store.put(Message::new("t").owned_body(vec![n; 100])).unwrap()).collect();
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[puts[4].log_offset.get() as usize + 100] ^= 1;
    fs::write(&path, bytes).unwrap();

    for _ in 0..2 {
        let store = MessageStore::open(options()).unwrap();
        let from = puts[4].queue_offset;
        let got = store.get("t", 0, from, GetLimits::default(), &TagFilter::all());
        let Err(Error::Corrupt(damage)) = got else { panic!("{got:?}") };
        assert_eq!(damage.range, puts[4].log_offset.get()..puts[5].log_offset.get());
        let before = store.get("t", 0, QueueOffset::ZERO, GetLimits::default(), &TagFilter::all()).unwrap();
        assert_eq!((before.messages.len(), before.next), (4, from));
        let items: Vec<_> = store.queue("t", 0).iter_from(QueueOffset::ZERO).collect();
        let failed: Vec<_> = items.iter().enumerate().filter(|(_, item)| item.is_err()).map(|(at, _)| at).collect();
        assert_eq!((items.len(), failed), (10, vec![4]));
        assert_eq!(store.stats().rebuilt_queues, 0, "nothing is wrong with the queue");
        store.close().unwrap();
    }
}

/// A query once left out what was damaged without a word, where `get` and the iterator had an error for it.
#[test]
fn a_damaged_record_is_an_error_for_who_asks_for_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(64 * 1024);
    let store = MessageStore::open(options()).unwrap();
    let puts: Vec<_> = (0..3).map(|_| store.put(Message::new("t").key("k").body(&[7; 100])).unwrap()).collect();
    store.close().unwrap();
    flip(&dir.path().join("commitlog/00000000000000000000"), puts[1].log_offset.get() + 100);
    let store = MessageStore::open(options()).unwrap();
    let found: Vec<_> = store.query("t", "k", ..).unwrap().collect();
    assert_eq!(found.len(), 3);
    assert!(found[0].is_ok() && found[2].is_ok());
    let Err(Error::Corrupt(damage)) = &found[1] else { panic!("{found:?}") };
    assert_eq!(damage.range, puts[1].log_offset.get()..puts[2].log_offset.get());
}

/// A file whose first record was damaged once counted as one without a time, and nothing behind it was ever deleted.
#[test]
fn a_damaged_record_keeps_no_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(4096);
    let store = MessageStore::open(options()).unwrap();
    for _ in 0..40 {
        store.put(Message::new("t").body(&[7; 800])).unwrap();
    }
    store.close().unwrap();
    flip(&dir.path().join(format!("commitlog/{:020}", 2 * 4096)), 100);
    let store = MessageStore::open(options()).unwrap();
    let files = store.log_range().end.get().div_ceil(4096);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(store.delete_older_than(std::time::Duration::from_millis(1)).unwrap(), files - 1);
    assert_eq!(store.log_range().start.get(), (files - 1) * 4096);
}

/// Found by fuzzing. A salvage filled a file that ended within a record with zeros, and nobody knew that records have a
/// CRC: the record was damaged in that session, and whole with shorter properties in the next.
#[test]
fn a_record_that_lost_its_end_stays_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let options = |root: &Path| StoreOptions::new(root).log_file_bytes(4096).recovery(RecoveryMode::Salvage);
    let store = MessageStore::open(options(&dir.path().join("whole"))).unwrap();
    for number in 0..40 {
        store.put(Message::new("t").key(format!("key-{number}")).property("a", "property").body(&[7; 200])).unwrap();
    }
    let record = store.read(LogOffset::ZERO).unwrap();
    store.close().unwrap();
    let properties = record.properties().as_bytes().len();
    for lost in 1..=properties {
        let root = dir.path().join(lost.to_string());
        copy_dir(&dir.path().join("whole"), &root);
        fs::remove_dir_all(root.join("mqlog")).unwrap();
        fs::write(root.join("lock"), b"else").unwrap();
        shorten(&root.join("commitlog/00000000000000000000"), (record.bytes().len() - lost) as u64);
        for _ in 0..3 {
            let store = MessageStore::open(options(&root)).unwrap();
            let first = store.scan(LogOffset::ZERO).next().unwrap().unwrap();
            assert!(matches!(first, ScanItem::Damaged(_)), "{lost} bytes lost: {first:?}");
            assert!(store.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_)))).count() > 20);
            store.close().unwrap();
        }
    }
}

/// What a short file had cut from a record with record CRC was damage only where the CRC was asked for. A session that asked
/// for none showed the record as a whole one, with zeros at the end of its last property.
#[test]
fn a_record_that_lost_its_end_stays_damaged_where_no_checksum_is_asked_for() {
    for crc_of_the_salvage in [true, false] {
        let dir = fast_dir();
        let options = |crc| StoreOptions::new(dir.path()).log_file_bytes(4096).record_crc(crc);
        let store = MessageStore::open(options(true)).unwrap();
        let put = |_| store.put(Message::new("t").property("amount", "1000000").body(b"body")).unwrap();
        let puts: Vec<_> = (0..40).map(put).collect();
        store.close().unwrap();
        // All of the CRC, and some zeros of the amount.
        shorten(&dir.path().join("commitlog/00000000000000000000"), puts[5].end().get() - 20 - 4);
        for (crc, recovery) in [
            (crc_of_the_salvage, RecoveryMode::Salvage),
            (false, RecoveryMode::Refuse),
            (false, RecoveryMode::ReadOnly),
            (false, RecoveryMode::Refuse),
        ] {
            let store = MessageStore::open(options(crc).recovery(recovery)).unwrap();
            let read = store.read(puts[5].log_offset);
            assert!(matches!(&read, Err(Error::Corrupt(_))), "{recovery:?}: {read:?}");
            let item = store.scan(LogOffset::ZERO).nth(5).unwrap().unwrap();
            let damaged = puts[5].log_offset.get()..4096;
            assert!(matches!(&item, ScanItem::Damaged(damage) if damage.range == damaged), "{recovery:?}: {item:?}");
            store.close().unwrap();
        }
    }
}

/// Of a store that says nothing of how far its log was durable, as RocketMQ's do, a record without record CRC that a short
/// file had cut was damage in the session of the salvage only. In all later ones it was a whole record with zeros at the
/// end of its last property.
#[test]
fn a_record_of_another_programs_store_that_lost_its_end_stays_damaged() {
    for is_foreign in [true, false] {
        let dir = fast_dir();
        let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).record_crc(false);
        let store = MessageStore::open(options()).unwrap();
        let put = |_| store.put(Message::new("t").property("amount", "1000000").body(b"body")).unwrap();
        let puts: Vec<_> = (0..60).map(put).collect();
        store.close().unwrap();
        fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
        if is_foreign {
            fs::write(dir.path().join("lock"), b"lock").unwrap();
        }
        shorten(&dir.path().join("commitlog/00000000000000000000"), puts[5].end().get() - 5);
        let whole = puts.iter().filter(|put| put.log_offset.get() >= 4096).count() + 5;
        for recovery in [RecoveryMode::ReadOnly, RecoveryMode::Salvage, RecoveryMode::Refuse, RecoveryMode::Refuse] {
            let store = MessageStore::open(options().recovery(recovery)).unwrap();
            let read = store.read(puts[5].log_offset);
            let damaged = puts[5].log_offset.get()..4096;
            assert!(matches!(&read, Err(Error::Corrupt(damage)) if damage.range == damaged), "{recovery:?}: {read:?}");
            let records = store.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_)))).count();
            assert_eq!(records, whole, "{recovery:?}");
            store.close().unwrap();
        }
    }
}

/// Who read a damaged record by its place in the log, or by its id, was told of 8 damaged bytes, where everybody else named
/// the whole range.
#[test]
fn damage_has_one_range_however_it_is_met() {
    let dir = fast_dir();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(64 * 1024);
    let store = MessageStore::open(options()).unwrap();
    let puts: Vec<_> = (0..30).map(|_| store.put(Message::new("t").key("k").body(&[7; 100])).unwrap()).collect();
    let ids: Vec<_> = puts.iter().map(|put| store.read(put.log_offset).unwrap().message_id()).collect();
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    (10..20).for_each(|lost| flip(&path, puts[lost].log_offset.get() + 100));
    let damaged = puts[10].log_offset.get()..puts[20].log_offset.get();
    let check = |read: mqlog::Result<MessageView>| {
        assert!(matches!(&read, Err(Error::Corrupt(damage)) if damage.range == damaged), "{read:?}");
    };
    let store = MessageStore::open(options()).unwrap();
    for lost in 10..20 {
        check(store.read(puts[lost].log_offset));
        check(store.read_by_id(&ids[lost]));
    }
    store.queue("t", 0).iter_from(QueueOffset::new(10)).take(10).for_each(check);
    store.query("t", "k", ..).unwrap().skip(10).take(10).for_each(check);
    store.close().unwrap();
    check(CommitLog::open(dir.path(), 64 * 1024).unwrap().read(puts[15].log_offset));
}

#[test]
fn a_rebuild_that_is_stopped_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(1 << 20).checkpoint_bytes(1 << 20);
    let store = MessageStore::open(options()).unwrap();
    for n in 0..40_000 {
        let topic = ["early", "both", "late"][usize::from(n > 10_000) + usize::from(n > 30_000)];
        store.put(Message::new(topic).key(n.to_string()).owned_body(vec![b'b'; 100])).unwrap();
    }
    let end = store.log_range().end;
    store.close().unwrap();
    fs::remove_dir_all(dir.path().join("mqlog")).unwrap();

    let stopped = options().on_progress(move |at, _| assert!(at.get() < end.get() / 2, "stopped on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(|| MessageStore::open(stopped))).is_err());

    let store = MessageStore::open(options()).unwrap();
    let report = store.recovery_report();
    assert!(!report.foreign_writer && !report.index_rebuilt, "{report:?}");
    assert_eq!(report.queues_compared, 0, "what the stopped rebuild had done is believed");
    let counts = ["early", "both", "late"].map(|topic| store.queue(topic, 0).iter_from(QueueOffset::ZERO).count());
    assert_eq!(counts, [10_001, 20_000, 9_999]);
    assert_eq!(store.verify().unwrap().damages, []);
    store.close().unwrap();
}

/// A salvage of a store whose log had lost its end went on at the end of what was left, but took the lost range for
/// damaged as long as the store was open: what was put there could not be read back. Now the lost range is in the report
/// only. Found by fuzzing.
#[test]
fn what_is_put_in_the_place_of_a_lost_end_of_the_log_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(64 * 1024).recovery(RecoveryMode::Salvage);
    let store = MessageStore::open(options()).unwrap();
    for _ in 0..10 {
        store.put(Message::new("t")).unwrap();
    }
    let end = store.log_range().end;
    store.close().unwrap();
    fs::remove_dir_all(dir.path().join("commitlog")).unwrap();

    let store = MessageStore::open(options()).unwrap();
    assert_eq!(store.recovery_report().corruptions[0].range, 0..end.get());
    let put = store.put(Message::new("t").body(b"new")).unwrap();
    assert_eq!(put.log_offset, LogOffset::ZERO);
    assert_eq!(store.read(put.log_offset).unwrap().body(), b"new");
    assert_eq!(store.scan(LogOffset::ZERO).count(), 1);
}

/// A record with the largest queue offset there is once led to a panic under the log's lock when the next message of its
/// queue got its number, and the store took nothing more. Now that queue refuses messages, and the others go on. Found by
/// fuzzing.
#[test]
fn a_queue_whose_numbers_are_at_their_end_takes_no_more_and_the_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(64 * 1024);
    let store = MessageStore::open(options()).unwrap();
    let put = store.put(Message::new("t")).unwrap();
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = fs::read(&path).unwrap();
    let record = &mut bytes[..put.record_bytes as usize];
    let store_ms = RecordView::decode(record).unwrap().store_ms();
    place(record, QueueOffset::MAX.get(), 0, store_ms);
    seal(record);
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(dir.path().join("mqlog")).unwrap();

    let store = MessageStore::open(options()).unwrap();
    let refused = store.put(Message::new("t"));
    assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{refused:?}");
    assert_eq!(store.put(Message::new("other")).unwrap().queue_offset, QueueOffset::ZERO);
    store.close().unwrap();
}

/// RocketMQ's records have no checksum over their queue offset. One with a flipped bit there, that its queue refused, still
/// decided the offset of the next put: the put was acknowledged, and no reader ever saw the message.
#[test]
fn a_queue_offset_far_from_the_others_does_not_move_the_queue() {
    for bit in [21, 22, 40, 61] {
        for with_mqlog in [false, true] {
            let base = fast_dir();
            let root = base.path().join("store");
            let open = || MessageStore::open(options(&root).record_crc(false).drive(Drive::Manual)).unwrap();
            let store = open();
            let puts: Vec<_> = (0..20).map(|_| store.put(Message::new("t").body(b"body")).unwrap()).collect();
            let killed = base.path().join("killed");
            copy_dir(&root, &killed);
            drop(store);
            fs::remove_dir_all(&root).unwrap();
            fs::rename(&killed, &root).unwrap();
            if !with_mqlog {
                fs::remove_dir_all(root.join("mqlog")).unwrap();
            }
            let at = puts[10].log_offset.get() as usize;
            let path = root.join("commitlog/00000000000000000000");
            let mut log = fs::read(&path).unwrap();
            let offset = u64::from_be_bytes(*log[at + 20..].first_chunk().unwrap()) ^ 1 << bit;
            log[at + 20..at + 28].copy_from_slice(&offset.to_be_bytes());
            fs::write(path, log).unwrap();
            for _ in 0..2 {
                let store = open();
                let put = store.put(Message::new("t").body(b"later")).unwrap();
                let found = store.queue("t", 0).iter_from(put.queue_offset).next().expect("the message is there");
                assert_eq!(found.unwrap().log_offset(), put.log_offset, "bit {bit}");
                assert!(put.queue_offset.get() < 30, "{put:?}");
                store.close().unwrap();
            }
        }
    }
}

/// A record behind lost ones leaves a gap in its queue, and how far the queue may go on is told by its last entry. Where that
/// one was damaged, dispatch ended in an error: the store did not open, although reading the entry would have had the
/// queue built anew. Now a damaged entry says nothing of the gap. Found by fuzzing.
#[test]
fn a_damaged_entry_before_a_gap_does_not_stop_dispatch() {
    for byte in [0, 0xFF] {
        let dir = fast_dir();
        let (root, killed) = (dir.path().join("store"), dir.path().join("killed"));
        let open = |root: &Path| {
            let options = options(root).drive(Drive::Manual).recovery(RecoveryMode::Salvage);
            MessageStore::open(options).unwrap()
        };
        let put = |store: &MessageStore| store.put(Message::new("t").body(b"body")).unwrap();
        let store = open(&root);
        for _ in 0..5 {
            put(&store);
        }
        store.close().unwrap();
        let store = open(&root);
        let puts: Vec<_> = (0..5).map(|_| put(&store)).collect();
        store.flush().unwrap();
        copy_dir(&root, &killed);
        // The checkpoint ends with an entry that is damaged, and behind it two records are lost.
        let path = killed.join("consumequeue/t/0/00000000000000000000");
        let mut entries = fs::read(&path).unwrap();
        entries[4 * 20..5 * 20].fill(byte);
        fs::write(path, entries).unwrap();
        let path = killed.join("commitlog/00000000000000000000");
        let mut log = fs::read(&path).unwrap();
        puts[..2].iter().for_each(|lost| log[lost.log_offset.get() as usize + 4..][..4].fill(9));
        fs::write(path, log).unwrap();

        let store = open(&killed);
        let new = put(&store);
        assert_eq!(new.queue_offset.get(), 10);
        let read = store.queue("t", 0).iter_from(QueueOffset::ZERO);
        let read: Vec<_> = read.map(|message| message.unwrap().queue_offset().get()).collect();
        assert_eq!(read, [0, 1, 2, 3, 4, 7, 8, 9, 10]);
        store.close().unwrap();
        assert_eq!(open(&killed).recovery_report().queues_repaired, []);
    }
}

/// The same where the queue offset goes a little too far, in the first record that no checkpoint covers: what the opening
/// thought of it was not what dispatch made of it later.
#[test]
fn a_queue_offset_a_little_ahead_does_not_move_the_queue_away() {
    for bit in 0..8 {
        let base = fast_dir();
        let root = base.path().join("store");
        let open = |root: &Path| MessageStore::open(options(root).record_crc(false).drive(Drive::Manual)).unwrap();
        let store = open(&root);
        for _ in 0..64 {
            store.put(Message::new("t")).unwrap();
            store.put(Message::new("u").body(&[1; 500])).unwrap();
        }
        store.close().unwrap();
        let store = open(&root);
        let puts: Vec<_> = (0..3).map(|_| store.put(Message::new("t").body(b"z")).unwrap()).collect();
        store.flush().unwrap();
        let killed = base.path().join("killed");
        copy_dir(&root, &killed);
        let (at, file_bytes) = (puts[0].log_offset.get(), store.log_file_bytes());
        let path = killed.join(format!("commitlog/{:020}", at / file_bytes * file_bytes));
        let mut log = fs::read(&path).unwrap();
        let offset = &mut log[(at % file_bytes) as usize + 20..][..8];
        offset[7] ^= 1 << bit;
        fs::write(path, log).unwrap();
        let again = open(&killed);
        for _ in 0..4 {
            let put = again.put(Message::new("t").body(b"later")).unwrap();
            let found = again.queue("t", 0).iter_from(put.queue_offset).next().expect("the message is there");
            assert_eq!(found.unwrap().log_offset(), put.log_offset, "bit {bit}");
        }
    }
}

/// Each entry whose record was damaged had its file walked through from the beginning: `verify` took hours.
#[test]
fn a_log_that_is_mostly_damaged_is_walked_once() {
    let dir = fast_dir();
    let open = || MessageStore::open(StoreOptions::new(dir.path())).unwrap();
    let store = open();
    let batch: Vec<_> = (0..1000).map(|_| Message::new("t").body(&[7; 900])).collect();
    let puts: Vec<_> = (0..60).flat_map(|_| store.put_batch(&batch).unwrap()).collect();
    store.close().unwrap();
    let (first, last) = (&puts[3], &puts[puts.len() - 3]);
    let path = dir.path().join("commitlog/00000000000000000000");
    let range = first.log_offset.get()..last.log_offset.get();
    let mut bytes = fs::read(&path).unwrap();
    // A length and a magic number, over and over.
    for piece in bytes[range.start as usize..range.end as usize].chunks_mut(8) {
        piece.copy_from_slice(&[0, 0, 0xEA, 0x60, 0xDA, 0xA3, 0x20, 0xA7][..piece.len()]);
    }
    fs::write(&path, bytes).unwrap();
    let report = open().verify().unwrap();
    assert_eq!(report.records, 6);
    assert_eq!(report.damages.iter().map(|damage| damage.range.clone()).collect::<Vec<_>>(), [range]);
    let store = open();
    let read = store.queue("t", 0).iter_from(QueueOffset::ZERO);
    let (whole, damaged): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
    assert_eq!((whole.len(), damaged.len()), (6, puts.len() - 6));
}

/// Without record CRC only the watermark knew that the last record had been changed, and it moved on with the salvage: the
/// next session showed the record as a good one, which its queue had never heard of.
#[test]
fn what_the_watermark_knew_to_be_changed_stays_damaged_after_a_salvage() {
    let dir = fast_dir();
    let options = || StoreOptions::new(dir.path()).record_crc(false);
    let store = MessageStore::open(options()).unwrap();
    let puts: Vec<_> = (0..3).map(|_| store.put(Message::new("t").tags("tag").body(b"body")).unwrap()).collect();
    store.close().unwrap();
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = fs::read(&path).unwrap();
    let at = usize::try_from(puts[2].end().get()).unwrap() - 2;
    assert_eq!(bytes[at], b'g');
    bytes[at] = b'G';
    fs::write(&path, bytes).unwrap();
    let changed = puts[2].log_offset.get()..puts[2].end().get();
    let error = MessageStore::open(options()).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Corrupt(damage) if damage.range == changed), "{error}");
    MessageStore::open(options().recovery(RecoveryMode::Salvage)).unwrap().close().unwrap();
    for session in 0..3 {
        let store = MessageStore::open(options()).unwrap();
        assert!(matches!(store.read(puts[2].log_offset), Err(Error::Corrupt(damage)) if damage.range == changed));
        let damages = store.verify().unwrap().damages;
        assert_eq!(
            damages.iter().map(|damage| damage.range.clone()).collect::<Vec<_>>(),
            std::slice::from_ref(&changed)
        );
        let read: Vec<_> = store.queue("t", 0).iter_from(QueueOffset::ZERO).map(|message| message.is_ok()).collect();
        assert_eq!(read, [vec![true, true, false], vec![true; session]].concat());
        store.put(Message::new("t").body(b"new")).unwrap();
        store.close().unwrap();
    }
}

/// What a salvage had noted of the last record outlived it: when the log's end was lost, and with it the record, messages
/// that were acknowledged at those offsets later were shown as damage.
#[test]
fn what_a_salvage_noted_is_forgotten_where_appends_use_the_offsets_anew() {
    for all_is_lost in [true, false] {
        let dir = fast_dir();
        let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).record_crc(false);
        let salvage = || MessageStore::open(options().recovery(RecoveryMode::Salvage)).unwrap();
        let put = |store: &MessageStore| -> Vec<Appended> {
            (0..70).map(|number| store.put(Message::new("t").body(&vec![b'b'; 50 + number])).unwrap()).collect()
        };
        let store = MessageStore::open(options()).unwrap();
        let last = put(&store).pop().unwrap().log_offset.get();
        store.close().unwrap();
        let path = dir.path().join(format!("commitlog/{:020}", last / 4096 * 4096));
        let mut bytes = fs::read(&path).unwrap();
        bytes[(last % 4096) as usize + 19] ^= 1;
        fs::write(&path, bytes).unwrap();
        salvage().close().unwrap();
        let damaged = |store: &MessageStore| -> Vec<ScanItem> {
            let items = store.scan(LogOffset::ZERO).map(Result::unwrap);
            items.filter(|item| matches!(item, ScanItem::Damaged(_))).collect()
        };
        let store = MessageStore::open(options()).unwrap();
        assert_eq!(damaged(&store).len(), 1);
        store.close().unwrap();
        if all_is_lost {
            fs::remove_dir_all(dir.path().join("commitlog")).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        let store = salvage();
        let new = put(&store);
        assert!(new[0].log_offset.get() <= last && last <= new[69].log_offset.get());
        store.close().unwrap();
        let store = MessageStore::open(options()).unwrap();
        assert!(damaged(&store).is_empty(), "{:?}", damaged(&store));
        assert!(new.iter().all(|put| store.read(put.log_offset).is_ok()));
        assert_eq!(store.verify().unwrap().damages, []);
    }
}

/// `verify` named each damaged record twice: the entry that the index has for it belonged to no record.
#[test]
fn a_damaged_record_is_named_once() {
    let dir = fast_dir();
    let store = MessageStore::open(StoreOptions::new(dir.path())).unwrap();
    let puts: Vec<_> = (0..30).map(|_| store.put(Message::new("t").key("key").body(b"body")).unwrap()).collect();
    let mut expected = Vec::new();
    for put in puts.iter().step_by(7) {
        let path = dir.path().join("commitlog/00000000000000000000");
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(put.end().get() - 60)).unwrap();
        file.write_all(b"~").unwrap();
        expected.push(put.log_offset.get()..put.end().get());
    }
    let report = store.verify().unwrap();
    assert_eq!(report.damages.iter().map(|damage| damage.range.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(report.records, 25);
}

/// Where the last durable record was damaged, or lost with its file, an opening knew no time to go on from: a clock that went
/// back gave new messages times before those of old ones, and `offset_by_time` took the damaged message for one of 1970.
#[test]
fn times_go_on_behind_a_damaged_end() {
    #[derive(Debug)]
    struct Hand(AtomicI64);
    impl Clock for Hand {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::Relaxed)
        }
    }
    for is_lost in [false, true] {
        let (dir, clock) = (fast_dir(), Arc::new(Hand(AtomicI64::new(5_000_000))));
        let clock_of_store: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).clock(Arc::clone(&clock_of_store));
        let store = MessageStore::open(options()).unwrap();
        let put = |_| {
            clock.0.fetch_add(10, Ordering::Relaxed);
            store.put(Message::new("t").body(&[7; 60])).unwrap()
        };
        let puts: Vec<_> = (0..40).map(put).collect();
        let last = puts[39];
        store.close().unwrap();
        let path = dir.path().join(format!("commitlog/{:020}", last.log_offset.get() / 4096 * 4096));
        if is_lost {
            fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes[(last.log_offset.get() % 4096) as usize + 90] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        for recovery in [RecoveryMode::ReadOnly, RecoveryMode::Salvage] {
            let store = MessageStore::open(options().recovery(recovery)).unwrap();
            let queue = store.queue("t", 0);
            // The message at offset n was stored at 5,000,010 + 10 n.
            for at in [0, 7, 20] {
                let ms = 5_000_010 + 10 * at as i64;
                assert_eq!(
                    queue.offset_by_time(ms + 5, TimeBound::Upper).unwrap().get(),
                    at,
                    "{is_lost}, {recovery:?}"
                );
                assert_eq!(queue.offset_by_time(ms, TimeBound::Lower).unwrap().get(), at, "{is_lost}, {recovery:?}");
            }
            if recovery == RecoveryMode::Salvage {
                clock.0.fetch_sub(300, Ordering::Relaxed);
                store.put(Message::new("t")).unwrap();
            }
            let times: Vec<_> = store
                .scan(LogOffset::ZERO)
                .filter_map(|item| match item.unwrap() {
                    ScanItem::Record(record) => Some(record.store_ms()),
                    _ => None,
                })
                .collect();
            assert!(times.is_sorted() && times.len() > 20, "{is_lost}: {times:?}");
            store.close().unwrap();
        }
        // What was acknowledged after the salvage stays, also where nobody knows any more how far the log was durable.
        let count = |store: &MessageStore| {
            store.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_)))).count()
        };
        let store = MessageStore::open(options()).unwrap();
        let before = count(&store);
        store.close().unwrap();
        fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
        assert_eq!(count(&MessageStore::open(options().recovery(RecoveryMode::Salvage)).unwrap()), before);
    }
}

/// Found by fuzzing. Without record CRC a record whose properties were cut by a short file was shown with what was left of them,
/// where the opening had named the rest of the file as lost; after a salvage, the next session did.
#[test]
fn a_record_that_goes_on_in_what_is_lost_is_damaged() {
    let dir = fast_dir();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).record_crc(false);
    let store = MessageStore::open(options()).unwrap();
    let put = |_| store.put(Message::new("t").property("name", "v".repeat(100)).body(b"body")).unwrap();
    let puts: Vec<_> = (0..30).map(put).collect();
    store.close().unwrap();
    let lost = puts[5].end().get() - 40;
    let path = dir.path().join("commitlog/00000000000000000000");
    shorten(&path, lost);
    for recovery in [RecoveryMode::ReadOnly, RecoveryMode::Salvage, RecoveryMode::Refuse] {
        let store = MessageStore::open(options().recovery(recovery)).unwrap();
        assert!(matches!(store.read(puts[5].log_offset), Err(Error::Corrupt(_))), "{recovery:?}");
        let items: Vec<_> = store.scan(LogOffset::ZERO).map(Result::unwrap).take(6).collect();
        assert!(items[..5].iter().all(|item| matches!(item, ScanItem::Record(_))));
        let ScanItem::Damaged(damage) = &items[5] else { panic!("{:?}", items[5]) };
        assert_eq!(damage.range, puts[5].log_offset.get()..4096, "{recovery:?}");
        store.close().unwrap();
    }
}

/// The damage that an opening found was named by `verify` also when its file had been deleted since.
#[test]
fn damage_that_was_deleted_is_damage_no_more() {
    let dir = fast_dir();
    let store = MessageStore::open(options(dir.path())).unwrap();
    let puts: Vec<_> = (0..50).map(|_| store.put(Message::new("t").body(&[7; 1000])).unwrap()).collect();
    store.close().unwrap();
    flip(&dir.path().join("commitlog/00000000000000000000"), puts[3].log_offset.get() + 200);
    fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
    let store = MessageStore::open(options(dir.path()).recovery(RecoveryMode::Salvage)).unwrap();
    assert_eq!(store.verify().unwrap().damages.len(), 1);
    assert!(store.delete_before(store.flush().unwrap()).unwrap() > 0);
    assert_eq!(store.verify().unwrap().damages, []);
}
