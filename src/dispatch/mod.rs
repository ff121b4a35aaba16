//! Dispatch: a cursor in the log that feeds queues and index, live and in recovery.
//!
//! - Everything below the cursor is in queues and index; what is above may be there too, from before a crash.
//! - A step that fails changed nothing that its repetition would not write again in the same way.
//! - One step at a time; readers that find an entry missing step too.

mod targets;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::commit_log::{CommitLog, Walked};
use crate::consume_queue::{ConsumeQueue, QueueItem, QueueTable};
use crate::error::{Corruption, Error, Result};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::format::record::{RecordView, Transaction};
use crate::index_file::IndexSet;
use crate::offset::{LogOffset, QueueOffset};
use crate::progress::lock;

pub(crate) use targets::{
    DEFAULT_DELAY_LEVELS, DelayLevels, SCHEDULE_TOPIC, for_each_target, light_queue_id, tags_code_of,
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

    fn has(&self, topic: &str, queue_id: i32) -> bool {
        // The pair is made only for a repair: live dispatch feeds all.
        self.queues.as_ref().is_none_or(|queues| queues.contains(&(topic.to_owned(), queue_id)))
    }
}

/// How far dispatch is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchCursor {
    pub(crate) at: LogOffset,
    /// Store time of the last record below.
    pub(crate) store_ms: i64,
}

/// Feeds queues and index from the log.
pub(crate) struct Dispatcher {
    log: CommitLog,
    queues: Arc<QueueTable>,
    index: Arc<IndexSet>,
    levels: DelayLevels,
    cursor: Mutex<DispatchCursor>,
    /// Entries that got no place: a name that is no folder, a queue offset that is taken.
    refused: AtomicU64,
    damages: Mutex<Vec<Corruption>>,
    on_arrival: OnceLock<OnArrival>,
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
        cursor: DispatchCursor,
    ) -> Self {
        log.progress().begin_dispatched(cursor.at);
        let (cursor, damages) = (Mutex::new(cursor), Mutex::default());
        let (refused, on_arrival) = (AtomicU64::new(0), OnceLock::new());
        Self { log, queues, index, levels, cursor, refused, damages, on_arrival }
    }

    /// From now on, `callback` is told after each step of the queues that got messages in it.
    pub(crate) fn tell_arrivals(&self, callback: OnArrival) {
        self.on_arrival.get_or_init(|| callback);
    }

    /// Dispatches up to about [`STEP_BYTES`] of what lies below `end`; returns how far dispatch is.
    pub(crate) fn step(&self, end: LogOffset) -> Result<LogOffset> {
        let mut cursor = lock(&self.cursor);
        if cursor.at >= end {
            return Ok(cursor.at);
        }
        let (reached, fed) = self.feed(*cursor, end, STEP_BYTES, &Selection::ALL)?;
        *cursor = reached;
        self.log.progress().set_dispatched(reached.at);
        drop(cursor);
        if let Some(tell) = self.on_arrival.get() {
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
    pub(crate) fn pause(&self) -> MutexGuard<'_, DispatchCursor> {
        lock(&self.cursor)
    }

    /// Feeds chosen queues, and the index, from a range of the log. `progress` gets how far it is.
    pub(crate) fn repair(
        &self,
        selection: &Selection,
        range: Range<LogOffset>,
        progress: &mut dyn FnMut(DispatchCursor) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = DispatchCursor { at: range.start.max(self.log.range().start), store_ms: 0 };
        while cursor.at < range.end {
            (cursor, _) = self.feed(cursor, range.end, 16 * STEP_BYTES, selection)?;
            progress(cursor)?;
        }
        Ok(())
    }

    /// Is a queue's entry the one that dispatch makes for a record?
    pub(crate) fn is_entry_of(&self, record: &RecordView<'_>, queue: (&str, i32), item: &QueueItem) -> bool {
        let (entry, mut fits) = (&item.entry, false);
        for_each_target(record, |target| {
            let count = if self.queues.is_batch(queue.0) { target.count } else { 1 };
            fits |= (&*target.topic, target.queue_id) == queue
                && (target.queue_offset, u32::from(count)) == (item.queue_offset.get(), item.count);
        });
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
        lock(&self.damages).clone()
    }

    /// Feeds about `max_bytes` below `end`; returns how far it came, and the queues that got something.
    fn feed(
        &self,
        from: DispatchCursor,
        end: LogOffset,
        max_bytes: u64,
        selection: &Selection,
    ) -> Result<(DispatchCursor, Vec<Arc<ConsumeQueue>>)> {
        let mut runs = Runs::default();
        let mut store_ms = from.store_ms;
        let at = self.log.walk(from.at, end, max_bytes, &mut |walked| {
            match walked {
                Walked::Record(record) => {
                    store_ms = record.store_ms();
                    self.feed_record(&record, selection, &mut runs)?;
                }
                Walked::Damaged(corruption) => self.note_damage(corruption),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut fed = runs.batch_queues;
        for run in runs.all {
            self.append(&run)?;
            fed.push(run.queue);
        }
        Ok((DispatchCursor { at, store_ms }, fed))
    }

    fn note_damage(&self, corruption: Corruption) {
        let mut damages = lock(&self.damages);
        if !damages.contains(&corruption) {
            damages.push(corruption);
        }
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
            fed = self.queues.get_or_create(&target.topic, target.queue_id).and_then(|queue| {
                if !self.queues.is_batch(&target.topic) {
                    return runs.push(queue, target.queue_offset, entry, |run| self.append(run));
                }
                runs.batch_queues.push(Arc::clone(&queue));
                self.append_batch(
                    &queue,
                    &BatchEntry {
                        log_offset: entry.log_offset,
                        record_bytes: entry.record_bytes,
                        tags_code: entry.tags_code,
                        store_ms: record.store_ms(),
                        base: target.queue_offset,
                        count: target.count,
                    },
                )
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
        match run.queue.append(QueueOffset::new(run.from), &run.entries) {
            Err(Error::OutOfOrder { .. }) if run.entries.len() > 1 => {
                // Something in the run does not fit what is there: find out which.
                for (entry, from) in run.entries.iter().zip(run.from..) {
                    self.append(&Run { queue: Arc::clone(&run.queue), from, entries: vec![*entry] })?;
                }
                Ok(())
            }
            Err(Error::OutOfOrder { expected, given, .. }) if given > expected => {
                // The messages between were lost with their records, in a log that was damaged.
                run.queue
                    .skip_to(QueueOffset::new(run.from))
                    .and_then(|()| run.queue.append(QueueOffset::new(run.from), &run.entries).map(drop))
                    .or_else(|error| self.refuse(error))
            }
            Err(error) => self.refuse(error),
            Ok(_) => Ok(()),
        }
    }

    fn append_batch(&self, queue: &ConsumeQueue, entry: &BatchEntry) -> Result<()> {
        match queue.append_batch(entry) {
            Err(Error::OutOfOrder { expected, given, .. }) if given > expected => {
                let skipped = queue.skip_to(QueueOffset::new(entry.base));
                skipped.and_then(|()| queue.append_batch(entry)).or_else(|error| self.refuse(error))
            }
            Err(error) => self.refuse(error),
            Ok(()) => Ok(()),
        }
    }

    /// Two records of a foreign log may claim the same queue offset: the first one keeps it, as in RocketMQ.
    fn refuse(&self, error: Error) -> Result<()> {
        match error {
            Error::OutOfOrder { .. } | Error::OutOfRange { .. } | Error::Unsupported { .. } => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => Err(other),
        }
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
    /// Those that were fed without a run.
    batch_queues: Vec<Arc<ConsumeQueue>>,
}

impl Runs {
    fn push(
        &mut self,
        queue: Arc<ConsumeQueue>,
        offset: u64,
        entry: QueueEntry,
        append: impl Fn(&Run) -> Result<()>,
    ) -> Result<()> {
        let Some(&index) = self.by_queue.get(&Arc::as_ptr(&queue)) else {
            self.by_queue.insert(Arc::as_ptr(&queue), self.all.len());
            self.all.push(Run { queue, from: offset, entries: vec![entry] });
            return Ok(());
        };
        let run = &mut self.all[index];
        if run.from + run.entries.len() as u64 != offset {
            append(run)?;
            run.entries.clear();
            run.from = offset;
        }
        run.entries.push(entry);
        Ok(())
    }
}
