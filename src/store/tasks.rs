//! The background work of a store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
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
    let checkpointer = Arc::clone(&shared.checkpointer);
    let (bytes, interval) = (options.checkpoint_bytes, options.checkpoint_interval);
    let mut changed: Option<Instant> = None;
    let checkpoint = Task::start("checkpoint", options.drive, move || {
        let behind = checkpointer.behind_bytes();
        changed = (behind > 0).then(|| changed.unwrap_or_else(Instant::now));
        if behind >= bytes.max(1) || changed.is_some_and(|since| since.elapsed() >= interval) {
            checkpointer.checkpoint()?;
            changed = None;
        }
        Ok(Pumped::Idle(Some(interval.clamp(Duration::from_millis(1), CHECKPOINT_LOOK))))
    })?;
    let mut tasks = vec![dispatch, checkpoint];
    if grouped {
        let log = shared.log.clone();
        tasks.push(Task::start("watermark", options.drive, move || {
            log.save_watermark().map(|()| Pumped::Idle(Some(WATERMARK_INTERVAL)))
        })?);
    }
    shared.tasks.set(tasks).expect("a store starts its tasks once");
    Ok(())
}

impl super::MessageStore {
    /// Does a piece of all background work in this thread: for a store with [`Drive::Manual`](crate::Drive::Manual).
    ///
    /// # Errors
    /// The first failure of a task.
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Drive, Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()).drive(Drive::Manual))?;
    /// let put = store.put(Message::new("orders"))?;
    /// store.pump()?;
    /// assert_eq!(store.stats().dispatched, put.end());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pump(&self) -> Result<()> {
        self.shared.flush.pump()?;
        for task in self.shared.all_tasks() {
            while task.pump()? == Pumped::Again {}
        }
        Ok(())
    }
}
