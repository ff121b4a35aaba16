//! One queue as readers see it.
//!
//! Always: `min <= next`, `first_entry` is at or before the entry of `min`, and every entry from that one to `end_entry`
//! is whole on disk. In a plain queue `end_entry == next`, and an entry's number is its queue offset.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::entry_files::{EntryFiles, Extension, QueueSizes, Shared};
use crate::disk::Storage;
use crate::error::{Corruption, Error, Result};
use crate::format::DecodeError;
use crate::format::names::is_folder_name;
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::message::check_that;
use crate::offset::{LogOffset, QueueCursor, QueueOffset};
use crate::progress::lock;

/// One entry of a queue, as [`ConsumeQueue::read`] returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "CqUnit")]
pub struct QueueItem {
    /// The queue offset of the record's first message.
    pub queue_offset: QueueOffset,
    /// How many messages the record holds: more than one only in a batch queue.
    pub count: u32,
    /// Where the record is. The tags code is never an address: it was looked up in the extension files.
    pub entry: QueueEntry,
    /// The record's store time, in ms since 1970, where the entry has it: in a batch queue.
    pub store_ms: Option<i64>,
}

impl QueueItem {
    /// The queue offset behind the record's last message.
    pub(super) fn end(&self) -> u64 {
        self.queue_offset.get() + u64::from(self.count)
    }
}

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

/// What readers see of a queue; taken and published as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) min: u64,
    pub(super) next: u64,
    pub(super) first_entry: u64,
    pub(super) end_entry: u64,
    /// Moves when entries that readers may have seen go or change; growing does not move it.
    pub(super) generation: u32,
}

/// What the one writer knows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) unsynced: Option<Box<Unsynced>>,
    pub(super) rebuild: Option<Box<Rebuild>>,
}

/// What was written since the last sync: files by number, and `None` if files appeared or went.
#[derive(Debug, Default)]
pub(super) struct Unsynced(pub(super) BTreeSet<Option<u64>>);

/// Damage of the log, as whoever walks over it meets it.
pub(crate) type Damages = Arc<Mutex<Vec<Corruption>>>;

/// A rebuild under way.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    pub(super) lost: Lost,
    /// Has an entry been appended? The first one decides where the queue begins.
    pub(super) started: bool,
    /// Did a file differ from the log?
    pub(super) changed: bool,
}

/// What a rebuild knows of messages that it does not meet.
#[derive(Debug, Default, Clone)]
pub(super) struct Lost {
    /// Where the log begins: an entry of a record in it is right only where the rebuild says it too.
    pub(super) log_start: u64,
    /// The damage that was met so far.
    pub(super) damages: Damages,
}

impl Lost {
    /// Is this the entry of a message that no other can replace: its record was deleted, or is damaged?
    pub(super) fn has(&self, entry: &QueueEntry) -> bool {
        let is_damaged = || lock(self.damages.as_ref()).iter().any(|damage| damage.range.contains(&entry.log_offset));
        !entry.is_filler() && (entry.end() <= self.log_start || is_damaged())
    }
}

impl Writer {
    /// Takes note of a change: of a file that is written, or of names that appear or go.
    pub(super) fn note(&mut self, file: Option<u64>) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.changed = true;
        }
        self.unsynced.get_or_insert_default().0.insert(file);
    }
}

/// The queue of one (topic, queue id): for each message the place of its record in the log.
///
/// It is written by one thread at a time and read by many. What [`append`](Self::append) returned is in the files, but
/// durable only after [`sync`](Self::sync); the log is the truth, a queue can always be built again from it.
///
/// # Examples
///
/// ```
/// use mqlog::format::queue_entry::QueueEntry;
/// use mqlog::{ConsumeQueue, QueueOffset};
///
/// let dir = tempfile::tempdir()?;
/// let queue = ConsumeQueue::open(dir.path(), "orders", 0, 1000)?;
/// let entries = [0, 100].map(|log_offset| QueueEntry { log_offset, record_bytes: 100, tags_code: 0 });
/// assert_eq!(queue.append(QueueOffset::ZERO, &entries)?, 2);
/// queue.sync()?;
/// let items = queue.read(QueueOffset::new(1), 32)?;
/// assert_eq!(items[0].entry.log_offset, 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// RocketMQ's `ConsumeQueue` and `BatchConsumeQueue`; ours is read and written without mappings, refuses gaps instead
/// of shifting entries, and zeroes what it cuts.
#[derive(Debug)]
pub struct ConsumeQueue {
    pub(super) files: EntryFiles,
    pub(super) cursor: QueueCursor,
    extent: Mutex<Extent>,
    pub(super) writer: Mutex<Writer>,
    pub(super) touched: AtomicBool,
    pub(super) damaged: AtomicBool,
}

impl ConsumeQueue {
    /// Opens a queue alone, in a store's `root` folder; its files hold `file_entries` entries each.
    ///
    /// The end is found by reading the files up to the first empty entry; fillers at the front are below the range.
    /// The cursor stands at the end. Nothing is written. Nothing keeps another opening of the same queue from appending too;
    /// then one of them loses entries.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidMessage`](crate::Error::InvalidMessage) if the topic cannot be a folder's name
    /// - [`Error::InvalidOption`](crate::Error::InvalidOption) if `file_entries` is 0
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if a file has another length
    /// - [`Error::Io`](crate::Error::Io) if reading fails
    pub fn open(root: impl AsRef<Path>, topic: &str, queue_id: i32, file_entries: u32) -> Result<Self> {
        check_that("topic", is_folder_name(topic), "it cannot name a folder")?;
        let (root, new_dir) = (root.as_ref(), root.as_ref().join("mqlog").join("new"));
        let sizes = QueueSizes {
            queue_file_entries: file_entries,
            batch_queue_file_entries: file_entries,
            max_open_files: 4,
            log_file_bytes: 0,
        };
        let queue = Self::new(&Shared::new(Storage::real(), root, &new_dir, sizes)?, topic.into(), queue_id, false);
        if let Some(odd) = queue.files.list()?.0.iter().find(|file| !queue.files.is_whole(file)) {
            let position = odd.base / queue.files.file_bytes() * queue.files.per_file();
            return Err(queue.files.corrupt(position, 0, "a queue file has another length or place"));
        }
        queue.restore_from_files()?;
        Ok(queue)
    }

    pub(super) fn new(shared: &Arc<Shared>, topic: Arc<str>, queue_id: i32, is_batch: bool) -> Self {
        Self {
            files: EntryFiles::new(shared, topic, queue_id, is_batch),
            cursor: QueueCursor::default(),
            extent: Mutex::default(),
            writer: Mutex::default(),
            touched: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.files.topic
    }

    /// The number of the queue in its topic.
    pub fn queue_id(&self) -> i32 {
        self.files.queue_id
    }

    /// Which messages are in the queue.
    #[doc(alias("minOffsetInQueue", "maxOffsetInQueue"))]
    pub fn range(&self) -> Range<QueueOffset> {
        let extent = self.extent();
        QueueOffset::new(extent.min)..QueueOffset::new(extent.next)
    }

    /// The offset that the queue's next message will get; never below the end of [`range`](Self::range) unless the
    /// queue was truncated.
    pub fn cursor(&self) -> &QueueCursor {
        &self.cursor
    }

    /// Returns at most `max` entries, from the message at `from` on, or from the first one if that is later.
    ///
    /// Empty at or behind the end. If `from` is inside of a batch, the first item is that batch.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`](crate::Error::Corrupt) if an entry does not decode, an extension unit is missing, or the
    ///   batches are not in order
    /// - [`Error::Io`](crate::Error::Io) if reading fails
    pub fn read(&self, from: QueueOffset, max: usize) -> Result<Vec<QueueItem>> {
        self.stable(|extent| {
            let mut extension = Extension::new(&self.files);
            let mut next = from.get().max(extent.min);
            let first = self.index_of(extent, next)?;
            let items = self.items(first..extent.end_entry, max)?.into_iter().map(|(index, mut item)| {
                let damaged = |what| self.files.corrupt(index, 1, what);
                if item.end() <= next {
                    // Whoever goes on behind it would come here again.
                    return Err(damaged("a batch ends where an earlier one did"));
                }
                next = item.end();
                let tags_code = extension.tags_code(&item.entry)?;
                item.entry.tags_code = tags_code.ok_or_else(|| damaged("the extension unit is missing"))?;
                Ok(item)
            });
            items.collect()
        })
    }

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
        // Most queues lose nothing: look at the first entry before searching. One of fillers alone has no message, and none begins
        // with them.
        let is_first = |first: &QueueItem| !is_below(first) && first.queue_offset.get() <= extent.min;
        if !self.first_real(entries.clone())?.is_some_and(|(_, first)| is_first(&first)) {
            let index = self.partition(entries, |item| Ok(is_below(item)))?;
            let min = self.offset_at(&extent, index)?;
            if min > extent.next {
                return Err(self.files.corrupt(index, 1, "a batch is behind the queue's end"));
            }
            self.publish(Extent { min, first_entry: index, ..extent });
        }
        Ok(())
    }

    /// Has the queue begin with the first file that is there: where this process only reads, another may delete files. Returns
    /// whether any were gone.
    pub(crate) fn leave_out_missing(&self) -> Result<bool> {
        let _writer = lock(&self.writer);
        let extent = self.extent();
        loop {
            let lowest = self.files.numbers()?.first().map_or(extent.end_entry, |file| file * self.files.per_file());
            let first_entry = lowest.min(extent.end_entry);
            if first_entry <= extent.first_entry {
                return Ok(false);
            }
            match self.offset_at(&extent, first_entry) {
                // Gone in this moment.
                Err(Error::Corrupt(_)) if self.files.numbers()?.first() != Some(&(lowest / self.files.per_file())) => {}
                min => {
                    self.replace(Extent { min: min?, first_entry, ..extent });
                    return Ok(true);
                }
            }
        }
    }

    /// Does what a reader does, again if what it saw has changed meanwhile.
    pub(super) fn stable<T>(&self, mut look: impl FnMut(&Extent) -> Result<T>) -> Result<T> {
        loop {
            let extent = self.extent();
            let seen = look(&extent);
            if self.extent().generation == extent.generation {
                return seen;
            }
        }
    }

    pub(super) fn extent(&self) -> Extent {
        *lock(&self.extent)
    }

    /// Changes what readers see; the cursor never stays behind. The caller holds the writer's lock.
    pub(super) fn publish(&self, extent: Extent) {
        debug_assert!(extent.min <= extent.next && extent.first_entry <= extent.end_entry);
        *lock(&self.extent) = extent;
        if self.cursor.next().get() < extent.next {
            // Where a log appends, its cursor is ahead of the entries and this does not happen.
            self.cursor.set(QueueOffset::new(extent.next));
        }
        self.touched.store(true, Ordering::Release);
    }

    /// The same where entries that readers may have seen go or change.
    pub(super) fn replace(&self, extent: Extent) {
        self.publish(Extent { generation: self.extent().generation + 1, ..extent });
    }

    /// Returns the first entry that ends behind a queue offset.
    pub(super) fn index_of(&self, extent: &Extent, offset: u64) -> Result<u64> {
        if self.files.is_batch {
            return self.partition(extent.first_entry..extent.end_entry, |item| Ok(item.end() <= offset));
        }
        Ok(offset.min(extent.end_entry))
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

    /// Returns the first `max` entries of a range that are no fillers, each with its number.
    pub(super) fn items(&self, entries: Range<u64>, max: usize) -> Result<Vec<(u64, QueueItem)>> {
        let mut items = Vec::new();
        let mut index = entries.start;
        let mut at_once = max as u64;
        while index < entries.end && items.len() < max {
            let bytes = self.files.read(index, at_once.min(entries.end - index))?;
            for entry in bytes.chunks_exact(self.files.entry_bytes()) {
                if items.len() == max {
                    break;
                }
                items.extend(self.decode(index, entry)?.map(|item| (index, item)));
                index += 1;
            }
            // Fillers are rare, and many where there are some.
            at_once = u64::MAX;
        }
        Ok(items)
    }

    /// Decodes an entry that must be there; `None` for a filler.
    pub(super) fn decode(&self, index: u64, bytes: &[u8]) -> Result<Option<QueueItem>> {
        match self.parse(index, bytes) {
            Ok(Some(item)) => Ok(Some(item).filter(|item| !item.entry.is_filler())),
            Ok(None) => Err(self.files.corrupt(index, 1, "an entry is missing")),
            Err(error) => Err(self.files.corrupt(index, 1, error.to_string())),
        }
    }

    /// Decodes what may be an entry.
    pub(super) fn parse(&self, index: u64, bytes: &[u8]) -> Result<Option<QueueItem>, DecodeError> {
        // A batch entry begins with a plain one.
        let Some(entry) = QueueEntry::decode(bytes)? else { return Ok(None) };
        let batch = if self.files.is_batch { BatchEntry::decode(bytes)? } else { None };
        Ok(Some(match batch {
            Some(BatchEntry { base, count, store_ms, .. }) => {
                QueueItem { queue_offset: base.into(), count: count.into(), entry, store_ms: Some(store_ms) }
            }
            None => QueueItem { queue_offset: index.into(), count: 1, entry, store_ms: None },
        }))
    }
}
