//! What a checkpoint says of a queue, and believing it when a store is opened.

use std::sync::atomic::Ordering;

use super::cut::Look;
use super::entry_files::Kind;
use super::queue::{ConsumeQueue, Extent, Writer};
use crate::error::Result;
use crate::offset::{LogOffset, QueueOffset};
use crate::side::{FileState, QueueState};

/// How the session before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All is as the last checkpoint says.
    Clean,
    /// What is below the end in the last checkpoint is there, anything may be above.
    Unclean,
}

/// What [`ConsumeQueue::restore`] made of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    /// The queue is as the checkpoint says.
    Done,
    /// The files are not those of the checkpoint: the queue must be rebuilt. Nothing was changed.
    Mismatch,
}

impl ConsumeQueue {
    /// Has the queue changed since [`state`](Self::state) was last asked?
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Tells a checkpoint how far the queue is. True of the disk once a [`sync`](Self::sync) that began after it has
    /// returned; the times of the files are those from before that sync.
    pub(crate) fn state(&self) -> Result<QueueState> {
        let _writer = self.writer();
        let files = self.files.list()?;
        let extent = self.extent();
        self.touched.store(false, Ordering::Release);
        let first_entry = files.first().map_or(extent.end_entry, |file| file.base / self.files.entry_bytes() as u64);
        Ok(QueueState {
            topic: self.topic().to_owned(),
            queue_id: self.queue_id(),
            batch: self.files.kind() == Kind::Batch,
            min: QueueOffset::new(extent.min),
            next: QueueOffset::new(extent.next),
            entries: extent.end_entry.saturating_sub(first_entry),
            files,
        })
    }

    /// Takes the queue for what a checkpoint says, without reading its entries. After an unclean stop, what is above
    /// is cleared. The cursor stands at the checkpoint's end then.
    ///
    /// Files at the front may be missing if all of their records are below `log_start`: they were deleted later.
    pub(crate) fn restore(&self, state: &QueueState, stop: Stop, log_start: LogOffset) -> Result<Restored> {
        let mut writer = self.writer();
        let present = self.files.list()?;
        let lost = state.files.iter().take_while(|known| !present.iter().any(|file| file.base == known.base)).count();
        let Some(extent) = self.believe(state, &present, lost, log_start)? else { return Ok(Restored::Mismatch) };
        if stop == Stop::Clean && present != state.files {
            return Ok(Restored::Mismatch);
        }
        self.publish(|visible| *visible = Extent { generation: visible.generation + 1, ..extent });
        self.cursor.set(state.next);
        if stop == Stop::Unclean {
            self.clear_unknown(&mut writer, &present, &state.files[lost..])?;
            let tail = self.files.place(extent.end_entry).0 * self.files.file_bytes();
            let tail_of = |files: &[FileState]| files.iter().find(|file| file.base == tail).copied();
            let unchanged = tail_of(&present).is_some() && tail_of(&present) == tail_of(&state.files);
            let look = if unchanged { Look::Nearby } else { Look::Everywhere };
            self.clear_above(&mut writer, extent.end_entry, look)?;
        }
        self.touched.store(lost > 0 || writer.unsynced.is_some(), Ordering::Release);
        self.damaged.store(false, Ordering::Release);
        Ok(Restored::Done)
    }

    /// Takes the queue for what its files hold, up to the first empty entry. Nothing is written: for reading only.
    pub(crate) fn restore_from_files(&self) -> Result<()> {
        let _writer = self.writer();
        let found = self.find_extent()?;
        self.publish(|extent| *extent = Extent { generation: extent.generation + 1, ..found });
        self.cursor.set(QueueOffset::new(found.next));
        self.touched.store(false, Ordering::Release);
        Ok(())
    }

    /// Returns what a checkpoint's numbers mean, `None` if the files do not fit them.
    fn believe(
        &self,
        state: &QueueState,
        present: &[FileState],
        lost: usize,
        log_start: LogOffset,
    ) -> Result<Option<Extent>> {
        let kept = &state.files[lost..];
        let is_whole = |known: &FileState| {
            self.files.number_of(known).is_some()
                && present.iter().any(|file| file.base == known.base && file.bytes == known.bytes)
        };
        let plain = self.files.kind() == Kind::Plain;
        if state.batch == plain || state.min > state.next || !kept.iter().all(is_whole) {
            return Ok(None);
        }
        let first_entry = |files: &[FileState]| files.first().map(|file| file.base / self.files.entry_bytes() as u64);
        let (mut min, next) = (state.min.get(), state.next.get());
        let end_entry = match first_entry(&state.files) {
            Some(first) => first + state.entries,
            None if plain => next,
            None => 0,
        };
        if plain && end_entry != next {
            return Ok(None);
        }
        if lost > 0 {
            let left = first_entry(kept).unwrap_or(end_entry)..end_entry;
            match self.first_real(left)? {
                // All records before this one's are gone from the log too.
                Some((_, item)) if item.entry.log_offset <= log_start.get() => min = min.max(item.queue_offset.get()),
                _ => return Ok(None),
            }
        }
        let first_entry = if plain { min } else { first_entry(kept).unwrap_or(end_entry) };
        Ok(Some(Extent { min, next, first_entry, end_entry, generation: 0 }))
    }

    /// Removes files that the checkpoint does not know: below its files, where they were deleted before it, and any of
    /// another length.
    fn clear_unknown(&self, writer: &mut Writer, present: &[FileState], known: &[FileState]) -> Result<()> {
        let start = known.first().map_or(0, |first| first.base);
        for file in present.iter().filter(|file| file.base < start || self.files.number_of(file).is_none()) {
            writer.renamed();
            self.files.remove_odd(file.base)?;
        }
        Ok(())
    }
}
