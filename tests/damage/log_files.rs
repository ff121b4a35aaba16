//! The log is shorter than its queues and its index say, or its files are not those of a log.

use std::fs;
use std::path::Path;

use crate::common::{Content, check_content, check_store, copy_file, fast_dir, files_below};
use crate::stores::{Base, End, Patient, options};
use mqlog::{Error, LogOffset, Message, MessageStore, QueueOffset, RecoveryMode};

/// Takes the log's end from a record on: its bytes become zero, later files go.
fn cut_log(patient: &Patient, at: u64, shorten: bool) {
    for file in files_below(&patient.path("commitlog")) {
        let base: u64 = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        if base >= at && base > 0 {
            fs::remove_file(&file).unwrap();
        } else if base + bytes.len() as u64 > at {
            let keep = (at - base) as usize;
            if shorten {
                bytes.truncate(keep);
            } else {
                bytes[keep..].fill(0);
            }
            fs::write(&file, bytes).unwrap();
        }
    }
}

/// What the store held when its first `count` records were all.
fn beginning(base: &Base, root: &Path, count: usize) -> Content {
    let store = MessageStore::open(options(root).read_only(true)).unwrap();
    let content = Content::of_log(&store);
    assert_eq!(content.records, base.content.records[..count]);
    content
}

#[test]
fn queues_and_index_ahead_of_the_log_are_cut_with_it() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let all = base.content.records.len();
        for count in [1, 7, all / 3, all / 2, all - 40, all - 1] {
            // A short file, be it alone, does not tell how long a file is.
            for (shorten, torn) in [(false, 0), (true, 0), (true, 7), (true, 60)] {
                println!("{end:?} cut to {count} records, {shorten} {torn}");
                let patient = base.patient();
                cut_log(&patient, base.content.records[count].0 + torn, shorten);
                fs::remove_dir_all(patient.path("mqlog")).unwrap();
                let content = beginning(&base, &patient.root, count);
                let store = patient.open();
                assert_eq!(store.log_file_bytes(), 16 * 1024);
                assert_eq!(store.recovery_report().corruptions, []);
                assert!(check_content(&store) == content);
                store.close().unwrap();
                let again = patient.open();
                assert!(again.recovery_report().clean);
                assert!(check_store(&again) == content);
            }
        }
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_refused() {
    let base = Base::make(End::Closed);
    let patient = base.patient();
    let half = base.content.records.len() / 2;
    cut_log(&patient, base.content.records[half].0, false);
    let before = files_below(&patient.root).into_iter().map(|file| (fs::read(&file).unwrap(), file));
    let before: Vec<_> = before.collect();
    assert!(matches!(MessageStore::open(options(&patient.root)), Err(Error::Corrupt(_))));
    let after = files_below(&patient.root).into_iter().map(|file| (fs::read(&file).unwrap(), file));
    assert!(before == after.collect::<Vec<_>>(), "a refused opening wrote");
    let store = MessageStore::open(options(&patient.root).recovery(RecoveryMode::ReadOnly)).unwrap();
    assert!(!store.recovery_report().corruptions.is_empty());
    assert!(store.queue("orders", 0).iter_from(QueueOffset::ZERO).all(|message| message.is_ok()));
    assert!(matches!(store.put(Message::new("t")), Err(Error::ReadOnly)));
}

#[test]
fn a_torn_record_is_cut_and_kept_aside() {
    let base = Base::make(End::Killed);
    let patient = base.patient();
    let (last_at, last) = base.content.records.last().unwrap().clone();
    let file = files_below(&patient.path("commitlog"))
        .into_iter()
        .rev()
        .find(|file| file.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() <= last_at);
    let file = file.unwrap();
    let start: u64 = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let end = (last_at - start) as usize + last.len();
    assert!(end + last.len() + 8 <= bytes.len(), "the last record leaves no room behind it: change the messages");
    bytes[end..end + last.len() / 2].copy_from_slice(&last[..last.len() / 2]);
    fs::write(&file, bytes).unwrap();
    let store = patient.open();
    let torn = store.recovery_report().torn.clone().unwrap();
    assert_eq!(torn.start.get(), last_at + last.len() as u64);
    assert!(check_store(&store) == base.content);
    let kept = fs::read(patient.path(format!("mqlog/cut/{:020}", torn.start.get()))).unwrap();
    assert_eq!(kept[..8], last[..8]);
    patient.check_after(store, &base.content);
}

/// A queue all of whose records were lost with the log's end was empty for mqlog, and kept its entries in its file. What
/// the log got in the place of the lost records was theirs: RocketMQ gave it to the readers of that queue.
#[test]
fn a_queue_keeps_no_entries_of_records_that_the_log_lost() {
    for is_foreign in [true, false] {
        let dir = fast_dir();
        let put = |store: &MessageStore, topic: &str, body: &[u8]| store.put(Message::new(topic).body(body)).unwrap();
        let store = MessageStore::open(options(dir.path())).unwrap();
        (0..5).for_each(|_| _ = put(&store, "a", b"kept"));
        let lost: Vec<_> = (0..5).map(|_| put(&store, "b", b"lost")).collect();
        store.close().unwrap();
        let path = dir.path().join("commitlog/00000000000000000000");
        let mut log = fs::read(&path).unwrap();
        log[lost[0].log_offset.get() as usize..].fill(0);
        fs::write(path, log).unwrap();
        if is_foreign {
            fs::write(dir.path().join("lock"), "lock").unwrap();
        } else {
            fs::remove_dir_all(dir.path().join("mqlog")).unwrap();
        }

        let store = MessageStore::open(options(dir.path())).unwrap();
        assert_eq!(store.recovery_report().torn, None);
        for file in files_below(&dir.path().join("consumequeue/b")) {
            assert!(fs::read(&file).unwrap().iter().all(|byte| *byte == 0), "{} has entries", file.display());
        }
        (0..10).for_each(|_| _ = put(&store, "a", b"in the place of what was lost"));
        let next = put(&store, "b", b"next");
        let found: Vec<_> = store.queue("b", 0).iter_from(QueueOffset::ZERO).map(Result::unwrap).collect();
        assert_eq!(found.iter().map(|message| message.log_offset()).collect::<Vec<_>>(), [next.log_offset]);
        let content = check_content(&store);
        store.close().unwrap();
        assert!(check_store(&MessageStore::open(options(dir.path())).unwrap()) == content);
    }
}

/// Twenty digits that are no place for a log file kept a store from being opened in every mode, also for reading only, with
/// a range that ended before it began.
#[test]
fn a_misnamed_log_file_is_named_and_left_alone() {
    let base = Base::make(End::Closed);
    for name in ["commitlog/00000000000000000001", "commitlog/00000000000000100000"] {
        let patient = base.patient();
        copy_file(&patient.path("commitlog/00000000000000000000"), &patient.path(name));
        let open = |recovery| MessageStore::open(options(&patient.root).recovery(recovery));
        let refused = open(RecoveryMode::Refuse).map(drop).unwrap_err();
        let is_meant = |damage: &mqlog::Corruption| damage.path == patient.path(name) && damage.range.is_empty();
        assert!(matches!(&refused, Error::Corrupt(damage) if damage.range.start <= damage.range.end), "{refused}");
        for read_only in [true, false] {
            let store = MessageStore::open(options(&patient.root).read_only(read_only).recovery(RecoveryMode::Salvage));
            let store = store.unwrap();
            let report = store.recovery_report();
            assert_eq!(report.strays, [patient.path(name)]);
            assert!(report.corruptions.len() == 1 && is_meant(&report.corruptions[0]), "{:?}", report.corruptions);
            assert!(check_content(&store) == base.content);
        }
        let store = open(RecoveryMode::ReadOnly).unwrap();
        assert!(check_content(&store) == base.content);
        drop(store);
        // It is gone when somebody takes it away.
        fs::remove_file(patient.path(name)).unwrap();
        patient.check_after(patient.open(), &base.content);
    }
}

/// The first file says where the log begins. It did so under any name: one that is no place for a log file, in front of a log
/// whose first files had been deleted, made all others strays.
#[test]
fn a_misnamed_log_file_in_front_hides_no_other() {
    let dir = fast_dir();
    let open = |recovery| MessageStore::open(options(dir.path()).recovery(recovery));
    let store = open(RecoveryMode::Refuse).unwrap();
    (0..200).for_each(|_| _ = store.put(Message::new("t").body(&[7; 300])).unwrap());
    let end = store.flush().unwrap();
    assert!(store.delete_before(LogOffset::new(2 * 16 * 1024)).unwrap() == 2);
    let content = check_content(&store);
    store.close().unwrap();
    let misnamed = dir.path().join("commitlog/00000000000000000001");
    copy_file(&dir.path().join(format!("commitlog/{:020}", 2 * 16 * 1024)), &misnamed);
    let refused = open(RecoveryMode::Refuse).map(drop).unwrap_err();
    assert!(matches!(&refused, Error::Corrupt(damage) if damage.path == misnamed), "{refused}");
    for recovery in [RecoveryMode::ReadOnly, RecoveryMode::Salvage] {
        let store = open(recovery).unwrap();
        assert_eq!((store.log_range().end, &store.recovery_report().strays), (end, &vec![misnamed.clone()]));
        assert!(check_content(&store) == content, "{recovery:?}");
        store.close().unwrap();
    }
    fs::remove_file(misnamed).unwrap();
    assert!(check_store(&open(RecoveryMode::Refuse).unwrap()) == content);
}

/// A log file that is too long was named by each salvage and stayed as it was, so that the next opening was refused again,
/// for ever. Now what is behind its end is kept aside and cut.
#[test]
fn a_salvage_cuts_a_log_file_that_is_too_long() {
    let base = Base::make(End::Closed);
    let logs = base.files("commitlog");
    for name in [&logs[0], &logs[1], logs.last().unwrap()] {
        for rest in [&[7; 100_000][..], &[0; 33]] {
            let patient = base.patient();
            let mut bytes = fs::read(patient.path(name)).unwrap();
            let length = bytes.len() as u64;
            bytes.extend(rest);
            fs::write(patient.path(name), bytes).unwrap();
            assert!(matches!(MessageStore::open(options(&patient.root)), Err(Error::Corrupt(_))));
            let store = MessageStore::open(options(&patient.root).recovery(RecoveryMode::Salvage)).unwrap();
            assert_eq!(store.recovery_report().corruptions.len(), 1);
            assert!(check_content(&store) == base.content);
            assert_eq!(fs::metadata(patient.path(name)).unwrap().len(), length);
            let kept: Vec<u8> =
                files_below(&patient.path("mqlog/cut")).iter().flat_map(|file| fs::read(file).unwrap()).collect();
            assert!(kept == rest || kept.is_empty() && rest[0] == 0, "{} bytes are kept", kept.len());
            patient.check_after(store, &base.content);
        }
    }
}
