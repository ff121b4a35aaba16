//! Checkpoints: how far queues and index are durable, said in `mqlog/derived` and, for RocketMQ, in `checkpoint`.
//!
//! A frame never says more than the disk holds: the files are synced first, then the log, then the frame is written,
//! and RocketMQ's checkpoint last.

use std::sync::{Arc, Mutex};

use crate::consume_queue::sync_queues;
use crate::dispatch::{DispatchCursor, Dispatcher};
use crate::error::Result;
use crate::format::checkpoint::Checkpoint;
use crate::offset::LogOffset;
use crate::progress::lock;
use crate::side::{DerivedFile, Frame, QueueState, SideFolder, load_checkpoint, store_checkpoint};

/// Writes checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    side: SideFolder,
    dispatcher: Arc<Dispatcher>,
    file: Mutex<Option<DerivedFile>>,
    /// Where the last frame ends.
    done: Mutex<LogOffset>,
}

impl Checkpointer {
    /// `file` is what the session before left; without it the first checkpoint describes everything.
    pub(crate) fn new(side: SideFolder, dispatcher: Arc<Dispatcher>, file: Option<(DerivedFile, LogOffset)>) -> Self {
        let (file, done) = file.map_or((None, LogOffset::ZERO), |(file, done)| (Some(file), done));
        Self { side, dispatcher, file: Mutex::new(file), done: Mutex::new(done) }
    }

    /// Does something while no checkpoint is being written: one must not describe files that are being removed.
    pub(crate) fn between<T>(&self, work: impl FnOnce() -> T) -> T {
        let _file = lock(&self.file);
        work()
    }

    /// Where the last frame ends.
    pub(crate) fn covered(&self) -> LogOffset {
        *lock(&self.done)
    }

    /// Writes a checkpoint if the last frame does not reach as far as `offset`.
    pub(crate) fn cover(&self, offset: LogOffset) -> Result<()> {
        if self.covered() < offset { self.checkpoint() } else { Ok(()) }
    }

    /// How many bytes of the log are dispatched but in no frame.
    pub(crate) fn behind_bytes(&self) -> u64 {
        self.dispatcher.log.progress().dispatched().get().saturating_sub(self.covered().get())
    }

    /// Writes a checkpoint of everything that is dispatched now.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut file = lock(&self.file);
        let done = self.write(&mut file);
        if done.is_err() {
            // Which queues changed is forgotten once it was asked: the next checkpoint describes all of them.
            *file = None;
        }
        done
    }

    fn write(&self, file: &mut Option<DerivedFile>) -> Result<()> {
        let (cursor, states) = self.capture(file.is_none())?;
        let frame = sync_derived(&self.dispatcher, cursor, states)?;
        #[cfg(test)]
        if crate::planted::is(crate::planted::Planted::FrameBeforeLog) {
            // With the record named, a frame beyond the log would not be believed.
            return self.append(file, &Frame { last: None, ..frame });
        }
        self.dispatcher.log.flush()?;
        self.append(file, &frame)
    }

    fn append(&self, file: &mut Option<DerivedFile>, frame: &Frame) -> Result<()> {
        match file.as_mut() {
            Some(file) => file.append(frame)?,
            None => *file = Some(DerivedFile::create(&self.side, frame)?),
        }
        *lock(&self.done) = frame.log_offset;
        // After a kill RocketMQ drops every index file newer than the index stamp, and dispatches again only from the
        // other two: so those never pass the end of the newest file that stays.
        let index_ms = self.dispatcher.index.newest_full_end_ms().unwrap_or(0).min(frame.store_ms);
        stamp_checkpoint(&self.side, index_ms)
    }

    /// Describes the queues while dispatch stands still.
    fn capture(&self, all: bool) -> Result<(DispatchCursor, Vec<QueueState>)> {
        let cursor = self.dispatcher.pause()?;
        let queues = self.dispatcher.queues.all();
        let states = queues.iter().filter(|queue| all || queue.is_touched()).map(|queue| queue.state());
        Ok((*cursor, states.collect::<Result<_>>()?))
    }
}

/// Syncs the queues that `states` describe, then the index, and says so in a frame. The log is not synced, so the frame
/// holds only once it is durable up to where the index is.
pub(crate) fn sync_derived(dispatcher: &Dispatcher, cursor: DispatchCursor, states: Vec<QueueState>) -> Result<Frame> {
    let queues = states.iter().filter_map(|state| dispatcher.queues.get(&state.topic, state.queue_id));
    sync_queues(&queues.collect::<Vec<_>>())?;
    dispatcher.index.sync()?;
    let (log_start, index) = (dispatcher.log.range().start, dispatcher.index.states()?);
    let DispatchCursor { at, store_ms, last } = cursor;
    Ok(Frame { log_offset: at, store_ms, last: dispatcher.log.describe(last)?, log_start, queues: states, index })
}

/// Sets the three stamps of RocketMQ's checkpoint, durably, and keeps what mqlog does not use in it.
pub(crate) fn stamp_checkpoint(side: &SideFolder, ms: i64) -> Result<()> {
    let known = load_checkpoint(side.storage(), side.root())?.unwrap_or_default();
    let checkpoint = Checkpoint { log_ms: ms, queue_ms: ms, index_ms: ms, ..known };
    store_checkpoint(side.storage(), side.root(), &checkpoint)
}
