//! What a queue is when a store is opened: what a checkpoint says of it, what its files hold, or what the log says.
//!
//! Between `begin_rebuild` and `finish_rebuild` every entry of the log is appended, and what the files hold otherwise is
//! rewritten.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::queue::{ConsumeQueue, Damages, Extent, Lost, Rebuild};
use crate::error::{Error, Result};
use crate::format::queue_entry::QueueEntry;
use crate::offset::{LogOffset, QueueOffset};
use crate::progress::lock;
use crate::side::{FileState, MAX_QUEUE_ENTRIES, QueueState};

impl ConsumeQueue {
    /// Has the queue changed since [`state`](Self::state) was last asked?
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Tells a checkpoint how far the queue is. True of the disk once a [`sync`](Self::sync) that began after it has
    /// returned; the times of the files are those from before that sync.
    pub(crate) fn state(&self) -> Result<QueueState> {
        let _writer = lock(&self.writer);
        let (files, extent) = (self.files.list()?.0, self.extent());
        self.touched.store(false, Ordering::Release);
        Ok(QueueState {
            topic: self.topic().to_owned(),
            queue_id: self.queue_id(),
            batch: self.files.is_batch,
            min: extent.min.into(),
            next: extent.next.into(),
            entries: extent.end_entry.saturating_sub(self.first_entry(&files).unwrap_or(extent.end_entry)),
            files,
        })
    }

    /// The number of the first entry of listed files.
    fn first_entry(&self, files: &[FileState]) -> Option<u64> {
        files.first().map(|file| file.base / self.files.entry_bytes() as u64)
    }

    /// Takes the queue for what a checkpoint says, without reading its entries; the cursor stands at its end then.
    /// Returns `false`, and changes nothing, if the files are not those of the checkpoint: the queue must be rebuilt.
    ///
    /// After a clean stop all must be as the checkpoint says. After any other, what is below its end is there, and
    /// what is above is cleared; files at the front may be missing if all of their records are below `log_start`: they
    /// were deleted later.
    pub(crate) fn restore(&self, state: &QueueState, is_clean: bool, log_start: LogOffset) -> Result<bool> {
        let mut writer = lock(&self.writer);
        let present = self.files.list()?.0;
        let lost = state.files.iter().take_while(|known| !present.iter().any(|file| file.base == known.base)).count();
        let kept = &state.files[lost..];
        let is_there = |known: &FileState| {
            self.files.is_whole(known)
                && present.iter().any(|file| file.base == known.base && file.bytes == known.bytes)
        };
        let (min, next) = (state.min.get(), state.next.get());
        let without_files = if state.batch { 0 } else { next };
        let end_entry = self.first_entry(&state.files).map_or(without_files, |first| first + state.entries);
        let first_entry = self.first_entry(kept).unwrap_or(end_entry);
        let (per_file, entry_bytes) = (self.files.per_file(), self.files.entry_bytes() as u64);
        // Without files there are no messages: whoever removed the last one of an open store took them along.
        let has_room = kept.last().map_or(min == next, |last| end_entry <= last.base / entry_bytes + per_file);
        let is_numbered =
            state.batch == self.files.is_batch && min <= next && has_room && (state.batch || end_entry == next);
        if !is_numbered || !kept.iter().all(is_there) || (is_clean && present != state.files) {
            return Ok(false);
        }
        let mut extent = Extent { min, next, first_entry, end_entry, generation: 0 };
        if lost > 0 {
            match self.first_real(first_entry..end_entry)? {
                // All records before this one's are gone from the log too.
                Some((_, first)) if first.entry.log_offset <= log_start.get() => {
                    extent.min = min.max(first.queue_offset.get());
                }
                _ => return Ok(false),
            }
        }
        self.replace(extent);
        self.cursor.set(state.next);
        if !is_clean {
            // Files that the checkpoint does not know: they were deleted before it, or are none of ours.
            let start = kept.first().map_or(0, |file| file.base);
            let unknown = present.iter().filter(|file| file.base < start || !self.files.is_whole(file));
            self.remove_files(&mut writer, unknown.map(|file| file.base))?;
            let tail = self.files.place(end_entry).0 * self.files.file_bytes();
            let is_as_it_was = present.iter().any(|file| file.base == tail && kept.contains(file));
            self.clear_above(&mut writer, end_entry, is_as_it_was)?;
        }
        let is_as_it_was = lost == 0 && writer.unsynced.is_none() && present == state.files;
        self.touched.store(!is_as_it_was, Ordering::Release);
        Ok(true)
    }

    /// Takes the queue for what its files hold, up to the first empty entry. Nothing is written: for reading only.
    pub(crate) fn restore_from_files(&self) -> Result<()> {
        let _writer = lock(&self.writer);
        let found = self.find_extent(u64::MAX)?;
        self.replace(found);
        self.cursor.set(QueueOffset::new(found.next));
        self.touched.store(false, Ordering::Release);
        Ok(())
    }

    /// Begins to compare the queue with the log: until [`finish_rebuild`](Self::finish_rebuild), readers see what was
    /// appended since. Files of a wrong length get the right one, files in a wrong place go.
    pub(crate) fn begin_rebuild(&self, log_start: LogOffset, damages: &Damages) -> Result<()> {
        let mut writer = lock(&self.writer);
        let lost = Lost { log_start: log_start.get(), damages: Arc::clone(damages) };
        writer.rebuild = Some(Box::new(Rebuild { lost, ..Rebuild::default() }));
        let extent = self.extent();
        let end_entry = if self.files.is_batch { extent.first_entry } else { extent.min };
        self.replace(Extent { next: extent.min, end_entry, ..extent });
        let files = self.files.list()?.0;
        // What is as it should be is not written again, and may be from a session that ended before its sync.
        let numbers = files.iter().map(|file| Some(file.base / self.files.file_bytes()));
        writer.unsynced.get_or_insert_default().0.extend(numbers.chain([None]));
        for file in files.iter().filter(|file| !self.files.is_whole(file)) {
            if self.files.is_placed(file) {
                let number = file.base / self.files.file_bytes();
                writer.note(Some(number));
                writer.note(None);
                self.files.open(number)?.set_len(self.files.file_bytes())?;
            } else {
                self.remove_files(&mut writer, [file.base])?;
            }
        }
        Ok(())
    }

    /// Ends a rebuild: nothing stays behind the last entry appended. Returns whether anything was repaired.
    ///
    /// A queue that got no entry has no record in the log. Where a record was deleted, or is damaged for good, which
    /// `is_kept` tells of its entry, it keeps the end that its files have, so that no offset comes back. Entries behind that
    /// are of records that the log lost, in whose place others will stand.
    pub(crate) fn finish_rebuild(&self, is_kept: &dyn Fn(&QueueEntry) -> bool) -> Result<bool> {
        let mut writer = lock(&self.writer);
        let Some(rebuild) = &writer.rebuild else { return Ok(false) };
        if !rebuild.started {
            let mut found = self.find_extent(u64::MAX)?;
            for index in (found.first_entry..found.end_entry).rev() {
                let Ok(Some(item)) = self.parse(index, &self.files.read(index, 1)?) else { break };
                if is_kept(&item.entry) {
                    break;
                }
                (found.end_entry, found.next) = (index, item.queue_offset.get());
            }
            self.replace(Extent { min: found.next, ..found });
        } else if !self.files.is_batch {
            self.keep_fillers()?;
        }
        self.clear_above(&mut writer, self.extent().end_entry, false)?;
        self.damaged.store(false, Ordering::Release);
        Ok(writer.rebuild.take().is_some_and(|rebuild| rebuild.changed))
    }

    /// Keeps the fillers that stand for lost messages behind the last entry, and repeat it.
    fn keep_fillers(&self) -> Result<()> {
        let mut extent = self.extent();
        let Some((_, last)) = self.first_real(extent.end_entry.saturating_sub(1)..extent.end_entry)? else {
            return Ok(());
        };
        let again = last.entry.again().encode();
        while extent.end_entry < MAX_QUEUE_ENTRIES {
            match self.files.read(extent.end_entry, 1) {
                Ok(stored) if stored == again => {
                    (extent.end_entry, extent.next) = (extent.end_entry + 1, extent.next + 1);
                }
                Ok(_) | Err(Error::Corrupt(_)) => break,
                Err(error) => return Err(error),
            }
        }
        self.publish(extent);
        Ok(())
    }

    /// Must the queue be rebuilt before it can be used?
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Reads the files from the lowest one on, to the first entry that is none, names messages before those of an
    /// entry before it, or goes beyond queue offset `limit`; or to the first file that is missing.
    pub(super) fn find_extent(&self, limit: u64) -> Result<Extent> {
        let (present, limit) = (self.files.numbers()?, limit.min(MAX_QUEUE_ENTRIES));
        let Some(lowest) = present.first() else { return Ok(Extent::default()) };
        let first_entry = lowest * self.files.per_file();
        let mut end_entry = first_entry;
        let mut next = if self.files.is_batch { 0 } else { first_entry };
        'files: while present.binary_search(&(end_entry / self.files.per_file())).is_ok() {
            for entry in self.files.read(end_entry, u64::MAX)?.chunks_exact(self.files.entry_bytes()) {
                match self.parse(end_entry, entry) {
                    Ok(Some(item)) if item.queue_offset.get() >= next && item.end() <= limit => next = item.end(),
                    _ => break 'files,
                }
                end_entry += 1;
            }
        }
        let first = self.first_real(first_entry..end_entry)?;
        let min = first.map_or(next, |(_, item)| item.queue_offset.get());
        Ok(Extent { min, next, first_entry, end_entry, generation: 0 })
    }
}
