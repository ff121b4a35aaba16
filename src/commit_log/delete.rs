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
    /// [`Error::Io`](crate::Error::Io) if a file cannot be removed.
    pub fn delete_before(&self, offset: LogOffset) -> Result<u64> {
        let shared = &*self.shared;
        shared.check()?;
        let dropped = shared.files.delete_before(offset.min(self.durable_offset()).get());
        for file in &dropped {
            shared.storage.remove_file(file.path())?;
        }
        if !dropped.is_empty() {
            shared.storage.sync_dir(&shared.creation.dir)?;
            let mut deleted = shared.deleted.lock().unwrap_or_else(PoisonError::into_inner);
            deleted.retain(|file| file.strong_count() > 0);
            deleted.extend(dropped.iter().map(Arc::downgrade));
        }
        Ok(dropped.len() as u64)
    }

    /// How many bytes of deleted files somebody still holds.
    pub(crate) fn pinned_deleted_bytes(&self) -> u64 {
        let deleted = self.shared.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.iter().filter(|file| file.strong_count() > 0).count() as u64 * self.file_bytes()
    }
}
