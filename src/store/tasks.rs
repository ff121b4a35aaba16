//! The background work of a store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Shared, Tasks};
use crate::drive::{Pumped, Task};
use crate::error::Result;
use crate::options::StoreOptions;

/// The watermark of a log that is written in groups follows a commit within this time.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is looked at whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(1);

/// Starts dispatch, checkpoints and, where it is needed, the saving of the watermark.
pub(super) fn start_tasks(shared: &Shared, options: &StoreOptions) -> Result<()> {
    let (log, dispatcher, grouped) = (shared.log.clone(), Arc::clone(&shared.dispatcher), shared.log.is_grouped());
    let dispatch = Task::start("dispatch", options.drive, move || {
        let end = log.visible_end();
        Ok(if dispatcher.step(end)? < end { Pumped::Again } else { Pumped::Idle(None) })
    })?;
    if grouped {
        let _ = shared.target.dispatch.set(dispatch.waker());
    }
    let checkpointer = Arc::clone(&shared.checkpointer);
    let (bytes, interval) = (options.checkpoint_bytes, options.checkpoint_interval);
    let mut changed: Option<Instant> = None;
    let checkpoint = Task::start("checkpoint", options.drive, move || {
        let behind = checkpointer.behind_bytes();
        let since = if behind == 0 { None } else { Some(changed.unwrap_or_else(Instant::now)) };
        let due = since.is_some_and(|since| since.elapsed() >= interval) || behind >= bytes.max(1);
        changed = since;
        if due {
            checkpointer.checkpoint()?;
            changed = None;
        }
        Ok(Pumped::Idle(Some(interval.clamp(Duration::from_millis(1), CHECKPOINT_LOOK))))
    })?;
    let mut others = vec![checkpoint];
    if grouped {
        let log = shared.log.clone();
        others.push(Task::start("watermark", options.drive, move || {
            log.save_watermark().map(|()| Pumped::Idle(Some(WATERMARK_INTERVAL)))
        })?);
    }
    shared.tasks.set(Tasks { dispatch, others }).expect("a store starts its tasks once");
    Ok(())
}

impl super::MessageStore {
    /// Does a piece of all background work in this thread: for a store with [`Drive::Manual`](crate::Drive::Manual).
    ///
    /// # Errors
    /// The first failure of a task.
    pub fn pump(&self) -> Result<()> {
        let shared = &self.shared;
        shared.flush.pump()?;
        let tasks = shared.tasks.get().into_iter().flat_map(Tasks::all);
        for task in tasks.chain(shared.log.preparer()) {
            while task.pump()? == Pumped::Again {}
        }
        Ok(())
    }
}
