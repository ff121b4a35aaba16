//! Dispatch: a cursor in the log that feeds queues and index, live and in recovery.
//!
//! - Everything below the cursor is in queues and index; what is above may be there too, from before a crash.
//! - A step that fails changed nothing that its repetition would not write again in the same way.
//! - One step at a time; readers that find an entry missing step too.

mod targets;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem::replace;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::commit_log::{CommitLog, Walked};
use crate::consume_queue::{ConsumeQueue, Damages, QueueItem, QueueTable};
use crate::error::{Corruption, Error, Result};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::format::record::{RecordView, Transaction};
use crate::index_file::IndexSet;
use crate::offset::{LogOffset, QueueOffset};
use crate::progress::lock;

use targets::Target;
pub(crate) use targets::{
    DEFAULT_DELAY_LEVELS, DelayLevels, for_each_target, light_queue_id, own_target, tags_code_of,
};

/// A piece of the log that is dispatched without giving others a turn.
pub(crate) const STEP_BYTES: u64 = 64 * 1024;

/// Told of each queue, by topic and number, that got new messages.
pub(crate) type OnArrival = Arc<dyn Fn(&str, i32) + Send + Sync>;

/// Which derived files a pass over the log feeds.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// `None`: all queues.
    pub(crate) queues: Option<HashSet<(String, i32)>>,
    pub(crate) index: bool,
}

impl Selection {
    pub(crate) const ALL: Self = Self { queues: None, index: true };

    pub(crate) fn has(&self, topic: &str, queue_id: i32) -> bool {
        // The pair is made only for a repair: live dispatch feeds all.
        self.queues.as_ref().is_none_or(|queues| queues.contains(&(topic.to_owned(), queue_id)))
    }
}

/// How far dispatch is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DispatchCursor {
    pub(crate) at: LogOffset,
    /// Store time of the last record below.
    pub(crate) store_ms: i64,
    /// Where that record is, and its length.
    pub(crate) last: Option<(u64, u32)>,
}

/// Feeds queues and index from the log.
pub(crate) struct Dispatcher {
    pub(crate) log: CommitLog,
    pub(crate) queues: Arc<QueueTable>,
    pub(crate) index: Arc<IndexSet>,
    levels: DelayLevels,
    cursor: Mutex<DispatchCursor>,
    /// Set under the cursor's lock: queues and index are written no more.
    ended: AtomicBool,
    /// Entries that got no place: a name that is no folder, a queue offset that is taken.
    refused: AtomicU64,
    damages: Damages,
    /// Told after each step of the queues that got messages in it.
    on_arrival: Option<OnArrival>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dispatcher").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub(crate) fn new(
        log: CommitLog,
        queues: Arc<QueueTable>,
        index: Arc<IndexSet>,
        levels: DelayLevels,
        on_arrival: Option<OnArrival>,
    ) -> Self {
        let (cursor, refused, damages) = (Mutex::default(), AtomicU64::new(0), Damages::default());
        Self { log, queues, index, levels, cursor, ended: AtomicBool::new(false), refused, damages, on_arrival }
    }

    /// Everything below `cursor` counts as dispatched.
    pub(crate) fn begin(&self, cursor: DispatchCursor) {
        *lock(&self.cursor) = cursor;
        self.log.progress().begin_dispatched(cursor.at);
    }

    /// Dispatches up to about [`STEP_BYTES`] of what lies below `end`; returns how far dispatch is.
    pub(crate) fn step(&self, end: LogOffset) -> Result<LogOffset> {
        let mut cursor = lock(&self.cursor);
        if cursor.at >= end {
            return Ok(cursor.at);
        }
        self.check_open()?;
        let (reached, fed) = self.feed(*cursor, end, STEP_BYTES, &Selection::ALL)?;
        *cursor = reached;
        self.log.progress().set_dispatched(reached.at);
        drop(cursor);
        if let Some(tell) = &self.on_arrival {
            fed.iter().for_each(|queue| tell(queue.topic(), queue.queue_id()));
        }
        Ok(reached.at)
    }

    /// Dispatches everything below `end`, a step at a time.
    pub(crate) fn catch_up(&self, end: LogOffset) -> Result<()> {
        while self.step(end)? < end {}
        Ok(())
    }

    /// Stops dispatch for as long as the guard lives; what it holds may be moved by a recovery.
    pub(crate) fn pause(&self) -> Result<MutexGuard<'_, DispatchCursor>> {
        let cursor = lock(&self.cursor);
        self.check_open().map(|()| cursor)
    }

    /// From here on nothing is written to queues and index, whose files may be somebody else's then.
    pub(crate) fn end(&self) {
        let _cursor = lock(&self.cursor);
        self.ended.store(true, Ordering::Relaxed);
    }

    /// For whoever has the cursor's lock.
    fn check_open(&self) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Feeds the selected queues, and the index, from a range of the log; returns the queues that were not as it says.
    /// `progress` gets how far it is.
    pub(crate) fn compare(
        &self,
        selection: &Selection,
        range: Range<LogOffset>,
        progress: &mut dyn FnMut(DispatchCursor) -> Result<()>,
    ) -> Result<Vec<(String, i32)>> {
        let is_chosen = |queue: &Arc<ConsumeQueue>| selection.has(queue.topic(), queue.queue_id());
        let compared: Vec<_> = self.queues.all().into_iter().filter(is_chosen).collect();
        let log_start = self.log.range().start;
        compared.iter().try_for_each(|queue| queue.begin_rebuild(log_start, &self.damages))?;
        let mut cursor = DispatchCursor { at: range.start.max(log_start), ..DispatchCursor::default() };
        while cursor.at < range.end {
            (cursor, _) = self.feed(cursor, range.end, 16 * STEP_BYTES, selection)?;
            progress(cursor)?;
        }
        // As it is now: a deletion beside this may have taken what the queues had.
        let log = self.log.range();
        let damages = self.damages();
        let is_damaged =
            |at| damages.iter().any(|damage| damage.range.contains(&at)) || self.log.known_damage(at).is_some();
        let is_kept = |entry: &QueueEntry| {
            let is_for_good = || is_damaged(entry.log_offset) || entry.is_filler_across(self.log.file_bytes());
            entry.end() <= log.start.get() || (entry.end() <= log.end.get() && is_for_good())
        };
        let mut repaired = Vec::new();
        for queue in compared {
            if queue.finish_rebuild(&is_kept)? {
                repaired.push(name_of(&queue));
            }
            raise(&queue, queue.range().end);
        }
        Ok(repaired)
    }

    /// Is a queue's entry the one that dispatch makes for a record?
    pub(crate) fn is_entry_of(&self, record: &RecordView<'_>, queue: (&str, i32), item: &QueueItem) -> bool {
        let is_item = |target: &Target<'_>| {
            // Entries of batch queues have a time.
            let count = if item.store_ms.is_some() { target.count } else { 1 };
            (&*target.topic, target.queue_id) == queue
                && (target.queue_offset, u32::from(count)) == (item.queue_offset.get(), item.count)
        };
        let mut fits = own_target(record).is_some_and(|own| is_item(&own));
        if !fits {
            for_each_target(record, |target| fits |= is_item(&target));
        }
        let entry = &item.entry;
        fits && (entry.log_offset, entry.record_bytes) == (record.log_offset(), record.record_bytes())
            && entry.tags_code == tags_code_of(record, &self.levels)
            && item.store_ms.is_none_or(|store_ms| store_ms == record.store_ms())
    }

    /// How many entries got no place.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Damage of the log that dispatch met.
    pub(crate) fn damages(&self) -> Vec<Corruption> {
        lock(self.damages.as_ref()).clone()
    }

    /// Feeds about `bytes` below `end`; returns how far it came, and the queues that got something.
    fn feed(
        &self,
        from: DispatchCursor,
        end: LogOffset,
        bytes: u64,
        selection: &Selection,
    ) -> Result<(DispatchCursor, Vec<Arc<ConsumeQueue>>)> {
        let mut runs = Runs::default();
        let (mut store_ms, mut last) = (from.store_ms, from.last);
        let at = self.log.walk(from.at, end, bytes, &mut |walked| {
            match walked {
                Walked::Record(record) => {
                    (store_ms, last) = (record.store_ms(), Some((record.log_offset(), record.record_bytes())));
                    self.feed_record(&record, selection, &mut runs)?;
                }
                Walked::Damaged(corruption) => {
                    let mut damages = lock(self.damages.as_ref());
                    if !damages.contains(&corruption) {
                        damages.push(corruption);
                    }
                }
                Walked::Blank(_) => {}
            }
            Ok(())
        })?;
        let mut fed = runs.batch_queues;
        for run in runs.all {
            self.append(&run)?;
            fed.push(run.queue);
        }
        Ok((DispatchCursor { at, store_ms, last }, fed))
    }

    fn feed_record(&self, record: &RecordView<'_>, selection: &Selection, runs: &mut Runs) -> Result<()> {
        let entry = QueueEntry {
            log_offset: record.log_offset(),
            record_bytes: record.record_bytes(),
            tags_code: tags_code_of(record, &self.levels),
        };
        let mut fed = Ok(());
        let refused = for_each_target(record, |target| {
            if fed.is_err() || !selection.has(&target.topic, target.queue_id) {
                return;
            }
            if target.is_batch {
                self.queues.mark_batch(&target.topic);
            }
            if !target.is_batch && runs.extend_last(&target, entry) {
                return;
            }
            fed = self.queues.get_or_create(&target.topic, target.queue_id).and_then(|queue| {
                if !self.queues.is_batch(&target.topic) {
                    let full = runs.push(queue, target.queue_offset, entry);
                    return full.map_or(Ok(()), |run| self.append(&run));
                }
                runs.batch_queues.push(Arc::clone(&queue));
                let entry = BatchEntry {
                    log_offset: entry.log_offset,
                    record_bytes: entry.record_bytes,
                    tags_code: entry.tags_code,
                    store_ms: record.store_ms(),
                    base: target.queue_offset,
                    count: target.count,
                };
                let append = || queue.append_batch(&entry);
                self.settle(append(), &queue, entry.log_offset, append)
            });
        });
        fed?;
        self.refused.fetch_add(refused, Ordering::Relaxed);
        if selection.index { self.feed_index(record) } else { Ok(()) }
    }

    fn feed_index(&self, record: &RecordView<'_>) -> Result<()> {
        if record.sys_flag().transaction() == Transaction::Rollback {
            return Ok(());
        }
        let keys = record.unique_key().into_iter().chain(record.keys());
        self.index.put(&record.topic(), keys, LogOffset::new(record.log_offset()), record.store_ms())
    }

    fn append(&self, run: &Run) -> Result<()> {
        let append = || run.queue.append(QueueOffset::new(run.from), &run.entries).map(drop);
        match append() {
            Err(Error::OutOfOrder { .. }) if run.entries.len() > 1 => {
                // Something in the run does not fit what is there: find out which.
                let each = run.entries.iter().zip(run.from..);
                each.map(|(entry, from)| Run { queue: Arc::clone(&run.queue), from, entries: vec![*entry] })
                    .try_for_each(|run| self.append(&run))
            }
            done => self.settle(done, &run.queue, run.entries.first().map_or(0, |first| first.log_offset), append),
        }
    }

    /// Puts right what came of an append, whose first record is at `log_offset`.
    fn settle(
        &self,
        done: Result<()>,
        queue: &ConsumeQueue,
        log_offset: u64,
        again: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = match done {
            // The messages between were lost with their records, in a log that was damaged.
            Err(Error::OutOfOrder { expected, given, .. }) if given > expected => {
                queue.skip_to(QueueOffset::new(given), log_offset).and_then(|()| again())
            }
            done => done,
        };
        match done {
            // Two records of a foreign log may claim the same queue offset: the first one keeps it, as in RocketMQ.
            Err(Error::OutOfOrder { .. } | Error::OutOfRange { .. } | Error::Unsupported { .. }) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            done => done,
        }
    }
}

pub(crate) fn name_of(queue: &ConsumeQueue) -> (String, i32) {
    (queue.topic().to_owned(), queue.queue_id())
}

/// Moves a queue's cursor at least to `next`; nobody appends to the queue meanwhile.
pub(crate) fn raise(queue: &ConsumeQueue, next: QueueOffset) {
    if queue.cursor().next() < next {
        queue.cursor().set(next);
    }
}

/// Entries of one queue that follow each other.
#[derive(Debug)]
struct Run {
    queue: Arc<ConsumeQueue>,
    from: u64,
    entries: Vec<QueueEntry>,
}

/// The runs of one step, a queue's in one place.
#[derive(Debug, Default)]
struct Runs {
    all: Vec<Run>,
    by_queue: HashMap<*const ConsumeQueue, usize>,
    last: usize,
    /// Those that were fed without a run.
    batch_queues: Vec<Arc<ConsumeQueue>>,
}

impl Runs {
    /// Adds an entry to the run that the last entry went to, if it follows there; most do, and need no look-up.
    fn extend_last(&mut self, target: &Target<'_>, entry: QueueEntry) -> bool {
        let Some(run) = self.all.get_mut(self.last) else { return false };
        let fits = (run.queue.queue_id(), run.queue.topic()) == (target.queue_id, &*target.topic)
            && run.from + run.entries.len() as u64 == target.queue_offset;
        if fits {
            run.entries.push(entry);
        }
        fits
    }

    /// Adds an entry; returns the queue's run so far if the entry does not follow it.
    fn push(&mut self, queue: Arc<ConsumeQueue>, offset: u64, entry: QueueEntry) -> Option<Run> {
        let index = *self.by_queue.entry(Arc::as_ptr(&queue)).or_insert(self.all.len());
        self.last = index;
        let begin = || Run { queue, from: offset, entries: vec![entry] };
        match self.all.get_mut(index) {
            None => self.all.push(begin()),
            Some(run) if run.from + run.entries.len() as u64 == offset => run.entries.push(entry),
            Some(run) => return Some(replace(run, begin())),
        }
        None
    }
}
