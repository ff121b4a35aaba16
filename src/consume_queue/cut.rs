//! What takes entries away, and what makes the rest durable.

use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::entry_files::{Kind, is_missing};
use super::queue::{ConsumeQueue, Unsynced, Writer};
use crate::error::Result;
use crate::offset::QueueOffset;

/// What a system writes at once: near the end of a file that nobody seems to have changed, this much is looked at.
const BLOCK_BYTES: u64 = 4096;

/// How far [`ConsumeQueue::clear_above`] looks for something to clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// To the end of the file.
    Everywhere,
    /// At the blocks that follow the end; further only if there is something in them. For files that have not changed
    /// since they were known to be right.
    Nearby,
}

impl ConsumeQueue {
    /// Takes the messages from `end` on out of the queue: whole files are removed, the rest is zeroed.
    ///
    /// A batch that reaches beyond `end` goes as a whole. The cursor stays. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode
    /// - [`Error::Io`](crate::Error::Io) if reading or writing fails
    #[doc(alias = "truncateDirtyLogicFiles")]
    pub fn truncate_to(&self, end: QueueOffset) -> Result<()> {
        let mut writer = self.writer();
        let (end, extent) = (end.get(), self.extent());
        if end >= extent.next {
            return Ok(());
        }
        let mut entry = end;
        let mut next = end;
        if self.files.kind() == Kind::Batch {
            entry = self.index_of(&extent, end)?;
            if let Some(first_cut) = self.first_real(entry..extent.end_entry)? {
                next = next.min(first_cut.1.queue_offset.get());
            }
        }
        // Readers first lose sight of the entries, then these go.
        self.publish(|extent| {
            extent.min = extent.min.min(next);
            extent.next = next;
            extent.first_entry = extent.first_entry.min(entry);
            extent.end_entry = entry;
            extent.generation += 1;
        });
        self.clear_above(&mut writer, entry, Look::Everywhere)?;
        Ok(())
    }

    /// Removes the files in which all messages are before `start`, but never the last file; returns how many.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode
    /// - [`Error::Io`](crate::Error::Io) if listing or removing fails
    pub fn delete_before(&self, start: QueueOffset) -> Result<u64> {
        let mut writer = self.writer();
        let extent = self.extent();
        let first_kept = self.index_of(&extent, start.get())?;
        let mut gone = self.files.numbers()?;
        gone.pop();
        gone.retain(|file| (file + 1) * self.files.per_file() <= first_kept);
        let Some(last) = gone.last() else { return Ok(0) };
        let first_left = (last + 1) * self.files.per_file();
        let first_item = self.first_real(first_left..extent.end_entry)?;
        self.publish(|extent| {
            let min = first_item.map_or(extent.next, |(_, item)| item.queue_offset.get());
            extent.min = extent.min.max(min);
            extent.first_entry = match self.files.kind() {
                Kind::Plain => extent.min,
                Kind::Batch => extent.first_entry.max(first_left),
            };
            extent.generation += 1;
        });
        self.remove_files(&mut writer, &gone)?;
        Ok(gone.len() as u64)
    }

    /// Makes durable what was written before the call: entries, and names of new or removed files and folders.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`](crate::Error::Io) if a sync fails; what was to be synced stays to be synced
    pub fn sync(&self) -> Result<()> {
        // The turn guards no data: it makes a second caller wait for what the first one is syncing.
        let _turn = self.files.shared().sync_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(unsynced) = self.writer().unsynced.take() else { return Ok(()) };
        let synced = self.sync_all(&unsynced);
        if synced.is_err() {
            let mut writer = self.writer();
            if !unsynced.files.is_empty() {
                writer.wrote(unsynced.files.start);
                writer.wrote(unsynced.files.end - 1);
            }
            if unsynced.names {
                writer.renamed();
            }
            self.touched.store(true, Ordering::Release);
        }
        synced
    }

    fn sync_all(&self, unsynced: &Unsynced) -> Result<()> {
        for file in unsynced.files.clone() {
            match self.files.open(file).and_then(|open| open.sync()) {
                // It was written and removed since.
                Err(error) if is_missing(&error) => {}
                synced => synced?,
            }
        }
        if !unsynced.names {
            return Ok(());
        }
        let storage = &self.files.shared().storage;
        let root: &Path = &self.files.shared().root;
        let dir = self.files.dir();
        // Folders are not told apart into new ones and old ones: syncing one without news costs little.
        for folder in dir.ancestors().take_while(|folder| folder.starts_with(root)) {
            if storage.info(folder)?.is_some() {
                storage.sync_dir(folder)?;
            }
        }
        Ok(())
    }

    /// Removes the files above an entry, last first, and zeroes what is behind it in its file.
    ///
    /// A file that is the only one and begins exactly there stays, zeroed: its name is the only thing that says how far
    /// the queue has come.
    pub(super) fn clear_above(&self, writer: &mut Writer, end: u64, look: Look) -> Result<()> {
        let per_file = self.files.per_file();
        let mut present = self.files.numbers()?;
        let keeps_end = end > 0 && present.first() == Some(&(end / per_file));
        let first_gone = if keeps_end { end / per_file + 1 } else { end.div_ceil(per_file) };
        let above = present.split_off(present.partition_point(|file| *file < first_gone));
        self.remove_files(writer, &above.into_iter().rev().collect::<Vec<_>>())?;
        if present.last() == Some(&(end / per_file)) {
            self.zero_tail(writer, end, look)?;
        }
        Ok(())
    }

    /// Zeroes a file from an entry on. Only what is not zero is written, so that the file stays sparse.
    fn zero_tail(&self, writer: &mut Writer, end: u64, look: Look) -> Result<()> {
        let (file, position) = self.files.place(end);
        let open = self.files.open(file)?;
        let nearby = (position.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES).min(self.files.file_bytes());
        let mut limit = if look == Look::Nearby { nearby } else { self.files.file_bytes() };
        let mut bytes = vec![0; (self.files.piece() * self.files.entry_bytes() as u64) as usize];
        let mut at = position;
        while at < limit {
            let length = usize::try_from(limit - at).map_or(bytes.len(), |left| left.min(bytes.len()));
            let piece = &mut bytes[..length];
            let present = open.read_at(piece, at)?;
            let piece = &mut piece[..present];
            if piece.iter().any(|byte| *byte != 0) {
                piece.fill(0);
                self.write(writer, &open, (file, at), piece)?;
                limit = self.files.file_bytes();
            }
            if present < length {
                break;
            }
            at += length as u64;
        }
        Ok(())
    }
}
