//! Deleting whole old files.

use std::sync::{Arc, PoisonError};

use super::log::CommitLog;
use crate::error::Result;
use crate::offset::LogOffset;

impl CommitLog {
    /// Deletes every file that ends at or below `offset`, oldest first; never the last one, nor one with bytes that
    /// are not durable. Returns how many went. Slices of them stay readable.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if a file cannot be removed; it is no longer part of the log, and the next call
    ///   tries again
    /// - [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Closed`](crate::Error::Closed) or
    ///   [`Error::ReadOnly`](crate::Error::ReadOnly) if the log does not change any more
    ///
    /// # Examples
    /// ```
    /// use mqlog::{CommitLog, LogOffset, Message, QueueCursor};
    /// # let dir = tempfile::tempdir()?;
    /// let log = CommitLog::open(dir.path(), 64 * 1024)?;
    /// let cursor = QueueCursor::default();
    /// for _ in 0..100 {
    ///     log.append(&Message::new("orders").body(&[0; 1024]), &cursor)?;
    /// }
    /// log.flush()?;
    /// // Whole files only: the offset lies in the second one.
    /// log.delete_before(LogOffset::new(70_000))?;
    /// assert_eq!(log.range().start, LogOffset::new(65_536));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_before(&self, offset: LogOffset) -> Result<u64> {
        let shared = &*self.shared;
        let mut deleted = shared.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        shared.check()?;
        // The last file that is in use stays: a prepared one may go at close, and is not enough to keep the log.
        let growing = shared.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = shared.lock_place()?.next.clone();
        let files = shared.files.snapshot();
        let last = files.iter().rfind(|file| next.as_ref().is_none_or(|next| !Arc::ptr_eq(file, next)));
        drop(growing);
        let end = offset.min(self.durable_offset()).get().min(last.map_or(0, |last| last.base()));
        deleted.waiting.extend(shared.files.delete_before(end));
        let mut count = 0;
        while let Some(file) = deleted.waiting.front().cloned() {
            shared.creation.storage.remove_file(file.path())?;
            // One name after the other: a power loss must not bring back an older file without the newer one.
            shared.creation.storage.sync_dir(&shared.creation.dir)?;
            deleted.waiting.pop_front();
            deleted.pinned.push(Arc::downgrade(&file));
            count += 1;
        }
        deleted.pinned.retain(|file| file.strong_count() > 0);
        Ok(count)
    }

    /// How many bytes of deleted files somebody still holds.
    pub(crate) fn pinned_deleted_bytes(&self) -> u64 {
        let deleted = self.shared.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.pinned.iter().filter(|file| file.strong_count() > 0).count() as u64 * self.file_bytes()
    }
}
