//! Binary searches in a queue.

use std::ops::Range;

use super::queue::{ConsumeQueue, Extent, QueueItem};
use crate::error::Result;
use crate::format::queue_entry::QueueEntry;
use crate::offset::{LogOffset, QueueOffset};
use crate::progress::lock;

/// Which message [`ConsumeQueue::offset_by_time`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(alias = "BoundaryType")]
pub enum TimeBound {
    /// The first message stored at the time or later; the end of the queue if there is none.
    #[default]
    Lower,
    /// The last message stored at the time or before; the start of the queue if there is none.
    Upper,
}

impl ConsumeQueue {
    /// Returns the queue offset of a message by store time, in ms since 1970.
    ///
    /// `store_ms` tells the store time of an entry's record, or `None` if the record is not in the log any more. Within
    /// a log times never go back; if a foreign log's do, the answer is some offset of the queue's range or its end.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode
    /// - [`Error::Io`](crate::Error::Io) if reading fails
    /// - whatever `store_ms` returns
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::queue_entry::QueueEntry;
    /// use mqlog::{ConsumeQueue, QueueOffset, TimeBound};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let queue = ConsumeQueue::open(dir.path(), "orders", 0, 1000)?;
    /// let entries = [10, 20, 20, 30].map(|at| QueueEntry { log_offset: at, record_bytes: 1, tags_code: 0 });
    /// queue.append(QueueOffset::ZERO, &entries)?;
    /// let time = |entry: &QueueEntry| Ok(Some(entry.log_offset as i64));
    /// assert_eq!(queue.offset_by_time(20, TimeBound::Lower, time)?, QueueOffset::new(1));
    /// assert_eq!(queue.offset_by_time(20, TimeBound::Upper, time)?, QueueOffset::new(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `getOffsetInQueueByTime`; ours searches the whole queue instead of one file, and a time between two
    /// messages gives the one on the bound's side, not the nearer one.
    pub fn offset_by_time(
        &self,
        ms: i64,
        bound: TimeBound,
        mut store_ms: impl FnMut(&QueueEntry) -> Result<Option<i64>>,
    ) -> Result<QueueOffset> {
        let mut time =
            |item: &QueueItem| store_ms(&item.entry).map(|known| known.map(|ms| item.store_ms.unwrap_or(ms)));
        let offset = self.stable(|extent| {
            let end = extent.end_entry;
            let start = self.partition(self.index_of(extent, extent.min)?..end, |item| Ok(time(item)?.is_none()))?;
            let is_left = |time| if bound == TimeBound::Lower { time < ms } else { time <= ms };
            let index = self.partition(start..end, |item| Ok(time(item)?.is_some_and(is_left)))?;
            if bound == TimeBound::Lower {
                return self.offset_at(extent, index);
            }
            for before in (start..index).rev() {
                if let Some((_, item)) = self.first_real(before..before + 1)? {
                    return Ok(item.end() - 1);
                }
            }
            self.offset_at(extent, start)
        })?;
        Ok(QueueOffset::new(offset))
    }

    /// Moves the start of the queue to the first message whose record is at `log_start` or behind it; never back.
    ///
    /// No file changes.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode
    /// - [`Error::Io`](crate::Error::Io) if reading fails
    #[doc(alias = "correctMinOffset")]
    pub fn raise_min(&self, log_start: LogOffset) -> Result<()> {
        let _writer = lock(&self.writer);
        let extent = self.extent();
        let entries = self.index_of(&extent, extent.min)?..extent.end_entry;
        let is_below = |item: &QueueItem| item.entry.log_offset < log_start.get();
        // Most queues lose nothing: look at the first entry before searching.
        if self.first_real(entries.clone())?.is_some_and(|(_, first)| is_below(&first)) {
            let index = self.partition(entries, |item| Ok(is_below(item)))?;
            self.publish(Extent { min: self.offset_at(&extent, index)?, first_entry: index, ..extent });
        }
        Ok(())
    }

    /// Returns the queue offset of the first message at or behind an entry, or the end of the queue.
    pub(super) fn offset_at(&self, extent: &Extent, index: u64) -> Result<u64> {
        let item = self.first_real(index..extent.end_entry)?;
        Ok(item.map_or(extent.next, |(_, item)| item.queue_offset.get().max(extent.min)))
    }

    /// Returns where in `entries` the first one stands for which `is_left` is false, assuming that all for which it is
    /// true come first; if they do not, some place in the range. It may stand at a filler before that entry.
    pub(super) fn partition(
        &self,
        mut entries: Range<u64>,
        mut is_left: impl FnMut(&QueueItem) -> Result<bool>,
    ) -> Result<u64> {
        while !entries.is_empty() {
            let middle = entries.start + (entries.end - entries.start) / 2;
            match self.first_real(middle..entries.end)? {
                Some((index, item)) if is_left(&item)? => entries.start = index + 1,
                _ => entries.end = middle,
            }
        }
        Ok(entries.start)
    }

    /// Returns the first entry in a range that is no filler.
    pub(super) fn first_real(&self, entries: Range<u64>) -> Result<Option<(u64, QueueItem)>> {
        Ok(self.items(entries, 1)?.pop())
    }
}
