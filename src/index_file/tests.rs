//! Tests of the index as a whole: against RocketMQ's own files, against a model, with damage, on a full disk.

use std::ops::RangeInclusive;

use super::IndexSet;
use crate::error::Result;
use crate::offset::LogOffset;

impl IndexSet {
    /// All candidates that `matches` says yes to.
    fn query(
        &self,
        topic: &str,
        key: &str,
        times: RangeInclusive<i64>,
        matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        self.candidates(topic, key, times).select(matches)
    }
}

mod sets {
    //! The set of index files, and one file alone.

    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::super::{IndexFile, IndexSet, detect_layout};
    use crate::clock::Clock;
    use crate::disk::Storage;
    use crate::error::Error;
    use crate::format::index::{IndexEntry, IndexHeader, IndexLayout};
    use crate::offset::LogOffset;

    /// Enough entries that more than one run of them is written.
    pub(super) const LAYOUT: IndexLayout = IndexLayout { slots: 2_000, entries: 9_000 };
    const SMALL: IndexLayout = IndexLayout { slots: 3, entries: 5 };

    #[derive(Debug)]
    struct Frozen;

    impl Clock for Frozen {
        fn now_ms(&self) -> i64 {
            1_695_128_759_007
        }
    }

    pub(super) fn offset(n: u64) -> LogOffset {
        LogOffset::new(n * 100)
    }

    pub(super) fn open_on(storage: Storage, root: &Path) -> IndexSet {
        IndexSet::open(storage, root, LAYOUT, &root.join("mqlog/new"), Arc::new(Frozen)).unwrap().0
    }

    pub(super) fn open(root: &Path, layout: IndexLayout) -> IndexSet {
        IndexSet::open(Storage::real(), root, layout, &root.join("mqlog/new"), Arc::new(Frozen)).unwrap().0
    }

    pub(super) fn paths(root: &Path) -> Vec<PathBuf> {
        let Ok(names) = fs::read_dir(root.join("index")) else { return Vec::new() };
        let mut paths: Vec<_> = names.map(|name| name.unwrap().path()).collect();
        paths.sort();
        paths
    }

    pub(super) fn contents(root: &Path) -> Vec<Vec<u8>> {
        paths(root).iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn all(set: &IndexSet, key: &str) -> Vec<u64> {
        set.query("T", key, i64::MIN..=i64::MAX, |_| Ok(true))
            .unwrap()
            .iter()
            .map(|offset| offset.get() / 100)
            .collect()
    }

    #[test]
    fn a_file_takes_one_entry_less_than_its_layout_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("20230919130559007");
        let file = IndexFile::create(&path, SMALL).unwrap();
        for n in 0..4 {
            assert!(file.put("T", "a", offset(n), 10).unwrap());
        }
        assert!(!file.put("T", "b", offset(4), 10).unwrap());
        file.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap().len() as u64, SMALL.file_bytes());
        let file = IndexFile::open(&path, SMALL).unwrap();
        assert!(!file.put("T", "b", offset(4), 10).unwrap());
        let found = file.query("T", "a", 10..=10, |_| Ok(true)).unwrap();
        assert_eq!(found, [offset(3), offset(2), offset(1), offset(0)]);
    }

    #[test]
    fn an_existing_file_is_not_made_again_and_a_wrong_one_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for layout in [
            IndexLayout { slots: 0, entries: 5 },
            IndexLayout { slots: 5, entries: 1 },
            IndexLayout { slots: u32::MAX, entries: 5 },
        ] {
            assert!(matches!(IndexFile::create(&path, layout), Err(Error::InvalidOption { .. })));
        }
        IndexFile::create(&path, SMALL).unwrap().put("T", "a", offset(1), 1).unwrap();
        assert!(matches!(IndexFile::create(&path, SMALL), Err(Error::Io { .. })));
        let other = IndexLayout { slots: 4, entries: 5 };
        assert!(matches!(IndexFile::open(&path, other), Err(Error::Corrupt(_))));
        let mut bytes = fs::read(&path).unwrap();
        bytes[36..40].copy_from_slice(&9_u32.to_be_bytes());
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(IndexFile::open(&path, SMALL), Err(Error::Corrupt(_))));
    }

    /// The header of an index file has no checksum. One that counted as many slots as its field can hold was taken for
    /// sound; the next entry counted one more, and writing the header panicked. Now the count ends at the number of
    /// slots. Found by fuzzing.
    #[test]
    fn a_damaged_slot_count_does_not_keep_a_file_from_taking_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        IndexFile::create(&path, SMALL).unwrap().flush().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[32..36].copy_from_slice(&i32::MAX.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let file = IndexFile::open(&path, SMALL).unwrap();
        assert!(file.put("t", "k", offset(1), 1_000).unwrap());
        file.flush().unwrap();
        let header = IndexHeader::decode(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((header.slot_count, header.next_entry), (SMALL.slots, 2));
    }

    #[test]
    fn files_in_order_answer_newest_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let set = open(dir.path(), SMALL);
        for n in 0..9 {
            set.put("T", ["Aa", "BB"], offset(n), 1_000_000 + 1_000 * n as i64).unwrap();
        }
        assert_eq!(all(&set, "Aa"), [8, 7, 6, 5, 4, 3, 2, 1, 0], "found before anything is flushed");
        let names: Vec<_> = paths(dir.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(
            names,
            ["20230919010559007", "20230919010559008", "20230919010559009", "20230919010559010", "20230919010559011"]
        );
        let even = set.query("T", "Aa", i64::MIN..=i64::MAX, |found| Ok(found.get() % 200 == 0)).unwrap();
        assert_eq!(even, [offset(8), offset(6), offset(4), offset(2), offset(0)], "the caller tells the keys apart");
        let candidates: Vec<_> = set.candidates("T", "BB", 1_004_000..=1_005_000).map(Result::unwrap).collect();
        assert_eq!(
            candidates,
            [offset(8), offset(6), offset(5), offset(4)],
            "0 seconds may be any time before the first"
        );
        assert_eq!(all(&set, "other"), [0; 0]);
    }

    #[test]
    fn a_record_put_again_gets_what_is_missing_only() {
        let (dir, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (set, expected) = (open(dir.path(), SMALL), open(plain.path(), SMALL));
        let keys = ["u", "Aa", "BB", "Aa", "v", "w", "x"];
        for n in 0..6 {
            // A put that stopped after some of the keys, then a second try, then one from an earlier place in the log.
            set.put("T", &keys[..n as usize], offset(n), 1 + n as i64).unwrap();
            set.put("T", keys, offset(n), 1 + n as i64).unwrap();
            for n in 0..=n {
                set.put("T", keys, offset(n), 1 + n as i64).unwrap();
            }
            expected.put("T", keys, offset(n), 1 + n as i64).unwrap();
        }
        set.sync().unwrap();
        expected.sync().unwrap();
        assert!(contents(dir.path()) == contents(plain.path()));
        let reopened = open(dir.path(), SMALL);
        reopened.put("T", keys, offset(5), 6).unwrap();
        reopened.sync().unwrap();
        assert!(contents(dir.path()) == contents(plain.path()));
    }

    #[test]
    fn a_new_file_begins_as_rocketmq_begins_it() {
        let dir = tempfile::tempdir().unwrap();
        let set = open(dir.path(), SMALL);
        for (n, ms) in [(1, 10_000), (2, 11_000), (3, 12_000), (4, 13_000)] {
            set.put("T", ["a"], offset(n), ms).unwrap();
        }
        assert_eq!(set.newest_full_end_ms(), None);
        set.put("T", ["a"], offset(5), 18_500).unwrap();
        set.put("T", ["a"], offset(6), 19_600).unwrap();
        set.sync().unwrap();
        assert_eq!(set.newest_full_end_ms(), Some(13_000));
        let second = contents(dir.path()).pop().unwrap();
        let entry = |n| IndexEntry::decode(&second[SMALL.entry_at(n) as usize..]).unwrap();
        assert_eq!((entry(1).seconds, entry(2).seconds), (5, 1), "the first counts from the end of the file before");
        assert_eq!(IndexHeader::decode(&second).unwrap().begin_ms, 18_500);
        let at = |times| set.query("T", "a", times, |_| Ok(true)).unwrap();
        assert_eq!(at(18_500..=18_500), [offset(5)]);
        assert_eq!(at(19_600..=19_600), [offset(6)], "the first entry's seconds do not count");
    }

    #[test]
    fn strays_are_reported_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), SMALL).put("T", ["a"], offset(0), 1).unwrap();
        let strays = [dir.path().join("index/20230919130559007.bak"), dir.path().join("index/30230919130559007")];
        fs::write(&strays[0], b"x").unwrap();
        fs::create_dir(&strays[1]).unwrap();
        let (set, found) =
            IndexSet::open(Storage::real(), dir.path(), SMALL, &dir.path().join("new"), Arc::new(Frozen)).unwrap();
        assert_eq!(found, strays);
        set.clear().unwrap();
        assert_eq!(paths(dir.path()), strays);
    }

    #[test]
    fn old_files_go_and_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let set = open(dir.path(), SMALL);
        for n in 0..12 {
            set.put("T", ["a"], offset(n), 1 + n as i64).unwrap();
        }
        assert_eq!(set.delete_before(offset(3)).unwrap(), 0);
        assert_eq!(set.delete_before(LogOffset::new(301)).unwrap(), 1);
        assert_eq!(all(&set, "a"), [11, 10, 9, 8, 7, 6, 5, 4]);
        assert_eq!(set.delete_before(offset(100)).unwrap(), 1);
        assert_eq!(all(&set, "a"), [11, 10, 9, 8]);
    }

    #[test]
    fn a_clean_stop_is_told_from_everything_else() {
        let dir = tempfile::tempdir().unwrap();
        let set = open(dir.path(), SMALL);
        for n in 0..6 {
            set.put("T", ["a"], offset(n), 1 + n as i64).unwrap();
        }
        set.sync().unwrap();
        let states = set.states().unwrap();
        assert_eq!(states.iter().map(|state| state.next_entry).collect::<Vec<_>>(), [5, 3]);
        let is_clean = || open(dir.path(), SMALL).matches_states(&states).unwrap();
        assert!(is_clean());
        for path in paths(dir.path()) {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            assert!(!is_clean(), "another time");
        }
        fs::remove_file(&paths(dir.path())[0]).unwrap();
        assert!(!is_clean());
        let set = open(dir.path(), SMALL);
        assert!(!set.restore(&states, LogOffset::MAX, |_| Ok(None)).unwrap());
        assert!(set.restore(&[], LogOffset::MAX, |_| Ok(None)).unwrap());
        assert_eq!(paths(dir.path()).len(), 0);
    }

    #[test]
    fn entries_behind_the_frames_end_go_too() {
        let (dir, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (root, count) in [(dir.path(), 10), (plain.path(), 3)] {
            let set = open(root, SMALL);
            for n in 0..count {
                set.put("T", ["a"], offset(n), 1_000 + 1_000 * n as i64).unwrap();
            }
            set.sync().unwrap();
        }
        let set = open(dir.path(), SMALL);
        let states = set.states().unwrap();
        // The records below are gone: the end time is then known to the second.
        assert!(set.restore(&states, offset(3), |at| Ok((at >= offset(3)).then_some(7))).unwrap());
        set.sync().unwrap();
        let (mut ours, theirs) = (contents(dir.path()), contents(plain.path()));
        let end_ms = IndexHeader::decode(&ours[0]).unwrap().end_ms;
        assert!((3_000..=3_999).contains(&end_ms), "{end_ms}");
        ours[0][8..16].copy_from_slice(&theirs[0][8..16]);
        assert!(ours == theirs);
    }

    /// After a kill the file in use was believed up to the first entry that was not below the frame's end: one that damage had
    /// moved there took all behind it along, and a file of zeros with one entry had one that nobody asks for.
    #[test]
    fn a_damaged_entry_below_the_frame_has_the_index_built_anew() {
        const LAYOUT: IndexLayout = IndexLayout { slots: 8, entries: 100 };
        for count in [1, 2, 30_usize] {
            let dir = tempfile::tempdir().unwrap();
            let set = open(dir.path(), LAYOUT);
            for n in 0..count as u64 {
                set.put("T", [format!("key{n}")], offset(n), 1 + n as i64).unwrap();
            }
            set.sync().unwrap();
            let states = set.states().unwrap();
            drop(set);
            let path = paths(dir.path()).remove(0);
            let whole = fs::read(&path).unwrap();
            let restored = |bytes: &[u8]| {
                fs::write(&path, bytes).unwrap();
                let store_ms = |at: LogOffset| Ok((at < offset(count as u64)).then_some(1));
                open(dir.path(), LAYOUT).restore(&states, offset(count as u64), store_ms).unwrap()
            };
            assert!(restored(&whole));
            assert!(!restored(&vec![0; whole.len()]), "{count} entries zeroed");
            for number in 0..count {
                let mut bytes = whole.clone();
                // The offset's bytes are behind the hash.
                bytes[LAYOUT.entry_at(1 + number as u32) as usize + 4] ^= 1;
                assert!(!restored(&bytes), "entry {number} of {count}");
            }
        }
    }

    #[test]
    fn a_query_finds_what_was_put_before_it_while_another_thread_puts() {
        let dir = tempfile::tempdir().unwrap();
        let set = open(dir.path(), LAYOUT);
        let put = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000 {
                    set.put("T", [format!("key{}", n % 50), format!("u{n}")], offset(n), 1 + n as i64).unwrap();
                    put.store(n + 1, Ordering::Release);
                    if n % 1_000 == 0 {
                        set.sync().unwrap();
                    }
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let known = put.load(Ordering::Acquire);
                        let Some(newest) = known.checked_sub(1) else { continue };
                        assert_eq!(all(&set, &format!("u{newest}")), [newest]);
                        let of_key: Vec<_> = all(&set, "key7").into_iter().filter(|n| *n < known).collect();
                        assert!(of_key.iter().rev().copied().eq((7..known).step_by(50)));
                        if known == 20_000 {
                            break;
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_layout_is_found_for_a_file_of_the_default_size() {
        let dir = tempfile::tempdir().unwrap();
        let layout = IndexLayout { slots: 5_000_000, entries: 20_000_000 };
        let set = open(dir.path(), layout);
        for n in 0..2_000 {
            set.put("T", [format!("key{n}")], offset(n), 1 + n as i64).unwrap();
        }
        set.sync().unwrap();
        let detect =
            |candidates: &[IndexLayout]| detect_layout(&Storage::real(), &paths(dir.path()), candidates).unwrap();
        assert_eq!(detect(&[layout]), Some(layout));
        assert_eq!(detect(&[]), Some(layout));
    }

    #[test]
    fn empty_and_damaged_files_decide_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let detect =
            |candidates: &[IndexLayout]| detect_layout(&Storage::real(), &paths(dir.path()), candidates).unwrap();
        assert_eq!(detect(&[SMALL]), None);
        let set = open(dir.path(), SMALL);
        for n in 0..5 {
            set.put("T", ["some", "keys"], offset(n), 1 + n as i64).unwrap();
        }
        set.sync().unwrap();
        let first = &paths(dir.path())[0];
        let mut bytes = fs::read(first).unwrap();
        bytes.truncate(77);
        fs::write(first, &bytes).unwrap();
        assert_eq!(detect(&[]), Some(SMALL));
        for path in &paths(dir.path())[1..] {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(detect(&[SMALL]), None);
        fs::write(first, vec![0; SMALL.file_bytes() as usize]).unwrap();
        assert_eq!(detect(&[LAYOUT, SMALL]), Some(SMALL));
    }

    proptest! {
        #[test]
        fn damage_neither_panics_nor_loops(
            places in prop::collection::vec((0..1_000_usize, any::<u8>(), 1..24_usize), 1..12),
            cut in prop::option::of(0..1_000_usize),
            entries in 0..14_u64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let layout = IndexLayout { slots: 3, entries: 8 };
            let set = open(dir.path(), layout);
            for n in 0..entries {
                set.put("T", [["Aa", "BB", "c"][n as usize % 3]], offset(n), 1_000 + n as i64).unwrap();
            }
            set.sync().unwrap();
            let states = set.states().unwrap();
            for path in paths(dir.path()) {
                let mut bytes = fs::read(&path).unwrap();
                let length = bytes.len();
                for (at, byte, count) in &places {
                    let at = at % length;
                    bytes[at..length.min(at + count)].fill(*byte);
                }
                bytes.truncate(cut.map_or(length, |cut| cut % length));
                fs::write(&path, &bytes).unwrap();
            }
            let damaged = open(dir.path(), layout);
            for key in ["Aa", "c"] {
                let found = damaged.query("T", key, 0..=i64::MAX, |_| Ok(true)).unwrap();
                prop_assert!(found.len() <= 16);
            }
            damaged.matches_states(&states).unwrap();
            detect_layout(&Storage::real(), &paths(dir.path()), &[layout]).unwrap();
            damaged.newest_full_end_ms();
            for n in 0..20 {
                damaged.put("T", ["Aa", "c"], LogOffset::new(i64::MAX as u64 - 20 + n), 5).unwrap();
            }
            damaged.query("T", "Aa", 0..=i64::MAX, |_| Ok(true)).unwrap();
            open(dir.path(), layout).restore(&states, offset(9), |_| Ok(Some(7))).unwrap();
            open(dir.path(), layout).delete_before(offset(5)).unwrap();
        }
    }
}

mod model {
    //! The set against a list: puts, syncs, clean and unclean stops, with any sectors of unsynced writes lost.

    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::IndexSet;
    use super::sets::{contents, offset, open, paths};
    use crate::format::index::IndexLayout;
    use crate::offset::LogOffset;
    use crate::side::IndexState;

    const KEYS: [&str; 6] = ["Aa", "BB", "key", "other", "x", ""];
    const SECTOR: usize = 512;

    #[derive(Debug, Clone)]
    enum Step {
        Put {
            keys: Vec<usize>,
            after_ms: i64,
        },
        Sync,
        Reopen,
        /// The log ends `lost` records earlier; each bit of `kept` tells whether a sector reached the disk.
        Crash {
            lost: usize,
            kept: Vec<bool>,
        },
        Query {
            key: usize,
            from: i64,
            length: i64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (prop::collection::vec(0..KEYS.len(), 0..5), 0..2_500_i64).prop_map(|(keys, after_ms)| Step::Put { keys, after_ms }),
            2 => Just(Step::Sync),
            1 => Just(Step::Reopen),
            2 => (0..4_usize, prop::collection::vec(any::<bool>(), 1..40)).prop_map(|(lost, kept)| Step::Crash { lost, kept }),
            4 => (0..KEYS.len(), 0..60_000_i64, 0..20_000_i64).prop_map(|(key, from, length)| Step::Query { key, from, length }),
        ]
    }

    /// What the last checkpoint made durable.
    #[derive(Default)]
    struct Durable {
        files: BTreeMap<PathBuf, Vec<u8>>,
        states: Vec<IndexState>,
        records: usize,
    }

    struct Model {
        root: tempfile::TempDir,
        layout: IndexLayout,
        set: IndexSet,
        /// The log: keys and store time of each record.
        records: Vec<(Vec<usize>, i64)>,
        durable: Durable,
    }

    impl Model {
        fn new(layout: IndexLayout) -> Self {
            let root = tempfile::tempdir().unwrap();
            Self { set: open(root.path(), layout), root, layout, records: Vec::new(), durable: Durable::default() }
        }

        fn dispatch(set: &IndexSet, records: &[(Vec<usize>, i64)], from: usize) {
            for (n, (keys, ms)) in records.iter().enumerate().skip(from) {
                set.put("T", keys.iter().map(|key| KEYS[*key]), offset(n as u64), *ms).unwrap();
            }
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Put { keys, after_ms } => {
                    let ms = self.records.last().map_or(1_000, |(_, ms)| *ms) + after_ms;
                    self.records.push((keys, ms));
                    Self::dispatch(&self.set, &self.records, self.records.len() - 1);
                }
                Step::Sync => self.sync(),
                Step::Reopen => {
                    self.sync();
                    self.set = open(self.root.path(), self.layout);
                    assert!(self.set.matches_states(&self.durable.states).unwrap());
                }
                Step::Crash { lost, kept } => self.crash(lost, &kept),
                Step::Query { key, from, length } => self.query(key, from, from + length),
            }
        }

        fn sync(&mut self) {
            self.set.sync().unwrap();
            let root = self.root.path();
            let files = paths(root).into_iter().zip(contents(root)).collect();
            self.durable = Durable { files, states: self.set.states().unwrap(), records: self.records.len() };
        }

        /// Everything was handed to the system; of what was not synced, only some sectors reach the disk.
        fn crash(&mut self, lost: usize, kept: &[bool]) {
            self.set.sync().unwrap();
            let mut is_kept = kept.iter().cycle();
            for path in paths(self.root.path()) {
                let written = fs::read(&path).unwrap();
                let old = self.durable.files.get(&path);
                if old.is_none() && !is_kept.next().unwrap() {
                    fs::remove_file(&path).unwrap();
                    continue;
                }
                let mut bytes = old.cloned().unwrap_or_else(|| vec![0; written.len()]);
                for (old, new) in bytes.chunks_mut(SECTOR).zip(written.chunks(SECTOR)) {
                    if *is_kept.next().unwrap() {
                        old.copy_from_slice(new);
                    }
                }
                fs::write(&path, &bytes).unwrap();
            }
            let end = self.durable.records;
            self.records.truncate(end.max(self.records.len().saturating_sub(lost)));
            self.set = open(self.root.path(), self.layout);
            let store_ms = |at: LogOffset| Ok(self.records.get(at.get() as usize / 100).map(|(_, ms)| *ms));
            assert!(self.set.restore(&self.durable.states, offset(end as u64), store_ms).unwrap());
            Self::dispatch(&self.set, &self.records, end);
        }

        fn query(&self, key: usize, from: i64, to: i64) {
            let has_key = |n: usize| self.records[n].0.iter().any(|other| KEYS[*other] == KEYS[key]);
            let fits = |n: usize| has_key(n) && (from..=to).contains(&self.records[n].1);
            let expected: Vec<_> =
                (0..self.records.len()).rev().filter(|n| fits(*n)).map(|n| offset(n as u64)).collect();
            let found = self.set.query("T", KEYS[key], from..=to, |at| Ok(fits(at.get() as usize / 100))).unwrap();
            assert_eq!(found, expected);
        }

        /// In the end everything is as if it had been put once.
        fn compare(&mut self) {
            let plain = tempfile::tempdir().unwrap();
            let expected = open(plain.path(), self.layout);
            Self::dispatch(&expected, &self.records, 0);
            expected.sync().unwrap();
            self.set.sync().unwrap();
            let (ours, theirs) = (contents(self.root.path()), contents(plain.path()));
            assert_eq!(ours.len(), theirs.len());
            let differs = |(ours, theirs): (&Vec<u8>, &Vec<u8>)| {
                ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs)
            };
            assert_eq!(ours.iter().zip(&theirs).map(differs).collect::<Vec<_>>(), vec![None; ours.len()]);
        }
    }

    fn run(layout: IndexLayout, steps: Vec<Step>) {
        let mut model = Model::new(layout);
        for step in steps {
            model.run(step);
        }
        for key in 0..KEYS.len() {
            model.query(key, 0, i64::MAX);
        }
        model.compare();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(120))]

        #[test]
        fn small_files_are_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
            run(IndexLayout { slots: 3, entries: 5 }, steps);
        }

        #[test]
        fn files_of_many_sectors_are_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
            run(IndexLayout { slots: 700, entries: 60 }, steps);
        }
    }
}

mod disk {
    //! A disk that is full, or that fails to sync, when it is told to.

    use std::io;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::sets::{contents, offset, open_on};
    use crate::disk::Storage;
    use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

    #[derive(Debug, Default)]
    struct Faults {
        is_full: AtomicBool,
        fails_to_sync: AtomicBool,
    }

    impl Watch for Faults {
        fn answer(&self, call: &Call<'_>, _path: &Path) -> Answer {
            let (is_full, full) = (self.is_full.load(Ordering::Relaxed), io::ErrorKind::StorageFull.into());
            match call {
                Call::Allocate(_) if is_full => Answer::Fail(full),
                // A part may have been written when the disk turns out to be full.
                Call::WriteAt(bytes) if is_full => Answer::Tear(bytes.len() / 3, full),
                Call::Sync if self.fails_to_sync.load(Ordering::Relaxed) => Answer::Fail(io::ErrorKind::Other.into()),
                _ => Answer::Go,
            }
        }
    }

    fn storage(faults: &Arc<Faults>) -> Storage {
        Storage::new(Arc::new(WatchedDisk(Arc::clone(faults))))
    }

    fn files_in(dir: &Path) -> usize {
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    #[test]
    fn a_full_disk_loses_nothing_and_the_put_can_be_repeated() {
        let (dir, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disk = Arc::new(Faults::default());
        let (set, expected) = (open_on(storage(&disk), dir.path()), open_on(Storage::real(), plain.path()));
        let keys = |n: u64| [format!("unique{n}"), format!("key{}", n % 7), "Aa".into()];
        let mut failures = 0;
        for n in 0..15_000 {
            disk.is_full.store(true, Ordering::Relaxed);
            if set.put("T", keys(n), offset(n), 1_000 + n as i64).is_err_and(|error| error.is_disk_full()) {
                failures += 1;
                assert_eq!(files_in(&dir.path().join("mqlog/new")), 0, "nothing is left of a failure");
                let found =
                    set.query("T", &format!("unique{}", n.saturating_sub(1)), 0..=i64::MAX, |_| Ok(true)).unwrap();
                assert_eq!(found, if n == 0 { vec![] } else { vec![offset(n - 1)] }, "what was put is still found");
                disk.is_full.store(false, Ordering::Relaxed);
                set.put("T", keys(n), offset(n), 1_000 + n as i64).unwrap();
            }
            expected.put("T", keys(n), offset(n), 1_000 + n as i64).unwrap();
        }
        assert!(failures >= 10, "rolls and runs of entries: {failures}");
        disk.is_full.store(true, Ordering::Relaxed);
        assert!(set.sync().unwrap_err().is_disk_full());
        disk.is_full.store(false, Ordering::Relaxed);
        set.sync().unwrap();
        expected.sync().unwrap();
        assert!(contents(dir.path()) == contents(plain.path()));
    }

    #[test]
    fn after_a_failed_sync_every_later_one_fails() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Faults::default());
        let set = open_on(storage(&disk), dir.path());
        set.put("T", ["a"], offset(0), 1).unwrap();
        disk.fails_to_sync.store(true, Ordering::Relaxed);
        set.sync().unwrap_err();
        disk.fails_to_sync.store(false, Ordering::Relaxed);
        set.put("T", ["b"], offset(1), 2).unwrap();
        set.sync().unwrap_err();
        assert_eq!(set.states().unwrap(), [], "a frame must not count on it");
    }
}

mod golden {
    //! RocketMQ's own index files: the same puts give the same bytes, and its layouts are found.

    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Arc;

    use super::super::{IndexSet, detect_layout};
    use crate::clock::SystemClock;
    use crate::disk::Storage;
    use crate::format::index::IndexLayout;
    use crate::format::record::{Item, RecordView, Transaction};
    use crate::offset::LogOffset;

    /// A golden store, unpacked, with its log read.
    struct Store {
        dir: tempfile::TempDir,
        name: String,
        ended: String,
        log: BTreeMap<u64, Vec<u8>>,
    }

    impl Store {
        fn unpack(archive: &Path) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
            assert!(status.success());
            let name = archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz").to_owned();
            let mut log = BTreeMap::new();
            for path in files(&dir.path().join(&name).join("commitlog")) {
                let bytes = fs::read(&path).unwrap();
                let mut at = 0;
                while let Ok(Item::Record(record)) = Item::decode(&bytes[at..]) {
                    log.insert(record.log_offset(), record.bytes().to_vec());
                    at += record.bytes().len();
                }
            }
            Self { dir, name, ended: String::new(), log }
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join(&self.name)
        }

        fn index(&self) -> Vec<PathBuf> {
            files(&self.root().join("index"))
        }

        /// The keys of a record in the order in which RocketMQ puts them.
        fn keys(record: &RecordView<'_>) -> Vec<String> {
            let is_rollback = record.sys_flag().transaction() == Transaction::Rollback;
            let keys = record.unique_key().into_iter().chain(record.keys());
            keys.filter(|key| !is_rollback && !key.is_empty()).map(|key| key.into_owned()).collect()
        }
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let Ok(names) = fs::read_dir(dir) else { return Vec::new() };
        let mut paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// The golden stores of the folder that `MQLOG_GOLDEN_DIR` names.
    fn stores() -> Vec<(Store, IndexLayout)> {
        let Some(folder) = std::env::var_os("MQLOG_GOLDEN_DIR").map(PathBuf::from) else { return Vec::new() };
        let described: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("stores.json")).unwrap()).unwrap();
        let archives = files(&folder).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "gz"));
        archives
            .map(|archive| {
                let mut store = Store::unpack(&archive);
                store.ended = described[&store.name]["ended"].as_str().unwrap().to_owned();
                let options = described[&store.name]["options"].as_array().unwrap();
                let option = |name: &str| {
                    let at = options.iter().position(|option| option == name).unwrap();
                    options[at + 1].as_str().unwrap().parse().unwrap()
                };
                let layout = IndexLayout { slots: option("--index-slots"), entries: option("--index-entries") };
                (store, layout)
            })
            .collect()
    }

    fn matches(store: &Store, topic: &str, key: &str, offset: LogOffset) -> bool {
        let Some(record) = store.log.get(&offset.get()) else { return false };
        let record = RecordView::decode(record).unwrap();
        record.topic() == topic && Store::keys(&record).iter().any(|word| word == key)
    }

    fn set_in(root: &Path, layout: IndexLayout) -> IndexSet {
        IndexSet::open(Storage::real(), root, layout, &root.join("mqlog/new"), Arc::new(SystemClock)).unwrap().0
    }

    #[test]
    fn the_same_puts_give_the_same_bytes() {
        for (store, layout) in stores().into_iter().filter(|(store, _)| store.log.first_key_value().unwrap().0 == &0) {
            let dir = tempfile::tempdir().unwrap();
            let set = set_in(dir.path(), layout);
            for (offset, record) in &store.log {
                let record = RecordView::decode(record).unwrap();
                set.put(&record.topic(), Store::keys(&record), LogOffset::new(*offset), record.store_ms()).unwrap();
            }
            set.sync().unwrap();
            let (theirs, ours) = (store.index(), files(&dir.path().join("index")));
            // RocketMQ's index ends earlier after a kill, so there its last file may hold less.
            let equal = if store.ended == "clean" { theirs.len() } else { theirs.len().saturating_sub(1) };
            for (theirs, ours) in theirs.iter().zip(&ours).take(equal) {
                assert!(fs::read(theirs).unwrap() == fs::read(ours).unwrap(), "{}: {}", store.name, theirs.display());
            }
            assert!(theirs.is_empty() || store.ended != "clean" || theirs.len() == ours.len(), "{}", store.name);
        }
    }

    #[test]
    fn the_layout_is_found_without_being_told() {
        for (store, layout) in stores().into_iter().filter(|(store, _)| !store.index().is_empty()) {
            let others = [
                IndexLayout { slots: 5_000_000, entries: 20_000_000 },
                IndexLayout { slots: layout.slots + 5, entries: layout.entries - 1 },
            ];
            for candidates in [&[][..], &[layout], &others] {
                let found = detect_layout(&Storage::real(), &store.index(), candidates).unwrap();
                assert_eq!(found, Some(layout), "{}", store.name);
            }
        }
    }

    #[test]
    fn each_key_finds_its_records_in_rocketmqs_index() {
        for (store, layout) in
            stores().into_iter().filter(|(store, _)| store.ended == "clean" && !store.index().is_empty())
        {
            let (set, mut keys) = (set_in(&store.root(), layout), BTreeMap::<_, Vec<LogOffset>>::new());
            for (offset, record) in store.log.iter().rev() {
                let record = RecordView::decode(record).unwrap();
                for key in Store::keys(&record) {
                    let found = keys.entry((record.topic().into_owned(), key)).or_default();
                    if found.last() != Some(&LogOffset::new(*offset)) {
                        found.push(LogOffset::new(*offset));
                    }
                }
            }
            for ((topic, key), offsets) in keys {
                let found =
                    set.query(&topic, &key, i64::MIN..=i64::MAX, |offset| Ok(matches(&store, &topic, &key, offset)));
                assert_eq!(found.unwrap(), offsets, "{}: {topic} {key}", store.name);
            }
        }
    }
}
