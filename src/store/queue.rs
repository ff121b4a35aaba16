//! One queue as its user sees it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::get::Fetched;
use super::{MessageStore, Shared};
use crate::commit_log::{Reader, ScanItem};
use crate::consume_queue::{ConsumeQueue, QueueItem, TimeBound};
use crate::error::{Error, Result};
use crate::format::queue_entry::QueueEntry;
use crate::offset::{LogOffset, QueueOffset};
use crate::view::MessageView;

/// Entries are read in pieces of this many.
const READ_ENTRIES: usize = 128;

/// A queue of a store, whether it exists already or not; see [`MessageStore::queue`].
///
/// # Examples
/// ```
/// use mqlog::{Message, MessageStore, QueueOffset, StoreOptions, TimeBound};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// let put = store.put(Message::new("orders").queue(3))?;
/// let queue = store.queue("orders", 3);
/// assert_eq!(queue.range()?, QueueOffset::ZERO..QueueOffset::new(1));
/// assert_eq!(queue.iter_from(QueueOffset::ZERO).count(), 1);
/// let stored_ms = store.read(put.log_offset)?.store_ms();
/// assert_eq!(queue.offset_by_time(stored_ms, TimeBound::Lower)?, put.queue_offset);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
    topic: String,
    queue_id: i32,
}

/// The messages of a queue from an offset on; see [`QueueHandle::iter_from`].
#[derive(Debug)]
pub struct QueueIter {
    handle: QueueHandle,
    next: QueueOffset,
    queue: Option<Arc<ConsumeQueue>>,
    reader: Reader,
    items: VecDeque<QueueItem>,
    repaired_at: Option<QueueOffset>,
    /// The queue itself could not be read: whoever goes on after that error comes to an end.
    ended: bool,
}

impl MessageStore {
    /// Names a queue, to read from it.
    #[must_use]
    pub fn queue(&self, topic: impl Into<String>, queue_id: i32) -> QueueHandle {
        QueueHandle { shared: Arc::clone(&self.shared), topic: topic.into(), queue_id }
    }
}

impl QueueHandle {
    fn find(&self) -> Result<Option<Arc<ConsumeQueue>>> {
        let queue = self.shared.find_queue(&self.topic, self.queue_id)?;
        if let Some(queue) = &queue {
            self.shared.dispatch_for(queue, QueueOffset::ZERO, QueueOffset::MAX)?;
        }
        Ok(queue)
    }

    /// The offset of the first message that is still there, and that of the next one to come.
    ///
    /// # Errors
    /// Those of dispatch.
    #[doc(alias = "getMinOffsetInQueue")]
    #[doc(alias = "getMaxOffsetInQueue")]
    pub fn range(&self) -> Result<Range<QueueOffset>> {
        Ok(self.find()?.map_or(QueueOffset::ZERO..QueueOffset::ZERO, |queue| queue.range()))
    }

    /// Iterates over the messages from an offset on, or from the first one that is there, to the end of the queue as
    /// it is when the iterator gets there. A damaged message is an error, and the next one comes after it; an error of
    /// the queue's own files is the last item.
    #[must_use]
    pub fn iter_from(&self, from: QueueOffset) -> QueueIter {
        let (next, reader) = (from.min(QueueOffset::MAX), self.shared.log.reader());
        let (handle, items) = (self.clone(), VecDeque::new());
        QueueIter { handle, next, queue: None, reader, items, repaired_at: None, ended: false }
    }

    /// The entries of the queue whose records are in the log, from an offset on: of `max` entries looked at those that
    /// are neither deleted nor known to be damaged, so that fewer are not the end.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, and those of dispatch.
    pub fn entries(&self, from: QueueOffset, max: usize) -> Result<Vec<QueueItem>> {
        let Some(queue) = self.find()? else { return Ok(Vec::new()) };
        let (log, start) = (&self.shared.log, self.shared.log.range().start.get());
        let mut items = self.shared.read_entries(&queue, from.max(queue.range().start), max)?;
        items.retain(|item| item.entry.log_offset >= start && log.known_damage(item.entry.log_offset).is_none());
        Ok(items)
    }

    /// The first message stored at or after a time ([`TimeBound::Lower`]), or the last one stored at or before it
    /// ([`TimeBound::Upper`]), in ms since 1970-01-01 UTC. What exactly is returned where there is none, says
    /// [`ConsumeQueue::offset_by_time`]. A damaged message counts as stored when the next whole one in the log was.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, and those of dispatch.
    pub fn offset_by_time(&self, ms: i64, bound: TimeBound) -> Result<QueueOffset> {
        let Some(queue) = self.find()? else { return Ok(QueueOffset::ZERO) };
        let log = &self.shared.log;
        let read = |entry: &QueueEntry| log.read_with(&mut log.reader(), LogOffset::new(entry.log_offset));
        queue.offset_by_time(ms, bound, |entry| match read(entry) {
            Ok(message) => Ok(Some(message.store_ms())),
            Err(Error::OutOfRange { offset, .. }) if offset < log.range().start.get() => Ok(None),
            Err(Error::Corrupt(_)) => self.shared.store_ms_behind(LogOffset::new(entry.log_offset)).map(Some),
            Err(error) => Err(error),
        })
    }

    /// Store time of the first message that is still there.
    ///
    /// # Errors
    /// Those of [`CommitLog::read`](crate::CommitLog::read).
    pub fn earliest_ms(&self) -> Result<Option<i64>> {
        self.iter_from(QueueOffset::ZERO).next().transpose().map(|first| first.map(|message| message.store_ms()))
    }
}

impl Shared {
    /// Store time of the first whole record at or behind an offset; the last record's if there is none.
    fn store_ms_behind(&self, at: LogOffset) -> Result<i64> {
        for item in self.log.scan(at) {
            if let ScanItem::Record(record) = item? {
                return Ok(record.store_ms());
            }
        }
        Ok(self.log.last_store_ms())
    }
}

impl QueueIter {
    /// Reads entries from `next` on, if there are any.
    fn refill(&mut self) -> Result<()> {
        let QueueHandle { shared, topic, queue_id } = &self.handle;
        if self.queue.is_none() {
            self.queue = shared.find_queue(topic, *queue_id)?;
        }
        let Some(queue) = &self.queue else { return Ok(()) };
        let last = self.next + (READ_ENTRIES as u64).min(QueueOffset::MAX - self.next);
        shared.dispatch_for(queue, self.next, last)?;
        self.next = self.next.max(queue.range().start);
        self.items = shared.read_entries(queue, self.next, READ_ENTRIES)?.into();
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<MessageView>> {
        while !self.ended {
            if self.items.is_empty() {
                self.refill().inspect_err(|_| self.ended = true)?;
            }
            let (Some(queue), Some(item)) = (&self.queue, self.items.pop_front()) else { return Ok(None) };
            let shared = &self.handle.shared;
            // An error is an item too: the next one comes after it.
            self.next = item.queue_offset + u64::from(item.count);
            match shared.fetch(&mut self.reader, queue, &item)? {
                Fetched::Wrong if self.repaired_at == Some(item.queue_offset) => {
                    let (offset, range) = (item.queue_offset.get(), queue.range());
                    return Err(Error::OutOfRange { offset, available: range.start.get()..range.end.get() });
                }
                Fetched::Wrong => {
                    self.repaired_at = Some(item.queue_offset);
                    shared.rebuild(queue)?;
                    self.items.clear();
                    self.next = item.queue_offset;
                }
                Fetched::Message(message) => return Ok(Some(message)),
                Fetched::Gone => {}
            }
        }
        Ok(None)
    }
}

impl Iterator for QueueIter {
    type Item = Result<MessageView>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
