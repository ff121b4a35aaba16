//! What takes entries away, and what makes the rest durable.

use std::sync::atomic::Ordering;

use super::entry_files::is_missing;
use super::queue::{ConsumeQueue, Extent, Unsynced, Writer};
use crate::error::Result;
use crate::format::queue_entry::BatchEntry;
use crate::offset::QueueOffset;
use crate::progress::lock;

/// Two of the blocks that a system writes at once.
const NEARBY_BYTES: usize = 2 * 4096;

/// An entry of any kind that is none.
const ZEROS: [u8; BatchEntry::BYTES] = [0; BatchEntry::BYTES];

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
        let mut writer = lock(&self.writer);
        let (end, extent) = (end.get(), self.extent());
        if end >= extent.next {
            return Ok(());
        }
        let entry = self.index_of(&extent, end)?;
        let batch = if self.files.is_batch { self.first_real(entry..extent.end_entry)? } else { None };
        let next = batch.map_or(end, |(_, batch)| end.min(batch.queue_offset.get()));
        let (min, first_entry) = (extent.min.min(next), extent.first_entry.min(entry));
        // Readers first lose sight of the entries, then these go.
        self.replace(Extent { min, next, first_entry, end_entry: entry, ..extent });
        self.clear_above(&mut writer, entry, false)
    }

    /// Removes the files in which all messages are before `start`, but never the last file; returns how many.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode
    /// - [`Error::Io`](crate::Error::Io) if listing or removing fails
    pub fn delete_before(&self, start: QueueOffset) -> Result<u64> {
        let mut writer = lock(&self.writer);
        let extent = self.extent();
        let first_kept = self.index_of(&extent, start.get().max(extent.min))?;
        let mut gone = self.files.numbers()?;
        gone.pop();
        gone.retain(|file| (file + 1) * self.files.per_file() <= first_kept);
        let Some(last) = gone.last() else { return Ok(0) };
        let first_left = (last + 1) * self.files.per_file();
        let min = self.offset_at(&extent, first_left)?;
        self.replace(Extent { min, first_entry: extent.first_entry.max(first_left), ..extent });
        self.remove_files(&mut writer, gone.iter().map(|file| file * self.files.file_bytes()))?;
        Ok(gone.len() as u64)
    }

    /// Makes durable what was written before the call: entries, and names of new or removed files and folders.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`](crate::Error::Io) if a sync fails; what was to be synced stays to be synced
    pub fn sync(&self) -> Result<()> {
        // The turn guards no data: it makes a second caller wait for what the first one is syncing.
        let _turn = lock(&self.files.shared.sync_turn);
        let Some(unsynced) = lock(&self.writer).unsynced.take() else { return Ok(()) };
        self.sync_all(&unsynced).inspect_err(|_| {
            lock(&self.writer).unsynced.get_or_insert_default().add(unsynced.files, unsynced.names);
            self.touched.store(true, Ordering::Release);
        })
    }

    fn sync_all(&self, unsynced: &Unsynced) -> Result<()> {
        // The files of a queue with a gap are few in a long range.
        let present = self.files.numbers()?;
        for file in present.into_iter().filter(|file| unsynced.files.contains(file)) {
            match self.files.open(file).and_then(|open| open.sync()) {
                // It was written and removed since.
                Err(error) if is_missing(&error) => {}
                synced => synced?,
            }
        }
        if !unsynced.names {
            return Ok(());
        }
        let storage = &self.files.shared.storage;
        // Folders are not told apart into new ones and old ones: syncing one without news costs little.
        for folder in self.files.dir().ancestors().take_while(|folder| folder.starts_with(&self.files.shared.root)) {
            if storage.info(folder)?.is_some() {
                storage.sync_dir(folder)?;
            }
        }
        Ok(())
    }

    /// Removes the files above an entry, last first, and zeroes what is behind it in its file. Only what is not zero is
    /// written, so that the file stays sparse. If it is as it was when all behind `end` was zero, only the blocks that
    /// follow are looked at, and further only if there is something in them.
    ///
    /// A file that is the only one and begins exactly there stays, zeroed: its name is the only thing that says how far
    /// the queue has come.
    pub(super) fn clear_above(&self, writer: &mut Writer, end: u64, is_as_it_was: bool) -> Result<()> {
        let (per_file, present) = (self.files.per_file(), self.files.numbers()?);
        let (file, file_end) = (end / per_file, end - end % per_file + per_file);
        let stays = !end.is_multiple_of(per_file) || end > 0 && present.first() == Some(&file);
        let above = present.iter().rev().take_while(|above| **above >= file + u64::from(stays));
        self.remove_files(writer, above.map(|above| above * self.files.file_bytes()))?;
        if stays && present.contains(&file) {
            let near = file_end.min(end + NEARBY_BYTES.div_ceil(self.files.entry_bytes()) as u64);
            let mut zero = |entries| self.rewrite(writer, entries, |entry| Ok(Some(&ZEROS[..entry.len()])));
            if zero(end..near)? || !is_as_it_was {
                zero(near..file_end)?;
            }
        }
        Ok(())
    }

    /// Removes files in the given order. A power loss in between leaves a beginning of that order removed, so that no
    /// gap can appear between files: each removal is durable before the next.
    pub(super) fn remove_files(&self, writer: &mut Writer, bases: impl IntoIterator<Item = u64>) -> Result<()> {
        for (count, base) in bases.into_iter().enumerate() {
            if count > 0 {
                self.files.shared.storage.sync_dir(&self.files.dir())?;
            }
            writer.note(0..0, true);
            self.files.remove(base)?;
        }
        Ok(())
    }
}
