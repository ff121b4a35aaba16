//! Deleting old messages, and ending the use of a store.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{MessageStore, Shared};
use crate::commit_log::ScanItem;
use crate::drive::Task;
use crate::error::{Error, Result};
use crate::offset::LogOffset;
use crate::progress::lock;
use crate::retention::{FileFacts, older_than};
use crate::side::{StoreFormat, remove_abort};

/// File times are no finer than this everywhere: a change within it after the last checkpoint could not be seen.
const TIME_STEP_NS: u64 = 10_000_000;

impl MessageStore {
    /// Deletes whole log files whose records are all below `offset`, and what queues and index hold of them; never the
    /// last file, nor anything that is not durable and dispatched. Returns how many log files went.
    ///
    /// Messages that somebody holds stay readable for them. A full disk does not stand in the way of an open store; to open one
    /// takes a few blocks, though.
    ///
    /// # Errors
    /// - [`Error::ReadOnly`] if the store is
    /// - [`Error::Poisoned`] or [`Error::TaskFailed`] if the store stopped after a failure
    /// - [`Error::Io`] if a file cannot be removed
    /// - [`Error::DiskFull`] if there is no room for a checkpoint, which has to come first, or has to follow
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()).log_file_bytes(64 * 1024))?;
    /// for _ in 0..100 {
    ///     store.put(Message::new("orders").body(&[0; 1024]))?;
    /// }
    /// assert_eq!(store.delete_before(store.flush()?)?, 1, "the file in use stays");
    /// assert!(store.queue("orders", 0).range()?.start.get() > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_before(&self, offset: LogOffset) -> Result<u64> {
        let shared = &self.shared;
        if shared.read_only {
            return Err(Error::ReadOnly);
        }
        // A full disk is what a deletion helps against: it stands in the way only where nothing can go.
        shared.failures()?;
        shared.dispatch_for_reading()?;
        let _deleting = lock(&shared.deleting);
        let progress = shared.log.progress();
        let offset = offset.min(progress.dispatched()).min(progress.flushed());
        // What no frame knows would be dispatched again after a crash, and then the records must still be there: a queue
        // that loses its last ones would give its offsets out twice.
        let covered = shared.checkpointer.cover(offset);
        if covered.as_ref().is_err_and(|error| !error.is_disk_full()) {
            return covered.map(|()| 0);
        }
        let deleted = shared.delete_from_log(offset.min(shared.checkpointer.covered()))?;
        if deleted == 0 {
            return covered.map(|()| 0);
        }
        shared.checkpointer.between(|| {
            let queues = shared.queues.all();
            queues.iter().try_for_each(|queue| queue.delete_before(queue.range().start).map(drop))?;
            shared.index.delete_before(shared.log.range().start)
        })?;
        shared.checkpointer.checkpoint().map(|()| deleted)
    }

    /// Deletes whole log files whose records were all stored longer ago than `age`; otherwise as
    /// [`delete_before`](Self::delete_before).
    ///
    /// # Errors
    /// Those of [`delete_before`](Self::delete_before), and [`Error::Io`] if a file cannot be read.
    #[doc(alias = "fileReservedTime")]
    pub fn delete_older_than(&self, age: Duration) -> Result<u64> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let cutoff_ms = self.shared.clock.now_ms().saturating_sub(age_ms);
        let (range, file_bytes) = (self.log_range(), self.log_file_bytes());
        let bases = (range.start.get()..range.end.get()).step_by(usize::try_from(file_bytes).unwrap_or(usize::MAX));
        let facts: Result<Vec<_>> = bases.map(|base| self.facts_of(base..base + file_bytes)).collect();
        self.delete_before(older_than(&facts?, cutoff_ms))
    }

    fn facts_of(&self, file: Range<u64>) -> Result<FileFacts> {
        let base = LogOffset::new(file.start);
        for item in self.scan(base) {
            match item? {
                ScanItem::Record(record) if record.log_offset().get() < file.end => {
                    return Ok(FileFacts { base, first_ms: Some(record.store_ms()) });
                }
                ScanItem::Damaged(damage) if damage.range.end < file.end => {}
                _ => break,
            }
        }
        Ok(FileFacts { base, first_ms: None })
    }

    /// Makes everything durable, writes a last checkpoint and gives the store back, so that the next opening need not
    /// look at anything. Messages that are still held stay readable; handles and iterators go on reading as long as the
    /// folder is left alone, and write nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::TaskFailed`] if the store had stopped; it then opens as after a crash.
    pub fn close(self) -> Result<()> {
        self.shared.close()
    }
}

impl Drop for MessageStore {
    fn drop(&mut self) {
        // Who wants to know whether that went well calls `close`; the next opening finds out in any case.
        let _ = self.shared.close();
    }
}

impl Shared {
    /// Deletes log files, and has the queues begin behind them.
    fn delete_from_log(&self, offset: LogOffset) -> Result<u64> {
        self.is_going.store(true, Ordering::Release);
        let deleted = self.log.delete_before(offset);
        // Also where a file could not be removed: the log begins behind it all the same.
        let start = self.log.range().start;
        let queues = if matches!(deleted, Ok(0)) { Vec::new() } else { self.queues.all() };
        let raised = queues.iter().try_for_each(|queue| queue.raise_min(start));
        self.is_going.store(false, Ordering::Release);
        raised.and(deleted)
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || self.read_only {
            return Ok(());
        }
        let health = self.failures();
        self.tasks.get().into_iter().flatten().for_each(Task::stop);
        let done = self.flush.close().and(health).and_then(|()| self.finish());
        let shut = self.log.shut();
        self.dispatcher.end();
        self.log.keep_lock(None);
        done.and(shut)
    }

    /// The last checkpoint, and the word that the session ended well, which is set last.
    fn finish(&self) -> Result<()> {
        self.dispatch_all()?;
        self.log.save_watermark()?;
        self.checkpointer.checkpoint()?;
        std::thread::sleep(Duration::from_nanos(TIME_STEP_NS));
        self.log.shut()?;
        StoreFormat { clean: true, ..self.format.clone() }.save(&self.side)?;
        remove_abort(self.side.storage(), self.side.root())
    }
}
