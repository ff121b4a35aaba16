//! Queues and index after the log is open: what is believed, what is cleared, what is built anew.
//!
//! - The log is the truth. A file that a checkpoint does not describe as it is, is compared with the log as a whole.
//! - Before anything is dropped or rewritten, RocketMQ's checkpoint says that nothing of it can be relied on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::checkpointer::lower_checkpoint;
use crate::commit_log::{CommitLog, Known};
use crate::consume_queue::{ConsumeQueue, QueueTable, Restored, Stop};
use crate::dispatch::{DelayLevels, DispatchCursor, Dispatcher, Selection, for_each_target};
use crate::error::{Error, Result};
use crate::format::record::RecordView;
use crate::index_file::{self, IndexSet};
use crate::offset::{LogOffset, QueueOffset};
use crate::side::{Derived, QueueState, SideFolder};

/// The parts that are put right.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) log: CommitLog,
    pub(crate) side: SideFolder,
    pub(crate) queues: Arc<QueueTable>,
    pub(crate) index: Arc<IndexSet>,
    pub(crate) levels: DelayLevels,
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
pub(crate) struct NextOffsets(HashMap<String, HashMap<i32, u64>>);

impl NextOffsets {
    /// Takes note of a record.
    pub(crate) fn note(&mut self, record: &RecordView<'_>) {
        for_each_target(record, |target| {
            let end = target.queue_offset.saturating_add(u64::from(target.count));
            if !self.0.contains_key(&*target.topic) {
                self.0.insert(target.topic.clone().into_owned(), HashMap::new());
            }
            if let Some(next) = self.0.get_mut(&*target.topic) {
                let known = next.entry(target.queue_id).or_default();
                *known = end.max(*known);
            }
        });
    }

    /// Moves every queue's cursor at least to the end of its entries and to what its records ask for.
    fn settle(&self, queues: &QueueTable) -> Result<()> {
        for (topic, next) in &self.0 {
            for (queue_id, next) in next {
                raise(&*queues.get_or_create(topic, *queue_id)?, QueueOffset::new(*next));
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

/// Puts queues and index right, and says from where on dispatch goes on.
pub(crate) fn recover(
    parts: Parts,
    known: &Known,
    is_clean: bool,
    next: &NextOffsets,
    on_progress: &mut dyn FnMut(LogOffset, LogOffset),
) -> Result<Recovered> {
    let end = parts.log.range().end;
    let stop = if is_clean { Stop::Clean } else { Stop::Unclean };
    let Some(derived) = known.derived.as_ref().filter(|derived| derived.log_offset <= end) else {
        return rebuild_all(parts, next, on_progress);
    };
    if !is_clean {
        lower_checkpoint(&parts.side, |checkpoint| {
            (checkpoint.log_ms, checkpoint.queue_ms, checkpoint.index_ms) = (0, 0, 0);
        })?;
    }
    let mut broken = restore_queues(&parts, derived, stop)?;
    let index_rebuilt = !restore_index(&parts, derived, is_clean)?;
    let cursor = DispatchCursor { at: derived.log_offset, store_ms: derived.store_ms };
    let dispatcher = Dispatcher::new(
        parts.log.clone(),
        Arc::clone(&parts.queues),
        Arc::clone(&parts.index),
        parts.levels.clone(),
        cursor,
    );
    let mut repaired = Vec::new();
    if index_rebuilt || !broken.is_empty() {
        lower_checkpoint(&parts.side, |checkpoint| {
            (checkpoint.log_ms, checkpoint.queue_ms, checkpoint.index_ms) = (0, 0, 0);
        })?;
        if index_rebuilt {
            parts.index.clear()?;
        }
        let selection = Selection { queues: Some(broken.iter().cloned().collect()), index: index_rebuilt };
        repaired = compare(&dispatcher, &parts.queues, &selection, end, on_progress)?;
    }
    broken.sort();
    next.settle(&parts.queues)?;
    let frame_holds = repaired.is_empty() && !index_rebuilt && broken.is_empty();
    let dispatcher = Arc::new(dispatcher);
    Ok(Recovered { dispatcher, queues_compared: broken, queues_repaired: repaired, index_rebuilt, frame_holds })
}

/// Compares everything with one scan of the log.
fn rebuild_all(
    parts: Parts,
    next: &NextOffsets,
    on_progress: &mut dyn FnMut(LogOffset, LogOffset),
) -> Result<Recovered> {
    let end = parts.log.range().end;
    let all: Vec<_> = parts.queues.all().iter().map(|queue| name_of(queue)).collect();
    let has_index = !parts.index.is_empty();
    if !all.is_empty() || has_index {
        lower_checkpoint(&parts.side, |checkpoint| {
            (checkpoint.log_ms, checkpoint.queue_ms, checkpoint.index_ms) = (0, 0, 0);
        })?;
    }
    parts.index.clear()?;
    let cursor = DispatchCursor { at: parts.log.range().start, store_ms: 0 };
    let dispatcher = Dispatcher::new(
        parts.log.clone(),
        Arc::clone(&parts.queues),
        Arc::clone(&parts.index),
        parts.levels.clone(),
        cursor,
    );
    let repaired = compare(&dispatcher, &parts.queues, &Selection::ALL, end, on_progress)?;
    *dispatcher.pause() = DispatchCursor { at: end, store_ms: parts.log.last_store_ms() };
    parts.log.progress().begin_dispatched(end);
    next.settle(&parts.queues)?;
    Ok(Recovered {
        dispatcher: Arc::new(dispatcher),
        queues_compared: all,
        queues_repaired: repaired,
        index_rebuilt: has_index,
        frame_holds: false,
    })
}

/// Feeds the selected queues, and the index, from the whole log; returns the queues that were not as it says.
pub(crate) fn compare(
    dispatcher: &Dispatcher,
    queues: &QueueTable,
    selection: &Selection,
    end: LogOffset,
    on_progress: &mut dyn FnMut(LogOffset, LogOffset),
) -> Result<Vec<(String, i32)>> {
    let chosen = |queue: &Arc<ConsumeQueue>| match &selection.queues {
        Some(names) => names.contains(&name_of(queue)),
        None => true,
    };
    let compared: Vec<_> = queues.all().into_iter().filter(chosen).collect();
    for queue in &compared {
        queue.begin_rebuild()?;
    }
    dispatcher.repair(selection, end, &mut |at| {
        on_progress(at, end);
        Ok(())
    })?;
    let mut repaired = Vec::new();
    for queue in compared {
        if queue.finish_rebuild()? {
            repaired.push(name_of(&queue));
        }
        raise(&queue, queue.range().end);
    }
    Ok(repaired)
}

/// Believes what the last checkpoint says of the queues; returns those that are not as it says.
fn restore_queues(parts: &Parts, derived: &Derived, stop: Stop) -> Result<Vec<(String, i32)>> {
    let log_start = parts.log.range().start;
    let mut broken = Vec::new();
    let mut seen = HashSet::new();
    for (name, state) in &derived.queues {
        if state.batch {
            parts.queues.mark_batch(&state.topic);
        }
        let queue = parts.queues.get_or_create(&state.topic, state.queue_id)?;
        seen.insert(name);
        let restored = if queue.is_damaged() { Restored::Mismatch } else { queue.restore(state, stop, log_start)? };
        if restored == Restored::Mismatch {
            broken.push(name.clone());
        }
    }
    for queue in parts.queues.all().into_iter().filter(|queue| !seen.contains(&name_of(queue))) {
        // The queue began after the checkpoint, so all of its records are above it, and what its files hold is not
        // needed. After a clean stop there is no such queue: then the folder came from elsewhere.
        let empty = QueueState {
            topic: queue.topic().to_owned(),
            queue_id: queue.queue_id(),
            batch: parts.queues.is_batch(queue.topic()),
            min: QueueOffset::ZERO,
            next: QueueOffset::ZERO,
            entries: 0,
            files: Vec::new(),
        };
        if stop == Stop::Clean || queue.restore(&empty, stop, log_start)? == Restored::Mismatch {
            broken.push(name_of(&queue));
        }
    }
    Ok(broken)
}

/// Believes what the last checkpoint says of the index; `false` if it must be built anew.
fn restore_index(parts: &Parts, derived: &Derived, is_clean: bool) -> Result<bool> {
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
    let restored = parts.index.restore(&derived.index, end, store_ms)?;
    Ok(restored == index_file::Restored::Done)
}

pub(crate) fn name_of(queue: &ConsumeQueue) -> (String, i32) {
    (queue.topic().to_owned(), queue.queue_id())
}
