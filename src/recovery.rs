//! Queues and index after the log is open: what is believed, what is cleared, what is built anew.
//!
//! - The log is the truth. A file that a checkpoint does not describe as it is, is compared with the log as a whole.
//! - Before anything is dropped or rewritten, RocketMQ's checkpoint says that nothing of it can be relied on.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpointer::{stamp_checkpoint, sync_derived};
use crate::commit_log::Known;
use crate::consume_queue::ConsumeQueue;
use crate::dispatch::{DispatchCursor, Dispatcher, Selection, for_each_target, name_of, raise};
use crate::error::{Error, Result};
use crate::format::record::RecordView;
use crate::offset::{LogOffset, QueueOffset};
use crate::side::{Derived, DerivedFile, FileState, Frame, IndexState, QueueState, SideFolder, StoreFormat};

/// The parts that are put right.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) side: SideFolder,
    /// What holds for this session, which is not closed.
    pub(crate) format: StoreFormat,
    /// Has log, queues and index.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// A rebuild is checkpointed after this much of the log.
    pub(crate) save_bytes: u64,
}

/// Queues by name.
type Names = Vec<(String, i32)>;

/// What recovery did.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Queues that were compared with the log.
    pub(crate) queues_compared: Names,
    /// Those of them that were not as the log says.
    pub(crate) queues_repaired: Names,
    pub(crate) index_rebuilt: bool,
    /// Does the frame of the session before still hold?
    pub(crate) frame_holds: bool,
}

/// What the records above the last checkpoint ask for: whether a topic has inner batches, and each queue's next offset.
#[derive(Debug, Default)]
pub(crate) struct NextOffsets {
    topics: HashMap<String, (bool, HashMap<i32, u64>)>,
    /// Did a record ask for an offset that does not follow? Only dispatch knows whether it will get it.
    has_gaps: bool,
}

impl NextOffsets {
    /// Takes note of a record; `derived` says where the queues were.
    pub(crate) fn note(&mut self, derived: Option<&Derived>, record: &RecordView<'_>) {
        for_each_target(record, |target| {
            if !self.topics.contains_key(&*target.topic) {
                self.topics.insert(target.topic.clone().into_owned(), Default::default());
            }
            let Some((is_batch, queues)) = self.topics.get_mut(&*target.topic) else { return };
            *is_batch |= target.is_batch;
            let next = queues.entry(target.queue_id).or_insert_with(|| {
                let state = derived.and_then(|it| it.queues.get(&(target.topic.clone().into_owned(), target.queue_id)));
                // A queue without messages begins anywhere.
                let state = state.filter(|state| state.min < state.next);
                state.map_or(target.queue_offset, |state| state.next.get())
            });
            self.has_gaps |= target.queue_offset > *next;
            *next = target.queue_offset.saturating_add(u64::from(target.count)).max(*next);
        });
    }

    /// Moves every queue's cursor at least to the end of its entries and to what its records ask for.
    fn settle(&self, dispatcher: &Dispatcher, end: LogOffset) -> Result<()> {
        let queues = &dispatcher.queues;
        if self.has_gaps {
            dispatcher.catch_up(end)?;
        }
        for (topic, (_, next)) in self.topics.iter().filter(|_| !self.has_gaps) {
            for (queue_id, next) in next {
                raise(&*queues.get_or_create(topic, *queue_id)?, QueueOffset::new(*next));
            }
        }
        queues.all().iter().for_each(|queue| raise(queue, queue.range().end));
        Ok(())
    }
}

/// Told how far a long recovery is: the offset reached, and the end.
type Watcher<'a> = &'a mut dyn FnMut(LogOffset, LogOffset);

/// Puts queues and index right, and says from where on dispatch goes on: from the last checkpoint, or from the end of
/// the log if there is none that holds and everything was compared with it.
pub(crate) fn recover(
    parts: &Parts,
    known: &Known,
    is_clean: bool,
    next: &NextOffsets,
    watcher: Watcher<'_>,
) -> Result<Recovered> {
    let dispatcher = &*parts.dispatcher;
    let (log, queues, index) = (dispatcher.log.range(), &dispatcher.queues, &dispatcher.index);
    let batch = next.topics.iter().filter(|(_, (is_batch, _))| *is_batch);
    batch.for_each(|(topic, _)| queues.mark_batch(topic));
    // What is deleted was in a frame before: one from below the log's start is an older copy. One from beyond the end of
    // what was kept is of a log that lost its end.
    let derived = known.derived.as_ref().filter(|derived| (log.start..=log.end).contains(&derived.log_offset));
    let (broken, new, index_rebuilt) = match derived {
        Some(derived) => restore(parts, derived, is_clean)?,
        None => (queues.all().iter().map(|queue| name_of(queue)).collect(), Vec::new(), !index.is_empty()),
    };
    if index_rebuilt || !broken.is_empty() {
        // Nothing of queues and index can be relied on.
        stamp_checkpoint(&parts.side, 0)?;
    }
    match derived {
        Some(derived) if index_rebuilt || !broken.is_empty() => parts.distrust(derived, &broken, index_rebuilt)?,
        Some(_) => {}
        // What does not fit the log now may seem to fit it when it has grown.
        None => DerivedFile::remove(&parts.side)?,
    }
    if is_clean {
        // Only now: a kill before this leaves a clean stop, whose files the next opening looks at as this one did.
        parts.format.save(&parts.side)?;
    }
    if index_rebuilt {
        index.clear()?;
    }
    let begin = match derived {
        Some(Derived { log_offset: at, store_ms, last, .. }) => {
            DispatchCursor { at: *at, store_ms: *store_ms, last: last.map(|last| (last.offset.get(), last.bytes)) }
        }
        None => {
            let (store_ms, last) = dispatcher.log.last_record();
            DispatchCursor { at: log.end, store_ms, last }
        }
    };
    let at = begin.at;
    dispatcher.begin(begin);
    let (mut repaired, mut saved) = (Vec::new(), log.start);
    if derived.is_none() || index_rebuilt || !broken.is_empty() {
        let some = Selection { queues: Some(broken.iter().cloned().collect()), index: index_rebuilt };
        let selection = if derived.is_some() { some } else { Selection::ALL };
        repaired = dispatcher.compare(&selection, log.clone(), &mut |cursor| {
            watcher(cursor.at, log.end);
            if derived.is_none() && cursor.at.get().saturating_sub(saved.get()) >= parts.save_bytes {
                parts.save_rebuild(cursor)?;
                saved = cursor.at;
            }
            Ok(())
        })?;
    }
    for state in broken.iter().filter_map(|name| derived?.queues.get(name)) {
        let queue = queues.get_or_create(&state.topic, state.queue_id)?;
        if queue.keep_end(state.next, at.get())? && !repaired.contains(&name_of(&queue)) {
            repaired.push(name_of(&queue));
        }
    }
    if !new.is_empty() {
        // They began after the checkpoint, or a rebuild that was killed had not met them yet: either way no record
        // below the checkpoint is theirs.
        let selection = Selection { queues: Some(new.into_iter().collect()), index: false };
        dispatcher.compare(&selection, at..log.end, &mut |_| Ok(()))?;
    }
    next.settle(dispatcher, log.end)?;
    let frame_holds = derived.is_some() && !index_rebuilt && broken.is_empty();
    Ok(Recovered { queues_compared: broken, queues_repaired: repaired, index_rebuilt, frame_holds })
}

impl Parts {
    /// Takes back, durably, what the last frame says of some queues, or of the index: a repair that is killed leaves
    /// something else. How far the queues went stays, for those whose records are gone.
    fn distrust(&self, derived: &Derived, queues: &Names, with_index: bool) -> Result<()> {
        let Some((mut file, _)) = DerivedFile::open(&self.side)? else { return Ok(()) };
        let unlike = FileState { base: 0, bytes: 0, modified_ns: 0 };
        let states = queues.iter().filter_map(|name| derived.queues.get(name));
        let queues = states.map(|state| QueueState { files: vec![unlike], ..state.clone() }).collect();
        // No index file has this name.
        let none = IndexState { name: 0, next_entry: 0, bytes: 0, modified_ns: 0 };
        let index = if with_index { vec![none] } else { derived.index.clone() };
        let Derived { log_offset, store_ms, last, log_start, .. } = *derived;
        file.append(&Frame { log_offset, store_ms, last, log_start, queues, index })
    }

    /// Checkpoints a rebuild, so that it goes on from here if it is killed: queues that it has not met are not in it.
    fn save_rebuild(&self, cursor: DispatchCursor) -> Result<()> {
        let queues = self.dispatcher.queues.all().into_iter().filter(|queue| !queue.range().is_empty());
        let states = queues.map(|queue| queue.state()).collect::<Result<_>>()?;
        let frame = sync_derived(&self.dispatcher, cursor, states)?;
        DerivedFile::create(&self.side, &frame).map(drop)
    }
}

/// Believes what the last checkpoint says; returns the queues that are not as it says, those that it does not know, and
/// whether the index must be built anew.
fn restore(parts: &Parts, derived: &Derived, is_clean: bool) -> Result<(Names, Names, bool)> {
    if !is_clean {
        stamp_checkpoint(&parts.side, 0)?;
    }
    let (log_start, queues) = (parts.dispatcher.log.range().start, &parts.dispatcher.queues);
    let (mut broken, mut new) = (Vec::new(), Vec::new());
    for (name, state) in &derived.queues {
        if state.batch {
            queues.mark_batch(&state.topic);
        }
        let queue = queues.get_or_create(&state.topic, state.queue_id)?;
        let may_have_lost = !is_clean || derived.log_start != log_start;
        if queue.is_damaged() || !restore_queue(&queue, state, (is_clean, may_have_lost), log_start)? {
            broken.push(name.clone());
        }
    }
    // After a clean stop the checkpoint knows every queue: then the folder came from elsewhere.
    let unknown = if is_clean { &mut broken } else { &mut new };
    let names = queues.all().into_iter().map(|queue| name_of(&queue));
    unknown.extend(names.filter(|name| !derived.queues.contains_key(name)));
    Ok((broken, new, !restore_index(&parts.dispatcher, derived, is_clean)?))
}

/// Believes what the last checkpoint says of a queue, unless one of the entries that this has to look at is damaged.
fn restore_queue(
    queue: &ConsumeQueue,
    state: &QueueState,
    (is_clean, may_have_lost): (bool, bool),
    log_start: LogOffset,
) -> Result<bool> {
    let mut restored = queue.restore(state, is_clean, log_start);
    if may_have_lost && matches!(restored, Ok(true)) {
        // A deletion may have been killed when the log's files were gone and the queues did not know yet, or somebody
        // removed files of a closed store.
        restored = queue.raise_min(log_start).map(|()| true);
    }
    if matches!(restored, Err(Error::Corrupt(_))) { Ok(false) } else { restored }
}

/// Believes what the last checkpoint says of the index; `false` if it must be built anew.
fn restore_index(dispatcher: &Dispatcher, derived: &Derived, is_clean: bool) -> Result<bool> {
    #[cfg(test)]
    if crate::planted::is(crate::planted::Planted::IndexNotRepaired) {
        return Ok(true);
    }
    if is_clean {
        return dispatcher.index.matches_states(&derived.index);
    }
    let log = &dispatcher.log;
    let store_ms = |at: LogOffset| match log.read_with(&mut log.reader(), at) {
        Ok(record) => Ok(Some(record.store_ms())),
        Err(Error::OutOfRange { .. } | Error::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let end = derived.log_offset.min(log.range().end);
    dispatcher.index.restore(&derived.index, end, store_ms)
}
