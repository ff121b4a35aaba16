//! How the log becomes durable: groups are written and synced here, one caller at a time.
//!
//! - No byte of a group is written before the group before it is durable.
//! - The first failure poisons: what was acknowledged stays readable, nothing more is accepted, no file whose sync
//!   failed is synced again.

use std::sync::PoisonError;

use super::log::{CommitLog, Shared};
use super::place::{Group, SETTLED_BYTES};
use super::read::describe;
use crate::error::{Error, Result};
use crate::offset::LogOffset;
use crate::side::{LastRecord, WatermarkFile};
use crate::sync::atomic::Ordering;

/// A group seldom has parts in more than two files.
const SPARE_BUFFERS: usize = 2;

impl CommitLog {
    /// Makes everything appended so far durable, and returns its end.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if this or an earlier write or sync failed.
    pub fn flush(&self) -> Result<LogOffset> {
        let tail = self.tail();
        loop {
            let reached = self.flush_settled()?;
            if reached >= tail {
                return Ok(reached);
            }
        }
    }

    /// As [`flush`](Self::flush), but where much is to be flushed it leaves out the piece that appends are filling.
    pub(crate) fn flush_settled(&self) -> Result<LogOffset> {
        let shared = &*self.shared;
        let mut spare = shared.leading.lock().unwrap_or_else(PoisonError::into_inner);
        shared.progress.check()?;
        let start = shared.progress.flushed();
        let (group, end, last) = {
            let mut place = shared.lock_place()?;
            let group = place.take_group(std::mem::take(&mut *spare));
            let is_settled = group.is_none() && place.settled.0 > start.get() + SETTLED_BYTES;
            let (end, last) = if is_settled { place.settled } else { (place.tail, place.last) };
            (group, LogOffset::new(end), last)
        };
        let done = match &group {
            // What goes through the mapping is written when it is placed, and may be far ahead by now.
            None => Ok(()),
            Some(group) => shared.write_group(group).map(|()| shared.progress.set_written(end)),
        };
        let done = done.and_then(|()| if start < end { shared.sync_files(start, end) } else { Ok(()) });
        done.map_err(|error| shared.progress.poison(error))?;
        if let Some(group) = group {
            *spare = group.emptied();
        }
        if start < end {
            *shared.flushed.lock().unwrap_or_else(PoisonError::into_inner) = (end, last);
            shared.progress.set_flushed(end);
            if !shared.grouped {
                // The watermark of a mapped log moves with each flush; that of a grouped one has its own task. On a full
                // disk it stays behind what is durable until a later flush, which is no reason to stop.
                self.save_watermark().or_else(|error| if error.is_disk_full() { Ok(()) } else { Err(error) })?;
            }
        }
        Ok(end)
    }

    /// Stores how far the log is durable, for the next open: within 100 ms of a commit, and at close.
    pub(crate) fn save_watermark(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.progress.check()?;
        let (flushed, last) = *shared.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &shared.watermark else { return Err(Error::ReadOnly) };
        if file.current().durable >= flushed {
            return Ok(());
        }
        let last = describe(&shared.files, last)?;
        let saved = file.update(|known| {
            if known.durable < flushed {
                (known.durable, known.last) = (flushed, last);
            }
        });
        saved.map_err(|error| shared.poison_if_unsynced(error))
    }

    /// Store time, place and length of the last durable record.
    pub(crate) fn last_record(&self) -> (i64, Option<(u64, u32)>) {
        (self.last_store_ms(), self.shared.flushed.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Describes a record by its place and length, for those who want to know later whether it is still there.
    pub(crate) fn describe(&self, record: Option<(u64, u32)>) -> Result<Option<LastRecord>> {
        describe(&self.shared.files, record)
    }

    /// From now on appends are refused; those that have a place already can still be flushed.
    pub(super) fn refuse_appends(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Ends the log's use: later appends are refused, the prepared file is removed. Does not flush: a group that nobody
    /// wrote is dropped. When this has returned nothing of this log writes to its files, which may be somebody else's
    /// by then.
    pub(crate) fn shut(&self) -> Result<()> {
        let shared = &*self.shared;
        self.refuse_appends();
        if let Some(task) = shared.preparer.get() {
            task.stop();
        }
        {
            let _leading = shared.leading.lock().unwrap_or_else(PoisonError::into_inner);
            let left = shared.lock_place()?.take_group(Group::default());
            if left.is_some_and(|group| group.bytes > 0) {
                shared.progress.poison(Error::Closed);
            }
        }
        let _growing = shared.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, tail) = {
            let mut place = shared.lock_place()?;
            (place.next.take(), LogOffset::new(place.tail))
        };
        if let Some(file) = next {
            shared.files.drop_last(&file);
            shared.creation.storage.remove_file(file.path())?;
            shared.creation.storage.sync_dir(&shared.creation.dir)?;
        }
        // Nothing was ever written behind the tail, so the next opening need not put zeros there.
        let unused = |watermark: &&WatermarkFile| {
            let known = watermark.current();
            known.durable == tail && known.allocated != tail
        };
        match shared.watermark.as_ref().filter(unused) {
            Some(watermark) if shared.progress.check().is_ok() => watermark.update(|known| known.allocated = tail),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Writes a group, one write for each file it touches; one failure is tried once more.
    fn write_group(&self, group: &Group) -> Result<()> {
        for part in &group.parts {
            let position = part.start - part.file.base();
            let write = || part.file.file().write_at(&part.bytes, position);
            write().or_else(|_| write())?;
            part.file.publish(position + part.bytes.len() as u64);
        }
        // A file that another one follows is full: what is behind its blank is published with it.
        for pair in group.parts.windows(2) {
            pair[0].file.publish(pair[0].file.end() - pair[0].file.base());
        }
        Ok(())
    }

    /// Syncs every file that has bytes in the range, oldest first.
    fn sync_files(&self, start: LogOffset, end: LogOffset) -> Result<()> {
        #[cfg(test)]
        if crate::planted::is(crate::planted::Planted::AckBeforeSync) {
            return Ok(());
        }
        for file in self.files.snapshot().iter() {
            let from = start.get().max(file.base());
            let to = end.get().min(file.end());
            if from < to {
                file.sync(from - file.base()..to - file.base(), !self.grouped)?;
                if to == file.end() {
                    file.rest(&self.creation.storage);
                }
            }
        }
        Ok(())
    }
}

impl Group {
    /// The same buffers without content, for the next group.
    fn emptied(mut self) -> Self {
        for mut part in self.parts.drain(..) {
            part.bytes.clear();
            self.spare.push(part.bytes);
        }
        self.spare.truncate(SPARE_BUFFERS);
        self.bytes = 0;
        self
    }
}
