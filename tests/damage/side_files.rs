//! What mqlog and RocketMQ say about the store beside it is wrong, old or gone.

use std::fs;
use std::path::Path;

use mqlog::format::record::encode_blank;
use mqlog::{Drive, Error, LogOffset, Message, MessageStore, RecoveryMode, ScanItem, StoreOptions};

use crate::common::{check_content, check_store, copy_dir, copy_file, fast_dir};
use crate::stores::{Base, End, Patient, options, put_session};
use crate::{EVERY_HARM, Harm, harm_each};

#[test]
fn each_file_of_the_side_folder_may_be_damaged() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let files: Vec<_> = base.files("mqlog").into_iter().filter(|file| file.iter().count() == 2).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        let count = harm_each(&base, &files, &EVERY_HARM, |_, _, report| {
            assert!(!report.foreign_writer && report.torn.is_none(), "{report:?}");
            assert_eq!(report.queues_repaired, []);
        });
        println!("{count} damaged side files, {end:?}");
        assert!(count >= 30);
    }
}

/// A folder in the place of a file, or a file in that of a folder, was an error at opening; it counts as missing, and
/// what is in it stays.
#[test]
fn what_is_of_the_wrong_kind_counts_as_missing() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let names =
            ["mqlog", "mqlog/new", "mqlog/cut", "mqlog/format", "mqlog/watermark", "mqlog/derived", "mqlog/format.tmp"];
        for name in names {
            for (read_only, is_foreign) in [(true, false), (false, false), (false, true)] {
                if read_only && name.ends_with(".tmp") {
                    // It writes no file there, but in memory under the same name.
                    continue;
                }
                let patient = base.patient();
                let path = patient.path(name);
                let is_dir = path.is_dir();
                let kept = if is_dir {
                    fs::remove_dir_all(&path).unwrap();
                    fs::write(&path, "kept").unwrap();
                    patient.path(format!("{name}.stray"))
                } else {
                    // One of them is not there.
                    let _ = fs::remove_file(&path);
                    fs::create_dir(&path).unwrap();
                    fs::write(path.join("kept"), "kept").unwrap();
                    patient.path(format!("{name}.stray/kept"))
                };
                if is_foreign {
                    fs::remove_file(patient.path("lock")).unwrap();
                }
                if read_only {
                    let store = MessageStore::open(options(&patient.path("")).read_only(true)).unwrap();
                    assert!(check_content(&store) == base.content);
                    assert_eq!((path.is_dir(), kept.exists()), (!is_dir, false));
                } else {
                    let store = patient.open();
                    assert!(check_content(&store) == base.content, "{name} {end:?}");
                    patient.check_after(store, &base.content);
                    assert_eq!(fs::read(kept).unwrap(), b"kept");
                }
            }
        }
    }
}

#[test]
fn all_of_the_side_folder_may_be_an_older_copy() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        for name in ["format", "watermark", "derived"] {
            copy_file(&base.older().join("mqlog").join(name), &patient.path("mqlog").join(name));
        }
        let store = patient.open();
        assert!(check_content(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

/// Zeros an index file but for its header; opening puts it right.
fn zero_and_check(base: &Base, patient: &Patient, index: &Path) {
    let mut bytes = fs::read(patient.path(index)).unwrap();
    bytes[40..].fill(0);
    fs::write(patient.path(index), bytes).unwrap();
    let store = patient.open();
    assert!(check_content(&store) == base.content);
    patient.check_after(store, &base.content);
}

/// Found by fuzzing. After a clean stop the last frame was damaged, so the one before it counted, and the store was opened
/// as after a crash: then a damaged index file with the right length is believed. Now a clean stop whose last frame is
/// not there has no frame at all.
#[test]
fn a_damaged_last_frame_of_a_closed_store_hides_no_damage() {
    let base = Base::make(End::Closed);
    for index in base.files("index") {
        let patient = base.patient();
        let mut frames = fs::read(patient.path("mqlog/derived")).unwrap();
        let last = frames.len() - 20;
        frames[last] ^= 1;
        fs::write(patient.path("mqlog/derived"), frames).unwrap();
        zero_and_check(&base, &patient, &index);
    }
}

/// Found by fuzzing. A closed store without watermark was opened as after a crash, where a damaged index file with the right
/// length is believed. Now its frame tells that the stop was clean.
#[test]
fn a_lost_watermark_of_a_closed_store_hides_no_damage() {
    let base = Base::make(End::Closed);
    for index in base.files("index") {
        let patient = base.patient();
        fs::remove_file(patient.path("mqlog/watermark")).unwrap();
        zero_and_check(&base, &patient, &index);
    }
}

/// Writes a watermark with a right checksum that lies.
fn forge_watermark(root: &Path, durable: u64) {
    let path = root.join("mqlog/watermark");
    let mut slot = b"mqlogWM1".to_vec();
    [1 << 40, durable, 1 << 20, 0, 0, 0, 0].iter().for_each(|word: &u64| slot.extend(word.to_be_bytes()));
    let crc = u64::from(crc32c::crc32c(&slot));
    slot.extend(crc.to_be_bytes());
    let mut bytes = fs::read(&path).unwrap();
    bytes[..slot.len()].copy_from_slice(&slot);
    fs::write(path, bytes).unwrap();
}

/// Found by fuzzing. A watermark that lies under a right checksum let the scan begin in the last bytes of a file, where
/// no end-of-file blank fits: opening ended in a panic, or else the next put did.
#[test]
fn a_watermark_anywhere_in_the_log_leads_to_an_answer() {
    let base = Base::make(End::Killed);
    let end = base.content.records.last().map(|(at, bytes)| at + bytes.len() as u64).unwrap();
    for durable in [24, 16 * 1024, end].into_iter().flat_map(|around| around - 24..around + 24) {
        let patient = base.patient();
        forge_watermark(&patient.root, durable);
        match MessageStore::open(options(&patient.root)) {
            Ok(store) => {
                assert!(store.scan(LogOffset::ZERO).all(|item| item.is_ok()));
                let put = store.put(Message::new("t").body(&[0; 100])).unwrap();
                assert_eq!(store.read(put.log_offset).unwrap().body().len(), 100);
            }
            Err(error) => assert!(matches!(error, Error::Corrupt(_)), "{error}"),
        }
    }
}

/// Found by fuzzing. A watermark within a record was taken as it was: the session saw the record as a whole one and
/// appended behind it. Was it killed, the next one began at the watermark, found no record there, and cut all behind it,
/// acknowledged messages too. Then the record was called damaged, and a salvage cut what followed. Now it is the watermark
/// that is wrong: it is named, nothing is cut, and all records are shown.
#[test]
fn a_watermark_within_a_record_costs_no_message_of_the_session_that_opened_it() {
    let base = Base::make(End::Killed);
    let records = &base.content.records;
    // What no frame of `derived` covers is looked at, wherever the watermark is.
    for (at, bytes) in records.iter().rev().take(2) {
        let end = at + bytes.len() as u64;
        for durable in (at + 1..end).step_by(9).chain([end - 1]) {
            let patient = base.patient();
            forge_watermark(&patient.root, durable);
            let error = MessageStore::open(options(&patient.root)).map(drop).unwrap_err();
            assert!(
                matches!(&error, Error::Corrupt(damage) if damage.range == (durable..durable)),
                "{durable}: {error}"
            );
            let read_only = MessageStore::open(options(&patient.root).recovery(RecoveryMode::ReadOnly)).unwrap();
            assert!(check_content(&read_only) == base.content, "{durable}");
            drop(read_only);
            let salvage = |root| options(root).recovery(RecoveryMode::Salvage).drive(Drive::Manual);
            let store = MessageStore::open(salvage(&patient.root)).unwrap();
            assert!(check_content(&store) == base.content && store.recovery_report().torn.is_none(), "{durable}");
            let put = store.put(Message::new("orders").body(b"acknowledged")).unwrap();
            let killed = fast_dir();
            copy_dir(&patient.root, killed.path());
            drop(store);
            let store = MessageStore::open(salvage(killed.path())).unwrap();
            assert_eq!(store.read(put.log_offset).unwrap().body(), b"acknowledged", "{durable}");
        }
    }
}

/// Lets every frame of `derived` that names a topic's queues say, under a right checksum, that they end at `end`.
fn forge_ends(patient: &Patient, topic: &str, end: u64) {
    let path = patient.path("mqlog/derived");
    let mut bytes = fs::read(&path).unwrap();
    let name = [&(topic.len() as u64).to_be_bytes(), topic.as_bytes()].concat();
    let (mut start, mut forged) = (8, 0);
    while start < bytes.len() {
        let payload = u64::from_be_bytes(*bytes[start + 4..].first_chunk().unwrap()) as usize;
        let frame = &mut bytes[start..][..20 + payload + 8];
        let (covered, crc) = frame.split_at_mut(20 + payload);
        for at in 0..covered.len().saturating_sub(name.len()) {
            if covered[at..].starts_with(&name) {
                // Behind the name: queue id, kind, first message, end, entries.
                let numbers = &mut covered[at + name.len()..][3 * 8..5 * 8];
                numbers.copy_from_slice(&[end.to_be_bytes(); 2].concat());
                forged += 1;
            }
        }
        crc.copy_from_slice(&u64::from(crc32c::crc32c(covered)).to_be_bytes());
        start += frame.len();
    }
    assert!(forged >= 2);
    fs::write(path, bytes).unwrap();
}

/// A checkpoint with a right checksum said that a queue ends where its log, at 91 bytes a message, cannot have led it. Its
/// file did not agree, so it was built anew, but that end was kept: with fillers for millions of messages, in as many
/// files as they need. Now an end counts only as far as the log below the checkpoint could hold the messages. Found by
/// fuzzing.
#[test]
fn an_end_of_a_queue_beyond_what_its_log_can_hold_is_not_kept() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let log_end = base.content.records.last().map(|(at, _)| *at).unwrap();
        let patient = base.patient();
        forge_ends(&patient, "orders", log_end / 91 + 100);
        let store = patient.open();
        let report = store.recovery_report();
        assert_eq!((report.queues_compared, &report.queues_repaired[..]), (2, &[][..]), "{report:?}");
        assert!(check_content(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

/// Found by fuzzing. Where a log was cut within a record without checksum, and went on there, the record was taken for whole
/// with what stood behind the cut, and the scan went on at its old end: all that followed was cut in turn. What stands at the
/// watermark decides which of the two is right.
#[test]
fn a_record_that_was_cut_where_the_log_goes_on_is_damage() {
    let dir = fast_dir();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).record_crc(false);
    let store = MessageStore::open(options()).unwrap();
    let put = |_| store.put(Message::new("t").property("name", "v".repeat(60)).body(b"body")).unwrap();
    let puts: Vec<_> = (0..60).map(put).collect();
    store.close().unwrap();
    let in_first = puts.iter().filter(|put| put.end().get() < 4000).count();
    let (cut, durable) = (puts[in_first - 1], puts[in_first - 1].end().get() - 30);
    let path = dir.path().join("commitlog/00000000000000000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[durable as usize..].fill(0);
    bytes[durable as usize..][..8].copy_from_slice(&encode_blank(4096 - durable as u32));
    fs::write(&path, bytes).unwrap();
    forge_watermark(dir.path(), durable);
    // The last frame of queues and index would say how far the log was durable.
    fs::remove_file(dir.path().join("mqlog/derived")).unwrap();
    let error = MessageStore::open(options()).map(drop).unwrap_err();
    let damaged = cut.log_offset.get()..durable;
    assert!(matches!(&error, Error::Corrupt(damage) if damage.range == damaged), "{error}");
    let store = MessageStore::open(options().recovery(RecoveryMode::Salvage)).unwrap();
    let records = store.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_)))).count();
    let behind = puts.iter().filter(|put| put.log_offset.get() >= 4096).count();
    assert_eq!(records, in_first - 1 + behind);
}

#[test]
fn the_checkpoint_of_rocketmq_decides_nothing() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        harm_each(&base, &["checkpoint".into()], &EVERY_HARM, |_, _, report| {
            assert_eq!((report.clean, report.index_rebuilt), (end == End::Closed, false));
            assert_eq!(report.queues_repaired, []);
        });
        let patient = base.patient();
        let far_ahead: Vec<u8> = [i64::MAX; 5].iter().flat_map(|stamp| stamp.to_be_bytes()).collect();
        let mut bytes = fs::read(patient.path("checkpoint")).unwrap();
        bytes[..40].copy_from_slice(&far_ahead);
        fs::write(patient.path("checkpoint"), bytes).unwrap();
        let store = patient.open();
        assert!(check_store(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

#[test]
fn what_another_program_left_is_looked_at_as_a_whole() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        for wrong in [false, true] {
            let patient = base.patient();
            fs::write(patient.path("lock"), "lock").unwrap();
            fs::create_dir_all(patient.path("mqlog/cut")).unwrap();
            fs::write(patient.path("mqlog/cut/00000000000000000007"), "kept").unwrap();
            if wrong {
                for name in ["format", "watermark", "derived"] {
                    copy_file(&base.older().join("mqlog").join(name), &patient.path("mqlog").join(name));
                }
                // The other program rewrote entries, and nothing says so.
                let queue = patient.path("consumequeue/orders/0/00000000000000000000");
                let mut bytes = fs::read(&queue).unwrap();
                bytes[40..60].fill(0);
                fs::write(&queue, bytes).unwrap();
            }
            let store = patient.open();
            let report = store.recovery_report();
            assert!(report.foreign_writer, "{report:?}");
            let repaired = if wrong { vec![("orders".to_owned(), 0)] } else { Vec::new() };
            assert_eq!(report.queues_repaired, repaired);
            assert_eq!(report.queues_compared, base.content.queues.len() as u64);
            assert!(check_content(&store) == base.content);
            patient.check_after(store, &base.content);
            assert_eq!(fs::read(patient.path("mqlog/cut/00000000000000000007")).unwrap(), b"kept");
            assert_eq!(fs::read(patient.path("lock")).unwrap()[..4], *b"mqlg");
        }
    }
}

#[test]
fn an_index_file_newer_than_everything_known_goes() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        let newest = base.files("index").pop().unwrap();
        fs::copy(patient.path(&newest), patient.path("index/29990101000000000")).unwrap();
        let store = patient.open();
        assert_eq!(store.recovery_report().index_rebuilt, end == End::Closed);
        assert!(check_content(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

#[test]
fn unfinished_files_go() {
    let base = Base::make(End::Killed);
    let patient = base.patient();
    fs::write(patient.path("mqlog/new/00000000000000000000"), [0; 100]).unwrap();
    fs::write(patient.path("mqlog/derived.tmp"), [1; 100]).unwrap();
    let store = patient.open();
    assert!(
        fs::read_dir(patient.path("mqlog/new")).unwrap().all(|entry| entry.unwrap().metadata().unwrap().len() != 100)
    );
    assert!(check_store(&store) == base.content);
    patient.check_after(store, &base.content);
}

#[test]
fn the_harms_do_something() {
    let base = Base::make(End::Closed);
    for harm in EVERY_HARM {
        let patient = base.patient();
        let changed = harm.apply(&base, &patient, "mqlog/derived".as_ref());
        assert!(changed, "{harm:?}");
        let is = fs::read(patient.path("mqlog/derived")).ok();
        assert_ne!(is, fs::read(base.root().join("mqlog/derived")).ok(), "{harm:?}");
        assert_eq!(is.is_none(), harm == Harm::Deleted);
    }
}

#[test]
fn an_older_format_does_not_ask_for_checksums_that_are_not_there() {
    let base = Base::make(End::Closed);
    let patient = base.patient();
    let store = MessageStore::open(options(&patient.root).record_crc(false)).unwrap();
    put_session(&store, 9);
    store.close().unwrap();
    copy_file(&base.root().join("mqlog/format"), &patient.path("mqlog/format"));
    check_content(&patient.open());
}

/// A `format` with a right checksum and a wrong length of log files made strays of them, and a salvage went on with what was
/// left. Where the files themselves say another length, it is that of `format` that is wrong. Found by fuzzing.
#[test]
fn a_length_at_which_log_files_have_no_place_is_not_believed_against_theirs() {
    let dir = fast_dir();
    let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).recovery(RecoveryMode::Salvage);
    let store = MessageStore::open(options()).unwrap();
    (0..100).for_each(|_| _ = store.put(Message::new("t").body(&[7; 200])).unwrap());
    store.close().unwrap();
    let path = dir.path().join("mqlog/format");
    let text = fs::read_to_string(&path).unwrap();
    for (wrong, has_first) in [(8192, true), (8192, false), (2_147_483_647, true), (2_147_483_647, false)] {
        let text = text.replace("log_file_bytes 4096", &format!("log_file_bytes {wrong}"));
        let covered = &text[..text.rfind("crc32c ").unwrap()];
        fs::write(&path, format!("{covered}crc32c {:08x}\n", crc32c::crc32c(covered.as_bytes()))).unwrap();
        let first = dir.path().join("commitlog/00000000000000000000");
        let bytes = fs::read(&first).unwrap();
        if !has_first {
            fs::remove_file(&first).unwrap();
        }
        for _ in 0..2 {
            let refused = MessageStore::open(options()).map(drop);
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
        }
        fs::write(first, bytes).unwrap();
    }
    fs::remove_file(path).unwrap();
    let store = MessageStore::open(options()).unwrap();
    assert_eq!(store.scan(LogOffset::ZERO).filter(|item| matches!(item, Ok(ScanItem::Record(_)))).count(), 100);
}
