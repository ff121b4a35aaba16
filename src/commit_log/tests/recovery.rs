use std::fs;
use std::sync::atomic::Ordering;

use super::super::*;
use super::kit::*;
use crate::error::Error;
use crate::format::record::{BLANK_MAGIC, encode_blank};
use crate::offset::LogOffset;

const BOTH: [bool; 2] = [false, true];

/// A killed store with records of 212 bytes, four in a file: those before `durable` are below the watermark.
fn killed(grouped: bool, records: u8, durable: u8) -> (Kit, Vec<Appended>) {
    let kit = Kit::new(1024, grouped);
    let opened = kit.open();
    let cursor = cursor(0);
    let mut placed = Vec::new();
    for number in 0..records {
        if number == durable {
            opened.log.flush().unwrap();
            opened.log.save_watermark().unwrap();
        }
        placed.push(put(&opened.log, &cursor, &[number; 100]));
    }
    let known = opened.log.shared.watermark.as_ref().unwrap().current();
    opened.log.flush().unwrap();
    if durable < records {
        // The kill came before the watermark moved.
        opened.log.shared.watermark.as_ref().unwrap().update(|now| *now = known).unwrap();
    } else {
        opened.log.save_watermark().unwrap();
    }
    drop(opened);
    (kit, placed)
}

fn forget(kit: &Kit) {
    fs::remove_dir_all(kit.path("mqlog")).unwrap();
}

/// The first bytes of the bodies.
fn firsts(log: &CommitLog) -> Vec<u8> {
    bodies(log).iter().map(|body| body[0]).collect()
}

/// Appends, and what was cut does not come back, whatever is appended over it.
fn goes_on(kit: &Kit, kept: u8, next: u64) {
    let opened = kit.open();
    assert_eq!(firsts(&opened.log), (0..kept).collect::<Vec<_>>());
    let tail = opened.log.tail().get();
    let cursor = cursor(next);
    put(&opened.log, &cursor, b"\xEE");
    opened.log.flush().unwrap();
    drop(opened);
    for again in 0..2 {
        let opened = kit.open();
        let (records, damages) = contents(&opened.log);
        assert_eq!((records.len(), damages.len()), (usize::from(kept) + 1, 0), "opened again {again} times");
        assert_eq!(records.last().unwrap().3, b"\xEE");
        assert!(records.last().unwrap().0 >= tail);
    }
}

#[test]
fn a_record_torn_at_any_byte_is_dropped_whether_the_watermark_is_known_or_not() {
    // The sixth record stands in the middle of the second file, the fifth is its first.
    for (grouped, records) in [(false, 6), (true, 5)] {
        let (kit, placed) = killed(grouped, records, records - 1);
        let last = placed[usize::from(records) - 1];
        let (start, end) = (last.log_offset.get(), last.end().get());
        for cut in start..end {
            for kind in ["zero", "garbage", "short"] {
                for known in [true, false] {
                    // Who does not know that each record has a record CRC takes one without it, as RocketMQ does.
                    let loses_crc = (end - 20..end - 12).contains(&cut);
                    if (!known && (cut % 7 > 1 || loses_crc)) || (grouped && cut % 5 > 0) {
                        continue;
                    }
                    let copy = kit.copy();
                    match kind {
                        "zero" => copy.write(cut, &vec![0; (end - cut) as usize]),
                        "garbage" => copy.write(cut, &(cut..end).map(|at| (at * 37) as u8 ^ 0xA5).collect::<Vec<_>>()),
                        _ => {
                            let file = fs::OpenOptions::new().write(true).open(copy.log_file(1024)).unwrap();
                            file.set_len(cut - 1024).unwrap();
                        }
                    }
                    if !known {
                        forget(&copy);
                    }
                    let torn = copy.bytes(start..cut).iter().any(|byte| *byte != 0) || kind == "garbage";
                    goes_on(&copy, records - 1, u64::from(records) - 1);
                    assert_eq!(copy.cuts().len(), usize::from(torn), "{kind} {known} {cut}");
                    assert_eq!(copy.log_file(1024).metadata().unwrap().len(), 1024);
                }
            }
        }
    }
}

#[test]
fn a_whole_tail_stays_whether_the_watermark_is_known_or_not() {
    for grouped in BOTH {
        for durable in [0, 3, 4, 6] {
            let (kit, _) = killed(grouped, 6, durable);
            let copy = kit.copy();
            forget(&copy);
            for kit in [kit, copy] {
                goes_on(&kit, 6, 6);
                assert_eq!(kit.cuts(), []);
            }
        }
    }
}

#[test]
fn behind_the_watermark_a_valid_record_behind_a_bad_one_is_cut_and_kept_aside() {
    for grouped in BOTH {
        // The bad record is the second of its file, two whole ones follow there, and one in the next file.
        let (kit, placed) = killed(grouped, 9, 3);
        kit.flip(placed[5].log_offset.get() + 120, 1);
        let start = placed[5].log_offset.get();
        let cut = [kit.bytes(start..2048), kit.bytes(2048..placed[8].end().get())];
        let opened = kit.open();
        assert_eq!(opened.found.torn, Some(placed[5].log_offset..placed[8].end()));
        assert!(!kit.log_file(2048).exists());
        let cuts = kit.cuts();
        assert_eq!(cuts[0], (format!("{start:020}"), cut[0].clone()));
        assert_eq!(cuts[1], (format!("{:020}", 2048), cut[1].clone()));
        assert!(kit.bytes(start..2048).iter().all(|byte| *byte == 0));
        drop(opened);
        // As long as the one that was bad: without the zeros the next one would come back.
        let opened = kit.open();
        let cursor = cursor(5);
        put(&opened.log, &cursor, &[5; 100]);
        opened.log.flush().unwrap();
        drop(opened);
        goes_on(&kit, 6, 6);
    }
}

#[test]
fn without_watermark_a_valid_record_behind_a_bad_one_is_corruption_with_its_exact_range() {
    for grouped in BOTH {
        for bad in [0, 1, 3, 5, 7] {
            let (kit, placed) = killed(grouped, 9, 9);
            let at = placed[bad].log_offset.get();
            kit.flip(at + 120, 1);
            forget(&kit);
            let corruption = kit.refused();
            let next = placed[bad + 1].log_offset.get();
            assert_eq!((corruption.range.clone(), corruption.path), (at..next, kit.log_file(at / 1024 * 1024)));
            let before = kit.bytes(at..placed[bad].end().get());
            let opened = kit.salvage();
            let mut whole: Vec<u8> = (0..9).filter(|number| usize::from(*number) != bad).collect();
            let (records, damages) = contents(&opened.log);
            assert_eq!(records.iter().map(|record| record.3[0]).collect::<Vec<_>>(), whole);
            let file_end = at / 1024 * 1024 + 1024;
            assert_eq!((damages.len(), damages[0].clone()), (1, at..next.min(file_end)));
            assert!(matches!(opened.log.read(placed[bad].log_offset), Err(Error::Corrupt(_))));
            let cursor = cursor(9);
            put(&opened.log, &cursor, &[9]);
            opened.log.flush().unwrap();
            whole.push(9);
            assert_eq!(contents(&opened.log).0.len(), 9);
            drop(opened);
            assert_eq!(kit.bytes(at..placed[bad].end().get()), before, "damaged bytes are never touched");
            let again = kit.salvage();
            assert_eq!(contents(&again.log).0.iter().map(|record| record.3[0]).collect::<Vec<_>>(), whole);
        }
    }
}

#[test]
fn stale_records_behind_the_end_do_not_count() {
    for (earlier, queue_offset) in [(5_000, 9), (0, 2)] {
        let (kit, placed) = killed(false, 4, 4);
        forget(&kit);
        // An older log had a record in the second file; somebody cut it, and left the file.
        let stale = kit.copy();
        stale.clock.0.fetch_sub(earlier, Ordering::Relaxed);
        fs::remove_file(stale.log_file(0)).unwrap();
        let old = stale.open();
        for _ in 0..5 {
            put(&old.log, &cursor(0), &[0xAA; 100]);
        }
        let last = put(&old.log, &cursor(queue_offset), &[0xAA; 100]);
        old.log.flush().unwrap();
        drop(old);
        fs::copy(stale.log_file(1024), kit.log_file(1024)).unwrap();
        kit.write(1024, &[0; 212]);
        let opened = kit.open();
        assert_eq!(firsts(&opened.log), [0, 1, 2, 3]);
        assert_eq!(opened.found.torn, Some(placed[3].end()..last.end()));
        drop(opened);
        goes_on(&kit, 4, 4);
    }
}

#[test]
fn damage_below_the_watermark_is_corruption() {
    for grouped in BOTH {
        let (kit, placed) = killed(grouped, 6, 6);
        let last = placed[5];
        kit.flip(last.log_offset.get() + 50, 4);
        assert_eq!(kit.refused().range, last.log_offset.get()..last.end().get());
        let opened = kit.salvage();
        assert_eq!(opened.log.tail(), last.end());
        put(&opened.log, &cursor(6), b"on");
        opened.log.flush().unwrap();
        let (records, damages) = contents(&opened.log);
        assert_eq!((records.len(), damages.len()), (6, 1));
        assert_eq!(damages[0], last.log_offset.get()..last.end().get());
    }
}

#[test]
fn a_flipped_bit_at_any_byte_of_a_record_is_found() {
    let (kit, placed) = killed(false, 8, 8);
    let damaged = placed[5];
    for at in damaged.log_offset.get()..damaged.end().get() {
        let copy = kit.copy();
        copy.flip(at, 1 << (at % 8));
        // Nothing else is known, so opening reads everything; a store that was closed sees it when it reads.
        let range = damaged.log_offset.get()..damaged.end().get();
        assert_eq!(copy.refused().range, range);
        let opened = copy.salvage();
        assert!(matches!(opened.log.read(damaged.log_offset), Err(Error::Corrupt(_))), "byte {at}");
        let (records, damages) = contents(&opened.log);
        assert_eq!((records.len(), damages.len(), &damages[0]), (7, 1, &range), "byte {at}");
        drop(opened);
        if at.is_multiple_of(5) {
            forget(&copy);
            assert_eq!(copy.refused().range, range);
        }
    }
}

#[test]
fn a_blank_with_one_wrong_field_is_repaired() {
    for (wrong, known) in [(0, true), (0, false), (4, true), (4, false)] {
        let (kit, placed) = killed(false, 6, if known { 2 } else { 6 });
        let at = placed[3].end().get();
        let left = (1024 - at) as u32;
        assert_eq!(kit.bytes(at..at + 8), encode_blank(left));
        kit.write(at + wrong, &[0x5A, 0, 1, 2]);
        if !known {
            forget(&kit);
        }
        let opened = kit.open();
        assert_eq!(opened.found.blanks, [LogOffset::new(at)]);
        assert_eq!(kit.bytes(at..at + 8), encode_blank(left));
        drop(opened);
        goes_on(&kit, 6, 6);
    }
}

#[test]
fn a_blank_with_two_wrong_fields_is_damage() {
    let (kit, placed) = killed(false, 6, 6);
    let at = placed[3].end().get();
    kit.write(at, &[0; 8]);
    forget(&kit);
    assert_eq!(kit.refused().range, at..1024);
    let opened = kit.salvage();
    let (records, damages) = contents(&opened.log);
    assert_eq!((records.len(), damages.len(), damages[0].clone()), (6, 1, at..1024));
    assert!(!kit.bytes(at..at + 4).starts_with(&BLANK_MAGIC.to_be_bytes()));
}

#[test]
fn spare_empty_and_short_last_files_are_no_damage() {
    for known in [true, false] {
        for (records, extra) in [(6, 2048), (4, 1024), (4, 2048)] {
            for bytes in [1024, 0, 500] {
                let (kit, _) = killed(false, records, records);
                if extra == 2048 && records == 4 {
                    fs::write(kit.log_file(1024), vec![0; 1024]).unwrap();
                }
                fs::write(kit.log_file(extra), vec![0; bytes]).unwrap();
                if !known {
                    forget(&kit);
                }
                goes_on(&kit, records, u64::from(records));
                assert_eq!(kit.cuts(), []);
            }
        }
    }
    // A short last file whose records are whole.
    for known in [true, false] {
        let (kit, placed) = killed(false, 6, 6);
        let file = fs::OpenOptions::new().write(true).open(kit.log_file(1024)).unwrap();
        file.set_len(placed[5].end().get() - 1024).unwrap();
        if !known {
            forget(&kit);
        }
        goes_on(&kit, 6, 6);
    }
}

#[test]
fn a_lone_empty_file_says_where_the_log_begins() {
    let kit = Kit::new(1024, false);
    fs::create_dir_all(kit.path("commitlog")).unwrap();
    fs::write(kit.log_file(5 * 1024), b"").unwrap();
    let opened = kit.open();
    assert_eq!(put(&opened.log, &cursor(7), b"x").log_offset.get(), 5 * 1024);
}

#[test]
fn durable_bytes_that_a_file_no_longer_has_are_corruption() {
    for (file, bytes, lost) in [(1024, 300, 1324..1448), (1024, 0, 1024..1448), (0, 500, 500..1024)] {
        let (kit, placed) = killed(false, 6, 6);
        assert_eq!(placed[5].end().get(), 1448);
        fs::OpenOptions::new().write(true).open(kit.log_file(file)).unwrap().set_len(bytes).unwrap();
        if file == 1024 && bytes == 0 {
            // An empty last file counts as one that is not there.
            assert_eq!(kit.refused().range, lost);
            continue;
        }
        let range = kit.refused().range;
        assert!(range.start <= lost.start && range.end >= lost.end, "{range:?} {lost:?}");
        drop(kit.salvage());
    }
}

#[test]
fn a_lost_last_file_is_corruption_and_salvage_goes_on_in_its_place() {
    let (kit, _) = killed(false, 6, 6);
    fs::remove_file(kit.log_file(1024)).unwrap();
    assert_eq!(kit.refused().range, 1024..1448);
    let opened = kit.salvage();
    assert_eq!(firsts(&opened.log), [0, 1, 2, 3]);
    assert_eq!(put(&opened.log, &cursor(4), b"\x04").log_offset.get(), 1024);
    opened.log.flush().unwrap();
    drop(opened);
    assert_eq!(firsts(&kit.open().log), [0, 1, 2, 3, 4]);
}

#[test]
fn a_lost_file_in_the_middle_is_corruption() {
    for known in [true, false] {
        let (kit, _) = killed(false, 10, 10);
        fs::remove_file(kit.log_file(1024)).unwrap();
        if !known {
            forget(&kit);
        }
        assert_eq!(kit.refused().range, 1024..2048);
    }
}

#[test]
fn whatever_happens_to_the_files_beside_the_log_the_log_is_right() {
    for name in ["format", "watermark", "derived"] {
        for harm in ["deleted", "emptied", "zeroed", "older", "flipped"] {
            let kit = Kit::new(1024, false);
            let opened = kit.open();
            let cursor = cursor(0);
            for number in 0..3 {
                put(&opened.log, &cursor, &[number; 100]);
            }
            opened.log.flush().unwrap();
            drop(opened);
            let path = kit.path("mqlog").join(name);
            let older = fs::read(&path).ok();
            let opened = kit.open();
            for number in 3..7 {
                put(&opened.log, &cursor, &[number; 100]);
            }
            opened.log.flush().unwrap();
            put(&opened.log, &cursor, &[7; 100]);
            drop(opened);
            let Ok(now) = fs::read(&path) else { continue };
            let flips = if harm == "flipped" { now.len() } else { 1 };
            for at in (0..flips).filter(|at| at % 4096 < 200) {
                let copy = kit.copy();
                let path = copy.path("mqlog").join(name);
                match harm {
                    "deleted" => fs::remove_file(&path).unwrap(),
                    "emptied" => fs::write(&path, b"").unwrap(),
                    "zeroed" => fs::write(&path, vec![0; now.len()]).unwrap(),
                    "older" => fs::write(&path, older.as_ref().unwrap()).unwrap(),
                    _ => {
                        let mut bytes = now.clone();
                        bytes[at] ^= 1 << (at % 8);
                        fs::write(&path, bytes).unwrap();
                    }
                }
                goes_on(&copy, 8, 8);
            }
        }
    }
}

#[test]
fn another_programs_lock_makes_the_watermark_worthless() {
    let (kit, placed) = killed(false, 6, 6);
    // The other program cut the last record.
    kit.write(placed[5].log_offset.get(), &[0; 212]);
    assert_eq!(kit.refused().range, placed[5].log_offset.get()..placed[5].end().get());
    fs::write(kit.path("lock"), b"lock").unwrap();
    let opened = kit.open();
    assert!(opened.known.foreign && opened.known.watermark.is_none() && opened.known.format.is_none());
    drop(opened);
    assert_eq!(&fs::read(kit.path("lock")).unwrap()[..4], b"mqlg");
    goes_on(&kit, 5, 5);
}

#[test]
fn an_interrupted_recovery_is_done_again_to_the_same_end() {
    for operation in ["remove", "write", "sync", "sync_dir"] {
        for part in ["/00000000", "mqlog/cut", "commitlog", "mqlog/watermark", "mqlog/new"] {
            let (kit, placed) = killed(false, 9, 3);
            kit.flip(placed[5].log_offset.get() + 120, 1);
            let cut = kit.bytes(placed[5].log_offset.get()..2048);
            kit.faults.fail(operation, part);
            let _ = kit.try_open();
            kit.faults.mend();
            goes_on(&kit, 5, 5);
            assert!(kit.cuts().iter().any(|(_, bytes)| *bytes == cut), "{operation} {part}");
        }
    }
}

#[test]
fn what_a_failed_sync_left_is_written_again_before_it_counts() {
    let kit = Kit::new(1024, true);
    let opened = kit.open();
    let cursor = cursor(0);
    for number in 0..3 {
        put(&opened.log, &cursor, &[number; 100]);
    }
    opened.log.flush().unwrap();
    opened.log.save_watermark().unwrap();
    for number in 3..6 {
        put(&opened.log, &cursor, &[number; 100]);
    }
    kit.faults.fail("sync", "/00000000");
    opened.log.flush().unwrap_err();
    kit.faults.mend();
    drop(opened);
    let (writes, syncs) = (kit.faults.count("write", "/0000"), kit.faults.count("sync", "/0000"));
    let opened = kit.open();
    assert!(kit.faults.count("write", "/0000") > writes && kit.faults.count("sync", "/0000") > syncs);
    assert_eq!(firsts(&opened.log), [0, 1, 2, 3, 4, 5]);
    assert_eq!(opened.log.durable_offset(), opened.log.tail());
}

#[test]
fn opening_shows_the_records_that_the_caller_asked_for() {
    let (kit, _) = killed(false, 9, 9);
    let mut seen = Vec::new();
    drop(open_log(&kit.options(), &mut |_, record| seen.push(record.queue_offset())).unwrap());
    assert_eq!(seen, (0..9).collect::<Vec<_>>(), "without derived files all of them");
}

#[test]
fn a_clean_log_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = CommitLog::open(dir.path(), 4096).unwrap();
    put(&log, &cursor(0), b"x");
    log.close().unwrap();
    let side = crate::side::SideFolder::new(crate::disk::Storage::real(), dir.path());
    let known = crate::side::WatermarkFile::peek(&side).unwrap().unwrap();
    assert_eq!((known.durable, known.allocated), (LogOffset::new(113), LogOffset::new(113)));
}
