//! The commit log, proved: appends here, openings in `recovery`, everything mixed in `model`.

mod kit;
mod model;
mod recovery;

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use self::kit::*;
use super::*;
use crate::error::{Error, Result};
use crate::format::record::{BLANK_BYTES, RecordCrc, RecordFields, SysFlag, Version, encode_blank};
use crate::message::Message;
use crate::offset::LogOffset;

const BOTH: [bool; 2] = [false, true];
/// In the path of each log file, also while it is made.
const LOG_FILES: &str = "/00000000";

/// The bytes of one record as the format module encodes them.
fn expected(at: u64, queue_offset: u64, now_ms: i64, body: &[u8]) -> Vec<u8> {
    let fields = RecordFields {
        version: Version::V1,
        queue_id: 0,
        flag: 0,
        queue_offset,
        log_offset: at,
        sys_flag: SysFlag(0),
        born_ms: now_ms,
        born_host: DEFAULT_HOST,
        store_ms: now_ms,
        store_host: DEFAULT_HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: b"t",
        properties: b"",
    };
    let mut bytes = Vec::new();
    fields.encode(RecordCrc::On, &mut bytes);
    bytes
}

#[test]
fn both_ways_of_writing_give_the_bytes_of_the_format() {
    let sizes = [0, 1, 88, 300, 17, 904, 0, 0, 500, 412, 3000 % 905, 256];
    let mut logs = Vec::new();
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        let (mut whole, now) = (Vec::new(), 1_700_000_000_000);
        for (number, size) in sizes.into_iter().enumerate() {
            let body = vec![number as u8; size];
            let record = expected(whole.len() as u64, number as u64, now, &body);
            let left = 1024 - whole.len() % 1024;
            if record.len() + BLANK_BYTES > left {
                whole.extend(encode_blank(left as u32));
                whole.resize(whole.len().next_multiple_of(1024), 0);
            }
            let record = expected(whole.len() as u64, number as u64, now, &body);
            let placed = put(&opened.log, &cursor, &body);
            assert_eq!((placed.log_offset.get(), placed.queue_offset.get()), (whole.len() as u64, number as u64));
            whole.extend(record);
            if number.is_multiple_of(3) {
                opened.log.flush().unwrap();
            }
        }
        assert_eq!(opened.log.tail().get(), whole.len() as u64);
        assert_eq!(opened.log.flush().unwrap(), opened.log.durable_offset());
        assert_eq!(bodies(&opened.log).len(), sizes.len());
        opened.log.shut().unwrap();
        let files: Vec<_> = snapshot(&kit.path("commitlog")).into_values().collect();
        whole.resize(whole.len().next_multiple_of(1024), 0);
        assert!(files.concat() == whole, "grouped: {grouped}");
        logs.push(whole);
    }
    assert!(logs[0] == logs[1]);
}

#[test]
fn a_record_stays_if_it_leaves_eight_bytes_and_rolls_if_it_leaves_seven() {
    for grouped in BOTH {
        for (body, second, blank) in [(1024 - 8 - 2 * RECORD, 112, 8), (1024 - 7 - 2 * RECORD, 1024, 912)] {
            let kit = Kit::new(1024, grouped);
            let opened = kit.open();
            let cursor = cursor(0);
            put(&opened.log, &cursor, b"");
            assert_eq!(put(&opened.log, &cursor, &vec![1; body]).log_offset.get(), second);
            if second < 1024 {
                assert_eq!(put(&opened.log, &cursor, b"").log_offset.get(), 1024);
            }
            opened.log.flush().unwrap();
            let at = 1024 - blank;
            assert_eq!(kit.bytes(at..at + 8), encode_blank(blank as u32));
            drop(opened);
            assert_eq!(bodies(&kit.open().log).len(), if second < 1024 { 3 } else { 2 });
        }
    }
}

#[test]
fn the_longest_record_leaves_a_blank_and_one_more_byte_is_refused() {
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        let limit = 1024 - 8 - RECORD;
        let before = snapshot(&kit.path("commitlog"));
        for bodies in [&[&vec![0; limit + 1][..]][..], &[&[0; 400], &[0; 500]]] {
            match try_put(&opened.log, 0, &cursor, bodies).unwrap_err() {
                Error::TooLarge { field: "record", value, limit: 1016 } => assert!(value > 1016),
                other => panic!("{other}"),
            }
        }
        assert_eq!((cursor.next().get(), opened.log.tail()), (0, LogOffset::ZERO));
        assert!(snapshot(&kit.path("commitlog")) == before);
        assert_eq!(put(&opened.log, &cursor, &vec![0; limit]).record_bytes, 1016);
        assert_eq!(put(&opened.log, &cursor, b"").log_offset.get(), 1024);
    }
}

#[test]
fn a_batch_never_spans_two_files() {
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open_threaded();
        let cursor = cursor(0);
        for round in 0..60_usize {
            let bodies = vec![vec![round as u8; round % 40]; 1 + round % 5];
            let bodies: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
            let placed = try_put(&opened.log, 0, &cursor, &bodies).unwrap();
            assert_eq!(placed.len(), bodies.len());
            assert!(placed.windows(2).all(|pair| pair[0].end() == pair[1].log_offset));
            assert!(placed.windows(2).all(|pair| pair[0].queue_offset + 1 == pair[1].queue_offset));
            let (first, last) = (placed[0].log_offset.get(), placed[placed.len() - 1].end().get());
            assert_eq!(first / 1024, (last + 7) / 1024);
        }
        opened.log.flush().unwrap();
        assert_eq!(bodies(&opened.log).len() as u64, cursor.next().get());
    }
}

#[test]
fn queue_order_is_log_order_whoever_appends() {
    const THREADS: usize = 6;
    const QUEUES: usize = 3;
    const EACH: usize = 80;
    for (grouped, file_bytes, prepared) in [
        (false, 1024, false),
        (false, 1024, true),
        (false, 64 * 1024, true),
        (true, 1024, false),
        (true, 1024, true),
        (true, 64 * 1024, true),
    ] {
        let kit = Kit::new(file_bytes, grouped);
        let opened = if prepared { kit.open_threaded() } else { kit.open() };
        let cursors: Vec<_> = (0..QUEUES).map(|_| cursor(0)).collect();
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (log, cursors) = (&opened.log, &cursors);
                scope.spawn(move || {
                    let mut last = None;
                    for count in 0..EACH {
                        let queue = (number + count) % QUEUES;
                        let body = format!("{number} {count} {}", "x".repeat(count % 200));
                        let body: Vec<&[u8]> = vec![body.as_bytes(); 1 + count % 2];
                        let placed = try_put(log, queue as i32, &cursors[queue], &body).unwrap();
                        assert!(last < Some(placed[0].log_offset));
                        last = Some(placed[placed.len() - 1].log_offset);
                        if count % 20 == number {
                            let end = log.flush().unwrap();
                            assert!(end >= placed[0].end() && log.durable_offset() >= placed[0].end());
                            log.read(placed[0].log_offset).unwrap();
                        }
                    }
                });
            }
        });
        opened.log.flush().unwrap();
        let check = |log: &CommitLog| {
            let (records, damages) = contents(log);
            assert_eq!((records.len(), damages.len()), (THREADS * EACH * 3 / 2, 0));
            let mut next: HashMap<i32, u64> = HashMap::new();
            let mut counts = [0; THREADS];
            for (_, queue, queue_offset, body) in &records {
                assert_eq!(*queue_offset, *next.entry(*queue).or_default());
                *next.entry(*queue).or_default() += 1;
                let text = String::from_utf8(body.clone()).unwrap();
                let numbers: Vec<usize> = text.split(' ').take(2).map(|part| part.parse().unwrap()).collect();
                assert!(numbers[1] >= counts[numbers[0]], "a thread's appends stand in its order");
                counts[numbers[0]] = numbers[1];
            }
            assert!((0..QUEUES).all(|queue| next[&(queue as i32)] == cursors[queue].next().get()));
            records
        };
        let records = check(&opened.log);
        // The task that prepares files may have the log in its hands for a moment longer than everybody else.
        opened.log.shut().unwrap();
        drop(opened);
        assert!(check(&kit.open().log) == records);
    }
}

#[test]
fn what_a_flush_sees_is_never_taken_back_by_it() {
    let kit = Kit::new(256 * 1024, false);
    let opened = kit.open_threaded();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                opened.log.flush().unwrap();
            }
        });
        let cursor = cursor(0);
        for number in 0..30_000_u32 {
            let placed = put(&opened.log, &cursor, &number.to_be_bytes());
            assert_eq!(opened.log.range().end, placed.end());
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn a_full_disk_refuses_and_changes_nothing_until_there_is_room_again() {
    for grouped in BOTH {
        for operation in ["allocate", "create"] {
            let kit = Kit::new(1024, grouped);
            let opened = kit.open();
            let cursor = cursor(0);
            kit.faults.fail(operation, LOG_FILES);
            assert!(try_put(&opened.log, 0, &cursor, &[b"none"]).unwrap_err().is_disk_full());
            kit.faults.mend();
            let mut accepted = 0;
            for number in 0..40_u64 {
                if number.is_multiple_of(4) {
                    kit.faults.mend();
                } else {
                    kit.faults.fail(operation, LOG_FILES);
                }
                let before = (opened.log.tail(), cursor.next());
                match try_put(&opened.log, 0, &cursor, &[&[number as u8; 300]]) {
                    Ok(placed) => {
                        assert_eq!(placed[0].queue_offset.get(), accepted);
                        accepted += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                        assert!(!number.is_multiple_of(4));
                        assert_eq!((opened.log.tail(), cursor.next()), before);
                        assert_eq!(snapshot(&kit.path("mqlog/new")).len(), 0);
                    }
                }
            }
            assert!((10..40).contains(&accepted));
            kit.faults.mend();
            opened.log.flush().unwrap();
            assert_eq!(bodies(&opened.log).len() as u64, accepted);
            drop(opened);
            assert_eq!(bodies(&kit.open().log).len() as u64, accepted);
        }
    }
}

#[test]
fn a_step_that_does_not_fit_is_tried_smaller() {
    let kit = Kit::new(8 << 20, false);
    let opened = kit.open();
    let cursor = cursor(0);
    put(&opened.log, &cursor, b"");
    kit.faults.largest_step.store(100_000, Ordering::Relaxed);
    for _ in 0..400 {
        put(&opened.log, &cursor, &[1; 10_000]);
    }
    kit.faults.largest_step.store(9_000, Ordering::Relaxed);
    let refused = (0..20).find_map(|_| try_put(&opened.log, 0, &cursor, &[&[1; 10_000]]).err());
    assert!(refused.unwrap().is_disk_full());
}

#[test]
fn a_failed_write_or_sync_stops_the_log_with_one_error_for_all() {
    for operation in ["sync", "write"] {
        let kit = Kit::new(4096, true);
        let opened = kit.open();
        let cursor = cursor(0);
        let durable = put(&opened.log, &cursor, b"durable");
        opened.log.flush().unwrap();
        let lost = put(&opened.log, &cursor, b"lost");
        kit.faults.fail(operation, LOG_FILES);
        let errors: Vec<String> = thread::scope(|scope| {
            let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| opened.log.flush().unwrap_err().to_string())).collect();
            waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
        });
        kit.faults.mend();
        assert!(errors.iter().all(|error| *error == errors[0] && error.contains("was told to fail")), "{errors:?}");
        let syncs = kit.faults.count("sync", LOG_FILES);
        let later = [try_put(&opened.log, 0, &cursor, &[b"x"]).map(drop), opened.log.flush().map(drop)];
        for result in
            later.into_iter().chain([opened.log.save_watermark(), opened.log.delete_before(lost.end()).map(drop)])
        {
            assert_eq!(result.unwrap_err().to_string(), errors[0]);
        }
        let _ = opened.log.shut();
        assert_eq!(kit.faults.count("sync", LOG_FILES), syncs, "a file whose sync failed is not synced again");
        assert_eq!(opened.log.durable_offset(), durable.end());
        assert_eq!(opened.log.read(durable.log_offset).unwrap().body(), b"durable");
        drop(opened);
        let again = kit.open();
        assert_eq!(bodies(&again.log)[0], b"durable");
        put(&again.log, &cursor, b"more");
        again.log.flush().unwrap();
    }
}

#[test]
fn one_failed_write_is_mended_by_writing_again() {
    let kit = Kit::new(4096, true);
    let opened = kit.open();
    let cursor = cursor(0);
    put(&opened.log, &cursor, b"a");
    put(&opened.log, &cursor, b"b");
    let before = kit.faults.count("write", LOG_FILES);
    kit.faults.fail_once("write", LOG_FILES);
    opened.log.flush().unwrap();
    assert_eq!(kit.faults.count("write", LOG_FILES) - before, 2, "a group is one write for each file");
    assert_eq!(bodies(&opened.log), [b"a", b"b"]);
}

#[test]
fn a_sync_that_fails_while_blocks_are_added_stops_the_log() {
    // The system tells a failed write-back to one caller: if that is the one who adds blocks, a commit must not go on.
    let kit = Kit::new(4 << 20, true);
    let opened = kit.open();
    let cursor = cursor(0);
    put(&opened.log, &cursor, &[1; 900_000]);
    kit.faults.fail("sync", LOG_FILES);
    let error = try_put(&opened.log, 0, &cursor, &[&[2; 900_000]]).unwrap_err();
    kit.faults.mend();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_eq!(opened.log.flush().unwrap_err().to_string(), error.to_string());
}

#[test]
fn a_watermark_that_cannot_be_synced_stops_the_log() {
    let kit = Kit::new(1024, false);
    let opened = kit.open();
    kit.faults.fail("sync", "mqlog/watermark");
    let error = try_put(&opened.log, 0, &cursor(0), &[b""]).unwrap_err();
    kit.faults.mend();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert!(matches!(opened.log.flush(), Err(Error::Poisoned { .. })));
}

#[test]
fn reading_where_no_record_begins_is_an_error() {
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        let starts: Vec<_> = (0..9).map(|_| put(&opened.log, &cursor, &[7; 200]).log_offset.get()).collect();
        opened.log.flush().unwrap();
        let end = opened.log.range().end.get();
        for at in 0..end + 3000 {
            match opened.log.read(LogOffset::new(at)) {
                Ok(view) => assert!(starts.contains(&at) && view.log_offset().get() == at),
                Err(Error::Corrupt(_)) => assert!(at < end && !starts.contains(&at)),
                Err(Error::OutOfRange { offset, available }) => {
                    assert!(offset == at && at >= end && available == (0..end));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(opened.log.read(LogOffset::MAX), Err(Error::OutOfRange { .. })));
        assert_eq!(opened.log.scan(LogOffset::MAX).count(), 0);
    }
}

/// Whoever may read by offset could put a body of magic numbers and ask for places in it: each had the whole file scanned.
#[test]
fn a_file_is_not_scanned_again_for_what_only_looks_like_a_record() {
    let kit = Kit::new(16 * 1024, false);
    let opened = kit.open();
    let cursor = cursor(0);
    let put = put(&opened.log, &cursor, &0xDAA3_20A7_u32.to_be_bytes().repeat(1000));
    let scans = || opened.log.shared.met.lock().unwrap().clone();
    assert_eq!(scans(), []);
    let places: Vec<_> = (put.log_offset.get() + 1..put.end().get()).collect();
    let are_refused = || places.iter().all(|at| opened.log.read(LogOffset::new(*at)).is_err());
    assert!(are_refused());
    assert_eq!(scans(), [(0..put.end().get(), Vec::new())]);
    // What a second scan would find.
    kit.flip(put.log_offset.get() + 200, 1);
    assert!(are_refused());
    assert_eq!(scans(), [(0..put.end().get(), Vec::new())]);
    assert!(opened.log.damage_at(put.log_offset).unwrap().is_some(), "a queue's entry says that a record was there");
}

#[test]
fn deleting_removes_whole_files_and_leaves_what_readers_hold() {
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        let placed: Vec<_> = (0..12).map(|number| put(&opened.log, &cursor, &[number; 300])).collect();
        assert_eq!(opened.log.delete_before(LogOffset::MAX).unwrap(), 0, "nothing is durable yet");
        opened.log.flush().unwrap();
        let held = opened.log.read(placed[1].log_offset).unwrap();
        assert_eq!(opened.log.delete_before(LogOffset::new(1023)).unwrap(), 0);
        assert_eq!(opened.log.delete_before(LogOffset::new(2047)).unwrap(), 1);
        assert_eq!(opened.log.range().start.get(), 1024);
        assert!(!kit.log_file(0).exists() && kit.log_file(1024).exists());
        assert_eq!(opened.log.pinned_deleted_bytes(), 1024);
        assert!(matches!(opened.log.read(placed[1].log_offset), Err(Error::OutOfRange { .. })));
        assert_eq!(held.body(), [1; 300]);
        let bytes = held.bytes().clone();
        drop(held);
        drop(bytes);
        assert_eq!(opened.log.pinned_deleted_bytes(), 0);
        let last = opened.log.range().end.get() / 1024 * 1024;
        let gone = opened.log.delete_before(LogOffset::MAX).unwrap();
        assert_eq!((gone, opened.log.range().start.get()), ((last - 1024) / 1024, last));
        put(&opened.log, &cursor, b"on");
        opened.log.flush().unwrap();
        drop(opened);
        let again = kit.open();
        assert_eq!(again.log.range().start.get(), last);
        assert_eq!(bodies(&again.log).last().unwrap(), b"on");
    }
}

#[test]
fn a_file_that_cannot_be_removed_keeps_those_behind_it() {
    let kit = Kit::new(1024, false);
    let opened = kit.open();
    let cursor = cursor(0);
    for number in 0..12 {
        put(&opened.log, &cursor, &[number; 300]);
    }
    opened.log.flush().unwrap();
    kit.faults.fail("remove", LOG_FILES);
    opened.log.delete_before(LogOffset::new(2048)).unwrap_err();
    opened.log.delete_before(LogOffset::new(3072)).unwrap_err();
    assert_eq!(opened.log.range().start.get(), 3072);
    assert!((0..3).all(|file| kit.log_file(file * 1024).exists()));
    let copy = kit.copy();
    assert_eq!(bodies(&copy.open().log).len(), 12, "without a gap they come back after a kill");
    kit.faults.mend();
    assert_eq!(opened.log.delete_before(LogOffset::ZERO).unwrap(), 3);
    assert!((0..3).all(|file| !kit.log_file(file * 1024).exists()));
}

#[test]
fn the_file_with_the_end_stays_even_if_the_next_one_is_prepared() {
    let kit = Kit::new(1024, false);
    let opened = kit.open();
    put(&opened.log, &cursor(0), &[0; 1024 - 8 - RECORD]);
    opened.log.flush().unwrap();
    opened.log.shared.prepare_file().unwrap();
    assert_eq!(opened.log.delete_before(LogOffset::MAX).unwrap(), 0);
    opened.log.shut().unwrap();
    assert!(kit.log_file(0).exists() && !kit.log_file(1024).exists());
}

#[test]
fn readers_see_whole_records_while_the_log_grows_rolls_and_loses_files() {
    for grouped in BOTH {
        let kit = Kit::new(4096, grouped);
        let opened = kit.open_threaded();
        let log = &opened.log;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..3 {
                let done = &done;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        let from = log.range().start;
                        for item in log.scan(from).take(50) {
                            match item {
                                Ok(ScanItem::Record(view)) => {
                                    let body = view.body();
                                    let number = u32::from_be_bytes(*body.first_chunk().unwrap());
                                    assert!(body[4..].iter().all(|byte| *byte == number as u8));
                                    assert_eq!(u64::from(number), view.queue_offset().get());
                                    if held.len() < 20 + reader {
                                        held.push((number, view));
                                    }
                                }
                                Ok(ScanItem::Blank(_)) => {}
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                    for (number, view) in held {
                        assert!(view.body()[4..].iter().all(|byte| *byte == number as u8));
                    }
                });
            }
            let cursor = cursor(0);
            for number in 0..6000_u32 {
                let mut body = vec![number as u8; 4 + number as usize % 300];
                body[..4].copy_from_slice(&number.to_be_bytes());
                put(log, &cursor, &body);
                if number.is_multiple_of(16) {
                    log.flush().unwrap();
                }
                if number.is_multiple_of(200) {
                    let end = log.range().end.get();
                    log.delete_before(LogOffset::new(end.saturating_sub(30_000))).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        assert!(log.range().start.get() > 100_000);
    }
}

#[test]
fn what_was_accepted_before_a_close_is_there_after_it() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let log = CommitLog::open(dir.path(), 4096).unwrap();
        let accepted: usize = thread::scope(|scope| {
            let appenders: Vec<_> = (0..3)
                .map(|_| {
                    let log = log.clone();
                    scope.spawn(move || {
                        let cursor = cursor(0);
                        let message = Message::new("t").body(b"0123456789");
                        let mut count = 0;
                        while count < 10_000 && log.append(&message, &cursor).is_ok() {
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            thread::sleep(std::time::Duration::from_millis(2));
            log.close().unwrap();
            let again = CommitLog::open(dir.path(), 4096);
            assert!(again.is_ok(), "the lock is free");
            drop(again);
            appenders.into_iter().map(|appender| appender.join().unwrap()).sum()
        });
        let log = CommitLog::open(dir.path(), 4096).unwrap();
        assert_eq!(bodies(&log).len(), accepted);
        fs::remove_dir_all(dir.path()).unwrap();
    }
}

#[test]
fn a_second_open_in_this_process_is_refused() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let log = CommitLog::open(dir.path(), 4096)?;
    assert!(matches!(CommitLog::open(dir.path(), 4096), Err(Error::Locked { .. })));
    log.close()?;
    CommitLog::open(dir.path(), 4096).map(drop)
}

#[test]
fn a_length_that_no_log_file_can_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [0, 1023, 1 << 31] {
        assert!(matches!(CommitLog::open(dir.path(), bytes), Err(Error::InvalidOption { .. })));
    }
}

#[test]
fn a_group_that_is_full_is_written_by_the_append_that_meets_it() {
    let kit = Kit::new(16 << 20, true);
    let opened = kit.open();
    let cursor = cursor(0);
    for _ in 0..5 {
        put(&opened.log, &cursor, &vec![3; 1_500_000]);
    }
    assert!(opened.log.durable_offset().get() > 2_000_000);
    assert!(opened.log.durable_offset() < opened.log.tail());
    opened.log.flush().unwrap();
    assert_eq!(bodies(&opened.log).len(), 5);
}

#[test]
fn after_it_was_shut_a_log_writes_nothing() {
    for grouped in BOTH {
        let kit = Kit::new(1024, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        put(&opened.log, &cursor, b"kept");
        opened.log.flush().unwrap();
        put(&opened.log, &cursor, b"placed");
        opened.log.shut().unwrap();
        let before = snapshot(&kit.path("commitlog"));
        assert!(matches!(try_put(&opened.log, 0, &cursor, &[b"x"]), Err(Error::Closed | Error::Poisoned { .. })));
        let _ = opened.log.flush();
        assert!(opened.log.shared.prepare_file().is_err() && opened.log.shared.grow(5000).is_err());
        assert!(snapshot(&kit.path("commitlog")) == before);
        drop(opened);
        assert_eq!(bodies(&kit.open().log).len(), if grouped { 1 } else { 2 });
    }
}

#[test]
fn a_panic_while_a_record_is_placed_stops_the_log() {
    for grouped in BOTH {
        let kit = Kit::new(4096, grouped);
        let opened = kit.open();
        let cursor = cursor(0);
        let first = put(&opened.log, &cursor, b"first");
        opened.log.flush().unwrap();
        let message = Message::new("t").body(b"second");
        let mut unit = Unit::encode(&[&message], opened.log.encoding(DEFAULT_HOST), Buffers::default()).unwrap();
        let place = std::panic::AssertUnwindSafe(|| {
            let cursors = Cursors { queue: &cursor, light: &[] };
            opened.log.append_unit(&mut unit, cursors, true, &mut |_| panic!("on purpose"))
        });
        std::panic::catch_unwind(place).unwrap_err();
        assert!(matches!(try_put(&opened.log, 0, &cursor, &[b"x"]), Err(Error::Poisoned { .. })));
        assert!(matches!(opened.log.flush(), Err(Error::Poisoned { .. })));
        assert_eq!(opened.log.range().end, first.end());
        assert_eq!(opened.log.read(first.log_offset).unwrap().body(), b"first");
        drop(opened);
        assert_eq!(bodies(&kit.open().log), [b"first"]);
    }
}

#[test]
fn blocks_are_added_beside_appends_without_touching_them() {
    for grouped in BOTH {
        let kit = Kit::new(5 << 20, grouped);
        let opened = kit.open_threaded();
        let log = &opened.log;
        thread::scope(|scope| {
            for number in 0..3_u8 {
                scope.spawn(move || {
                    let cursor = cursor(0);
                    for count in 0..400_u32 {
                        let placed = try_put(log, number.into(), &cursor, &[&vec![number; 8000]]).unwrap()[0];
                        if count.is_multiple_of(8) {
                            log.flush().unwrap();
                            assert!(log.read(placed.log_offset).is_ok());
                        }
                    }
                });
            }
        });
        log.flush().unwrap();
        let records = log.scan(LogOffset::ZERO).filter(|item| !matches!(item, Ok(ScanItem::Blank(_))));
        let records = records.map(|item| match item {
            Ok(ScanItem::Record(view)) => view.body().iter().all(|byte| i32::from(*byte) == view.queue_id()),
            other => panic!("{other:?}"),
        });
        assert_eq!(records.filter(|right| *right).count(), 1200);
    }
}
