use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

fn side() -> (TempDir, SideFolder) {
    let dir = tempfile::tempdir().unwrap();
    let side = SideFolder::new(Storage::real(), dir.path());
    side.create().unwrap();
    (dir, side)
}

/// A disk that counts its syncs of files, and fails them, or the writes, when told.
#[derive(Debug, Default)]
struct Faults {
    fails_sync: AtomicBool,
    fails_write: AtomicBool,
    syncs: AtomicUsize,
}

impl Watch for Faults {
    fn answer(&self, call: &Call<'_>, _path: &Path) -> Answer {
        match call {
            // A disk that fills up in the middle of a write keeps the part before.
            Call::WriteAt(bytes) if self.fails_write.load(Ordering::Relaxed) => {
                Answer::Tear(bytes.len() / 2, io::ErrorKind::StorageFull.into())
            }
            Call::Sync if self.fails_sync.load(Ordering::Relaxed) => Answer::Fail(io::Error::other("a bad disk")),
            Call::Sync => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                Answer::Go
            }
            _ => Answer::Go,
        }
    }
}

fn faulty_side() -> (TempDir, SideFolder, Arc<Faults>) {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let side = SideFolder::new(Storage::new(Arc::new(WatchedDisk(Arc::clone(&faults)))), dir.path());
    side.create().unwrap();
    (dir, side, faults)
}

/// Calls `check` with `bytes` cut at every length below theirs and with every single bit flipped.
fn damage(bytes: &[u8], mut check: impl FnMut(&[u8], &str)) {
    for len in 0..bytes.len() {
        check(&bytes[..len], &format!("cut at {len}"));
    }
    let mut changed = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        changed[bit / 8] ^= 1 << (bit % 8);
        check(&changed, &format!("bit {bit} flipped"));
        changed[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Calls `check` with the file missing, empty, replaced by a folder, and longer than it should be by some zeros.
fn damage_file(path: &Path, mut check: impl FnMut(&str)) {
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    check("missing");
    fs::create_dir(path).unwrap();
    check("a folder");
    fs::remove_dir(path).unwrap();
    for (content, what) in [(Vec::new(), "empty"), (vec![0; bytes.len()], "zeros"), (vec![0xFF; 9000], "ones")] {
        fs::write(path, content).unwrap();
        check(what);
    }
    fs::write(path, bytes).unwrap();
}

mod folder {
    use super::*;

    #[test]
    fn a_missing_folder_is_made_with_those_above_it_and_making_it_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let side = SideFolder::new(Storage::real(), &dir.path().join("a/store"));
        assert_eq!(StoreFormat::load(&side).unwrap(), None);
        assert_eq!(WatermarkFile::peek(&side).unwrap(), None);
        assert!(WatermarkFile::open(&side).unwrap().is_none());
        assert_eq!(Derived::load(&side).unwrap(), None);
        side.clear().unwrap();
        side.create().unwrap();
        side.create().unwrap();
        assert_eq!(side.root(), dir.path().join("a/store"));
        assert!(side.path().join("new").is_dir() && side.path().join("cut").is_dir());
    }

    #[test]
    fn bytes_that_were_cut_are_never_overwritten() {
        let (_dir, side) = side();
        let at = LogOffset::new(4096);
        let first = side.keep_cut(at, b"one").unwrap();
        let second = side.keep_cut(at, b"two!").unwrap();
        let third = side.keep_cut(at, b"").unwrap();
        assert_eq!(first, side.path().join("cut/00000000000000004096"));
        assert_eq!(second, side.path().join("cut/00000000000000004096.1"));
        assert_eq!(third, side.path().join("cut/00000000000000004096.2"));
        assert_eq!(side.keep_cut(at, b"two!").unwrap(), second, "the same bytes again");
        assert_eq!(fs::read(first).unwrap(), b"one");
        assert_eq!(fs::read(second).unwrap(), b"two!");
        assert_eq!(fs::read(third).unwrap(), b"");
        assert_eq!(fs::read_dir(side.path().join("new")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(side.path().join("cut")).unwrap().count(), 3);
    }

    #[test]
    fn clearing_removes_what_we_know_and_keeps_what_was_cut() {
        let (_dir, side) = side();
        format::sample().save(&side).unwrap();
        WatermarkFile::create(&side, &watermark::mark(1)).unwrap();
        DerivedFile::create(&side, &derived::frame(1, &[1, 2])).unwrap();
        let cut = side.keep_cut(LogOffset::new(7), b"kept").unwrap();
        fs::write(side.new_path("00000000000000000000"), b"half").unwrap();
        fs::write(side.path().join("derived.tmp"), b"half").unwrap();
        fs::write(side.path().join("notes"), b"not ours").unwrap();
        side.clear().unwrap();
        let left: Vec<_> = side.storage().list(side.path()).unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(left, ["cut", "new", "notes"]);
        assert_eq!(fs::read_dir(side.path().join("new")).unwrap().count(), 0);
        assert_eq!(fs::read(cut).unwrap(), b"kept");
    }
}

mod format {
    use super::*;

    pub(super) fn sample() -> StoreFormat {
        StoreFormat {
            log_file_bytes: 64 << 20,
            queue_file_entries: 20_000,
            batch_queue_file_entries: 20_000,
            index_slots: 100_000,
            index_entries: 400_000,
            record_crc_from: Some(LogOffset::ZERO),
            damaged: Vec::new(),
            clean: true,
        }
    }

    #[test]
    fn the_text_is_the_one_in_the_description() {
        let expected = "mqlog 1\nlog_file_bytes 67108864\nqueue_file_entries 20000\n\
                        batch_queue_file_entries 20000\nindex_slots 100000\nindex_entries 400000\n\
                        record_crc_from 0\nclean yes\ncrc32c e10b0f93\n";
        assert_eq!(sample().encode(), expected);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let (_dir, side) = side();
        for record_crc_from in [None, Some(LogOffset::ZERO), Some(LogOffset::MAX)] {
            for clean in [false, true] {
                for damaged in [vec![], vec![107..214, 300..301], vec![0..1, 7..u64::MAX]] {
                    let saved = StoreFormat { record_crc_from, damaged, clean, ..sample() };
                    saved.save(&side).unwrap();
                    assert_eq!(StoreFormat::load(&side).unwrap(), Some(saved));
                }
            }
        }
    }

    #[test]
    fn damage_counts_as_missing() {
        damage(sample().encode().as_bytes(), |bytes, what| assert_eq!(StoreFormat::decode(bytes), None, "{what}"));
        let (_dir, side) = side();
        sample().save(&side).unwrap();
        damage_file(&side.path().join("format"), |what| assert_eq!(StoreFormat::load(&side).unwrap(), None, "{what}"));
        assert_eq!(StoreFormat::load(&side).unwrap(), Some(sample()));
    }

    /// Sizes were believed if the checksum was right, and an opening divided by a length of 0. Now a file with sizes that
    /// no store can have is one of a version that this one does not know. Found by fuzzing.
    #[test]
    fn sizes_that_no_store_can_have_count_as_missing() {
        let wrong: [fn(&mut StoreFormat); 8] = [
            |format| format.log_file_bytes = 0,
            |format| format.log_file_bytes = 1 << 31,
            |format| format.queue_file_entries = 0,
            |format| format.queue_file_entries = u32::MAX,
            |format| format.batch_queue_file_entries = 0,
            |format| format.index_slots = 0,
            |format| format.index_slots = 1 << 30,
            |format| format.index_entries = 1,
        ];
        for change in wrong {
            let mut format = sample();
            change(&mut format);
            assert_eq!(StoreFormat::decode(format.encode().as_bytes()), None, "{format:?}");
        }
    }

    #[test]
    fn another_version_and_another_spelling_count_as_missing() {
        let text = sample().encode();
        let with_crc = |text: &str| {
            let lines = text.split_once("crc32c").unwrap().0;
            format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
        };
        assert_eq!(with_crc(&text), text);
        for (from, to) in [("mqlog 1", "mqlog 2"), ("yes", "maybe"), ("slots 1", "slots 01"), ("slots 1", "slots +1")] {
            assert_eq!(StoreFormat::decode(with_crc(&text.replace(from, to)).as_bytes()), None, "{to}");
        }
        assert_eq!(StoreFormat::decode(format!("{text}\n").as_bytes()), None);
    }
}

mod watermark {
    use super::super::watermark::{SLOT_BYTES, decode_file};
    use super::*;

    pub(super) fn mark(n: u64) -> Watermark {
        let last = LastRecord { offset: LogOffset::new(n * 1000 - 100), bytes: 100, crc32c: 0xDEAD_0000 + n as u32 };
        Watermark {
            durable: LogOffset::new(n * 1000),
            allocated: LogOffset::new(n * 2000),
            last: Some(last),
            crc_from: Some(LogOffset::new(n)),
        }
    }

    fn fresh() -> Watermark {
        Watermark { durable: LogOffset::ZERO, allocated: LogOffset::new(1 << 20), last: None, crc_from: None }
    }

    fn content(side: &SideFolder) -> Vec<u8> {
        fs::read(side.path().join("watermark")).unwrap()
    }

    #[test]
    fn a_slot_has_these_bytes() {
        let slot = mark(1).encode(5);
        let mut expected = b"mqlogWM1".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        expected.extend([0, 0, 0, 0, 0, 0, 0x03, 0xE8]);
        expected.extend([0, 0, 0, 0, 0, 0, 0x07, 0xD0]);
        expected.extend([0, 0, 0, 0, 0, 0, 0x03, 0x84]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 100]);
        expected.extend([0, 0, 0, 0, 0xDE, 0xAD, 0, 1]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend(u64::from(crc32c::crc32c(&expected)).to_be_bytes());
        assert_eq!(slot, expected);
        assert_eq!(Watermark::decode(&slot), Some((5, mark(1))));
        damage(&slot, |bytes, what| assert_eq!(Watermark::decode(bytes), None, "{what}"));
    }

    #[test]
    fn what_is_stored_is_there_after_opening_again() {
        let (_dir, side) = side();
        let file = WatermarkFile::create(&side, &fresh()).unwrap();
        assert_eq!(file.current(), fresh());
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(fresh()));
        for n in 1..6 {
            let (file, before) = WatermarkFile::open(&side).unwrap().unwrap();
            assert_eq!(before, if n == 1 { fresh() } else { mark(n - 1) });
            file.store(&mark(n)).unwrap();
            assert_eq!(file.current(), mark(n));
            assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(n)));
        }
        // A lower one counts too: that is what a deliberate truncation stores.
        let (file, _) = WatermarkFile::open(&side).unwrap().unwrap();
        file.store(&mark(1)).unwrap();
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(1)));
        WatermarkFile::create(&side, &mark(9)).unwrap();
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(9)));
    }

    #[test]
    fn the_slots_take_turns_and_a_torn_one_leaves_the_other() {
        let (_dir, side) = side();
        let file = WatermarkFile::create(&side, &mark(1)).unwrap();
        let mut before = content(&side);
        assert_eq!(before.len(), 8192);
        let mut last_at = None;
        for n in 2..8 {
            file.store(&mark(n)).unwrap();
            let after = content(&side);
            let changed: Vec<usize> = (0..8192).filter(|at| before[*at] != after[*at]).map(|at| at / 4096).collect();
            assert!(changed.iter().all(|block| *block == changed[0]), "one slot at a time");
            assert_ne!(last_at.replace(changed[0]), Some(changed[0]), "the other slot than before");
            let slot = changed[0] * 4096..changed[0] * 4096 + SLOT_BYTES;
            for torn in slot.clone() {
                let mut bytes = before.clone();
                bytes[slot.start..torn].copy_from_slice(&after[slot.start..torn]);
                assert_eq!(decode_file(&bytes).unwrap().1, mark(n - 1), "new up to {torn}");
                let mut bytes = after.clone();
                bytes[torn..slot.end].fill(0xA5);
                assert_eq!(decode_file(&bytes).unwrap().1, mark(n - 1), "wrong from {torn}");
            }
            before = after;
        }
    }

    #[test]
    fn damage_counts_as_missing_or_as_the_state_before() {
        let (_dir, side) = side();
        WatermarkFile::create(&side, &mark(1)).unwrap().store(&mark(2)).unwrap();
        let mut states = [0; 3];
        damage(&content(&side), |bytes, what| match decode_file(bytes) {
            None => {
                assert!(what.starts_with("cut"));
                states[0] += 1;
            }
            Some((_, found)) if found == mark(1) => states[1] += 1,
            Some((_, found)) => {
                assert_eq!(found, mark(2), "{what}");
                states[2] += 1;
            }
        });
        assert_eq!(states, [8192, SLOT_BYTES * 8, (8192 - SLOT_BYTES) * 8]);
        let mut both = content(&side);
        both[20] ^= 1;
        both[4096 + 20] ^= 1;
        assert_eq!(decode_file(&both), None, "both slots damaged");
        let mut swapped = content(&side);
        swapped.rotate_left(4096);
        assert_eq!(decode_file(&swapped), None, "a block in the other one's place");
        damage_file(&side.path().join("watermark"), |what| {
            assert_eq!(WatermarkFile::peek(&side).unwrap(), None, "{what}");
            assert!(WatermarkFile::open(&side).unwrap().is_none(), "{what}");
        });
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(2)));
    }

    #[test]
    fn after_a_torn_slot_the_next_store_goes_there() {
        let (_dir, side) = side();
        WatermarkFile::create(&side, &mark(1)).unwrap().store(&mark(2)).unwrap();
        let mut torn = content(&side);
        torn[40] ^= 1;
        fs::write(side.path().join("watermark"), &torn).unwrap();
        let (file, found) = WatermarkFile::open(&side).unwrap().unwrap();
        assert_eq!(found, mark(1));
        file.store(&mark(3)).unwrap();
        assert_eq!(content(&side)[4096..], torn[4096..], "the only good slot is not touched");
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(3)));
    }

    #[test]
    fn each_store_is_one_sync_and_a_failed_one_stops_the_file() {
        let (_dir, side, faults) = faulty_side();
        let file = WatermarkFile::create(&side, &mark(1)).unwrap();
        let syncs = faults.syncs.load(Ordering::Relaxed);
        file.store(&mark(2)).unwrap();
        assert_eq!(faults.syncs.load(Ordering::Relaxed), syncs + 1);
        faults.fails_write.store(true, Ordering::Relaxed);
        assert!(file.store(&mark(3)).unwrap_err().is_disk_full());
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(mark(2)));
        faults.fails_write.store(false, Ordering::Relaxed);
        file.store(&mark(4)).unwrap();
        faults.fails_sync.store(true, Ordering::Relaxed);
        assert!(matches!(file.store(&mark(5)), Err(Error::Poisoned { .. })));
        assert_eq!(file.current(), mark(4));
        faults.fails_sync.store(false, Ordering::Relaxed);
        let before = content(&side);
        assert!(matches!(file.store(&mark(6)), Err(Error::Poisoned { .. })));
        assert_eq!(content(&side), before, "nothing is written any more");
    }

    #[test]
    fn threads_that_change_different_parts_do_not_undo_each_other() {
        let (_dir, side, faults) = faulty_side();
        let file = WatermarkFile::create(&side, &fresh()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..50).for_each(|n| file.update(|known| known.durable = LogOffset::new(n)).unwrap());
            });
            scope.spawn(|| {
                (1..50).for_each(|n| file.update(|known| known.allocated = LogOffset::new((n + 1) << 20)).unwrap());
            });
        });
        let expected = Watermark { durable: LogOffset::new(49), allocated: LogOffset::new(50 << 20), ..fresh() };
        assert_eq!(file.current(), expected);
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(expected));
        let syncs = faults.syncs.load(Ordering::Relaxed);
        file.update(|known| known.durable = LogOffset::new(49)).unwrap();
        assert_eq!(faults.syncs.load(Ordering::Relaxed), syncs, "nothing changed, so nothing is written");
    }

    #[test]
    fn stores_from_many_threads_leave_one_of_them() {
        let (_dir, side) = side();
        let file = WatermarkFile::create(&side, &mark(1)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let file = &file;
                scope.spawn(move || (1..20).for_each(|n| file.store(&mark(thread * 100 + n)).unwrap()));
            }
        });
        assert_eq!(WatermarkFile::peek(&side).unwrap(), Some(file.current()));
    }
}

mod derived {
    use super::super::derived::decode_file;
    use super::*;
    use crate::offset::QueueOffset;

    /// Frame `n`, which touched the queues `ids` and says something different of each than any other frame.
    pub(super) fn frame(n: u64, ids: &[i32]) -> Frame {
        let file = |base| FileState { base, bytes: 400_000, modified_ns: n * 1_000_000_007 };
        let queue = |id: &i32| QueueState {
            topic: format!("topic-{}", id % 3),
            queue_id: *id,
            batch: id % 2 == 1,
            min: QueueOffset::new(n),
            next: QueueOffset::new(n * 10),
            entries: n * 9,
            files: (0..n % 3).map(|at| file(at * 400_000)).collect(),
        };
        let index = |at| IndexState {
            name: 20_240_101_000_000_000 + at,
            next_entry: n as u32 + 1,
            bytes: 8_400_040,
            modified_ns: n * 77,
        };
        Frame {
            log_offset: LogOffset::new(n * 1000),
            store_ms: 1_700_000_000_000 + n as i64,
            last: (n % 4 != 3).then(|| LastRecord { offset: LogOffset::new(n * 1000 - 9), bytes: 9, crc32c: n as u32 }),
            log_start: LogOffset::new(n),
            queues: ids.iter().map(queue).collect(),
            index: (0..n % 2 + 1).map(index).collect(),
        }
    }

    fn merged(frames: &[Frame]) -> Derived {
        let last = frames.last().unwrap();
        let queues = frames.iter().flat_map(|frame| &frame.queues);
        Derived {
            log_offset: last.log_offset,
            store_ms: last.store_ms,
            last: last.last,
            log_start: last.log_start,
            queues: queues.map(|queue| ((queue.topic.clone(), queue.queue_id), queue.clone())).collect(),
            index: last.index.clone(),
        }
    }

    fn content(side: &SideFolder) -> Vec<u8> {
        fs::read(side.path().join("derived")).unwrap()
    }

    /// Three frames, and where each ends.
    fn three(side: &SideFolder) -> (Vec<Frame>, Vec<usize>) {
        let frames = vec![frame(1, &[0, 1, 2]), frame(2, &[1]), frame(3, &[2, 5])];
        let mut file = DerivedFile::create(side, &frames[0]).unwrap();
        let mut ends = vec![content(side).len()];
        for frame in &frames[1..] {
            file.append(frame).unwrap();
            ends.push(content(side).len());
        }
        (frames, ends)
    }

    /// Found by fuzzing: the number behind the last one there is was computed, and overflowed.
    #[test]
    fn a_frame_with_the_last_number_makes_the_file_count_as_missing() {
        let (_dir, side) = side();
        DerivedFile::create(&side, &frame(1, &[0])).unwrap();
        let mut bytes = content(&side);
        let checked = bytes.len() - 8;
        bytes[8 + 12..][..8].fill(0xFF);
        let crc = u64::from(crc32c::crc32c(&bytes[8..checked]));
        bytes[checked..].copy_from_slice(&crc.to_be_bytes());
        assert!(decode_file(&bytes).is_none());
        bytes[8 + 19] = 0xFE;
        let crc = u64::from(crc32c::crc32c(&bytes[8..checked]));
        bytes[checked..].copy_from_slice(&crc.to_be_bytes());
        assert!(decode_file(&bytes).is_some());
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let (_dir, side) = side();
        let queue = QueueState {
            topic: "T".to_owned(),
            queue_id: -2,
            batch: true,
            min: QueueOffset::new(1),
            next: QueueOffset::new(2),
            entries: 3,
            files: vec![FileState { base: 4, bytes: 5, modified_ns: 6 }],
        };
        let index = IndexState { name: 7, next_entry: 8, bytes: 9, modified_ns: 10 };
        let (log_offset, log_start) = (LogOffset::new(0x1122), LogOffset::new(0x1020));
        let last = Some(LastRecord { offset: LogOffset::new(0x1102), bytes: 0x20, crc32c: 0xFEDC });
        let frame = Frame { log_offset, store_ms: -1, last, log_start, queues: vec![queue], index: vec![index] };
        DerivedFile::create(&side, &frame).unwrap();
        let mut frame = b"mqfr".to_vec();
        let mut push = |numbers: &[u64]| frame.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        push(&[177, 0]);
        push(&[0x1122, u64::MAX, 0x1102, 0x20, 0xFEDC, 0x1020, 1, 1]);
        frame.push(b'T');
        let mut push = |numbers: &[u64]| frame.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        push(&[u64::MAX - 1, 1, 1, 2, 3, 1, 4, 5, 6]);
        push(&[1, 7, 8, 9, 10]);
        frame.extend(u64::from(crc32c::crc32c(&frame)).to_be_bytes());
        assert_eq!(content(&side), [b"mqlogDR1".as_slice(), &frame].concat());
    }

    #[test]
    fn frames_merge_in_order() {
        let (_dir, side) = side();
        let (frames, _) = three(&side);
        assert_eq!(Derived::load(&side).unwrap(), Some(merged(&frames)));
        let (mut file, found) = DerivedFile::open(&side).unwrap().unwrap();
        assert_eq!(found, merged(&frames));
        file.append(&frame(4, &[])).unwrap();
        let frames = [frames, vec![frame(4, &[])]].concat();
        assert_eq!(Derived::load(&side).unwrap(), Some(merged(&frames)));
    }

    #[test]
    fn damage_of_the_last_frame_leaves_those_before_and_any_other_counts_as_missing() {
        let (_dir, side) = side();
        let (frames, ends) = three(&side);
        let states: Vec<Derived> = (1..=3).map(|count| merged(&frames[..count])).collect();
        let bytes = content(&side);
        let mut position = 0;
        damage(&bytes, |damaged, what| {
            let found = decode_file(damaged).map(|(derived, _)| derived);
            if what.starts_with("cut") {
                let whole = ends.iter().filter(|end| **end <= damaged.len()).count();
                assert_eq!(found.as_ref(), whole.checked_sub(1).map(|at| &states[at]), "{what}");
            } else {
                let expected = (position / 8 >= ends[1]).then_some(&states[1]);
                assert_eq!(found.as_ref(), expected, "{what}");
                position += 1;
            }
        });
        damage_file(&side.path().join("derived"), |what| {
            assert_eq!(Derived::load(&side).unwrap(), None, "{what}");
            assert!(DerivedFile::open(&side).unwrap().is_none(), "{what}");
        });
        assert_eq!(Derived::load(&side).unwrap().as_ref(), Some(&states[2]));
    }

    #[test]
    fn a_frame_left_out_or_out_of_order_makes_the_file_count_as_missing() {
        let (_dir, side) = side();
        let (_, ends) = three(&side);
        let bytes = content(&side);
        let (first, second, third) = (&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..]);
        assert!(decode_file(&[first, third].concat()).is_none());
        assert!(decode_file(&[first, third, second].concat()).is_none());
        assert!(decode_file(&[first, second, second].concat()).is_none());
        assert!(decode_file(&[first, &[0; 100], third].concat()).is_none());
        assert!(decode_file(&[first, second, &[0; 100]].concat()).is_some_and(|(_, place)| place.is_torn));
    }

    #[test]
    fn after_a_torn_frame_the_next_one_goes_into_a_new_file() {
        let (_dir, side) = side();
        let (frames, ends) = three(&side);
        let bytes = content(&side);
        for end in [ends[1] + 1, ends[2] - 1] {
            fs::write(side.path().join("derived"), &bytes[..end]).unwrap();
            let (mut file, found) = DerivedFile::open(&side).unwrap().unwrap();
            assert_eq!(found, merged(&frames[..2]));
            for more in [frame(4, &[7]), frame(5, &[0])] {
                file.append(&more).unwrap();
            }
            let expected = merged(&[&frames[..2], &[frame(4, &[7]), frame(5, &[0])]].concat());
            assert_eq!(Derived::load(&side).unwrap(), Some(expected));
            assert!(!decode_file(&content(&side)).unwrap().1.is_torn);
        }
    }

    #[test]
    fn compaction_keeps_what_the_frames_said_and_bounds_the_file() {
        let (_dir, side) = side();
        let all: Vec<i32> = (0..50).collect();
        let mut frames = vec![frame(1, &all)];
        let mut file = DerivedFile::create(&side, &frames[0]).unwrap();
        let (mut longest, mut compactions, mut before) = (0, 0, 0);
        for n in 2..400 {
            if n % 50 == 0 {
                file = DerivedFile::open(&side).unwrap().unwrap().0;
            }
            frames.push(frame(n, &[n as i32 % 50, n as i32 % 7, 100 + n as i32 / 100]));
            file.append(frames.last().unwrap()).unwrap();
            let len = content(&side).len();
            compactions += u32::from(len < before);
            before = len;
            longest = longest.max(len);
            if n % 20 == 0 || compactions > 0 && len < 10_000 {
                assert_eq!(Derived::load(&side).unwrap(), Some(merged(&frames)), "after {n}");
            }
        }
        assert_eq!(Derived::load(&side).unwrap(), Some(merged(&frames)));
        assert!(compactions >= 1 && longest < 80_000, "{compactions} compactions, at most {longest} bytes");
    }

    #[test]
    fn a_frame_that_failed_may_be_given_again() {
        let (_dir, side, faults) = faulty_side();
        let mut frames = vec![frame(1, &[0, 1])];
        let mut file = DerivedFile::create(&side, &frames[0]).unwrap();
        for (n, fault) in [(2, &faults.fails_write), (3, &faults.fails_sync)] {
            fault.store(true, Ordering::Relaxed);
            for _ in 0..3 {
                assert!(file.append(&frame(n, &[1, 2])).is_err());
                let found = Derived::load(&side).unwrap().unwrap();
                // After the failed sync the frame may be there or not; what it says is true either way.
                assert!(found == merged(&frames) || found.log_offset == LogOffset::new(3000));
            }
            fault.store(false, Ordering::Relaxed);
            frames.push(frame(n + 10, &[2]));
            file.append(frames.last().unwrap()).unwrap();
            let found = Derived::load(&side).unwrap().unwrap();
            assert_eq!(found.log_offset, LogOffset::new((n + 10) * 1000));
            assert!(!decode_file(&content(&side)).unwrap().1.is_torn);
        }
    }

    #[test]
    fn each_frame_is_one_sync() {
        let (_dir, side, faults) = faulty_side();
        let mut file = DerivedFile::create(&side, &frame(1, &[0])).unwrap();
        let syncs = faults.syncs.load(Ordering::Relaxed);
        file.append(&frame(2, &[0])).unwrap();
        assert_eq!(faults.syncs.load(Ordering::Relaxed), syncs + 1);
    }

    #[test]
    fn a_file_damaged_while_open_is_named_when_it_is_compacted() {
        let (_dir, side) = side();
        let (_, ends) = three(&side);
        let (mut file, _) = DerivedFile::open(&side).unwrap().unwrap();
        let mut bytes = content(&side);
        bytes[ends[0] - 1] ^= 1;
        fs::write(side.path().join("derived"), &bytes).unwrap();
        let big: Vec<i32> = (0..2000).collect();
        assert!(matches!(file.append(&frame(4, &big)), Err(Error::Corrupt(_))));
        let mut file = DerivedFile::create(&side, &frame(5, &big)).unwrap();
        file.append(&frame(6, &[1])).unwrap();
        assert_eq!(Derived::load(&side).unwrap(), Some(merged(&[frame(5, &big), frame(6, &[1])])));
    }
}

mod rocketmq {
    use super::*;
    use crate::format::checkpoint::Checkpoint;

    fn stamps(n: i64) -> Checkpoint {
        Checkpoint { log_ms: n, queue_ms: n + 1, index_ms: n + 2, master_flushed_offset: n + 3, confirm_offset: n + 4 }
    }

    #[test]
    fn the_checkpoint_is_made_whole_and_then_written_in_place() {
        let (dir, side, faults) = faulty_side();
        let (storage, root, path) = (side.storage(), dir.path(), dir.path().join("checkpoint"));
        assert_eq!(load_checkpoint(storage, root).unwrap(), None);
        store_checkpoint(storage, root, &stamps(1)).unwrap();
        assert_eq!(load_checkpoint(storage, root).unwrap(), Some(stamps(1)));
        let mut expected = [1_i64, 2, 3, 4, 5].map(i64::to_be_bytes).concat();
        expected.resize(4096, 0);
        assert_eq!(fs::read(&path).unwrap(), expected);
        // What stands behind the fields is not ours to change; RocketMQ has the same file mapped.
        expected[4095] = 9;
        fs::write(&path, &expected).unwrap();
        let syncs = faults.syncs.load(Ordering::Relaxed);
        store_checkpoint(storage, root, &stamps(1 << 40)).unwrap();
        assert_eq!(faults.syncs.load(Ordering::Relaxed), syncs + 1);
        assert_eq!(load_checkpoint(storage, root).unwrap(), Some(stamps(1 << 40)));
        assert_eq!(fs::read(&path).unwrap()[40..], expected[40..]);
        assert!(!root.join("checkpoint.tmp").exists());
    }

    #[test]
    fn a_checkpoint_that_is_cut_counts_as_missing_and_gets_its_length_again() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, path) = (Storage::real(), dir.path().join("checkpoint"));
        store_checkpoint(&storage, dir.path(), &stamps(7)).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in (0..50).chain([4095]) {
            fs::write(&path, &whole[..len]).unwrap();
            let expected = (len >= 40).then(|| stamps(7));
            assert_eq!(load_checkpoint(&storage, dir.path()).unwrap(), expected, "cut at {len}");
        }
        store_checkpoint(&storage, dir.path(), &stamps(7)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        fs::remove_file(&path).unwrap();
        assert_eq!(load_checkpoint(&storage, dir.path()).unwrap(), None);
    }

    #[test]
    fn abort_comes_and_goes_and_holds_the_process_id() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::real();
        assert!(!has_abort(&storage, dir.path()).unwrap());
        remove_abort(&storage, dir.path()).unwrap();
        create_abort(&storage, dir.path()).unwrap();
        assert!(has_abort(&storage, dir.path()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("abort")).unwrap(), std::process::id().to_string());
        fs::write(dir.path().join("abort"), b"").unwrap();
        create_abort(&storage, dir.path()).unwrap();
        assert!(has_abort(&storage, dir.path()).unwrap(), "an empty one, as RocketMQ 4.9 makes it, is one too");
        remove_abort(&storage, dir.path()).unwrap();
        assert!(!has_abort(&storage, dir.path()).unwrap());
    }
}
