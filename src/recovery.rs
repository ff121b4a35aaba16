//! Queues and index after the log is open: what is believed, what is cleared, what is built anew.
//!
//! - The log is the truth. A file that a checkpoint does not describe as it is, is compared with the log as a whole.
//! - Before anything is dropped or rewritten, RocketMQ's checkpoint says that nothing of it can be relied on.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::checkpointer::stamp_checkpoint;
use crate::commit_log::{CommitLog, Known};
use crate::consume_queue::{ConsumeQueue, QueueTable};
use crate::dispatch::{DelayLevels, DispatchCursor, Dispatcher, Selection, for_each_target};
use crate::error::{Error, Result};
use crate::format::record::RecordView;
use crate::index_file::IndexSet;
use crate::offset::{LogOffset, QueueOffset};
use crate::side::{Derived, DerivedFile, Frame, QueueState, SideFolder};

/// The parts that are put right.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) log: CommitLog,
    pub(crate) side: SideFolder,
    pub(crate) queues: Arc<QueueTable>,
    pub(crate) index: Arc<IndexSet>,
    pub(crate) levels: DelayLevels,
    /// A rebuild is checkpointed after this much of the log.
    pub(crate) save_bytes: u64,
}

/// What recovery did.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Queues that were compared with the log.
    pub(crate) queues_compared: Vec<(String, i32)>,
    /// Those of them that were not as the log says.
    pub(crate) queues_repaired: Vec<(String, i32)>,
    pub(crate) index_rebuilt: bool,
    /// Does the frame of the session before still hold?
    pub(crate) frame_holds: bool,
}

/// The next queue offsets that the records above the last checkpoint ask for.
#[derive(Debug, Default)]
pub(crate) struct NextOffsets {
    next: HashMap<String, HashMap<i32, u64>>,
    /// Topics with inner batches.
    batch: HashSet<String>,
}

impl NextOffsets {
    /// Takes note of a record.
    pub(crate) fn note(&mut self, record: &RecordView<'_>) {
        for_each_target(record, |target| {
            let end = target.queue_offset.saturating_add(u64::from(target.count));
            if target.is_batch && !self.batch.contains(&*target.topic) {
                self.batch.insert(target.topic.clone().into_owned());
            }
            if !self.next.contains_key(&*target.topic) {
                self.next.insert(target.topic.clone().into_owned(), HashMap::new());
            }
            if let Some(next) = self.next.get_mut(&*target.topic) {
                let known = next.entry(target.queue_id).or_default();
                *known = end.max(*known);
            }
        });
    }

    /// Moves every queue's cursor at least to the end of its entries and to what its records ask for.
    fn settle(&self, queues: &QueueTable) -> Result<()> {
        for (topic, next) in &self.next {
            for (queue_id, next) in next {
                let queue = queues.get_or_create(topic, *queue_id)?;
                raise(&queue, QueueOffset::new(*next));
            }
        }
        for queue in queues.all() {
            raise(&queue, queue.range().end);
        }
        Ok(())
    }
}

fn raise(queue: &ConsumeQueue, next: QueueOffset) {
    if queue.cursor().next() < next {
        queue.cursor().set(next);
    }
}

/// Told how far a long recovery is: the offset reached, and the end.
type Watcher<'a> = &'a mut dyn FnMut(LogOffset, LogOffset);

/// Puts queues and index right, and says from where on dispatch goes on.
pub(crate) fn recover(
    parts: &Parts,
    known: &Known,
    is_clean: bool,
    next: &NextOffsets,
    watcher: Watcher<'_>,
) -> Result<Recovered> {
    next.batch.iter().for_each(|topic| parts.queues.mark_batch(topic));
    let end = parts.log.range().end;
    let derived = known.derived.as_ref().filter(|derived| derived.log_offset <= end);
    let recovered = match derived {
        Some(derived) => restore(parts, derived, is_clean, watcher)?,
        None => rebuild(parts, watcher)?,
    };
    next.settle(&parts.queues)?;
    Ok(recovered)
}

/// Goes on from the last checkpoint.
fn restore(parts: &Parts, derived: &Derived, is_clean: bool, watcher: Watcher<'_>) -> Result<Recovered> {
    if !is_clean {
        parts.warn_rocketmq()?;
    }
    let (broken, new) = restore_queues(parts, derived, is_clean)?;
    let index_rebuilt = !restore_index(parts, derived, is_clean)?;
    let cursor = DispatchCursor { at: derived.log_offset, store_ms: derived.store_ms };
    let dispatcher = parts.dispatcher(cursor);
    let end = parts.log.range().end;
    let mut repaired = Vec::new();
    if index_rebuilt || !broken.is_empty() {
        if is_clean {
            parts.warn_rocketmq()?;
        }
        if index_rebuilt {
            parts.index.clear()?;
        }
        let selection = Selection { queues: Some(broken.iter().cloned().collect()), index: index_rebuilt };
        let whole = parts.log.range().start..end;
        repaired = compare(&dispatcher, &parts.queues, &selection, whole, &mut |cursor| {
            watcher(cursor.at, end);
            Ok(())
        })?;
    }
    if !new.is_empty() {
        // They began after the checkpoint, or a rebuild that was killed had not met them yet: either way no record
        // below the checkpoint is theirs.
        let selection = Selection { queues: Some(new.into_iter().collect()), index: false };
        compare(&dispatcher, &parts.queues, &selection, derived.log_offset..end, &mut |_| Ok(()))?;
    }
    let frame_holds = !index_rebuilt && broken.is_empty();
    let dispatcher = Arc::new(dispatcher);
    Ok(Recovered { dispatcher, queues_compared: broken, queues_repaired: repaired, index_rebuilt, frame_holds })
}

/// Compares everything with one scan of the log.
fn rebuild(parts: &Parts, watcher: Watcher<'_>) -> Result<Recovered> {
    let range = parts.log.range();
    let compared: Vec<_> = parts.queues.all().iter().map(|queue| name_of(queue)).collect();
    let index_rebuilt = !parts.index.is_empty();
    if !compared.is_empty() || index_rebuilt {
        parts.warn_rocketmq()?;
    }
    parts.index.clear()?;
    let dispatcher = parts.dispatcher(DispatchCursor { at: range.start, store_ms: 0 });
    let mut saved = range.start;
    let repaired = compare(&dispatcher, &parts.queues, &Selection::ALL, range.clone(), &mut |cursor| {
        watcher(cursor.at, range.end);
        if cursor.at.get().saturating_sub(saved.get()) >= parts.save_bytes {
            parts.save_rebuild(cursor)?;
            saved = cursor.at;
        }
        Ok(())
    })?;
    *dispatcher.pause() = DispatchCursor { at: range.end, store_ms: parts.log.last_store_ms() };
    parts.log.progress().begin_dispatched(range.end);
    let dispatcher = Arc::new(dispatcher);
    Ok(Recovered {
        dispatcher,
        queues_compared: compared,
        queues_repaired: repaired,
        index_rebuilt,
        frame_holds: false,
    })
}

impl Parts {
    fn dispatcher(&self, cursor: DispatchCursor) -> Dispatcher {
        let (queues, index) = (Arc::clone(&self.queues), Arc::clone(&self.index));
        Dispatcher::new(self.log.clone(), queues, index, self.levels.clone(), cursor)
    }

    /// Says in RocketMQ's checkpoint that nothing of queues and index can be relied on.
    fn warn_rocketmq(&self) -> Result<()> {
        stamp_checkpoint(&self.side, 0)
    }

    /// Checkpoints a rebuild, so that it goes on from here if it is killed: queues that it has not met are not in it.
    fn save_rebuild(&self, cursor: DispatchCursor) -> Result<()> {
        let mut states = Vec::new();
        for queue in self.queues.all().into_iter().filter(|queue| !queue.range().is_empty()) {
            states.push(queue.state()?);
            queue.sync()?;
        }
        self.index.sync()?;
        let index = self.index.states()?;
        let frame = Frame { log_offset: cursor.at, store_ms: cursor.store_ms, queues: states, index };
        DerivedFile::create(&self.side, &frame).map(drop)
    }
}

/// Feeds the selected queues, and the index, from a range of the log; returns the queues that were not as it says.
pub(crate) fn compare(
    dispatcher: &Dispatcher,
    queues: &QueueTable,
    selection: &Selection,
    range: Range<LogOffset>,
    on_progress: &mut dyn FnMut(DispatchCursor) -> Result<()>,
) -> Result<Vec<(String, i32)>> {
    let chosen = |queue: &Arc<ConsumeQueue>| match &selection.queues {
        Some(names) => names.contains(&name_of(queue)),
        None => true,
    };
    let compared: Vec<_> = queues.all().into_iter().filter(chosen).collect();
    for queue in &compared {
        queue.begin_rebuild()?;
    }
    dispatcher.repair(selection, range, on_progress)?;
    let mut repaired = Vec::new();
    for queue in compared {
        if queue.finish_rebuild()? {
            repaired.push(name_of(&queue));
        }
        raise(&queue, queue.range().end);
    }
    Ok(repaired)
}

/// Queues by name.
type Names = Vec<(String, i32)>;

/// Believes what the last checkpoint says of the queues; returns those that are not as it says, and those that it does
/// not know.
fn restore_queues(parts: &Parts, derived: &Derived, is_clean: bool) -> Result<(Names, Names)> {
    let log_start = parts.log.range().start;
    let (mut broken, mut new) = (Vec::new(), Vec::new());
    for (name, state) in &derived.queues {
        if state.batch {
            parts.queues.mark_batch(&state.topic);
        }
        let queue = parts.queues.get_or_create(&state.topic, state.queue_id)?;
        if queue.is_damaged() || !restore_queue(&queue, state, is_clean, log_start)? {
            broken.push(name.clone());
        }
    }
    for name in parts.queues.all().iter().map(|queue| name_of(queue)) {
        if !derived.queues.contains_key(&name) {
            // After a clean stop the checkpoint knows every queue: then the folder came from elsewhere.
            let list = if is_clean { &mut broken } else { &mut new };
            list.push(name);
        }
    }
    Ok((broken, new))
}

/// Believes what the last checkpoint says of a queue, unless one of the entries that this has to look at is damaged.
fn restore_queue(queue: &ConsumeQueue, state: &QueueState, is_clean: bool, log_start: LogOffset) -> Result<bool> {
    let mut restored = queue.restore(state, is_clean, log_start);
    if !is_clean && matches!(restored, Ok(true)) {
        // A deletion may have been killed when the log's files were gone and the queues did not know yet.
        restored = queue.raise_min(log_start).map(|()| true);
    }
    if matches!(restored, Err(Error::Corrupt(_))) { Ok(false) } else { restored }
}

/// Believes what the last checkpoint says of the index; `false` if it must be built anew.
fn restore_index(parts: &Parts, derived: &Derived, is_clean: bool) -> Result<bool> {
    #[cfg(test)]
    if crate::planted::is(crate::planted::Planted::IndexNotRepaired) {
        return Ok(true);
    }
    if is_clean {
        return parts.index.matches_states(&derived.index);
    }
    let log = &parts.log;
    let store_ms = |at: LogOffset| match log.read(at) {
        Ok(record) => Ok(Some(record.store_ms())),
        Err(Error::OutOfRange { .. } | Error::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let end = derived.log_offset.min(log.range().end);
    parts.index.restore(&derived.index, end, store_ms)
}

pub(crate) fn name_of(queue: &ConsumeQueue) -> (String, i32) {
    (queue.topic().to_owned(), queue.queue_id())
}
