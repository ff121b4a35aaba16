//! One queue as readers see it.
//!
//! Always: `min <= next`, and every entry of `first_entry..end_entry` is whole on disk. In a plain queue
//! `end_entry == next` and `first_entry == min`; in a batch queue `first_entry` may stand before the entry of `min`.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::QueueSizes;
use super::entry_files::{EntryFiles, Kind, Shared};
use super::extension::{self, Extension};
use super::rebuild::Rebuild;
use crate::disk::Storage;
use crate::error::{Error, Result};
use crate::format::names::is_folder_name;
use crate::format::queue_entry::{BatchEntry, ExtensionAddress, QueueEntry};
use crate::offset::{QueueCursor, QueueOffset};

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

/// What was written since the last sync.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsynced {
    pub(super) files: Range<u64>,
    /// Files appeared or went.
    pub(super) names: bool,
}

impl Writer {
    pub(super) fn wrote(&mut self, file: u64) {
        let files = &mut self.unsynced.get_or_insert_default().files;
        *files = if files.is_empty() { file..file + 1 } else { files.start.min(file)..files.end.max(file + 1) };
    }

    pub(super) fn renamed(&mut self) {
        self.unsynced.get_or_insert_default().names = true;
    }

    /// A rebuild found something to repair.
    pub(super) fn changed(&mut self) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.changed = true;
        }
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
    writer: Mutex<Writer>,
    pub(super) touched: AtomicBool,
    pub(super) damaged: AtomicBool,
}

impl ConsumeQueue {
    /// Opens a queue alone, in a store's `root` folder; its files hold `file_entries` entries each.
    ///
    /// The end is found by reading the files up to the first empty entry; fillers at the front are below the range.
    /// The cursor stands at the end. Nothing is written.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidMessage`] if the topic cannot be a folder's name
    /// - [`Error::InvalidOption`] if `file_entries` is 0
    /// - [`Error::Corrupt`] if a file has another length
    /// - [`Error::Io`] if reading fails
    pub fn open(root: impl AsRef<Path>, topic: &str, queue_id: i32, file_entries: u32) -> Result<Self> {
        check_topic(topic)?;
        let root = root.as_ref().to_path_buf();
        let new_dir = root.join("mqlog").join("new");
        let sizes =
            QueueSizes { queue_file_entries: file_entries, batch_queue_file_entries: file_entries, max_open_files: 4 };
        sizes.check()?;
        let queue = Self::new(&Shared::new(Storage::real(), root, new_dir, sizes), topic.into(), queue_id, Kind::Plain);
        let files = queue.files.list()?;
        if let Some(odd) = files.iter().find(|file| queue.files.number_of(file).is_none()) {
            let position = odd.base / queue.files.file_bytes() * queue.files.per_file();
            return Err(queue.files.corrupt(position, 0, "a queue file has another length or place"));
        }
        queue.restore_from_files()?;
        Ok(queue)
    }

    pub(super) fn new(shared: &Arc<Shared>, topic: Arc<str>, queue_id: i32, kind: Kind) -> Self {
        Self {
            files: EntryFiles::new(shared, topic, queue_id, kind),
            cursor: QueueCursor::default(),
            extent: Mutex::default(),
            writer: Mutex::default(),
            touched: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.files.topic()
    }

    /// The number of the queue in its topic.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.files.queue_id()
    }

    /// Which messages are in the queue.
    #[must_use]
    #[doc(alias = "minOffsetInQueue")]
    #[doc(alias = "maxOffsetInQueue")]
    pub fn range(&self) -> Range<QueueOffset> {
        let extent = self.extent();
        QueueOffset::new(extent.min)..QueueOffset::new(extent.next)
    }

    /// The offset that the queue's next message will get; never below the end of [`range`](Self::range) unless the
    /// queue was truncated.
    #[must_use]
    pub fn cursor(&self) -> &QueueCursor {
        &self.cursor
    }

    /// Returns at most `max` entries, from the message at `from` on, or from the first one if that is later.
    ///
    /// Empty at or behind the end. If `from` is inside of a batch, the first item is that batch.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if an entry does not decode, or an extension unit is missing
    /// - [`Error::Io`] if reading fails
    pub fn read(&self, from: QueueOffset, max: usize) -> Result<Vec<QueueItem>> {
        self.stable(|extent| {
            let mut items = Vec::new();
            let mut extension = None;
            let mut index = self.index_of(extent, from.get().max(extent.min))?;
            while index < extent.end_entry && items.len() < max {
                let wanted = (max - items.len()) as u64;
                let bytes = self.files.read(index, wanted.min(extent.end_entry - index))?;
                for entry in bytes.chunks_exact(self.files.entry_bytes()) {
                    if let Some(item) = self.decode(index, entry)? {
                        items.push(self.resolve(index, item, &mut extension)?);
                    }
                    index += 1;
                }
            }
            Ok(items)
        })
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
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what readers see; the cursor never stays behind. The caller holds the writer's lock.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Extent)) {
        let next = {
            let mut extent = self.extent.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut extent);
            debug_assert!(extent.min <= extent.next && extent.first_entry <= extent.end_entry);
            extent.next
        };
        if self.cursor.next().get() < next {
            // Where a log appends, its cursor is ahead of the entries and this does not happen.
            self.cursor.set(QueueOffset::new(next));
        }
        self.touched.store(true, Ordering::Release);
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first entry that ends behind a queue offset.
    pub(super) fn index_of(&self, extent: &Extent, offset: u64) -> Result<u64> {
        let entries = extent.first_entry..extent.end_entry;
        match self.files.kind() {
            Kind::Plain => Ok(offset.clamp(entries.start, entries.end)),
            Kind::Batch => self.partition(entries, |item| Ok(item.end() <= offset)),
        }
    }

    /// Decodes an entry that must be there; `None` for a filler.
    pub(super) fn decode(&self, index: u64, bytes: &[u8]) -> Result<Option<QueueItem>> {
        let item = match self.files.kind() {
            Kind::Plain => QueueEntry::decode(bytes).map(|entry| {
                let queue_offset = QueueOffset::new(index);
                entry.map(|entry| QueueItem { queue_offset, count: 1, entry, store_ms: None })
            }),
            Kind::Batch => BatchEntry::decode(bytes).map(|entry| entry.map(batch_item)),
        };
        match item {
            Ok(Some(item)) if item.entry.is_filler() => Ok(None),
            Ok(Some(item)) => Ok(Some(item)),
            Ok(None) => Err(self.files.corrupt(index, 1, "an entry is missing")),
            Err(error) => Err(self.files.corrupt(index, 1, error.to_string())),
        }
    }

    /// Replaces an extension address by the tags code of its unit.
    fn resolve(&self, index: u64, mut item: QueueItem, extension: &mut Option<Extension>) -> Result<QueueItem> {
        if let Some(code) = self.tags_code(&item.entry, extension)? {
            item.entry.tags_code = code;
            return Ok(item);
        }
        Err(self.files.corrupt(index, 1, "the extension unit is missing"))
    }

    /// Returns an entry's tags code, `None` if it is in an extension unit that is missing or damaged.
    pub(super) fn tags_code(&self, entry: &QueueEntry, extension: &mut Option<Extension>) -> Result<Option<i64>> {
        let address = ExtensionAddress::from_tags_code(entry.tags_code);
        let Some(address) = address.filter(|_| self.files.kind() == Kind::Plain) else {
            return Ok(Some(entry.tags_code));
        };
        let extension = match extension {
            Some(open) => open,
            None => {
                let dir = self.files.dir_in(extension::FOLDER);
                extension.insert(Extension::open(&self.files.shared().storage, &dir)?)
            }
        };
        extension.tags_code(address)
    }
}

fn batch_item(entry: BatchEntry) -> QueueItem {
    QueueItem {
        queue_offset: QueueOffset::new(entry.base),
        count: entry.count.into(),
        entry: QueueEntry {
            log_offset: entry.log_offset,
            record_bytes: entry.record_bytes,
            tags_code: entry.tags_code,
        },
        store_ms: Some(entry.store_ms),
    }
}

/// Refuses a topic that cannot be the name of a folder.
pub(super) fn check_topic(topic: &str) -> Result<()> {
    if is_folder_name(topic) {
        return Ok(());
    }
    Err(Error::InvalidMessage { field: "topic", reason: format!("{topic:?} cannot be the name of a folder") })
}
