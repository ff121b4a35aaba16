//! Tests of the queues: against a model, against damage, against a process that dies at any write, and against the
//! stores that RocketMQ wrote.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::disk::{OpenMode, Storage};
use crate::error::{Error, Result};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::offset::{LogOffset, QueueOffset};
use crate::side::QueueState;
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

const PER_FILE: u32 = 7;
const TOPIC: &str = "orders";

const SIZES: QueueSizes = QueueSizes {
    queue_file_entries: PER_FILE,
    batch_queue_file_entries: PER_FILE,
    max_open_files: 2,
    log_file_bytes: 0,
};

fn table_with(root: &Path, storage: Storage, sizes: QueueSizes) -> QueueTable {
    QueueTable::open(storage, root, &root.join("mqlog/new"), sizes).unwrap().0
}

fn table(root: &Path) -> QueueTable {
    table_with(root, Storage::real(), SIZES)
}

fn queue(root: &Path) -> Arc<ConsumeQueue> {
    table(root).get_or_create(TOPIC, 0).unwrap()
}

fn batch_queue(root: &Path) -> Arc<ConsumeQueue> {
    let table = table(root);
    table.mark_batch(TOPIC);
    table.get_or_create(TOPIC, 0).unwrap()
}

fn entry(log_offset: u64) -> QueueEntry {
    QueueEntry { log_offset, record_bytes: 100, tags_code: log_offset as i64 % 3 }
}

fn batch(base: u64) -> BatchEntry {
    BatchEntry { log_offset: base * 100, record_bytes: 100, tags_code: 0, store_ms: 0, base, count: 1 }
}

fn run(offsets: Range<u64>) -> Vec<QueueEntry> {
    offsets.map(|offset| entry(offset * 100)).collect()
}

fn at(offset: u64) -> QueueOffset {
    QueueOffset::new(offset)
}

fn everything(queue: &ConsumeQueue) -> Vec<(u64, QueueEntry)> {
    let items = queue.read(QueueOffset::ZERO, usize::MAX).unwrap();
    items.iter().map(|item| (item.queue_offset.get(), item.entry)).collect()
}

fn file(root: &Path, number: u64) -> PathBuf {
    root.join(format!("consumequeue/{TOPIC}/0/{:020}", number * u64::from(PER_FILE) * 20))
}

/// What a queue should hold.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: BTreeMap<u64, QueueEntry>,
    next: u64,
    min: u64,
    log_end: u64,
    log_start: u64,
}

impl Model {
    fn append(&mut self, from: u64, count: u64) -> Vec<QueueEntry> {
        if self.min == self.next {
            self.min = from;
        }
        (from..from + count)
            .map(|offset| {
                self.log_end += 100;
                let entry = entry(self.log_end);
                self.entries.insert(offset, entry);
                self.next = offset + 1;
                entry
            })
            .collect()
    }

    fn visible(&self) -> Vec<(u64, QueueEntry)> {
        self.entries.range(self.min..).map(|(offset, entry)| (*offset, *entry)).collect()
    }

    fn raise(&mut self, log_start: u64) {
        self.log_start = self.log_start.max(log_start);
        let kept = self.entries.range(self.min..).find(|(_, entry)| entry.log_offset >= self.log_start);
        self.min = kept.map_or(self.next, |(offset, _)| *offset);
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// Repeats some entries, then appends new ones; leaves a gap where that is allowed.
    Append {
        repeat: u64,
        gap: u64,
        count: u64,
    },
    /// Appends behind a gap, which must fail, and then goes on behind it.
    Skip {
        gap: u64,
    },
    Truncate {
        back: u64,
    },
    RaiseMin {
        by: usize,
    },
    DeleteBefore,
    Checkpoint,
    ReopenClean,
    ReopenUnclean,
    ReopenAlone,
    Rebuild,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..9_u64, 0..20_u64, 0..18_u64).prop_map(|(repeat, gap, count)| Op::Append { repeat, gap, count }),
        1 => (1..12_u64).prop_map(|gap| Op::Skip { gap }),
        1 => (0..25_u64).prop_map(|back| Op::Truncate { back }),
        2 => (0..20_usize).prop_map(|by| Op::RaiseMin { by }),
        2 => Just(Op::DeleteBefore),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::ReopenClean),
        2 => Just(Op::ReopenUnclean),
        1 => Just(Op::ReopenAlone),
        1 => Just(Op::Rebuild),
    ]
}

/// Appends what the model has from `from` on, as a dispatcher would that meets gaps.
fn replay(queue: &ConsumeQueue, model: &Model, from: u64) -> Result<()> {
    for (offset, entry) in model.entries.range(from..) {
        match queue.append(at(*offset), &[*entry]) {
            Err(Error::OutOfOrder { .. }) => {
                queue.skip_to(at(*offset), u64::MAX)?;
                queue.append(at(*offset), &[*entry])?;
            }
            done => drop(done?),
        }
    }
    queue.skip_to(at(model.next), u64::MAX)
}

fn rebuild(queue: &ConsumeQueue, model: &Model) -> Result<bool> {
    queue.begin_rebuild(LogOffset::MAX, &Damages::default())?;
    // The log has no records below its start.
    replay(queue, model, model.min)?;
    let changed = queue.finish_rebuild(&|_| true)?;
    queue.cursor().set(queue.range().end);
    Ok(changed)
}

fn checkpoint(queue: &ConsumeQueue) -> QueueState {
    let state = queue.state().unwrap();
    queue.sync().unwrap();
    assert!(!queue.is_touched());
    state
}

struct World<'a> {
    root: &'a Path,
    queue: Arc<ConsumeQueue>,
    model: Model,
    state: QueueState,
}

impl World<'_> {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { repeat, gap, count } => self.append(repeat, gap, count),
            Op::Skip { gap } => self.skip(gap),
            Op::Truncate { back } => {
                let end = self.model.next.saturating_sub(back);
                self.queue.truncate_to(at(end)).unwrap();
                self.model.entries.split_off(&end);
                self.model.next = end;
                self.model.min = self.model.min.min(end);
                self.queue.cursor().set(at(end));
                self.state = checkpoint(&self.queue);
            }
            Op::RaiseMin { by } => {
                let log_start = self.model.visible().get(by).map_or(self.model.log_end + 1, |(_, e)| e.log_offset);
                self.queue.raise_min(LogOffset::new(log_start)).unwrap();
                self.model.raise(log_start);
            }
            Op::DeleteBefore => {
                let before = self.queue.files.numbers().unwrap();
                let gone = self.queue.delete_before(at(self.model.min)).unwrap();
                let after = self.queue.files.numbers().unwrap();
                assert_eq!(before[gone as usize..], after);
                assert!(before.is_empty() || !after.is_empty());
            }
            Op::Checkpoint => self.state = checkpoint(&self.queue),
            Op::ReopenClean => {
                self.state = checkpoint(&self.queue);
                self.queue = queue(self.root);
                assert!(self.restore(true));
                assert!(!self.queue.is_touched());
            }
            Op::ReopenUnclean => {
                self.queue = queue(self.root);
                if !self.restore(false) {
                    // Only files that were deleted from under the checkpoint allow this.
                    assert!(!self.state.files.is_empty());
                    rebuild(&self.queue, &self.model).unwrap();
                } else {
                    self.queue.raise_min(LogOffset::new(self.model.log_start)).unwrap();
                    replay(&self.queue, &self.model, self.state.next.get()).unwrap();
                    self.queue.raise_min(LogOffset::new(self.model.log_start)).unwrap();
                }
                self.after_rebuild();
            }
            Op::ReopenAlone => {
                let alone = ConsumeQueue::open(self.root, TOPIC, 0, PER_FILE).unwrap();
                if self.model.min < self.model.next && self.model.entries.contains_key(&(self.model.next - 1)) {
                    assert_eq!(alone.range().end, at(self.model.next));
                    assert_eq!(alone.cursor().next(), at(self.model.next));
                    alone.raise_min(LogOffset::new(self.model.log_start)).unwrap();
                    assert_eq!(everything(&alone), self.model.visible());
                }
            }
            Op::Rebuild => {
                rebuild(&self.queue, &self.model).unwrap();
                assert!(!rebuild(&self.queue, &self.model).unwrap(), "nothing differs the second time");
                self.after_rebuild();
                self.state = checkpoint(&self.queue);
            }
        }
        self.check();
    }

    /// A queue without messages is rebuilt from its files, which may not reach its end.
    fn after_rebuild(&mut self) {
        if self.model.min == self.model.next || self.model.visible().is_empty() {
            let range = self.queue.range();
            assert!(range.is_empty() || self.model.visible().is_empty());
            (self.model.min, self.model.next) = (range.start.get(), range.end.get());
            self.model.entries.split_off(&range.start.get());
        }
    }

    fn restore(&self, is_clean: bool) -> bool {
        self.queue.restore(&self.state, is_clean, LogOffset::new(self.model.log_start)).unwrap()
    }

    fn append(&mut self, repeat: u64, gap: u64, count: u64) {
        let empty = self.model.min == self.model.next;
        if empty {
            let from = self.model.next + gap;
            if count > 0 {
                self.queue.append(at(from), &self.model.append(from, count)).unwrap();
            }
            return;
        }
        let mut from = self.model.next;
        while from > self.model.next.saturating_sub(repeat) && self.model.entries.contains_key(&(from - 1)) {
            from -= 1;
        }
        let mut entries: Vec<_> = self.model.entries.range(from..).map(|(_, entry)| *entry).collect();
        entries.extend(self.model.append(self.model.next, count));
        assert_eq!(self.queue.append(at(from), &entries).unwrap(), count);
        let other = entry(self.model.log_end + 7);
        if let Some(last) = self.model.visible().last() {
            let twice = self.queue.append(at(last.0), &[other]);
            assert!(matches!(twice, Err(Error::OutOfOrder { given, .. }) if given == last.0));
        }
    }

    fn skip(&mut self, gap: u64) {
        if self.model.min < self.model.next {
            let from = self.model.next + gap;
            let refused = self.queue.append(at(from), &[entry(1)]);
            assert!(matches!(refused, Err(Error::OutOfOrder { .. })));
            self.queue.skip_to(at(from), u64::MAX).unwrap();
            self.queue.append(at(from), &self.model.append(from, 1)).unwrap();
        }
    }

    fn check(&self) {
        let Model { min, next, .. } = self.model;
        assert_eq!(self.queue.range(), at(min)..at(next));
        assert!(self.queue.cursor().next() >= at(next));
        assert_eq!(everything(&self.queue), self.model.visible());
        let from = min + (next - min) / 2;
        let few: Vec<_> = self.queue.read(at(from), 3).unwrap().iter().map(|item| item.entry).collect();
        assert_eq!(few, self.model.entries.range(from..).take(3).map(|(_, entry)| *entry).collect::<Vec<_>>());
        let files = self.queue.files.numbers().unwrap();
        assert!(files.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no file is missing in between: {files:?}");
    }
}

proptest! {
    #[test]
    fn a_queue_does_what_a_map_does(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let state = checkpoint(&queue);
        let mut world = World { root: dir.path(), queue, model: Model::default(), state };
        for op in &ops {
            world.apply(op);
        }
    }

    #[test]
    fn a_rebuild_repairs_any_damage(
        from in 0..20_u64,
        count in 1..40_u64,
        damages in prop::collection::vec((0..5_u8, any::<prop::sample::Index>(), any::<u64>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let entries = model.append(from, count);
        queue(dir.path()).append(at(from), &entries).unwrap();
        let folder = dir.path().join("consumequeue").join(TOPIC).join("0");
        for (kind, which, value) in damages {
            let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            if paths.is_empty() {
                break;
            }
            let path = &paths[which.index(paths.len())];
            let mut bytes = fs::read(path).unwrap();
            match kind {
                0 => fs::remove_file(path).unwrap(),
                1 => bytes.fill(0),
                2 => bytes.truncate(value as usize % 140),
                3 => bytes.extend([1; 33]),
                _ => bytes.iter_mut().skip(value as usize % 140).take(30).for_each(|byte| *byte = value as u8),
            }
            if kind > 0 {
                fs::write(path, bytes).unwrap();
            }
        }
        let queue = queue(dir.path());
        rebuild(&queue, &model).unwrap();
        prop_assert!(!queue.is_damaged());
        prop_assert_eq!(everything(&queue), model.visible());
        prop_assert!(!rebuild(&queue, &model).unwrap());
        let alone = ConsumeQueue::open(dir.path(), TOPIC, 0, PER_FILE).unwrap();
        prop_assert_eq!(alone.range().end, at(from + count));
    }

    /// The process dies at some change of the disk; what the checkpoint says holds, the log gives the rest.
    #[test]
    fn a_queue_survives_a_crash_at_any_change(
        from in 0..20_u64, first in 0..20_u64, runs in prop::collection::vec(1..20_u64, 1..5), alive in 0..40_u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mortal = Mortal::new();
        let dying = table_with(dir.path(), mortal_storage(&mortal), SIZES);
        let dying = dying.get_or_create(TOPIC, 0).unwrap();
        let mut model = Model::default();
        let entries = model.append(from, first);
        dying.append(at(from), &entries).unwrap();
        let state = checkpoint(&dying);
        let next = state.next.get();
        mortal.left.store(alive, Ordering::SeqCst);
        for count in runs {
            let from = model.next.max(from);
            let entries = model.append(from, count);
            let _ = dying.append(at(from), &entries).and_then(|_| dying.sync());
        }
        let again = queue(dir.path());
        prop_assert!(again.restore(&state, false, LogOffset::ZERO).unwrap());
        prop_assert_eq!(again.range(), state.min..state.next);
        prop_assert!(!everything(&again).iter().any(|(offset, _)| *offset >= next));
        replay(&again, &model, next).unwrap();
        prop_assert_eq!(everything(&again), model.visible());
        let alone = ConsumeQueue::open(dir.path(), TOPIC, 0, PER_FILE).unwrap();
        prop_assert_eq!(everything(&alone), model.visible());
    }

    #[test]
    fn batches_are_found_by_any_of_their_messages(
        counts in prop::collection::vec(1..5_u16, 1..40), first in 0..10_u64, cut in 0..120_u64, raise in 0..50_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let queue = batch_queue(dir.path());
        let mut base = first;
        let entries: Vec<_> = counts.iter().enumerate().map(|(index, count)| {
            let at = index as u64 * 100;
            let entry = BatchEntry {
                log_offset: at, record_bytes: 100, tags_code: 1, store_ms: at as i64 / 300, base, count: *count,
            };
            base += u64::from(*count);
            entry
        }).collect();
        for entry in &entries {
            queue.append_batch(entry).unwrap();
            queue.append_batch(entry).unwrap();
        }
        let other = BatchEntry { base: base + 1, ..entries[0] };
        prop_assert!(queue.append_batch(&other).is_err());
        let other = BatchEntry { log_offset: 7, ..entries[0] };
        prop_assert!(queue.append_batch(&other).is_err());
        let bases = |queue: &ConsumeQueue, from| -> Vec<u64> {
            queue.read(at(from), 2).unwrap().iter().map(|item| item.queue_offset.get()).collect()
        };
        for from in 0..base + 2 {
            let expected: Vec<_> =
                entries.iter().filter(|e| e.base + u64::from(e.count) > from).map(|e| e.base).take(2).collect();
            prop_assert_eq!(bases(&queue, from), expected);
        }
        let state = checkpoint(&queue);
        let queue = batch_queue(dir.path());
        prop_assert!(queue.restore(&state, true, LogOffset::ZERO).unwrap());
        queue.raise_min(LogOffset::new(raise as u64 * 100)).unwrap();
        queue.delete_before(queue.range().start).unwrap();
        let min = entries.get(raise).map_or(base, |entry| entry.base);
        prop_assert_eq!(queue.range(), at(min)..at(base));
        prop_assert_eq!(bases(&queue, 0).first().copied(), entries.get(raise).map(|entry| entry.base));
        for ms in -1..20 {
            let left: Vec<_> = entries.iter().skip(raise).collect();
            let lower = left.iter().find(|entry| entry.store_ms >= ms).map_or(base, |entry| entry.base);
            let upper = left.iter().rev().find(|entry| entry.store_ms <= ms)
                .map_or(min, |entry| entry.base + u64::from(entry.count) - 1);
            let known = |_: &QueueEntry| Ok(Some(0));
            prop_assert_eq!(queue.offset_by_time(ms, TimeBound::Lower, known).unwrap(), at(lower));
            prop_assert_eq!(queue.offset_by_time(ms, TimeBound::Upper, known).unwrap(), at(upper));
        }
        // A rebuild of what is left in the log changes nothing; one after a loss brings it back.
        for lost in [false, true] {
            if lost {
                queue.truncate_to(at(cut)).unwrap();
                let kept = entries.iter().rev().find(|e| e.base + u64::from(e.count) <= cut && e.base >= min);
                prop_assert!(queue.range().end <= at(cut.max(min)));
                prop_assert_eq!(everything(&queue).last().map(|last| last.0), kept.map(|entry| entry.base));
            }
            queue.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap();
            for entry in entries.iter().skip(raise) {
                queue.append_batch(entry).unwrap();
            }
            let changed = queue.finish_rebuild(&|_| true).unwrap();
            prop_assert!(lost || !changed);
            prop_assert!(queue.range().end == at(base) || raise >= entries.len());
            prop_assert_eq!(everything(&queue).len(), entries.len().saturating_sub(raise));
        }
    }

    #[test]
    fn a_time_gives_what_a_linear_scan_gives(
        steps in prop::collection::vec(0..3_i64, 0..40), from in 0..10_u64, gone in 0..45_u64, ms in -2..60_i64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let times: Vec<i64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
        let entries: Vec<_> = times.iter().enumerate().map(|(index, _)| entry(index as u64)).collect();
        queue.append(at(from), &entries).unwrap();
        let (start, end) = (queue.range().start.get(), queue.range().end.get());
        let time = |entry: &QueueEntry| {
            Ok((entry.log_offset >= gone).then(|| times[entry.log_offset as usize]))
        };
        let left: Vec<_> = (start..end).zip(&times).skip(gone as usize).collect();
        let first = left.first().map_or(end, |(offset, _)| *offset);
        let lower = left.iter().find(|(_, time)| **time >= ms).map_or(end, |(offset, _)| *offset);
        let upper = left.iter().rev().find(|(_, time)| **time <= ms).map_or(first, |(offset, _)| *offset);
        prop_assert_eq!(queue.offset_by_time(ms, TimeBound::Lower, time).unwrap(), at(lower));
        prop_assert_eq!(queue.offset_by_time(ms, TimeBound::Upper, time).unwrap(), at(upper));
    }

    #[test]
    fn times_that_go_back_give_an_offset_in_range(
        times in prop::collection::vec(prop::option::of(0..50_i64), 0..40), ms in 0..50_i64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        queue.append(at(3), &(0..times.len()).map(|index| entry(index as u64)).collect::<Vec<_>>()).unwrap();
        for bound in [TimeBound::Lower, TimeBound::Upper] {
            let found = queue.offset_by_time(ms, bound, |e| Ok(times[e.log_offset as usize])).unwrap();
            let range = queue.range();
            prop_assert!(range.start <= found && found <= range.end);
        }
    }
}

/// A disk that does nothing any more after a number of changes.
#[derive(Debug, Default)]
struct Mortal {
    left: AtomicU64,
    refuses_syncs: AtomicBool,
    synced: Mutex<Vec<PathBuf>>,
}

impl Mortal {
    fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(u64::MAX), ..Self::default() })
    }

    fn synced(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.synced.lock().unwrap())
    }
}

impl Watch for Mortal {
    fn answer(&self, call: &Call<'_>, path: &Path) -> Answer {
        match call {
            Call::Sync | Call::SyncDir if self.refuses_syncs.load(Ordering::SeqCst) => {
                return Answer::Fail(io::Error::other("no sync"));
            }
            Call::Sync | Call::SyncDir => {
                self.synced.lock().unwrap().push(path.to_owned());
                return Answer::Go;
            }
            Call::Open(OpenMode::Create) | Call::CreateDirAll | Call::Rename | Call::RemoveFile => {}
            Call::SetLen | Call::Allocate(_) | Call::WriteAt(_) => {}
            _ => return Answer::Go,
        }
        let dead = io::Error::other("the process is dead");
        match (self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)), call) {
            (Err(_), _) => Answer::Fail(dead),
            // The last write of a dying process is half done.
            (Ok(1), Call::WriteAt(bytes)) => Answer::Tear(bytes.len() / 2, dead),
            (Ok(_), _) => Answer::Go,
        }
    }
}

fn mortal_storage(mortal: &Arc<Mortal>) -> Storage {
    Storage::new(Arc::new(WatchedDisk(Arc::clone(mortal))))
}

#[test]
fn a_crash_while_files_are_removed_leaves_no_gap() {
    for alive in 0..4 {
        for deletes in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mortal = Mortal::new();
            let queue = table_with(dir.path(), mortal_storage(&mortal), SIZES);
            let queue = queue.get_or_create(TOPIC, 0).unwrap();
            queue.append(at(0), &run(0..28)).unwrap();
            mortal.left.store(alive, Ordering::SeqCst);
            let result = if deletes { queue.delete_before(at(28)).map(drop) } else { queue.truncate_to(at(0)) };
            assert_eq!(result.is_ok(), alive > 2 && deletes || alive > 3);
            let left = queue.files.numbers().unwrap();
            let expected = if deletes { alive.min(3)..4 } else { 0..4 - alive };
            assert_eq!(left, expected.collect::<Vec<_>>());
            assert!(everything(&queue).iter().all(|(offset, _)| deletes && *offset >= 21));
        }
    }
}

#[test]
fn a_sync_covers_every_file_and_every_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let mortal = Mortal::new();
    let queue = table_with(dir.path(), mortal_storage(&mortal), SIZES);
    let queue = queue.get_or_create(TOPIC, 0).unwrap();
    queue.append(at(3), &run(0..14)).unwrap();
    mortal.refuses_syncs.store(true, Ordering::SeqCst);
    queue.state().unwrap();
    assert!(queue.sync().is_err());
    assert!(queue.is_touched(), "what could not be synced is asked for again");
    mortal.refuses_syncs.store(false, Ordering::SeqCst);
    queue.sync().unwrap();
    let folder = dir.path().join("consumequeue");
    let mut expected = vec![dir.path().to_path_buf(), folder.clone(), folder.join(TOPIC), folder.join(TOPIC).join("0")];
    expected.extend((0..3).map(|number| file(dir.path(), number)));
    let mut synced = mortal.synced();
    synced.sort();
    assert_eq!(synced, expected);
    queue.sync().unwrap();
    assert_eq!(mortal.synced(), Vec::<PathBuf>::new());
    queue.append(at(17), &run(14..16)).unwrap();
    queue.sync().unwrap();
    assert_eq!(mortal.synced(), [file(dir.path(), 2)]);
}

#[test]
fn a_queue_is_small() {
    assert!(size_of::<ConsumeQueue>() <= 128, "{}", size_of::<ConsumeQueue>());
}

#[test]
fn a_queue_that_begins_in_the_middle_has_rocketmq_s_fillers_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(17), &run(0..1)).unwrap();
    assert_eq!(queue.range(), at(17)..at(18));
    let bytes = fs::read(file(dir.path(), 2)).unwrap();
    assert_eq!(bytes.len(), 140);
    assert_eq!(bytes[..20], QueueEntry::FILLER);
    assert_eq!(bytes[40..60], QueueEntry::FILLER);
    assert_eq!(bytes[60..80], run(0..1)[0].encode());
    assert_eq!(bytes[80..], [0; 60]);
    assert!(!file(dir.path(), 1).exists());
}

#[test]
fn an_exactly_full_file_has_no_next_one_yet() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..7)).unwrap();
    assert!(!file(dir.path(), 1).exists());
    assert_eq!(queue.read(at(7), 1).unwrap(), []);
    let state = checkpoint(&queue);
    let again = self::queue(dir.path());
    assert!(again.restore(&state, true, LogOffset::ZERO).unwrap());
    again.append(at(7), &run(7..9)).unwrap();
    assert_eq!(again.read(at(5), 9).unwrap().len(), 4);
}

#[test]
fn truncation_leaves_zeros_and_no_later_files() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..20)).unwrap();
    queue.truncate_to(at(9)).unwrap();
    assert!(!file(dir.path(), 2).exists());
    assert_eq!(fs::read(file(dir.path(), 1)).unwrap()[40..], [0; 100]);
    queue.truncate_to(at(7)).unwrap();
    assert!(!file(dir.path(), 1).exists());
    assert_eq!(queue.range(), at(0)..at(7));
}

#[test]
fn the_last_file_is_never_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..21)).unwrap();
    assert_eq!(queue.delete_before(at(13)).unwrap(), 1);
    assert_eq!(queue.range(), at(7)..at(21));
    assert_eq!(queue.delete_before(at(1000)).unwrap(), 1);
    assert_eq!(queue.range(), at(14)..at(21));
    assert_eq!(ConsumeQueue::open(dir.path(), TOPIC, 0, PER_FILE).unwrap().range(), at(14)..at(21));
}

#[test]
fn a_queue_without_records_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..10)).unwrap();
    let again = self::queue(dir.path());
    again.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap();
    assert!(!again.finish_rebuild(&|_| true).unwrap());
    assert_eq!(again.range(), at(10)..at(10));
    again.append(at(10), &run(10..11)).unwrap();
    assert_eq!(everything(&again), [(10, entry(1000))]);
}

/// The entries of a queue all of whose records were lost with the end of the log stayed in its files: what the log got in
/// their place later was theirs for RocketMQ.
#[test]
fn of_a_queue_without_records_only_what_was_deleted_keeps_its_place() {
    for is_batch in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let open = || if is_batch { batch_queue(dir.path()) } else { queue(dir.path()) };
        let written = open();
        if is_batch {
            (0..7).for_each(|base| written.append_batch(&batch(base)).unwrap());
        } else {
            written.append(at(0), &run(0..7)).unwrap();
        }
        let folder = if is_batch { "batchconsumequeue" } else { "consumequeue" };
        let path = dir.path().join(format!("{folder}/{TOPIC}/0/{:020}", 0));
        let again = open();
        again.begin_rebuild(LogOffset::new(400), &Damages::default()).unwrap();
        assert!(again.finish_rebuild(&|entry| entry.end() <= 400).unwrap());
        assert_eq!(again.range(), at(4)..at(4));
        let bytes = fs::read(&path).unwrap();
        let entry_bytes = if is_batch { BatchEntry::BYTES } else { QueueEntry::BYTES };
        assert!(bytes[3 * entry_bytes..4 * entry_bytes].iter().any(|byte| *byte != 0));
        assert!(bytes[4 * entry_bytes..].iter().all(|byte| *byte == 0));
        again.begin_rebuild(LogOffset::ZERO, &Damages::default()).unwrap();
        assert!(again.finish_rebuild(&|_| false).unwrap());
        assert_eq!(again.range(), at(0)..at(0));
        assert!(!path.exists());
    }
}

/// RocketMQ had cut the log where messages of a queue were lost, and gone on behind mqlog's fillers. A comparison did not believe
/// that so many messages were lost in no bytes, and left out what RocketMQ had acknowledged.
#[test]
fn a_gap_that_the_queue_s_own_file_has_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let written = queue(dir.path());
    written.append(at(0), &run(0..2)).unwrap();
    written.skip_to(at(5), 1_000).unwrap();
    written.append(at(5), &run(2..4)).unwrap();
    let again = queue(dir.path());
    let rebuild = |from: u64, log_offset: u64| {
        again.begin_rebuild(LogOffset::ZERO, &Damages::default()).unwrap();
        again.append(at(0), &run(0..2)).unwrap();
        again.skip_to(at(from), log_offset)
    };
    for (from, log_offset) in [(6, 200), (5, 199)] {
        assert!(matches!(rebuild(from, log_offset), Err(Error::OutOfOrder { .. })), "{from} {log_offset}");
    }
    rebuild(5, 200).unwrap();
    again.append(at(5), &run(2..4)).unwrap();
    again.finish_rebuild(&|_| false).unwrap();
    assert_eq!(everything(&again).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 5, 6]);
}

/// A batch queue's first entry was behind where a checkpoint said that the queue ends, and the queue began there. Found by fuzzing.
#[test]
fn a_batch_queue_does_not_begin_behind_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let written = batch_queue(dir.path());
    (5..8).for_each(|base| written.append_batch(&batch(base)).unwrap());
    let state = QueueState { min: at(1), next: at(3), ..checkpoint(&written) };
    let again = batch_queue(dir.path());
    assert!(again.restore(&state, true, LogOffset::ZERO).unwrap());
    assert!(matches!(again.raise_min(LogOffset::ZERO), Err(Error::Corrupt(_))));
    assert_eq!(again.range(), at(1)..at(3));
}

/// The file of the last entry was gone when messages behind it had been lost: dispatch ended with an error.
#[test]
fn a_gap_behind_an_entry_whose_file_is_gone_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let written = queue(dir.path());
    written.append(at(0), &run(0..7)).unwrap();
    let again = queue(dir.path());
    assert!(again.restore(&checkpoint(&written), true, LogOffset::ZERO).unwrap());
    fs::remove_file(file(dir.path(), 0)).unwrap();
    again.skip_to(at(9), 10_000).unwrap();
    again.append(at(9), &run(9..10)).unwrap();
    assert_eq!(again.range(), at(0)..at(10));
}

#[test]
fn an_entry_that_no_file_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    for entry in [QueueEntry { log_offset: 1 << 63, ..entry(0) }, QueueEntry { record_bytes: 1 << 31, ..entry(0) }] {
        assert!(matches!(queue.append(at(0), &[entry]), Err(Error::OutOfRange { .. })), "{entry:?}");
    }
    let largest = QueueEntry { log_offset: i64::MAX as u64, record_bytes: i32::MAX as u32, tags_code: 0 };
    assert_eq!(queue.append(at(0), &[largest]).unwrap(), 1);
}

/// RocketMQ leaves out what lies in the log's first file behind a filler of its own, and ignores all that comes below 2 GiB behind
/// one at a queue's end.
#[test]
fn fillers_of_lost_messages_hide_no_other_from_rocketmq() {
    let dir = tempfile::tempdir().unwrap();
    let table = |name: &str| {
        let sizes = QueueSizes { log_file_bytes: 1000, ..SIZES };
        table_with(&dir.path().join(name), Storage::real(), sizes)
    };
    let raw = |name: &str, file: u64| {
        let bytes = fs::read(self::file(&dir.path().join(name), file)).unwrap();
        let entries = bytes.chunks_exact(QueueEntry::BYTES).map(QueueEntry::decode);
        entries.map_while(|entry| entry.unwrap()).collect::<Vec<_>>()
    };
    let near = QueueEntry::filler_at(400, 100);

    let queue = table("middle").get_or_create(TOPIC, 0).unwrap();
    queue.append(at(0), &run(0..2)).unwrap();
    queue.skip_to(at(4), 400).unwrap();
    queue.append(at(4), &run(4..5)).unwrap();
    queue.skip_to(at(6), 1100).unwrap();
    queue.append(at(6), &run(11..12)).unwrap();
    let again = |from: u64| QueueEntry::filler_at(100 * from, 100);
    let expected = [run(0..2), vec![again(1); 2], run(4..5), vec![again(4)], run(11..12)].concat();
    assert_eq!(raw("middle", 0), expected);
    let numbers = everything(&queue).iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers, [0, 1, 4, 6], "fillers are no messages");

    let across = QueueEntry::filler_across(1000);
    for (name, first, filler) in [("front", 4, near), ("border", 10, again(10)), ("later", 14, across)] {
        let queue = table(name).get_or_create(TOPIC, 0).unwrap();
        queue.append(at(2), &run(first..first + 1)).unwrap();
        assert_eq!(raw(name, 0), [vec![filler, filler], run(first..first + 1)].concat());
    }

    // The log goes on in a second file, or does not.
    for (name, log_end) in [("two files", 1001), ("single", 900)] {
        let queue = table(name).get_or_create(TOPIC, 0).unwrap();
        queue.append(at(0), &run(4..5)).unwrap();
        assert!(queue.keep_end(at(3), log_end).unwrap());
        assert_eq!(raw(name, 0), [run(4..5), vec![near, near]].concat());
        assert_eq!(queue.range(), at(0)..at(3));
        queue.append(at(3), &run(20..21)).unwrap();
        assert_eq!(everything(&queue).len(), 2);
    }
    for (log_end, borders) in [(1000, 0), (1001, 1000), (2001, 1000)] {
        let name = &format!("alone {log_end}");
        let queue = table(name).get_or_create(TOPIC, 0).unwrap();
        assert!(queue.keep_end(at(3), log_end).unwrap());
        assert_eq!(queue.range(), at(3)..at(3));
        if borders > 0 {
            assert_eq!(raw(name, 0), [QueueEntry::filler_at(borders - 1, 2); 3]);
        } else {
            assert!(!file(&dir.path().join(name), 0).exists(), "nothing that RocketMQ could misread");
        }
    }
}

/// In front of the first message an entry of a record that is still in the log, but damaged, becomes a filler.
#[test]
fn in_front_of_a_queue_only_deleted_messages_have_entries() {
    let dir = tempfile::tempdir().unwrap();
    queue(dir.path()).append(at(0), &run(0..6)).unwrap();
    let again = queue(dir.path());
    again.begin_rebuild(LogOffset::new(200), &Damages::default()).unwrap();
    again.append(at(4), &run(4..6)).unwrap();
    assert!(again.finish_rebuild(&|_| true).unwrap());
    assert_eq!(again.range(), at(4)..at(6));
    let bytes = fs::read(file(dir.path(), 0)).unwrap();
    let expected =
        [run(0..2), vec![], run(4..6)].map(|run| run.iter().flat_map(QueueEntry::encode).collect::<Vec<_>>());
    assert_eq!(bytes[..120], [&expected[0][..], &QueueEntry::FILLER, &QueueEntry::FILLER, &expected[2]].concat());
}

/// A damaged entry of a batch queue, or a file under a forged name, was taken for the end of its queue, whose number no
/// checkpoint can hold: the one that was written with it could not be read again. Found by fuzzing.
#[test]
fn numbers_beyond_any_queue_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let batch = BatchEntry { log_offset: 0, record_bytes: 100, tags_code: 0, store_ms: 0, base: 0, count: 2 };
    batch_queue(dir.path()).append_batch(&batch).unwrap();
    let path = dir.path().join(format!("batchconsumequeue/{TOPIC}/0/{:020}", 0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[BatchEntry::BYTES..][..BatchEntry::BYTES].copy_from_slice(&BatchEntry { base: 1 << 61, ..batch }.encode());
    fs::write(path, bytes).unwrap();
    let again = batch_queue(dir.path());
    again.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap();
    assert!(again.finish_rebuild(&|_| true).unwrap());
    assert_eq!(again.range(), at(2)..at(2));

    let dir = tempfile::tempdir().unwrap();
    queue(dir.path()).append(at(0), &run(0..3)).unwrap();
    let far = file(dir.path(), i64::MAX as u64 / 20 / u64::from(PER_FILE));
    fs::copy(file(dir.path(), 0), &far).unwrap();
    fs::remove_file(file(dir.path(), 0)).unwrap();
    let again = queue(dir.path());
    assert!(again.is_damaged());
    again.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap();
    assert!(again.finish_rebuild(&|_| true).unwrap() && !far.exists());
    assert_eq!(again.range(), at(0)..at(0));
}

#[test]
fn files_deleted_after_the_checkpoint_need_no_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..20)).unwrap();
    let state = checkpoint(&queue);
    queue.raise_min(LogOffset::new(800)).unwrap();
    queue.delete_before(at(8)).unwrap();
    let again = self::queue(dir.path());
    assert!(!again.restore(&state, true, LogOffset::new(800)).unwrap());
    assert!(!again.restore(&state, false, LogOffset::new(300)).unwrap());
    assert!(again.restore(&state, false, LogOffset::new(800)).unwrap());
    again.raise_min(LogOffset::new(800)).unwrap();
    assert_eq!(again.range(), at(8)..at(20));
}

/// A checkpoint with a right checksum named more entries than the files of a batch queue hold: whoever wrote the next one
/// looked for a file that was not there. Found by fuzzing.
#[test]
fn a_checkpoint_with_more_entries_than_the_files_hold_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let queue = batch_queue(dir.path());
    let batch = BatchEntry { log_offset: 0, record_bytes: 100, tags_code: 0, store_ms: 0, base: 0, count: 2 };
    queue.append_batch(&batch).unwrap();
    let state = checkpoint(&queue);
    for (entries, is_right) in [(1, true), (u64::from(PER_FILE), true), (u64::from(PER_FILE) + 1, false)] {
        let lied = QueueState { entries, ..state.clone() };
        assert_eq!(batch_queue(dir.path()).restore(&lied, true, LogOffset::ZERO).unwrap(), is_right);
    }
    // Or more messages than the entries have.
    let queue = batch_queue(dir.path());
    assert!(queue.restore(&QueueState { next: at(5), ..state }, true, LogOffset::ZERO).unwrap());
    let later = BatchEntry { log_offset: 100, base: 2, ..batch };
    assert!(matches!(queue.append_batch(&later), Err(Error::OutOfOrder { .. })));
}

/// A checkpoint said that a queue begins where it has nothing but fillers. Its range stayed as long as they are, and each
/// reader went through all of them to find no message. Now such a queue begins at its end. Found by fuzzing.
#[test]
fn a_queue_of_fillers_alone_has_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..3)).unwrap();
    queue.skip_to(at(20), u64::MAX).unwrap();
    let state = QueueState { min: at(3), ..checkpoint(&queue) };
    let again = self::queue(dir.path());
    assert!(again.restore(&state, true, LogOffset::ZERO).unwrap());
    again.raise_min(LogOffset::ZERO).unwrap();
    assert_eq!(again.range(), at(20)..at(20));
}

#[test]
fn a_changed_file_is_not_the_one_of_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..10)).unwrap();
    let state = checkpoint(&queue);
    let path = file(dir.path(), 1);
    let bytes = fs::read(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, bytes).unwrap();
    let again = self::queue(dir.path());
    assert!(!again.restore(&state, true, LogOffset::ZERO).unwrap());
    fs::File::options().write(true).open(&path).unwrap().set_len(60).unwrap();
    assert!(!again.restore(&state, false, LogOffset::ZERO).unwrap());
}

#[test]
fn a_zeroed_entry_is_named_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    queue.append(at(0), &run(0..10)).unwrap();
    let mut bytes = fs::read(file(dir.path(), 1)).unwrap();
    bytes[20..40].fill(0);
    fs::write(file(dir.path(), 1), bytes).unwrap();
    let Err(Error::Corrupt(damage)) = queue.read(at(0), 20) else { panic!("the entry is missed") };
    assert_eq!((damage.path, damage.range), (file(dir.path(), 1), 20..40));
}

#[test]
fn odd_names_are_strays_and_odd_lengths_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("consumequeue/a/3");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(dir.path().join("consumequeue/a/03")).unwrap();
    fs::create_dir_all(dir.path().join("batchconsumequeue/b/0")).unwrap();
    fs::write(dir.path().join("consumequeue/CURRENT"), "").unwrap();
    fs::write(folder.join("notes"), "").unwrap();
    fs::write(folder.join("00000000000000000000"), "").unwrap();
    let (table, mut strays) = QueueTable::open(Storage::real(), dir.path(), &dir.path().join("new"), SIZES).unwrap();
    strays.sort();
    let expected = ["consumequeue/CURRENT", "consumequeue/a/03", "consumequeue/a/3/notes"];
    assert_eq!(strays, expected.map(|name| dir.path().join(name)));
    assert!(table.get("a", 3).unwrap().is_damaged());
    assert!(table.is_batch("b") && !table.is_batch("a"));
    assert_eq!(table.all().len(), 2);
    assert!(table.get_or_create("x/y", 0).is_err());
    assert!(matches!(table.get("b", 0).unwrap().append(at(0), &run(0..1)), Err(Error::Unsupported { .. })));
}

#[test]
fn a_topic_name_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let table = table(dir.path());
    let (one, two) = (table.get_or_create("t", 1).unwrap(), table.get_or_create("t", 2).unwrap());
    assert!(std::ptr::eq(one.topic(), two.topic()));
    assert!(Arc::ptr_eq(&one, &table.get("t", 1).unwrap()));
}

#[test]
fn readers_never_see_half_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let items = queue.read(queue.range().start, 50).unwrap();
                    for item in &items {
                        // Each life of the queue has its own record length, so a mixture of two would show.
                        assert_eq!(item.entry.log_offset, item.queue_offset.get() * u64::from(item.entry.record_bytes));
                    }
                    assert!(items.windows(2).all(|pair| pair[0].entry.record_bytes == pair[1].entry.record_bytes));
                }
            });
        }
        for life in 1..60_u32 {
            let entries: Vec<_> = (0..40)
                .map(|offset| QueueEntry { log_offset: offset * u64::from(life), record_bytes: life, tags_code: 0 })
                .collect();
            match life % 3 {
                0 => queue.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap(),
                _ => queue.truncate_to(at(0)).unwrap(),
            }
            for (index, entries) in entries.chunks(9).enumerate() {
                queue.append(at(index as u64 * 9), entries).unwrap();
            }
            queue.finish_rebuild(&|_| true).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// The queues of every store that RocketMQ closed cleanly: what is read is what RocketMQ read, and a rebuild from it
/// finds nothing to repair. Needs the golden stores and `tar`.
#[test]
fn queues_written_by_rocketmq_are_read_as_rocketmq_reads_them() {
    let Some(golden) = std::env::var_os("MQLOG_GOLDEN_DIR").map(PathBuf::from) else { return };
    let stores: serde_json::Value = serde_json::from_slice(&fs::read(golden.join("stores.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (name, store) in stores.as_object().unwrap().iter().filter(|(_, store)| store["ended"] == "clean") {
        let dir = tempfile::tempdir().unwrap();
        let archive = golden.join(format!("{name}.tar.gz"));
        let tar = std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status();
        assert!(tar.unwrap().success());
        let options: Vec<_> = store["options"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
        let number = |option: &str| -> u32 {
            options.iter().position(|word| *word == option).map_or(10, |at| options[at + 1].parse().unwrap())
        };
        let sizes = QueueSizes {
            queue_file_entries: number("--queue-file-entries"),
            batch_queue_file_entries: number("--batch-queue-file-entries"),
            max_open_files: 3,
            log_file_bytes: 0,
        };
        let root = dir.path().join(name);
        let (table, strays) = QueueTable::open(Storage::real(), &root, &dir.path().join("new"), sizes).unwrap();
        assert_eq!(strays, Vec::<PathBuf>::new());
        let log_start = store["expected_from"]["min_log_offset"].as_u64().unwrap();
        let lines = fs::read_to_string(golden.join(store["expected"]["queues"].as_str().unwrap())).unwrap();
        let mut entries = Vec::new();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["max"].is_null() {
                entries.push(line);
                continue;
            }
            compared += entries.len();
            let id = line["queue_id"].as_i64().unwrap() as i32;
            let queue = table.get_or_create(line["topic"].as_str().unwrap(), id).unwrap();
            compare_with_rocketmq(&queue, log_start, &line, &std::mem::take(&mut entries));
            if store["written_by"] == 533 {
                assert_eq!(queue.range().start.get(), line["min"].as_u64().unwrap(), "{name} {line}");
            }
        }
    }
    assert!(compared > 1000, "{compared} entries compared");
}

fn compare_with_rocketmq(
    queue: &ConsumeQueue,
    log_start: u64,
    end: &serde_json::Value,
    expected: &[serde_json::Value],
) {
    queue.restore_from_files().unwrap();
    queue.raise_min(LogOffset::new(log_start)).unwrap();
    assert_eq!(queue.range().end.get(), end["max"].as_u64().unwrap(), "{end}");
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let expected: Vec<_> = expected
        .iter()
        .filter(|line| number(&line["log_offset"]) >= log_start)
        .map(|line| QueueItem {
            queue_offset: at(number(&line["queue_offset"])),
            count: line["batch_size"].as_u64().unwrap_or(1) as u32,
            entry: QueueEntry {
                log_offset: number(&line["log_offset"]),
                record_bytes: number(&line["record_bytes"]) as u32,
                tags_code: line["tags_code"].as_i64().unwrap(),
            },
            store_ms: None,
        })
        .collect();
    let items = queue.read(at(0), usize::MAX).unwrap();
    let timeless: Vec<_> = items.iter().map(|item| QueueItem { store_ms: None, ..*item }).collect();
    assert_eq!(timeless, expected, "{end}");

    queue.begin_rebuild(LogOffset::MAX, &Damages::default()).unwrap();
    for item in &items {
        let QueueEntry { log_offset, record_bytes, tags_code } = item.entry;
        match item.store_ms {
            None => drop(queue.append(item.queue_offset, &[item.entry]).unwrap()),
            Some(store_ms) => {
                let (base, count) = (item.queue_offset.get(), item.count as u16);
                let entry = BatchEntry { log_offset, record_bytes, tags_code, store_ms, base, count };
                queue.append_batch(&entry).unwrap();
            }
        }
    }
    assert!(!queue.finish_rebuild(&|_| true).unwrap(), "{end}");
    assert_eq!(queue.read(at(0), usize::MAX).unwrap(), items);
}
